"A small map, photos of it, and what `geoseg localize` would have written of them."
import json

import cv2
import numpy as np
import pandas as pd
import rasterio
from pyproj import Transformer

CRS, WEST, NORTH, SIDE = 'EPSG:32631', 614400., 5212160., 200  # metres; a pixel is one
CORNERS = np.array([(60., 50.), (100., 50.), (100., 20.), (60., 20.)])  # of the photo: metres from the south west


def degrees(xy):
    'Latitude and longitude of metres from the south west corner.'
    lon, lat = Transformer.from_crs(CRS, 'EPSG:4326', always_xy=True).transform(*(np.asarray(xy, float) + (
        WEST, NORTH - SIDE)).T)
    return np.stack([lat, lon], -1)


def write_answers(tmp_path):
    'A map that says by its colours where it is, a photo of a known piece of it, one that is not on it.'
    columns, rows = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    picture = np.stack([columns, rows, 0 * rows]).astype(np.uint8)
    with rasterio.open(tmp_path / 'map.tif', 'w', driver='GTiff', width=SIDE, height=SIDE, count=3, dtype='uint8',
                       crs=CRS, transform=rasterio.Affine(1, 0, WEST, 0, -1, NORTH)) as file:
        file.write(picture)
    (tmp_path / 'photos').mkdir()
    seen = picture[:, 150:180, 60:100].transpose(1, 2, 0)  # rows from the north
    for name, pixels in (('sure.png', seen), ('lost.png', 0 * seen), ('doubtful.png', seen)):
        assert cv2.imwrite(str(tmp_path / 'photos' / name), pixels[..., ::-1].repeat(4, 0).repeat(4, 1))
    places, features = [], []
    for name, confidence, tiles in (('sure.png', 0.9, [(80, 40), (20, 180)]), ('lost.png', 0.1, [(150, 150), (30, 30)]),
                                    ('doubtful.png', 0.6, [(90, 40), (150, 20)])):
        lat, lon = degrees([80, 35] if name != 'lost.png' else tiles[0])
        for rank, middle in enumerate(tiles, 1):
            places.append({'photo': name, 'rank': rank, 'tile': f'40.0m_{middle[0]:.1f}_{middle[1] - SIDE:.1f}',
                           'similarity': 0.5, 'confidence': confidence, 'x': 0., 'y': 0., 'refined_x': 0.,
                           'refined_y': 0., 'refined_by': 'verification', 'on_map': confidence > 0.5,
                           'refined_lat': lat, 'refined_long': lon,
                           **dict(zip(('lat', 'long'), degrees(middle), strict=True))})
        if name != 'lost.png':
            ring = degrees(CORNERS[[0, 3, 2, 1, 0]])[:, ::-1].tolist()
            features.append({'type': 'Feature', 'properties': {'photo': name},
                             'geometry': {'type': 'Polygon', 'coordinates': [ring]}})
    (tmp_path / 'places').mkdir()
    pd.DataFrame(places).to_csv(tmp_path / 'places' / 'places.csv', index=False)
    (tmp_path / 'places' / 'footprints.geojson').write_text(json.dumps({'features': features}))
    return tmp_path
