"What leaves geoseg gives what it gave here, says what it needs, and is not written where it does not."
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
import torch

from geoseg import cli
from geoseg.evaluation.evaluate import evaluate
from geoseg.evaluation.export import export
from geoseg.models.graphs import Graph
from geoseg.models.onnx import DOMAINS
from geoseg.models.predictor import Predictor
from geoseg.training.run import Run


@pytest.fixture(scope='module')
def exported(tiny_run, tmp_path_factory):
    'A network on pictures as ONNX, and its run.'
    run = tiny_run('wildscenes-fcn')
    return export(run, tmp_path_factory.mktemp('exported') / 'scene.onnx', resolution=0.5, license='CC-BY-4.0'), run


def test_pictures_of_any_size_and_number_without_geoseg(exported):
    found, run = exported
    assert found.classes == 0 and found.differences['probabilities'] < 1e-4 and found.about['size'] == 'any'
    session = onnxruntime.InferenceSession(found.file)
    assert session.get_inputs()[0].shape == ['batch', 3, 'height', 'width']
    predictor = Run(run).predictor('cpu')
    about = json.loads(session.get_modelmeta().custom_metadata_map['geoseg'])
    mean, std = (np.array(about['normalization'][name], np.float32)[:, None, None] for name in ('mean', 'std'))
    for shape in ((1, 3, 96, 64), (3, 3, 40, 56)):
        picture = np.random.default_rng(0).random(shape, np.float32)
        [probs] = session.run(None, {'image': picture})
        own = predictor.logits(torch.from_numpy((picture - mean) / std)).softmax(1)
        np.testing.assert_allclose(probs, own, atol=1e-4)
    assert {node.domain for node in onnx.load(found.file).graph.node} <= set(DOMAINS)


def test_the_same_map_of_a_raster_by_either_way(exported, scene, tmp_path, capsys):
    found, run = exported
    more = [f'data={scene}', 'window=64', 'write=[probabilities]']
    for name, which in (('run', ['--checkpoint', str(run)]), ('file', ['--model', str(found.file)])):
        assert cli.main(['predict', *which, *more, f'out={tmp_path / name}']) == 0, capsys.readouterr().err
    with rasterio.open(tmp_path / 'run' / 'scene_classes.tif') as own, rasterio.open(
            tmp_path / 'file' / 'scene_classes.tif') as other:
        assert (own.read() != other.read()).mean() < 1e-4 and own.colormap(1) == other.colormap(1)
        assert own.profile == other.profile
    assert (tmp_path / 'run' / 'classes.txt').read_text() == (tmp_path / 'file' / 'classes.txt').read_text()
    with rasterio.open(tmp_path / 'run' / 'scene_probabilities.tif') as own, rasterio.open(
            tmp_path / 'file' / 'scene_probabilities.tif') as other:
        np.testing.assert_allclose(own.read(), other.read(), atol=1e-3)


def test_the_metadata_as_the_plugin_of_qgis_reads_them(exported):
    found, run = exported
    keys = onnxruntime.InferenceSession(found.file).get_modelmeta().custom_metadata_map
    names = json.loads(keys['class_names'])
    assert [names[str(i)] for i in range(len(names))] == Run(run).predictor('cpu').scheme.names
    assert str(json.loads(keys['model_type'])).capitalize() == 'Segmentor'
    assert float(json.loads(keys['resolution'])) == 50.  # centimetres a pixel
    assert int(json.loads(keys['tiles_size'])) == 512 and int(json.loads(keys['tiles_overlap'])) == 25  # percent
    assert json.loads(keys['standardization_mean']) == [0] * 3 and json.loads(keys['standardization_std']) == [1] * 3
    about = json.loads(keys['geoseg'])
    assert about['license'] == 'CC-BY-4.0' and about['scores'] and about['classes']['colors']
    beside = json.loads(found.file.with_suffix('.json').read_text())
    assert beside['geoseg'] == about and beside['check']['chips'].endswith('chips of the val split')


def test_8_bits_say_what_they_cost(exported, tmp_path, monkeypatch):
    whole, run = exported
    found = export(run, tmp_path / 'small.onnx', int8=True)
    session = onnxruntime.InferenceSession(found.file)
    about = json.loads(session.get_modelmeta().custom_metadata_map['geoseg'])
    nodes = [node.op_type for node in onnx.load(found.file).graph.node]
    assert 'DequantizeLinear' in nodes and found.file.stat().st_size < 0.6 * whole.file.stat().st_size
    assert about == found.about and about['int8']['calibration'].endswith('chips of the train split')
    scores = about['int8']['mIoU']
    measured = evaluate(run, split='val', out=tmp_path / 'val').scores['mIoU']  # by the network itself
    assert scores['float'] == pytest.approx(measured, abs=1e-3) and 0 <= scores['int8'] <= 1
    assert f'int8: mIoU {scores["int8"]:.4f} on the val split' in found.report()
    assert 0 < found.differences['probabilities'] < 0.5
    picture = np.random.default_rng(0).random((2, 3, 40, 56), np.float32)
    [probs] = session.run(None, {'image': picture})
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-4)


def test_beside_and_as_logits_of_one_size(own_run, tmp_path, monkeypatch):
    run = own_run('wildscenes-fcn')
    plain = Predictor.load(Run(run).best, 'cpu')
    plain.card['temperature'] = 2.
    monkeypatch.setattr(Predictor, 'load', classmethod(lambda *args: plain))
    found = export(run, tmp_path / 'beside.pt2', answer='logits', normalize=False, calibrated=False, size=64)
    assert found.about['size'] == [64, 64] and found.about['temperature'] == {'inside': False, 'value': 2.}
    program = torch.export.load(found.file).module()
    picture = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(program(picture)[0], 2 * plain.logits(picture), atol=1e-4, rtol=1e-4)


def test_a_difference_is_an_error_and_nothing_is_written(tiny_run, tmp_path, monkeypatch, capsys):
    finish = Graph.finish
    monkeypatch.setattr(Graph, 'finish', lambda self, logits: finish(self, logits * 1.5))
    file = tmp_path / 'new' / 'model.pt2'
    assert cli.main(['export', '--checkpoint', str(tiny_run('wildscenes-fcn')), f'out={file}', 'size=64']) == 2
    said = capsys.readouterr().err
    assert 'probabilities differs from the network by' in said and 'nothing is written' in said
    assert not list(tmp_path.rglob('*.pt2')) and not list(tmp_path.rglob('*.json'))


@pytest.mark.parametrize('recipe, words, says', [
    ('geosegformer', 'out={out}', 'this network has a memory: memory=without'),
    ('geosegformer', 'out={out} memory=recalled place=without', 'memory=recalled needs positions'),
    ('wildscenes-fcn', 'out={out} memory=recalled', 'this network has no memory'),
    ('wildscenes-fcn', 'out={out} place=here', "place is 'here', expected inputs or without"),
    ('wildscenes-fcn', 'out={out}.tflite', 'neither .onnx nor .pt2'),
    ('wildscenes-fcn', 'out={out} size=big', "size is 'big', expected a whole number above 0"),
    ('wildscenes-fcn', 'out={out}.pt2 int8=true', 'int8 is for ONNX files, and out is model.pt2'),
    ('wildscenes-fcn', 'out={out} int8=4', 'int8 is 4, expected true or false'),
    ('game4loc-same-area', 'out={out} int8=true', 'finds places; leave int8 out'),
    ('geosegformer', 'out={out} memory=recalled int8=true', 'int8 is for pictures and places: memory=without'),
    ('wildscenes-fcn', 'out={out} answer=mask', "answer is 'mask', expected probabilities or logits"),
    ('wildscenes-fcn', 'out={out} data=world:tiny split=tset', "split must be train, val or test, not 'tset'"),
])
def test_what_cannot_be_is_told_in_a_line(tiny_run, tmp_path, capsys, recipe, words, says):
    words = words.format(out=tmp_path / 'model').split()
    assert cli.main(['export', '--checkpoint', str(tiny_run(recipe)), *words]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(said) == 1 and says in said[0]
    assert not list(tmp_path.rglob('*.onnx'))


@pytest.mark.parametrize('recipe', ['geosegformer'])
def test_a_place_and_what_is_recalled_are_inputs(recipe, tiny_run, tmp_path):
    found = export(tiny_run(recipe), tmp_path / 'place.pt2', memory='recalled', chips=2)
    assert found.classes == 0 and found.about['place'] == 'xy' and 'recalled_features' in found.about['inputs']
