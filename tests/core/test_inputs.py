"What a stranger may send: pipes, devices, addresses, bombs and paths that lead elsewhere, for every reader."
import json
import os
import shutil
import socket
import struct
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from geoseg import cli
from geoseg.core.inputs import DataFolder
from geoseg.core.streams import peak_resident_memory
from geoseg.data.labels import LabelScheme, read_category_csv, read_classes_txt
from geoseg.data.layouts import LAYOUTS
from geoseg.data.masks import read_mask
from geoseg.data.meshes.features import read_page
from geoseg.data.meshes.files import Mesh, mesh_files, read_labels, read_mesh
from geoseg.data.meshes.prepared import Preparation, prepare_mesh
from geoseg.data.pairs.pairs import Ortho, read_entries, read_pairs
from geoseg.data.pictures.files import image_size, read_image
from geoseg.data.pictures.geotags import read_gps, read_poses
from geoseg.data.rasters.files import find_acquisitions, open_raster, read_acquisition
from geoseg.data.splits import read_split
from geoseg.evaluation.archive import Archive
from geoseg.geo.coords import exif_place
from geoseg.geo.memory import GeoMemory
from geoseg.inference.places.gallery import Gallery
from geoseg.models.checkpoints import read_checkpoint
from geoseg.models.weights import read_weights
from geoseg.training.recipes import read_config, recipes
from geoseg.world.layouts import world_data

SCHEME = LabelScheme(['a', 'b'], name='two')
READERS = {  # every function that opens a file by its path, with the name that it expects
    'image.png': read_image, 'header.jpg': image_size, 'mask.png': lambda path: read_mask(path, SCHEME),
    'exif.jpg': exif_place, 'page.jpg': read_page, 'county.tif': open_raster, 'ortho.tif': Ortho.read,
    'date.tiff': lambda path: read_acquisition(path, None), 'mosaic.vrt': open_raster, 'mesh.ply': read_mesh,
    'mesh.obj': read_mesh, 'files.ply': mesh_files, 'labels.txt': lambda path: read_labels(path, None),
    'prepared.ply': lambda path: prepare_mesh(path, SCHEME, cache=path.parent),
    'category.csv': read_category_csv, 'classes.txt': read_classes_txt, 'gps.csv': read_gps, 'poses2d.csv': read_poses,
    'split.csv': read_split, 'pairs.json': read_entries, 'recipe.yaml': read_config, 'recipe.toml': read_config,
    'best.ckpt': read_checkpoint, 'weights.pth': read_weights, 'weights.safetensors': read_weights,
    'memory.json': lambda path: GeoMemory.load(path.with_suffix('')),
    'gallery.json': lambda path: Gallery.load(path.with_suffix(''))}


def within_seconds(function, *arguments, seconds: float = 20):
    "The error of a call, which must not wait for anything."
    result = []

    def run():
        try:
            result.append(function(*arguments))
        except BaseException as error:
            result.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert result, 'it waits'
    return result[0]


@pytest.mark.parametrize('name', READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(name, tmp_path):
    os.mkfifo(tmp_path / name)
    (tmp_path / 'dev').mkdir()
    (tmp_path / 'dev' / name).symlink_to('/dev/zero')
    for path in (tmp_path / name, tmp_path / 'dev' / name):
        error = within_seconds(READERS[name], path)
        assert isinstance(error, ValueError | OSError), error
        assert path.stem in str(error) and len(str(error).splitlines()) == 1


@pytest.mark.parametrize('name', READERS)
def test_no_reader_takes_an_address(name):
    for place in ('http://127.0.0.1:9/', 'https://127.0.0.1:9/', 's3://bucket/', '/vsicurl/http://127.0.0.1:9/',
                  '/vsizip//tmp/a.zip/'):
        error = within_seconds(READERS[name], Path(place) / name)
        assert isinstance(error, ValueError | OSError), (place, error)


@pytest.mark.parametrize('name', READERS)
def test_a_file_of_a_terabyte_and_rubbish_are_one_line(name, tmp_path):
    (tmp_path / 'large').mkdir()
    for path, size in ((tmp_path / name, 0), (tmp_path / 'large' / name, 1 << 40)):
        path.write_bytes(np.random.default_rng(0).bytes(3000))
        if size:  # a hole, that takes no room on the disk
            os.truncate(path, size)
            if name == 'prepared.ply' or name == 'files.ply':  # their contents are hashed as a stream
                continue
        with peak_resident_memory() as before:  # what this process of tests holds already
            pass
        with peak_resident_memory() as peak:
            error = within_seconds(READERS[name], path, seconds=60)
        assert isinstance(error, ValueError | OSError | list | Mesh), error
        assert peak['MiB'] - before['MiB'] < 1000


def png_header(path: Path, width: int, height: int):
    body = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunks = (b'IHDR' + body, b'IDAT' + zlib.compress(bytes(1000)), b'IEND')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(struct.pack('>I', len(chunk) - 4) + chunk
                                                    + struct.pack('>I', zlib.crc32(chunk)) for chunk in chunks))


@pytest.mark.parametrize('reader', [name for name in READERS if name.endswith(('.png', '.jpg'))])
def test_a_header_that_promises_billions_of_pixels_is_one_line(reader, tmp_path):
    png_header(tmp_path / reader, 1 << 16, 1 << 15)
    Image.new('1', (14000, 14000)).save(tmp_path / f'bomb-{reader}', 'PNG')
    for name in (reader, f'bomb-{reader}'):
        error = within_seconds(READERS[reader], tmp_path / name)
        assert isinstance(error, ValueError)
        assert 'too large to be read at once' in str(error) or 'exceeds limit' in str(error) and reader == 'exif.jpg'


@pytest.mark.parametrize('reader', ['county.tif', 'ortho.tif', 'date.tiff'])
@pytest.mark.parametrize('tiled', [True, False])
def test_a_raster_that_lacks_what_it_promises_is_one_line(reader, tiled, tmp_path):
    import rasterio
    side = 1 << 17 if tiled else 46341
    how = {'tiled': True, 'blockxsize': 8192, 'blockysize': 8192} if tiled else {'blockysize': side, 'tiled': False}
    with rasterio.open(tmp_path / reader, 'w', driver='GTiff', width=side, height=side, count=1, dtype='uint8',
                       crs='EPSG:32631', transform=rasterio.transform.from_origin(5e5, 5e6, 1, 1), sparse_ok=True,
                       compress='deflate', **how):
        pass
    error = within_seconds(READERS[reader], tmp_path / reader)
    assert isinstance(error, ValueError) and ('promises' in str(error) or 'too large' in str(error)), error


def test_archives_that_swell_are_refused(tmp_path):
    for name, read in (('best.ckpt', read_checkpoint), ('weights.pth', read_weights)):
        with zipfile.ZipFile(tmp_path / name, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('archive/data.pkl', bytes(1 << 26))
        with pytest.raises(ValueError, match='bytes that would become'):
            read(tmp_path / name)
    torch.save({'a': torch.zeros(100, 1000)}, tmp_path / 'zeros.pth')  # what torch writes is as large as it says
    assert read_weights(tmp_path / 'zeros.pth')['a'].shape == (100, 1000)


PYRAMID = 'v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\nf 1/1 2/2 4/3\n'
PLY = ('ply\nformat ascii 1.0\ncomment TextureFile {}\nelement vertex 4\nproperty float x\nproperty float y\n'
       'property float z\nelement face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n'
       'end_header\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n3 0 1 2 6 0 0 1 0 0 1\n3 1 2 3 6 0 0 1 0 0 1\n')


def test_counts_that_a_mesh_lacks_are_one_line(tmp_path):
    for head in ('element vertex 2147483647', 'element vertex -1', 'element vertex 4294967296000'):
        text = PLY.format('a.png').replace('element vertex 4', head).replace('ascii', 'binary_little_endian')
        (tmp_path / 'm.ply').write_text(text)
        error = within_seconds(read_mesh, tmp_path / 'm.ply')
        assert isinstance(error, ValueError) and 'not a readable PLY' in str(error)
    (tmp_path / 'm.ply').write_text(PLY.format('a.png').partition('end_header')[0])
    assert 'not a readable PLY' in str(within_seconds(read_mesh, tmp_path / 'm.ply'))


@pytest.mark.parametrize('place', ['../secret.png', '/etc/hosts', 'a/../../secret.png', 'http://127.0.0.1:9/a.png',
                                   '/vsicurl/http://127.0.0.1:9/a.png'])
@pytest.mark.parametrize('kind', ['ply', 'mtl', 'obj'])
def test_what_a_mesh_names_stays_in_its_data_set(kind, place, tmp_path):
    data = tmp_path / 'data'
    data.mkdir()
    Image.new('RGB', (4, 4)).save(tmp_path / 'secret.png')
    mesh = data / ('m.ply' if kind == 'ply' else 'm.obj')
    if kind == 'ply':
        mesh.write_text(PLY.format(place))
    else:
        mesh.write_text(f'mtllib {place if kind == "obj" else "m.mtl"}\n{PYRAMID}')
        (data / 'm.mtl').write_text(f'newmtl m\nmap_Kd {place}\n')
    for read in (read_mesh, mesh_files, lambda path: prepare_mesh(path, SCHEME, Preparation(pixels=4), tmp_path)):
        with pytest.raises(ValueError, match='outside of .*allow_outside=true takes it|an address'):
            read(mesh)
    if place == '../secret.png' and kind != 'obj':
        assert read_mesh(mesh, DataFolder(data, allow_outside=True)).pages[0].resolve() == tmp_path / 'secret.png'
        assert read_mesh(mesh, DataFolder(tmp_path)).pages  # it lies in the data set


@pytest.mark.parametrize('key', ['drone_img_dir', 'drone_img_name', 'sate_img_dir', 'pair_pos_sate_img_list'])
def test_what_a_file_of_pairs_names_stays_in_its_folder(key, tmp_path):
    root = shutil.copytree(world_data('gta', size='tiny'), tmp_path / 'gta')
    path = next(root.glob('*train.json'))
    entries = json.loads(path.read_text())
    for value in ('../../../../elsewhere', '/etc', 'http://127.0.0.1:9'):
        wrong = [dict(entry) for entry in entries]
        wrong[0][key] = [f'{value}/17_0_1_2.png' for _ in wrong[0][key]] if key.endswith('list') else value
        path.write_text(json.dumps(wrong))
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            read_pairs(path)
        if value.startswith('..') or key == 'drone_img_dir':  # others are names below a folder of the data set
            assert 'outside of' in str(error.value) or 'an address' in str(error.value)


def vrt(path: Path, source: str, band: str = '', element: str = 'SimpleSource'):
    path.write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:32631</SRS><GeoTransform>5e5,1,0,5e6,0,-1'
                    f'</GeoTransform><VRTRasterBand dataType="Byte" band="1"{band}><{element}><SourceFilename '
                    f'relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand></{element}></VRTRasterBand>'
                    '</VRTDataset>')


def tif(path: Path, **tags):
    import rasterio
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, 'w', driver='GTiff', width=64, height=64, count=1, dtype='uint8', crs='EPSG:32631',
                       transform=rasterio.transform.from_origin(5e5, 5e6, 1, 1)) as f:
        f.write(np.full((1, 64, 64), 7, np.uint8))
        for domain, items in tags.items():
            f.update_tags(ns=domain, **items)


class Server:
    "Counts who connects."

    def __enter__(self):
        self.socket, self.calls = socket.create_server(('127.0.0.1', 0)), []
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.calls.append(connection.recv(99))
            connection.close()

    def __exit__(self, *_):
        self.socket.close()

    @property
    def address(self) -> str:
        return f'http://127.0.0.1:{self.socket.getsockname()[1]}/a.tif'


def test_a_raster_is_opened_as_what_its_name_says(tmp_path):
    tif(tmp_path / 'good.tif')
    with Server() as server:
        wms = f'<GDAL_WMS><Service name="TMS"><ServerUrl>{server.address}</ServerUrl></Service></GDAL_WMS>'
        for i, text in enumerate((wms, f'<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" '
                                  f'band="1"><SimpleSource><SourceFilename>/vsicurl/{server.address}</SourceFilename>'
                                  '</SimpleSource></VRTRasterBand></VRTDataset>')):
            path = tmp_path / f'text{i}.tif'
            path.write_text(text)
            for read in (open_raster, Ortho.read, lambda path: read_acquisition(path, None)):
                with pytest.raises(ValueError, match='not a readable raster'):
                    read(path)
            for suffix in ('.ovr', '.msk', '.OVR'):  # GDAL looks for them beside a raster, and opens them as anything
                tif(tmp_path / suffix[1:] / 'county.tif')
                (tmp_path / suffix[1:] / f'county.tif{suffix}').write_text(text)
                with pytest.raises(ValueError, match='beside county.tif, and not a TIFF'):
                    open_raster(tmp_path / suffix[1:] / 'county.tif')
        tif(tmp_path / 'tagged.tif', OVERVIEWS={'OVERVIEW_FILE': f'/vsicurl/{server.address}'})
        (tmp_path / 'good.tif.aux.xml').write_text('<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
                                                   f'/vsicurl/{server.address}</MDI></Metadata></PAMDataset>')
        for name in ('tagged.tif', 'good.tif'):
            with pytest.raises(ValueError, match='names overviews in another file'):
                open_raster(tmp_path / name)
        assert server.calls == []
    with pytest.raises(ValueError, match='a raster is one of'):
        (tmp_path / 'a.wms').write_text(wms)
        open_raster(tmp_path / 'a.wms')


def test_a_virtual_raster_stays_in_its_data_set(tmp_path):
    data = tmp_path / 'data'
    for path in (data / 'tiles' / 'a.tif', data / 'a.tif', tmp_path / 'secret.tif'):
        tif(path)
    (data / 'text.tif').write_text('<VRTDataset/>')
    with Server() as server:
        for source in ('../secret.tif', str(tmp_path / 'secret.tif'), f'/vsicurl/{server.address}', server.address,
                       'NETCDF:"a.nc":b', 'text.tif', 'none.tif', '/etc/hosts', 'm.vrt'):
            vrt(data / 'm.vrt', source)
            with pytest.raises((ValueError, FileNotFoundError)):
                open_raster(data / 'm.vrt')
        assert server.calls == []
    for band, element in ((' subClass="VRTRawRasterBand"', 'SimpleSource'), ('', 'PixelFunctionCode'),
                          (' subClass="VRTDerivedRasterBand"', 'SimpleSource')):
        vrt(data / 'm.vrt', 'a.tif', band, element)
        with pytest.raises(ValueError, match='a virtual raster is a mosaic of GeoTIFFs'):
            open_raster(data / 'm.vrt')
    vrt(data / 'm.vrt', 'tiles/a.tif')
    vrt(data / 'above.vrt', 'm.vrt')
    vrt(data / 'maps.vrt', '../secret.tif')
    for path, within in ((data / 'm.vrt', DataFolder()), (data / 'above.vrt', DataFolder()),
                         (data / 'maps.vrt', DataFolder(data, allow_outside=True)),
                         (data / 'maps.vrt', DataFolder(tmp_path))):
        with open_raster(path, within) as f:
            assert (f.read(1) == 7).all()
    vrt(data / '20200101_image.vrt', '../secret.tif')
    pattern = {'pattern': '{date}_image.vrt', 'mask_pattern': '{date}_mask.vrt', 'masks': 'optional'}
    with pytest.raises(ValueError, match='allow_outside=true'):
        find_acquisitions(data, **pattern)
    [found] = find_acquisitions(data, **pattern, allow_outside=True)
    assert found.within.allow_outside


def test_masks_of_an_archive_are_opened_as_what_their_names_say(tmp_path):
    (tmp_path / '20200101_mask.tif').write_text('<GDAL_WMS/>')
    with pytest.raises(ValueError, match='not a readable raster'):
        Archive.read(tmp_path, SCHEME)


@pytest.mark.parametrize('recipe', recipes())
def test_every_recipe_takes_allow_outside_and_no_address(recipe, tmp_path, capsys):
    from geoseg.training.config import parse
    config = parse([recipe], tiny.settings(recipe) | {'data': tiny.DATA, 'allow_outside': True}).config
    assert config.data.init_args.allow_outside is True
    for place in ('http://127.0.0.1:9/a', '/vsicurl/http://127.0.0.1:9/a', 's3://bucket/a'):
        assert cli.main(['fit', '--recipe', recipe, f'data={place}', f'out={tmp_path}']) == 2
        assert len([x for x in capsys.readouterr().err.splitlines() if x.startswith('geoseg fit:')]) == 1
    assert not list(tmp_path.iterdir())


def test_every_layout_has_the_setting():
    import inspect
    for module in LAYOUTS.values():
        given = {name for kind in module.__mro__ if '__init__' in vars(kind)
                 for name in inspect.signature(kind.__init__).parameters}
        assert 'allow_outside' in given, module


def test_pipes_among_the_data_are_one_line(tmp_path, capsys):
    for layout, name in (('folders', 'a.png'), ('geotagged', 'a.png'), ('raster', 'a.tif'), ('mesh', 'a.ply')):
        root = shutil.copytree(world_data(layout, size='tiny'), tmp_path / layout)
        first = next(p for p in sorted(root.rglob('*')) if p.suffix == Path(name).suffix)
        first.unlink()
        os.mkfifo(first)
        recipe = 'nomeformer' if layout == 'mesh' else 'unet'
        words = ['fit', '--recipe', recipe, f'data={root}', f'out={tmp_path / "out"}']
        status = within_seconds(cli.main, words, seconds=60)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg fit:')]
        assert status == 2 and len(lines) == 1 and 'a pipe' in lines[0], (layout, status, lines)
