"""One raster by one process and by workers, as one file and as a mosaic: times, memory of each process; a CSV.

    python tools/cluster_costs.py               rows that are in nbs/guides/cluster_costs.csv stay
    python tools/cluster_costs.py --again       all rows anew, on a quiet machine

The network is a single convolution, so that what the workers and the process that assembles the file add can be seen;
windows of 512, overlap 128, one thread a process. All results are compared, pixel by pixel. *own* is the CPU time of
the process that was asked, *workers* that of all workers together; *peak* is the largest memory of one process.
"""
import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import rasterio
import torch
from show_rates import FACTS, OVERLAP, WINDOW, add_row, draw, kept_rows

import geoseg

ROWS = Path(__file__).resolve().parent.parent / 'nbs/guides/cluster_costs.csv'
SIDES, CASES = (4000, 10_000), ((0, ''), (1, ''), (2, ''), (0, 'yes'), (2, 'yes'))  # workers, mosaic
FIELDS = ('side', 'workers', 'mosaic', 'wall s', 'own CPU s', 'workers CPU s', 'peak MiB', 'peak MiB of a worker',
          'files', 'bytes a pixel', 'sha256 of the pixels', 'load')


def convolution(file: Path) -> Path:
    'A network of seven classes as ONNX.'
    if not file.is_file():
        torch.manual_seed(0)
        torch.onnx.export(torch.nn.Conv2d(3, 7, 3, padding=1), torch.rand(1, 3, 64, 64), file, dynamo=False,
                          input_names=['image'], output_names=['logits'],
                          dynamic_axes={'image': {0: 'n', 2: 'h', 3: 'w'}})
    return file


def digest(file: Path) -> str:
    'A name for the pixels of a raster.'
    found = hashlib.sha256()
    with rasterio.open(file) as f:
        for row in range(0, f.height, 512):
            found.update(f.read(1, window=((row, min(row + 512, f.height)), (0, f.width))).tobytes())
    return found.hexdigest()[:16]


def one(side: int, workers: int, mosaic: bool, folder: Path):
    'Print a row as JSON: what a process of its own does.'
    torch.set_num_threads(1)
    raster, model = draw(folder / f'{side}.tif', side), convolution(folder / 'convolution.onnx')
    more = {'classes': list('abcdefg'), 'answer': 'logits', **FACTS}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        used, begun = time.process_time(), time.perf_counter()
        geoseg.predict(model=model, overrides=more, data=raster, out=Path(out) / 'map', window=WINDOW, overlap=OVERLAP,
                       workers=workers or None, mosaic=mosaic)
        used, begun = time.process_time() - used, time.perf_counter() - begun
        own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        files = [*Path(out).rglob('*.tif')]
        size, found = sum(file.stat().st_size for file in files), digest(
            Path(out) / 'map' / f'{side}_classes.{"vrt" if mosaic else "tif"}')
    by = {'workers CPU s': f'{others.ru_utime + others.ru_stime:.1f}',
          'peak MiB of a worker': f'{others.ru_maxrss / 1024:.0f}'} if workers else {}
    print(json.dumps({'side': str(side), 'workers': str(workers), 'mosaic': 'yes' if mosaic else '',
                      'wall s': f'{begun:.1f}', 'own CPU s': f'{used:.1f}', **by,
                      'peak MiB': f'{own.ru_maxrss / 1024:.0f}', 'files': str(len(files)),
                      'bytes a pixel': f'{size / side ** 2:.3f}', 'sha256 of the pixels': found,
                      'load': f'{os.getloadavg()[0]:.1f}'}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path, nargs='?', default=ROWS)
    parser.add_argument('--again', action='store_true', help='measure the rows that are there, too')
    parser.add_argument('--work', type=Path, help='where network and rasters are kept; else for this time alone')
    parser.add_argument('--sides', type=int, nargs='+', default=SIDES)
    parser.add_argument('--case', nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.case:
        side, workers, mosaic = words.case
        return one(int(side), int(workers), mosaic == 'yes', words.work)
    rows = kept_rows(words.out, words.again)
    with tempfile.TemporaryDirectory() as folder:
        folder = words.work or Path(folder)
        folder.mkdir(exist_ok=True)
        for side in words.sides:
            draw(folder / f'{side}.tif', side)
            for case in ((str(side), str(workers), mosaic) for workers, mosaic in CASES):
                if not any((row['side'], row['workers'], row['mosaic']) == case for row in rows):
                    add_row(words.out, rows, FIELDS, __file__, folder, *case)
            if len({row['sha256 of the pixels'] for row in rows if row['side'] == str(side)} - {''}) > 1:
                sys.exit(f'{side}: the pixels differ')


if __name__ == '__main__':
    main()
