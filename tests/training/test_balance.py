"Class weights and rare-class sampling through whole runs."
import shutil

import lightning as L
import numpy as np
import pytest
import torch

from geoseg.data.balance import class_weights
from geoseg.evaluation.evaluate import evaluate
from geoseg.training import train as training
from geoseg.training.config import parse
from geoseg.training.train import train
from geoseg.world.layouts import world_data

CPU = {'num_workers': 0, 'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False}
SMALL = CPU | {'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 0,
               'image_size': [32, 32], 'crop': [32, 32]}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return shutil.copytree(world_data('folders', size='tiny'), tmp_path_factory.mktemp('data') / 'world')


def stopped_at(step, folder, data, settings):
    'A run that was killed after some steps.'
    class Stop(Exception):
        pass

    class Killer(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == step:
                raise Stop

    cli, made = parse(['unet'], {'data': str(data), 'out': str(folder)} | settings), training.make_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, 'make_trainer', lambda cli, extra, loggers: made(cli, [*extra, Killer()], loggers))
        with pytest.raises(Stop):
            training.fit(cli)
    return next((folder / 'unet').iterdir())


def test_weights_and_drawing_survive_a_kill_and_are_not_worked_out_again(data, tmp_path):
    settings = SMALL | {'epochs': 2, 'batch_size': 8, 'seed': 5, 'class_weights': 'median', 'oversample': 0.7,
                        'every_n_steps': 2}
    whole = train('unet', data, out=tmp_path / 'whole', overrides=settings)
    counts = whole.data().class_counts('train')
    kept = whole.config['model']['init_args']['class_weights']
    np.testing.assert_allclose(kept, class_weights(counts, 'median'), rtol=1e-5)
    folder = stopped_at(9, tmp_path / 'cut', data, settings)
    again = train(resume=str(folder))
    assert (whole.folder / 'metrics.csv').read_bytes() == (again.folder / 'metrics.csv').read_bytes()
    one, two = (torch.load(run.last, weights_only=True)['state_dict'] for run in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)

    plain = train('unet', data, out=tmp_path / 'plain', overrides=settings | {'class_weights': None, 'epochs': 1})
    assert plain.metrics['Loss/train'][0] != whole.metrics['Loss/train'][0]

    loss = evaluate(whole.folder, out=tmp_path / 'a').loss
    for mask in (data / 'masks' / 'train').iterdir():  # the training masks are gone: nothing counts them again
        mask.unlink()
    for image in (data / 'images' / 'train').iterdir():
        image.unlink()
    shutil.rmtree(data / 'images' / 'train')
    shutil.rmtree(data / 'masks' / 'train')
    assert evaluate(whole.folder, out=tmp_path / 'b').loss == loss


def test_settings_that_cannot_be_meant(tmp_path):
    for settings, says in (({'class_weights': 'medain'}, "'medain', expected inverse, median, effective"),
                           ({'class_weights': [1.0, 2.0]}, '2 entries for 7 classes'),
                           ({'class_weights': 'median', 'loss.class_path': 'geoseg.tasks.losses.DiceLoss'},
                            'DiceLoss has no term that takes class weights'),
                           ({'oversample': 20}, 'oversample is 20')):
        with pytest.raises(ValueError, match=says):
            train('unet', 'world:tiny', epochs=1, out=tmp_path, overrides=SMALL | settings)
        assert not list(tmp_path.iterdir())
