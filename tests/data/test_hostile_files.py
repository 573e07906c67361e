"Rasters, meshes, tables and class lists of a stranger: nothing is waited for, nothing is taken for what it is not."
import os
import struct
import zlib

import numpy as np
import pytest
import rasterio

from geoseg.data.labels import LabelScheme
from geoseg.data.meshes.files import read_mesh
from geoseg.data.pictures.geotags import read_gps
from geoseg.data.rasters.files import open_raster, read_acquisition, read_bands
from geoseg.geo.coords import crs_name


def one_line(path, function, *arguments):
    "The line with which something is refused; it names the file."
    with pytest.raises((ValueError, OSError)) as error:
        function(*arguments)
    assert '\n' not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def tif(path, n=64, crs='EPSG:32631'):
    path.parent.mkdir(exist_ok=True)
    grid = {'crs': crs, 'transform': rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)} if crs else {}
    with rasterio.open(path, 'w', driver='GTiff', width=n, height=n, count=3, dtype='uint8', **grid) as file:
        file.write(np.zeros((3, n, n), np.uint8))
    return path


@pytest.mark.parametrize('name', ['a.aux', 'a.tfw', 'a.TFW', 'a.wld', 'a_rpc.txt', 'a_RPC.TXT', 'a.RPB', 'a.IMD',
                                  'a.xml', 'METADATA.DIM', 'a.tif.ovr', 'a.tif.msk', 'a.tif.aux.xml', 'a_metadata.xml'])
def test_a_pipe_beside_a_raster(tmp_path, name):
    for i, (crs, link) in enumerate([('EPSG:32631', False), (None, False), ('EPSG:32631', name[0] == 'a')]):
        folder, pipe = tmp_path / f'{i}', tmp_path / f'pipe{i}'
        path = tif(folder / 'a.tif', crs=crs)
        os.mkfifo(pipe if link else folder / name)
        if link:
            (folder / name).symlink_to(pipe)
        assert 'a pipe' in one_line(folder / name, open_raster, path)


def test_what_else_lies_beside_a_raster(tmp_path):
    path = tif(tmp_path / 'a.tif')
    (tmp_path / 'a.txt').write_text('words')
    (tmp_path / 'a_parts').mkdir()
    (tmp_path / 'a.gone').symlink_to(tmp_path / 'nowhere')
    with open_raster(path) as file:
        assert file.shape == (64, 64)


SOURCE = ('<SimpleSource><SourceFilename relativeToVRT="1">s.tif</SourceFilename><SourceBand>{band}</SourceBand>'
          '<SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/><DstRect xOff="0" yOff="0" xSize="64" ySize="64"/>'
          '</SimpleSource>')


def vrt(path, size=64, source=SOURCE, grid='500000,1,0,5000000,0,-1'):
    tif(path.with_name('s.tif'))
    bands = ''.join(f'<VRTRasterBand dataType="Byte" band="{band}">{source.format(band=band)}</VRTRasterBand>'
                    for band in (1, 2, 3))
    path.write_text(f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>EPSG:32631</SRS>'
                    f'<GeoTransform>{grid}</GeoTransform>{bands}</VRTDataset>')
    return path


def test_a_virtual_raster_has_sources(tmp_path):
    path = tmp_path / 'a.vrt'
    assert read_acquisition(vrt(path, 640), None).height == 640
    assert 'no source' in one_line(path, read_acquisition, vrt(path, 50_000, ''), None)
    assert 'no source' in one_line(path, read_acquisition, vrt(path, 64, ''), None)
    assert 'promises' in one_line(path, read_acquisition, vrt(path, 50_000), None)


@pytest.mark.parametrize('grid', ['nan,1,0,5000000,0,-1', '500000,0,0,5000000,0,-1', '500000,nan,0,5000000,0,-1',
                                  '500000,1,0,5000000,0,0', '500000,1,1,5000000,1,1', 'inf,1,0,5000000,0,-1'])
def test_a_pixel_has_a_size(tmp_path, grid):
    assert 'its grid is' in one_line('a.vrt', open_raster, vrt(tmp_path / 'a.vrt', grid=grid))


def test_pixels_that_cannot_be_read_name_the_file(tmp_path):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', 4, 4, 8, 0, 0, 0, 0)
    for i, data in enumerate((zlib.compress(bytes(10**7)), zlib.compress(bytes(20))[:6])):
        path = tmp_path / f'{i}.png'
        path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', data) + chunk(b'IEND', b''))
        with open_raster(path) as file:
            one_line(path, read_bands, file)


OBJ = 'v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 {}\n'
PLY = ('ply\nformat ascii 1.0\ncomment crs EPSG:32631\ncomment offset {}\nelement vertex 3\nproperty float x\n'
       'property float y\nproperty float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n'
       '0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n')


@pytest.mark.parametrize('offset', ['x y z', '1 2', '1 2 3 4', 'nan 0 0', '0 0 inf', '1e999 0 0', '1 2 3'])
def test_an_offset_is_three_numbers(tmp_path, offset):
    files = {'a.ply': PLY.format(offset), 'b.obj': OBJ.format(3) + f'# crs EPSG:32631\n# offset {offset}\n',
             'metadata.xml': f'<M><SRS>EPSG:32631</SRS><SRSOrigin>{offset.replace(" ", ",")}</SRSOrigin></M>',
             'c.obj': OBJ.format(3)}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name, told in (('a.ply', 'a.ply'), ('b.obj', 'b.obj'), ('c.obj', 'metadata.xml')):
        if offset == '1 2 3':
            assert read_mesh(tmp_path / name).frame['offset'] == [1, 2, 3]
        else:
            assert 'three finite numbers' in one_line(tmp_path / told, read_mesh, tmp_path / name)


@pytest.mark.parametrize('number', ['9' * 23, '9' * 5000, '-' + '9' * 23])
def test_numbers_of_a_mesh_are_no_larger_than_it(tmp_path, number):
    path = tmp_path / 'a.obj'
    path.write_text(OBJ.format(number))
    one_line(path, read_mesh, path)
    path.write_text(OBJ.format(3))
    for label in (number, 'inf', 'nan', '4294967296'):
        (tmp_path / 'a.txt').write_text(f'{label}\n')
        assert 'a.txt' in one_line(tmp_path / 'a.txt', read_mesh, path)


ROWS = (f'0,"{"a" * 200_000}",,0,0,0', '9' * 5000 + ',a,,0,0,0', f'0,a,,{"9" * 5000},0,0')
LISTS = {'classes.txt': ['9' * 5000 + ' a\n'], 'category.csv': [f'id,name,abbr,r,g,b\n{row}\n' for row in ROWS]}


@pytest.mark.parametrize('name, text', [(name, text) for name in LISTS for text in LISTS[name]], ids=range(4))
def test_a_class_list_names_its_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert len(one_line(tmp_path / name, LabelScheme.load, tmp_path / name)) < 500


@pytest.mark.parametrize('rows', ['a.jpg,1,2,3\nb.jpg,4,5,6\n', 'a.jpg,1,2\nb.jpg,1,2,3,4\n', 'a.jpg,1,2,3,4\n',
                                  '"a.jpg,1,2\nb.jpg,3,4\n', None])
def test_no_cell_of_a_table_changes_its_column(tmp_path, rows):
    path = tmp_path / 'gps.csv'
    path.write_text('' if rows is None else f'filename,lat,long\n{rows}')
    assert 'not a table' in one_line(path, read_gps, path)
    path.write_text('filename,lat,long\na.jpg,1,2\n')
    assert read_gps(path).loc['a.jpg'].tolist() == [1, 2]


@pytest.mark.parametrize('name', ['{"a":' * 3000 + '1' + '}' * 3000, 'EPSG:\ud800', 'EPSG:' + '9' * 5000])
def test_a_coordinate_system_is_a_short_line(name):
    assert len(one_line('crs', crs_name, name)) < 700
