"""TorchGeo's data sets as samples of geoseg, skipped where it is not installed, and its weights by name."""
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import rasterio
import timm
import torch
from rasterio.transform import from_origin
from torchvision.transforms import v2

from geoseg.core.errors import ConfigError
from geoseg.data.labels import LabelScheme
from geoseg.data.loading import LayoutData
from geoseg.models.packages import torchgeo_input, torchgeo_weights
from geoseg.models.torchgeo import TorchGeoSamples
from geoseg.models.unet import UNet

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


@pytest.fixture
def listed(monkeypatch, tmp_path):
    "TorchGeo's list of weights, as it is installed or as a stand-in of the same form; a cache with one file of it."
    name = 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    try:
        from torchgeo import models
    except ImportError:
        steps = torch.nn.Sequential(v2.Resize(256), v2.CenterCrop(224), v2.Normalize(mean=[0], std=[10000]))
        url = 'https://nowhere.invalid/resolve/0/resnet18_sentinel2_all_moco-00000000.pth'
        entry = SimpleNamespace(name='SENTINEL2_ALL_MOCO', url=url, transforms=steps,
                                meta={'in_chans': 13, 'bands': [f'B{n}' for n in range(1, 14)]})
        twice = torch.nn.Sequential(v2.Normalize(mean=[0], std=[255]),
                                    v2.Normalize(mean=[.5, .4, .3], std=[.2, .2, .1]))
        other = SimpleNamespace(name='FMOW_RGB_GASSL', url=url, transforms=twice, meta={'in_chans': 3})
        plain = SimpleNamespace(name='AS_IT_IS', url=url, transforms=torch.nn.Identity(), meta={'in_chans': 2})
        models = ModuleType('torchgeo.models')
        models.ResNet18_Weights, models.ResNet50_Weights = [entry], [other, plain]
        monkeypatch.setitem(sys.modules, 'torchgeo', ModuleType('torchgeo'))
        monkeypatch.setitem(sys.modules, 'torchgeo.models', models)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    theirs = timm.create_model('resnet18', in_chans=13, num_classes=0)
    file = tmp_path / 'torch/hub/checkpoints' / Path(torchgeo_weights(f'torchgeo:{name}').url).name
    file.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), file)
    return f'torchgeo:{name}', theirs.eval(), file


def test_weights_by_name_fill_an_encoder_and_bring_their_normalisation(listed):
    name, theirs, file = listed
    image = torch.rand(1, 13, 64, 64)
    for encoder in ('resnet18', 'tu-resnet18'):
        ours = UNet(4, channels=13, encoder=encoder, pretrained=name).eval()
        assert torch.equal(ours.net.encoder(image)[-1], theirs.forward_features(image))
        assert '100 of 100 tensors of the encoder' in ours.weights_loaded
        known = ours.weights_input
        assert (known['mean'], known['std'], known['range']) == ([0.] * 13, [10000.] * 13, 'as stored')
    with pytest.raises(ValueError, match=r'conv1.weight: \(64, 13, 7, 7\) in the file, \(64, 4, 7, 7\) in the network'):
        UNet(4, channels=4, encoder='resnet18', pretrained=name)
    rgb = torchgeo_input('torchgeo:ResNet50_Weights.FMOW_RGB_GASSL')  # two normalisations, one after the other
    first = torchgeo_weights('torchgeo:ResNet50_Weights.FMOW_RGB_GASSL').transforms
    steps = [step for step in first if hasattr(step, 'mean')]
    colours = torch.randint(0, 256, (3, 5, 7)).float()
    wanted = torch.nn.Sequential(*steps)(colours.clone())
    mean, std = (torch.tensor(rgb[key])[:, None, None] for key in ('mean', 'std'))
    assert torch.allclose((colours - mean) / std, wanted, atol=1e-4)


def test_stored_numbers_become_those_of_the_data(listed):
    name, _, _ = listed
    known = torchgeo_input(name)
    for value_range, scale in ((None, (0, 255)), ([[0., 5000.]], (0, 5000)), ([[-1000., 9000.]] * 13, (-1000, 9000))):
        data = SimpleNamespace(channels=13, reader=SimpleNamespace(value_range=value_range))
        mean, std = LayoutData.in_full_range(data, known['mean'], known['std'])
        low, high = scale
        assert np.allclose(mean, -low / (high - low)) and np.allclose(std, 10000 / (high - low))


@pytest.mark.parametrize('change', ['name', 'absent', 'offline', 'cut'])
def test_weights_that_cannot_be_had_are_one_line(listed, change, monkeypatch):
    name, _, file = listed
    if change == 'name':
        error, said, name = ConfigError, 'nearest: ResNet18_Weights.SENTINEL2_ALL_MOCO', name + 'O'
    elif change == 'absent':
        monkeypatch.setitem(sys.modules, 'torchgeo.models', None)
        error, said = ConfigError, 'pip install .torchgeo>=0.8.1'
    elif change == 'offline':
        file.unlink()

        def refused(*_, **__):
            raise URLError('Name or service not known')

        monkeypatch.setattr(torch.hub, 'download_url_to_file', refused)
        error, said = ConnectionError, f'pretrained weights {name} are not on this machine'
    else:
        file.write_bytes(file.read_bytes()[:1000])
        error, said = ValueError, f'{file.name}: not a readable checkpoint'
    with pytest.raises(error, match=said) as raised:
        UNet(4, channels=13, encoder='resnet18', pretrained=name)
    assert '\n' not in str(raised.value)
