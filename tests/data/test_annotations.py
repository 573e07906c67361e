"""Photos with COCO, LabelMe and CVAT labels: what is drawn, in which layouts, and one line for each fault."""
import base64
import io
import json

import numpy as np
import pytest
import shapely
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoseg import cli
from geoseg.core.listing import collect_notes
from geoseg.data.layouts import recognise
from geoseg.data.pictures.annotations import Outline, draw_outlines, mask_of_runs, run_lengths
from geoseg.training.config import parse

SIZE = 32, 48  # height, width
HOUSE, TREE = [[4, 4], [40, 4], [40, 20], [4, 20]], [[20.13, 10.07], [47.31, 12.19], [30.23, 31.09]]
NAMES = ['background', 'house', 'tree']


def photo(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def coco(names, first=0, **changes):
    flat = [[v for point in ring for v in point] for ring in (HOUSE, TREE)]
    return {'images': [{'id': first + i, 'file_name': name, 'height': SIZE[0], 'width': SIZE[1]}
                       for i, name in enumerate(names)],
            'categories': [{'id': 9, 'name': 'tree'}, {'id': 2, 'name': 'house'}],
            'annotations': [{'id': 100 * k + i, 'image_id': first + i, 'category_id': (2, 9)[k],
                             'segmentation': [flat[k]], 'iscrowd': 0}
                            for i in range(len(names)) for k in (0, 1)]} | changes


def labelme(name):
    return {'version': '5.4.1', 'imagePath': name, 'imageData': None, 'imageHeight': SIZE[0], 'imageWidth': SIZE[1],
            'shapes': [{'label': 'house', 'points': [HOUSE[0], HOUSE[2]], 'shape_type': 'rectangle'},
                       {'label': 'tree', 'points': TREE, 'shape_type': 'polygon'}]}


def cvat(names):
    def text(ring):
        return ';'.join(f'{x},{y}' for x, y in ring)
    images = ''.join(
        f'<image id="{i}" name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">'
        f'<polygon label="tree" points="{text(TREE)}" z_order="1"/>'
        f'<box label="house" xtl="4" ytl="4" xbr="40" ybr="20" z_order="0"/></image>' for i, name in enumerate(names))
    return ('<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>'
            '<label><name>house</name><color>#ff0000</color></label><label><name>tree</name><color>#00ff00</color>'
            f'</label></labels></task></meta>{images}</annotations>')


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def lay(root, way):
    'Fifteen photos and their labels.'
    parts = {'train': range(0, 9), 'val': range(9, 12), 'test': range(12, 15)}
    for split, numbers in parts.items():
        names = [f'a_{i:02}.jpg' for i in numbers]
        folder = {'coco': f'{split}2017', 'roboflow': {'val': 'valid'}.get(split, split), 'one': 'bilder',
                  'labelme': '.', 'labelme elsewhere': f'images/{split}', 'cvat': 'photos'}[way]
        for number, name in zip(numbers, names, strict=True):
            photo(root / folder / name, number)
            if way == 'labelme':
                write(root / f'a_{number:02}.json', labelme(name))
            elif way == 'labelme elsewhere':
                write(root / f'labels/{split}/a_{number:02}.json', labelme(name))
        if way == 'coco':
            write(root / f'annotations/instances_{split}2017.json', coco(names))
        elif way == 'roboflow':
            write(root / folder / '_annotations.coco.json', coco(names))
    every = [f'a_{i:02}.jpg' for i in range(15)]
    if way == 'one':
        write(root / 'my labels.json', coco(every))
    elif way == 'cvat':
        write(root / 'annotations.xml', cvat(every))
    return root


def data_of(root, **overrides):
    root = root if isinstance(root, dict) else str(root)
    data = parse(['wildscenes-unet'], {'data': root, 'num_workers': 0, 'image_size': [32, 32],
                                       'outside': 'background'} | overrides).build_data()
    data.setup()
    return data


def truth():
    'What all ways mean, by shapely: whether the centre of a pixel lies inside.'
    x, y = np.meshgrid(np.arange(SIZE[1]) + .5, np.arange(SIZE[0]) + .5)
    out = np.zeros(SIZE, int)
    for value, ring in enumerate((HOUSE, TREE), 1):
        out[shapely.contains_xy(shapely.Polygon(ring), x, y)] = value
    return out


@pytest.mark.parametrize('way', ['coco', 'roboflow', 'one', 'labelme', 'labelme elsewhere', 'cvat'])
def test_every_way_draws_the_same_masks(way, tmp_path):
    root = lay(tmp_path, way)
    before = tiny.files_of(root)
    assert recognise(root).layout == 'annotated'
    data = data_of(root)
    assert data.scheme.names == NAMES
    for dataset in data.datasets.values():
        for index in range(len(dataset)):
            assert np.array_equal(dataset.read(index)[1], truth())
    sizes = {split: len(dataset) for split, dataset in data.datasets.items()}
    if way in ('coco', 'roboflow', 'labelme elsewhere'):  # the files or the folders say who trains
        assert sizes == {'train': 9, 'val': 3, 'test': 3}
    assert sum(sizes.values()) == 15 and tiny.files_of(root) == before  # nothing is written beside the input
    ignored = data_of(root, outside='ignore').datasets['test'].read(0)[1]
    assert set(np.unique(ignored)) == {0, 1, 255}


@pytest.mark.parametrize('recipe', ['wildscenes-unet'])
def test_verbs_take_annotations(recipe, tmp_path, capsys):
    root = lay(tmp_path / 'mine', 'coco')
    words = [f'data={root}', 'outside=background', *tiny.words(tiny.settings(recipe))]
    assert cli.main(['inspect', '--recipe', recipe, *words]) == 0
    shown = capsys.readouterr().out
    assert 'house' in shown and 'tree' in shown
    assert cli.main(['fit', '--recipe', recipe, *words, f'out={tmp_path / "runs"}']) == 0
    run = next((tmp_path / 'runs' / recipe).iterdir())
    assert cli.main(['test', '--checkpoint', str(run)]) == 0
    assert 'house' in (run / 'per_class.csv').read_text()


POINT = st.tuples(st.integers(-400, 5200).map(lambda v: v / 100), st.integers(-400, 3600).map(lambda v: v / 100))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(POINT, min_size=3, max_size=9)), max_size=5))
def test_drawn_is_what_a_reference_draws(shapes):
    'Pixel by pixel against even-odd crossings of the pixel centres, borders aside.'
    rings = [np.array(ring) for _, ring in shapes]
    drawn = draw_outlines([Outline('a', (ring,)) for ring in rings], [value for value, _ in shapes], SIZE)
    x, y = np.meshgrid(np.arange(SIZE[1]) + .5, np.arange(SIZE[0]) + .5)
    expected, border = np.full(SIZE, -1), np.zeros(SIZE, bool)
    for ring, (value, _) in zip(rings, shapes, strict=True):
        inside = np.zeros(SIZE, bool)
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
            if y0 != y1:
                inside ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        expected[inside] = value
        edge = shapely.LinearRing(ring) if len(np.unique(ring, axis=0)) > 2 else shapely.LineString(ring)
        border |= shapely.distance(edge, shapely.points(x, y)) < 1e-6
    assert np.array_equal(drawn[~border], expected[~border])


def test_masks_of_runs_are_those_of_pycocotools():
    expected = np.zeros((40, 50), bool)
    expected[5:30, 10:40], expected[12:14, 20:22] = True, False
    text = 'e<i0?000000000000000000^OC9=GC9=90000000000000000000000000000000000[<'  # of pycocotools 2.0
    assert np.array_equal(mask_of_runs(run_lengths(text), (40, 50)), expected)
    runs = np.diff(np.flatnonzero(np.diff(np.r_[2, expected.T.ravel(), 2])))
    assert np.array_equal(mask_of_runs(runs, (40, 50)), expected)


def test_crowds_lie_below_and_an_order_goes_first(tmp_path):
    runs = [0, SIZE[0] * SIZE[1]]  # all of the picture
    content = coco(['a.jpg'])
    crowd = {'id': 1000, 'image_id': 0, 'category_id': 9, 'iscrowd': 1,
             'segmentation': {'size': list(SIZE), 'counts': runs}}
    write(tmp_path / 'all.json', content | {'annotations': [*content['annotations'], crowd]})
    photo(tmp_path / 'a.jpg')
    def mask(**given):
        data = data_of({'test': str(tmp_path)}, **given)
        return data.datasets['test'].read(0)[1]
    assert np.array_equal(mask() == 1, truth() == 1) and (mask() != 0).all()
    assert mask(label_order=['house'])[15, 25] == 1 and mask()[15, 25] == 2


def test_cvat_and_labelme_shapes(tmp_path):
    photo(tmp_path / 'a.jpg')
    write(tmp_path / 'a.xml', cvat(['a.jpg']).replace('</image>', (
        '<mask label="tree" rle="1, 2, 1" left="1" top="25" width="2" height="2"/>'
        '<ellipse label="house" cx="40" cy="26" rx="4" ry="2" rotation="90"/><polyline label="tree" points="0,0;9,9"/>'
        '<tag label="tree"/></image>')))
    with collect_notes() as notes:
        mask = data_of({'test': str(tmp_path)}).datasets['test'].read(0)[1]
    assert mask[25:27, 1:3].tolist() == [[0, 2], [2, 0]]
    assert mask[23:30, 40].all() and not mask[26, 36] and not mask[26, 44]  # turned: it stands upright
    assert any('1 shapes have no area and are left out (first: a.jpg, polyline 4)' in n for n in notes)
    (tmp_path / 'a.xml').unlink()
    stream = io.BytesIO()
    Image.fromarray(np.eye(3, dtype=np.uint8) * 255).save(stream, 'PNG')
    content = labelme('a.jpg')
    content['shapes'] += [{'label': 'tree', 'points': [[1, 25], [3, 27]], 'shape_type': 'mask',
                           'mask': base64.b64encode(stream.getvalue()).decode()},
                          {'label': 'house', 'points': [[40, 26], [40, 29]], 'shape_type': 'circle'},
                          {'label': '__ignore__', 'points': [[0, 0], [3, 3]], 'shape_type': 'rectangle'}]
    write(tmp_path / 'a.json', content)
    mask = data_of({'test': str(tmp_path)}).datasets['test'].read(0)[1]
    assert mask[25:28, 1:4].tolist() == (2 * np.eye(3, dtype=int)).tolist()
    assert mask[26, 37:43].all() and not mask[23, 37] and (mask[:3, :3] == 255).all()


def change(content, path, value):
    *keys, last = path
    for key in keys:
        content = content[key]
    content[last] = value


FAULTS = {  # of a COCO file: where, what stands there, what is said
    'no list': (('annotations',), None, "no list 'annotations' in it"),
    'no name': (('images', 0), {'id': 0}, r"images\[0\] is .*expected id, file_name"),
    'twice': (('images', 1, 'id'), 0, 'images: id 0 a second time'),
    'unknown image': (('annotations', 0, 'image_id'), 77, 'annotation 0: image_id 77 is none of its images'),
    'unknown class': (('annotations', 0, 'category_id'), 3, 'annotation 0: category_id 3 is none of its categories'),
    'odd': (('annotations', 0, 'segmentation'), [[1, 2, 3]], r'a_0.jpg, annotation 0: segmentation is \[\[1, 2, 3\]\]'),
    'words': (('annotations', 0, 'segmentation'), [['a', 2, 3, 4, 5, 6]], 'expected pairs of numbers'),
    'nan': (('annotations', 0, 'segmentation'), [[float('nan'), 2, 3, 4, 5, 6]], 'expected pairs of numbers'),
    'runs': (('annotations', 0, 'segmentation'), {'size': list(SIZE), 'counts': [3, 4]}, 'its runs have 7 pixels'),
    'text': (('annotations', 0, 'segmentation'), {'size': list(SIZE), 'counts': 'é'}, 'no compressed runs'),
    'other size': (('annotations', 0, 'segmentation'), {'size': [2, 2], 'counts': [4]}, r'a mask of size \[2, 2\]'),
    'size': (('images', 0, 'width'), -4, 'image a_0.jpg: width -4, height 32, expected pixels'),
    'size of another': (('images', 0, 'width'), 60, 'masks of another size than their image'),
    'no picture': (('images', 0, 'file_name'), 'b.jpg', 'no image for 1 of 4 entries'),
    'a class that is not listed': (('categories', 0, 'name'), 'bush', "'bush' is no class of"),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_is_one_line(fault, tmp_path, capsys):
    path, value, said = FAULTS[fault]
    names = [f'a_{i}.jpg' for i in range(4)]
    for number, name in enumerate(names):
        photo(tmp_path / name, number)
    content = coco(names)
    change(content, path, value)
    write(tmp_path / 'all.json', content)
    (tmp_path / 'classes.txt').write_text('0 background\n1 house\n2 tree\n')
    with pytest.raises(ValueError, match=said) as told:
        data_of(tmp_path)
    assert '\n' not in str(told.value) and len(str(told.value)) < 400


@pytest.mark.parametrize('name, text, said', [
    ('a.json', '{"shapes": 3}', 'no list shapes'), ('a.json', '{"shapes": [', 'not JSON'),
    ('a.json', '{"shapes": [{"label": "a"}]}', r'shapes\[0\] is .*expected label and points'),
    ('a.json', '{"shapes": [{"label": "a", "points": [[1, 2]], "shape_type": "circle"}]}', 'a circle of 1 points'),
    ('a.json', '{"shapes": [{"label": "a", "points": [[1, 2], [3, 4]], "shape_type": "mask", "mask": "xx"}]}',
     'its mask is no PNG'),
    ('a.xml', '<annotations>', 'not XML'),
    ('a.xml', '<!DOCTYPE a><annotations></annotations>', 'declares a document type'),
    ('a.xml', '<annotations><image name="a.jpg" width="48" height="x"/></annotations>', 'expected pixels'),
    ('a.xml', '<annotations><image name="a.jpg" width="48" height="32"><box label="a" xtl="1"/></image></annotations>',
     'a.jpg, box 0: no ytl'),
    ('a.xml', '<annotations><image name="a.jpg" width="48" height="32"><polygon points="1,2"/></image></annotations>',
     'a.jpg, polygon 0 has no label'),
])
def test_faults_of_other_formats_are_one_line(name, text, said, tmp_path):
    photo(tmp_path / 'a.jpg')
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said) as told:
        data_of({'test': str(tmp_path)})
    assert '\n' not in str(told.value) and str(tmp_path / name) in str(told.value)


def test_outlines_that_cannot_be_drawn_are_named(tmp_path):
    photo(tmp_path / 'a.jpg')
    content = coco(['a.jpg'])
    for number, ring in enumerate(([1, 1, 5, 5], [100, 100, 120, 100, 120, 120], [40, 20, 90, 20, 90, 31], [])):
        content['annotations'].append({'id': 50 + number, 'image_id': 0, 'category_id': 9,
                                       'segmentation': [ring] if ring else []})
    write(tmp_path / 'all.json', content)
    with collect_notes() as notes:
        data_of({'test': str(tmp_path)})
    text = '\n'.join(notes)
    for said in ('fewer than three points and are left out (first: a.jpg, annotation 50)',
                 'lie outside of their picture (first: a.jpg, annotation 51)',
                 'reach beyond their picture and are cut there (first: a.jpg, annotation 52)',
                 'have a box alone, no outline, and are left out (first: a.jpg, annotation 53)'):
        assert said in text, text


def test_what_is_ambiguous_names_its_remedy(tmp_path):
    for split in 'train', 'val':
        photo(tmp_path / split / 'a.jpg')
    write(tmp_path / 'all.json', coco(['a.jpg']))
    with pytest.raises(ValueError, match='a.jpg fits .*set image_dir to the folder of one'):
        data_of(tmp_path)
    write(tmp_path / 'all.json', coco(['train/a.jpg', 'val/a.jpg']))
    write(tmp_path / 'more.json', coco(['val/a.jpg']))
    with pytest.raises(ValueError, match='val/a.jpg: both in .*all.json and in .*more.json: set label_file'):
        data_of(tmp_path)
    assert len(data_of(tmp_path, label_file='all.json').datasets) == 2
    with pytest.raises(FileNotFoundError, match='none.json: no annotation file'):
        data_of(tmp_path, label_file='none.json')
    write(tmp_path / 'all.json', coco(['train/a.jpg', 'val/a.jpg'], categories=[{'id': 2, 'name': 'house'}],
                                      annotations=[]))
    with pytest.raises(ValueError, match='one class .house., and pixels in no outline are ignored: set outside'):
        data_of(tmp_path, label_file='all.json', outside='ignore')
