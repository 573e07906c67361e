"Statistics of the bands are the same to the last digit, whoever has counted."
import pickle

import numpy as np
import pandas as pd
import pytest
import rasterio
from distributed import LocalCluster

from geoseg.core.errors import ConfigError
from geoseg.data.rasters import chips
from geoseg.evaluation import statistics as module
from geoseg.evaluation.statistics import statistics


@pytest.fixture(scope='module')
def scheduler():
    "With a worker, a thread of this process."
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def scenes(folder, kinds):
    "Rasters of two bands with pixels without data, a date each."
    numbers = np.random.default_rng(0)
    (folder / 'classes.txt').write_text('0 low\n1 high\n')
    for i, kind in enumerate(kinds):
        values = numbers.normal(90, 25, (2, 70, 50 + i)).clip(0, 250).astype(kind)
        values[:, 5 * i:5 * i + 4, :9] = 7
        with rasterio.open(folder / f'{2015 + i}_image.tif', 'w', driver='GTiff', width=50 + i, height=70, count=2,
                           dtype=kind, crs='EPSG:32631', transform=rasterio.Affine(2, 0, 5e5, 0, -2, 5e6), nodata=7,
                           blockysize=2, tiled=False) as file:
            file.write(values)
    return {'data': str(folder), 'masks': 'optional'}


def same(one, two, folder):
    pd.testing.assert_frame_equal(one.table, two.table, check_exact=True)
    assert one.remarks == two.remarks
    texts = [(folder / name / 'statistics.yaml').read_text() for name in ('one', 'two')]
    assert texts[0] == texts[1]


@pytest.mark.parametrize('kind', ['uint8', 'int16', 'float32'])
@pytest.mark.parametrize('shares', [3, 50])
def test_strips_of_rasters_are_shared(kind, shares, scheduler, tmp_path, monkeypatch):
    "Also where there are more tasks than strips."
    monkeypatch.setattr(chips, 'STRIP', 50 * 2 * 8)
    monkeypatch.setattr(module, 'SHARES', shares)
    (tmp_path / 'data').mkdir()
    given = scenes(tmp_path / 'data', [kind] * 3)
    one = statistics(overrides=given, out=tmp_path / 'one')
    two = statistics(overrides=given, out=tmp_path / 'two', address=scheduler)
    assert one.table['no_data'].between(0.001, 0.02).all() and (one.table['std'] > 20).all()
    same(one, two, tmp_path)


@pytest.mark.parametrize('recipe, data', [('wildscenes-unet', 'world:tiny'), ('game4loc-cross-area', 'world:tiny'),
                                          ('unet', 'world:raster:tiny')])
def test_pictures_are_shared(recipe, data, scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'SHARES', 3)
    one = statistics(recipe, {'data': data}, out=tmp_path / 'one')
    two = statistics(recipe, {'data': data}, out=tmp_path / 'two', address=scheduler)
    same(one, two, tmp_path)


def test_workers_stand_elsewhere(tmp_path, monkeypatch):
    "What a worker is sent can be pickled, and its folder is found from where the command was typed."
    def elsewhere(function, tasks, where, title):
        for name, given in sorted(tasks.items(), reverse=True):
            call = pickle.loads(pickle.dumps((function, given)))
            with monkeypatch.context() as there:
                there.chdir('/')
                yield name, pickle.loads(pickle.dumps(call[0](*call[1])))

    (tmp_path / 'data').mkdir()
    given = scenes(tmp_path / 'data', ['uint16'] * 2) | {'data': 'data'}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, 'compute', elsewhere)
    one = statistics(overrides=given, out='one')
    two = statistics(overrides=given, out='two', workers=2)
    same(one, two, tmp_path)


@pytest.mark.parametrize('kinds, wrong', [
    (['uint8', 'int16'], 'int16 and uint8'), (['uint16', 'int16'], 'int16 and uint16'),
    (['uint8', 'float32'], 'float32 and uint8'), (['float32', 'uint8'], 'float32 and uint8')])
def test_images_of_several_types_are_refused(kinds, wrong, scheduler, tmp_path):
    (tmp_path / 'data').mkdir()
    given = scenes(tmp_path / 'data', kinds)
    for more in ({}, {'address': scheduler}):
        with pytest.raises(ConfigError, match=f'several types, {wrong}'):
            statistics(overrides=given, out=tmp_path / 'out', **more)
    assert not (tmp_path / 'out').exists()


def test_workers_that_cannot_be(tmp_path):
    (tmp_path / 'data').mkdir()
    given = scenes(tmp_path / 'data', ['uint8'])
    for more, wrong in (({'workers': 0}, 'workers is 0'), ({'address': 'here'}, 'tcp://HOST:8786'),
                        ({'workers': 2, 'address': 'tcp://here:1'}, 'one of them')):
        with pytest.raises(ConfigError, match=wrong):
            statistics(overrides=given, out=tmp_path / 'out', **more)
