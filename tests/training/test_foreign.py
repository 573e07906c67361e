"Configurations of other tools: each key changed and seen here, or in the list of those without counterpart."
import json
import os
import subprocess
from pathlib import Path

import pytest
import tiny
import yaml

import geoseg
from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.training import foreign
from geoseg.training.config import parse
from geoseg.world.layouts import world_data

EXAMPLE = Path(foreign.__file__).with_name('seg_baseline.yaml')
NETWORK, OPTIMIZER = 'model.init_args.network.init_args.', 'model.init_args.optimizer.init_args.'
AUGMENT, DATA = 'data.init_args.augment.', 'data.init_args.'

REFINER = {
    'dataset': {'root': 'data', 'patch': {'size': 256, 'stride': 256, 'filter_unknown_ratio': 0.9},
                'train_split': 'train', 'val_split': 'valid'},
    'training': {'batch_size': 8, 'num_workers': 8, 'max_epochs': 80, 'amp': True, 'grad_clip_norm': 1.0,
                 'save_every': 1},
    'optimizer': {'name': 'adamw', 'lr': 3e-4, 'weight_decay': 0.05, 'betas': [0.9, 0.999]},
    'scheduler': {'name': 'cosine', 'warmup_epochs': 3},
    'model': {'in_channels': 3, 'num_classes': 6, 'width': 64, 'steps': {'t_max': 6, 't_min': 2, 'tau': 0.7,
                                                                         'act': True},
              'pixel_act': False, 'deep_supervision_alpha': 0.3, 'halting_beta': 0.5, 'ponder_gamma': 0.001}}
MESHES = {
    'training': {'epochs': 100, 'batch_size': 8, 'clusters_per_batch': 4, 'accumulation_steps': 1, 'resume': False,
                 'use_pretrained': False, 'num_unfrozen_encoder_layers': 2, 'weight_decay': 1e-4,
                 'ema_decay': 0.9999, 'use_ema': True, 'ignore_index': None, 'layer_wise_lr_decay': [10, 2]},
    'model': {'embedding_dim': 256, 'num_heads': 4, 'num_attention_blocks': 4, 'n_classes': 5, 'n_clusters': 16,
              'dropout': 0.1, 'include_normals': True, 'additional_geometrical_features': True, 'use_texture': True,
              'texture_embed_dim': 128, 'fusion_method': 'gated', 'max_texture_pixels': 64},
    'optimizer': {'name': 'AdamW', 'lr': 0.001}, 'scheduler': {'eta_min': 1e-6},
    'augmentation': {'rotation': 15, 'scale': [0.9, 1.1], 'noise': 0.01, 'flip': 0.5}}

# key: another value, and what it is here (None: in the list of keys without counterpart)
TRAINER_KEYS = {
    'experiment_name': ('other', None), 'dataset.root': ('photos', {f'{DATA}root': 'photos'}),
    'dataset.train_split': ('training', {f'{DATA}train_dir': 'training'}),
    'dataset.val_split': ('validation', {f'{DATA}val_dir': 'validation'}),
    'dataset.num_classes': (5, None), 'dataset.image_size': ([300, 400], {f'{AUGMENT}image_size': (300, 400)}),
    'dataset.normalization.mean': ([0.1, 0.2, 0.3], {f'{AUGMENT}mean': (0.1, 0.2, 0.3)}),
    'dataset.normalization.std': ([0.4, 0.5, 0.6], {f'{AUGMENT}std': (0.4, 0.5, 0.6)}),
    'augmentations.horizontal_flip': (False, {f'{AUGMENT}horizontal_flip': 0.0}),
    'augmentations.color_jitter.brightness': (0.3, {f'{AUGMENT}color_jitter': (0.3, 0.4, 0.5, 0.05)}),
    'augmentations.color_jitter.contrast': (0.4, {}), 'augmentations.color_jitter.saturation': (0.5, {}),
    'augmentations.color_jitter.hue': (0.05, {}),
    'augmentations.random_crop.size': ([200, 100], {f'{AUGMENT}crop': (200, 100)}),
    'augmentations.random_crop.padding': (8, {f'{AUGMENT}crop_padding': 8}),
    'model.name': ('deeplabv3', {'model.init_args.network.class_path': 'geoseg.models.deeplab.DeepLabV3'}),
    'model.backbone': ('resnet101', {f'{NETWORK}backbone': 'resnet101'}),
    'model.pretrained': (False, {f'{NETWORK}pretrained': False}),
    'model.dropout': (0.2, {f'{NETWORK}dropout': 0.2}),
    'optimizer.name': ('sgd', {'model.init_args.optimizer.class_path': 'torch.optim.SGD'}),
    'optimizer.lr': ('1e-4', {f'{OPTIMIZER}lr': 1e-4}),  # text, to YAML
    'optimizer.weight_decay': (0.02, {f'{OPTIMIZER}weight_decay': 0.02}),
    'scheduler.name': ('poly', {'model.init_args.schedule.class_path': 'geoseg.tasks.optim.WarmupPoly'}),
    'scheduler.warmup_epochs': (2, {'model.init_args.schedule.init_args.warmup_epochs': 2}),
    'scheduler.max_epochs': (50, None), 'training.epochs': (30, {'trainer.max_epochs': 30}),
    'training.batch_size': (4, {f'{DATA}batch_size': 4}), 'training.num_workers': (2, {f'{DATA}num_workers': 2}),
    'training.amp': (False, {'trainer.precision': '32-true'}), 'training.seed': (7, {'seed_everything': 7}),
    'training.gradient_clip_val': (0.5, {'trainer.gradient_clip_val': 0.5}),
    'training.accumulate_grad_batches': (2, {'trainer.accumulate_grad_batches': 2}),
    'training.early_stopping.patience': (4, {'run.patience': 4}),
    'training.early_stopping.metric': ('val_loss', {'run.monitor': 'Loss/val'}),
    'training.early_stopping.mode': ('min', None), 'checkpointing.dir': ('kept', None),
    'checkpointing.save_top_k': (-1, {'run.save_top_k': 0, 'run.every_n_epochs': 1}),
    'checkpointing.monitor': ('val/loss', {'run.monitor': 'Loss/val'}), 'checkpointing.mode': ('min', None),
    'logging.dir': ('logs', None), 'logging.log_every_n_steps': (10, {'trainer.log_every_n_steps': 10})}
REFINER_KEYS = {
    'dataset.root': ('tiles', {f'{DATA}root': 'tiles'}), 'dataset.patch.size': (128, {f'{DATA}patch': 128}),
    'dataset.patch.stride': (64, {f'{DATA}stride': 64}),
    'dataset.patch.filter_unknown_ratio': (0.5, {f'{DATA}max_unknown': 0.5}),
    'dataset.train_split': ('training', {f'{DATA}train_dir': 'training'}),
    'dataset.val_split': ('validation', {f'{DATA}val_dir': 'validation'}),
    'training.batch_size': (4, {f'{DATA}batch_size': 4}), 'training.num_workers': (2, {f'{DATA}num_workers': 2}),
    'training.max_epochs': (30, {'trainer.max_epochs': 30}), 'training.amp': (False, {'trainer.precision': '32-true'}),
    'training.grad_clip_norm': (0.5, {'trainer.gradient_clip_val': 0.5}),
    'training.save_every': (5, {'run.every_n_epochs': 5}),
    'optimizer.name': ('adam', {'model.init_args.optimizer.class_path': 'torch.optim.Adam'}),
    'optimizer.lr': (1e-4, {f'{OPTIMIZER}lr': 1e-4}),
    'optimizer.weight_decay': (0.02, {f'{OPTIMIZER}weight_decay': 0.02}),
    'optimizer.betas': ([0.8, 0.99], {f'{OPTIMIZER}betas': (0.8, 0.99)}),
    'scheduler.name': ('poly', {'model.init_args.schedule.class_path': 'geoseg.tasks.optim.WarmupPoly'}),
    'scheduler.warmup_epochs': (2, {'model.init_args.schedule.init_args.warmup_epochs': 2}),
    'model.in_channels': (4, None), 'model.num_classes': (7, None), 'model.width': (32, {f'{NETWORK}width': 32}),
    'model.steps.t_max': (5, {f'{NETWORK}t_max': 5}), 'model.steps.t_min': (1, {f'{NETWORK}t_min': 1}),
    'model.steps.tau': (0.6, {f'{NETWORK}tau': 0.6}), 'model.steps.act': (False, {f'{NETWORK}act': False}),
    'model.pixel_act': (True, {f'{NETWORK}pixel_act': True}),
    'model.deep_supervision_alpha': (0.2, {'model.init_args.deep_supervision_alpha': 0.2}),
    'model.halting_beta': (0.4, {'model.init_args.halting_beta': 0.4}),
    'model.ponder_gamma': (0.002, {'model.init_args.ponder_gamma': 0.002})}
MESHES_KEYS = {
    'training.epochs': (30, {'trainer.max_epochs': 30}), 'training.batch_size': (4, {f'{DATA}batch_size': 4}),
    'training.clusters_per_batch': (2, None),
    'training.accumulation_steps': (2, {'trainer.accumulate_grad_batches': 2}), 'training.resume': (True, None),
    'training.use_pretrained': ('runs/other', {f'{NETWORK}pretrained': 'runs/other'}),
    'training.num_unfrozen_encoder_layers': ('all', {f'{NETWORK}unfrozen_blocks': None}),
    'training.weight_decay': (0.01, {f'{OPTIMIZER}weight_decay': 0.01}), 'training.ema_decay': (0.99, {}),
    'training.use_ema': (False, {'run.ema': None}), 'training.ignore_index': (0, None),
    'training.layer_wise_lr_decay': (
        [5, 4], {'model.init_args.head_multiplier': 5, 'model.init_args.layer_decay': 0.25}),
    'model.embedding_dim': (64, {f'{NETWORK}embedding_dim': 64}), 'model.num_heads': (2, {f'{NETWORK}num_heads': 2}),
    'model.num_attention_blocks': (3, {f'{NETWORK}num_attention_blocks': 3}), 'model.n_classes': (7, None),
    'model.n_clusters': (8, {f'{DATA}n_clusters': 8}), 'model.dropout': (0.2, {f'{NETWORK}dropout': 0.2}),
    'model.include_normals': (False, {f'{DATA}include_normals': False}),
    'model.additional_geometrical_features': (False, {f'{DATA}additional_geometrical_features': False}),
    'model.use_texture': (True, {f'{DATA}use_texture': True}),  # false is for the other recipe, see below
    'model.texture_embed_dim': (32, {f'{NETWORK}texture_embed_dim': 32}),
    'model.fusion_method': ('concat', {f'{NETWORK}fusion_method': 'concat'}),
    'model.max_texture_pixels': (16, {f'{DATA}max_texture_pixels': 16}),
    'optimizer.name': ('adam', {'model.init_args.optimizer.class_path': 'torch.optim.Adam'}),
    'optimizer.lr': (0.01, {f'{OPTIMIZER}lr': 0.01}),
    'scheduler.eta_min': (1e-5, {'model.init_args.schedule.init_args.min_lr': 1e-5}),
    'augmentation.rotation': (30, {f'{AUGMENT}rotation': 30}),
    'augmentation.scale': ([0.8, 1.2], {f'{AUGMENT}scale': (0.8, 1.2)}),
    'augmentation.noise': (0.02, {f'{AUGMENT}jitter': 0.02}), 'augmentation.flip': (0.1, {f'{AUGMENT}flip': 0.1})}

PUBLISHED = {'unet': (yaml.safe_load(EXAMPLE.read_text()), TRAINER_KEYS, foreign.TRAINER),
             'deepglobe-trm': (REFINER, REFINER_KEYS, foreign.REFINER),
             'nomeformer-texture': (MESHES, MESHES_KEYS, foreign.MESHES)}


def change(config, name, value):
    'A copy with one value changed; the key must be there.'
    first, _, rest = name.partition('.')
    assert first in config, name
    return config | {first: change(config[first], rest, value) if rest else value}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    'Where the folders of the configurations are, so that they are data of a layout.'
    monkeypatch.chdir(tmp_path)
    for recipe, layout, names in (('unet', 'folders', ('data/segmentation_dataset', 'photos')),
                                  ('deepglobe-trm', 'deepglobe', ('data', 'tiles'))):
        for name in names:
            path = tmp_path / recipe / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(world_data(layout, size='tiny'))
    return tmp_path


@pytest.mark.parametrize('recipe', PUBLISHED)
def test_each_key_takes_effect_or_is_listed(recipe, folder, monkeypatch):
    published, changes, system = PUBLISHED[recipe]
    sections = {key.name for key in system.keys if any(k.name.startswith(f'{key.name}.') for k in system.keys)}
    assert set(changes) == {key.name for key in system.keys} - sections
    if (folder / recipe).is_dir():
        monkeypatch.chdir(folder / recipe)
    before, other = parse([recipe, published]), published
    for name, (value, _) in changes.items():
        other = change(other, name, value)
    after = parse([recipe, other])
    lines = after.foreign.remarks(after.config)
    for name, (value, here) in changes.items():
        assert all(after.config[key] == wanted for key, wanted in (here or {}).items()), name
        if name != 'model.use_texture':
            assert all(before.config.get(key) != after.config[key] for key in here or {}), name
        if here is None:
            told = [line for line in lines if line.startswith(f'{name}: {json.dumps(value)}')]
            assert len(told) == 1, name
            assert next(key for key in system.keys if key.name == name).note in told[0]
    # typed, as a command line does, it is the same
    typed = parse([recipe, published], {name: value if isinstance(value, str) else json.dumps(value)
                                        for name, (value, _) in changes.items()})
    assert typed.parser.dump(typed.config) == after.parser.dump(after.config)


@pytest.mark.parametrize('recipe', PUBLISHED)
def test_the_published_values_are_those_of_the_recipe(recipe, folder, monkeypatch):
    'But for those that differ on purpose.'
    if (folder / recipe).is_dir():
        monkeypatch.chdir(folder / recipe)
    flat = dict(parse([recipe, PUBLISHED[recipe][0]]).config.items(branches=False))
    own = dict(parse([recipe]).config.items(branches=False))
    different = {key for key in flat if flat[key] != own[key]} - {f'{DATA}root', 'config'}
    assert different == {'unet': {f'{NETWORK}pretrained', f'{AUGMENT}mean', f'{AUGMENT}std'},  # null: the same numbers
                         'deepglobe-trm': {f'{DATA}stride', f'{DATA}val_dir'},
                         'nomeformer-texture': {f'{NETWORK}unfrozen_blocks'}}[recipe]


@pytest.mark.parametrize('suffix', ['toml', 'json'])
def test_toml_and_json_are_read_too(suffix, tmp_path):
    config = yaml.safe_load(EXAMPLE.read_text())

    def toml(mapping, above=''):
        plain = [f'{key} = {json.dumps(value)}' for key, value in mapping.items() if not isinstance(value, dict)]
        inner = [toml(value, f'{above}{key}.') for key, value in mapping.items() if isinstance(value, dict)]
        return '\n'.join([*([f'[{above[:-1]}]'] if above else []), *plain, *inner])

    path = tmp_path / f'other.{suffix}'
    path.write_text(toml(config) if suffix == 'toml' else json.dumps(config))
    one, two = (parse(['unet', file], {'data': 'world:tiny'}) for file in (EXAMPLE, path))
    assert one.parser.dump(one.config) == two.parser.dump(two.config)


WRONG = {  # overrides: what is said
    'unknown': ({'training.epoch': 3},
                "unknown key 'training.epoch' of the configurable trainer; nearest: training.epochs"),
    'unknown section': ({'checkpointing.every': 3}, "unknown key 'checkpointing.every'"),
    'number': ({'optimizer.lr': 'fast'}, "optimizer.lr: 'fast' is not accepted, expected a number"),
    'whole number': ({'training.epochs': '2.5'}, 'training.epochs: 2.5 is not accepted, expected a whole number'),
    'flag': ({'training.amp': 'maybe'}, "training.amp: 'maybe' is not accepted, expected true or false"),
    'size': ({'dataset.image_size': '[1, 2, 3]'}, r'dataset.image_size: .* expected \[height, width\]'),
    'network': ({'model.name': 'segnet'}, "model.name: 'segnet' is not accepted, expected one of unet, deeplabv3, fcn"),
    'optimizer': ({'optimizer.name': 'lion'}, 'expected one of adamw, adam, sgd'),
    'schedule': ({'scheduler.name': 'linear'}, 'expected one of cosine, poly'),
    'score': ({'checkpointing.monitor': 'val/kappa'}, 'expected val/ and one of loss, miou'),
    'mode': ({'checkpointing.mode': 'min'}, 'checkpointing.mode: min contradicts the score mIoU/val'),
    'mode of stopping': ({'training.early_stopping.mode': 'min'}, 'early_stopping.mode: min contradicts'),
    'two scores': ({'checkpointing.monitor': 'val/loss'}, 'a run watches one score for both'),
    'twice': ({'epochs': 3, 'training.epochs': 4}, 'trainer.max_epochs is given twice: 3 and 4'),
    'twice, by the whole key': ({'trainer.max_epochs': 3, 'training.epochs': 4}, 'and as training.epochs'),
    'a value for a section': ({'training': 5}, 'training: 5 is not accepted, expected a section of keys'),
    'a section as a value': ({'augmentations.random_crop': 32}, 'expected a section of keys, or null')}


@pytest.mark.parametrize('case', WRONG)
def test_what_is_wrong_is_named(case):
    overrides, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        parse(['unet', EXAMPLE], {'data': 'world:tiny'} | overrides)


def test_an_unknown_key_of_a_file():
    for config, message in [
        ({'training': {'epochs': 3, 'bach_size': 4}}, "config: unknown key 'training.bach_size' .*: training.batch"),
        ({'training': {'epochs': 3}, 'modle': {'name': 'unet'}}, "'modle'"),
        ({'model': {'name': 'unet', 'droput': 0}}, "'model.droput'.*; nearest: model.dropout"),
        ({'model': {'name': 'unet', 'halting_beta': 0}},
         r"'model.halting_beta' of the configurable trainer \(a key of the refiner, which recipes of TRMSeg read\)"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse(['unet', config], {'data': 'world:tiny'})


def test_a_mixture_and_a_recipe_that_does_not_fit():
    for mine in ({'trainer': {'max_epochs': 3}}, {'model': {'init_args': {}}}, {'run': {'patience': 3}}):
        with pytest.raises(ConfigError, match='sections of geoseg .* and of another tool .training. in one file'):
            parse(['unet', {'training': {'epochs': 3}} | mine])
    with pytest.raises(ConfigError, match='seg_baseline.yaml: sections of another tool .* of GeoSegFormer'):
        parse(['geosegformer', EXAMPLE])
    with pytest.raises(ConfigError, match='none is given: add --recipe'):
        parse([EXAMPLE])
    with pytest.raises(ValueError, match="unknown key 'training.epochs'"):  # no other tool is this recipe's
        parse(['geosegformer'], {'training.epochs': 3})
    with pytest.raises(ConfigError, match='use_texture: true is for --recipe nomeformer-texture; NoMeFormer'):
        parse(['nomeformer', MESHES])
    with pytest.raises(ConfigError, match='use_texture: false is for --recipe nomeformer;'):
        parse(['nomeformer-texture', MESHES], {'model.use_texture': False})
    with pytest.raises(ConfigError, match='there are no public weights'):
        parse(['nomeformer-texture', MESHES], {'training.use_pretrained': True})


def test_our_names_and_files_beside_theirs(tmp_path):
    'What stands later wins; a class is exchanged by our names as ever.'
    more = tmp_path / 'more.yaml'
    more.write_text('trainer: {max_epochs: 9}\nrun: {patience: 2}\n')
    given = {'data': 'world:tiny', 'training.early_stopping.patience': 6, 'optimizer.class_path': 'torch.optim.SGD'}
    for configs, epochs in ((['unet', EXAMPLE, more], 9), (['unet', more, EXAMPLE], 100)):
        config = parse(configs, given).config
        assert (config.trainer.max_epochs, config.run.patience) == (epochs, 6)
        assert config.model.init_args.optimizer.class_path == 'torch.optim.SGD'
    assert parse(['unet'], {'optimizer.lr': 0.5}).config.model.init_args.optimizer.init_args.lr == 0.5  # without a file


def test_a_section_that_is_null():
    given = {'data': 'world:tiny', 'training.early_stopping': 'null', 'augmentations.random_crop': None,
             'augmentations': {'color_jitter': None}}
    config = parse(['unet', EXAMPLE], given).config
    augment = config.data.init_args.augment
    assert (config.run.patience, augment.crop, augment.crop_padding, augment.color_jitter) == (None, None, 0, None)


def test_which_of_two_wins_is_said():
    cli = parse(['unet', EXAMPLE], {'data': 'world:tiny', 'training.epochs': 200})
    lines = cli.foreign.remarks(cli.config)

    def line(name): return next(text for text in lines if text.startswith(f'{name}: '))
    assert line('scheduler.max_epochs') == ('scheduler.max_epochs: 100 gives way to training.epochs '
                                            '(trainer.max_epochs) = 200: the schedule ends with the run')
    assert line('dataset.root').startswith('dataset.root: "data/segmentation_dataset" gives way to data = ')
    for name in ('checkpointing.dir', 'logging.dir', 'experiment_name'):
        assert 'gives way to run.out = runs: a run has one folder' in line(name)
    assert line('training.amp') == 'training.amp: true: mixed precision on a GPU, 32 bits on a CPU'
    assert not any(text.startswith('training.epochs') for text in lines)
    cli = parse(['unet', EXAMPLE], {'data': 'world:tiny', 'epochs': 7, 'trainer.precision': '32-true'})
    lines = cli.foreign.remarks(cli.config)
    assert line('training.epochs') == 'training.epochs: 100 gives way to trainer.max_epochs = 7'
    assert line('training.amp') == 'training.amp: true gives way to trainer.precision = "32-true"'
    cli = parse(['nomeformer', MESHES], {'model.use_texture': False, 'training.use_ema': False})
    lines = cli.foreign.remarks(cli.config)
    assert line('training.ema_decay') == 'training.ema_decay: 0.9999 gives way to training.use_ema (run.ema) = null'
    assert line('model.fusion_method') == 'model.fusion_method: "gated" has no effect: NoMeFormer has no fusion_method'
    cli = parse(['unet', EXAMPLE], {'data': 'world:geotagged:tiny'})
    lines = cli.foreign.remarks(cli.config)
    assert line('dataset.val_split') == 'dataset.val_split: "val" has no effect: GeotaggedData has no val_dir'


def test_layouts_take_what_they_have():
    "Settings of the file reach the data's own class, whichever the recipe names."
    given = {'dataset.num_classes': 7, 'model.pretrained': False}
    file = change(yaml.safe_load(EXAMPLE.read_text()), 'dataset.val_split', 'valid')
    for recipe, data, kind, val in (('wildscenes-unet', 'world:tiny', 'WildscenesData', None),
                                    ('wildscenes-unet', str(world_data('folders', size='tiny')), 'FolderData', 'valid'),
                                    ('unet', 'world:wildscenes:tiny', 'WildscenesData', None),
                                    ('unet', 'world:tiny', 'FolderData', 'valid')):
        cli = parse([recipe, file], given | {'data': data})
        data, lines = cli.config.data, '\n'.join(cli.foreign.remarks(cli.config))
        assert data.class_path.endswith(f'.{kind}') and data.init_args.get('val_dir') == val
        assert ('dataset.val_split: "valid" has no effect' in lines) == (val is None)
        assert data.init_args.augment.crop_padding == 16 and data.init_args.batch_size == 8
        assert cli.config.model.init_args.schedule.class_path.endswith('.WarmupCosine')


@pytest.mark.parametrize('recipe, key, data', [('unet', 'dataset.num_classes', 'world:tiny'),
                                               ('deepglobe-trm', 'model.num_classes', 'world:tiny'),
                                               ('nomeformer-texture', 'model.n_classes', 'world:tiny')])
def test_the_classes_are_those_of_the_data(recipe, key, data, tmp_path, monkeypatch):
    published = change(PUBLISHED[recipe][0], key, 99)
    built = parse([recipe, published], {'data': data}).build_data
    with pytest.raises(ConfigError, match=rf'{key}: 99, but the data in .* have \d classes \(\w+'):
        built()
    for part in ('unet.smp.Unet', 'refiner.conv_norm', 'nomeformer.Encoder'):
        monkeypatch.setattr(f'geoseg.models.{part}', lambda *a, **k: pytest.fail('a network is made'))
    path = tmp_path / 'other.yaml'
    path.write_text(yaml.safe_dump(published))
    with pytest.raises(ConfigError, match=f'{key}: 99'):
        geoseg.train(recipe, data, configs=[path], out=tmp_path / 'runs')
    assert not (tmp_path / 'runs').exists()


def test_the_bands_are_those_of_the_data():
    with pytest.raises(ConfigError, match='model.in_channels: 4, but the data in .* have 3 bands'):
        parse(['deepglobe-trm', REFINER], {'data': 'world:tiny', 'model.in_channels': 4}).build_data()


def test_no_connection(monkeypatch):
    def offline(*arguments, **settings):
        raise OSError('no connection')
    monkeypatch.setattr('geoseg.models.unet.smp.Unet', offline)
    cli = parse(['unet', EXAMPLE], {'data': 'world:tiny', 'dataset.num_classes': 7})
    with pytest.raises(ConnectionError, match='resnet34.*add model.pretrained=false$'):
        cli.build()


def test_an_unknown_encoder():
    cli = parse(['unet'], {'data': 'world:tiny', 'model.backbone': 'resnet35'})
    with pytest.raises(ValueError, match="encoder: 'resnet35' is unknown; nearest: resnet.*; there are resnet18, "):
        cli.build()


def renamed(source, target, names, below=('',)):
    'The folder with other names of its splits.'
    for part in below:
        (target / part).mkdir(parents=True)
        for path in (source / part).iterdir():
            (target / part / names.get(path.name, path.name)).symlink_to(path)
    for path in source.iterdir():
        if not (target / path.name).exists() and path.is_file():
            (target / path.name).symlink_to(path)
    return target


@pytest.mark.parametrize('recipe, layout, below', [('unet', 'folders', ('images', 'masks')),
                                                   ('deepglobe-trm', 'deepglobe', ('',))])
def test_splits_have_the_names_of_the_file(recipe, layout, below, tmp_path, cache):
    source = world_data(layout, size='tiny')
    names = {'train': 'train2020', 'val': 'check', 'valid': 'check'}
    root = renamed(source, tmp_path / 'data', names, below)
    given = {'patch': 32, 'stride': 32} if layout == 'deepglobe' else {}
    class_path = {'data.class_path': parse([recipe]).config.data.class_path}

    def sizes(root, **splits):
        data = parse([recipe], {'data': str(root), **given, **class_path,
                                **{f'dataset.{name}_split': value for name, value in splits.items()}}).build_data()
        data.setup()
        return {split: len(part) for split, part in data.datasets.items()}

    assert sizes(root, train='train2020', val='check') == sizes(source)
    for splits in ({'train': 'train2021', 'val': 'check'}, {'train': 'train2020', 'val': 'valid2020'}):
        wrong = next(value for value in splits.values() if value in ('train2021', 'valid2020'))
        with pytest.raises(FileNotFoundError, match=f'{wrong}: no such folder .(train|val)_dir'):
            sizes(root, **splits)
    for part in below:
        (root / part / 'val').mkdir()
        (root / part / 'valid').mkdir()
    with pytest.raises(ValueError, match='both val and valid; expected one of them'):
        sizes(root, train='train2020', val='val')
    with pytest.raises(ValueError, match="both 'check': two splits, two folders"):
        sizes(root, train='check', val='check')


def test_a_fit_from_the_shell(tmp_path):
    'The example as it is, on folders; only what makes it small is typed.'
    small = {'training.epochs': 1, 'training.batch_size': 4, 'training.num_workers': 0, 'model.pretrained': 'false',
                   'dataset.num_classes': 7, 'dataset.image_size': '[32, 32]', 'optimizer.lr': 0.0001,
                   'augmentations.random_crop': '{size: [32, 32], padding: 2}', 'scheduler.warmup_epochs': 0,
                   'model.backbone': 'tu-resnet10t', 'decoder_channels': '[16, 8, 8, 8, 8]',
                   'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': 'false'}
    words = ['fit', '--recipe', 'unet', '--config', EXAMPLE, f'data={world_data("folders", size="tiny")}',
             *tiny.words(small)]
    done = subprocess.run(['geoseg', *map(str, words)], cwd=tmp_path, text=True,  # a fork: see warm.py
                          env=os.environ | {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = geoseg.Run(tmp_path / done.stdout.strip())
    assert len(run.metrics) == 1 and run.best.is_file()
    config = run.config
    assert config['trainer']['max_epochs'] == 1 and config['run']['save_top_k'] == 3
    assert config['model']['init_args']['optimizer']['init_args']['lr'] == 0.0001
    assert config['data']['init_args']['augment']['crop_padding'] == 2
    log = (run.folder / 'log.txt').read_text()
    for line in ('scheduler.max_epochs: 100 gives way to training.epochs (trainer.max_epochs) = 1',
                 'logging.dir: "runs/logs/seg_baseline" gives way to run.out = runs',
                 'dataset.num_classes: 7: compared with the labels of the data',
                 'training.amp: true: mixed precision on a GPU, 32 bits on a CPU'):
        assert line in log and line in done.stderr
    # the run knows nothing of another tool, and is resumed and evaluated as any
    assert cli.main(['validate', '--checkpoint', str(run.folder), 'trainer.accelerator=cpu']) == 0


def test_one_file_is_a_file(monkeypatch):
    'Papermill passes one file as text; a list holds several.'
    import geoseg.training.train as training
    monkeypatch.setattr(training, 'fit', lambda cli, *rest: cli.config)
    data = str(world_data('folders', size='tiny'))
    for configs in (str(EXAMPLE), Path(EXAMPLE), [EXAMPLE]):
        config = training.train('unet', data, configs=configs, overrides={'training.epochs': 7})
        assert config.trainer.max_epochs == 7 and config.run.save_top_k == 3
        assert config.data.init_args.augment.crop_padding == 16


def test_the_refiner_and_the_meshes_train(tmp_path):
    'Their sections with the values of a tiny run.'
    for recipe, sizes in (('deepglobe-trm', {'model.width': 16, 'dataset.patch.size': 32, 'dataset.patch.stride': 32,
                                             'training.max_epochs': 1, 'scheduler.warmup_epochs': 0}),
                          ('nomeformer-texture', {'model.embedding_dim': 16, 'model.num_heads': 2, 'training.epochs': 1,
                                                  'model.num_attention_blocks': 2, 'model.texture_embed_dim': 8,
                                                  'model.max_texture_pixels': 8, 'model.n_clusters': 8,
                                                  'cluster_size': 64})):
        path = tmp_path / f'{recipe}.json'
        path.write_text(json.dumps(PUBLISHED[recipe][0]))
        run = geoseg.train(recipe, 'world:tiny', configs=[path], out=tmp_path, overrides=sizes | {
            'num_workers': 0, 'trainer.limit_train_batches': 2, 'trainer.accelerator': 'cpu',
            'trainer.enable_progress_bar': False})
        assert len(run.metrics) == 1
        assert 'compared with the labels of the data' in (run.folder / 'log.txt').read_text()
