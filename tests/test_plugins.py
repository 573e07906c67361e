"A plugin of one file goes through every verb as the package's own classes do."
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from geoseg import cli
from geoseg.core.plugins import load_plugins
from geoseg.data.loading import LAYOUTS
from geoseg.inference.answer import ANSWERS
from geoseg.training.config import parse

PLUGIN = Path(__file__).with_name('a_plugin.py')
RECIPE = {'model': {'class_path': 'a_plugin.OwnTask', 'init_args': {
    'network': {'class_path': 'a_plugin.ColourNet'}, 'loss': {'class_path': 'geoseg.tasks.losses.CrossEntropyLoss'},
    'optimizer': {'class_path': 'torch.optim.AdamW', 'init_args': {'lr': 0.01}}}},
    'data': {'class_path': 'a_plugin.BesideData', 'init_args': {'root': '.', 'batch_size': 4, 'augment': {}}},
    'trainer': {'max_epochs': 2, 'accelerator': 'cpu', 'enable_progress_bar': False},
    'run': {'recipe': 'own'}}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    'A folder with the pictures, the recipe, and a run of it.'
    folder, rng = tmp_path_factory.mktemp('plugin'), np.random.default_rng(0)
    (folder / 'pictures').mkdir()
    for i in range(12):
        mask = rng.integers(0, 2, (32, 32), np.uint8)
        picture = np.where(mask[..., None] == 1, (200, 40, 40), (40, 40, 200)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f'pictures/{i:02}.png')
        Image.fromarray(mask).save(folder / f'pictures/{i:02}_mask.png')
    (folder / 'pictures/classes.txt').write_text('0 blue\n1 red\n')
    np.save(folder / 'array.npy', picture.astype(np.float32) / 255)
    (folder / 'own.yaml').write_text(yaml.safe_dump(RECIPE))
    say(folder, 'fit', '--recipe', 'own.yaml', f'out={folder}/runs')
    yield folder
    LAYOUTS.pop('beside')  # other tests do not know it
    ANSWERS[:] = [answer for answer in ANSWERS if answer.__module__ != 'a_plugin']
    del sys.modules['a_plugin']


def say(folder, verb, *words, plugin=True):
    'A verb on the command line; it must work.'
    before = Path.cwd()
    os.chdir(folder)
    try:
        more = ['data=pictures'] if verb in ('fit', 'inspect', 'profile', 'sweep') else []
        given = ['--plugins', str(PLUGIN)] if plugin else []
        assert cli.main([verb, *words, *given, *more]) == 0
    finally:
        os.chdir(before)


@pytest.fixture
def run(place):
    return next((place / 'runs' / 'own').iterdir())


def test_its_classes_are_known(place, run):
    assert LAYOUTS['beside'].__name__ == 'BesideData' and 'ArrayAnswer' in {a.__name__ for a in ANSWERS}
    config = yaml.safe_load((run / 'config.yaml').read_text())
    assert config['model']['class_path'] == 'a_plugin.OwnTask'
    assert config['data']['class_path'] == 'a_plugin.BesideData'


def test_its_folders_are_recognised_by_other_recipes(place):
    load_plugins(PLUGIN)
    assert parse(['unet'], {'data': str(place / 'pictures')}).config.data.class_path == 'a_plugin.BesideData'


@pytest.mark.parametrize('verb', ['validate', 'test', 'predict', 'calibrate', 'efficiency'])
def test_verbs_of_a_run(place, run, tmp_path, verb):
    say(place, verb, '--checkpoint', str(run), *([] if verb == 'efficiency' else [f'out={tmp_path}']))
    assert verb == 'efficiency' or any(tmp_path.iterdir())


def test_verbs_of_a_recipe(place):
    say(place, 'inspect', '--recipe', 'own.yaml')
    say(place, 'profile', '--recipe', 'own.yaml', 'steps=1')


def test_its_answer_is_asked(place, run, tmp_path):
    say(place, 'predict', '--checkpoint', str(run), f'data={place / "array.npy"}', f'out={tmp_path}')
    assert np.asarray(Image.open(tmp_path / 'array.png')).shape == (32, 32)


def test_a_run_is_resumed(place, run):
    say(place, 'fit', f'resume={run}', 'epochs=3', plugin=True)
    assert len((run / 'metrics.csv').read_text().splitlines()) == 4


def test_nothing_is_imported_without_being_named(place, tmp_path):
    (tmp_path / 'wandb.py').write_text('raise SystemExit("imported")')
    (tmp_path / 'a_plugin.py').write_text(PLUGIN.read_text())
    words = ['inspect', '--recipe', str(place / 'own.yaml'), f'data={place / "pictures"}']
    for command in ([sys.executable, '-m', 'geoseg.cli'], [Path(sys.executable).with_name('geoseg')]):
        done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
        assert 'a_plugin' in done.stderr and 'plugins' in done.stderr
