"A checkpoint is enough: files, several, or a folder of them are answered without the run's folder or its data."
import shutil

import numpy as np
import pytest
from PIL import Image

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.inference.answer import Request, Trained, find_answer
from geoseg.world.layouts import world_data

PICTURES, GTA = world_data('folders', size='tiny') / 'images' / 'test', world_data('gta', size='tiny')
MESHES = world_data('mesh', size='tiny') / 'test'
RASTERS = sorted(world_data('raster', size='tiny').glob('*_image.tif'))


@pytest.fixture
def alone(tiny_run, tmp_path):
    "`alone(recipe)`: its best checkpoint in a folder without anything else."
    return lambda recipe: shutil.copy(tiny_run(recipe) / 'checkpoints' / 'best.ckpt', tmp_path / f'{recipe}.ckpt')


def written(folder, pattern):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))


def test_pictures(alone, tiny_run, tmp_path):
    files, checkpoint = sorted(PICTURES.glob('*'))[:3], alone('unet')
    whole = geoseg.predict(tiny_run('unet'), {'predict': str(PICTURES)}, tmp_path / 'run')
    folder = geoseg.predict(checkpoint, PICTURES, tmp_path / 'folder')
    of_files = geoseg.predict(checkpoint, [str(f) for f in files], tmp_path / 'some')
    one = geoseg.predict(checkpoint, files[0], tmp_path / 'one')
    assert written(folder, '*.png') == written(whole, '*.png') and len(written(of_files, '*.png')) == 3
    assert written(one, '*.png') == [f'{files[0].stem}.png']
    for name in written(of_files, '*.png'):
        masks = [np.asarray(Image.open(out / name)) for out in (whole, folder, of_files)]
        assert all(np.array_equal(masks[0], mask) for mask in masks[1:])


def test_pictures_with_a_place_are_placed(alone, tmp_path):
    photos = world_data('geotagged', size='tiny') / 'img'
    request = Request(photos, tmp_path / 'out')
    predictor, data = find_answer(Trained(alone('geosegformer')), request).source()
    data.setup()
    assert not np.isnan(data.datasets['predict'][0]['xy'].numpy()).any()
    assert data.frame == Trained(alone('geosegformer')).frame


def test_rasters(alone, tmp_path):
    out = geoseg.predict(alone('unet'), RASTERS[:2], tmp_path / 'two', window=64)
    assert len(written(out, '*_classes.tif')) == 2
    out = geoseg.predict(alone('unet'), RASTERS[0], tmp_path / 'one', window=64)
    assert written(out, '*_classes.tif') == [f'{RASTERS[0].stem}_classes.tif']


def test_meshes(alone, tiny_run, tmp_path):
    meshes = sorted(p for p in MESHES.iterdir() if p.suffix in ('.ply', '.obj'))
    folder = geoseg.predict(alone('nomeformer-texture'), MESHES, tmp_path / 'folder')
    one = geoseg.predict(tiny_run('nomeformer-texture'), meshes[0], tmp_path / 'one')
    name = f'{meshes[0].stem}.txt'
    assert len(written(folder, '*.ply')) == len(meshes) and (one / name).read_text() == (folder / name).read_text()


def test_photos_to_be_found(alone, tmp_path):
    photo = sorted((GTA / 'drone' / 'images').iterdir())[0]
    out = geoseg.predict(alone('game4loc-same-area'), photo, tmp_path / 'out', tiles=GTA)
    assert (out / 'places.csv').read_text().count(photo.name) == 5


@pytest.mark.parametrize('recipe, data, options, said', [
    ('unet', MESHES, {}, 'meshes, and this checkpoint .recipe unet. answers GeoTIFFs and pictures'),
    ('nomeformer', PICTURES, {}, 'pictures, and this checkpoint .recipe nomeformer. answers meshes'),
    ('game4loc-same-area', RASTERS[0], {'tiles': GTA}, 'GeoTIFFs, and this checkpoint'),
    ('game4loc-same-area', PICTURES, {}, 'give a gallery, or the tiles'),
    ('nomeformer', MESHES, {'window': 64}, 'window: not for meshes; they take write'),
    ('unet', PICTURES, {'k': 3}, 'k: not for pictures'),
    ('unet', PICTURES, {'write': ['page']}, 'write is .*for pictures'),
    ('unet', None, {}, 'its run is not here'), ('unet', [], {}, 'an empty list of files'),
    ('unet', 'nowhere.png', {}, 'nowhere.png: no such file'),
    ('unet', ['nowhere.png'], {}, 'nowhere.png: no such file'),
    ('unet', PICTURES, {'overrides': {'imagesize': 64}}, "unknown key 'imagesize'; nearest: image_size"),
])
def test_what_cannot_be_answered_is_told_before_work(alone, tmp_path, recipe, data, options, said):
    with pytest.raises((ConfigError, OSError), match=said):
        geoseg.predict(alone(recipe), data, tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


def test_two_inputs_of_one_name_are_an_error(alone, tmp_path):
    for suffix in ('png', 'jpg'):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f'same.{suffix}')
    with pytest.raises(ValueError, match='would have the name'):
        geoseg.predict(alone('unet'), [tmp_path / 'same.png', tmp_path / 'same.jpg'], tmp_path / 'out')


def test_pictures_are_not_overwritten_with_their_masks(alone, tmp_path):
    picture = tmp_path / 'photos' / 'a.png'
    picture.parent.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    before = picture.read_bytes()
    for data in (picture, picture.parent, {'predict': str(picture.parent)}):
        with pytest.raises(ConfigError, match='would be overwritten'):
            geoseg.predict(alone('unet'), data, picture.parent)
    assert [p.name for p in picture.parent.iterdir()] == ['a.png'] and picture.read_bytes() == before
