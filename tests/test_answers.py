"A checkpoint is enough: files, several, or a folder of them are answered without the run's folder or its data."
import shutil
from pathlib import Path

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
    ('unet', MESHES, {}, 'meshes, and this checkpoint .recipe unet. answers GeoTIFFs, STAC items, pictures'),
    ('nomeformer', PICTURES, {}, 'pictures, and this checkpoint .recipe nomeformer. answers meshes'),
    ('game4loc-same-area', MESHES, {'tiles': GTA}, 'meshes, and this checkpoint'),
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


def copied(layout, folder):
    "A data set of one's own."
    return Path(shutil.copytree(world_data(layout, size='tiny'), folder / layout))


def states(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


DATA = {'pictures': ('unet', 'folders', 'images/test'), 'rasters': ('unet', 'raster', '.'),
        'meshes': ('nomeformer', 'mesh', 'test'), 'photos': ('game4loc-same-area', 'gta', 'drone/images')}


@pytest.mark.parametrize('kind', DATA)
@pytest.mark.parametrize('link', [False, True])
def test_no_answer_goes_into_the_folder_of_its_data(kind, link, alone, tmp_path):
    "Whatever is answered, and whichever way the folder is written: refused before work, and every file as it was."
    recipe, layout, part = DATA[kind]
    root = copied(layout, tmp_path)
    folder = (root / part).resolve()
    checkpoint, before, out = alone(recipe), states(root), folder
    if link:
        out = tmp_path / 'link'
        out.symlink_to(folder)
    options = {'tiles': root} if layout == 'gta' else {}
    one = [path for path in sorted(folder.iterdir()) if path.suffix in ('.png', '.jpg', '.ply', '.obj')
           or path.name.endswith('_image.tif')][0]
    for data in ({'predict': str(folder)}, {'predict': [str(one)]}):
        with pytest.raises(ConfigError, match='^out: .*overwritten'):
            geoseg.predict(checkpoint, data, out, **options)
    assert states(root) == before


def test_labels_and_tables_of_a_data_set_are_kept(alone, tmp_path):
    "Masks, classes.txt, labels of a mesh and gps.csv: no answer is written over what geoseg did not write."
    root, mesh = copied('folders', tmp_path), copied('mesh', tmp_path)
    (root / 'classes.txt').write_text('0 nothing\n1 all\n')
    gta = copied('gta', tmp_path)
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'gps.csv').write_text('filename,lat,long\n')
    first = sorted((mesh / 'test').glob('*.ply'))[0]
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels' / f'{first.stem}.txt').write_text('1\n')
    before = states(tmp_path)
    photo = sorted((gta / 'drone' / 'images').iterdir())[0]
    pictures = root / 'images' / 'test'
    for recipe, data, out, options in (
            ('unet', pictures, root / 'masks' / 'test', {}), ('unet', pictures, root, {}),
            ('nomeformer', first, tmp_path / 'labels', {}),
            ('game4loc-same-area', photo, tmp_path / 'site', {'tiles': gta})):
        with pytest.raises(ConfigError, match='is there already, and not written by geoseg'):
            geoseg.predict(alone(recipe), {'predict': str(data)}, out, **options)
        (tmp_path / f'{recipe}.ckpt').unlink()
    assert states(tmp_path) == before


def test_answers_are_written_anew_into_their_own_folder(alone, tmp_path):
    picture = sorted(PICTURES.glob('*'))[0]
    for _ in range(2):
        geoseg.predict(alone('unet'), picture, tmp_path / 'out')
    assert written(tmp_path / 'out', '*.png') == [f'{picture.stem}.png']


def test_names_lose_their_last_suffix_alone(alone, tmp_path):
    for i, name in enumerate(('site_1.5m', 'site_1.8m', 'frame.001', 'plain')):
        Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(tmp_path / f'{name}.png')
    checkpoint = alone('unet')
    out = tmp_path.parent / f'{tmp_path.name}-out'
    geoseg.predict(checkpoint, tmp_path, out, write=['color', 'probabilities'])
    names = ['frame.001', 'plain', 'site_1.5m', 'site_1.8m']
    assert [path.stem for path in sorted(out.glob('*.png'))] == names
    assert [path.stem for path in sorted((out / 'probabilities').iterdir())] == names
    (tmp_path / 'color').mkdir()
    shutil.copy(tmp_path / 'plain.png', tmp_path / 'color')
    with pytest.raises(ConfigError, match='both would be written to .*color/plain.png'):
        geoseg.predict(checkpoint, {'predict': str(tmp_path)}, out.with_name('two'), write=['color'])


def test_one_file_is_answered(alone, tmp_path):
    "A photo in capitals, a plain TIFF, an OBJ; `localize` takes one photo, too."
    photo = sorted((GTA / 'drone' / 'images').iterdir())[0]
    for name in ('photo.JPG', 'plain.tif', 'scan.JFIF'):
        Image.open(photo).convert('RGB').save(tmp_path / name, format='TIFF' if name.endswith('tif') else 'JPEG')
        out = geoseg.predict(alone('unet'), tmp_path / name, tmp_path / f'of-{name}')
        assert written(out, '*.png') == [f'{name.partition(".")[0]}.png']
    from geoseg.inference.places.localize import localize
    places = localize(alone('game4loc-same-area'), str(photo), tiles=str(GTA), out=str(tmp_path / 'places'), k=2)
    assert set(places['photo']) == {photo.name}


@pytest.mark.parametrize('recipe, layout', [('unet', 'folders'), ('nomeformer', 'mesh')])
def test_a_data_set_says_which_split_is_answered(recipe, layout, tiny_run, tmp_path, caplog):
    with caplog.at_level('INFO', 'geoseg'):
        geoseg.predict(tiny_run(recipe), str(world_data(layout, size='tiny')), tmp_path / 'out')
    assert 'of which the test split alone is answered' in caplog.text and "data='{predict: " in caplog.text


@pytest.mark.parametrize('verb', ['inspect', 'test', 'calibrate'])
def test_tables_do_not_go_into_the_data(verb, tiny_run, tmp_path, capsys):
    "`out` at the data: refused with one line, and every file as it was; split.csv of another hand is kept, too."
    from geoseg import cli
    root = copied('folders', tmp_path)
    (tmp_path / 'tables').mkdir()
    (tmp_path / 'tables' / 'split.csv').write_text('name,split\n')
    before = states(tmp_path)
    first = [verb, '--recipe', 'unet'] if verb == 'inspect' else [verb, '--checkpoint', str(tiny_run('unet'))]
    for out in (root, root / 'images' / 'train', *([tmp_path / 'tables'] if verb == 'inspect' else [])):
        assert cli.main([*first, f'data={root}', f'out={out}', 'num_workers=0']) == 2
        assert f'geoseg {verb}: out: {out}' in capsys.readouterr().err
    assert states(tmp_path) == before
