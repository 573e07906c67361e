"Maps from outdated maps: no answer by a fit that saw its label, the same bits whatever the window, and after a kill."
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.inference.rasters import outdated as rasters
from geoseg.inference.rasters.outdated import file_store, update_map
from geoseg.models import outdated as models
from geoseg.models.outdated import REACH, CrossFit, Folds, OutdatedMaps, Sample, colour_features, same_past
from geoseg.models.unmapped import complete_maps

DATES = '20200101', '20210101', '20220101'
SMALL = {'block': 24, 'sample': 3000, 'most': 300, 'taught': 400}
SIZE = 120, 104


def place() -> tuple[dict, dict]:
    "Four bands of three years, and their maps of three classes: a line that moves, unmapped and missing corners."
    random, (rows, cols) = np.random.default_rng(0), np.indices(SIZE)
    images, masks = {}, {}
    for i, date in enumerate(DATES):
        mask = (cols + rows // 2 > 60 + 6 * i).astype(np.uint8) + (rows > 80).astype(np.uint8)
        colour = np.array([[40, 90, 60, 10], [120, 60, 90, 200], [200, 180, 140, 90]])[mask] + 8 * i
        images[date] = np.clip(colour + random.normal(0, 15, colour.shape), 1, 255).astype(np.uint8).transpose(2, 0, 1)
        mask[:10, :30] = 255
        masks[date] = mask
    images[DATES[2]][:, 100:, 90:] = 0  # no data
    return images, masks


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder, (images, masks) = tmp_path_factory.mktemp('outdated') / 'place', place()
    folder.mkdir()
    grid = {'driver': 'GTiff', 'width': SIZE[1], 'height': SIZE[0], 'crs': 'EPSG:32633', 'dtype': 'uint8',
            'transform': from_origin(500000, 5200000, 2, 2), 'tiled': True, 'blockxsize': 64, 'blockysize': 64}
    for date in DATES:
        with rasterio.open(folder / f'{date}_image.tif', 'w', count=4, nodata=0, **grid) as file:
            file.write(images[date])
        with rasterio.open(folder / f'{date}_mask.tif', 'w', count=1, nodata=255, **grid) as file:
            file.write(masks[date][None])
    (folder / 'category.csv').write_text('id,name,abbr,r,g,b\n0,water,w,0,0,255\n1,grass,g,0,255,0\n2,bare,b,90,90,9\n')
    return folder


@pytest.fixture(scope='module')
def arrays() -> np.ndarray:
    "The answer of the arrays in one window."
    images, masks = place()
    images = {date: np.where(image == 0, np.nan, image) for date, image in images.items()}
    return OutdatedMaps(images, {d: masks[d] for d in DATES[:2]}, 3, window=128, **SMALL).fit(
        DATES[:2]).predict_proba(DATES[2])


def read(path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def make(folder, out, **more):
    return update_map(**{'data': folder / f'{DATES[2]}_image.tif', 'maps': folder, 'out': out,
                         'write': ['probabilities']} | SMALL | more)


@pytest.fixture(scope='module')
def written(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('written')
    return out, make(folder, out, window=64)


def test_files_in_windows_are_the_arrays_at_once(arrays, written):
    out, report = written
    probabilities = read(out / f'{DATES[2]}_image_probabilities.tif')
    assert np.array_equal(probabilities, arrays, equal_nan=True)
    classes = read(out / f'{DATES[2]}_image_classes.tif')[0]
    assert np.array_equal(classes == 255, np.isnan(arrays[0])) and (classes[100:, 90:] == 255).all()
    assert (classes[:10, :30] < 3).all()  # what no map knows is answered from the picture
    assert sum(report['classes'].values()) + report['no data'] == classes.size and report['no data'] == 20 * 14
    newest = place()[1][DATES[1]]
    both = (classes < 3) & (newest < 3)
    assert report['newest'] == DATES[1] and report['changed'] == round((classes != newest)[both].mean(), 6)
    assert [*report['explained']] == [*DATES[:2]] and report['classes']['bare'] == (classes == 2).sum()
    right = (classes == place()[1][DATES[2]])[10:100]
    assert right.mean() > 0.93


def test_its_own_map_is_not_read(folder, written, tmp_path):
    own, (out, _) = tmp_path / 'place', written
    shutil.copytree(folder, own)
    (own / f'{DATES[2]}_mask.tif').unlink()
    make(own, tmp_path / 'out', window=64)
    name = f'{DATES[2]}_image_probabilities.tif'
    assert np.array_equal(read(tmp_path / 'out' / name), read(out / name), equal_nan=True)


@pytest.mark.parametrize('moment', ['within a fit', 'within the answer'])
def test_killed_and_taken_up_again(folder, written, tmp_path, moment):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    else:  # really killed, and nothing is tidied up
        calls, owner, name = [], *{'within a fit': (CrossFit, 'log_odds'),
                                   'within the answer': (rasters.Draft, 'mark')}[moment]
        plain = getattr(owner, name)

        def counted(*args):
            calls.append(args)
            if len(calls) == {'log_odds': 6, 'mark': 2}[name]:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args)
        setattr(owner, name, counted)
        try:
            make(folder, tmp_path, window=64)
        finally:
            os._exit(1)
    kept = list((tmp_path / f'.{DATES[2]}_image.draft').glob('2*.npy'))
    assert kept and not list(tmp_path.glob('*.tif'))
    fits = []
    with pytest.MonkeyPatch.context() as patch:
        plain = CrossFit.__init__
        patch.setattr(CrossFit, '__init__', lambda self, *args: (fits.append(1), plain(self, *args))[1])
        make(folder, tmp_path, window=104)  # and another window
    assert len(fits) == 5 - len(kept)  # what was finished is not done again
    for layer in ('classes', 'probabilities'):
        name = f'{DATES[2]}_image_{layer}.tif'
        assert np.array_equal(read(tmp_path / name), read(written[0] / name), equal_nan=True)
    assert not list(tmp_path.glob('.*'))


def other_model(path, folder, change=lambda x: x, seed=1, unknown=np.s_[60:, :20], **profile):
    "Probabilities of the new raster by another model."
    with rasterio.open(folder / f'{DATES[2]}_image.tif') as file:
        grid = {k: file.profile[k] for k in ('driver', 'width', 'height', 'crs', 'transform')}
    values = np.random.default_rng(seed).dirichlet(np.ones(3), SIZE).transpose(2, 0, 1).astype(np.float32)
    values[:, *unknown] = np.nan
    values = change(values)
    with rasterio.open(path, 'w', **grid | {'count': len(values), 'dtype': values.dtype, 'nodata': np.nan} | profile
                       ) as file:
        file.write(values)
        file.descriptions = ('water', 'grass', 'bare')[:len(values)]
    return values


def test_mean_with_the_probabilities_of_a_network(folder, arrays, tmp_path):
    theirs = other_model(tmp_path / 'net.tif', folder)
    make(folder, tmp_path / 'out', window=64, average_with=tmp_path / 'net.tif')
    found = read(tmp_path / 'out' / f'{DATES[2]}_image_probabilities.tif')
    assert np.array_equal(found[:, 60:, :20], arrays[:, 60:, :20], equal_nan=True)  # they say nothing there
    assert np.allclose(found[:, :60], (theirs[:, :60] + arrays[:, :60]) / 2, atol=1e-6)
    assert np.isnan(found[:, 100:, 90:]).all()  # the picture has no data
    corner = [500000, 5200000 - 2 * 88, 500000 + 2 * 72, 5200000 - 2 * 24, 'EPSG:32633']  # rows 24 to 88
    make(folder, tmp_path / 'part', area=corner, average_with=tmp_path / 'net.tif')
    make(folder, tmp_path / 'alone', area=corner)
    part, alone = (read(tmp_path / name / f'{DATES[2]}_image_probabilities.tif') for name in ('part', 'alone'))
    mean = (theirs[:, 24:88, :72] + alone) / 2
    assert np.allclose(part, np.where(np.isnan(mean), alone, mean), atol=1e-6)


WRONG = [
    ('bands', lambda x: x[:2], {}, '2 bands of float32 .* expected probabilities of water, grass, bare'),
    ('bytes', lambda x: np.nan_to_num(x * 9).astype('uint8'), {'nodata': 255}, '3 bands of uint8'),
    ('grid', lambda x: x, {'transform': from_origin(500001, 5200000, 2, 2)}, 'another grid than'),
    ('range', lambda x: 3 * x - 1, {}, 'expected probabilities from 0 to 1'),
    ('sums', lambda x: np.where(np.indices(x.shape)[1:].sum(0) == 119 + 50, x / 2, x), {},
     'row 66, column 103: the bands sum to 0.5, expected probabilities, which sum to 1')]
NAMED = {'a list': ['net1.tif', 'net2.tif', 'net3.tif'], 'a pattern': 'net*.tif', 'text': 'net3.tif,net1.tif,net2.tif',
         'both': ['net1.tif', 'net[23].tif']}


@pytest.mark.parametrize('how', NAMED)
def test_mean_with_several_models_of_equal_weight(folder, arrays, tmp_path, monkeypatch, how):
    parts = {1: np.s_[60:, :20], 2: np.s_[50:70, :], 3: np.s_[:0, :0]}  # where each says nothing
    theirs = [other_model(tmp_path / f'net{seed}.tif', folder, seed=seed, unknown=part) for seed, part in parts.items()]
    monkeypatch.chdir(tmp_path)
    make(folder, 'out', window=64, average_with=NAMED[how])
    expected = np.full(arrays.shape, np.nan)
    for row, col in np.ndindex(arrays.shape[1:]):
        says = [a[:, row, col] for a in (arrays, *theirs) if not np.isnan(a[0, row, col])]
        if not np.isnan(arrays[0, row, col]):
            expected[:, row, col] = sum(map(np.float64, says)) / len(says)
    found = read(tmp_path / 'out' / f'{DATES[2]}_image_probabilities.tif')
    assert np.allclose(found, expected, atol=1e-6, equal_nan=True)
    assert np.array_equal(read(tmp_path / 'out' / f'{DATES[2]}_image_classes.tif')[0],
                          np.where(np.isnan(found[0]), 255, np.nan_to_num(found).argmax(0)))


def test_each_of_several_models_is_checked_before_any_work(folder, tmp_path, monkeypatch):
    other_model(tmp_path / 'good.tif', folder)
    monkeypatch.setattr(rasters, 'map_anew', lambda *_: pytest.fail('work began'))
    for name, change, profile, match in WRONG:
        other_model(tmp_path / f'{name}.tif', folder, change, **profile)
        with pytest.raises(ConfigError, match=f'{name}.tif: .*{match}'):
            make(folder, tmp_path / 'out', average_with=[tmp_path / 'good.tif', tmp_path / f'{name}.tif'])
    for given, match in (([tmp_path / 'good.tif', tmp_path / 'g*.tif'], 'good.tif: named twice'),
                         (tmp_path / 'x*.tif', r'x\*.tif: matches no file'),
                         ([tmp_path / 'good.tif', tmp_path / 'no.tif'], 'no.tif: expected one GeoTIFF')):
        with pytest.raises(ConfigError, match=f'average_with: .*{match}'):
            make(folder, tmp_path / 'out', average_with=given)
    (tmp_path / 'held').mkdir()
    other_model(tmp_path / 'held' / 'own.tif', folder)
    with pytest.raises(ConfigError, match='held is the folder of own.tif, an input'):
        make(folder, tmp_path / 'held', average_with=[tmp_path / 'good.tif', tmp_path / 'held' / 'own.tif'])
    assert not (tmp_path / 'out').exists()


def test_a_job_with_other_models_is_another_job(folder, tmp_path):
    for seed in (1, 2):
        other_model(tmp_path / f'net{seed}.tif', folder, seed=seed)
    both = [tmp_path / 'net1.tif', tmp_path / 'net2.tif']
    first, second = (make(folder, tmp_path / 'out', average_with=files) for files in (both[0], both))
    assert first['job']['average_with'] == 'net1.tif' and second['job']['average_with'] == ['net1.tif', 'net2.tif']
    assert first['classes'] != second['classes']
    assert make(folder, tmp_path / 'out', average_with=str(tmp_path / 'net?.tif')) == second  # finished already


def test_models_are_named_in_a_shell(folder, arrays, tmp_path, monkeypatch):
    theirs = [other_model(tmp_path / f'net{seed}.tif', folder, seed=seed) for seed in (1, 2)]
    monkeypatch.chdir(tmp_path)
    cli.main(['update-map', f'data={folder / f"{DATES[2]}_image.tif"}', f'maps={folder}', 'out=out',
              'write=[probabilities]', 'average_with=[net1.tif, net2.tif]', *(f'{k}={v}' for k, v in SMALL.items())])
    found = read(tmp_path / 'out' / f'{DATES[2]}_image_probabilities.tif')
    assert np.allclose(found[:, :60], sum(theirs, arrays)[:, :60] / 3, atol=1e-6)


def test_the_same_past_is_evidence_where_it_is_asked_for(folder, arrays, tmp_path):
    images, masks = place()
    images = {date: np.where(image == 0, np.nan, image) for date, image in images.items()}
    past = OutdatedMaps(images, {d: masks[d] for d in DATES[:2]}, 3, window=128, past=True, **SMALL).fit(
        DATES[:2]).predict_proba(DATES[2])
    make(folder, tmp_path, window=64, past=True)
    found = read(tmp_path / f'{DATES[2]}_image_probabilities.tif')
    assert np.array_equal(found, past, equal_nan=True) and not np.array_equal(found, arrays, equal_nan=True)
    with pytest.raises(ConfigError, match="past is true or false, not 'no'"):
        make(folder, tmp_path, past='no')


def test_means_over_ground_of_the_same_past():
    values, past = np.random.default_rng(0).normal(size=(8, 16)), np.zeros((8, 16))
    past[:, 8:], past[0], values[1, 0], past[2, 2] = 1, np.nan, np.nan, 5
    found = same_past(values, past)
    assert np.isnan(found[0]).all()  # nothing is known of its past
    with pytest.MonkeyPatch.context() as patch:  # so wide that the place of a pixel does not count
        patch.setattr(models, 'SCALES', ((15, 2, 30.), (1e4, 8, 60.)))
        found = same_past(values, past)
    for each in (0, 1, 5):
        assert np.allclose(found[past == each], np.nanmean(values[past == each]), atol=1e-4)


WEST = 50  # columns that are mapped


@pytest.fixture(scope='module')
def half_mapped(folder, tmp_path_factory):
    "The folder with old maps of the west alone."
    own, (_, masks) = shutil.copytree(folder, tmp_path_factory.mktemp('half') / 'place'), place()
    for date in DATES[:2]:
        with rasterio.open(own / f'{date}_mask.tif', 'r+') as file:
            file.write(np.where(np.arange(SIZE[1]) < WEST, masks[date], 255).astype(np.uint8)[None])
    return own


@pytest.mark.parametrize('rounds', [1, 2])
def test_unmapped_ground_is_drawn_first_and_the_rest_stays(half_mapped, tmp_path, rounds):
    images, masks = place()
    images = {date: np.where(image == 0, np.nan, image) for date, image in images.items()}
    west = {d: np.where(np.arange(SIZE[1]) < WEST, masks[d], 255).astype(np.uint8) for d in DATES[:2]}
    model = OutdatedMaps(images, west, 3, window=128, **SMALL)
    complete_maps(model, DATES[:2], rounds)
    for date in DATES[:2]:
        drawn, known = model.masks[date][slice(None), slice(None)], west[date] < 3
        assert np.array_equal(drawn[known], west[date][known]) and (drawn < 3).all()
        assert (drawn == masks[date])[10:, WEST:].mean() > 0.9  # its own map was never seen there
    answer = model.fit(DATES[:2]).predict_proba(DATES[2])
    make(half_mapped, tmp_path, window=64, complete=rounds)
    assert np.array_equal(read(tmp_path / f'{DATES[2]}_image_probabilities.tif'), answer, equal_nan=True)
    plain = OutdatedMaps(images, west, 3, window=128, **SMALL).fit(DATES[:2]).predict_proba(DATES[2])
    assert not np.array_equal(plain, answer, equal_nan=True)


def test_maps_that_know_all_are_left_as_they_are(folder, written, tmp_path):
    "Whatever the rounds, but for the corner that no map knows."
    images, masks = place()
    full = {date: np.where(mask == 255, 0, mask).astype(np.uint8) for date, mask in masks.items()}
    answers = []
    for rounds in (0, 1):
        model = OutdatedMaps({d: np.where(i == 0, np.nan, i) for d, i in images.items()},
                             {d: full[d] for d in DATES[:2]}, 3, window=128, **SMALL)
        complete_maps(model, DATES[:2], rounds)
        answers.append(model.fit(DATES[:2]).predict_proba(DATES[2]))
    assert np.array_equal(*answers, equal_nan=True)


def test_drawn_ground_is_no_example_of_what_is_true(half_mapped):
    "A fusion that saw the truth of unmapped ground would differ."
    images, masks = place()
    images = {date: np.where(image == 0, np.nan, image) for date, image in images.items()}
    west = {d: np.where(np.arange(SIZE[1]) < WEST, masks[d], 255).astype(np.uint8) for d in DATES[:2]}
    model, seen = OutdatedMaps(images, west, 3, window=128, **SMALL), []
    complete_maps(model, DATES[:2], 1)
    with pytest.MonkeyPatch.context() as patch:
        plain = Sample.add
        patch.setattr(Sample, 'add', lambda self, row, col, features, labels, where: (
            seen.append(col + np.nonzero(where)[1].max()) if self.size == SMALL['taught'] // 3 else None,
            plain(self, row, col, features, labels, where))[1])
        model.fit(DATES[:2])
    assert seen and max(seen) < WEST


def test_killed_within_a_round_and_taken_up_again(half_mapped, tmp_path):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    else:
        calls, plain = [], CrossFit.log_odds

        def counted(*args):
            calls.append(args)
            if len(calls) == 25:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args)
        CrossFit.log_odds = counted
        try:
            make(half_mapped, tmp_path / 'killed', window=64, complete=2)
        finally:
            os._exit(1)
    assert list((tmp_path / 'killed').glob('.*/0_map_*.npy')) and not list((tmp_path / 'killed').glob('*.tif'))
    make(half_mapped, tmp_path / 'killed', window=104, complete=2)
    make(half_mapped, tmp_path / 'whole', window=128, complete=2)
    name = f'{DATES[2]}_image_probabilities.tif'
    assert np.array_equal(*(read(tmp_path / which / name) for which in ('killed', 'whole')), equal_nan=True)


def test_a_map_that_knows_nothing_is_named_before_any_work(half_mapped, tmp_path):
    own = shutil.copytree(half_mapped, tmp_path / 'place')
    with rasterio.open(own / f'{DATES[0]}_mask.tif', 'r+') as file:
        file.write(np.full((1, *SIZE), 255, np.uint8))
    with pytest.raises(ValueError, match=f'{DATES[0]}: its map knows no pixel.*leave it out'):
        make(own, tmp_path / 'out', complete=1)
    assert not list((tmp_path / 'out').glob('*'))


def test_answers_of_several_seeds_are_averaged(folder, arrays, tmp_path):
    images, masks = place()
    images = {date: np.where(image == 0, np.nan, image) for date, image in images.items()}
    other = OutdatedMaps(images, {d: masks[d] for d in DATES[:2]}, 3, window=128, seed=1, **SMALL).fit(
        DATES[:2]).predict_proba(DATES[2])
    make(folder, tmp_path, window=64, seeds=2)
    assert not np.array_equal(arrays, other, equal_nan=True)
    assert np.array_equal(read(tmp_path / f'{DATES[2]}_image_probabilities.tif'), np.mean([arrays, other], 0),
                          equal_nan=True)
    assert not list(tmp_path.glob('.*'))


def test_no_cell_is_answered_by_a_fit_that_saw_its_label_or_its_colours():
    random, folds, shape = np.random.default_rng(1), Folds(24, seed=3), (144, 144)
    image = random.integers(0, 256, (3, *shape)).astype(np.float32)
    labels = random.integers(0, 2, shape).astype(np.uint8)

    def answers(image, labels):
        sample = Sample(20_000)
        sample.add(0, 0, colour_features(image), labels, labels < 2)
        return CrossFit(sample, folds, shape, 2, 2000), colour_features(image)
    plain, features = answers(image, labels)
    answer = plain.log_odds(0, 0, features)[0]
    rows, cols = np.indices(shape)
    for fold in range(folds.count):
        near = ~folds.teaches(rows.ravel(), cols.ravel(), fold, shape).reshape(shape)
        own = folds.of(rows, cols) == fold
        assert near[own].all() and not near.all()
        other = CrossFit.log_odds(answers(image, np.where(near, 1 - labels, labels))[0], 0, 0, features)[0]
        assert np.array_equal(other[own], answer[own]) and not np.array_equal(other, answer)
        noise, wide = image.copy(), np.zeros(shape, bool)  # the colours that answered cells see
        for row, col in zip(*np.nonzero(own), strict=True):
            wide[max(row - REACH, 0):row + REACH + 1, max(col - REACH, 0):col + REACH + 1] = True
        noise[:, wide] = 255 - noise[:, wide]
        other = answers(noise, labels)[0].log_odds(0, 0, features)[0]
        assert np.array_equal(other[own], answer[own])


def changed_copy(folder, tmp_path, name, **changes):
    "The folder with another profile or other values in one file."
    own = tmp_path / 'place'
    shutil.copytree(folder, own)
    with rasterio.open(own / name) as file:
        profile, values = file.profile | changes.pop('profile', {}), file.read()
    os.unlink(own / name)
    with rasterio.open(own / name, 'w', **profile) as file:
        file.write(changes.get('values', values).astype(profile['dtype']))
    return own


OLD = f'{DATES[1]}_image.tif', f'{DATES[1]}_mask.tif'
FAULTS = {  # what is wrong with one of the maps -> its files, what is said
    'grid': (OLD, {'profile': {'transform': from_origin(500100, 5200000, 2, 2)}}, f'{OLD[0]}: another grid than '),
    'CRS': (OLD, {'profile': {'crs': 'EPSG:32634'}}, f'{OLD[0]}: CRS EPSG:32634, .* has EPSG:32633'),
    'bands': (OLD[:1], {'profile': {'count': 2}, 'values': np.ones((2, *SIZE))}, f'{OLD[0]}: 2 bands, .* has 4'),
    'classes': (OLD[1:], {'values': np.full((1, *SIZE), 7)}, f'{OLD[1]}: 12480 pixels hold values .* not declare: 7'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_map_that_does_not_fit_is_named_before_any_work(folder, tmp_path, fault, monkeypatch):
    names, changes, says = FAULTS[fault]
    for name in names:
        folder = changed_copy(folder, tmp_path / name, name, **changes)
    monkeypatch.setattr(OutdatedMaps, 'fit', None)
    with pytest.raises(ConfigError, match=says):
        make(folder, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('options, says', [
    ({'known': [20200101]}, 'one map to learn from, 20200101'), ({'known': DATES}, 'no map of 20220101'),
    ({'known': ['2020-01-01', '20190101']}, 'no map of 20190101'), ({'known': ['soon']}, "known: 'soon' is no date"),
    ({'date': '20200101'}, 'of 20200101, and .* has no older map .maps: 20210101, 20220101.'),
    ({'date': 'today'}, "'today' is no date"), ({'pattern': 'x{date}.tif'}, 'no date in its name'),
    ({'data': 'nowhere.tif'}, 'data: nowhere.tif'), ({'maps': 'nowhere'}, 'maps: nowhere'),
    ({'write': ['polygon']}, "write is 'polygon'; nearest: polygons"), ({'block': 'x'}, "block is 'x', expected"),
    ({'margin': 30}, 'margin'), ({'seed': True}, 'seed is True'), ({'window': 100}, 'multiple of 8'),
    ({'labels': 'camvidd'}, 'camvidd'), ({'unknown': 'no'}, "unknown is 'no'"), ({'bands': [5]}, 'it has 1 to 4'),
    ({'allow_outside': 1}, 'allow_outside is true or false'), ({'complete': -1}, 'complete is -1, expected a whole'),
    ({'complete': True}, 'complete is True, expected a whole number'), ({'seeds': 0}, 'seeds is 0, expected a whole')])
def test_what_cannot_be_done_is_said_before_any_work(folder, tmp_path, options, says, monkeypatch):
    monkeypatch.setattr(OutdatedMaps, 'fit', None)
    with pytest.raises((ValueError, OSError), match=says) as error:
        make(folder, tmp_path / 'out', **options)
    assert '\n' not in str(error.value) and not [*tmp_path.rglob('*.*')]


def test_blocks_that_are_too_large_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match='set a smaller block'):
        make(folder, tmp_path, block=100)
    assert not list(tmp_path.glob('*.tif'))


def test_a_single_map_and_none(folder, tmp_path):
    own = tmp_path / 'place'
    shutil.copytree(folder, own)
    (own / OLD[1]).unlink()
    with pytest.raises(ConfigError, match=f'one map to learn from, {DATES[0]}'):
        make(own, tmp_path / 'out')
    (own / f'{DATES[0]}_mask.tif').unlink()
    with pytest.raises(ConfigError, match='no older map .maps: none.'):
        make(own, tmp_path / 'out')


def test_the_folder_of_the_rasters_is_not_written_to(folder):
    with pytest.raises(ConfigError, match='is the folder of the data'):
        make(folder, folder)


def test_from_a_shell(folder, written, tmp_path, capsys):
    new = tmp_path / 'scene.tif'
    shutil.copy(folder / f'{DATES[2]}_image.tif', new)
    words = ['update-map', f'data={new}', f'maps={folder}', f'out={tmp_path / "out"}', 'date=20220101',
             'write=probabilities,polygons', 'pattern={date}_image.tif', *(f'{k}={v}' for k, v in SMALL.items())]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    explained = written[1]['explained']
    assert f'{DATES[1]}  {explained[DATES[1]]:+.3f}  the newest' in said and said.endswith(f'{tmp_path / "out"}\n')
    probabilities = read(tmp_path / 'out' / 'scene_probabilities.tif')
    assert np.array_equal(probabilities, read(written[0] / f'{DATES[2]}_image_probabilities.tif'), equal_nan=True)
    assert json.loads((tmp_path / 'out' / 'scene.json').read_text())['polygons'] > 2
    before = (tmp_path / 'out' / 'scene_classes.tif').stat().st_mtime_ns
    assert cli.main(words) == 0 and capsys.readouterr().out == said  # it was finished already
    assert (tmp_path / 'out' / 'scene_classes.tif').stat().st_mtime_ns == before
    assert cli.main([*words, '--recipe', 'unet']) == 2
    assert 'update-map takes no --recipe' in capsys.readouterr().err


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='no list of what is mapped')
def test_stored_layers_are_not_kept_in_memory(tmp_path):
    "What is mapped counts as memory of the process, and grows with the raster."
    def mapped():
        return 'probe.npy' in Path('/proc/self/maps').read_text()

    def fill(values):
        values[:, 2:4, 1:3] = 7
        assert not mapped() and values.shape == (1, 5, 6)

    layer = file_store(tmp_path)('probe', (1, 5, 6), fill)
    part = layer[:, 1:4, 1:3]
    assert not mapped() and part.tolist() == [[[0, 0], [7, 7], [7, 7]]]
    assert np.asarray(layer, np.float32).sum() == 28 and np.asarray(layer).dtype == np.float16
    assert file_store(tmp_path)('probe', (1, 5, 6), None)[0, 3, 2] == 7  # it is there already
