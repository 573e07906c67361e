"Maps open with their names and colours: as GDAL reads what lies beside a raster, and as QGIS itself draws a project."
import ctypes
import functools
import json
import re
import shutil
import sqlite3
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.data.labels import LabelScheme
from geoseg.inference.qgis import PROJECT
from geoseg.inference.rasters.rasters import find_rasters, predict_rasters
from geoseg.models.predictor import Predictor

TOOLS, SYSTEM = Path(__file__).parents[2] / 'tools', '/usr/bin/python3'
NAMES = ['water', 'crop & "field"', 'a <b> é 麦', 'no\x01bell']
SHOWN = [*NAMES[:3], 'no?bell']  # XML does not know all characters
COLORS = [[0, 0, 250], [90, 200, 10], [120, 120, 120], [250, 200, 0]]


class Bright(nn.Module):
    'Classes by brightness.'

    def forward(self, image):
        return {'logits': -8 * (image.mean(1, keepdim=True) - torch.linspace(-1.5, 1, 4).view(1, 4, 1, 1)).abs()}


@pytest.fixture(scope='module')
def maps(scene, tmp_path_factory):
    'A folder of all layers, and the imagery beside it.'
    folder = tmp_path_factory.mktemp('qgis')
    shutil.copy(scene, folder)
    predictor = Predictor(Bright(), LabelScheme(NAMES, np.array(COLORS)), device='cpu')
    predict_rasters(predictor, find_rasters(folder / scene.name), folder / 'maps', window=128,
                    write=['uncertainty', 'polygons', 'qgis'])
    return folder / 'maps'


def read_attribute_table(path):
    "Category names, and the rows of the attribute table, by the GDAL that rasterio brings."
    libraries = [*Path(rasterio.__file__).parents[1].glob('rasterio.libs/libgdal*')]
    if not libraries:
        pytest.skip('rasterio brings no library of GDAL here')
    gdal = ctypes.CDLL(str(libraries[0]))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p

    def call(name, kind, *args):
        function = getattr(gdal, name)
        function.restype = kind
        return function(*args)

    call('GDALAllRegister', None)
    data = pointer(call('GDALOpen', pointer, str(path).encode(), 0))
    band = pointer(call('GDALGetRasterBand', pointer, data, 1))
    table = pointer(call('GDALGetDefaultRAT', pointer, band))  # GDAL reads what lies beside a file when this is asked
    names = call('GDALGetRasterCategoryNames', ctypes.POINTER(text), band)
    rows = [[call('GDALRATGetValueAsString', text, table, row, column).decode()
             for column in range(call('GDALRATGetColumnCount', int, table))]
            for row in range(call('GDALRATGetRowCount', int, table))]
    found = [names[i].decode() for i in range(len(rows))]
    call('GDALClose', None, data)
    return found, rows


def test_gdal_reads_names_and_attribute_table(maps):
    names, rows = read_attribute_table(maps / 'scene_classes.tif')
    with rasterio.open(maps / 'scene_classes.tif') as file:
        counts = np.bincount(file.read(1).ravel(), minlength=256)
        assert [list(file.colormap(1)[i][:3]) for i in range(4)] == COLORS
    assert names == SHOWN
    assert rows == [[str(i), SHOWN[i], *map(str, COLORS[i]), str(counts[i])] for i in range(4)] and counts[:4].all()


def test_a_package_brings_its_style(maps):
    with sqlite3.connect(maps / 'scene_polygons.gpkg') as database:
        [(table, style, default)] = database.execute('SELECT f_table_name, styleQML, useAsDefault FROM layer_styles')
    assert (table, default) == ('polygons', 1)
    found = ElementTree.fromstring(style.partition('\n')[2])
    assert [c.get('label') for c in found.iter('category')] == SHOWN


def test_a_project_names_its_layers_by_relative_paths(maps):
    with zipfile.ZipFile(maps / PROJECT) as archive:
        [name] = archive.namelist()
        project = ElementTree.fromstring(archive.read(name).decode().partition('\n')[2])
    layers = [(node.get('name'), node.get('checked'), node.get('source')) for node in project.iter('layer-tree-layer')]
    assert layers == [('polygons', 'Qt::Checked', './scene_polygons.gpkg'),
                      ('uncertainty', 'Qt::Unchecked', './scene_uncertainty.tif'),
                      ('classes', 'Qt::Checked', './scene_classes.tif'), ('imagery', 'Qt::Checked', '../scene.tif')]
    assert all((maps / source).is_file() for *_, source in layers)
    assert str(maps.parent) not in ElementTree.tostring(project).decode()
    assert min(len(node.text) for node in project.iter('id')) > 10  # QGIS makes up others for shorter ones


def test_what_is_there_stays_and_another_job_replaces_it(maps, tmp_path):
    folder = shutil.copytree(maps, tmp_path / 'copy')
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix in ('.qml', '.xml', '.gpkg')}
    scheme = LabelScheme(NAMES, np.array(COLORS))
    [scene] = find_rasters(maps.parent / 'scene.tif')
    again = functools.partial(predict_rasters, rasters=[scene], out=folder, window=128)
    again(Predictor(Bright(), scheme, device='cpu'), write=['uncertainty', 'polygons'])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (folder / 'scene_classes.qml').unlink()
    again(Predictor(Bright(), scheme, device='cpu'), write=['uncertainty'])
    assert (folder / 'scene_classes.qml').is_file()
    again(Predictor(Bright(), LabelScheme(list('abcd'), np.array(COLORS)), device='cpu'), tta=('horizontal',))
    assert not (folder / 'scene_uncertainty.qml').exists()
    assert re.findall('label="(.*?)"', (folder / 'scene_classes.qml').read_text()) == list('abcd')


@pytest.mark.qgis
def test_qgis_draws_a_project(maps, tmp_path):
    here = Path(SYSTEM).exists() and not subprocess.run([SYSTEM, '-c', 'import qgis.core'], capture_output=True,
                                                        check=False).returncode
    if not here:
        pytest.skip('QGIS is not here')
    moved = shutil.copytree(maps.parent, tmp_path / 'elsewhere') / 'maps'  # paths are relative
    shutil.copy(TOOLS / 'render_qgis.py', tmp_path)
    words = [SYSTEM, '-I', tmp_path / 'render_qgis.py', moved / PROJECT, tmp_path / 'drawn.png']
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    found = json.loads(done.stdout.splitlines()[-1])
    legend = dict(zip(SHOWN, ['#{:02x}{:02x}{:02x}'.format(*color) for color in COLORS], strict=True))
    assert found['read'] and found['drawn'] and found['crs'] == 'EPSG:32631'
    layers = {layer['name']: layer for layer in found['layers']}
    assert [*layers] == ['polygons', 'uncertainty', 'classes', 'imagery']
    assert all(layer['valid'] for layer in layers.values())
    assert layers['polygons']['legend'] == layers['classes']['legend'] == legend
    alone = found['alone']
    assert alone['scene_classes.tif']['legend'] == alone['scene_polygons.gpkg']['legend'] == legend
    assert alone['scene_uncertainty.tif']['renderer'] == 'singlebandpseudocolor'
    drawn = cv2.imread(str(tmp_path / 'drawn.png'))[:, :620]
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
