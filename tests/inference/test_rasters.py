"""GeoTIFFs of any size through trained networks, from a checkpoint to rasters and polygons; temperatures."""
import functools
import json
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from rasterio.features import rasterize
from torch import nn
from warm import run

import geoseg
from geoseg import cli
from geoseg.data.augment import Augment, Normalize
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.chips import RasterChips
from geoseg.data.rasters.files import channels_last
from geoseg.data.rasters.reader import Reader
from geoseg.data.rasters.regions import Area
from geoseg.inference.answer import FINISHED
from geoseg.inference.rasters import stream
from geoseg.inference.rasters.rasters import find_rasters, predict_raster
from geoseg.inference.rasters.windows import RasterWindows, ValidReader, middle_frame
from geoseg.models.predictor import Predictor
from geoseg.models.refiner import TRMSeg


def read(path):
    with rasterio.open(path) as f:
        return f.read()


def test_from_the_command_line_to_rasters_and_polygons(trained, scene, tmp_path, capsys):
    words = [f'data={scene}', f'out={tmp_path}', 'window=128', 'write=[probabilities,uncertainty,polygons,geojson]']
    assert cli.main(['predict', '--checkpoint', str(trained), *words]) == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith('.')] == [FINISHED]
    classes, empty = read(tmp_path / 'scene_classes.tif')[0], (read(scene) == 0).all(0)
    assert ((classes == 255) == empty).all()
    with rasterio.open(scene) as image:
        for name in ('classes', 'probabilities', 'uncertainty'):
            with rasterio.open(tmp_path / f'scene_{name}.tif') as f:
                assert (f.crs, f.transform, f.shape) == (image.crs, image.transform, image.shape)
                assert f.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
        grid, pixel = image.transform, abs(image.transform.a * image.transform.e)
    probs, uncertainty = read(tmp_path / 'scene_probabilities.tif'), read(tmp_path / 'scene_uncertainty.tif')[0]
    assert np.abs(probs.sum(0)[~empty] - 1).max() < 1e-5 and np.isnan(probs[:, empty]).all()
    assert (probs.argmax(0) == classes)[~empty].all() and 0 <= np.nanmin(uncertainty) <= np.nanmax(uncertainty) <= 1
    polygons = gpd.read_file(tmp_path / 'scene_polygons.gpkg', layer='polygons')
    drawn = rasterize(zip(polygons.geometry, polygons['class_id'], strict=True), classes.shape, 255, transform=grid)
    assert (drawn == classes).all()
    report = json.loads((tmp_path / 'scene.json').read_text())
    for name, count in report['pixels'].items():
        assert polygons.loc[polygons['class'] == name, 'area_m2'].sum() == pytest.approx(count * pixel, rel=1e-3)
    assert len(gpd.read_file(tmp_path / 'scene_polygons.geojson')) == len(polygons) == report['polygons']
    assert report['no data'] == empty.sum() and report['peak MiB'] > 0


def test_one_window_says_what_the_network_says(trained, scene, tmp_path):
    geoseg.predict(trained, scene, tmp_path, window=512, write=['probabilities'])
    predictor, pixels = geoseg.Run(trained).predictor(), read(scene)
    pixels[:, :40, 350:] = np.rint(255 * np.array([0.485, 0.456, 0.406]))[:, None, None]
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, 2)))  # to a multiple of four
    padded[:, :, 410:] = np.rint(255 * np.array([0.485, 0.456, 0.406]))[:, None, None]
    image = Augment().pipeline(False)(np.ascontiguousarray(padded.transpose(1, 2, 0)))[0]
    whole = predictor.logits(image[None]).softmax(1)[0, :, :, :410].numpy()
    probs = read(tmp_path / 'scene_probabilities.tif')
    assert np.nanmax(np.abs(probs - whole)) < 1e-5


def test_bands_and_types(trained, scene, tmp_path):
    plain, deep = geoseg.predict(trained, scene, tmp_path / 'plain', window=128), tmp_path / 'deep'
    deep.mkdir()
    with rasterio.open(scene) as f:
        pixels, profile = f.read(), f.profile | {'dtype': 'uint16', 'count': 4}
    with rasterio.open(deep / 'scene.tif', 'w', **profile) as f:
        f.write(np.stack([*pixels[::-1].astype(np.uint16) * 16, pixels[0]]))  # blue, green, red, another
    words = [f'data={deep}', f'out={tmp_path / "four"}', 'window=128', 'bands=[3,2,1]', 'value_range=[[0,4080]]']
    assert cli.main(['predict', '--checkpoint', str(trained), *words]) == 0
    one, two = (read(folder / 'scene_classes.tif') for folder in (plain, tmp_path / 'four'))
    assert (one == two).mean() > 0.999 and ((one == 255) == (two == 255)).all()


@pytest.mark.parametrize('bands', [1, 2, 3, 13, 40])
@pytest.mark.parametrize('kind', ['uint8', 'int8', 'uint16', 'int16', 'int32', 'float32', 'float64'])
def test_bands_become_channels(bands, kind):
    values = np.random.default_rng(0).integers(0, 100, (bands, 5, 7)).astype(kind)
    channels = channels_last(values)
    assert channels.dtype == kind and channels.flags.c_contiguous and (channels == values.transpose(1, 2, 0)).all()


class Counter(nn.Module):
    'Counts its calls, and answers from three pixels around.'

    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 4, 7, padding=3), 0

    def forward(self, image):
        self.calls += 1
        return {'logits': self.conv(image)}


def test_what_is_done_is_not_done_again_and_other_settings_are(scene, tmp_path):
    torch.manual_seed(0)
    scheme = LabelScheme(['a', 'b', 'c', 'd'], np.arange(12).reshape(4, 3))
    network, [a] = Counter(), find_rasters(scene)
    predictor = Predictor(network, scheme, device='cpu')
    summary = predict_raster(predictor, a, tmp_path, window=128, write=['polygons'])
    calls, before = network.calls, (tmp_path / 'scene_classes.tif').stat().st_mtime_ns
    assert calls == summary['windows'] == 4 * 3
    assert predict_raster(predictor, a, tmp_path, window=128, write=['polygons']) == summary
    assert network.calls == calls and (tmp_path / 'scene_classes.tif').stat().st_mtime_ns == before
    with torch.no_grad():
        network.conv.bias += 1e-3
    predict_raster(predictor, a, tmp_path, window=128)  # another network; polygons of the old one must not stay
    assert network.calls == 2 * calls and not (tmp_path / 'scene_polygons.gpkg').exists()


def test_windows_of_a_network_that_halts_share_their_places(scene, tmp_path, monkeypatch):
    "Four places against one: the same answer and steps; cut short and taken up again: the same bytes."
    torch.manual_seed(0)
    scheme = LabelScheme(['a', 'b', 'c', 'd'], np.arange(12).reshape(4, 3))
    network, [a] = TRMSeg(4, width=16, t_min=1), find_rasters(scene)
    predictor = Predictor(network, scheme, device='cpu')
    windows = RasterWindows(a, ValidReader(scheme), Normalize(), middle_frame(a), 64, 16)
    with torch.inference_mode():
        images = torch.cat([windows.batch(row, list(windows.across))['image'] for row in windows.down])
        network.tau = float(network.eval().unroll(images)['halt'].sigmoid().median())
    sizes, step = [], network.step
    network.step = lambda *args: (sizes.append(len(args[0])), step(*args))[1]
    answer = functools.partial(predict_raster, predictor, a, window=64, write=['probabilities', 'steps'], panel=256)
    for places in (1, 4):
        sizes.clear()
        answer(tmp_path / f'{places}', batch_size=places)
        computed = sum(sizes)
        assert set(sizes) == {places}
    one, four = (read(tmp_path / places / 'scene_probabilities.tif') for places in '14')
    taken = [read(tmp_path / places / 'scene_steps.tif') for places in '14']
    assert np.nanmax(np.abs(one - four)) < 1e-5 and np.array_equal(*taken, equal_nan=True)
    needed = network(images)['steps']
    idle = 2 * 3 * 6  # at the ends of two panels, three places for six steps
    assert len(needed.unique()) > 1 and int(needed.sum()) <= computed <= int(needed.sum()) + idle

    paint, calls = stream.paint, []

    def breaks(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise OSError('the disk is full')
        paint(*arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError, match='full'):
        patch.setattr(stream, 'paint', breaks)
        answer(tmp_path / 'cut', batch_size=4)
    answer(tmp_path / 'cut', batch_size=4)
    for name in ('classes', 'probabilities', 'steps'):
        assert (tmp_path / f'cut/scene_{name}.tif').read_bytes() == (tmp_path / f'4/scene_{name}.tif').read_bytes()


def test_killed_and_taken_up_again(trained, scene, tmp_path):
    script = Path(__file__).with_name('kill_prediction.py')
    done = run(script, trained, scene, tmp_path)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    assert all(kill['killed'] and not kill['whole'] for kill in kills), kills
    assert kills[0]['done'] <= kills[1]['done'] <= kills[2]['done']
    for name in ('classes', 'probabilities', 'uncertainty'):
        one, two = ((tmp_path / out / f'scene_{name}.tif').read_bytes() for out in ('whole', 'cut'))
        assert one == two, name
    one, two = (gpd.read_file(tmp_path / out / 'scene_polygons.gpkg', layer='polygons') for out in ('whole', 'cut'))
    assert one.geometry.geom_equals(two.geometry).all() and one.drop(columns='geometry').equals(
        two.drop(columns='geometry'))
    assert {p.name for p in (tmp_path / 'cut').iterdir()} == {p.name for p in (tmp_path / 'whole').iterdir()}


@pytest.mark.parametrize('strips', [1, 7, 12])
def test_an_error_between_strips_spoils_nothing(scene, tmp_path, monkeypatch, strips):
    """Three panels, so that columns are carried; what was waiting behind the error is neither written nor marked."""
    torch.manual_seed(0)
    predictor = Predictor(Counter(), LabelScheme(['a', 'b', 'c', 'd'], np.arange(12).reshape(4, 3)), device='cpu')
    [a], how = find_rasters(scene), dict(window=64, overlap=16, panel=160, write=['probabilities'])
    predict_raster(predictor, a, tmp_path / 'whole', **how)
    mark, marks = stream.Draft.mark, []

    def fails(self, *at):
        mark(self, *at)
        marks.append(at)
        if len(marks) > strips:
            raise OSError('no room')

    monkeypatch.setattr(stream.Draft, 'mark', fails)
    with pytest.raises(OSError, match='no room'):
        predict_raster(predictor, a, tmp_path / 'cut', **how)
    assert len(marks) == strips + 1
    monkeypatch.setattr(stream.Draft, 'mark', mark)
    predict_raster(predictor, a, tmp_path / 'cut', **how)
    for name in ('classes', 'probabilities'):
        one, two = ((tmp_path / out / f'scene_{name}.tif').read_bytes() for out in ('whole', 'cut'))
        assert one == two, name
    assert (marks[-1][0] > 0) == (strips > 1)  # in the first panel, in a later one


def test_workers_that_are_killed(trained, scene, tmp_path):
    """Two workers give the bytes of one process, also where one of them, or the scheduler, is killed in the middle."""
    done = run(Path(__file__).with_name('kill_cluster.py'), trained, scene, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {name: bool(end) for name, end in told['ends'].items()} == {
        'whole': False, 'a worker': False, 'the scheduler': True, 'again': False}, done.stderr
    assert 'the scheduler is gone; the same command goes on' in done.stderr and told['rows before']
    for out in ('cut', 'again'):
        for name in ('classes', 'probabilities'):
            one, two = ((tmp_path / folder / f'scene_{name}.tif').read_bytes() for folder in ('whole', out))
            assert one == two, (out, name)
        one, two = (gpd.read_file(tmp_path / folder / 'scene_polygons.gpkg') for folder in ('whole', out))
        assert one.equals(two)
        assert {p.name for p in (tmp_path / out).iterdir()} == {p.name for p in (tmp_path / 'whole').iterdir()}


def test_workers_of_a_mosaic_that_are_killed(trained, scene, tmp_path):
    "The files of a mosaic stay where a worker or the scheduler is killed, and are those of one process."
    done = run(Path(__file__).with_name('kill_cluster.py'), trained, scene, tmp_path, 'mosaic')
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {name: bool(end) for name, end in told['ends'].items()} == {
        'whole': False, 'a worker': False, 'the scheduler': True, 'again': False}, done.stderr
    whole = {path.relative_to(tmp_path / 'whole') for path in (tmp_path / 'whole').rglob('*')}
    tiles = sorted(path for path in whole if path.parent.name in ('scene_classes', 'scene_probabilities'))
    assert len(tiles) == 2 * 9 > 2 * told['files before'] and told['left'] >= told['files before'] > 0
    for out in ('cut', 'again'):
        for path in (Path('scene_classes.vrt'), Path('scene_probabilities.vrt'), *tiles):
            assert (tmp_path / 'whole' / path).read_bytes() == (tmp_path / out / path).read_bytes(), (out, path)
        one, two = (gpd.read_file(tmp_path / folder / 'scene_polygons.gpkg') for folder in ('whole', out))
        assert one.equals(two)
        assert {path.relative_to(tmp_path / out) for path in (tmp_path / out).rglob('*')} == whole
    report = json.loads((tmp_path / 'again/scene.json').read_text())
    assert len(report['files']) == len(tiles)


@pytest.mark.parametrize('overlap, steps', [(16, None), (16, {'min_pixels': 40, 'open': 3}), (48, {'close': 3})])
def test_a_mosaic_has_the_pixels_of_one_file(trained, scene, tmp_path, monkeypatch, overlap, steps):
    "Also where more than two windows overlap, and where post-processing looks over the edges of its files."
    from geoseg.inference.rasters import draft, mosaic, rasters
    monkeypatch.setattr(rasters, 'plan_raster', functools.partial(rasters.plan_raster, panel=192))
    monkeypatch.setattr(stream, 'TALL', 128)
    for module in (draft, mosaic, stream):
        monkeypatch.setattr(module, 'BLOCK', 64)
    how = {'window': 64, 'overlap': overlap, 'postprocess': steps,
           'write': ['probabilities', 'uncertainty', 'polygons', 'qgis']}
    one, many = geoseg.predict(trained, scene, tmp_path / 'one', **how), tmp_path / 'many'
    geoseg.predict(trained, scene, many, **how, mosaic=True)
    for layer in ('classes', 'probabilities', 'uncertainty'):
        with rasterio.open(one / f'scene_{layer}.tif') as f, rasterio.open(many / f'scene_{layer}.vrt') as g:
            assert (f.crs, f.transform, f.shape, f.dtypes, f.descriptions, f.colorinterp) == (
                g.crs, g.transform, g.shape, g.dtypes, g.descriptions, g.colorinterp)
            assert np.array_equal(f.read(), g.read(), equal_nan=True), layer
            assert np.array_equal([f.nodata], [g.nodata], equal_nan=True)
            if layer == 'classes':
                assert f.tags()['classes'] == g.tags()['classes'] and g.colormap(1).items() <= f.colormap(1).items()
        for file in (many / f'scene_{layer}').iterdir():
            with rasterio.open(file) as f:
                assert f.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
    assert gpd.read_file(one / 'scene_polygons.gpkg').equals(gpd.read_file(many / 'scene_polygons.gpkg'))
    tables = [(folder / f'scene_classes.{end}.aux.xml').read_text() for folder, end in ((one, 'tif'), (many, 'vrt'))]
    assert tables[0] == tables[1]
    moved = many.rename(tmp_path / 'moved')  # paths are relative
    assert (read(moved / 'scene_classes.vrt') == read(one / 'scene_classes.tif')).all()


def test_a_mosaic_that_is_done_stays_and_another_job_takes_its_place(trained, scene, tmp_path, monkeypatch, capsys):
    from geoseg.inference.rasters import rasters
    monkeypatch.setattr(rasters, 'plan_raster', functools.partial(rasters.plan_raster, panel=192))
    out, command = tmp_path / 'out', ['predict', '--checkpoint', str(trained), f'data={scene}', 'window=64']
    files = lambda: {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.is_file()}  # noqa: E731
    assert cli.main([*command, f'out={out}', 'mosaic=true']) == 0
    before = files()
    assert cli.main([*command, f'out={out}', 'mosaic=true']) == 0 and files() == before
    (out / FINISHED).unlink()
    tiles = sorted((out / 'scene_classes').iterdir())
    tiles[1].unlink()
    (out / 'scene_classes/mine.txt').write_text('notes')
    assert cli.main([*command, f'out={out}', 'mosaic=true']) == 0 and tiles[1].is_file()
    assert cli.main([*command, f'out={out}', 'mosaic=false']) == 0
    assert not (out / 'scene_classes.vrt').exists() and [*(out / 'scene_classes').iterdir()] == [
        out / 'scene_classes/mine.txt']
    assert (out / 'scene_classes.tif').is_file() and not (out / '.scene.draft').exists()
    assert cli.main([*command, f'out={out}', 'mosaic=true']) == 0
    assert not (out / 'scene_classes.tif').exists() and read(out / 'scene_classes.vrt').shape == (1, 300, 410)


def test_a_mosaic_is_refused(trained, scene, tmp_path, capsys):
    command = ['predict', '--checkpoint', str(trained), f'out={tmp_path / "out"}']
    for words, wrong in (([f'data={scene}', 'mosaic=4096'], 'mosaic is true or false, not 4096'),
                         (['mosaic=true'], 'mosaic: not for pictures')):
        assert cli.main([*command, *words]) == 2
        assert wrong in capsys.readouterr().err
    (tmp_path / 'out' / 'scene_classes').mkdir(parents=True)
    assert cli.main([*command, f'data={scene}', 'mosaic=true']) == 2
    assert 'scene_classes is there already' in capsys.readouterr().err


def test_a_network_is_opened_once_a_worker(trained, scene, tmp_path, monkeypatch):
    from distributed import LocalCluster

    from geoseg.inference.rasters import rasters
    monkeypatch.setattr(rasters, 'plan_raster', functools.partial(rasters.plan_raster, panel=128))
    opened, load = [], Predictor.load.__func__
    monkeypatch.setattr(Predictor, 'load', classmethod(lambda cls, *a, **k: (opened.append(a), load(cls, *a, **k))[1]))
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        geoseg.predict(trained, scene, tmp_path / 'two', window=64, address=cluster.scheduler_address)
    assert len(opened) == 2  # by the one that is asked, and by the worker for its four blocks
    geoseg.predict(trained, scene, tmp_path / 'one', window=64)
    assert (tmp_path / 'one/scene_classes.tif').read_bytes() == (tmp_path / 'two/scene_classes.tif').read_bytes()


@pytest.mark.parametrize('wrong, message', [
    ({'workers': 0}, 'workers is 0'), ({'workers': 2, 'address': 'tcp://here:1'}, 'one of them'),
    ({'address': 'here'}, 'tcp://HOST:8786'), ({'workers': 1, 'update': True}, 'in order: not with workers')])
def test_workers_that_cannot_be(trained, scene, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        geoseg.predict(trained, scene, tmp_path / 'none', **wrong)
    assert not (tmp_path / 'none').exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='peaks are told apart on Linux alone')
def test_memory_does_not_grow_with_the_raster(tmp_path):
    done = run(Path(__file__).with_name('predict_large.py'), tmp_path)  # a process that nothing else has enlarged
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout.splitlines()[-1])
    # caches fill, by 2 × 20 MiB at most; the classes alone are 12 MiB more, the picture 36, the probabilities 192
    assert peaks[2] - peaks[1] < 90, peaks


def test_a_network_with_place_and_memory(tmp_path):
    run = geoseg.train('geosegformer', 'world:raster:tiny', epochs=2, seed=1, out=tmp_path / 'runs', overrides={
        'feature_dim': 16, 'num_workers': 0, 'warmup_epochs': 0.5, 'trainer.accelerator': 'cpu', 'batch_size': 4,
        'trainer.enable_progress_bar': False, 'memory_size': 8, 'memory_dim': 16, 'spatial_radius': 6.0,
        'memory_warmup_epochs': 1, 'chip': 64})
    folder = geoseg.predict(run.folder, out=tmp_path / 'maps', window=512, write=['probabilities'])  # the test year
    data, predictor = run.data(), run.predictor()
    a = data.datasets['test'].areas[0].acquisition
    assert [p.name for p in folder.glob('*.tif')] and a.height == a.width
    whole = RasterChips([Area(a, 0, 0, a.height, a.width)], Reader(data.scheme), Augment().pipeline(False),
                        data.frame, a.height)
    batch = torch.utils.data.default_collate([whole[0]])
    probs = read(folder / f'{a.image.stem}_probabilities.tif')
    assert np.abs(probs - predictor.logits(batch).softmax(1)[0].numpy()).max() < 1e-4
    blind = predictor.without('xy').logits(batch).softmax(1)[0].numpy()
    assert np.abs(probs - blind).max() > 1e-3 and 'was recalled' in (folder / 'memory.txt').read_text()
    tiles = read(geoseg.predict(run.folder, a.image, tmp_path / 'tiles', window=128, update=True)
                 / f'{a.image.stem}_classes.tif')
    assert (tiles[0] == probs.argmax(0)).mean() > 0.8 and (tmp_path / 'tiles' / 'memory.safetensors').is_file()


@pytest.mark.parametrize('options, says', [
    ({'write': ['overlay']}, 'for GeoTIFFs'), ({'write': 'steep'}, 'for GeoTIFFs'),
    ({'write': ['steps']}, 'has none'),
    ({'overrides': {'bands': [1, 2]}}, '2 bands are read, the network takes 3: set bands'),
    ({'overrides': {'bands': [1, 2, 7]}}, r'bands \(1, 2, 7\) asked for, it has 1 to 3'),
    ({'overrides': {'bnds': [1]}}, "unknown key 'bnds'"), ({'window': 50}, 'window is 50'),
    ({'window': 64, 'overlap': 64}, 'less than the window'), ({'postprocess': {'crf': True}}, 'not for GeoTIFFs'),
    ({'postprocess': {'min_area': 1e7}}, 'too large'), ({'update': True}, 'no memory'),
    ({'data': 'nowhere.tif'}, 'nowhere.tif: no such file'), ({'data': 'text.tif'}, 'text.tif: not a readable raster'),
])
def test_what_cannot_be_done_is_said_before_work(trained, scene, tmp_path, monkeypatch, options, says):
    (tmp_path / 'text.tif').write_text('no raster')
    data = tmp_path / options['data'] if 'data' in options else scene
    with pytest.raises((ValueError, OSError), match=says):
        geoseg.predict(trained, **{'out': tmp_path / 'maps'} | options | {'data': data})
    assert not (tmp_path / 'maps').exists()
