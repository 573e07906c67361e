"""What a gallery and a search cost on 1, 9 and 113 square kilometres of drawn map, in seconds of CPU and in memory: the
rows of where_was_this_taken.ipynb. The largest gallery is the one of 9 km², twelve times side by side. Each gallery is
made, and its memory measured, in a process of its own; the searches of all three take turns in one process.
`python tools/growth.py FOLDER` keeps the galleries in a folder, and goes on from there."""
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import shapely
import torch
from confidence import SHAPE
from safetensors.numpy import save_file

from geoseg.core.files import write_whole
from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.map_gallery import MapGallery, gallery
from geoseg.inference.places.place_photos import CANDIDATES, CLAIMED, confidence_of, photo_views, verify_tiles
from geoseg.world.ground import CRS, DATES, ORIGIN
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED, Camera
from geoseg.world.world import draw_world

RESULTS = Path(__file__).parent.parent / 'nbs/tutorials/results'
ROWS, MAPS = RESULTS / 'where_growth.csv', RESULTS / 'where_growth_maps.csv'
CELL, PIXEL = 1024, 2.  # pixels of a world, metres a pixel: a world is drawn twice as large as it is
SIZES, COPIES = (512, 1536), (4, 3)  # pixels of the side of a map; of the second, side by side
PHOTOS = 6  # of the ground that all maps show; as many of ground that none shows


def year_of(seed):
    return draw_world(seed, years=(int(DATES[MAPPED][:4]),))


def draw_map(folder):
    'Drawn worlds side by side, every second one mirrored; and its upper left part.'
    whole = np.zeros((3, 2 * CELL, 2 * CELL), np.uint8)
    for row in range(2):
        for column in range(2):
            number = 5 * row + column
            picture = year_of(number // 2).images[0][:, ::1 - 2 * (number % 2)]
            whole[:, row * CELL:(row + 1) * CELL, column * CELL:(column + 1) * CELL] = picture.transpose(2, 0, 1)
    for size in SIZES:
        with rasterio.open(folder / f'{size}.tif', 'w', driver='GTiff', width=size, height=size, count=3, dtype='uint8',
                           crs=CRS, transform=rasterio.transform.from_origin(*ORIGIN, PIXEL, PIXEL), tiled=True,
                           compress='deflate') as file:
            file.write(whole[:, :size, :size])


def repeat_map(folder):
    'A gallery of the larger map, several times side by side.'
    known, side = MapGallery.load(folder / f'gallery-{SIZES[1]}'), SIZES[1] * PIXEL
    new, files, blocks = folder / 'gallery-copies', {}, []
    moves = [np.array([column, -row]) * side for row in range(COPIES[1]) for column in range(COPIES[0])]
    new.mkdir(exist_ok=True)
    for i, move in enumerate(moves):
        points = known.points((-1e9, -1e9, 1e9, 1e9))
        tables = {**vars(points), 'xy': (points.xy + move).astype(np.float32)}
        name = f'points-{i}.safetensors'
        save_file({key: np.ascontiguousarray(value) for key, value in tables.items()}, new / name)
        files[name] = (new / name).stat().st_size
        blocks.append((i, 0, len(points)))
    reach = np.array([0, -side, side, 0])
    tables = {name: np.concatenate([value] * len(moves)) if name in ('features', 'side', 'share') else value
              for name, value in known.tables.items()}
    tables |= {'xy': np.concatenate([known.xy + move for move in moves]), 'blocks': np.array(blocks),
               'boxes': np.array([reach + np.tile(move, 2) for move in moves])}
    save_file({name: np.ascontiguousarray(value) for name, value in tables.items()}, new / 'tiles-0.safetensors')
    files['tiles-0.safetensors'] = (new / 'tiles-0.safetensors').stat().st_size
    ground = shapely.box(0, -COPIES[1] * side, COPIES[0] * side, 0)
    about = known.about | {'tiles': 'tiles-0.safetensors', 'files': files, 'outline': shapely.to_wkt(ground, 3)}
    write_whole(new / 'gallery.json', json.dumps(about))


def measured(folder, size, what):
    'In a process of its own: a gallery is made, or two photos are searched on it.'
    start = time.process_time()
    if what == 'make':
        if size == 'copies':
            repeat_map(folder)
            known = MapGallery.load(folder / 'gallery-copies')
        else:
            known = gallery(str(folder / f'{size}.tif'), str(folder / f'gallery-{size}'))
        square = known.outline.area / 1e6
        disk = sum(known.about['files'].values())
        return {'map': size, 'km2': round(square, 3), 'tiles': len(known), 'scales': len(known.about['sides']),
                'key_points': int(np.diff(known.tables['blocks'][:, 1:]).sum()), 'disk_mb': round(disk / 1e6, 2),
                'make_cpu_s': round(time.process_time() - start, 1), 'make_peak_mb': peak()}
    known, encoder = MapGallery.load(folder / f'gallery-{size}'), TileEncoder()
    before = peak()
    for photo, _ in photos('known', 2):
        search(photo, known, encoder)
    return {'search_peak_mb': peak(), 'loaded_peak_mb': before}


def peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def photos(kind, count=PHOTOS):
    'Photos of the corner that all maps show, or of a world that none shows; and the true middle, metres.'
    world, rng = year_of(0 if kind == 'known' else 99), np.random.default_rng(kind == 'known')
    while count:
        width = math.exp(rng.uniform(math.log(200), math.log(400)))  # metres of the world, half of those of the map
        at = np.array(ORIGIN) + rng.uniform(0, 512, 2) * (1, -1)
        camera = Camera(*at, width / 2 / math.tan(math.radians(30)), rng.uniform(0, 360), rng.uniform(0, 10))
        corners = world.pixel_of(camera.ground(SHAPE, np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * SHAPE[::-1]))
        if ((corners > 0) & (corners < 512)).all():
            middle = world.pixel_of(camera.ground(SHAPE, np.array([SHAPE[::-1]]) / 2))[0] * (PIXEL, -PIXEL)
            yield world.view(0, camera, SHAPE, random_stream(0, kind, count))[0], middle
            count -= 1


def search(photo, known, encoder):
    'The steps of `find_photo`, with the seconds of each.'
    times = [time.process_time()]
    views = encoder.features(photo_views(photo), 'query').cpu().numpy()
    times.append(time.process_time())
    tiles, _, _ = known.candidates(views, CANDIDATES)
    times.append(time.process_time())
    found, _ = verify_tiles(photo, known, tiles)
    times.append(time.process_time())
    return found, np.diff(times)


def main():
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        print(json.dumps(measured(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
        return
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    maps = pd.read_csv(MAPS, dtype={'map': str}).to_dict('records') if len(sys.argv) > 1 and MAPS.is_file() else []
    names = [*map(str, SIZES), 'copies']
    if not (folder / f'{SIZES[0]}.tif').is_file():
        draw_map(folder)
    for name in names[len(maps):]:
        parts = [json.loads(subprocess.run([sys.executable, __file__, str(folder), name, what], check=True,
                                           capture_output=True, text=True).stdout.splitlines()[-1])
                 for what in ('make', 'search')]
        maps.append(parts[0] | parts[1])
        write_whole(MAPS, pd.DataFrame(maps).to_csv(index=False))
    known, encoder = {name: MapGallery.load(folder / f'gallery-{name}') for name in names}, TileEncoder()
    rows = []
    for kind in ('known', 'elsewhere'):
        for number, (photo, middle) in enumerate(photos(kind)):
            for name in names if number % 2 else names[::-1]:  # the first search of a photo is not always the same
                found, (encode, look_up, verify) = search(photo, known[name], encoder)
                there = found is not None and confidence_of(found.inliers) >= CLAIMED
                apart = SIZES[1] * PIXEL  # of the copies
                error = np.abs((found.centre - middle + apart / 2) % apart - apart / 2).max() if there else np.nan
                rows.append({'kind': kind, 'photo': number, 'map': name, 'encode_s': round(encode, 4),
                             'search_s': round(look_up, 5), 'verify_s': round(verify, 4), 'on_map': there,
                             'error': round(float(error), 2)})
                write_whole(ROWS, pd.DataFrame(rows).to_csv(index=False))


if __name__ == '__main__':
    main()
