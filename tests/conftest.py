"""What all tests share: the scripts in tools/, a tiny run of each recipe, and real data, which a fresh clone lacks."""
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from filelock import FileLock

TESTS = Path(__file__).resolve().parent
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
sys.path[:0] = [str(TESTS), str(TESTS.parent / 'tools')]

import tiny  # noqa: E402
import warm  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line('markers', 'real_data: needs ../shared/data; given to each test that asks for it')
    config.addinivalue_line('markers', 'browser: needs chromium; skipped and counted where it is absent')
    config.addinivalue_line('markers', 'qgis: needs QGIS for /usr/bin/python3; skipped and counted where it is absent')
    config.addinivalue_line('markers', 'long: begins before the others, so that no process waits for it in the end')
    if not hasattr(config, 'workerinput'):  # one server for all processes of the tests
        server = warm.server()
        server.__enter__()
        config.add_cleanup(lambda: server.__exit__(None, None, None))


def pytest_collection_modifyitems(items):
    for item in items:
        if 'real_data' in item.fixturenames:
            item.add_marker('real_data')
    # two processes begin with a half each, and take from the other's end
    long, short = ([item for item in items if bool(item.get_closest_marker('long')) == kind] for kind in (True, False))
    middle = (len(items) + 1) // 2 - (len(long) + 1) // 2
    items[:] = long[::2] + short[:middle] + long[1::2] + short[middle:]


@pytest.fixture(scope='session')
def once(tmp_path_factory):
    "`once(name, make)`: a folder that `make` has filled, in the first process of the session that asks for it."
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'once'
    base.mkdir(exist_ok=True)

    def folder(name, make):
        path = base / name
        with FileLock(base / f'{name}.lock'):
            if not (base / f'{name}.made').exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                make(path)
                (base / f'{name}.made').touch()
        return path

    return folder


@pytest.fixture(scope='session')
def tiny_run(once):
    """`tiny_run(recipe)`: the folder of a run of this recipe with the settings of tests/tiny.py.

    All tests share it: one that writes into it takes `own_run`, and evaluates and predicts to another folder.
    """
    known = {}

    def make(recipe, out):
        run = tiny.train(recipe, out, draw_every_n_epochs=10).folder
        (out / 'made.json').write_text(json.dumps({'run': run.name, 'files': tiny.files_of(run)}))

    def folder(recipe: str) -> Path:
        out = once(f'tiny-{recipe}', lambda out: make(recipe, out))
        about = json.loads((out / 'made.json').read_text())
        run = out / recipe / about['run']
        known[run] = about['files']
        return run

    yield folder
    for run, files in known.items():
        now = tiny.files_of(run)
        changed = [name for name in {**files, **now} if files.get(name) != now.get(name)]
        assert not changed, f'a test wrote into the shared run of {run.parent.name}: {", ".join(changed)}'


@pytest.fixture(scope='module')
def own_run(tiny_run, tmp_path_factory):
    "`own_run(recipe)`: a copy of the tiny run, of this call alone."
    def copy(source, target):  # a checkpoint is large, and only ever replaced; `tiny_run` notices one that is not
        return (os.link if source.endswith('.ckpt') else shutil.copy2)(source, target)

    # another test may evaluate the run at this moment: its lock stays where it is
    return lambda recipe: shutil.copytree(tiny_run(recipe), tmp_path_factory.mktemp('own') / recipe / 'run',
                                          copy_function=copy, ignore=shutil.ignore_patterns('.*'))


@pytest.fixture(scope='session')
def real_data():
    "`real_data('naip')`: the folder of a real data set; the test is skipped where it is absent."
    from geoseg.data.shared import shared_data

    def folder(name: str) -> Path:
        folder_of_data = shared_data(name, start=TESTS)
        if folder_of_data is None:
            pytest.skip(f'no real data: ../shared/data/{name} is absent')
        return folder_of_data.resolve()

    return folder


@pytest.fixture
def trained(tiny_run):
    'The folder of a run on pictures.'
    return tiny_run('unet')


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    "`scontrol(then)`: this is job 7 of SLURM, whose `scontrol` does that; the file of what it was asked, a line each."
    def job(then: str = 'true') -> Path:  # for a shell, $0 the path of `scontrol`
        path = tmp_path / 'bin' / 'scontrol'
        path.parent.mkdir()
        path.write_text(f'#!/bin/sh\necho "$@" >> "$0.asked"; {then}\n')
        path.chmod(0o755)
        monkeypatch.setenv('PATH', f'{path.parent}:{os.environ["PATH"]}')
        monkeypatch.setenv('SLURM_JOB_ID', '7')
        return path.with_suffix('.asked')

    return job


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    "Worlds as they are kept; index and store of patches in a folder of the tests."
    from geoseg.core.files import cache_folder
    from geoseg.world.layouts import world_data
    world_data('deepglobe', size='tiny')
    home, folder = cache_folder(), tmp_path_factory.mktemp('cache')
    (folder / 'world').symlink_to(home / 'world')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GEOSEG_CACHE', str(folder))
        yield folder


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    'A GeoTIFF with a corner without data, in tiles of 128 pixels.'
    import numpy as np
    import rasterio

    from geoseg.world.layouts import world_data
    path, first = tmp_path_factory.mktemp('scene') / 'scene.tif', sorted(world_data('raster', size='tiny').glob('*_i*'))
    with rasterio.open(first[0]) as f:
        pixels, profile = np.tile(f.read(), (1, 2, 2))[:, :300, :410].clip(1), f.profile
    pixels[:, :40, 350:] = 0
    profile |= {'width': 410, 'height': 300, 'nodata': 0, 'tiled': True, 'blockxsize': 128, 'blockysize': 128}
    with rasterio.open(path, 'w', **profile) as f:
        f.write(pixels)
    return path


def pytest_terminal_summary(terminalreporter):
    def count(marker, *outcomes):
        reports = (report for outcome in outcomes for report in terminalreporter.getreports(outcome))
        return len({report.nodeid for report in reports if marker in getattr(report, 'keywords', ())})

    for marker, name in (('real_data', 'real data'), ('browser', 'browser')):
        ran, skipped = count(marker, 'passed', 'failed', 'error'), count(marker, 'skipped')
        terminalreporter.write_line(f'{name}: {ran} ran, {skipped} skipped')
