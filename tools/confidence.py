"""Photos of drawn worlds, and how many key points agree where a place is right or wrong: the rows from which
`CONFIDENCE` of nbs/inference/places/place_photos.ipynb is fitted (resumable; nothing but the world is read)."""
import math
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import rasterio

from geoseg.core.files import write_whole
from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.map_gallery import gallery
from geoseg.inference.places.place_photos import find_photo, fit_confidence, verify_tiles
from geoseg.world.ground import ORIGIN
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED, Camera
from geoseg.world.world import draw_world

ROWS = Path(__file__).parent.parent / 'nbs/tutorials/results/place_confidence.csv'
SEEDS, SHAPE, YEARS = (0, 1, 2), (360, 480), 6
SIDES = [112, 158, 224, 317, 448]  # metres
PHOTOS, WRONG, TILES = 80, 50, 60  # of a world; on wrong ground; tiles of it
SPOILT = {
    'none': lambda photo: photo,
    'blur': lambda photo: cv2.GaussianBlur(photo, (0, 0), 1.5),
    'jpeg': lambda photo: cv2.imdecode(cv2.imencode('.jpg', photo, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 1),
    'dark': lambda photo: (photo * 0.4).astype(np.uint8),
}


def draw_camera(rng, world):
    'A camera somewhere, and how far across it sees; None where it looks over the border.'
    width = math.exp(rng.uniform(math.log(110), math.log(450)))
    at = np.array(ORIGIN) + rng.uniform(0, 1024, 2) * (1, -1)
    camera = Camera(*at, width / 2 / math.tan(math.radians(30)), rng.uniform(0, 360), rng.uniform(0, 15))
    corners = world.pixel_of(camera.ground(SHAPE, np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * SHAPE[::-1]))
    return width, camera if ((corners > 0) & (corners < 1024)).all() else None


def map_of(world, folder):
    with rasterio.open(folder / 'map.tif', 'w', driver='GTiff', width=1024, height=1024, count=3, dtype='uint8',
                       crs=world.crs, transform=world.transform) as file:
        file.write(world.images[MAPPED].transpose(2, 0, 1))
    return gallery(str(folder / 'map.tif'), str(folder / 'gallery'), sides=SIDES)


def searched(seed, worlds, known, encoder, done):
    'Photos of the map, of its ground in other years, and of ground that it does not show.'
    rng, number = np.random.default_rng(seed), 0
    while number < PHOTOS:
        kind = ['same', 'other', 'elsewhere'][rng.choice(3, p=[.35, .3, .35])]
        source = worlds[(seed + 1) % len(worlds)] if kind == 'elsewhere' else worlds[seed]
        width, camera = draw_camera(rng, source)
        if camera is None:
            continue
        others = [year for year in range(YEARS) if year != MAPPED]
        year = MAPPED if kind == 'same' else int(rng.choice(others))
        if kind == 'elsewhere':
            year = int(rng.integers(YEARS))
        spoil = rng.choice([*SPOILT])
        if (kind_name := f'{kind} {number}') not in done:
            photo = SPOILT[spoil](source.view(year, camera, SHAPE, random_stream(seed, 'calib', number))[0])
            placement = find_photo(photo, known, encoder).placement
            true = known.frame.from_crs(camera.ground(SHAPE, np.array([SHAPE[::-1]]) / 2), source.crs)[0]
            error = np.nan if placement is None else np.linalg.norm(placement.centre - true)
            yield {'photo': kind_name, 'kind': kind, 'spoilt': spoil, 'width': round(width, 1),
                   'inliers': placement.inliers if placement else 0, 'error': round(error, 2),
                   'right': bool(kind != 'elsewhere' and error < 0.1 * width)}
        number += 1


def wrong_ground(worlds, known, done):
    'The most that agrees anywhere on a map that does not show the ground of a photo.'
    rng, number = np.random.default_rng(7), 0
    while number < WRONG:
        width, camera = draw_camera(rng, worlds[1])
        if camera is None:
            continue
        tiles = rng.choice(len(known), TILES, replace=False)
        if (name := f'wrong {number}') not in done:
            photo = worlds[1].view(0, camera, SHAPE, random_stream(1, 'neg', number))[0]
            placement, _ = verify_tiles(photo, known, tiles)
            yield {'photo': name, 'kind': f'elsewhere, best of {TILES} tiles', 'spoilt': 'none',
                   'width': round(width, 1), 'inliers': placement.inliers if placement else 0,
                   'error': np.nan, 'right': False}
        number += 1


def main():
    rows = pd.read_csv(ROWS).to_dict('records') if ROWS.is_file() else []
    worlds = [draw_world(seed) for seed in SEEDS]
    encoder = None
    for seed in SEEDS:
        done = {row['photo'] for row in rows if row['world'] == seed}
        if len(done) == PHOTOS + WRONG * (seed == 0):
            continue
        encoder = encoder or TileEncoder()
        with tempfile.TemporaryDirectory() as folder:
            known = map_of(worlds[seed], Path(folder))
            jobs = [searched(seed, worlds, known, encoder, done), *[wrong_ground(worlds, known, done)] * (seed == 0)]
            for row in (row for job in jobs for row in job):
                rows.append({'world': seed, **row})
                write_whole(ROWS, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    print('CONFIDENCE = ({:.2f}, {:.2f})'.format(*fit_confidence(table.inliers, table.right)))


if __name__ == '__main__':
    main()
