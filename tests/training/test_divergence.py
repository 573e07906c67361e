"A run stops at a loss that is not finite and keeps what is good; what only looks like one goes on."
import logging
import re

import numpy as np
import pytest
import tiny
import torch

import geoseg
from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.data.loading import LAYOUTS, SegmentationData
from geoseg.tasks.segmentation import SegmentationTask
from geoseg.training.divergence import Diverged, StopAtDivergence
from geoseg.training.recipes import recipe_path, recipes
from geoseg.training.run import Run

SEGMENTATION = [recipe for recipe in recipes() if not recipe.startswith('game4loc')]


def blind(monkeypatch, split: str, masks: bool):
    "Every sample of a split is ignored; `masks`: also to those who look at the masks alone."
    setup = SegmentationData.setup

    def blinded(self, stage=None):
        fresh = not self.datasets
        setup(self, stage)
        if fresh:
            dataset, ignored = self.datasets[split], self.scheme.ignore_index
            once = type(self).once

            class Blind(type(dataset)):
                def __getitem__(self, key):
                    sample = super().__getitem__(key)
                    name = 'mask' if 'mask' in sample else 'labels'
                    return sample | {name: torch.full_like(torch.as_tensor(sample[name]), ignored)}

            if masks and hasattr(dataset, 'mask'):
                Blind.mask = lambda self, i: np.full((2, 2), ignored, np.uint8)
            dataset.__class__ = Blind
            if not masks:
                some = [{'mask': np.zeros(1), 'labels': np.zeros(1)}]
                self.once = lambda name: once(self, name) if name != split else some
    monkeypatch.setattr(SegmentationData, 'setup', blinded)


@pytest.mark.parametrize('recipe', recipes())
def test_a_loss_that_is_not_finite_stops_every_recipe(recipe, tmp_path, capsys):
    rate = 'max_lr' if 'max_lr' in recipe_path(recipe).read_text() else 'lr'
    given = tiny.settings(recipe, warmup_epochs=None) | {rate: 1e30, 'data': tiny.DATA, 'out': tmp_path}
    status = cli.main(['fit', '--recipe', recipe, *tiny.words(given)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg fit:')]
    assert status == 2 and len(lines) == 1
    what = r'the loss is (nan|-?inf) in batch \d+ of epoch \d+ \(samples \S+|the weights are not finite after step'
    assert re.search(what, lines[0])
    [folder] = (path.parent for path in tmp_path.rglob('config.yaml'))
    for path in (folder / 'checkpoints').glob('*'):  # nothing, or what was written before
        weights = torch.load(path, weights_only=True)['state_dict'].values()
        assert all(value.isfinite().all() for value in weights if value.is_floating_point()), path
    assert 'stopped: Diverged' in (folder / 'log.txt').read_text()


def test_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    seen = []

    def poison(self, trainer, pl_module, outputs, batch, batch_idx, own=StopAtDivergence.on_train_batch_end):
        if trainer.current_epoch == 1 and batch_idx == 1:
            seen.extend(batch['name'])
            outputs = outputs | {'loss': outputs['loss'] * float('inf')}
        own(self, trainer, pl_module, outputs, batch, batch_idx)
    monkeypatch.setattr(StopAtDivergence, 'on_train_batch_end', poison)
    with pytest.raises(Diverged, match='the loss is inf in batch 1 of epoch 1') as error:
        tiny.train('unet', tmp_path, epochs=3)
    [folder] = (path.parent for path in tmp_path.rglob('config.yaml'))
    run = Run(folder)
    assert all(name in str(error.value) for name in seen) and str(run.last) in str(error.value)
    assert torch.load(run.last, weights_only=True)['epoch'] == 0 and run.best.is_file()
    monkeypatch.undo()
    assert geoseg.train('unet', resume=folder).metrics['epoch'].tolist() == [0, 1, 2]  # it can go on from there


@pytest.mark.parametrize('looked', [True, False])
def test_a_validation_loss_that_is_not_finite_stops(looked, tmp_path, monkeypatch):
    own = SegmentationTask.validation_step

    def poison(self, batch, batch_idx):
        answer = own(self, batch, batch_idx)
        if self.current_epoch == 1:
            self.eval_sums[0] += float('inf')
        return answer
    monkeypatch.setattr(SegmentationTask, 'validation_step', poison)
    if not looked:  # as on a GPU, which is asked at the end
        monkeypatch.setattr(StopAtDivergence, 'on_validation_batch_end', lambda *args: None)
    place = r' in batch 0 of epoch 1 \(samples ' if looked else ' of epoch 1'
    with pytest.raises(Diverged, match=f'the validation loss is not finite{place}.*the last good checkpoint is'):
        tiny.train('unet', tmp_path, epochs=3)
    [last] = tmp_path.rglob('last.ckpt')
    assert torch.load(last, weights_only=True)['epoch'] == 0


@pytest.mark.parametrize('every', [1, 3, 50])
def test_nothing_bad_is_saved_where_losses_are_looked_at_later(every, tmp_path, monkeypatch):
    "As on a GPU, which is asked once in many batches, and before each checkpoint."
    monkeypatch.setattr(StopAtDivergence, 'every', every)
    own = StopAtDivergence.on_train_batch_end

    def later(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            outputs = {'loss': outputs['loss'] * float('nan')}
        with monkeypatch.context() as patch:
            patch.setattr(type(trainer), 'world_size', 2)
            look, self.look = self.look, lambda *a, **k: None  # what one process has to do
            own(self, trainer, pl_module, outputs, batch, batch_idx)
            self.look = look
        if len(self.recent) >= every:
            self.look(trainer, pl_module)
    monkeypatch.setattr(StopAtDivergence, 'on_train_batch_end', later)
    with pytest.raises(Diverged, match='the loss is nan in batch 1 of epoch 0'):
        tiny.train('unet', tmp_path, epochs=1, every_n_steps=2, batch_size=4)
    assert not list(tmp_path.rglob('*.ckpt'))


def test_weights_that_overflow_are_not_saved(tmp_path):
    with pytest.raises(Diverged, match='the weights are not finite after step 1, though each loss was'):
        tiny.train('unet', tmp_path, lr=1e38, warmup_epochs=None, **{'trainer.limit_train_batches': 1})
    assert not list(tmp_path.rglob('*.ckpt'))


@pytest.mark.parametrize('recipe', SEGMENTATION)
def test_batches_without_a_label_are_counted_and_teach_nothing(recipe, tmp_path, monkeypatch, caplog):
    blind(monkeypatch, 'train', masks=False)
    gradients = []

    def after(self, trainer, pl_module, outputs, batch, batch_idx, own=StopAtDivergence.on_train_batch_end):
        gradients.extend(p.grad.abs().max() for p in pl_module.parameters() if p.grad is not None)
        own(self, trainer, pl_module, outputs, batch, batch_idx)
    monkeypatch.setattr(StopAtDivergence, 'on_train_batch_end', after)
    with caplog.at_level(logging.INFO, 'geoseg'):
        run = tiny.train(recipe, tmp_path, epochs=1, **{'trainer.limit_train_batches': 2,
                                                        'trainer.limit_val_batches': 1})
    assert gradients and max(gradients) == 0
    assert run.metrics['Loss/train'].isna().all()  # an absent score is none, not 0
    assert 'epoch 0: 2 of 2 batches had no label, and no gradient' in caplog.text


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('recipe', SEGMENTATION)
def test_a_set_without_a_label_is_refused_before_the_first_step(recipe, split, tmp_path, monkeypatch):
    blind(monkeypatch, split, masks=True)
    for module in LAYOUTS.values():
        if issubclass(module, SegmentationData):
            def once(self, name, own=module.once):
                return self.datasets[name] if name in self.datasets else own(self, name)
            monkeypatch.setattr(module, 'once', once)
    with pytest.raises(ConfigError, match=rf'the {split} set has \d+ samples and no label'):
        tiny.train(recipe, tmp_path)
    assert not list(tmp_path.rglob('*'))


@pytest.mark.parametrize('recipe', recipes())
def test_an_empty_validation_set_is_refused_and_none_at_all_is_allowed(recipe, tmp_path, monkeypatch, caplog):
    def changed(change):
        for module in set(LAYOUTS.values()):
            def setup(self, stage=None, own=module.setup):
                own(self, stage)
                change(self.datasets)
            monkeypatch.setattr(module, 'setup', setup)

    with monkeypatch.context() as patch:
        changed(lambda datasets: datasets.update({name: [] for name in datasets if name.startswith('val')}))
        with pytest.raises(ConfigError, match='the val set is empty'):
            tiny.train(recipe, tmp_path)
        assert not list(tmp_path.rglob('*'))
        patch.undo()
    changed(lambda datasets: [datasets.pop(name) for name in list(datasets) if name.startswith('val')])
    with caplog.at_level(logging.INFO, 'geoseg'):
        run = tiny.train(recipe, tmp_path, epochs=2, **{'trainer.limit_train_batches': 1, 'run.patience': 1})
    assert 'no validation: the newest checkpoint is the best' in caplog.text
    assert run.best_epoch == 1 and not any(name.endswith('/val') for name in run.metrics)


@pytest.mark.parametrize('recipe', ['unet', 'wildscenes-deeplabv3'])
def test_a_batch_of_one_is_refused_before_work(tmp_path, recipe):
    given = tiny.settings(recipe, batch_size=1, image_size=[32, 32])
    given |= {'crop': [32, 32]} if recipe == 'unet' else {}
    with pytest.raises(ConfigError, match='batch_size 1: .* of 32 × 32 pixels leaves one value .*take batch_size=2'):
        geoseg.train(recipe, 'world:tiny', out=tmp_path, overrides=given)
    assert not list(tmp_path.iterdir())


def test_a_batch_of_one_trains_where_it_can(tmp_path):
    given = tiny.settings('unet', epochs=1, batch_size=1, **{'trainer.limit_train_batches': 2})
    run = geoseg.train('unet', 'world:tiny', out=tmp_path, overrides=given)
    assert len(run.metrics) == 1
