"The refiner in training: the published table, resuming, options; and it learns."
import os

import pandas as pd
import pytest
import tiny
import torch

import geoseg
from geoseg.models.refiner import TRMSeg
from geoseg.tasks.refinement import RefinerTask, stop_labels

SMALL = tiny.settings('deepglobe-trm', val_share=None, ema=None, latent=None, lr=None, epochs=None, seed=None)
SMALL |= {'every_n_epochs': 0}
pytestmark = pytest.mark.usefixtures('cache')


@pytest.fixture
def run(tiny_run):
    return geoseg.Run(tiny_run('deepglobe-trm'))


def test_a_run_leaves_the_published_table(run):
    log = pd.read_csv(run.folder / 'train_log.csv')
    assert log.columns.tolist() == ['epoch', 'lr', 'train_loss', 'val_loss', 'val_miou', 'val_avg_steps', 'val_bf1']
    assert len(log) == 2 and log.notna().all(axis=None)
    assert log['val_bf1'].tolist() == run.metrics['Boundary F1/val'].tolist()
    assert len(list((run.folder / 'checkpoints').glob('epoch*.ckpt'))) == 2  # save_every 1


def test_a_killed_run_goes_on_to_the_last_bit(run, tmp_path):
    "Its newest checkpoint is that of the first epoch."
    first = tiny.train('deepglobe-trm', tmp_path)
    for path in (first.folder / 'checkpoints').glob('epoch001*'):
        path.unlink()
    begun = next((first.folder / 'checkpoints').glob('epoch000*'))
    os.replace(begun, first.last)
    geoseg.train(resume=first.folder)
    ours, theirs = (torch.load(r.last, weights_only=True) for r in (first, run))
    assert all(torch.equal(x, theirs['state_dict'][n]) for n, x in ours['state_dict'].items())
    for name in ('metrics.csv', 'train_log.csv', 'per_class.csv'):
        assert (first.folder / name).read_bytes() == (run.folder / name).read_bytes()


@pytest.mark.parametrize('options', [{'act': False}, {'pixel_act': True}, {'no_grad_steps': 3}, {'t_min': 6}])
def test_options_train(options, tmp_path):
    run = geoseg.train('deepglobe-trm', 'world:tiny', epochs=1, out=tmp_path,
                       overrides=SMALL | options | {'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 2})
    assert run.metrics.notna().all(axis=None)
    if 'act' in options or 't_min' in options:
        assert run.metrics['Steps/val'].tolist() == [6]


def test_it_learns(tmp_path):
    "Four tiles of stripes, each of two classes, until they are known by heart; and then the head says stop."
    torch.manual_seed(0)
    image, mask = torch.rand(4, 3, 32, 32) * 0.2, torch.zeros(4, 32, 32, dtype=torch.int64)
    mask[:, :, 16:] = torch.arange(1, 5)[:, None, None] % 3
    image[:, 0] += mask / 2
    task = RefinerTask(TRMSeg(3, width=16, t_max=4), torch.nn.CrossEntropyLoss(ignore_index=255))
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task.compute_loss(task({'image': image}), {'mask': mask}).backward()
        optimizer.step()
    with torch.no_grad():
        output = task.network.eval()(image)
    assert (output['logits'].argmax(1) == mask).float().mean() > 0.95
    assert output['steps'].tolist() == [2, 2, 2, 2]


def test_stop_labels_against_a_loop():
    scores = torch.rand(6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    by_loop = [[float(max(s[t + 1:]) - s[t] <= 0.002) for t in range(5)] for s in scores.T.tolist()]
    assert stop_labels(scores).T.tolist() == by_loop
