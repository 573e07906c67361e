"Split files and traverses of WildScenes."
import shutil

import pandas as pd
import pytest

from geoseg.data.layouts import recognise
from geoseg.data.pictures.images import WildscenesData
from geoseg.data.splits import write_split
from geoseg.world.layouts import world_data


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return shutil.copytree(world_data('folders', size='tiny'), tmp_path_factory.mktemp('data') / 'world')


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
