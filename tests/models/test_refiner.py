"Refinement that halts: streams of tiles, and predictors that fill their places."
import numpy as np
import pytest
import torch

from geoseg.data.labels import LabelScheme
from geoseg.models.predictor import Predictor
from geoseg.models.refiner import TRMSeg, halting_steps, refine

pytestmark = pytest.mark.usefixtures('cache')


@pytest.mark.parametrize('seed', range(4))
def test_streams_equal_all_steps_bit_for_bit(seed):
    "Any number of tiles on any number of places, at one shape of the batch."
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    n, places = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    net = TRMSeg(3, width=16, t_max=int(rng.integers(1, 6)), t_min=1, pixel_act=bool(seed % 2), latent=seed > 1).eval()
    tiles = torch.rand(n, 3, 20, 24)
    padded = torch.cat([tiles, tiles[-1:].repeat(-n % places, 1, 1, 1)])
    with torch.inference_mode():
        q = torch.cat([net.unroll(part)['halt'] for part in padded.split(places)], 1)[:, :n]
        net.tau = float(q.sigmoid().quantile(rng.random()))
        expected = torch.cat([net(part, all_steps=True)['logits'] for part in padded.split(places)])[:n]
        logits, steps = zip(*refine(net, iter(tiles), places), strict=True)
    assert torch.equal(torch.stack(logits), expected)
    assert torch.equal(torch.stack(steps), halting_steps(q, net.tau, 1))


@pytest.mark.parametrize('pixel_act', [False, True])
def test_a_predictor_fills_its_places_from_batch_to_batch(pixel_act):
    "Batches of any length: the answers of each batch by itself, in fewer steps of the network."
    torch.manual_seed(0)
    net = TRMSeg(3, width=16, t_min=1, pixel_act=pixel_act).eval()
    batches = [{'image': torch.rand(n, 3, 32, 32)} for n in (3, 1, 4, 4, 2)]
    with torch.inference_mode():
        q = net.unroll(torch.cat([b['image'] for b in batches]))['halt'].sigmoid()
    net.tau = float(q.flatten(2).amin(2).median())
    predictor = Predictor(net, LabelScheme.load('water'), {'temperature': 2.}, 'cpu')
    sizes, step = [], net.step
    net.step = lambda *args: (sizes.append(len(args[0])), step(*args))[1]
    expected = [predictor.output(batch) for batch in batches]
    alone = len(sizes)
    for fixed in (True, False):
        sizes.clear()
        for ours, theirs in zip(predictor.outputs(iter(batches), 4, fixed), expected, strict=True):
            assert torch.allclose(ours['logits'], theirs['logits'], atol=1e-5)
            assert torch.equal(ours['steps'].flatten(), theirs['steps'].flatten())
        assert len(sizes) < alone and sizes[0] == 4 and (set(sizes) == {4}) == fixed
    assert len({s for o in expected for s in o['steps'].flatten().tolist()}) > 1
