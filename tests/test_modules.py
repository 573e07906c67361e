"Every notebook that defines a module, and every guide, runs from top to bottom."
from pathlib import Path

import pytest
import warm
from warm import NBS

APART = {'train', 'evaluate', 'predict', 'localize', 'sweep', 'benchmarks', 'index'}  # see test_notebooks.py
HERE = sorted(path.relative_to(NBS).as_posix() for path in NBS.rglob('*.ipynb') if not any(
    part.startswith(('_', '.')) or part == 'tutorials' for part in path.relative_to(NBS).parts))
LONG = {'data/world.ipynb', 'guides/troubleshooting.ipynb', 'guides/add_dataset.ipynb', 'training/runs.ipynb',
        'training/sweep.ipynb', 'evaluation/calibration.ipynb', 'inference/postprocess.ipynb'}


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
