"""A raster of 4,000² pixels through five networks, and one of 20,000² through the fastest: rates, memory, seams; a CSV.

    python tools/show_rates.py             rows that are in nbs/show_rates.csv stay
    python tools/show_rates.py --again     all rows anew, on a quiet machine

Each network answers in a process of its own, on one thread: windows of 512, overlap 128. *bare* is the network
alone on windows that are read already. Seams: the probabilities of a raster of 1,024² by windows beside those of one
pass over all of it; the same without overlap stands beside. Ours is trained for two epochs on the synthetic world; the
networks of other libraries are built from their configuration and not trained.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

import geoseg
from geoseg.core.files import write_whole
from geoseg.core.pages import csv_text, read_csv
from geoseg.evaluation.export import export
from geoseg.inference.answer import Request, Trained
from geoseg.inference.wrapped import ModelFile
from geoseg.training.train import train
from geoseg.world.layouts import world_data

ROWS = Path(__file__).resolve().parent.parent / 'nbs/show_rates.csv'
SIDE, LARGE, WHOLE, WINDOW, OVERLAP = 4000, 20_000, 1024, 512, 128
SMALL = {'epochs': 2, 'batch_size': 8, 'num_workers': 0, 'lr': 3e-3, 'warmup_epochs': 0.5, 'save_top_k': 0, 'seed': 0,
         'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'trainer.accelerator': 'cpu',
         'trainer.enable_progress_bar': False}
FACTS = {'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
MODELS = {  # as the table names them: file or folder
    'our checkpoint (U-Net, tu-resnet10t)': 'run', 'its ONNX': 'model.onnx', 'its ONNX in int8': 'int8.onnx',
    'U-Net, resnet18 (segmentation-models-pytorch)': 'smp', 'SegFormer-b0 (transformers)': 'segformer'}
FIELDS = ('network', 'side', 'windows', 'million weights', 'Mpx per CPU s', 'bare Mpx per CPU s', 'of bare', 'CPU s',
          'wall s', 'peak MiB', 'largest difference', 'classes that differ', 'largest, no overlap',
          'classes, no overlap', 'load')


def build(folder: Path):
    'The five networks, once.'
    if (folder / 'built').is_file():
        return
    import segmentation_models_pytorch as smp
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    run = train('unet', str(world_data('raster', size='tiny')), out=folder / 'runs', overrides=SMALL)
    (folder / 'run').unlink(missing_ok=True)
    (folder / 'run').symlink_to(run.folder.resolve())
    export(run.folder, folder / 'model.onnx')
    export(run.folder, folder / 'int8.onnx', int8=True)
    torch.manual_seed(0)
    smp.Unet('resnet18', encoder_weights=None, classes=7).save_pretrained(folder / 'smp')
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(SegformerConfig(num_labels=7)).save_pretrained(folder / 'segformer')
    (folder / 'built').touch()


def draw(file: Path, side: int) -> Path:
    'The synthetic world, side by side and mirrored until a raster of that size is full; the file that is there.'
    if file.is_file():
        return file
    with rasterio.open(sorted(world_data('raster', size='tiny').glob('*_image.tif'))[0]) as source:
        tile = source.read()
    tile = np.concatenate([tile, tile[..., ::-1]], -1)
    tile = np.concatenate([tile, tile[:, ::-1]], -2)
    across, down = -(-side // tile.shape[2]), tile.shape[1]
    row = np.tile(tile, (1, 1, across))[:, :, :side]
    draft = file.with_suffix('.draft')
    with rasterio.open(draft, 'w', driver='GTiff', width=side, height=side, count=3, dtype='uint8', tiled=True,
                       crs='EPSG:32633', transform=from_origin(4e5, 5.2e6, 1, 1), compress='deflate', zlevel=1,
                       bigtiff='if_safer') as target:
        for top in range(0, side, down):
            part = row[:, :side - top]
            target.write(part, window=Window(0, top, side, part.shape[1]))
    draft.replace(file)
    return file


def given(name: str, folder: Path) -> dict:
    'How `predict` is told of a network.'
    path = folder / MODELS[name]
    if path.name == 'run':
        return {'checkpoint': path}
    return {'model': path} | ({} if path.suffix else {'overrides': {'classes': list('abcdefg'), **FACTS}})


def opened(how: dict) -> Trained:
    return ModelFile(how['model'], how.get('overrides')) if 'model' in how else Trained(how['checkpoint'])


def bare(how: dict, windows: int = 6) -> float:
    'Megapixels a CPU second of the network alone.'
    trained = opened(how)
    predictor = trained.predictor(Request(), trained.settings())
    batch = {'image': torch.rand(1, 3, WINDOW, WINDOW, generator=torch.Generator().manual_seed(0))}
    times = []
    for _ in range(windows + 1):
        begun = time.process_time()
        predictor.logits(batch['image'])
        times.append(time.process_time() - begun)
    return WINDOW ** 2 / 1e6 / float(np.median(times[1:]))


def weights(how: dict) -> float:
    trained = opened(how)
    network = trained.predictor(Request(), trained.settings()).network
    known = sum(value.numel() for value in network.parameters()) or getattr(network, 'weights', float('nan'))
    return known / 1e6


def seams(how: dict, raster: Path, folder: Path) -> dict[str, str]:
    'How far windows are from one pass over all of a raster.'
    found = {}
    for name, window, overlap in (('whole', WHOLE, 0), ('ours', WINDOW, OVERLAP), ('plain', WINDOW, 0)):
        geoseg.predict(**how, data=raster, out=folder / name, window=window, overlap=overlap, write=['probabilities'])
        with rasterio.open(folder / name / f'{raster.stem}_probabilities.tif') as file:
            found[name] = file.read()
    differ = {name: (np.abs(found[name] - found['whole']).max(), (found[name].argmax(0) != found['whole'].argmax(0)
                                                                  ).mean()) for name in ('ours', 'plain')}
    return {'largest difference': f'{differ["ours"][0]:.2g}', 'classes that differ': f'{differ["ours"][1]:.2%}',
            'largest, no overlap': f'{differ["plain"][0]:.2g}', 'classes, no overlap': f'{differ["plain"][1]:.2%}'}


def one(name: str, side: int, folder: Path):
    'Print a row as JSON: what a process of its own does.'
    torch.set_num_threads(1)
    how, raster = given(name, folder), draw(folder / f'{side}.tif', side)
    alone = bare(how)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        used, begun = time.process_time(), time.perf_counter()
        geoseg.predict(**how, data=raster, out=Path(out) / 'map', window=WINDOW, overlap=OVERLAP)
        used, begun = time.process_time() - used, time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report = json.loads((Path(out) / 'map' / f'{side}.json').read_text())
        more = seams(how, draw(folder / f'{WHOLE}.tif', WHOLE), Path(out)) if side == SIDE else {}
    rate = side ** 2 / 1e6 / used
    answered = report['windows'] * WINDOW ** 2 / 1e6 / used  # overlaps count twice, as in `alone`
    print(json.dumps({'network': name, 'side': str(side), 'windows': str(report['windows']),
                      'million weights': f'{weights(how):.2f}', 'Mpx per CPU s': f'{rate:.3f}',
                      'bare Mpx per CPU s': f'{alone:.3f}', 'of bare': f'{answered / alone:.2f}',
                      'CPU s': f'{used:.0f}', 'wall s': f'{begun:.0f}', 'peak MiB': f'{peak:.0f}', **more,
                      'load': f'{os.getloadavg()[1]:.1f}'}))


def kept_rows(file: Path, again: bool) -> list[dict[str, str]]:
    'The rows that need not be measured.'
    return [] if again or not file.is_file() else read_csv(file, dtype=str, keep_default_na=False).to_dict('records')


def add_row(file: Path, rows: list[dict[str, str]], fields: Sequence[str], script: str, folder: Path, *case: str):
    'Measure a case in a process of its own, on one thread, and write the table.'
    done = subprocess.run([sys.executable, script, '--work', folder, '--case', *case], stdout=subprocess.PIPE,
                          text=True, check=True, env=os.environ | {'OMP_NUM_THREADS': '1'})
    rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(rows[-1], flush=True)
    table = pd.DataFrame([{field: row.get(field, '') for field in fields} for row in rows])
    write_whole(file, csv_text(table, index=False))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path, nargs='?', default=ROWS)
    parser.add_argument('--again', action='store_true', help='measure the rows that are there, too')
    parser.add_argument('--work', type=Path, help='where networks and rasters are kept; else for this time alone')
    parser.add_argument('--large', type=int, default=LARGE, help='side of the large raster; 0: none')
    parser.add_argument('--case', nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.case:
        return one(words.case[0], int(words.case[1]), words.work)
    rows = kept_rows(words.out, words.again)
    with tempfile.TemporaryDirectory() as folder:
        folder = words.work or Path(folder)
        folder.mkdir(exist_ok=True)
        build(folder)

        def measure(name: str, side: int):
            if not any((row['network'], row['side']) == (name, str(side)) for row in rows):
                add_row(words.out, rows, FIELDS, __file__, folder, name, str(side))

        for name in MODELS:
            measure(name, SIDE)
        if words.large:
            known = [row for row in rows if row['side'] == str(SIDE)]
            measure(max(known, key=lambda row: float(row['Mpx per CPU s']))['network'], words.large)


if __name__ == '__main__':
    main()
