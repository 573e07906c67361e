"""No recipe trains on padding: the crop follows the size of the pictures, or the run ends before any work."""
import numpy as np
import pytest
import tiny
from PIL import Image

from geoseg.data.augment import Augment
from geoseg.training.config import parse
from geoseg.training.recipes import recipes

SIZED = [recipe for recipe in recipes() if 'nomeformer' not in recipe and 'game4loc' not in recipe]


@pytest.mark.parametrize('recipe', SIZED)
@pytest.mark.parametrize('size', [[96, 128], [64, 64], [1024, 640]])
def test_a_smaller_size_alone_is_all_picture(recipe, size):
    augment = parse([recipe], {'image_size': size}).config.data.init_args.augment
    made = Augment(**augment.as_dict() | {'dihedral': 0})  # an error where most of a sample would be padding
    height, width = made.crop or made.image_size
    assert height <= size[0] and width <= size[1]


@pytest.mark.parametrize('recipe', SIZED)
def test_a_crop_of_padding_ends_before_work(recipe, tmp_path):
    cli = parse([recipe], {'data': 'world:tiny', 'image_size': [96, 128], 'crop': [512, 512]})
    with pytest.raises(ValueError, match=r'95% of each sample would be padding; set crop=\[96,128\], or crop=null'):
        cli.build_data()


def test_pictures_that_are_smaller_than_the_crop(tmp_path):
    for kind in ('images', 'masks'):
        (tmp_path / kind).mkdir()
        for i in range(10):
            Image.fromarray(np.zeros((40, 60, 3) if kind == 'images' else (40, 60), np.uint8)).save(
                tmp_path / kind / f'a_{i}.png')
    (tmp_path / 'classes.txt').write_text('0 bg\n1 fg\n')
    given = tiny.settings('unet', data=str(tmp_path), image_size=None, crop=[256, 256]) | {'image_size': None}
    with pytest.raises(ValueError, match=r'images are \[40, 60\] .* 96% of each sample .* crop=\[40,60\]'):
        parse(['unet'], given).build_data().setup()
