"What comes from strangers: names in pages and tables, code beside the data, folders of somebody else's run."
import ast
import copy
import dataclasses
import functools
import json
import operator
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

import geoseg
from geoseg import cli
from geoseg.core.pages import csv_text, guard_cell, read_csv
from geoseg.core.plugins import letting_in
from geoseg.core.trust import is_trusted, trusted
from geoseg.data.labels import LabelScheme
from geoseg.inference.answer import Trained
from geoseg.models.predictor import Predictor
from geoseg.training.config import parse
from geoseg.training.run import Run
from geoseg.training.summary import write_summary

ROOT = Path(geoseg.__file__).parent
HOSTILE = '<img src=x onerror="alert(1)">`${alert(2)}</script><script>alert(3)</script>'
FORMULAS = ['=1+2', '+cmd', '-x', '@SUM(1)', "'quoted", "''", '=HYPERLINK("http://x","y")', 'plain', '-3', 'a,"b"']


@functools.cache
def all_calls() -> list[tuple[str, str]]:
    "The name of each method that is called in the package, and where."
    return [(node.func.attr, f'{path.relative_to(ROOT)}:{node.lineno}') for path in sorted(ROOT.rglob('*.py'))
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]


def calls(name: str) -> list[str]:
    "Where a method of that name is called in the package."
    return [where for called, where in all_calls() if called == name]


class Tags(HTMLParser):
    "The tags of a page, and the text of its scripts."

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == 'script'

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = False


def mesh_page(folder):
    from geoseg.visualization.meshes import write_mesh_page
    scheme = LabelScheme([HOSTILE, 'b'], colors=[(0, 0, 0), (9, 9, 9)])
    return write_mesh_page(folder / f'{HOSTILE.replace("/", "")}.html', np.random.default_rng(0).random((4, 3, 3)),
                           {HOSTILE: np.zeros((4, 3), np.uint8)}, scheme)


def map_page(folder):
    from geoseg.data.rasters.chips import RasterData
    from geoseg.visualization.maps import write_page
    from geoseg.world.layouts import world_data
    data = RasterData(str(world_data('raster', size='tiny')), chip=64)
    data.setup()
    last = max({a for part in data.acquisitions.values() for a in part}, key=lambda a: a.time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(last), 'name', HOSTILE)
        predictions = {HOSTILE: np.zeros((last.height, last.width), np.uint8)}
        return write_page(folder / 'map.html', data, predictions, tiles=None)


def flight_page(folder):
    from geoseg.visualization.localization import write_flight
    places = pd.DataFrame({'photo': [HOSTILE], 'tile': [HOSTILE], 'rank': 1, 'confidence': .5, 'refined_lat': 47.,
                           'refined_long': 8.})
    gps = pd.DataFrame({'lat': [47.], 'long': [8.]}, index=[HOSTILE])
    return write_flight(folder / 'flight.html', places, gps, tiles=None)


def photo_page(folder):
    from geoseg.visualization.photo_map import PhotoOnMap, write_photo_map
    outline = np.array([(47.001, 8.), (47.001, 8.001), (47., 8.001), (47., 8.)])
    photos = [PhotoOnMap(HOSTILE, '{% endraw %}{{ 7 * 7 }}' + HOSTILE, np.zeros((8, 8, 3), np.uint8), outline)]
    return write_photo_map(folder / 'photos.html', photos, outline, tiles=None)


def memory_page(folder):
    import torch

    from geoseg.geo.coords import Frame
    from geoseg.geo.memory import GeoMemory
    from geoseg.visualization.memory import write_memory_page
    memory = GeoMemory(4, frame=Frame('EPSG:32632', (4e5, 5e6)))
    memory.write(torch.rand(9, 2) * 50, torch.rand(9, 4), torch.arange(9), torch.arange(9, dtype=torch.float64))
    return write_memory_page(folder / 'memory.html', memory, tiles=None)


def change_page(folder):
    import geopandas as gpd
    import shapely
    from verbs import changes_raster

    from geoseg.visualization.changes import write_change_page
    row = {'from': HOSTILE, 'to': HOSTILE, 'area_m2': 4., 'confidence': .5, 'date_remembered': HOSTILE,
           'date_seen': HOSTILE, 'lasting': HOSTILE, 'geometry': shapely.box(500010, 5199900, 500020, 5199990)}
    gpd.GeoDataFrame([row], crs='EPSG:32633').to_file(folder / 'changes.gpkg', layer='changes')
    scheme = LabelScheme([HOSTILE, 'b'], colors=[(0, 0, 0), (9, 9, 9)])
    return write_change_page(folder / 'changes.html', changes_raster(folder), folder / 'changes.gpkg', scheme,
                             tiles=None)


PAGES = {'visualization/meshes.py': mesh_page, 'visualization/maps.py': map_page,
         'visualization/localization.py': flight_page, 'visualization/memory.py': memory_page,
         'visualization/photo_map.py': photo_page, 'visualization/changes.py': change_page}


def test_the_writers_of_pages_are_all_here():
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob('*.py')
             if re.search('folium|<script', path.read_text(encoding='utf-8')) and path.name not in (
                 '_modidx.py', 'pages.py', 'web_maps.py')}  # what the writers of maps share
    assert found == set(PAGES)


@pytest.mark.parametrize('module', PAGES)
def test_no_name_becomes_a_part_of_a_page(module, tmp_path):
    text = PAGES[module](tmp_path).read_text(encoding='utf-8')
    page = Tags(text)
    assert not [tag for tag in page.tags if tag[0] == 'img' or 'onerror' in tag[1]]
    assert not [script for script in page.scripts if script.strip() == 'alert(3)']
    if module == 'visualization/meshes.py':
        assert 'innerHTML' not in text and not re.search('`[^`]*__', text)
    else:  # folium puts popups between back quotes
        assert '${alert' not in text


def test_every_table_is_written_by_one_helper():
    assert [where.partition(':')[0] for where in calls('to_csv')] == ['core/pages.py']
    assert calls('writerows') == calls('writerow') == calls('to_html') == []
    assert {where.partition(':')[0] for where in calls('read_csv')} == {'core/pages.py'}


def test_a_table_comes_back(tmp_path):
    path = tmp_path / 'a.csv'
    table = pd.DataFrame({'name': FORMULAS, '=2': FORMULAS[::-1], 'loss': np.linspace(-2, 2, len(FORMULAS))})
    path.write_text(csv_text(table, index=False), encoding='utf-8')
    raw = pd.read_csv(path, dtype=str)
    assert not [cell for name in ('name', "'=2") for cell in raw[name] if re.match(r'[=@]|[+-](?!\d)', cell)]
    assert raw['loss'].iloc[0] == '-2.0'
    pd.testing.assert_frame_equal(read_csv(path, dtype={'name': str, '=2': str}), table)
    turned = table.set_index('name')
    path.write_text(csv_text(turned), encoding='utf-8')
    assert read_csv(path, index_col=0, dtype={'name': str}).index.astype(str).tolist() == FORMULAS
    awkward = ['a;=1', '\t=1', ' =1', '＝1', '-\u0661', 'a;;\t@b', "a;'b", "x\ty", 'line\n=2', 'plain']
    other = pd.DataFrame({'name': awkward, 'n': 1})
    path.write_text(text := csv_text(other, index=False), encoding='utf-8')
    cells = re.split('[,;\t\n]', text.replace('"', ''))
    assert not [cell for cell in cells if re.match('\\s*[=@＝-]', cell)]
    pd.testing.assert_frame_equal(read_csv(path), other)
    ends = pd.DataFrame({'name': ['a\rb', 'a\r\nb', 'a\nb', '\r', '=a\r', 'a"\r"b', '"\r\n"', 'a,\r,b', 'b'], 'n': 1})
    for part, sep in ((ends, ','), (ends[:1], ','), (ends, ' ')):
        path.write_bytes(csv_text(part, index=False, sep=sep).encode())
        pd.testing.assert_frame_equal(read_csv(path, sep=sep), part)
    assert csv_text(ends[:1], index=False) == 'name,n\n"a\rb",1\n'
    for end in ('\n', '\r\n', '\r'):  # of a person's file
        for text in ('name,n\na,1\nb,1\n', '"name","n"\n"a","1"\n"b",1'):
            path.write_bytes(text.replace('\n', end).encode())
            assert read_csv(path).to_dict('list') == {'name': ['a', 'b'], 'n': [1, 1]}
    plain = pd.DataFrame({'name': ['a', 'b'], 'loss': [-1, 1]})
    assert csv_text(plain, index=False) == plain.to_csv(index=False, lineterminator='\n')  # files look as they did


@pytest.mark.parametrize('quoting', range(4))
def test_a_quote_of_a_person_stays(tmp_path, quoting):
    path = tmp_path / 'own.csv'
    pd.DataFrame({'name': FORMULAS, 'split': 'train'}).to_csv(path, index=False, quoting=quoting, escapechar='\\')
    given = pd.read_csv(path, dtype=str, escapechar='\\')
    assert read_csv(path, dtype=str, escapechar='\\').equals(given)


def test_readers_take_the_quote_off(tmp_path):
    from geoseg.data.pictures.geotags import read_gps
    from geoseg.data.splits import read_split, write_split
    from geoseg.training.ledger import Ledger
    names = [name for name in FORMULAS if name != '-3']
    write_split(pd.DataFrame({'name': names, 'split': 'train'}), tmp_path / 'split.csv')
    assert read_split(tmp_path / 'split.csv', names)['name'].tolist() == names
    gps = pd.DataFrame({'filename': names, 'lat': -1., 'long': -2.})
    (tmp_path / 'gps.csv').write_text(csv_text(gps, index=False), encoding='utf-8')
    assert read_gps(tmp_path / 'gps.csv').index.tolist() == names
    scheme = LabelScheme(names)
    assert LabelScheme.load(scheme.save(tmp_path / 'category.csv')).names == scheme.names
    ledger = Ledger(tmp_path, 'rows')
    for i, name in enumerate(names):
        ledger.add(str(i), {'name': name})
    assert ledger.table()['name'].tolist() == names
    assert all(guard_cell(name) == name for name in (-1, 2.5, None, 'plain'))


# code beside the data

TRAP = "open({!r}, 'a').write(__name__ + ' ')\n"
SHADOWED = ('pynvml', 'wandb', 'mlflow', 'comet_ml', 'tensorflow', 'tensorboardX', 'cupy', 'triton', 'yaml', 'torch',
            'lightning', 'numpy', 'a_plugin')


@pytest.fixture
def trap(tmp_path):
    "A folder with files named like packages; each leaves a mark where it is imported."
    folder, mark = tmp_path / 'sent', tmp_path / 'ran'
    folder.mkdir()
    for name in SHADOWED:
        (folder / f'{name}.py').write_text(TRAP.format(str(mark)))
    notebook = {'cells': [{'cell_type': 'code', 'metadata': {'tags': ['parameters']}, 'outputs': [], 'id': 'a',
                           'execution_count': None, 'source': TRAP.format(str(mark)) + 'seed=out=overrides=None'}],
                'metadata': {'kernelspec': {'name': 'python3', 'display_name': 'a'}}, 'nbformat': 4,
                'nbformat_minor': 5}
    for place in (folder, folder / 'nbs'):
        place.mkdir(exist_ok=True)
        (place / 'train.ipynb').write_text(json.dumps(notebook))
    return folder, mark


SCRIPT = [Path(sys.executable).with_name('geoseg')]
MODULE = [sys.executable, '-m', 'geoseg.cli']
TORCHRUN = [Path(sys.executable).with_name('torchrun'), '--nproc_per_node=1', '-m', 'geoseg.cli']
DASH_C = [sys.executable, '-c', 'import os, sys; from importlib.util import find_spec; from geoseg.cli import main; '
          'sys.exit(main() or find_spec("lightning").origin.startswith(os.getcwd()))']


@pytest.mark.parametrize('start', [SCRIPT, MODULE, TORCHRUN, DASH_C], ids=['script', 'module', 'torchrun', 'main'])
def test_nothing_is_imported_because_of_where_one_stands(trap, start):
    folder, mark = trap
    parts = [str(ROOT.parent)] + [''] * (start in (SCRIPT, MODULE))  # an empty part of the path: where one stands
    path = os.pathsep.join(parts)
    if start == DASH_C:  # Python's own: a program's first imports
        for name in ('yaml', 'torch', 'numpy'):
            (folder / f'{name}.py').unlink()
    words = ['inspect', '--recipe', 'unet', 'data=world:tiny', 'image_size=[32,32]', 'crop=[32,32]', 'num_workers=0']
    words = words if start == SCRIPT else ['recipes']  # it imports YAML; a second later all that is heavy would follow
    done = subprocess.run([*start, *words], cwd=folder, capture_output=True, text=True, timeout=300,
                          env=os.environ | {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'MASTER_PORT': '0'})
    assert done.returncode == 0, done.stderr[-2000:]
    assert not mark.exists(), mark.read_text()


def test_a_bare_name_is_no_file_of_where_one_stands(trap, monkeypatch):
    from geoseg.training.recipes import recipe_path
    from geoseg.training.sweep import find_notebook
    folder, _ = trap
    (folder / 'unet').write_text('{}')
    monkeypatch.chdir(folder)
    assert not find_notebook('train.ipynb').is_relative_to(folder)
    assert not recipe_path('unet').is_relative_to(folder)
    assert find_notebook('./train.ipynb') == folder / 'train.ipynb'
    with pytest.raises(FileNotFoundError, match=r'\./own\.ipynb'):
        find_notebook('own.ipynb')


# somebody else's run

BAD_CLASSES = ('os.system', 'subprocess.Popen', 'builtins.eval', 'collections.Counter', 'geoseg.core.trust.os.system',
               'geoseg.core.files.Path', 'geoseg.core.plugins.load_plugins', 'torch.nn.functional.relu', 'trap.Network',
               'torch.hub.load', 'torch.load', 'timm.create_model', 'transformers.pipeline', 'wandb.Run',
               'lightning.pytorch.callbacks.LambdaCallback', 'lightning.pytorch.Trainer', 'torchvision.models.resnet18')
CLASS_KEYS = ('model', 'model.init_args.network', 'model.init_args.loss', 'model.init_args.optimizer',
              'model.init_args.schedule', 'data')
SECTIONS_OF_STRINGS = ('trainer.callbacks', 'trainer.logger', 'trainer.plugins', 'trainer.profiler', 'trainer.strategy')


def put(settings, key, value):
    *above, last = key.split('.')
    for name in above:
        settings = settings[name]
    settings[last] = value


@pytest.fixture
def sent(tmp_path, own_run, monkeypatch):
    "`sent(recipe)`: the folder of a run, and `write(key, value)` that changes its configuration."
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'trap.py').write_text(TRAP.format(str(tmp_path / 'ran')))

    def folder(recipe='unet'):
        run = Path(shutil.copytree(own_run(recipe), tmp_path / recipe, dirs_exist_ok=True))
        config = run / 'config.yaml'
        clean = config.read_text()

        def write(key, value):
            settings = yaml.safe_load(clean)
            put(settings, key, value)
            config.write_text(yaml.safe_dump(settings))

        return run, write

    return folder


def refused(function, *arguments, **kwargs):
    "The one line with which something is refused."
    with pytest.raises((ValueError, OSError)) as error:
        function(*arguments, **kwargs)
    return str(error.value)


def test_a_configuration_names_no_class_outside(sent, tmp_path):
    run, write = sent()
    for i, key in enumerate((*CLASS_KEYS, *SECTIONS_OF_STRINGS)):
        for path in ('trap.Network', *BAD_CLASSES[i % 4::4]):  # reading a configuration takes a second
            many = [{'class_path': path}] if key.startswith('trainer') else path
            for value in ({'class_path': path, 'init_args': {}}, many):
                write(key, value)
                refused(Run(run).open)
    write('model.init_args.network', 'other.yaml')
    assert 'file of settings' in refused(Run(run).open)
    assert not (tmp_path / 'ran').exists() and 'trap' not in sys.modules


def test_a_card_names_no_class_outside(sent, tmp_path):
    run, _ = sent()
    known = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    card = copy.deepcopy(known['geoseg'])
    for path in (*BAD_CLASSES, 'torch.optim.AdamW', 'geoseg.data.pictures.images.FolderData'):
        known['geoseg'] = card | {'network': {'class_path': path, 'init_args': {}}}
        torch.save(known, run / 'checkpoints/best.ckpt')
        assert path in refused(Predictor.load, run / 'checkpoints/best.ckpt')
    assert not (tmp_path / 'ran').exists() and 'trap' not in sys.modules


@pytest.mark.parametrize('value', ['https://host/x', 's3://bucket/x', 'hf-hub:a/b', 'tu-hf-hub:a/b', '/vsicurl/http://h/x',
                                   '/etc/passwd', '~/x', '../../x', 'a/../../x', 'local-dir:/x'])
def test_no_argument_leaves_the_folder(sent, value):
    run, write = sent()
    for key in ('model.init_args.network.init_args.encoder', 'trainer.default_root_dir'):
        write(key, value)
        message = refused(Run(run).open)
        assert value in message and '--trust' in message and 'config.yaml' in message
    if '://' in value or 'hub' in value:
        write('data.init_args.root', value)
        assert 'address' in refused(Run(run).open)
    known = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    known['geoseg']['network']['init_args']['encoder'] = value
    torch.save(known, run / 'checkpoints/best.ckpt')
    assert value in refused(Predictor.load, run / 'checkpoints/best.ckpt')


ELSEWHERE = {'class_path': 'lightning.pytorch.callbacks.ModelCheckpoint', 'init_args': {'dirpath': '/elsewhere'}}
LOGGED = {'class_path': 'lightning.pytorch.loggers.CSVLogger', 'init_args': {'save_dir': 'beside'}}


def as_text(settings, key, value):
    put(settings, key, json.dumps(value))


def as_yaml(settings, key, value):
    put(settings, key, yaml.safe_dump(value))


def as_keyword(settings, key, value):
    above, _, last = key.rpartition('.init_args.')
    put(settings, f'{above}.dict_kwargs', {last: value})


def as_dotted(settings, key, value):
    above, _, last = key.rpartition('.init_args.')
    put(settings, above, functools.reduce(operator.getitem, above.split('.'), settings) | {f'init_args.{last}': value})


@pytest.mark.parametrize('key, value, says, spelled', [
    ('trainer.callbacks', [ELSEWHERE], 'leaves the folder', (put, as_text, as_yaml)),
    ('trainer.callbacks', [LOGGED | {'class_path': ELSEWHERE['class_path'], 'init_args': {'dirpath': 'beside'}}],
     'outside of the run', (put, as_text)),
    ('trainer.logger', LOGGED, 'outside of the run', (put, as_text)),
    ('trainer.logger', {'class_path': 'lightning.pytorch.loggers.MLFlowLogger'}, 'outside of the run', (put,)),
    ('model.init_args.network', {'class_path': 'geoseg.models.unet.UNet', 'init_args': {'encoder': '/etc/passwd'}},
     'leaves the folder', (put, as_text)),
    ('data.init_args.allow_outside', True, 'type allow_outside=true', (put, as_keyword, as_dotted))])
def test_no_spelling_gets_round_a_rule(sent, key, value, says, spelled):
    run, write = sent()
    clean = yaml.safe_load((run / 'config.yaml').read_text())
    for spell in spelled:
        settings = copy.deepcopy(clean)
        settings['data']['init_args'].pop('allow_outside', None)
        spell(settings, key, value)
        (run / 'config.yaml').write_text(yaml.safe_dump(settings))
        message = refused(Run(run).open)
        assert says in message and str(run / 'config.yaml') in message, spell
    if says.startswith('type'):
        put(clean, key, value)
        (run / 'config.yaml').write_text(yaml.safe_dump(clean))
        assert Run(run).open(overrides={'allow_outside': True}).datamodule


@pytest.mark.parametrize('recipe, name, made', [('deepglobe-trm', 'index_dir', 'patches/index-a/index.json'),
                                                ('nomeformer', 'cache', 'meshes/a/meta.json')])
def test_no_file_says_where_prepared_data_are_written(sent, tmp_path, recipe, name, made):
    'All settings of `data` that name a folder of output: it was used before, or a person types it, or trusts.'
    run, write = sent(recipe)
    clean, key = yaml.safe_load((run / 'config.yaml').read_text()), f'data.init_args.{name}'
    before = {path for path in tmp_path.rglob('*')}
    for place in (str(tmp_path), 'prepared', '~/prepared'):  # relative to where one stands
        for spell in (put, as_keyword, as_dotted):
            settings = copy.deepcopy(clean)
            settings['data']['init_args'].pop(name, None)
            spell(settings, key, place)
            (run / 'config.yaml').write_text(yaml.safe_dump(settings))
            message = refused(Run(run).open)
            assert f'{place} would be written to' in message and f'type {name}={place}' in message, spell
    assert not [path for path in tmp_path.rglob('*') if path not in before and not path.is_relative_to(run)]
    write(key, str(tmp_path / 'prepared'))
    assert Run(run).open(overrides={name: str(tmp_path / 'typed')}).datamodule
    with trusted():
        assert Run(run).open().datamodule
    (tmp_path / 'prepared' / made).parent.mkdir(parents=True)
    (tmp_path / 'prepared' / made).touch()
    assert Run(run).open().datamodule
    # a card has no such setting
    known = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    known['geoseg']['data']['init_args'] |= {name: str(tmp_path), 'allow_outside': True, 'root': '/etc'}
    torch.save(known, tmp_path / 'alone.ckpt')
    assert not {name, 'allow_outside', 'root'} & {*Trained(tmp_path / 'alone.ckpt').settings()}


@pytest.mark.parametrize('recipe', geoseg.recipes())
def test_a_run_opens_and_downloads_nothing(sent, recipe, monkeypatch):
    run, write = sent(recipe)
    settings = yaml.safe_load((run / 'config.yaml').read_text())
    network = settings['model']['init_args']['network']['init_args']
    write('model.init_args.network.init_args', network | {'pretrained': True})
    known = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    known['geoseg']['network']['init_args']['pretrained'] = 'somebody/network'
    torch.save(known, run / 'checkpoints/best.ckpt')

    def connect(*_):
        raise AssertionError('a connection')

    monkeypatch.setattr('socket.socket.connect', connect)
    assert Run(run).open().model.network is not None and Predictor.load(run / 'checkpoints/best.ckpt')


def test_trust_lifts_the_rules_for_one_call(sent, tmp_path):
    run, write = sent()
    write('model.init_args.network', {'class_path': 'trap.Network', 'init_args': {}})
    words = ['validate', '--checkpoint', str(run), f'out={tmp_path / "out"}']
    assert cli.main(words) == 2 and not (tmp_path / 'ran').exists()
    assert cli.main([*words[:1], '--trust', *words[1:]]) == 2  # it has no such class; it is looked for
    assert (tmp_path / 'ran').exists() and not is_trusted()
    sys.modules.pop('trap', None)
    for given in (['--trust', '--checkpoint', 'a'], ['--trust=true'], ['trust=true'], ['--trust', 'true'], ['--force']):
        assert {*cli.sort_words(given).overrides.values()} == {'true'}


@pytest.mark.parametrize('share', [0, .5])
def test_a_shared_network_is_whole(trained, tmp_path, share):
    Predictor.load(Run(trained).best).save_pretrained(tmp_path)
    file = tmp_path / 'model.safetensors'
    assert Predictor.from_pretrained(tmp_path)
    weights = safetensors.torch.load_file(file)
    kept = dict(list(weights.items())[:int(share * len(weights))])
    safetensors.torch.save_file(kept, file)
    message = refused(Predictor.from_pretrained, tmp_path)
    lost = [name for name in weights if name not in kept]
    assert str(file) in message and f'{len(lost)} of' in message and any(name in message for name in lost)


BOMBS = {'lists': 'a0: &a0 [x]\n' + ''.join(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]\n' for i in range(1, 30)),
         'merges': 'a0: &a0 {k0: v}\n' + ''.join(f'a{i}: &a{i} {{<<: [{", ".join([f"*a{i - 1}"] * 9)}]}}\n'
                                                for i in range(1, 30)),
         'itself': 'a: &a [*a]\n', 'texts': f'a: &a {"x" * 99_999}\nb: [{", ".join(["*a"] * 9_999)}]\n'}


@pytest.mark.parametrize('bomb', BOMBS)
def test_a_short_text_is_no_long_one(sent, tmp_path, bomb):
    run, _ = sent()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    (run / 'config.yaml').write_text((run / 'config.yaml').read_text() + BOMBS[bomb])
    (tmp_path / 'own.yaml').write_text(BOMBS[bomb])
    for look in (Run(run).open, lambda: Run(run).config, lambda: parse([tmp_path / 'own.yaml'])):
        assert 'stands for more than' in refused(look)
    assert time.process_time() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_card_is_no_long_one(sent):
    run, _ = sent()
    known, value = torch.load(run / 'checkpoints/best.ckpt', weights_only=True), ['x']
    for _ in range(30):
        value = [value] * 9
    known['geoseg']['network']['init_args']['encoder'] = value
    torch.save(known, run / 'checkpoints/best.ckpt')
    assert 'stands for more than' in refused(Predictor.load, run / 'checkpoints/best.ckpt')


def test_a_summary_suggests_no_code_of_a_file(sent):
    run, _ = sent()
    about = json.loads((run / 'metadata.json').read_text())
    words = ['sweep', '--plugins=evil.py', '--trust', 'trust=true', 'force=true', '--config=evil.yaml', 'data=pictures']
    (run / 'metadata.json').write_text(json.dumps(about | {'cwd': '/', 'plugins': ['evil.py'], 'predict': words}))
    write_summary(run)
    commands = (run / 'summary.md').read_text().partition('```sh')[2]
    assert 'data=pictures' in commands and 'geoseg predict' in commands
    assert not re.search('evil|trust|force|sweep', commands)


def test_a_summary_names_the_plugin_that_was_let_in(sent, tmp_path):
    'Another file of the same name is not it, wherever the record says that the run was started.'
    run, _ = sent()
    about = json.loads((run / 'metadata.json').read_text())
    for place in ('own', 'evil'):
        (tmp_path / place).mkdir()
        (tmp_path / place / 'plugin_of_a_summary.py').touch()
    own = tmp_path / 'own' / 'plugin_of_a_summary.py'
    for cwd, name, shown in ((tmp_path, 'own/plugin_of_a_summary.py', 'own/plugin_of_a_summary.py'),
                             (tmp_path, 'evil/plugin_of_a_summary.py', own), ('/', str(own), own),
                             (tmp_path / 'evil', 'plugin_of_a_summary.py', own), ('/', 'plugin_of_a_summary; x', None)):
        (run / 'metadata.json').write_text(json.dumps(about | {'cwd': str(cwd), 'plugins': [name]}))
        with letting_in(own):
            write_summary(run)
        commands = (run / 'summary.md').read_text().partition('```sh')[2]
        assert set(re.findall(r'--plugins=(\S+)', commands)) == ({str(shown)} if shown else set())


@pytest.mark.parametrize('text', ['geoseg.a\x1b[2J.B', 'a\x00b', '\x07', '[1,', '{', 'a: b: c', '\u202e'])
def test_text_that_is_no_yaml_is_one_line(sent, text, capsys):
    'In a configuration that somebody sent, and in a setting that is typed.'
    run, write = sent()
    write('model.class_path', text)
    assert cli.main(['validate', '--checkpoint', str(run)]) == 2 and capsys.readouterr().err.count('\n') == 1
    write('seed_everything', 1)
    for key in ('allow_outside', 'image_size'):
        assert cli.main(['predict', '--checkpoint', str(run), f'{key}={text}']) == 2
        assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.parametrize('text', ['[]', '5', '{"ended": 5}', '{"ended": {}}', '{"git": []}', '{"resumed": [5]}',
                                  '{"resumed": null}', '{"predict": 5}', '{"predict": [[]]}',
                                  '{"parameters": {"all": "x"}}', '{"started": 5}', '{"cwd": []}',
                                  '{"changed": {"a": 5}}', '{"seed": 1', '[' * 100_000,
                                  f'{{"seed": {"9" * 5000}}}', '\x00'])
def test_a_record_that_is_none(sent, text):
    run, _ = sent()
    (run / 'metadata.json').write_text(text)
    for look in (Run(run).open, lambda: write_summary(run)):
        assert str(run / 'metadata.json') in refused(look)


def test_a_run_without_its_record_is_validated(sent, capsys):
    run, _ = sent()
    (run / 'metadata.json').unlink()
    assert cli.main(['validate', '--checkpoint', str(run)]) == 0
    assert 'not recorded' in (run / 'summary.md').read_text()
    for text in ('[]', '{"a": "x"}', '{', '[' * 100_000):
        (run / 'evaluation/val/scores.json').write_text(text)
        assert str(run / 'evaluation/val/scores.json') in refused(write_summary, run)


def test_a_summary_shows_no_picture_and_runs_nothing(sent):
    run, _ = sent()
    about = json.loads((run / 'metadata.json').read_text())
    evil = 'a\n```\n![p](http://h/p.png) [a](javascript:1) <img src=x>\n```sh\nrm -r ~\n````'
    (run / 'metadata.json').write_text(json.dumps(about | {
        'cwd': evil, 'predict': ['predict', evil], 'device': evil, 'command': evil, 'started': evil,
        'changed': {evil: [evil, evil]}, 'versions': {evil: evil}}))
    write_summary(run)
    text, _, commands = (run / 'summary.md').read_text().partition('## Commands')
    assert '](' not in text and '<img' not in text and 'javascript' in text
    lines = commands.strip().splitlines()
    fence = lines[2].removesuffix('sh')
    assert [line for line in lines[2:] if line.startswith(fence)] == [f'{fence}sh', fence] and lines[-1] == fence
    assert len(lines) == 9 and {*fence} == {'`'} and len(fence) > 4
    words = subprocess.run(['bash', '-c', f'echo () {{ printf %s "$2"; }}; cd () {{ printf %s "$1"; }}; {lines[3]}'],
                           capture_output=True, text=True).stdout
    assert words == evil


@pytest.mark.parametrize('error, says', [(ValueError('a\x1b[2Jb\x07\u202ec'), r'a\x1b[2Jb\x07\u202ec'),
                                         (RecursionError('too deep'), 'too deep'), (MemoryError(), 'out of memory')])
def test_a_line_is_a_line(error, says, monkeypatch, capsys):
    def fail(words):
        raise error

    monkeypatch.setattr(cli, 'VERBS', cli.VERBS | {'recipes': dataclasses.replace(cli.VERBS['recipes'], run=fail)})
    assert cli.main(['recipes']) == 2
    line, = capsys.readouterr().err.splitlines()
    assert says in line and line.isprintable()


# writing

def test_no_link_within_an_output_is_followed(sent, tmp_path):
    run, _ = sent()
    outside, linked = tmp_path / 'outside', tmp_path / 'linked'
    outside.mkdir()
    data = ['--checkpoint', str(run)]
    for verb in ('validate', 'test', 'predict', 'calibrate'):
        (tmp_path / verb).mkdir()
        (tmp_path / verb / 'metrics.csv').symlink_to(outside / 'file')
        assert cli.main([verb, *data, f'out={tmp_path / verb}']) == 2
    for name in ('evaluation', 'predictions', 'checkpoints/.new.ckpt', 'figures/x'):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).symlink_to(outside)
        assert {cli.main([verb, *data]) for verb in ('validate', 'predict', 'calibrate')} == {2}
        assert cli.main(['fit', f'resume={run}', 'epochs=9']) == 2
        (run / name).unlink()
    assert not list(outside.iterdir())
    (tmp_path / 'real').mkdir()
    linked.symlink_to(tmp_path / 'real')
    assert cli.main(['validate', *data, f'out={linked}']) == 0 and list((tmp_path / 'real').iterdir())


@pytest.mark.parametrize('name', ['.lock', 'log.txt', 'metadata.json', 'evaluation/.lock', 'evaluation/val/.lock'])
def test_nothing_waits_for_a_pipe(sent, name, capsys):
    run, _ = sent()
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    for words in (['fit', f'resume={run}', 'epochs=9'], ['validate', '--checkpoint', str(run)]):
        assert cli.main(words) == 2 and str(run / name) in capsys.readouterr().err.splitlines()[-1]


def test_the_log_is_no_file_of_somebody_else(sent, tmp_path):
    from geoseg.training.run import log, logging_to
    run, _ = sent()
    other = tmp_path / 'other'
    other.write_text('mine\n')
    (run / 'log.txt').unlink()
    os.link(other, run / 'log.txt')
    with logging_to(run / 'log.txt'):
        log.info('a line')
    assert other.read_text() == 'mine\n' and (run / 'log.txt').read_text().endswith('a line\n')


def test_temporary_names_are_not_guessed(tmp_path):
    from geoseg.core.files import draft_path, write_whole
    assert len({draft_path(tmp_path / 'a') for _ in range(9)}) == 9
    for path in ROOT.rglob('*.py'):  # one way to make them
        text = path.read_text(encoding='utf-8')
        assert path.name == 'locks.py' or not re.search(r"'\.new|\.writing-", text), path
    (tmp_path / 'target').write_text('old')
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    write_whole(tmp_path / 'link', 'new')
    assert (tmp_path / 'target').read_text() == 'old' and not (tmp_path / 'link').is_symlink()
