"""Verbs on bad data: one line that names the file, exit status 2, and nothing written."""
import json

import numpy as np
import pytest
import tiny
from PIL import Image

from geoseg import cli

GPS = 'filename,lat,long\n' + ''.join(f'p{i}.png,50,4.{i}\n' for i in range(8))


@pytest.fixture
def photos(tmp_path):
    "Geotagged photos with masks of two classes."
    folder, draw = tmp_path / 'photos', np.random.default_rng(0)
    for kind in ('img', 'mask'):
        (folder / kind).mkdir(parents=True)
    for i in range(8):
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / 'img' / f'p{i}.png')
        Image.fromarray(draw.integers(0, 2, (64, 64), dtype=np.uint8)).save(folder / 'mask' / f'p{i}.png')
    (folder / 'classes.txt').write_text('0 ground\n1 building\n')
    (folder / 'gps.csv').write_text(GPS)
    return folder


BAD = {
    'gps.csv': GPS.replace('lat', 'latitude_of_it').encode(), 'classes.txt': b'0 ground\n0 building\n',
    'mask/p3.png': b'no picture', 'img/p3.png': b'\x89PNG\r\n\x1a\n' + bytes(40),
}


@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('verb', ['inspect', 'profile', 'fit'])
def test_a_bad_file_is_named(photos, tmp_path, capsys, verb, name):
    (photos / name).write_bytes(BAD[name])
    words = [verb, '--recipe', 'unet', f'data={photos}', *tiny.words(tiny.settings('unet', epochs=1, batch_size=2))]
    assert cli.main(words + ([f'out={tmp_path / "runs"}'] if verb == 'fit' else [])) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(said) == 1 and name.rpartition('/')[2] in said[0], said


@pytest.mark.parametrize('verb', ['predict', 'test', 'validate', 'calibrate', 'halt-cal', 'efficiency'])
@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', json.dumps([1, 2]).encode()])
def test_a_checkpoint_that_is_none(tmp_path, capsys, verb, content):
    path = tmp_path / 'best.ckpt'
    path.write_bytes(content)
    assert cli.main([verb, '--checkpoint', str(path)]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert 'best.ckpt' in said
    assert [p.name for p in tmp_path.iterdir()] == ['best.ckpt']
