"""Predict a raster once undisturbed and once killed with SIGKILL at given moments; print when each kill struck.

Everything is imported once, and every attempt is a fork that is really killed.
"""
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

os.environ['CUDA_VISIBLE_DEVICES'] = ''

import torch  # noqa: E402

from geoseg.inference.predict import predict  # noqa: E402
from geoseg.inference.rasters import rasters  # noqa: E402


def attempt(arguments, struck=None):
    'Predict in a forked child; with a condition, kill it as soon as it holds. Returns whether it was killed.'
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            sys.stdout = sys.stderr = open(os.devnull, 'w')
            rasters.predict_raster = functools.partial(rasters.predict_raster, panel=256)
            predict(**arguments)
            os._exit(0)
        except BaseException as error:
            sys.__stderr__.write(f'{type(error).__name__}: {error}\n')
            os._exit(1)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if struck is not None and struck():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.001)
    return False


def main(checkpoint, raster, out):
    out, stem = Path(out), Path(raster).stem
    common = dict(checkpoint=checkpoint, data=raster, window=64, overlap=16,
                  write=['probabilities', 'uncertainty', 'polygons'], postprocess={'min_pixels': 6})
    attempt(common | {'out': out / 'whole'})
    draft, kills = out / 'cut' / f'.{stem}.draft', []

    def done():
        try:
            return json.loads((draft / 'done.json').read_text())
        except (OSError, ValueError):
            return [-1, 0]

    moments = {'first strip': lambda: done() > [0, 0], 'second panel': lambda: done() >= [1, 0],
               'files': lambda: (draft / 'tidied.tif').exists() or (out / 'cut' / f'{stem}_probabilities.tif').exists()}
    for name, struck in moments.items():
        killed = attempt(common | {'out': out / 'cut'}, struck)
        kills.append({'moment': name, 'killed': killed, 'done': done(),
                     'whole': (out / 'cut' / f'{stem}.json').exists()})
    attempt(common | {'out': out / 'cut'})
    print(json.dumps(kills))


if __name__ == '__main__':
    main(*sys.argv[1:])
