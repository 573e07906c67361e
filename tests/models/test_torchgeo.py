"""TorchGeo's own data sets as samples of geoseg: pixels, places and times. Skipped where torchgeo is not installed."""
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from geoseg.data.labels import LabelScheme
from geoseg.models.torchgeo import TorchGeoSamples

SCHEME = LabelScheme(['bare', 'field'])


def test_a_data_set_of_boxes_needs_its_boxes():
    class Boxes(torch.utils.data.Dataset):
        index = ()
    with pytest.raises(ValueError, match=r'Boxes: a data set of boxes: give queries=list\(SAMPLER\)'):
        TorchGeoSamples(Boxes(), SCHEME)


def test_boxes_of_rasters_are_read_as_they_lie(tmp_path):
    datasets = pytest.importorskip('torchgeo.datasets', reason='pip install torchgeo')
    from torchgeo.samplers import GridGeoSampler
    rng = np.random.default_rng(0)
    pixels = {'image': rng.integers(0, 256, (3, 64, 96)), 'mask': rng.integers(0, 2, (1, 64, 96))}
    for kind, values in pixels.items():
        (tmp_path / kind).mkdir()
        with rasterio.open(tmp_path / f'{kind}/a_20210501.tif', 'w', driver='GTiff', height=64, width=96,
                           count=len(values), dtype='uint8', crs='EPSG:32612',
                           transform=from_origin(5e5, 4e6, 10, 10)) as f:
            f.write(values.astype(np.uint8))

    class Images(datasets.RasterDataset):
        filename_glob, filename_regex, date_format = '*.tif', r'a_(?P<date>\d{8})\.tif', '%Y%m%d'

    class Masks(Images):
        is_image = False

    both = Images(str(tmp_path / 'image')) & Masks(str(tmp_path / 'mask'))
    queries = list(GridGeoSampler(both, size=32, stride=32))
    samples = TorchGeoSamples(both, SCHEME, queries=queries)
    assert len(samples) == 6
    seen = set()
    for index, (x, y, _) in enumerate(queries):
        col, row = round((x.start - 5e5) / 10), round((4e6 - y.stop) / 10)
        sample, window = samples[index], (slice(row, row + 32), slice(col, col + 32))
        seen.add((row, col))
        assert np.array_equal(sample['mask'].numpy(), pixels['mask'][0][window])
        undone = samples.pipeline.normalize.undo(sample['image'])
        assert np.abs(undone.transpose(2, 0, 1) * 255 - pixels['image'][:, *window]).max() < 1e-3
        assert abs(sample['gps'][0] - 36.1) < 0.2 and abs(sample['gps'][1] + 111) < 0.2
        assert abs(sample['time'] - datetime(2021, 5, 1, tzinfo=UTC).timestamp()) <= 86400
    assert len(seen) == 6
    distance = (samples[0]['xy'] - samples[1]['xy']).norm()
    assert abs(distance - 320) < 1  # metres
