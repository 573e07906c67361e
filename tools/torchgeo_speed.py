"""The same boxes of the same rasters by geoseg and by TorchGeo, each in a process of its own.

python tools/torchgeo_speed.py nbs/torchgeo.csv --other PYTHON   (PYTHON: of an environment that has torchgeo,
also of another version of Python: 0.8.1 is the last for 3.11)

A row a case, reader and run: `first` and `again` are samples a second of CPU time of the first pass over the boxes and
of the second, `MiB` the peak of the process beyond its imports, `pixels` a hash of all images and masks in order. Rows
are kept as they come: what is in the file is not measured again, and a run that was stopped goes on. geoseg keeps
decoded blocks; "geoseg, 16 MiB" keeps few (`cache_mb=16`).
"""
import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

SIDE, CHIP, CRS, PIXEL = 6000, 256, 'EPSG:32631', 10.
GRID = Affine(PIXEL, 0, 500_000, 0, -PIXEL, 5_200_000)
CASES = {'one grid': CRS, 'labels in degrees': 'EPSG:4326'}
READERS = {'geoseg': 256, 'geoseg, 16 MiB': 16, 'TorchGeo': None}  # MiB of decoded blocks
COLUMNS = ['case', 'reader', 'version', 'side', 'samples', 'run', 'first', 'again', 'MiB', 'pixels']
KEY = COLUMNS[:6]


def write(path, values, transform, crs):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, 'w', driver='GTiff', height=values.shape[1], width=values.shape[2], count=len(values),
                       dtype='uint8', crs=crs, transform=transform, tiled=True, compress='deflate') as file:
        file.write(values)


def make(folder: Path, side: int):
    "Pictures and labels of three days; the labels once more in degrees."
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, side // 8, side // 8)).astype(np.uint8)
    image = np.kron(coarse, np.ones((1, 8, 8), np.uint8)) + rng.integers(0, 16, (3, side, side)).astype(np.uint8)
    mask = (np.kron(coarse[0], np.ones((8, 8), np.uint8)) // 64)[None]
    for day in ('20210501', '20220501', '20230501'):
        image = np.roll(image, 97, 2)
        write(folder / 'image' / f'{day}_image.tif', image, GRID, CRS)
        write(folder / 'one grid' / f'{day}_mask.tif', mask, GRID, CRS)
    grid, width, height = calculate_default_transform(CRS, 'EPSG:4326', side, side, *rasterio.transform.array_bounds(
        side, side, GRID))
    turned = np.full((1, height, width), 255, np.uint8)
    reproject(mask, turned, src_transform=GRID, src_crs=CRS, dst_transform=grid, dst_crs='EPSG:4326', dst_nodata=255,
              resampling=Resampling.nearest)
    for day in ('20210501', '20220501', '20230501'):
        write(folder / 'labels in degrees' / f'{day}_mask.tif', turned, grid, 'EPSG:4326')


def boxes(side: int, count: int):
    "Day, row and column; at whole pixels."
    rng = np.random.default_rng(1)
    return [(int(d), int(r), int(c)) for d, (r, c) in zip(rng.integers(0, 3, count), rng.integers(
        0, side - CHIP, (count, 2)), strict=True)]


def ours(folder: Path, case: str, kept: int = 256):
    "A function of a box: image [3, H, W] and mask [H, W]."
    from geoseg.data.labels import LabelScheme
    from geoseg.data.rasters.files import find_acquisitions
    from geoseg.data.rasters.labels import LabelSettings, label_acquisitions, open_labels
    from geoseg.data.rasters.reader import Blocks, Reader
    reader = Reader(LabelScheme([f'class {i}' for i in range(4)]), blocks=Blocks(kept << 20))
    days = [label_acquisitions([a], open_labels(folder / case / f'{a.date}_mask.tif', LabelSettings()))[0]
            for a in find_acquisitions(folder / 'image', masks='optional')]

    def read(day, row, col):
        image, mask = reader.window(days[day], row, col, CHIP, CHIP)
        return image.transpose(2, 0, 1), mask
    return read


def theirs(folder: Path, case: str):
    import pandas as pd
    from torchgeo.datasets import RasterDataset

    class Images(RasterDataset):
        filename_glob, filename_regex, date_format = '*_image.tif', r'(?P<date>\d{8})_image\.tif', '%Y%m%d'

    class Masks(RasterDataset):
        filename_glob, filename_regex, date_format = '*_mask.tif', r'(?P<date>\d{8})_mask\.tif', '%Y%m%d'
        is_image = False

    both = Images(str(folder / 'image'), crs=CRS, res=PIXEL) & Masks(str(folder / case), crs=CRS, res=PIXEL)
    days = [pd.Timestamp(day) for day in ('20210501', '20220501', '20230501')]

    def read(day, row, col):
        x, y = GRID @ (col, row)
        when = slice(days[day], days[day] + pd.Timedelta(hours=12))
        sample = both[slice(x, x + CHIP * PIXEL), slice(y - CHIP * PIXEL, y), when]
        return sample['image'].numpy().astype(np.uint8), sample['mask'].numpy().astype(np.uint8)
    return read


def memory(reset: bool = False) -> float:
    "MiB, the most that the process had resident since the last reset (Linux)."
    if reset:
        Path('/proc/self/clear_refs').write_text('5')
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024


def measure(reader: str, folder: Path, case: str, side: int, count: int) -> dict:
    kept = READERS[reader]
    read = theirs(folder, case) if kept is None else ours(folder, case, kept)
    before, rates, seen = memory(reset=True), [], hashlib.blake2b(digest_size=8)
    for number in (0, 1):
        begun = time.process_time()
        for box in boxes(side, count):
            image, mask = read(*box)
            if number == 0:
                took = time.process_time()
                seen.update(np.ascontiguousarray(image).tobytes() + np.ascontiguousarray(mask).tobytes())
                begun += time.process_time() - took
        rates.append(round(count / (time.process_time() - begun), 1))
    return {'first': rates[0], 'again': rates[1], 'MiB': round(memory() - before), 'pixels': seen.hexdigest()}


def version_of(python: str) -> str:
    "Of torchgeo in an environment."
    code = "import importlib.metadata; print(importlib.metadata.version('torchgeo'))"
    return subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout.strip()


def stored(path: Path, columns: list[str]) -> list[dict]:
    "Rows of an earlier run; none where its columns were others."
    if not path.exists():
        return []
    with open(path, newline='') as file:
        return [row for row in csv.DictReader(file) if list(row) == columns]


def keep(path: Path, rows: list[dict]):
    "Write all rows; the file is whole at any moment."
    beside = path.with_name(path.name + '.new')
    with open(beside, 'w', newline='') as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        table.writeheader()
        table.writerows(rows)
    beside.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('out', type=Path)
    parser.add_argument('--other', default=sys.executable, help='Python of an environment with torchgeo')
    parser.add_argument('--side', type=int, default=SIDE)
    parser.add_argument('--count', type=int, default=400)
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--one', nargs=3, help=argparse.SUPPRESS)  # reader, folder, case: in a process of its own
    given = parser.parse_args()
    if given.one:
        reader, folder, case = given.one
        return print(json.dumps(measure(reader, Path(folder), case, given.side, given.count)))
    import geoseg
    versions = {reader: version_of(given.other) if kept is None else geoseg.__version__
                for reader, kept in READERS.items()}
    wanted = [(case, reader, versions[reader], str(given.side), str(given.count), str(run))
              for run in range(1, given.runs + 1) for case in CASES for reader in READERS]
    rows = stored(given.out, COLUMNS)  # those of other versions stay
    found = {tuple(row[name] for name in KEY) for row in rows} & {*wanted}
    print(f'{len(found)} of {len(wanted)} rows are stored in {given.out}')
    with tempfile.TemporaryDirectory() as folder:
        if len(found) < len(wanted):
            make(Path(folder), given.side)
        for key in wanted:
            if key in found:
                continue
            case, reader = key[:2]
            words = [given.other if reader == 'TorchGeo' else sys.executable, __file__, given.out, '--side', given.side,
                     '--count', given.count, '--one', reader, folder, case]
            done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f'{reader}, {case}: {done.stderr.strip().splitlines()[-1]}')
            rows.append(row := dict(zip(KEY, key, strict=True)) | json.loads(done.stdout.splitlines()[-1]))
            rows.sort(key=lambda row: ([*CASES].index(row['case']), [*READERS].index(row['reader']), row['version'],
                                     int(row['run'])))
            keep(given.out, rows)
            print(row)


if __name__ == '__main__':
    main()
