"""Our adapters with the current TorchGeo, which needs Python 3.12: an environment of its own, and its tests there.

python tools/torchgeo_current.py FOLDER [PYTHON]   (FOLDER: of the environment; PYTHON: python3.12)

`make test` does not run it. tools/torchgeo_speed.py --other FOLDER/bin/python measures that TorchGeo beside geoseg.
"""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ['torchgeo', 'pytest', 'hypothesis', 'filelock']


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.splitlines()[2])
    folder, python = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) == 3 else 'python3.12'
    own = str(folder / 'bin' / 'python')
    subprocess.run([python, '-m', 'venv', str(folder)], check=True)
    subprocess.run([own, '-m', 'pip', 'install', '--quiet', '-e', '.', *NEEDED], cwd=ROOT, check=True)
    about = "from importlib.metadata import version; print('torchgeo', version('torchgeo'), 'torch', version('torch'))"
    subprocess.run([own, '-c', about], check=True)
    tests = [own, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/models/test_torchgeo.py']
    sys.exit(subprocess.run(tests, cwd=ROOT, check=False).returncode)


if __name__ == '__main__':
    main()
