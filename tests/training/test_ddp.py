"""Two processes on the CPU (gloo) evaluate exactly what one does, and train as one run."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from lightning.pytorch.utilities import rank_zero_only

import geoseg
from geoseg import cli
from geoseg.tasks.place import GeoSegmentationTask
from geoseg.tasks.segmentation import SegmentationTask
from geoseg.world.layouts import world_data

TINY = {'num_workers': 0, 'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 0,
        'image_size': [32, 32], 'crop': [32, 32], 'save_top_k': 0, 'ema': 0.9, 'trainer.accelerator': 'cpu',
        'trainer.enable_progress_bar': False}


def run_module(module, *arguments, folder):
    'Run a module with all the processes that it starts; none of them outlives the test.'
    environment = os.environ | {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen([sys.executable, '-m', module, *map(str, arguments)], cwd=folder, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def keep(folder: Path, n: int):
    'Leave only the first n files of a folder.'
    for path in sorted(folder.iterdir())[n:]:
        path.unlink()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    'The tiny world with 17 test and 5 validation images: at 4 a batch and process the second has one batch fewer.'
    folder = Path(shutil.copytree(world_data('folders', size='tiny'), tmp_path_factory.mktemp('data') / 'world'))
    for split, n in {'test': 17, 'val': 5, 'train': 16}.items():
        keep(folder / 'images' / split, n)
        keep(folder / 'masks' / split, n)
    return folder


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    return geoseg.train('unet', data, epochs=1, batch_size=4, out=tmp_path_factory.mktemp('one'), overrides=TINY)


def test_two_processes_evaluate_like_one(run, tmp_path):
    one = geoseg.evaluate(run.folder, out=tmp_path / 'one')
    assert len(one.names) == 17 and one.confusion.sum() == 17 * 32 * 32  # each pixel once
    status, out, err = run_module('geoseg.cli', 'test', '--checkpoint', run.folder, 'out=two', '--trainer.devices', 2,
                                  '--trainer.strategy', 'ddp', '--trainer.accelerator', 'cpu', folder=tmp_path)
    assert status == 0, err[-3000:]
    assert 'MEMBER: 2/2' in err  # there were two
    assert not re.search('sync_dist|deprecated|Warning', err), 'what concerns libraries alone'
    for name in ('confusion.csv', 'per_class.csv', 'per_image.csv'):
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes(), name
    a, b = (pd.read_csv(tmp_path / folder / 'metrics.csv') for folder in ('one', 'two'))
    assert a.drop(columns='loss').equals(b.drop(columns='loss'))
    assert float(a.loss[0]) == pytest.approx(float(b.loss[0]), rel=1e-5)  # its batches are others
    assert out.count('building') == 1 and out.count('mIoU') == 1, 'each process printed'


def test_torchrun_trains_one_run(data, tmp_path):
    settings = TINY | {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1, 'warmup_epochs': 9}
    status, out, err = run_module(
        'torch.distributed.run', '--standalone', '--nproc_per_node=2', '-m', 'geoseg.cli', 'fit', '--recipe', 'unet',
        f'data={data}', 'epochs=2', 'batch_size=2', *(f'{k}={v}' for k, v in settings.items()), 'out=runs',
        '--trainer.devices', 2, '--trainer.strategy', 'ddp', '--trainer.precision', 'bf16-mixed', folder=tmp_path)
    assert status == 0, err[-3000:]
    assert 'MEMBER: 2/2' in err
    assert not re.search('sync_dist|deprecated|Warning', err), 'what concerns libraries alone'
    assert err.count('warm-up of') == 1, 'each process told it'
    one_run(tmp_path / 'runs', epochs=2)
    folder, = (tmp_path / 'runs/unet').iterdir()
    assert out.split() == [str(folder.relative_to(tmp_path))], 'each process printed'
    assert 'precision: bf16-mixed' in (folder / 'config.yaml').read_text()


@pytest.mark.long
def test_two_nodes_train_as_two_processes_of_one(data, tmp_path):
    "As the guide has it, with a torchrun for each node."
    settings = TINY | {'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 1, 'seed': 3}
    one = geoseg.train('unet', data, epochs=2, batch_size=2, out=tmp_path / 'one', overrides=settings | {
        'trainer.devices': 2, 'trainer.strategy': 'ddp_fork'})
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    words = [sys.executable, '-m', 'torch.distributed.run', '--nnodes=2', '--nproc-per-node=1', '--rdzv-backend=c10d',
             f'--rdzv-endpoint=127.0.0.1:{port}', '--rdzv-id=7', '--no-python', 'geoseg', 'fit', '--recipe', 'unet',
             f'data={data}', 'epochs=2', 'batch_size=2', 'out=two', 'resume=auto', 'trainer.devices=1',
             'trainer.num_nodes=2', 'trainer.strategy=ddp', *(f'{k}={v}' for k, v in settings.items())]
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(2):
            nodes.append(subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                          text=True, env=os.environ | {'CUDA_VISIBLE_DEVICES': ''}))
            stack.callback(nodes[-1].kill)
        said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], [err[-2000:] for _, err in said]
    one_run(tmp_path / 'two', epochs=2)
    [folder] = (tmp_path / 'two/unet').iterdir()
    assert sorted(out for out, _ in said) == ['', f'{folder.relative_to(tmp_path)}\n'], 'each node printed'
    assert (folder / 'metrics.csv').read_bytes() == (one.folder / 'metrics.csv').read_bytes()
    for name in ('best', 'last'):
        tiny.same_state(*(run / 'checkpoints' / f'{name}.ckpt' for run in (one.folder, folder)))


def test_processes_stop_together_where_one_diverges(data, tmp_path, monkeypatch):
    training_step = SegmentationTask.training_step

    def diverging(self, batch, batch_idx):
        loss = training_step(self, batch, batch_idx)
        return loss * float('nan') if self.global_rank == 1 and batch_idx == 1 else loss

    monkeypatch.setattr(SegmentationTask, 'training_step', diverging)
    with pytest.raises(Exception, match='the loss is nan in batch 1 of epoch 0 .*no checkpoint was written before'):
        geoseg.train('unet', data, epochs=2, batch_size=4, out=tmp_path / 'runs', overrides=TINY | {
            'trainer.devices': 2, 'trainer.strategy': 'ddp_fork', 'trainer.limit_val_batches': 1})
    assert not list(tmp_path.rglob('*.ckpt'))


def one_run(out: Path, epochs: int):
    'There is one run, and it was logged once.'
    folder, = out.glob('*/*')
    assert [p.name for p in folder.glob('*.txt')] == ['log.txt']
    log = (folder / 'log.txt').read_text()
    for text in ('INFO train unet in', 'INFO done: ', *(f'INFO epoch {i}, ' for i in range(epochs))):
        assert log.count(text) == 1, log
    table = pd.read_csv(folder / 'metrics.csv')
    assert table.epoch.tolist() == list(range(epochs)) and table.notna().all(axis=None)
    assert len(list((folder / 'tensorboard').glob('events.*'))) == 1
    assert {p.name for p in (folder / 'checkpoints').iterdir()} == {'best.ckpt', 'last.ckpt'}


def test_an_epoch_sees_each_sample_once(data, tmp_path, monkeypatch):
    training_step = SegmentationTask.training_step

    def noted(self, batch, batch_idx):
        with (tmp_path / f'rank{self.global_rank}.csv').open('a') as file:
            file.writelines(f'{self.current_epoch},{batch_idx},{name}\n' for name in batch['name'])
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, 'training_step', noted)
    geoseg.train('unet', data, epochs=2, batch_size=4, out=tmp_path / 'runs', overrides=TINY | {
        'trainer.devices': 2, 'trainer.strategy': 'ddp_fork', 'trainer.limit_val_batches': 1})
    one_run(tmp_path / 'runs', epochs=2)
    parts = [pd.read_csv(tmp_path / f'rank{rank}.csv', names=['epoch', 'batch', 'name']) for rank in (0, 1)]
    samples = pd.concat(parts)
    names = {f'train/{p.stem}' for p in (data / 'images/train').iterdir()}
    for _, epoch in samples.groupby('epoch'):
        assert len(epoch) == 16 and set(epoch.name) == names
    assert (samples.groupby(['epoch', 'batch']).size() == 8).all()  # two processes of four
    orders = [part[part.epoch == epoch].name.tolist() for part in parts for epoch in (0, 1)]
    assert orders[0] != orders[1], 'every epoch has the same order'


@pytest.mark.parametrize('devices', [1, 2])
def test_scores_of_an_interrupted_epoch_are_those_of_all_processes(devices, data, tmp_path, monkeypatch):
    "On two processes, and where one goes on alone, which has the same samples in smaller batches."
    training_step = SegmentationTask.training_step
    two = {'trainer.devices': 2, 'trainer.strategy': 'ddp_fork'}
    settings = TINY | two | {'trainer.limit_val_batches': 1, 'every_n_steps': 3, 'seed': 3}
    whole = geoseg.train('unet', data, epochs=1, batch_size=2, out=tmp_path / 'whole', overrides=settings)

    def ends(self, batch, batch_idx):
        if batch_idx == 3:
            raise RuntimeError('the node has failed')
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(Exception, match='the node has failed'):
        patch.setattr(SegmentationTask, 'training_step', ends)
        geoseg.train('unet', data, epochs=1, batch_size=2, out=tmp_path / 'cut', overrides=settings)
    [folder] = (tmp_path / 'cut/unet').iterdir()
    settings = two if devices == 2 else {'trainer.devices': 1, 'trainer.strategy': 'auto', 'trainer.num_nodes': 1}
    run = geoseg.train(resume=folder, overrides=settings)
    one, two = (each.metrics[['Loss/train', 'Accuracy/train', 'F1/train']] for each in (whole, run))
    if devices == 2:
        assert one.equals(two)
    assert one.to_numpy() == pytest.approx(two.to_numpy(), rel=0.05)


@pytest.mark.parametrize('freshness', ['refresh', 'rewrite'])
def test_two_processes_train_with_one_memory(tmp_path, monkeypatch, freshness):
    ended = GeoSegmentationTask.on_train_epoch_end

    def noted(self):
        torch.save(self.memory.state(), tmp_path / f'{self.global_rank}.pt')
        ended(self)

    monkeypatch.setattr(GeoSegmentationTask, 'on_train_epoch_end', noted)
    run = geoseg.train('geosegformer', 'world:raster:tiny', epochs=2, batch_size=4, out=tmp_path / 'runs', overrides={
        'feature_dim': 16, 'chip': 64, 'scales': [8., 64.], 'chips_per_epoch': 18, 'memory_size': 8, 'memory_dim': 8,
        'memory_warmup_epochs': 1, 'freshness': freshness, 'trainer.devices': 2, 'trainer.strategy': 'ddp_fork',
        'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False})
    one, two = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    assert len(one['keys']) > 1000 and all(torch.equal(one[name], two[name]) for name in one)
    assert run.metrics['Recalled/val'].iloc[-1] > 0.5


def two_processes(words: list[str], folder: Path) -> list[int]:
    'The numbers of two processes that a launcher would have started with the same words, forked for speed.'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        known = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': '2',
                 'NODE_RANK': '0', 'CUDA_VISIBLE_DEVICES': ''}
    children = []
    for rank in (0, 1):
        children.append(os.fork())
        if children[-1] == 0:
            status = 99
            try:
                os.environ.update(known, LOCAL_RANK=str(rank))
                rank_zero_only.rank = rank  # read when it was imported
                sys.stdout = sys.stderr = (folder / f'said{rank}.txt').open('w', buffering=1)
                torch.set_num_threads(1)
                status = cli.main(words)
            finally:
                os._exit(status)
    return children


def codes(children: list[int], seconds: float = 60) -> list[int | None]:
    'How processes ended; None and a kill where they did not in time.'
    ended, end = {}, time.monotonic() + seconds
    while len(ended) < len(children) and time.monotonic() < end:
        for child in set(children) - set(ended):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    for child in set(children) - set(ended):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return [ended.get(child) for child in children]


@pytest.mark.long
@pytest.mark.parametrize(('ranks', 'number'), [((0, 1), signal.SIGTERM), ((1,), signal.SIGUSR1)])
def test_two_processes_stop_after_the_same_step_and_go_on(ranks, number, data, tmp_path, scontrol):
    "A signal may come to one of them alone; the first asks SLURM to queue the job again, which ends the others."
    if number == signal.SIGUSR1:
        asked = scontrol('sleep 2; kill $(cat "$0.pid")')
    settings = TINY | {'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 1, 'trainer.devices': 2,
                       'trainer.strategy': 'ddp', 'patience': 'null', 'draw_every_n_epochs': 0}
    words = [f'data={data}', 'batch_size=2', f'out={tmp_path / "runs"}', *(f'{k}={v}' for k, v in settings.items())]
    children = two_processes(['fit', '--recipe', 'unet', 'epochs=400', *words], tmp_path)
    for _ in range(1200):
        if [*tmp_path.rglob('last.ckpt')]:
            break
        time.sleep(0.05)
    if number == signal.SIGUSR1:
        asked.with_suffix('.pid').write_text(f'{children[1]}')
    for rank in ranks:
        os.kill(children[rank], number)
    assert codes(children) == [128 + number, 143], [
        (tmp_path / f'said{rank}.txt').read_text()[-2000:] for rank in (0, 1)]
    [folder] = (path.parent for path in tmp_path.rglob('config.yaml'))
    said = (tmp_path / 'said0.txt').read_text()
    if number == signal.SIGUSR1:
        assert 'stopped by SIGUSR1; job 7 is queued again' in said
        assert asked.read_text() == 'requeue 7\n'
    else:
        assert f'stopped by SIGTERM; to go on: geoseg fit resume={folder}' in said
    assert 'Traceback' not in said
    assert not [*folder.rglob('.*')]
    before, done = torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True), geoseg.Run(folder).metrics
    assert before['global_step'] - done['step'].iloc[-1] in (0, 1, 2)
    children = two_processes(['fit', f'resume={folder}', f'epochs={len(done) + 1}'], tmp_path)
    assert codes(children) == [0, 0], [(tmp_path / f'said{rank}.txt').read_text()[-2000:] for rank in (0, 1)]
    table = geoseg.Run(folder).metrics
    assert table.iloc[:-1].equals(done) and table['step'].tolist() == [2 * (i + 1) for i in range(len(done) + 1)]
