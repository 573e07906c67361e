"""Predict a raster in this process, and by two workers of a scheduler of which one, or the scheduler, is killed.

With a fourth word as a mosaic, whose files are being written when the kill comes. Everything is imported once;
scheduler, workers and predictions are forks that are really killed. Prints what was killed and how the call ended.
"""
import asyncio
import functools
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

os.environ['CUDA_VISIBLE_DEVICES'] = ''

import dask  # noqa: E402
import torch  # noqa: E402
from distributed import Scheduler, Worker  # noqa: E402

from geoseg.inference.predict import predict  # noqa: E402
from geoseg.inference.rasters import rasters, stream  # noqa: E402

dask.config.set({'distributed.comm.timeouts.connect': '2s'})
logging.disable(logging.ERROR)
rasters.plan_raster = functools.partial(rasters.plan_raster, panel=192)
stream.TALL = 128


def fork(function, *given):
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = open(os.devnull, 'w')
        function(*given)
        os._exit(0)
    except BaseException as error:
        os.write(2, f'{type(error).__name__}: {error}\n'.encode())
        os._exit(1)


def serve(kind, *given, **how):
    async def run():
        async with kind(*given, dashboard=False, **how) as server:
            if kind is Scheduler:
                Path(os.environ['PORT_FILE']).write_text(server.address)
            await server.finished()
    asyncio.run(run())


def schedule(folder):
    os.environ['PORT_FILE'] = str(folder / 'address')
    (folder / 'address').unlink(missing_ok=True)
    scheduler = fork(functools.partial(serve, Scheduler, host='127.0.0.1', port=0))
    while not (folder / 'address').is_file() or not (folder / 'address').read_text():
        time.sleep(0.05)
    address = (folder / 'address').read_text()
    return scheduler, address, [fork(functools.partial(serve, Worker, address, nthreads=1)) for _ in range(2)]


def begun(draft):
    "Blocks of which some rows, and not all, are done."
    rows = {file.parent.name: json.loads(file.read_text())[1] for file in draft.glob('panel*/done.json')}
    return sum(0 < n < 64 for n in rows.values())


def written(draft):
    "Blocks whose files are written, while others are not answered."
    return len([*draft.glob('written_*.json')])


def wait_for(condition, child):
    while not condition():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), 'it ended before it was killed'
        time.sleep(0.001)


def end(*children):
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main(checkpoint, raster, out, mosaic=''):
    out, stem, midway = Path(out), Path(raster).stem, written if mosaic else begun
    common = dict(checkpoint=checkpoint, data=raster, window=64, overlap=16, write=['probabilities', 'polygons'],
                  postprocess={'min_pixels': 6}, mosaic=bool(mosaic))
    ends = {'whole': os.waitpid(fork(lambda: predict(**common, out=out / 'whole')), 0)[1]}
    draft = out / 'cut' / f'.{stem}.draft'
    scheduler, address, workers = schedule(out)
    call = fork(lambda: predict(**common, out=out / 'cut', address=address))
    wait_for(lambda: midway(draft), call)
    end(workers.pop())  # the other one does the rest
    ends['a worker'] = os.waitpid(call, 0)[1]
    end(scheduler, *workers)

    draft = out / 'again' / f'.{stem}.draft'
    scheduler, address, workers = schedule(out)
    call = fork(lambda: predict(**common, out=out / 'again', address=address))
    wait_for(lambda: midway(draft), call)
    end(scheduler)
    ends['the scheduler'] = os.waitpid(call, 0)[1]
    end(*workers)  # before its files are listed: it is still writing
    done = {file.parent.name: json.loads(file.read_text())[1] for file in draft.glob('panel*/done.json')}
    kept = {str(file): file.stat().st_mtime_ns for file in (out / 'again').glob('*_classes/[!.]*.tif')}
    noted = written(draft)  # a file that was just put in place is not
    scheduler, address, workers = schedule(out)
    ends['again'] = os.waitpid(fork(lambda: predict(**common, out=out / 'again', address=address)), 0)[1]
    end(scheduler, *workers)
    same = sum(os.stat(file).st_mtime_ns == time for file, time in kept.items())
    print(json.dumps({'ends': ends, 'rows before': sum(done.values()), 'files before': noted, 'left': same}))


if __name__ == '__main__':
    main(*sys.argv[1:])
