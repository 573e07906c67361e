"Anyone's model is tested, calibrated and measured; what is found stands beside it, and it is never changed."
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg import cli
from geoseg.world.layouts import world_data

sys.path.insert(0, str(Path(__file__).parents[1] / 'inference'))
from test_wrapped import write_onnx  # noqa: E402

FACTS = ['mean=[0,0,0]', 'std=[1,1,1]', 'answer=logits']


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "Pictures of two classes, told apart by their brightness; a share of the labels is wrong."
    from PIL import Image
    folder, random = tmp_path_factory.mktemp('bright'), np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for i in range(3):
            mask = (random.random((8, 8)) > 0.5).repeat(8, 0).repeat(8, 1)
            picture = np.where(mask, 170, 130)[..., None] + random.normal(0, 25, (64, 64, 3))
            for kind, values in (('images', picture.clip(0, 255)), ('masks', mask)):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(folder / kind / split / f'{i}.png')
    (folder / 'classes.txt').write_text('0 dark\n1 bright\n')
    return folder


def test_what_is_found_stands_beside_a_model(given, tmp_path, capsys):
    model = write_onnx(tmp_path / 'bright.onnx', metadata={'class_names': {'0': 'dark', '1': 'bright'}})
    before, words = model.read_bytes(), ['--model', str(model), *FACTS]
    for verb, more in (('test', [f'data={given}']), ('calibrate', [f'data={given}']), ('efficiency', ['size=32',
                                                                                                      'repeats=2'])):
        assert cli.main([verb, *words, *more]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / 'bright.geoseg.json').read_text())
    assert model.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == [
        'bright.geoseg', 'bright.geoseg.json', 'bright.onnx']
    assert 0.7 < found['scores']['test']['Accuracy'] < 1 and found['temperature'] < 0.5  # logits of it are small
    assert found['efficiency']['1 x 32 x 32']['parameters'] == 8 and found['efficiency']['1 x 32 x 32']['ms mean'] > 0
    truth, right, count = [], 0, 0
    for mask in sorted((given / 'masks/test').iterdir()):  # worked out by hand
        from PIL import Image
        picture = np.asarray(Image.open(str(mask).replace('masks', 'images')), np.float32) / 255
        right += int(((picture.mean(2) > 0.6) == np.asarray(Image.open(mask))).sum())
        count += 64 * 64
    assert found['scores']['test']['Accuracy'] == pytest.approx(right / count, abs=1e-3), truth
    from geoseg.inference.wrapped import ModelFile
    facts = {'mean': [0.] * 3, 'std': [1.] * 3, 'answer': 'logits'}
    assert ModelFile(model, facts).wrapped.temperature == found['temperature']
    write_onnx(model, metadata={'class_names': {'0': 'a', '1': 'b'}})  # another model of that name
    capsys.readouterr()
    assert cli.main(['test', *words, f'data={given}']) == 2
    assert 'bright.geoseg.json: is about another bright.onnx' in capsys.readouterr().err


def test_what_does_not_fit_is_one_line(given, tmp_path, capsys):
    model = write_onnx(tmp_path / 'bright.onnx')
    meshes = shutil.copytree(world_data('mesh', size='tiny'), tmp_path / 'meshes')
    for words, says in ((['test', 'classes=[dark,light]', f'data={given}'], 'the data has dark, bright'),
                        (['test', 'classes=[dark,bright]'], 'has no data of its own: data=FOLDER'),
                        (['test', 'classes=[dark,bright]', f'data={meshes}'], 'meshes'),
                        (['calibrate', 'classes=[dark,bright]', f'data={given}', 'colour=1'], 'colour'),
                        (['efficiency', 'classes=[dark]'], 'gives 2 classes, and 1 are named'),
                        (['fit', '--recipe', 'unet'], '--model: a model from elsewhere is for predict, test')):
        assert cli.main([words[0], '--model', str(model), *FACTS, *words[1:]]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
        assert len(lines) == 1 and says in lines[0], lines
    assert not (tmp_path / 'bright.geoseg.json').exists()


def test_a_trained_network_and_its_export_have_the_same_scores(tiny_run, tmp_path, capsys):
    run, data = tiny_run('unet'), world_data('folders', size='tiny')
    assert cli.main(['export', '--checkpoint', str(run), f'out={tmp_path}/net.onnx', 'calibrated=false']) == 0
    assert cli.main(['test', '--checkpoint', str(run), f'out={tmp_path}/a']) == 0
    assert cli.main(['test', '--model', str(tmp_path / 'net.onnx'), f'data={data}', f'out={tmp_path}/b']) == 0
    one, two = (json.loads((tmp_path / name / 'scores.json').read_text()) for name in 'ab')
    assert one['mIoU'] == pytest.approx(two['mIoU'], abs=1e-3) and torch.isfinite(torch.tensor(one['mIoU']))


@pytest.mark.parametrize('reach, says', [(10., 'nothing is written'), (2e5, 'its logits reach 2e+05, where rounding')])
def test_a_difference_that_rounding_explains_says_so(reach, says, tmp_path):
    from geoseg.evaluation.exported import check_differences
    own = {'logits': torch.tensor([[reach, -reach]])}
    check_differences(tmp_path / 'a.onnx', {'probabilities': 1e-3}, 1e-3, own)
    with pytest.raises(ValueError, match=r'a.onnx: probabilities differs from the network by 0.0024') as found:
        check_differences(tmp_path / 'a.onnx', {'probabilities': 2.4e-3}, 1e-3, own)
    assert says in str(found.value) and ('rounding' in str(found.value)) == (reach > 1e3)
