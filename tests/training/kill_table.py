"""Kill runs of every recipe at every moment, resume them, and compare them with runs that were left alone.

    python tests/training/kill_table.py ROWS.csv --rounds 14 [--only RECIPE[:FRESHNESS] …] [--moments MOMENT …]
        [--more KEY=VALUE …]

A round kills one run once at each moment, in epochs and steps that are drawn, resumes it after each kill, and compares
its end. A row of the file is a kill; the recipe with the fewest rows comes first, so that more rounds go on where fewer
ended. Everything is imported once: each run is a fork, which is killed with SIGKILL.
"""
import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ['CUDA_VISIBLE_DEVICES'] = ''
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning as L  # noqa: E402
import pandas as pd  # noqa: E402
import tiny  # noqa: E402
from forks import train_in_fork  # noqa: E402

import geoseg  # noqa: E402
from geoseg.tasks.base import Task  # noqa: E402
from geoseg.training.record import RunRecord  # noqa: E402
from geoseg.training.run import Run  # noqa: E402

FRESHNESS = ('refresh', 'rewrite', 'momentum')
CASES = [(recipe, '') for recipe in geoseg.recipes()] + [('geosegformer', how) for how in FRESHNESS]
MOMENTS = ('in a step',  # after a checkpoint within the epoch, but for the first step of it
           'saving',  # a checkpoint within the epoch is written, and not yet in its place
           'saved',  # it is in its place
           'validating',
           'ending',  # the checkpoint of the epoch has some of its names
           'ended')  # the next epoch has not begun
WITHIN = ('saving', 'saved', 'in a step')  # an epoch, in the order in which they come at a step
COLUMNS = ['recipe', 'freshness', 'moment', 'round', 'epoch', 'step', 'killed', 'identical', 'difference']
ALWAYS = {'epochs': 2, 'every_n_steps': 1, 'save_top_k': 1}
MEMORY = {'chip': 64, 'chips_per_epoch': 12, 'memory_size': 24, 'spatial_radius': 6., 'memory_dim': 16, 'momentum': 0.5,
          'memory_warmup_epochs': 1, 'label_recall': True, 'scales': [8., 64.], 'image_size': None}


def settings(recipe: str, freshness: str, out: Path) -> dict:
    'Arguments of `train`.'
    changes = ALWAYS | (MEMORY | {'freshness': freshness} if freshness else {})
    return {'recipe': recipe, 'data': 'world:raster:tiny' if freshness else tiny.DATA, 'out': str(out),
            'overrides': tiny.settings(recipe, **changes)}


def strike(moment: str, at: tuple[int, int]):
    'Arrange that this process is killed at a moment of (epoch, step).'
    kill, now = (lambda: os.kill(os.getpid(), signal.SIGKILL)), {'ending': False}
    save, end, write = RunRecord.save, RunRecord.on_train_epoch_end, L.Trainer.save_checkpoint
    training_step, replace = Task.training_step, os.replace

    def here(trainer) -> bool:
        return trainer.global_step == at[1]

    def steps(self, batch, batch_idx):
        loss = training_step(self, batch, batch_idx)
        if moment == 'in a step' and here(self.trainer):
            kill()
        return loss

    def writes(self, path, *args, **kwargs):
        write(self, path, *args, **kwargs)
        if moment == 'saving' and here(self):
            os.truncate(path, Path(path).stat().st_size // 2)
            kill()

    def saves(self, trainer, names):
        if moment == 'ending' and now['ending'] and trainer.current_epoch == at[0]:
            os.replace = lambda a, b: kill() if str(b).endswith('last.ckpt') else replace(a, b)
        save(self, trainer, names)
        ended = now['ending'] and trainer.current_epoch == at[0]
        if moment == 'saved' and here(trainer) or moment == 'ended' and ended:
            kill()

    def ends(self, trainer, pl_module):
        now['ending'] = True
        end(self, trainer, pl_module)
        now['ending'] = False

    def validates(self, trainer, *args):
        if moment == 'validating' and trainer.current_epoch == at[0]:
            kill()

    Task.training_step, L.Trainer.save_checkpoint, RunRecord.save = steps, writes, saves
    RunRecord.on_train_epoch_end, RunRecord.on_validation_batch_end = ends, validates


def run(given: dict, moment: str | None = None, at: tuple[int, int] = (0, 0)) -> bool:
    'Train in a fork. Returns whether it was killed.'
    child = train_in_fork(given, lambda: None if moment is None else strike(moment, at))
    status = os.waitpid(child, 0)[1]
    if status and not os.WIFSIGNALED(status):
        raise SystemExit('a run failed')
    return os.WIFSIGNALED(status)


def run_in(out: Path) -> Path | None:
    'The folder of the only run, if it came so far.'
    return next((path.parent for path in out.glob('*/*/config.yaml')), None)


class Table:
    'The rows of a file, and runs that were left alone to compare with.'

    def __init__(self, path: Path, work: Path):
        self.path, self.work, self.whole = path, work, {}
        self.rows = pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame(columns=COLUMNS)

    def tried(self, case: tuple[str, str]) -> int:
        return int(((self.rows.recipe == case[0]) & (self.rows.freshness == case[1])).sum())

    def compare(self, case: tuple[str, str], moments: Sequence[str], seed: int):
        'One run that is killed at each moment.'
        if case not in self.whole:
            out = self.work / 'whole' / '-'.join(case)
            run(settings(*case, out))
            self.whole[case] = run_in(out)
        number = int(self.rows['round'].max() + 1) if len(self.rows) else 0
        draw, out, kills = random.Random(f'{seed} {number} {case}'), self.work / 'cut', []
        shutil.rmtree(out, ignore_errors=True)
        metrics = Run(self.whole[case]).metrics
        ends = metrics[metrics['epoch'] >= 0]['step'].tolist()  # -1: before training
        for moment in moments:
            epoch = draw.randrange(len(ends))
            step = ends[0] * epoch + draw.randrange(1, ends[0]) if moment in WITHIN else ends[epoch]  # steps done
            kills.append((step, (*WITHIN, 'validating', 'ending', 'ended').index(moment), epoch, moment))
        given, struck = settings(*case, out), []
        for step, _, epoch, moment in sorted(kills):
            struck.append([*case, moment, number, epoch, step, run(given, moment, (epoch, step))])
            if (cut := run_in(out)) is not None:
                given = {'resume': str(cut)}
        run(given)
        different = tiny.difference(self.whole[case], run_in(out))
        for row in struck:
            self.rows.loc[len(self.rows)] = [*row, not different, different]
        self.rows.to_csv(self.path, index=False)

    def show(self) -> str:
        'Identical runs of those killed, by case and moment.'
        rows = self.rows[self.rows.killed.astype(str) == 'True']
        right = rows.assign(right=rows.identical.astype(str) == 'True').groupby(['recipe', 'freshness', 'moment']).right
        cells = right.agg(lambda r: f'{int(r.sum())}/{len(r)}').unstack('moment').fillna('-')
        total = f'{int((rows.identical.astype(str) == "True").sum())} of {len(rows)} killed runs ended identically'
        return f'{cells[[m for m in MOMENTS if m in cells]].to_string()}\n{total}'


def main(words: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', type=Path)
    parser.add_argument('--rounds', type=int, default=len(CASES))
    parser.add_argument('--only', nargs='*', default=[':'.join(case) for case in CASES])
    parser.add_argument('--moments', nargs='*', default=MOMENTS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--more', nargs='*', default=[], help='settings of every run')
    given = parser.parse_args(words)
    ALWAYS.update(setting.split('=', 1) for setting in given.more)
    cases = [tuple(f'{name}:'.split(':')[:2]) for name in given.only]
    with tempfile.TemporaryDirectory() as work:
        table = Table(given.rows, Path(work))
        for _ in range(given.rounds):
            case = min(cases, key=table.tried)
            table.compare(case, given.moments, given.seed)
            print(*case, f'{table.rows.iloc[-1].identical} {table.rows.iloc[-1].difference}', flush=True)
    print(table.show())
    return int((table.rows.identical.astype(str) != 'True').any())


if __name__ == '__main__':
    sys.exit(main())
