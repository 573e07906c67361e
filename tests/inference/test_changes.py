"What has changed: files agree, windows and kills change no byte, and the same picture shows no change."
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy.ndimage import shift

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.files import read_acquisition
from geoseg.geo.coords import Frame
from geoseg.geo.memory import GeoMemory
from geoseg.inference.rasters import changes as module
from geoseg.inference.rasters import compare
from geoseg.inference.rasters.change_points import sample
from geoseg.inference.rasters.changes import areas_of_rows, changes
from geoseg.inference.rasters.compare import NOT_JUDGED, remembered, times_before
from geoseg.models.checkpoints import stored_memory
from geoseg.models.outdated import REACH, CrossFit, Fusion, windows_of

K, SIZE = 20, (96, 80)
DATES = '20180101', '20190101', '20200101', '20210101'
SMALL = {'block': 24, 'sample': 2000, 'most': 200, 'taught': 300, 'window': 64,
         'align': False}  # the maps that are drawn move from year to year, and so do the pictures


def draw(folder: Path):
    "Twenty classes, three old maps that disagree, unmapped corners and a class that the list ignores."
    random, (rows, cols) = np.random.default_rng(0), np.indices(SIZE)
    colours = random.integers(30, 220, (K, 3))
    grid = {'driver': 'GTiff', 'width': SIZE[1], 'height': SIZE[0], 'crs': 'EPSG:32633', 'dtype': 'uint8',
            'transform': from_origin(500000, 5200000, 2, 2)}
    for i, date in enumerate(DATES):
        mask = (rows // 12 * 7 + (cols + 2 * i) // 8 * 3) % K
        mask[40:60, 10:30] = 7 if i == 3 else 3
        pixels = np.clip(colours[mask] + random.normal(0, 4, (*SIZE, 3)), 1, 255).astype(np.uint8)
        mask[:6, :9], mask[-5:, -7:] = 255, 99  # not mapped; ignored
        pixels[90:, :4] = 0  # no data
        with rasterio.open(folder / f'{date}_image.tif', 'w', count=3, nodata=0, **grid) as file:
            file.write(pixels.transpose(2, 0, 1))
        with rasterio.open(folder / f'{date}_mask.tif', 'w', count=1, nodata=255, **grid) as file:
            file.write(mask[None].astype(np.uint8))
    rows = [f'{k},class {k},{r},{g},{b}' for k, (r, g, b) in enumerate(colours)]
    (folder / 'category.csv').write_text('\n'.join(['id,name,r,g,b', *rows]) + '\n')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('changes') / 'place'
    folder.mkdir()
    draw(folder)
    return folder


class Told:
    "In place of trees: the new picture's own map, by so many."
    part = slice(0, SIZE[0]), slice(0, SIZE[1])  # of the raster that is read

    def __init__(self, images, masks, num_classes, window, store, **how):
        self.window, self.seed, self.tiles = window, 0, 64

    def fit(self, known):
        return self

    def prepare(self, date, known):
        assert max(known) < date  # nothing of its year, or later

    def predict_window(self, date, window):
        truth = read(Told.folder / f'{min(date, DATES[3])}_mask.tif')[0]
        random = np.random.default_rng(0).uniform(0, 0.04, (K, *SIZE)).astype(np.float32)
        random[truth[truth < K], truth < K] = 0
        shares = (np.arange(K)[:, None, None] == truth) + random
        return (shares / shares.sum(0))[:, *Told.part][:, *window]

    def predict_windows(self, date, done=0):
        for window in windows_of([s.stop - s.start for s in Told.part], self.window):
            if window[0].stop > done:
                yield window, self.predict_window(date, window)


@pytest.fixture
def told(folder, monkeypatch):
    Told.folder = folder
    monkeypatch.setattr(module, 'OutdatedMaps', Told)


def make(folder, out, **more):
    return changes(**{'data': folder / f'{DATES[3]}_image.tif', 'maps': folder, 'out': out, 'unknown': 'ignore'} | SMALL
                   | more)


@pytest.fixture(scope='module')
def written(folder, tmp_path_factory):
    out, Told.folder = tmp_path_factory.mktemp('written'), folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'OutdatedMaps', Told)
        return out, make(folder, out)


def read(path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def file_of(out, kind='tif') -> Path:
    return Path(out) / f'{DATES[3]}_image_changes.{kind}'


def test_raster_table_polygons_and_report_agree(folder, written):
    out, report = written
    code, sure, before = read(file_of(out))
    judged = code != NOT_JUDGED
    then, now = code // K, code % K
    moved = judged & (then != now)
    assert not judged[90:, :4].any() and not judged[:6, :9].any() and not judged[-5:, -7:].any()
    assert judged.sum() == report['judged'] and moved.sum() == report['changed'] and moved.sum() > 300
    truth = read(folder / f'{DATES[3]}_mask.tif')[0]
    assert (truth == now)[moved & (truth < K)].mean() > 0.9
    table = pd.read_csv(file_of(out, 'csv'))
    assert len(table) == K * K and np.isclose(table.hectares.sum(), judged.sum() * 4e-4)
    first = report['largest'][0]
    row = table[(table['from'] == first['from']) & (table['to'] == first['to'])].hectares.item()
    pair = [int(first[key].split()[1]) for key in ('from', 'to')]
    assert row == first['hectares'] and np.isclose(row, ((then == pair[0]) & (now == pair[1]) & judged).sum() * 4e-4)
    rows = gpd.read_file(file_of(out, 'gpkg'))
    assert len(rows) == report['polygons'] and np.isclose(rows.area_m2.sum(), 4 * moved.sum())
    for row in rows.sort_values('area_m2').tail(3).itertuples():
        at = rasterio.features.geometry_mask([row.geometry], SIZE, from_origin(500000, 5200000, 2, 2), invert=True)
        assert 4 * at.sum() == row.area_m2 and len(np.unique(code[at])) == 1
        assert np.isclose(row.confidence, sure[at].mean() / 1e4, atol=1e-4) and row.to == f'class {now[at][0]}'
    names = Path(f'{file_of(out)}.aux.xml').read_text()
    assert names.count('<Category>') == K * K and '<Category>class 3 → class 7</Category>' in names
    drawn = re.findall('value="([0-9]+)" color="(.*?)" alpha="255" label="(.*?)"', file_of(out, 'qml').read_text())
    colors = LabelScheme.load(folder / 'category.csv').colors.tolist()
    assert drawn == [(str(c), '#{:02x}{:02x}{:02x}'.format(*colors[c % K]), f'class {c // K} → class {c % K}')
                     for c in np.unique(code[moved])]
    with sqlite3.connect(file_of(out, 'gpkg')) as database:
        [(layer, style)] = database.execute('SELECT f_table_name, styleQML FROM layer_styles')
    assert layer == 'changes' and 'attr="to"' in style and style.count('<category ') == K
    assert f'{first["from"]} → {first["to"]}' in file_of(out, 'html').read_text()
    assert (before[~moved] == NOT_JUDGED).all() and set(rows.lasting) <= {'yes', 'no', 'unknown'}


def test_what_is_compared_with_and_what_came_before_by_a_loop():
    random = np.random.default_rng(3)
    maps = random.choice([0, 1, 2, 255], (4, 6, 7)).astype(np.uint8)
    now = random.integers(0, 3, (6, 7)).astype(np.uint8)
    for since in ('newest', 'majority', 1):
        then, shown = remembered(maps, 3, since)
        before = times_before(maps, now, shown, 3)
        for row, col in np.ndindex(6, 7):
            cell = maps[:, row, col].tolist()
            known = [c for c in cell if c < 3]
            told = {'newest': known[-1:], 'majority': [max(sorted(set(known)), key=known.count)] if known else [],
                    1: [cell[1]] if cell[1] < 3 else []}[since]
            assert [c for c in [then[row, col]] if c < 3] == told
            if told:
                at = 1 if since == 1 else max(i for i, c in enumerate(cell) if c == told[0])
                older = [c for c in cell[:at] if c < 3]
                assert shown[row, col] == at
                assert before[row, col] == (older.count(now[row, col]) if older else 255)


def test_killed_and_taken_up_again_with_other_windows(folder, written, told, tmp_path):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    else:
        plain, calls = module.Draft.mark, []

        def counted(*args):
            calls.append(args)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args)
        module.Draft.mark = counted
        try:
            make(folder, tmp_path)
        finally:
            os._exit(1)
    assert not list(tmp_path.glob('*.tif'))
    make(folder, tmp_path, window=48)
    for kind in ('tif', 'csv', 'tif.aux.xml', 'qml'):
        assert file_of(tmp_path, kind).read_bytes() == file_of(written[0], kind).read_bytes(), kind
    one, other = (gpd.read_file(file_of(out, 'gpkg')) for out in (tmp_path, written[0]))
    assert one.to_json() == other.to_json() and not list(tmp_path.glob('.*'))


def test_trees_find_changes_of_twenty_classes_and_none_in_the_same_picture(folder, tmp_path, monkeypatch):
    for kind in (CrossFit, Fusion):  # that learn for a moment
        monkeypatch.setattr(kind, 'settings', kind.settings | {'max_iter': 10, 'learning_rate': 0.3})
    monkeypatch.setitem(CrossFit.settings, 'min_samples_leaf', 10)
    make(folder, tmp_path / 'out', write=[], most=2000)
    code, truth = read(file_of(tmp_path / 'out'))[0], read(folder / f'{DATES[3]}_mask.tif')[0]
    moved, judged = (code != NOT_JUDGED) & (code // K != code % K), (code != NOT_JUDGED) & (truth < K)
    changed = truth != code // K
    assert changed[moved & judged].mean() > 1.2 * changed[judged].mean()
    again = tmp_path / 'again.tif'
    shutil.copy(folder / f'{DATES[2]}_image.tif', again)
    report = make(folder, tmp_path / 'again', data=again, date='20220101', known=DATES[:3], write=[])
    assert report['changed'] == 0 and report['judged'] > 6000


def test_classes_left_out_small_pieces_and_another_year(folder, written, told, tmp_path):
    code = read(file_of(written[0]))[0]
    report = make(folder, tmp_path / 'a', leave_out=['class 7'], write=[])
    other = read(file_of(tmp_path / 'a'))[0]
    lost = (code != NOT_JUDGED) & (other == NOT_JUDGED)
    assert lost.sum() == (((code // K == 7) | (code % K == 7)) & (code != NOT_JUDGED)).sum()
    assert (code[~lost] == other[~lost]).all() and report['not judged'] > written[1]['not judged']
    make(folder, tmp_path / 'b', postprocess={'min_area': 200}, since=2018, write=['polygons'], simplify=1)
    table = gpd.read_file(file_of(tmp_path / 'b', 'gpkg'))
    assert set(table.date_remembered) == {DATES[0]} and set(table.lasting) == {'unknown'}
    assert len(table) and table.area_m2.min() >= 200


@pytest.mark.parametrize('block', [1024, 16])
def test_no_place_of_the_list_is_smaller_than_asked_and_no_larger_one_is_lost(folder, written, told, tmp_path,
                                                                             monkeypatch, block):
    monkeypatch.setattr(module, 'BLOCK', block)
    rows = gpd.read_file(file_of(written[0], 'gpkg'))
    make(folder, tmp_path, postprocess={'min_area': 40}, write=['polygons'])
    kept, plain, code = gpd.read_file(file_of(tmp_path, 'gpkg')), *(read(file_of(o))[0] for o in (written[0], tmp_path))
    small = rows.area_m2 < 40
    assert 0 < small.sum() < len(rows) and len(kept) == (~small).sum()
    assert sorted(kept.geometry.to_wkb()) == sorted(rows[~small].geometry.to_wkb())
    lost = rasterize(rows[small].geometry, SIZE, transform=from_origin(500000, 5200000, 2, 2)) == 1
    assert (code[~lost] == plain[~lost]).all() and (code[lost] == plain[lost] // K * (K + 1)).all()


@pytest.mark.parametrize(('options', 'says'), [
    ({'since': 2030}, 'a map of the future'), ({'since': 1990}, 'expected newest, majority, or one of'),
    ({'known': [DATES[2], DATES[3]]}, 'has no map of'), ({'leave_out': ['clas 7']}, 'nearest: class 7'),
    ({'data': '{folder}/' + f'{DATES[0]}_image.tif'}, 'has no older map'), ({'threshold': 2}, 'from 0 to 1'),
    ({'precision': 1.5}, 'below 1'), ({'unlike': 0}, 'unlike is 0, expected'), ({'unlike': 2}, 'below 1'),
    ({'reference': 'nowhere.tif'}, 'nowhere.tif'), ({'false_alarms': 0}, 'above 0'), ({'ground': 2}, 'ground is 2'),
    ({'write': ['polygon']}, 'nearest: polygons'), ({'simplify': -1}, 'from 0'), ({'maps': None}, 'maps is missing'),
    ({'data': '{folder}/' + f'{DATES[1]}_image.tif', 'known': [DATES[0], DATES[2]]}, 'a map of the future'),
    ({'unknown': 'error'}, 'values .* not declare: 99'), ({'labels': 'water'}, 'expected|not declare'),
    ({'postprocess': {'crf': {}}}, 'crf'), ({'checkpoint': 'nowhere.ckpt'}, 'nowhere.ckpt')])
def test_bad_input_is_one_line_before_any_work(folder, tmp_path, monkeypatch, options, says):
    monkeypatch.setattr(module.OutdatedMaps, 'fit', None)
    options = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in options.items()}
    if 'labels' in options:
        options['unknown'] = 'error'
    with pytest.raises((ConfigError, ValueError, OSError), match=says) as error:
        make(folder, tmp_path / 'out', **options)
    assert '\n' not in str(error.value) and not [*tmp_path.rglob('*.*')]


@pytest.mark.parametrize(('date', 'grid', 'options', 'says'), [
    ('20210101', {'transform': from_origin(500001, 5200000, 2, 2)}, {},
     '{maps}/20180101_image.tif: another grid than 20210101_image.tif, .* from 500000, 5200000, not .* from 500001, '
     '5200000: warp it to that grid .gdalwarp.'),
    ('20210101', {'width': 70}, {}, '{maps}/20180101_image.tif: another grid .* 80 x 96 pixels .*, not 70 x 96.*'),
    ('20210101', {'crs': 'EPSG:32634'}, {},
     '{maps}/20180101_image.tif: CRS EPSG:32633, 20210101_image.tif has EPSG:32634: warp it to that .gdalwarp.'),
    ('20210101', {'crs': None}, {}, '{data}: crs: none given .*'),
    ('20210101', {'count': 2}, {}, '{maps}/20180101_image.tif: 3 bands, 20210101_image.tif has 2: set bands'),
    ('20210101', {}, {'labels': ['water', 'land'], 'unknown': 'error'},
     '{maps}/20180101_mask.tif: .* hold values that .* does not declare: 2 .*add them to the class list.*'),
    ('20210101', {}, {'checkpoint': 'stub'},
     'stub: classes water, land; the maps have class 0, class 1, .*: set labels to a list of the same classes'),
    ('20170101', {}, {}, '{data}: of 20170101, and {maps} has no older map .maps: 20180101, .*, 20210101.; give a '
                         'raster that was taken after a map'),
    ('20200101', {}, {'known': ['20180101', '2021']},
     'known: 20210101 is a map of the future: 20200101_image.tif is of 20200101'),
    ('20200101', {}, {'since': '2021-01-01'}, 'since is 2021-01-01, and the new raster is of 20200101: a map of the '
                                              'future'),
    ('20200101', {}, {'since': '2017-01-01'}, "since is '2017-01-01': no maps; expected newest, majority, or one of "
                                              '20180101, 20190101')])
def test_rasters_maps_and_dates_that_do_not_fit_are_one_line(folder, tmp_path, monkeypatch, date, grid, options, says):
    monkeypatch.setattr(module.OutdatedMaps, 'fit', None)
    network = SimpleNamespace(kind='segmentation', scheme=LabelScheme(['water', 'land']), fingerprint='')
    monkeypatch.setattr(module, 'Trained', lambda *_: network)
    data = tmp_path / f'{date}_image.tif'
    with rasterio.open(folder / f'{DATES[2]}_image.tif') as file:
        profile, pixels = file.profile | grid, file.read()
    with rasterio.open(data, 'w', **profile) as file:
        file.write(pixels[:profile['count'], :, :profile['width']])
    if 'labels' in options:
        options = options | {'labels': LabelScheme(options['labels'])}
    with pytest.raises((ConfigError, ValueError)) as error:
        make(folder, tmp_path / 'out', data=data, **options)
    assert re.fullmatch(says.format(data=data, maps=folder), str(error.value)) and not (tmp_path / 'out').exists()


def test_a_date_may_have_hyphens(folder, written, told, tmp_path):
    report = make(folder, tmp_path / 'out', since='2019-01-01', write=[])
    assert report['job']['since'] == '2019-01-01' and report['largest'] != written[1]['largest']


def test_a_precision_is_promised_or_refused_and_the_confidence_is_calibrated(folder, told, tmp_path):
    new = {'data': folder / f'{DATES[3]}_image.tif', 'ground': 8, 'write': []}
    with pytest.raises(ConfigError, match='need two past years that can be forecast.* there are 1'):
        make(folder, tmp_path / 'a', precision=0.5, **new)
    later = tmp_path / 'later.tif'
    shutil.copy(new.pop('data'), later)
    new |= {'data': later, 'date': '20220101', 'known': DATES}
    report = make(folder, tmp_path / 'b', precision=0.9, **new)
    rows = report['past years']
    assert [row['year'] for row in rows] == [*DATES[2:]] and report['calibrated']
    assert all(row['precision'] > 0.95 and row['precision there'] > 0.9 for row in rows)  # the stub is right
    assert report['picture weight'] == 0  # and nothing can rank better
    table = pd.read_csv(tmp_path / 'b' / 'later_changes.csv')
    assert np.isclose(table.hectares.sum(), table.corrected_hectares.sum())
    with pytest.raises(ConfigError, match='false_alarms=0.001 per km² cannot be promised at risk 0.1 from') as error:
        make(folder, tmp_path / 'c', false_alarms=0.001, **new)
    assert '\n' not in str(error.value) and not list((tmp_path / 'c').glob('*.tif'))


class Unsure(Told):
    "In place of trees: the class of the newest map, with a probability drawn by chance."

    def predict_window(self, date, window):
        then = read(Told.folder / f'{max(d for d in DATES if d < date)}_mask.tif')[0]
        stays = np.random.default_rng(int(date)).uniform(0.2, 0.8, SIZE)
        shares = np.where(np.arange(K)[:, None, None] == then, stays, (1 - stays) / (K - 1))
        return shares[:, *window].astype(np.float32)


def draw_pictures(folder, place, looks, black=None):
    "Pictures of each map, and of 2022 with the ground of 2020; or, without looks, of nothing; some black in a part."
    random, nodata = np.random.default_rng(5), {} if black is None else {'nodata': None}
    shutil.copytree(folder, place)
    for date in (*DATES, '20220101'):
        source = f'{DATES[2]}_image.tif' if date > DATES[3] else f'{date}_image.tif'
        with rasterio.open(folder / source) as file:
            grid, pixels = file.profile, file.read()
        noise = random.integers(1, 6, pixels.shape) if looks else random.integers(1, 250, pixels.shape)
        pixels = np.clip(pixels * looks + noise, 1, 255).astype(np.uint8)
        pixels[:, *(black or {}).get(date, (slice(0),))] = 0
        with rasterio.open(place / f'{date}_image.tif', 'w', **grid | nodata) as file:
            file.write(pixels)
    return {'data': place / '20220101_image.tif', 'maps': place, 'write': [], 'ground': 8, 'max_shift': 100}


@pytest.mark.parametrize('looks', [True, False])
def test_pictures_that_differ_count_where_they_told_of_every_past_change(folder, tmp_path, monkeypatch, looks):
    place = tmp_path / 'place'
    Told.folder = place
    monkeypatch.setattr(module, 'OutdatedMaps', Unsure)
    new = draw_pictures(folder, place, looks)
    report = make(place, tmp_path / 'a', **new)
    then, now = (read(folder / f'{date}_mask.tif')[0] for date in (DATES[3], DATES[2]))
    _, sure, _ = read(tmp_path / 'a' / '20220101_image_changes.tif')
    judged = sure != NOT_JUDGED
    higher = sure[judged & (then != now)].mean() / sure[judged & (then == now)].mean()
    if looks:
        assert report['picture weight'] > 0 and higher > 1.5
        make(place, tmp_path / 'b', window=32, **new)
        name = '20220101_image_changes.tif'
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
    else:
        assert report['picture weight'] == 0 and 0.9 < higher < 1.1


@pytest.mark.parametrize('looks', [True, False])
def test_ground_that_is_black_along_the_border_is_not_judged_where_it_counts(folder, tmp_path, monkeypatch, looks):
    monkeypatch.setattr(module, 'OutdatedMaps', Unsure)
    old, now, lake = np.s_[:4, :], np.s_[:, -5:], np.s_[50:60, 50:60]
    codes, reports = {}, {}
    for name, black in (('plain', {DATES[3]: lake, '20220101': lake}), ('black', {DATES[3]: old, '20220101': now})):
        Told.folder = tmp_path / name
        how = draw_pictures(folder, Told.folder, looks, black)
        reports[name] = make(Told.folder, tmp_path / f'{name} out', **how)
        codes[name] = read(tmp_path / f'{name} out/20220101_image_changes.tif')[0] == NOT_JUDGED
    assert reports['plain']['black edges'] == {}  # a lake is not the border
    assert reports['black']['black edges'] == {'20220101_image.tif': 5 / 80, f'{DATES[3]}_image.tif': round(4 / 96, 6)}
    assert (reports['black']['picture weight'] > 0) == looks  # only then does the old picture count
    wanted = codes['plain'].copy()
    wanted[now] = True
    wanted[old] |= looks
    assert (codes['black'] == wanted).all() and not codes['plain'][old].all()
    told = module.describe_changes(reports['black']).splitlines()[-1]
    assert '20220101_image.tif 6.2%, ' in told and f'{DATES[3]}_image.tif 4.2% of' in told
    assert 'black' not in module.describe_changes(reports['plain'])
    if shutil.which('nearblack'):  # the remedy that is told
        for date in (DATES[3], '20220101'):
            command = ['nearblack', '-q', *'-near 0 -nb 0 -setmask'.split(), Told.folder / f'{date}_image.tif']
            subprocess.run(command, check=True)
        assert make(Told.folder, tmp_path / 'again', **how)['black edges'] == {}


def test_black_ground_of_a_picture_that_is_moved_moves_with_it(folder, tmp_path):
    draw_pictures(folder, tmp_path / 'place', True, {'20220101': np.s_[:, -5:]})
    place = module.open_place(tmp_path / 'place/20220101_image.tif', tmp_path / 'place', unknown='ignore')
    place.look_for_black()
    place.align(2, 0)
    window, black = tuple(slice(0, n) for n in SIZE), np.zeros(SIZE, bool)
    assert not place.unseen(DATES, window).any()
    black[:, -7:] = True
    assert (place.unseen([place.day], window, 2, 0) == black).all()


def test_a_cloud_is_not_judged_and_points_that_are_looked_up_give_areas(folder, written, told, tmp_path):
    plain = read(file_of(written[0]))[0]
    with rasterio.open(folder / f'{DATES[3]}_mask.tif') as file:
        profile, cloud = file.profile | {'nodata': None}, np.zeros((1, *SIZE), np.uint8)
    cloud[0, 20:40, 30:50], cloud[0, 60:70] = 4, 1
    with rasterio.open(tmp_path / 'cloud.tif', 'w', **profile) as file:
        file.write(cloud)
    make(folder, tmp_path / 'a', unusable=tmp_path / 'cloud.tif', unusable_bits=[2], write=[])
    other = read(file_of(tmp_path / 'a'))[0]
    hidden = cloud[0] == 4
    assert (other[hidden] == NOT_JUDGED).all() and (other[~hidden] == plain[~hidden]).all()
    table = sample(file_of(written[0]), tmp_path / 'drawn', size=200, least=5)
    assert np.isclose(table.hectares.sum(), 7567 * 4e-4) and (table.points >= 5).all()
    points = tmp_path / 'drawn' / 'points.gpkg'
    with pytest.raises(ConfigError, match='points are not filled in .first: point 1.: each needs then and now'):
        make(folder, tmp_path / 'b', reference_points=points)
    rows = gpd.read_file(points)
    rows['then'], rows['now'] = rows.mapped_then, rows.mapped_now
    rows.loc[0, 'now'] = 'clas 3'
    rows.to_file(points, layer='points')
    with pytest.raises(ConfigError, match="point 1: now is 'clas 3'.*nearest: class 3"):
        make(folder, tmp_path / 'b', reference_points=points)
    rows.loc[0, 'now'] = rows.mapped_now[0]
    rows.to_file(points, layer='points')
    make(folder, tmp_path / 'b', reference_points=points, write=[])
    areas = pd.read_csv(tmp_path / 'b' / f'{DATES[3]}_image_areas.csv', index_col='category')
    assert np.isclose(areas.area.sum(), 7567 * 4e-4, atol=2e-3) and areas.loc['all', 'accuracy'] == 1


def test_clouds_of_a_part_of_the_raster(folder, written, told, tmp_path, monkeypatch):
    part, cloud = (slice(10, 70), slice(20, 75)), np.zeros(SIZE, np.uint8)
    cloud[5:40, 30:50] = 1
    monkeypatch.setattr(Told, 'part', part)
    box = [500000 + 2 * 20, 5200000 - 2 * 70, 500000 + 2 * 75, 5200000 - 2 * 10, 'EPSG:32633']
    with rasterio.open(folder / f'{DATES[3]}_mask.tif') as file:
        profile = file.profile | {'nodata': None}
    with rasterio.open(tmp_path / 'cloud.tif', 'w', **profile) as file:
        file.write(cloud[None])
    ring = shapely.box(500000 + 2 * 30, 5200000 - 2 * 40, 500000 + 2 * 50, 5200000 - 2 * 5).buffer(-0.5)
    gpd.GeoDataFrame(geometry=[ring], crs='EPSG:32633').to_file(tmp_path / 'cloud.gpkg')
    plain, hidden = read(file_of(written[0]))[0][part], cloud[part] == 1
    for name in ('cloud.tif', 'cloud.gpkg'):
        make(folder, tmp_path / name[-3:], unusable=tmp_path / name, area=box, write=[])
        other = read(file_of(tmp_path / name[-3:]))[0]
        assert (other[hidden] == NOT_JUDGED).all() and (other[~hidden] == plain[~hidden]).all()
    profile |= {'transform': from_origin(500001, 5200000, 2, 2)}
    with rasterio.open(tmp_path / 'other.tif', 'w', **profile) as file:
        file.write(cloud[None])
    with pytest.raises(ConfigError, match='other.tif: another grid than'):
        make(folder, tmp_path / 'c', unusable=tmp_path / 'other.tif', area=box)


def test_a_picture_that_is_moved_is_refused(folder, told, tmp_path):
    with rasterio.open(folder / f'{DATES[2]}_image.tif') as file:
        profile, pixels = file.profile, file.read()
    pixels[pixels == 0] = 1
    with rasterio.open(tmp_path / 'moved.tif', 'w', **profile) as file:
        file.write(np.roll(pixels, 6, 2))
    with pytest.raises(ConfigError, match=r'moved.tif: moved by [56]\.\d+ pixels right, .* register it first'):
        make(folder, tmp_path / 'a', data=tmp_path / 'moved.tif', date='20220101', known=DATES[:3])


class ByColour(Told):
    "In place of trees: the class of the nearest colour, of the picture as it is read."

    def __init__(self, images, *more, **how):
        super().__init__(images, *more, **how)
        self.images = images

    def predict_window(self, date, window):
        colours = np.random.default_rng(0).integers(30, 220, (K, 3))  # as in `draw`
        pixels = self.images[date][:, *window]
        far = np.square(pixels[None] - colours[..., None, None]).sum(1)
        return np.where(np.isnan(pixels[0]), np.nan, far.argmin(0) == np.arange(K)[:, None, None]).astype(np.float32)


STRIPES = [  # classes of three old maps and of today; newest: then, maps of today's class before; majority; 2018
    ((5, 6, 7), 8, (7, 0), 5, 5), ((3, 3, 3), 3, (3, None), 3, 3), ((8, 6, 7), 8, (7, 1), 6, 8),
    ((19, 0, 99), 19, (0, 1), 0, 19), ((99, 255, 99), 4, None, None, None), ((255, 99, 4), 19, (4, 255), 4, None),
    ((12, 12, 13), 12, (13, 2), 12, 12), ((0, 19, 19), 0, (19, 1), 19, 0), ((11, 2, 99), None, None, None, None)]


def test_twenty_classes_and_three_maps_that_disagree_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'OutdatedMaps', ByColour)
    place, height = tmp_path / 'place', 8
    place.mkdir()
    draw(place)
    (place / f'{DATES[3]}_mask.tif').unlink()
    shape = len(STRIPES) * height, 80
    monkeypatch.setattr(Told, 'part', tuple(slice(0, n) for n in shape))
    grid = {'driver': 'GTiff', 'width': shape[1], 'height': shape[0], 'crs': 'EPSG:32633', 'dtype': 'uint8',
            'transform': from_origin(500000, 5200000, 2, 2)}
    colours = np.random.default_rng(0).integers(30, 220, (K, 3)).astype(np.uint8)
    for i, date in enumerate(DATES):
        classes = np.repeat([maps[i] if i < 3 else now for maps, now, *_ in STRIPES if i < 3 or now is not None]
                            + [99] * (i == 3), height)
        mask = np.repeat(classes[:, None], shape[1], 1).astype(np.uint8)
        pixels = np.where((mask < K)[..., None], colours[np.minimum(mask, K - 1)], 0 if i == 3 else i + 1)
        with rasterio.open(place / f'{date}_image.tif', 'w', count=3, nodata=0, **grid) as file:
            file.write(pixels.astype(np.uint8).transpose(2, 0, 1))
        if i < 3:
            with rasterio.open(place / f'{date}_mask.tif', 'w', count=1, nodata=255, **grid) as file:
                file.write(mask[None])
    for since, at in (('newest', 2), ('majority', 3), (2018, 4)):
        make(place, tmp_path / str(since), since=since, write=['polygons'], max_shift=100)
        code, sure, before = read(file_of(tmp_path / str(since)))
        for row, stripe in zip(range(0, shape[0], height), STRIPES, strict=True):
            then = stripe[at][0] if at == 2 and stripe[at] else stripe[at]
            part = slice(row, row + height)
            expected = NOT_JUDGED if then is None else then * K + stripe[1]
            assert (code[part] == expected).all(), (since, stripe)
            if then is None or then == stripe[1]:
                assert (before[part] == NOT_JUDGED).all() and (sure[part] == (NOT_JUDGED if then is None else 0)).all()
            elif at == 2:
                assert (before[part] == (stripe[2][1] if stripe[2][1] < 255 else NOT_JUDGED)).all()
                assert (sure[part] == 10_000).all()
    rows = gpd.read_file(file_of(tmp_path / 'newest', 'gpkg'))
    found = rows[['from', 'to', 'lasting', 'date_remembered', 'area_m2']].to_numpy().tolist()
    area = height * shape[1] * 4
    assert sorted(found) == sorted([
        ['class 7', 'class 8', 'yes', DATES[2], area], ['class 7', 'class 8', 'no', DATES[2], area],
        ['class 0', 'class 19', 'no', DATES[1], area], ['class 4', 'class 19', 'unknown', DATES[2], area],
        ['class 13', 'class 12', 'no', DATES[2], area], ['class 19', 'class 0', 'no', DATES[2], area]])


@pytest.mark.parametrize(('right', 'down'), [(0, 0), (1, 0), (0, -1.5), (2, 1), (-2.5, 1), (3, 0)])
def test_a_shift_is_taken_out(folder, tmp_path, monkeypatch, right, down):
    monkeypatch.setattr(module, 'OutdatedMaps', ByColour)
    with rasterio.open(folder / f'{DATES[2]}_image.tif') as file:
        profile, pixels = file.profile, file.read().astype(float)
    pixels[pixels == 0] = 100
    moved = shift(pixels, (0, down, right), order=1, mode='nearest')
    with rasterio.open(tmp_path / 'new.tif', 'w', **profile) as file:
        file.write(np.clip(np.rint(moved), 1, 255).astype(np.uint8))
    cloud = np.zeros(SIZE, np.uint8)
    cloud[30:40, 30:40] = 1
    with rasterio.open(tmp_path / 'cloud.tif', 'w', **profile | {'count': 1, 'nodata': None}) as file:
        file.write(cloud[None])
    new = {'data': tmp_path / 'new.tif', 'date': '20210601', 'known': DATES[:3], 'write': [], 'max_shift': 4}
    alarms = {}
    for align in (False, True):
        report = make(folder, tmp_path / str(align), align=align, unusable=tmp_path / 'cloud.tif', **new)
        alarms[align] = report['changed'] / (report['judged'] * 4e-6)  # per km²: nothing has changed
    assert np.hypot(report['shift']['right'] - right, report['shift']['down'] - down) < 0.4
    assert report['shift']['taken out'] == bool(right or down)
    assert alarms[True] < alarms[False] / 3 if right or down else alarms[True] == alarms[False] == 0
    code = read(tmp_path / 'True' / 'new_changes.tif')[0]
    seen = np.argwhere(code[8:85, 8:72] == NOT_JUDGED) - 22 + (down, right)  # in the cloud of the file
    assert 100 <= len(seen) <= 144 and (seen > -1.5).all() and (seen < 10.5).all()


def one_hot(pixels) -> np.ndarray:
    'The class of the nearest colour of `draw`, for certain.'
    colours = np.random.default_rng(0).integers(30, 220, (K, 3))
    far = np.square(pixels[:3].astype(float)[None] - colours[..., None, None]).sum(1)
    return np.where(pixels[0] == 0, np.nan, far.argmin(0) == np.arange(K)[:, None, None]).astype(np.float32)


@pytest.fixture
def network(folder, monkeypatch):
    'In place of a checkpoint: the class of the nearest colour.'
    def write(checkpoint, image, out, overrides, **more):
        with rasterio.open(image) as file:
            answer, profile = one_hot(file.read()), file.profile | {'count': K, 'dtype': 'float32', 'nodata': np.nan}
        out.mkdir(parents=True)
        with rasterio.open(out / f'{image.stem}_probabilities.tif', 'w', **profile) as file:
            file.write(answer)
    scheme = LabelScheme.load(folder / 'category.csv')
    monkeypatch.setattr(module, 'Trained', lambda *_: SimpleNamespace(kind='segmentation', scheme=scheme,
                                                                      fingerprint='', recipe='unet'))
    monkeypatch.setattr(module, 'predict', write)


def test_a_memory_that_cannot_fit_is_refused_with_its_size(folder, tmp_path, monkeypatch):
    memory = GeoMemory(64, slots=2, frame=Frame('EPSG:32633', (500000, 5200000)))
    memory.write(torch.rand(50, 2) * 900, torch.rand(50, 64), torch.arange(50), torch.zeros(50, dtype=torch.float64))
    checkpoint = tmp_path / 'best.ckpt'
    weights = {f'network.memory.{name}': value for name, value in memory.state_dict().items()}
    torch.save({'state_dict': weights}, checkpoint)
    entries, size = stored_memory(checkpoint)
    assert entries == len(memory) and size >= 288 * entries  # empty slots lie in the file, too
    monkeypatch.setattr(compare, 'available_memory', lambda: compare.COPIES * size - 1)
    with pytest.raises(ConfigError, match=f'{checkpoint}: its memory holds {entries} entries, .* are left: ') as error:
        make(folder, tmp_path / 'out', checkpoint=checkpoint)
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()
    for left in (compare.COPIES * size + 1, None):  # it fits, or nobody knows; the file is no whole checkpoint
        monkeypatch.setattr(compare, 'available_memory', lambda left=left: left)
        with pytest.raises(ValueError, match='not a checkpoint of geoseg'):
            make(folder, tmp_path / 'out', checkpoint=checkpoint)


def test_a_network_finds_no_change_in_the_same_picture(folder, network, tmp_path):
    "Although it is wrong nearly everywhere: its colours are turned around in both pictures."
    place, again = shutil.copytree(folder, tmp_path / 'place'), tmp_path / 'again.tif'
    with rasterio.open(place / f'{DATES[2]}_image.tif', 'r+') as file:
        pixels = file.read()
        file.write(np.where(pixels == 0, 0, 255 - np.minimum(pixels, 254)))
    shutil.copy(place / f'{DATES[2]}_image.tif', again)
    new = {'data': again, 'date': '20220101', 'known': DATES[2:3], 'write': [], 'checkpoint': 'stub'}
    report = make(place, tmp_path / 'out', **new)
    assert report['changed'] == 0 and report['judged'] > 6000
    with rasterio.open(again, 'r+') as file:  # a corner is another
        part = file.read(window=((0, 40), (0, 40)))
        file.write(np.maximum(part ^ 1, 1), window=((0, 40), (0, 40)))
    make(place, tmp_path / 'out', **new)
    code = read(tmp_path / 'out/again_changes.tif')[0]
    moved = (code != NOT_JUDGED) & (code // K != code % K)
    assert moved[:40, :40].any() and not moved[40 + REACH:].any() and not moved[:, 40 + REACH:].any()


@pytest.mark.parametrize('against', ['the newest old picture', 'another.tif', 'the borders of the newest map'])
def test_a_shift_is_taken_out_of_the_answer_of_a_network(folder, network, tmp_path, against):
    with rasterio.open(folder / f'{DATES[2]}_image.tif') as file:
        profile, pixels = file.profile, file.read()
    pixels[pixels == 0] = 100
    bands = 4 if 'map' in against else 3  # of which the old pictures have three
    moved = np.concatenate([np.roll(pixels, (1, 2), (1, 2)), pixels[:1]])[:bands]
    for name, values in (('new.tif', moved), ('another.tif', pixels)):
        with rasterio.open(tmp_path / name, 'w', **profile | {'count': len(values)}) as file:
            file.write(values)
    new = {'data': tmp_path / 'new.tif', 'date': '20210601', 'known': DATES[:3], 'write': [], 'max_shift': 4,
           'checkpoint': 'stub', **({'reference': tmp_path / 'another.tif'} if against == 'another.tif' else {})}
    changed = {}
    for align in (False, True):
        report = make(folder, tmp_path / str(align), align=align, **new)
        changed[align] = report['changed']
    found = report['shift']
    assert found['against'] == against and np.hypot(found['right'] - 2, found['down'] - 1) < 0.5
    assert found['taken out'] and changed[True] < changed[False] / 3
    other = tmp_path / 'other.tif'
    with rasterio.open(other, 'w', **profile | {'transform': from_origin(500001, 5200000, 2, 2)}) as file:
        file.write(pixels)
    with pytest.raises(ConfigError, match='other.tif: another grid than new.tif'):
        make(folder, tmp_path / 'c', **new | {'reference': other})
    with pytest.raises(ConfigError, match='unlike compares two older pictures or more'):
        make(folder, tmp_path / 'c', **new | {'unlike': 0.02, 'known': [DATES[2]]})


def test_a_cloud_that_no_mask_names_is_not_judged(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'OutdatedMaps', ByColour)
    size, random, place = (352, 330), np.random.default_rng(1), tmp_path / 'place'
    monkeypatch.setattr(Told, 'part', tuple(slice(0, n) for n in size))
    place.mkdir()
    shutil.copy(folder / 'category.csv', place)
    colours = np.random.default_rng(0).integers(30, 220, (K, 3))
    mask = random.integers(0, K, (44, 42)).repeat(8, 0).repeat(8, 1)[:size[0], :size[1]].astype(np.uint8)
    grid = {'driver': 'GTiff', 'width': size[1], 'height': size[0], 'crs': 'EPSG:32633', 'dtype': 'uint8',
            'transform': from_origin(500000, 5200000, 2, 2)}
    for date in DATES:
        light = random.normal(1, 0.03, (11, 11, 1)).repeat(32, 0).repeat(32, 1)[:size[0], :size[1]]  # of each year
        pixels = np.clip(colours[mask] * light + random.normal(0, 4, (*size, 3)), 1, 255).astype(np.uint8)
        if date == DATES[3]:
            pixels[64:128, 96:192] = 252
        with rasterio.open(place / f'{date}_image.tif', 'w', count=3, **grid) as file:
            file.write(pixels.transpose(2, 0, 1))
        with rasterio.open(place / f'{date}_mask.tif', 'w', count=1, **grid) as file:
            file.write(mask[None])
    cloud, reports = np.zeros(size, bool), {}
    cloud[64:128, 96:192] = True
    for unlike in (None, 0.02):
        reports[unlike] = make(place, tmp_path / str(unlike), unlike=unlike, write=[])
        code = read(file_of(tmp_path / str(unlike)))[0]
        assert (code[cloud] == NOT_JUDGED).all() == (unlike is not None)
    assert reports[None]['changed'] > 5000 and reports[0.02]['changed'] < 500
    lost = reports[0.02]['unlike']
    assert (code == NOT_JUDGED)[~cloud].mean() < 0.1 and set(lost['past years']) == {*DATES[:3]}
    assert 0.05 < lost['flagged'] < 0.15 and max(lost['past years'].values()) < 0.1


def test_areas_in_degrees_shrink_towards_the_pole(tmp_path):
    grid = {'driver': 'GTiff', 'width': 20, 'height': 30, 'crs': 'EPSG:4326', 'dtype': 'uint8', 'count': 1}
    with rasterio.open(tmp_path / 'a.tif', 'w', transform=from_origin(10, 60.03, 0.001, 0.001), **grid) as file:
        file.write(np.ones((1, 30, 20), np.uint8))
    areas = areas_of_rows(read_acquisition(tmp_path / 'a.tif', None))
    metres = np.cos(np.radians(60.03 - 0.001 * (np.arange(30) + 0.5)))
    assert np.allclose(areas, areas[0] * metres / metres[0], rtol=1e-4) and np.isclose(areas[0], 6220, rtol=0.01)


def test_from_a_shell(folder, written, told, tmp_path, capsys):
    words = ['changes', f'data={folder}/{DATES[3]}_image.tif', f'maps={folder}', f'out={tmp_path}/out', 'write=[]',
             'unknown=ignore', *(f'{k}={v}' for k, v in SMALL.items())]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f'changed until {DATES[3]} since the newest map' in said
    assert file_of(tmp_path / 'out').read_bytes() == file_of(written[0]).read_bytes()
    assert json.loads((tmp_path / 'out' / f'{DATES[3]}_image.json').read_text())['changed'] == written[1]['changed']
