"Training on meshes: rates, resuming, an encoder taken over."
import numpy as np
import pytest
import tiny
import torch

from geoseg.models.nomeformer import NoMeFormer, TexturedNoMeFormer
from geoseg.training.run import Run
from geoseg.training.train import train


@pytest.fixture
def on_meshes(tiny_run):
    'A textured run on the tiny world.'
    return Run(tiny_run('nomeformer-texture'))


def test_rates_fall_over_half_of_a_run_and_stay(tmp_path):
    run = train('nomeformer', 'world:tiny', epochs=4, out=tmp_path, lr=1e-3, overrides=tiny.settings(
        'nomeformer', epochs=None) | {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1})
    rates = run.metrics['lr'].to_numpy()  # of the stem at the end of an epoch: a quarter of lr, two blocks above it
    ends = np.array([(1e-6 / 1e-2 + (1 - 1e-6 / 1e-2) * f) for f in (0.5, 0, 0, 0)])
    np.testing.assert_allclose(rates, 1e-3 / 4 * ends, rtol=1e-6)


def test_a_run_goes_on_bit_by_bit_and_by_itself(tmp_path):
    settings = tiny.settings('nomeformer', ema=0.9, every_n_epochs=1) | {'trainer.limit_val_batches': 1}
    whole = train('nomeformer', 'world:tiny', out=tmp_path / 'whole', overrides=settings)
    first = train('nomeformer', 'world:tiny', out=tmp_path / 'auto', resume='auto', overrides=settings)
    kept = next((first.folder / 'checkpoints').glob('epoch000-*.ckpt'))
    kept.replace(first.last)
    again = train('nomeformer', out=tmp_path / 'auto', resume='auto')
    assert again.folder == first.folder
    assert (again.folder / 'metrics.csv').read_bytes() == (whole.folder / 'metrics.csv').read_bytes()
    weights = [torch.load(r.last, weights_only=True)['state_dict'] for r in (whole, again)]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_an_encoder_is_taken_over_and_frozen(on_meshes, tmp_path):
    network = TexturedNoMeFormer(5, 25, 16, 2, 2, texture_embed_dim=8, pretrained=str(on_meshes.folder),
                                 unfrozen_blocks=1)
    theirs = on_meshes.predictor('cpu').network
    assert torch.equal(network.encoder.summary, theirs.encoder.summary) and torch.equal(network.mean, theirs.mean)
    assert not torch.equal(network.head[1].weight, theirs.head[1].weight)
    assert {n.split('.')[1] for n, p in network.encoder.named_parameters() if p.requires_grad} == {'1'}
    with pytest.raises(ValueError, match='tensors of the encoder of NoMeFormer are in the file'):
        NoMeFormer(5, 25, 32, 2, 2, pretrained=str(on_meshes.folder))
