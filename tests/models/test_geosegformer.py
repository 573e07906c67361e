"Every size of the network."
import pytest
import torch

from geoseg.models.geosegformer import GeoSegFormer
from geoseg.tasks.contrastive import ImagePlaceLoss


@pytest.mark.parametrize('size', ['b0', 'b1', 'b2', 'b3', 'b4', 'b5'])
def test_every_size_takes_a_step(size):
    torch.manual_seed(0)
    network = GeoSegFormer(15, model_size=size).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    before = network.backbone.stages[3].blocks[-1].mlp.fc2.weight.detach().clone()
    output = network(torch.randn(2, 3, 64, 64), torch.rand(2, 16, 16, 2) * 1000)
    loss = torch.nn.functional.cross_entropy(output['logits'], torch.randint(0, 15, (2, 64, 64)))
    loss = loss + ImagePlaceLoss()(output['image_embedding'], output['place_embedding'], output['place'])
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and not torch.equal(before, network.backbone.stages[3].blocks[-1].mlp.fc2.weight)
