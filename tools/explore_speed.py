"""How long a click and a pan take in JupyterLab on a raster of 20,000² pixels, and what the kernel needs: a CSV.

    python tools/explore_speed.py nbs/explore.csv [--side 20000] [--count 100] [--rasters FOLDER]

A browser shows `geoseg.explore` of a drawn raster with an untrained U-Net on a ResNet-34 (chips of 128). A click
answers with classes and probabilities; a pan is one move to where the picture of that place is shown. Both
are timed in the page. Memory is the kernel's peak above what it held with the network built and no data opened.
"""
import argparse
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import rasterio
from playwright.sync_api import sync_playwright
from rasterio.transform import from_origin
from rasterio.windows import Window

CELL = '''
import os, torch, geoseg
from geoseg.lab.explore import Explorer, view_of
from geoseg.models.predictor import Predictor
from geoseg.models.unet import UNet
from geoseg.training.config import parse
torch.manual_seed(0)
torch.set_num_threads(1)
network = UNet(3).eval()
def held():
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmRSS')).split()[1]) // 1024
print('held', os.getpid(), held())
data = parse(['unet'], {'data': 'rasters', 'chip': 128, 'num_workers': 0}).build_data()
data.setup()
Explorer(view_of(data, Predictor(network, data.scheme)))
'''
TIMED = '''async ([kind, x, y, dx, dy]) => {
  const el = document.querySelector('.geoseg-explore'), canvas = el.querySelector('.geoseg-canvas');
  const box = canvas.getBoundingClientRect(), start = performance.now(), before = el.dataset.window;
  const said = () => el.querySelector('.geoseg-answer').textContent, old = said();
  const fire = (name, x, y) => canvas.dispatchEvent(new MouseEvent(name, {bubbles: true,
    clientX: box.left + x, clientY: box.top + y}));
  fire('mousedown', x, y);
  if (kind === 'pan') fire('mousemove', x + dx, y + dy);
  fire('mouseup', x + dx, y + dy);
  const done = () => kind === 'pan' ? el.dataset.window !== before : said() !== old && said().includes('probabilities');
  while (!done()) {
    if (performance.now() - start > 60000) throw new Error('no answer to a ' + kind + ': ' + said());
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return performance.now() - start;
}'''


def draw(folder: Path, side: int):
    "An image, its mask, and the same at three dates; fields of many sizes, tiled, without overviews."
    rng, block = np.random.default_rng(0), 2000
    profile = {'driver': 'GTiff', 'width': side, 'height': side, 'dtype': 'uint8', 'tiled': True, 'compress': 'deflate',
               'zlevel': 1, 'crs': 'EPSG:32633', 'transform': from_origin(4e5, 5.2e6, 1, 1), 'blockxsize': 256,
               'blockysize': 256}
    colors = np.array([[60, 90, 60], [150, 140, 100], [90, 110, 160]], np.uint8)
    with rasterio.open(folder / '20200101_image.tif', 'w', count=3, **profile) as image, rasterio.open(
            folder / '20200101_mask.tif', 'w', count=1, **profile) as mask:
        for row in range(0, side, block):
            for col in range(0, side, block):
                h, w = min(block, side - row), min(block, side - col)
                ids = rng.integers(0, 3, (-(-h // 50), -(-w // 50)), np.uint8).repeat(50, 0).repeat(50, 1)[:h, :w]
                noise = rng.integers(0, 30, (h, w, 1), np.uint8)
                image.write((colors[ids] + noise).transpose(2, 0, 1), window=Window(col, row, w, h))
                mask.write(ids[None], window=Window(col, row, w, h))
    for date in ('20210101', '20220101'):
        for kind in ('image', 'mask'):
            os.link(folder / f'20200101_{kind}.tif', folder / f'{date}_{kind}.tif')
    (folder / 'classes.txt').write_text('0 a\n1 b\n2 c\n')


def serve(folder: Path) -> tuple[subprocess.Popen, str]:
    "JupyterLab, and its address."
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    own = {f'JUPYTER_{name}_DIR': str(folder / f'.{name.lower()}') for name in ('CONFIG', 'DATA', 'RUNTIME')}
    words = ['--no-browser', f'--port={port}', f'--ServerApp.root_dir={folder}', '--IdentityProvider.token=',
             '--ServerApp.password=', '--ServerApp.allow_root=True', '--LabApp.news_url=None']
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *words], cwd=folder, stderr=subprocess.DEVNULL,
                              env=os.environ | own | {'XDG_CACHE_HOME': str(folder / '.cache'), 'OMP_NUM_THREADS': '1'})
    for _ in range(600):
        try:
            urllib.request.urlopen(f'http://127.0.0.1:{port}/lab', timeout=5).read()
            return server, f'http://127.0.0.1:{port}'
        except OSError:
            time.sleep(0.5)
    raise TimeoutError('JupyterLab does not answer')


def measure(page, address: str, folder: Path, count: int) -> list[dict]:
    cell = {'cell_type': 'code', 'id': 'a', 'metadata': {}, 'outputs': [], 'execution_count': None, 'source': CELL}
    (folder / 'a.ipynb').write_text(json.dumps({'nbformat': 4, 'nbformat_minor': 5, 'cells': [cell], 'metadata': {
        'kernelspec': {'name': 'python3', 'display_name': 'python3'}}}))
    page.goto(f'{address}/lab/tree/a.ipynb?reset')
    page.wait_for_selector('text=python3 | Idle')
    page.click('.jp-Notebook .jp-CodeCell .cm-content')
    page.keyboard.press('Shift+Enter')
    page.wait_for_selector('.geoseg-explore[data-ready]')
    said = re.search(r'held (\d+) (\d+)', page.locator('.jp-OutputArea').first.inner_text())
    kernel, network = Path('/proc', said[1]), int(said[2])
    start = time.monotonic()
    page.locator('.geoseg-whole').click()
    page.wait_for_selector('.geoseg-explore[data-window]', timeout=1_200_000)
    rows, rng = [{'what': 'overviews, made once', 'seconds': time.monotonic() - start}], np.random.default_rng(0)
    canvas, times = page.locator('.geoseg-canvas'), {'click': [], 'pan': []}
    canvas.scroll_into_view_if_needed()
    dx = dy = 0
    for i in range(count):
        if i % (count // 4) == 0 and i:  # nearer, four times
            for _ in range(5):
                before = page.get_attribute('.geoseg-explore', 'data-window')
                canvas.evaluate("c => { const b = c.getBoundingClientRect(); c.dispatchEvent(new WheelEvent('wheel', "
                                "{deltaY: -1, clientX: b.left + 240, clientY: b.top + 240, cancelable: true})) }")
                page.wait_for_function("b => document.querySelector('.geoseg-explore').dataset.window !== b",
                                       arg=before)
        x, y = (int(v) for v in rng.integers(100, 380, 2))
        dx, dy = (-dx, -dy) if i % 2 else (int(v) for v in rng.integers(30, 90, 2))  # there, and back
        times['click'].append(page.evaluate(TIMED, ['click', x, y, 0, 0]))
        times['pan'].append(page.evaluate(TIMED, ['pan', x, y, dx, dy]))
    for what, limit in (('click', 0.3), ('pan', 0.5)):
        seconds = np.array(times[what]) / 1000
        rows.append({'what': what, 'count': len(seconds), 'median': np.median(seconds),
                     '95th percentile': np.quantile(seconds, 0.95), 'goal': limit})
    held = next(line for line in (kernel / 'status').open() if line.startswith('VmHWM'))
    rows.append({'what': 'kernel, MiB beyond the network', 'count': 1, 'MiB': int(held.split()[1]) // 1024 - network,
                 'goal': 1536})
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path)
    parser.add_argument('--side', type=int, default=20_000)
    parser.add_argument('--count', type=int, default=100)
    parser.add_argument('--rasters', type=Path, help='where they are drawn once; else for this time alone')
    given = parser.parse_args()
    fields = ['side', 'what', 'count', 'seconds', 'median', '95th percentile', 'MiB', 'goal', 'load']
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        folder = Path(folder)
        rasters = given.rasters or folder / 'drawn'
        if not rasters.is_dir():
            rasters.mkdir()
            draw(rasters, given.side)
        (folder / 'rasters').symlink_to(rasters.absolute())
        server, address = serve(folder)
        try:
            browser = play.chromium.launch(executable_path=shutil.which('chromium'),
                                           args=['--no-sandbox', '--disable-gpu'])
            page = browser.new_page(viewport={'width': 1300, 'height': 900})
            page.set_default_timeout(300_000)
            rows = measure(page, address, folder, given.count)
            load = f'{os.getloadavg()[1]:.1f}'
            browser.close()
        finally:
            server.terminate()
            server.wait(30)
    with given.out.open('w', newline='') as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for row in rows:
            row = {key: f'{value:.3f}' if isinstance(value, float) else value for key, value in row.items()}
            writer.writerow({'side': given.side, 'load': load} | row)


if __name__ == '__main__':
    main()
