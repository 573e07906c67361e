"""Every verb and every parameterised notebook on every recipe: a cell works, or refuses in one line.

What may refuse, and why, stands in nbs/refusals.csv; the page of the command line shows the table.
"""
import builtins
import contextlib
import csv
import functools
import hashlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import tiny
from conftest import TESTS
from IPython.display import display

import geoseg
from geoseg import cli

NBS = TESTS.parent / 'nbs'
VERBS = [name for name, verb in cli.VERBS.items() if verb.needs != 'nothing']
REFUSALS = list(csv.DictReader((NBS / 'refusals.csv').open(encoding='utf-8')))


def notebooks() -> dict[str, list[str]]:
    "The notebooks that take a recipe or a checkpoint, with the names of their parameters."
    names_of_notebook = {}
    for path in sorted(NBS.glob('*.ipynb')):
        cells = nbformat.read(path, 4).cells
        text = next((c.source for c in cells if 'parameters' in c.metadata.get('tags', [])), '')
        names = re.findall(r'^(\w+) = ', text, re.M)
        if {'recipe', 'checkpoint'} & set(names):
            names_of_notebook[path.name] = names
    return names_of_notebook


def refusal(verb: str, recipe: str) -> str | None:
    "Why a pair may be refused; None where it must work."
    rows = (row for row in REFUSALS if row['verb'] == verb and re.fullmatch(row['recipe'], recipe))
    return next((row['reason'] for row in rows), None)


@pytest.fixture
def given(tmp_path, own_run, monkeypatch) -> Callable:
    "`given(recipe)`: what the verbs are told: tiny settings, a run of their own, data with photos and a map."
    monkeypatch.chdir(TESTS.parent)
    from geoseg.world.layouts import world_data

    def words(recipe):
        settings = tiny.settings(recipe, epochs=1) | {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1}
        if recipe.startswith('game4loc'):
            del settings['trainer.limit_val_batches']  # an evaluation needs all pictures
        gta = world_data('gta', size='tiny')
        scene = next(world_data('raster', size='tiny').glob('*_image.tif'))
        new = scene.with_name('20220712_image.tif')
        return {'settings': settings, 'run': own_run(recipe), 'out': tmp_path / 'out',
                'photos': gta / 'drone' / 'images', 'tiles': gta, 'map': scene, 'new': new}

    return words


def inputs_of(given: dict) -> dict[Path, tuple]:
    "What a verb reads: checkpoints and the files of the worlds by size and time, others of the run by their contents."
    from geoseg.core.files import cache_folder
    worlds = (path for path in (cache_folder() / 'world').glob('tiny-*/[!.]*/**/*') if path.is_file())
    run = [path for path in given['run'].rglob('*') if path.is_file()]
    large = [path for path in run if path.suffix == '.ckpt']
    return ({path: (hashlib.blake2b(path.read_bytes()).digest(),) for path in run if path not in large}
            | {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in (*large, *worlds)})


def command(verb: str, recipe: str, given: dict) -> list[str]:
    "The words of a verb; a new verb says here what it needs."
    settings = [f'{key}={value}' for key, value in given['settings'].items()]
    new = ['--recipe', recipe, f'data={tiny.DATA}', *settings]
    old, out = ['--checkpoint', str(given['run'])], f'out={given["out"]}'
    places = [f'photos={given["photos"]}', f'tiles={given["tiles"]}', out]
    file = '' if recipe == 'wildscenes-fcn' else '/model.pt2'  # ONNX, which takes longest, of all: test_exports.py
    words = {
        'prepare': new, 'inspect': new, 'statistics': [*new, out],
        'init': ['--recipe', recipe, f'data={own_world(recipe)}', out,
                 *['patch=32'] * (recipe == 'deepglobe-trm')],
        'fit': [*new, out], 'profile': [*new, 'steps=1'],
        'find-lr': [*new, out, 'steps=5'],
        'audit-labels': [*new, out, 'splits=[val]', 'folds=2', 'teach=200', 'crops=2', 'most=30'],
        'sweep': [*(w for w in new if not w.startswith('seed=')), 'seeds=[0]', out, f'scores=[{monitor(recipe)}]'],
        'validate': [*old, out], 'test': [*old, out], 'predict': [*old, out], 'calibrate': [*old, out],
        'halt-cal': [*old, out, 'delta=0.5', 'by=sample'], 'localize': [*old, *places],
        'gallery': [*old, f'data={given["map"]}', out],
        'changes': [*old, f'data={given["new"]}', f'maps={given["new"].parent}', 'known=[20210902]', 'write=[]', out],
        'efficiency': [*old, 'repeats=1', 'size=64'], 'serve': [*old, 'listen=false'],
        'export': [*old, f'{out}{file}', 'chips=2', 'memory=without',
                   *['size=64'] * (layout_of(recipe) not in ('gta', 'mesh'))],  # any size: test_exports.py
    }
    return [verb, *words[verb]]


def layout_of(recipe: str) -> str:
    "The files that the data module of a recipe reads."
    from geoseg.core.trust import safe_class
    from geoseg.training.recipes import read_config, recipe_path
    return safe_class(read_config(recipe_path(recipe))['data']['class_path'], key='data').layout


def own_world(recipe: str) -> Path:
    "The tiny world in the layout of a recipe."
    from geoseg.world.layouts import world_data
    return world_data(layout_of(recipe), size='tiny')


@functools.cache
def monitor(recipe: str) -> str:
    "What a recipe calls best."
    from geoseg.training.config import parse
    return parse([recipe], {'data': tiny.DATA}).config.run.monitor


def in_process(path: str | Path, output=None, parameters: dict | None = None, **_):
    "Run the cells of a notebook here, its parameters replaced as papermill does."
    import matplotlib
    import matplotlib.pyplot as plt
    matplotlib.use('agg')
    names = {'__name__': '__main__', '__builtins__': vars(builtins) | {'display': display}}
    with contextlib.chdir(NBS), contextlib.redirect_stdout(io.StringIO()):
        for cell in nbformat.read(NBS / Path(path).name, 4).cells:
            if cell.cell_type == 'code':
                exec(compile(cell.source, Path(path).name, 'exec'), names)
                if 'parameters' in cell.metadata.get('tags', []):
                    names |= parameters or {}
    plt.close('all')


def parameters(notebook: str, recipe: str, given: dict) -> dict:
    "What a notebook is told; a new one says here what it needs."
    settings = dict(given['settings'])
    own = {name: settings.pop(name) for name in ('epochs', 'batch_size', 'seed')}
    run, out = str(given['run']), str(given['out'])
    words = {
        'train.ipynb': own | {'recipe': recipe, 'data': tiny.DATA, 'out': out, 'overrides': settings},
        'evaluate.ipynb': {'checkpoint': run, 'against': [run]},
        'predict.ipynb': {'checkpoint': run, 'out': out},
        'changes.ipynb': {'checkpoint': run, 'data': str(given['new']), 'maps': str(given['new'].parent), 'out': out,
                          'known': [20210902]},
        'localize.ipynb': {'checkpoint': run, 'photos': str(given['photos']), 'tiles': str(given['tiles']), 'out': out},
        'sweep.ipynb': {'recipe': recipe, 'data': tiny.DATA, 'out': out, 'seeds': [0], 'grid': {}, 'epochs': 1,
                        'parameters': settings | {'batch_size': own['batch_size']}, 'scores': [monitor(recipe)]},
    }
    return words[notebook]


def judge(verb: str, recipe: str, error: str | None):
    "A cell that works must not be on the list, one that refuses must be."
    reason = refusal(verb, recipe)
    if error is None:
        assert reason is None, f'{verb} works for {recipe}: take it off nbs/refusals.csv'
    else:
        assert reason is not None, f'{verb} refuses {recipe}: {error}'
        assert len(error.strip().splitlines()) == 1, error


@pytest.mark.parametrize('recipe', geoseg.recipes())
@pytest.mark.parametrize('verb', VERBS)
def test_a_verb(verb, recipe, given, capsys, monkeypatch):
    monkeypatch.setattr('geoseg.training.sweep.papermill.execute_notebook', in_process)
    told = given(recipe)
    words = command(verb, recipe, told)
    before = inputs_of(told)
    status, said = cli.main(words), capsys.readouterr()
    after, own = inputs_of(told), {'calibrate', 'halt-cal'}  # they write into the checkpoint
    changed = [str(path) for path, what in before.items() if after.get(path) != what]
    assert all(verb in own and path.endswith('best.ckpt') for path in changed), changed
    assert not [path for path in after if path.name.startswith(('.lock', '.writing-'))]
    lines = [line for line in said.err.splitlines() if line.startswith('geoseg ')]
    assert status in (0, 2), said.err
    judge(verb, recipe, None if status == 0 else '\n'.join(lines))


@pytest.mark.parametrize('recipe', geoseg.recipes())
@pytest.mark.parametrize('notebook', notebooks())
def test_a_notebook(notebook, recipe, given, monkeypatch):
    monkeypatch.setattr('geoseg.training.sweep.papermill.execute_notebook', in_process)
    given_parameters, error = parameters(notebook, recipe, given(recipe)), None
    assert set(given_parameters) <= set(notebooks()[notebook])
    try:
        in_process(notebook, parameters=given_parameters)
    except (ValueError, OSError) as wrong:
        error = ' '.join(str(wrong).split())
    judge(notebook, recipe, error)


def test_the_list_holds_what_makes_no_sense_alone():
    for row in REFUSALS:
        assert row['reason'] and row['verb'] in (*VERBS, *notebooks())
        assert any(re.fullmatch(row['recipe'], recipe) for recipe in geoseg.recipes())
    for verb in ('fit', 'validate', 'test', 'predict', 'inspect', 'profile', 'train.ipynb', 'evaluate.ipynb'):
        assert not any(row['verb'] == verb for row in REFUSALS)


def test_the_page_shows_the_table():
    page = (NBS / 'command_line.ipynb').read_text(encoding='utf-8')
    assert 'refusals.csv' in page


def test_a_refusal_that_is_not_listed_fails(monkeypatch):
    for error, listed in (('no', None), (None, 'for a reason')):
        monkeypatch.setattr(sys.modules[__name__], 'refusal', lambda verb, recipe, listed=listed: listed)
        with pytest.raises(AssertionError):
            judge('fit', 'unet', error)
