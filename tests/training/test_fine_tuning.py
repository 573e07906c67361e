"Pretrained encoders are frozen, released and given rates of their own; a learning rate is searched."
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
from tiny import same_state
from torch import nn

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.models.checkpoints import network_weights
from geoseg.models.crossview import CrossView
from geoseg.models.deeplab import FCN
from geoseg.models.unet import UNet
from geoseg.tasks.segmentation import SegmentationTask
from geoseg.training.callbacks import FreezeEncoder
from geoseg.training.find_lr import find_lr
from geoseg.training.run import whole_epochs

FROZEN = {'freeze_encoder_epochs': 1, 'freeze_batch_norm': True, 'trainer.limit_train_batches': 2.0 / 6,
          'every_n_epochs': 1, 'channels_last': True}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    'A run whose encoder learns from the second epoch on.'
    return tiny.train('unet', tmp_path_factory.mktemp('frozen'), epochs=3, **FROZEN)


def weights_after(run, epoch):
    return network_weights(torch.load(whole_epochs(run.folder)[epoch], weights_only=True), averaged=False)


def test_weights_have_their_channels_last_and_only_last_digits_change(run, tmp_path):
    usual = tiny.train('unet', tmp_path, epochs=1, **FROZEN | {'channels_last': False})
    last, plain = weights_after(run, 0), weights_after(usual, 0)
    order = {name: p.is_contiguous(memory_format=torch.channels_last) for name, p in last.items() if p.ndim == 4}
    assert order and all(order.values())
    assert not all(p.is_contiguous(memory_format=torch.channels_last) for p in plain.values() if p.ndim == 4)
    ours, theirs = (r.metrics.iloc[0][['Loss/train', 'Loss/val', 'mIoU/val']].astype(float) for r in (run, usual))
    assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), abs=1e-3)


def test_an_encoder_is_frozen_then_released(run):
    first, second, last = (weights_after(run, epoch) for epoch in (0, 1, 2))
    encoder = [name for name in first if name.startswith('net.encoder.')]
    norms = [name for name in encoder if name.endswith(('running_mean', 'running_var'))]
    learned = [name for name, p in UNet(3, **tiny.ENCODER).named_parameters() if name in encoder]
    assert norms and learned
    for name in norms:  # as they began
        assert torch.equal(last[name], torch.full_like(last[name], float(name.endswith('running_var'))))
    assert all(torch.equal(first[n], torch.ones_like(first[n])) for n in learned if n.endswith('bn1.weight'))
    assert not any(torch.equal(first[name], second[name]) for name in learned if 'conv' in name)
    decoder = [name for name in first if name.startswith('net.decoder.') and name.endswith('running_mean')]
    assert decoder and not any(torch.equal(first[name], torch.zeros_like(first[name])) for name in decoder)


def test_a_run_that_goes_on_across_the_release_ends_the_same(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / 'unet' / run.folder.name)
    whole = whole_epochs(folder)
    shutil.copy(whole[0], folder / 'checkpoints' / 'last.ckpt')
    for epoch in (1, 2):
        for path in (folder / 'checkpoints').glob(f'epoch00{epoch}*'):
            path.unlink()
    geoseg.train(resume=folder)
    same_state(run.last, folder / 'checkpoints' / 'last.ckpt')


def test_the_new_number_of_frozen_epochs_is_honoured(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / 'unet' / run.folder.name)
    geoseg.train(resume=folder, overrides={'epochs': 4, 'freeze_encoder_epochs': 4})
    again = geoseg.Run(folder)
    before, after = weights_after(run, 2), weights_after(again, 3)
    encoder = [name for name in before if name.startswith('net.encoder.')]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert not torch.equal(before['net.segmentation_head.0.weight'], after['net.segmentation_head.0.weight'])


def test_parts_that_a_network_has_frozen_itself_stay_so():
    network = UNet(3, **tiny.ENCODER)
    network.net.encoder.model.conv1.requires_grad_(False)
    freeze, module = FreezeEncoder(1, True), SimpleNamespace(network=network)
    freeze.on_fit_start(None, module)
    for epoch in (0, 1):
        freeze.on_train_epoch_start(SimpleNamespace(current_epoch=epoch), module)
        learning = {name for name, p in network.named_parameters() if p.requires_grad}
        assert any(name.startswith('net.encoder.') for name in learning) == bool(epoch)
        assert not any('encoder.model.conv1' in name for name in learning)
        for name, part in network.named_modules():
            norm = isinstance(part, nn.BatchNorm2d)
            assert part.training == (not name.startswith('net.encoder.') or bool(epoch) and not norm) or not name or (
                name == 'net.encoder')


def test_what_cannot_be_frozen_is_said():
    unet, view = UNet(3, **tiny.ENCODER), CrossView('resnet10t', image_size=None)
    view.log_scale.requires_grad_(False)
    for make, said in ((lambda: FreezeEncoder(-1), 'freeze_encoder_epochs is -1'),
                       (lambda: FreezeEncoder(1).check(nn.Linear(2, 2)), 'Linear does not say which'),
                       (lambda: FreezeEncoder(1).check(unet, 2), '2 processes'),
                       (lambda: FreezeEncoder(1).check(view), 'nothing would learn')):
        with pytest.raises(ConfigError, match=said):
            make()
    FreezeEncoder(0, True).check(view, 2)


@pytest.mark.parametrize('make', [lambda: UNet(3, **tiny.ENCODER), lambda: FCN(3, backbone='nano')])
def test_an_encoder_has_a_rate_and_a_decay_of_its_own(make):
    network = make()
    task = SegmentationTask(network, nn.CrossEntropyLoss(), rates={'encoder': 1e-4}, layer_decay=0.5)
    groups = task.groups(1e-2, 0.01)
    rate = {id(p): group['lr'] for group in groups for p in group['params']}
    inside = {rate[id(p)] for name, p in network.named_parameters() if name.startswith(network.encoder_parts)}
    outside = {rate[id(p)] for name, p in network.named_parameters() if not name.startswith(network.encoder_parts)}
    assert outside == {1e-2}
    assert len(inside) >= 4 and max(inside) == pytest.approx(1e-4)
    assert sorted(inside) == pytest.approx([max(inside) / 2**n for n in reversed(range(len(inside)))])


def test_a_learning_rate_is_searched(tmp_path):
    settings = {'data': tiny.DATA} | tiny.settings('unet')
    found = find_lr('unet', settings, steps=20, lr_min=1e-5, out=tmp_path / 'lr')
    table = pd.read_csv(tmp_path / 'lr' / 'lr.csv')
    assert table['loss'].iloc[0] > 0.7 * table['loss'].max()  # no rise that is none
    assert table['lr'].is_monotonic_increasing and table['lr'].iloc[0] == pytest.approx(1e-5)
    assert found.lr is None or found.lr in table['lr'].tolist()
    assert (tmp_path / 'lr' / 'lr.png').stat().st_size > 1000
    for wrong, said in (({'steps': 2}, 'steps is 2'), ({'lr_min': 0.0}, 'lr_min is 0'), ({'lr_max': 1e-9}, 'lr_max')):
        with pytest.raises(ConfigError, match=said):
            find_lr('unet', settings, out=tmp_path / 'none', **wrong)
    assert not (tmp_path / 'none').exists()
