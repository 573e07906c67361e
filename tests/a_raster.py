"A GeoTIFF of an array."
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

GRID = Affine(5, 0, 614_000, 0, -5, 5_212_000)


def write(path: Path, values: np.ndarray, crs='EPSG:32631', transform=GRID, **options) -> Path:
    "A GeoTIFF of [H, W] or [C, H, W], by default in pixels of 5 m."
    values = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, 'w', driver='GTiff', height=values.shape[1], width=values.shape[2], count=len(values),
                       dtype=values.dtype, crs=crs, transform=transform, **options) as f:
        f.write(values)
    return path
