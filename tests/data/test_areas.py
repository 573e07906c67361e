"An area limits what is read, whatever CRS and file it comes in; all that is made of it lies where it lay."
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from a_raster import GRID, write
from affine import Affine
from pyproj import Transformer

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.core.listing import collect_notes
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.files import find_acquisitions, is_shifted, open_raster
from geoseg.data.rasters.limits import limited
from geoseg.data.rasters.reader import Reader, overview
from geoseg.evaluation.statistics import statistics

H, W = 120, 150
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (3, 3, H, W)).astype(np.uint8)
MASKS = RNG.integers(0, 2, (3, H, W)).astype(np.uint8)
PART = shapely.Polygon([(20, 30), (110, 22), (120, 100), (60, 70), (25, 95)])  # columns and rows
HOLE = shapely.Polygon(PART.exterior, [[(80, 40), (95, 40), (95, 55), (80, 55)]])


def on_ground(shape, grid=GRID):
    return shapely.transform(shape, lambda xy: np.stack(grid @ (xy.T[0], xy.T[1]), 1))


@pytest.fixture
def folder(tmp_path):
    "Three dates, masks, and classes."
    for date, image, mask in zip(('2018', '2019', '2020'), IMAGES, MASKS, strict=True):
        write(tmp_path / 'data' / f'{date}_image.tif', image, tiled=True, blockxsize=64, blockysize=64)
        write(tmp_path / 'data' / f'{date}_mask.tif', mask)
    (tmp_path / 'data' / 'classes.txt').write_text('0 low\n1 high\n')
    return tmp_path / 'data'


def area_file(path, shape=HOLE, crs='EPSG:4326'):
    path.parent.mkdir(exist_ok=True)
    gpd.GeoDataFrame({'a': [1]}, geometry=[on_ground(shape)], crs='EPSG:32631').to_crs(crs).to_file(path)
    return str(path)


@pytest.mark.parametrize(('name', 'crs'), [('a.gpkg', 'EPSG:4326'), ('a.geojson', 'EPSG:4326'), ('a.shp', 'EPSG:3035'),
                                           ('a.fgb', 'EPSG:32631')])
def test_pixels_with_their_centre_in_the_area_are_read_and_no_others(folder, tmp_path, name, crs):
    [a, *_] = limited(find_acquisitions(folder), area_file(tmp_path / 'area' / name, crs=crs))
    y, x = np.mgrid[:H, :W] + 0.5
    inside = shapely.contains_xy(HOLE, x, y)
    near = shapely.distance(shapely.points(x, y), HOLE.boundary) < 0.02  # a straight line elsewhere is a curve here
    row, col = a.corner
    here = np.s_[row:row + a.height, col:col + a.width]
    assert abs(row - 22) <= 1 and abs(col - 20) <= 1 and abs(a.height - 78) <= 2 and abs(a.width - 100) <= 2
    image, mask = Reader(LabelScheme(['low', 'high'])).window(a, 0, 0, a.height, a.width)
    want = np.where(inside, MASKS[0], 255)[here]
    assert np.array_equal(mask[~near[here]], want[~near[here]]) and (want == 255).any() and (want != 255).any()
    same = (inside & ~near)[here]
    assert np.array_equal(image[same], IMAGES[0].transpose(1, 2, 0)[here][same])
    assert np.ptp(image[~inside[here] & ~near[here]], 0).max() == 0  # filled
    with open_raster(a.image) as f:
        assert Affine(*a.transform) @ (0, 0) == pytest.approx(f.transform @ (col, row))
        assert is_shifted(f, a)
    assert overview(Reader(LabelScheme(['low', 'high'])), a).shape[2] == 3


def test_a_box_and_what_is_said(folder):
    west, north = Transformer.from_crs('EPSG:32631', 'EPSG:4326', always_xy=True).transform(*(GRID @ (30, 20)))
    east, south = Transformer.from_crs('EPSG:32631', 'EPSG:4326', always_xy=True).transform(*(GRID @ (70, 90)))
    with collect_notes() as notes:
        data = RasterData(folder, area=[west, south, east, north, 'EPSG:4326'], chip=32)
    [note] = [note for note in notes if note.startswith('area')]
    assert note.endswith('of 54,000 pixels are read')
    data.setup()
    counts = data.class_counts('train')[:, :2].sum(0)
    here = MASKS[0][20:90, 30:70]
    assert np.abs(counts - np.bincount(here.ravel())).max() < 150  # meridians are not columns
    assert {len(areas) for areas in data.areas().values()} <= {0, 1}


def test_bands_in_files_and_statistics(folder, tmp_path):
    "Files of one band on several grids are cut alike; numbers outside are not counted."
    for date in ('2018', '2019', '2020'):
        (folder / f'{date}_image.tif').unlink()
        for band in range(3):
            write(folder / f'{date}_b{band}.tif', IMAGES[0][band].astype(np.uint16) * 10)
    area = area_file(tmp_path / 'area' / 'a.gpkg', PART, 'EPSG:32631')
    given = {'data': str(folder), 'pattern': '{date}_{band}.tif', 'bands': ['b0', 'b2'], 'area': area}
    found = statistics(overrides=given, out=tmp_path / 'statistics')
    y, x = np.mgrid[:H, :W] + 0.5
    inside = shapely.contains_xy(PART, x, y)
    for row, band in zip(('b0', 'b2'), (0, 2), strict=True):
        values = IMAGES[0][band][inside] * 10.
        assert np.allclose(found.table.loc[row, ['mean', 'std', 'max']].astype(float),
                           [values.mean(), values.std(), values.max()], rtol=1e-3)  # centres on a border: either


def test_predict_answers_the_area_on_its_own_grid(trained, scene, tmp_path):
    with rasterio.open(scene) as f:
        grid, crs, values = f.transform, f.crs, None
    shape = shapely.Polygon([(50, 40), (300, 60), (280, 250), (70, 240)])
    gpd.GeoDataFrame(geometry=[on_ground(shape, grid)], crs=crs).to_file(tmp_path / 'a.gpkg')
    given = {'area': str(tmp_path / 'a.gpkg')}
    out = geoseg.predict(trained, str(scene), out=tmp_path / 'out', overrides=given, window=64, write=['polygons'])
    with rasterio.open(out / 'scene_classes.tif') as f:
        assert f.shape == (210, 250) and f.transform @ (0, 0) == pytest.approx(grid @ (50, 40))
        values = f.read(1)
    y, x = np.mgrid[:210, :250] + 0.5
    near = shapely.distance(shapely.points(x + 50, y + 40), shape.boundary) < 1e-3
    assert np.array_equal((values == 255)[~near], ~shapely.contains_xy(shape, x + 50, y + 40)[~near])
    polygons = gpd.read_file(out / 'scene_polygons.gpkg')
    assert on_ground(shape, grid).buffer(2).contains(polygons.union_all())
    again = geoseg.predict(trained, str(scene), out=tmp_path / 'out', overrides={
        'area': [*on_ground(shapely.box(0, 0, 40, 40), grid).bounds, crs.to_string()]}, window=64)  # another job
    with rasterio.open(again / 'scene_classes.tif') as f:
        assert f.shape == (40, 40)


def lines(path):
    gpd.GeoDataFrame(geometry=[shapely.LineString(on_ground(PART).exterior.coords)], crs='EPSG:32631').to_file(path)
    return str(path)


BAD = {
    'elsewhere': (lambda p: [3, 4, 5, 6, 'EPSG:4326'], r'touches none of 3 rasters \(first: .*2018_image.tif\): it '
                  r'covers \[.*\] \(west, south, east, north, \[3, 4, 5, 6\] in EPSG:4326\), the image \[614000, '
                  '.*EPSG:32631'),
    'no_crs': (lambda p: [3, 4, 5, 6], 'names no CRS: add it, such as'),
    'crs': (lambda p: [3, 4, 5, 6, 'EPSG:99'], "area: 'EPSG:99' is no CRS that is known"),
    'turned': (lambda p: [5, 4, 3, 6, 'EPSG:4326'], 'with west below east'),
    'three': (lambda p: [5, 4, 3], 'expected a file of polygons, or'),
    'absent': (lambda p: str(p / 'none.gpkg'), 'none.gpkg: no such file'),
    'table': (lambda p: str(p / 'data' / 'classes.txt'), 'classes.txt is none of .gpkg'),
    'lines': (lambda p: lines(p / 'lines.gpkg'), 'lines.gpkg holds LineString, expected polygons'),
}


@pytest.mark.parametrize('name', BAD)
def test_areas_that_are_none(folder, tmp_path, name):
    make, message = BAD[name]
    with pytest.raises((ConfigError, FileNotFoundError), match=message) as error:
        RasterData(folder, area=make(tmp_path))
    assert '\n' not in str(error.value)
