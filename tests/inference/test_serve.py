"A server answers files as predict does; clients that mean no good are answered in a line, and the others still."
import asyncio
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import rasterio
import torch
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from torch import nn

import geoseg
from geoseg import cli
from geoseg.inference.answer import Trained
from geoseg.inference.serve import Limits, Served, make_app, serve


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


HEAD = b'POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n'
HOSTILE = {  # bytes of a client, statuses that it may get; None: no answer
    'silent': (b'', {None}), 'half a head': (HEAD, {None}), 'no HTTP': (bytes(range(256)) * 20, {400}),
    'an endless head': (HEAD + b'X: ' + b'a' * 200_000, {400, 431, None}),
    'less than it says': (HEAD + b'Content-Length: 90\r\n\r\nII*\0', {408}),
    'too much': (HEAD + b'Content-Length: 900000\r\n\r\n' + bytes(900_000), {413, None}),
    'no number': (HEAD + b'Content-Length: -1\r\n\r\n', {400}),
    'a broken chunk': (HEAD + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n', {400, 500, None}),
    'another host': (HEAD.replace(b'127.0.0.1', b'evil.example') + b'Content-Length: 0\r\n\r\n', {400}),
    'a file of another kind': (HEAD + b'Content-Length: 4\r\n\r\nGIF8', {415}),
    'no such method': (b'DELETE /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n', {405}),
    'gone at once': (HEAD + b'Content-Length: %d\r\n\r\n' % len(png()) + png(), None)}


@pytest.fixture
def port(tiny_run, monkeypatch):
    "Of a server that listens on loopback, as `geoseg serve` starts it."
    servers, plain = [], uvicorn.Server.startup

    async def startup(self, sockets=None):
        await plain(self, sockets)
        servers.append(self)

    monkeypatch.setattr(uvicorn.Server, 'startup', startup)
    how = {'port': 0, 'megabytes': 0.1, 'megapixels': 1, 'seconds': 1, 'waiting': 2 * len(HOSTILE)}
    thread = threading.Thread(target=serve, args=(tiny_run('unet'),), kwargs=how, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not servers and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.02)
    host, number = servers[0].servers[0].sockets[0].getsockname()
    assert host == '127.0.0.1'
    yield number
    servers[0].should_exit = servers[0].force_exit = True
    thread.join(20)
    assert not thread.is_alive()


def send(port, content, expected):
    "The status that a client of bytes gets; None: none, or it was hung up."
    with socket.create_connection(('127.0.0.1', port), timeout=20) as line:
        try:
            line.sendall(content)
            if expected is None:
                return None
            line.settimeout(1.5 if expected == {None} else 20)
            first = line.recv(4096).split(b'\r\n')[0].split()
            return int(first[1]) if first else None
        except (TimeoutError, ConnectionError):
            return None


def test_a_crowd_at_a_real_port_half_of_it_hostile(port, client):
    "Every honest client gets the mask that it gets alone, and the server is there when all have gone."
    pictures = [png((40, 60, 3), seed) for seed in range(len(HOSTILE))]
    alone = [client.post('/predict', content=picture).content for picture in pictures]

    def honest(picture):
        return httpx.post(f'http://127.0.0.1:{port}/predict', content=picture, timeout=60, trust_env=False)

    with ThreadPoolExecutor(2 * len(HOSTILE)) as pool:
        bad = {name: pool.submit(send, port, *of) for name, of in HOSTILE.items()}
        good = [pool.submit(honest, picture) for picture in pictures]
        found = {name: one.result() for name, one in bad.items()}
        answers = [one.result() for one in good]
    assert [answer.status_code for answer in answers] == [200] * len(pictures)
    assert [answer.content for answer in answers] == alone
    wrong = {name: status for name, status in found.items() if HOSTILE[name][1] and status not in HOSTILE[name][1]}
    assert not wrong
    assert 'server' not in answers[0].headers and honest(pictures[0]).content == alone[0]


def test_from_the_command_line(tiny_run, capsys):
    run = str(tiny_run('unet'))
    assert cli.main(['serve', '--checkpoint', run, 'listen=false']) == 0
    assert capsys.readouterr().out == 'http://127.0.0.1:8080/\n'
    for words, says in ((['port=70000'], 'port is 70000'), (['waiting=-1'], 'waiting is -1'),
                        (['seconds=0'], 'seconds is 0'), (['megabytes=x'], "megabytes is 'x'"),
                        (['portt=1'], 'portt')):
        assert cli.main(['serve', '--checkpoint', run, 'listen=false', *words]) == 2
        assert says in capsys.readouterr().err, json.dumps(words)
