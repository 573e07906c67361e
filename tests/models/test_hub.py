"A shared folder says what its classes are and how pictures go in; transformers' own classes load what is theirs."
import json

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)

from geoseg.core.errors import ConfigError
from geoseg.data.labels import LabelScheme
from geoseg.models.geosegformer import GeoSegFormer
from geoseg.models.hub import to_transformers
from geoseg.models.mask2former import Mask2Former
from geoseg.models.predictor import Predictor
from geoseg.training.run import Run

SCHEME = LabelScheme(['water', 'crop: winter', 'a "road"'])
MEAN, STD = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]


def predictor(kind, **settings):
    'A network with random weights and statistics, four bands, and the card of a run.'
    torch.manual_seed(0)
    network = kind(**settings)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean), nn.init.uniform_(module.running_var, 0.5, 2)
    spec = {'class_path': f'{kind.__module__}.{kind.__name__}', 'init_args': settings}
    card = {'network': spec, 'recipe': 'demo', 'augment': {'mean': MEAN, 'std': STD}, 'temperature': 1.5,
            'layout': 'raster'}
    return Predictor(network, SCHEME, card, 'cpu')


SEGFORMER = {'num_classes': 3, 'channels': 4, 'feature_dim': 16, 'fusion_method': 'none'}
MASK2FORMER = {'num_classes': 3, 'channels': 4, 'size': 'nano', 'head': 'query'}


@pytest.mark.parametrize(('kind', 'settings', 'auto'), [
    (GeoSegFormer, SEGFORMER, AutoModelForSemanticSegmentation),
    (Mask2Former, MASK2FORMER, AutoModelForUniversalSegmentation)])
def test_transformers_loads_what_is_its_own(kind, settings, auto, tmp_path):
    ours, folder = predictor(kind, **settings), tmp_path / 'net'
    ours.save_pretrained(folder, results={'mIoU/val': 0.5}, license='CC-BY-4.0', intended_use='Maps of crops.',
                         training_data='Alps, 2020.')
    theirs, lost = auto.from_pretrained(folder, output_loading_info=True)
    assert not lost['missing_keys'] and not lost['mismatched_keys']
    assert theirs.config.id2label == dict(enumerate(SCHEME.names))
    assert theirs.config.label2id == {name: i for i, name in enumerate(SCHEME.names)}
    picture = torch.randn(2, 4, 64, 96)
    with torch.no_grad():
        mine, found = ours.network(picture), theirs.eval()(picture)
    if auto is AutoModelForSemanticSegmentation:
        large = nn.functional.interpolate(found.logits, (64, 96), mode='bilinear', align_corners=False)
        torch.testing.assert_close(large, mine['logits'], rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(found.class_queries_logits, mine['classes'])
        torch.testing.assert_close(found.masks_queries_logits, mine['masks'])
    again = Predictor.from_pretrained(folder, 'cpu')  # and geoseg the same folder
    assert torch.equal(again.logits(picture), ours.logits(picture)) and again.temperature == 1.5
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    known = json.loads((folder / 'preprocessor_config.json').read_text())
    three = known | {'image_mean': MEAN[:3], 'image_std': STD[:3]}
    (folder / 'preprocessor_config.json').write_text(json.dumps(three))
    out = AutoImageProcessor.from_pretrained(folder)(pixels, return_tensors='np')['pixel_values'][0]
    own = (pixels / 255 - MEAN[:3]) / STD[:3]
    np.testing.assert_allclose(out[:, :8, :12], own.transpose(2, 0, 1), atol=1e-5)
    assert known['image_mean'] == MEAN and known['image_std'] == STD
    text = (folder / 'README.md').read_text()
    for part in ('| mIoU/val | 0.5000 |', 'license: "cc-by-4.0"', 'Maps of crops.', 'crop: winter', auto.__name__,
                 'Alps, 2020. Layout `raster`.', 'temperature 1.5'):
        assert part in text


@pytest.mark.parametrize(('kind', 'settings', 'says'), [
    (GeoSegFormer, SEGFORMER | {'fusion_method': 'add'}, 'reads places'),
    (GeoSegFormer, SEGFORMER | {'memory_size': 2}, 'has a memory'),
    (GeoSegFormer, SEGFORMER | {'encoder': 'tu-resnet10t'}, 'an encoder of timm'),
    (Mask2Former, MASK2FORMER | {'head': 'conv'}, 'a convolution over its masks'),
    (nn.Conv2d, {'in_channels': 4, 'out_channels': 3, 'kernel_size': 1}, 'Conv2d is not a network of transformers')])
def test_others_say_why_not(kind, settings, says):
    with pytest.raises(ConfigError, match=says) as error:
        to_transformers(predictor(kind, **settings).network, SCHEME)
    assert '\n' not in str(error.value)


def test_a_cut_folder_is_an_error(tmp_path):
    from safetensors.torch import load_file, save_file
    predictor(GeoSegFormer, **SEGFORMER).save_pretrained(tmp_path)
    weights = load_file(tmp_path / 'model.safetensors')
    weights.pop(min(weights))
    save_file(weights, tmp_path / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(ValueError, match='1 of .* tensors are missing'):
        Predictor.from_pretrained(tmp_path)


@pytest.mark.parametrize('recipe', [*tiny.SETTINGS])
def test_every_recipe_is_shared(recipe, tiny_run, tmp_path):
    run = Run(tiny_run(recipe))
    run.save_pretrained(tmp_path / 'net', license='mit')
    config = json.loads((tmp_path / 'net' / 'config.json').read_text())
    mine, again = run.predictor('cpu'), Predictor.from_pretrained(tmp_path / 'net', 'cpu')
    assert [*config['label2id']] == (mine.scheme.names if mine.scheme else [])
    own, other = mine.network.state_dict(), again.network.state_dict()
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    text = (tmp_path / 'net' / 'README.md').read_text()
    assert all(name in text for name in run.scores) and run.scores and 'license: "mit"' in text
