"Parameters that are paths, given as what papermill and YAML make of names that do not look like text."
import ast
import importlib
from datetime import date
from pathlib import Path

import papermill.cli
import pytest
import yaml
from PIL import Image

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.core.notebooks import as_path, path_parameters
from geoseg.training.config import parse


def verbs():
    'The functions that the command line and the notebooks call, by where they stand.'
    from warm import NBS
    sources = [Path(cli.__file__).read_text()]
    for notebook in NBS.glob('*.ipynb'):
        cells = yaml.safe_load(notebook.read_text())['cells']
        if any('parameters' in cell['metadata'].get('tags', []) for cell in cells):
            sources += [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    found = {(node.module, name.name) for source in sources for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('geoseg.') for name in node.names}
    return {name: function for module, name in sorted(found) if name in VERBS
            and callable(function := getattr(importlib.import_module(module), name))}


VERBS = ('train', 'predict', 'evaluate', 'localize', 'calibrate', 'calibrate_halting', 'run_efficiency', 'sweep',
         'inspect', 'profile', 'load_plugins', 'export', 'update_map', 'changes')


@pytest.mark.parametrize('verb', VERBS)
def test_every_path_of_every_verb_is_taken_as_text(verb):
    function = verbs()[verb]
    for name in path_parameters(function):
        needed = 'checkpoint', 'photos', 'plugins', 'data', 'maps'
        others = {other: 'x' for other in needed if other in path_parameters(function)}
        for value in (True, 1e5, [False]):
            with pytest.raises(ConfigError, match=rf'{name} is (True|100000.0|False), no path.*-r {name} NAME'):
                function(**others | {name: value})


@pytest.mark.parametrize('typed', ['2020', '-3', '2020-05-01', 'here', './on', './1e5', 'a b', '2020_x', '~'])
def test_what_can_be_told_from_text_is(typed):
    by_papermill = papermill.cli._resolve_type(typed)
    by_yaml = yaml.safe_load(typed)
    for given in (by_papermill, by_yaml, {'train': by_papermill}, [by_yaml]):
        if given in (None, [None]):  # ~ in YAML
            continue
        told = as_path('data', given)
        assert told == type(given)({'train': typed}) if isinstance(given, dict) else told in (typed, [typed])


@pytest.mark.parametrize('typed', ['on', 'No', 'true', '1e5', '.5', '2020.10', 'True', 'nan'])
def test_what_cannot_be_told_is_refused(typed):
    lost = [value for value in (papermill.cli._resolve_type(typed), yaml.safe_load(typed)) if value != typed]
    assert lost
    for value in lost:
        with pytest.raises(ConfigError, match='data is .*no path'):
            as_path('data', value)


@pytest.mark.parametrize('data', [2020, {'train': 2020, 'val': 2020}, date(2020, 5, 1)])
def test_the_folder_of_a_number_is_read(data, tmp_path, monkeypatch):
    for name in ('2020', '2020-05-01'):
        for folder in ('images', 'masks'):
            (tmp_path / name / folder).mkdir(parents=True)
            Image.new('L', (8, 8)).save(tmp_path / name / folder / 'a.png')
    monkeypatch.chdir(tmp_path)
    root = parse(['unet'], {'data': data}).config.data.init_args.root
    assert root == ({'train': '2020', 'val': '2020'} if isinstance(data, dict) else str(data))
