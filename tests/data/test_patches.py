"Patches of DeepGlobe: the layout, and how validation is drawn."
import shutil

import pytest

from geoseg.core.listing import collect_notes
from geoseg.data.layouts import recognise
from geoseg.data.pictures.patches import DeepGlobeData
from geoseg.training.config import parse
from geoseg.world.layouts import world_data

pytestmark = pytest.mark.usefixtures('cache')


def test_the_layout_is_recognised(tmp_path):
    tiny = world_data('deepglobe', size='tiny')
    assert recognise(tiny).layout == recognise(tiny / 'train').layout == 'deepglobe'
    config = parse(['unet'], {'data': str(tiny)}).config
    assert config.data.class_path.endswith('DeepGlobeData')
    with pytest.raises(ValueError, match='max_unknown'):
        parse(['deepglobe-trm'], {'data': str(tiny), 'max_unknow': 1})


def test_validation_is_drawn_by_image_and_seed():
    tiny = world_data('deepglobe', size='tiny')
    chosen = {}
    for seed in (0, 0, 1):
        data = DeepGlobeData(tiny, patch=64, cache=False, seed=seed, val_share=0.25)
        data.setup()
        names = {split: {n.rpartition('_r')[0] for n in data.datasets[split].names} for split in ('train', 'val')}
        assert not names['train'] & names['val'] and len(names['val']) == 3
        assert chosen.setdefault(seed, names) == names
    assert chosen[0] != chosen[1]


def test_a_run_on_another_layout_takes_this_one(tiny_run):
    config = parse([tiny_run('unet') / 'config.yaml'], {'data': str(world_data('deepglobe', size='tiny'))}).config
    assert config.data.class_path.endswith('DeepGlobeData') and 'remember' not in config.data.init_args


def test_a_picture_without_mask_is_an_error_or_for_prediction(tmp_path):
    root = shutil.copytree(world_data('deepglobe', size='tiny'), tmp_path / 'data')
    masks = sorted((root / 'train').glob('*_mask.png'))
    for mask in masks[:3]:
        mask.unlink()
    with pytest.raises(ValueError, match=f'train: no mask for 3 of {len(masks)} images .*; masks=optional'):
        DeepGlobeData(root, patch=64).setup()
    for cache in (True, False):
        config = parse(['deepglobe-trm'], {'data': str(root), 'masks': 'optional', 'patch': 64, 'cache': cache})
        data = config.build_data()
        data.setup()
        bare = {f'train/{mask.stem.removesuffix("_mask")}' for mask in masks[:3]}
        assert bare <= set(data.datasets['predict'].names) and len(data.datasets['predict'].names) > 3
        assert not bare & {name for names in data.split_names().values() for name in names}
        assert sum(len(data.split_names()[split]) for split in ('train', 'val')) == len(masks) - 3
    for mask in masks[3:]:
        mask.unlink()
    with pytest.raises(ValueError, match='train: no mask for'):
        DeepGlobeData(root, patch=64, masks='optional').setup()


def test_another_recipe_takes_patches_that_fit():
    tiny = world_data('deepglobe', size='tiny')
    with collect_notes() as notes:
        config = parse(['unet'], {'data': str(tiny)}).config
    assert config.data.init_args.patch == 128 and notes == [f'{tiny}: patch=128, the side of the smallest image']
    assert parse(['unet'], {'data': str(tiny), 'patch': 32}).config.data.init_args.patch == 32
    assert parse(['deepglobe-trm'], {'data': str(tiny)}).config.data.init_args.patch == 256  # as published
    with pytest.raises(ValueError, match='patch is 256 pixels, larger than .*; set patch=128 or less'):
        DeepGlobeData(tiny).setup()


def test_a_folder_of_pictures_without_splits_is_told_how_to_be_given(tmp_path):
    flat = shutil.copytree(world_data('deepglobe', size='tiny') / 'train', tmp_path / 'flat')
    with pytest.raises(ValueError, match="no folder train.*'data={train: .*flat}'"):
        DeepGlobeData(flat, patch=64).setup()
    data = DeepGlobeData({'train': str(flat)}, patch=64, val_share=0.3)
    data.setup()
    assert {'train', 'val'} <= {*data.datasets}
