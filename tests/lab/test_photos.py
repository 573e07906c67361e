"What `geoseg localize` wrote, explored: where everything lies, in which order, and what is refused."
import shutil

import cv2
import numpy as np
import pytest
import rasterio
from a_flight import CORNERS, NORTH, SIDE, WEST, degrees, write_answers

from geoseg.cli import main
from geoseg.core.errors import ConfigError
from geoseg.inference.places.gallery import MapTiles
from geoseg.lab.explore import explore
from geoseg.lab.photos import PAINTED, GroundMap, Panel, paint_tiles, square
from geoseg.world.layouts import world_data


@pytest.fixture
def answers(tmp_path):
    return write_answers(tmp_path)


def opened(folder, **more):
    return explore(folder / 'places', photos=folder / 'photos', tiles=folder / 'map.tif', **more)


def asked(widget, monkeypatch, *messages):
    'What the page gets.'
    sent = []
    monkeypatch.setattr(widget, 'send', lambda content, buffers=None: sent.append((content, buffers)))
    for message in messages:
        widget._heard(widget, message, [])
    return sent


def test_the_least_sure_photo_comes_first_and_layers_are_seen(answers, monkeypatch):
    widget = opened(answers)
    content, buffers = asked(widget, monkeypatch, {'ask': 'ready'})[-1]
    assert content['name'] == 'lost.png: confidence 0.10, not on the map' and content['by'] == 'uncertainty'
    assert content['orders'] == ['sample', 'uncertainty']  # no photo says where it was taken
    assert content['layers'] == ['image', 'candidates', 'footprint', 'position']
    assert content['opacity'] == dict.fromkeys(content['layers'][1:], 1.)
    assert [len(part) for part in buffers] == [3 * content['height'] * content['width']] + 3 * [
        content['height'] * content['width']]
    names = [asked(widget, monkeypatch, {'ask': 'step', 'by': 1})[-1][0]['name'].split(':')[0] for _ in range(2)]
    assert names == ['doubtful.png', 'sure.png']


def test_a_pixel_of_each_part_is_where_the_map_says(answers, monkeypatch):
    'The map is coloured by its columns and rows; what a click says and what is drawn there agree with them.'
    widget = opened(answers)
    widget.sort('sample')
    layers = widget.layers
    there, classes = layers.sample['on_map'], [name for name, _ in widget.classes]
    for panel in there.panels:
        row, col = panel.row + panel.rows // 3, panel.col + panel.cols // 2
        said = widget.click(row, col)
        red, green, _ = layers.image[row, col]
        lat, lon = degrees([float(red) + 0.5, SIDE - float(green) - 0.5])
        assert said['lat'] == pytest.approx(lat, abs=2e-5) and said['long'] == pytest.approx(lon, abs=2e-5)
    overview = there.panels[1]
    origin = overview.xy(overview.row, overview.col) * 0 + (0, -SIDE)  # the frame begins in the north west
    for layer, value, corners in (('footprint', 'footprint', CORNERS + origin),
                                  ('candidates', 'candidate 2', square(np.array([20, 180]) + origin, 40.))):
        col, row = overview.pixels(corners[2:3])[0] + (overview.col, overview.row)
        assert classes[layers.ids[layer][row, col]] == value
    half = np.array(there.photo.shape[:2]) // 2
    said = widget.click(*half.tolist())
    assert said['in'] == 'photo' and said['lat'] == pytest.approx(degrees([80, 35])[0], abs=3e-6)
    assert [one['rank'] for one in said['candidates']] == [1] and said['row'] == pytest.approx(60, abs=1)


def test_a_click_on_a_candidate_shows_its_tile_and_the_ground_as_the_photo_sees_it(answers, monkeypatch):
    widget = opened(answers)
    widget.sort('sample')
    overview = widget.layers.sample['on_map'].panels[1]
    col, row = overview.pixels(np.array([[20., 180. - SIDE]]))[0] + (overview.col, overview.row)
    content, [tile] = asked(widget, monkeypatch, {'ask': 'click', 'row': int(row), 'col': int(col)})[-1]
    [[words, height, width]] = content['crops']
    pixels = np.frombuffer(tile, np.uint8).reshape(height, width, 3)
    assert words == '2: similarity 0.50' and pixels[height // 2, width // 2, :2] == pytest.approx([20, 20], abs=1)
    assert pixels[0, 0, :2] == pytest.approx([0, 0], abs=1)
    col, row = overview.pixels(np.array([[80., 40. - SIDE]]))[0] + (overview.col, overview.row)
    content, [photo, seen, _] = asked(widget, monkeypatch, {'ask': 'click', 'row': int(row), 'col': int(col)})[-1]
    assert [words for words, *_ in content['crops']][:2] == ['the photo', 'the map, as the photo sees it']
    photo, seen = (np.frombuffer(part, np.uint8).astype(int) for part in (photo, seen))
    assert np.abs(photo - seen).mean() < 1


def test_the_gps_of_the_photos_orders_them(answers, monkeypatch):
    from PIL import Image
    for name, away in (('sure.png', 30), ('doubtful.png', 3)):
        lat, lon = degrees([80, 35 + away])
        exif = Image.Exif()
        exif[0x8825] = {1: 'N', 2: (lat, 0., 0.), 3: 'E', 4: (lon, 0., 0.)}
        Image.open(answers / 'photos' / name).save(answers / 'photos' / name, exif=exif)
    widget = opened(answers)
    sent = asked(widget, monkeypatch, {'ask': 'order', 'by': 'loss'}, {'ask': 'step', 'by': 1})
    assert [content['name'] for content, _ in sent] == [
        'sure.png: confidence 0.90, by verification, 30 m from its GPS',
        'doubtful.png: confidence 0.60, by verification, 3 m from its GPS']


def test_a_trained_network_over_tiles_has_no_footprints(tiny_run, tmp_path, monkeypatch):
    root = world_data('gta', size='tiny')
    monkeypatch.chdir(tmp_path)
    assert main(['localize', '--checkpoint', str(tiny_run('game4loc-same-area')), f'photos={root}/drone/images',
                 f'tiles={root}', 'k=3']) == 0
    widget = explore('places', photos=root / 'drone/images', tiles=root)
    content, _ = asked(widget, monkeypatch, {'ask': 'ready'})[-1]
    there = widget.layers.sample['on_map']
    assert there.outline is None and 'by weights' in content['name'] and 'not on the map' not in content['name']
    overview = there.panels[1]
    col, row = overview.pixels(there.tiles[0].mean(0)[None])[0] + (overview.col, overview.row)
    crops = widget.view.crops(widget.layers, int(row), int(col))
    known = MapTiles.read(root)
    true = known.picture(known.names.index(there.rows['tile'].iloc[0]))
    [tile] = [picture for words, picture in crops if words.startswith('1:')]
    small = cv2.resize(true, tile.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small.ravel(), tile.ravel())[0, 1] > 0.8


def test_tiles_are_painted_where_they_lie(tmp_path):
    'Of the finest scale that is not too many; each of its own colour.'
    xy = np.array([(x + 0.5, y + 0.5) for y in range(20) for x in range(20)], float) * 10
    tiles = MapTiles([*map(str, range(404))], np.concatenate([xy, [(50, 50), (150, 50), (50, 150), (150, 150)]]),
                     np.array([10.] * 400 + [100.] * 4), None,
                     lambda i: np.full((16, 16, 3), (i // 2 if i < 400 else i - 200), np.uint8))
    near = paint_tiles(tiles, 0., 40., 1., (40, 40))
    assert near[35, 5, 0] == 0 and near[5, 5, 0] == 30 and near[5, 35, 0] == 31 and near[35, 35, 0] == 1
    far = paint_tiles(tiles, -20., 220., 2., (120, 120))
    assert PAINTED < 400 and not far[:9].any() and {*np.unique(far[12:108, 12:108])} == {200, 201, 202, 203}
    assert far[80, 40, 0] == 200 and far[40, 80, 0] == 203


def test_a_panel_shows_what_it_is_asked_for():
    panel = Panel.around((10, 20, 100, 200), np.array([(5., 5.), (25., 45.)]))
    assert panel.xy(59.5, 119.5) == pytest.approx([15, 25]) and panel.resolution == pytest.approx(40 / 100 * 1.3)
    assert panel.holds(10, 20) and not panel.holds(110, 20) and not panel.holds(9, 20)
    at = panel.pixels(np.array([panel.xy(30, 70)]))[0]
    assert at.tolist() == [50, 20]


def elsewhere(path):
    'The map, five kilometres to the east.'
    other = path.with_name('elsewhere.tif')
    with rasterio.open(path) as file:
        moved = rasterio.Affine(1, 0, WEST + 5000, 0, -1, NORTH)
        with rasterio.open(other, 'w', **file.profile | {'transform': moved}) as there:
            there.write(file.read())
    return other


@pytest.mark.parametrize(('spoil', 'says'), [
    (lambda f: {'photos': None}, 'holds positions, not pictures: give photos'),
    (lambda f: {'tiles': None, 'photos': None}, 'give photos and tiles'),
    (lambda f: (f / 'photos/lost.png').unlink(), 'lacks 1 of the 3 photos .*first: lost.png'),
    (lambda f: {'tiles': elsewhere(f / 'map.tif')}, 'first candidates of 3 of 3 photos lie outside of'),
    (lambda f: {'tiles': world_data('gta', size='tiny')}, "has no tile '40.0m_80.0_-160.0'"),
    (lambda f: {'labels': f / 'drawn.gpkg'}, 'no place on the ground'),
    (lambda f: {'overrides': {'chip': 3}}, 'leave out overrides'),
    (lambda f: (f / 'places/footprints.geojson').write_text('{"features": [{"geometry": {}}]}'),
     'footprints.geojson: no footprints of geoseg localize'),
    (lambda f: (f / 'places/places.csv').write_text('photo,rank,tile\n'), "no column 'similarity'"),
    (lambda f: (f / 'places/places.csv').write_text('rank,label,name\n'), r'geoseg audit-labels wrote; explore\(DATA'),
    (lambda f: shutil.move(f / 'places/places.csv', f / 'places/other.csv'), 'go with what geoseg localize wrote')])
def test_what_does_not_belong_together_is_one_line(answers, spoil, says):
    changed = spoil(answers)
    given = {'photos': answers / 'photos', 'tiles': answers / 'map.tif'}
    given |= changed if isinstance(changed, dict) else {}
    with pytest.raises(ConfigError, match=says) as caught:
        explore(answers / 'places', **given)
    assert '\n' not in str(caught.value)


def test_the_map_of_a_folder_of_rasters(answers):
    'Half of the map in each of two files.'
    with rasterio.open(answers / 'map.tif') as file:
        (answers / 'halves').mkdir()
        for top in (0, 100):
            window = rasterio.windows.Window(0, top, SIDE, 100)
            with rasterio.open(answers / 'halves' / f'{top}.tif', 'w', **file.profile | {
                    'height': 100, 'transform': file.window_transform(window)}) as half:
                half.write(file.read(window=window))
    one, two = (GroundMap.open(answers / name) for name in ('map.tif', 'halves'))
    assert one.outline.symmetric_difference(two.outline).area < 1e-6
    block = -5., 3., 0.5, (60, 80)
    assert np.array_equal(one.read(*block), two.read(*block))
