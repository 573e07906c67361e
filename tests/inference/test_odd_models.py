"Models that would answer wrongly in silence, or whose fault is hard to see: each is one line that says what to do."
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from geoseg import Predictor
from geoseg.core.errors import ConfigError

FACTS = {'classes': ['dark', 'bright'], 'mean': [0.] * 3, 'std': [1.] * 3, 'answer': 'logits'}
SIDES = ('n', 3, 'h', 'w')
FIRST, LAST = ('Transpose', {'perm': [0, 3, 1, 2]}), ('Transpose', {'perm': [0, 2, 3, 1]})


def graph(path, *more, before=(), shape=SIDES, gives=('n', 2, 'h', 'w'), kind=TensorProto.FLOAT, opset=17, ir=9,
          sign=1):
    "A convolution between other operators."
    weight = sign * np.stack([np.ones(3), -np.ones(3)][:1 if gives[1] == 1 else 2]).astype(np.float32)
    tensors = [numpy_helper.from_array(weight.reshape(-1, 3, 1, 1), 'w'),
               numpy_helper.from_array(np.full(len(weight), .2, np.float32), 'b')]
    steps, nodes, name = [*before, ('Conv', {}), *more], [], 'x'
    for i, (operator, settings) in enumerate(steps):
        inputs, name = [name, *(['w', 'b'] if operator == 'Conv' else [])], f'y{i}'
        inputs += [inputs[0]] if operator in ('Sub', 'Div') else []
        nodes.append(helper.make_node(operator, inputs, [name], **settings))
    made = helper.make_graph(nodes, 'g', [helper.make_tensor_value_info('x', kind, shape)],
                             [helper.make_tensor_value_info(name, TensorProto.FLOAT, gives)], tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid('', opset)], ir_version=ir)
    path.write_bytes(model.SerializeToString())
    return path


CASES = {
    'a softmax as logits': (dict(more=[('Softmax', {'axis': 1}), ('Identity', {})]), {},
                            'comes out of a Softmax: answer=probabilities'),
    'a sigmoid as logits': (dict(more=[('Sigmoid', {})], gives=('n', 1, 'h', 'w')), {},
                            'comes out of a Sigmoid: answer=probabilities'),
    'logits as probabilities': (dict(more=[('Log', {}), ('Neg', {}), ('Exp', {})], sign=0), {'answer': 'probabilities'},
                                'from 5 to 5, which are no probabilities: answer=logits'),
    'infinite logits': (dict(more=[('Log', {}), ('Neg', {}), ('Exp', {}), ('Sub', {}), ('Log', {}), ('Neg', {})]), {},
                        'numbers that are none (NaN or infinite)'),
    'bands last': (dict(before=[FIRST], shape=('n', 'h', 'w', 3)), {}, 'bands last: expected them second'),
    'bands last, of one size': (dict(before=[FIRST], shape=(1, 64, 64, 3)), {}, 'bands last: expected them second'),
    'classes last': (dict(more=[LAST], gives=('n', 'h', 'w', 2)), {}, 'classes last: expected them second'),
    'bytes': (dict(before=[('Cast', {'to': TensorProto.FLOAT})], kind=TensorProto.UINT8), {},
              'begin with a Cast and a division by 255'),
    'an opset to come': (dict(opset=99), {}, 'is of opset 99, and the onnx that is installed reads up to'),
    'a form to come': (dict(ir=99), {}, 'is of IR version 99'),
    'an operator of nobody': (dict(more=[('Magic', {})]), {}, 'not a valid ONNX file'),
}


@pytest.mark.parametrize('how, facts, says', CASES.values(), ids=CASES)
def test_a_model_that_would_mislead_is_refused(how, facts, says, tmp_path):
    how = dict(how)
    file = graph(tmp_path / 'odd.onnx', *how.pop('more', ()), **how)
    with pytest.raises(ValueError) as found:
        Predictor.wrap(file, **FACTS | facts)
    lines = str(found.value).splitlines()
    assert len(lines) == 1 and says in lines[0] and 'odd.onnx' in lines[0], lines


def test_what_is_right_stays_right(tmp_path):
    "Probabilities said to be such, a class that is excluded, and sides by other names."
    picture = torch.rand(1, 3, 64, 64)
    file = graph(tmp_path / 'a b ü.onnx', ('Softmax', {'axis': 1}))
    soft = Predictor.wrap(file, **FACTS | {'answer': 'probabilities'})
    plain = Predictor.wrap(graph(tmp_path / 'b.onnx', shape=('N', 'bands', 'image height', '4*w')), **FACTS)
    assert torch.allclose(soft.logits(picture).softmax(1), plain.logits(picture).softmax(1), atol=1e-6)

    class Excludes(torch.nn.Module):
        def forward(self, image):
            return torch.cat([image[:, :1], torch.full_like(image[:, :1], -torch.inf)], 1)

    assert (Predictor.wrap(Excludes(), **FACTS).logits(picture).argmax(1) == 0).all()


def test_a_module_that_ends_in_a_softmax(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Softmax(1))
    with pytest.raises(ConfigError, match='sum to 1, as those of a softmax: answer=probabilities'):
        Predictor.wrap(network, **FACTS)
    assert Predictor.wrap(network, **FACTS | {'answer': 'probabilities'}).logits(torch.rand(1, 3, 32, 32)).shape[1] == 2


def test_a_folder_that_holds_no_model(tmp_path):
    (tmp_path / 'net.onnx').mkdir()
    with pytest.raises(ConfigError, match='net.onnx: a folder without config.json, expected one that save_pretrained'):
        Predictor.wrap(tmp_path / 'net.onnx', **FACTS)
