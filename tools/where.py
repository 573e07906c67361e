"Place drone photos, intact and spoilt, on the gallery of a map: the rows of where_was_this_taken.ipynb (resumable)."
import math
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import shapely

from geoseg.core.files import write_whole
from geoseg.data.pictures.files import read_image
from geoseg.data.shared import shared_data
from geoseg.geo.coords import exif_place
from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.map_gallery import MapGallery, gallery
from geoseg.inference.places.place_photos import Lens, camera_place, find_photo

ROWS = Path(__file__).parent.parent / 'nbs/tutorials/results/where_was_this_taken.csv'


def turned(photo, degrees):
    rows, columns = photo.shape[:2]
    side = int(min(rows, columns) / math.sqrt(2))
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1)
    matrix[:, 2] += side / 2 - np.array([columns, rows]) / 2
    return cv2.warpAffine(photo, matrix, (side, side))


def jpeg(photo, quality):
    written = cv2.imencode('.jpg', photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(written, cv2.IMREAD_COLOR)[..., ::-1]


VARIANTS = {
    'intact': lambda photo, i: photo,
    'half size': lambda photo, i: cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    'turned': lambda photo, i: turned(photo, 37 * i % 360),
    'darkened': lambda photo, i: (photo * 0.4).astype(np.uint8),
    'blurred': lambda photo, i: cv2.GaussianBlur(photo, (0, 0), 3),
    'JPEG 30': lambda photo, i: np.ascontiguousarray(jpeg(photo, 30)),
}


class CutOut(MapGallery):
    'A gallery without a piece of its ground.'

    def without(self, hole):
        self.hole = hole
        low, high = self.xy - self.side[:, None] / 2, self.xy + self.side[:, None] / 2
        seen = shapely.area(shapely.intersection(shapely.box(*low.T, *high.T), hole))
        self.kept = seen < 0.5 * self.side ** 2
        return self

    def points(self, box):
        found = super().points(box)
        return found[~shapely.contains_xy(self.hole, *found.xy.T.astype(float))] if len(found) else found

    def candidates(self, views, k, widest=math.inf):
        tables, white = self.tables, self.white
        self.tables, self.white = tables | {'xy': self.xy[self.kept], 'side': self.side[self.kept]}, white[self.kept]
        i, s, v = super().candidates(views, k, widest)
        self.tables, self.white = tables, white
        return np.flatnonzero(self.kept)[i], s, v


def distance(a, b):
    return round(float(np.linalg.norm(a - b)), 2)


def main():
    root = shared_data('caliterra')
    folder = tempfile.TemporaryDirectory()
    known = gallery(str(root / 'orthomosaic_utm14n.tif'), folder.name + '/map')
    encoder = TileEncoder()
    rows = pd.read_csv(ROWS).to_dict('records') if ROWS.is_file() else []
    done = {(r['photo'], r['variant']) for r in rows}
    photos = sorted((root / 'images').glob('*.jpg'))
    jobs = [(p, i, 'intact') for i, p in enumerate(photos)]
    jobs += [(p, i, v) for i, p in list(enumerate(photos))[::15] for v in VARIANTS if v != 'intact']
    jobs += [(p, i, 'cut out') for i, p in list(enumerate(photos))[::3]]
    jobs += [(p, i, v) for i, p in list(enumerate(photos))[5::15] for v in VARIANTS if v != 'intact']
    outlines = {r['photo']: shapely.from_wkt(r['outline']) for r in rows
                if r['variant'] == 'intact' and isinstance(r['outline'], str)}
    for path, i, variant in jobs:
        if (path.name, variant) in done or variant == 'cut out' and path.name not in outlines:
            continue
        photo, lens, at = read_image(path), Lens.read(path), known
        lat, long, _ = exif_place(path)
        true = known.frame.to_xy(np.array([lat, long]))
        if variant == 'cut out':
            at = CutOut(known.folder, known.about, known.tables).without(outlines[path.name].buffer(2))
        else:
            photo = VARIANTS[variant](photo, i)
        found = find_photo(photo, at, encoder, widest=lens.widest())
        row = {'photo': path.name, 'variant': variant, 'confidence': round(found.confidence, 5), 'on_map': found.on_map,
               'search': distance(at.xy[found.tiles[0]], true), 'x': round(float(true[0]), 2),
               'y': round(float(true[1]), 2)}
        if found.placement is not None:
            p = found.placement
            camera = camera_place(p, lens.focal * (1200 / photo.shape[0] if variant == 'turned' else 1))
            row |= {'inliers': p.inliers, 'error': distance(p.centre, true), 'camera_error': distance(camera[:2], true),
                    'found_x': round(p.centre[0], 2), 'found_y': round(p.centre[1], 2), 'heading': round(p.heading, 1),
                    'resolution': round(p.resolution, 4), 'height': round(float(camera[2]), 1),
                    'outline': shapely.to_wkt(shapely.Polygon(p.outline), 1)}
            if variant == 'intact':
                outlines[path.name] = shapely.Polygon(p.outline)
        rows.append(row)
        write_whole(ROWS, pd.DataFrame(rows).to_csv(index=False))

if __name__ == '__main__':
    main()
