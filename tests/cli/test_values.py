"""What a person types is understood, and what a message asks for can be typed."""
import io
import os
import re
import sys
import warnings

import numpy as np
import pytest
import rasterio
import tiny
import yaml

import geoseg
from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.data.loading import ResumableLoader, usable_workers
from geoseg.training.config import parse
from geoseg.world.layouts import world_data


def settings_of(*words, recipe='unet', data='world:tiny'):
    "The flat configuration that words of a command line lead to, by the last part of each name."
    words = cli.sort_words(['--recipe', recipe, f'data={data}', *words])
    config = parse([words.recipe], words.overrides).config
    return {key.rpartition('.')[2]: value for key, value in config.items(branches=False)}


@pytest.mark.parametrize('typed, name, value', [
    ('value_range=[0,1]', 'value_range', (0, 1)), ('value_range=[[0,1]]', 'value_range', [(0, 1)]),
    ('value_range=null', 'value_range', None), ('pattern={date}_refl.tif', 'pattern', '{date}_refl.tif'),
    ('mask_pattern={date}.tif', 'mask_pattern', '{date}.tif'), ('color_jitter=null', 'color_jitter', None),
    ('color_jitter=None', 'color_jitter', None), ('bands=[1,2,3]', 'bands', [1, 2, 3]),
])
def test_settings_of_rasters(typed, name, value):
    for recipe in ('unet', 'geosegformer'):
        assert settings_of(typed, recipe=recipe, data=world_data('raster', size='tiny'))[name] == value


@pytest.mark.parametrize('typed, value', [
    ('data={date}_image.tif', '{date}_image.tif'), ('data={date}', '{date}'), ('data={train: a, val: b}',
                                                                              {'train': 'a', 'val': 'b'}),
    ('data={predict: "a b"}', {'predict': 'a b'})])
def test_braces(typed, value):
    assert cli.sort_words([typed]).overrides == {'data': value}
    assert list(cli.paths_in(value)) == ([*value.values()] if isinstance(value, dict) else [value])


def test_one_range_is_the_range_of_all_bands(tmp_path):
    from geoseg.data.labels import LabelScheme
    from geoseg.data.rasters.reader import Reader
    scheme = LabelScheme.load('water')
    assert Reader(scheme, value_range=(0, 1)).value_range == [(0, 1)]
    assert Reader(scheme, value_range=[(0, 1), (0, 2)]).value_range == [(0, 1), (0, 2)]


@pytest.mark.parametrize('key, value', [('trainer.gradient_clip_val', '.nan'), ('warmup_epochs', '.nan'),
                                        ('lr', '.nan'), ('ratios', '[.nan, 1, 1]')])
def test_no_number_is_no_setting(key, value):
    with pytest.raises(ConfigError, match=rf'{key.rpartition(".")[2]} is .*nan.*expected numbers'):
        parse(['unet'], {key: value})


@pytest.mark.parametrize('monitor', ['loss', 'miou', 'Loss/VAL', 'f1/train'])
def test_the_name_of_a_score_in_any_case(tmp_path, monitor):
    run = tiny.train('unet', tmp_path, epochs=1, monitor=monitor, **{'trainer.limit_train_batches': 1})
    assert run.monitor.lower() in (monitor.lower(), f'{monitor}/val')
    assert run.monitor in run.metrics.columns
    assert yaml.safe_load((run.folder / 'config.yaml').read_text())['run']['monitor'] == run.monitor


@pytest.mark.parametrize('typed', ['color', '[color]', 'color,overlay'])
def test_layers(trained, tmp_path, typed):
    assert cli.main(['predict', '--checkpoint', str(trained), f'write={typed}', f'out={tmp_path}']) == 0
    for layer in re.findall(r'\w+', typed):
        assert list((tmp_path / layer).rglob('*.png'))


def test_a_message_asks_for_what_can_be_typed(tmp_path, capsys):
    'Float rasters of four bands: each message names the setting that leads on.'
    folder = world_data('raster', size='tiny')
    for path in folder.glob('*.csv'):
        (tmp_path / path.name).write_text(path.read_text())
    for path in sorted(folder.glob('*.tif')):
        with rasterio.open(path) as f:
            profile, values = f.profile, f.read()
        if 'image' in path.name:
            values = np.concatenate([values, values[:1]]).astype('float32') / 255
            profile |= {'count': 4, 'dtype': 'float32', 'nodata': None, 'photometric': None}
        with rasterio.open(tmp_path / path.name, 'w', **{k: v for k, v in profile.items() if v is not None}) as f:
            f.write(values)
    words, settings = [], tiny.settings('unet', epochs=1, crop=None, image_size=None)
    for _ in range(4):
        status = cli.main(['fit', '--recipe', 'unet', f'data={tmp_path}', f'out={tmp_path / "runs"}',
                           *tiny.words(settings), 'trainer.limit_train_batches=1', *words])
        said = capsys.readouterr().err.strip().rpartition('\n')[2]
        if status == 0:
            break
        asked = re.search(r'\b(\w+=[\w\[\],.]+)', said)
        assert asked, said
        words.append(asked[1].rstrip(',.').replace('LOW', '0').replace('HIGH', '1'))
    assert status == 0 and {word.partition('=')[0] for word in words} >= {'color_jitter', 'value_range'}, (words, said)


def test_workers_are_as_many_as_the_machine_has_cores_for():
    cores = len(os.sched_getaffinity(0))
    assert [usable_workers(n) for n in (0, 1, cores, cores + 6)] == [0, 1, cores, cores]
    config = parse(['unet'], {'data': 'world:tiny', 'num_workers': 512})
    data = config.build_data()
    assert isinstance(data.train_dataloader(), ResumableLoader) and data.train_dataloader().num_workers == cores
    assert config.config.data.init_args.num_workers == 512


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_and_lines_of_scores(tmp_path, monkeypatch):
    given = tiny.settings('unet', **{'trainer.limit_train_batches': 2, 'trainer.enable_progress_bar': None})
    monkeypatch.setattr(sys, 'stderr', Terminal())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('default')
        geoseg.train('unet', 'world:tiny', out=tmp_path, overrides=given)
    shown = sys.stderr.getvalue()
    assert 'epoch 0 (the last is 1)' in shown and re.search(r'epoch 1 .*loss \d\.\d+, mIoU/val 0\.\d+', shown)
    assert 'v_num' not in shown
    ours = [w for w in warned if 'LeafSpec' in str(w.message) or 'log_every_n_steps' in str(w.message)
            or 'Jsonargparse' in w.category.__name__]
    assert not ours, ours


def test_a_file_gets_no_bar(tmp_path, monkeypatch):
    given = tiny.settings('unet', epochs=1, **{'trainer.limit_train_batches': 1})
    given.pop('trainer.enable_progress_bar')
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    geoseg.train('unet', 'world:tiny', out=tmp_path, overrides=given)
    assert '%|' not in sys.stderr.getvalue()
