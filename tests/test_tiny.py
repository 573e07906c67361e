"The runs that other tests share."
import os

import pytest
import tiny

import geoseg


def test_every_recipe_has_tiny_settings():
    assert sorted(tiny.SETTINGS) == sorted(geoseg.recipes())
    with pytest.raises(LookupError, match="'other' has no tiny settings"):
        tiny.settings('other')


@pytest.mark.parametrize('recipe', geoseg.recipes())
def test_a_tiny_run_is_whole(tiny_run, recipe):
    run = geoseg.Run(tiny_run(recipe))
    assert run.best.is_file() and run.last.is_file() and run.metrics.notna().any(axis=None)
    assert run.config['seed_everything'] == 3


def test_what_is_made_once_is_made_once(once, tmp_path):
    made = []
    with pytest.raises(OSError, match='full'):
        once('failed', lambda folder: (folder / 'a').touch() or raise_(OSError('the disk is full')))
    for _ in range(2):
        folder = once('failed', made.append)
    assert made == [folder] and not list(folder.iterdir())


def raise_(error):
    raise error


def test_a_file_that_was_written_to_is_seen(tmp_path):
    (tmp_path / 'a').write_text('1')
    before = tiny.files_of(tmp_path)
    os.utime(tmp_path / 'a', ns=(0, 1))
    assert tiny.files_of(tmp_path) != before
