"""Cross-view localization: exclusive batches, the loss over two processes, runs that go on, and the command line."""
import json
import os
import re
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from torch.nn import functional as F
from warm import execute

from geoseg.cli import main
from geoseg.data.crossview import CrossViewData, ExclusiveBatchSampler, PairAugment
from geoseg.data.loading import SeededBatchSampler
from geoseg.data.pairs import Ortho, Pairs, read_pairs
from geoseg.data.world import Camera, world_data
from geoseg.geo.coords import Frame
from geoseg.models.crossview import CrossView
from geoseg.training.contrastive import WeightedInfoNCE
from geoseg.training.localization import LocalizationTask
from geoseg.training.recipes import parse
from geoseg.training.runs import Run, train

TINY = tiny.settings('game4loc-same-area', every_n_epochs=None)


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
    seen = sum(whole, [])
    assert len(set(seen)) == len(seen) == len(pairs) - samplers[0].unplaced
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
        again.skip = 2
        assert list(again) == orders[seed, epoch][2:]
    assert len({str([[i for i, _ in b] for b in order]) for order in orders.values()}) == 3


def one_process(rank, port, query, gallery, weight, out):
    'Loss and gradients of this process\'s half of a batch.'
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    half = slice(3 * rank, 3 * rank + 3)
    leaves = [t[half].clone().requires_grad_() for t in (query, gallery)]
    scale = torch.tensor(9., dtype=torch.float64, requires_grad=True)
    loss = WeightedInfoNCE()(*leaves, scale, weight[half])
    loss.backward()
    torch.save((loss.detach(), [t.grad for t in leaves], scale.grad), f'{out}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path):
    torch.manual_seed(0)
    query, gallery = (F.normalize(torch.randn(6, 4, dtype=torch.float64)) for _ in range(2))
    weight = torch.rand(6, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (query, gallery)]
    scale = torch.tensor(9., dtype=torch.float64, requires_grad=True)
    loss = WeightedInfoNCE()(*leaves, scale, weight)
    loss.backward()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.start_processes(one_process, (port, query, gallery, weight, tmp_path), 2, start_method='fork')
    parts = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    for value, _, of_scale in parts:
        torch.testing.assert_close(value, loss.detach())
        torch.testing.assert_close(of_scale, scale.grad)
    for i, leaf in enumerate(leaves):  # DDP averages over the processes: each has twice its share
        torch.testing.assert_close(torch.cat([p[1][i] for p in parts]) / 2, leaf.grad)


def test_two_processes_train_like_one(tmp_path, monkeypatch):
    step = LocalizationTask.training_step

    def noted(self, batch, batch_idx):
        with (tmp_path / f'{self.trainer.world_size}-{self.global_rank}.csv').open('a') as file:
            file.writelines(f'{batch_idx},{int(a)},{int(b)}\n' for a, b in zip(batch['query_id'], batch['gallery_id'],
                                                                             strict=True))
        return step(self, batch, batch_idx)

    def keep(self, optimizer):
        if self.global_step == 0:
            torch.save([p.grad for p in self.network.parameters()],
                       tmp_path / f'{self.trainer.world_size}-{self.global_rank}.pt')

    monkeypatch.setattr(LocalizationTask, 'training_step', noted)
    monkeypatch.setattr(LocalizationTask, 'on_before_optimizer_step', keep)
    settings = TINY | {'model.init_args.optimizer.class_path': 'torch.optim.SGD', 'lr': 0.1, 'epochs': 1,
                       'trainer.limit_train_batches': 5, 'num_sanity_val_steps': 0, 'val_share': 0.3}
    one, two = (train('game4loc-same-area', 'world:tiny', out=tmp_path / 'runs',
                      overrides=settings | {'batch_size': 4 // n, 'trainer.devices': n,
                                            'trainer.strategy': 'ddp_fork' if n > 1 else 'auto'})
                for n in (1, 2))
    tables = {key: pd.read_csv(tmp_path / f'{key}.csv', names=['batch', 'photo', 'tile'])
              for key in ('1-0', '2-0', '2-1')}
    assert tables['2-0'].groupby('batch').size().tolist() == tables['2-1'].groupby('batch').size().tolist() == [2] * 5
    whole = pd.concat([tables['2-0'], tables['2-1']])
    order = ['batch', 'photo', 'tile']
    assert whole.sort_values(order).values.tolist() == tables['1-0'].sort_values(order).values.tolist()
    matches = one.data().pairs['train'].matches
    known = set(zip(matches.photo, matches.tile, strict=True))
    for _, batch in whole.groupby('batch'):  # of both processes
        found = [(a, b) in known for a in batch.photo for b in batch.tile]
        assert sum(found) == len(batch) == 4
    alone, first, second = (torch.load(tmp_path / f'{key}.pt') for key in ('1-0', '2-0', '2-1'))
    for a, b, c in zip(alone, first, second, strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    ours, theirs = (torch.load(r.last, weights_only=True)['state_dict'] for r in (two, one))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)
    columns = [name for name in one.metrics if name.endswith('/val')]
    pd.testing.assert_frame_equal(two.metrics[columns], one.metrics[columns], rtol=1e-4)
    assert max(g.abs().max() for g in alone) > 1e-2


def test_recipes_are_those_published():
    for name, epochs, turned in (('game4loc-cross-area', 5, True), ('game4loc-same-area', 20, False)):
        config = parse([name]).config
        data, model = config.data.init_args, config.model.init_args
        assert (config.trainer.max_epochs, data.augment.rotate) == (epochs, turned)
        assert (data.batch_size, model.optimizer.init_args.lr, model.loss.init_args.k) == (64, 1e-4, 5.0)
        assert (config.trainer.gradient_clip_val, config.trainer.gradient_clip_algorithm) == (100.0, 'value')
        assert model.schedule.init_args.warmup_epochs == 0.1 and config.run.monitor == 'Recall@1/val'


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


@pytest.fixture
def run(tiny_run):
    return Run(tiny_run('game4loc-same-area'))


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / 'run')
    first = next((folder / 'checkpoints').glob('epoch000-*'))
    again = train(resume=str(first))
    ours, theirs = (torch.load(r.last, weights_only=True)['state_dict'] for r in (again, run))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (again.folder / 'metrics.csv').read_bytes() == (run.folder / 'metrics.csv').read_bytes()


def test_a_run_starts_from_the_weights_of_a_file(run, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained = torch.load(run.best, weights_only=True)['state_dict']
    names = {name: name.replace('network.encoder.', 'model.').replace('network.log_scale', 'logit_scale')
             for name in trained}
    torch.save({names[name]: value for name, value in trained.items()}, 'weights_e2_0.5000.pth')
    known = run.metrics.set_index('epoch').loc[run.best_epoch].filter(like='/val')
    for path in ('weights_e2_0.5000.pth', str(run.best)):
        again = train('game4loc-same-area', 'world:tiny', lr=1e-30, out='runs',
                      overrides=TINY | {'epochs': 1, 'checkpoint_start': path, 'pretrained': True})  # downloads nothing
        weights = torch.load(again.last, weights_only=True)['state_dict']
        assert all(torch.equal(weights[name], value) for name, value in trained.items())
        before = again.metrics.set_index('epoch').loc[-1].filter(like='/val')
        pd.testing.assert_series_equal(before, known[before.index], check_names=False, rtol=1e-5)
        assert again.config['run']['checkpoint_start'] == path
    shutil.rmtree('runs')
    torch.save({'best': 0.5}, 'words.pth')
    command = ['fit', '--recipe', 'game4loc-same-area', 'data=world:tiny',
               *(word for word in tiny.words(TINY) if not word.startswith('options='))]
    options, wide = (json.dumps(TINY['options'] | more) for more in ({}, {'embed_dim': 32}))
    for words, said in (
            ([f'options={options}', 'checkpoint_start=absent.pth'], 'absent.pth: no such checkpoint'),
            ([f'options={options}', 'checkpoint_start=words.pth'],
             'words.pth: neither a checkpoint of geoseg nor a state_dict'),
            (['checkpoint_start=weights_e2_0.5000.pth', f'options={wide}'],
             r'weights_e2_0.5000.pth: weights of another network: .* \(1, 1, 24\) in the file, \(1, 1, 32\) in'),
            ([f'resume={run.folder}', 'checkpoint_start=words.pth'], 'checkpoint_start is for new runs')):
        assert main([*command, *words]) == 2
        assert re.search(said, capsys.readouterr().err), words
    assert not Path('runs').exists()


def test_the_command_line_tests_and_localizes(run, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['test', '--checkpoint', str(run.folder), 'out=scores']) == 0
    assert 'Recall@1 ' in capsys.readouterr().out and 'chance' in (tmp_path / 'scores/scores.csv').read_text()
    assert main(['localize', '--checkpoint', str(run.folder), f'photos={root}/drone/images', f'tiles={root}',
                 'gallery=map', 'k=3']) == 0
    places = pd.read_csv(tmp_path / 'places/places.csv')
    photos = len(list((root / 'drone/images').iterdir()))
    assert len(places) == 3 * photos and places.confidence.between(0, 1).all()
    gps = pd.read_csv(tmp_path / 'places/gps.csv')
    assert len(gps) == photos and gps.lat.between(47, 48).all() and gps.long.between(4, 5).all()
    assert main(['localize', '--checkpoint', str(run.folder), 'fotos=x']) == 2
    assert "unknown setting 'fotos'" in capsys.readouterr().err


def test_the_notebook_localizes(run, root, tmp_path):
    pairs = [read_pairs(root / f'same-area-drone2sate-{part}.json') for part in ('train', 'test')]
    gps = pd.concat([pd.DataFrame(p.frame.to_gps(p.photo_xy), [photo.name for photo in p.photos], ['lat', 'long'])
                     for p in pairs])
    gps.to_csv(tmp_path / 'true.csv', index_label='filename')
    done = execute('localize.ipynb', tmp_path, checkpoint=str(run.folder), photos=str(root / 'drone/images'),
                   tiles=str(root), k=3, gps=str(tmp_path / 'true.csv'), out=str(tmp_path / 'places'), register=True)
    places = pd.read_csv(tmp_path / 'places/places.csv')
    best = places[places['rank'] == 1].set_index('photo')
    there = gps.loc[best.index]
    error = np.median(Geod(ellps='WGS84').inv(best.refined_long, best.refined_lat, there.long, there.lat)[2])
    printed = ''.join(output.get('text', '') for cell in done.cells for output in cell.get('outputs', []))
    laid = (best.refined_by == 'registration').sum()
    assert f'median error {error:.0f} m; {laid} of {len(gps)} positions by registration' in printed
    assert 'true' in (tmp_path / 'places/flight.html').read_text()


def test_photos_are_registered_where_they_can_be(run, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    raster = next(world_data('raster', size='tiny').glob('*_image.tif'))
    ortho = Ortho.read(raster)
    west, south, east, north = ortho.outline.bounds
    camera = Camera((west + east) / 2 - 25, (south + north) / 2 + 10, height=110., yaw=200., pitch=6.)
    photo = ortho.view(camera, (240, 240))
    (tmp_path / 'album').mkdir()
    for name, picture in {'seen': photo, 'mirrored': photo[:, ::-1], 'grey': np.full_like(photo, 127)}.items():
        cv2.imwrite(str(tmp_path / f'album/{name}.png'), picture[..., ::-1])
    command = ['localize', '--checkpoint', str(run.folder), 'photos=album', f'sides=[{east - west}]']
    assert main([*command, f'tiles={raster}', 'register=true', 'gallery=map']) == 0
    assert 'registration' in capsys.readouterr().out
    places, gps = (pd.read_csv(f'places/{name}.csv', index_col=0) for name in ('places', 'gps'))
    by = {'grey.png': 'weights', 'mirrored.png': 'weights', 'seen.png': 'registration'}
    assert places.refined_by.to_dict() == by
    to_gps = Transformer.from_crs(ortho.crs, 'EPSG:4326', always_xy=True)
    aim = camera.ground((240, 240))[119:121, 119:121].mean((0, 1))
    for name, at, within in (('seen.png', aim, 2), ('grey.png', ((west + east) / 2, (south + north) / 2), 0.1)):
        long, lat = to_gps.transform(*at)
        assert Geod(ellps='WGS84').inv(long, lat, gps.long[name], gps.lat[name])[2] < within, name
    for words, said in ((['gallery=map', 'register=true'], 'register: give tiles, too'),
                        (['gallery=map', f'tiles={root}', 'register=true'], 'has 1 tiles .first: .* not among'),
                        ([f'tiles={raster}', 'register=2'], 'register is true or false, not 2')):
        assert main([*command, *words]) == 2
        assert re.search(said, capsys.readouterr().err), words


def test_the_full_network_takes_a_step():
    network = CrossView(image_size=64)  # the published one, on small pictures
    output = network(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
    WeightedInfoNCE()(output['query'], output['gallery'], output['scale'], torch.tensor([0.2, 0.8])).backward()
    lost = [name for name, p in network.named_parameters() if p.grad is None]
    assert not lost, lost
