"""A network that knows where it looks: from files to checkpoints, and back in the same frame."""
import shutil

import lightning as L
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch.utils.data import default_collate

from geoseg.core.errors import ConfigError
from geoseg.evaluation.evaluate import evaluate
from geoseg.geo.memory import GeoMemory
from geoseg.inference.predict import predict
from geoseg.models.predictor import Predictor
from geoseg.training import train as training
from geoseg.training.config import parse
from geoseg.training.run import Run
from geoseg.training.train import train
from geoseg.world.layouts import world_data

TINY = tiny.settings('geosegformer', image_size=None, epochs=None, seed=None, save_top_k=None)
REMEMBERING = TINY | {'chip': 64, 'scales': [8., 64.], 'chips_per_epoch': 24, 'memory_size': 24, 'spatial_radius': 6.,
                      'memory_dim': 16, 'memory_warmup_epochs': 1, 'ema': 0.9}
CPU = {'num_workers': 0, 'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False}


@pytest.fixture
def photos(tiny_run):
    'A run on the geotagged photos of the tiny world.'
    return Run(tiny_run('geosegformer'))


@pytest.fixture(scope='session')
def remembering(once):
    'A run with a memory. Not to be written into.'
    out = once('remembering', lambda out: train('geosegformer', 'world:raster:tiny', epochs=3, seed=2, out=out,
                                                overrides=REMEMBERING))
    return Run(next((out / 'geosegformer').iterdir()))


def test_photos_are_trained_on_and_the_place_matters(photos):
    assert photos.metrics[['Loss/train', 'Loss/val', 'mIoU/val']].notna().all(None)
    predictor, data = photos.predictor(), photos.data()
    batch = default_collate([data.datasets['test'][i] for i in range(3)])
    assert batch['xy'].shape == (3, 2) and batch['xy'].isfinite().all()
    logits, blind = predictor.logits(batch), predictor.without('xy').logits(batch)
    assert not torch.allclose(logits, blind)
    lost = batch | {'xy': batch['xy'].index_fill(0, torch.tensor(1), torch.nan)}
    torch.testing.assert_close(predictor.logits(lost)[1], blind[1])
    torch.testing.assert_close(predictor.logits(lost)[[0, 2]], logits[[0, 2]])


def test_another_set_of_photos_is_brought_into_the_frame_of_the_checkpoint(photos, tmp_path):
    whole, root = evaluate(photos.folder, out=tmp_path / 'whole'), world_data('geotagged', size='tiny')
    test = pd.read_csv(root / 'split.csv').query('split == "test"')['name'].tolist()[:5]  # IMG.jpg
    stems = [name.removesuffix('.jpg') for name in test]
    for folder in ('img', 'mask'):
        (tmp_path / 'few' / folder).mkdir(parents=True)
        for file in (root / folder).iterdir():
            if file.stem in stems:
                shutil.copy(file, tmp_path / 'few' / folder)
    gps = pd.read_csv(root / 'gps.csv')
    gps[gps['filename'].isin(test)].to_csv(tmp_path / 'few' / 'gps.csv', index=False)
    shutil.copy(root / 'category.csv', tmp_path / 'few')
    cli = Run.of(photos.folder).open({'test': str(tmp_path / 'few')})
    cli.datamodule.setup('test')
    own = {sample['name']: sample['xy'] for sample in photos.data().datasets['test']}
    for sample in cli.datamodule.datasets['test']:
        torch.testing.assert_close(sample['xy'], own[sample['name']])
    few = evaluate(photos.folder, {'test': str(tmp_path / 'few')}, out=tmp_path / 'scores')
    for name, confusion in zip(few.names, few.confusions, strict=True):
        np.testing.assert_array_equal(confusion, whole.confusions[whole.names.index(name)])


def test_rasters_have_a_place_for_each_cell(tmp_path):
    run = train('geosegformer', 'world:raster:tiny', epochs=1, seed=1, out=tmp_path, overrides=TINY | {
        'chip': 64, 'scales': [8., 64.], 'dihedral': 1.0, 'chips_per_epoch': 16, 'ema': 0.9, 'patience': 3})
    sample = run.data().datasets['val'][0]
    assert sample['image'].shape == (3, 64, 64) and sample['xy'].shape == (16, 16, 2)
    result = evaluate(run.folder, out=tmp_path / 'scores')
    assert np.isfinite(result.loss) and result.confusion.sum() > 0
    assert run.data().extent == pytest.approx((256, 256))


def test_resumed_with_place_dropout_it_ends_the_same(tmp_path):
    whole = train('geosegformer', 'world:tiny', epochs=2, seed=4, out=tmp_path / 'a',
                  overrides=TINY | {'image_size': [32, 32], 'place_dropout': 0.5})
    half = train('geosegformer', 'world:tiny', epochs=2, seed=4, out=tmp_path / 'b',
                 overrides=TINY | {'image_size': [32, 32], 'place_dropout': 0.5, 'every_n_epochs': 1})
    again = train(resume=str(next(half.folder.glob('checkpoints/epoch000*'))))
    assert (again.folder / 'metrics.csv').read_bytes() == (whole.folder / 'metrics.csv').read_bytes()
    one, two = (torch.load(run.last, weights_only=True)['state_dict'] for run in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_recalls_what_it_has_seen(remembering):
    assert remembering.metrics['Recalled/val'].tolist()[0] == 0 and remembering.metrics['Recalled/val'].iloc[-1] > 0.9
    memory = remembering.predictor().network.memory
    assert len(memory) > 1000 and memory.frame == remembering.data().frame
    test = {source for sample in remembering.data().datasets['test'] for source in [int(sample['source'])]}
    assert not test & set(memory.entries()['source'].tolist())  # written from the training ground alone


def test_a_checkpoint_recalls_the_same(remembering, tmp_path):
    val, again = evaluate(remembering.folder, split='val', out=tmp_path / 'val'), remembering.predictor()
    best = remembering.metrics.set_index('epoch').loc[remembering.best_epoch]
    assert val.scores['mIoU'] == pytest.approx(best['mIoU/val'], abs=1e-9)
    assert val.scores['Recalled'] == pytest.approx(best['Recalled/val'])
    batch = default_collate([remembering.data().datasets['test'][i] for i in range(2)])
    again.save_pretrained(tmp_path / 'shared')
    shared = Predictor.from_pretrained(tmp_path / 'shared')
    assert len(shared.network.memory) == len(again.network.memory)
    torch.testing.assert_close(shared.logits(batch), again.logits(batch))
    assert not torch.allclose(again.logits(batch), again.without('xy').logits(batch))


def test_what_is_remembered_and_what_is_not(remembering, tmp_path):
    before = torch.load(remembering.best, weights_only=True)['state_dict']
    plain = evaluate(remembering.folder, out=tmp_path / 'plain')
    more = evaluate(remembering.folder, overrides={'remember': 'all'}, out=tmp_path / 'more')
    assert more.predictor.memory.stats()['sources'] > plain.predictor.memory.stats()['sources']
    assert 'acquisitions' in more.memory and 'recalled' in plain.memory
    answers = predict(remembering.folder, out=tmp_path / 'answers')  # frozen
    assert not (answers / 'memory.json').exists() and 'was recalled' in (answers / 'memory.txt').read_text()
    updated = predict(remembering.folder, out=tmp_path / 'updated', update=True)
    maps = sorted(answers.glob('*_classes.tif'))
    assert maps and all(path.read_bytes() == (updated / path.name).read_bytes() for path in maps)
    after = torch.load(remembering.best, weights_only=True)['state_dict']
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)
    again = evaluate(remembering.folder, memory=updated / 'memory', split='val', out=tmp_path / 'again')
    tests = {int(sample['source']) for sample in remembering.data().datasets['test']}
    assert tests <= set(again.predictor.memory.entries()['source'].tolist())
    with pytest.raises(FileNotFoundError, match='nowhere.safetensors'):
        evaluate(remembering.folder, memory=tmp_path / 'nowhere')
    other = GeoMemory(8, 4, 6.)
    other.save(tmp_path / 'narrow')
    with pytest.raises(ConfigError, match='narrow: memory: stored entries have 8 channels'):
        evaluate(remembering.folder, memory=tmp_path / 'narrow')


@pytest.mark.parametrize('freshness', ['refresh', 'rewrite', 'momentum'])
def test_new_ground_is_remembered_without_its_masks(tmp_path, freshness):
    west, east = {'columns': [0, 128]}, {'columns': [128, 256]}
    run = train('geosegformer', 'world:raster:tiny', epochs=2, seed=3, out=tmp_path, overrides=REMEMBERING | {
        'regions': {'train': west, 'val': east, 'remember': east}, 'remember': 'all',
        'label_recall': True, 'freshness': freshness})
    assert run.metrics['Recalled/val'].iloc[-1] > 0.5
    entries = run.predictor().memory.entries()
    right = entries['xy'][:, 0] > 4  # positions are relative to the middle
    assert right.any() and entries['probs'][right].isnan().all()
    mapped = ~entries['probs'][entries['xy'][:, 0] < -4].isnan().any(1)
    assert mapped.float().mean() > 0.9


def test_the_pixels_have_a_say_beside_recalled_maps(tmp_path):
    given = dict(epochs=2, seed=3, overrides=REMEMBERING | {'label_recall': True})
    runs = {say: train('geosegformer', 'world:raster:tiny', out=tmp_path / str(say), **given | {
        'overrides': given['overrides'] | {'pixel_evidence': say}}) for say in (False, True)}
    palettes = {say: run.predictor().network.recall['palette'] for say, run in runs.items()}
    assert palettes[True].change.any() and not hasattr(palettes[False], 'change')
    losses = [run.metrics['Loss/train'].tolist() for run in runs.values()]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]  # an epoch without a memory, one with
    with pytest.raises(ValueError, match='pixel_evidence is beside recalled maps: set label_recall=true'):
        train('geosegformer', 'world:raster:tiny', out=tmp_path, overrides=REMEMBERING | {'pixel_evidence': True})


def test_a_radius_below_a_cell_is_named_before_training(tmp_path):
    with pytest.raises(ValueError, match='set spatial_radius to 4 or more'):
        train('geosegformer', 'world:raster:tiny', out=tmp_path, overrides=REMEMBERING | {'spatial_radius': 2.})


def test_resumed_within_an_epoch_it_remembers_the_same(remembering, tmp_path):
    class Stop(Exception):
        pass

    class Killer(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 10:
                raise Stop

    cli = parse(['geosegformer'], {'data': 'world:raster:tiny', 'epochs': 3, 'seed': 2, 'out': str(tmp_path),
                                   'every_n_steps': 4} | REMEMBERING)
    made = training.make_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, 'make_trainer', lambda cli, extra, loggers: made(cli, [*extra, Killer()], loggers))
        with pytest.raises(Stop):
            training.fit(cli)
    folder = next((tmp_path / 'geosegformer').iterdir())
    again = train(resume=str(folder))
    assert (folder / 'metrics.csv').read_bytes() == (remembering.folder / 'metrics.csv').read_bytes()
    one, two = (torch.load(run.last, weights_only=True)['state_dict'] for run in (remembering, again))
    assert one.keys() == two.keys() and any('memory_features' in name for name in one)
    assert all(torch.equal(one[name].nan_to_num(), two[name].nan_to_num()) for name in one)


def test_a_place_aware_recipe_on_wildscenes(tmp_path):
    run = train('geosegformer', 'world:wildscenes:tiny', epochs=2, batch_size=4, out=tmp_path, overrides=CPU | {
        'image_size': [64, 64], 'feature_dim': 32, 'location_dim': 16, 'scales': [8.0, 64.0], 'memory_dim': 16,
        'memory_warmup_epochs': 1, 'warmup_epochs': 0, 'spatial_radius': 40.0})
    source, predictor = run.data(), run.predictor()
    assert source.frame.name == 'wildscenes_V' and predictor.memory.frame == source.frame
    assert len(predictor.memory) and run.metrics['Recalled/val'].iloc[-1] > 0  # a traverse recalls the other
    assert np.isfinite(evaluate(run.folder).scores['mIoU'])
    with pytest.raises(ValueError, match='frame wildscenes_V: metres of a place that is not known on the globe'):
        evaluate(run.folder, data='world:geotagged:tiny')
