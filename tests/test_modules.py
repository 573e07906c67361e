"Every notebook that defines a module, and every guide, runs from top to bottom."
from pathlib import Path

import nbformat
import pytest
import warm
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from run_notebook import STALE
from warm import NBS

APART = {'train', 'evaluate', 'predict', 'localize', 'changes', 'sweep', 'benchmarks', 'index'}  # see test_notebooks.py
HERE = sorted(path.relative_to(NBS).as_posix() for path in NBS.rglob('*.ipynb') if not any(
    part.startswith(('_', '.')) or part == 'tutorials' for part in path.relative_to(NBS).parts))
# fifteen seconds of a core and more
LONG = {'world/layouts.ipynb', 'guides/troubleshooting.ipynb', 'inference/rasters/changes.ipynb',
        'guides/use_it_elsewhere.ipynb', 'models/outdated.ipynb', 'training/train.ipynb', 'training/resume.ipynb',
        'inference/rasters/outdated.ipynb', 'evaluation/inspection.ipynb', 'inference/postprocess.ipynb',
        'models/unmapped.ipynb'}


@pytest.mark.parametrize('notebook', [pytest.param(name, marks=[pytest.mark.long] * (name in LONG))
                                      for name in HERE if name.removesuffix('.ipynb') not in APART])
def test_a_notebook_runs_from_top_to_bottom(notebook):
    done = warm.run(Path(__file__).with_name('run_notebook.py'), NBS / notebook, cwd=NBS)
    assert done.returncode == 0, done.stderr[-5000:]


def test_a_notebook_that_fails_is_told(tmp_path):
    (tmp_path / 'wrong.ipynb').write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"id": "a", '
                                          '"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": null,'
                                          ' "source": ["assert 1 == 2, \\"one is two\\""]}]}')
    done = warm.run(Path(__file__).with_name('run_notebook.py'), tmp_path / 'wrong.ipynb', cwd=NBS)
    assert done.returncode == 1 and 'one is two' in done.stderr


def test_a_notebook_begins_with_no_names(tmp_path):
    cells = [new_code_cell('quick = True'), new_code_cell('from geoseg.core.notebooks import check_parameters'),
             new_code_cell("check_parameters(globals(), ['quick'])")]
    nbformat.write(new_notebook(cells=cells), tmp_path / 'x.ipynb')
    done = warm.run(Path(__file__).with_name('run_notebook.py'), tmp_path / 'x.ipynb', cwd=NBS)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('stored, told', [('a of 7 in 0.3 s', ''), ('b of 7 in 0.3 s', "-b\n+a"), ('', '+a')])
def test_stored_words_are_those_that_are_printed_now(tmp_path, stored, told):
    "Numbers and paths are of a machine; words are not."
    output = new_output('stream', name='stdout', text=stored)
    cells = [new_markdown_cell('# A'), new_code_cell("print('a of 8 in 0.2 s')", outputs=[output] if stored else [])]
    nbformat.write(new_notebook(cells=cells), tmp_path / 'x.ipynb')
    script = Path(__file__).with_name('run_notebook.py')
    done = warm.run(script, tmp_path / 'x.ipynb', cwd=NBS)
    assert done.returncode == (STALE if told else 0) and told in done.stderr, done.stderr
    if told:
        assert warm.run(script, tmp_path / 'x.ipynb', '--store', cwd=NBS).returncode == 0
        assert warm.run(script, tmp_path / 'x.ipynb', cwd=NBS).returncode == 0
