"""What `geoseg changes` costs beside plain prediction, in CPU seconds and memory: a row a raster and network in
nbs/tutorials/results/change_cost.csv.

    python tools/change_cost.py 2048 unet
    python tools/change_cost.py 20000 colours --vegetation
    python tools/change_cost.py 2048 trees --vegetation

With --vegetation the classes are two, vegetation and the rest, not seven. Trees learn from two old maps and have no
plain prediction beside them.
"""
import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window
from torch import nn
from torch.nn.functional import avg_pool2d

from geoseg.core.files import write_whole
from geoseg.core.pages import csv_text, read_csv
from geoseg.core.streams import peak_resident_memory
from geoseg.data.augment import IMAGENET_MEAN, IMAGENET_STD
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.files import find_acquisitions, read_acquisition
from geoseg.inference.rasters import changes as module
from geoseg.inference.rasters.rasters import predict_raster
from geoseg.models.predictor import Predictor
from geoseg.models.unet import UNet
from geoseg.world.layouts import world_data

ROWS = Path(__file__).parent.parent / 'nbs/tutorials/results/change_cost.csv'
GREEN = 'forest', 'grass', 'crop'


class Colours(nn.Module):
    'The class of the nearest mean colour of 5 x 5 pixels; a network beside it costs what it costs and says nothing.'

    def __init__(self, means: np.ndarray, beside: nn.Module | None = None):  # float [K, 3], 0 to 255
        super().__init__()
        self.means, self.beside = torch.tensor(means, dtype=torch.float32), beside
        self.back = [torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_STD, IMAGENET_MEAN)]

    def forward(self, image):
        around = avg_pool2d((image * self.back[0] + self.back[1]) * 255, 5, 1, 2, count_include_pad=False)
        logits = torch.einsum('kc,bchw->bkhw', self.means, around) - self.means.square().sum(1).view(-1, 1, 1) / 2
        return {'logits': logits / 100 + (0 * self.beside(image)['logits'] if self.beside else 0)}


def draw(folder: Path, side: int, scheme: LabelScheme, number: np.ndarray, years: int) -> np.ndarray:  # colours [K, 3]
    'Years of the drawn world, side by side until the raster is full; `number` is the class of each of its classes.'
    for a in find_acquisitions(world_data('raster', size='tiny'))[-years:]:
        for path, kind in ((a.image, 'image'), (a.mask, 'mask')):
            with rasterio.open(path) as file:
                tile = number[file.read()] if kind == 'mask' else file.read()
            tile = np.tile(tile, (1, 1, -(-side // tile.shape[2])))[:, :, :side]
            with rasterio.open(folder / f'{a.date}_{kind}.tif', 'w', driver='GTiff', width=side, height=side,
                               count=len(tile), dtype='uint8', tiled=True, crs='EPSG:32633', compress='lzw',
                               transform=from_origin(4e5, 5.2e6, 1, 1), bigtiff='if_safer') as file:
                for row in range(0, side, tile.shape[1]):
                    rows = min(tile.shape[1], side - row)
                    file.write(tile[:, :rows], window=Window(0, row, side, rows))
    scheme.save(folder / 'category.csv')
    with rasterio.open(a.image) as file, rasterio.open(a.mask) as mask:
        pixels, labels = file.read(), number[mask.read(1)]
    return np.stack([pixels[:, labels == i].mean(1) if (labels == i).any() else np.full(3, -1e3)
                     for i in range(scheme.num_classes)])


def main(side: int, network: str, vegetation: bool):
    torch.manual_seed(0)
    scheme = LabelScheme.load(world_data('raster', size='tiny') / 'category.csv')
    number = np.arange(256, dtype=np.uint8)
    if vegetation:
        number[:scheme.num_classes] = [name in GREEN for name in scheme.names]
        scheme = LabelScheme(['other', 'vegetation'])
    k = scheme.num_classes
    beside = UNet(k, encoder='tu-tf_efficientnet_lite0') if network == 'unet' else None
    predictor, spent = Predictor(nn.Identity(), scheme, device='cpu'), []

    def predict(checkpoint, data, out, overrides, write, trust):
        begun = time.process_time()
        report = predict_raster(predictor, read_acquisition(data, None), out, write=write, window=512, overlap=64)
        spent.append((time.process_time() - begun, report['peak MiB']))

    trees = network == 'trees'
    module.Trained = lambda *_: SimpleNamespace(kind='segmentation', scheme=scheme, fingerprint='', recipe=network)
    module.predict = predict
    with tempfile.TemporaryDirectory() as folder, peak_resident_memory() as peak:
        folder = Path(folder)
        predictor.network = Colours(draw(folder, side, scheme, number, 3 if trees else 2), beside).eval()
        new = sorted(folder.glob('*_image.tif'))[-1]
        begun = time.process_time()
        report = module.changes(None if trees else 'network', new, folder, folder / 'out', postprocess={'min_area': 20},
                                write=['polygons'])
        total = time.process_time() - begun
    area = side ** 2 / 1e6
    [(plain, plain_peak)] = spent or [(np.nan, np.nan)]
    row = {'side': side, 'network': network, 'classes': k, 'plain, CPU s per megapixel': plain / area,
           'changes, CPU s per megapixel': total / area, 'plain, peak MiB': plain_peak,
           'changes, peak MiB': peak['MiB'], 'places': report['polygons']}
    rows = read_csv(ROWS).to_dict('records') if ROWS.is_file() else []
    write_whole(ROWS, csv_text(pd.DataFrame([*rows, row]), index=False, float_format='%.4g'))
    print(row)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('side', type=int)
    parser.add_argument('network', choices=['colours', 'unet', 'trees'])
    parser.add_argument('--vegetation', action='store_true')
    main(**vars(parser.parse_args()))
