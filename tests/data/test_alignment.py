"""Whether masks lie on their pictures: what is said of pictures that can tell nothing."""
import warnings

import numpy as np
import pytest

from geoseg.data.alignment import Alignment


class Noise:
    "Pictures without an edge, under masks that are all alike."

    def __init__(self, mask, seed):
        self.mask, self.draw, self.count = mask, np.random.default_rng(seed), 4 + seed % 9

    def __len__(self):
        return self.count

    def read(self, i):
        return self.draw.integers(0, 255, (*self.mask.shape, 3), dtype=np.uint8), self.mask


@pytest.mark.parametrize('size', [(48, 48), (10, 40), (2, 30), (1, 1)])
@pytest.mark.parametrize('rows', [slice(0, 1), slice(0, 2), slice(None, None, 2)])
def test_noise_is_not_called_moved_or_flipped(size, rows):
    mask = np.zeros(size, np.uint8)
    mask[rows] = 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        verdicts = [Alignment(Noise(mask, seed)).verdict for seed in range(8)]
    assert sum('do not lie' in verdict for verdict in verdicts) <= 2, verdicts
