"A signal costs no step, wherever in an epoch it comes: the run that goes on ends as one that was left alone."
import os
import signal

import pytest
import tiny

import geoseg
from geoseg.core.signals import Stopped
from geoseg.tasks.base import Task
from geoseg.training.callbacks import StopBetweenSteps

FEW = {'trainer.limit_train_batches': 3, 'trainer.limit_val_batches': 2}
MEMORY = FEW | {'memory_warmup_epochs': 1, 'label_recall': True}
CASES = {'unet': FEW | {'trainer.accumulate_grad_batches': 2}, 'geosegformer': MEMORY,
         'geosegformer momentum': MEMORY | {'freshness': 'momentum'}}
MOMENTS = [('in a step', 0), ('in the validation', 0), ('while data are read', 1), ('in the last step', 1)]  # epoch


class Strike:
    'Sends one signal at each moment of a list, one in each life of a run, and notes the steps that are made.'

    def __init__(self, patch):
        self.wanted, self.steps, self.number = None, [], signal.SIGTERM
        own = (Task.training_step, StopBetweenSteps.on_train_batch_start, StopBetweenSteps.on_validation_batch_end)

        def training_step(task, batch, batch_idx):
            self.steps.append((task.current_epoch, batch_idx))
            last = task.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            self.at('in the last step' if last else 'in a step', task.trainer)
            return own[0](task, batch, batch_idx)

        def batch_read(callback, trainer, pl_module, batch, batch_idx):
            if batch_idx:
                self.at('while data are read', trainer)
            own[1](callback, trainer, pl_module, batch, batch_idx)

        def validated(callback, trainer, *args):
            self.at('in the validation', trainer)
            own[2](callback, trainer, *args)

        patch.setattr(Task, 'training_step', training_step)
        patch.setattr(StopBetweenSteps, 'on_train_batch_start', batch_read)
        patch.setattr(StopBetweenSteps, 'on_validation_batch_end', validated)

    def at(self, moment, trainer):
        if self.wanted == (moment, trainer.current_epoch) and not trainer.sanity_checking:
            self.wanted = None
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize('case', CASES)
def test_no_step_is_lost(case, tmp_path, monkeypatch, scontrol):
    "Every other time by SIGUSR1, on which SLURM is asked to queue the job again."
    recipe = case.partition(' ')[0]
    asked = scontrol()
    whole = tiny.train(recipe, tmp_path / 'whole', **CASES[case])
    strike, folder = Strike(monkeypatch), None
    for i, moment in enumerate(MOMENTS):
        strike.wanted, strike.number = moment, (signal.SIGTERM, signal.SIGUSR1)[i % 2]
        with pytest.raises(Stopped) as stopped:
            if folder is None:
                tiny.train(recipe, tmp_path / 'cut', **CASES[case])
            else:
                geoseg.train(resume=folder)
        [folder] = (path.parent for path in (tmp_path / 'cut').rglob('config.yaml'))
        assert str(stopped.value) == ('stopped by SIGUSR1; job 7 is queued again' if i % 2 else
                                      f'stopped by SIGTERM; to go on: geoseg fit resume={folder}')
        assert not [*folder.rglob('.*')] and (folder / 'checkpoints' / 'last.ckpt').is_file(), moment
    assert asked.read_text() == 'requeue 7\n' * 2
    geoseg.train(resume=folder)
    assert len(strike.steps) == len(set(strike.steps)) == 3 * len(whole.metrics)
    assert tiny.difference(whole.folder, folder) == ''
