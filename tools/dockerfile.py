"""Makes Dockerfile and pinned.txt, the versions installed here that `geoseg serve` needs: `make docker`.

`--check` compares the Dockerfile; `--run FOLDER` executes its RUN lines that install, in a new environment there.
"""
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version
from readme import ROOT

EXTRAS = ('serve', 'export')  # to answer over HTTP; to answer with ONNX files
FIRST = '# made by `make docker`; edit tools/dockerfile.py\n'
SYSTEM = 'libexpat1'  # that rasterio needs and slim images lack
COPIED = ('settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE')  # to build the package


def normal(name: str) -> str:
    "The normalised name of a distribution."
    return re.sub(r'[-_.]+', '-', name).lower()


def pinned(name: str = 'geoseg', extras: tuple[str, ...] = EXTRAS) -> str:
    "All that a distribution needs, as installed here: `name==version`, a line each; versions without local parts."
    found, waiting, seen = {}, [(normal(name), ('', *extras))], set()
    while waiting:
        owner, wanted = waiting.pop()
        if (owner, wanted) in seen:
            continue
        seen.add((owner, wanted))
        installed = metadata.distribution(owner)
        found[owner] = Version(installed.version).public
        for requirement in map(Requirement, installed.requires or ()):
            if requirement.marker is None or any(requirement.marker.evaluate({'extra': extra}) for extra in wanted):
                waiting.append((normal(requirement.name), ('', *sorted(requirement.extras))))
    del found[normal(name)]
    return ''.join(f'{owner}=={version}\n' for owner, version in sorted(found.items()))


def dockerfile(python: str = '3.11') -> str:
    "The text of the Dockerfile."
    return f'''{FIRST}FROM python:{python}-slim
RUN apt-get update && apt-get install -y --no-install-recommends {SYSTEM} && rm -rf /var/lib/apt/lists/*
WORKDIR /geoseg
COPY pinned.txt ./
RUN python -m pip install --no-cache-dir --no-deps -r pinned.txt
COPY {' '.join(COPIED)} ./
COPY geoseg geoseg
COPY nbs/train.ipynb nbs/
RUN python -m pip install --no-cache-dir --no-deps .
RUN python -m pip check && geoseg --help
RUN useradd --create-home served
USER served
EXPOSE 8080
# docker run -p 127.0.0.1:8080:8080 -v RUN:/run:ro geoseg --checkpoint /run
ENTRYPOINT ["geoseg", "serve", "host=0.0.0.0"]
'''


def python_lines(text: str) -> list[str]:
    "What RUN lines do that need neither root nor an image."
    lines = [line.removeprefix('RUN ') for line in text.splitlines() if line.startswith('RUN ')]
    return [line for line in lines if line.startswith('python ')]


def run_lines(folder: Path):
    "Execute them in a new environment, from the top of the clone."
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    path = f'{folder.resolve() / "bin"}{os.pathsep}{os.environ["PATH"]}'
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'} | {'PATH': path}
    for line in python_lines((ROOT / 'Dockerfile').read_text(encoding='utf-8')):
        print(line, flush=True)
        subprocess.run(line, shell=True, check=True, cwd=ROOT, env=environment)


if __name__ == '__main__':
    if '--check' in sys.argv:
        if (ROOT / 'Dockerfile').read_text(encoding='utf-8') != dockerfile():
            sys.exit('Dockerfile is not what tools/dockerfile.py makes: run `make docker`')
    elif '--run' in sys.argv:
        run_lines(Path(sys.argv[sys.argv.index('--run') + 1]))
    else:
        (ROOT / 'pinned.txt').write_text(pinned(), encoding='utf-8')
        (ROOT / 'Dockerfile').write_text(dockerfile(), encoding='utf-8')
