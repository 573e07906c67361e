"Pairs of photos and tiles: exclusive batches, their order, and what is broken."
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.loading import SeededBatchSampler
from geoseg.data.pairs.crossview import CrossViewData, ExclusiveBatchSampler, PairAugment
from geoseg.data.pairs.pairs import Pairs, read_pairs
from geoseg.geo.coords import Frame
from geoseg.world.layouts import world_data


@st.composite
def graphs(draw):
    'Pairs of a random bipartite graph, some of whose matches are no pairs.'
    n, m = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    edge = st.tuples(st.integers(0, n - 1), st.integers(0, m - 1))
    edges = draw(st.lists(edge, min_size=1, max_size=60, unique=True))
    chosen = draw(st.lists(st.sampled_from(edges), min_size=1, unique=True))
    frames = [pd.DataFrame(rows, columns=['photo', 'tile']).assign(weight=0.5) for rows in (chosen, edges)]
    none = np.zeros((0, 2))
    return Pairs([], none, [], none, none[:, 0], *frames, Frame.unplaced('graph'))


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2 ** 31), st.integers(0, 3))
def test_global_batches_are_exclusive_and_pairs_unique(pairs, size, world, seed, epoch):
    try:
        samplers = [ExclusiveBatchSampler(pairs, size, seed, rank, world) for rank in range(world)]
    except ValueError as error:
        assert 'the largest in 5 seeded greedy tries has' in str(error)
        assert int(str(error).split()[-1]) < size * world
        return
    for sampler in samplers:
        sampler.set_epoch(epoch)
    ranks = [[[i for i, _ in batch] for batch in sampler] for sampler in samplers]
    assert {len(r) for r in ranks} == {len(samplers[0])}
    whole = [sum(parts, []) for parts in zip(*ranks, strict=True)]
    members = sum(whole, [])
    assert len(set(members)) == len(members) == len(pairs) - samplers[0].unplaced
    known = set(zip(pairs.matches.photo, pairs.matches.tile, strict=True))
    rows = list(zip(pairs.pairs.photo, pairs.pairs.tile, strict=True))
    for batch in whole:
        assert len(batch) == size * world
        assert not [1 for a in batch for b in batch if a != b and (rows[a][0], rows[b][1]) in known]


@pytest.fixture(scope='module')
def root():
    return world_data('gta', size='tiny')


def test_order_is_a_function_of_seed_and_epoch_and_goes_on(root):
    pairs = read_pairs(root / 'same-area-drone2sate-train.json')
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        sampler = ExclusiveBatchSampler(pairs, 3, seed)
        sampler.set_epoch(epoch)
        orders[seed, epoch] = list(sampler)
        again = ExclusiveBatchSampler(pairs, 3, seed)
        again.set_epoch(epoch)
        again.skip = 2 * again.whole
        assert list(again) == orders[seed, epoch][2:]
    assert len({str([[i for i, _ in b] for b in order]) for order in orders.values()}) == 3


def test_validation_photos_do_not_train(root):
    data = CrossViewData(root, 'same-area-drone2sate-train.json', 'same-area-drone2sate-test.json', val_share=0.3,
                         augment=PairAugment(image_size=16), batch_size=2, seed=3)
    data.setup()
    parts = {split: set(pairs.photos) for split, pairs in data.pairs.items()}
    assert not parts['train'] & parts['val'] and not parts['train'] & parts['test']
    assert isinstance(data.loader(data.datasets['val_query']).batch_sampler, SeededBatchSampler)
    again = CrossViewData(root, 'same-area-drone2sate-train.json', 'same-area-drone2sate-test.json', val_share=0)
    again.setup()
    assert again.pairs['val'] is again.pairs['test'] or set(again.pairs['val'].photos) == parts['test']


@pytest.mark.parametrize('change, said', [
    ({'pair_pos_semipos_sate_weight_list': [0.5]}, 'pair_pos_semipos: .* tiles with 1 weights'),
    ({'pair_pos_sate_weight_list': [2.0], 'pair_pos_sate_img_list': ['1_0_0_0.png'],
      'pair_pos_sate_loc_x_y_list': [[64., -64.]]}, 'weight 2.0, expected an IoU'),
    ({'sate_img_dir': 'nowhere'}, r'tiles are not there \(first: .*nowhere'),
])
def test_a_broken_entry_is_named(root, tmp_path, change, said):
    broken = shutil.copytree(root, tmp_path / 'data')
    path = broken / 'same-area-drone2sate-train.json'
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[0] | change, *entries[1:]]))
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read_pairs(path)


@pytest.mark.parametrize(('key', 'value'), [('drone_loc_x_y', None), ('drone_loc_x_y', [1, None]),
                                            ('drone_loc_x_y', [1]),
                                            ('drone_loc_x_y', ['1', '2']), ('drone_loc_x_y', [1, float('nan')]),
                                            ('pair_pos_sate_loc_x_y_list', None), ('pair_pos_sate_img_list', 'a.png'),
                                            ('pair_pos_semipos_sate_loc_x_y_list', [None]), ('drone_img_name', 3),
                                            ('pair_pos_sate_img_list', [7]), ('pair_pos_sate_weight_list', 0.5)])
def test_an_entry_of_another_kind_is_named(root, key, value, tmp_path):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    file = tmp_path / 'same-area-drone2sate-train.json'
    entries = json.loads(file.read_text())
    for part in ('img', 'weight', 'loc_x_y'):  # one tile an entry
        for mode in ('pos', 'pos_semipos'):
            entries[2][f'pair_{mode}_sate_{part}_list'] = entries[2]['pair_pos_semipos_sate_' + part + '_list'][:1]
    entries[2][key] = value
    file.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=rf'{file.name}: entry 2 \(.*{key}'):
        read_pairs(file)
    file.write_text(json.dumps([None]))
    with pytest.raises(ValueError, match='entry 0 is None'):
        read_pairs(file)
