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
from geoseg.core.plugins import letting_in, plugin_modules
from geoseg.core.trust import trusted
from geoseg.data.loading import LAYOUTS
from geoseg.evaluation.evaluate import evaluate
from geoseg.inference.answer import ANSWERS
from geoseg.inference.predict import predict
from geoseg.models.predictor import Predictor
from geoseg.training.config import parse
from geoseg.training.run import Run

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
    with letting_in(PLUGIN):
        assert LAYOUTS['beside'].__name__ == 'BesideData'
        assert ANSWERS['segmentation', 'arrays'].__name__ == 'ArrayAnswer'
    config = yaml.safe_load((run / 'config.yaml').read_text())
    assert config['model']['class_path'] == 'a_plugin.OwnTask'
    assert config['data']['class_path'] == 'a_plugin.BesideData'


def test_its_folders_are_recognised_by_other_recipes(place):
    with letting_in(PLUGIN):
        assert parse(['unet'], {'data': str(place / 'pictures')}).config.data.class_path == 'a_plugin.BesideData'


@pytest.mark.parametrize('verb', ['validate', 'test', 'predict', 'calibrate', 'efficiency'])
def test_verbs_of_a_run(place, run, tmp_path, verb):
    say(place, verb, '--checkpoint', str(run), *([] if verb == 'efficiency' else [f'out={tmp_path}']))
    assert verb == 'efficiency' or any(tmp_path.iterdir())


def test_verbs_of_a_recipe(place):
    say(place, 'inspect', '--recipe', 'own.yaml')
    say(place, 'profile', '--recipe', 'own.yaml', 'steps=1')


@pytest.mark.parametrize('verb', ['fit', 'inspect', 'profile', 'sweep', 'validate', 'test', 'predict', 'localize',
                                  'calibrate', 'efficiency', 'resume', 'from_pretrained', 'load_predictor', 'Run.open'])
def test_a_later_call_lets_nothing_in(place, run, tmp_path, capsys, verb):
    'Every way to a class that an earlier call brought: the module is still loaded, and neither file may name it.'
    assert 'a_plugin' in sys.modules and 'a_plugin' not in plugin_modules()
    assert 'beside' not in LAYOUTS and ('segmentation', 'arrays') not in ANSWERS
    say(place, 'inspect', '--recipe', 'own.yaml')  # the call before
    if verb in ('from_pretrained', 'load_predictor', 'Run.open'):
        calls = {'from_pretrained': Predictor.from_pretrained, 'load_predictor': Predictor.load,
                 'Run.open': lambda path: Run(run).open(str(place / 'pictures'))}
        shared = tmp_path / 'shared'
        with letting_in(PLUGIN):
            Predictor.load(run / 'checkpoints/best.ckpt').save_pretrained(shared)
        path = {'from_pretrained': shared}.get(verb, run / 'checkpoints/best.ckpt')
        with pytest.raises(ValueError, match='a_plugin.*plugins'):
            calls[verb](path)
        with trusted():
            calls[verb](path)
        return
    words = {'fit': ['fit', '--recipe', place / 'own.yaml', f'data={place / "pictures"}', f'out={tmp_path}'],
             'resume': ['fit', f'resume={run}', 'epochs=9'],
             'inspect': ['inspect', '--recipe', place / 'own.yaml', f'data={place / "pictures"}'],
             'profile': ['profile', '--recipe', place / 'own.yaml', f'data={place / "pictures"}'],
             'sweep': ['sweep', '--recipe', place / 'own.yaml', f'data={place / "pictures"}', f'out={tmp_path}',
                       'lr=1e-3']}
    given = words.get(verb, [verb, '--checkpoint', run, f'out={tmp_path / "out"}',
                             *[f'{key}={place / "pictures"}' for key in ('photos', 'tiles') if verb == 'localize']])
    given = [word for word in given if verb != 'efficiency' or not str(word).startswith('out=')]
    capsys.readouterr()
    assert cli.main([str(word) for word in given]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'a_plugin' in said and 'plugins' in said, said


def test_its_folders_and_bare_names_are_not_known_later(place):
    'A registry and the parser, which knows loaded classes by their bare names, forget it as well.'
    assert parse(['unet'], {'data': str(place / 'pictures')}).config.data.class_path.startswith('geoseg.')
    bare = {**RECIPE, 'data': {**RECIPE['data'], 'class_path': 'BesideData'}}
    (place / 'bare.yaml').write_text(yaml.safe_dump(bare).replace('a_plugin.', ''))
    with pytest.raises(ValueError):
        parse([str(place / 'bare.yaml')])
    with letting_in(PLUGIN):
        assert parse([str(place / 'bare.yaml')]).config.data.class_path == 'a_plugin.BesideData'


def test_a_run_carries_what_it_was_opened_with(place, run):
    with letting_in(PLUGIN):
        opened = Run(run)
    assert opened.kind == 'segmentation' and type(opened.predictor().network).__name__ == 'ColourNet'
    data = str(place / 'pictures')
    assert type(opened.open(data).datamodule).__name__ == type(opened.data(data=data)).__name__ == 'BesideData'
    result = evaluate(run, data, 'val', plugins=PLUGIN, out=place / 'evaluated')
    assert [name for name, _ in result.figures()][-1] == 'worst'
    assert plugin_modules() == ()


def test_what_ends_with_an_error_lets_nothing_in_either(place, tmp_path):
    with pytest.raises(FileNotFoundError):
        predict(tmp_path / 'no.ckpt', plugins=PLUGIN)
    (tmp_path / 'half_a_plugin.py').write_text('from geoseg.data.pictures.images import ImageData\n\n\n'
                                               'class Half(ImageData):\n    layout = "half"\n\n\n1 / 0\n')
    with pytest.raises(ValueError, match='half_a_plugin.py: ZeroDivisionError'):
        with letting_in(tmp_path / 'half_a_plugin.py'):
            pass
    assert plugin_modules() == () and not {'half', 'beside'} & {*LAYOUTS}


def test_two_of_one_name(place, tmp_path):
    'Two plugins with one layout are an error together, and none one after the other; what is replaced comes back.'
    other = tmp_path / 'another_plugin.py'
    other.write_text(PLUGIN.read_text())
    for plugin in (PLUGIN, other):
        with letting_in(plugin):
            assert LAYOUTS['beside'].__module__ == plugin.stem
    with letting_in([PLUGIN, other]):
        with pytest.raises(ValueError, match='another_plugin.BesideData: the layout .* a_plugin.BesideData already'):
            parse(['unet'], {'data': str(place / 'pictures')})


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
    done = subprocess.run([sys.executable, '-m', 'geoseg.cli', *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert 'a_plugin' in done.stderr and 'plugins' in done.stderr
