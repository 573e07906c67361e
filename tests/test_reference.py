"""The comparison of two commits: what it reads, and that it tells a difference; the runs themselves are not made."""
import json

import numpy as np
import pytest
import reference
import torch
from PIL import Image

import geoseg


@pytest.fixture
def written(tmp_path):
    "Files as a run leaves them, in small."
    torch.save({'state_dict': {'b': torch.zeros(0), 'a.weight': torch.arange(6.).reshape(2, 3)}, 'epoch': 1,
                'optimizer_states': [{'state': {0: {'step': torch.tensor(2.)}}, 'param_groups': [{'lr': 0.1}]}],
                'geoseg': {'network': {'class_path': 'geoseg.one.Place'}}}, tmp_path / 'last.ckpt')
    (tmp_path / 'metrics.csv').write_text('epoch,mIoU/val\n0,0.25\n1,0.5\n')
    (tmp_path / 'per_class.csv').write_text('')
    (tmp_path / 'scene.json').write_text(json.dumps({'pixels': {'water': 7}, 'seconds': {'files': 0.5}, 'peak MiB': 3,
                                                     'job': {'window': 64}, 'raster': 'scene.tif'}))
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / 'mask.png')
    (tmp_path / 'tile.ply').write_bytes(b'ply\ncomment TextureFile ../a.png\nelement face 1\nend_header\n\x01')
    np.savez_compressed(tmp_path / 'mask.npz', probs=np.ones((2, 2), np.float16))
    (tmp_path / 'polygons.gpkg').write_bytes(b'with a date')
    return tmp_path


def changed(folder, change, name):
    "The first difference that a change of a file makes."
    old = reference.gather(folder)
    change(folder / name)
    return reference.difference(old, reference.gather(folder))


def replace(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))


def edit(key, value):
    def change(path):
        known = torch.load(path, weights_only=True)
        known[key] = value(known[key])
        torch.save(known, path)
    return change


def test_a_difference_is_named(written):
    assert reference.difference(reference.gather(written), reference.gather(written)) is None
    assert changed(written, replace(b'0.5', b'0.50'), 'metrics.csv') == 'metrics.csv, row 2 mIoU/val: 0.5 and 0.50'
    assert changed(written, replace(b'7', b'8'), 'scene.json') == 'scene.json, pixels water: 7 and 8'
    for name, change, said in (
            ('last.ckpt', edit('state_dict', lambda state: state | {'b': torch.zeros(1)}),
             ', state_dict b: float32 [0]'),
            ('last.ckpt', edit('state_dict', lambda state: {key: state[key].double() for key in state}),
             ', state_dict a.weight: float32 [2, 3]'),
            ('last.ckpt', edit('optimizer_states', lambda _: []),
             ', optimizer_states 0 param_groups 0 lr: only in OLD'),
            ('mask.png', lambda path: Image.new('L', (4, 4)).save(path), ', pixels: uint8 [1, 4, 4]'),
            ('mask.npz', lambda path: np.savez(path, probs=np.ones((2, 2))), ', probs: float16 [2, 2]'),
            ('tile.ply', replace(b'\x01', b'\x02'), ', values: '),
            ('polygons.gpkg', lambda path: path.unlink(), ': only in OLD')):
        assert changed(written, change, name).startswith(name + said), name


def test_places_of_classes_clocks_and_names_of_files_may_differ(written):
    assert changed(written, edit('geoseg', lambda _: {}), 'last.ckpt') is None
    assert changed(written, replace(b'0.5', b'0.7'), 'scene.json') is None
    assert changed(written, replace(b'../a.png', b'b.png'), 'tile.ply') is None
    assert changed(written, replace(b'date', b'day'), 'polygons.gpkg') is None


def test_a_failure_is_a_difference():
    good = {'unet': {column: {'metrics.csv': 'there'} for column in reference.COLUMNS}}
    table, differences = reference.compare(good, good)
    assert not differences and table.splitlines()[1].split() == ['unet'] + ['equal'] * 5
    bad = {'unet': {'weights': {'metrics.csv': 'there'}, 'metrics': {reference.FAILED: 'no room'}}}
    for pair in ((good, bad), (bad, bad)):
        table, differences = reference.compare(*pair)
        assert table.splitlines()[1].split() == ['unet', 'equal'] + ['different'] * 4
        assert any('failed: no room' in line for line in differences)
    assert reference.difference({}, {}) == 'nothing was written'


def test_every_recipe_has_a_run():
    assert {tiny.recipe for tiny in reference.RUNS.values()} == set(geoseg.recipes())
