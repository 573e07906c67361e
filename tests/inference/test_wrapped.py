"Anyone's model answers as it does elsewhere; what it does not say is asked for, and what cannot be opened is one line."
import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
import rasterio
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from geoseg import Predictor, cli
from geoseg.core.errors import ConfigError
from geoseg.core.trust import trusted
from geoseg.data.labels import LabelScheme

FACTS = ['classes=[dark,bright]', 'mean=[0,0,0]', 'std=[1,1,1]', 'answer=logits']
DEEPNESS = {'model_type': 'Segmentor', 'class_names': {'0': 'dark', '1': 'bright'}, 'standardization_mean': [0] * 3,
            'standardization_std': [1] * 3}


def write_onnx(path, bands=3, size=('batch', 'height', 'width'), metadata=(), domain='', outside=None):
    "A model that finds bright pixels, as ONNX."
    weight = np.stack([-np.ones(bands), np.ones(bands)]).astype(np.float32).reshape(2, bands, 1, 1) / bands
    tensors = [numpy_helper.from_array(weight, 'weight'), numpy_helper.from_array(np.array([0.6, -0.6], np.float32),
                                                                                  'bias')]
    node = helper.make_node('Conv', ['picture', 'weight', 'bias'], ['map'], domain=domain)
    shape = [size[0], bands, *size[1:]]
    graph = helper.make_graph([node], 'bright', [helper.make_tensor_value_info('picture', TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info('map', TensorProto.FLOAT, [size[0], 2, *size[1:]])],
                              tensors)
    opsets = [helper.make_opsetid('', 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in dict(metadata).items()})
    if outside is not None:
        tensor = model.graph.initializer[0]
        (path.parent / outside).write_bytes(tensor.raw_data)
        tensor.ClearField('raw_data')
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = 'location', outside
    path.write_bytes(model.SerializeToString())
    return path


def bright(scene):
    "What such a model must say of the scene."
    with rasterio.open(scene) as file:
        pixels, valid = file.read(), file.dataset_mask() > 0
    return np.where(valid, pixels.astype(np.float32).mean(0) / 255 > 0.6, 255)


def answer(words, out, capsys):
    assert cli.main(['predict', *words, f'out={out}']) == 0, capsys.readouterr().err
    with rasterio.open(next(out.glob('*_classes.tif'))) as file:
        return file.read(1)


@pytest.mark.parametrize('size, batch', [(('batch', 'height', 'width'), 3), ((1, 96, 96), 1), ((4, 100, 100), 2)])
def test_an_onnx_of_any_and_of_one_size(size, batch, scene, tmp_path, capsys):
    model = write_onnx(tmp_path / 'bright.onnx', size=size)
    words = ['--model', str(model), f'data={scene}', f'batch_size={batch}', 'write=[uncertainty,polygons]']
    found = answer([*words, *FACTS], tmp_path / 'out', capsys)
    assert (found != bright(scene)).mean() < 1e-3  # a value on the edge may be rounded
    assert (tmp_path / 'out' / 'scene_polygons.gpkg').is_file()
    assert cli.main(['predict', *words, *FACTS, f'out={tmp_path / "out"}']) == 0  # is finished
    again = write_onnx(tmp_path / 'bright.onnx', size=size, metadata={'note': 'changed'})
    assert cli.main(['predict', '--model', str(again), *words[2:], *FACTS, f'out={tmp_path / "out"}']) == 0


def test_metadata_of_the_plugin_of_qgis_are_read(scene, tmp_path, capsys):
    model = write_onnx(tmp_path / 'bright.onnx', metadata=DEEPNESS | {'tiles_size': 128})
    found = answer(['--model', str(model), f'data={scene}', 'answer=logits'], tmp_path / 'out', capsys)
    assert (found != bright(scene)).mean() < 1e-3
    assert json.loads((tmp_path / 'out' / 'scene.json').read_text())['job']['window'] == 128


def test_pictures_too(tmp_path, capsys):
    from PIL import Image
    folder = tmp_path / 'pictures'
    folder.mkdir()
    pixels = np.zeros((40, 52, 3), np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(folder / 'a.png')
    model = write_onnx(tmp_path / 'bright.onnx', size=(1, 64, 64))
    assert cli.main(['predict', '--model', str(model), f'data={folder}', *FACTS, f'out={tmp_path / "out"}']) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out' / 'a.png')), pixels[..., 0] // 255)


@pytest.mark.parametrize('words, says', [
    ([], 'says nothing of classes, mean, std, answer; give classes=[name,name,...] in the order of its outputs (2'),
    (FACTS[:1], 'says nothing of mean, std, answer; give mean=[...] and std=[...]'),
    (FACTS[:3], 'says nothing of answer; give answer=logits or answer=probabilities'),
    ([*FACTS[1:], 'classes=[a,b,c]'], 'gives 2 classes, and 3 are named: set classes'),
    ([*FACTS, 'bands=[1,2]'], 'takes 3 bands, and 2 are named: set bands'),
    ([*FACTS[:2], FACTS[3], 'std=[1,0,1]'], 'std is [1.0, 0.0, 1.0], expected numbers above 0'),
    ([*FACTS, 'clases=[a]'], "unknown key 'clases'; nearest: classes"),
    ([*FACTS[:3], 'answer=mask'], "answer is 'mask', expected probabilities or logits"),
    ([*FACTS, 'output=mask'], "output is 'mask', and it gives map (float "),
    ([*FACTS, 'output=[a]'], 'set output to one of them'),
    ([*FACTS, 'image_size=large'], "image_size is 'large', expected [height,width] in pixels, or one side"),
    ([*FACTS, 'image_size=[64]'], 'image_size is '), ([*FACTS, 'image_size=[0,64]'], 'image_size is '),
    ([*FACTS, 'memory=m'], 'this network has no memory'),
])
def test_what_is_missing_or_wrong_is_named(words, says, scene, tmp_path, capsys):
    model = write_onnx(tmp_path / 'bright.onnx')
    assert cli.main(['predict', '--model', str(model), f'data={scene}', *words, f'out={tmp_path / "out"}']) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(lines) == 1 and says in lines[0], lines


def spoil(path, how):
    "A bad file."
    if how == 'other bands':
        return write_onnx(path, bands=4, metadata=DEEPNESS | {'standardization_mean': [0] * 4,
                                                              'standardization_std': [1] * 4})
    if how == 'a custom operator':
        return write_onnx(path, domain='some.company')
    if how == 'weights elsewhere':
        return write_onnx(path, outside='../weights.bin')
    if how == 'weights that are not there':
        write_onnx(path, outside='weights.bin')
        (path.parent / 'weights.bin').unlink()
        return path
    if how == 'another kind of file':
        path.write_text('no model')
        return path
    whole = write_onnx(path).read_bytes()
    path.write_bytes({'cut short': whole[:len(whole) // 2], 'empty': b''}[how])
    return path


@pytest.mark.parametrize('how, says', [
    ('other bands', '3 bands are read, the network takes 4: set bands'), ('cut short', 'it may be cut short'),
    ('empty', 'not a readable ONNX file'), ('another kind of file', 'not a readable ONNX file'),
    ('a custom operator', 'needs the operator some.company:Conv, which onnxruntime does not have'),
    ('weights elsewhere', 'keeps weights in ../weights.bin, which lies outside of its folder'),
    ('weights that are not there', 'no such file of weights'),
])
def test_a_bad_file_is_one_line(how, says, scene, tmp_path, capsys):
    (tmp_path / 'model').mkdir()
    model, out = spoil(tmp_path / 'model' / 'bad.onnx', how), tmp_path / 'out'
    facts = ['answer=logits'] if how == 'other bands' else FACTS
    assert cli.main(['predict', '--model', str(model), f'data={scene}', *facts, f'out={out}']) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(lines) == 1 and says in lines[0], lines
    assert not list(out.glob('*.tif'))


@pytest.mark.parametrize('facts, says', [
    ({'bands': 'red'}, "bands of its metadata is 'red', expected a list"), ({'bands': 5}, 'bands of its metadata'),
    ({'bands': [[1], 2, 3]}, 'bands of its metadata'), ({'halting': 'x'}, 'halting of its metadata is'),
    ({'frame': {'crs': 'nonsense', 'origin': [0, 0]}}, 'frame of its metadata is none'),
    ({'frame': [1, 2]}, 'frame of its metadata'), ({'normalization': [1]}, 'normalization of its metadata'),
    ({'temperature': {'inside': False, 'value': 0}}, 'temperature of its metadata'),
    ({'temperature': 'hot'}, "temperature of its metadata is 'hot'"), ({'value_range': [255, 0]}, 'value_range of'),
    ({'value_range': 5}, 'value_range of its metadata'), ({'kind': [1]}, 'kind of its metadata'),
    ({'classes': {'names': [1, 2]}}, 'its classes are none'), ({'classes': 7}, "classes is '7', expected names"),
    ({'window': 'big'}, "window is 'big', expected a whole number"), ({'kind': 'parts'}, "a network of kind 'parts'"),
    ({'channels': 'x'}, 'channels of its metadata'), ({'resolution': 'fine'}, "resolution of its metadata is 'fine'"),
    ({'resolution': -1}, 'resolution of its metadata is'), ({'image_size': 'large'}, "image_size is 'large', expected"),
    ({'image_size': [64, 'x']}, 'image_size is'), ({'value_range': [[0, 9], [9, 0]]}, 'value_range of its metadata'),
    ({'value_range': [[0, 9], 'x']}, 'value_range of its metadata'),
])
def test_metadata_in_our_name_are_read_as_a_stranger_s(facts, says, tmp_path):
    known = {'kind': 'segmentation', 'classes': LabelScheme(['dark', 'bright'], [[0, 0, 0], [9, 9, 9]]).to_dict(),
             'normalization': {'inside': True, 'mean': [0] * 3, 'std': [1] * 3}, 'answer': 'logits'}
    file = write_onnx(tmp_path / 'a.onnx', metadata={'geoseg': known | facts})
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        Predictor.wrap(file)
    assert str(file) in str(raised.value) and len(str(raised.value).splitlines()) == 1
    wrapped = Predictor.wrap(write_onnx(tmp_path / 'b.onnx', metadata={'geoseg': known}))
    assert wrapped.scheme.names == ['dark', 'bright']
    for fine in ({'value_range': [[0, 9]] * 3}, {'value_range': [0, 9]}, {'image_size': 64}, {'image_size': [64, 96]},
                 {'resolution': 0.5, 'image_size': None}):
        Predictor.wrap(write_onnx(tmp_path / 'b.onnx', metadata={'geoseg': known | fine}))


@pytest.mark.parametrize('inputs, outputs, node, says', [
    (['a', 'c'], ('m', TensorProto.FLOAT, 4), ('Add', {}), 'takes a, c: expected one picture'),
    (['a'], ('m', TensorProto.INT64, 4), ('Cast', {'to': TensorProto.INT64}),
     'gives m (int64 ['),
    (['a'], ('m', TensorProto.FLOAT, 0), ('ReduceMean', {'keepdims': 0}),
     'gives m (float []), expected floats [samples, classes, height, width]: export it with logits or probabilities'),
    (['a'], ('m', TensorProto.FLOAT, 4), ('Acosh', {}), 'numbers that are none (NaN or infinite)')])
def test_a_graph_that_is_no_segmentation(inputs, outputs, node, says, tmp_path):
    name, kind, axes = outputs
    sides, file = ['b', 3, 'h', 'w'], tmp_path / 'g.onnx'
    graph = helper.make_graph([helper.make_node(node[0], inputs, [name], **node[1])], 'g', [
        helper.make_tensor_value_info(one, TensorProto.FLOAT, sides) for one in inputs], [
        helper.make_tensor_value_info(name, kind, sides[:axes])])
    file.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)],
                                       ir_version=9).SerializeToString())
    with pytest.raises(ValueError, match=re.escape(says)):
        Predictor.wrap(file, classes=['a', 'b', 'c'], mean=[0.] * 3, std=[1.] * 3, answer='logits')


def test_several_outputs_are_asked_about(tmp_path):
    sides, file = ['b', 3, 'h', 'w'], tmp_path / 'g.onnx'
    nodes = [helper.make_node('Neg', ['a'], ['m']), helper.make_node('Abs', ['a'], ['n']),
             helper.make_node('Cast', ['a'], ['i'], to=TensorProto.INT64)]
    given = [helper.make_tensor_value_info(name, kind, sides) for name, kind in (
        ('m', TensorProto.FLOAT), ('n', TensorProto.FLOAT), ('i', TensorProto.INT64))]
    graph = helper.make_graph(nodes, 'g', [helper.make_tensor_value_info('a', TensorProto.FLOAT, sides)], given)
    file.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)],
                                       ir_version=9).SerializeToString())
    facts = {'classes': ['a', 'b', 'c'], 'mean': [0.] * 3, 'std': [1.] * 3, 'answer': 'logits'}
    for more, says in (({}, 'set output to one of m, n'), ({'output': 'i'}, 'output i is no scores of classes')):
        with pytest.raises(ConfigError, match=says):
            Predictor.wrap(file, **facts, **more)
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(Predictor.wrap(file, **facts, output='m').logits(picture), -picture)


def test_a_stranger_s_pt2_needs_trust(tmp_path, capsys):
    (tmp_path / 'a.pt2').write_bytes(b'PK')
    words = ['predict', '--model', str(tmp_path / 'a.pt2'), f'data={tmp_path / "a.pt2"}', *FACTS, f'out={tmp_path}/o']
    for more, says in (([], '--trust (trust=true) opens it'), (['--trust'], 'not a program of torch.export')):
        assert cli.main([*words, *more]) == 2
        assert says in capsys.readouterr().err


class Trap:
    'Makes a folder when it is unpickled.'

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pt2_runs_nothing_without_trust(tmp_path, capsys):
    "A real program, each pickle in it replaced by one that makes a folder."
    program = torch.export.export(torch.nn.Conv2d(3, 2, 1), (torch.rand(1, 3, 64, 64),))
    torch.export.save(program, tmp_path / 'good.pt2')
    torch.save(Trap(tmp_path / 'ran'), tmp_path / 'trap.pt')
    with zipfile.ZipFile(tmp_path / 'good.pt2') as good, zipfile.ZipFile(tmp_path / 'bad.pt2', 'w') as bad:
        for name in good.namelist():
            content = good.read(name)
            hostile = content.startswith((b'PK', b'\x80')) or name.endswith(('.pt', '.pkl'))
            bad.writestr(name, (tmp_path / 'trap.pt').read_bytes() if hostile else content)
    words = ['--model', str(tmp_path / 'bad.pt2'), f'data={tmp_path}', *FACTS]
    for verb in ('predict', 'test', 'calibrate', 'efficiency'):
        assert cli.main([verb, *words]) == 2
        assert '--trust (trust=true) opens it' in capsys.readouterr().err
    assert not (tmp_path / 'ran').exists()
    with pytest.raises(ValueError, match='a .pt2 may run code'):
        Predictor.wrap(tmp_path / 'bad.pt2', classes=['a', 'b'], mean=[0.] * 3, std=[1.] * 3, answer='logits')
    torch.load(tmp_path / 'trap.pt', weights_only=False)  # the trap is one
    assert (tmp_path / 'ran').exists()


def test_a_pt2_that_is_trusted(tmp_path):
    class Double(torch.nn.Module):
        def forward(self, image):
            return torch.cat([image[:, :1], 2 * image[:, 1:2]], 1)

    free = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Double(), (torch.rand(2, 3, 64, 64),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / 'double.pt2')
    facts = {'classes': ['a', 'b'], 'mean': [0.] * 3, 'std': [1.] * 3, 'answer': 'logits'}
    with trusted():
        predictor = Predictor.wrap(tmp_path / 'double.pt2', **facts)
    picture = torch.rand(2, 3, 64, 64)
    assert torch.equal(predictor.logits(picture), Double()(picture))


def test_a_folder_of_segmentation_models_pytorch(tmp_path, capsys):
    import segmentation_models_pytorch as smp
    torch.manual_seed(0)
    network = smp.Unet('resnet18', encoder_weights=None, classes=2, decoder_channels=(16, 8, 8, 8, 8)).eval()
    network.save_pretrained(tmp_path / 'smp')
    facts = {'classes': ['a', 'b'], 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
    predictor = Predictor.wrap(tmp_path / 'smp', **facts)
    picture = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(predictor.logits(picture).cpu(), network(picture))
    assert predictor.logits(torch.randn(1, 3, 50, 70)).shape == (1, 2, 50, 70)  # sides are extended
    config = tmp_path / 'smp' / 'config.json'
    known = json.loads(config.read_text())
    for change, says in (({'_model_class': 'os.system'}, 'config.json names the class'),
                         ({'encoder_name': 'tu-hf-hub:someone/x'}, 'is an address'),
                         ({'decoder_channels': [1 << 14] * 5}, 'not a saved network')):
        config.write_text(json.dumps(known | change))
        with pytest.raises(ValueError, match=says):
            Predictor.wrap(tmp_path / 'smp', **facts)


class Mark:
    "Writes a file when it is unpickled."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def torchgeo_checkpoint(path, **changes):
    "A file as Lightning writes it of a SemanticSegmentationTask of TorchGeo 0.8.1; the network in it."
    import segmentation_models_pytorch as smp
    torch.manual_seed(0)
    network = smp.Unet('tu-resnet10t', encoder_weights=None, in_channels=4, classes=3).eval()
    settings = {'model': 'unet', 'backbone': 'tu-resnet10t', 'in_channels': 4, 'task': 'multiclass', 'num_classes': 3,
                'num_labels': None, 'num_filters': 3, 'loss': 'ce', 'class_weights': torch.ones(3),
                'ignore_index': None, 'lr': 1e-3, 'patience': 10, 'freeze_backbone': False, 'freeze_decoder': False}
    weights = {f'model.{name}': value for name, value in network.state_dict().items()}
    settings = {key: value for key, value in (settings | changes).items() if value != 'gone'}
    torch.save({'epoch': 1, 'global_step': 2, 'pytorch-lightning_version': '2.6.0', 'loops': {}, 'lr_schedulers': [],
                'state_dict': changes.get('state_dict', weights | {'criterion.weight': torch.ones(3)}),
                'hparams_name': 'kwargs', 'hyper_parameters': changes.get('all', settings)}, path)
    return network


def test_a_checkpoint_of_a_torchgeo_task(tmp_path, scene, capsys):
    file = tmp_path / 'task.ckpt'
    network = torchgeo_checkpoint(file)
    facts = {'classes': ['a', 'b', 'c'], 'mean': [0.] * 4, 'std': [1.] * 4}
    with pytest.raises(ValueError, match=r'says nothing of mean, std; give mean'):
        Predictor.wrap(file, classes=['a', 'b', 'c'])
    predictor, picture = Predictor.wrap(file, **facts), torch.randn(2, 4, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(predictor.logits(picture).cpu(), network(picture))
    assert predictor.logits(torch.randn(1, 4, 50, 70)).shape == (1, 3, 50, 70)
    before = file.read_bytes()
    for changes, says in (({'model': 'fcn'}, "model is 'fcn', expected one of unet, deeplabv3"),
                          ({'backbone': 'gone'}, 'expected a checkpoint of a SemanticSegmentationTask of TorchGeo'),
                          ({'task': 'multilabel'}, "task is 'multilabel', expected multiclass or binary"),
                          ({'in_channels': 0}, "in_channels is '0', expected a whole number"),
                          ({'num_classes': 5}, 'of another shape'),
                          ({'backbone': 'tu-hf-hub:someone/x'}, 'is an address'),
                          ({'in_channels': 1 << 30}, 'not a saved network'), ({'model': ['unet']}, "model is .*unet"),
                          ({'backbone': ['resnet18']}, 'not a saved network'),
                          ({'all': [1, 2]}, 'expected a checkpoint of a SemanticSegmentationTask of TorchGeo'),
                          ({'state_dict': [torch.ones(3)]}, 'task.ckpt: .*tensors'),
                          ({'lr': Mark(tmp_path / 'run')}, 'not a readable checkpoint')):
        torchgeo_checkpoint(file, **changes)
        with pytest.raises(ValueError, match=says):
            Predictor.wrap(file, **facts)
        assert not (tmp_path / 'run').exists()
    file.write_bytes(before[:len(before) // 2])
    with pytest.raises(ValueError, match='not a readable checkpoint'):
        Predictor.wrap(file, **facts)
    torchgeo_checkpoint(file)
    words = ['classes=[a,b,c]', 'mean=[0,0,0,0]', 'std=[1,1,1,1]', f'data={scene}']
    assert cli.main(['predict', '--model', str(file), *words, f'out={tmp_path / "maps"}']) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(said) == 1 and 'bands' in said[0]  # the scene has three


def test_a_torchgeo_task_of_two_classes(tmp_path, scene, capsys):
    import segmentation_models_pytorch as smp
    file = tmp_path / 'task.ckpt'
    torch.manual_seed(0)
    network = smp.Unet('tu-resnet10t', encoder_weights=None, in_channels=3, classes=1).eval()
    torchgeo_checkpoint(file, in_channels=3, num_classes=None, task='binary', state_dict={
        f'model.{name}': value for name, value in network.state_dict().items()})
    picture = torch.randn(1, 3, 64, 96)
    predictor = Predictor.wrap(file, classes=['other', 'water'], mean=[0.] * 3, std=[1.] * 3)
    with torch.no_grad():
        torch.testing.assert_close(predictor.logits(picture).softmax(1)[:, 1:].cpu(), network(picture).sigmoid())
    words = ['--model', str(file), 'classes=[other,water]', 'mean=[0,0,0]', 'std=[1,1,1]', 'window=64', f'data={scene}']
    assert set(np.unique(answer(words, tmp_path / 'maps', capsys))) <= {0, 1, 255}


def test_a_folder_of_hugging_face(tmp_path):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    torch.manual_seed(0)
    config = SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, decoder_hidden_size=16,
                             num_attention_heads=[1, 1, 2, 2], id2label={0: 'ground', 1: 'water'},
                             label2id={'ground': 0, 'water': 1})
    network, folder = SegformerForSemanticSegmentation(config).eval(), tmp_path / 'hf'
    network.save_pretrained(folder)
    with pytest.raises(ValueError, match='says nothing of mean, std; give mean'):
        Predictor.wrap(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps(
        {'do_normalize': True, 'image_mean': [0.5] * 3, 'image_std': [0.25] * 3}))
    predictor = Predictor.wrap(folder)
    assert predictor.scheme.names == ['ground', 'water'] and predictor.card['augment']['std'] == [0.25] * 3
    picture = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        own = torch.nn.functional.interpolate(network(picture).logits, (64, 96), mode='bilinear', align_corners=False)
    torch.testing.assert_close(predictor.logits(picture).cpu(), own)
    known = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(known | {'auto_map': {'AutoModel': 'code.Net'}}))
    with pytest.raises(ValueError, match='names code of its own, which is never run'):
        Predictor.wrap(folder)
    (folder / 'config.json').write_text(json.dumps(known))
    weights = {'a': torch.zeros(1)}
    shutil.copy(folder / 'model.safetensors', tmp_path / 'kept')
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(ValueError, match='tensors are missing or of another shape'):
        Predictor.wrap(folder)
    (folder / 'model.safetensors').unlink()
    with pytest.raises(ValueError, match='no model.safetensors in it'):
        Predictor.wrap(folder)


def test_other_verbs_take_runs(tmp_path, capsys):
    model = write_onnx(tmp_path / 'bright.onnx')
    for words, says in ((['profile', '--model', str(model)], '--model: a model from elsewhere is for predict'),
                        (['predict', '--model', str(model), '--checkpoint', str(tmp_path)], 'one of them'),
                        (['predict', '--model', str(model), *FACTS], 'name files or a folder of them: data=FILE'),
                        (['predict', '--model', str(tmp_path / 'brigt.onnx')], 'nearest: bright.onnx')):
        assert cli.main(words) == 2
        assert says in capsys.readouterr().err
