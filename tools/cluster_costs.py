"""One raster by one process, by one worker and by two: times, memory of each process, bytes; a CSV, a row each.

    python tools/cluster_costs.py               rows that are in nbs/guides/cluster_costs.csv stay
    python tools/cluster_costs.py --again       all rows anew, on a quiet machine

The network is a single convolution, so that what the workers and the process that assembles the file add can be seen;
windows of 512, overlap 128, one thread a process. All results are compared, byte by byte. *assembly* is the CPU time of
the process that owns the file, *workers* that of all workers together; *peak* is the largest memory of one process.
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

import torch
from show_rates import FACTS, OVERLAP, WINDOW, add_row, draw, kept_rows

import geoseg

ROWS = Path(__file__).resolve().parent.parent / 'nbs/guides/cluster_costs.csv'
SIDES, WORKERS = (4000, 10_000), (0, 1, 2)  # 0: this process alone
FIELDS = ('side', 'workers', 'wall s', 'assembly CPU s', 'workers CPU s', 'peak MiB', 'peak MiB of a worker',
          'bytes a pixel', 'sha256', 'load')


def convolution(file: Path) -> Path:
    'A network of seven classes as ONNX.'
    if not file.is_file():
        torch.manual_seed(0)
        torch.onnx.export(torch.nn.Conv2d(3, 7, 3, padding=1), torch.rand(1, 3, 64, 64), file, dynamo=False,
                          input_names=['image'], output_names=['logits'],
                          dynamic_axes={'image': {0: 'n', 2: 'h', 3: 'w'}})
    return file


def one(side: int, workers: int, folder: Path):
    'Print a row as JSON: what a process of its own does.'
    torch.set_num_threads(1)
    raster, model = draw(folder / f'{side}.tif', side), convolution(folder / 'convolution.onnx')
    more = {'classes': list('abcdefg'), 'answer': 'logits', **FACTS}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        used, begun = time.process_time(), time.perf_counter()
        geoseg.predict(model=model, overrides=more, data=raster, out=Path(out) / 'map', window=WINDOW, overlap=OVERLAP,
                       workers=workers or None)
        used, begun = time.process_time() - used, time.perf_counter() - begun
        file = Path(out) / 'map' / f'{side}_classes.tif'
        size, digest = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    by = {'workers CPU s': f'{others.ru_utime + others.ru_stime:.1f}',
          'peak MiB of a worker': f'{others.ru_maxrss / 1024:.0f}'} if workers else {}
    print(json.dumps({'side': str(side), 'workers': str(workers), 'wall s': f'{begun:.1f}',
                      'assembly CPU s': f'{used:.1f}', **by, 'peak MiB': f'{own.ru_maxrss / 1024:.0f}',
                      'bytes a pixel': f'{size / side ** 2:.3f}', 'sha256': digest,
                      'load': f'{os.getloadavg()[0]:.1f}'}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path, nargs='?', default=ROWS)
    parser.add_argument('--again', action='store_true', help='measure the rows that are there, too')
    parser.add_argument('--work', type=Path, help='where network and rasters are kept; else for this time alone')
    parser.add_argument('--sides', type=int, nargs='+', default=SIDES)
    parser.add_argument('--case', type=int, nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.case:
        return one(*words.case, words.work)
    rows = kept_rows(words.out, words.again)
    with tempfile.TemporaryDirectory() as folder:
        folder = words.work or Path(folder)
        folder.mkdir(exist_ok=True)
        for side in words.sides:
            draw(folder / f'{side}.tif', side)
            for workers in WORKERS:
                if not any((row['side'], row['workers']) == (str(side), str(workers)) for row in rows):
                    add_row(words.out, rows, FIELDS, __file__, folder, str(side), str(workers))
            if len({row['sha256'] for row in rows if row['side'] == str(side)}) > 1:
                sys.exit(f'{side}: the workers give other bytes than one process')


if __name__ == '__main__':
    main()
