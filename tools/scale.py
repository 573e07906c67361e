"""Time and memory of a search on 1, 10 and 100 square kilometres: a drawn map, and copies of it beside each other,
whose features differ by a little noise (sizes that are measured are left out)."""
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from confidence import SHAPE, draw_camera, map_of
from safetensors.numpy import load_file, save_file
from where import ROWS

from geoseg.core.files import write_whole
from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.map_gallery import INDEX, MapGallery
from geoseg.inference.places.place_photos import find_photo
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED
from geoseg.world.world import draw_world

OUT = ROWS.with_name('where_scale.csv')
PHOTOS, SIDE = 6, 1100  # of each kind; metres between two copies
KM2 = 1.024 ** 2


def copied(known, folder, copies):
    'A gallery of copies of a map.'
    folder.mkdir()
    rng, across = np.random.default_rng(0), int(np.ceil(np.sqrt(copies)))
    tables, files, about = {}, {}, dict(known.about)
    parts = {name: [] for name in ('features', 'xy', 'side', 'share', 'blocks', 'boxes')}
    shards = [name for name in known.about['files'] if name.startswith('points')]
    for i in range(copies):
        off = np.array([i % across, -(i // across)]) * SIDE
        noise = rng.normal(0, 0.002, known.tables['features'].shape)
        new = {'features': (known.tables['features'] + noise).astype(np.float16), 'xy': known.xy + off,
               'side': known.side, 'share': known.tables['share'],
               'blocks': known.tables['blocks'] + [i * len(shards), 0, 0],
               'boxes': known.tables['boxes'] + [*off, *off]}
        for name, value in new.items():
            parts[name].append(value)
        for shard, name in enumerate(shards):
            points = load_file(known.folder / name)
            points['xy'] = points['xy'] + off.astype(np.float32)
            path = folder / f'points-{i * len(shards) + shard}.safetensors'
            save_file(points, path)
            files[path.name] = path.stat().st_size
    tables = {name: np.concatenate(value) for name, value in parts.items()}
    tables |= {'mean': known.tables['mean'], 'matrix': known.tables['matrix']}
    save_file({name: np.ascontiguousarray(value) for name, value in tables.items()}, folder / 'tiles-0.safetensors')
    files['tiles-0.safetensors'] = (folder / 'tiles-0.safetensors').stat().st_size
    about |= {'files': files, 'tiles': 'tiles-0.safetensors', 'outline': shapely.to_wkt(known.outline, 3)}
    (folder / INDEX).write_text(json.dumps(about))
    return sum(files.values()) / 1e6


def main(*sizes):
    rows = pd.read_csv(OUT).to_dict('records') if OUT.is_file() else []
    sizes = [copies for copies in sizes if copies not in {round(row['km2'] / KM2) for row in rows}]
    world, other = draw_world(0), draw_world(1)
    encoder = TileEncoder()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        known = map_of(world, Path(folder))
        made = time.perf_counter() - start
        for copies in sizes:
            disk = copied(known, Path(folder) / str(copies), copies)
            start = time.perf_counter()
            large = MapGallery.load(Path(folder) / str(copies))
            opened = time.perf_counter() - start
            for kind, source in (('on the map', world), ('elsewhere', other)):
                rng, number = np.random.default_rng(5), 0
                while number < PHOTOS:
                    _, camera = draw_camera(rng, source)
                    if camera is None:
                        continue
                    photo = source.view(MAPPED, camera, SHAPE, random_stream(0, 'scale', number))[0]
                    start, used = time.perf_counter(), time.process_time()
                    found = find_photo(photo, large, encoder)
                    rows.append({'km2': round(copies * KM2, 3), 'tiles': len(large), 'kind': kind, 'photo': number,
                                 'on_map': found.on_map, 'seconds': round(time.perf_counter() - start, 2),
                                 'cpu_seconds': round(time.process_time() - used, 2), 'gallery_MB': round(disk, 1),
                                 'open_seconds': round(opened, 2), 'make_seconds': round(made, 1),
                                 'peak_MB': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024})
                    number += 1
            write_whole(OUT, pd.DataFrame(rows).to_csv(index=False))


if __name__ == '__main__':
    main(*map(int, sys.argv[1:] or (1, 10, 100)))
