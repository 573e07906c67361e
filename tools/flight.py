"""What the neighbours in a flight add: turned drone photos, those whose ground was cut out of the map, and flights
over drawn worlds in other years, of which every fourth photo shows another world (resumable)."""
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import shapely
from confidence import SHAPE, map_of
from where import ROWS, VARIANTS, CutOut

from geoseg.core.files import write_whole
from geoseg.data.pictures.files import read_image
from geoseg.data.shared import shared_data
from geoseg.geo.coords import exif_place
from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.map_gallery import gallery
from geoseg.inference.places.place_photos import Found, find_photo, follow_flight
from geoseg.inference.places.points import CORNERS, Placement
from geoseg.world.ground import ORIGIN
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED, Camera
from geoseg.world.world import draw_world

OUT = ROWS.with_name('where_flight.csv')
FLIGHTS, PHOTOS = 2, 16  # of a world
FLOWN = 3  # photos that are flown over and not told apart, before and after one that is cut out


def found_of(row, shape):
    'What `find_photo` said, from a row of the page.'
    place = None
    if row.on_map:
        ring = np.array(shapely.from_wkt(row.outline).exterior.coords)[:4]
        own = (CORNERS * shape[::-1]).astype(np.float32)
        place = Placement(cv2.getPerspectiveTransform(own, ring.astype(np.float32)), shape, int(row.inliers), 0)
    return Found(np.arange(3), np.zeros(3), place, None, row.confidence if row.on_map else 0.)


def drone_photos(done):
    'The turned photos, placed alone and by their neighbours; and each photo whose ground was cut out of the map.'
    root = shared_data('caliterra')
    rows = pd.read_csv(ROWS)
    with tempfile.TemporaryDirectory() as folder:
        known = gallery(str(root / 'orthomosaic_utm14n.tif'), folder + '/map')
        files = sorted((root / 'images').glob('*.jpg'))
        times = {path.name: exif_place(path, '+00:00')[2] for path in files}
        number = {path.name: i for i, path in enumerate(files)}
        turned = rows[rows.variant == 'turned']
        if 'caliterra, turned' not in done and len(turned) == len(files):
            pictures = {path.name: VARIANTS['turned'](read_image(path), number[path.name]) for path in files}
            alone = {row.photo: found_of(row, pictures[row.photo].shape[:2]) for row in turned.itertuples()}
            new = follow_flight(pictures, times, alone, known)
            true = {row.photo: (row.x, row.y) for row in turned.itertuples()}
            sure = {row.photo: (row.found_x, row.found_y) for row in rows[rows.variant == 'intact'].itertuples()}
            for name, one in alone.items():
                both = new.get(name, one)
                gps = np.hypot(*(both.placement.centre - true[name])) if both.on_map else np.nan
                yield {'scene': 'caliterra, turned', 'photo': name, **told(one, sure[name], 8, 'alone'),
                       **told(both, sure[name], 8, 'flight'), 'there': True, 'gps': round(float(gps), 1)}
        intact = {row.photo: row for row in rows[rows.variant == 'intact'].itertuples()}
        pictures = {}
        for path in (path for start in range(5) for path in files[start::5]):
            if ('caliterra, cut out', path.name) in done:
                continue
            i = number[path.name]
            near = files[max(0, i - FLOWN):i + FLOWN + 1]
            pictures = {p.name: pictures.get(p.name, read_image(p)) for p in near}
            answers = {p.name: found_of(intact[p.name], pictures[p.name].shape[:2]) for p in near}
            answers[path.name] = Found(np.arange(3), np.zeros(3), None, None, 0.)
            hole = shapely.from_wkt(intact[path.name].outline).buffer(2)
            holed = CutOut(known.folder, known.about, known.tables).without(hole)
            new = follow_flight(pictures, times, answers, holed)
            one = new.get(path.name, answers[path.name])
            yield {'scene': 'caliterra, cut out', 'photo': path.name, **told(answers[path.name], None, 0, 'alone'),
                   **told(one, None, 0, 'flight'), 'there': False}


def told(found, true, tolerance, who):
    'How a photo was answered.'
    right = found.on_map and true is not None and np.hypot(*(found.placement.centre - true)) < tolerance
    return {f'{who}_on_map': found.on_map, f'{who}_right': bool(right),
            f'{who}_inliers': found.placement.inliers if found.placement else 0}


def drawn_flights(seed, done):
    'Straight flights over a drawn world in another year than that of its map.'
    if (f'world {seed}', f'{FLIGHTS - 1} {PHOTOS - 1}') in done:
        return
    worlds = [draw_world(seed), draw_world(seed + 1)]
    encoder = TileEncoder()
    with tempfile.TemporaryDirectory() as folder:
        known = map_of(worlds[0], Path(folder))
        for flight in range(FLIGHTS):
            rng = np.random.default_rng([seed, flight])
            year = int(rng.choice([year for year in range(6) if year != MAPPED]))
            yaw, side = rng.uniform(0, 360), rng.uniform(130, 220)  # metres that a photo is wide
            ahead = np.array([np.sin(np.radians(yaw)), np.cos(np.radians(yaw))])
            steps = (np.arange(PHOTOS) - (PHOTOS - 1) / 2)[:, None] * ahead * 28 + rng.normal(0, 4, (PHOTOS, 2))
            at = np.array(ORIGIN) + np.array([512, -512]) + rng.uniform(-120, 120, 2) + steps
            cameras = [Camera(*place, side / 2 / np.tan(np.radians(30)), (yaw + rng.normal(0, 4)) % 360,
                              rng.uniform(0, 8)) for place in at]
            stranger = np.arange(PHOTOS) % 4 == 2
            photos = {f'{flight} {i}': worlds[int(stranger[i])].view(
                year, camera, SHAPE, random_stream(seed, 'flight', flight * 100 + i))[0]
                for i, camera in enumerate(cameras)}
            alone = {name: find_photo(photo, known, encoder) for name, photo in photos.items()}
            new = follow_flight(photos, {name: float(i) for i, name in enumerate(photos)}, alone, known)
            for i, (name, one) in enumerate(alone.items()):
                middle = np.array([SHAPE[::-1]]) / 2
                true = None if stranger[i] else known.frame.from_crs(cameras[i].ground(SHAPE, middle), worlds[0].crs)[0]
                yield {'scene': f'world {seed}', 'photo': name, **told(one, true, 0.1 * side, 'alone'),
                       **told(new.get(name, one), true, 0.1 * side, 'flight'), 'there': not stranger[i]}


def main():
    rows = pd.read_csv(OUT).to_dict('records') if OUT.is_file() else []
    done = {(row['scene'], row['photo']) for row in rows}
    for job in [drone_photos(done | {scene for scene, _ in done}), *(drawn_flights(seed, done) for seed in (0, 1))]:
        for row in job:
            if (row['scene'], row['photo']) not in done:
                rows.append(row)
                write_whole(OUT, pd.DataFrame(rows).to_csv(index=False))


if __name__ == '__main__':
    main()
