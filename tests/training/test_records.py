"What every run leaves behind: train scores, rates, pictures, splits, and a summary whose commands work."
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import warm

from geoseg.core.errors import ConfigError
from geoseg.training.recipes import recipes
from geoseg.training.run import Run, determinism, git_state
from geoseg.training.summary import shell_commands, write_summary
from geoseg.training.train import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('recipe', recipes())
def test_every_run_says_what_it_is(recipe, tiny_run):
    folder = tiny_run(recipe)
    metrics, text = pd.read_csv(folder / 'metrics.csv'), (folder / 'summary.md').read_text()
    # train scores wherever the validation has them
    for name in ('F1', 'Accuracy'):
        assert (f'{name}/train' in metrics) == (f'{name}/val' in metrics)
        if f'{name}/train' in metrics:
            assert metrics[f'{name}/train'].between(0, 1).all()
    # the rate of each group, in the table, in TensorBoard and in the log
    groups = torch.load(folder / 'checkpoints' / 'last.ckpt', weights_only=True)['optimizer_states'][0]['param_groups']
    rates = {f'lr/{group["name"]}' for group in groups} if len(groups) > 1 else set()
    assert {name for name in metrics if name.startswith('lr/')} == rates
    assert not any(word in name.lower() for name in metrics for word in ('time', 'second', 'date'))
    lines = [line for line in (folder / 'log.txt').read_text().splitlines() if re.search(r'INFO epoch \d', line)]
    assert len(lines) == (metrics['epoch'] >= 0).sum() and all(re.search(r', lr \S+', line) for line in lines)
    # pictures and a summary
    assert {'predictions_epoch000.png', 'curves.png'} <= {path.name for path in (folder / 'figures').iterdir()}
    best = Run(folder).best_epoch
    for expected in (f'| recipe | {recipe}', f'is epoch {best}:', '## Versions', '## Data', '| parameters |',
                     '`trainer.max_epochs`', str(folder.resolve())):
        assert expected in text, expected
    # splits, in one format
    split = pd.read_csv(folder / 'split.csv', dtype=str)
    assert split.columns.tolist() == ['name', 'split'] and split['name'].notna().all()
    assert {'train', 'val'} <= set(split['split']) <= {'train', 'val', 'test'}
    assert not split.duplicated().any()
    assert f'{(split["split"] == "train").sum()} train' in text


def test_split_tables_say_who_trains(tiny_run):
    'What stands in split.csv is what the data sets hold, in each layout.'
    run = Run(tiny_run('unet'))
    table = pd.read_csv(run.folder / 'split.csv', dtype=str).groupby('split')['name'].agg(list)
    data = run.data()
    assert all(table[split] == list(data.datasets[split].names) for split in table.index)
    run = Run(tiny_run('deepglobe-trm'))
    table = pd.read_csv(run.folder / 'split.csv', dtype=str).groupby('split')['name'].agg(list)
    data = run.data()
    for split in ('train', 'val'):  # patches, of these images alone
        assert {name.rpartition('_r')[0] for name in data.datasets[split].names} == set(table[split])
    run = Run(tiny_run('nomeformer'))
    table = pd.read_csv(run.folder / 'split.csv', dtype=str).groupby('split')['name'].agg(list)
    data = run.data()
    assert all(len(table[split]) == len(data.prepared[split]) for split in table.index)
    run = Run(tiny_run('game4loc-cross-area'))
    table = pd.read_csv(run.folder / 'split.csv', dtype=str).groupby('split')['name'].agg(list)
    data = run.data()
    assert all((data.root / name).is_file() for names in table for name in names)
    assert not set(table['train']) & set(table['val'])


def test_raster_areas_have_their_names():
    from geoseg.data.rasters.chips import RasterData
    from geoseg.world.layouts import world_data
    for given in ({}, {'split': 'block', 'block': 64, 'chip': 32}):
        data = RasterData(world_data('raster', size='tiny'), **({'chip': 32} | given))
        data.setup()
        table = data.split_table()
        assert not table['name'].duplicated().any() and {'train', 'val', 'test'} == set(table['split'])
        assert (table['split'] == 'train').sum() == len(data.datasets['train'].areas)


def test_train_scores_are_of_the_training_batches(tmp_path, monkeypatch):
    'One confusion matrix over all batches of the epoch, whatever the network predicts in training.'
    from geoseg.metrics.segmentation import image_confusions, metrics_from_confusion
    from geoseg.tasks.segmentation import SegmentationTask
    seen, compute = [], SegmentationTask.compute_loss

    def spy(self, output, batch):
        if self.training:
            seen.append((output['logits'].detach().argmax(1), batch['mask']))
        return compute(self, output, batch)

    monkeypatch.setattr(SegmentationTask, 'compute_loss', spy)
    run = tiny.train('unet', tmp_path, epochs=1)
    k = seen[0][0].max() + 1
    k = max(int(k), *(int(mask[mask != 255].max()) + 1 for _, mask in seen))
    names = len(run.per_class)
    confusion = sum(image_confusions(p, m, max(k, names)).sum(0) for p, m in seen)
    scores = metrics_from_confusion(confusion)
    assert np.isclose(run.metrics['F1/train'][0], scores['F1'], atol=1e-6)
    assert np.isclose(run.metrics['Accuracy/train'][0], scores['accuracy'], atol=1e-6)


@pytest.mark.parametrize('recipe', ['unet', 'geosegformer'])
def test_pictures_change_nothing(recipe, tmp_path):
    'With pictures in every epoch a run ends with the bytes of one without.'
    runs = [tiny.train(recipe, tmp_path / str(every), draw_every_n_epochs=every).folder for every in (0, 1)]
    assert not (runs[0] / 'figures').exists()
    assert {p.name for p in (runs[1] / 'figures').iterdir()} == {'curves.png', 'predictions_epoch000.png',
                                                                'predictions_epoch001.png'}
    for name in ('metrics.csv', 'per_class.csv', 'split.csv'):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name
    a, b = (torch.load(run / 'checkpoints' / 'last.ckpt', weights_only=True) for run in runs)
    assert all(torch.equal(value, b['state_dict'][name]) for name, value in a['state_dict'].items())
    assert torch.equal(a['train_confusion'], b['train_confusion'])


@pytest.mark.parametrize('recipe', ['unet', 'nomeformer', 'game4loc-cross-area'])  # one a kind
def test_commands_of_the_summary_work(recipe, own_run, tmp_path):
    folder = own_run(recipe)
    odd = folder.rename(folder.with_name("it's a run; $HOME"))
    write_summary(odd)  # a copy knows its own folder
    block = (odd / 'summary.md').read_text().split('```sh\n')[1].split('```')[0]
    lines = block.splitlines()
    assert [shlex.split(line)[0] for line in lines] == ['cd', *['geoseg'] * 4]
    before = Run(odd).metrics
    script = tmp_path / 'paste.py'
    script.write_text(f'import subprocess, sys\nsys.exit(subprocess.run(["sh", "-e", "-c", {block!r}]).returncode)\n')
    done = warm.run(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    pd.testing.assert_frame_equal(Run(odd).metrics, before)  # a finished run has nothing left to do
    text = (odd / 'summary.md').read_text()
    assert 'evaluation/test' in text and 'evaluation/val' in text and '| resumed | no |' in text
    out = odd / ('places' if recipe.startswith('game4loc') else 'predictions')
    assert any(out.iterdir())


def test_a_run_with_nothing_but_its_best_resumes_from_it(tmp_path):
    run = tiny.train('unet', tmp_path, epochs=1, keep_only_best=True)
    line = shell_commands(run, json.loads((run.folder / 'metadata.json').read_text()))[1]
    assert shlex.split(line)[-1] == f'resume={run.best.resolve()}'


def test_epochs_are_counted_from_zero_everywhere(own_run):
    'Tables, names of checkpoints and pictures, log lines, messages and resume=EPOCH speak of the same epoch.'
    folder = own_run('deepglobe-trm')  # keeps every epoch
    run = Run(folder)
    metrics, log = run.metrics, (folder / 'log.txt').read_text()
    assert metrics['epoch'].tolist() == [0, 1] == sorted(run.per_class['epoch'].unique())
    kept = {int(p.name[5:8]): p for p in run.folder.glob('checkpoints/epoch*.ckpt')}
    assert sorted(kept) == [0, 1]
    for epoch, path in kept.items():
        assert torch.load(path, weights_only=True)['epoch'] == epoch
        score = metrics.set_index('epoch')[run.monitor][epoch]
        assert path.name == f'epoch{epoch:03d}-{run.monitor.split("/")[0]}{score:.4f}.ckpt'
        step = int(metrics.set_index('epoch')['step'][epoch])
        assert re.search(rf'INFO epoch {epoch}, step {step}, .*{run.monitor} {score:.4f}', log)
    best = metrics.set_index('epoch')[run.monitor].idxmax()
    assert f'done: best epoch {best}' in log and run.best_epoch == best
    assert pd.read_csv(folder / 'train_log.csv')['epoch'].tolist() == [0, 1]
    with pytest.raises(FileNotFoundError, match='no whole checkpoint of epoch 2'):
        train('deepglobe-trm', resume=2, out=folder.parent.parent)
    before = metrics
    again = train('deepglobe-trm', resume=0, out=folder.parent.parent)  # goes on with epoch 1
    assert again.folder == folder
    pd.testing.assert_frame_equal(again.metrics, before)
    assert len(re.findall(r'INFO epoch 0,', (folder / 'log.txt').read_text())) == 1
    assert len(re.findall(r'INFO epoch 1,', (folder / 'log.txt').read_text())) == 2


@pytest.mark.parametrize('recipe', ['game4loc-same-area', 'unet'])
def test_every_second_epoch_is_validated(recipe, tmp_path):
    "The cross-view trainer's `eval_every_n_epoch`, with patience: epochs between have no score, and do not count."
    run = tiny.train(recipe, tmp_path, epochs=6, check_val_every_n_epoch=2, patience=1, lr=1e-12, every_n_epochs=1,
                     draw_every_n_epochs=1, ema=None)
    metrics = run.metrics[run.metrics['epoch'] >= 0]  # -1: before training
    scores = metrics[run.monitor]
    assert scores.notna().tolist() == [epoch % 2 == 1 for epoch in metrics['epoch']]
    seen = scores.dropna().tolist()  # the run ends with the first that is no better than all before
    ends = next((i for i in range(1, len(seen)) if seen[i] <= max(seen[:i])), len(seen) - 1)
    assert len(seen) == ends + 1 and len(metrics) == 2 * len(seen) and run.best_epoch % 2 == 1
    assert len(list(run.folder.glob('checkpoints/epoch*.ckpt'))) == len(metrics)
    drawn = sorted(int(p.stem[-3:]) for p in run.folder.glob('figures/predictions_epoch*.png'))
    assert drawn == [epoch for epoch in metrics['epoch'] if epoch % 2 == 1]
    with pytest.raises(ConfigError, match='check_val_every_n_epoch is 3 for 2 epochs'):
        tiny.train(recipe, tmp_path / 'never', epochs=2, check_val_every_n_epoch=3)


def test_deterministic_fixes_cudnn_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONHASHSEED', '7')
    for setting, expected in ((True, True), (None, False)):
        run = tiny.train('unet', tmp_path, epochs=1, deterministic=setting)
        about = json.loads((run.folder / 'metadata.json').read_text())['deterministic']
        assert about == {'algorithms': expected, 'cudnn_deterministic': expected, 'cudnn_benchmark': False,
                         'PYTHONHASHSEED': '7'} == determinism()
        assert ('deterministic: ' in (run.folder / 'log.txt').read_text()) == expected
        assert f'| deterministic algorithms | {expected} |' in (run.folder / 'summary.md').read_text()


def test_metadata_says_why_there_is_no_commit(tmp_path):
    assert git_state(tmp_path) == {'commit': None, 'why': 'installed without a repository'}
    subprocess.run(['git', 'init', '-q', str(tmp_path)], check=True)
    (tmp_path / '.gitignore').write_text('venv\n')
    (tmp_path / 'venv').mkdir()
    assert git_state(tmp_path / 'venv') == {'commit': None, 'why': 'installed without a repository'}  # not its commit
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PATH', '')
        assert git_state(ROOT)['why'] == 'the program git is not there'


def test_calibration_writes_its_error_as_json(tiny_run, tmp_path, own_run):
    from geoseg.evaluation.calibration import calibrate
    found = calibrate(own_run('unet'), out=tmp_path)
    told = json.loads((tmp_path / 'ece.json').read_text())
    assert told['temperature'] == found.temperature and told['bins'] == 15
    for row in found.table.itertuples():
        when = 'after' if row.temperature != 1 else 'before'
        assert told[row.split][when] == row.ECE


def test_sweep_finds_its_notebook_outside_a_checkout(tmp_path):
    'A built package takes the notebook along, the one of nbs/.'
    subprocess.run([sys.executable, 'setup.py', '-q', 'build', '--build-base', str(tmp_path / 'base'), 'build_py',
                    '--build-lib', str(tmp_path / 'lib')], cwd=ROOT, check=True, capture_output=True)
    copy = tmp_path / 'lib' / 'geoseg' / 'notebooks' / 'train.ipynb'
    assert copy.read_bytes() == (ROOT / 'nbs' / 'train.ipynb').read_bytes()
    (tmp_path / 'elsewhere').mkdir()
    code = """import sys; from unittest.mock import MagicMock
for heavy in ('papermill', 'geoseg.training.ledger', 'geoseg.training.run', 'geoseg.core.cluster'):
    sys.modules[heavy] = MagicMock()
from geoseg.training.sweep import find_notebook; print(find_notebook('train.ipynb'))"""
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path / 'elsewhere', capture_output=True, text=True,
                          env=os.environ | {'PYTHONPATH': str(tmp_path / 'lib')})
    assert Path(done.stdout.strip()) == copy.resolve(), done.stderr[-1000:]
