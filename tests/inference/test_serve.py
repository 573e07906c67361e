"A server answers files as predict does; clients that mean no good are answered in a line, and the others still."
import asyncio
import contextlib
import gzip
import io
import json
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from geoseg.inference.wrapped import ModelFile


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


def tif(bands=3, side=40, kind='uint8', **more):
    "A GeoTIFF; sparse where nothing is written."
    with rasterio.MemoryFile() as memory:
        with memory.open(driver='GTiff', width=side, height=side, count=bands, dtype=kind, crs='EPSG:32633',
                         transform=rasterio.transform.from_origin(4e5, 5.2e6, 1, 1), **more) as file:
            if not more:
                file.write(np.ones((bands, side, side), kind))
        return memory.read()


def post(body, path='/predict', **headers):
    "A whole request; the server hangs up after its answer."
    lines = {'Host': '127.0.0.1', 'Connection': 'close', 'Content-Length': len(body)} | headers
    head = f'POST {path} HTTP/1.1\r\n' + ''.join(f'{name}: {value}\r\n' for name, value in lines.items())
    return head.encode() + b'\r\n' + body


def form(name):
    "A file as a form of a page sends it."
    return (f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + png()
            + b'\r\n--x--\r\n')


SPARSE = {'sparse_ok': True, 'tiled': True, 'bigtiff': 'yes'}
FORM = {'Content-Type': 'multipart/form-data; boundary=x'}
ATTACKS = {  # requests, and the status of their one line
    'a name that climbs': (lambda: post(form('../../../etc/passwd'), **FORM), 415),
    'a path that climbs': (lambda: post(png(), '/predict/../../../etc/passwd'), 404),
    'a path that climbs in disguise': (lambda: post(png(), '/%2e%2e/%2e%2e/etc/passwd'), 404),
    'a name in the query': (lambda: post(b'', '/predict?data=/etc/passwd&out=/tmp/x'), 415),
    'a packed body': (lambda: post(gzip.compress(bytes(9_000_000)), **{'Content-Encoding': 'gzip'}), 415),
    'a bomb of pixels': (lambda: post(bomb()), 413),
    'a bomb of text': (lambda: post(png_with_text()), 415),
    'a raster of nothing': (lambda: post(tif(side=200_000, **SPARSE)), 413),
    'a raster of a thousand bands': (lambda: post(tif(1000, 900, **SPARSE)), 422),
    'four bands': (lambda: post(tif(4)), 422), 'one band': (lambda: post(tif(1)), 422),
    'numbers that no range is known of': (lambda: post(tif(kind='float32')), 422),
    'a raster that names another file': (lambda: post(b'<VRTDataset><SourceFilename>/etc/passwd'), 415),
    'too much': (lambda: post(bytes(90_000) * 2), 413),
    'a lie about the length': (lambda: post(png(), **{'Content-Length': '99999999999'}), 408),
    'two lengths': (lambda: post(png(), **{'content-length': '5'}), 400)}


def png_with_text():
    "A picture with a comment of few bytes that unpacks to many."
    body = zlib.compress(bytes(80_000_000), 9)[:70_000]
    chunk = b'zTXt' + b'a\0\0' + body
    whole = png()
    return whole[:33] + len(chunk[4:]).to_bytes(4, 'big') + chunk + zlib.crc32(chunk).to_bytes(4, 'big') + whole[33:]


def reply(port, content):
    "Status and text that a client gets until the server hangs up."
    with socket.create_connection(('127.0.0.1', port), timeout=20) as line:
        with contextlib.suppress(ConnectionError):  # it may answer before all is sent
            line.sendall(content)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := line.recv(1 << 16):
                parts.append(part)
    head, _, text = b''.join(parts).partition(b'\r\n\r\n')
    return int(head.split()[1]) if head else None, text


def test_each_attack_is_one_line_and_the_server_goes_on(port, client):
    alone, wrong = client.post('/predict', content=png()).content, {}
    for name, (make, status) in ATTACKS.items():
        found, text = reply(port, make())
        if found != status or text.count(b'\n') > 1 or any(part in text for part in (b'/tmp', b'Traceback')):
            wrong[name] = found, text
        if reply(port, post(png(), **{'Content-Type': 'text/html'})) != (200, alone):
            wrong[name] = 'an honest client, afterwards'
    assert not wrong


def test_who_waits_with_half_a_head_is_hung_up(port):
    "Also after a whole request on the same line, and when bytes come one by one."
    lines = [socket.create_connection(('127.0.0.1', port), timeout=30) for _ in range(30)]
    for number, line in enumerate(lines):
        if number % 3 == 1:
            line.sendall(b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
            answer = b''
            while not answer.endswith(b'}}'):
                answer += line.recv(1 << 16)
        line.sendall(HEAD if number % 3 else HEAD[:9])
    for line in lines:
        with contextlib.suppress(ConnectionError):
            assert line.recv(1 << 16) == b''  # or the test ends with a timeout
        line.close()


def test_who_does_not_take_an_answer_is_hung_up(port, served):
    "The client's window is small, and the answer is larger than what lies in between."
    body = b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(30)
        line.connect(('127.0.0.1', port))
        end, hung_up = time.monotonic() + 60, False
        line.setblocking(False)
        while time.monotonic() < end and not hung_up:  # asks, and never reads
            try:
                line.send(body)
            except BlockingIOError:
                time.sleep(0.05)
            except ConnectionError:
                hung_up = True
    assert hung_up


def test_a_large_picture_goes_through_windows(monkeypatch):
    "At once it could take all memory; where pictures are brought to one size, they are small."
    sides = []

    class Bright(nn.Module):
        def forward(self, image):
            sides.append(max(image.shape[2:]))
            gray = image.mean(1, keepdim=True)
            return torch.cat([0.5 - gray, gray - 0.5], 1)

    class Wrapped(ModelFile):
        def __init__(self, **more):  # a module, which has no file
            facts = {'classes': ['dark', 'bright'], 'mean': [0.] * 3, 'std': [1.] * 3, 'answer': 'logits'}
            self.wrapped = geoseg.Predictor.wrap(Bright(), **facts, **more)
            self.path, self.overrides, self.card, self.kind = Path('a'), {}, self.wrapped.card, 'segmentation'

    monkeypatch.setattr('geoseg.inference.serve.AT_ONCE', 1)
    for more, most in (({}, 512), ({'image_size': [64, 64]}, 64)):
        client = TestClient(make_app(Served(Wrapped(**more))))
        sides.clear()
        answer = client.post('/predict', content=png((1100, 1000, 3)))
        assert answer.status_code == 200 and max(sides) == most, answer.text
        if not more:
            client.post('/predict', content=png((900, 1000, 3)))
            assert max(sides) == 1000


def test_from_the_command_line(tiny_run, capsys):
    run = str(tiny_run('unet'))
    assert cli.main(['serve', '--checkpoint', run, 'listen=false']) == 0
    assert capsys.readouterr().out == 'http://127.0.0.1:8080/\n'
    for words, says in ((['port=70000'], 'port is 70000'), (['waiting=-1'], 'waiting is -1'),
                        (['seconds=0'], 'seconds is 0'), (['megabytes=x'], "megabytes is 'x'"),
                        (['portt=1'], 'portt')):
        assert cli.main(['serve', '--checkpoint', run, 'listen=false', *words]) == 2
        assert says in capsys.readouterr().err, json.dumps(words)
