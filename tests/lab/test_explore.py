"What the widget asks of the kernel, without a browser: every kind of run, and labels that the next training reads."
import json
import os
import re
import signal
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import shapely
import torch

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.data.rasters import vectors  # noqa: F401  imported to be known
from geoseg.geo.memory import GeoMemory
from geoseg.geo.recall import PARTS, cell_maps
from geoseg.lab.explore import Explorer, explore, open_data
from geoseg.lab.labels import DrawnLabels, spread_places
from geoseg.lab.views import VIEWS, class_of, view_of
from geoseg.models.predictor import Predictor
from geoseg.models.unet import UNet

CRS = 'EPSG:32631'


def test_every_kind_of_task_has_a_view():
    from geoseg.evaluation.kinds import KINDS
    assert {*KINDS} <= {*VIEWS}


@pytest.mark.parametrize('recipe', ['unet', 'geosegformer', 'nomeformer', 'game4loc-same-area'])
def test_a_run_is_explored(recipe, tiny_run, monkeypatch):
    widget, sent = explore(tiny_run(recipe), most=3), []
    monkeypatch.setattr(widget, 'send', lambda content, buffers=None: sent.append((content, buffers)))
    widget._heard(widget, {'ask': 'ready'}, [])
    content, buffers = sent[-1]
    pixels = content['height'] * content['width']
    corners = [36 * pixels] if content['mesh'] else []
    assert content['mesh'] == (recipe == 'nomeformer')
    assert [len(part) for part in buffers] == [3 * pixels] + [pixels] * (len(content['layers']) - 1) + corners
    widget._heard(widget, {'ask': 'step', 'by': -1}, [])
    assert sent[-1][0]['position'] == content['count'] - 1
    if widget.view.kind == 'segmentation':
        found = widget.click(3, 5)
        assert 0.3 < sum(found['probabilities'].values()) <= 1.01 and found['prediction'] in found['probabilities']
        widget._heard(widget, {'ask': 'order', 'by': 'loss'}, [])
        losses = [widget.scores[number]['loss'] for number in widget.order]
        assert losses == sorted(losses, reverse=True) and len(losses) == min(3, len(widget.view.samples))
        memory = widget.view.predictor.memory
        assert ('recalled' in found) == (memory is not None and len(memory.keys) > 0)
        widget.click(3, 5)
        assert sent[-1][0]['kind'] == 'crops'
        assert bool(sent[-1][0]['crops']) == bool(found.get('recalled'))
        for (words, height, width), picture in zip(sent[-1][0]['crops'], sent[-1][1], strict=True):
            assert words and len(picture) == 3 * height * width
    if widget.view.kind == 'meshes':
        found = widget.click(0, 7)
        assert found['face'] == 7 and found['truth'] and 0.3 < sum(found['probabilities'].values()) <= 1.01
    if widget.view.kind == 'localization':
        known = dict(widget.view._found)
        widget._heard(widget, {'ask': 'step', 'by': 0}, [])
        assert all(widget.view._found[split] is found for split, found in known.items()) and known  # looked for once
    if recipe in ('nomeformer', 'game4loc-same-area'):
        widget.sort('loss')
        losses = [widget.scores[number]['loss'] for number in widget.order]
        assert losses == sorted(losses, reverse=True)
    widget._heard(widget, {'ask': 'click', 'row': 10 ** 6, 'col': 0}, [])
    assert 'outside' in widget.answer


def test_the_class_of_an_entry_is_that_of_its_map():
    "Entries keep a map of the parts of their cell: all of one class here."
    for k in range(3):
        memory, mask = GeoMemory(4, 2, 8., 3 * PARTS ** 2), torch.full((1, 8, 8), k)
        xy = torch.tensor([[[[2., 6.], [6., 6.]], [[2., 2.], [6., 2.]]]])
        memory.write(xy.reshape(-1, 2), torch.randn(4, 4), torch.ones(4, dtype=torch.long), torch.zeros(4).double(),
                     cell_maps(mask, 3, xy))
        recall = memory.read(xy[0, 0, :1], torch.tensor([2]), 2, torch.zeros(1).double())
        assert recall.valid.any() and class_of(recall)[recall.valid].argmax(1).eq(k).all()


def test_the_memory_is_a_layer(tiny_run):
    "What it says of a pixel, counted for one pixel at a time."
    view = explore(tiny_run('geosegformer'), most=3).view
    assert 'memory' not in view.layers(0).ids  # it has seen nothing
    kept, xy = view.predictor.memory, view.layers(0).sample['xy'].float().reshape(-1, 2)
    there, rng = xy[:max(len(xy) // 2, 1)], torch.Generator().manual_seed(0)
    kept.write(there, torch.randn(len(there), kept.dim, generator=rng), torch.full((len(there),), 77),
               torch.zeros(len(there)).double())
    layers = view.layers(0)
    memory, change = layers.ids['memory'], layers.ids['change']
    assert memory.shape == change.shape == layers.image.shape[:2] and (memory < 255).any()
    height, width = memory.shape
    for row, col in ((0, 0), (3, 5), (height // 2, width // 3), (height - 1, width - 1)):
        recall = view.recall(layers, row, col)
        said = view.predictor.network.judge(recall)[0][recall.valid[0]].mean(0)
        assert memory[row, col] == (said.argmax() if recall.valid.any() else 255)
    differs = (memory < 255) & (memory != layers.ids['prediction'])
    assert (change[differs] == layers.ids['prediction'][differs]).all() and (change[~differs] == 255).all()


def test_labels_are_trained_on_as_they_are(tmp_path):
    "Polygons of two classes, and nothing else: the next run reads the file, all other ground is ignored."
    widget = explore('world:raster:tiny', labels=tmp_path / 'drawn.gpkg', overrides={'chip': 64, 'num_workers': 0})
    widget.sort('sample')
    for number, name in ((0, 'water'), (40, 'crop'), (70, 'water')):  # dates that validate and that train
        widget.position = number
        widget.show()
        widget.draw([[5, 5], [60, 5], [60, 60], [5, 60]], name)
    import tiny
    raster = geoseg.world_data('raster', size='tiny')
    run = tiny.train('unet', tmp_path / 'runs', str(raster), labels=str(tmp_path / 'drawn.gpkg'), epochs=1,
                     pattern='{date}_image.tif', masks='optional', chip=64, crop=None, image_size=None,
                     **{'trainer.limit_train_batches': 2})
    assert (run.folder / 'metrics.csv').is_file()
    assert run.config['data']['init_args']['label_file'] or run.config['data']['init_args']['labels']


def test_a_polygon_is_true_of_the_date_that_it_was_drawn_on(tmp_path):
    root = geoseg.world_data('raster', size='tiny')
    first = min(path.name.partition('_')[0] for path in root.glob('*_image.tif'))
    data = explore(root, overrides={'chip': 64, 'num_workers': 0}).view.data
    labels = DrawnLabels(tmp_path / 'a.gpkg', str(data.frame.crs))
    a = next(a for part in data.acquisitions.values() for a in part)
    ta, _, tc, _, te, tf = a.transform
    square = [(tc + ta * col, tf + te * row) for col, row in ((8, 8), (24, 8), (24, 24), (8, 24))]
    labels.add(square, 'water', first)
    labels.add([(px + 100 * ta, py) for px, py in square], 'crop')  # of no date: true of all
    data = explore(root, overrides={'chip': 64, 'num_workers': 0, 'label_file': str(labels.path),
                                    'masks': 'optional'}).view.data
    found = {a.date: np.bincount(data.reader.window(a, 0, 0, 256, 256)[1].ravel(), minlength=256)
             for part in data.acquisitions.values() for a in part if a.mask}
    water, crop = (data.scheme.names.index(name) for name in ('water', 'crop'))
    assert len(found) == 6 and {date for date, counts in found.items() if counts[water]} == {first}
    assert {counts[crop] for counts in found.values()} == {256} and found[first][water] == 256


def test_drawn_polygons_correct_the_masks_of_the_folder(tmp_path):
    "outside=masks: what is drawn counts on its date, all else is as the masks say; other dates are as they were."
    root = geoseg.world_data('raster', size='tiny')
    data = explore(root, overrides={'chip': 64, 'num_workers': 0}).view.data
    first, second = sorted({a.date for part in data.acquisitions.values() for a in part})[:2]
    labels = DrawnLabels(tmp_path / 'a.gpkg', str(data.frame.crs))
    a = next(a for part in data.acquisitions.values() for a in part)
    ta, _, tc, _, te, tf = a.transform
    labels.add([(tc + ta * col, tf + te * row) for col, row in ((8, 8), (24, 8), (24, 24), (8, 24))], 'water', first)

    def read(**more):
        data = explore(root, overrides={'chip': 64, 'num_workers': 0} | more).view.data
        assert not more or labels.path in data.inputs()
        return {a.date: data.reader.window(a, 0, 0, 256, 256)[1] for part in data.acquisitions.values() for a in part}

    before, after = read(), read(label_file=str(labels.path), outside='masks')
    drawn = np.zeros((256, 256), bool)
    drawn[8:24, 8:24] = True
    assert (before[first][drawn] != 0).any() and (after[first][drawn] == 0).all()
    assert len(after) == 6 and all((after[d] == before[d])[~drawn if d == first else ...].all() for d in before)


def test_corrections_of_masks_in_colours_are_refused(tmp_path):
    import rasterio
    root = geoseg.world_data('raster', size='tiny')
    for path in root.iterdir():
        if 'mask' not in path.name:
            (tmp_path / path.name).symlink_to(path)
            continue
        with rasterio.open(path) as old, rasterio.open(tmp_path / path.name, 'w', **old.profile) as new:
            new.write(old.read())
            new.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    labels = DrawnLabels(tmp_path / 'a.gpkg', CRS)
    with rasterio.open(next(root.glob('*_image.tif'))) as file:
        west, _, _, north = file.bounds
    labels.add([(west, north), (west + 9, north), (west, north - 9)], 'water')
    with pytest.raises(ConfigError, match=r'outside=masks: .*_mask.tif is a mask of colours, or with a colour table'):
        explore(tmp_path, overrides={'chip': 64, 'label_file': str(labels.path), 'outside': 'masks'})


def test_one_polygon_trains(tmp_path, capsys):
    "Weak signal first: no labels say what to do; one polygon on one date trains, all else is ignored."
    import tiny
    root = tmp_path / 'bare'
    root.mkdir()
    for path in geoseg.world_data('raster', size='tiny').iterdir():
        if path.name.endswith('_image.tif') or path.name == 'category.csv':
            (root / path.name).symlink_to(path)
    given = dict(data=str(root), masks='optional', epochs=1, chip=64, crop=None, image_size=None,
                 pattern='{date}_image.tif', **{'trainer.limit_train_batches': 2})
    widget = explore(root, labels=tmp_path / 'zero.gpkg', overrides={'chip': 64, 'num_workers': 0})
    assert widget.by == 'spread'
    widget.sort('sample')  # what is not labelled yet is looked at and drawn on
    widget.draw([[5, 5], [60, 5], [60, 60]], 'water')
    assert len(widget.view.samples) == 6 * 16 and widget.labels.shapes[0].date == '20170621'
    assert len(widget.view.dates(0)) == 6
    with pytest.raises((ConfigError, ValueError), match='no labels: draw some, geoseg.explore.*label_file=MAP.tif'):
        tiny.train('unet', tmp_path / 'runs', **given)
    labels = DrawnLabels(tmp_path / 'one.gpkg', CRS)
    import rasterio
    with rasterio.open(root / '20220712_image.tif') as file:
        west, _, _, north = file.bounds
    labels.add([(west, north), (west + 40, north), (west + 40, north - 40), (west, north - 40)], 'water', '20220712')
    run = tiny.train('unet', tmp_path / 'runs', labels=str(labels.path), **given)
    assert run.last.is_file() and 'nothing validates or tests' in (run.folder / 'log.txt').read_text()


def test_a_killed_kernel_loses_nothing(tmp_path):
    file = tmp_path / 'drawn.gpkg'
    code = ('import sys, time\nfrom geoseg.lab.labels import DrawnLabels\n'
            f'labels = DrawnLabels({str(file)!r}, {CRS!r})\n'
            'for i in range(10**6):\n    labels.add([(i, 0), (i + 1, 0), (i, 1)], "water")\n    print(i, flush=True)')
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        for line in process.stdout:
            if int(line) == 6:
                process.send_signal(signal.SIGKILL)
                break
        told = max([6, *(int(line) for line in process.stdout)])
    table = geopandas.read_file(file)
    assert told + 1 <= len(table) <= told + 2 and set(table['class']) == {'water'}
    assert len(DrawnLabels(file, CRS).shapes) == len(table)


def test_undo_takes_back_each_kind_of_change(tmp_path):
    labels = DrawnLabels(tmp_path / 'a.gpkg', CRS)
    square = [(0, 0), (2, 0), (2, 2), (0, 2)]
    labels.add(square, 'water')
    states = [labels.shapes]
    for change in (lambda: labels.move(0, [(0, 0), (4, 0), (4, 4)]), lambda: labels.rename(0, 'road'),
                   lambda: labels.add(square, 'crop'), lambda: labels.remove(0)):
        change()
        states.append(labels.shapes)
    for before in states[-2::-1]:
        assert labels.undo() and labels.shapes == before
        assert [s.name for s in DrawnLabels(labels.path, CRS).shapes] == [s.name for s in before]
    assert labels.undo() and labels.shapes == () and not labels.undo()


@pytest.mark.parametrize(('points', 'says'), [([(0, 0), (1, 1)], 'three or more'), ([(0, 0), (1, 1), (2, 2)], 'line'),
                                              ([(0, 0), (np.nan, 1), (2, 0)], 'three or more')])
def test_no_polygon_is_refused_and_changes_nothing(tmp_path, points, says):
    labels = DrawnLabels(tmp_path / 'a.gpkg', CRS)
    labels.add([(0, 0), (2, 0), (2, 2)], 'water')
    before = labels.path.read_bytes()
    with pytest.raises(ConfigError, match=says):
        labels.add(points, 'road')
    assert labels.path.read_bytes() == before and len(labels.shapes) == 1


def test_a_file_from_elsewhere_is_left_alone(tmp_path):
    square = geopandas.GeoSeries.from_wkt(['POLYGON ((0 0, 1 0, 1 1, 0 0))'], crs=CRS)
    geopandas.GeoDataFrame({'kind': ['a']}, geometry=square).to_file(tmp_path / 'a.gpkg')
    with pytest.raises(ConfigError, match='it has no column'):
        DrawnLabels(tmp_path / 'a.gpkg', CRS)
    with pytest.raises(ConfigError, match=r'ends in \.gpkg'):
        DrawnLabels(tmp_path / 'a.shp', CRS)


def test_what_cannot_be_drawn_on_says_so(tmp_path):
    with pytest.raises(ConfigError, match='no place on the ground|drawn on rasters'):
        widget = explore('world:tiny', labels=tmp_path / 'a.gpkg', overrides={'num_workers': 0})
        widget.show()
        widget.draw([[0, 0], [5, 0], [5, 5]], 'water')
    with pytest.raises(FileNotFoundError, match='no such run or folder'):
        explore(tmp_path / 'absent')


@pytest.fixture
def world_widget(tmp_path):
    widget = explore('world:raster:tiny', labels=tmp_path / 'drawn.gpkg', overrides={'chip': 64, 'num_workers': 0})
    widget.show()
    return widget


@pytest.mark.parametrize(('asked', 'says'), [
    ({'ask': 'dance'}, "'dance': the page asks what this kernel does not know"),
    ({}, 'the page asks what'),
    ({'ask': 'click', 'row': 3}, "TypeError: .*'col'"),
    ({'ask': 'click', 'row': 3, 'col': 64}, 'outside of 64 x 64 pixels'),
    ({'ask': 'date', 'at': 99}, 'IndexError'),
    ({'ask': 'whole', 'at': 99}, 'IndexError'),
    ({'ask': 'order', 'by': 'worst'}, "order is 'worst'; there are"),
    ({'ask': 'draw', 'points': [[1, 1], [2]], 'name': 'water'}, 'inhomogeneous'),
    ({'ask': 'draw', 'points': [[1, 1], [20, 3], [4, 15]], 'name': 'watr'}, "class 'watr'.*water"),
    ({'ask': 'accept', 'row': 1, 'col': 1}, r'there is no prediction; explore\(RUN\)'),
    ({'ask': 'remove', 'number': 7}, 'polygon 7: there is none'),
    ({'ask': 'class', 'name': 'a,b'}, 'no comma')])
def test_a_mistake_is_said_in_the_widget(world_widget, asked, says):
    world_widget._heard(world_widget, asked, [])
    assert re.search(says, world_widget.answer) and '\n' not in world_widget.answer
    assert not world_widget.labels.path.exists()


def test_holes_of_an_accepted_piece_stay_holes(world_widget):
    "A lake with an island: the island is of another class."
    ids = np.full((64, 64), 2, np.uint8)
    ids[10:40, 10:40], ids[20:30, 20:30] = 0, 1
    world_widget.layers.ids['prediction'] = ids
    world_widget.accept(12, 12)
    [drawn] = world_widget.labels.shapes
    assert len(drawn.polygon.interiors) == 1 and drawn.polygon.area == pytest.approx(900 - 100, abs=20)
    [shown] = world_widget._shapes()
    world_widget.move(drawn.number, [[x + 1, y] for x, y in shown['points']])
    [drawn] = DrawnLabels(world_widget.labels.path, world_widget.labels.crs).shapes
    assert len(drawn.polygon.interiors) == 1 and len(shown['holes']) == 1


def test_two_windows_do_not_overwrite_each_other(tmp_path):
    one, other = DrawnLabels(tmp_path / 'a.gpkg', CRS), DrawnLabels(tmp_path / 'a.gpkg', CRS)
    square = [(0, 0), (2, 0), (2, 2), (0, 2)]
    one.add(square, 'water')
    one.add(square, 'crop')
    with pytest.raises(ConfigError, match='another window or program has changed it'):
        other.add(square, 'road')
    assert other.shapes == () and [s.name for s in DrawnLabels(tmp_path / 'a.gpkg', CRS).shapes] == ['water', 'crop']


def test_a_file_that_another_program_edited(tmp_path):
    DrawnLabels(tmp_path / 'a.gpkg', CRS).add([(0, 0), (2, 0), (2, 2)], 'water')
    table = geopandas.read_file(tmp_path / 'a.gpkg')

    def saved(shape, crs=CRS):
        (tmp_path / 'a.gpkg').unlink()
        geopandas.GeoDataFrame(table.drop(columns='geometry'), geometry=[shape], crs=crs).to_file(tmp_path / 'a.gpkg')
        return DrawnLabels(tmp_path / 'a.gpkg', CRS)

    two = saved(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)]))
    assert [(s.name, s.polygon.area) for s in two.shapes] == [('water', 1), ('water', 1)]
    with pytest.raises(ConfigError, match='row 0 is without a shape'):
        saved(None)
    with pytest.raises(ConfigError, match='row 0 is Point, expected a polygon'):
        saved(shapely.Point(1, 1))
    with pytest.raises(ConfigError, match='no coordinate system'):
        saved(shapely.box(0, 0, 1, 1), None)


@pytest.mark.parametrize('layout', ['raster', 'folders'])
def test_suspicious_places_are_shown_where_they_are(layout, tmp_path):
    "The audit's table, worst first: the box on the sample holds the pixels that the audit means."
    given = {'chip': 64, 'num_workers': 0} if layout == 'raster' else {'num_workers': 0}
    data = explore(f'world:{layout}:tiny', overrides=given).view.data
    pictures = {split: list(data.labelled(split)) for split in ('train', 'val')}
    chosen = [(2, 'val', pictures['val'][0]), (1, 'train', pictures['train'][-1])]
    rows = ['rank,split,name,row,column,height,width,label,answer,score']
    rows += [f'{rank},{split},{p.name},20,{30 + rank},6,8,road,water,0.5' for rank, split, p in chosen]
    (tmp_path / 'places.csv').write_text('\n'.join(rows))
    widget, sent = explore(f'world:{layout}:tiny', overrides=given, places=tmp_path), []
    widget.send = lambda content, buffers=None: sent.append(content)
    widget._heard(widget, {'ask': 'order', 'by': 'suspicious'}, [])
    assert widget.answer == 'place 1: labelled road, looks like water, score 0.5' and sent[-1]['count'] == 2
    for rank, _, picture in sorted(chosen, key=lambda one: one[0]):
        [[row, col, height, width]] = sent[-1]['marks']
        shown, there = widget.layers.ids['mask'], picture.read(20, 30 + rank, 6, 8)[1]
        assert picture.name.split('/')[-1].partition('_r0')[0] in widget.layers.sample['name']
        down, right = height / 6, width / 8
        at = [np.floor((np.arange(n) + 0.5) * size + first).astype(int) for n, size, first in (
            (6, down, row), (8, right, col))]
        assert (shown[np.ix_(*at)] == there).mean() > (0.99 if layout == 'raster' else 0.7)
        widget._heard(widget, {'ask': 'step', 'by': 1}, [])
    widget._heard(widget, {'ask': 'order', 'by': 'sample'}, [])
    assert sent[-1]['marks'] == []


@pytest.mark.parametrize(('given', 'says'), [
    ({'places': 'absent.csv'}, 'places: absent.csv: not a readable table'),
    ({'places': 'other.csv'}, "places: other.csv: no column 'rank'"),
    ({'places': 'none.csv'}, 'places: none.csv: no place is suspicious'),
    ({'most': 0}, 'most is 0'), ({'most': 'many'}, "most is 'many'"),
    ({'labels': 'drawn.gpkg', 'annotator': 5}, 'annotator is 5, expected a name')])
def test_what_explore_does_not_understand_is_one_line(given, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'other.csv').write_text('a,b\n1,2\n')
    (tmp_path / 'none.csv').write_text('rank,split,name,row,column,height,width,label,answer,score\n')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=says) as error:
        explore('world:raster:tiny', overrides={'chip': 64, 'num_workers': 0}, **given)
    assert '\n' not in str(error.value) and sorted(tmp_path.iterdir()) == before


def test_places_of_other_data_are_refused(tmp_path):
    (tmp_path / 'places.csv').write_text('rank,split,name,row,column,height,width,label,answer,score\n'
                                         '1,train,elsewhere,1,1,3,3,a,b,0.5\n')
    widget = explore('world:raster:tiny', overrides={'chip': 64, 'num_workers': 0}, places=tmp_path)
    with pytest.raises(ConfigError, match='places: none of 1 is in this data: elsewhere'):
        widget.sort('suspicious')
    with pytest.raises(ConfigError, match=r'explore\(…, places=FOLDER\)'):
        explore('world:raster:tiny', overrides={'chip': 64, 'num_workers': 0}).sort('suspicious')


def test_who_labels_begins_where_labels_train_and_far_apart(tmp_path):
    given = {'overrides': {'chip': 64, 'num_workers': 0}}
    assert explore('world:raster:tiny', **given).by == 'sample'
    widget = explore('world:raster:tiny', labels=tmp_path / 'drawn.gpkg', most=9, **given)
    view = widget.view
    widget.show()
    assert widget.by == 'spread' and widget.orders == ['sample', 'spread'] and len({*widget.order}) == 9
    assert {view.samples[number][0] for number in widget.order} == {'train'}
    places = [layers.affine @ (32, 32, 1) for layers in map(view.layers, widget.order)]
    every = [view.layers(n).affine @ (32, 32, 1) for n, (split, _) in enumerate(view.samples) if split == 'train']
    for i in range(1, 9):
        farthest = max(min(np.hypot(*(place - before)) for before in places[:i]) for place in every)
        assert min(np.hypot(*(places[i] - before)) for before in places[:i]) == pytest.approx(farthest, abs=0.01)
    widget.sort('sample')
    assert widget.order == list(range(len(view.samples)))
    widget.sort('spread')
    assert len(widget.order) == 9 and widget.by == 'spread'


def test_who_labels_with_a_network_begins_where_it_is_unsure(tmp_path, monkeypatch):
    data = open_data('world:raster:tiny', {'chip': 64, 'num_workers': 0})
    torch.manual_seed(0)
    widget = Explorer(view_of(data, Predictor(UNet(7).eval(), data.scheme)), tmp_path / 'drawn.gpkg', most=5)
    widget._heard(widget, {'ask': 'ready'}, [])
    assert widget.by == 'uncertain and spread' and len(widget.order) == 5, widget.answer
    assert {widget.view.samples[number][0] for number in widget.order} == {'train'}
    assert widget.order[0] == max(widget.order, key=lambda number: widget.scores[number]['uncertainty'])
    widget._heard(widget, {'ask': 'order', 'by': 'spread'}, [])
    widget._heard(widget, {'ask': 'ready'}, [])  # shown once more
    assert widget.by == 'spread'


def test_places_are_spread():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (300, 2))
    unsure = np.exp(-((xy - 20) ** 2).sum(1) / 100) + 0.01
    chosen = spread_places(unsure, xy, 12)
    assert chosen[0] == unsure.argmax() and len({*chosen.tolist()}) == 12
    apart = np.linalg.norm(xy[chosen][:, None] - xy[chosen], axis=-1)[np.triu_indices(12, 1)].min()
    alone = xy[np.argsort(-unsure)[:12]]
    assert apart > 3 * np.linalg.norm(alone[:, None] - alone, axis=-1)[np.triu_indices(12, 1)].min()
    assert len(spread_places(unsure[:0], xy[:0], 5)) == 0 and json.dumps(chosen.tolist())


def test_a_raster_is_its_own_base_map(tmp_path, monkeypatch):
    "Windows of it, the chip under a click, other dates, a polygon in its pixels; the overview only in the cache."
    monkeypatch.setattr('geoseg.lab.whole.READ', 100)
    monkeypatch.setenv('GEOSEG_CACHE', str(tmp_path / 'cache'))
    root = geoseg.world_data('raster', tmp_path / 'worlds', size='tiny')
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    widget, sent = explore(root, labels=tmp_path / 'a.gpkg', overrides={'chip': 64, 'num_workers': 0}), []
    monkeypatch.setattr(widget, 'send', lambda content, buffers=None: sent.append((content, buffers)))
    widget._heard(widget, {'ask': 'ready'}, [])
    widget._heard(widget, {'ask': 'whole'}, [])
    content, buffers = sent[-1]
    assert content['whole'] and (content['height'], content['width']) == (256, 256) and len(content['dates']) == 6
    assert [path.name for path in (tmp_path / 'cache').rglob('*.tif')] == ['overview.tif']
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before
    widget._heard(widget, {'ask': 'window', 'row': 100.5, 'col': 200, 'height': 96, 'width': 112}, [])
    content, buffers = sent[-1]
    assert content['window'] == [200, 100, 56, 96] and [len(part) for part in buffers] == [3 * 56 * 96, 56 * 96]
    a = widget.whole.a
    image, mask = widget.view.data.reader.window(a, 100, 200, 96, 56)
    assert buffers == [image[..., :3].tobytes(), mask.tobytes()]
    found = widget.click(130, 210)
    assert found['mask'] == widget.view.data.scheme.names[mask[30, 10]] and found['chip'].startswith(a.name)
    widget.draw([[10, 20], [30, 20], [30, 40], [10, 40]], 'water')
    [drawn] = widget.labels.shapes
    assert drawn.date == a.date and drawn.polygon.bounds == pytest.approx(
        (a.transform[2] + 10 * a.transform[0], a.transform[5] + 40 * a.transform[4],
         a.transform[2] + 30 * a.transform[0], a.transform[5] + 20 * a.transform[4]), abs=0.01)
    widget._heard(widget, {'ask': 'date', 'at': 0}, [])
    assert sent[-1][0]['name'] == '20170621'
    widget._heard(widget, {'ask': 'window', 'row': 0, 'col': 0, 'height': 0, 'width': float('nan')}, [])
    assert 'expected row' in widget.answer
    widget._heard(widget, {'ask': 'chip', 'row': 130, 'col': 210}, [])
    assert sent[-1][0]['height'] == 64 and '20170621' in sent[-1][0]['name'] and widget.whole is None


def test_a_disk_that_fills_keeps_the_labels(tmp_path):
    "GDAL leaves the spatial index out where the disk is full, and says nothing."
    import resource
    labels = DrawnLabels(tmp_path / 'a.gpkg', CRS)
    labels.add([(0, 0), (2, 0), (2, 2)], 'water')
    content, before = labels.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (200, 5_000, 60_000, 90_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(OSError, match='cannot be written'):
                labels.add([(0, 0), (3, 0), (2, 2)], 'road')
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert labels.path.read_bytes() == content and len(labels.shapes) == 1
