"Patches of DeepGlobe: the layout, and how validation is drawn."
import pytest

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
