"""The peak of `geoseg changes` with a checkpoint that brings a memory along: a row a number of entries in
nbs/tutorials/results/change_memory.csv. Each runs in a process of its own, on a drawn raster of 256 x 256 pixels; there
are as many entries as slots on the ground where they lie.

    python tools/change_memory.py 0 200000 400000 800000
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from geoseg.core.files import write_whole
from geoseg.core.pages import csv_text, read_csv
from geoseg.core.streams import peak_resident_memory
from geoseg.data.rasters.files import find_acquisitions
from geoseg.geo.coords import Frame
from geoseg.geo.memory import STATE, GeoMemory
from geoseg.inference.rasters.changes import changes
from geoseg.models.checkpoints import stored_memory
from geoseg.training.train import train
from geoseg.world.layouts import world_data

ROWS = Path(__file__).parent.parent / 'nbs/tutorials/results/change_memory.csv'
SMALL = {'epochs': 1, 'batch_size': 4, 'warmup_epochs': 0.5, 'model_size': 'nano', 'feature_dim': 16, 'num_workers': 0,
         'image_size': [64, 96], 'draw_every_n_epochs': 0, 'trainer.limit_train_batches': 2,
         'trainer.accelerator': 'cpu'}


def enlarge(source: Path, target: Path, entries: int):
    "A checkpoint with so many more entries in its memory."
    checkpoint = torch.load(source, map_location='cpu', weights_only=True)
    state = checkpoint['state_dict']
    [prefix] = [key.removesuffix(f'{STATE}about') for key in state if key.endswith(f'{STATE}about')]
    own = {key.removeprefix(prefix + STATE): value for key, value in state.items() if key.startswith(prefix + STATE)}
    about = {name: own[name].shape[-1] for name in ('features', 'probs')}
    memory = GeoMemory(about['features'], own['stamp'].shape[1], 5.5, about['probs'],
                       frame=Frame.from_dict(checkpoint['geoseg']['frame']))
    memory.load_state(own)
    random, side = torch.Generator().manual_seed(0), memory.radius * (entries / memory.slots) ** 0.5
    for start in range(0, entries, 100_000):
        n = min(100_000, entries - start)
        memory.write(side * torch.rand(n, 2, generator=random), torch.randn(n, memory.dim, generator=random),
                     torch.full((n,), start), torch.full((n,), 1.6e9, dtype=torch.float64))
    kept = {key: checkpoint[key] for key in checkpoint if key not in ('ema', 'optimizer_states')}
    torch.save(kept | {'state_dict': state | {f'{prefix}{STATE}{k}': v for k, v in memory.state().items()}}, target)


def measure(checkpoint: Path) -> float:  # MiB
    'The peak of one comparison.'
    *_, old, new = find_acquisitions(world_data('raster', size='tiny'))
    with tempfile.TemporaryDirectory() as out, peak_resident_memory() as peak:
        changes(checkpoint, new.image, old.image.parent, out, known=[old.date], write=[])
    return peak['MiB']


def main(numbers: list[int]):
    with tempfile.TemporaryDirectory() as folder:
        run = train('geosegformer', 'world:tiny', out=folder, overrides=SMALL)
        for entries in numbers:
            checkpoint = Path(folder, f'{entries}.ckpt')
            enlarge(run.best, checkpoint, entries)
            said = subprocess.run([sys.executable, __file__, '--measure', checkpoint], check=True, capture_output=True,
                                  text=True)
            found, size = stored_memory(checkpoint)
            row = {'entries': found, 'memory, MiB': size / 2**20, 'checkpoint, MiB': checkpoint.stat().st_size / 2**20,
                   'changes, peak MiB': float(said.stdout.split()[-1])}
            rows = read_csv(ROWS).to_dict('records') if ROWS.is_file() else []
            write_whole(ROWS, csv_text(pd.DataFrame([*rows, row]), index=False, float_format='%.6g'))
            print(row, flush=True)
            checkpoint.unlink()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('entries', type=int, nargs='*')
    parser.add_argument('--measure', type=Path, help='of one checkpoint, for this program itself')
    asked = parser.parse_args()
    if asked.measure:
        print(measure(asked.measure))
    else:
        main(asked.entries)
