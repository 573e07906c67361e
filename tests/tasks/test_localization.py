"Cross-view training: two processes as one, runs that go on, weights of a file."
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
import torch.multiprocessing as mp
from torch.nn import functional as F

from geoseg.cli import main
from geoseg.tasks.contrastive import WeightedInfoNCE
from geoseg.tasks.localization import LocalizationTask
from geoseg.training.run import Run
from geoseg.training.train import train
from geoseg.world.layouts import world_data

TINY = tiny.settings('game4loc-same-area', every_n_epochs=None)


@pytest.fixture(scope='module')
def root():
    return world_data('gta', size='tiny')


def one_process(rank, port, query, gallery, weight, out):
    'Loss and gradients of this process\'s half of a batch.'
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    half = slice(3 * rank, 3 * rank + 3)
    leaves = [t[half].clone().requires_grad_() for t in (query, gallery)]
    scale = torch.tensor(9., dtype=torch.float64, requires_grad=True)
    loss = WeightedInfoNCE()(*leaves, scale, weight[half])
    loss.backward()
    torch.save((loss.detach(), [t.grad for t in leaves], scale.grad), f'{out}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path):
    torch.manual_seed(0)
    query, gallery = (F.normalize(torch.randn(6, 4, dtype=torch.float64)) for _ in range(2))
    weight = torch.rand(6, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (query, gallery)]
    scale = torch.tensor(9., dtype=torch.float64, requires_grad=True)
    loss = WeightedInfoNCE()(*leaves, scale, weight)
    loss.backward()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.start_processes(one_process, (port, query, gallery, weight, tmp_path), 2, start_method='fork')
    parts = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    for value, _, of_scale in parts:
        torch.testing.assert_close(value, loss.detach())
        torch.testing.assert_close(of_scale, scale.grad)
    for i, leaf in enumerate(leaves):  # DDP averages over the processes: each has twice its share
        torch.testing.assert_close(torch.cat([p[1][i] for p in parts]) / 2, leaf.grad)


def test_two_processes_train_like_one(tmp_path, monkeypatch):
    step = LocalizationTask.training_step

    def noted(self, batch, batch_idx):
        with (tmp_path / f'{self.trainer.world_size}-{self.global_rank}.csv').open('a') as file:
            file.writelines(f'{batch_idx},{int(a)},{int(b)}\n' for a, b in zip(batch['query_id'], batch['gallery_id'],
                                                                             strict=True))
        return step(self, batch, batch_idx)

    def keep(self, optimizer):
        if self.global_step == 0:
            torch.save([p.grad for p in self.network.parameters()],
                       tmp_path / f'{self.trainer.world_size}-{self.global_rank}.pt')

    monkeypatch.setattr(LocalizationTask, 'training_step', noted)
    monkeypatch.setattr(LocalizationTask, 'on_before_optimizer_step', keep)
    settings = TINY | {'model.init_args.optimizer.class_path': 'torch.optim.SGD', 'lr': 0.1, 'epochs': 1,
                       'trainer.limit_train_batches': 5, 'num_sanity_val_steps': 0, 'val_share': 0.3}
    one, two = (train('game4loc-same-area', 'world:tiny', out=tmp_path / 'runs',
                      overrides=settings | {'batch_size': 4 // n, 'trainer.devices': n,
                                            'trainer.strategy': 'ddp_fork' if n > 1 else 'auto'})
                for n in (1, 2))
    tables = {key: pd.read_csv(tmp_path / f'{key}.csv', names=['batch', 'photo', 'tile'])
              for key in ('1-0', '2-0', '2-1')}
    assert tables['2-0'].groupby('batch').size().tolist() == tables['2-1'].groupby('batch').size().tolist() == [2] * 5
    whole = pd.concat([tables['2-0'], tables['2-1']])
    order = ['batch', 'photo', 'tile']
    assert whole.sort_values(order).values.tolist() == tables['1-0'].sort_values(order).values.tolist()
    matches = one.data().pairs['train'].matches
    known = set(zip(matches.photo, matches.tile, strict=True))
    for _, batch in whole.groupby('batch'):  # of both processes
        matched = [(a, b) in known for a in batch.photo for b in batch.tile]
        assert sum(matched) == len(batch) == 4
    alone, first, second = (torch.load(tmp_path / f'{key}.pt') for key in ('1-0', '2-0', '2-1'))
    for a, b, c in zip(alone, first, second, strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    ours, theirs = (torch.load(r.last, weights_only=True)['state_dict'] for r in (two, one))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)
    columns = [name for name in one.metrics if name.endswith('/val')]
    pd.testing.assert_frame_equal(two.metrics[columns], one.metrics[columns], rtol=1e-4)
    assert max(g.abs().max() for g in alone) > 1e-2


@pytest.fixture
def run(tiny_run):
    return Run(tiny_run('game4loc-same-area'))


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / 'run')
    first = next((folder / 'checkpoints').glob('epoch000-*'))
    again = train(resume=str(first))
    ours, theirs = (torch.load(r.last, weights_only=True)['state_dict'] for r in (again, run))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (again.folder / 'metrics.csv').read_bytes() == (run.folder / 'metrics.csv').read_bytes()


def test_a_run_starts_from_the_weights_of_a_file(run, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained = torch.load(run.best, weights_only=True)['state_dict']
    names = {name: name.replace('network.encoder.', 'model.').replace('network.log_scale', 'logit_scale')
             for name in trained}
    torch.save({names[name]: value for name, value in trained.items()}, 'weights_e2_0.5000.pth')
    known = run.metrics.set_index('epoch').loc[run.best_epoch].filter(like='/val')
    given = {'augment.mean': [0.485, 0.456, 0.406], 'augment.std': [0.229, 0.224, 0.225]}  # a checkpoint says so itself
    for path, normalisation in ('weights_e2_0.5000.pth', given), (str(run.best), {}):
        again = train('game4loc-same-area', 'world:tiny', lr=1e-30, out='runs',
                      overrides=TINY | normalisation | {
                          'epochs': 1, 'checkpoint_start': path, 'pretrained': True})  # downloads nothing
        weights = torch.load(again.last, weights_only=True)['state_dict']
        assert all(torch.equal(weights[name], value) for name, value in trained.items())
        before = again.metrics.set_index('epoch').loc[-1].filter(like='/val')
        pd.testing.assert_series_equal(before, known[before.index], check_names=False, rtol=1e-5)
        assert again.config['run']['checkpoint_start'] == path
    shutil.rmtree('runs')
    torch.save({'best': 0.5}, 'words.pth')
    command = ['fit', '--recipe', 'game4loc-same-area', 'data=world:tiny',
               *(word for word in tiny.words(TINY) if not word.startswith('options='))]
    options, wide = (json.dumps(TINY['options'] | more) for more in ({}, {'embed_dim': 32}))
    for words, said in (
            ([f'options={options}', 'checkpoint_start=absent.pth'], 'absent.pth: no such checkpoint'),
            ([f'options={options}', 'checkpoint_start=words.pth'],
             'words.pth: neither a checkpoint of geoseg nor a state_dict'),
            (['checkpoint_start=weights_e2_0.5000.pth', f'options={wide}'],
             r'weights_e2_0.5000.pth: .* \(1, 1, 24\) in the file, \(1, 1, 32\) in'),
            ([f'resume={run.folder}', 'checkpoint_start=words.pth'], 'checkpoint_start is for new runs')):
        assert main([*command, *words]) == 2
        assert re.search(said, capsys.readouterr().err), words
    assert not Path('runs').exists()
