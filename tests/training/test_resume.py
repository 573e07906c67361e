"A run that is killed and resumed ends exactly like one that never was."
import json
import logging
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import warm
from tiny import same_state

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.models.checkpoints import network_weights, read_checkpoint
from geoseg.tasks.optim import CurveLR, WarmupPoly
from geoseg.training.run import run_folder, weights_of_epochs, whole_epochs
from geoseg.training.train import open_to_resume


@pytest.mark.long
@pytest.mark.parametrize('workers, kills', [(0, 10), (2, 6)])
def test_killed_runs_end_the_same(tmp_path, workers, kills):
    driver = Path(__file__).with_name('kill_run.py')
    done = warm.run(driver, tmp_path, workers, kills, 7, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    whole, cut, struck = Path(result['whole']), Path(result['cut']), result['struck']
    print('killed in', struck)
    assert sum(s is not None for s in struck) >= kills * 0.7
    assert {'train', 'save', 'validate'} <= set(struck)
    for name in ('metrics.csv', 'per_class.csv'):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    assert (sorted(p.name for p in (whole / 'checkpoints').iterdir())
            == sorted(p.name for p in (cut / 'checkpoints').iterdir()))
    for path in sorted((whole / 'checkpoints').glob('*.ckpt')):
        same_state(path, cut / 'checkpoints' / path.name)


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    'A run that keeps the weights of each epoch, and nothing whole but its best and its last.'
    return tiny.train('unet', tmp_path_factory.mktemp('kept'), epochs=3, weights_every_n_epochs=1)


def test_the_weights_of_each_epoch_are_kept_and_used(kept, tmp_path):
    files = weights_of_epochs(kept.folder)
    assert list(files) == kept.metrics['epoch'].tolist() == [0, 1, 2]
    whole = whole_epochs(kept.folder)
    assert set(whole) == {kept.best_epoch, 2} and 4 * files[2].stat().st_size < 1.5 * kept.last.stat().st_size
    for epoch, path in whole.items():
        ours, theirs = (network_weights(read_checkpoint(p)) for p in (files[epoch], path))
        assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    for epoch, path in files.items():  # the averaged weights, which validation measured
        result = geoseg.evaluate(path, split='val', out=tmp_path / str(epoch))
        assert result.scores['mIoU'] == pytest.approx(kept.metrics['mIoU/val'][epoch], abs=1e-6)
    assert list(geoseg.predict(files[1], out=tmp_path / 'masks').rglob('*.png'))


def test_a_run_goes_on_from_whole_epochs_alone(kept, tmp_path):
    folder = shutil.copytree(kept.folder, tmp_path / 'unet' / kept.folder.name)
    files, whole = weights_of_epochs(folder), whole_epochs(folder)
    missing = next(epoch for epoch in files if epoch not in whole)
    alone = rf'epoch {missing}; its weights alone are there, checkpoint_start=.*\d{missing}.ckpt.*every_n_epochs=1'
    with pytest.raises(FileNotFoundError, match=alone):
        geoseg.train('unet', resume=missing, out=tmp_path)
    listed = f'epoch{"s" * (len(whole) > 1)} ' + ', '.join(map(str, sorted(whole)))
    with pytest.raises(FileNotFoundError, match=f'epoch 7; resume goes on from {listed}; every_n_epochs=1'):
        geoseg.train('unet', resume=7, out=tmp_path)
    with pytest.raises(ConfigError, match='weights alone.*checkpoint_start=.*every_n_epochs=1'):
        geoseg.train('unet', resume=files[1], out=tmp_path)
    again = geoseg.train('unet', tiny.DATA, out=tmp_path / 'new', overrides=tiny.settings(
        'unet', epochs=1, checkpoint_start=str(files[missing])))
    assert len(again.metrics) == 1
    best = min(whole)
    for epoch in [epoch for epoch in files if epoch > best]:
        files[epoch].write_bytes(b'of a run that went on from here')
    gone = geoseg.train('unet', resume=best, out=tmp_path)
    assert gone.folder == folder and gone.metrics.equals(kept.metrics)
    for epoch, path in weights_of_epochs(folder).items():  # written anew, the same
        one, two = (network_weights(read_checkpoint(p)) for p in (path, weights_of_epochs(kept.folder)[epoch]))
        assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_longer_run_says_what_its_schedule_was(caplog):
    def scheduled(epochs, power=1.):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.)
        return CurveLR(optimizer, WarmupPoly(1, power=power), steps_per_epoch=5, epochs=epochs)

    before = scheduled(3).state_dict()
    with caplog.at_level(logging.INFO, 'geoseg'):
        scheduled(3).load_state_dict(before)
        assert not caplog.messages
        scheduled(4, .9).load_state_dict(before)
    assert caplog.messages == ['the learning rate goes on with another schedule: '
                               'power 0.9 (before: 1.0), epochs 4 (before: 3)']


def test_a_run_is_named_from_within(kept, tmp_path, monkeypatch):
    folder = shutil.copytree(kept.folder, tmp_path / 'unet' / kept.folder.name)
    places = {folder.parent: [Path(folder.name), Path(folder.name) / 'checkpoints/last.ckpt'],
              folder: [Path('.'), Path('checkpoints/last.ckpt')],
              folder / 'checkpoints': [Path('last.ckpt'), Path('..')],
              folder / 'tensorboard': [Path('../checkpoints/last.ckpt')]}
    for place, paths in places.items():
        monkeypatch.chdir(place)
        for path in paths:
            if path.suffix:
                assert run_folder(path).resolve() == folder
            cli, found, _ = open_to_resume(str(path), {}, None, ())
            assert found.resolve() == folder and cli.config.run.recipe == 'unet'
    assert run_folder(Path('runs/unet/one/checkpoints/last.ckpt')) == Path('runs/unet/one')
