"Every network on pictures of any size."
import pytest
import torch

import geoseg
from geoseg.models.predictor import Predictor
from geoseg.training.config import parse


@pytest.mark.parametrize('recipe', [name for name in geoseg.recipes()
                                    if not name.startswith(('nomeformer', 'game4loc'))])
def test_every_network_takes_any_size(recipe):
    built = parse([recipe], {'data': 'world:tiny', 'num_workers': 0})
    if 'pretrained' in built.config.model.init_args.network.init_args:
        built.config.model.init_args.network.init_args.pretrained = False
    built.build()
    predictor = Predictor(built.model.network, built.datamodule.scheme, device='cpu')
    batch = {'image': torch.randn(1, built.datamodule.channels, 75, 50), 'xy': torch.full((1, 2), torch.nan),
             'gps': torch.full((1, 2), torch.nan, dtype=torch.float64), 'source': torch.zeros(1, dtype=torch.int64),
             'time': torch.full((1,), torch.nan, dtype=torch.float64)}
    logits = predictor.logits(batch)
    assert logits.shape == (1, built.datamodule.num_classes, 75, 50) and logits.isfinite().all()
