"A server answers files as predict does; clients that mean no good are answered in a line, and the others still."
import asyncio
import io
import json
import threading
import time

import httpx
import numpy as np
import pytest
import rasterio
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import nn

import geoseg
from geoseg import cli
from geoseg.inference.answer import Trained
from geoseg.inference.serve import Limits, Served, make_app


def png(shape=(40, 60, 3), seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8)).save(file, 'PNG')
    return file.getvalue()


@pytest.fixture(scope='module')
def served(tiny_run):
    return Served(Trained(tiny_run('unet')), megapixels=1)


@pytest.fixture(scope='module')
def client(served):
    return TestClient(make_app(served, Limits(megabytes=1, megapixels=1)), raise_server_exceptions=False)


def test_the_same_as_predict(served, client, scene, tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.png').write_bytes(png())
    geoseg.predict(served.trained.path, tmp_path / 'in' / 'a.png', tmp_path / 'out')
    answer = client.post('/predict', content=png())
    assert answer.status_code == 200 and answer.headers['content-type'] == 'image/png', answer.text
    with Image.open(io.BytesIO(answer.content)) as one, Image.open(tmp_path / 'out' / 'a.png') as two:
        assert (np.asarray(one) == np.asarray(two)).all()
    geoseg.predict(served.trained.path, scene, tmp_path / 'map')
    answer = client.post('/predict', content=scene.read_bytes())
    assert answer.status_code == 200 and answer.headers['content-type'] == 'image/tiff', answer.text
    with rasterio.MemoryFile(answer.content) as memory, memory.open() as one, rasterio.open(
            tmp_path / 'map' / 'scene_classes.tif') as two:
        assert (one.read() == two.read()).all() and (one.crs, one.transform) == (two.crs, two.transform)
        assert one.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
    assert client.get('/').json()['classes'] == served.trained.scheme.names


def bomb():
    "A PNG of few bytes and many pixels."
    file = io.BytesIO()
    Image.new('1', (20_000, 20_000)).save(file, 'PNG')
    return file.getvalue()


def test_hostile_files_are_one_line(client, scene):
    whole = scene.read_bytes()
    for content, status in ((b'', 415), (b'GIF89a', 415), (b'<VRTDataset rasterXSize="9">', 415), (png()[:80], 422),
                            (b'II*\0' + bytes(50), 415), (whole[:len(whole) // 2], 422), (bytes(1_100_000), 413),
                            (bomb(), 413), (png((8, 8)), 200), (b'%PDF-1.4', 415)):
        answer = client.post('/predict', content=content)
        assert answer.status_code == status, (content[:10], answer.status_code, answer.text)
        if status != 200:
            assert answer.text.count('\n') == 1 and '/' not in answer.text.replace('and/or', ''), answer.text
    assert client.get('/predict').status_code == 405 and client.get('/../../etc/passwd').status_code == 404
    assert client.post('/predict', content=png(), headers={'host': 'evil.example'}).status_code == 400


class Slow(nn.Module):
    def forward(self, image):
        time.sleep(0.05)
        return {'logits': torch.zeros(len(image), 2, *image.shape[2:])}


def test_a_hundred_clients_half_of_them_hostile(served, monkeypatch):
    "Each gets an answer; those that are refused are refused at once; none answers at the same time as another."
    busy, most = threading.Semaphore(1), []

    def answer(content, own=served.answer):
        most.append(busy.acquire(blocking=False))
        try:
            time.sleep(0.01)
            return own(content)
        finally:
            busy.release()

    monkeypatch.setattr(served, 'answer', answer)
    app = make_app(served, Limits(megabytes=0.1, megapixels=1, seconds=0.3, waiting=4))
    good = png((8, 8, 3))

    async def endless():
        while True:
            yield b'II*\0'
            await asyncio.sleep(0.05)

    async def ask(number, http):
        content = [good, bytes(200_000), png()[:50], None][number % 2 and 1 + number // 2 % 3]
        return number % 2, (await http.post('/predict', content=endless() if content is None else content))

    async def all_of_them():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://localhost') as http:
            found = await asyncio.gather(*(ask(number, http) for number in range(100)))
            return found, (await http.post('/predict', content=good))

    found, after = asyncio.run(all_of_them())
    assert {answer.status_code for hostile, answer in found if not hostile} <= {200, 503}
    assert {answer.status_code for hostile, answer in found if hostile} <= {408, 413, 422, 415, 503}
    assert sum(answer.status_code == 200 for _, answer in found) >= 3 and all(most)  # of the first five
    assert after.status_code == 200  # nothing is held by those that have gone


def test_from_the_command_line(tiny_run, capsys):
    run = str(tiny_run('unet'))
    assert cli.main(['serve', '--checkpoint', run, 'listen=false']) == 0
    assert capsys.readouterr().out == 'http://127.0.0.1:8080/\n'
    for words, says in ((['port=70000'], 'port is 70000'), (['waiting=-1'], 'waiting is -1'),
                        (['seconds=0'], 'seconds is 0'), (['megabytes=x'], "megabytes is 'x'"),
                        (['portt=1'], 'portt')):
        assert cli.main(['serve', '--checkpoint', run, 'listen=false', *words]) == 2
        assert says in capsys.readouterr().err, json.dumps(words)
