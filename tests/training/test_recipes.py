"The natural-scene recipes: they run from end to end with small networks, and train with what they say."
import math
import subprocess
import sys

import pytest
import tiny
import torch
from torch.optim.lr_scheduler import OneCycleLR

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.tasks.optim import Cosine, Plateau
from geoseg.training.config import parse
from geoseg.world.layouts import world_data

NANO = {'wildscenes-deeplabv3': {'backbone': 'nano'},
        'wildscenes-fcn': {'backbone': 'nano'},
        'wildscenes-unet': {'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8]},
        'wildscenes-mask2former': {'size': 'nano', 'pretrained': False, 'trainable_layers': 2}}
MASK2FORMER = {'method 1': {}, 'method 2': {'method': 2, 'image_size': [48, 48], 'crop': [32, 32]},
               'query': {'head': 'query'}}
CASES = [(name, {}) for name in NANO if name != 'wildscenes-mask2former'] + [
    ('wildscenes-mask2former', changes) for changes in MASK2FORMER.values()]


@pytest.mark.parametrize('recipe, changes', CASES, ids=['deeplabv3', 'fcn', 'unet', *MASK2FORMER])
def test_a_recipe_from_end_to_end(recipe, changes, tiny_run, tmp_path):
    run = tiny.train(recipe, tmp_path, **changes) if changes else geoseg.Run(tiny_run(recipe))
    assert len(run.metrics) == 1 and run.metrics.notna().all(axis=None)
    assert run.best.is_file() and run.last.is_file()
    scores = geoseg.evaluate(run.folder, split='val', out=tmp_path / 'scores')
    best = run.metrics.iloc[0]
    assert (scores.loss, scores.scores['mIoU']) == (best['Loss/val'], best['mIoU/val'])
    masks = sorted(geoseg.predict(run.folder, out=tmp_path / 'masks').rglob('*.png'))
    assert len(masks) == len(run.data().datasets['test'])
    log, frozen = (run.folder / 'log.txt').read_text(), recipe == 'wildscenes-mask2former'
    assert ('frozen but for net.' in log) == frozen
    optimizer = torch.load(run.last, weights_only=True)['optimizer_states'][0]
    given = sum(len(group['params']) for group in optimizer['param_groups'])
    network = run.predictor('cpu').network
    if frozen:
        assert given == sum(p.requires_grad for p in network.parameters()) < len(list(network.parameters()))
        assert all(line.count('decoder.layers') == 2 for line in log.splitlines() if 'frozen but for' in line)
    else:
        assert given == len(list(network.parameters()))


def test_one_cycle_of_the_recipes():
    "Ten steps by hand: from 0.01 / 25 to 0.01 at step 0.3 · 10 - 1, and down a half cosine to 1e-5."
    for recipe in ('wildscenes-deeplabv3', 'wildscenes-fcn', 'wildscenes-unet'):
        cli = parse([recipe], NANO[recipe] | {'data': 'world:tiny'})
        cli.build()
        optimizer = cli.model.optimizer([torch.nn.Parameter(torch.zeros(1))])
        assert optimizer.defaults['lr'] == 1e-3 and optimizer.defaults['weight_decay'] == 0.01
        ours = cli.model.schedule(optimizer, 5, 2)['scheduler']
        other = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
        # 0.01 / 25 / 40 = 1e-5; the default of 10,000 would end at 4e-8
        theirs = OneCycleLR(other, 0.01, total_steps=10, pct_start=0.3, final_div_factor=40, cycle_momentum=False)
        rates = []
        for _ in range(10):
            rates.append(ours.get_last_lr()[0])
            assert rates[-1] == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
            for scheduler in (ours, theirs):
                scheduler.optimizer.step()
                scheduler.step() if scheduler.last_epoch < 9 else None
        falling = [1e-5 + (0.01 - 1e-5) * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(8)]
        assert rates[0] == pytest.approx(4e-4) and rates[2:] == pytest.approx(falling, rel=1e-9)
        assert cli.config.trainer.max_epochs == 60 and cli.config.run.every_n_epochs == 10
        assert parse([recipe]).config.data.init_args.batch_size == 16


@pytest.mark.parametrize('recipe, changes, weights', [
    ('wildscenes-deeplabv3', {}, (1, 0.5)), ('wildscenes-fcn', {}, (1, 0.5)), ('wildscenes-unet', {}, (1, 0.5)),
    ('wildscenes-mask2former', {}, (1, 0.5)), ('wildscenes-mask2former', {'method': 2}, (0.75, 0.25))])
def test_focal_and_dice_of_the_recipes(recipe, changes, weights):
    "Two pixels with probabilities 1/4 and 3/4, the first of class 0, the second of class 1."
    cli = parse([recipe], NANO[recipe] | changes | {'data': 'world:tiny'})
    cli.build()
    logits = torch.tensor([0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    focal = ((3 / 4) ** 2 * math.log(4) + (1 / 4) ** 2 * math.log(4 / 3)) / 2
    dice = 1 - (2 * (1 / 4) / (2 / 4 + 1) + 2 * (3 / 4) / (6 / 4 + 1)) / 2  # a class: 2 · overlap / (sum p + sum t)
    loss = cli.model.loss(logits, torch.tensor([[[0, 1]]])).item()
    assert loss == pytest.approx(weights[0] * focal + weights[1] * dice, rel=1e-5)


def test_the_methods_of_mask2former():
    overrides = NANO['wildscenes-mask2former'] | {'data': 'world:tiny'}
    for method, kind, lr, decay, clip in ((1, Plateau, 5e-5, 0.01, 1.0), ('2', Cosine, 1e-4, 0.001, 0.5)):
        cli = parse(['wildscenes-mask2former'], overrides | {'method': method})
        cli.build()
        optimizer = cli.model.optimizer([torch.nn.Parameter(torch.zeros(1))])
        assert (optimizer.defaults['lr'], optimizer.defaults['weight_decay']) == (lr, decay)
        assert type(cli.model.schedule) is kind and cli.config.trainer.gradient_clip_val == clip
        augment = cli.datamodule.augment
        assert (augment.crop is None) == (augment.color_jitter is None) == (method == 1)
        assert cli.config.run.method == int(method)
        if kind is Plateau:
            assert vars(cli.model.schedule) == {'monitor': 'Loss/val', 'patience': 5, 'decrease': 0.1, 'mode': 'min',
                                                'min_lr': 0.}
    assert parse(['wildscenes-mask2former']).config.run.method == 1
    faster = parse(['wildscenes-mask2former'], {'method': 2, 'lr': 3e-4}).config
    assert faster.model.init_args.optimizer.init_args.lr == 3e-4


def test_a_rate_that_the_schedule_would_not_follow():
    with pytest.raises(ConfigError, match='set max_lr'):
        parse(['wildscenes-unet'], {'lr': 1e-4})
    config = parse(['wildscenes-unet'], {'lr': 1e-4, 'max_lr': 1e-3}).config.model.init_args
    assert config.schedule.init_args.max_lr == 1e-3


def test_a_method_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match='method: 3 is not accepted, expected 1 or 2'):
        parse(['wildscenes-mask2former'], {'method': 3})
    with pytest.raises(ConfigError, match='this recipe has no methods'):
        parse(['unet'], {'method': 2})
    cli = parse(['wildscenes-mask2former'], {'method': 2})
    saved = tmp_path / 'config.yaml'  # a run keeps its method
    saved.write_text(cli.parser.dump(cli.config, skip_unset=False))
    assert parse([saved]).config.run.method == parse([saved], {'method': 2}).config.run.method == 2
    with pytest.raises(ConfigError, match='method: 1 is not accepted, expected 2'):
        parse([saved], {'method': 1})


def test_a_file_chooses_a_method(tmp_path):
    more = tmp_path / 'more.toml'
    more.write_text('[run]\nmethod = 2\n[trainer]\ngradient_clip_val = 0.1\n')
    config = parse(['wildscenes-mask2former', more]).config
    assert config.run.method == 2 and config.trainer.gradient_clip_val == 0.1
    assert config.model.init_args.loss.init_args.weights == [0.75, 0.25]


def test_recipes_are_those_published():
    for name, epochs, turned in (('game4loc-cross-area', 5, True), ('game4loc-same-area', 20, False)):
        config = parse([name]).config
        data, model = config.data.init_args, config.model.init_args
        assert (config.trainer.max_epochs, data.augment.rotate) == (epochs, turned)
        assert (data.batch_size, model.optimizer.init_args.lr, model.loss.init_args.k) == (64, 1e-4, 5.0)
        assert (config.trainer.gradient_clip_val, config.trainer.gradient_clip_algorithm) == (100.0, 'value')
        assert model.schedule.init_args.warmup_epochs == 0.1 and config.run.monitor == 'Recall@1/val'


@pytest.mark.parametrize('recipe', ['nomeformer', 'nomeformer-texture'])
def test_recipes_have_the_published_sizes(recipe):
    from geoseg.training.config import parse
    cli = parse([recipe], {'data': 'world:tiny', 'trainer.accelerator': 'cpu'})
    cli.build()
    network, task = cli.model.network, cli.model
    assert (network.encoder.summary.numel(), len(network.encoder.blocks), network.encoder.heads) == (256, 4, 4)
    assert (cli.datamodule.n_clusters, cli.datamodule.batch_size) == (16, 8)
    rates = {g['name'].partition('/no')[0]: g['lr'] for g in task.groups(1e-3, 1e-4)}
    assert rates['head'] == pytest.approx(1e-2) and rates['rest/layer 4'] == pytest.approx(1e-3)
    assert rates['rest/layer 0'] == pytest.approx(1e-3 / 16)
    assert cli.config.run.ema == 0.9999 and cli.config.run.monitor == 'F1/val'
    if recipe == 'nomeformer-texture':
        assert (network.fusion_method, network.encoder.project.in_features) == ('gated', 128)
        assert cli.datamodule.settings.pixels == 64


def test_a_mesh_is_no_picture(tmp_path):
    from geoseg.training.config import parse
    with pytest.raises(ValueError, match='is of layout mesh; this recipe is for pictures'):
        parse(['unet'], {'data': str(world_data('mesh', size='tiny'))})


def test_one_rate_or_one_for_each_part():
    rates = parse(['geosegformer']).config.model.init_args
    assert (rates.lr_backbone, rates.lr_head, rates.lr_gps, rates.lr_fusion) == (6e-5, 6e-4, 3e-4, 6e-4)
    single = parse(['geosegformer'], {'lr': 1e-3}).config.model.init_args
    assert single.lr_backbone is None and single.lr_fusion is None and single.optimizer.init_args.lr == 1e-3
    for given in ({'lr': 1e-3, 'lr_gps': 1e-4}, {'model.init_args.optimizer.init_args.lr': 1e-3, 'lr_gps': 1e-4}):
        with pytest.raises(ConfigError, match='lr together with lr_gps'):
            parse(['geosegformer'], given)
    file = {'model': {'init_args': {'lr_head': 1e-3, 'optimizer': {'init_args': {'lr': 1e-4}}}}}
    with pytest.raises(ConfigError, match='lr together with lr_head'):
        parse(['geosegformer', file])
    network = {'lr_gps': 1e-4, 'fusion_method': 'none'}
    assert parse(['geosegformer'], network).config.model.init_args.lr_gps == 1e-4


def test_the_world_in_a_layout_and_a_size():
    for words, layout in (('world:raster:tiny', 'rasters.chips.RasterData'),
                          ('world:tiny', 'pictures.images.GeotaggedData'),
                          ('world:tiny:wildscenes', 'pictures.images.WildscenesData')):
        assert parse(['geosegformer'], {'data': words}).config.data.class_path == f'geoseg.data.{layout}'
    with pytest.raises(ValueError, match='gigantic'):
        parse(['geosegformer'], {'data': 'world:gigantic'})


def test_unknown_settings_of_place_are_named():
    for key, value, says in (('fusion_method', 'multiply', "'add', 'concat', 'attention' or 'none'"),
                             ('location', 'cube', "'fourier' or 'sphere'"), ('model_size', 'b9', 'b0, b1'),
                             ('spatial_unit', 'miles', "'extent' or 'metres'")):
        cli = parse(['geosegformer'], {'data': 'world:tiny', key: value})
        with pytest.raises(ValueError, match=says):
            cli.build()


def test_what_was_parsed_before_is_a_copy():
    first = parse(['unet'])
    first.config.run.monitor, first.config.model.init_args.labels = 'changed', 'changed'
    first.config.data.init_args.augment['image_size'] = 'changed'
    assert 'changed' not in parse(['unet']).parser.dump(parse(['unet']).config)


def test_one_batch_is_not_all_of_them():
    "Of equal types `typing` keeps the order that a process named first: behind rasters, numbers were read as floats."
    code = ('import geoseg.data.rasters.reader\n'
            'from geoseg.training.config import parse\n'
            'for given in (1, 1.0, 2, 0.5):\n'
            '    keys = dict.fromkeys(("limit_train_batches", "limit_val_batches", "overfit_batches"), given)\n'
            '    found = parse(["unet"], {"data": "world:tiny"} | keys).config.trainer\n'
            '    print(*(found[key] for key in keys))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [number for number in ('1', '1.0', '2', '0.5') for _ in range(3)]
