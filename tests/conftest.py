"""What all tests share: the scripts in tools/, and real data, which a fresh clone does not have."""
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))


def pytest_configure(config):
    config.addinivalue_line('markers', 'real_data: needs ../shared/data; given to each test that asks for it')


def pytest_collection_modifyitems(items):
    for item in items:
        if 'real_data' in item.fixturenames:
            item.add_marker('real_data')


@pytest.fixture(scope='session')
def real_data():
    "`real_data('naip')`: the folder of a real data set; the test is skipped where it is absent."
    from geoseg.data.shared import shared_data

    def folder(name: str) -> Path:
        found = shared_data(name, start=Path(__file__).parent)
        if found is None:
            pytest.skip(f'no real data: ../shared/data/{name} is absent')
        return found.resolve()

    return folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    'The folder of a short run on pictures; of a module, since calibration writes into its checkpoint.'
    import geoseg

    settings = {'num_workers': 0, 'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 0,
                'image_size': [64, 64], 'crop': [64, 64], 'save_top_k': 0, 'trainer.accelerator': 'cpu',
                'trainer.enable_progress_bar': False}
    return geoseg.train('unet', 'world:tiny', epochs=1, batch_size=8, lr=3e-3, out=tmp_path_factory.mktemp('run'),
                        overrides=settings).folder


def pytest_terminal_summary(terminalreporter):
    def count(*outcomes):
        reports = (report for outcome in outcomes for report in terminalreporter.getreports(outcome))
        return len({report.nodeid for report in reports if 'real_data' in report.keywords})

    ran, skipped = count('passed', 'failed', 'error'), count('skipped')
    terminalreporter.write_line(f'real data: {ran} ran, {skipped} skipped')
