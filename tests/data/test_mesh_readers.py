"Whatever a mesh, its materials and its labels hold: what is meant, or one line that names the file."
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.meshes.files import SUFFIXES, Mesh, fan, mesh_files, read_labels, read_mesh

BOUNDED = settings(max_examples=60, deadline=None, derandomize=True)
TYPES = {'float': 'f', 'float32': 'f', 'double': 'd', 'float64': 'd', 'char': 'b', 'int8': 'b', 'uchar': 'B',
         'uint8': 'B', 'short': 'h', 'int16': 'h', 'ushort': 'H', 'uint16': 'H', 'int': 'i', 'int32': 'i', 'uint': 'I',
         'uint32': 'I'}  # of PLY, in the letters of `struct`
WHOLE = [name for name, letter in TYPES.items() if letter not in 'fd']
FORMATS = {'ascii': '', 'binary_little_endian': '<', 'binary_big_endian': '>'}


def read(path, *arguments, reader=read_mesh):
    'What a reader gives; None for one of our errors, which names a file of the folder in one line.'
    try:
        return reader(path, *arguments)
    except (ValueError, OSError) as error:
        assert str(path.parent) in str(error) and '\n' not in str(error), error
        return None


def sound(mesh: Mesh):
    'What every mesh that is read is.'
    assert mesh.faces.shape[1:] == (3,) and (mesh.faces >= 0).all() and (mesh.faces < len(mesh.vertices)).all()
    assert np.isfinite(mesh.triangles).all()
    for name, shape in (('labels', ()), ('uv', (3, 2)), ('page', ()), ('polygon', ())):
        values = getattr(mesh, name)
        assert values is None or values.shape == (len(mesh.faces), *shape)
    if mesh.page is not None:
        assert (mesh.page < max(1, len(mesh.pages))).all() and np.isfinite(mesh.uv[mesh.page >= 0]).all()


def row(values, kinds, sign):
    'Values of some types as a line of text, or as bytes.'
    if not sign:
        return ' '.join(f'{value:.9g}' if isinstance(value, float) else str(value) for value in values).encode() + b'\n'
    return struct.pack(sign + ''.join(TYPES[kind] for kind in kinds), *values)


@st.composite
def polygons(draw):
    'Corners of some vertices, as whole numbers that each type of PLY holds, and polygons between them.'
    n = draw(st.integers(3, 9))
    vertices = draw(st.lists(st.tuples(*[st.integers(0, 99)] * 3), min_size=n, max_size=n))
    faces = draw(st.lists(st.lists(st.integers(0, n - 1), min_size=3, max_size=6), max_size=6))
    return vertices, faces


@st.composite
def ply_files(draw):
    'A PLY of any dialect, and what it means: vertices, polygons, labels.'
    (vertices, faces), encoding = draw(polygons()), draw(st.sampled_from([*FORMATS]))
    sign, kinds = FORMATS[encoding], {}
    for axis in draw(st.permutations('xyz')):
        kinds[axis] = draw(st.sampled_from([*TYPES]))
    kinds |= draw(st.dictionaries(st.sampled_from(['nx', 'red', 'quality']), st.sampled_from([*TYPES]), max_size=2))
    number, entry = draw(st.sampled_from(WHOLE)), draw(st.sampled_from(WHOLE))
    corners = draw(st.sampled_from(['vertex_indices', 'vertex_index']))
    label = draw(st.none() | st.sampled_from(WHOLE))
    labels = draw(st.lists(st.integers(0, 9), min_size=len(faces), max_size=len(faces))) if label else None
    first = draw(st.booleans())  # the label stands before the corners
    property_of = [f'property list {number} {entry} {corners}', *([f'property {label} label'] if label else [])]
    head = ['ply', f'format {encoding} 1.0', *draw(st.lists(st.sampled_from(['comment any words', 'obj_info x']))),
            f'element vertex {len(vertices)}', *(f'property {kind} {name}' for name, kind in kinds.items()),
            f'element face {len(faces)}', *(reversed(property_of) if first else property_of), 'end_header', '']
    body = []
    for vertex in vertices:
        values = dict(zip('xyz', vertex, strict=True))
        body.append(row([float(values.get(name, 1)) if TYPES[kind] in 'fd' else values.get(name, 1)
                         for name, kind in kinds.items()], kinds.values(), sign))
    for i, face in enumerate(faces):
        parts = [([len(face), *face], [number, *[entry] * len(face)]), *([([labels[i]], [label])] if label else [])]
        parts = parts[::-1] if first else parts
        body.append(row(sum((values for values, _ in parts), []), sum((kind for _, kind in parts), []), sign))
    return '\n'.join(head).encode() + b''.join(body), vertices, faces, labels


def as_triangles(faces):
    'Polygons cut around their first corner by a loop, and the number of each.'
    triangles = [([f[0], f[i], f[i + 1]], n) for n, f in enumerate(faces) for i in range(1, len(f) - 1)]
    return [t for t, _ in triangles], [n for _, n in triangles]


@BOUNDED
@given(ply_files())
def test_a_ply_of_any_dialect_is_what_it_means(tmp_path_factory, file):
    content, vertices, faces, labels = file
    path = tmp_path_factory.mktemp('p') / 'm.ply'
    path.write_bytes(content)
    if len({*map(len, faces)}) > 1 and b'ascii' not in content:
        with pytest.raises(ValueError, match='m.ply: .*save it as triangles, or as text'):
            read_mesh(path)
        return
    mesh, (triangles, number) = read_mesh(path), as_triangles(faces)
    sound(mesh)
    assert mesh.vertices.tolist() == [list(map(float, v)) for v in vertices] and mesh.faces.tolist() == triangles
    assert mesh.polygons == len(faces)
    if faces:
        assert (mesh.labels is None) == (labels is None)
        assert labels is None or mesh.labels.tolist() == [labels[n] for n in number]


def damaged(data, content):
    'A file that is cut short, or some of whose bytes are others.'
    if data.draw(st.booleans()):
        return content[:data.draw(st.integers(0, len(content)))]
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    return bytes(content)


@settings(BOUNDED, max_examples=150)
@given(ply_files(), st.data())
def test_a_damaged_ply_is_whole_or_refused(tmp_path_factory, file, data):
    content, vertices, faces, _ = file
    path = tmp_path_factory.mktemp('p') / 'm.ply'
    path.write_bytes(cut := damaged(data, content))
    mesh = read(path)
    if mesh is not None:
        sound(mesh)
        if content.startswith(cut):  # what is gone are bytes that say nothing
            assert len(mesh.vertices) == len(vertices) and mesh.polygons == len(faces)


@st.composite
def obj_files(draw):
    'An OBJ of any dialect: its lines, and what it means.'
    (vertices, faces), lines, split = draw(polygons()), [], draw(st.sampled_from([' ', '  ', '\t']))
    number = '{:.1f}'.format if draw(st.booleans()) else '{:e}'.format
    for vertex in vertices:
        color = draw(st.sampled_from([[], [1.0], [0.5, 0.5, 0.5]]))  # a weight or a colour follows some
        lines.append(split.join(['v', *map(number, [*vertex, *color])]))
    textured = draw(st.booleans())
    lines += [f'vt{split}{i / 10:g}{split}0.5' for i in range(len(vertices) if textured else 0)]
    for face in faces:
        words = []
        for corner in face:
            at = corner - len(vertices) if draw(st.booleans()) else corner + 1
            words.append(draw(st.sampled_from([f'{at}', f'{at}//1', *([f'{at}/{corner + 1}'] * textured)])))
        lines += draw(st.lists(st.sampled_from(['# a word', '', 's off', 'g roof', 'o house', 'vn 0 0 1', 'l 1 2']),
                               max_size=2))
        words = split.join(['f', *words])
        lines.append(words.replace(split, f'{split}\\\n', 1) if draw(st.booleans()) else words)
    return draw(st.sampled_from(['\n', '\r\n'])).join([*lines, '']), vertices, faces


@BOUNDED
@given(obj_files())
def test_an_obj_of_any_dialect_is_what_it_means(tmp_path_factory, file):
    text, vertices, faces = file
    path = tmp_path_factory.mktemp('o') / 'm.obj'
    path.write_bytes(text.encode())
    mesh, (triangles, _) = read_mesh(path), as_triangles(faces)
    sound(mesh)
    assert mesh.vertices.tolist() == [list(map(float, v)) for v in vertices] and mesh.faces.tolist() == triangles
    assert mesh.polygons == len(faces) and mesh.page is None  # no material has a picture


@settings(BOUNDED, max_examples=150)
@given(obj_files(), st.data())
def test_a_damaged_obj_is_sound_or_refused(tmp_path_factory, file, data):
    path = tmp_path_factory.mktemp('o') / 'm.obj'
    path.write_bytes(damaged(data, file[0].encode()))
    if (mesh := read(path)) is not None:
        sound(mesh)


@settings(BOUNDED, max_examples=150)
@given(st.binary(max_size=200), st.sampled_from(SUFFIXES), st.sampled_from([
    b'', b'ply\n', b'ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\n', b'v 0 0 0\nf 1 1 1\n', b'f ',
    b'ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\nproperty list uchar int x\nend_header\n']))
def test_any_bytes_are_a_sound_mesh_or_refused(tmp_path_factory, content, suffix, head):
    path = tmp_path_factory.mktemp('b') / f'm{suffix}'
    path.write_bytes(head + content)
    if (mesh := read(path)) is not None:
        sound(mesh)
        assert path in mesh_files(path)


NAMES = st.sampled_from(['roof.png', 'my roof.png', 'pages/roof.png', 'ä.jpg', 'a-b.png', 'on 1.png', '-.png'])
OPTIONS = st.sampled_from(['', '-s 1 1 1 ', '-o 0.5 0 ', '-clamp on ', '-bm 1.0 ', '-blendu off -imfchan r ',
                           '-mm 0 1 ', '-texres 512 ', '-type sphere '])


@BOUNDED
@given(st.lists(st.tuples(st.sampled_from('abc'), OPTIONS, NAMES), min_size=1, max_size=4, unique_by=lambda m: m[0]),
       st.sampled_from(['map_Kd', 'map_kd', 'MAP_KD']), st.sampled_from([' ', '\t']),
       st.lists(st.sampled_from(['Kd 1 1 1', '# words', 'illum 2', 'map_Bump b.png', '']), max_size=3),
       st.sampled_from(['\n', '\r\n']), st.booleans())
def test_pictures_of_materials_of_any_dialect(tmp_path_factory, materials, key, split, others, end, libraries):
    root, pictures = tmp_path_factory.mktemp('m'), {}
    (root / 'pages').mkdir()
    blocks = []
    for name, options, picture in materials:
        pictures[name] = root / picture
        (root / picture).touch()
        blocks.append(end.join([f'newmtl{split}{name}', *others, f'{key}{split}{options}{picture}', '']))
    files = blocks if libraries else [''.join(blocks)]
    for i, block in enumerate(files):
        (root / f'{i}.mtl').write_bytes(block.encode())
    words = ' '.join(f'{i}.mtl' for i in range(len(files)))
    corners = 'v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n'
    faces = ''.join(f'usemtl {name}\nf 1/1 2/2 3/3\n' for name in [*pictures, 'plain'])
    (root / 'm.obj').write_text(f'mtllib {words}\n{corners}{faces}')
    mesh = read_mesh(root / 'm.obj')
    sound(mesh)
    shown = [mesh.pages[page] if page >= 0 else None for page in mesh.page]
    assert shown == [*pictures.values(), None]
    assert {*pictures.values()} <= {*mesh_files(root / 'm.obj')}


@settings(BOUNDED, max_examples=100)
@given(st.binary(max_size=120) | st.text(max_size=60).map(str.encode), st.sampled_from([
    b'', b'newmtl a\n', b'newmtl a\nmap_Kd ', b'map_Kd a.png\n', b'newmtl a\nmap_Kd -s 1 ', b'\xff\xfen\x00e\x00']))
def test_any_bytes_of_a_material_are_read_or_refused(tmp_path_factory, content, head):
    path = tmp_path_factory.mktemp('m') / 'm.obj'
    path.with_suffix('.mtl').write_bytes(head + content)
    path.write_text('mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl a\nf 1/1 2/1 3/1\n')
    if (mesh := read(path)) is not None:
        sound(mesh)
        assert all(page.parent.is_relative_to(path.parent) for page in mesh.pages)
    read(path, reader=mesh_files)


WORDS = st.integers(-1, 99).map(str) | st.sampled_from(['1.0', '7e0', '+3', '1.5', 'nan', 'inf', 'x', '1,2', '１',
                                                        '1_0', '99999999999', '0x1', '-2147483649', '#'])


@settings(BOUNDED, max_examples=150)
@given(st.lists(WORDS, max_size=5), st.sampled_from(['\n', '\r\n', ' ', '\n\n', '\t']), st.sampled_from(
    ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'latin-1']), st.integers(0, 4))
def test_labels_are_whole_numbers_one_a_face_or_refused(tmp_path_factory, words, split, encoding, faces):
    path = tmp_path_factory.mktemp('l') / 'm.txt'
    path.write_bytes(split.join([*words, '']).encode(encoding, 'replace'))
    mesh = Mesh(np.zeros((3, 3)), np.tile([[0, 1, 2]], (faces, 1)).reshape(-1, 3), name='m.ply')
    labels = read(path, mesh, reader=read_labels)
    try:
        meant = [float(word) for word in words]
        right = len(words) == faces and all(v == round(v) and abs(v) < 2**31 for v in meant)
    except (ValueError, OverflowError):
        right = False
    if labels is not None:
        assert right and labels.tolist() == meant and labels.dtype == np.int64
    elif right:  # digits of another script, which the encoding has lost; what numpy reads otherwise
        assert {'１', '1_0'} & {*words} or encoding == 'utf-16-le' and not words


@BOUNDED
@given(st.binary(max_size=60))
def test_any_bytes_of_labels_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp('l') / 'm.txt'
    path.write_bytes(content)
    mesh = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]), name='m.ply')
    labels = read(path, mesh, reader=read_labels)
    assert labels is None or labels.shape == (1,)


def test_lists_whose_lengths_cancel_are_not_taken_for_others(tmp_path):
    "Four corners, three and five: as many bytes as three times four."
    head = ('ply\nformat binary_little_endian 1.0\nelement vertex 5\nproperty float x\nproperty float y\n'
            'property float z\nelement face 3\nproperty list uchar int vertex_indices\nend_header\n')
    faces = b''.join(struct.pack(f'<B{n}i', n, *range(n)) for n in (4, 3, 5))
    (tmp_path / 'm.ply').write_bytes(head.encode() + np.arange(15, dtype='<f4').tobytes() + faces)
    with pytest.raises(ValueError, match='m.ply: lists vertex_indices of several lengths; .*save it as triangles'):
        read_mesh(tmp_path / 'm.ply')


@pytest.mark.parametrize('lists', [[], [[0, 1, 2]], [[0, 1], [0, 1, 2, 3], [], [1, 2, 3]]])
def test_what_has_no_area_gives_no_triangle(lists):
    places, number = fan([np.array(entry) for entry in lists])
    assert number.tolist() == [i for i, entry in enumerate(lists) for _ in range(len(entry) - 2)]
    assert places.shape == (len(number), 3)
