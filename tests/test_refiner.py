"The recipe `deepglobe-trm` from end to end: data, training, resume, halting, and the verbs of the published commands."
import functools
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import tiny
import torch

import geoseg
from geoseg import cli
from geoseg.data.labels import LabelScheme
from geoseg.data.patches import DeepGlobeData
from geoseg.data.shared import cache_folder
from geoseg.data.world import world_data
from geoseg.models.refiner import TRMSeg, halting_steps, refine
from geoseg.training.recipes import detect_layout, parse
from geoseg.training.refinement import RefinerTask, stop_labels
from geoseg.training.runs import change_card
from geoseg.training.tasks import Predictor

SMALL = tiny.settings('deepglobe-trm', val_share=None, ema=None, latent=None, lr=None, epochs=None, seed=None)
SMALL |= {'every_n_epochs': 0}


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    "Worlds as they are kept; index and store of patches in a folder of the tests."
    world_data('deepglobe', size='tiny')
    home, folder = cache_folder(), tmp_path_factory.mktemp('cache')
    (folder / 'world').symlink_to(home / 'world')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GEOSEG_CACHE', str(folder))
        yield folder


@pytest.fixture
def run(tiny_run):
    return geoseg.Run(tiny_run('deepglobe-trm'))


def test_a_run_leaves_the_published_table(run):
    log = pd.read_csv(run.folder / 'train_log.csv')
    assert log.columns.tolist() == ['epoch', 'lr', 'train_loss', 'val_loss', 'val_miou', 'val_avg_steps', 'val_bf1']
    assert len(log) == 2 and log.notna().all(axis=None)
    assert log['val_bf1'].tolist() == run.metrics['Boundary F1/val'].tolist()
    assert len(list((run.folder / 'checkpoints').glob('epoch*.ckpt'))) == 2  # save_every 1


def test_a_killed_run_goes_on_to_the_last_bit(run, tmp_path):
    "Its newest checkpoint is that of the first epoch."
    first = tiny.train('deepglobe-trm', tmp_path)
    for path in (first.folder / 'checkpoints').glob('epoch001*'):
        path.unlink()
    begun = next((first.folder / 'checkpoints').glob('epoch000*'))
    os.replace(begun, first.last)
    geoseg.train(resume=first.folder)
    ours, theirs = (torch.load(r.last, weights_only=True) for r in (first, run))
    assert all(torch.equal(x, theirs['state_dict'][n]) for n, x in ours['state_dict'].items())
    for name in ('metrics.csv', 'train_log.csv', 'per_class.csv'):
        assert (first.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_prediction_halts_and_answers_as_all_steps_do(run, tmp_path, monkeypatch):
    "Whole pictures through windows; with tau 0 two steps a window are computed, with tau above 1 six."
    pictures, computed = len(run.data().datasets['predict']), []
    step = TRMSeg.step
    monkeypatch.setattr(TRMSeg, 'step', lambda net, *args: computed.append(len(args[0])) or step(net, *args))
    for tau, steps in ((0.0, 2), (1.1, 6)):
        computed.clear()
        folder = geoseg.predict(run.folder, out=tmp_path / f'{tau}', overrides={'tau': tau}, window=64, overlap=0)
        assert len(list(folder.rglob('*.png'))) == pictures
        assert sum(computed) == pictures * 4 * steps  # 128 x 128 pixels are four windows


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


def test_evaluation_counts_every_patch(run, tmp_path):
    result = geoseg.evaluate(run.folder, split='val', out=tmp_path)
    assert result.scores['mIoU'] == run.metrics['mIoU/val'].max()
    assert 2 <= result.scores['Steps'] <= 6
    labelled = run.data().class_counts('val')[:, :-1].sum()
    dropped = run.data().images()['split'].eq('val').sum() * 16 - len(result.names)
    assert result.confusion.sum() <= labelled <= result.confusion.sum() + dropped * 0.1 * 32**2


@pytest.mark.parametrize('options', [{'act': False}, {'pixel_act': True}, {'no_grad_steps': 3}, {'t_min': 6}])
def test_options_train(options, tmp_path):
    run = geoseg.train('deepglobe-trm', 'world:tiny', epochs=1, out=tmp_path,
                       overrides=SMALL | options | {'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 2})
    assert run.metrics.notna().all(axis=None)
    if 'act' in options or 't_min' in options:
        assert run.metrics['Steps/val'].tolist() == [6]


def test_it_learns(tmp_path):
    "Four tiles of stripes, each of two classes, until they are known by heart; and then the head says stop."
    torch.manual_seed(0)
    image, mask = torch.rand(4, 3, 32, 32) * 0.2, torch.zeros(4, 32, 32, dtype=torch.int64)
    mask[:, :, 16:] = torch.arange(1, 5)[:, None, None] % 3
    image[:, 0] += mask / 2
    task = RefinerTask(TRMSeg(3, width=16, t_max=4), torch.nn.CrossEntropyLoss(ignore_index=255))
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task.compute_loss(task({'image': image}), {'mask': mask}).backward()
        optimizer.step()
    with torch.no_grad():
        output = task.network.eval()(image)
    assert (output['logits'].argmax(1) == mask).float().mean() > 0.95
    assert output['steps'].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize('seed', range(4))
def test_streams_equal_all_steps_bit_for_bit(seed):
    "Any number of tiles on any number of places, at one shape of the batch."
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    n, places = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    net = TRMSeg(3, width=16, t_max=int(rng.integers(1, 6)), t_min=1, pixel_act=bool(seed % 2), latent=seed > 1).eval()
    tiles = torch.rand(n, 3, 20, 24)
    padded = torch.cat([tiles, tiles[-1:].repeat(-n % places, 1, 1, 1)])
    with torch.inference_mode():
        q = torch.cat([net.unroll(part)['halt'] for part in padded.split(places)], 1)[:, :n]
        net.tau = float(q.sigmoid().quantile(rng.random()))
        expected = torch.cat([net(part, all_steps=True)['logits'] for part in padded.split(places)])[:n]
        logits, steps = zip(*refine(net, iter(tiles), places), strict=True)
    assert torch.equal(torch.stack(logits), expected)
    assert torch.equal(torch.stack(steps), halting_steps(q, net.tau, 1))


@pytest.mark.parametrize('pixel_act', [False, True])
def test_a_predictor_fills_its_places_from_batch_to_batch(pixel_act):
    "Batches of any length: the answers of each batch by itself, in fewer steps of the network."
    torch.manual_seed(0)
    net = TRMSeg(3, width=16, t_min=1, pixel_act=pixel_act).eval()
    batches = [{'image': torch.rand(n, 3, 32, 32)} for n in (3, 1, 4, 4, 2)]
    with torch.inference_mode():
        q = net.unroll(torch.cat([b['image'] for b in batches]))['halt'].sigmoid()
    net.tau = float(q.flatten(2).amin(2).median())
    predictor = Predictor(net, LabelScheme.load('water'), {'temperature': 2.}, 'cpu')
    sizes, step = [], net.step
    net.step = lambda *args: (sizes.append(len(args[0])), step(*args))[1]
    expected = [predictor.output(batch) for batch in batches]
    alone = len(sizes)
    for fixed in (True, False):
        sizes.clear()
        for ours, theirs in zip(predictor.outputs(iter(batches), 4, fixed), expected, strict=True):
            assert torch.allclose(ours['logits'], theirs['logits'], atol=1e-5)
            assert torch.equal(ours['steps'].flatten(), theirs['steps'].flatten())
        assert len(sizes) < alone and sizes[0] == 4 and (set(sizes) == {4}) == fixed
    assert len({s for o in expected for s in o['steps'].flatten().tolist()}) > 1


def test_stop_labels_against_a_loop():
    scores = torch.rand(6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    by_loop = [[float(max(s[t + 1:]) - s[t] <= 0.002) for t in range(5)] for s in scores.T.tolist()]
    assert stop_labels(scores).T.tolist() == by_loop


def test_the_layout_is_recognised(tmp_path):
    tiny = world_data('deepglobe', size='tiny')
    assert detect_layout(tiny) == detect_layout(tiny / 'train') == 'deepglobe'
    config = parse(['unet'], {'data': str(tiny)}).config
    assert config.data.class_path.endswith('DeepGlobeData')
    with pytest.raises(ValueError, match='max_unknown'):
        parse(['deepglobe-trm'], {'data': str(tiny), 'max_unknow': 1})


def test_validation_is_drawn_by_image_and_seed():
    tiny = world_data('deepglobe', size='tiny')
    chosen = {}
    for seed in (0, 0, 1):
        data = DeepGlobeData(tiny, patch=64, cache=False, seed=seed, val_share=0.25)
        data.setup()
        names = {split: {n.rpartition('_r')[0] for n in data.datasets[split].names} for split in ('train', 'val')}
        assert not names['train'] & names['val'] and len(names['val']) == 3
        assert chosen.setdefault(seed, names) == names
    assert chosen[0] != chosen[1]


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
                        (['efficiency'], 'either a checkpoint or a recipe')):
        assert cli.main(words) == 2
        assert said in capfd.readouterr().err


def test_a_sweep_on_a_cluster(tmp_path, capsys, monkeypatch):
    "A seed by the address of a scheduler, then none: the row is there."
    from distributed import LocalCluster
    monkeypatch.chdir(Path(__file__).parents[1])
    words = ['sweep', '--recipe', 'deepglobe-trm', 'data=world:tiny', 'epochs=1', 'seeds=[3]', f'out={tmp_path}',
             'grid={t_max: [2]}', *tiny.words(SMALL)]
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        assert cli.main([*words, f'address={cluster.scheduler_address}']) == 0
    first = capsys.readouterr().out
    assert pd.read_csv(tmp_path / 'sweep.csv')['seed'].tolist() == [3]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == first
