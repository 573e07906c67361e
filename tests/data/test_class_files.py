"""Class lists and tables in every form that people save: a right answer, or one line that names the file."""
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoseg.core.inputs import decode_text
from geoseg.core.pages import csv_text, read_csv
from geoseg.data.labels import LabelScheme
from geoseg.data.masks import read_mask
from geoseg.data.pictures.geotags import read_gps
from geoseg.data.splits import read_split
from geoseg.training.config import parse

ENCODINGS = ('utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'cp1252', 'latin-1')
NAMES = ['Forêt', 'eau', 'sol nu', 'bâti']
FORMS = {
    'ids': '{i} {n}', 'tabs': '{i}\t{n}', 'commas': '{i},{n}', 'colons': '{i}: {n}', 'semicolons': '{i}; {n}',
    'names': '{n}', 'spaces around': '  {i}   {n}  '}


def scheme_of(folder, content, name='classes.txt'):
    path = folder / name
    path.write_bytes(content)
    return LabelScheme.load(path)


@pytest.mark.parametrize('ends', ['\n', '\r\n', '\r', '\n\n'])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_forms_of_classes(encoding, ends, tmp_path):
    for form in FORMS.values():
        text = ends.join(form.format(i=i, n=n) for i, n in enumerate(NAMES)) + ends
        assert scheme_of(tmp_path, text.encode(encoding)).names == NAMES, form
        if 'utf' in encoding:  # some programs write a mark before the mark
            assert scheme_of(tmp_path, f'\ufeff{text}'.encode(encoding)).names == NAMES, form


@pytest.mark.parametrize('text, says', [
    ('0 a\nb\n', "line 2: 'b', expected id and name .0 background., or names alone in all lines"),
    ('a\n1 b\n', "line 1: 'a', expected id and name"), ('0\n1\n', "line 1: '0', expected id and name"),
    ('a, b, c\n', 'line 1: .* expected one name a line'), ('64 128 64\tAnimal\n', 'line 1: .* category.csv'),
    ('a\na\n', "name 'a' stands in 2 lines"), ('', 'no classes'), ('# nothing\n\n', 'no classes'),
    ('0 a\n70000 b\n', "line 2: id is '70000'")])
def test_classes_that_cannot_be_meant(text, says, tmp_path):
    with pytest.raises(ValueError, match=f'classes.txt: .*{says}|classes.txt: {says}'):
        scheme_of(tmp_path, text.encode())


names = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters=',;:=\t#\x7f\xa0\xad',
                              exclude_categories=['Cc', 'Zl', 'Zp', 'Zs']), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(names.filter(lambda n: not n[0].isdigit()), min_size=1, max_size=9, unique=True),
       st.sampled_from(ENCODINGS[:6]), st.sampled_from(sorted(FORMS)))
def test_any_names_come_back(tmp_path_factory, given_names, encoding, form):
    text = '\n'.join(FORMS[form].format(i=i, n=n) for i, n in enumerate(given_names))
    try:
        assert scheme_of(tmp_path_factory.getbasetemp(), text.encode(encoding)).names == given_names
    except ValueError as error:  # two bytes a letter, of which neither is zero, and no mark
        assert encoding == 'utf-16-le' and 'not a text' in str(error)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.lists(st.sampled_from('0 1 255 a b "x , ; \t \n : # é id,name,abbr,r,g,b'.split(' ')
                                                         + ['\n', ' ', ',']), max_size=30).map(
    lambda parts: ''.join(parts).encode()), st.sampled_from(['classes.txt', 'category.csv', 'gps.csv', 'split.csv']))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    reader = {'gps.csv': read_gps, 'split.csv': read_split}.get(name, LabelScheme.load)
    try:
        found = reader(path)
    except ValueError as error:
        assert name in str(error)
    else:
        assert len(found.names if isinstance(found, LabelScheme) else found)


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('sign', [',', ';', '\t'])
def test_tables_of_every_reader(encoding, sign, tmp_path):
    rows = {'gps.csv': (['filename', 'lat', 'long', 'source'], [['été.png', '50.1', '4', 'Forêt']]),
            'split.csv': (['name', 'split'], [['été', 'train']]),
            'category.csv': (['id', 'name', 'abbr', 'r', 'g', 'b'], [['0', 'Forêt', '', '0', '9', '0'],
                                                                     ['1', 'eau', '', '0', '0', '255']])}
    for name, (head, cells) in rows.items():
        (tmp_path / name).write_bytes('\r\n'.join(sign.join(row) for row in [head, *cells]).encode(encoding))
    gps = read_gps(tmp_path / 'gps.csv')
    assert gps.index.tolist() == ['été.png'] and gps['source'].tolist() == ['Forêt'] and gps['lat'].tolist() == [50.1]
    assert read_split(tmp_path / 'split.csv')['name'].tolist() == ['été']
    scheme = LabelScheme.load(tmp_path / 'category.csv')
    assert scheme.names == ['Forêt', 'eau'] and scheme.colors.tolist() == [[0, 9, 0], [0, 0, 255]]


def test_our_own_tables_come_back(tmp_path):
    import pandas as pd
    table = pd.DataFrame({'name': ['=a', 'b;c', 'd\te'], 'split': ['train', 'val', 'test']})
    (tmp_path / 'x.csv').write_text(csv_text(table, index=False))
    assert read_csv(tmp_path / 'x.csv').equals(table)


def test_what_is_no_text():
    with pytest.raises(ValueError, match='a.txt: not a text'):
        decode_text(b'\x89PNG\r\n\0\0\1\2\0', 'a.txt')


# no class list, or one without colours

def write(root, masks):
    for kind in 'images', 'masks':
        (root / kind).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    for i, picture in enumerate(noise):
        Image.fromarray(picture).save(root / 'images' / f'a_{i:02}.png')
        Image.fromarray(masks).save(root / 'masks' / f'a_{i:02}.png')


def offered(root, *words):
    with pytest.raises(ValueError, match='neither category.csv nor classes.txt') as told:
        parse(['unet'], {'data': str(root), 'image_size': [32, 32]}).build_data()
    assert all(word in str(told.value) for word in words)
    content, file = re.search(r"printf '(.*)' > (\S+);", str(told.value)).groups()
    open(file, 'w').write(content.replace('\\n', '\n'))
    return LabelScheme.load(root)


def test_a_class_list_is_offered_that_reads_the_masks(tmp_path):
    values = np.zeros((32, 32), np.uint8)
    values[:8], values[8:16], values[16:20] = 3, 7, 255
    write(tmp_path / 'index', values)
    Image.new('RGB', (32, 32)).save(tmp_path / 'index' / 'images' / 'dark.png')  # a picture of one colour is no mask
    scheme = offered(tmp_path / 'index', '12 masks were read', '3 (3072 px)', '255 (1536 px)')
    (tmp_path / 'index' / 'images' / 'dark.png').unlink()
    assert scheme.names == ['class0', 'class3', 'class7']
    assert set(np.unique(read_mask(tmp_path / 'index/masks/a_00.png', scheme))) == {0, 1, 2, 255}
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[:8] = 0, 200, 0
    write(tmp_path / 'colour', colours)
    scheme = offered(tmp_path / 'colour', '(0, 200, 0) (3072 px)')
    assert np.unique(read_mask(tmp_path / 'colour/masks/a_00.png', scheme)).tolist() == [0, 1]
    (tmp_path / 'colour' / 'category.csv').unlink()
    scheme = scheme_of(tmp_path / 'colour', b'ground\ntree\n')
    with pytest.raises(ValueError, match='masks are coloured, and these classes have no colours: write a category.csv'):
        read_mask(tmp_path / 'colour/masks/a_00.png', scheme)


def test_names_keep_their_line_ends(tmp_path):
    'What is written comes back, and a file of another system is read as ever.'
    scheme = LabelScheme(['a\rb', 'c\r\nd', '=e'], colors=[(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    scheme.save(tmp_path / 'category.csv')
    assert LabelScheme.load(tmp_path / 'category.csv').names == scheme.names
    (tmp_path / 'category.csv').write_bytes(b'id,name,r,g,b\r0,"a\rb",1,2,3\r1,c,4,5,6\r')
    assert LabelScheme.load(tmp_path / 'category.csv').names == ['a\rb', 'c']
