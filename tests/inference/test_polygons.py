"Polygons, wherever on the globe: GeoJSON cuts at 180° and keeps what the raster holds."
import re

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.transform import from_origin
from shapely.geometry import shape

from geoseg.inference.polygons import cut_at_antimeridian, piece_polygons, polygon_areas, write_polygons
from geoseg.inference.postprocess import Postprocess
from geoseg.visualization.maps import to_mercator

PLACES = {'utm': ('EPSG:32660', 179.999, 10, 10), 'south': ('EPSG:32760', 179.9995, -17, 10),
          'web': ('EPSG:3857', 179.9998, 40, 10), 'degrees': ('EPSG:4326', 179.999, 10, 1e-4),
          'dateline': ('EPSG:3832', 179.999, -5, 10), 'arctic': ('EPSG:3413', 180, 71, 100),
          'pole': ('EPSG:3031', 0, -90, 1000), 'elsewhere': ('EPSG:32633', 15, 50, 10)}


@pytest.mark.parametrize('place', PLACES)
def test_no_polygon_goes_around_the_globe(place, tmp_path):
    crs, lon, lat, pixel = PLACES[place]
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    classes = np.random.default_rng(0).integers(0, 3, (32, 32)).astype(np.uint8)
    with rasterio.open(tmp_path / 'a.tif', 'w', driver='GTiff', width=32, height=32, count=1, dtype='uint8', nodata=255,
                       crs=crs, transform=from_origin(x - 16 * pixel, y + 16 * pixel, pixel, pixel)) as f:
        f.write(classes, 1)
    files = [tmp_path / 'a.geojson', tmp_path / 'a.gpkg']
    counts = [write_polygons(tmp_path / 'a.tif', file, ['a', 'b', 'c']) for file in files]
    text, package = map(gpd.read_file, files)
    assert counts == [len(text), len(package)] and (counts[0] > counts[1] or place in ('elsewhere', 'pole'))
    parts = text.geometry.to_numpy()
    assert (shapely.get_type_id(parts) == 3).all()  # polygons
    west, south, east, north = shapely.bounds(parts).T
    assert text.geometry.is_valid.all() and package.geometry.is_valid.all()
    assert (west >= -180).all() and (east <= 180).all() and (south >= -90).all() and (north <= 90).all()
    assert ((east - west) < 0.1).all() or place == 'pole'
    assert shapely.is_ccw(shapely.get_exterior_ring(parts)).all()
    for name in 'abc':
        sums = [t.area_m2[t['class'] == name].sum() for t in (text, package)]
        assert np.isclose(*sums) and (text.area_m2 > 0).all()
    ground, drawn = (polygon_areas(t.geometry.to_numpy(), t.crs).sum() for t in (text, package))
    if place != 'pole':  # where edges that are straight in degrees are arcs
        assert np.allclose(ground, drawn, rtol=0.15 if place == 'arctic' else 0.01)  # as long as metres are there


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-4, 4), st.floats(-75, 75), st.floats(0.001, 3), st.booleans())
def test_a_cut_keeps_the_area(off, lat, half, hole):
    east = 180 + off
    ring = [(-half, -half), (half, -half), (half, half), (-half, half)]
    inner = [[(x / 2, y / 2) for x, y in ring]] if hole else []
    at = shapely.transform(shapely.Polygon(ring, inner), lambda c: c * [1, 1] + [east, lat])
    [cut] = cut_at_antimeridian(np.array([at]), 'EPSG:4326')
    assert cut.is_valid and cut.bounds[0] >= -180 and cut.bounds[2] <= 180
    assert np.isclose(cut.area, at.area)
    assert (cut.geom_type == 'MultiPolygon') == (at.bounds[0] < 180 < at.bounds[2])


@pytest.mark.parametrize('place', ['utm', 'south', 'degrees', 'elsewhere'])
def test_a_picture_on_a_page_lies_where_its_ground_is(place):
    crs, lon, lat, pixel = PLACES[place]
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    grid = from_origin(x - 32 * pixel, y + 32 * pixel, pixel, pixel)
    image, ((south, west), (north, east)) = to_mercator(np.full((64, 64, 3), 200, np.uint8), grid, crs, size=100)
    assert west < lon < east and south < lat < north and east - west < 0.02 and north - south < 0.02
    assert (image[..., 3] > 0).mean() > 0.8


def test_maps_go_on_beyond_the_antimeridian(tmp_path):
    import pandas as pd
    import torch

    from geoseg.geo.coords import Frame
    from geoseg.geo.memory import GeoMemory
    from geoseg.visualization.localization import write_flight
    from geoseg.visualization.memory import write_memory_page
    frame = Frame.local([-17., 180.])
    memory = GeoMemory(4, slots=4, radius=20.)
    memory.frame = frame
    xy = torch.tensor([[-200., 0.], [200., 50.], [0., 0.]])
    memory.write(xy, torch.randn(3, 4), torch.tensor([1, 1, 2]), torch.zeros(3, dtype=torch.float64))
    places = pd.DataFrame({'photo': ['a', 'b'], 'tile': ['s', 't'], 'rank': 1, 'confidence': 0.5,
                           'refined_lat': [-17., -17.], 'refined_long': [179.999, -179.999]})
    pages = write_memory_page(tmp_path / 'm.html', memory, None), write_flight(tmp_path / 'f.html', places, None, None)
    for page in pages:
        own = page.read_text().partition('<body>')[2]  # the head holds Leaflet's own text
        numbers = re.search(r'fitBounds\(([^a-z]*)', own)[1]
        _, west, _, east = map(float, re.findall(r'-?[\d.]+', numbers)[:4])
        assert abs(east - west) < 0.1, numbers


@pytest.mark.parametrize('least', [2, 5, 12])
def test_no_piece_is_smaller_than_the_smallest_region_that_stays(least):
    'Regions that are removed and the pieces that become polygons hang together alike: over sides, not corners.'
    for seed in range(12):
        rng = np.random.default_rng(seed)
        noise = np.kron(rng.integers(0, 3, (16, 16)), np.ones((2, 2))) if seed % 2 else rng.integers(0, 3, (32, 32))
        cleaned = Postprocess(min_pixels=least).clean(noise.astype(np.uint8))
        assert cleaned.shape == noise.shape and (cleaned != noise).any() == (least > 2 or seed % 2 == 0)
        sizes = [shape(piece).area for piece, _ in rasterio.features.shapes(cleaned, connectivity=4)]
        assert min(sizes) >= least and sum(sizes) == noise.size


def test_a_taller_map_keeps_no_more_pieces_in_memory():
    "Chunks come while the map is read, and what is kept is what the last row cuts, plus less than a chunk."
    kept = []
    for height in (200, 800):
        read, given, most = [], 0, 0
        codes = np.random.default_rng(0).integers(0, 3, (height, 60)).astype(np.uint16)
        total = sum(value != 0 for _, value in rasterio.features.shapes(codes, connectivity=4))

        def strip(rows, codes=codes, read=read):
            read.append(rows.stop)
            return codes[rows]

        for polygons, values in piece_polygons(strip, codes.shape, 0, strip=10 * 60, chunk=100):
            assert (len(polygons) == 100 or read[-1] == height) and len(values) == len(polygons)
            given += len(polygons)
            seen = sum(v != 0 for _, v in rasterio.features.shapes(codes[:read[-1]], connectivity=4))
            most = max(most, seen - given)
        assert given == total
        kept.append(most)
    assert kept[1] <= kept[0] + 100, kept
