"""Fails where notebooks, package and README.md are out of step, or a notebook is not fit to be committed.

Nothing in the working tree is changed: nbdev exports and cleans a copy, and the copy is compared.
"""
import json
import re
import shutil
import subprocess
import sys
import warnings
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbdev_export
from readme import ROOT, readme

LARGEST = 400  # kB of a notebook
# somebody's own folders; in outputs temporary ones too
PRIVATE = re.compile(r'(?<![\w.~])/(?:work|root|(?:home|Users)/\w+)/')
PRIVATE_OUTPUT = re.compile(r'(?<![\w.~])/(?:work|root|tmp|var/folders|(?:home|Users)/\w+)/')


def notebooks(root: Path) -> list[Path]:
    "All notebooks below nbs/, relative to `root`; none of hidden folders."
    found = (path.relative_to(root) for path in (root / 'nbs').rglob('*.ipynb'))
    return sorted(path for path in found if not any(part.startswith('.') for part in path.parts))


def nbdev_copy(root: Path, copy: Path):
    "Puts into `copy` what nbdev makes of the notebooks of `root`: the cleaned notebooks and the package."
    for path in [Path('settings.ini'), Path('pyproject.toml'), Path('geoseg/__init__.py'), *notebooks(root)]:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, copy / path)
    with chdir(copy):
        get_config.cache_clear()
        nbdev_export.__wrapped__()
        nbdev_clean.__wrapped__()
    get_config.cache_clear()


def first_difference(a: bytes, b: bytes) -> int:
    "Number of the first line that differs."
    a, b = a.splitlines(), b.splitlines()
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False), 1) if x != y), min(len(a), len(b)) + 1)


def differences(root: Path, copy: Path) -> list[str]:
    "Where package and notebooks of `root` are not what nbdev made in `copy`."
    made = {path.relative_to(copy) for path in (copy / 'geoseg').rglob('*.py')}
    kept = {path.relative_to(root) for path in (root / 'geoseg').rglob('*.py')}
    found = [f'{path}: missing' for path in sorted(made - kept)]
    found += [f'{path}: no notebook makes it; delete it' for path in sorted(kept - made)]
    for path in [*sorted(made & kept), Path('pyproject.toml'), *notebooks(copy)]:
        old, new = (root / path).read_bytes(), (copy / path).read_bytes()
        if old != new:
            what = 'not clean' if path.suffix == '.ipynb' else 'not what the notebooks and settings.ini make'
            found.append(f'{path}: {what} (first at line {first_difference(old, new)})')
    return found


def output_text(output: dict) -> str:
    "What an output says in words; pictures are left out."
    data = output.get('data', {})
    parts = [output.get('text', ''), *(value for kind, value in data.items() if kind.startswith('text/'))]
    return '\n'.join(''.join(part) for part in parts)


def notebook_problems(root: Path, path: Path) -> list[str]:
    "What makes one notebook unfit: size, stored errors, paths of one machine."
    content = (root / path).read_bytes()
    size = len(content) // 1000
    found = [f'{path}: {size} kB, more than {LARGEST}; make its figures smaller'] * (size > LARGEST)
    for number, cell in enumerate(json.loads(content)['cells'], 1):
        outputs = cell.get('outputs', [])
        texts = [(PRIVATE, ''.join(cell['source']))]
        texts += [(PRIVATE_OUTPUT, output_text(output)) for output in outputs]
        found += [f'{path}, cell {number}: absolute path {match[0]}'
                  for pattern, text in texts for match in pattern.finditer(text)]
        found += [f'{path}, cell {number}: stored error {output["ename"]}'
                  for output in outputs if output['output_type'] == 'error']
    return found


def text_files(root: Path) -> list[Path]:
    "Files that are or could be committed, notebooks apart, relative to `root`; none where there is no git."
    git = ['git', '-C', str(root), 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(git, capture_output=True, text=True) if shutil.which('git') else None
    paths = [Path(name) for name in listed.stdout.split('\0')] if listed else []
    return sorted(path for path in paths if path.suffix != '.ipynb' and (root / path).is_file())


def path_problems(root: Path, path: Path) -> list[str]:
    "Paths of one machine in a text file."
    lines = (root / path).read_text(encoding='utf-8', errors='replace').splitlines()
    return [f'{path}, line {number}: absolute path {match[0]}'
            for number, line in enumerate(lines, 1) for match in PRIVATE.finditer(line)]


def problems(root: Path = ROOT) -> list[str]:
    "All that is wrong in `root`, a line each."
    found = []
    for path in notebooks(root):
        try:
            found += notebook_problems(root, path)
        except ValueError as error:
            return [f'{path}: not a notebook ({error})']
    with TemporaryDirectory() as copy, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('ignore')
        warnings.simplefilter('always', UserWarning)
        nbdev_copy(root, Path(copy))
        found += [f'nbdev: {warning.message}' for warning in said] + differences(root, Path(copy))
    try:
        if (root / 'README.md').read_text(encoding='utf-8') != readme(root):
            found.append('README.md: differs from nbs/index.ipynb')
    except (FileNotFoundError, ValueError) as error:
        found.append(f'README.md: {error}')
    return found + [line for path in text_files(root) for line in path_problems(root, path)]


if __name__ == '__main__':
    if found := problems():
        sys.exit('\n'.join(found) + '\n\n`make export` brings package, notebooks and README.md into step')
