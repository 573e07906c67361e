"""Parts of files on a server: hosts, redirects, virtual rasters, failures, and what is kept on disk."""
import threading

import numpy as np
import pytest
import rasterio
from a_server import Server
from rasterio.transform import from_origin
from rasterio.windows import Window

from geoseg.core.errors import ConfigError
from geoseg.core.remote import Access, DiskCache, RemoteError, RemoteFile, fetch, is_allowed
from geoseg.data.rasters.files import read_bands
from geoseg.data.rasters.remote import open_remote

ACCESS = Access(('127.0.0.1',), tries=4, pause=0.01)
SIDE = 256


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp('served')
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 900, (3, SIDE, SIDE)).astype(np.uint16)
        with rasterio.open(root / f'{number}.tif', 'w', driver='COG', height=SIDE, width=SIDE, count=3, dtype='uint16',
                           crs='EPSG:32612', transform=from_origin(5e5, 4e6, 10, 10), blocksize=128,
                           compress='deflate', overviews='none') as f:
            f.write(pixels)
    server = Server(root)
    yield server
    server.stop()


@pytest.fixture
def server(served, monkeypatch):
    monkeypatch.setattr(RemoteFile, 'known', {})
    served.fail, served.redirects, served.pages = (lambda number, path: None), {}, {}
    served.forget()
    return served


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / 'parts')


def windows():
    return [Window(128 * col, 128 * row, 128, 128) for row, col in np.ndindex(2, 2)]


def test_what_is_fetched_is_what_gdal_fetches_and_once(server, cache):
    with open_remote(f'{server.address}/0.tif', ACCESS, cache) as f, rasterio.open(server.root / '0.tif') as truth:
        for window in windows():
            assert np.array_equal(f.read(window=window), truth.read(window=window))
    asked, sent = server.requests, server.bytes
    assert set(server.paths) == {'/0.tif'}  # nothing beside it is looked for
    server.forget()
    with open_remote(f'{server.address}/0.tif', ACCESS, cache) as f:
        f.read()
    assert server.requests == 0
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'):
        with rasterio.open(f'/vsicurl/{server.address}/gdal/0.tif') as f:
            for window in windows():
                f.read(window=window)
    assert sent <= 1.3 * server.bytes and asked <= 1.3 * server.requests + 2, (asked, sent, server.requests)


def test_failures_of_a_moment_are_asked_again_and_others_are_one_line(server, cache):
    server.fail = lambda number, path: {1: 503, 2: 'cut', 3: 429}.get(number % 4)
    whole = (server.root / '0.tif').read_bytes()
    assert RemoteFile(f'{server.address}/0.tif', ACCESS, cache).read(5, 90_000) == whole[5:90_005]
    server.fail = lambda number, path: 500 if number > 1 else None
    server.forget()
    with open_remote(f'{server.address}/1.tif', ACCESS, cache) as f:
        for _ in range(2):  # rasterio would tell the first error again
            with pytest.raises(RemoteError, match=r'1.tif: the server does not answer after 4 tries \(status 500\)'):
                read_bands(f, [1], Window(128, 128, 128, 128))
        server.fail = lambda number, path: None
        assert read_bands(f, [1], Window(128, 128, 128, 128))[0].shape == (128, 128, 1)
    for status, said in (404, 'status 404'), (403, 'not allowed; set sign='):
        server.fail = lambda number, path, status=status: status
        with pytest.raises(RemoteError, match=said):
            open_remote(f'{server.address}/2.tif', ACCESS, cache)


def test_hosts_that_nobody_named_are_not_asked(server):
    for wide in '*', '*.0.0.1', '*.localhost':  # loopback, private and link-local hosts are written out
        assert not is_allowed(server.address, Access((wide,)))
        assert not is_allowed('http://169.254.169.254/latest', Access((wide,)))
        for odd in 'http://2130706433/', 'http://[::1]/':
            assert not is_allowed(odd, Access((wide,)))
    assert is_allowed(server.address, Access(('127.0.0.1',)))
    assert not is_allowed(server.address, Access(('127.0.0.1:1',)))
    server.redirects['/there.json'] = 'http://169.254.169.254/latest?key=SECRET'
    with pytest.raises(ConfigError, match='there.json: names hosts that are not allowed: 169.254.169.254') as told:
        fetch(f'{server.address}/there.json', ACCESS)
    assert 'SECRET' not in str(told.value)
    server.redirects['/round.json'] = '/round.json'
    with pytest.raises(RemoteError, match='more than 5 redirects'):
        fetch(f'{server.address}/round.json', ACCESS)


def test_redirects_and_virtual_rasters_stay_with_the_hosts(server, cache):
    server.redirects['/moved.tif'] = '/0.tif'
    whole = (server.root / '0.tif').read_bytes()
    assert RemoteFile(f'{server.address}/moved.tif', ACCESS, cache).read(100, 9000) == whole[100:9100]
    text = (f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32612</SRS><GeoTransform>5e5,10,0,4e6,0,'
            '-10</GeoTransform><VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT='
            '"{}">{}</SourceFilename><SourceBand>2</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>')
    (server.root / 'a.vrt').write_text(text.format(1, '0.tif'))
    with open_remote(f'{server.address}/a.vrt', ACCESS, cache) as f, rasterio.open(server.root / '0.tif') as g:
        assert np.array_equal(f.read(1), g.read(2))
    for address in 'https://other.example.org/b.tif', '/vsicurl/https://other.example.org/b.tif':
        (server.root / 'b.vrt').write_text(text.format(0, address))
        with pytest.raises(ConfigError, match='b.vrt: names hosts that are not allowed: other.example.org'):
            open_remote(f'{server.address}/b.vrt', ACCESS, cache)
    (server.root / 'b.vrt').write_text(text.format(0, '/etc/passwd.tif'))
    with pytest.raises(ConfigError, match='expected https://'):
        open_remote(f'{server.address}/b.vrt', ACCESS, cache)


def test_a_full_cache_lets_the_oldest_go_and_a_changed_file_is_another(server, tmp_path):
    cache = DiskCache(tmp_path / 'parts', limit=1_500_000)
    files = {i: RemoteFile(f'{server.address}/{i}.tif', ACCESS, cache) for i in range(3)}
    for _ in range(2):
        for i, file in files.items():
            assert file.read(0, file.size) == (server.root / f'{i}.tif').read_bytes()
    assert 0 < sum(size for _, size, _ in cache.entries()) <= cache.limit + files[0].size
    path, address = server.root / 'changing.bin', f'{server.address}/changing.bin'
    path.write_bytes(b'a' * 50_000)
    old = RemoteFile(address, ACCESS, cache)
    assert old.read(20_000, 10) == b'a' * 10
    path.write_bytes(b'b' * 60_000)
    with pytest.raises(RemoteError, match='has changed while it was read'):
        old.read(40_000, 10)
    RemoteFile.known.clear()
    assert RemoteFile(address, ACCESS, cache).read(20_000, 10) == b'b' * 10


def test_threads_and_processes_share_parts(server, cache):
    whole, wrong = (server.root / '0.tif').read_bytes(), []
    def work(seed):
        file, rng = RemoteFile(f'{server.address}/0.tif', ACCESS, cache), np.random.default_rng(seed)
        for start in rng.integers(0, len(whole), 12):
            count = int(rng.integers(1, 60_000))
            if file.read(int(start), count) != whole[start:start + count]:
                wrong.append((start, count))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    opened = []
    thread = threading.Thread(target=lambda: opened.append(open_remote(f'{server.address}/1.tif', ACCESS, cache)))
    thread.start()
    thread.join()
    assert opened[0].read(1, window=windows()[0]).shape == (128, 128)
    opened.clear()  # closed by another thread than the one that opened it
