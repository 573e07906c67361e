"""The scripts of the guide under a SLURM that runs on this machine: skipped where `sinfo` has no answer.

Two nodes may be one machine: a `slurmd -N NAME` for each, with a name space of its own for network and host name.

SLURM_SIGNALS=10 sends that many signals at random moments, drawn from SLURM_SEED, to a run of SLURM_EPOCHS."""
import functools
import os
import random
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import tiny

import geoseg
from geoseg import cli

GUIDE = Path(__file__).parents[2] / 'nbs/guides/cluster.ipynb'
SIGNALS, SEED = int(os.environ.get('SLURM_SIGNALS', 2)), int(os.environ.get('SLURM_SEED', 0))
EPOCHS = int(os.environ.get('SLURM_EPOCHS', 12 * SIGNALS))
LONG = {'epochs': EPOCHS, 'trainer.limit_train_batches': 4, 'trainer.limit_val_batches': 1, 'warmup_epochs': 0}


@functools.cache
def runs() -> bool:
    "Whether SLURM answers; where it is installed and does not run, `sinfo` waits for minutes."
    try:
        return subprocess.run(['sinfo'], capture_output=True, timeout=10).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


pytestmark = [pytest.mark.long, pytest.mark.skipif(not runs(), reason='no SLURM runs here')]


def ask(*words) -> str:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True).stdout


def script(begins: str, folder: Path, changes: dict[str, str]) -> Path:
    "A script of the guide, with another data set and without a GPU."
    text = '\n'.join(cell.source for cell in nbformat.read(GUIDE, as_version=4).cells)
    [found] = [block for block in re.findall(r'```sh\n(.*?)```', text, re.S) if begins in block]
    for old, new in (changes | {'--gpus=1 ': '', '--cpus-per-task=8 ': ''}).items():
        assert old in found or old.startswith('--'), old
        found = found.replace(old, new)
    found = found.replace('exec torchrun', f'exec {sys.executable} -m torch.distributed.run')
    for before in ('exec', '--no-python'):  # not a fork of the tests' server
        found = found.replace(f'{before} geoseg', f'{before} {sys.executable} -m geoseg.cli')
    (folder / 'job.sh').write_text(found)
    return folder / 'job.sh'


def facts(job: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)=(\S+)', ask('scontrol', 'show', 'job', job)))


def wait_for(job: str, *states: str, seconds: float = 600) -> dict[str, str]:
    end = time.monotonic() + seconds
    while (found := facts(job))['JobState'] not in states:
        assert time.monotonic() < end, found
        if found['JobState'] == 'PENDING' and found.get('Reason') == 'BeginTime':  # SLURM lets a job wait
            subprocess.run(['scontrol', 'update', f'JobId={job}', 'StartTime=now'], capture_output=True)
        time.sleep(0.5)
    return found


def submit(path: Path) -> str:
    return ask('sbatch', '--parsable', f'--chdir={path.parent}', path).strip()


def nodes() -> int:
    return len(ask('sinfo', '-h', '-N').split('\n')) - 1 if runs() else 0


def with_processes(devices: int, count: int) -> dict[str, str]:
    "Changes of the script for several nodes."
    return {'--gpus-per-node=4 ': '', '--cpus-per-task=32 ': '', '--nodes=2': f'--nodes={count}',
            '--nproc-per-node 4': f'--nproc-per-node {devices}', 'trainer.num_nodes=2': f'trainer.num_nodes={count}',
            'trainer.devices=4': f'trainer.devices={devices}'}


@pytest.mark.parametrize(('count', 'devices'), [(1, 0), (1, 2), pytest.param(2, 1, marks=pytest.mark.skipif(
    nodes() < 2, reason='SLURM has one node here'))])
@pytest.mark.parametrize('workers', [0, 2])
def test_signals_at_random_moments_cost_no_step(count, devices, workers, tmp_path):
    "devices: processes of a node that torchrun starts; 0: one, without torchrun."
    settings = tiny.settings('unet', **LONG | {'num_workers': workers})
    words = shlex.join(['patience=null', *tiny.words(settings)])
    settings |= {'patience': None}
    begins, changes = '--job-name=unet\n#SBATCH --ntasks=1', {'data=DATA': f'data={tiny.DATA} {words}'}
    if devices:
        begins, changes = '--nodes=2', changes | with_processes(devices, count)
        settings |= {'trainer.devices': 2, 'trainer.strategy': 'ddp_fork'}
    whole = geoseg.train('unet', tiny.DATA, out=tmp_path / 'whole', overrides=settings)
    moments, draw = [], random.Random(SEED)
    job = submit(script(begins, tmp_path, changes))
    output = tmp_path / f'unet-{job}.txt'
    for life in range(SIGNALS):
        assert wait_for(job, 'RUNNING', 'COMPLETED', 'FAILED')['JobState'] == 'RUNNING', (life, moments)
        begins = re.compile('^(?:train|resume) unet in', re.M)
        while not output.is_file() or len(begins.findall(output.read_text())) <= life:  # imports take long
            time.sleep(0.1)
            assert facts(job)['JobState'] == 'RUNNING', output.read_text()[-2000:]
        moments.append(round(draw.uniform(0, 3), 2))
        time.sleep(moments[-1])
        while (found := facts(job))['JobState'] == 'RUNNING' and int(found['Restarts']) == life:
            ask('scancel', '--signal=USR1', job)  # once more where its handler was not there yet
            time.sleep(5)
    assert wait_for(job, 'COMPLETED', 'FAILED', seconds=900)['JobState'] == 'COMPLETED'
    text = output.read_text()
    queued = text.count(f'geoseg fit: stopped by SIGUSR1; job {job} is queued again')
    steps = re.findall(r'epoch \d+, step (\d+)', text)
    print(f'{queued} times queued again; seconds after training began: {moments}; steps: {steps}')
    assert queued == SIGNALS == int(facts(job)['Restarts']), text[-2000:]
    [folder] = {path.parent for path in (tmp_path / 'runs').rglob('config.yaml')}
    other = 'summary.md' if devices else ''  # which names the devices; it is compared last
    assert tiny.difference(whole.folder, folder) == other


def test_an_array_is_a_sweep(tmp_path):
    tiny_settings = tiny.settings('unet', epochs=1, seed=None, lr=None, **{'trainer.limit_train_batches': 2})
    words = tiny.words(tiny_settings)
    job = submit(script('#SBATCH --array', tmp_path, {
        '--array=0-5': '--array=0-1', 'data=DATA': f'data={tiny.DATA} {shlex.join(words)}', 'seeds=3': 'seeds=1'}))
    for task in range(2):
        assert wait_for(f'{job}_{task}', 'COMPLETED', 'FAILED')['JobState'] == 'COMPLETED', [
            path.read_text()[-2000:] for path in tmp_path.glob('sweep-*')]
    assert cli.main(['sweep', '--recipe', 'unet', f'data={tiny.DATA}', f'out={tmp_path / "runs/sweep"}', 'seeds=1',
                     'grid={lr: [0.001, 0.0001]}', *words]) == 0  # collects, and runs nothing
    table = pd.read_csv(tmp_path / 'runs/sweep/sweep.csv')
    assert sorted(table['lr']) == [0.0001, 0.001] and len([*(tmp_path / 'runs/sweep').rglob('config.yaml')]) == 2
