"Calibrated halting, and the verbs of the published commands."
import functools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch

import geoseg
from geoseg import cli
from geoseg.models.checkpoints import change_card
from geoseg.world.layouts import world_data

pytestmark = pytest.mark.usefixtures('cache')


@pytest.fixture
def run(tiny_run):
    return geoseg.Run(tiny_run('deepglobe-trm'))


def test_the_calibrated_threshold_is_used_unless_another_is_given(run, tmp_path):
    "By prediction and evaluation; and with everything else the checkpoint stays as it was."
    folder = shutil.copytree(run.folder, tmp_path / 'run')
    evaluate = functools.partial(geoseg.evaluate, folder, split='val', out=tmp_path)
    change_card(folder / 'checkpoints/best.ckpt', {'network': {'init_args': {'tau': 1.01}}})
    assert evaluate().scores['Steps'] == 6 and evaluate(overrides={'tau': 0.0}).scores['Steps'] == 2
    [scene] = sorted(world_data('raster', size='tiny').glob('*_image.tif'))[:1]
    for tau, steps in ((None, 6), (0.0, 2)):
        given = {} if tau is None else {'tau': tau}
        geoseg.predict(folder, scene, tmp_path, window=64, overlap=0, write=['steps'], overrides=given)
        with rasterio.open(tmp_path / f'{scene.stem}_steps.tif') as f:
            assert np.unique(f.read()).tolist() == [steps]
    old, new = (torch.load(f / 'checkpoints/best.ckpt', weights_only=True) for f in (run.folder, folder))
    assert old['geoseg']['network']['init_args'].pop('tau') == 0.7
    assert new['geoseg']['network']['init_args'].pop('tau') == 1.01 and new['geoseg'] == old['geoseg']
    assert all(torch.equal(x, new['state_dict'][name]) for name, x in old['state_dict'].items())


def test_the_verbs(own_run, tmp_path, capfd, cache):
    run = geoseg.Run(own_run('deepglobe-trm'))
    checkpoint = ['--checkpoint', str(run.folder)]
    assert cli.main(['prepare', '--recipe', 'deepglobe-trm', 'data=world:tiny', 'patch=32', 'force=true']) == 0
    folder = Path(capfd.readouterr().out.strip())
    assert {p.name for p in folder.iterdir()} == {'patches.csv', 'patches.parquet', 'index.json'}
    assert folder.parent == cache / 'patches'
    assert cli.main(['halt-cal', *checkpoint, 'delta=0.05', 'by=sample', f'out={tmp_path}']) == 0
    said = capfd.readouterr().out
    chosen = json.loads((tmp_path / 'halting.json').read_text())['conformal']
    assert 'conformal' in said and f'tau {chosen:.4f}' in said and run.predictor().network.tau == chosen
    sweep = pd.read_csv(tmp_path / 'sweep.csv')
    assert math.isclose(sweep['mIoU'].iloc[-1], sweep['mIoU'].to_numpy()[-1]) and sweep['bound'].is_monotonic_decreasing
    assert cli.main(['efficiency', *checkpoint, 'size=32', 'repeats=2', 'device=cpu']) == 0
    steps = run.metrics['Steps/val'].iloc[int(run.metrics['mIoU/val'].argmax())]
    said = capfd.readouterr()
    assert f'total, {steps:g} steps' in said.out and 'Profiler' not in said.err
    for words, said in ((['halt-cal', *checkpoint, 'delta=2'], 'delta is 2'),
                        (['prepare', '--recipe', 'unet', 'data=world:tiny'], 'needs no preparation'),
                        (['efficiency'], 'give either a checkpoint, a recipe, or a model')):
        assert cli.main(words) == 2
        assert said in capfd.readouterr().err
