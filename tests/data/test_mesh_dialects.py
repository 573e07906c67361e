"""Meshes as other programs write them: read as they are meant, or refused by name."""
import numpy as np
import pytest
from PIL import Image

from geoseg.data.meshes.clusters import MeshData
from geoseg.data.meshes.files import mesh_files, read_mesh

PLY = '''ply
format ascii 1.0
element vertex {vertices}
property float x
property float y
property float z
element face {faces}
property list uchar int vertex_indices
property int {label}
end_header
0 0 0
1 0 0
1 1 0
0 1 0
3 0 1 2 1
3 0 2 3 0
'''
OBJ = '''mtllib {libraries}
v 0 0 0
v 1 0 0
v 1 1 0
vt 0 0
vt 1 0
vt 1 1
usemtl roof
f 1/1 2/2 3/3
'''


@pytest.mark.parametrize('vertices, faces', [(4, 5), (4, 3), (9, 2)])
def test_a_text_that_is_cut_short(tmp_path, vertices, faces):
    path = tmp_path / 'm.ply'
    path.write_text(PLY.format(vertices=vertices, faces=faces, label='label'))
    with pytest.raises(ValueError, match='m.ply: (cut short|not a readable PLY mesh)'):
        read_mesh(path)


@pytest.mark.parametrize('split, purpose', [('train', 'to train on'), ('val', 'to validate on')])
def test_a_property_of_nearly_the_name(tmp_path, split, purpose):
    for name in ('train', 'val', 'test'):
        (tmp_path / name).mkdir()
        label = 'Label' if name == split else 'label'
        (tmp_path / name / 'm.ply').write_text(PLY.format(vertices=4, faces=2, label=label))
    (tmp_path / 'classes.txt').write_text('0 ground\n1 building\n')
    data = MeshData(str(tmp_path), cache=str(tmp_path / 'cache'))
    with pytest.raises(ValueError, match=f'm.ply: no labels {purpose}; expected a face property label .*called Label'):
        data.setup('fit')


def written(folder, libraries='a.mtl', line='map_Kd roof.png', picture='roof.png', names=('a.mtl',)):
    (folder / picture).parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / picture)
    for name in names:
        (folder / name).write_text(f'newmtl {name}\n')
    (folder / names[-1]).write_text(f'newmtl roof\n{line}\n')
    (folder / 'm.obj').write_text(OBJ.format(libraries=libraries))
    return folder / 'm.obj'


@pytest.mark.parametrize('line, picture', [
    ('map_Kd roof.png', 'roof.png'), ('map_kd roof.png', 'roof.png'), ('MAP_KD\troof.png', 'roof.png'),
    ('map_Kd -s 1 1 1 -o 0 0 roof.png', 'roof.png'), ('map_Kd -clamp on -bm 1.0 roof.png', 'roof.png'),
    ('map_kd -blendu off -imfchan r -mm 0 1 -texres 512 my roof.png', 'my roof.png'),
    ('map_Kd -s 1 1 1 2 roof.png', '2 roof.png'), (r'map_Kd pages\roof.png', 'pages/roof.png'),
    ('map_Kd "my roof.png"', 'my roof.png'), ('  map_Kd roof.png', 'roof.png'),
])
def test_lines_of_a_material(tmp_path, line, picture):
    path = written(tmp_path, line=line, picture=picture)
    mesh = read_mesh(path)
    assert [page.name for page in mesh.pages] == [picture.rpartition('/')[2]] and mesh.page.tolist() == [0]
    assert tmp_path / picture in mesh_files(path)


@pytest.mark.parametrize('libraries, names', [
    ('a.mtl b.mtl', ('a.mtl', 'b.mtl')), ('a.mtl\nmtllib b.mtl', ('a.mtl', 'b.mtl')),
    ('my roof.mtl', ('my roof.mtl',))])
def test_several_libraries(tmp_path, libraries, names):
    path = written(tmp_path, libraries, names=names)
    assert read_mesh(path).page.tolist() == [0]
    assert {tmp_path / name for name in names} <= set(mesh_files(path))


@pytest.mark.parametrize('face, says', [
    ('f 0/1 2/2 3/3', 'index 0 in 0/1; an OBJ counts from 1'), ('f 1/0 2/2 3/3', 'index 0 in 1/0'),
    ('f 1/-9 2/2 3/3', 'texture coordinate -9 of the 3'), ('f 1/9 2/2 3/3', 'texture coordinate 9 of 3'),
    ('f -9 2 3', 'vertices that are not there')])
def test_indices_that_are_none(tmp_path, face, says):
    path = written(tmp_path)
    path.write_text(path.read_text().replace('f 1/1 2/2 3/3', face))
    with pytest.raises(ValueError, match=f'm.obj: .*{says}'):
        read_mesh(path)


@pytest.mark.parametrize('face', ['f -3/-3 -2/-2 -1/-1', 'f 1//1 2//1 3//1', 'f 1 2 3'])
def test_indices_that_are_meant(tmp_path, face):
    path = written(tmp_path)
    path.write_text(path.read_text().replace('f 1/1 2/2 3/3', face))
    assert read_mesh(path).faces.tolist() == [[0, 1, 2]]
