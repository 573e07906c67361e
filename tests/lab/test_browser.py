"JupyterLab in a real browser: the widget appears, a click answers, and a polygon drawn by mouse is in the file."
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import geopandas
import pytest
from a_flight import write_answers
from conftest import TESTS

import geoseg

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
MISSING = [name for name in ('jupyterlab', 'playwright', 'anywidget') if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ['chromium']
pytestmark = [pytest.mark.browser, pytest.mark.long,
              pytest.mark.skipif(bool(MISSING), reason=f'no browser test: {", ".join(MISSING)} is absent')]
PATIENCE = 90_000  # milliseconds: two cores may be busy with other tests


def notebook(*cells: str) -> str:
    'A notebook of code cells.'
    made = [{'cell_type': 'code', 'id': f'cell{i}', 'metadata': {}, 'outputs': [], 'execution_count': None,
             'source': text} for i, text in enumerate(cells)]
    return json.dumps({'nbformat': 4, 'nbformat_minor': 5, 'cells': made,
                       'metadata': {'kernelspec': {'name': 'python3', 'display_name': 'python3'}}})


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    'A server of JupyterLab: its address and its folder.'
    folder = tmp_path_factory.mktemp('lab')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    own = {'JUPYTER_CONFIG_DIR': str(folder / '.config'), 'JUPYTER_DATA_DIR': str(folder / '.data'),
           'JUPYTER_RUNTIME_DIR': str(folder / '.runtime'), 'PYTHONPATH': str(TESTS.parent), 'OMP_NUM_THREADS': '1'}
    words = ['--no-browser', f'--port={port}', f'--ServerApp.root_dir={folder}', '--IdentityProvider.token=',
             '--ServerApp.password=', '--ServerApp.allow_root=True', '--LabApp.news_url=None',
             '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    with open(folder / 'server.log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *words], cwd=folder, env=os.environ | own,
                                  stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{port}/lab', timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, (folder / 'server.log').read_text()
                time.sleep(0.2)
        yield f'http://127.0.0.1:{port}', folder
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        yield chromium
        chromium.close()


def opened(lab, browser, name, *cells):
    "A notebook in JupyterLab, all of its cells run."
    address, folder = lab
    (folder / name).write_text(notebook(*cells))
    page = browser.new_page(viewport={'width': 1300, 'height': 900})
    page.set_default_timeout(PATIENCE)
    page.goto(f'{address}/lab/tree/{name}?reset')
    page.wait_for_selector('.jp-Notebook .jp-CodeCell')
    page.wait_for_selector('text=python3 | Idle')  # before, the kernel would not hear
    page.click('.jp-Notebook .jp-CodeCell .cm-content')
    for _ in cells:
        page.keyboard.press('Shift+Enter')
    return page


def shot(page, name):
    'A picture to look at, where GEOSEG_SHOTS says.'
    if folder := os.environ.get('GEOSEG_SHOTS'):
        page.screenshot(path=f'{folder}/{name}.png')


def test_look_click_and_draw(lab, browser, own_run):
    "All in one visit, since a server, a browser and a kernel take seconds each."
    _, folder = lab
    file = folder / 'drawn.gpkg'
    page = opened(lab, browser, 'explore.ipynb',
                  'import geoseg\nw = geoseg.explore("world:raster:tiny", labels="drawn.gpkg", annotator="ada",'
                  ' overrides={"chip": 64, "num_workers": 0})\nw')
    page.wait_for_selector('.geoseg-explore[data-ready]')
    order = page.locator('.geoseg-order')
    assert order.input_value() == 'spread' and order.locator('option:not([disabled])').count() == 2  # no network
    canvas = page.locator('.geoseg-canvas')
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()

    def at(col, row):  # the sample of 64 pixels fills the height of 480
        return box['x'] + (col + 0.5) * 480 / 64, box['y'] + (row + 0.5) * 480 / 64

    page.mouse.click(*at(20, 10))
    page.wait_for_function("document.querySelector('.geoseg-answer').textContent.includes('column: 20')")
    answer = page.locator('.geoseg-answer').inner_text()
    assert re.search(r'row: 10\ncolumn: 20\nmask: \w+\neast: ', answer), answer
    shot(page, 'clicked')
    page.keyboard.press('3')  # the third class
    page.keyboard.press('d')
    for corner in ((10, 10), (40, 10), (40, 30), (10, 30)):
        page.mouse.click(*at(*corner))
    page.keyboard.press('Enter')
    page.wait_for_function("document.querySelector('.geoseg-answer').textContent.includes('600 m²')")
    shot(page, 'drawn')
    table = geopandas.read_file(file)
    assert table['class'].tolist() == ['grass'] and table['annotator'].tolist() == ['ada'] and len(table['when'][0])
    assert table['date'].tolist() == ['20200819'] and round(table.area[0]) == 600
    page.keyboard.press('d')  # a corner is moved
    page.mouse.move(*at(40, 30))
    page.mouse.down()
    page.mouse.move(*at(45, 35), steps=4)
    page.mouse.move(*at(50, 40), steps=4)
    page.mouse.up()
    wait_for(lambda: round(geopandas.read_file(file).area[0]) > 700)
    page.keyboard.press('u')
    wait_for(lambda: round(geopandas.read_file(file).area[0]) == 600)
    page.keyboard.press('ArrowRight')
    page.wait_for_function("document.querySelector('.geoseg-title').textContent.startsWith('2 /')")
    page.locator('.geoseg-date').evaluate("node => { node.value = 0; node.dispatchEvent(new Event('input')) }")
    page.wait_for_function("document.querySelector('.geoseg-title').textContent.includes('20170621')")
    shot(page, 'another date')
    page.close()


def test_photos_beside_the_map(lab, browser):
    "The least sure photo first; a click on a candidate shows its tile, a tick hides the candidates."
    _, folder = lab
    (folder / 'flight').mkdir()
    write_answers(folder / 'flight')
    page = opened(lab, browser, 'photos.ipynb', "import geoseg\nw = geoseg.explore('flight/places', "
                  "photos='flight/photos', tiles='flight/map.tif')\nw")
    page.wait_for_selector('.geoseg-explore[data-ready]')
    title = page.locator('.geoseg-title')
    assert title.inner_text().startswith('1 / 3 lost.png: confidence 0.10, not on the map')
    canvas = page.locator('.geoseg-canvas')
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.click(box['x'] + 2, box['y'] + 2)  # the focus, and the photo
    page.wait_for_function("document.querySelector('.geoseg-answer').textContent.includes('in: photo')")
    page.keyboard.press('ArrowRight')
    page.wait_for_function("document.querySelector('.geoseg-title').textContent.startsWith('2 / 3  doubtful.png')")
    page.mouse.click(box['x'] + 120, box['y'] + 360)  # the middle of the ground that the photo shows
    page.wait_for_function("document.querySelectorAll('.geoseg-crops canvas').length === 3")
    words = page.locator('.geoseg-crops').inner_text()
    assert 'the map, as the photo sees it' in words and '1: similarity 0.50' in words
    shot(page, 'photos')
    pixels = "node => [...node.getContext('2d').getImageData(0, 0, node.width, node.height).data].join()"
    before = canvas.evaluate(pixels)
    page.locator('.geoseg-class[data-class="footprint"] input').click()
    wait_for(lambda: canvas.evaluate(pixels) != before)
    page.close()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


HOLD = """
import time
from geoseg.core.signals import stop_requested
from geoseg.training.callbacks import SeedBatches
goes_on = SeedBatches.on_train_batch_start

def holds(self, trainer, *given):
    goes_on(self, trainer, *given)
    while trainer.current_epoch == 2 and not stop_requested():
        time.sleep(0.1)

SeedBatches.on_train_batch_start = holds
"""


def test_the_stop_button_of_a_training(lab, browser, tmp_path):
    "Pressed while it trains; what the cell says is typed, and the weights are those of a run that was left alone."
    import tiny
    _, folder = lab
    changes = {'epochs': 6, 'trainer.limit_train_batches': 3, 'trainer.limit_val_batches': 1, 'patience': None}
    given = tiny.settings('unet', **changes) | {'trainer.enable_progress_bar': True, 'patience': None}
    page = opened(lab, browser, 'train.ipynb', f'{HOLD}\nimport geoseg\ngiven = {given!r}\n'
                  f'run = geoseg.train("unet", {tiny.DATA!r}, out="runs", overrides=given)')
    page.wait_for_selector('.jp-OutputArea progress')
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output img').length > 1")
    page.wait_for_function("document.querySelector('.jp-OutputArea').innerText.includes(' left')")
    shot(page, 'training')
    page.click('[data-command="notebook:interrupt-kernel"], [title^="Interrupt the kernel"]')
    page.wait_for_function("document.querySelector('.jp-OutputArea').innerText.includes('to go on')")
    shot(page, 'stopped')
    said = page.locator('.jp-OutputArea').first.inner_text()
    code = re.search(r'stopped; to go on: (geoseg\.train\(.*?\)) in a cell', said)[1]
    [cut] = (folder / 'runs' / 'unet').iterdir()
    assert str(cut).endswith(re.search(r"resume='(.*)'", code)[1]) and 'Traceback' not in said
    assert len(geopandas.pd.read_csv(cut / 'metrics.csv')) < 3
    page.keyboard.insert_text(f'SeedBatches.on_train_batch_start = goes_on\nrun = {code}\nprint("went on")')
    page.keyboard.press('Shift+Enter')
    page.wait_for_selector('text="went on"', timeout=4 * PATIENCE)
    page.close()
    whole = geoseg.train('unet', tiny.DATA, out=tmp_path, overrides=given | {'trainer.enable_progress_bar': False})
    tiny.same_state(whole.last, cut / 'checkpoints' / 'last.ckpt')
    assert (whole.folder / 'metrics.csv').read_bytes() == (cut / 'metrics.csv').read_bytes()
