"Labels, bands, tables and addresses as people bring them, with what goes wrong: one line each, before any work."
import json
import re
import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from a_raster import GRID, write

from geoseg.cli import main

SIDE = 64
RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Three dates, a mask of each, polygons, a label raster, a legend, a table; all of it right."
    root = tmp_path_factory.mktemp('sources')
    for date in ('2018', '2019', '2020'):
        write(root / 'data' / f'{date}_image.tif', RNG.integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8))
        write(root / 'masks' / f'{date}_mask.tif', RNG.integers(0, 2, (SIDE, SIDE)).astype(np.uint8))
    boxes = [shapely.transform(shapely.box(*box), lambda xy: np.stack(GRID @ tuple(xy.T), 1))
             for box in ((4, 4, 30, 60), (30, 4, 60, 60))]
    gpd.GeoDataFrame({'kind': ['field', 'pond'], 'code': [1, 2]}, geometry=boxes, crs='EPSG:32631').to_file(
        root / 'cover.gpkg')
    write(root / 'cover.tif', np.kron([[1, 2]], np.ones((SIDE, SIDE // 2))).astype(np.uint8))
    (root / 'legend.csv').write_text('value,class\n1,field\n2,pond\n')
    (root / 'classes.txt').write_text('0 field\n1 pond\n')
    pd.DataFrame({'image': [f'data/{d}_image.tif' for d in ('2018', '2019', '2020')],
                  'label': [f'masks/{d}_mask.tif' for d in ('2018', '2019', '2020')],
                  'split': ['train', 'val', 'test'], 'date': ['2018', '2019', '2020']}).to_csv(
        root / 'table.csv', index=False)
    return root


def vectors(root, **columns):
    "The polygons with other columns, geometry or CRS."
    frame = gpd.read_file(root / 'cover.gpkg')
    crs = columns.pop('crs', frame.crs)
    frame = frame.assign(**columns).set_crs(crs, allow_override=True)
    (root / 'cover.gpkg').unlink()
    frame.to_file(root / 'cover.gpkg')


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def table(root, **columns):
    pd.read_csv(root / 'table.csv', dtype=str).assign(**columns).to_csv(root / 'table.csv', index=False)


def item(root, **changes):
    "A STAC item whose asset is the first image."
    found = {'type': 'Feature', 'stac_version': '1.0.0', 'id': 'one', 'geometry': None, 'bbox': [3, 46, 4, 47],
             'properties': {'datetime': '2018-06-01T00:00:00Z'}, 'links': [],
             'assets': {'image': {'href': './data/2018_image.tif', 'type': 'image/tiff'}}} | changes
    (root / 'item.json').write_text(json.dumps(found))


FAR = [shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]
VECTOR, LISTED = ['labels=cover.gpkg', 'label_field=kind'], ['labels=classes.txt']
CASES = {  # name: (settings, what is done to the files, what is said)
    'a column that is not there': (['labels=cover.gpkg', 'label_field=kid'], None,
                                   "label_field: cover.gpkg has no column 'kid'; nearest: kind; it has kind, code"),
    'one class and nothing else': (['labels=cover.gpkg'], None, 'cover.gpkg: one class .cover., .* set outside='),
    'an outside that is no class': (['label_file=cover.gpkg', 'label_field=kind', *LISTED, 'outside=pnd'], None,
                                    "outside: 'pnd' is no class of .*nearest: pond"),
    'an order of other classes': ([*VECTOR, 'label_order=[lake]'], None, "label_order: 'lake' is no class of"),
    'labels elsewhere': (VECTOR, lambda r: vectors(r, geometry=FAR), 'cover.gpkg: touches none of 3 images'),
    'labels without CRS': (VECTOR, lambda r: vectors(r, crs=None), 'cover.gpkg.* no CRS'),
    'a vector file cut short': (VECTOR, lambda r: cut(r / 'cover.gpkg'), 'cover.gpkg: not a readable GPKG file'),
    'a picture named as a vector file': (VECTOR, lambda r: shutil.copy(r / 'cover.tif', r / 'cover.gpkg'),
                                         'cover.gpkg: not a readable GPKG file, by its first bytes'),
    'a file of labels that is not there': (['labels=none.gpkg'], None, 'none.gpkg: no such file'),
    'drawing settings for a raster': (['labels=cover.tif', 'label_field=kind'], None,
                                      'label_field: tells how polygons, .* are drawn; cover.tif is a raster'),
    'a label raster elsewhere': (['labels=cover.tif'], lambda r: write(
        r / 'cover.tif', np.ones((8, 8), np.uint8), transform=GRID.translation(0, 0)), 'cover.tif: touches none of 3'),
    'a label raster without CRS': (['labels=cover.tif'], lambda r: write(
        r / 'cover.tif', np.ones((8, 8), np.uint8), crs=None), 'cover.tif.* no CRS'),
    'label values that no class has': (['label_file=cover.tif', *LISTED], None,
                                       r'cover.tif.* 2 .*(not in|unknown|no class)'),
    'a legend of another class': (['label_file=cover.tif', *LISTED, 'legend=legend.csv'], lambda r: (
        r / 'legend.csv').write_text('value,class\n1,field\n2,lake\n'), "legend.csv: 2 is 'lake', no class of"),
    'a legend without its column': (['labels=cover.tif', 'legend=legend.csv'], lambda r: (
        r / 'legend.csv').write_text('code,class\n1,field\n'), 'legend.csv: no column value'),
    'an area elsewhere': ([*VECTOR, 'area=[0,0,1,1,EPSG:4326]'], None, 'area .*: touches none of 3 rasters'),
    'an area without CRS': ([*VECTOR, 'area=[0,0,1,1]'], None, 'area: .* names no CRS'),
    'a pattern that names nothing': ([*VECTOR, 'pattern={date}_picture.tif'], None, r'\{date\}_picture.tif'),
    'a band that is not there': ([*VECTOR, 'bands=[1,2,4]'], None, r'bands.* 4'),
    'a raster that is cut short': (VECTOR, lambda r: cut(r / 'data' / '2019_image.tif'), '2019_image.tif'),
    'other numbers of bands': (VECTOR, lambda r: write(
        r / 'data' / '2019_image.tif', np.zeros((4, SIDE, SIDE), np.uint8)), 'different numbers of bands: .*2019'),
    'a band of flags that is not there': ([*VECTOR, 'ignore_band=qa', 'ignore_bits=[3]'], None, "no band 'qa'"),
    'a further band that is not there': ([*VECTOR, 'extra_bands={dem: none.tif}'], None,
                                         r'none.tif: no such raster \(extra_bands\)'),
    'a table with a lost image': (['data=table.csv', *LISTED], lambda r: table(r, image='data/2021_image.tif'),
                                  'table.csv: line 2: .*2021_image.tif'),
    'a table with a split unknown': (['data=table.csv', *LISTED], lambda r: table(r, split='trian'),
                                     "table.csv: line 2: .*'trian'"),
    'a table without images': (['data=table.csv', *LISTED], lambda r: pd.DataFrame({'picture': ['a']}).to_csv(
        r / 'table.csv', index=False), 'table.csv: no column image'),
    'an item cut short': (['data=item.json', *LISTED], lambda r: (r / 'item.json').write_text('{"type": "Fea'),
                          'item.json: not JSON'),
    'a raster instead of a folder': (['data=data/2018_image.tif', *LISTED], None,
                                     '2018_image.tif: a file; data is a folder, such as .*data, a table'),
    'an item without its picture': (['data=item.json', *LISTED], lambda r: item(r, assets={
        'image': {'href': './none.tif', 'type': 'image/tiff'}}), 'none.tif'),
    'a server that nobody runs': (['data=http://127.0.0.1:9/items.json', *LISTED], None, '127.0.0.1'),
}


@pytest.mark.parametrize('name', CASES)
def test_what_is_wrong_is_one_line(made, tmp_path, monkeypatch, capsys, name):
    words, change, said = CASES[name]
    shutil.copytree(made, tmp_path / 'here')
    monkeypatch.chdir(tmp_path / 'here')
    if change:
        change(tmp_path / 'here')
    data = [] if any(word.startswith('data=') for word in words) else ['data=data']
    chip = ['chip=32'] if data else []
    assert main(['inspect', *data, *words, *chip, 'num_workers=0', 'out=tables']) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg inspect')]
    assert len(err) == 1 and re.search(said, err[0]), err
    assert not (tmp_path / 'here' / 'tables').exists()
