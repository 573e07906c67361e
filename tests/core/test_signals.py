"SIGTERM and Ctrl-C: the exit code, the line to go on, and nothing left behind."
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import tiny
import torch

import geoseg
from geoseg import cli
from geoseg.core.locks import DRAFT
from geoseg.core.signals import EXIT_CODES

LONG = {'epochs': 1, 'batch_size': 1, 'every_n_steps': 3, 'trainer.limit_val_batches': 1, 'patience': None,
        'warmup_epochs': 0}


def hear_ctrl_c():
    "What a shell starts in the background ignores Ctrl-C, as do its children."
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def heard():
    before = signal.getsignal(signal.SIGINT)
    hear_ctrl_c()
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
@pytest.mark.parametrize(('number', 'workers', 'group'), [
    (signal.SIGTERM, 0, False), (signal.SIGINT, 2, True), (signal.SIGUSR1, 2, True), (signal.SIGTERM, 2, True)])
def test_a_run_ends_after_its_step_and_goes_on(number, workers, group, tmp_path, capsys, request):
    "Also where all processes get the signal, data workers too, as from a terminal or SLURM."
    words = ['fit', '--recipe', 'unet', f'data={tiny.DATA}', f'out={tmp_path / "runs"}', 'patience=null',
             *tiny.words(tiny.settings('unet', **LONG, num_workers=workers))]
    temporary = Path(tempfile.mkdtemp())  # short: sockets of data workers lie in it
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    run = subprocess.Popen([sys.executable, '-m', 'geoseg.cli', *words], stderr=subprocess.PIPE, text=True,
                           start_new_session=True, env=os.environ | {'TMPDIR': str(temporary)},
                           preexec_fn=hear_ctrl_c)
    for _ in range(4500):  # of 0.02 s
        if [*tmp_path.rglob('last.ckpt')] or run.poll() is not None:
            break
        time.sleep(0.02)
    (os.killpg if group else os.kill)(run.pid, number)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == EXIT_CODES[number] == 128 + number, said
    lines = [line for line in said.splitlines() if line.startswith('geoseg ')]
    assert 'Traceback' not in said and len(lines) == 1
    folder = Path(re.search(r'stopped by .*; to go on: geoseg fit resume=(\S+)$', lines[0])[1])
    left = [path.name for path in folder.rglob('*') if path.name.startswith((DRAFT, '.lock', '.new'))]
    assert left == [] and not [path for path in temporary.rglob('*') if path.is_file()]
    assert torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True)['global_step'] > 3
    assert cli.main(['fit', f'resume={folder}', 'num_workers=0']) == 0, capsys.readouterr().err
    assert len(geoseg.Run(folder).metrics) == 1


def test_other_verbs_end_at_once(trained, tmp_path, capsys, monkeypatch):
    from geoseg.inference import pictures
    for number, error in (signal.SIGTERM, 'SIGTERM'), (signal.SIGINT, 'Ctrl-C'):
        monkeypatch.setattr(pictures, 'png', lambda pixels, n=number: os.kill(os.getpid(), n) or time.sleep(9))
        status = cli.main(['predict', '--checkpoint', str(trained), f'out={tmp_path / "out"}'])
        line = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
        assert (status, line) == (128 + number, [f'geoseg predict: stopped by {error}'])
        assert not [*(tmp_path / 'out').glob('.*')]


def test_a_scheduler_may_choose_another_code(monkeypatch, trained, tmp_path):
    from geoseg.inference import pictures
    monkeypatch.setitem(EXIT_CODES, signal.SIGTERM, 75)
    monkeypatch.setattr(pictures, 'png', lambda pixels: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9))
    assert cli.main(['predict', '--checkpoint', str(trained), f'out={tmp_path / "out"}']) == 75


def test_an_error_of_a_data_worker_is_one_line(capsys, monkeypatch):
    message = '''Caught OSError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "a.py", line 1, in read
OSError: photos/a.jpg: cannot be read: truncated
'''
    assert cli.of_worker(message).strip() == 'photos/a.jpg: cannot be read: truncated'
    assert cli.of_worker('photos: two: colons') == 'photos: two: colons'

    def killed(words):
        raise RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed. ')

    monkeypatch.setitem(cli.VERBS, 'fit', dataclasses.replace(cli.VERBS['fit'], run=killed))
    assert cli.main(['fit', '--recipe', 'unet']) == 2
    assert capsys.readouterr().err == 'geoseg fit: DataLoader worker (pid 12) is killed by signal: Killed.\n'
