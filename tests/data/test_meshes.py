"Meshes as they come: odd ones, broken ones, large ones."
from pathlib import Path

import numpy as np
import pytest
import warm
from a_mesh import grid
from warm import TESTS

from geoseg.data.labels import LabelScheme
from geoseg.data.meshes.clusters import MeshData
from geoseg.data.meshes.features import face_features
from geoseg.data.meshes.files import Mesh, read_mesh, write_ply
from geoseg.data.meshes.prepared import Preparation, prepare_mesh
from geoseg.models.nomeformer import NoMeFormer, TexturedNoMeFormer
from geoseg.world.layouts import world_data

TWO = LabelScheme(['low', 'high'])


def prepared(mesh, tmp_path, **settings):
    write_ply(tmp_path / 'mesh.ply', mesh)
    return prepare_mesh(tmp_path / 'mesh.ply', TWO, Preparation(**settings), tmp_path / 'cache')


def test_features_equal_a_loop(tmp_path):
    mesh = read_mesh(world_data('mesh', size='tiny') / 'train' / 'tile_01_01.ply')
    faces = face_features(mesh.triangles[:200], np.zeros(3), np.zeros(3))
    for row, (a, b, c) in zip(faces, mesh.triangles[:200], strict=True):
        sides = [np.linalg.norm(q - p) for p, q in ((a, b), (b, c), (c, a))]
        s = sum(sides) / 2
        area = max(0, s * (s - sides[0]) * (s - sides[1]) * (s - sides[2])) ** 0.5  # Heron
        cosines = [(v @ w) / np.linalg.norm(v) / np.linalg.norm(w)
                   for v, w in ((b - a, c - a), (c - b, a - b), (a - c, b - c))]
        np.testing.assert_allclose(row[15], area, rtol=1e-3)
        np.testing.assert_allclose(np.cos(row[16:19]), cosines, atol=1e-5)
        np.testing.assert_allclose(row[19:22], sides, rtol=1e-5)
        np.testing.assert_allclose(row[9:12], (a + b + c) / 3, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(row[:9], np.concatenate([a, b, c]), rtol=1e-5, atol=1e-5)


def test_one_face_is_a_mesh(tmp_path):
    mesh = prepared(Mesh(np.eye(3), np.array([[0, 1, 2]]), np.array([1])), tmp_path)
    assert (len(mesh), mesh.meta['counts']['kept']) == (1, 1)
    data = MeshData({'test': str(tmp_path)}, labels=TWO, cache=tmp_path / 'cache')
    sample = data.loader('test').dataset[0]
    assert sample['faces'].shape == (1, 1, 25) and sample['faces'].isfinite().all()
    logits = NoMeFormer(2, 25, 16, 2, 1).eval()(sample['faces'][None], sample['valid'][None])['logits']
    assert logits.shape == (1, 1, 1, 2) and logits.isfinite().all()


def test_broken_into_parts_with_edges_of_many_faces(tmp_path):
    far = grid(4)
    far.vertices = far.vertices + [500, 0, 0]
    fan = np.array([[0, 0, 0], [0, 0, 1], *([np.cos(t), np.sin(t), 0] for t in range(5))])
    parts, faces, start = [grid(4).vertices, far.vertices, fan + [0, 90, 0]], [grid(4).faces], 25
    faces += [far.faces + start, np.array([[0, 1, i] for i in range(2, 7)]) + 2 * start]
    mesh = Mesh(np.concatenate(parts), np.concatenate(faces))
    counts = prepared(mesh, tmp_path, cluster_size=16).meta['counts']
    assert (counts['faces'], counts['kept'], counts['non-manifold edges']) == (69, 69, 1)


@pytest.mark.parametrize(('faces', 'message'), [
    ([], '0 faces, 0 of them without area'), ([[0, 0, 1], [1, 2, 2]], '2 faces, 2 of them without area')])
def test_nothing_to_classify_is_an_error(tmp_path, faces, message):
    with pytest.raises(ValueError, match=f'mesh.ply: no face to classify .{message}'):
        prepared(Mesh(np.eye(3), np.array(faces, np.int64).reshape(-1, 3)), tmp_path)


def test_labels_of_another_length(tmp_path):
    mesh = grid(2)
    mesh.labels = None
    (tmp_path / 'mesh.txt').write_text('0\n' * 7)
    with pytest.raises(ValueError, match='mesh.txt: 7 labels for the 8 faces of mesh.ply'):
        prepared(mesh, tmp_path)


def test_a_label_nobody_declared(tmp_path):
    mesh = grid(2)
    mesh.labels = mesh.labels + 5
    with pytest.raises(ValueError, match='mesh.ply: .* does not declare: '):
        prepared(mesh, tmp_path)
    assert (np.asarray(prepared(mesh, tmp_path, unknown='ignore').labels) == 255).all()


def test_a_vertex_that_is_not_finite(tmp_path):
    mesh = grid(2)
    mesh.vertices[4] = np.nan
    with pytest.raises(ValueError, match='6 faces have a vertex that is not finite .first: vertex 4'):
        prepared(mesh, tmp_path)


def test_labels_are_needed_to_train_and_not_to_predict(tmp_path):
    mesh = grid(2)
    mesh.labels = None
    write_ply(tmp_path / 'bare.ply', mesh)
    with pytest.raises(ValueError, match='bare.ply: no labels to train on'):
        MeshData({'train': str(tmp_path)}, labels=TWO, cache=tmp_path / 'cache').setup()
    MeshData({'predict': str(tmp_path)}, labels=TWO, cache=tmp_path / 'cache').setup()


def test_pixels_from_a_table_and_none_from_a_pickle(tmp_path):
    rng = np.random.default_rng(0)
    counts = np.array([3, 0, 9, 1, 0, 0, 2, 40])
    pixels = rng.integers(0, 255, (counts.sum(), 3), dtype=np.uint8)
    np.savez(tmp_path / 'mesh.npz', pixels=pixels, counts=counts)
    mesh_of_grid = prepared(grid(2), tmp_path, pixels=8)
    taken = np.diff(mesh_of_grid.offsets)[np.asarray(mesh_of_grid.source)]
    assert taken.tolist() == np.minimum(counts, 8).tolist()
    face = mesh_of_grid.source[0]
    assert (mesh_of_grid.pixels[mesh_of_grid.offsets[face]:mesh_of_grid.offsets[face + 1]] == pixels[:3]).all()
    np.savez(tmp_path / 'mesh.npz', pixels=np.array([{'a': 1}], object), counts=counts)
    with pytest.raises(ValueError, match='mesh.npz: expected arrays pixels and counts, without pickles'):
        prepared(grid(2), tmp_path, pixels=8)
    np.savez(tmp_path / 'mesh.npz', pixels=pixels, counts=counts[:5])
    with pytest.raises(ValueError, match='counts of 5 faces'):
        prepared(grid(2), tmp_path, pixels=8)


def test_an_untextured_mesh_has_no_pixels_and_a_prediction(tmp_path):
    write_ply(tmp_path / 'mesh.ply', grid(6))
    data = MeshData({'predict': str(tmp_path)}, labels=TWO, use_texture=True, max_texture_pixels=4,
                    cache=tmp_path / 'cache')
    batch = next(iter(data.predict_dataloader()))
    assert not batch['pixel_mask'].any()
    network = TexturedNoMeFormer(2, 25, 16, 2, 1, texture_embed_dim=8).eval()
    keys = ('faces', 'valid', 'pixels', 'pixel_mask', 'pixel_at')
    assert network(**{k: batch[k] for k in keys})['logits'].isfinite().all()


def test_another_content_or_setting_is_prepared_anew(tmp_path):
    a = prepared(grid(3), tmp_path)
    assert prepared(grid(3), tmp_path).folder == a.folder
    assert prepared(grid(3), tmp_path, cluster_size=8).folder != a.folder
    assert prepared(grid(3, z=1.), tmp_path).folder != a.folder
    (tmp_path / 'mesh.txt').write_text('1\n' * 18)
    assert prepared(grid(3), tmp_path).folder != a.folder


def test_a_large_mesh_is_prepared_in_bounded_memory(tmp_path):
    (tmp_path / 'prepare.py').write_text(f'''
import resource, sys
sys.path[:0] = {[str(Path(__file__).parent), str(TESTS)]!r}
from pathlib import Path
from test_meshes import grid, prepared
low = prepared(grid(20), Path({str(tmp_path)!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mesh = prepared(grid(240), Path({str(tmp_path)!r}))
print(len(mesh), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 115.2)
''')
    done = warm.run(tmp_path / 'prepare.py')
    assert done.returncode == 0, done.stderr
    clusters, kilobytes = done.stdout.split()[-2:]
    assert int(clusters) == 450
    assert float(kilobytes) < 1500  # of 1,000 faces, so that a million take less than 1.5 GB


def test_coordinates_of_a_city_keep_their_centimetres(tmp_path):
    mesh = grid(4)
    mesh.vertices = mesh.vertices * 0.01 + [391234.5, 5820000.25, 30.]
    mesh.frame = {'crs': 'EPSG:25833', 'offset': [0.0, 0.0, 0.0]}
    kept_mesh = prepared(mesh, tmp_path)
    assert kept_mesh.meta['counts']['kept'] == 32
    edges = face_features(np.asarray(kept_mesh.triangles), np.zeros(3), np.zeros(3))[:, 19:22]
    np.testing.assert_allclose(np.sort(edges, 1), np.tile([0.01, 0.01, 0.01 * 2 ** 0.5], (32, 1)), rtol=1e-3)


def test_workers_prepare_what_one_process_does(tmp_path, monkeypatch, capsys):
    "The same folders, byte by byte; also where the workers stand elsewhere and the paths are relative."
    from distributed import LocalCluster

    from geoseg import cli
    world, written = world_data('mesh', size='tiny'), {}
    monkeypatch.chdir(world.parent)
    words = ['prepare', '--recipe', 'nomeformer-texture', f'data={world.name}', 'num_workers=0']
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        for name, more in (('one', []), ('two', [f'address={cluster.scheduler_address}'])):
            cache = tmp_path / name
            assert cli.main([*words, f'cache={cache}', *more]) == 0, capsys.readouterr().err
            assert 'meshes prepared in' in capsys.readouterr().out
            written[name] = {path.relative_to(cache): path.read_bytes() for path in cache.rglob('*') if path.is_file()
                             and not path.name.startswith('.')}
    assert len(written['one']) > 20 and written['one'] == written['two']
    for more, wrong in (['workers=0'], 'workers is 0'), (['workers=1', 'address=tcp://here:1'], 'one of them'):
        assert cli.main([*words, *more]) == 2 and wrong in capsys.readouterr().err
    deepglobe = ['prepare', '--recipe', 'deepglobe-trm', 'data=world:tiny', 'patch=32', 'workers=2']
    assert cli.main(deepglobe) == 2 and 'num_workers=N' in capsys.readouterr().err
