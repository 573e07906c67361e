"Meshes as they come: odd ones, broken ones, large ones; a run that resumes, predicts and evaluates."
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from warm import execute, run

from geoseg.data.faces import MeshData, Preparation, face_features, prepare_mesh
from geoseg.data.labels import LabelScheme
from geoseg.data.meshes import Mesh, read_mesh, write_obj, write_ply
from geoseg.data.world import world_data
from geoseg.models.nomeformer import NoMeFormer, TexturedNoMeFormer
from geoseg.training.runs import Run, evaluate, predict, train

TWO = LabelScheme(['low', 'high'])


@pytest.fixture
def trained(tiny_run):
    'A textured run on the tiny world.'
    return Run(tiny_run('nomeformer-texture'))


def grid(n, name='grid', z=0.):
    'A square of 2 n² faces with labels.'
    x, y = (a.ravel() for a in np.meshgrid(np.arange(n + 1.), np.arange(n + 1.)))
    i = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + n + 2], 1), np.stack([i, i + n + 2, i + n + 1], 1)])
    return Mesh(np.stack([x, y, 0 * x + z], 1), faces, np.arange(len(faces)) % 2, name=name)


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
    found = prepared(mesh, tmp_path, cluster_size=16).meta['counts']
    assert (found['faces'], found['kept'], found['non-manifold edges']) == (69, 69, 1)


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
    found = prepared(grid(2), tmp_path, pixels=8)
    taken = np.diff(found.offsets)[np.asarray(found.source)]
    assert taken.tolist() == np.minimum(counts, 8).tolist()
    face = found.source[0]
    assert (found.pixels[found.offsets[face]:found.offsets[face + 1]] == pixels[:3]).all()
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
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_meshes import grid, prepared
low = prepared(grid(20), Path({str(tmp_path)!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mesh = prepared(grid(240), Path({str(tmp_path)!r}))
print(len(mesh), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 115.2)
''')
    done = run(tmp_path / 'prepare.py')
    assert done.returncode == 0, done.stderr
    clusters, kilobytes = done.stdout.split()[-2:]
    assert int(clusters) == 450
    assert float(kilobytes) < 1500  # of 1,000 faces, so that a million take less than 1.5 GB


def test_coordinates_of_a_city_keep_their_centimetres(tmp_path):
    mesh = grid(4)
    mesh.vertices = mesh.vertices * 0.01 + [391234.5, 5820000.25, 30.]
    mesh.frame = {'crs': 'EPSG:25833', 'offset': [0.0, 0.0, 0.0]}
    found = prepared(mesh, tmp_path)
    assert found.meta['counts']['kept'] == 32
    edges = face_features(np.asarray(found.triangles), np.zeros(3), np.zeros(3))[:, 19:22]
    np.testing.assert_allclose(np.sort(edges, 1), np.tile([0.01, 0.01, 0.01 * 2 ** 0.5], (32, 1)), rtol=1e-3)


@pytest.mark.parametrize('recipe', ['nomeformer', 'nomeformer-texture'])
def test_recipes_have_the_published_sizes(recipe):
    from geoseg.training.recipes import parse
    cli = parse([recipe], {'data': 'world:tiny', 'trainer.accelerator': 'cpu'})
    cli.build()
    network, task = cli.model.network, cli.model
    assert (network.encoder.summary.numel(), len(network.encoder.blocks), network.encoder.heads) == (256, 4, 4)
    assert (cli.datamodule.n_clusters, cli.datamodule.batch_size) == (16, 8)
    rates = {g['name'].partition('/no')[0]: g['lr'] for g in task.groups(1e-3, 1e-4)}
    assert rates['head'] == pytest.approx(1e-2) and rates['rest/layer 4'] == pytest.approx(1e-3)
    assert rates['rest/layer 0'] == pytest.approx(1e-3 / 16)
    assert cli.config.run.ema == 0.9999 and cli.config.run.monitor == 'F1/val'
    if recipe == 'nomeformer-texture':
        assert (network.fusion_method, network.encoder.project.in_features) == ('gated', 128)
        assert cli.datamodule.settings.pixels == 64


def test_rates_fall_over_half_of_a_run_and_stay(tmp_path):
    run = train('nomeformer', 'world:tiny', epochs=4, out=tmp_path, lr=1e-3, overrides=tiny.settings(
        'nomeformer', epochs=None) | {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1})
    rates = run.metrics['lr'].to_numpy()  # of the stem at the end of an epoch: a quarter of lr, two blocks above it
    ends = np.array([(1e-6 / 1e-2 + (1 - 1e-6 / 1e-2) * f) for f in (0.5, 0, 0, 0)])
    np.testing.assert_allclose(rates, 1e-3 / 4 * ends, rtol=1e-6)


def test_a_run_goes_on_bit_by_bit_and_by_itself(tmp_path):
    settings = tiny.settings('nomeformer', ema=0.9, every_n_epochs=1) | {'trainer.limit_val_batches': 1}
    whole = train('nomeformer', 'world:tiny', out=tmp_path / 'whole', overrides=settings)
    first = train('nomeformer', 'world:tiny', out=tmp_path / 'auto', resume='auto', overrides=settings)
    kept = next((first.folder / 'checkpoints').glob('epoch000-*.ckpt'))
    kept.replace(first.last)
    again = train('nomeformer', out=tmp_path / 'auto', resume='auto')
    assert again.folder == first.folder
    assert (again.folder / 'metrics.csv').read_bytes() == (whole.folder / 'metrics.csv').read_bytes()
    weights = [torch.load(r.last, weights_only=True)['state_dict'] for r in (whole, again)]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_an_encoder_is_taken_over_and_frozen(trained, tmp_path):
    network = TexturedNoMeFormer(5, 25, 16, 2, 2, texture_embed_dim=8, pretrained=str(trained.folder),
                                 unfrozen_blocks=1)
    theirs = trained.predictor('cpu').network
    assert torch.equal(network.encoder.summary, theirs.encoder.summary) and torch.equal(network.mean, theirs.mean)
    assert not torch.equal(network.head[1].weight, theirs.head[1].weight)
    assert {n.split('.')[1] for n, p in network.encoder.named_parameters() if p.requires_grad} == {'1'}
    with pytest.raises(ValueError, match='its encoder does not fit'):
        NoMeFormer(5, 25, 32, 2, 2, pretrained=str(trained.folder))


def test_a_mesh_is_no_picture(tmp_path):
    from geoseg.training.recipes import parse
    with pytest.raises(ValueError, match='is of layout mesh; this recipe is for pictures'):
        parse(['unet'], {'data': str(world_data('mesh', size='tiny'))})


def test_a_run_evaluates_each_face_once(trained, tmp_path):
    result = evaluate(trained.folder, out=tmp_path)
    kept = sum(m.meta['counts']['kept'] for m in result.data.prepared['test'])
    assert result.confusion.sum() == kept
    assert np.isfinite(result.loss) and len(result.blocks()) == len(result.names)


def test_every_face_of_a_folder_is_answered(trained, tmp_path):
    source = world_data('mesh', size='tiny') / 'test' / 'tile_02_01.obj'
    mesh = read_mesh(source)
    mesh.labels = None
    (tmp_path / 'new' / 'deep').mkdir(parents=True)
    write_obj(tmp_path / 'new' / 'city.obj', mesh)
    write_ply(tmp_path / 'new' / 'deep' / 'plain.ply', grid(5))
    folder = predict(trained.folder, {'predict': str(tmp_path / 'new')}, tmp_path / 'out', write=['page'])
    city, plain = (read_mesh(folder / name) for name in ('city.ply', 'deep/plain.ply'))
    assert len(city.labels) == len(mesh.faces) and set(city.labels) <= set(range(5))
    assert city.frame == mesh.frame and (city.faces == mesh.faces).all()
    assert np.loadtxt(folder / 'city.txt', int).tolist() == city.labels.tolist()
    assert len(plain.labels) == 50 and (folder / 'city.html').stat().st_size > 10_000
    with pytest.raises(ValueError, match='neither memory, update, window'):
        predict(trained.folder, window=64)


@pytest.mark.parametrize(('notebook', 'parameters'), [
    ('train.ipynb', {'recipe': 'nomeformer', 'data': 'world:tiny', 'epochs': 1}), ('evaluate.ipynb', {}),
    ('predict.ipynb', {})])
def test_notebooks_take_meshes(trained, tmp_path, notebook, parameters):
    if notebook == 'train.ipynb':
        parameters = parameters | {'overrides': tiny.settings('nomeformer', epochs=None)}
    else:
        parameters = {'checkpoint': str(trained.folder)}
    execute(notebook, tmp_path, out=str(tmp_path / 'out'), **parameters)
    figures = {'train.ipynb': 'predictions.png', 'evaluate.ipynb': 'worst.png', 'predict.ipynb': '*.ply'}
    assert list((tmp_path / 'out').rglob(figures[notebook]))
