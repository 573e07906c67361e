"""Every published parameter against what the recipes build; and what no value of a configuration shows."""
import copy
import html
import inspect
import re
from pathlib import Path

import albumentations as A
import cv2
import lightning as L
import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from geoseg.data.augment import IMAGENET_MEAN, IMAGENET_STD, Resize
from geoseg.evaluation import published as comparison
from geoseg.evaluation.published import (
    Built,
    agrees,
    build_all,
    changed_defaults,
    compare,
    own_defaults,
    place_name,
    places_of,
    published,
    stored_defaults,
    with_other,
    without,
)
from geoseg.evaluation.published_rows import RECIPES, ROWS
from geoseg.models.deeplab import DeepLabV3
from geoseg.tasks.contrastive import WeightedInfoNCE
from geoseg.training import train as training
from geoseg.training.config import full_key, parse

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def built():
    return build_all()


def has(row, one: Built, text: str) -> bool:
    "Whether a recipe has the published value; what cannot be read is none."
    try:
        return agrees(text, row.read(one))
    except (AttributeError, ValueError, TypeError, IndexError):
        return False


def compared(recipe: str) -> list:
    "The rows that are compared with a recipe: system, parameter, published, settings, row."
    rows = ((p, ROWS[p.system][p.parameter]) for p in published().itertuples())
    return [(p.system, p.parameter, p.published, settings, row) for p, row in rows if row.status == 'compared'
            for name, settings in places_of(p.system, p.parameter) if name == recipe]


def test_every_row_is_equal_or_has_its_reason_or_its_test(built):
    table = compare(built)
    assert len(table) == len(published())
    print(table.status.value_counts().to_dict())  # how many are compared, different, tested
    assert table.status.value_counts()['compared'] > table.status.value_counts()['different']


def shown_rows(page) -> list[list[str]]:
    "The rows of the tables that a page stores for `show(...)`, cell by cell."
    outputs = [output for cell in page.cells if cell.source.startswith('show(') for output in cell.outputs]
    rows = [row for output in outputs for row in re.findall('<tr>(.*?)</tr>', output.data['text/html'], re.S)]
    cells = [[html.unescape(cell) for cell in re.findall('<t[hd]>(.*?)</t[hd]>', row, re.S)] for row in rows]
    return sorted(row for row in cells if row[0] != 'published')


def test_the_page_shows_the_table_of_today(built):
    table = compare(built)
    said = {'compared': '=', 'different': 'differs: ', 'tested': ''}
    today = sorted([row.parameter, row.published, row.here, row.ours,
                    said[row.status] + row.why.rpartition('::')[2].replace('_', ' '), row.note]
                   for row in table.itertuples())
    page = nbformat.read(TOP / 'nbs/published.ipynb', as_version=4)
    assert shown_rows(page) == today
    stale = copy.deepcopy(page)
    cell = next(cell for cell in stale.cells if cell.source.startswith('show('))
    cell.outputs[0].data['text/html'] = cell.outputs[0].data['text/html'].replace('<td>512</td>', '<td>256</td>', 1)
    assert shown_rows(stale) != today


def test_kinds_of_rows():
    for row in published().itertuples():
        ours = ROWS[row.system][row.parameter]
        if row.kind in ('value', 'bound'):
            assert ours.status in ('compared', 'different'), row
        else:
            assert ours.status in ('tested', 'different'), row
        assert ours.status != 'compared' or ours.default or ours.key and ours.other is not None, row


# the default builds the same: another list, but for this weight; null, which Lightning takes for 50
SAME_BUILT = {'focal weight', 'logging.log_every_n_steps'}


def test_named_tests_are_there():
    named = {row.test for rows in ROWS.values() for row in rows.values() if row.test}
    assert len(named) > 20
    for name in named:
        file, _, function = name.partition('::')
        assert re.search(rf'^def {function}\(', (TOP / file).read_text(encoding='utf-8'), re.M), name


@pytest.mark.parametrize('recipe', sorted({recipe for places in RECIPES.values() for recipe, _ in places}))
def test_another_value_is_seen(built, recipe, monkeypatch):
    "Each compared value is changed in turn; all are deleted at once, and seen where the class has another default."
    blind, deletable, rows = [], {}, compared(recipe)
    for system, parameter, text, settings, row in rows:
        place, what = place_name(recipe, settings), f'{system}, {parameter}'
        one = built[place]
        assert has(row, one, text), what
        if row.default:
            function = inspect.unwrap(row.default[0])
            with monkeypatch.context() as patched:
                patched.setattr(function, '__defaults__', tuple(97 for _ in function.__defaults__))
                if has(row, one, text):
                    blind.append(what)
            continue
        if has(row, with_other(one, recipe, settings, row), text):
            blind.append(f'{what}: {row.key}={row.other}')
        key = full_key(row.key, one.keys)
        if not key.endswith('class_path') and parameter not in SAME_BUILT:
            deletable.setdefault(place, (settings, []))[1].append((key, row, text, what))
    deleted = 0
    for place, (settings, cases) in deletable.items():
        one, (bare, removed) = built[place], without(recipe, settings, [key for key, *_ in cases])
        for key, row, text, what in cases:
            if key in removed and str(bare.cli.config.get(key)) != str(one.cli.config.get(key)):
                deleted += 1
                if has(row, bare, text):
                    blind.append(f'{what}: {key} is not in the recipe')
    assert not blind, '\n'.join(blind)
    print(f'{recipe}: {len(rows)} values changed, {deleted} deleted')


def test_other_defaults_are_those_of_the_table(built):
    own, stored = own_defaults(built), stored_defaults()
    assert changed_defaults(own, stored) == []
    for changed in (stored.drop(5), stored.assign(value=stored.value.where(stored.index != 7, '"x"'))):
        assert len(changed_defaults(own, changed)) == 1


def test_a_published_value_without_a_row_is_told(built, monkeypatch):
    known = published()
    monkeypatch.setattr(comparison, 'published', lambda: known.assign(
        parameter=known.parameter.where(known.index != 3, '--new')))
    with pytest.raises(AssertionError, match='geo-aware, --new: has no row'):
        compare(built)


# what no value shows

def test_the_example_run():
    given = {'model_size': 'b2', 'feature_dim': 256, 'contrastive_weight': 0.1, 'batch_size': 4, 'lr_backbone': 1e-5,
             'lr_head': 1e-4, 'lr_gps': 1e-4, 'patience': 15, 'epochs': 200}
    one, rows = Built('geosegformer', given), published()
    for row in rows[rows.system == 'geo-aware example run'].itertuples():
        if row.parameter == 'max_epochs':
            assert agrees(row.published, one.trainer.max_epochs)
        else:
            assert agrees(row.published, ROWS['geo-aware'][row.parameter].read(one)), row.parameter
    with torch.device('meta'):
        assert one.network(torch.rand(1, 3, 64, 64))['logits'].shape == (1, 7, 64, 64)


def test_early_stop_and_patience_are_one_setting(built):
    assert built['geosegformer'].stopping() is None
    assert Built('geosegformer', {'patience': 10}).stopping().patience == 10


def test_precision_is_mixed_on_a_gpu(monkeypatch, built):
    "For every recipe; on a CPU it is not, and what somebody asks for stays."
    made = []
    monkeypatch.setattr(L, 'Trainer', lambda **arguments: made.append(arguments['precision']))

    def precision_of(one: Built, **settings):
        cli = copy.copy(one.cli)
        cli.config_init = {'trainer': one.cli.config.trainer.as_dict() | {'accelerator': 'auto', **settings}}
        training.make_trainer(cli, [], False)
        return made[-1]

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for bf16, precision in ((True, 'bf16-mixed'), (False, '16-mixed')):
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda bf16=bf16: bf16)
        assert {precision_of(one) for one in built.values()} == {precision}
    unet = built['unet']
    assert precision_of(unet, precision='32-true') == precision_of(unet, accelerator='cpu') == '32-true'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert precision_of(unet) == '32-true'


@pytest.mark.parametrize('name', ['game4loc-cross-area', 'wildscenes-fcn', 'wildscenes-mask2former, method 1',
                                  'deepglobe-trm', 'geosegformer'])
def test_pictures_are_normalised_by_imagenet(built, name):
    from geoseg.data.pairs.crossview import PairPipeline
    augment = built[name].data.augment
    pipeline = PairPipeline(augment) if name.startswith('game4loc') else augment.pipeline(False)
    grey = np.full((8, 8, 3), 100, np.uint8)
    expected = (100 / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert np.allclose(pipeline.normalize(grey)[:, 0, 0].numpy(), expected, atol=1e-6)


def kinds(steps) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_photos_and_tiles_are_augmented_as_published(built):
    "Cut, JPEG, resize, jitter, blur or sharpening, holes; tiles turn in cross-area alone."
    cross, same = (built[f'game4loc-{area}-area'].data.augment for area in ('cross', 'same'))
    for augment in (cross, same):
        compression, jitter, blur, holes = augment.appearance()
        assert kinds([compression, jitter]) == ['ImageCompression', 'ColorJitter']
        assert kinds(blur.transforms) == ['AdvancedBlur', 'Sharpen']
        assert kinds(holes.transforms) == ['GridDropout', 'CoarseDropout']
        assert all(0 < step.p < 1 for step in (compression, jitter, blur, holes)) and augment.edge_cut == 0
    assert (cross.rotate, same.rotate) == (True, False)


def test_both_directions_of_the_loss_are_averaged():
    torch.manual_seed(0)
    photos, tiles = (nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    scale, target = torch.tensor(10.0), torch.arange(5)
    s = scale * photos @ tiles.T
    both = [nn.functional.cross_entropy(x, target) for x in (s, s.T)]
    loss = WeightedInfoNCE(weighted=False)(photos, tiles, scale, torch.ones(5))
    assert torch.allclose(loss, (both[0] + both[1]) / 2) and not torch.allclose(both[0], both[1])


def test_the_scale_is_learned(built):
    network = built['game4loc-cross-area'].network
    assert network.log_scale.requires_grad
    groups = built['game4loc-cross-area'].optimizer.param_groups
    assert any(p is network.log_scale for group in groups for p in group['params'])


def test_files_of_pairs(built):
    for area in ('cross', 'same'):
        files = built[f'game4loc-{area}-area'].data.files
        assert {split: path.name for split, path in files.items()} == {
            split: f'{area}-area-drone2sate-{split}.json' for split in ('train', 'test')}
    assert Built('game4loc-cross-area', {'test_pairs': 'mine.json'}).data.files['test'].name == 'mine.json'


def test_devices_are_chosen():
    two = Built('game4loc-cross-area', {'devices': 2, 'trainer.strategy': 'ddp_spawn'})
    assert two.trainer.num_devices == two.trainer.world_size == 2
    assert parse(['game4loc-cross-area'], {'devices': [0, 1]}).config.trainer.devices == [0, 1]


@pytest.mark.parametrize('name', ['wildscenes-deeplabv3', 'wildscenes-fcn', 'wildscenes-unet',
                                  'wildscenes-mask2former, method 1', 'wildscenes-mask2former, method 2'])
def test_scenes_are_augmented_as_published(built, name):
    "Resize, flip, rotation, blur with a probability; method 2 crops and jitters, too; nothing but the size afterwards."
    one = built[name]
    train, later = (one.data.augment.pipeline(part).steps() for part in (True, False))
    expected, second = {'Resize', 'HorizontalFlip', 'Rotate', 'GaussianBlur'}, name.endswith('2')
    assert set(kinds(train)) - {'PadIfNeeded'} == expected | ({'RandomCrop', 'ColorJitter'} if second else set())
    assert kinds(later) == ['Resize'] and 0 < one.step(A.GaussianBlur).p < 1 and 0 < one.step(A.Rotate).p <= 1
    if second:
        assert min(one.jitter()[:3]) > 0 and one.jitter()[3] == 0


def test_labels_are_resized_by_the_nearest_pixel(built):
    for name in built:
        if name.startswith('wildscenes'):
            step = built[name].step(Resize)
            assert step.mask_interpolation == cv2.INTER_NEAREST_EXACT
            mask = np.array([[0, 9], [4, 255]], np.uint8)
            out = step.apply_to_mask(mask, interpolation=step.mask_interpolation)
            assert set(np.unique(out)) == {0, 4, 9, 255}


def test_the_last_layer_of_deeplabv3():
    with torch.device('meta'):
        network = DeepLabV3(7)
    conv, norm, relu, dropout, last = network.net.classifier[-1]
    assert (conv.kernel_size, conv.padding, last.kernel_size, dropout.p) == ((3, 3), (1, 1), (1, 1), 0.5)
    assert (type(norm), type(relu), last.out_channels) == (nn.BatchNorm2d, nn.ReLU, 7)


def test_best_and_periodic_checkpoints(built):
    record = built['wildscenes-deeplabv3'].record
    names = [record.rank(epoch, {'mIoU/val': score}) for epoch, score in enumerate([0.1] + [0.05] * 19)]
    assert names[0] == ['best.ckpt'] and [n for n in names[9] + names[19]] == [
        'epoch009-mIoU0.0500.ckpt', 'epoch019-mIoU0.0500.ckpt'] and not any(names[10:19])


def test_mask2former_predicts_the_classes_of_the_data(built):
    one = built['wildscenes-mask2former, method 1']
    assert one.network.conv.out_channels == one.data.num_classes
    query = Built('wildscenes-mask2former', {'head': 'query'})
    assert query.network.net.class_predictor.out_features == query.data.num_classes + 1  # and "nothing"


def test_method_2_clips_more(built):
    first, second = (built[f'wildscenes-mask2former, method {n}'].trainer.gradient_clip_val for n in (1, 2))
    assert first > second > 0


def test_the_named_networks(built):
    fcn, unet = built['wildscenes-fcn'].network, built['wildscenes-unet'].network
    assert len(fcn.net.backbone['layer3']) == 6 and type(unet).__name__ == 'UNet'
    assert not any(isinstance(m, nn.modules.conv.Conv2d) and m.dilation[0] > 4 for m in fcn.net.classifier.modules())


def test_scores_of_pictures(built):
    assert {'Accuracy', 'mIoU', 'fwIoU', 'F1'} <= set(built['unet'].task.measures)


def test_patches_are_augmented_as_published(built):
    steps = built['deepglobe-trm'].data.augment.pipeline(True).steps()
    assert kinds(steps)[:3] == ['D4', 'RandomBrightnessContrast', 'RandomGamma'] and steps[0].p == 1


def test_the_refiners_rate_goes_by_epoch(built):
    "Three epochs up, then half a cosine; the same within an epoch."
    one = built['deepglobe-trm']
    epochs = np.array(one.curve).reshape(80, one.steps_per_epoch)
    assert (epochs == epochs[:, :1]).all()
    k = np.arange(77)
    expected = [1e-4, 2e-4, 3e-4, *(3e-4 * (1 + np.cos(np.pi * k / 77)) / 2)]
    assert np.allclose(epochs[:, 0], expected)


def test_classes_and_bands_come_from_the_data(built):
    refiner = built['deepglobe-trm']
    assert (refiner.network.num_classes, refiner.data.num_classes, refiner.data.channels) == (6, 6, 3)
    mesh = built['nomeformer']
    assert mesh.network.head[-1].out_features == mesh.data.num_classes


def test_switches_of_meshes(built):
    everything = built['nomeformer-texture']
    assert everything.ema() == 0.9999 and Built('nomeformer-texture', {'ema': None}).ema() is None
    for name, fewer in (('include_normals', 3), ('additional_geometrical_features', 3)):
        other = Built('nomeformer-texture', {name: False}).data
        assert len(everything.data.columns) - len(other.columns) == fewer, name
    textured = Built('nomeformer', {'use_texture': True})
    assert textured.data.settings.pixels > 0 == built['nomeformer'].data.settings.pixels
