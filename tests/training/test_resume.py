"A run that is killed and resumed ends exactly like one that never was."
import json
from pathlib import Path

import pytest
import torch
import warm

KILLS = 10


@pytest.mark.long
@pytest.mark.parametrize('workers', [0, 2])
def test_killed_runs_end_the_same(tmp_path, workers):
    driver = Path(__file__).with_name('kill_run.py')
    done = warm.run(driver, tmp_path, workers, KILLS, 7, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    whole, cut, struck = Path(result['whole']), Path(result['cut']), result['struck']
    print('killed in', struck)
    assert sum(s is not None for s in struck) >= KILLS * 0.7
    assert {'train', 'save', 'validate'} <= set(struck)
    for name in ('metrics.csv', 'per_class.csv'):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    assert (sorted(p.name for p in (whole / 'checkpoints').iterdir())
            == sorted(p.name for p in (cut / 'checkpoints').iterdir()))
    for path in sorted((whole / 'checkpoints').glob('*.ckpt')):
        same_state(path, cut / 'checkpoints' / path.name)


def same_state(a, b):
    'Weights, averages, optimizer and schedule of two checkpoints are equal to the bit.'
    a, b = (torch.load(path, map_location='cpu', weights_only=True) for path in (a, b))
    for part in ('state_dict', 'ema'):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), f'{part} {name}'
    for x, y in zip(a['optimizer_states'], b['optimizer_states'], strict=True):
        for key, state in x['state'].items():
            for name, value in state.items():
                assert torch.equal(value, y['state'][key][name]), f'optimizer {key} {name}'
    assert a['lr_schedulers'] == b['lr_schedulers']
    assert a['global_step'] == b['global_step'] and a['epoch'] == b['epoch']
