"""Run a notebook from top to bottom as nbdev_test does, in its own folder; stored words should be those of now.

`python tests/run_notebook.py NOTEBOOK --store` stores what it prints now, in the cells that print other words.
"""
import difflib
import os
import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.config import get_config
from nbdev.process import NBProcessor

# a machine prints its own paths, times and numbers, and as many blanks and dashes as these need
VARIES = re.compile(r'''\S*/(?:tmp|home|root|cache|work|runs)/\S*|\btmp[a-z0-9_]{8}\b/?|0x[0-9a-f]+
                    |[-+]?\d[\d.,_:T²³]*(?:e[-+]?\d+)?
                    |\bnan\b|\binf\b|[─━═|+…-]{2,}''', flags=re.VERBOSE)
WIDGET = 'application/vnd.jupyter.widget-view+json'  # a bar of progress
OF_THE_MACHINE = re.compile(r'shared_data|real_data|shutil\.which|find_spec')  # what is said depends on what is there


def words(outputs) -> str:
    "The text of a cell's outputs, without what varies."
    texts = []
    for output in outputs:
        if output.output_type == 'stream' and output.name == 'stdout':
            texts.append(output.text)
        elif output.output_type in ('execute_result', 'display_data') and WIDGET not in output.data:
            texts.append(output.data.get('text/markdown') or output.data.get('text/plain', ''))
    joined = ''.join(''.join(text) + '\n' for text in texts)
    return ' '.join(VARIES.sub(' # ', re.sub(r'\x1b\[[\d;]*m|<Figure[^>]*>| at 0x[0-9a-f]+', '', joined)).split())


STALE = 2


def run(path: Path, store: bool = False) -> int:
    "0 where all cells ran and printed what is stored, STALE where they print other words, else 1."
    config = get_config()
    sys.path.insert(0, str(config.config_path))
    os.environ['IN_TEST'] = '1'
    stored, skipped = nbformat.read(path, as_version=4), set(config.tst_flags.split())
    notebook, shell = NBProcessor(path, process=True).nb, CaptureShell(path)
    for name in {*shell.user_ns} - shell.user_ns_hidden.keys():  # a kernel begins with no names either
        if not name.startswith('_'):
            del shell.user_ns[name]
    compared = not OF_THE_MACHINE.search('\n'.join(cell.source for cell in stored.cells))
    pd.set_option('display.max_columns', 20)  # as in a kernel
    wrong = []
    with working_directory(path.parent):
        for old, cell in zip(stored.cells, notebook.cells, strict=True):
            directives = getattr(cell, 'directives_', None) or {}
            if cell.cell_type != 'code' or 'nbdev_export(' in cell.source or skipped & directives.keys() or (
                    directives.get('eval:', [''])[0].lower() == 'false'):
                continue
            cell.outputs = []
            shell.cell(cell)
            if shell.exc:
                sys.stderr.write(shell.prettytb(fname=path) + '\n')
                return 1
            now = nbformat.from_dict(cell.outputs)
            before, after = words(old.get('outputs', [])), words(now)
            if before != after and (store or compared):
                old.outputs = now
                lines = difflib.unified_diff(before.split(), after.split(), 'stored', 'now', n=2, lineterm='')
                wrong.append('\n'.join([f'{path}, cell {old.get("id")}: prints other words than it has stored; '
                                        f'tests/run_notebook.py {path.name} --store', *[*lines][:40]]))
    if wrong and store:
        nbformat.write(stored, path)
    sys.stderr.write('\n'.join(wrong))
    return STALE if wrong and not store else 0


if __name__ == '__main__':
    sys.exit(run(Path(sys.argv[1]).resolve(), '--store' in sys.argv))
