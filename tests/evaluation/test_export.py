"What leaves geoseg gives what it gave here, says what it needs, and is not written where it does not."
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pystac
import pytest
import rasterio
import torch
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.data.augment import IMAGENET_MEAN, IMAGENET_STD
from geoseg.evaluation.evaluate import evaluate
from geoseg.evaluation.export import export
from geoseg.geo.frozen import FrozenMemory, recall_inside
from geoseg.inference.answer import Trained
from geoseg.models.geosegformer import GeoSegFormer
from geoseg.models.graphs import Graph, trace
from geoseg.models.onnx import DOMAINS, onnx_bytes, open_session, run_session
from geoseg.models.wrapped import Predictor
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


def test_a_catalogue_takes_the_item_beside(exported):
    found, run = exported
    item = json.loads(found.file.with_suffix('.stac.json').read_text())
    check_item(item)
    known, model = item['properties'], item['assets']['model']
    assert model['href'] == './scene.onnx' and model['file:size'] == found.file.stat().st_size
    assert model['file:checksum'] == '1220' + hashlib.sha256(found.file.read_bytes()).hexdigest()
    assert (found.file.parent / item['assets']['metadata']['href']).is_file()
    [picture], [answer] = known['mlm:input'], known['mlm:output']
    assert picture['input'] == {'shape': [-1, 3, -1, -1], 'dim_order': ['batch', 'bands', 'height', 'width'],
                                'data_type': 'float32'}
    names = Run(run).predictor('cpu').scheme.names
    assert [entry['description'] for entry in answer['classification:classes']] == names
    assert answer['result']['shape'] == [-1, len(names), -1, -1] and known['license'] == 'CC-BY-4.0'


@pytest.mark.parametrize('recipe, more', [('nomeformer', {}), ('game4loc-same-area', {}),
                                          ('deepglobe-trm', {'answer': 'logits', 'normalize': False})])
def test_an_item_of_each_kind_of_network(recipe, more, tiny_run, tmp_path):
    "That of a network with a memory: `test_a_program_that_takes_what_is_recalled`."
    check_item_of(export(tiny_run(recipe), tmp_path / 'a.pt2', chips=2, **more), recipe, more)


def check_item_of(found, recipe, more):
    'The item beside a program, against what the program says of itself.'
    item = json.loads(found.file.with_suffix('.stac.json').read_text())
    check_item(item)
    known = item['properties']
    assert item['assets']['model']['mlm:artifact_type'] == 'torch.export.save' and known['mlm:framework'] == 'PyTorch'
    assert [entry['name'] for entry in known['mlm:input']] == list(found.about['inputs'])
    assert [entry['name'] for entry in known['mlm:output']] == found.about['outputs']
    axes = [axis for entry in known['mlm:input'] for axis in entry['input']['dim_order']]
    assert recipe == 'nomeformer' or not any(axis.startswith('axis-') for axis in axes)
    scaled = [entry['value_scaling'][0]['type'] for entry in known['mlm:input'] if 'value_scaling' in entry]
    assert set(scaled) <= {'z-score' if 'normalize' in more else 'min-max'}


def check_item(item):
    "By the schema of STAC's core, and by the package of the extension; its required names in any case."
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, item['stac_version'])
    known = item['properties']
    for name in ('name', 'architecture', 'framework', 'tasks', 'input', 'output'):  # of the schema's `required`
        assert known[f'mlm:{name}']
    assert re.fullmatch('[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]', known['mlm:name'])
    for entry in (*known['mlm:input'], *known['mlm:output']):
        array = entry.get('input', entry.get('result'))
        assert len(array['shape']) == len(array['dim_order']) == len(set(array['dim_order']))
        assert all(re.fullmatch('[a-z_-]+', axis) for axis in array['dim_order'])
    assert any('mlm:model' in asset['roles'] for asset in item['assets'].values())
    if importlib.util.find_spec('stac_model'):
        from stac_model.schema import ItemMLModelExtension, MLModelProperties
        read = ItemMLModelExtension.ext(pystac.Item.from_dict(item), add_if_missing=True)
        read.apply(MLModelProperties(**known))
        kept = read.item.properties
        for key in ('mlm:input', 'mlm:output'):  # the package adds what is optional
            arrays = [[(entry['name'], entry.get('input', entry.get('result'))) for entry in of[key]]
                      for of in (kept, known)]
            assert [(name, array['shape'], array['dim_order']) for name, array in arrays[0]] == [
                (name, array['shape'], array['dim_order']) for name, array in arrays[1]]


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


ITERATE = """
import json
import sys

import numpy as np
import onnxruntime

encoder, step, last = (onnxruntime.InferenceSession(f'refiner.{part}.onnx') for part in ('encoder', 'step', 'answer'))
about = json.loads(step.get_modelmeta().custom_metadata_map['geoseg'])
halting, image = about['halting'], np.load('image.npy')
[features] = encoder.run(None, {'image': image})
state = np.zeros((1, about['state'], *features.shape[2:]), np.float32)
for taken in range(1, halting['t_max'] + 1):
    state, halt = step.run(['next', 'halt'], {'features': features, 'state': state})
    if taken >= halting['t_min'] and halt >= halting['tau']:
        break
[probabilities] = last.run(None, {'state': state})
np.save('answer.npy', probabilities[..., :image.shape[2], :image.shape[3]])
print(taken)
assert 'geoseg' not in sys.modules and 'torch' not in sys.modules
"""


def test_a_refiner_leaves_in_parts_and_a_loop(tiny_run, tmp_path):
    run = tiny_run('deepglobe-trm')
    found = export(run, tmp_path / 'refiner.onnx', parts=True, chips=3)
    assert found.differences['steps'] == 0 and found.classes == 0 and found.differences['probabilities'] < 1e-4
    names = ['refiner.encoder.onnx', 'refiner.step.onnx', 'refiner.answer.onnx']
    assert found.report().splitlines()[-3:] == [str(tmp_path / name) for name in names]
    items = [name.replace('.onnx', '.stac.json') for name in names]
    assert {path.name for path in tmp_path.iterdir()} == {*names, *items, 'refiner.json'}
    for name, item in zip(names, (json.loads((tmp_path / item).read_text()) for item in items), strict=True):
        check_item(item)
        session, known = onnxruntime.InferenceSession(tmp_path / name), item['properties']
        assert [entry['name'] for entry in known['mlm:input']] == [value.name for value in session.get_inputs()]
        assert [entry['name'] for entry in known['mlm:output']] == [value.name for value in session.get_outputs()]
        assert item['assets']['model']['file:size'] == (tmp_path / name).stat().st_size
        assert item['assets']['metadata']['href'] == './refiner.json'
        axes = [axis for entry in (*known['mlm:input'], *known['mlm:output'])
                for axis in entry.get('input', entry.get('result'))['dim_order']]
        assert not any(axis.startswith('axis-') for axis in axes), axes
    picture = np.random.default_rng(0).random((1, 3, 50, 70), np.float32)
    np.save(tmp_path / 'image.npy', picture)
    plain = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-c', ITERATE], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own = Run(run).predictor('cpu').output({'image': normalised(found.about, picture)})
    np.testing.assert_allclose(np.load(tmp_path / 'answer.npy'), own['logits'].softmax(1), atol=1e-4)
    assert int(done.stdout) == int(own['steps'])
    (tmp_path / 'refiner.json').unlink()
    (tmp_path / 'refiner.step.onnx').write_text('mine')
    with pytest.raises(ConfigError, match='refiner.step.onnx: is there already, and not written by geoseg'):
        export(run, tmp_path / 'refiner.onnx', parts=True, chips=3)
    with pytest.raises(ValueError, match="refiner.encoder.onnx: a network of kind 'parts'"):
        Predictor.wrap(found.file)


@pytest.mark.parametrize('recipe, words, says', [
    ('wildscenes-fcn', 'out={out} parts=true', 'parts is for a network that refines in steps'),
    ('deepglobe-trm', 'out={out} parts=true answer=logits', "parts: the step gives probabilities, and answer is 'lo"),
    ('deepglobe-trm', 'out={out} parts=true int8=true', 'parts does not go with int8'),
    ('deepglobe-trm', 'out={out}.pt2 parts=true', 'parts is for ONNX files, and out is model.pt2'),
    ('wildscenes-fcn', 'out={out} license=[a]', 'license is'),
    ('wildscenes-fcn', 'out={out} overlap=-1', 'overlap'),
    ('wildscenes-fcn', 'out={out} window=64 overlap=64', 'overlap'),
    ('wildscenes-fcn', 'out={out} resolution=.nan', 'resolution is nan, expected a number above 0'),
    ('wildscenes-fcn', 'out={out} tolerance=-1', 'tolerance is -1, expected a number above 0'),
    ('wildscenes-fcn', 'out={out} chips=0', 'chips is 0, expected a whole number above 0'),
    ('geosegformer', 'out={out}', 'this network has a memory: memory=without'),
    ('geosegformer', 'out={out} memory=recalled place=without', 'memory=recalled needs positions'),
    ('wildscenes-fcn', 'out={out} memory=recalled', 'this network has no memory'),
    ('wildscenes-fcn', 'out={out} place=here', "place is 'here', expected inputs or without"),
    ('wildscenes-fcn', 'out={out}.tflite', 'neither .onnx nor .pt2'),
    ('wildscenes-fcn', 'out={out} size=big', "size is 'big', expected a whole number above 0"),
    ('wildscenes-fcn', 'out={out} size=31', 'size is 31, expected a multiple of 32 pixels up to 2048; without size'),
    ('wildscenes-fcn', 'out={out} size=1000000', 'size is 1000000, expected a multiple of 32 pixels up to 2048'),
    ('game4loc-same-area', 'out={out} size=64', 'size is for networks that segment pictures, and best.ckpt does not'),
    ('wildscenes-fcn', 'out={out}.onnx/', 'model.onnx/ is a folder by its last sign, and a file by its name'),
    ('wildscenes-fcn', 'out={out}.pt2 int8=true', 'int8 is for ONNX files, and out is model.pt2'),
    ('wildscenes-fcn', 'out={out} int8=4', 'int8 is true or false, not 4'),
    ('game4loc-same-area', 'out={out} int8=true', 'finds places; leave int8 out'),
    ('geosegformer', 'out={out} memory=without memory_area=[1,2,3,4]', 'memory_area says what memory=frozen keeps'),
    ('geosegformer', 'out={out} memory=frozen memory_area=[1,2,3]', 'memory_area is [1, 2, 3], expected [west'),
    ('geosegformer', 'out={out} memory=frozen memory_area=[9,2,3,4]', 'expected [west,south,east,north] in metres of'),
    ('geosegformer', 'out={out} memory=frozen memory_area=[1,1,2,2]', 'memory=frozen: nothing was seen there'),
    ('geosegformer', 'out={out} memory=frozen area=[1,1,2,2]', 'the ground that memory=frozen keeps is memory_area='),
    ('geosegformer', 'out={out} memory=frozen place=without', 'memory=frozen needs positions'),
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


READ_ALONE = """
import json
import sys

import numpy as np
import onnxruntime

from read_memory import MemoryReader, recall

session = onnxruntime.InferenceSession('place.onnx')
about = json.loads(session.get_modelmeta().custom_metadata_map['geoseg'])
given = dict(np.load('given.npz'))
reader = MemoryReader(about['memory_file']['name'], about['memory_file']['count'])
given |= recall(reader, given['xy'], cells=16 * 16, time=given.pop('time'))
np.save('answer.npy', session.run(None, {value.name: given[value.name] for value in session.get_inputs()})[0])
print(given['recalled_valid'].any(-1).mean())
assert 'geoseg' not in sys.modules and 'torch' not in sys.modules
"""


@pytest.fixture
def remembering(tiny_run, monkeypatch):
    'A run on photos whose network has seen two places, whenever it is loaded.'
    load = Predictor.load.__func__

    def full(cls, *args):
        predictor, chance = load(cls, *args), torch.Generator().manual_seed(0)
        where = torch.tensor([[10., 20.], [300., -40.]]).repeat(5, 1) + torch.rand(10, 2, generator=chance)
        predictor.memory.write(where, torch.randn(10, predictor.memory.dim, generator=chance), torch.arange(10),
                               torch.arange(10) * 1e7)
        with torch.no_grad():  # trained without a memory, it would not listen
            said = predictor.network.recall['fusion'].out.weight
            said.copy_(torch.randn(said.shape, generator=chance))
        return predictor

    monkeypatch.setattr(Predictor, 'load', classmethod(full))
    return tiny_run('geosegformer')


def photos(run, folder):
    'Two pictures where something was seen, as a file of raw arrays; what the network says of them.'
    predictor = Run(run).predictor('cpu')
    given = {'image': np.random.default_rng(0).random((2, 3, 64, 64), np.float32),
             'xy': np.array([[10.5, 20.5], [300.5, -39.5]], np.float32), 'time': np.array([1.7e9, np.nan])}
    np.savez(folder / 'given.npz', **given)
    mean, std = (torch.tensor(predictor.card['augment'][name] or other).float().view(3, 1, 1) for name, other in (
        ('mean', IMAGENET_MEAN), ('std', IMAGENET_STD)))
    batch = {name: torch.from_numpy(value) for name, value in given.items()}
    return predictor.output(batch | {'image': (batch['image'] - mean) / std})['logits'].softmax(1), given


@pytest.mark.long
def test_what_is_recalled_is_read_without_geoseg(remembering, tmp_path):
    "Of one size, which is traced faster; of any size: test_exports.py."
    found = export(remembering, tmp_path / 'place.onnx', memory='recalled', chips=2, size=64)
    assert found.classes == 0 and found.about['place'] == 'xy' and 'recalled_features' in found.about['inputs']
    own, _ = photos(remembering, tmp_path)
    plain = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-c', READ_ALONE], cwd=tmp_path, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 1  # both are known places
    np.testing.assert_allclose(np.load(tmp_path / 'answer.npy'), own, atol=1e-4)
    for name in ('read_memory.py', 'place.memory.json', 'place.memory.safetensors'):
        assert only_refuses(remembering, tmp_path / name.replace('.', '_'), 'place.onnx', name, memory='recalled')


def test_a_program_that_takes_what_is_recalled(remembering, tmp_path):
    "It holds no chips of the data: what is recalled for a chip takes more room than the network."
    more = {'memory': 'recalled', 'normalize': False}
    found = export(remembering, tmp_path / 'a.pt2', chips=2, size=64, **more)
    check_item_of(found, 'geosegformer', more)
    program = torch.export.load(found.file)
    assert program.example_inputs is None
    weights = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    assert found.file.stat().st_size < weights + (3 << 20)


def only_refuses(run, folder, out, name, content=b'{"mine": 1}', **more):
    "Whether a file of somebody else is named, and is all that lies there afterwards."
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f'{name}: is there already, and not written by geoseg; choose another'):
        export(run, folder / out, chips=2, **more)
    return [path.name for path in folder.iterdir()] == [name] and (folder / name).read_bytes() == content


def test_what_others_wrote_stays(exported, tmp_path, monkeypatch):
    found, run = exported
    foreign = onnx.load(found.file)
    del foreign.metadata_props[:]
    program = torch.export.export(torch.nn.Conv2d(3, 2, 1), (torch.rand(1, 3, 4, 4),))
    torch.export.save(program, tmp_path / 'foreign.pt2')
    cases = [('a.onnx', 'a.onnx', foreign.SerializeToString()), ('a.onnx', 'a.onnx', found.file.read_bytes()[:999]),
             ('a.pt2', 'a.pt2', (tmp_path / 'foreign.pt2').read_bytes()), ('a.pt2', 'a.pt2', b''),
             ('a.onnx', 'a.json', b'{"type": "Feature"}'), ('a.onnx', 'a.stac.json', b'[1, 2]'),
             ('a.onnx', 'a.stac.json', b'{"properties": {"description": "A scene"}}')]
    for i, (out, name, content) in enumerate(cases):
        assert only_refuses(run, tmp_path / str(i), out, name, content)
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'b.json').mkdir()
    for out, says in (('file/a.onnx', 'file is a file, not a folder'), ('file/x/a.pt2', 'is a file, not a folder'),
                      ('b.onnx', 'b.json is a folder; choose another name')):
        with pytest.raises(ConfigError, match=says):
            export(run, tmp_path / out, chips=2)
    own = {path: path.read_bytes() for path in found.file.parent.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match='scene.stac.json: describes scene.onnx; choose another name than scene.pt2'):
        export(run, found.file.with_suffix('.pt2'), chips=2)
    assert own == {path: path.read_bytes() for path in found.file.parent.iterdir() if path.is_file()}
    again = export(run, shutil.copytree(found.file.parent, tmp_path / 'again') / 'scene.onnx', chips=2)
    assert again.about['license'] is None  # its own are written anew


@pytest.mark.parametrize('left', [0., 0.01, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_is_one_line(left, exported, tmp_path, capsys):
    whole = Run(exported[1]).best.read_bytes()
    (tmp_path / 'cut.ckpt').write_bytes(whole[:int(left * len(whole))])
    assert cli.main(['export', '--checkpoint', str(tmp_path / 'cut.ckpt'), f'out={tmp_path / "a.onnx"}']) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(said) == 1 and 'cut.ckpt' in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ['cut.ckpt']


@pytest.mark.parametrize('limits', [[0, 3000], [[0, 3000]], [[0, 3000], [10, 20], [5, 6]]])
def test_a_range_of_values_is_read_again(limits, exported, tmp_path, monkeypatch):
    own = Trained.settings
    monkeypatch.setattr(Trained, 'settings', lambda self, *extra: own(self, *extra) | {'value_range': limits})
    found = export(exported[1], tmp_path / 'a.onnx', chips=2)
    pairs = limits if isinstance(limits[0], list) else [limits]
    assert found.about['value_range'] == pairs
    assert Predictor.wrap(found.file).card['data']['init_args']['value_range'] == pairs
    item = json.loads((tmp_path / 'a.stac.json').read_text())
    scaled = item['properties']['mlm:input'][0]['value_scaling']
    assert [[entry['minimum'], entry['maximum']] for entry in scaled] == pairs


@pytest.mark.parametrize('recipe', ['unet', 'geosegformer', 'wildscenes-deeplabv3'])
def test_sizes_that_are_no_multiple_of_the_stride(recipe, tiny_run, tmp_path):
    run = tiny_run(recipe)
    more = {'memory': 'without', 'place': 'without'} if recipe == 'geosegformer' else {}
    found = export(run, tmp_path / 'a.onnx', chips=2, **more)
    session, predictor = onnxruntime.InferenceSession(found.file), Run(run).predictor('cpu')
    predictor.network.recalling = False
    for height, width in ((33, 47), (64, 95), (31, 65), (100, 130)):
        picture = np.random.default_rng(height).random((1, 3, height, width), np.float32)
        [answer] = session.run(['probabilities'], {'image': picture})
        own = predictor.without('xy', 'gps').logits(normalised(found.about, picture)).softmax(1)
        assert answer.shape[2:] == (height, width)
        np.testing.assert_allclose(answer, own, atol=1e-4)


@pytest.fixture
def before_the_work(monkeypatch):
    monkeypatch.setattr('geoseg.evaluation.export.chips_of', lambda *args: pytest.fail('it went to work'))


def test_weights_that_no_onnx_file_can_hold_are_said_before_the_work(exported, before_the_work, tmp_path, monkeypatch):
    monkeypatch.setattr('geoseg.evaluation.export.LARGEST', 1000)
    with pytest.raises(ConfigError, match=r'a.onnx: the weights take .* GB, and an ONNX file ends at .*out=a.pt2'):
        export(exported[1], tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


def test_a_memory_that_no_onnx_file_can_hold_is_said_before_the_work(remembering, before_the_work, tmp_path,
                                                                     monkeypatch):
    weights = sum(value.numel() for value in Run(remembering).predictor('cpu').network.parameters())
    monkeypatch.setattr('geoseg.evaluation.export.LARGEST', 4 * weights + 1000)
    with pytest.raises(ConfigError, match=r'the tables of 10 entries take .* GB, and 0.00 GB are left.*memory_area='):
        export(remembering, tmp_path / 'a.onnx', memory='frozen')
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_memory_stays_inside(remembering, tmp_path):
    "Of one size; of any size: `test_a_map_of_cells_recalls_the_same_inside_the_graph`."
    own, given = photos(remembering, tmp_path)
    found = export(remembering, tmp_path / 'frozen.onnx', memory='frozen', chips=2, size=64)
    assert found.about['frozen'] == {'entries': len(Run(remembering).predictor('cpu').memory), 'area': None}
    assert list(found.about['inputs']) == ['image', 'xy', 'time']
    [answer] = onnxruntime.InferenceSession(found.file).run(None, given)
    np.testing.assert_allclose(answer, own, atol=1e-4)
    batch = {name: torch.from_numpy(value) for name, value in given.items()} | {
        'image': normalised(found.about, given['image'])}
    forgetful = Run(remembering).predictor('cpu')
    forgetful.network.recalling = False
    assert np.abs(forgetful.output(batch)['logits'].softmax(1).numpy() - answer).max() > 0.01
    wrapped = Predictor.wrap(found.file).output(batch)
    np.testing.assert_allclose(wrapped['logits'].softmax(1), own, atol=1e-4)


def normalised(about, picture):
    'As the tiler hands pictures to a model.'
    mean, std = (np.array(about['normalization'][name], np.float32)[:, None, None] for name in ('mean', 'std'))
    return torch.from_numpy((picture - mean) / std)


@pytest.mark.long
@pytest.mark.parametrize('votes', [False, True])
def test_a_map_of_cells_recalls_the_same_inside_the_graph(votes):
    "A graph without votes, which takes as long to trace: `test_a_memory_stays_inside`."
    torch.manual_seed(0)
    network = GeoSegFormer(3, model_size='nano', feature_dim=16, memory_size=4, spatial_radius=20., memory_dim=8,
                           label_recall=votes, pixel_evidence=votes)
    network.eval()
    for module in network.recall.modules():  # zeros at the beginning would hide what is recalled
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.1)
    rows, columns = torch.meshgrid(torch.arange(16) * -4., torch.arange(24) * 4., indexing='ij')
    xy = torch.stack([columns, rows], -1)[None].repeat(2, 1, 1, 1)
    image, time = torch.randn(2, 3, 64, 96), torch.tensor([1.6e9, 1.7e9], dtype=torch.float64)
    with torch.no_grad():
        mask = torch.randint(3, (2, 64, 96))
        network.remember(network(image, xy), xy, torch.tensor([1, 2]), time, mask)
        inputs = {'image': torch.randn(2, 3, 64, 96), 'xy': xy + 3., 'time': time + 1e7}
        inputs['xy'][0, :3] = torch.nan
        own = network(**inputs)['logits']
        nothing = network(inputs['image'])['logits']
    assert (own - nothing).abs().max() > 0.01
    recall_inside(network, FrozenMemory(network.memory, network.recalled))
    graph = Graph(network, list(inputs), answer='logits')
    with torch.no_grad():
        answers = dict(zip(graph.outputs(inputs), graph(*inputs.values()), strict=True))
    torch.testing.assert_close(answers['logits'], own, atol=1e-4, rtol=1e-4)
    if not votes:
        return
    made = trace(graph, inputs)
    session = open_session(onnx_bytes(made, {'kind': 'other'}))
    torch.testing.assert_close(run_session(session, inputs)['logits'], own, atol=1e-4, rtol=1e-4)
    part = {name: value[:1] for name, value in inputs.items()} | {'image': inputs['image'][:1, :, :32, :48],
                                                                  'xy': inputs['xy'][:1, :8, :12]}
    if made.any_size:
        network.ask = GeoSegFormer.ask.__get__(network)
        with torch.no_grad():
            torch.testing.assert_close(run_session(session, part)['logits'], network(**part)['logits'], atol=1e-4,
                                       rtol=1e-4)
