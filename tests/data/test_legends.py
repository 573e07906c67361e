"Old maps of any kind, grid and legend are maps of our classes; what has no counterpart is unknown."
import shutil

import geopandas as gpd
import numpy as np
import pytest
import shapely
from a_raster import GRID, write
from affine import Affine

from geoseg.core.errors import ConfigError
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.labels import LabelSettings
from geoseg.evaluation.archive import Archive
from geoseg.inference.rasters.changes import changes
from geoseg.inference.rasters.outdated import update_map

RNG = np.random.default_rng(0)
SCHEME = LabelScheme(['water', 'land'])
TRUTH = (np.indices((64, 96))[1] // 24 % 2).astype(np.uint8)


@pytest.fixture
def maps(tmp_path):
    "A map as polygons in degrees with words, one in another CRS and legend, one of our own."
    for date in ('2017', '2018', '2019', '2021'):
        image = 60 + 120 * TRUTH + RNG.integers(0, 20, (3, 64, 96))
        write(tmp_path / 'maps' / f'{date}_image.tif', image.astype(np.uint8))
    columns = [shapely.transform(shapely.box(24 * i, 0, 24 * i + 24, 64), lambda xy: np.stack(GRID @ tuple(xy.T), 1))
               for i in range(4)]
    words = ['sea', 'field', 'sea', 'cloud']
    gpd.GeoDataFrame({'kind': words}, geometry=columns, crs='EPSG:32631').to_crs('EPSG:4326').to_file(
        tmp_path / 'maps' / '2017_mask.gpkg')
    fine = np.kron(np.where(TRUTH, 41, 11), np.ones((2, 2), int)).astype(np.uint8)
    fine[:16] = 95
    write(tmp_path / 'maps' / '2018_mask.tif', fine, transform=GRID @ Affine.scale(0.5))
    write(tmp_path / 'maps' / '2019_mask.tif', TRUTH)
    (tmp_path / 'maps' / 'classes.txt').write_text('0 water\n1 land\n')
    (tmp_path / 'legend.csv').write_text('value,class,date\nsea,water,2017\nfield,land,2017\n11,water,2018\n'
                                         '41,land,2018\n95,,2018\n0,water,\n1,land,\n')
    return tmp_path / 'maps'


def test_an_archive_of_maps_of_all_kinds(maps, tmp_path):
    archive = Archive.read(maps, SCHEME, '{date}_mask.*', grid=maps / '2021_image.tif', legend=tmp_path / 'legend.csv',
                           settings=LabelSettings('kind'))
    cloud = np.where(np.indices(TRUTH.shape)[1] >= 72, 255, TRUTH)
    high = np.where(np.indices(TRUTH.shape)[0] < 8, 255, TRUTH)
    assert archive.dates == ['2017', '2018', '2019']
    for date, want in (('2017', cloud), ('2018', high), ('2019', TRUTH)):
        assert (archive.masks[date] != want).mean() < 0.02, date  # nearest pixels at borders
    majority = archive.majority('2019')
    assert ((majority == TRUTH) | (majority == 255)).mean() > 0.98 and (majority == 255).mean() < 0.04


def test_a_map_from_maps_of_all_kinds(maps, tmp_path):
    how = dict(block=16, margin=4, sample=2000, most=300, taught=400, window=64, mask_pattern='{date}_mask.*',
               label_field='kind')
    summary = update_map(maps / '2021_image.tif', maps, tmp_path / 'out', legend=tmp_path / 'legend.csv', **how)
    assert set(summary['explained']) == {'20170101', '20180101', '20190101'} and summary['changed'] < 0.05
    assert (tmp_path / 'out' / '2021_image_classes.tif').is_file()
    with pytest.raises(ConfigError, match="2017_mask.gpkg: kind 'cloud' is no class of"):
        update_map(maps / '2021_image.tif', maps, tmp_path / 'other', **how)


BAD = {
    'class': ('value,class\nsea,watr\n', "sea is 'watr', no class of .*nearest: water; it has water, land"),
    'column': ('code,class\n1,water\n', 'no column value; expected value, class'),
    'twice': ('value,class\n1,water\n1,land\n', 'line 3: value 1 is given twice'),
    'date': ('value,class,date\nsea,water,2018\n', 'no legend for 2017_mask.gpkg, of 2017'),
}


@pytest.mark.parametrize('name', BAD)
def test_legends_that_cannot_be_used(maps, tmp_path, name):
    text, message = BAD[name]
    (tmp_path / 'bad.csv').write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        Archive.read(maps, SCHEME, '{date}_mask.*', grid=maps / '2021_image.tif', legend=tmp_path / 'bad.csv',
                     settings=LabelSettings('kind'))
    assert '\n' not in str(error.value)


def test_labels_of_another_legend_train(maps, tmp_path):
    "One file for all images, or a mask each; the classes are those of the list, else those that the legend names."
    (tmp_path / 'codes.csv').write_text('value,class\n11,water\n41,land\n95,\n')
    for date in ('2017', '2018', '2019'):
        shutil.copy(maps / '2018_mask.tif', tmp_path / f'{date}_mask.tif')
        shutil.copy(maps / f'{date}_image.tif', tmp_path / f'{date}_image.tif')
    want = np.where(np.indices(TRUTH.shape)[0] < 8, 255, TRUTH)
    for how in {'legend': tmp_path / 'codes.csv'}, {'legend': tmp_path / 'codes.csv', 'labels': maps / 'classes.txt'}:
        data = RasterData(tmp_path, chip=32, **how)
        data.setup()
        [a, *_] = data.acquisitions[tmp_path]
        assert data.scheme.names == ['water', 'land']
        assert (data.reader.window(a, 0, 0, *TRUTH.shape)[1] != want).mean() < 0.02
    (tmp_path / 'words.yaml').write_text('sea: water\nfield: land\n')
    for path in tmp_path.glob('*_mask.tif'):
        path.unlink()
    data = RasterData(tmp_path, labels=maps / '2017_mask.gpkg', label_field='kind', legend=tmp_path / 'words.yaml',
                      chip=32)
    data.setup()
    cloud = np.where(np.indices(TRUTH.shape)[1] >= 72, 255, TRUTH)
    assert (data.reader.window(data.acquisitions[tmp_path][0], 0, 0, *TRUTH.shape)[1] != cloud).mean() < 0.02
    with pytest.raises(ConfigError, match='legends of dates, and .*2017_mask.gpkg is of all images'):
        RasterData(tmp_path, labels=maps / '2017_mask.gpkg', label_field='kind', legend=tmp_path / 'legend.csv')


def test_changes_between_maps_of_all_kinds(maps, tmp_path):
    how = dict(block=16, margin=4, sample=2000, most=300, taught=400, window=64, mask_pattern='{date}_mask.*',
               label_field='kind', write=[])
    told = how | {'legend': tmp_path / 'legend.csv'}
    found = changes(data=maps / '2021_image.tif', maps=maps, out=tmp_path / 'out', **told)
    assert found['maps'] == ['20170101', '20180101', '20190101']
    assert changes(data=maps / '2021_image.tif', maps=maps, out=tmp_path / 'out', **told) == found
    with pytest.raises(ConfigError, match="2017_mask.gpkg: kind 'cloud' is no class of"):
        changes(data=maps / '2021_image.tif', maps=maps, out=tmp_path / 'other', **how)
