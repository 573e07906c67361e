"""Kill every verb on every kind of data at every moment, look at what is there, run it again, and compare.

    python tests/kill_verbs.py ROWS.csv [--rounds 1] [--only JOB …] [--moments MOMENT …] [--runs RECIPE=RUN …]

A round takes a job once, kills it once at each moment, at a file that is drawn, and lets it end. A row of the file is a
kill. After each one, every file that is there is read to its end, and what the job reads is as it was, by its hash.
Everything is imported once: each job is a fork, which is killed with SIGKILL.
"""
import argparse
import hashlib
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ['CUDA_VISIBLE_DEVICES'] = ''
os.environ['MPLBACKEND'] = 'agg'
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import pandas as pd  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from test_table import in_process  # noqa: E402
from verbs import INTO_THE_RUN, JOBS, Job, contents, copy_of, look, own_cache, read  # noqa: E402

import geoseg.training.sweep  # noqa: E402
from geoseg import cli  # noqa: E402
from geoseg.core.files import cache_folder  # noqa: E402

MOMENTS = ('writing',  # half of a file, or of a folder, is there under the name of a draft
           'written',  # it has its name
           'anywhen')  # at a moment that is drawn
COLUMNS = ['job', 'moment', 'round', 'place', 'killed', 'whole', 'identical', 'difference']
WORLDS = [*(cache_folder() / 'world').glob('tiny-*')]
moves = mmap.mmap(-1, 8)  # shared with the child: how often something got its name


def strike(moment: str | None, place: int):
    'Count what gets its name, and be killed at one of these moments.'
    def counting(move: Callable) -> Callable:
        def wrapped(source, target, *args, **kwargs):
            count = int.from_bytes(moves[:8], 'little') + 1
            if moment == 'writing' and count == place:
                if Path(source).is_file() and Path(source).stat().st_nlink == 1:  # no second name of what is whole
                    os.truncate(source, Path(source).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            move(source, target, *args, **kwargs)
            moves[:8] = count.to_bytes(8, 'little')
            if moment == 'written' and count == place:
                os.kill(os.getpid(), signal.SIGKILL)
        return wrapped

    moves[:8] = bytes(8)
    os.replace, os.rename = counting(os.replace), counting(os.rename)


def attempt(words: list[str], cache: Path, moment: str | None = None, place: float = 0) -> tuple[bool, float]:
    'Run a command in a fork. Returns whether it was killed, and the seconds it took.'
    begun, child = time.monotonic(), os.fork()
    if child == 0:
        try:
            warnings.simplefilter('ignore')
            os.environ['GEOSEG_CACHE'] = str(cache)
            os.setsid()
            sys.stdout = open(os.devnull, 'w')
            sys.stderr = open(cache / 'said.txt', 'w')
            torch.set_num_threads(1)
            geoseg.training.sweep.papermill.execute_notebook = in_process
            strike(moment, int(place))
            status = cli.main(words)
            sys.stderr.flush()
            os._exit(status)
        except BaseException as error:
            sys.__stderr__.write(f'{words}: {type(error).__name__}: {error}\n')
            os._exit(1)
    if moment == 'anywhen':
        time.sleep(place)
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True, 0
        return False, 0
    status = os.waitpid(child, 0)[1]
    if status and not os.WIFSIGNALED(status):
        raise SystemExit(f'{" ".join(words)} failed: {(cache / "said.txt").read_text()[-2000:]}')
    return os.WIFSIGNALED(status), time.monotonic() - begun


def hashes(*folders: Path) -> dict[str, str]:
    'The files of folders by their contents.'
    return {str(path): hashlib.blake2b(path.read_bytes()).hexdigest() for folder in folders
            for path in sorted(folder.rglob('*')) if path.is_file()}


class Work:
    'The folders of one job: a copy of the run, what is written, and a cache.'

    def __init__(self, folder: Path, job: Job, run: Path | None):
        shutil.rmtree(folder, ignore_errors=True)
        self.out, self.cache = folder / 'out', own_cache(folder / 'cache')
        self.run = copy_of(run, folder / 'run') if run else folder / 'run'
        self.words = job.words(self.run, self.out)
        self.read = [*WORLDS] + [self.run] * (job.verb not in INTO_THE_RUN)
        self.writes = [self.out, self.cache] + [self.run] * (job.verb in INTO_THE_RUN)


class Table:
    'The rows of a file.'

    def __init__(self, path: Path, work: Path, runs: dict[str, Path]):
        self.path, self.work, self.runs, self.whole = path, work, runs, {}
        self.rows = pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame(columns=COLUMNS)

    def run_of(self, job: Job) -> Path | None:
        if job.words(self.work / 'RUN', self.work / 'OUT').count('--checkpoint') == 0:
            return None
        if job.recipe not in self.runs:
            child = os.fork()
            if child == 0:
                sys.stdout = sys.stderr = open(os.devnull, 'w')
                tiny.train(job.recipe, self.work / 'runs')
                os._exit(0)
            os.waitpid(child, 0)
            self.runs[job.recipe] = next((self.work / 'runs' / job.recipe).iterdir())
        return self.runs[job.recipe]

    def compare(self, name: str, moments: list[str], seed: int):
        'A job that is killed at each moment, and then ends.'
        job, number = JOBS[name], int(self.rows['round'].max() + 1) if len(self.rows) else 0
        run = self.run_of(job)
        if name not in self.whole:
            whole = Work(self.work / 'whole' / name, job, run)
            _, seconds = attempt(whole.words, whole.cache)
            self.whole[name] = whole, int.from_bytes(moves[:8], 'little'), seconds
        (whole, count, seconds), draw = self.whole[name], random.Random(f'{seed} {number} {name}')
        cut, struck = Work(self.work / 'cut', job, run), []
        for moment in moments:
            if moment != 'anywhen' and not count:
                continue
            place = draw.uniform(0, seconds) if moment == 'anywhen' else draw.randint(1, count)
            before = hashes(*cut.read)
            killed, _ = attempt(cut.words, cut.cache, moment, place)
            wrong = ''
            try:
                for folder in (cut.out, cut.cache, cut.run):
                    if folder.is_dir():
                        look_at(folder, killed)
                assert hashes(*cut.read) == before, 'what it reads has changed'
            except Exception as error:
                wrong = f'{type(error).__name__}: {error}'.strip()
            struck.append([name, moment, number, place, killed, not wrong, wrong])
        for path in cut.out.glob('unet/*') if job.verb == 'fit' else ():
            if not (path / 'config.yaml').is_file():  # it is no run yet, and nothing goes on with it
                shutil.rmtree(path)
        attempt(cut.words, cut.cache)
        different = difference(whole, cut)
        new = [[*row, not different, wrong or different] for *row, wrong in struck]
        self.rows = pd.DataFrame([*self.rows.values.tolist(), *new], columns=COLUMNS)
        self.rows.to_csv(self.path, index=False)

    @property
    def wrong(self) -> pd.DataFrame:
        return self.rows[(self.rows.whole.astype(str) != 'True') | (self.rows.identical.astype(str) != 'True')]

    def show(self) -> str:
        'Identical ends of the kills, by job and moment.'
        rows = self.rows[self.rows.killed.astype(str) == 'True']
        right = rows.assign(right=(rows.identical.astype(str) == 'True') & (rows.whole.astype(str) == 'True')).groupby(
            ['job', 'moment']).right
        cells = right.agg(lambda r: f'{int(r.sum())}/{len(r)}').unstack('moment').fillna('-')
        return (f'{cells[[m for m in MOMENTS if m in cells]].to_string()}\n'
                f'{len(rows) - len(self.wrong)} of {len(rows)} killed jobs left whole files and ended identically')


def look_at(folder: Path, killed: bool):
    'Look at a folder, the worlds in a cache apart.'
    for part in folder.iterdir() if folder.name == 'cache' else [folder]:
        if part.is_dir() and part.name != 'world':
            look(part, killed)


def difference(one: Work, two: Work) -> str:
    'What first differs between two ends; nothing where they are the same.'
    for folder in (two.out, two.cache, two.run):
        if folder.is_dir():
            try:
                look_at(folder, False)
            except AssertionError as error:
                return str(error)
    ends = [dict(contents(*(folder for folder in work.writes if folder.is_dir()))) for work in (one, two)]
    names = [{name for name in end if name != 'cache/said.txt'} for end in ends]
    if names[0] != names[1]:
        return f'files {sorted(names[0] ^ names[1])[:3]}'
    for name in sorted(names[0]):
        known = [read(end[name]) for end in ends]
        known = [text.replace(str(work.out.parent), '') if isinstance(text, str) else text
                 for text, work in zip(known, (one, two), strict=True)]
        if not tiny.same(*known):
            return name
    return ''


def main(words: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', type=Path)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--only', nargs='*', default=[*JOBS])
    parser.add_argument('--moments', nargs='*', default=MOMENTS)
    parser.add_argument('--runs', nargs='*', default=[])
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args(words)
    runs = {recipe: Path(run) for recipe, _, run in (text.partition('=') for text in given.runs)}
    with tempfile.TemporaryDirectory() as work:
        table = Table(given.rows, Path(work), runs)
        for _ in range(given.rounds):
            for name in given.only:
                table.compare(name, given.moments, given.seed)
                last = table.rows[table.rows.job == name].tail(len(given.moments))
                print(name, ', '.join(f'{row.moment} {row.place:.3g} {row.whole} {row.identical} {row.difference}'
                                      for row in last.itertuples()), flush=True)
    print(table.show())
    return int(len(table.wrong) > 0)


if __name__ == '__main__':
    sys.exit(main())
