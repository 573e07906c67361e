"""The command `geoseg` as a person uses it, and that it does what the notebooks do."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny
import yaml

import geoseg
from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.training.config import parse
from geoseg.world.layouts import world_data

TINY = tiny.settings('unet', image_size=[32, 32], crop=[32, 32])


def geoseg_command(*arguments, folder):
    'The command in a process of its own.'
    environment = os.environ | {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    command = [Path(sys.executable).with_name('geoseg'), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope='session')
def started(once):
    'What the command line printed when it made the tiny run, and the folder of the run. Not to be written into.'
    def make(folder):
        given = tiny.settings('unet', draw_every_n_epochs=10)
        rate = given.pop('lr')
        done = geoseg_command('fit', '--recipe', 'unet', 'data=world:tiny', '--lr', rate, *tiny.words(given),
                              folder=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        (folder / 'printed.txt').write_text(done.stdout)

    folder = once('command', make)
    printed = (folder / 'printed.txt').read_text()
    return printed, folder / printed.strip()


def config_of(*arguments):
    'The configuration that words of a command line lead to.'
    words = cli.sort_words(list(map(str, arguments)))
    return parse([words.recipe, *words.configs], words.overrides).config


def test_command_and_function_give_the_same_numbers(started, trained):
    run = geoseg.Run(trained)
    for name in ('metrics.csv', 'per_class.csv'):
        assert (run.folder / name).read_bytes() == (started[1] / name).read_bytes(), name
    assert len(run.metrics) == 2


def test_a_run_is_one_folder(started):
    printed, folder = started
    assert printed.strip() == str(folder.relative_to(folder.parents[2]))  # the folder, and nothing else
    assert folder.parent.parts[-2:] == ('runs', 'unet')
    names = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file() and p.parent.name != 'tensorboard'}
    assert names == {'config.yaml', 'metadata.json', 'metrics.csv', 'per_class.csv', 'log.txt', 'checkpoints/best.ckpt',
                     'checkpoints/last.ckpt', 'summary.md', 'split.csv', 'figures/curves.png',
                     'figures/predictions_epoch000.png'}
    assert list((folder / 'tensorboard').glob('events.*'))
    metadata = json.loads((folder / 'metadata.json').read_text())
    assert metadata['command'].startswith('geoseg fit --recipe unet data=world:tiny') and metadata['seed'] == 3
    assert 'lightning' in metadata['versions']
    assert 'done: best epoch' in (folder / 'log.txt').read_text()
    assert not (folder.parents[2] / 'lightning_logs').exists()


def test_its_configuration_runs_again(started, tmp_path, capsys):
    assert cli.main(['fit', '--config', str(started[1] / 'config.yaml'), f'out={tmp_path}']) == 0
    again = Path(capsys.readouterr().out.strip())
    assert again.parent == tmp_path / 'unet'
    assert (again / 'metrics.csv').read_bytes() == (started[1] / 'metrics.csv').read_bytes()


def test_evaluation(own_run, capsys):
    folder = own_run('unet')
    for verb, split in (('validate', 'val'), ('test', 'test')):
        assert cli.main([verb, '--checkpoint', str(folder)]) == 0
        out = capsys.readouterr().out
        assert 'building' in out and 'mIoU 0.' in out
        names = {p.name for p in (folder / 'evaluation' / split).iterdir()}
        assert names == {'metrics.csv', 'per_class.csv', 'per_image.csv', 'confusion.csv', 'scores.json'}
    run = geoseg.Run(folder)
    best = run.metrics['mIoU/val'].max()
    evaluated = pd.read_csv(folder / 'evaluation/val/metrics.csv').mIoU[0]
    assert evaluated == best  # the averaged weights, as in training


def test_prediction(trained, tmp_path, capsys):
    assert cli.main(['predict', '--checkpoint', str(trained), f'out={tmp_path}/masks']) == 0
    assert capsys.readouterr().out.strip() == f'{tmp_path}/masks'
    pictures = world_data('folders', size='tiny') / 'images/test'
    assert {p.name for p in tmp_path.rglob('*.png')} == {p.name for p in pictures.iterdir()}
    assert (tmp_path / 'masks/classes.txt').read_text().startswith('0 water')


def test_evaluation_on_another_layout(trained, tmp_path):
    data = world_data('geotagged', size='tiny')
    words = [f'data={data}', 'limit_test_batches=1', f'out={tmp_path}']
    assert cli.main(['test', '--checkpoint', str(trained), *words]) == 0


def test_resume_goes_on(started, tmp_path, capsys):
    run = geoseg.train('unet', 'world:tiny', out=tmp_path, overrides=TINY | {
        'epochs': 1, 'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 1})
    assert cli.main(['fit', f'resume={run.folder}', 'epochs=2']) == 0
    assert capsys.readouterr().out.strip() == str(run.folder)
    assert run.metrics['epoch'].tolist() == [0, 1]


def test_a_mistake_is_one_line(tmp_path):
    done = geoseg_command('fit', '--recipe', 'unet', 'world', folder=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "geoseg fit: 'world': expected --key value, --key=value or name=value\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('verb', ['inspect', 'table', 'init', 'statistics'])
def test_a_folder_alone_is_the_data(verb, tmp_path):
    "Of verbs that look; a word that is no path is still a mistake."
    assert cli.naming_data(verb, [str(tmp_path), 'out=x']) == [f'data={tmp_path}', 'out=x']
    for words in (['nowhere'], [f'data={tmp_path}'], ['--out', 'x'], []):
        assert cli.naming_data(verb, words) == words
    assert cli.naming_data('fit', [str(tmp_path)]) == [str(tmp_path)]


def test_settings():
    config = config_of('--recipe', 'unet', 'lr=1e-3', '--trainer.max_epochs', '2', 'seed=7', 'decoder_channels=[16, 8]',
                       'crop=null', '--color_jitter=null', 'monitor=F1', '--model.init_args.schedule', 'null',
                       'label_smoothing=0.1')
    assert config.model.init_args.optimizer.init_args.lr == 1e-3 and config.trainer.max_epochs == 2
    assert config.seed_everything == 7
    assert config.model.init_args.network.init_args.decoder_channels == (16, 8)
    assert config.data.init_args.augment.crop is config.data.init_args.augment.color_jitter is None
    assert config.run.monitor == 'F1/val'
    assert config.model.init_args.schedule is None and config.model.init_args.loss.init_args.label_smoothing == 0.1


@pytest.mark.parametrize('words', ['--lr=1e-3 epochs=2', '--lr 0.001 max_epochs=2', 'init_args.lr=.001 --epochs 2'])
def test_the_same_setting_in_other_words(words):
    config = config_of('--recipe', 'unet', *words.split())
    assert config.model.init_args.optimizer.init_args.lr == 1e-3 and config.trainer.max_epochs == 2


def test_another_class_brings_its_own_settings():
    loss = config_of('--recipe', 'unet', '--model.init_args.loss.class_path=geoseg.tasks.losses.FocalLoss',
                     '--model.init_args.loss.init_args.gamma=1.5').model.init_args.loss
    assert loss.class_path.endswith('FocalLoss') and loss.init_args.gamma == 1.5
    assert 'label_smoothing' not in loss.init_args


@pytest.mark.parametrize('name, text', [
    ('more.toml', '[trainer]\nmax_epochs = 7\n[model.init_args.network.init_args]\ndropout = 0.25'),
    ('more.json', '{"trainer": {"max_epochs": 7}, "model": {"init_args": {"network": {"init_args": '
                  '{"dropout": 0.25}}}}}'),
    ('more.yaml', 'trainer: {max_epochs: 7}\nmodel: {init_args: {network: {init_args: {dropout: 0.25}}}}'),
])
def test_config_files_overlay_the_recipe(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    config = config_of('--recipe', 'unet', '--config', tmp_path / name)
    assert config.trainer.max_epochs == 7 and config.model.init_args.network.init_args.dropout == 0.25
    assert config.model.init_args.network.init_args.encoder == 'resnet34'  # the recipe's


def test_words_win_over_files(tmp_path):
    (tmp_path / 'more.toml').write_text('trainer.max_epochs = 7')
    config = config_of('epochs=9', '--recipe', 'unet', '--config', tmp_path / 'more.toml')
    assert config.trainer.max_epochs == 9


def test_data_keeps_the_settings_of_config_files(tmp_path):
    (tmp_path / 'a.yaml').write_text('data: {init_args: {num_workers: 1, augment: {blur: 0.5}}}')
    (tmp_path / 'b.json').write_text('{"data": {"init_args": {"num_workers": 3}}}')
    config = config_of('--config', tmp_path / 'a.yaml', '--recipe', 'unet', '--config', tmp_path / 'b.json',
                       'data=world:tiny', 'batch_size=2').data.init_args
    assert (config.num_workers, config.batch_size, config.augment.blur) == (3, 2, 0.5)
    assert config.augment.horizontal_flip == 0.5  # the recipe's
    assert config.root == str(world_data('folders', size='tiny'))


def test_a_root_for_each_split(tmp_path):
    root = world_data('folders', size='tiny')
    config = config_of('--recipe', 'unet', f'data={{train: {root}, val: {root}}}')
    assert config.data.init_args.root == {'train': str(root), 'val': str(root)}


@pytest.mark.parametrize('words, says', [
    (['class_path=x'], "'class_path' is ambiguous: model.class_path, "),
    (['lr=1', '--lr', '2'], 'lr is given twice'),
    (['epochs=1', '--trainer.max_epochs', '2'], 'given twice'),
    (['--epochs'], "'--epochs': expected --key value"),
    (['unet'], "'unet': expected --key value"),
])
def test_words_that_are_not_clear(words, says):
    with pytest.raises(ValueError, match=says):
        config_of('--recipe', 'unet', *words)


def test_every_setting_is_shown(capsys):
    assert cli.main(['fit', '--recipe', 'unet', '--help']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert '--trainer.max_epochs 100' in lines and '--run.patience 10' in lines
    for line in lines:  # each line is itself an override that says what holds already
        assert line.startswith('--') and ' ' in line


def test_help_and_recipes(capsys):
    assert cli.main(['--help']) == 0 and cli.main([]) == 2
    assert len(re.findall(r'^  predict +A class for each pixel', capsys.readouterr().out, re.MULTILINE)) == 2
    assert cli.main(['recipes']) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == geoseg.recipes()


def test_a_recipe_is_shown_complete():
    shown = yaml.safe_load(parse(['unet']).parser.dump(parse(['unet']).config, skip_unset=False))
    assert {'seed_everything', 'trainer', 'model', 'data', 'run'} == set(shown)
    with pytest.raises(ConfigError, match='no recipe given'):
        parse([])


def test_chips_of_rasters_keep_their_size():
    augment = config_of('--recipe', 'unet', f'data={world_data("raster", size="tiny")}').data.init_args.augment
    assert augment.image_size is None and augment.crop is None and augment.color_jitter is not None
    config = config_of('--recipe', 'unet', f'data={world_data("raster", size="tiny")}', 'crop=[64, 64]')
    assert config.data.init_args.augment.crop == (64, 64)


def test_inspect_and_profile_say_what_a_run_would_meet(tmp_path, capsys):
    settings = ['data=world:tiny', *tiny.words(TINY)]
    assert cli.main(['inspect', '--recipe', 'unet', *settings, f'out={tmp_path}']) == 0
    said = capsys.readouterr().out
    assert 'building' in said and 'masks lie on their pictures' in said and len(said.splitlines()) <= 10
    assert said.splitlines()[-1].startswith('next: geoseg fit --recipe unet data=world:tiny')
    assert {p.name for p in tmp_path.iterdir()} == {'classes.csv', 'classes.png', 'overlay.png', 'split.csv',
                                                    'remarks.txt'}
    settings = ['data=world:tiny', *tiny.words(TINY | {'batch_size': 2})]
    assert cli.main(['profile', '--recipe', 'unet', *settings, 'steps=1']) == 0
    said = capsys.readouterr().out
    assert 'waiting for data' in said and 'kept for backward' in said and 'ms a step of 2 samples' in said
