"""Verbs that read data, on files that people bring: they read them, or end with status 2 and a line that names one."""
import json
import shutil

import pytest
import tiny
from PIL import Image
from test_table import in_process, monitor

from geoseg import cli
from geoseg.world.layouts import world_data

RECIPES = {'geotagged': 'unet', 'raster': 'unet', 'mesh': 'nomeformer', 'gta': 'game4loc-same-area'}  # by layout
TRAINED = ('predict', 'test', 'validate', 'calibrate')
NEW = ('inspect', 'profile', 'find-lr', 'fit', 'sweep')


def recoded(encoding, before=''):
    'Change how a text is stored.'
    return lambda path: path.write_bytes((before + path.read_text(encoding='utf-8')).encode(encoding))


def replaced(old, new):
    return lambda path: path.write_text(path.read_text(encoding='utf-8').replace(old, new))


def content(data):
    return lambda path: path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def beside(path):
    'What macOS leaves on foreign disks.'
    path.with_name(f'._{path.name}').write_bytes(b'\0\5\x16\7' + bytes(60))


def as_obj(path):
    path.unlink()
    path.with_suffix('.obj').write_text('v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n')


def unlike(value):
    return lambda path: path.write_text(json.dumps(value))


JSON = 'same-area-drone2sate-train.json'
FAULTS = {  # layout, file or pattern, what is done to it, what of the name is told; None: it is read all the same
    'gps in UTF-16': ('geotagged', 'gps.csv', recoded('utf-16'), None),
    'gps with a BOM': ('geotagged', 'gps.csv', recoded('utf-8-sig'), None),
    'gps in latin-1': ('geotagged', 'gps.csv', recoded('latin-1', '# é\n'), 'gps.csv'),
    'gps without lat': ('geotagged', 'gps.csv', replaced('lat', 'breite'), 'gps.csv'),
    'gps of bytes': ('geotagged', 'gps.csv', content(bytes(range(256))), 'gps.csv'),
    'empty gps': ('geotagged', 'gps.csv', content(b''), 'gps.csv'),
    'split in UTF-16': ('geotagged', 'split.csv', recoded('utf-16'), None),
    'split without names': ('geotagged', 'split.csv', replaced('name', 'nom'), 'split.csv'),
    'classes in UTF-16': ('geotagged', 'category.csv', recoded('utf-16'), None),
    'classes with a BOM': ('geotagged', 'category.csv', recoded('utf-8-sig'), None),
    'classes of bytes': ('geotagged', 'category.csv', content(bytes(range(256))), 'category.csv'),
    'a ._ picture': ('geotagged', 'img/*', beside, None),
    'a ._ mask': ('geotagged', 'mask/*', beside, None),
    'a cut picture': ('geotagged', 'img/*', cut, 'img'),
    'an empty picture': ('geotagged', 'img/*', content(b''), 'img'),
    'a cut mask': ('geotagged', 'mask/*', cut, 'mask'),
    'a large picture': ('geotagged', 'img/*', lambda path: None, 'img'),
    'a ._ raster': ('raster', '*_image.tif', beside, None),
    'a cut raster': ('raster', '*_image.tif', cut, '_image.tif'),
    'a raster of bytes': ('raster', '*_image.tif', content(b'II*\0' + bytes(60)), '_image.tif'),
    'a cut raster of labels': ('raster', '*_mask.tif', cut, '_mask.tif'),
    'a ._ mesh': ('mesh', '*/*.ply', beside, None),
    'a cut mesh': ('mesh', '*/*.ply', cut, '.ply'),
    'a mesh of bytes': ('mesh', '*/*.ply', content(b'ply\n' + bytes(60)), '.ply'),
    'a mesh with index 0': ('mesh', '*/*.ply', as_obj, '.obj'),
    'pairs in UTF-16': ('gta', JSON, recoded('utf-16'), None),
    'pairs with a BOM': ('gta', JSON, recoded('utf-8-sig'), None),
    **{f'pairs: {json.dumps(value)}': ('gta', JSON, unlike(value), JSON)
       for value in ({}, [], 'a', [1], [{'drone_img_name': 3}])},
    'cut pairs': ('gta', JSON, cut, JSON),
    'a ._ photo': ('gta', 'drone/**/*.png', beside, None),
    'a cut photo': ('gta', 'drone/**/*.png', cut, 'drone'),
    'a cut tile': ('gta', 'satellite/*', cut, 'satellite'),
}


UNREAD = {('inspect', 'a cut photo'), ('inspect', 'a cut tile'), ('predict', 'a cut raster of labels')}
CASES = [(verbs[i % len(verbs)], name) for i, name in enumerate(FAULTS) for verbs in (NEW, TRAINED)]  # each with two
CASES += [('prepare', name) for name, (layout, *_) in FAULTS.items() if layout == 'mesh']  # others prepare nothing


def run(capsys, words, named):
    'Read: status 0. Named: status 2, and a line that holds the name.'
    status = cli.main(words)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    if named is None:
        assert status == 0 and not said, said
    else:
        assert status == 2 and len(said) == 1 and named in said[0], said
        assert 'Traceback' not in said[0]


@pytest.mark.parametrize('verb, name', CASES)
def test_a_file_is_read_or_named(tiny_run, own_run, tmp_path, capsys, monkeypatch, verb, name):
    layout, pattern, spoil, named = FAULTS[name]
    recipe, data = RECIPES[layout], shutil.copytree(world_data(layout, size='tiny'), tmp_path / 'data')
    files = sorted(data.glob(pattern))
    assert files
    for path in files:
        spoil(path)
    if 'large' in name:
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    monkeypatch.setattr('geoseg.training.sweep.papermill.execute_notebook', in_process)
    monkeypatch.chdir(tmp_path)
    few = {} if layout == 'gta' else {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1}
    words = [f'data={data}', *([] if verb in ('inspect', 'prepare', 'profile') else [f'out={tmp_path / "out"}'])]
    if verb in TRAINED:
        words = ['--checkpoint', str((own_run if verb == 'calibrate' else tiny_run)(recipe)), *words]
    else:
        words += ['--recipe', recipe, *tiny.words(tiny.settings(recipe, epochs=1, seed=None, **few))]
    words += {'profile': ['steps=1'], 'find-lr': ['steps=5'], 'sweep': ['seeds=[0]', f'scores=[{monitor(recipe)}]'],
              'prepare': ['force=true']}.get(verb, [])
    run(capsys, [verb, *words], None if (verb, name) in UNREAD else named)


@pytest.mark.parametrize('name', ['a ._ photo', 'a cut photo', 'a cut tile', 'an empty photo', 'a large picture'])
def test_localize(tiny_run, tmp_path, capsys, monkeypatch, name):
    data = shutil.copytree(world_data('gta', size='tiny'), tmp_path / 'data')
    photos = data / 'drone/images'
    spoilt = sorted((data / 'satellite' if name == 'a cut tile' else photos).glob('*.png'))[0]
    {'a ._ photo': beside, 'a large picture': lambda path: monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100),
     'an empty photo': content(b'')}.get(name, cut)(spoilt)
    words = ['--checkpoint', str(tiny_run('game4loc-same-area')), f'photos={photos}', f'tiles={data}',
             f'out={tmp_path / "out"}']
    run(capsys, ['localize', *words], {'a ._ photo': None, 'a large picture': '.png'}.get(name, spoilt.name))
