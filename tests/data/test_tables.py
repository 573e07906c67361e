"A table of images says what belongs together and who trains; a row that cannot be used is named by its line."
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import tiny
from a_raster import GRID, write
from affine import Affine
from PIL import Image

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.data.layouts import recognise
from geoseg.data.tables import RasterTableData, Rows, TableData
from geoseg.training.config import parse

RNG = np.random.default_rng(0)
SPLITS = ('train', 'train', 'val', 'test')


@pytest.fixture
def pictures(tmp_path):
    "Names without a scheme, and the table that makes sense of them."
    rows = []
    for n in range(8):
        for folder, values in (('photo', RNG.integers(0, 255, (64, 64, 3))), ('truth', RNG.integers(0, 2, (64, 64)))):
            path = tmp_path / 'data' / folder / f'{"x" if folder == "photo" else "y"}{n}_{n * 7 % 8}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(path)
            (rows.append if folder == 'photo' else rows[-1].append)([f'{folder}/{path.name}'] if folder == 'photo' else
                                                                    f'{folder}/{path.name}')
    (tmp_path / 'data' / 'classes.txt').write_text('0 low\n1 high\n')
    return pd.DataFrame(rows, columns=['image', 'label']).assign(
        split=[*SPLITS] * 2, date=[f'2020-05-0{n + 1}T12:00' for n in range(8)], source='flight',
        lat=[47 + n / 1e4 for n in range(8)], long=9.)


@pytest.mark.parametrize('suffix', ['.csv', '.parquet', '.geoparquet'])
def test_pictures_of_a_table(pictures, tmp_path, suffix):
    path = tmp_path / 'data' / f'table{suffix}'
    if suffix == '.csv':
        pictures.to_csv(path, index=False)
    elif suffix == '.parquet':
        pictures.assign(date=pd.to_datetime(pictures['date'])).to_parquet(path)
    else:
        places = gpd.points_from_xy(pictures['long'], pictures['lat'], crs='EPSG:4326')
        gpd.GeoDataFrame(pictures.drop(columns=['lat', 'long']), geometry=places).to_crs('EPSG:3857').to_parquet(path)
    assert recognise(path) is TableData
    data = parse(['unet'], {'data': str(path), 'image_size': [64, 64], 'batch_size': 2}).build_data()
    data.setup()
    table = data.table.sort_values('name')
    assert table['split'].tolist() == pictures.sort_values('image')['split'].tolist()
    assert np.allclose(table['lat'], [47 + n / 1e4 for n in range(8)]) and table['time'].iloc[0] == 1588334400
    assert set(table['source']) == {'flight'} and len(data.datasets['train']) == 4
    sample = data.datasets['val'].read(0)
    assert np.array_equal(sample[1], np.asarray(Image.open(data.datasets['val'].masks[0])))


@pytest.fixture
def rasters(tmp_path):
    "Two rasters of two CRS that train, one each that validates and tests, and one without a label."
    rows = []
    for n, split in enumerate((*SPLITS, 'predict')):
        crs, grid = ('EPSG:32631', GRID) if n else ('EPSG:32632', Affine.translation(-456_000, 0) @ GRID)
        grid = Affine.translation(n * 2000, 0) @ grid
        write(tmp_path / 'data' / f's{n}' / 'scene.tif', RNG.integers(1, 255, (3, 96, 96)).astype(np.uint8), crs, grid)
        write(tmp_path / 'data' / 'truth' / f'{n}.tif', RNG.integers(0, 2, (96, 96)).astype(np.uint8), crs, grid)
        rows.append([f's{n}/scene.tif', f'truth/{n}.tif' if split != 'predict' else '', split, f'20200{n + 1}01'])
    (tmp_path / 'data' / 'classes.txt').write_text('0 low\n1 high\n')
    return pd.DataFrame(rows, columns=['image', 'label', 'split', 'date'])


def test_a_run_on_rasters_of_a_table(rasters, tmp_path):
    "Trained, tested, answered by the table, which the run names; other CRS and all."
    path = tmp_path / 'data' / 'table.csv'
    rasters.to_csv(path, index=False)
    assert recognise(path) is RasterTableData
    how = dict(tiny.settings('unet', epochs=1), image_size=None, crop=None, color_jitter=None, chip=64)
    run = geoseg.train('unet', str(path), out=tmp_path / 'runs', overrides=how)
    data = run.data()
    data.setup()
    areas = {split: [a.acquisition.image.parent.name for a in chips.areas] for split, chips in data.datasets.items()}
    assert areas == {'train': ['s0', 's1'], 'val': ['s2'], 'test': ['s3'], 'predict': ['s4']}
    assert geoseg.evaluate(run.folder, out=tmp_path / 'scores').confusions.sum() == 96 * 96
    out = geoseg.predict(run.folder, str(path), out=tmp_path / 'maps', window=64)
    assert len([*out.glob('*_classes.tif')]) == 1


BAD = {
    'image': (lambda t: t.rename(columns={'image': 'imge'}), 'no column image; nearest: imge; it has imge, label'),
    'empty': (lambda t: t[:0], 'no rows'),
    'absent': (lambda t: t.replace('photo/x3_5.png', 'photo/x9.png'), r'line 5: image: .*photo/x9.png: no such file'),
    'label': (lambda t: t.replace('truth/y1_7.png', 'truth/y9.png'), r'line 3: label: .*truth/y9.png: no such file'),
    'twice': (lambda t: pd.concat([t, t[2:3]]), 'line 10: x2_6.png stands on line 4 already'),
    'split': (lambda t: t.replace('val', 'valid'), "line 4: split is 'valid', expected train, val, test or predict"),
    'some': (lambda t: t.assign(split=['train'] * 7 + [None]), "line 9: split is '', .*all rows have one, or none"),
    'unlabelled': (lambda t: t.assign(label=[*t['label'][:6], None, None]), 'line 8: split is val, and it has no'),
    'outside': (lambda t: t.replace('photo/x0_0.png', '../x.png'), 'line 2: image: .*which lies outside of'),
    'address': (lambda t: t.replace('photo/x0_0.png', 'https://a.b/x.png'), 'line 2: image: .*an address'),
    'date': (lambda t: t.replace('2020-05-03T12:00', 'May'), "line 4: date is 'May', expected such as 20240801"),
    'lat': (lambda t: t.assign(lat=['47', '470'] * 4), 'line 3: lat is 470, expected degrees'),
    'long': (lambda t: t.assign(long=['E9'] * 8), "line 2: long is 'E9', expected degrees"),
    'no_image': (lambda t: t.assign(image=[None, *t['image'][1:]]), 'line 2: image is empty'),
}


@pytest.mark.parametrize('name', BAD)
def test_tables_that_cannot_be_used(pictures, tmp_path, name):
    change, message = BAD[name]
    path = tmp_path / 'data' / 'table.csv'
    change(pictures).to_csv(path, index=False)
    with pytest.raises(ConfigError, match=message) as error:
        rows = Rows(path)
        rows.times(), rows.numbers('lat'), rows.numbers('long')
    assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_two_ways_of_splitting_are_one_too_many(pictures, tmp_path):
    path = tmp_path / 'data' / 'table.csv'
    pictures.to_csv(path, index=False)
    with pytest.raises(ConfigError, match="split is 'random', and .*table.csv has a column split"):
        TableData(path, split='random')
    with pytest.raises(ConfigError, match='a table holds all splits'):
        TableData({'train': str(path)})
