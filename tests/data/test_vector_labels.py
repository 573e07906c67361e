"Polygons, lines and points as labels: drawn chip by chip they are one big drawing, whatever their file and CRS are."
import itertools
import zlib

import geopandas as gpd
import numpy as np
import pytest
import shapely
import tiny
from a_raster import GRID, write
from affine import Affine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.windows import Window

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.core.listing import collect_notes
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters import vectors
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.files import find_acquisitions
from geoseg.data.rasters.labels import LabelSettings, label_acquisitions, open_labels
from geoseg.data.rasters.reader import Blocks, Reader
from geoseg.data.rasters.vectors import VECTORS, draw, features_on, near, on_own_grid, outlines_of, stamp
from geoseg.evaluation.inspection import inspect
from geoseg.inference.rasters.outdated import RasterMask
from geoseg.world.layouts import world_data

CRS, SIDE = 'EPSG:32631', 96  # a small image
NAMES = ['field', 'pond', 'road']
QUARTERS = st.integers(-40, 4 * SIDE + 40).map(lambda n: n / 4)  # of a pixel: borders through centres, too


@pytest.fixture
def images(tmp_path):
    "Images without masks; the values do not matter."
    for year in range(2018, 2021):
        write(tmp_path / 'images' / f'{year}_image.tif', np.full((3, SIDE, SIDE), 9, np.uint8), CRS, GRID)
    return tmp_path / 'images'


def ground(shape):
    "Columns and rows as metres."
    return shapely.transform(shape, lambda xy: np.stack([614_000 + 5 * xy[:, 0], 5_212_000 - 5 * xy[:, 1]], 1))


@st.composite
def shapes(draw):
    "A polygon, with a hole or not, a multipolygon, a sliver, a neighbour with a shared border, a line or a point."
    kind = draw(st.sampled_from(['ring', 'box', 'hole', 'many', 'sliver', 'neighbours', 'line', 'point']))
    x, y = draw(QUARTERS), draw(QUARTERS)
    w, h = draw(st.integers(1, 160)) / 4, draw(st.integers(1, 160)) / 4
    box = shapely.box(x, y, x + w, y + h)
    if kind == 'ring':
        points = draw(st.lists(st.tuples(QUARTERS, QUARTERS), min_size=3, max_size=7))
        return [shapely.Polygon(points)]
    if kind == 'hole':
        return [box.difference(shapely.box(x + w / 4, y + h / 4, x + w / 2, y + h / 2))]
    if kind == 'many':
        return [shapely.MultiPolygon([box, shapely.box(x + w + 3, y, x + w + 7.5, y + 2)])]
    if kind == 'sliver':
        return [shapely.box(x, y, x + w * 3, y + 0.25)]
    if kind == 'neighbours':
        return [box, shapely.box(x + w, y, x + 2 * w, y + h)]
    if kind == 'line':
        return [shapely.LineString(draw(st.lists(st.tuples(QUARTERS, QUARTERS), min_size=2, max_size=4, unique=True)))]
    return [shapely.Point(x, y) if kind == 'point' else box]


@settings(max_examples=30, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawn=st.lists(shapes(), min_size=1, max_size=6), seed=st.integers(0, 9), touched=st.booleans(),
       crs=st.sampled_from([CRS, CRS, 'EPSG:4326', 'EPSG:3857']), width=st.sampled_from([None, 12.]),
       order=st.sampled_from([None, ('pond', 'road')]), outside=st.sampled_from(['ignore', 'field']),
       side=st.sampled_from([17, 32]))
@example(drawn=[[shapely.Polygon([(0, 0), (0, 0.25), (23.25, 21)])]], seed=0, touched=True, crs=CRS, width=None,
         order=None, outside='ignore', side=17)  # touches a pixel in a corner alone
def test_chips_are_cut_from_one_big_drawing(tmp_path, images, drawn, seed, touched, crs, width, order, outside, side):
    "Pixel by pixel: holes, parts, shared borders, slivers, borders through the centres of pixels, precedence, CRS."
    every = [shape for group in drawn for shape in group]
    names = np.random.default_rng(seed).choice(NAMES, len(every))
    frame = gpd.GeoDataFrame({'cover': names}, geometry=[ground(s) for s in every], crs=CRS).to_crs(crs)
    frame.to_file(tmp_path / 'labels.gpkg', driver='GPKG', layer='labels')
    scheme = LabelScheme(NAMES)
    a = find_acquisitions(images, masks='optional')[0]
    how = LabelSettings('cover', None, width, order, touched, outside, 'image')
    source = open_labels(tmp_path / 'labels.gpkg', how).following(scheme)
    [a] = label_acquisitions([a], source, 'optional') if source.covers(a) else [a]
    if a.mask is None:  # nothing of it lies here
        return
    # one drawing of all, from the columns and rows that they were made of
    fixed = np.array([one if shapely.is_valid(one) else shapely.make_valid(one, method='structure',
                                                                           keep_collapsed=False) for one in every])
    thin = shapely.get_dimensions(fixed) < 2
    if width:
        fixed = np.array([one.buffer(width / 2 / 5) if line else one for one, line in zip(fixed, thin, strict=True)])
    heights = {name: len(order) - i for i, name in enumerate(order or ())}
    nothing = 255 if outside == 'ignore' else NAMES.index(outside)
    big = np.full((SIDE, SIDE), nothing, np.int32)
    for i in sorted(range(len(every)), key=lambda i: (heights.get(names[i], 0), i)):
        parts = [p for p in shapely.get_parts([fixed[i]]) if not p.is_empty and (
            p.geom_type == 'Polygon' or every[i].geom_type in ('LineString', 'Point'))]
        if parts:
            rasterize([(p, NAMES.index(names[i])) for p in parts], out=big, transform=Affine.identity(),
                      all_touched=touched and shapely.get_dimensions(fixed[i]) > 1)
    features = features_on(source, on_own_grid(a), stamp(source.file))
    mine = draw(features.drawn, Window(0, 0, SIDE, SIDE), touched)
    cut = np.full((SIDE, SIDE), 254, np.int32)
    reader = Reader(scheme, blocks=Blocks(1))
    for row in range(0, SIDE, side):
        for col in range(0, SIDE, side):
            pixels = source.read(a, Window(col, row, min(side, SIDE - col), min(side, SIDE - row)), reader.blocks)
            cut[row:row + side, col:col + side] = np.where(pixels.hidden, 255, pixels.values)
    assert (cut == np.where(mine == -2, nothing, mine)).all()
    assert (reader.window(a, 0, 0, SIDE, SIDE)[1] == cut).all()
    if crs == CRS and not width:
        borders, off = shapely.union_all(shapely.boundary(fixed)), np.argwhere(cut != big)
        inner = shapely.box(*(off[:, ::-1] + 1e-6).T, *(off[:, ::-1] + 1 - 1e-6).T)
        assert not len(off) or touched and not shapely.intersects(borders, inner).any()  # touched in a corner, at most
    elif not touched:  # coordinates that went to another CRS and back are not the same to the last bit
        cols, rows = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
        borders = shapely.union_all(shapely.boundary(fixed))
        near = shapely.distance(borders, shapely.points(cols, rows)) < (0.05 if width else 1e-3)
        if thin.any() and not width:
            near |= shapely.distance(shapely.union_all(fixed[thin]), shapely.points(cols, rows)) < 1.5
        assert (cut == big)[~near].all()


def winding(rng, corners):
    "A closed path of many corners in and around the image, in quarters of a pixel, many of them on one side of it."
    middle = rng.choice([-60., 48., 160.], 2)
    steps = np.rint(4 * (middle + np.cumsum(rng.normal(0, 9, (corners, 2)), 0))) / 4
    return np.concatenate([steps, steps[:1]])


@pytest.mark.parametrize('touched', [False, True])
@pytest.mark.parametrize('seed', range(6))
def test_corners_beyond_a_window_do_not_matter(seed, touched):
    "What is left out of long outlines moves no pixel: borders, holes, lines and parts, beside the rasterizer alone."
    rng = np.random.default_rng(seed)
    shapes = [shapely.transform(shapely.Point(48, 48).buffer(45, 500), lambda xy: np.rint(64 * xy) / 64)]
    for corners in (400, 60, 12):
        shapes += [shapely.Polygon(winding(rng, corners), [winding(rng, 9)]), shapely.LineString(winding(rng, corners)),
                   shapely.MultiPolygon([shapely.Polygon(winding(rng, corners)), shapely.box(-9, 3.5, 99, 5.5)]),
                   shapely.MultiPoint(winding(rng, 5)), shapely.GeometryCollection([shapely.box(-70, -70, -50, 200)])]
    shapes, values = np.array(shapes, object), rng.integers(0, 9, len(shapes))
    big = np.full((SIDE, SIDE), -2, np.int32)
    for shape, value in zip(shapes, values, strict=True):
        for part in shapely.get_parts([shape]):
            rasterize([(part, int(value))], out=big, transform=Affine.identity(),
                      all_touched=touched and part.geom_type == 'Polygon')
    outlines = outlines_of(shapes, values)
    for row, col, height, width in ((0, 0, SIDE, SIDE), (0, 0, 17, 40), (17, 40, 17, 40), (90, 3, 6, 1)):
        window = Window(col, row, width, height)
        assert (draw(outlines, window, touched) == big[row:row + height, col:col + width]).all()
    [(lake, _)] = near(outlines_of(shapes[:1], values[:1]), window)
    assert 4 <= len(lake['coordinates'][0]) < 200 < 2000 < shapely.get_num_coordinates(shapes[0])


def test_the_images_of_a_grid_share_what_is_drawn(images, tmp_path, monkeypatch):
    "Once for all dates; again for another file of the same name."
    path, count = write_vector(blocks_of_cover(), tmp_path / 'cover.gpkg'), []
    monkeypatch.setattr(vectors, 'DRAWN_WINDOWS', Blocks(32 << 20))
    monkeypatch.setattr(vectors, 'draw', lambda *given: count.append(0) or draw(*given))
    data, first = data_of(images, path, label_field='cover')
    count.clear()
    masks = [data.reader.window(a, 0, 0, SIDE, SIDE)[1] for a in data.acquisitions[images]]
    assert len(count) < len(masks) and all((mask == first).all() for mask in masks)
    path.unlink()
    write_vector(moved(blocks_of_cover(), 50).assign(cover=['field', 'pond', 'field']), path)
    assert (data_of(images, path, label_field='cover')[1] != first).any()


def write_vector(frame, path):
    "A file of labels in the format of its suffix."
    if path.suffix == '.parquet':
        frame.to_parquet(path)
    else:
        frame.to_file(path, driver=VECTORS[path.suffix][0])
    return path


def blocks_of_cover(crs='EPSG:4326'):
    "A field, over it a pond, beside them a field of another shape."
    parts = [shapely.box(10, 10, 60, 50), shapely.box(40, 30, 80, 80), shapely.Polygon([(5, 60), (30, 60), (5, 90)])]
    frame = gpd.GeoDataFrame({'cover': ['field', 'pond', 'field'], 'code': [7, 9, 7]},
                             geometry=[ground(part) for part in parts], crs=CRS)
    return frame.to_crs(crs)


def data_of(images, path, **how):
    "A data module, set up, and the mask of its first image."
    data = RasterData(images, labels=path, chip=32, **how)
    data.setup()
    return data, data.reader.window(data.acquisitions[images][0], 0, 0, SIDE, SIDE)[1]


@pytest.mark.parametrize('suffix', [end for end in VECTORS if end not in ('.geoparquet', '.pbf', '.osm')])
def test_every_format_is_read_alike(tmp_path, images, suffix):
    path = write_vector(blocks_of_cover(), tmp_path / f'cover{suffix}')
    data, mask = data_of(images, path, label_field='cover', outside='bare', label_order=['pond'])
    assert data.scheme.names == ['bare', 'field', 'pond']
    assert (mask[12:28, 12:38] == 1).all() and (mask[32:48, 42:58] == 2).all() and (mask[32:78, 62:78] == 2).all()
    assert mask[12, 70] == 0 and mask[3, 50] == 255 and mask[50, 90] == 255  # within their extent, and beyond
    codes, by_code = data_of(images, path, label_field='code', outside='bare', label_order=['9'])
    assert codes.scheme.names == ['bare', '7', '9'] and (by_code == mask).all()


def varint(n):
    out = b''
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def entry(key, value):
    "A field of a protocol buffer: bytes or a number."
    return varint(key << 3) + varint(value) if isinstance(value, int) else varint(key << 3 | 2) + varint(len(
        value)) + value


def deltas(values):
    return b''.join(varint((b - a) << 1 if b >= a else ((a - b) << 1) - 1) for a, b in itertools.pairwise([0, *values]))


def write_osm(path, polygons):
    "Polygons in degrees with their tags, as OpenStreetMap shares them: (ring [(east, north)], {tag: value})."
    nodes, ways, words = [], [], ['']
    for ring, tags in polygons:
        first, nodes = len(nodes) + 1, nodes + ring
        ways.append(([*range(first, first + len(ring)), first], tags))
        words += [word for pair in tags.items() for word in pair if word not in words]
    if path.suffix == '.osm':
        text = [f'<node id="{i}" lat="{y:.9f}" lon="{x:.9f}"/>' for i, (x, y) in enumerate(nodes, 1)]
        text += [f'<way id="{i}">' + ''.join(f'<nd ref="{ref}"/>' for ref in refs)
                 + ''.join(f'<tag k="{key}" v="{value}"/>' for key, value in tags.items()) + '</way>'
                 for i, (refs, tags) in enumerate(ways, 1)]
        path.write_text('<?xml version="1.0"?><osm version="0.6">' + ''.join(text) + '</osm>')
        return path

    def block(kind, content):
        body = entry(2, len(content)) + entry(3, zlib.compress(content))
        head = entry(1, kind) + entry(3, len(body))
        return len(head).to_bytes(4, 'big') + head + body

    def numbers(found): return b''.join(varint(words.index(word)) for word in found)
    table = entry(1, b''.join(entry(1, word.encode()) for word in words))
    lons, lats = (deltas([round(v * 1e7) for v in side]) for side in zip(*nodes, strict=True))
    dense = entry(2, entry(1, deltas(range(1, len(nodes) + 1))) + entry(8, lats) + entry(9, lons))
    drawn = b''.join(entry(3, entry(1, i) + entry(2, numbers(tags)) + entry(3, numbers(tags.values()))
                           + entry(8, deltas(refs))) for i, (refs, tags) in enumerate(ways, 1))
    path.write_bytes(block(b'OSMHeader', entry(4, b'OsmSchema-V0.6') + entry(4, b'DenseNodes'))
                     + block(b'OSMData', table + entry(2, dense)) + block(b'OSMData', table + entry(2, drawn)))
    return path


@pytest.mark.parametrize('suffix', ['.osm.pbf', '.osm'])
def test_an_extract_of_openstreetmap_is_labels(tmp_path, images, suffix):
    "A tag is the column; what lacks it is another map's feature, and covers nothing."
    frame = blocks_of_cover()
    rings = [[(x, y) for x, y in shape.exterior.coords[:-1]] for shape in frame.geometry]
    tags = [{'landuse': 'meadow'}, {'landuse': 'basin', 'name': 'x'}, {'building': 'yes'}]
    path = write_osm(tmp_path / f'town{suffix}', list(zip(rings, tags, strict=True)))
    how = {'label_layer': 'multipolygons', 'label_field': 'landuse', 'outside': 'bare', 'label_order': ['basin']}
    data, mask = data_of(images, path, **how)
    assert data.scheme.names == ['bare', 'basin', 'meadow']
    frame['landuse'] = [part.get('landuse') for part in tags]
    same = write_vector(frame.dropna(subset='landuse'), tmp_path / 'same.gpkg')
    own = data_of(images, same, **how | {'label_layer': None})[1]
    west = mask[:, :32]  # the third feature widens the extent of the extract: ground there is bare
    assert (mask != own)[own != 255].sum() <= 2 and (west[60:85] == 0).any() and not (mask == 255).all()
    with pytest.raises(ConfigError, match='layers points, lines, .*: set label_layer to one of them'):
        data_of(images, path, label_field='landuse')
    with pytest.raises(ConfigError, match="has no column 'land_use'; nearest: landuse"):
        data_of(images, path, label_layer='multipolygons', label_field='land_use')
    with pytest.raises(ConfigError, match='area: .* is an extract of a map; cut the polygon out of it'):
        RasterData(images, labels=same, chip=32, area=str(path), outside='bare').setup()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f'town{suffix}: not a readable OSM file'):
        data_of(images, path, **how)
    path.write_bytes(b'PK' + bytes(50))
    with pytest.raises(ValueError, match=f'town{suffix}: not a readable OSM file, by its first bytes'):
        data_of(images, path, **how)


def test_what_outside_means(images, tmp_path):
    "Ignored; a class within the extent of the labels; a class everywhere."
    path = write_vector(blocks_of_cover(), tmp_path / 'field.gpkg')
    with pytest.raises(ConfigError, match='one class .field., and ground outside of it is ignored: set outside='):
        RasterData(images, labels=path)
    data, inside = data_of(images, path, outside='bare')
    everywhere = data_of(images, path, outside='bare', label_extent='image')[1]
    ignored = data_of(images, path, label_field='cover')[1]
    assert data.scheme.names == ['bare', 'field']
    assert (ignored[inside == 255] == 255).all() and (ignored[inside == 0] == 255).all()
    assert (everywhere[inside != 255] == inside[inside != 255]).all() and not (everywhere == 255).any()
    west, east, top, bottom = 5, 80, 10, 90
    assert (inside[top + 3:bottom - 3, west + 3:east - 3] != 255).all()
    assert (inside[:, :west - 3] == 255).all() and (inside[:top - 3] == 255).all()


def test_lines_and_points_have_a_width(images, tmp_path):
    "In metres: a road of 20 m is four pixels wide, a tree of 30 m six."
    frame = gpd.GeoDataFrame({'kind': ['road', 'tree']}, crs=CRS, geometry=[
        ground(shapely.LineString([(0, 40), (96, 40)])), ground(shapely.Point(70, 70))]).to_crs('EPSG:4326')
    path = write_vector(frame, tmp_path / 'osm.geojson')
    wide = data_of(images, path, label_field='kind', label_width=20.)[1]
    assert ((wide == 0).sum(0) == 4).all() and (wide[38:42] == 0).all()
    tree = data_of(images, path, label_field='kind', label_width=30.)[1]
    assert [(tree == 1).sum(axis).max() for axis in (0, 1)] == [6, 6]
    thin = data_of(images, path, label_field='kind')[1]
    assert ((thin == 0).sum(0) == 1).all() and (thin == 1).sum() == 1


def test_broken_polygons_are_mended_and_said(images, tmp_path):
    frame = blocks_of_cover()
    bow = ground(shapely.Polygon([(50, 60), (90, 90), (90, 60), (50, 90)]))
    frame.loc[3] = ['field', 7, gpd.GeoSeries([bow], crs=CRS).to_crs(frame.crs).iloc[0]]
    frame.loc[4] = ['field', 7, None]
    path = write_vector(frame, tmp_path / 'cover.gpkg')
    with collect_notes() as notes:
        mask = data_of(images, path, label_field='cover')[1]
    assert any('1 of 4 features are broken and were mended (first: feature 4, Self-intersection' in n for n in notes)
    assert mask[75, 88] == 0 and mask[75, 52] == 0


def test_a_class_list_names_the_classes(images, tmp_path):
    "In its order, with its numbers; a mask file of the same numbers gives the same."
    path = write_vector(blocks_of_cover(), tmp_path / 'cover.fgb')
    (tmp_path / 'list.csv').write_text('id,name,abbr,r,g,b\n9,water,,0,0,255\n7,crop,,255,255,0\n1,bare,,9,9,9\n')
    data = RasterData(images, labels=tmp_path / 'list.csv', label_file=path, label_field='code', outside='bare',
                      chip=32)
    data.setup()
    a = data.acquisitions[images][0]
    mask = data.reader.window(a, 0, 0, SIDE, SIDE)[1]
    assert [data.scheme.names[mask[row, 70]] for row in (12, 60)] == ['bare', 'water']
    assert (RasterMask(a, data.reader)[0:SIDE, 0:SIDE] == mask).all()  # what a map memory reads
    counts = data.class_counts('train').sum(0)[:3]
    assert (counts == np.bincount(mask.ravel(), minlength=256)[:3]).all()


def moved(frame, metres):
    return frame.to_crs(CRS).translate(metres).to_frame('geometry').assign(cover='field')


BAD = {
    'elsewhere.gpkg': (lambda p: write_vector(moved(blocks_of_cover(), 9e4), p), {'outside': 'bare'},
                       r'elsewhere.gpkg: touches none of 3 .*: it covers \[704025, .* the image \[614000'),
    'beside.gpkg': (lambda p: write_vector(gpd.GeoDataFrame({'cover': ['a', 'b']}, crs=CRS, geometry=[
        ground(shapely.box(-50, -50, -40, 200)), ground(shapely.box(-40, 150, 200, 200))]), p),
        {'label_field': 'cover'}, 'beside.gpkg: touches none of 3 images'),
    'no_crs.shp': (lambda p: write_vector(blocks_of_cover(CRS).set_crs(None, allow_override=True), p),
                   {'outside': 'bare'}, 'no_crs.shp: has no CRS, its image has EPSG:32631'),
    'column.gpkg': (lambda p: write_vector(blocks_of_cover(), p), {'label_field': 'covr'},
                    "label_field: .*column.gpkg has no column 'covr'; nearest: cover; it has cover, code"),
    'unknown.gpkg': (lambda p: write_vector(blocks_of_cover(), p),
                     {'label_field': 'cover', 'labels': LabelScheme(['field', 'road'])},
                     "unknown.gpkg: cover 'pond' is no class of 'labels'.*unknown=ignore"),
    'which.gpkg': (lambda p: write_vector(blocks_of_cover(), p), {'labels': LabelScheme(['field', 'pond'])},
                   'which.gpkg: which of field, pond are its features'),
    'outside.gpkg': (lambda p: write_vector(blocks_of_cover(), p),
                     {'labels': LabelScheme(['field', 'pond']), 'label_field': 'cover', 'outside': 'fields'},
                     "outside: 'fields' is no class of 'labels'; nearest: field"),
    'order.gpkg': (lambda p: write_vector(blocks_of_cover(), p), {'label_field': 'cover', 'label_order': ['lake']},
                   "label_order: 'lake' is no class of"),
    'extent.gpkg': (lambda p: write_vector(blocks_of_cover(), p), {'label_field': 'cover', 'label_extent': 'all'},
                    "label_extent: 'all', expected labels or image"),
    'width.gpkg': (lambda p: write_vector(blocks_of_cover(), p), {'label_field': 'cover', 'label_width': -1.},
                   'label_width: -1.0, expected metres, above 0'),
    'layer.gpkg': (lambda p: write_vector(blocks_of_cover(), p), {'label_field': 'cover', 'label_layer': 'lyer'},
                   "label_layer: .*layer.gpkg has no layer 'lyer'; nearest: layer; it has layer"),
    'layers.gpkg': (lambda p: [blocks_of_cover().to_file(p, layer=name) for name in 'ab'], {'label_field': 'cover'},
                    'layers.gpkg: layers a, b: set label_layer to one of them'),
    'empty.gpkg': (lambda p: blocks_of_cover().iloc[:0].to_file(p, driver='GPKG'), {'label_field': 'cover'},
                   'empty.gpkg: no features with a place in it'),
    'text.gpkg': (lambda p: p.write_text('0 water\n'), {}, 'text.gpkg: not a readable GPKG file, by its first bytes'),
    'remote.geojson': (lambda p: p.write_text('<OGRVRTDataSource><OGRVRTLayer name="x"/></OGRVRTDataSource>'), {},
                       'remote.geojson: not a readable GeoJSON file, by its first bytes'),
    'cut.geojson': (lambda p: p.write_text('{"type": "FeatureCollection", "features": [{"type"'), {},
                    'cut.geojson: not a readable GeoJSON file'),
    'cut.parquet': (lambda p: p.write_bytes(b'PAR1 and no more'), {}, 'cut.parquet: not a readable Parquet file'),
    'absent.gpkg': (lambda p: None, {}, 'absent.gpkg: no such file of labels'),
}


@pytest.mark.parametrize('name', BAD)
def test_vector_files_that_cannot_be_used(tmp_path, images, name):
    "One line that names the file or the setting, before any work."
    make, how, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        RasterData(images, label_file=tmp_path / name, **how)
    assert '\n' not in str(error.value)


def test_settings_of_vectors_without_a_file(images):
    with pytest.raises(ValueError, match='label_field, label_width, label_order, outside .* set label_file=FILE'):
        RasterData(images, labels=LabelScheme(NAMES), outside='field')


def test_every_verb_reads_vectors(tmp_path):
    "inspect, fit, test and predict with outlines of buildings for labels; loaders of several processes agree."
    world = world_data('raster', size='tiny')
    data = {'data': str(world), 'labels': str(world / 'buildings.geojson'), 'outside': 'ground', 'chip': 64}
    (tmp_path / 'list.txt').write_text('0 ground\n1 building\n')
    data |= {'labels': str(tmp_path / 'list.txt'), 'label_file': data['labels']}
    found = inspect('unet', data)
    assert found.table.filter(like='train').to_numpy().sum() > 0
    how = tiny.settings('unet', **data | {'image_size': None, 'crop': None, 'chips_per_epoch': 16, 'epochs': 1,
                                          'num_workers': 2})
    run = geoseg.train('unet', how.pop('data'), out=tmp_path, overrides=how)
    assert geoseg.evaluate(run.folder, out=tmp_path / 'scores').confusions.sum() > 0
    out = geoseg.predict(run.folder, out=tmp_path / 'maps', data=str(find_acquisitions(world)[0].image))
    assert len(list(out.glob('*_classes.tif'))) == 1
