"Every face is answered."
import numpy as np
import pytest
from a_mesh import grid

from geoseg.data.meshes.files import read_mesh, write_obj, write_ply
from geoseg.inference.predict import predict
from geoseg.training.run import Run
from geoseg.world.layouts import world_data


@pytest.fixture
def on_meshes(tiny_run):
    'A textured run on the tiny world.'
    return Run(tiny_run('nomeformer-texture'))


def test_every_face_of_a_folder_is_answered(on_meshes, tmp_path):
    source = world_data('mesh', size='tiny') / 'test' / 'tile_02_01.obj'
    mesh = read_mesh(source)
    mesh.labels = None
    (tmp_path / 'new' / 'deep').mkdir(parents=True)
    write_obj(tmp_path / 'new' / 'city.obj', mesh)
    write_ply(tmp_path / 'new' / 'deep' / 'plain.ply', grid(5))
    ask = on_meshes.folder, {'predict': str(tmp_path / 'new')}, tmp_path / 'out'
    with pytest.raises(ValueError, match='which lies outside of .*new; allow_outside=true takes it'):  # its pages
        predict(*ask)
    folder = predict(*ask, {'allow_outside': True}, write=['page'])
    city, plain = (read_mesh(folder / name) for name in ('city.ply', 'deep/plain.ply'))
    assert len(city.labels) == len(mesh.faces) and set(city.labels) <= set(range(5))
    assert city.frame == mesh.frame and (city.faces == mesh.faces).all()
    assert np.loadtxt(folder / 'city.txt', int).tolist() == city.labels.tolist()
    assert len(plain.labels) == 50 and (folder / 'city.html').stat().st_size > 10_000
    with pytest.raises(ValueError, match='window: not for meshes; they take write'):
        predict(on_meshes.folder, window=64)
