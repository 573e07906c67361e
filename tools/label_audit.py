"""How well `geoseg audit-labels` finds errors that are known, beside chance and others: rows of a CSV file.

    python tools/label_audit.py nbs/tutorials/results/label_audit.csv [error …]
"""
import argparse
import csv
import math
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from scipy import ndimage

from geoseg.data.labels import LabelScheme
from geoseg.data.loading import LabelledPicture
from geoseg.evaluation.label_audit import DealtFolds, deal_folds, judge_labels
from geoseg.models.outdated import LEAST, colour_features, fit_trees, tree_probabilities
from geoseg.world.label_errors import LABEL_ERRORS, spoil_labels
from geoseg.world.layouts import world_data

KS = (10, 20, 50)
ORDERS = [  # what places are sorted by
    ('', lambda p: p.score),
    (', by differences', lambda p: p.probability - p.label_probability - p.habit),
    (', habits left out', lambda p: math.log(p.probability / max(p.label_probability, LEAST))),
    (', by confidence alone', lambda p: p.probability)]


class Seen(DealtFolds):
    "Everybody judges what it learned."

    def teaches(self, rows, cols, fold, shape):
        return np.ones(len(rows), bool)


def seen(pictures, folds):
    dealt, size, places = deal_folds(pictures, folds)
    return Seen(dealt.block, dealt.count, dealt.margin), size, places


def crops(size: str, dates: int, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    "Image and labels of one ground at several dates."
    root, parts = world_data('raster', size=size), []
    for image in sorted(root.glob('*_image.tif'))[:dates]:
        with rasterio.open(image) as f, rasterio.open(image.with_name(image.name.replace('image', 'mask'))) as g:
            window = rasterio.windows.Window(0, 0, side, side)
            parts.append((f.read(window=window).transpose(1, 2, 0), g.read(1, window=window)))
    return parts


def least_sure(parts, spoilt, wrong) -> np.ndarray:
    "Squares of 5 pixels where trees are least sure, whatever the labels say."
    features = [colour_features(image.transpose(2, 0, 1).astype(np.float32)) for image, _ in parts]
    rng = np.random.default_rng(0)
    flat, labels = np.concatenate([f.reshape(-1, f.shape[-1]) for f in features]), np.concatenate(
        [s.ravel() for s in spoilt])
    chosen = rng.choice(np.flatnonzero(labels < 7), 20_000, replace=False)
    trees, found = fit_trees(flat[chosen], labels[chosen], max_iter=60, learning_rate=0.15), []
    for values, bad in zip(features, wrong, strict=True):
        sure = tree_probabilities(trees, values.reshape(-1, values.shape[-1]), 7).max(1).reshape(bad.shape)
        sure = ndimage.uniform_filter(sure, 5)
        for row, col in np.argwhere(sure == ndimage.minimum_filter(sure, 11)):
            found.append((sure[row, col], bad[max(row - 2, 0):row + 3, max(col - 2, 0):col + 3].mean() >= 0.5))
    return np.array([right for _, right in sorted(found, key=lambda one: one[0])])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out')
    parser.add_argument('errors', nargs='*', default=LABEL_ERRORS)
    parser.add_argument('--side', type=int, default=768)
    parser.add_argument('--dates', type=int, default=2)
    parser.add_argument('--size', default='default')
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args()
    parts, rows = crops(given.size, given.dates, given.side), []
    scheme = LabelScheme.load(world_data('raster', size=given.size) / 'category.csv')
    for error in given.errors:
        spoilt = [spoil_labels(labels, error, 7, seed=given.seed * 10 + i) for i, (_, labels) in enumerate(parts)]
        wrong = [a != labels for a, (_, labels) in zip(spoilt, parts, strict=True)]
        pictures = []
        for i, ((image, _), labels) in enumerate(zip(parts, spoilt, strict=True)):
            one = LabelledPicture.whole('train', str(i), labels.shape, lambda i=image, m=labels: (i, m))
            one.ground = (0, 0)
            pictures.append(one)
        smallest = 1 if error == 'flipped' else 9
        chance = float(np.mean([w.mean() for w in wrong]))
        arms, counts = {'chance': {k: chance for k in KS}}, {}
        for name, deal in (('cross-fitted', deal_folds), ('trees that saw the labels', seen)):
            places = judge_labels(pictures, scheme, 5, 20_000, smallest, 1 << 20, deal).places

            def right(order, places=places, wrong=wrong, most=KS[-1]):
                chosen = sorted(places, key=order)[:most]
                return np.array([wrong[p.picture][p.row:, p.col:][:p.pixels.shape[0], :p.pixels.shape[1]][
                    p.pixels].mean() >= 0.5 for p in chosen])

            every = right(lambda p: p.order(), most=len(places))
            counts[name] = {'places': len(every), 'right places': int(every.sum())}
            for other, order in (ORDERS if deal is deal_folds else ORDERS[:1]):
                hits = right(lambda p, order=order: (-order(p), p.order()))
                arms[name + other] = {k: float(hits[:k].mean()) for k in KS}
        hits = least_sure(parts, spoilt, wrong)
        arms['least sure'] = {k: float(hits[:k].mean()) for k in KS}
        for arm, values in arms.items():
            rows.append({'error': error, 'arm': arm, 'seed': given.seed, 'wrong': round(chance, 4)}
                        | {f'precision at {k}': round(v, 3) for k, v in values.items()}
                        | counts.get(arm, {'places': '', 'right places': ''}))
            print(rows[-1], flush=True)
        path = Path(given.out)
        before = list(csv.DictReader(path.open())) if path.is_file() else []
        kept = [r for r in before if (r['error'], r['seed']) != (error, str(given.seed))]
        with tempfile.NamedTemporaryFile('w', dir=path.parent, delete=False, suffix='.csv', newline='') as draft:
            writer = csv.DictWriter(draft, rows[0])
            writer.writeheader()
            writer.writerows([*kept, *(r for r in rows if r['error'] == error)])
        Path(draft.name).chmod(0o644)
        Path(draft.name).replace(path)


if __name__ == '__main__':
    main()
