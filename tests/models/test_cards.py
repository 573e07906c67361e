"A checkpoint, a shared network or weights of a stranger: one line that names the file, before anything large is made."
import copy
import json
import math
import os
import pickle
import resource
import time
import zipfile

import pytest
import torch
import yaml

from geoseg.inference.places.localize import Localizer
from geoseg.models.checkpoints import read_checkpoint, write_checkpoint
from geoseg.models.predictor import Predictor
from geoseg.models.weights import read_weights
from geoseg.training.run import Run
from geoseg.training.train import train


@pytest.fixture
def best(own_run):
    "A checkpoint without what a training goes on from."
    path = Run(own_run('unet')).best
    known = torch.load(path, weights_only=True)
    if len(known) > 2:
        write_checkpoint(path, {name: known[name] for name in ('state_dict', 'geoseg')})
    return path


def one_line(function, *arguments, memory=400):
    "The line with which something is refused; it took little memory (MB)."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, OSError)) as error:
        function(*arguments)
    assert '\n' not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < memory << 10
    return str(error.value)


def nested(depth, value='x'):
    for _ in range(depth):
        value = [value]
    return value


NETWORK = ('geoseg', 'network')
SETTINGS = (*NETWORK, 'init_args')
DECODER, DEEP = (*SETTINGS, 'decoder_channels'), 'within each other'
LINEAR = {'class_path': 'torch.nn.Linear', 'init_args': {'in_features': 10**6, 'out_features': 10**5}}
CHANGES = [  # where, what, what the line says
    *((('geoseg',), value, 'not a checkpoint of geoseg') for value in (None, 5, [], 'network', {})),
    *((('geoseg', 'temperature'), value, 'temperature')
      for value in (0, 0., -1., math.nan, math.inf, 10**400, '1', True)),
    *((('geoseg', 'labels'), value, 'labels') for value in (5, [], {}, {'names': ['a'] * 7}, {'evil': 1})),
    (('geoseg', 'labels', 'evil'), 1, 'labels'), (('geoseg', 'labels', 'ids'), 5, 'labels'),
    (('geoseg', 'labels', 'colors'), [['a']], 'labels'), (('geoseg', 'labels', 'names'), None, 'labels'),
    (('geoseg', 'augment'), 5, 'augment'), (('geoseg', 'kind'), ['a'], 'kind'), (('geoseg', 'data'), [], 'data'),
    (('geoseg', 'data', 'init_args'), [1], 'init_args'),
    (('geoseg', 'data'), {'a': nested(300)}, DEEP), ((*SETTINGS, 'evil'), nested(300), DEEP),
    ((*NETWORK, 'class_path'), 5, 'class'), (NETWORK, 'text', 'network'), (NETWORK, LINEAR, 'larger'),
    ((*SETTINGS, 'evil'), 1, 'evil'), *((DECODER, [n] * 5, 'larger') for n in (10**4, 10**6, 10**12)),
    (DECODER, [-1] * 5, 'negative'), (DECODER, 'abcde', 'cannot be built'),
    (('state_dict',), [1, 2], 'weights'), (('state_dict',), None, 'weights'), (('ema',), 5, 'weights')]


@pytest.mark.parametrize('where, value, says', CHANGES, ids=[f'{".".join(c[0])}={c[1]!r:.30}' for c in CHANGES])
def test_a_card_is_checked(best, tmp_path, where, value, says):
    known = torch.load(best, weights_only=True)
    part = known
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    torch.save(known, tmp_path / 'a.ckpt')
    message = one_line(Predictor.load, tmp_path / 'a.ckpt')
    assert str(tmp_path / 'a.ckpt') in message and says in message


@pytest.mark.parametrize('read', ['Localizer.load', 'Predictor.load', 'Run.open', 'Run.data', 'fit'])
def test_a_network_is_no_larger_than_its_weights(own_run, tmp_path, read):
    'Whoever builds the network of a file: its card, or the configuration beside it, asks for a tebibyte.'
    run, large = own_run('game4loc-same-area' if read == 'Localizer.load' else 'unet'), [10**6] * 5
    if read.endswith('.load'):
        known = torch.load(Run(run).best, weights_only=True)
        known['geoseg']['network'] = LINEAR
        torch.save(known, tmp_path / 'a.ckpt')
        message = one_line({'Localizer.load': Localizer.load, 'Predictor.load': Predictor.load}[read],
                           tmp_path / 'a.ckpt')
        assert str(tmp_path / 'a.ckpt') in message and 'larger' in message
        return
    settings = yaml.safe_load((run / 'config.yaml').read_text())
    settings['model']['init_args']['network']['init_args']['decoder_channels'] = large
    (run / 'config.yaml').write_text(yaml.safe_dump(settings))
    message = one_line({'Run.open': lambda: Run(run).open(), 'Run.data': lambda: Run(run).data(),
                        'fit': lambda: train(resume=str(run), epochs=9)}[read])
    assert '.ckpt' in message and 'UNet of the configuration is far larger' in message


def test_a_card_says_its_labels(best, tmp_path):
    known = torch.load(best, weights_only=True)
    del known['geoseg']['labels']
    torch.save(known, tmp_path / 'a.ckpt')
    assert 'no labels' in one_line(Predictor.load, tmp_path / 'a.ckpt')


TENSORS = {'nan': lambda x: x * math.nan, 'one inf': lambda x: x.index_fill(0, torch.tensor(0), math.inf),
           'complex': lambda x: x.to(torch.complex64), 'integer': lambda x: x.long(), 'sparse': torch.Tensor.to_sparse,
           'meta': lambda x: x.to('meta'), 'text': lambda x: 'x', 'short': lambda x: x[:1]}


@pytest.mark.parametrize('kind', TENSORS)
def test_a_tensor_is_one_of_numbers(best, tmp_path, kind):
    known = torch.load(best, weights_only=True)
    known.pop('ema', None)
    name = next(name for name, value in known['state_dict'].items() if value.ndim == 4)
    known['state_dict'] = dict(known['state_dict']) | {name: TENSORS[kind](known['state_dict'][name])}
    torch.save(known, tmp_path / 'a.ckpt')
    message = one_line(Predictor.load, tmp_path / 'a.ckpt')
    assert name.removeprefix('network.') in message and f' of {len(known["state_dict"])} ' in message
    known['state_dict'][name] = torch.load(best, weights_only=True)['state_dict'][name].half()
    torch.save(known, tmp_path / 'a.ckpt')
    assert Predictor.load(tmp_path / 'a.ckpt')


class Call:
    def __init__(self, size):
        self.size = size

    def __reduce__(self):
        return bytearray, (self.size,)


def legacy(text: bytes) -> bytes:
    'What torch saved before 1.6, around a pickle.'
    return b''.join([*(pickle.dumps(value, 2) for value in (torch.serialization.MAGIC_NUMBER, 1001, {})), text,
                     pickle.dumps([], 2)])


def test_what_torch_saved_before_1_6(best, tmp_path):
    known, path = torch.load(best, weights_only=True), tmp_path / 'a.ckpt'
    torch.save(known, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path)['state_dict'].keys() == known['state_dict'].keys()


@pytest.mark.parametrize('head', [b'', b'\0', b'c' * 3, legacy(b''), legacy(b'X\xff\xff\xff\x7f'),
                                  legacy(b'(' * 1000), pickle.dumps({}, 2), pickle.dumps({}, 5)])
def test_a_legacy_file_of_a_terabyte_is_refused_at_its_head(tmp_path, head):
    path = tmp_path / 'a.ckpt'
    path.write_bytes(head)
    os.truncate(path, 1 << 40)
    before = time.process_time()
    assert f'{path}: not a readable checkpoint' in one_line(read_checkpoint, path, memory=200)
    assert time.process_time() - before < 5


@pytest.mark.parametrize('size', [5 * 10**8, 10**13])
@pytest.mark.parametrize('form', ['zip', 'pickle', 'legacy'])
def test_a_small_file_makes_no_large_value(tmp_path, size, form):
    path, text = tmp_path / 'a.ckpt', pickle.dumps([Call(size)] * 2, 2)
    path.write_bytes(text if form == 'pickle' else legacy(text))
    if form == 'zip':
        torch.save({}, path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, 'w') as archive:
            for name, part in parts.items():
                archive.writestr(name, text if name.endswith('data.pkl') else part)
    for read in (Predictor.load, read_weights):
        assert f'{path}: not a readable checkpoint' in one_line(read, path, memory=200)


@pytest.fixture
def shared(best, tmp_path):
    Predictor.load(best).save_pretrained(tmp_path / 'shared')
    return tmp_path / 'shared'


CONFIGS = {'[' * 200_000: 'not JSON', '[]': 'dict', '{}': 'no card', '{"card": 5}': 'no card',
           '{"card": {}}': 'network', '{': 'not JSON', '"a"': 'dict'}


def test_a_shared_network_is_checked(shared):
    config, weights = shared / 'config.json', shared / 'model.safetensors'
    good = json.loads(config.read_text())
    assert Predictor.from_pretrained(shared)
    for text, says in CONFIGS.items():
        config.write_text(text)
        message = one_line(Predictor.from_pretrained, shared)
        assert 'config.json' in message and says in message, message
    for where, value, says in CHANGES:
        if where[0] == 'geoseg' and len(where) > 1 and says != 'temperature':
            card = copy.deepcopy(good)
            part = card['card']
            for name in where[1:-1]:
                part = part[name]
            part[where[-1]] = value
            config.write_text(json.dumps(card))
            assert says in one_line(Predictor.from_pretrained, shared)
    config.write_text(json.dumps(good))
    for content in (b'', b'\xff' * 16, b'\0' * 8 + b'{}'):
        weights.write_bytes(content)
        assert str(weights) in one_line(Predictor.from_pretrained, shared)
    for file in (weights, config):
        file.unlink()
        os.mkfifo(file)
        message = one_line(Predictor.from_pretrained, shared)
        assert str(file) in message and 'a pipe' in message


@pytest.mark.parametrize('text', ['{}', '[]', '5', '{"weight_map": 5}', '{"weight_map": {}}',
                                  '{"weight_map": {"a": 5}}', '[[',
                                  '{"weight_map": {"a": "../../etc/passwd"}}', '[' * 200_000])
def test_an_index_of_weights_is_checked(tmp_path, text):
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(text)
    assert str(index) in one_line(read_weights, tmp_path)
