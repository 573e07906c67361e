"""The website. `python tools/docs.py` writes it to _docs/ with Quarto; the other functions need no Quarto.

nbdev's own commands are not used: without Quarto they install it as root, with it they overwrite README.md.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pypandoc
import yaml
from nbdev import serve, serve_drv
from nbdev.quarto import refresh_quarto_yml
from readme import CODE, LINK, ROOT, is_relative

NO_QUARTO = """\
Quarto is not installed: https://quarto.org/docs/get-started/ has it for Linux, macOS and Windows.
When `quarto --version` answers, `make docs` writes the website to _docs/index.html."""


def pages(root: Path = ROOT) -> list[str]:
    "The notebooks that are pages of the website, as paths below nbs/."
    found = (path.relative_to(root / 'nbs') for path in (root / 'nbs').rglob('*.ipynb'))
    return sorted(path.as_posix() for path in found if not any(part[0] in '_.' for part in path.parts))


def config(root: Path = ROOT) -> dict:
    "_quarto.yml as read."
    return yaml.safe_load((root / '_quarto.yml').read_text(encoding='utf-8'))


def settings(root: Path = ROOT) -> dict:
    "The facts in settings.ini."
    parser = ConfigParser(delimiters=['='])
    parser.read(root / 'settings.ini', encoding='utf-8')
    return dict(parser['DEFAULT'])


def listed(contents: list) -> list[str]:
    "The pages that the contents of a sidebar name, in order."
    found = []
    for entry in contents:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += [entry['href']] if 'href' in entry else listed(entry['contents'])
    return found


def run_apart(script: str, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    "Runs a script in a process of its own, with the package that lies in `cwd`."
    return subprocess.run([sys.executable, script, *words], cwd=cwd, capture_output=True, text=True,
                          env=os.environ | {'PYTHONPATH': str(cwd)})


def process(root: Path, into: Path, run: Callable[..., subprocess.CompletedProcess] = run_apart) -> list[str]:
    "Copies the project into `into` and processes its pages to `into/_proc`; returns the complaints."
    for name in ('settings.ini', 'pyproject.toml', '_quarto.yml'):
        shutil.copy(root / name, into)
    for name in ('nbs', 'geoseg'):
        skipped = shutil.ignore_patterns('.*', '__pycache__', 'lightning_logs')
        shutil.copytree(root / name, into / name, symlinks=True, ignore=skipped)
    # a process of its own, because exported cells are run; all pages in one, because heavy imports are slow
    done = run(__file__, 'process', cwd=into)
    return done.stdout.splitlines() + done.stderr.splitlines()[-1:] * bool(done.returncode)


def process_here():
    "Processes the pages of the working directory and prints what nbdev complains of, page by page."
    import api_pages  # needs the package that was copied
    process_one = serve_drv.main

    def process_page(job):
        page = Path(job[0]).relative_to(Path.cwd())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always', UserWarning)
            try:
                module = api_pages.prepare(job[0])
                process_one(job)
                api_pages.finish(job[1], module)
            except Exception as error:
                print(f'{page}: {error.__cause__!r} in: {" ".join(str(error).split())[:200]}')
        for warning in caught:
            if 'nbdev' in Path(warning.filename).parts:
                print(f'{page}: {" ".join(str(warning.message).split())[:200]}')

    serve_drv.main = process_page
    refresh_quarto_yml()
    serve.proc_nbs(n_workers=0)
    folded = Path('_proc/tutorials/_metadata.yml')  # who reads a tutorial looks at its results first
    if folded.parent.is_dir():
        folded.write_text('format:\n  html:\n    code-fold: true\n', encoding='utf-8')


def lost_paragraphs(root: Path, into: Path) -> list[str]:
    "Paragraphs of the notebooks' Markdown that the processed pages in `into` lack."
    def words(text: str) -> str:  # nbdev turns backticked names into links
        return re.sub(r'\W+', '', re.sub(r'\]\([^)]*\)', '', text))

    lost = []
    for page in pages(root):
        notebook, processed = (json.loads((folder / page).read_text(encoding='utf-8'))['cells']
                               for folder in (root / 'nbs', into / '_proc'))
        head = yaml.safe_load(''.join(processed[0]['source']).strip().strip('-'))
        shown = words(''.join([*head.values(), *(''.join(cell['source']) for cell in processed[1:])]))
        texts = [''.join(cell['source']) for cell in notebook if cell['cell_type'] == 'markdown']
        lost += [f'{page}: {paragraph}' for text in texts for paragraph in re.split(r'\n\s*\n', text)
                 if words(paragraph) not in shown]
    return lost


def render(page: Path) -> str:
    "A processed page as HTML, by pandoc; RuntimeError with its words where it fails or warns."
    notebook = json.loads(page.read_text(encoding='utf-8'))
    cells = []
    for cell in notebook['cells']:
        cells.append(cell)
        for output in cell.get('outputs', []):
            if output['output_type'] == 'execute_result':
                output['execution_count'] = 0  # pandoc reads no null here
            # what Quarto makes part of the text, such as the descriptions of functions
            if text := output.get('data', {}).get('text/markdown'):
                cells.append({'cell_type': 'markdown', 'metadata': {}, 'source': text})
    notebook['cells'] = cells
    command = [pypandoc.get_pandoc_path(), '--from=ipynb-gfm_auto_identifiers+fenced_divs', '--to=html',
               '--mathml', '--fail-if-warnings']
    done = subprocess.run(command, input=json.dumps(notebook), capture_output=True, encoding='utf-8')
    if done.returncode:
        raise RuntimeError(f'{page.name}: {done.stderr.strip()}')
    return done.stdout


def links(page: Path) -> list[str]:
    "Targets of the links and pictures in the Markdown cells of a notebook."
    cells = json.loads(page.read_text(encoding='utf-8'))['cells']
    texts = (''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    return [target for text in texts for part in CODE.split(text)[::2] for target in LINK.findall(part)]


def broken_links(root: Path, html: dict[str, str]) -> list[str]:
    "Links of the pages that lead nowhere; `html` holds the rendered pages, whose headings are looked up."
    nbs, facts, found = (root / 'nbs').resolve(), settings(root), []
    in_repository = re.compile(rf'{re.escape(facts["git_url"])}/(?:blob|tree)/{facts["branch"]}/(.+)')
    for page in html:
        for target in links(nbs / page):
            file, _, heading = target.partition('#')
            if address := in_repository.match(file):
                if not (root / address[1]).exists():
                    found.append(f'{page}: {target}: no such file')
            elif is_relative(file):
                path = (nbs / page).parent.joinpath(file or Path(page).name).resolve()
                if not path.exists():
                    found.append(f'{page}: {target}: no such file')
                elif not path.is_relative_to(nbs):
                    found.append(f'{page}: {target}: not on the website; give its address in the repository')
                elif heading and f'id="{heading}"' not in html.get(path.relative_to(nbs).as_posix(), ''):
                    found.append(f'{page}: {target}: no such heading')
    return found


def build(root: Path = ROOT):
    "Writes the website to _docs/."
    with TemporaryDirectory() as tmp:
        if problems := process(root, Path(tmp)):
            sys.exit('\n'.join(problems))
        subprocess.run(['quarto', 'render', '--no-cache'], cwd=Path(tmp, '_proc'), check=True)
        shutil.rmtree(root / '_docs', ignore_errors=True)
        shutil.move(Path(tmp, '_proc', '_docs'), root / '_docs')


if __name__ == '__main__':
    if sys.argv[1:] == ['process']:
        process_here()
    elif shutil.which('quarto'):
        build()
    else:
        sys.exit(NO_QUARTO)
