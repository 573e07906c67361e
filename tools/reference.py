"""Fails where two commits do not compute the same, to the last digit.

`python tools/reference.py OLD [NEW]`: NEW is the working tree as it is, unless a commit is given. Both sides make a
tiny run of every recipe from the command line: a training, a resumed training, evaluation and prediction, on worlds and
caches of their own. Weights, tables and answers are compared on one machine; what a commit gives is kept only in the
folder of `--cache`, under a name that tells script, machine and packages. The same commit twice is made twice, to see
whether runs can be repeated at all.
"""
import argparse
import ast
import csv
import hashlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 'weights', 'resumed weights', 'metrics', 'evaluation', 'prediction'
FAILED = 'failed'  # name of the entry of a column whose command did not end well
STATE = 'state_dict', 'ema', 'optimizer_states'  # of a checkpoint; the rest holds class paths
UNLIKE = re.compile(r'seconds|peak|modified|started|version|\btime|^job$')  # clocks and the like: names of JSON values
ONE_THREAD = {f'{name}_NUM_THREADS': '1' for name in ('OMP', 'MKL', 'OPENBLAS', 'NUMEXPR')}
QUIET = {'CUDA_VISIBLE_DEVICES': '', 'PYTHONHASHSEED': '0', 'MPLBACKEND': 'Agg', 'NO_ALBUMENTATIONS_UPDATE': '1',
         'HF_HUB_OFFLINE': '1'}


@dataclass
class Tiny:
    "A tiny run: words of its training, and the commands that ask it, each with a folder of its own."
    recipe: str
    settings: str
    evaluation: tuple[str, ...] = ('validate', 'test')
    prediction: tuple[str, ...] = ('predict',)
    data: str = 'world:tiny'


EACH = ('epochs=2 num_workers=0 trainer.accelerator=cpu trainer.enable_progress_bar=false '
        'trainer.limit_train_batches=3')
UNET = 'encoder=tu-resnet10t decoder_channels=[16,8,8,8,8]'
SCENES = 'batch_size=4 image_size=[32,32] rotation=0 blur=0'
PLACES = ('backbone=vit_tiny_patch16_224 image_size=32 batch_size=3 '
          'options={"patch_size":8,"embed_dim":24,"depth":2,"num_heads":2}')
LOCALIZE = 'localize photos={photos} tiles={map} gallery={out}/gallery k=3',
MESHES = 'embedding_dim=16 num_heads=2 num_attention_blocks=2 cluster_size=64 n_clusters=8 batch_size=4'
MEMORY = 'feature_dim=16 memory_dim=16 warmup_epochs=0.5 memory_warmup_epochs=1 batch_size=4 scales=[8,64]'
SCENE = 'predict data={raster} window=128 write=[probabilities,uncertainty,polygons,geojson]'
RUNS = {
    'deepglobe-trm': Tiny('deepglobe-trm', 'width=16 patch=32 warmup_epochs=0.5 by=step batch_size=4 val_share=0.4',
                          ('validate', 'halt-cal by=sample'), ('predict', 'predict window=64 overlap=0')),
    'game4loc-cross-area': Tiny('game4loc-cross-area', PLACES, prediction=LOCALIZE),
    'game4loc-same-area': Tiny('game4loc-same-area', PLACES, prediction=LOCALIZE),
    'geosegformer': Tiny('geosegformer', f'{MEMORY} image_size=[64,96]'),
    'geosegformer on a raster': Tiny(
        'geosegformer', f'{MEMORY} chip=64 chips_per_epoch=24 memory_size=24 spatial_radius=6 label_recall=true '
        'ema=0.9 dihedral=1.0', prediction=('predict write=[probabilities]', 'predict update=true'),
        data='world:raster:tiny'),
    'nomeformer': Tiny('nomeformer', MESHES),
    'nomeformer-texture': Tiny('nomeformer-texture', f'{MESHES} texture_embed_dim=8 max_texture_pixels=8',
                               prediction=('predict write=[probabilities]',)),
    'unet': Tiny('unet', f'{UNET} image_size=[64,64] crop=[64,64] batch_size=8 warmup_epochs=1 ema=0.9',
                 ('validate', 'test', 'calibrate'),
                 ('predict write=[color,overlay,probabilities]', 'predict data={pictures} tta=[horizontal]', SCENE)),
    'wildscenes-deeplabv3': Tiny('wildscenes-deeplabv3', f'{SCENES} backbone=nano'),
    'wildscenes-fcn': Tiny('wildscenes-fcn', f'{SCENES} backbone=nano'),
    'wildscenes-mask2former': Tiny(  # at 32 pixels its group norm has one value a channel for a last batch of one
        'wildscenes-mask2former', 'batch_size=4 image_size=[64,64] rotation=0 blur=0 size=nano pretrained=false '
        'trainable_layers=2 trainer.gradient_clip_val=0'),
    'wildscenes-unet': Tiny('wildscenes-unet', f'{SCENES} {UNET}'),
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_array(array: np.ndarray) -> str:
    "Type, shape and hash of an array."
    array = np.ascontiguousarray(array)
    return f'{array.dtype} {list(array.shape)} {digest(array.tobytes())}'


def of_state(tree: Any, name: str) -> Iterator[tuple[str, str]]:
    "The tensors and numbers of nested dictionaries and lists, by name."
    import torch
    if isinstance(tree, torch.Tensor):
        kind = str(tree.dtype).removeprefix('torch.')
        values = tree.detach().contiguous().reshape(-1).view(torch.uint8) if tree.numel() else tree.new_empty(0)
        yield name, f'{kind} {list(tree.shape)} {digest(values.numpy().tobytes())}'
    elif isinstance(tree, Mapping | list | tuple):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from of_state(value, f'{name} {key}')
    elif isinstance(tree, bool | int | float):
        yield name, repr(tree)


def of_checkpoint(path: Path) -> Iterator[tuple[str, str]]:
    import torch
    known = torch.load(path, map_location='cpu', weights_only=True)
    yield from sorted(entry for part in STATE for entry in of_state(known.get(part), part))


def of_csv(path: Path) -> Iterator[tuple[str, str]]:
    "Every cell, and the hash of the file."
    content = path.read_bytes()
    header, *rows = [*csv.reader(io.StringIO(content.decode()))] or [[]]
    for number, row in enumerate(rows, 1):
        for column, cell in zip(header, row, strict=True):
            yield f'row {number} {column}', cell
    yield 'file', digest(content)


def of_json(path: Path) -> Iterator[tuple[str, str]]:
    "Every number that is no clock."
    def numbers(tree, name):
        if isinstance(tree, dict | list):
            for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
                if not UNLIKE.search(str(key)):
                    yield from numbers(value, f'{name} {key}'.strip())
        elif isinstance(tree, int | float):
            yield name, repr(tree)
    yield from numbers(json.loads(path.read_text()), '')


def of_picture(path: Path) -> Iterator[tuple[str, str]]:
    import rasterio
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            yield 'pixels', of_array(file.read())


def of_ply(path: Path) -> Iterator[tuple[str, str]]:
    "Elements and values; comments name files."
    head, end, values = path.read_bytes().partition(b'end_header\n')
    lines = [line for line in head.decode().splitlines() if not line.startswith('comment')]
    yield 'elements', '; '.join(lines)
    yield 'values', digest(values)


def of_npz(path: Path) -> Iterator[tuple[str, str]]:
    with np.load(path) as arrays:
        yield from ((name, of_array(arrays[name])) for name in sorted(arrays))


def of_safetensors(path: Path) -> Iterator[tuple[str, str]]:
    from safetensors.numpy import load_file
    yield from ((name, of_array(array)) for name, array in sorted(load_file(path).items()))


def of_text(path: Path) -> Iterator[tuple[str, str]]:
    yield 'text', digest(path.read_bytes())


READERS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    '.ckpt': of_checkpoint, '.csv': of_csv, '.json': of_json, '.geojson': of_text, '.png': of_picture,
    '.tif': of_picture, '.ply': of_ply, '.npz': of_npz, '.safetensors': of_safetensors, '.txt': of_text}


def gather(folder: Path, pattern: str = '**/*') -> dict[str, str]:
    "What the files of a folder hold, by name; of a kind of file that has no reader only that it is there."
    found = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            name, read = path.relative_to(folder).as_posix(), READERS.get(path.suffix)
            found[name] = 'there'
            found |= {f'{name}, {key}': value for key, value in (read(path) if read else ())}
    return found


def preload(package: Path):
    "Import what a package imports from others, so that its commands, which are forks, need not."
    for path in sorted(package.rglob('*.py')):
        for node in ast.parse(path.read_text()).body:
            own = isinstance(node, ast.ImportFrom) and (node.level or node.module.partition('.')[0] == package.name)
            if isinstance(node, ast.Import | ast.ImportFrom) and not own:
                with suppress(ImportError):
                    exec(ast.unparse(node), {})


def call(words: list[str], package: Path, told: Path):
    "What `python -m geoseg.cli WORDS` does, in this process."
    with told.with_suffix('.out').open('w') as out, told.with_suffix('.err').open('w') as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    sys.path[0] = os.getcwd()
    sys.argv = ['geoseg', *words]
    import geoseg
    if Path(geoseg.__file__).resolve().parent != package.resolve():
        raise RuntimeError(f'{geoseg.__file__} was imported, expected {package}')
    runpy.run_module('geoseg.cli', run_name='__main__', alter_sys=True)


class Commands:
    "Commands of a checkout, one after the other, each in a process of its own."

    def __init__(self, checkout: Path):
        self.package, self.count = checkout / 'geoseg', 0
        preload(self.package)
        Path('told').mkdir()

    def __call__(self, *words: str) -> str:
        "What was printed; `RuntimeError` with the last line of what went wrong."
        self.count += 1
        told = Path('told', f'{self.count:03d}').absolute()
        child = multiprocessing.get_context('fork').Process(target=call, args=([*words], self.package, told))
        child.start()
        child.join()
        if child.exitcode:
            last = (told.with_suffix('.err').read_text().strip().splitlines() or ['no word'])[-1]
            raise RuntimeError(f'geoseg {" ".join(words)}: exit status {child.exitcode}: {last}')
        return told.with_suffix('.out').read_text()


class Places:
    "Where the files of the worlds lie, by what is in them: `{raster}` and so on in the words of a command."
    FOUND = {'raster': '*_image.tif', 'map': '*-drone2sate-*.json', 'photos': 'drone/images', 'pictures': 'images/test'}

    def __init__(self, worlds: Path, out: Path):
        self.worlds, self.out = worlds, out

    def __getitem__(self, name: str) -> Path:
        if name == 'out':
            return self.out
        found = sorted(self.worlds.rglob(self.FOUND[name]))
        if not found:
            raise RuntimeError(f'{self.worlds}: no world has {self.FOUND[name]}')
        return found[0].parent if name == 'map' else found[0]


def ask(command: Commands, asked: str, run: str, out: Path) -> dict[str, str]:
    "One command about a run, and what it wrote."
    words = asked.format_map(Places(Path(os.environ['GEOSEG_CACHE']), out)).split()
    command(words[0], '--checkpoint', run, f'out={out}', *words[1:])
    return {f'{out.name}/{name}': value for name, value in gather(out).items()}


def make(command: Commands, name: str, tiny: Tiny) -> Iterator[tuple[str, dict[str, str]]]:
    "The columns of a run, as they come; one that fails is the last."
    column = COLUMNS[0]
    try:
        fit = 'fit', '--recipe', tiny.recipe
        out = Path(name.replace(' ', '-'))
        run = command(*fit, f'data={tiny.data}', f'out={out}', *EACH.split(), *tiny.settings.split()).split()[-1]
        yield column, gather(Path(run), 'checkpoints/*.ckpt')
        column = COLUMNS[2]
        metrics = gather(Path(run), '*.csv')
        column = COLUMNS[1]
        command(*fit, f'resume={run}', 'epochs=3')
        yield column, gather(Path(run), 'checkpoints/*.ckpt')
        column = COLUMNS[2]
        yield column, metrics | {f'resumed {key}': value for key, value in gather(Path(run), '*.csv').items()}
        for column, commands in zip(COLUMNS[3:], (tiny.evaluation, tiny.prediction), strict=True):
            entries = {}
            for number, asked in enumerate(commands, 1):
                entries |= ask(command, asked, run, out / f'{number}-{asked.partition(" ")[0]}')
            yield column, entries
    except Exception as error:
        traceback.print_exc()
        yield column, {FAILED: f'{error}'}


def run_all(checkout: Path, wanted: list[str]) -> dict[str, dict[str, dict[str, str]]]:
    "Run, column, name: what a checkout makes in the working directory."
    command, results = Commands(checkout), {}
    recipes = {line.split()[0] for line in command('recipes').splitlines()}
    if lost := sorted(recipes - {tiny.recipe for tiny in RUNS.values()}):
        raise SystemExit(f'{checkout}: no tiny run of {", ".join(lost)} in RUNS of {Path(__file__).name}')
    command('fit', '--help', '--recipe', 'geosegformer', 'data=world:raster:tiny')  # draws the scenes
    for name in wanted:
        begun = time.monotonic()
        results[name] = dict(make(command, name, RUNS[name]))
        print(f'  {name}: {time.monotonic() - begun:.0f} s', file=sys.stderr, flush=True)
    return results


def git(*words: str) -> bytes:
    done = subprocess.run(['git', '-C', str(ROOT), *words], capture_output=True)
    if done.returncode:
        raise SystemExit(f'git {" ".join(words)}: {done.stderr.decode().strip()}')
    return done.stdout


def commit_of(name: str) -> str:
    return git('rev-parse', '--verify', f'{name}^{{commit}}').decode().strip()


@contextmanager
def checkout_of(commit: str | None) -> Iterator[Path]:
    "A copy of the package of a commit, or of the working tree."
    with TemporaryDirectory(prefix='geoseg-') as folder:
        if commit is None:
            shutil.copytree(ROOT / 'geoseg', Path(folder, 'geoseg'), ignore=shutil.ignore_patterns('__pycache__'))
        else:
            with tarfile.open(fileobj=io.BytesIO(git('archive', commit, 'geoseg'))) as archive:
                archive.extractall(folder, filter='data')
        yield Path(folder)


def circumstances() -> str:
    "A name for all that numbers depend on beside the commit: this script, the machine, the packages."
    packages = sorted(f'{d.name} {d.version}' for d in importlib.metadata.distributions())
    cpu = Path('/proc/cpuinfo')
    model = re.findall(r'model name.*|flags.*', cpu.read_text())[:2] if cpu.is_file() else platform.processor()
    return digest(repr([Path(__file__).read_text(), platform.platform(), model, packages]).encode())[:16]


def side(commit: str | None, wanted: list[str], cache: Path | None) -> dict[str, dict[str, dict[str, str]]]:
    "The results of a commit or of the working tree: kept ones, or made in a process and a folder of its own."
    kept = cache / f'{commit}-{circumstances()}.json' if cache and commit else None
    known = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    if todo := [name for name in wanted if name not in known]:
        print(f'{commit or "working tree"}:', file=sys.stderr, flush=True)
        with checkout_of(commit) as checkout, TemporaryDirectory(prefix='geoseg-') as work:
            ours = {'PYTHONPATH': str(checkout), 'GEOSEG_CACHE': str(Path(work, 'cache'))}
            results = Path(work, 'results.json')
            command = [sys.executable, Path(__file__).resolve(), '--side', checkout, results, *todo]
            if subprocess.run(command, cwd=work, env=os.environ | ONE_THREAD | QUIET | ours).returncode:
                raise SystemExit(f'{commit or "working tree"}: no results')
            known |= json.loads(results.read_text())
        if kept:
            cache.mkdir(parents=True, exist_ok=True)
            begun = kept.with_suffix('.tmp')
            whole = {run: made for run, made in known.items() if not any(FAILED in column for column in made.values())}
            begun.write_text(json.dumps(whole, indent=0))
            begun.replace(kept)
    return {name: known[name] for name in wanted}


def difference(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> str | None:
    "The first difference of a column, in words; a command that failed is one."
    if old is None or new is None:
        return 'never reached'
    for which, entries in (('OLD', old), ('NEW', new)):
        if FAILED in entries:
            return f'{which} failed: {entries[FAILED]}'
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name), new.get(name)
        if a != b:
            return f'{name}: ' + ('only in NEW' if a is None else 'only in OLD' if b is None else f'{a} and {b}')
    return None if old else 'nothing was written'


def compare(old: Mapping, new: Mapping) -> tuple[str, list[str]]:
    "The table run x column, and each difference in words."
    width, lines, found = max(map(len, old)), [], []
    lines.append('  '.join([' ' * width, *COLUMNS]))
    for run in old:
        differences = {column: difference(old[run].get(column), new[run].get(column)) for column in COLUMNS}
        found += [f'{run}, {column}: {text}' for column, text in differences.items() if text]
        cells = [('different' if text else 'equal').ljust(len(column)) for column, text in differences.items()]
        lines.append('  '.join([run.ljust(width), *cells]).rstrip())
    return '\n'.join(lines), found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old', help='a commit')
    parser.add_argument('new', nargs='?', help='a commit; left out: the working tree')
    parser.add_argument('--cache', type=Path, help='folder where the results of commits are kept')
    parser.add_argument('--only', nargs='+', default=[*RUNS], choices=RUNS, metavar='RUN', help='these runs alone')
    words = parser.parse_args()
    commits = [name and commit_of(name) for name in (words.old, words.new)]
    old = side(commits[0], words.only, words.cache)
    new = side(commits[1], words.only, words.cache if len(set(commits)) == 2 else None)  # once more where it is OLD
    table, found = compare(old, new)
    print(table)
    if found:
        print(f'\nfirst difference: {found[0]}', *found[1:], sep='\n', file=sys.stderr)
    return bool(found)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--side']:
        made = run_all(Path(sys.argv[2]), sys.argv[4:])
        Path(sys.argv[3]).write_text(json.dumps(made))
    else:
        sys.exit(main())
