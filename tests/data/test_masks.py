"Masks and rasters of any kind: what is meant, or an error; what 255 and a palette mean is decided once."
import json

import numpy as np
import pytest
import rasterio
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin

from geoseg.core.errors import ConfigError
from geoseg.data.labels import LabelScheme
from geoseg.data.masks import MaskPixels, read_mask, train_ids
from geoseg.data.pictures.files import image_size, read_image
from geoseg.data.pictures.images import FolderData
from geoseg.data.pictures.patches import DeepGlobeData
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.files import read_acquisition
from geoseg.data.rasters.reader import Reader, overview

RGB = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9))
TABLE = {i: (*c, 255) for i, c in enumerate(RGB)}


def tif(path, array, colormap=None, mask=None, **kwargs):
    array = np.asarray(array)
    array = array[None] if array.ndim == 2 else array
    with rasterio.open(path, 'w', driver='GTiff', count=len(array), height=array.shape[1], width=array.shape[2],
                       dtype=array.dtype, crs='EPSG:32631', transform=from_origin(5e5, 5e6, 1, 1), **kwargs) as f:
        f.write(array)
        if colormap:
            f.write_colormap(1, colormap)
        if mask is not None:
            f.write_mask(mask)
    return path


def folder(root, masks, classes='0 bg\n1 fg\n', palette=None):
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(masks):
        shape = np.shape(values)[:2]
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (*shape, 3), np.uint8)).save(
            root / 'images' / f'd{i:03}.png')
        picture = Image.fromarray(np.asarray(values, np.uint8))
        if palette is not None:
            picture.putpalette(np.ravel(palette).tolist())
        picture.save(root / 'masks' / f'd{i:03}.png')
    (root / ('category.csv' if ',' in classes else 'classes.txt')).write_text(classes)
    return root


def square(*values, side=16):
    mask = np.full((side, side), values[0], np.uint8)
    for i, value in enumerate(values[1:]):
        mask[4:8, 4 * i:4 * i + 4] = value
    return mask


def loaded(root, **kwargs):
    data = FolderData(str(root), **kwargs)
    data.setup()
    return data


# each: masks of training, classes, settings; what is decided, the ids of the last class or an error, a line
BINARY = {
    'binary': ([(0, 255)] * 10, '0 bg\n1 fg\n', {}, 'class', {0, 1}, '255 is read as fg'),
    'a one in one mask': ([(0, 255)] * 3 + [(0, 1, 255)] + [(0, 255)] * 6, '0 bg\n1 fg\n', {}, 'ignore', {0, 255},
                          None),
    'named in the list': ([(0, 255)] * 10, '0 bg\n1 fg\n255 void\n', {}, 'ignore', {0, 255}, 'no training pixel is fg'),
    'named in a table': ([(0, 255)] * 10, 'id,name,r,g,b\n0,bg,0,0,0\n1,fg,9,9,9\n255,void,1,1,1\n', {}, 'ignore',
                         {0, 255}, 'no training pixel is fg; 255 is ignored'),
    'told to ignore': ([(0, 255)] * 10, '0 bg\n1 fg\n', {'value_255': 'ignore'}, 'ignore', {0, 255}, None),
    'told to be a class': ([(0, 1, 255)] * 10, '0 bg\n1 fg\n', {'value_255': 'class'}, 'class', {0, 1}, None),
    'three classes': ([(0, 255)] * 10, '0 bg\n1 a\n2 b\n', {}, ConfigError, '0 and 255, and no 1, .*3 classes', None),
    'three, one of them absent': ([(0, 2, 255)] * 10, '0 bg\n1 a\n2 b\n', {}, ConfigError,
                                  'value_255=ignore, or a line "255 ignore"', None),
    'three, as the message says': ([(0, 2, 255)] * 10, '0 bg\n1 a\n2 b\n', {'value_255': 'ignore'}, 'ignore',
                                   {0, 2, 255}, 'no training pixel is a'),
    'three, and a line as it says': ([(0, 2, 255)] * 10, '0 bg\n1 a\n2 b\n255 ignore\n', {}, 'ignore', {0, 2, 255},
                                     'no training pixel is a'),
    'three, the 1 in one mask': ([(0, 2, 255)] * 3 + [(1, 0)] + [(0, 2, 255)] * 6, '0 bg\n1 a\n2 b\n', {}, 'ignore',
                                 {0, 2, 255}, None),
    'three, without a 0': ([(2, 255)] * 10, '0 bg\n1 a\n2 b\n', {}, 'ignore', {2, 255}, 'no training pixel is bg, a'),
    'three, without a 255': ([(0, 2)] * 10, '0 bg\n1 a\n2 b\n', {}, 'ignore', {0, 2}, 'no training pixel is a'),
    'two that are not 0 and 1': ([(0, 2, 255)] * 10, '0 bg\n2 fg\n', {}, ConfigError, 'no 1, .*2 classes', None),
    'one class': ([(0, 255)] * 10, '0 bg\n', {}, 'ignore', {0, 255}, None),
    'beyond the list': ([(0, 1, 7)] * 10, '0 bg\n1 fg\n', {}, ConfigError,
                        r'7 \(112 px\), in 7 training .*unknown=ignore', None),
    'beyond, ignored': ([(0, 1, 7)] * 10, '0 bg\n1 fg\n', {'unknown': 'ignore'}, 'ignore', {0, 1, 255}, None),
    'a class for three': ([(0, 1)] * 10, '0 bg\n1 a\n2 b\n', {'value_255': 'class'}, ConfigError, 'value_255=class',
                          None),
    'misspelt': ([(0, 1)] * 10, '0 bg\n1 a\n', {'value_255': 'clas'}, ValueError, 'value_255', None),
}


@pytest.mark.parametrize('case', BINARY)
def test_what_255_is_is_decided_once(case, tmp_path):
    masks, classes, given_, decided, expected, line = BINARY[case]
    root = folder(tmp_path, [square(*values) for values in masks], classes)
    if isinstance(decided, type):
        with pytest.raises(decided, match=expected):
            loaded(root, **given_)
        return
    data = loaded(root, **given_)
    assert data.decided['value_255'] == decided
    assert line is None or any(line in said for said in data.said), data.said
    for split in ('train', 'val', 'test'):
        assert set(np.unique(data.once(split).mask(0))) == expected


def test_the_decision_of_training_holds_for_other_splits_and_layouts(tmp_path):
    masks = [square(0, 255)] * 7 + [square(0, 1)] * 3  # validation and test alone hold 1
    data = loaded(folder(tmp_path / 'a', masks))
    assert data.decided['value_255'] == 'class' and set(np.unique(data.once('test').mask(0))) == {0, 1}
    for day in range(4):
        tif(tmp_path / f'202{day}_image.tif', np.zeros((3, 64, 64), np.uint8))
        tif(tmp_path / f'202{day}_mask.tif', square(0, 255, side=64))
    (tmp_path / 'classes.txt').write_text('0 bg\n1 fg\n')
    data = RasterData(str(tmp_path), chip=64)
    data.setup()
    assert data.decided['value_255'] == 'class'
    assert set(np.unique(data.once('test').read(0)[-1])) == {0, 1}
    for day in range(4):  # 255 is nodata here
        tif(tmp_path / f'202{day}_mask.tif', square(0, 255, side=64), nodata=255)
    data = RasterData(str(tmp_path), chip=64)
    data.setup()
    assert data.decided['value_255'] == 'ignore' and data.said == ['no training pixel is fg']
    assert set(np.unique(data.once('test').read(0)[-1])) == {0, 255}


CLASSES = 'id,name,r,g,b\n0,a,200,0,0\n1,b,0,200,0\n2,c,0,0,200\n'


def test_palettes_are_read_by_the_colours_of_the_class_list_else_by_index(tmp_path):
    values = square(0, 1, 2)
    data = loaded(folder(tmp_path / 'same', [values] * 10, CLASSES, RGB))
    assert data.decided['palette'] == 'colors' and (data.once('train').mask(0) == values).all()
    turned = [RGB[2], RGB[0], RGB[1]]
    data = loaded(folder(tmp_path / 'turned', [values] * 10, CLASSES, turned))
    assert data.decided['palette'] == 'colors' and 'follow the colours' in data.said[0]
    assert (data.once('test').mask(0) == (values + 2) % 3).all()
    data = loaded(folder(tmp_path / 'other', [values] * 10, CLASSES, [(1, 1, 1), *RGB[1:]]))
    assert data.decided['palette'] == 'index' and (data.once('test').mask(0) == values).all()
    assert '0 (1, 1, 1) is read as a (200, 0, 0)' in data.said[0]
    root = folder(tmp_path / 'one', [values] * 10, CLASSES, turned)  # one mask of training has another colour
    odd = Image.fromarray(square(0, 1, 2))
    odd.putpalette(np.ravel([(1, 1, 1), *turned[1:]]).tolist())
    odd.save(root / 'masks' / 'd001.png')
    data = loaded(root)
    assert data.decided['palette'] == 'index' and (data.once('test').mask(0) == values).all()
    void = np.zeros((256, 3), np.uint8)
    void[:3], void[255] = turned, (224, 224, 192)  # the border of VOC: a colour of no class
    data = loaded(folder(tmp_path / 'void', [square(0, 1, 2, 255)] * 10, CLASSES, void))
    assert data.decided['palette'] == 'colors' and set(np.unique(data.once('val').mask(0))) == {0, 1, 2, 255}
    for i in range(4):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / f'{i}_sat.jpg')
        mask = np.zeros((64, 64, 3), np.uint8)
        mask[:, :32], mask[:, 32:] = (0, 0, 255), (0, 255, 0)
        Image.fromarray(mask).convert('P', palette=Image.ADAPTIVE, colors=2).save(tmp_path / f'{i}_mask.png')
    data = DeepGlobeData({'train': str(tmp_path)}, patch=64, index_dir=tmp_path / 'index', val_share=0.3)
    data.setup()
    assert {data.scheme.label(v) for v in np.unique(data.datasets['train'][0]['mask']).tolist()} == {'forest', 'water'}


def test_a_colour_table_is_colours_in_images_and_masks(tmp_path):
    rng = np.random.default_rng(0)
    turned = {0: TABLE[2], 1: TABLE[0], 2: TABLE[1]}
    for day in range(4):
        entries = rng.integers(0, 4, (64, 64)).astype(np.uint8)
        tif(tmp_path / f'202{day}_image.tif', entries, colormap=TABLE)
        tif(tmp_path / f'202{day}_mask.tif', entries % 3, colormap=turned)
    (tmp_path / 'category.csv').write_text(CLASSES)
    data = RasterData(str(tmp_path), chip=64)
    data.setup()
    a, _, _, image, mask = data.once('test').read(0)
    with rasterio.open(a.image) as f:
        entries = f.read(1)
    assert data.channels == 3 and (image == np.array(RGB)[entries]).all()
    assert data.decided['palette'] == 'colors' and (mask == (entries % 3 + 2) % 3).all()
    assert overview(data.reader, a).ndim == 3
    assert (Reader(data.scheme, bands=(2,)).window(a, 0, 0, 64, 64)[0][..., 0] == np.array(RGB)[entries][..., 1]).all()
    (tmp_path / 'category.csv').unlink()
    (tmp_path / 'classes.txt').write_text('0 a\n1 b\n2 c\n')
    data = RasterData(str(tmp_path), chip=64)
    data.setup()
    assert data.decided['palette'] == 'index' and (data.once('test').read(0)[-1] == entries % 3).all()
    assert 'palette=index' in data.said[0]


def test_the_decision_is_stored_and_holds_for_later_data(tmp_path):

    from geoseg.training.run import Run
    from geoseg.training.train import train
    root = folder(tmp_path / 'data', [square(0, 255, side=64)] * 10)
    Image.new('RGB', (64, 64)).save(root / 'before.jpg')
    words = {'image_size': [64, 64], 'crop': None, 'crop_padding': 0, 'num_workers': 0, 'batch_size': 4,
             'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'trainer.accelerator': 'cpu',
             'warmup_epochs': 0, 'trainer.enable_progress_bar': False, 'trainer.limit_train_batches': 1}
    run = train('unet', str(root), epochs=1, out=tmp_path / 'runs', overrides=words)
    stored = yaml.safe_load((run.folder / 'config.yaml').read_text())['data']['init_args']
    card = torch.load(run.best, weights_only=True)['geoseg']
    assert stored['value_255'] == 'class' == card['data']['init_args']['value_255']
    assert [255, 1] in card['labels']['ids']
    logged = (run.folder / 'log.txt').read_text()
    assert '255 is read as fg' in logged and 'pictures left out: 1 not read (first: before.jpg)' in logged
    assert 'value_255' not in (run.folder / 'summary.md').read_text()
    other = folder(tmp_path / 'other', [square(0, 1, 255, side=64)] * 10)  # by itself, 255 would be ignored here
    data = Run(run.folder).data(data=str(other))
    assert data.decided['value_255'] == 'class' and set(np.unique(data.once('test').mask(0))) == {0, 1}
    config = yaml.safe_load((run.folder / 'config.yaml').read_text())
    for key in ('value_255', 'palette'):  # a run from before there was anything to decide: 255 was ignored
        del config['data']['init_args'][key]
    (run.folder / 'config.yaml').write_text(yaml.safe_dump(config))
    data = Run(run.folder).data()
    assert set(np.unique(data.once('test').mask(0))) == {0, 255}
    assert json.dumps(card['labels'])


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('kind', ['png', 'tif'])
def test_a_mask_is_turned_like_its_picture(kind, turn, tmp_path):
    exif, values = Image.Exif(), np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif[0x0112] = turn
    for name in 'ab':
        how = {'compression': 'tiff_lzw'} if kind == 'tif' else {}  # Pillow turns what libtiff decodes
        Image.fromarray(values).save(tmp_path / f'{name}.{kind}', exif=exif, **how)
    seen = read_image(tmp_path / f'a.{kind}')[..., 0]
    mask = read_mask(tmp_path / f'b.{kind}', LabelScheme([str(i) for i in range(24)]))
    assert (mask == seen).all() and image_size(tmp_path / f'a.{kind}') == seen.shape


@pytest.mark.parametrize('value_range', [[[None, 3000]], [[0, 0]], [[3, 1]], [[0, float('nan')]], [[0]], [[0, 1, 2]],
                                         [['0', '1']], [[False, True]], [[0, 1], [2, 2], [0, 1]], [None]])
def test_a_range_is_two_numbers_the_second_above_the_first(value_range):
    with pytest.raises(ValueError, match='value_range: .*the second above the first'):
        Reader(LabelScheme(['a']), value_range=value_range)


IMAGE_TYPES = ('uint8', 'uint16', 'int16', 'int32', 'float32', 'float64')


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_pixel_is_data_where_every_band_that_is_read_is(tmp_path_factory, data):
    kind, bands = data.draw(st.sampled_from(IMAGE_TYPES)), data.draw(st.integers(1, 4))
    chosen = data.draw(st.none() | st.lists(st.integers(1, bands), min_size=1, max_size=4))
    float_ = kind.startswith('f')
    nodata = data.draw(st.sampled_from([None, 0, 7, *([float('nan'), -9999.] if float_ else [])]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(1, 100, (bands, 9, 11)).astype(kind)
    empty = rng.random(values.shape) < 0.2
    if nodata is not None:
        values[empty] = nodata
    lost = rng.random(values.shape) < 0.1 if float_ else np.zeros(values.shape, bool)
    if lost.any():
        values[lost] = np.nan
    path = tif(tmp_path_factory.mktemp('r') / '2020_image.tif', values, nodata=nodata)
    a = read_acquisition(path, tif(path.with_name('2020_mask.tif'), np.ones((9, 11), np.uint8)), '2020')
    ranged = kind != 'uint8' or data.draw(st.booleans())
    mean = [0.25] * len(chosen or range(bands))
    reader = Reader(LabelScheme(['a', 'b']), chosen, [(0, 100)] if ranged else None, mean)
    image, mask = reader.window(a, 0, 0, 9, 11)
    known = np.isfinite(values) & (True if nodata is None or nodata != nodata else values != nodata)
    known = known[[b - 1 for b in chosen or range(1, bands + 1)]].all(0)
    expected = values[[b - 1 for b in chosen or range(1, bands + 1)]].transpose(1, 2, 0)
    assert (mask == np.where(known, 1, 255)).all()
    assert np.allclose(image[known], (expected / 100 if ranged else expected)[known], atol=1e-6)
    assert np.allclose(image[~known], 0.25 if ranged else round(0.25 * 255))
    picture = overview(reader, a)
    assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


MASK_TYPES = ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64')


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_any_raster_of_labels_is_right_or_an_error(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(MASK_TYPES))
    float_ = kind.startswith('f')
    pool = [0, 1, 2, *data.draw(st.sampled_from([[], [255 if 'int8' != kind else 3], [100], *(
        [[1.9], [-0.6], [np.nan], [np.inf], [1e30]] if float_ else [[70000 if '32' in kind else 90]])]))]
    nodata = data.draw(st.sampled_from([None, 0, 2, 100, *([-9999., np.nan] if float_ else [])]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = np.array(pool)[rng.integers(0, len(pool), (8, 10))].astype(kind)
    hidden = rng.random((8, 10)) < 0.3 if data.draw(st.booleans()) else None
    root = tmp_path_factory.mktemp('m')
    path = tif(root / '2020_mask.tif', values, nodata=None if hidden is not None else nodata,
               mask=None if hidden is None else ~hidden)
    scheme, expected = LabelScheme(['a', 'b', 'c']), np.full((8, 10), 255, np.uint8)
    fault = False
    for at, v in np.ndenumerate(values):
        gone = hidden is not None and hidden[at] or hidden is None and nodata is not None and (
            v == nodata or v != v and nodata != nodata)
        if not gone:
            fault = fault or v not in (0, 1, 2, 255)
            expected[at] = v if v in (0, 1, 2) else 255
    a = read_acquisition(tif(root / '2020_image.tif', np.zeros((3, 8, 10), np.uint8)), path, '2020')
    for read in (lambda: Reader(scheme).window(a, 0, 0, 8, 10)[1], lambda: read_mask(path, scheme)):
        if fault:
            with pytest.raises(ValueError, match='2020_mask.tif: '):
                read()
        else:
            assert (read() == expected).all()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(['1', 'L', 'P', 'I;16', 'RGB', 'RGBA', 'LA', 'CMYK', 'F', 'I']), st.sampled_from(['png', 'tif']),
       st.integers(0, 99), st.sampled_from([(0, 1, 2), (0, 1, 2, 255), (0, 9), (0, 1, 2, 3)]))
def test_any_picture_of_labels_is_right_or_an_error(tmp_path_factory, mode, suffix, seed, pool):
    rng = np.random.default_rng(seed)
    values = np.array(pool, np.uint8)[rng.integers(0, len(pool), (6, 7))]
    values = values % 2 if mode == '1' else values
    colors = np.zeros((256, 3), np.uint8)
    colors[:4] = RGB
    order = rng.permutation(3)
    scheme = LabelScheme(['a', 'b', 'c'], RGB[:3])
    if mode == 'P':
        picture = Image.fromarray(values)
        colors[:3] = np.array(RGB[:3])[order]
        picture.putpalette(colors.ravel().tolist())
    elif mode in ('RGB', 'RGBA', 'CMYK'):
        picture = Image.fromarray(colors[values]).convert(mode)
    elif mode == '1':
        picture = Image.fromarray(values.astype(bool))
    else:
        wide = {'I;16': np.uint16, 'F': np.float32, 'I': np.int32}.get(mode, np.uint8)
        picture = Image.fromarray(values.astype(wide))
        picture = picture.convert(mode) if mode == 'LA' else picture
    path = tmp_path_factory.mktemp('p') / f'm.{suffix}'
    try:
        picture.save(path)
    except OSError:  # no such picture
        return
    try:
        ids = read_mask(path, scheme)
    except ValueError as error:
        assert str(error).startswith(str(path))
        known = set(np.unique(values).tolist()) <= {0, 1, 2, 255}
        assert not known or mode in ('CMYK', 'F', 'LA') or mode in ('RGB', 'RGBA') and 255 in values or mode == 'P'
        return
    by_index = np.where(values == 255, 255, values)
    by_color = np.where(values < 3, order[np.minimum(values, 2)], 255)
    wanted = [by_color, by_index] if mode == 'P' else [by_index]
    assert any((ids == w).all() for w in wanted)


def test_colours_of_labels_are_ignored_where_they_are_hidden():
    scheme = LabelScheme(['a', 'b'], RGB[:2])
    hidden = np.array([[True, False]])
    pixels = MaskPixels(np.array([[(7, 7, 7), RGB[1]]], np.uint8), hidden=hidden)
    assert train_ids(pixels, scheme).tolist() == [[255, 1]]


def test_rasters_of_other_names_are_told_what_to_set(tmp_path):
    for day in range(3):
        tif(tmp_path / f'img_202{day}.tif', np.zeros((3, 64, 64), np.uint8))
        tif(tmp_path / f'lab_202{day}.tif', square(0, 1, side=64))
    (tmp_path / 'classes.txt').write_text('0 bg\n1 fg\n')
    with pytest.raises(ValueError, match='6 others are there .first: img_2020.tif.; set pattern and mask_pattern'):
        RasterData(str(tmp_path), chip=64)
    data = RasterData(str(tmp_path), chip=64, pattern='img_{date}.tif', mask_pattern='lab_{date}.tif')
    assert len(data.acquisitions[tmp_path]) == 3
