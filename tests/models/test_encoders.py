"""The smallest encoder of each family in each network, at 64 pixels: builds, steps, reloads, begins as a file says."""
import pytest
import timm
import torch
from torch import nn
from transformers import SegformerModel

from geoseg.models.checkpoints import build_network, load_weights
from geoseg.models.crossview import CrossView
from geoseg.models.deeplab import FCN, DeepLabV3
from geoseg.models.encoders import Pyramid, segformer_config
from geoseg.models.geosegformer import GeoSegFormer
from geoseg.models.refiner import TRMSeg
from geoseg.models.unet import UNet
from geoseg.models.weights import encoder_names

ENCODERS = ['tu-tf_efficientnet_lite0', 'tu-convnext_atto', 'tu-swin_tiny_patch4_window7_224',
            'tu-vit_small_patch14_dinov2', 'tu-vit_small_patch16_dinov3', 'mit_b0']
NETWORKS = {
    'GeoSegFormer': (GeoSegFormer, 'encoder', {'num_classes': 3, 'feature_dim': 8, 'memory_size': 4}),
    'UNet': (UNet, 'encoder', {'num_classes': 3, 'decoder_channels': (8, 8, 8, 8, 8)}),
    'FCN': (FCN, 'backbone', {'num_classes': 3}),
    'DeepLabV3': (DeepLabV3, 'backbone', {'num_classes': 3}),
    'TRMSeg': (TRMSeg, 'encoder', {'num_classes': 3, 'width': 16, 't_max': 2}),
    'CrossView': (CrossView, 'backbone', {}),
}

@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    'Transformers of two layers: their widths and names are what matters here.'
    whole = timm.create_model

    def create_model(name, *args, **options):
        kind = name.partition('_')[0]
        short = {'swin': {'depths': (1, 1, 1, 1)}, 'vit': {'depth': 2}}.get(kind, {})
        return whole(name, *args, **short | options)

    monkeypatch.setattr(timm, 'create_model', create_model)


def settings(network: str, encoder: str, **more) -> tuple[type, dict]:
    kind, key, given = NETWORKS[network]
    given = dict(given) | {key: encoder} | more
    if kind is CrossView:
        given[key] = encoder.removeprefix('tu-')
        given['image_size'] = 64 if given[key].startswith(('vit', 'swin')) else None
    return kind, given


def answer(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    if isinstance(network, CrossView):
        return network(image, image)['query']
    output = network(image, **({'xy': torch.rand(2, 16, 16, 2) * 50} if isinstance(network, GeoSegFormer) else {}))
    return output['logits']


@pytest.mark.parametrize('encoder', ENCODERS)
@pytest.mark.parametrize('network', NETWORKS)
def test_every_encoder_in_every_network(network, encoder):
    torch.manual_seed(0)
    kind, given = settings(network, encoder)
    image = torch.rand(2, 3, 64, 64)
    ours = build_network({'class_path': f'{kind.__module__}.{kind.__name__}', 'init_args': given})
    optimizer = torch.optim.SGD(ours.parameters(), 1e-3)
    out = ours.train()(image, image) if kind is CrossView else ours.train()(image)
    (out['query'] if kind is CrossView else sum(x.float().square().mean() for key, x in out.items()
                                                if key in ('logits', 'aux_logits', 'halt'))).mean().backward()
    encoded = [name for name, p in ours.named_parameters() if name.startswith(ours.encoder_parts)]
    without = [name for name in encoded if ours.get_parameter(name).grad is None]
    assert encoded and not without
    optimizer.step()
    size = (2, 3, 64, 64)
    with torch.inference_mode():
        torch.manual_seed(1)
        logits = answer(ours.eval(), image)
        assert logits.isfinite().all() and (kind is CrossView or logits.shape == size)
        again = kind(**given).eval()
        load_weights(again, {'state_dict': {f'network.{name}': x for name, x in ours.state_dict().items()}}, 'a file')
        torch.manual_seed(1)
        assert torch.equal(answer(again, image), logits)


@pytest.mark.parametrize('encoder', ENCODERS)
@torch.inference_mode()
def test_files_of_timm_and_transformers_fill_every_network(encoder, tmp_path):
    "Each network takes the file that the library itself writes, for three bands or more."
    path, name = tmp_path / 'theirs.pth', encoder.removeprefix('tu-')
    vit = {'img_size': 64} if name.startswith(('vit', 'swin')) else {}
    theirs = SegformerModel(segformer_config('b0', 3)) if name == 'mit_b0' else timm.create_model(name)
    torch.save(theirs.state_dict(), path)
    for network in NETWORKS:
        if (network, encoder) == ('UNet', 'mit_b0'):
            continue  # of segmentation-models-pytorch, by the names of SegFormer's first code
        kind, given = settings(network, encoder, channels=4, pretrained=str(path))
        if kind is CrossView and vit:
            small = tmp_path / 'small.pth'
            torch.save(timm.create_model(name, **vit).state_dict(), small)
            given['pretrained'] = str(small)
        ours = kind(**given)
        count = len(encoder_names(ours))
        assert f': {count} of {count} tensors of the encoder' in ours.weights_loaded
        assert 'was for 3 bands and is repeated and scaled for 4' in ours.weights_loaded


@torch.inference_mode()
def test_a_vision_transformer_sees_sixteen_pixels_in_a_patch():
    for name, side in (('vit_small_patch14_dinov2', 56), ('vit_small_patch16_dinov3', 64)):
        pyramid = Pyramid(f'tu-{name}').eval()
        image = torch.rand(1, 3, 64, 64)
        seen = nn.functional.interpolate(image, (side, side), mode='bilinear', antialias=side < 64)
        theirs = timm.create_model(name, features_only=True, dynamic_img_size=True, out_indices=(-1,)).eval()
        theirs.load_state_dict(pyramid.body.state_dict())
        assert torch.allclose(pyramid(image)[2], pyramid.neck.norm(theirs(seen)[0]), atol=1e-5)


def test_encoders_that_are_none():
    for make in (lambda name: Pyramid(name), lambda name: TRMSeg(3, width=16, encoder=name),
                 lambda name: GeoSegFormer(3, feature_dim=8, encoder=name), lambda name: UNet(3, encoder=name)):
        with pytest.raises(ValueError, match="encoder: 'tu-convnext_atom' is unknown.*convnext_atto"):
            make('tu-convnext_atom')
    with pytest.raises(ValueError, match='has maps at strides .*, expected 4, 8, 16 and 32'):
        Pyramid('tu-efficientvit_m0')
