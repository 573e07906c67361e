"What a resumed run does with other settings, row by row of the table; what a finished or a hardly begun run does."
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import tiny
import torch
import warm

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.training.config import parse
from geoseg.training.record import RunRecord
from geoseg.training.resume import NO_SETTINGS, RULES, check_changes, differing, read_changes, resume_rule
from geoseg.training.run import Run, find_resume
from geoseg.training.train import prepare, train


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.setting)
def test_a_row_is_reached_and_followed(rule):
    key = rule.setting.replace('*', 'something')
    assert resume_rule(key) is rule  # no row before it takes its place
    if rule.honoured:
        check_changes({key: ('1', '2')}, Path('run'))
    else:
        with pytest.raises(ConfigError, match=f'^{key} is 1 in the run run .* not 2: .*checkpoint_start') as error:
            check_changes({key: ('1', '2')}, Path('run'))
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('recipe', geoseg.recipes())
def test_every_setting_has_a_row_of_its_section(recipe):
    for key, _ in parse([recipe]).config.items(branches=False):
        if key not in NO_SETTINGS:
            assert resume_rule(key).setting.partition('.')[0] == key.partition('.')[0]


def test_settings_that_are_honoured(own_run):
    folder = own_run('unet')
    before = torch.load(Run(folder).last, weights_only=True)
    run = geoseg.train(resume=folder, epochs=3, lr=1e-2, batch_size=4, overrides={
        'weight_decay': 0.3, 'betas': [0.8, 0.99], 'ema': 0.5, 'patience': 7, 'save_top_k': 1, 'dihedral': 1.0})
    last = torch.load(run.last, weights_only=True)
    assert run.metrics['epoch'].tolist() == [0, 1, 2]
    assert last['global_step'] - before['global_step'] >= 2 * (before['global_step'] // 2) - 1  # twice the batches
    groups = last['optimizer_states'][0]['param_groups']
    assert {g['weight_decay'] for g in groups} == {0., 0.3} and {tuple(g['betas']) for g in groups} == {(0.8, 0.99)}
    assert last['lr_schedulers'][0]['base_lrs'] == [1e-2] * len(groups)
    assert last['lr_schedulers'][0]['last_epoch'] == last['lr_schedulers'][0]['curve']['steps_per_epoch'] * 3
    changes = {change.key: change for change in read_changes(folder)}
    assert {key.rpartition('.')[2] for key in changes} == {
        'max_epochs', 'lr', 'batch_size', 'weight_decay', 'betas', 'ema', 'patience', 'save_top_k', 'dihedral'}
    assert {change.place for change in changes.values()} == {'epoch 2'}
    assert run.config['trainer']['max_epochs'] == 3 and run.config['run']['ema'] == 0.5
    text = (folder / 'summary.md').read_text()
    assert '| epoch 2 | `model.init_args.optimizer.init_args.lr` | 0.003 | 0.01 |' in text
    assert geoseg.train(resume=folder, epochs=3, lr=1e-2).folder == folder  # as it is by now: nothing to do
    assert len(read_changes(folder)) == len(changes)


@pytest.mark.parametrize(('one', 'two'), [('Loss/val', 'loss'), ('mIoU/val', 'miou'), ('mIoU/val', 'MIOU/val')])
def test_a_score_in_another_case_is_no_change(one, two):
    old, new = (parse(['unet'], {'monitor': name}).config for name in (one, two))
    assert differing(old, new) == {}
    assert differing(old, parse(['unet'], {'monitor': 'F1'}).config) == {'run.monitor': (one, 'F1/val')}


def test_settings_that_are_refused(own_run, tmp_path):
    folder = own_run('geosegformer')
    files = tiny.files_of(folder)
    for given, says in (({'seed': 8}, 'seed_everything is 3'), ({'epochs': 1}, 'epochs is 1, and 2 have ended'),
                        ({'lr': 1e-3}, 'finished after 2 epochs'), ({'out': str(tmp_path)}, 'out: .* another place'),
                        ({'lr': 1e-3, 'epochs': 3}, 'set each rate'), ({'monitor': 'F1'}, 'run.monitor is mIoU/val'),
                        ({'data': 'world:geotagged', 'epochs': 3}, 'split.csv: the data are others now')):
        with pytest.raises(ConfigError, match=says) as error:
            geoseg.train(resume=folder, overrides=given)
        assert len(str(error.value).splitlines()) == 1
    assert tiny.files_of(folder) == files


@pytest.mark.parametrize('recipe', geoseg.recipes())
def test_what_can_be_monitored_is_what_is_measured(recipe, tiny_run, tmp_path):
    run = Run(tiny_run(recipe))
    cli = parse([run.folder / 'config.yaml'], {})
    cli.build()
    cli.datamodule.setup('fit')
    columns = [name for name in run.metrics if name.endswith(('/train', '/val'))]
    assert sorted(cli.model.scores()) == sorted(columns)
    cli.config.run.monitor = 'Loss/val' if recipe.startswith('game4loc') else 'Recall@1/val'
    with pytest.raises(ConfigError, match="run.monitor: .* is not measured.*there are Loss/train"):
        prepare(cli, tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_stays(tmp_path):
    run = tiny.train('unet', tmp_path, epochs=1, keep_only_best=True)
    files = tiny.files_of(run.folder)
    assert geoseg.train(resume=run.folder).folder == run.folder and tiny.files_of(run.folder) == files
    (run.folder / 'metadata.json').unlink()  # killed before it was written
    (run.folder / 'checkpoints' / 'best.ckpt').rename(run.folder / 'checkpoints' / 'last.ckpt')
    hidden = run.folder / 'checkpoints' / '.ipynb_checkpoints'
    hidden.mkdir()
    again = geoseg.train(resume=run.folder, epochs=2)
    assert again.metrics['epoch'].tolist() == [0, 1] and hidden.is_dir()
    assert json.loads((run.folder / 'metadata.json').read_text())['ended']['epochs'] == 2


def test_the_last_run_is_the_one_made_last(tmp_path):
    started = {'2026-10-25_02-50-00': '02:50:00+0200', '2026-10-25_02-10-00': '02:10:00+0100'}  # summer time ended
    for name, clock in started.items():
        (tmp_path / 'unet' / name).mkdir(parents=True)
        (tmp_path / 'unet' / name / 'config.yaml').touch()
        (tmp_path / 'unet' / name / 'metadata.json').write_text(json.dumps({'started': f'2026-10-25T{clock}'}))
    assert find_resume('last', tmp_path, 'unet')[0].name == '2026-10-25_02-10-00'
    for n in (2, 10):
        shutil.copytree(tmp_path / 'unet/2026-10-25_02-10-00', tmp_path / f'unet/2026-10-25_02-10-00-{n}')
    assert find_resume('last', tmp_path, 'unet')[0].name == '2026-10-25_02-10-00-10'
    (tmp_path / 'unet/.ipynb_checkpoints').mkdir()
    (tmp_path / 'unet/.ipynb_checkpoints/config.yaml').touch()
    (tmp_path / 'unet/2026-01-01_00-00-00').mkdir()  # begun last, killed before its metadata
    (tmp_path / 'unet/2026-01-01_00-00-00/config.yaml').touch()
    os.utime(tmp_path / 'unet/2026-01-01_00-00-00/config.yaml', (time.time() + 3600 * 24 * 365 * 50,) * 2)
    assert find_resume('last', tmp_path, 'unet')[0].name == '2026-01-01_00-00-00'


def test_epochs_from_a_thousand_on_are_kept():
    record = RunRecord('unused', every_n_epochs=500, save_top_k=1)
    for epoch in range(998, 1501):
        record.rank(epoch, {'mIoU/val': 0.5})
    assert [name[:9] for name in sorted(record.kept)] == ['epoch1499', 'epoch1500', 'epoch999-']


@pytest.mark.long
def test_killed_runs_with_a_memory_end_the_same(tmp_path):
    done = warm.run(Path(__file__).with_name('kill_table.py'), tmp_path / 'kills.csv', '--rounds', 1, '--only',
                    'geosegformer:momentum', '--moments', 'saved', 'in a step', 'ended', timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '3 of 3 killed runs ended identically' in done.stdout


@pytest.mark.long
def test_killed_runs_that_validate_within_an_epoch_end_the_same(tmp_path):
    done = warm.run(Path(__file__).with_name('kill_table.py'), tmp_path / 'kills.csv', '--rounds', 1, '--only',
                    'deepglobe-trm', '--moments', 'saved', 'validating', '--more', 'trainer.val_check_interval=0.5',
                    timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '2 of 2 killed runs ended identically' in done.stdout


def test_scores_that_are_not_of_the_end_of_an_epoch_are_told(tmp_path, caplog):
    run = tiny.train('deepglobe-trm', tmp_path, epochs=1, **{'trainer.val_check_interval': 0.75})
    assert 'trainer.val_check_interval is 0.75: the last validation of an epoch comes 1 of its 4 batches' in caplog.text
    caplog.clear()
    train(resume=str(run.folder), epochs=2)
    assert 'trainer.val_check_interval is 0.75' in caplog.text


def test_a_score_goes_by_its_name_in_any_case(tmp_path):
    'For a new run, and for one that goes on; it stands in the files as the table has it.'
    given = {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1}
    run = tiny.train('unet', tmp_path, epochs=1, monitor='loss/VAL', patience=2, **given)
    assert run.monitor == 'Loss/val'
    again = train(resume=str(run.folder), epochs=2, overrides={'monitor': 'LOSS/val'})
    assert again.monitor == 'Loss/val' and len(again.metrics) == 2 and again.best_epoch in (0, 1)
    assert again.metrics['Loss/val'].idxmin() == again.best_epoch
    with pytest.raises(ConfigError, match='run.monitor is Loss/val in the run'):
        train(resume=str(run.folder), epochs=3, overrides={'monitor': 'MIOU/val'})
