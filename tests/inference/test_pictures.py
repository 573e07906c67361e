"""Predictions as files: at the size of the pictures, however they were looked at, and nothing begun on bad input."""
import json
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image

import geoseg
from geoseg import cli
from geoseg.data.labels import LabelScheme
from geoseg.data.masks import read_mask
from geoseg.data.pictures.files import EXTENSIONS, pair_files
from geoseg.inference.pictures import picture_files
from geoseg.inference.places.localize import photo_files
from geoseg.inference.postprocess import Postprocess
from geoseg.inference.rasters.rasters import find_rasters
from geoseg.models.refiner import TRMSeg
from geoseg.world.layouts import world_data

pytestmark = pytest.mark.usefixtures('cache')


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    'Pictures of sizes that are multiples of nothing.'
    folder, rng = tmp_path_factory.mktemp('odd'), np.random.default_rng(0)
    sizes = {'a': (50, 70), 'b': (33, 91), 'c': (130, 67)}
    for name, size in sizes.items():
        pixels = np.kron(rng.integers(0, 256, (20, 20, 3)), np.ones((7, 7, 1)))[:size[0], :size[1]]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{name}.png')
    return folder, sizes


def read(folder, name):
    return np.asarray(Image.open(folder / f'{name}.png'))


@pytest.fixture
def run(tiny_run):
    return geoseg.Run(tiny_run('deepglobe-trm'))


def test_masks_are_what_evaluation_counts(trained, tmp_path):
    folder = geoseg.predict(trained, out=tmp_path)
    result = geoseg.evaluate(trained, out=tmp_path / 'tables')
    root = world_data('folders', size='tiny')
    scheme = LabelScheme.load(root / 'category.csv')
    counted = np.zeros_like(result.confusion)
    for path in sorted((root / 'masks/test').iterdir()):
        truth, mask = read_mask(path, scheme), read(folder / 'test', path.stem)
        np.add.at(counted, (truth[truth < 255], mask[truth < 255]), 1)
    assert (counted == result.confusion).all() and counted.sum() > 0


@pytest.mark.parametrize('options', [
    {}, {'overrides': {'image_size': None}}, {'overrides': {'image_size': None}, 'window': 32, 'overlap': 8},
    {'overrides': {'image_size': [48, 40]}, 'tta': ['horizontal', 0.75]},
    {'overrides': {'center_crop': [32, 32], 'image_size': None}}])
def test_a_mask_has_the_size_of_its_picture(trained, odd, tmp_path, options):
    pictures, sizes = odd
    folder = geoseg.predict(trained, {'predict': str(pictures)}, tmp_path, write=['color', 'overlay', 'probabilities'],
                            **options)
    scheme = LabelScheme.load(world_data('folders', size='tiny') / 'category.csv')
    for name, size in sizes.items():
        mask = read(folder, name)
        assert mask.shape == size and mask.max() < scheme.num_classes
        assert (read(folder / 'color', name) == scheme.colors[mask]).all()
        tinted, picture = read(folder / 'overlay', name).astype(int), read(pictures, name).astype(int)
        assert np.abs(tinted - (0.55 * picture + 0.45 * scheme.colors[mask])).max() <= 1
        with np.load(folder / 'probabilities' / f'{name}.npz') as kept:
            probs = kept['probs'].astype(np.float32)
            assert kept['classes'].tolist() == scheme.names
        assert probs.shape == (scheme.num_classes, *size) and np.abs(probs.sum(0) - 1).max() < 5e-3
        chosen = np.take_along_axis(probs, mask[None].astype(int), 0)[0]
        assert (probs.max(0) - chosen).max() < 2e-3  # ties in half precision


def test_windows_and_views_change_the_answer_a_little(trained, odd, tmp_path):
    pictures, native = {'predict': str(odd[0])}, {'image_size': None}
    masks = {name: read(geoseg.predict(trained, pictures, tmp_path / name, native, **options), 'c')
             for name, options in {'whole': {}, 'large window': {'window': 160}, 'windows': {'window': 64},
                                   'views': {'tta': ['both']}}.items()}
    assert (masks['large window'] == masks['whole']).all()
    for name in ('windows', 'views'):
        assert 0.3 < (masks[name] == masks['whole']).mean() < 1


def test_a_folder_of_pictures_is_enough(trained, odd, tmp_path):
    masks = [read(geoseg.predict(trained, data, tmp_path / name), 'a')
             for name, data in (('plain', str(odd[0])), ('named', {'predict': str(odd[0])}))]
    assert (masks[0] == masks[1]).all()


def test_postprocessing_is_done_on_the_masks(trained, tmp_path):
    settings = {'open': 3, 'min_pixels': 20}
    plain = geoseg.predict(trained, out=tmp_path / 'plain')
    words = [f'out={tmp_path}/clean', 'postprocess={min_pixels: 20, open: 3}', 'write=[color]', 'tta=[]']
    assert cli.main(['predict', '--checkpoint', str(trained), *words]) == 0
    changed = 0
    for path in sorted(plain.rglob('*.png')):
        before, after = (np.asarray(Image.open(p)) for p in (path, tmp_path / 'clean' / path.relative_to(plain)))
        assert (after == Postprocess.of(settings).clean(before)).all()
        changed += (after != before).sum()
    assert changed > 0
    (tmp_path / 'one').mkdir()
    busiest = max(plain.rglob('*.png'), key=lambda path: np.count_nonzero(np.diff(np.asarray(Image.open(path)))))
    shutil.copy(world_data('folders', size='tiny') / 'images/test' / busiest.name, tmp_path / 'one/picture.png')
    masks = [read(geoseg.predict(trained, {'predict': str(tmp_path / 'one')}, tmp_path / f'{n}', postprocess=settings),
                  'picture') for n, settings in enumerate((None, {'crf': {'iterations': 2}}))]
    assert (masks[0] != masks[1]).any()


def test_small_regions_in_square_metres(trained, tmp_path):
    data = world_data('raster', size='tiny')
    about = json.loads((data / 'world.json').read_text())
    assert about['layout'] == 'raster'
    with rasterio.open(sorted(data.glob('*_image.tif'))[0]) as file:
        pixel = abs(file.transform.a * file.transform.e)
    plain, large = (geoseg.predict(trained, str(data), tmp_path / name, postprocess=settings)
                    for name, settings in (('plain', None), ('large', {'min_area': 30 * pixel - 0.01})))
    maps = sorted(plain.glob('*_classes.tif'))
    assert maps
    for path in maps:
        with rasterio.open(path) as one, rasterio.open(large / path.name) as other:
            assert (other.read(1) == Postprocess(min_pixels=30).clean(one.read(1))).all()


@pytest.mark.parametrize('options, says', [
    ({'postprocess': {'opne': 3}}, "unknown key 'opne'; nearest: open"),
    ({'postprocess': {'open': 2}}, 'expected a whole number of 3'),
    ({'postprocess': {'min_area': 5.}}, 'min_area needs georeferenced'),
    ({'window': 50}, 'window is 50'), ({'window': 64}, 'which one window of 64 covers'),
    ({'overlap': 8}, 'there is no window'), ({'stride': 8}, 'there is no window: set window'),
    ({'window': 32, 'stride': 36}, 'up to the window of 32'), ({'window': 32, 'stride': 6}, 'multiple of 4'),
    ({'window': 32, 'stride': 16, 'overlap': 8}, 'an overlap of 16, not of 8: give one'),
    ({'tta': ['left']}, "tta: 'left'"),
    ({'write': ['colour']}, "write is 'colour'; nearest: color; for pictures there are"),
    ({'write': 'color,colour'}, "write is 'colour'"),
    ({'update': 'yes'}, 'update is true or false'), ({'update': True, 'window': 32}, 'not with window'),
])
def test_wrong_options_stop_before_work(trained, tmp_path, monkeypatch, options, says):
    def too_late(*arguments):
        raise AssertionError('the network ran')

    monkeypatch.setattr('geoseg.models.unet.UNet.forward', too_late)
    with pytest.raises(ValueError, match=says):
        geoseg.predict(trained, out=tmp_path / 'masks', **options)
    assert not (tmp_path / 'masks').exists()


def test_words_of_the_command_line(trained, capsys):
    for word, says in (('tta=[horizontal', 'is not YAML'), ('windw=64', "unknown key 'windw'"),
                       ('postprocess={open: 4}', 'odd number')):
        assert cli.main(['predict', '--checkpoint', str(trained), word]) == 2
        assert says in capsys.readouterr().err


def test_prediction_halts_and_answers_as_all_steps_do(run, tmp_path, monkeypatch):
    "Whole pictures through windows; with tau 0 two steps a window are computed, with tau above 1 six."
    pictures, computed = len(run.data().datasets['predict']), []
    step = TRMSeg.step
    monkeypatch.setattr(TRMSeg, 'step', lambda net, *args: computed.append(len(args[0])) or step(net, *args))
    for tau, steps in ((0.0, 2), (1.1, 6)):
        computed.clear()
        folder = geoseg.predict(run.folder, out=tmp_path / f'{tau}', overrides={'tau': tau}, window=64, overlap=0)
        assert len(list(folder.rglob('*.png'))) == pictures
        assert sum(computed) == pictures * 4 * steps  # 128 x 128 pixels are four windows


def test_a_stride_is_the_window_less_the_overlap(run, trained, scene, tmp_path):
    "Without a window, windows are as large as the patches of training; GeoTIFFs have their own default."
    pictures = world_data('deepglobe', size='tiny') / 'test'
    assert run.config['data']['init_args']['patch'] == 32
    assert cli.main(['predict', '--checkpoint', str(run.folder), f'data={pictures}', f'out={tmp_path}/a',
                     '--stride', '16']) == 0
    one, other = tmp_path / 'a', geoseg.predict(run.folder, pictures, tmp_path / 'b', window=32, overlap=16)
    names = sorted(p.stem for p in pictures.glob('*_sat.jpg'))
    assert sorted(p.stem for p in one.glob('*.png')) == sorted(p.stem for p in other.glob('*.png')) == names
    assert all((read(one, name) == read(other, name)).all() for name in names)
    told = [json.loads((geoseg.predict(trained, scene, tmp_path / f'{i}', **options) / 'scene.json').read_text())['job']
            for i, options in enumerate(({'window': 128, 'stride': 96}, {'stride': 64}, {}))]
    assert [(job['window'], job['overlap']) for job in told] == [(128, 32), (512, 448), (512, 128)]


MASKS = {'deepglobe': '*_mask.png', 'folders': 'masks/*/*.png', 'geotagged': 'mask/*.png',
         'wildscenes': '*/indexLabel/*.png', 'raster': '*_mask.tif'}


@pytest.mark.parametrize('layout', MASKS)
def test_masks_among_pictures_are_not_answered(layout, tmp_path):
    "Wherever the pictures of a folder are listed, for any layout that keeps masks in it."
    root = world_data(layout, size='tiny')
    root = root / 'train' if layout == 'deepglobe' else root
    shutil.copytree(root, tmp_path / 'all')
    for folder in (root, tmp_path):
        masks = {path.resolve() for path in (tmp_path / 'all' if folder is tmp_path else root).glob(MASKS[layout])}
        listed = [pair_files(folder, None)['image']]
        if layout != 'raster':
            listed += [photo_files(folder).values(), picture_files({'predict': folder}).values()]
        elif folder is root:  # such GeoTIFFs follow no pattern
            listed += [[a.image for a in find_rasters(folder, '{date}.none')]]
        for files in listed:
            files = {path.resolve() for path in files}
            assert masks and files and not files & masks
            assert len(files) == sum(path.suffix in EXTENSIONS for path in root.rglob('*')) - len(masks)


def test_a_folder_of_satellite_images_is_answered(trained, tmp_path, caplog):
    "One split of DeepGlobe, its masks beside the images, with any checkpoint; the whole data set stays one."
    root = world_data('deepglobe', size='tiny')
    (tmp_path / 'some').mkdir()
    for path in sorted((root / 'train').iterdir())[:3]:  # the last mask has no image
        shutil.copy(path, tmp_path / 'some')
    (tmp_path / 'some' / '1_mask.png').write_bytes(b'no picture, and never read')
    with caplog.at_level('INFO', 'geoseg'):
        folder = geoseg.predict(trained, tmp_path / 'some', tmp_path / 'masks')
    assert {p.stem for p in folder.glob('*.png')} == {p.stem for p in (tmp_path / 'some').glob('*_sat.jpg')}
    assert 'pictures are left out: masks of others (first: ' in caplog.text
    assert picture_files(root) is None and not picture_files(root / 'test').keys() & {'train'}
    named = next((root / 'train').glob('*_mask.png'))  # whoever names it means it
    assert picture_files(named) == {named.stem: named}
