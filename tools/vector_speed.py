"""Chips with labels from polygons and from mask files of the same pixels, each in a process of its own.

python tools/vector_speed.py nbs/vector_speed.csv

A row: chips a second of CPU time, of a first pass that begins with the data module (`cold`) and of the same chips again
(`warm`), and a hash of the masks (`pixels`). Rows are kept as they come: what is in the file is not measured again.
"""
import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import rasterio
import shapely
from rasterio.features import shapes
from torchgeo_speed import keep, stored

import geoseg
from geoseg.data.augment import Augment
from geoseg.data.rasters.chips import RasterData
from geoseg.data.shared import shared_data

LABELS = ('mask files', 'polygons', 'polygons in degrees')
COLUMNS = ['labels', 'dates', 'version', 'chips', 'run', 'cold', 'warm', 'pixels']


def make(folder: Path, naip: Path):
    "The dates of naip, all with the water of the last one: as masks, and as outlines."
    last = sorted(naip.glob('*_mask.tif'))[-1]
    for image in sorted(naip.glob('*_image.tif')):
        for dates in ('7', '1') if image.name[:8] == last.name[:8] else ('7',):
            for kind in ('images', 'masks'):
                (folder / dates / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(image, folder / dates / kind)
            shutil.copy(last, folder / dates / 'masks' / image.name.replace('_image', '_mask'))
    with rasterio.open(last) as file:
        values = file.read(1)
        outlines = [(shapely.geometry.shape(s), v) for s, v in shapes(values, values < 2, transform=file.transform)]
        frame = gpd.GeoDataFrame({'cover': [('water', 'land')[int(v)] for _, v in outlines]}, crs=file.crs,
                                 geometry=[s for s, _ in outlines])
    frame.to_file(folder / 'polygons.gpkg')
    frame.to_crs('EPSG:4326').to_file(folder / 'polygons in degrees.gpkg')
    (folder / 'list.txt').write_text('0 water\n1 land\n')


def measure(labels: str, folder: Path, dates: str, chips: int) -> dict:
    how = {'labels': str(folder / 'list.txt'), 'augment': Augment(horizontal_flip=0.), 'chip': 128,
           'chips_per_epoch': 1 << 20}
    if dates == '1':
        how['split'] = 'block'
    if labels != 'mask files':
        how |= {'label_file': str(folder / f'{labels}.gpkg'), 'label_field': 'cover'}
    rates, seen, begun = [], hashlib.blake2b(digest_size=8), time.process_time()
    data = RasterData(folder / dates / ('masks' if labels == 'mask files' else 'images'), **how)
    data.setup()
    chip = data.datasets['train']
    for _ in range(2):
        for i in range(chips):
            chip[i, (0, 0)]
        rates.append(round(chips / (time.process_time() - begun)))
        begun = time.process_time()
    for i in range(chips):
        seen.update(chip[i, (0, 0)]['mask'].numpy().tobytes())
    return {'cold': rates[0], 'warm': rates[1], 'pixels': seen.hexdigest()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('out', type=Path)
    parser.add_argument('--chips', type=int, default=2000)
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--one', nargs=3, help=argparse.SUPPRESS)  # labels, folder, dates: in a process of its own
    given = parser.parse_args()
    if given.one:
        labels, folder, dates = given.one
        return print(json.dumps(measure(labels, Path(folder), dates, given.chips)))
    naip = shared_data('naip')
    if naip is None:
        sys.exit('no shared data here')
    wanted = [(labels, dates, geoseg.__version__, str(given.chips), str(run)) for run in range(1, given.runs + 1)
              for dates in ('7', '1') for labels in LABELS]
    rows = [row for row in stored(given.out, COLUMNS) if tuple(row.values())[:5] in wanted]
    found = {tuple(row.values())[:5] for row in rows}
    print(f'{len(rows)} of {len(wanted)} rows are stored in {given.out}')
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), naip)
        for key in (key for key in wanted if key not in found):
            words = [sys.executable, __file__, given.out, '--chips', given.chips, '--one', key[0], folder, key[1]]
            done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f'{key[0]}: {done.stderr.strip().splitlines()[-1]}')
            rows.append(row := dict(zip(COLUMNS, key, strict=False)) | json.loads(done.stdout.splitlines()[-1]))
            rows.sort(key=lambda row: (-int(row['dates']), LABELS.index(row['labels']), int(row['run'])))
            keep(given.out, rows)
            print(row)


if __name__ == '__main__':
    main()
