"""The small configuration of each recipe, and the notebook that takes it."""
import shlex

import pytest
import yaml
from warm import execute

import geoseg
from geoseg import cli
from geoseg.training.config import parse
from geoseg.training.run import Run
from geoseg.training.small import fit_command, small_settings


@pytest.mark.parametrize('recipe', geoseg.recipes())
def test_a_recipe_has_a_small_configuration_that_the_command_line_takes(recipe):
    settings = small_settings(recipe)
    assert 'batch_size' in settings
    whole, small = (parse([recipe], {'data': 'world:tiny'} | given).config for given in ({}, settings))
    line = shlex.split(fit_command(recipe, {'data': 'world:tiny', 'epochs': None}, settings))
    words = cli.sort_words(line[2:])
    typed = parse([words.recipe], words.overrides).config
    values = [dict(config.items(branches=False)) for config in (whole, small, typed)]
    changed = {key.rpartition('.')[2] for key in values[0] if values[0][key] != values[1][key]}
    assert values[1] == values[2] and changed <= set(settings)


@pytest.mark.long
def test_the_notebook_takes_it_where_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    few = {'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 1, 'draw_every_n_epochs': 0}
    executed = execute('train.ipynb', tmp_path, recipe='unet', data='world:tiny', epochs=1, out=str(tmp_path / 'runs'),
                       overrides=few)
    said = ''.join(output.get('text', '') for cell in executed.cells for output in cell.get('outputs', ()))
    assert 'The small configuration of unet' in said
    [line] = [line for line in said.splitlines() if line.startswith('geoseg fit --recipe unet')]
    [folder] = (tmp_path / 'runs/unet').iterdir()
    config = yaml.safe_load((folder / 'config.yaml').read_text())
    assert config['data']['init_args']['augment']['image_size'] == small_settings('unet')['image_size']
    assert cli.main([*shlex.split(line)[1:], 'trainer.enable_progress_bar=false']) == 0
    one, two = sorted((tmp_path / 'runs/unet').iterdir())
    assert (one / 'metrics.csv').read_bytes() == (two / 'metrics.csv').read_bytes()
    assert len(Run(two).metrics) == 1
