"Labels come from one file: a raster on another grid, or polygons in another CRS; every verb reads them alike."
import shutil

import numpy as np
import pytest
import rasterio
import tiny
from a_raster import write
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.windows import Window

import geoseg
from geoseg.core.inputs import DataFolder
from geoseg.core.listing import collect_notes
from geoseg.data.labels import LabelScheme
from geoseg.data.masks import raster_pixels
from geoseg.data.rasters import labels as label_files
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.files import find_acquisitions
from geoseg.data.rasters.labels import LabelSettings, label_acquisitions, labels_of, open_labels
from geoseg.data.rasters.reader import GDAL_BLOCKS, Blocks, Reader
from geoseg.evaluation.inspection import inspect
from geoseg.inference.rasters.outdated import RasterMask
from geoseg.world.layouts import world_data

CLASSES = ['a', 'b', 'c']


@pytest.fixture
def images(tmp_path):
    "Images without masks; the values do not matter."
    for year in range(2018, 2021):
        write(tmp_path / 'images' / f'{year}_image.tif', np.full((3, 300, 280), 9, np.uint8), tiled=True,
              blockxsize=128, blockysize=128)
    return tmp_path / 'images'


def grid_around(a, crs, size, turn):
    "A grid in another CRS whose middle is that of an image, turned by degrees."
    west, south, east, north = a.bounds
    x, y = Transformer.from_crs(a.crs, crs, always_xy=True).transform((west + east) / 2, (south + north) / 2)
    return Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(size, -size)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crs=st.sampled_from(['EPSG:32631', 'EPSG:3857', 'EPSG:4326', 'EPSG:3035']),
       turn=st.sampled_from([0, 17, 90, 200]), pixels=st.sampled_from([0.4, 1., 2.7]),
       nodata=st.sampled_from([None, 2]), kind=st.sampled_from(['uint8', 'int16', 'float32', 'uint16']),
       seed=st.integers(0, 99))
def test_a_label_raster_is_read_under_the_centre_of_each_pixel(tmp_path, images, crs, turn, pixels, nodata, kind,
                                                               seed):
    "By any window, and as pyproj finds it: in any CRS, turned, finer and coarser, with and without nodata."
    a = find_acquisitions(images, masks='optional')[0]
    size = pixels * (5 if crs != 'EPSG:4326' else 5 / 111_000)
    values = np.random.default_rng(seed).integers(0, 3, (310, 330)).astype(kind)
    transform = grid_around(a, crs, size, turn) * Affine.translation(-200, -140)
    source = open_labels(write(tmp_path / 'labels.tif', values, crs, transform, nodata=nodata), LabelSettings())
    [a] = label_acquisitions([a], source)
    reader = Reader(LabelScheme(CLASSES), blocks=Blocks(1 << 20))
    mask = np.concatenate([np.concatenate([reader.window(a, row, col, 75, 70)[1] for col in range(0, 280, 70)], 1)
                           for row in range(0, 300, 75)])
    cols, rows = np.meshgrid(np.arange(280) + 0.5, np.arange(300) + 0.5)
    x, y = Transformer.from_crs(a.crs, crs, always_xy=True).transform(*(Affine(*a.transform) * (cols, rows)))
    u, v = ~transform * (x, y)
    clear = (np.abs(u - np.rint(u)) > 1e-4) & (np.abs(v - np.rint(v)) > 1e-4)  # not between two labels
    u, v = np.floor(u).astype(int), np.floor(v).astype(int)
    known = (u >= 0) & (u < 330) & (v >= 0) & (v < 310)
    want = np.full(mask.shape, 255, np.uint8)
    want[known] = values[v[known], u[known]]
    want[want == (255 if nodata is None else nodata)] = 255
    assert (mask == want)[clear].all() and clear.mean() > 0.99
    assert (mask == RasterMask(a, reader)[0:300, 0:280]).all()  # what a map memory reads
    strips = [part for part in labels_of(a).parts(a, (0, 0, 300, 280), Blocks())]
    hidden = np.concatenate([np.zeros(s.values.shape, bool) if s.hidden is None else s.hidden for s in strips])
    counted = np.concatenate([s.values for s in strips]).astype(float)
    assert (np.where(hidden, 255, counted) == mask).all()


@pytest.mark.parametrize('west', [178., -180.])
def test_labels_across_the_antimeridian(tmp_path, west):
    "Longitudes beyond 180 degrees are those on the other side; at the edge of a map of the world each side is its own."
    write(tmp_path / 'images' / '2018_image.tif', np.full((3, 200, 220), 9, np.uint8), 'EPSG:32660',
          Affine(30, 0, 830_978, 0, -30, 3_000))
    a = find_acquisitions(tmp_path / 'images', masks='optional')[0]
    size = 360 / 9000 if west == -180 else 0.0013
    shape = (4500, 9000) if west == -180 else (3000, 3000)
    values = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    transform = Affine(size, 0, west, 0, -size, shape[0] / 2 * size)
    source = open_labels(write(tmp_path / 'labels.tif', values, 'EPSG:4326', transform), LabelSettings())
    pixels = source.read(a, Window(0, 0, 220, 200), Blocks())
    lon, lat = Transformer.from_crs(a.crs, 'EPSG:4326', always_xy=True).transform(
        *(Affine(*a.transform) @ tuple(np.meshgrid(np.arange(220) + 0.5, np.arange(200) + 0.5))))
    assert lon.min() < -179 and lon.max() > 179
    u, v = ~transform @ (np.where((lon < 0) & (west > 0), lon + 360, lon), lat)
    clear = (np.abs(u - np.rint(u)) > 1e-3) & (np.abs(v - np.rint(v)) > 1e-3)
    assert not pixels.hidden.any() and clear.mean() > 0.99
    assert (pixels.values == values[np.floor(v).astype(int), np.floor(u).astype(int)])[clear].all()


@pytest.mark.parametrize('labels', [(60, 5.), (4000, 0.4)], ids=['coarse', 'fine'])
def test_large_windows_are_read_in_pieces(tmp_path, images, monkeypatch, labels):
    "The same pixels, however few labels are loaded at once."
    side, size = labels
    a = find_acquisitions(images, masks='optional')[0]
    values = np.random.default_rng(0).integers(0, 3, (side, side), np.uint8)
    transform = grid_around(a, 'EPSG:3857', size, 17) * Affine.translation(-side / 2, -side / 2)
    source = open_labels(write(tmp_path / 'labels.tif', values, 'EPSG:3857', transform), LabelSettings())
    whole, loaded = source.read(a, Window(0, 0, 280, 300), Blocks()), []
    monkeypatch.setattr(label_files, 'PIECE', 100)
    monkeypatch.setattr(label_files, 'LOADED', 5000)
    monkeypatch.setattr(label_files, 'raster_pixels',
                        lambda f, window: loaded.append(window.width * window.height) or raster_pixels(f, window))
    parts = source.read(a, Window(0, 0, 280, 300), Blocks())
    assert (parts.values == whole.values).all() and (parts.hidden == whole.hidden).all()
    assert max(loaded) <= 5000 and 0 < whole.hidden.mean() < 1


def test_strips_of_a_file_are_not_decoded_for_each_block(tmp_path):
    "GDAL's own blocks are few while tiles are read; it takes what it needs where a file is in strips."
    tiled = write(tmp_path / 'tiled.tif', np.zeros((1, 512, 512), np.uint8), tiled=True, blockxsize=256, blockysize=256)
    strips = write(tmp_path / 'strips.tif', np.zeros((1, 512, 2000), np.uint8))
    blocks = Blocks()
    blocks.handle(tiled, DataFolder())
    with blocks.decoding():
        assert rasterio.env.getenv()['GDAL_CACHEMAX'] == GDAL_BLOCKS
    blocks.handle(strips, DataFolder())
    with blocks.decoding():
        assert not rasterio.env.hasenv() or 'GDAL_CACHEMAX' not in rasterio.env.getenv()


def test_masks_of_their_images_may_lie_on_another_grid(images):
    "What a pattern finds is warped as well, and said."
    for year in range(2018, 2021):
        write(images / f'{year}_mask.tif', np.ones((100, 90), np.uint8),
              transform=Affine(15, 0, 614_010, 0, -15, 5_212_000))
    with collect_notes() as notes:
        data = RasterData(images, labels=LabelScheme(CLASSES), chip=64)
        data.setup()
    assert [note for note in notes if '2 more label rasters: on another grid than the images, warped to it' in note]
    mask = np.concatenate([data.reader.window(data.acquisitions[images][0], 0, 0, 300, 280)[1]])
    assert (mask[:, :2] == 255).all() and (mask[:, 2:272] == 1).all() and (mask[:, 272:] == 255).all()


def palette_labels(path, **how):
    "Labels with a colour table, no class list."
    values = np.tile(np.repeat(np.arange(4, dtype=np.uint8), 25), (100, 1))
    write(path, values, transform=Affine(15, 0, 614_000, 0, -15, 5_212_000), **how)
    with rasterio.open(path, 'r+') as f:
        f.write_colormap(1, {0: (0, 0, 0), 1: (250, 0, 0), 2: (0, 250, 0), 3: (0, 0, 250), 255: (9, 9, 9)})
    return path


@pytest.mark.parametrize('nodata', [None, 0])
def test_a_label_raster_knows_its_classes_and_colours(tmp_path, images, nodata):
    with collect_notes() as notes:
        data = RasterData(images, labels=palette_labels(tmp_path / 'cover.tif', nodata=nodata), chip=64)
        data.setup()
    assert any('no class list; its values are the classes' in note for note in notes)
    names = ['class 0', 'class 1', 'class 2', 'class 3'][nodata is not None and nodata + 1:]
    assert data.scheme.names == names
    assert data.scheme.colors[-1].tolist() == [0, 0, 250]
    mask = data.reader.window(data.acquisitions[images][0], 0, 0, 300, 280)[1]
    first = 0 if nodata is None else 255
    assert [mask[5, col] for col in (5, 80, 160, 240)] == [first, *range(len(names) - 3, len(names))]


def elsewhere(a):
    return Affine.translation(3e5, 0) * Affine(*a.transform)


BAD = {
    'elsewhere.tif': (lambda p, a: write(p, np.ones((9, 9), np.uint8), transform=elsewhere(a)),
                      r'elsewhere.tif: touches none of 3 images \(first: .*2018_image.tif\): it covers '
                      r'\[914000, .* the image \[614000, .*\] in EPSG:32631'),
    'no_crs.tif': (lambda p, a: write(p, np.ones((9, 9), np.uint8), crs=None),
                   'no_crs.tif: has no CRS, its image has EPSG:32631'),
    'damaged.tif': (lambda p, a: p.write_bytes(b'II*\0nothing'), 'damaged.tif: not a readable raster'),
    'absent.tif': (lambda p, a: None, 'absent.tif: no such file of labels'),
    'floats.tif': (lambda p, a: write(p, np.ones((300, 280), np.float32)), 'floats.tif: 1 bands of float32: which '
                                                                           'classes they mean is not said'),
    'list.csv': (lambda p, a: p.write_text('id,name\n'), 'label_file: .*list.csv is none of .tif, '),
}


@pytest.mark.parametrize('name', BAD)
def test_label_files_that_cannot_be_used(tmp_path, images, name):
    "One line that names the file, before any work."
    make, message = BAD[name]
    make(tmp_path / name, find_acquisitions(images, masks='optional')[0])
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        RasterData(images, label_file=tmp_path / name)
    assert '\n' not in str(error.value)


def test_images_beside_the_labels(tmp_path, images):
    "They are an error, or unlabelled where masks are optional."
    labels = write(tmp_path / 'labels.tif', np.ones((300, 280), np.uint8))
    write(images / '2021_image.tif', np.zeros((3, 50, 50), np.uint8), transform=Affine(5, 0, 714_000, 0, -5, 5_212_000))
    with pytest.raises(ValueError, match=r"labels.tif: does not touch 1 of 4 images \(first: 2021_image.tif\)"):
        RasterData(images, labels=LabelScheme(CLASSES), label_file=labels)
    data = RasterData(images, labels=LabelScheme(CLASSES), label_file=labels, masks='optional', chip=64)
    data.setup()
    assert [area.acquisition.date for area in data.datasets['predict'].areas] == ['2021']


def test_one_image_is_split_by_regions(tmp_path):
    "Its ground alone tells the splits apart, and no pixel is in two."
    write(tmp_path / 'images' / 'scene.tif', np.full((3, 300, 280), 9, np.uint8))
    labels = write(tmp_path / 'labels.tif', np.ones((300, 280), np.uint8))
    how = dict(root=tmp_path / 'images', labels=LabelScheme(CLASSES), label_file=labels, pattern='scene.tif', chip=64)
    parts = {'train': [0, 128], 'val': [128, 192], 'test': [192, 280]}
    data = RasterData(**how, regions={split: {'columns': columns} for split, columns in parts.items()})
    data.setup()
    for split, (first, end) in parts.items():
        counted = np.bincount(np.concatenate([m.ravel() for m in (chip['mask'].numpy() for chip in data.once(split))]),
                              minlength=256)
        assert counted[1] == 300 * (end - first)
    with pytest.raises(ValueError, match='regions: two splits share pixels of .*scene.tif, of rows 0 to 300 and '
                                         'columns 100 to 128'):
        RasterData(**how, regions={'train': {'columns': [0, 128]}, 'test': {'columns': [100, 280]}}).setup()


@pytest.fixture(scope='module')
def unmasked(once):
    "The world's rasters without masks, and one raster with the labels of the first, on another grid."
    def make(out):
        world = world_data('raster', size='tiny')
        shutil.copytree(world, out / 'images', ignore=shutil.ignore_patterns('*_mask.tif'))
        a = find_acquisitions(world)[0]
        with rasterio.open(a.mask) as f:
            values = f.read(1)
        write(out / 'labels.tif', values[::2, ::2], a.crs, Affine(*a.transform) * Affine.scale(2), nodata=255)

    return once('unmasked rasters', make)


def test_every_verb_reads_a_label_raster(unmasked, tmp_path):
    "inspect, fit, test and predict; the run's settings open it again."
    data = {'data': str(unmasked / 'images'), 'label_file': str(unmasked / 'labels.tif'), 'chip': 64}
    found = inspect('unet', data)
    assert found.table.filter(like='train').to_numpy().sum() > 0
    how = tiny.settings('unet', **data | {'image_size': None, 'crop': None, 'chips_per_epoch': 16, 'epochs': 1})
    run = geoseg.train('unet', how.pop('data'), out=tmp_path, overrides=how)
    assert geoseg.evaluate(run.folder, out=tmp_path / 'scores').confusions.sum() > 0
    out = geoseg.predict(run.folder, out=tmp_path / 'maps', data=str(unmasked / 'images'))
    assert len(list(out.glob('*_classes.tif'))) == len(find_acquisitions(unmasked / 'images', masks='optional'))


def test_zion_land_cover(real_data):
    "The counts of the labels are those of the raster, but for the size of the pixels."
    zion = real_data('zion')
    [a] = find_acquisitions(zion, 'landsat_b2.tif', masks='optional')
    [a] = label_acquisitions([a], open_labels(zion / 'nlcd.tif', LabelSettings()))
    pixels = labels_of(a).read(a, Window(0, 0, a.width, a.height), Blocks())
    with rasterio.open(zion / 'nlcd.tif') as f:
        whole = np.bincount(f.read(1).ravel(), minlength=9)[1:9]
    warped = np.bincount(pixels.values.ravel(), minlength=9)[1:9]
    assert np.abs(warped / warped.sum() - whole / whole.sum()).max() < 1e-3
