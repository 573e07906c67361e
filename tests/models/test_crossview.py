"The published cross-view network."
import torch

from geoseg.models.crossview import CrossView
from geoseg.tasks.contrastive import WeightedInfoNCE


def test_the_full_network_takes_a_step():
    network = CrossView(image_size=64)  # the published one, on small pictures
    output = network(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
    WeightedInfoNCE()(output['query'], output['gallery'], output['scale'], torch.tensor([0.2, 0.8])).backward()
    lost = [name for name, p in network.named_parameters() if p.grad is None]
    assert not lost, lost
