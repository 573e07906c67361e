"Bands in files of their own, on grids of their own, read as one image by every verb."
import numpy as np
import pytest
import rasterio
import tiny
from a_raster import GRID, write
from affine import Affine

import geoseg
from geoseg.core.listing import collect_notes
from geoseg.data.augment import Normalize
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.files import find_acquisitions, match_bands
from geoseg.data.rasters.reader import Blocks, IgnoreBand, Reader, overview
from geoseg.evaluation.statistics import statistics
from geoseg.inference.rasters.rasters import find_rasters
from geoseg.inference.rasters.windows import RasterWindows, ValidReader, middle_frame
from geoseg.training.config import parse

SIDE = 160
RNG = np.random.default_rng(0)
BANDS = {f'b{n}': RNG.integers(0, 4000, (SIDE, SIDE)).astype(np.uint16) for n in (2, 3, 10)}
RANGE = [0, 4000]


@pytest.fixture
def folder(tmp_path):
    "Three scenes of three bands, and masks."
    for date in ('2018', '2019', '2020'):
        for name, values in BANDS.items():
            write(tmp_path / 'data' / f'{date}_{name}.tif', values + int(date) - 2018, nodata=9)
        write(tmp_path / 'data' / f'{date}_mask.tif', (BANDS['b2'] > 2000).astype(np.uint8))
    return tmp_path / 'data'


def reader(**how):
    return Reader(LabelScheme(['low', 'high']), value_range=RANGE, blocks=Blocks(1 << 20), **how)


def test_bands_are_one_image(folder):
    "In the order of their numbers, or as they are named; no data in one band is no data."
    acquisitions = find_acquisitions(folder, '{date}_{band}.tif')
    assert [(a.name, a.stem, a.count, a.band_names, a.dtype) for a in acquisitions] == [
        (date, date, 3, ('b2', 'b3', 'b10'), 'uint16') for date in ('2018', '2019', '2020')]
    image, mask = reader().window(acquisitions[0], 30, 20, 70, 90)
    want = np.stack([*BANDS.values()], 2)[30:100, 20:110] / 4000
    known = (np.stack([*BANDS.values()], 2)[30:100, 20:110] != 9).all(2)
    assert np.abs(image - want)[known].max() < 1e-6 and (mask[~known] == 255).all() and (mask[known] != 255).all()
    swapped = reader(bands=['b10', 2]).window(acquisitions[0], 30, 20, 70, 90)[0]
    assert np.abs(swapped - want[..., [2, 1]])[known].max() < 1e-6
    assert overview(reader(), acquisitions[0]).shape == (300, 300, 3)
    with pytest.raises(ValueError, match="no band 'b4'; the bands are b2, b3, b10"):
        reader(bands=['b4']).channels(acquisitions[0])


def test_bands_of_several_grids(folder):
    "One is named whose grid counts; the others are resampled to it, and ground beyond them has no data."
    ramp = np.add.outer(np.arange(60.), np.arange(80.)).astype(np.float32)  # linear on the ground, 10 m
    for date in ('2018', '2019', '2020'):
        write(folder / f'{date}_b10.tif', ramp, transform=GRID * Affine.scale(2))
    with pytest.raises(ValueError, match=r'bands on 2 grids \(b2: pixels of 5 in EPSG:32631, b10: pixels of 10 in '
                                         r'EPSG:32631\): set grid_band'):
        find_acquisitions(folder, '{date}_{band}.tif')
    [a, *_] = find_acquisitions(folder, '{date}_{band}.tif', grid_band='b2')
    assert (a.height, a.width, a.dtype) == (SIDE, SIDE, 'float32')
    image, mask = reader(bands=['b10']).window(a, 0, 0, SIDE, SIDE)
    rows, cols = np.mgrid[4:112, 4:152]
    want = (rows + 0.5) / 2 - 0.5 + (cols + 0.5) / 2 - 0.5
    assert np.abs(image[4:112, 4:152, 0] * 4000 - want).max() < 1e-3
    assert (mask[121:] == 255).all() and (mask[:119, :159] != 255).all()
    coarse = find_acquisitions(folder, '{date}_{band}.tif', grid_band='b10')[0]
    assert (coarse.height, coarse.width) == (60, 80)
    with pytest.raises(ValueError, match="grid_band: 'b4' is none of the bands b2, b3, b10"):
        find_acquisitions(folder, '{date}_{band}.tif', grid_band='b4')


def test_a_band_for_all_images(folder, tmp_path):
    "Heights in another CRS become a band of each image."
    write(tmp_path / 'dem.tif', np.full((90, 2600), 1000, np.int16), 'EPSG:4326', Affine(0.001, 0, 2, 0, -0.01, 47.2))
    [a, *_] = find_acquisitions(folder, '{date}_{band}.tif', grid_band='b2', extra_bands={'dem': tmp_path / 'dem.tif'})
    assert a.band_names == ('b2', 'b3', 'b10', 'dem') and a.dtype == 'int32'
    assert np.allclose(reader(bands=['dem']).window(a, 0, 0, SIDE, SIDE)[0], 0.25)


BAD = {
    'pattern': (lambda f: None, {'pattern': '{date}_{bnd}.tif'}, r"expected {date}, {tile} and {band} in braces"),
    'absent': (lambda f: (f / '2019_b3.tif').unlink(), {}, 'no file for band b3 of 2019; the bands are b2, b3, b10'),
    'two': (lambda f: write(f / '2018_b3.tif', np.zeros((2, SIDE, SIDE), np.uint16)), {'grid_band': 'b2'},
            '2018_b3.tif: 2 bands, expected one of numbers: it is band b3'),
    'elsewhere': (lambda f: write(f / '2018_b3.tif', BANDS['b3'], transform=Affine.translation(9e4, 0) * GRID),
                  {'grid_band': 'b2'}, '2018_b3.tif: does not touch .*2018_b2.tif: it covers'),
    'no_crs': (lambda f: write(f / '2018_b3.tif', BANDS['b3'], crs=None), {'grid_band': 'b2'},
               '2018_b3.tif: has no CRS'),
    'no_bands': (lambda f: None, {'pattern': '{date}_b2.tif', 'grid_band': 'b2'}, 'grid_band: the pattern .* has no'),
    'extra': (lambda f: None, {'grid_band': 'b2', 'extra_bands': {'dem': 'nowhere.tif'}},
              r'nowhere.tif: no such raster \(extra_bands\)'),
}


@pytest.mark.parametrize('name', BAD)
def test_bands_that_cannot_be_used(folder, name):
    make, how, message = BAD[name]
    make(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        find_acquisitions(folder, **{'pattern': '{date}_{band}.tif'} | how)
    assert '\n' not in str(error.value)


def tagged(file, scale, offset):
    with rasterio.open(file, 'r+') as f:
        f.scales, f.offsets = (scale,), (offset,)


def test_tags_that_scale_are_said_or_applied(folder):
    "Where dates have different ones, the stored numbers mean different things: an error, unless they are applied."
    names = [f'{date}_b2.tif' for date in ('2018', '2019', '2020')]
    for name in names:
        tagged(folder / name, 0.0001, -0.1)
    with collect_notes() as notes:
        find_acquisitions(folder, '{date}_{band}.tif')
    assert any('2018_b2.tif: tags say scale 0.0001 and offset -0.1; they are not applied' in note for note in notes)
    tagged(folder / names[0], 0.0001, 0)
    with pytest.raises(ValueError, match=r'different tags of scale and offset \(.*2018_b2.tif: scale 0.0001 and offset '
                                         r'0; .*2019_b2.tif: scale 0.0001 and offset -0.1\)'):
        find_acquisitions(folder, '{date}_{band}.tif')
    found = find_acquisitions(folder, '{date}_{band}.tif', apply_scale=True)
    for a, offset, added in zip(found, (0, -0.1, -0.1), (0, 1, 2), strict=True):
        own = Reader(LabelScheme(['low', 'high']), value_range=[0, 1], bands=['b2', 'b3'],
                     ignore=IgnoreBand('b2', (int(BANDS['b2'][8, 8]) + added,)))
        image, mask = own.window(a, 0, 0, SIDE, SIDE)
        known = (BANDS['b2'] + added != 9) & (BANDS['b3'] + added != 9)
        flagged = BANDS['b2'] == BANDS['b2'][8, 8]  # flags are what the file stores
        assert flagged.any() and np.array_equal(mask == 255, ~known | flagged)
        assert np.allclose(image[known & ~flagged, 0], (BANDS['b2'][known & ~flagged] + added) * 0.0001 + offset)
        assert np.allclose(image[known & ~flagged, 1], BANDS['b3'][known & ~flagged] + added)


def test_statistics_of_bands_are_what_a_run_reads(folder, tmp_path):
    "Of the dates that train, without what has no data; `--config` brings them into another layout than the recipe's."
    (folder / 'classes.txt').write_text('0 low\n1 high\n')
    for date in ('2018', '2019', '2020'):
        tagged(folder / f'{date}_b10.tif', 0.5, -1000)
    given = {'data': str(folder), 'pattern': '{date}_{band}.tif', 'apply_scale': True}
    found = statistics(overrides=given, out=tmp_path / 'statistics')
    for name, values in BANDS.items():
        values = values[values != 9].astype(float) * (0.5 if name == 'b10' else 1) - 1000 * (name == 'b10')
        assert np.allclose(found.table.loc[name, ['mean', 'std', 'min', 'max', 'p50']].astype(float),
                           [values.mean(), values.std(), values.min(), values.max(), np.median(values)], rtol=1e-3)
        assert found.table.loc[name, 'no_data'] == (BANDS[name] == 9).mean()
    file = tmp_path / 'statistics' / 'statistics.yaml'
    data = parse(['unet', file], given | {'color_jitter': None, 'chip': 64}).build_data()
    data.setup()
    images = [sample['image'] for sample in (data.reference()[i] for i in range(len(data.reference())))]
    assert abs(float(np.stack(images).mean())) < 0.02 and abs(float(np.stack(images).std()) - 1) < 0.02
    assert data.how['apply_scale'] and data.augment.horizontal_flip == 0.5


def test_every_verb_reads_bands(folder, tmp_path):
    "fit, test and predict, which writes one map a scene, named by what the bands have in common."
    assert list(match_bands(folder, '{date}_{band}.tif')[('2018', '')]) == ['b2', 'b3', 'b10', 'mask']
    data = {'data': str(folder), 'pattern': '{date}_{band}.tif', 'bands': ['b10', 'b3', 'b2'], 'value_range': [RANGE],
            'chip': 64, 'color_jitter': None, 'labels': str(tmp_path / 'list.txt')}
    (tmp_path / 'list.txt').write_text('0 low\n1 high\n')
    how = dict(tiny.settings('unet'), **data | {'image_size': None, 'crop': None, 'chips_per_epoch': 16, 'epochs': 1})
    run = geoseg.train('unet', how.pop('data'), out=tmp_path / 'runs', overrides=how)
    assert geoseg.evaluate(run.folder, out=tmp_path / 'scores').confusions.sum() > 0
    out = geoseg.predict(run.folder, out=tmp_path / 'maps', data=str(folder))
    assert sorted(file.name for file in out.glob('*_classes.tif')) == [
        f'{date}_classes.tif' for date in ('2018', '2019', '2020')]
    assert len(find_rasters(folder, '{date}_{band}.tif')) == 3
    data = RasterData(folder, labels=data['labels'], pattern=data['pattern'], value_range=[RANGE], chip=64)
    assert data.channels == 3 and data.inputs().count(folder / '2018_b10.tif') == 1


def with_flags(folder):
    "Flags beside the bands: 1 in a corner, bit 3 in another, none elsewhere; on pixels of 10 m."
    flags = np.zeros((80, 80), np.uint8)
    flags[:10, :10], flags[70:, 70:] = 1, 8 + 2
    for date in ('2018', '2019', '2020'):
        write(folder / f'{date}_qa.tif', flags, transform=GRID * Affine.scale(2))
    corner = np.zeros((SIDE, SIDE), bool)
    corner[:20, :20] = True
    return corner, np.rot90(corner, 2)


def test_a_band_of_flags_is_ignored(folder, tmp_path):
    "By values or bits, by the nearest pixel; it is no channel, and a prediction leaves its pixels out."
    by_value, by_bit = with_flags(folder)
    [a, *_] = find_acquisitions(folder, '{date}_{band}.tif', grid_band='b2')
    known = (np.stack([*BANDS.values()], 2) != 9).all(2)
    for ignore, where in ((IgnoreBand('qa', (1,)), by_value), (IgnoreBand('qa', bits=(3,)), by_bit),
                          (IgnoreBand('qa', (1,), (3, 7)), by_value | by_bit),
                          (IgnoreBand('qa', (2,)), by_bit & False)):
        image, mask = reader(ignore=ignore).window(a, 0, 0, SIDE, SIDE)
        assert image.shape[2] == reader(ignore=ignore).channels(a) == 3
        assert ((mask == 255) == (where | ~known)).all()
        valid = ValidReader(LabelScheme(['low', 'high']), value_range=RANGE, ignore=ignore)
        windows = RasterWindows(a, valid, Normalize(), middle_frame(a), 64, 16)
        assert (windows.valid((0, SIDE), (0, SIDE)) == (~where & known)).all()
    how = dict(root=folder, labels=LabelScheme(['low', 'high']), pattern='{date}_{band}.tif', grid_band='b2',
               value_range=[RANGE], chip=64)
    data = RasterData(**how, ignore_band='qa', ignore_bits=[3])
    assert data.channels == 3 and data.reader.ignore == IgnoreBand('qa', (), (3,))
    for wrong, message in (({'ignore_band': 'qa'}, 'ignore_band: set ignore_values or ignore_bits'),
                           ({'ignore_bits': [3]}, 'ignore_values and ignore_bits tell what a band says'),
                           ({'ignore_band': 'clouds', 'ignore_bits': [3]}, "no band 'clouds'; the bands are b2, b3"),
                           ({'ignore_band': 'qa', 'ignore_bits': [40]}, 'ignore_bits: 40, expected bits from 0 to 31')):
        with pytest.raises(ValueError, match=message):
            RasterData(**how, **wrong)
