"""Predict rasters of 1, 4 and 16 megapixels; print the peak of memory of each, MiB. The first one warms up."""
import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch import nn

from geoseg.data.labels import LabelScheme
from geoseg.inference.rasters.rasters import find_rasters, predict_raster
from geoseg.models.predictor import Predictor


class Small(nn.Module):
    'One convolution.'

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 7, padding=3)

    def forward(self, image):
        return {'logits': self.conv(image)}


def main(folder: Path):
    # large arrays return their memory at once: what the allocator keeps differs from run to run by more than the limit
    ctypes.CDLL(None).mallopt(-3, 131072)  # M_MMAP_THRESHOLD
    torch.manual_seed(0)
    scheme = LabelScheme(['a', 'b', 'c', 'd'], np.arange(12).reshape(4, 3))
    predictor, peaks = Predictor(Small(), scheme, device='cpu'), []
    for side in (1024, 2048, 4096):
        path = folder / f'{side}.tif'
        with rasterio.open(path, 'w', driver='GTiff', width=side, height=side, count=3, dtype='uint8', tiled=True,
                           crs='EPSG:32633', transform=from_origin(4e5, 5.2e6, 2, 2), compress='deflate') as f:
            for row in range(0, side, 256):
                f.write(np.full((3, 256, side), row % 251, np.uint8), window=rasterio.windows.Window(0, row, side, 256))
        [a] = find_rasters(path)
        peaks.append(predict_raster(predictor, a, folder, window=512, overlap=64, panel=1024)['peak MiB'])
    print(json.dumps(peaks))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
