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
from geoseg.inference.places.mosaic import Mosaic
from geoseg.inference.places.place_photos import Lens, camera_place, find_photo
from geoseg.inference.places.points import find_points, match_points, on_ground
from geoseg.visualization.photo_map import laid_out

ROWS = Path(__file__).parent.parent / 'nbs/tutorials/results/where_was_this_taken.csv'
REFERENCE = ROWS.with_name('where_reference.csv')


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


def likeness(photo, outline, mosaic, step=0.25):
    'The correlation of a photo that lies on an outline with the map there, both as grey values.'
    (west, south), (east, north) = outline.min(0), outline.max(0)
    shape = int((north - south) / step), int((east - west) / step)
    ground, known = mosaic.read(west, north, step, shape)
    laid = laid_out(cv2.GaussianBlur(photo, (0, 0), 2), (outline - (west, north)) * (1, -1) / step, shape)
    both = known & (laid[..., 3] == 255)
    grey = [cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1)[both].astype(float)
            for picture in (np.ascontiguousarray(laid[..., :3]), ground)]
    return float(np.corrcoef(*grey)[0, 1]) if both.mean() > 0.3 else np.nan


def beside(photo, other):
    'Where the middle of another photo lies in a photo, pixels, from the two alone; how many key points agree.'
    first, second = (find_points(picture, 3000) for picture in (photo, other))
    pairs = match_points(second, first)
    if len(pairs) < 8:
        return np.full(2, np.nan), 0
    matrix, good = cv2.findHomography(second.xy[pairs[:, 0]].astype(float), first.xy[pairs[:, 1]].astype(float),
                                      cv2.USAC_MAGSAC, 3, maxIters=4000, confidence=0.9999)
    if matrix is None or good.sum() < 12:
        return np.full(2, np.nan), 0
    return on_ground(matrix, np.array([other.shape[1::-1]]) / 2)[0], int(good.sum())


def check_reference(root, mosaic):
    'What tells an error of the place from one of the GPS: the map under a photo, and the photo before it.'
    rows = pd.read_csv(ROWS)
    table, last = [], None
    for row in rows[rows.variant == 'intact'].itertuples():
        path = root / 'images' / row.photo
        photo, (_, _, seconds) = read_image(path), exif_place(path)
        outline = np.array(shapely.from_wkt(row.outline).exterior.coords)[:4]
        off = np.array([row.x - row.found_x, row.y - row.found_y])
        line = {'photo': row.photo, 'seconds': seconds, 'altitude': Lens.read(path).altitude,
                'like_found': round(likeness(photo, outline, mosaic), 3),
                'like_gps': round(likeness(photo, outline + off, mosaic), 3)}
        if last is not None:
            at, inliers = beside(last[0], photo)
            rows_, columns = last[0].shape[:2]
            own = np.float32([(0, 0), (columns, 0), (columns, rows_), (0, rows_)])
            there = on_ground(cv2.getPerspectiveTransform(own, np.float32(last[1])), at[None])[0]
            line |= {'pair_inliers': inliers, 'step_x': round(there[0] - last[2].found_x, 2),
                     'step_y': round(there[1] - last[2].found_y, 2)}
        table.append(line)
        last = photo, outline, row
        write_whole(REFERENCE, pd.DataFrame(table).to_csv(index=False))


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
    jobs += [(p, i, v) for start in range(15) for i, p in list(enumerate(photos))[start::15]
             for v in ('cut out', *VARIANTS) if v != 'intact']
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
    check_reference(root, Mosaic.open(str(root / 'orthomosaic_utm14n.tif'), known.frame))


if __name__ == '__main__':
    main()
