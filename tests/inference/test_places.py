"Photos are localized and registered, from the command line and the notebook."
import re

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
from pyproj import Geod, Transformer
from warm import execute

from geoseg.cli import main
from geoseg.data.pairs.pairs import Ortho, read_pairs
from geoseg.training.run import Run
from geoseg.world.layouts import world_data
from geoseg.world.photos import Camera


@pytest.fixture(scope='module')
def root():
    return world_data('gta', size='tiny')


@pytest.fixture
def run(tiny_run):
    return Run(tiny_run('game4loc-same-area'))


def test_the_command_line_tests_and_localizes(run, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['test', '--checkpoint', str(run.folder), 'out=scores']) == 0
    assert 'Recall@1 ' in capsys.readouterr().out and 'chance' in (tmp_path / 'scores/scores.csv').read_text()
    assert main(['localize', '--checkpoint', str(run.folder), f'photos={root}/drone/images', f'tiles={root}',
                 'gallery=map', 'k=3']) == 0
    places = pd.read_csv(tmp_path / 'places/places.csv')
    photos = len(list((root / 'drone/images').iterdir()))
    assert len(places) == 3 * photos and places.confidence.between(0, 1).all()
    gps = pd.read_csv(tmp_path / 'places/gps.csv')
    assert len(gps) == photos and gps.lat.between(47, 48).all() and gps.long.between(4, 5).all()
    assert main(['localize', '--checkpoint', str(run.folder), 'fotos=x']) == 2
    assert "unknown setting 'fotos'" in capsys.readouterr().err


def test_the_notebook_localizes(run, root, tmp_path):
    pairs = [read_pairs(root / f'same-area-drone2sate-{part}.json') for part in ('train', 'test')]
    gps = pd.concat([pd.DataFrame(p.frame.to_gps(p.photo_xy), [photo.name for photo in p.photos], ['lat', 'long'])
                     for p in pairs])
    gps.to_csv(tmp_path / 'true.csv', index_label='filename')
    done = execute('localize.ipynb', tmp_path, checkpoint=str(run.folder), photos=str(root / 'drone/images'),
                   tiles=str(root), k=3, gps=str(tmp_path / 'true.csv'), out=str(tmp_path / 'places'), register=True)
    places = pd.read_csv(tmp_path / 'places/places.csv')
    best = places[places['rank'] == 1].set_index('photo')
    there = gps.loc[best.index]
    error = np.median(Geod(ellps='WGS84').inv(best.refined_long, best.refined_lat, there.long, there.lat)[2])
    printed = ''.join(output.get('text', '') for cell in done.cells for output in cell.get('outputs', []))
    laid = (best.refined_by == 'registration').sum()
    assert f'median error {error:.0f} m; ' in printed
    assert laid == 0 or f'{laid} of {len(gps)} positions by registration' in printed
    assert 'true' in (tmp_path / 'places/flight.html').read_text()


def test_photos_are_registered_where_they_can_be(run, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    raster = next(world_data('raster', size='tiny').glob('*_image.tif'))
    ortho = Ortho.read(raster)
    west, south, east, north = ortho.outline.bounds
    camera = Camera((west + east) / 2 - 25, (south + north) / 2 + 10, height=110., yaw=200., pitch=6.)
    photo = ortho.view(camera, (240, 240))
    (tmp_path / 'album').mkdir()
    for name, picture in {'seen': photo, 'mirrored': photo[:, ::-1], 'grey': np.full_like(photo, 127)}.items():
        cv2.imwrite(str(tmp_path / f'album/{name}.png'), picture[..., ::-1])
    command = ['localize', '--checkpoint', str(run.folder), 'photos=album', f'sides=[{east - west}]']
    assert main([*command, f'tiles={raster}', 'register=true', 'gallery=map']) == 0
    assert 'registration' in capsys.readouterr().out
    places, gps = (pd.read_csv(f'places/{name}.csv', index_col=0) for name in ('places', 'gps'))
    by = {'grey.png': 'weights', 'mirrored.png': 'weights', 'seen.png': 'registration'}
    assert places.refined_by.to_dict() == by
    to_gps = Transformer.from_crs(ortho.crs, 'EPSG:4326', always_xy=True)
    aim = camera.ground((240, 240))[119:121, 119:121].mean((0, 1))
    for name, at, within in (('seen.png', aim, 2), ('grey.png', ((west + east) / 2, (south + north) / 2), 0.1)):
        long, lat = to_gps.transform(*at)
        assert Geod(ellps='WGS84').inv(long, lat, gps.long[name], gps.lat[name])[2] < within, name
    for words, said in ((['gallery=map', 'register=true'], 'register: give tiles, too'),
                        (['gallery=map', f'tiles={root}', 'register=true'], 'has 1 tiles .first: .* not among'),
                        ([f'tiles={raster}', 'register=2'], 'register is true or false, not 2')):
        assert main([*command, *words]) == 2
        assert re.search(said, capsys.readouterr().err), words


@pytest.mark.parametrize('verb', ['localize', 'predict'])
@pytest.mark.parametrize('given', ['one', 'several', 'folder', 'mixed'])
def test_a_photo_that_is_a_geotiff_is_a_photo(run, root, tmp_path, monkeypatch, verb, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos').mkdir()
    photo = cv2.imread(str(min((root / 'drone/images').iterdir())))[..., ::-1]
    names = ['photos/a.tif'] if given == 'one' else ['photos/a.tif', 'photos/b.tif']
    for name in names:
        with rasterio.open(name, 'w', driver='GTiff', width=photo.shape[1], height=photo.shape[0], count=3,
                           dtype='uint8', crs='EPSG:32631', transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)) as file:
            file.write(photo.transpose(2, 0, 1))
    if given == 'mixed':
        cv2.imwrite('photos/c.png', photo[..., ::-1])
        names.append('photos/c.png')
    words = 'photos' if given in ('folder', 'mixed') else f'[{",".join(names)}]' if given == 'several' else names[0]
    setting = {'localize': 'photos', 'predict': 'data'}[verb]
    assert main([verb, '--checkpoint', str(run.folder), f'{setting}={words}', f'tiles={root}', 'out=places']) == 0
    gps = pd.read_csv('places/gps.csv', dtype=str)
    assert [*gps.filename] == [name.rpartition('/')[2] for name in names]
    assert gps[['lat', 'long']].drop_duplicates().shape[0] == 1  # the same pixels
