"""What leaves as what: each recipe as ONNX and .pt2, its network at full size, checked; a row each in a CSV.

    python tools/exports.py             the networks of the recipes: nbs/guides/exports_full.csv; finished rows stay
    python tools/exports.py --tiny      at the sizes of the tests, anew: nbs/guides/exports.csv

A network takes one step of training on the synthetic world, its batch norms the statistics of the training pictures;
then it leaves in a process of its own. `--only RECIPE` makes the rows of one; `--runs FOLDER` keeps the runs.
"""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from geoseg.core.files import write_whole, writing
from geoseg.core.pages import csv_text, read_csv
from geoseg.data.batches import network_inputs
from geoseg.evaluation.export import export
from geoseg.inference.answer import Trained
from geoseg.models.predictor import Predictor
from geoseg.training.train import train

ROOT = Path(__file__).resolve().parent.parent
FULL, TINY = (ROOT / 'nbs/guides' / name for name in ('exports_full.csv', 'exports.csv'))
FORMATS = {'ONNX': 'model.onnx', 'pt2': 'model.pt2'}
WAYS = {  # further settings by recipe: each is a row of every format
    'geosegformer': ({'memory': 'without'}, {'memory': 'recalled'}, {'memory': 'frozen'}),
    'deepglobe-trm': ({}, {'parts': True})}
STEP = {'epochs': 1, 'batch_size': 2, 'num_workers': 0, 'save_top_k': 0, 'draw_every_n_epochs': 0, 'seed': 0,
        'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1, 'trainer.accelerator': 'cpu',
        'trainer.enable_progress_bar': False}
DATA = {'deepglobe-trm': 'world'}  # the tiny one has pictures that are smaller than a patch
LOCATE = {'every_n_epochs': 1, 'trainer.num_sanity_val_steps': 0, 'trainer.limit_val_batches': 1.}  # all tiles
SMALL = {'image_size': [256, 320]}  # one step on whole photos takes minutes; the network is the same
MORE = {'wildscenes-mask2former': {'pretrained': False, **SMALL}, 'wildscenes-deeplabv3': SMALL,
        'wildscenes-fcn': SMALL, 'wildscenes-unet': SMALL, 'geosegformer': {'memory_warmup_epochs': 0},
        'game4loc-cross-area': LOCATE, 'game4loc-same-area': LOCATE}
LAST = (*(name for name in MORE if name.startswith('game4loc')), 'wildscenes-mask2former')  # take long


def recipes() -> list[str]:
    'Their names.'
    return sorted(path.stem for path in (ROOT / 'geoseg/recipes').glob('*.yaml'))


def cases(names: list[str]) -> list[tuple[str, str, str]]:  # recipe, further words, format
    'All rows of some recipes.'
    return [(name, ' '.join(f'{key}={str(value).lower()}' for key, value in way.items()), kind)
            for name in names for way in WAYS.get(name, ({},)) for kind in FORMATS]


def row(
    run: Path,  # a run's folder
    recipe: str,
    words: str,  # as `cases`
    kind: str,  # of FORMATS
    out: Path,  # a folder
) -> dict[str, str]:
    'How a network leaves, or why it does not.'
    way = next(way for way in WAYS.get(recipe, ({},))
               if words == ' '.join(f'{key}={str(value).lower()}' for key, value in way.items()))
    known = {'recipe': recipe, 'settings': words, 'format': kind}
    try:
        found = export(run, out / FORMATS[kind], **way)
    except Exception as error:
        says = ' '.join(str(error).split()).replace(f'{out}/', '').replace(f'{run}/', '')
        return known | {'why not': says[:200] or type(error).__name__}
    files = [found.file, *found.also]
    size = found.about['size']
    return known | {
        'MB': f'{sum(file.stat().st_size for file in files) / 1e6:.2f}',
        'largest difference': f'{max(found.differences.values()):.2g}',
        'classes that differ': '' if found.classes is None else f'{found.classes:.2g}',
        'pictures of': 'any size' if size == 'any' else f'{" x ".join(map(str, size))} pixels' if size else '',
        'checked on': found.chips}


DIED = 'the process ended with'  # tried again by the next call
FIELDS = ('recipe', 'settings', 'format', 'million weights', 'MB', 'largest difference',
          'classes that differ', 'pictures of', 'checked on', 'CPU seconds', 'peak GiB', 'why not')


@torch.no_grad()
def settle(run: Path):
    'Give batch norms the mean statistics of the training pictures: after one step they have nearly their first ones.'
    trained = Trained(run)
    network = Predictor.load(trained.path, 'cpu').network.eval()
    norms = {name: part for name, part in network.named_modules() if isinstance(part, _BatchNorm)}
    if not norms:
        return
    for part in norms.values():
        part.reset_running_stats()
        part.momentum = None  # the mean of all batches
        part.train()
    for batch in trained.open(None).datamodule.train_dataloader():
        network(**network_inputs(network, batch))
    known = torch.load(trained.path, weights_only=True)
    for name, part in norms.items():
        known['state_dict'] |= {f'network.{name}.{key}': value for key, value in part.named_buffers()}
    with writing(trained.path) as draft:
        torch.save(known, draft)


def step(recipe: str, runs: Path) -> Path:
    'A run of one step at the sizes of the recipe; the one that is there.'
    if known := sorted((runs / recipe).glob('*/checkpoints/best.ckpt')):
        return known[-1].parent.parent
    run = train(recipe, DATA.get(recipe, 'world:tiny'), out=runs, overrides=STEP | MORE.get(recipe, {})).folder
    settle(run)
    return run


def one(recipe: str, words: str, kind: str, runs: Path):
    'Print a row as JSON: what a process of its own does.'
    run = step(recipe, runs)
    used, network = time.process_time(), Predictor.load(Trained(run).path, 'cpu').network
    with tempfile.TemporaryDirectory() as out:
        found = row(run, recipe, words, kind, Path(out))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(json.dumps(found | {
        'million weights': f'{sum(value.numel() for value in network.parameters()) / 1e6:.2f}',
        'CPU seconds': f'{time.process_time() - used:.0f}', 'peak GiB': f'{peak:.1f}'}))


def write(file: Path, rows: list[dict[str, str]]):
    'The table, in the order of the cases.'
    order = {case: i for i, case in enumerate(cases(recipes()))}
    fields = [name for name in FIELDS if any(row.get(name) for row in rows)]
    rows = sorted(rows, key=lambda row: order[row['recipe'], row.get('settings') or '', row['format']])
    write_whole(file, csv_text(pd.DataFrame([[row.get(name) or '' for name in fields] for row in rows], columns=fields),
                               index=False))


def key(row: dict[str, str]) -> tuple[str, str, str]:
    return row['recipe'], row.get('settings') or '', row['format']


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--only', choices=recipes())
    parser.add_argument('--runs', type=Path)
    parser.add_argument('--case', nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        return one(*given.case, given.runs)
    file = TINY if given.tiny else FULL
    names = [given.only] if given.only else sorted(recipes(), key=LAST.__contains__)
    rows = read_csv(file, dtype=str, keep_default_na=False).to_dict('records') if file.is_file() else []
    rows = [row for row in rows if key(row) in cases(recipes()) and not (given.tiny and row['recipe'] in names)
            and not (row.get('why not') or '').startswith(DIED)]
    with tempfile.TemporaryDirectory() as folder:
        runs = given.runs or Path(folder)
        for case in cases(names):
            if case in map(key, rows):
                continue
            print(*case, flush=True)
            if given.tiny:
                sys.path.insert(0, str(ROOT / 'tests'))
                import tiny
                known = sorted((runs / case[0]).glob('*/checkpoints/best.ckpt'))
                run = known[-1].parent.parent if known else tiny.train(case[0], runs).folder
                with tempfile.TemporaryDirectory() as out:
                    rows.append(row(run, *case, Path(out)))
            else:
                words = [sys.executable, __file__, '--runs', str(runs), '--case', *case]
                done = subprocess.run(words, capture_output=True, text=True)
                if done.returncode:
                    why = f'{DIED} {done.returncode}: {(done.stderr.splitlines() or [""])[-1][:150]}'
                    rows.append(dict(zip(('recipe', 'settings', 'format'), case, strict=True)) | {'why not': why})
                else:
                    rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
            write(file, rows)


if __name__ == '__main__':
    main()
