"Records of W&B and MLflow beside TensorBoard: with the packages where they are installed, and what is refused without."
import importlib.util
import sqlite3
from types import SimpleNamespace

import pytest
import tiny

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.training.train import LOGGERS, close_loggers, other_loggers

CURVES = ('Loss/train', 'Loss/val', 'mIoU/val')
RATE = 'model.init_args.optimizer.init_args.lr'


def needs(name):
    pytest.importorskip(name, reason=f'{name} is not installed')


def test_wandb_offline_keeps_a_record_a_run(tmp_path, monkeypatch):
    needs('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.delenv('WANDB_DIR', raising=False)
    monkeypatch.delenv('WANDB_PROJECT', raising=False)
    monkeypatch.chdir(tmp_path)
    runs = [tiny.train('unet', tmp_path / name, epochs=1, **{'run.loggers': ['wandb']}) for name in 'ab']
    numbers = [(run.folder / 'wandb.txt').read_text() for run in runs]
    assert numbers[0] != numbers[1]  # also where two jobs begin in one second
    geoseg.train(resume=runs[0].folder, epochs=2)
    for run, number, parts in zip(runs, numbers, (2, 1), strict=True):
        files = sorted((run.folder.parent / 'wandb').glob(f'offline-run-*-{number}/run-{number}.wandb'))
        assert len(files) == parts == len([*(run.folder.parent / 'wandb').glob('offline-run-*')])
        for file in files:
            held = file.read_bytes()
            assert all(name.encode() in held for name in CURVES), file
        assert RATE.encode() in files[0].read_bytes()  # settings are sent once: the record of a run goes on
    assert [path.name for path in tmp_path.iterdir() if path.name not in 'ab'] == []  # nothing where one stands


def test_mlflow_without_a_server_keeps_its_record_in_the_run(tmp_path, monkeypatch):
    needs('mlflow')
    needs('sqlalchemy')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    monkeypatch.chdir(tmp_path)
    run = tiny.train('unet', tmp_path / 'a', epochs=1, **{'run.loggers': ['mlflow']})
    geoseg.train(resume=run.folder, epochs=2)
    with sqlite3.connect(run.folder / 'mlflow.db') as store:
        ids = store.execute('select run_uuid, status from runs').fetchall()
        steps = {name: store.execute('select distinct step from metrics where key = ?', (name,)).fetchall()
                 for name in CURVES}
        rate = store.execute('select value from params where key = ?', (RATE,)).fetchall()
        scores = store.execute("select value from metrics where key = 'mIoU/val' order by step").fetchall()
    assert ids == [((run.folder / 'mlflow.txt').read_text(), 'FINISHED')]
    assert {name: len(found) for name, found in steps.items()} == dict.fromkeys(CURVES, 2)
    assert rate == [('0.003',)]
    assert [score for [score] in scores] == pytest.approx(geoseg.Run(run.folder).metrics['mIoU/val'].tolist())
    assert [path.name for path in tmp_path.iterdir()] == ['a']


class Stub:
    'A logger whose account is not known.'

    def __init__(self, *given):
        self.given = given

    @property
    def experiment(self):
        raise PermissionError('No key.\nLog in.')


def test_what_cannot_be_recorded_is_one_line(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    spec = {'wandb': SimpleNamespace(origin='wandb.py'), 'mlflow': None}
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec[name] if name in spec else found(name))
    monkeypatch.setitem(LOGGERS, 'wandb', (Stub, 'WANDB_MODE=offline keeps its record beside the run'))
    for names, said in ((['wandbb'], "run.loggers: 'wandbb'; nearest: wandb; there are wandb, mlflow"),
                        (['tensorboard'], "run.loggers: 'tensorboard'; there are wandb, mlflow"),
                        (['mlflow'], 'run.loggers: mlflow is not installed: pip install mlflow'),
                        (['wandb', 'wandb'], 'run.loggers: wandb is named twice'),
                        (['wandb'], 'run.loggers: wandb: No key; WANDB_MODE=offline keeps its record beside the run')):
        with pytest.raises(ConfigError) as error:
            other_loggers(names, tmp_path, 'unet')
        assert str(error.value) == said
    assert not [*tmp_path.iterdir()]
    spec['wandb'] = SimpleNamespace(origin=None)  # W&B leaves a folder of its name where it is used
    with pytest.raises(ConfigError, match='wandb is not installed'):
        other_loggers(['wandb'], tmp_path, 'unet')


def test_the_stores_of_mlflow_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    pytest.importorskip('lightning.pytorch.loggers')
    make, found = LOGGERS['mlflow'][0], importlib.util.find_spec
    spec = SimpleNamespace(origin='x')
    monkeypatch.setattr(importlib.util, 'find_spec',
                        lambda name: spec if name in ('alembic', 'sqlalchemy') else found(name))
    with pytest.raises(ValueError, match='a path with % or'):
        make(tmp_path / '50%', 'unet', None)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'alembic' else spec)
    with pytest.raises(ImportError, match='its own store needs alembic: pip install mlflow'):
        make(tmp_path, 'unet', None)


def test_only_records_of_wandb_are_ended():
    ended = []

    class WandbLogger:
        _experiment = experiment = SimpleNamespace(finish=lambda: ended.append(1))

    close_loggers([Stub(), WandbLogger()])
    assert ended == [1]
