"""Views of one year on a map of another, without training: aerial pictures both ways, and drawn worlds; by the search
alone, verified, by key points alone and by histograms of colours (resumable)."""
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from confidence import draw_camera, map_of
from where import ROWS

from geoseg.core.files import write_whole
from geoseg.data.pairs.pairs import Ortho
from geoseg.data.shared import shared_data
from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.map_gallery import gallery, tile_blocks
from geoseg.inference.places.mosaic import Mosaic
from geoseg.inference.places.place_photos import CLAIMED, confidence_of, find_photo, view_side
from geoseg.inference.places.points import find_points, lay_photo
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED, Camera
from geoseg.world.world import draw_world

OUT = ROWS.with_name('where_seasons.csv')
SHAPE = 192, 256
SIDES = [270, 382]  # metres, of aerial tiles


def colours(picture):
    'A histogram of colours.'
    bins = (picture.reshape(-1, 3) // 32 @ np.array([64, 8, 1])).astype(int)
    return np.bincount(bins, minlength=512) / len(bins)


def answers(photo, known, encoder, histograms):
    'Where each way says that a photo was taken, and whether it claims so.'
    found = find_photo(photo, known, encoder)
    yield 'search', known.xy[found.tiles[0]], False
    yield 'verified', found.placement.centre if found.on_map else known.xy[found.tiles[0]], found.on_map
    resolution = np.exp(np.log(np.unique(known.side)).mean()) / view_side(photo.shape)
    everywhere = known.points((-np.inf, -np.inf, np.inf, np.inf))
    alone = lay_photo(find_points(photo, 3000), everywhere, photo.shape[:2], resolution, scales=4)
    west, south, east, north = known.outline.bounds
    sure = alone is not None and confidence_of(alone.inliers) >= CLAIMED
    middle = np.array([(west + east) / 2, (south + north) / 2])
    yield 'key points alone', middle if alone is None else alone.centre, sure
    side = int(view_side(photo.shape))
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    off = np.abs(histograms - colours(photo[top:top + side, left:left + side])).sum(1)
    yield 'histograms', known.xy[off.argmin()], False


def scenes(count):
    'Name, map, gallery, and views with their cameras.'
    naip = shared_data('naip')
    for flown, mapped in ((2017, 2015), (2015, 2017)):
        photos, path = (next(naip.glob(f'{year}*_image.tif')) for year in (flown, mapped))
        ortho = Ortho.read(photos)

        def views(ortho=ortho):
            rng, (west, south, east, north) = np.random.default_rng(0), ortho.outline.bounds
            number = 0
            while number < count:
                width = rng.uniform(450, 860)
                camera = Camera(rng.uniform(west, east), rng.uniform(south, north), width / 2 / np.tan(np.radians(30)),
                                rng.uniform(0, 360), rng.uniform(0, 15))
                corners = camera.ground(SHAPE, np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * SHAPE[::-1])
                if ortho.outline.contains(shapely.Polygon(corners)):
                    yield number, width, camera, ortho.crs, lambda c=camera: ortho.view(c, SHAPE)
                    number += 1
        yield f'aerial {flown} on {mapped}', views, lambda folder, path=path: (
            gallery(str(path), str(folder / 'gallery'), sides=SIDES), path)
    for seed in (0, 1):
        world = draw_world(seed)

        def views(world=world, seed=seed):
            rng, number = np.random.default_rng([seed, 99]), 0
            while number < count // 2:
                width, camera = draw_camera(rng, world)
                year = int(rng.choice([year for year in range(6) if year != MAPPED]))
                if camera is not None:
                    stream = random_stream(seed, 'seasons', number)
                    yield number, width, camera, world.crs, lambda c=camera, y=year, s=stream: (
                        world.view(y, c, SHAPE, s)[0])
                    number += 1
        yield f'world {seed}, other years', views, lambda folder, world=world: (
            map_of(world, folder), folder / 'map.tif')


def main(count=40):
    rows = pd.read_csv(OUT).to_dict('records') if OUT.is_file() else []
    encoder = None
    for scene, views, make in scenes(count):
        done = {row['photo'] for row in rows if row['scene'] == scene}
        if not any(number not in done for number, *_ in views()):
            continue
        encoder = encoder or TileEncoder()
        with tempfile.TemporaryDirectory() as folder:
            known, path = make(Path(folder))
            mosaic = Mosaic.open(str(path), known.frame)
            histograms = np.array([colours(tile) for side in known.about['sides']
                                   for tiles, _, _ in tile_blocks(mosaic, side) for tile in tiles])
            assert len(histograms) == len(known)
            for number, width, camera, crs, view in views():
                if number in done:
                    continue
                middle = np.array([SHAPE[::-1]]) / 2
                true = known.frame.from_crs(camera.ground(SHAPE, middle), crs)[0]
                for way, at, claimed in answers(view(), known, encoder, histograms):
                    rows.append({'scene': scene, 'photo': number, 'width': round(width, 1), 'way': way,
                                 'error': round(float(np.hypot(*(at - true))), 1), 'claimed': bool(claimed)})
                write_whole(OUT, pd.DataFrame(rows).to_csv(index=False))


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
