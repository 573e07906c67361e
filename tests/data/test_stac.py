"""Data behind a STAC catalogue, on a server that fails now and then: what is asked, kept, refused and answered."""
import json
import logging
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import rasterio
import tiny
from a_server import Server
from rasterio.transform import from_origin
from rasterio.windows import Window

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.core.remote import RemoteError, RemoteFile
from geoseg.data.rasters.files import REMOTE
from geoseg.training.config import parse

pystac = pytest.importorskip('pystac', reason='pystac is not installed')
pytest.importorskip('pystac_client')

SIDE, BANDS = 256, ('B04', 'B03', 'B02')
START = datetime(2021, 5, 1, 10, 30, tzinfo=UTC)


def write_tif(path, values, crs='EPSG:32612', block=128, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, 'w', driver='COG', height=values.shape[1], width=values.shape[2], count=len(values),
                       dtype=values.dtype.name, crs=crs, transform=from_origin(5e5, 4e6, 10, 10), blocksize=block,
                       compress='deflate', overviews='none', **how) as f:
        f.write(values)


def fill(root, hrefs, items=4, scale=None, **extra):
    'A catalogue of items with three bands of noise and labels; `hrefs` makes addresses of paths.'
    catalog = pystac.Collection('fields', 'of the test', pystac.Extent(
        pystac.SpatialExtent([[-111, 36, -110, 37]]), pystac.TemporalExtent([[START, None]])))
    made = []
    for number in range(items):
        rng, name = np.random.default_rng(number), f'item_{number}'
        labels = np.kron(rng.integers(0, 2, (16, 16)), np.ones((16, 16))).astype(np.uint8)
        bands = (rng.integers(0, 900, (3, SIDE, SIDE)) + 1500 * labels.astype(int)).astype(np.uint16)
        item = pystac.Item(name, {'type': 'Point', 'coordinates': [-111, 36]}, [-111, 36, -111, 36],
                           START + timedelta(days=number), {'proj:code': 'EPSG:32612'} | extra)
        for band, values in zip(BANDS, bands, strict=True):
            write_tif(root / f'{name}/{band}.tif', values[None])
            fields = {'eo:bands': [{'name': band}]}
            if scale:
                fields['raster:bands'] = [{'scale': scale[0], 'offset': scale[1]}]
            item.add_asset(band, pystac.Asset(hrefs(f'{name}/{band}.tif'), media_type=pystac.MediaType.COG,
                                              roles=['data'], extra_fields=fields))
        write_tif(root / f'{name}/labels.tif', labels[None])
        item.add_asset('labels', pystac.Asset(hrefs(f'{name}/labels.tif'), media_type=pystac.MediaType.COG,
                                              roles=['labels']))
        catalog.add_item(item)
        made.append(item)
    catalog.normalize_hrefs(str(root))
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    page = {'type': 'FeatureCollection', 'features': [item.to_dict() for item in made]}
    (root / 'items.json').write_text(json.dumps(page))
    (root / 'classes.txt').write_text('0 bare\n1 field\n')
    return made


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp('served')
    server = Server(root)
    server.made = fill(root, lambda path: f'{server.address}/{path}')
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.setenv('GEOSEG_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(RemoteFile, 'known', {})
    REMOTE.clear()


@pytest.fixture
def server(served):
    served.fail, served.redirects, served.pages = (lambda number, path: None), {}, {}
    served.forget()
    return served


SETTINGS = {'assets': [*BANDS], 'label_asset': 'labels', 'value_range': [[0, 3000]], 'color_jitter': None,
            'chip': 128, 'num_workers': 0, 'batch_size': 4}



def words_of(given):
    return [f"{key}={'null' if value is None else value}" for key, value in given.items()]


def data_of(spec, **given):
    data = parse(['unet'], {'data': str(spec), 'labels': str(given.pop('root', '')) or None} | SETTINGS | given
                 ).build_data()
    data.setup()
    return data


def epoch(data):
    return [sample['image'].numpy() for split in ('train', 'val', 'test') for sample in data.datasets[split]]


def test_what_is_asked_is_what_is_needed(server, tmp_path):
    'Requests and bytes of an epoch beside those of GDAL for the same windows; a second epoch asks for nothing.'
    data = data_of(f'{server.address}/items.json', root=server.root / 'classes.txt')
    first = epoch(data)
    asked, sent = server.requests, server.bytes
    assert not [path for path in server.paths if not path.endswith(('.tif', '.json'))]  # nothing beside is looked for
    known = set(server.paths)
    assert known == {'/items.json', *(f'/item_{i}/{name}.tif' for i in range(4) for name in (*BANDS, 'labels'))}
    server.forget()
    second = epoch(data)
    assert server.requests == 0 and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR', CPL_VSIL_CURL_ALLOWED_EXTENSIONS='.tif'):
        for i in range(4):
            for name in (*BANDS, 'labels'):
                with rasterio.open(f'/vsicurl/{server.address}/gdal/item_{i}/{name}.tif') as f:
                    for row, col in np.ndindex(2, 2):
                        f.read(1, window=Window(128 * col, 128 * row, 128, 128))
    assert sent <= 1.3 * server.bytes, (sent, server.bytes, asked, server.requests)
    print(f'geoseg: {asked} requests, {sent} bytes; GDAL: {server.requests} requests, {server.bytes} bytes')


def test_times_crs_and_bands_are_those_of_the_items(server):
    data = data_of(f'{server.address}/collection.json', root=server.root / 'classes.txt')
    [acquisitions] = data.acquisitions.values()
    assert [a.time for a in acquisitions] == [(START + timedelta(days=i)).timestamp() for i in range(4)]
    assert {a.crs for a in acquisitions} == {'EPSG:32612'} and acquisitions[0].band_names == tuple(sorted(BANDS))
    assert data.reader.bands == BANDS  # in the order of the assets
    image, mask = data.reader.window(acquisitions[0], 0, 0, SIDE, SIDE)
    folder = server.root / 'item_0'
    with rasterio.open(folder / 'B04.tif') as red, rasterio.open(folder / 'labels.tif') as truth:
        assert np.allclose(image[..., 0], red.read(1) / 3000) and np.array_equal(mask, truth.read(1))


def test_a_failing_server_is_asked_again(server, tmp_path):
    expected = epoch(data_of(server.root / 'items.json', root=server.root / 'classes.txt', hosts=['127.0.0.1']))
    REMOTE.clear()
    RemoteFile.known.clear()
    (tmp_path / 'cache').rename(tmp_path / 'old')
    server.fail = lambda number, path: {0: 503, 3: 'cut', 5: 429}.get(number % 7)
    found = epoch(data_of(server.root / 'items.json', root=server.root / 'classes.txt', hosts=['127.0.0.1'], tries=8))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_server_that_is_gone_is_one_line_and_what_was_read_is_kept(server, monkeypatch):
    data = data_of(f'{server.address}/items.json', root=server.root / 'classes.txt', tries=2)
    before = data.datasets['train'][0]['image']
    server.stop()
    data.reader.blocks.__init__(0)
    assert np.array_equal(before, data.datasets['train'][0]['image'])  # from the disk
    said = r'item_\d/.*tif: the server does not answer after 2 tries .*run again'
    with pytest.raises(RemoteError, match=said) as told:
        epoch(data)
    assert '\n' not in str(told.value)
    server.start()
    assert len(epoch(data)) == sum(map(len, data.datasets.values()))


@pytest.fixture(autouse=True)
def alive(served):
    yield
    served.stop()
    served.start()


def test_hosts_are_listed_before_anything_is_asked(server, tmp_path, capsys):
    page = json.loads((server.root / 'items.json').read_text())
    page['features'][0]['assets']['B03']['href'] = 'https://images.example.org/a.tif?sig=SECRET'
    page['features'][1]['assets']['B03']['href'] = 'http://169.254.169.254/latest/a.tif'
    page['features'][1]['assets']['B02']['href'] = 's3://bucket/key.tif'
    (tmp_path / 'page.json').write_text(json.dumps(page))
    words = [f'data={tmp_path / "page.json"}', *words_of(SETTINGS), f'labels={server.root / "classes.txt"}']
    assert cli.main(['fit', '--recipe', 'unet', *words, f'out={tmp_path / "runs"}']) == 2
    shown = capsys.readouterr().err
    listed = f'127.0.0.1:{server.port}, 169.254.169.254, bucket.s3.amazonaws.com, images.example.org'
    assert listed in shown and 'SECRET' not in shown and not server.requests
    assert not (tmp_path / 'runs').exists()


def test_catalogues_stay_where_they_are(server, tmp_path):
    page = json.loads((server.root / 'items.json').read_text())
    page['features'][0]['assets']['B03']['href'] = 'file:///etc/passwd'
    server.pages['/bad.json'] = lambda query, sent: page
    with pytest.raises((ConfigError, RemoteError), match='file:///etc/passwd'):
        data_of(f'{server.address}/bad.json')
    local = tmp_path / 'local'
    made = fill(local, lambda path: f'../{path}', items=3)
    assert len(made) == 3
    assert len(epoch(data_of(local / 'collection.json', root=local / 'classes.txt'))) > 0  # files on this machine
    item = json.loads((local / 'item_0/item_0.json').read_text())
    item['assets']['B03']['href'] = '../../outside.tif'
    (local / 'item_0/item_0.json').write_text(json.dumps(item))
    with pytest.raises(ValueError, match='outside of'):
        data_of(local / 'collection.json', root=local / 'classes.txt')


def test_a_search_follows_its_pages(server):
    items = [item.to_dict() for item in server.made]
    server.pages['/api'] = lambda query, sent: {
        'type': 'Catalog', 'id': 'api', 'description': '', 'stac_version': '1.0.0', 'conformsTo': [],
        'links': [{'rel': 'search', 'href': f'{server.address}/search', 'method': 'POST'}]}
    def search(query, sent):
        first = int((sent or {}).get('page', 0))
        assert sent['collections'] == ['fields']
        links = [{'rel': 'next', 'href': f'{server.address}/search', 'method': 'POST', 'merge': True,
                  'body': {'page': first + 2}}] if first < 2 else []
        return {'type': 'FeatureCollection', 'features': items[first:first + 2], 'links': links}
    server.pages['/search'] = search
    data = data_of(f'{server.address}/api', root=server.root / 'classes.txt', search={'collections': ['fields']})
    assert len(data.acquisitions.popitem()[1]) == 4
    with pytest.raises(ConfigError, match='more than 3 items: narrow the search'):
        data_of(f'{server.address}/api', search={'collections': ['fields']}, max_items=3)
    with pytest.raises(ConfigError, match='no link to a search'):
        data_of(f'{server.address}/items.json', search={'collections': ['fields']})


def test_signed_addresses_leave_no_trace(server, tmp_path, caplog, capsys):
    (tmp_path / 'mysign.py').write_text('def add(address):\n    return address + "?sig=SECRET"\n')
    server.fail = lambda number, path: None if server.queries[-1] == 'sig=SECRET' or path.endswith('json') else 403
    words = [f'data={server.address}/items.json', 'sign=mysign:add', f'labels={server.root / "classes.txt"}',
             *words_of(tiny.settings('unet', image_size=None, crop=None, epochs=1) | SETTINGS)]
    with caplog.at_level(logging.DEBUG):
        assert cli.main(['fit', '--recipe', 'unet', *words, f'out={tmp_path / "runs"}']) == 2
        assert 'sign' in capsys.readouterr().err  # nobody let the module in
        plugin = ['--plugins', str(tmp_path / 'mysign.py')]
        assert cli.main(['fit', '--recipe', 'unet', *plugin, *words, f'out={tmp_path / "runs"}']) == 0
    run = next((tmp_path / 'runs/unet').iterdir())
    shown = capsys.readouterr()
    assert 'SECRET' not in shown.out + shown.err + caplog.text
    for path in [*run.rglob('*'), *(tmp_path / 'cache').rglob('*')]:
        assert 'SECRET' not in str(path)
        if path.is_file() and path.name not in ('data', 'index'):
            assert b'SECRET' not in path.read_bytes(), path
    for address in '?token=SECRET', '?X-Amz-Signature=SECRET':
        assert cli.main(['fit', '--recipe', 'unet', f'data={server.address}/items.json{address}',
                         f'out={tmp_path / "other"}']) == 2
        assert 'SECRET' not in capsys.readouterr().err and not (tmp_path / 'other').exists()
    # prediction, of the catalogue again
    again = ['--checkpoint', str(run), *plugin, '--trust']  # config.yaml names an address
    assert cli.main(['predict', *again[:-1], f'data={server.address}/items.json', f'out={tmp_path / "maps"}']) == 2
    assert 'items.json is an address; --trust' in capsys.readouterr().err
    assert cli.main(['predict', *again, f'data={server.address}/items.json', f'out={tmp_path / "maps"}']) == 0
    maps = sorted(path.name for path in (tmp_path / 'maps').glob('*_classes.tif'))
    assert len(maps) == 4 and re.search('item-0', maps[0])
    assert cli.main(['test', *again]) == 0


def test_scale_and_offset_of_items_are_said_and_applied(tmp_path, caplog):
    fill(tmp_path, lambda path: f'../{path}', items=3, scale=(0.0001, -0.1))
    with caplog.at_level(logging.INFO, 'geoseg'):
        data_of(tmp_path / 'collection.json', root=tmp_path / 'classes.txt')
    assert 'scale 0.0001 and offset -0.1' in caplog.text
    data = data_of(tmp_path / 'collection.json', root=tmp_path / 'classes.txt', apply_scale=True,
                   value_range=[[-0.1, 0.2]])
    with rasterio.open(tmp_path / 'item_0/B04.tif') as f:
        expected = (f.read(1)[:64, :64] * 0.0001 - 0.1 + 0.1) / 0.3
    first = next(iter(data.acquisitions.values()))[0]
    assert np.allclose(data.reader.window(first, 0, 0, 64, 64)[0][..., 0], expected, atol=1e-5)


@pytest.mark.parametrize('text, said', [
    ('{"stac_version": "1.0.0", "type": "Feature"}', 'not a STAC document'),
    ('{"stac_version": "1.0.0"}', "type 'None', expected a STAC item"),
    ('{"stac_version": "1.0.0", "type": "FeatureCollection", "features": []}', 'no items in it'),
    ('{"stac_version": ', 'not a STAC document'),
])
def test_bad_documents_are_one_line(text, said, tmp_path):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ConfigError, match=said) as told:
        data_of(tmp_path / 'a.json')
    assert '\n' not in str(told.value)


def test_bad_settings_name_what_is_there(server):
    spec = f'{server.address}/items.json'
    with pytest.raises(ConfigError, match="item item_0 has no 'B04x'; nearest: B04; it has B04, B03, B02, labels"):
        data_of(spec, assets=['B04x'])
    with pytest.raises(ConfigError, match='cache_gb: 0'):
        data_of(spec, cache_gb=0)
    with pytest.raises(RemoteError, match='none.json: status 404'):
        data_of(f'{server.address}/none.json')
    with pytest.raises(ConfigError, match='sign: .*comes with --plugins'):
        data_of(spec, sign='os:system')
