"The recipe, the splits and the metrics on real pictures, where they are at hand."
import numpy as np
import pandas as pd
import pytest
import rasterio

from geoseg.data.splits import by_time, samples_table
from geoseg.evaluation.evaluate import evaluate
from geoseg.metrics.segmentation import metrics_from_confusion
from geoseg.training.train import train

TINY = {'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 0.5, 'num_workers': 0,
        'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False}
WATER, LAND = 0, 1


def test_camvid_is_split_by_time_within_each_drive_and_trained_on(real_data, tmp_path):
    run = train('unet', str(real_data('camvid')), epochs=1, out=tmp_path, overrides=TINY | {
        'labels': 'camvid', 'image_size': [64, 96], 'crop': [64, 96]})
    assert run.metrics['mIoU/val'].between(0, 1).all()
    table = run.data().table.assign(frame=lambda t: t['name'].str.extract(r'(\d+)$').astype(int))
    for _, drive in table.groupby(table['name'].str.split('_').str[0]):
        frames = {split: part['frame'] for split, part in drive.groupby('split')}
        assert frames['train'].max() < frames['val'].min() <= frames['val'].max() < frames['test'].min()
        np.testing.assert_allclose([len(frames[s]) / len(drive) for s in ('train', 'val', 'test')], [.7, .2, .1],
                                   atol=0.03)
    result = evaluate(run.folder)
    assert len(result.names) == (table['split'] == 'test').sum() and result.confusions.shape[1:] == (11, 11)


def test_naip_is_trained_on_and_every_pixel_of_the_left_out_year_counts_once(real_data, tmp_path):
    folder = real_data('naip')
    run = train('unet', str(folder), epochs=1, out=tmp_path, overrides=TINY | {
        'labels': 'water', 'chip': 128, 'chips_per_epoch': 16,
        'val_acquisitions': ['20160816'], 'test_acquisitions': ['20170827']})
    result = evaluate(run.folder)
    with rasterio.open(folder / '20170827_mask.tif') as file:
        mask = file.read(1)
    truth = [int((mask == value).sum()) for value in (WATER, LAND)]
    assert result.confusion.sum(1).tolist() == truth


# mIoU of copying the majority of the other years (ties are water) and the map nearest in time, from its README
COPIES = {'20090818': (0.719, 0.880, '20100629'), '20100629': (0.772, 0.880, '20090818'),
          '20120731': (0.888, 0.792, '20100629'), '20140720': (0.923, 0.932, '20150926'),
          '20150926': (0.957, 0.932, '20140720'), '20160816': (0.936, 0.945, '20150926'),
          '20170827': (0.952, 0.931, '20160816')}


@pytest.mark.parametrize('date', COPIES)
def test_the_scores_of_copied_maps_are_the_known_ones(real_data, date):
    maps = {}
    for path in sorted(real_data('naip').glob('*_mask.tif')):
        with rasterio.open(path) as file:
            maps[path.name[:8]] = file.read(1)
    truth = maps.pop(date)
    stack = np.stack(list(maps.values()))
    votes = (stack == LAND).sum(0) > (stack == WATER).sum(0)
    majority, nearest, copied = COPIES[date]
    for prediction, known in ((np.where(votes, LAND, WATER), majority), (maps[copied], nearest)):
        valid = (truth != 255) & (prediction != 255)
        confusion = np.bincount(truth[valid] * 2 + prediction[valid], minlength=4).reshape(2, 2)
        assert metrics_from_confusion(confusion)['mIoU'] == pytest.approx(known, abs=0.0015)


def test_wildscenes_names_are_split_in_their_order(real_data):
    names = pd.read_csv(real_data('wildscenes/names.csv'))['im_path'].tolist()
    split = by_time(samples_table(names))
    counts = split.groupby([split['name'].str.extract(r'(V-\d+)')[0], 'split']).size()
    assert counts.to_dict() == {('V-01', 'train'): 459, ('V-01', 'val'): 132, ('V-01', 'test'): 66,
                                ('V-02', 'train'): 539, ('V-02', 'val'): 154, ('V-02', 'test'): 77}
