"""Train once undisturbed and once killed again and again; print both folders and where the kills struck.

Everything is imported once, and every attempt is a fork that is really killed with SIGKILL.
"""
import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

os.environ['CUDA_VISIBLE_DEVICES'] = ''

from forks import train_in_fork  # noqa: E402

from geoseg.tasks.segmentation import SegmentationTask  # noqa: E402
from geoseg.training.record import RunRecord  # noqa: E402

PHASES = ('start', 'train', 'save', 'validate')
phase = mmap.mmap(-1, 16)  # shared with the child: the phase, and how often it was entered


def entering(number, method):
    'Note in shared memory that `method` is under way.'
    def wrapped(*args, **kwargs):
        count = int.from_bytes(phase[8:12], 'little') + 1
        phase[0:12] = number.to_bytes(8, 'little') + count.to_bytes(4, 'little')
        try:
            return method(*args, **kwargs)
        finally:
            phase[0:8] = (1).to_bytes(8, 'little')
    return wrapped


def tell_phases():
    RunRecord.save = entering(2, RunRecord.save)
    SegmentationTask.validation_step = entering(3, SegmentationTask.validation_step)
    SegmentationTask.training_step = entering(1, SegmentationTask.training_step)


def attempt(settings, seed=None):
    'Train in a forked child; with a seed, kill it at a random moment. Returns the phase of the kill, or None.'
    phase[0:12] = bytes(12)
    child = train_in_fork(settings, tell_phases)
    if seed is not None:
        draw = random.Random(seed)
        wanted, count, delay = draw.choice((1, 1, 2, 3)), draw.randint(1, 12), draw.uniform(0, 0.02)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            now = int.from_bytes(phase[0:8], 'little')
            if now == wanted and int.from_bytes(phase[8:12], 'little') >= count:
                time.sleep(delay)
                now = int.from_bytes(phase[0:8], 'little')
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return PHASES[now]
            time.sleep(0.001)
        return None
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit('the run failed')
    return None


def main(out, workers, kills, seed):
    out = Path(out)
    settings = dict(recipe='unet', data='world:tiny', epochs=3, batch_size=4, overrides={
        'num_workers': workers, 'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 1,
        'image_size': [32, 32], 'crop': [32, 32], 'ema': 0.9, 'every_n_steps': 2, 'save_top_k': 1,
        'draw_every_n_epochs': 0,
        'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False})
    attempt(settings | {'out': str(out / 'whole')})
    whole = next((out / 'whole' / 'unet').iterdir())
    struck = [attempt(settings | {'out': str(out / 'cut')}, seed)]
    cut = next((out / 'cut' / 'unet').iterdir())
    resumed = {'recipe': 'unet', 'resume': str(cut)}
    for i in range(1, kills):
        struck.append(attempt(resumed, seed + i))
    attempt(resumed)
    print(json.dumps({'whole': str(whole), 'cut': str(cut), 'struck': struck}))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
