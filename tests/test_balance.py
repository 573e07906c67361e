"Class weights and rare-class sampling through whole runs; WildScenes by its place and its split file."
import shutil

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from geoseg.data.balance import class_weights
from geoseg.data.layouts import recognise
from geoseg.data.pictures.images import WildscenesData
from geoseg.data.splits import write_split
from geoseg.evaluation.evaluate import evaluate
from geoseg.training import train as training
from geoseg.training.config import parse
from geoseg.training.train import train
from geoseg.world.layouts import world_data

CPU = {'num_workers': 0, 'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False}
SMALL = CPU | {'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 0,
               'image_size': [32, 32], 'crop': [32, 32]}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return shutil.copytree(world_data('folders', size='tiny'), tmp_path_factory.mktemp('data') / 'world')


def stopped_at(step, folder, data, settings):
    'A run that was killed after some steps.'
    class Stop(Exception):
        pass

    class Killer(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == step:
                raise Stop

    cli, made = parse(['unet'], {'data': str(data), 'out': str(folder)} | settings), training.make_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, 'make_trainer', lambda cli, extra, loggers: made(cli, [*extra, Killer()], loggers))
        with pytest.raises(Stop):
            training.fit(cli)
    return next((folder / 'unet').iterdir())


def test_weights_and_drawing_survive_a_kill_and_are_not_worked_out_again(data, tmp_path):
    settings = SMALL | {'epochs': 2, 'batch_size': 8, 'seed': 5, 'class_weights': 'median', 'oversample': 0.7,
                        'every_n_steps': 2}
    whole = train('unet', data, out=tmp_path / 'whole', overrides=settings)
    counts = whole.data().class_counts('train')
    kept = whole.config['model']['init_args']['class_weights']
    np.testing.assert_allclose(kept, class_weights(counts, 'median'), rtol=1e-5)
    folder = stopped_at(9, tmp_path / 'cut', data, settings)
    again = train(resume=str(folder))
    assert (whole.folder / 'metrics.csv').read_bytes() == (again.folder / 'metrics.csv').read_bytes()
    one, two = (torch.load(run.last, weights_only=True)['state_dict'] for run in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)

    plain = train('unet', data, out=tmp_path / 'plain', overrides=settings | {'class_weights': None, 'epochs': 1})
    assert plain.metrics['Loss/train'][0] != whole.metrics['Loss/train'][0]

    loss = evaluate(whole.folder, out=tmp_path / 'a').loss
    for mask in (data / 'masks' / 'train').iterdir():  # the training masks are gone: nothing counts them again
        mask.unlink()
    for image in (data / 'images' / 'train').iterdir():
        image.unlink()
    shutil.rmtree(data / 'images' / 'train')
    shutil.rmtree(data / 'masks' / 'train')
    assert evaluate(whole.folder, out=tmp_path / 'b').loss == loss


def test_settings_that_cannot_be_meant(tmp_path):
    for settings, says in (({'class_weights': 'medain'}, "'medain', expected inverse, median, effective"),
                           ({'class_weights': [1.0, 2.0]}, '2 entries for 7 classes'),
                           ({'class_weights': 'median', 'loss.class_path': 'geoseg.tasks.losses.DiceLoss'},
                            'DiceLoss has no term that takes class weights'),
                           ({'oversample': 20}, 'oversample is 20')):
        with pytest.raises(ValueError, match=says):
            train('unet', 'world:tiny', epochs=1, out=tmp_path, overrides=SMALL | settings)
        assert not list(tmp_path.iterdir())


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


def test_a_split_that_somebody_wrote_is_used(tmp_path):
    wild = world_data('wildscenes', size='tiny')
    names = [f'WildScenes2d/{p.relative_to(wild)}' for p in sorted(wild.glob('V-*/image/*.png'))]
    split = ['test' if '/V-01/' in name else 'val' if i % 5 == 0 else 'train' for i, name in enumerate(names)]
    file = write_split(pd.DataFrame({'name': names, 'split': split}), tmp_path / 'mine.csv')
    data = WildscenesData(wild, split=str(file))
    data.setup()
    assert {name[:4] for name in data.datasets['test'].names} == {'V-01'}
    assert len(data.datasets['train']) + len(data.datasets['val']) == sum('/V-02/' in name for name in names)


def test_a_traverse_alone_is_wildscenes():
    wild = world_data('wildscenes', size='tiny')
    assert {recognise(wild).layout, recognise(wild / 'V-02').layout} == {'wildscenes'}


def test_the_published_names_are_split_into_files(real_data, tmp_path):
    'V-01 and V-02 as they are named, each 7:2:1, pooled, and V-01 alone: read back as they were written.'
    from geoseg.data.splits import by_time, read_split, samples_table, stamp_times
    names = pd.read_csv(real_data('wildscenes/names.csv'))['im_path'].tolist()
    samples = samples_table(names, r'(V-\d+)', stamp_times(names))
    of = dict(iter(samples.groupby('group')))
    ways = {'each': by_time(samples), 'pooled': by_time(samples, pooled=True),
            'alone': pd.concat([by_time(of['V-02'], (7, 2, 0)), by_time(of['V-01'], (0, 0, 1))])}
    counts = {}
    for way, split in ways.items():
        back = read_split(write_split(split, tmp_path / f'{way}.csv'), names)
        drive = back['name'].str.extract(r'(V-\d+)')[0]
        counts[way] = {d: [int(((drive == d) & (back.split == s)).sum()) for s in ('train', 'val', 'test')]
                       for d in ('V-01', 'V-02')}
    assert counts == {'each': {'V-01': [459, 132, 66], 'V-02': [539, 154, 77]},
                      'pooled': {'V-01': [228, 286, 143], 'V-02': [770, 0, 0]},
                      'alone': {'V-01': [0, 0, 657], 'V-02': [598, 172, 0]}}
