"""How well changes are found: forecasts of the real place (shared/data/naip) and of drawn worlds, beside answers that
need no confidence, and what shifts, clouds and darkness do. Rows are kept in nbs/tutorials/results, what stands there
is not computed again; forecasts and the fits behind them are kept under $GEOSEG_CACHE/change_evidence.

    python tools/change_evidence.py answers naip tiny0 tiny1
    python tools/change_evidence.py ways naip tiny0 tiny1
    python tools/change_evidence.py prototype naip --prototype ../shared/prototypes/outdated_map.py
    python tools/change_evidence.py false naip tiny0
    python tools/change_evidence.py network naip tiny0
"""
import argparse
import contextlib
import io
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter, label, shift, uniform_filter
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import nn

from geoseg.core.files import cache_folder, write_whole, writing
from geoseg.core.pages import csv_text, read_csv
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.files import find_acquisitions
from geoseg.data.shared import shared_data
from geoseg.inference.rasters.changes import flag_unlike, flagged_window, shift_between
from geoseg.inference.rasters.compare import NOT_JUDGED, SCORE, WEIGHTS, RasterArchive
from geoseg.inference.rasters.false_change import LEAST_SHIFT, read_moved
from geoseg.inference.rasters.outdated import file_store
from geoseg.inference.rasters.windows import pixel_size
from geoseg.metrics.thresholds import BINS, PastYear, calibrate_scores, choose_weight
from geoseg.models.outdated import OutdatedMaps, class_probabilities, log_odds
from geoseg.world.layouts import world_data

RESULTS = Path(__file__).parent.parent / 'nbs/tutorials/results'
PROTOTYPE = 'fusion of the prototype'
STEPS, RESAMPLES, FOLDS, TAUGHT = 1000, 1000, 4, 60_000
WORLD = {'block': 24, 'sample': 6000, 'most': 3000, 'taught': 4000}  # trees of a drawn world: of 256 x 256 pixels


class Place:
    'An archive, and the forecast of each year that has two older maps.'

    def __init__(self, name: str):
        self.name, naip = name, name == 'naip'
        root = shared_data('naip') if naip else world_data('raster', seed=int(name[4:]), size='tiny')
        self.scheme = LabelScheme.load('water' if naip else root / 'category.csv')
        self.acquisitions = {a.date: a for a in find_acquisitions(root)}
        self.days, self.block = [*self.acquisitions], 128 if naip else 32  # side of a block of ground, pixels
        self.folder = cache_folder(None) / 'change_evidence' / name
        (self.folder / 'fits').mkdir(parents=True, exist_ok=True)
        every = [*self.acquisitions.values()]
        self.all = RasterArchive(every[-1], every, self.scheme, None, None, 'error', True)
        self.whole = tuple(slice(0, n) for n in self.all.shape)
        self.model = OutdatedMaps(self.all.images, self.all.masks, self.scheme.num_classes,
                                  store=file_store(self.folder / 'fits'), **({} if naip else WORLD))

    @cache  # noqa: B019 (a handful of places)
    def forecast(self, day: str) -> np.ndarray:
        'Probabilities of a year, from the maps before it.'
        path = self.folder / f'{day}.npy'
        if not path.is_file():
            answer = self.model.fit([d for d in self.days if d < day]).predict_proba(day)
            with writing(path) as draft, open(draft, 'wb') as file:
                np.save(file, answer)
        return np.load(path)

    @cache  # noqa: B019
    def found(self, day: str) -> dict[str, np.ndarray]:
        'What `geoseg changes` compares, on a day.'
        return self.all.compare(self.whole, self.forecast(day), 'newest', day)

    def score(self, day: str, weight: float = 0) -> np.ndarray:  # float [H, W], 0 where nothing is judged
        'The score of `geoseg changes`, with a weight of the difference of both pictures.'
        found = self.all.compare(self.whole, self.forecast(day), 'newest', day, weight) if weight else self.found(day)
        score = found['score']
        return np.where(score == NOT_JUDGED, 0, score) / SCORE

    def truth(self, day: str) -> tuple[np.ndarray, np.ndarray]:  # bool [H, W]: judged, changed
        'Where a day is judged, and what has changed.'
        at, truth = self.found(day), self.mask(day)
        return (at['score'] != NOT_JUDGED) & (truth < self.scheme.num_classes), truth != at['then']

    @cache  # noqa: B019
    def year(self, day: str, weight: float = 0) -> PastYear:
        'How often cells of each score had changed.'
        judged, changed = self.truth(day)
        year = PastYear(day, 1)
        year.add((0, 0), self.score(day, weight), changed, judged)
        return year

    def past(self, day: str) -> tuple[float, list[PastYear]]:
        'The weight that the years before chose, and these years with it.'
        years = {weight: [self.year(d, weight) for d in self.days[2:] if d < day] for weight in WEIGHTS}
        weight = choose_weight(years)
        return weight, years[weight]

    def mask(self, day: str) -> np.ndarray:
        return self.all.masks[day][self.whole]

    def image(self, day: str) -> np.ndarray:
        return self.all.images[day][:, *self.whole]

    def newest(self, day: str) -> str:
        return max(d for d in self.days if d < day)


def picture_difference(place: Place, day: str) -> np.ndarray:  # float [H, W]
    'Length of the change vector of two pictures, each of them brought to mean 0 and deviation 1 a band.'
    new, old = (place.image(d) for d in (day, place.newest(day)))
    scaled = [(p - p.mean((1, 2), keepdims=True)) / p.std((1, 2), keepdims=True) for p in (new, old)]
    return np.sqrt(sum(uniform_filter(a - b, 3) ** 2 for a, b in zip(*scaled, strict=True)))


@cache
def evidence(place: Place, day: str) -> np.ndarray:  # float [H, W, F]
    'What may tell a change that lasts to the next map from an error, beside its score.'
    at = place.found(day)
    odds = log_odds(place.score(day))
    maps = np.stack([place.mask(d) for d in place.days if d < day])
    then = at['then']
    border = np.zeros(then.shape, bool)
    border[1:] |= then[1:] != then[:-1]
    border[:, 1:] |= then[:, 1:] != then[:, :-1]
    ranks = picture_difference(place, day)
    ranks = (ranks.argsort(None).argsort() / ranks.size).reshape(ranks.shape)
    alone, two = log_odds(other_class(place.model.self_fit(day, place.newest(day)), then)), two_maps(place, day)
    alone, two = np.nan_to_num(alone), np.nan_to_num(two)
    return np.stack([odds, *(gaussian_filter(odds, s) for s in (1, 3, 8)), (maps == at['now']).mean(0),
                     (maps == then).mean(0), np.log1p(np.minimum(distance_transform_edt(~border), 20)), ranks,
                     gaussian_filter(ranks, 3), alone, gaussian_filter(alone, 2), gaussian_filter(alone, 6), two,
                     gaussian_filter(two, 3)], -1).astype(np.float32)


def other_class(p: np.ndarray, then: np.ndarray) -> np.ndarray:
    'Probability of any class but that of the map.'
    old = np.where(then < len(p), then, 0)[None].astype(int)
    return 1 - np.nan_to_num(np.take_along_axis(p, old, 0)[0], nan=1)


def fitted(kind: str, x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    'Probabilities of change, by one of two models.'
    some = np.random.default_rng(0).choice(len(x), min(len(x), TAUGHT), replace=False)
    x, y = x[some], y[some]
    mean, scale = x.mean(0), x.std(0) + 1e-6
    if kind == 'regression':
        line = LogisticRegression(C=1, max_iter=200).fit((x - mean) / scale, y)
        return line.predict_proba((asked - mean) / scale)[:, 1]
    trees = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, max_leaf_nodes=8, l2_regularization=5.,
                                           min_samples_leaf=max(20, len(x) // 100), random_state=0)
    return trees.fit(x, y).predict_proba(asked)[:, 1]


def second_model(place: Place, day: str, kind: str) -> np.ndarray:
    """Scores that past forecasts teach; in the first year that can be forecast, where a choice is made, its own blocks
    of ground in turn."""
    past, asked = [d for d in place.days[2:] if d < day], evidence(place, day)
    flat = asked.reshape(-1, asked.shape[-1])
    if past:
        parts = [(evidence(place, d)[judged], changed[judged]) for d in past for judged, changed in [place.truth(d)]]
        out = fitted(kind, *map(np.concatenate, zip(*parts, strict=True)), flat)
    else:
        judged, changed = (layer.ravel() for layer in place.truth(day))
        fold = np.random.default_rng(0).permutation(blocks_of(place.all.shape, place.block).max() + 1) % FOLDS
        fold, out = fold[blocks_of(place.all.shape, place.block)].ravel(), np.zeros(len(flat))
        for one in range(FOLDS):
            taught = judged & (fold != one)
            out[fold == one] = fitted(kind, flat[taught], changed[taught], flat[fold == one])
    return out.reshape(asked.shape[:2])


@cache
def prototype(path: str, place: Place):
    'The functions of the prototype, on naip; its fits are kept.'
    with contextlib.redirect_stdout(io.StringIO()):
        before, sys.argv = sys.argv, [path, str(shared_data('naip'))]
        try:
            its = runpy.run_path(path)
        finally:
            sys.argv = before
    plain = its['fit']

    @cache
    def fit(date, teacher):
        kept = place.folder / 'fits' / f'prototype_{date}_{teacher}.npy'
        if not kept.is_file():
            with writing(kept) as draft, open(draft, 'wb') as file:
                np.save(file, plain(date, teacher))
        return np.load(kept)

    its['evidence'].__globals__['fit'] = fit
    return its


def prototype_land(path: str, place: Place, day: str) -> np.ndarray:
    "P(land) of the prototype's fusion, of one second model instead of three."
    its, rng = prototype(path, place), np.random.default_rng(0)
    known, xs, ys = tuple(d for d in place.days if d < day), [], []
    for year in known:
        x, label = its['evidence'](year, tuple(d for d in known if d != year)), its['label'](year).ravel()
        some = rng.choice(np.flatnonzero(label < 2), 60_000, replace=False)
        xs.append(x.reshape(-1, x.shape[-1])[some])
        ys.append(label[some])
    second = HistGradientBoostingClassifier(max_iter=100, learning_rate=.08, max_leaf_nodes=10, min_samples_leaf=600,
                                            l2_regularization=5., random_state=0)
    x = its['evidence'](day, known)
    second.fit(np.concatenate(xs), np.concatenate(ys))
    return second.predict_proba(x.reshape(-1, x.shape[-1]))[:, 1].reshape(x.shape[:2])


def two_maps(place: Place, day: str) -> np.ndarray:  # float [H, W]
    "Trees that see a picture alone, taught by the newest map: how far their maps of both pictures differ."
    teacher = place.newest(day)
    place.model.prepare(day, (teacher,))
    place.model.prepare(teacher, (teacher,))
    now, then = (class_probabilities(np.asarray(place.model.layer(d, teacher), np.float32)) for d in (day, teacher))
    return 1 - (now * then).sum(0)


def in_steps(years: list[PastYear], score: np.ndarray) -> np.ndarray:
    'Scores calibrated by plain isotonic regression.'
    unchanged, changed = sum(year.counts for year in years)
    seen, at = unchanged + changed, np.arange(BINS + 1) / BINS
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds='clip')
    curve.fit(at[seen > 0], changed[seen > 0] / seen[seen > 0], seen[seen > 0])
    return curve.predict(score.ravel()).reshape(score.shape)


Answers = dict[str, Callable[[], tuple[np.ndarray, np.ndarray | None]]]  # scores 0 to 1, and the class now, if said


def answers(place: Place, day: str) -> Answers:
    'What is compared.'
    at, p = place.found(day), place.forecast(day)
    then, now, k = at['then'], at['now'], place.scheme.num_classes
    stays, moves = at['stays'].astype(float), at['moves']
    weight, years = place.past(day)
    score, self_fit = place.score(day, weight), place.model.self_fit(day, place.newest(day))
    other = np.where(np.arange(k)[:, None, None] == then, -1, self_fit).argmax(0)
    where = '' if years else ', other blocks of the same year'

    def calibrated():
        return calibrate_scores(years, SCORE)[np.rint(score * SCORE).astype(int)]

    def difference():
        length = picture_difference(place, day)
        return length / length.max()

    said = {'geoseg changes': lambda: (score, now),
            'its probability of another class': lambda: (other_class(p, then), now),
            'the new class against the old one alone': lambda: (moves / np.maximum(moves + stays, 1e-12), now),
            'its disagreement, not thresholded': lambda: ((p.argmax(0) != then).astype(float), now),
            'its score, smoothed by 2 pixels': lambda: (1 / (1 + np.exp(-gaussian_filter(log_odds(score), 2))), now)}
    for kind in ('regression', 'trees'):
        said[f'second model, {kind}{where}'] = lambda kind=kind: (second_model(place, day, kind), now)
    return said | ({'its confidence': lambda: (calibrated(), now),
                    'its confidence, if in steps': lambda: (in_steps(years, score), now)} if years else {}) | {
        'difference of pictures': lambda: (difference(), None),
        "trees of today's picture alone": lambda: (other_class(self_fit, then), other),
        'difference of the maps of two pictures': lambda: (two_maps(place, day), None),
        'copy of the newest map': lambda: (np.zeros(score.shape), None)}


# what is added to the log-odds of a change, and how much of it
WAYS = {'mean over its piece': (0.25, 0.5), 'fits by all old maps': (0.1, 0.3), 'changes before': (0.3, 1),
        'changes around': (0.25, 0.5), 'changes of that class': (0.25, 0.5)}


@cache
def weighed(place: Place, day: str, way: str) -> np.ndarray:  # float [H, W]
    'What one of `WAYS` adds to the log-odds of a change, at weight 1.'
    at, k, odds = place.found(day), place.scheme.num_classes, log_odds(place.score(day))
    then, share = at['then'], place.score(day)
    if way == 'fits by all old maps':
        fits = [log_odds(other_class(place.model.self_fit(day, d), then)) for d in place.days if d < day]
        return np.clip(np.mean(fits, 0), -4, 4)
    if way == 'changes before':
        maps = np.stack([place.mask(d) for d in place.days if d < day])
        return (maps[1:] != maps[:-1]).mean(0)
    if way in ('changes around', 'changes of that class'):  # how much of the ground of its old class is said to change
        around = np.zeros(then.shape)
        for c in np.unique(then):
            inside = then == c
            if way == 'changes around':
                total, count = (gaussian_filter(layer.astype(float), 60) for layer in (inside * share, inside))
                near = total / np.maximum(count, 1e-9)
            else:
                near = np.full(then.shape, share[inside].mean())
            around[inside] = log_odds(near)[inside]
        return around
    mean, code = odds.copy(), then.astype(int) * k + at['now']
    for change in np.unique(code):  # pieces of one change, of cells that are not sure to have stayed
        inside = (code == change) & (odds > log_odds(0.1))
        piece, number = label(inside)
        size = np.bincount(piece.ravel(), minlength=number + 1)
        mean[inside] = (np.bincount(piece.ravel(), odds.ravel(), number + 1) / np.maximum(size, 1))[piece[inside]]
    return mean - odds


def by_class(place: Place, day: str, past: list[str]) -> np.ndarray:
    'Scores calibrated on past forecasts, for each pair of classes that changed often enough; else for all together.'
    def known(d):
        (judged, changed), at = place.truth(d), place.found(d)
        code = at['then'][judged].astype(int) * place.scheme.num_classes + at['now'][judged]
        return place.score(d)[judged], code, changed[judged]

    score, code, changed = map(np.concatenate, zip(*map(known, past), strict=True))
    at, k, asked = place.found(day), place.scheme.num_classes, place.score(day)
    here = np.where(at['score'] == NOT_JUDGED, -1, at['then'].astype(int) * k + at['now'])
    curve = partial(IsotonicRegression, y_min=0, y_max=1, out_of_bounds='clip')
    said = curve().fit(score, changed).predict(asked.ravel()).reshape(asked.shape)
    for one in np.unique(code):
        if 100 <= changed[code == one].sum() <= (code == one).sum() - 100:
            said[here == one] = curve().fit(score[code == one], changed[code == one]).predict(asked[here == one])
    return 0.99 * said + 0.01 * asked  # steps of a curve are not one rank


def ways(place: Place, day: str) -> Answers:
    'Evidence beside the probability of another class, with the weight that `choose_weight` takes from earlier years.'
    past, now = [d for d in place.days[2:] if d < day], place.found(day)['now']

    def scored(d, way, weight):
        if not weight:
            return place.score(d)
        return 1 / (1 + np.exp(-log_odds(place.score(d), 1 / SCORE) - weight * weighed(place, d, way)))

    @cache
    def year(d, way, weight):
        judged, changed = place.truth(d)
        found = PastYear(d, 1)
        found.add((0, 0), scored(d, way, weight), changed, judged)
        return found

    def chosen(way, weights):
        weight = choose_weight({weight: [year(d, way, weight) for d in past] for weight in (0, *weights)})
        print(place.name, day, way, weight, flush=True)
        return scored(day, way, weight), now

    return {'its probability by class, calibrated': lambda: (by_class(place, day, past), now)} | {
        f'its probability and the {way}': partial(chosen, way, weights) for way, weights in WAYS.items()}


def average_precision(counts: np.ndarray) -> np.ndarray:  # of [..., 2, STEPS + 1]: unchanged, changed by score
    'Area under the curve of precision by recall, in steps of a score; a score of 0 is never flagged.'
    flagged, right = (c[..., ::-1].cumsum(-1) for c in (counts.sum(-2)[..., 1:], counts[..., 1, 1:]))
    step = np.diff(right, axis=-1, prepend=0)
    return (step * right / np.maximum(flagged, 1)).sum(-1) / np.maximum(counts[..., 1, :].sum(-1), 1)


def best_iou(counts: np.ndarray) -> np.ndarray:
    flagged, right = (c[..., ::-1].cumsum(-1) for c in (counts.sum(-2)[..., 1:], counts[..., 1, 1:]))
    return (right / np.maximum(flagged + counts[..., 1, :].sum(-1, keepdims=True) - right, 1)).max(-1)


def blocks_of(shape: tuple[int, int], side: int) -> np.ndarray:  # int [H, W]
    'The number of the block of ground.'
    return (np.arange(shape[0])[:, None] // side) * -(-shape[1] // side) + np.arange(shape[1]) // side


def block_counts(score, changed, judged, side: int, steps: int = STEPS) -> np.ndarray:  # int [B, 2, steps + 1]
    block = blocks_of(score.shape, side)
    at = (block * 2 + changed) * (steps + 1) + np.clip(np.rint(score * steps), 0, steps).astype(int)
    n = block.max() + 1
    return np.bincount(at[judged], minlength=n * 2 * (steps + 1)).reshape(n, 2, steps + 1)


def prototype_answer(path: str, place: Place, day: str) -> Answers:
    def answer():
        then, land = place.found(day)['then'], prototype_land(path, place, day)
        return np.where(then == 1, 1 - land, land), 1 - np.minimum(then, 1)
    return {PROTOTYPE: answer}


def by_resampling(counts: np.ndarray) -> np.ndarray:  # float [RESAMPLES]
    'Average precision of blocks drawn with repetition.'
    n = len(counts)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    return average_precision((drawn @ counts.reshape(n, -1)).reshape(RESAMPLES, *counts.shape[1:]))


@cache
def base_of(place: Place, day: str) -> tuple[int, np.ndarray]:  # blocks, float [RESAMPLES]
    'The average precision of the disagreement with the newest map.'
    judged, changed = place.truth(day)
    counts = block_counts(other_class(place.forecast(day), place.found(day)['then']), changed, judged, place.block)
    return len(counts), by_resampling(counts)


def judge(place: Place, day: str, asked: Answers) -> list[dict]:
    'A row an answer.'
    truth, (judged, changed) = place.mask(day), place.truth(day)
    said = {name: answer() for name, answer in asked.items()}
    counts = {name: block_counts(score, changed, judged, place.block, SCORE if 'confidence' in name else STEPS)
              for name, (score, _) in said.items()}  # a curve may press many scores together
    n, base = base_of(place, day)
    rows = []
    for name, (score, now) in said.items():
        resampled = by_resampling(counts[name])
        low, high = np.quantile(resampled, (0.025, 0.975))
        ahead_low, ahead_high = np.quantile(resampled - base, (0.025, 0.975))
        row = {'place': place.name, 'test': day, 'answer': name, 'blocks': n, 'changed': changed[judged].mean(),
               'average precision': average_precision(counts[name].sum(0)), 'low': low, 'high': high,
               'ahead, low': ahead_low, 'ahead, high': ahead_high,
               'best IoU': best_iou(counts[name].sum(0))}
        for threshold in (0.5, 0.7, 0.9):
            over = judged & (score >= threshold)
            hit = over & changed
            row |= {f'precision {threshold}': hit.sum() / over.sum() if over.any() else np.nan,
                    f'recall {threshold}': hit.sum() / changed[judged].sum(),
                    f'IoU {threshold}': hit.sum() / (over | changed & judged).sum(),
                    f'area {threshold}': over.sum() / changed[judged].sum()}
            if now is not None:
                row[f'from to {threshold}'] = (now == truth)[hit].mean() if hit.any() else np.nan
        rows.append(row)
    return rows


def keep(path: Path, wanted: dict, rows):
    'Add rows to a file, unless it has some of that kind.'
    def stored():
        return read_csv(path, dtype={'test': str}) if path.is_file() else pd.DataFrame(columns=[*wanted])

    if not (stored()[[*wanted]] == pd.Series(wanted)).all(axis=1).any():
        found = rows()
        write_whole(path, csv_text(pd.DataFrame([*stored().to_dict('records'), *found]), index=False,
                                   float_format='%.5g'))
        print(*wanted.values(), flush=True)


def keep_answers(place: Place, day: str, asked: Answers):
    'Add the rows of answers that a year has none of.'
    for name, answer in asked.items():
        keep(RESULTS / 'change_evidence.csv', {'place': place.name, 'test': day, 'answer': name},
             partial(judge, place, day, {name: answer}))


def reliability(place: Place, day: str) -> list[dict]:
    'Cells by score, unchanged and changed.'
    return [{'place': place.name, 'test': day, 'score': i / BINS, 'unchanged': same, 'changed': other}
            for i, (same, other) in enumerate(place.year(day, place.past(day)[0]).counts.T)]


def painted(picture: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:  # and where, bool [H, W]
    'Clouds over about an eighth of the ground.'
    h, w = picture.shape[1:]
    soft = gaussian_filter(np.random.default_rng(seed).normal(size=(h, w)), min(h, w) / 14)
    cover = np.clip((soft - np.quantile(soft, 0.87)) / soft.std() / 0.25, 0, 1)  # of 0.25 deviations is the rim
    grain = np.random.default_rng(seed + 1).normal(0, 3, (h, w))
    return np.clip(picture * (1 - cover) + cover * (245 + grain), 0, 255), cover > 0


def variants(picture: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    'The new picture, and what may be wrong with it.'
    moved = {f'moved by {n} pixels': (shift(picture, (0, 0, n), order=1, mode='nearest'), None) for n in (1, 2, 3)}
    return {'as it is': (picture, None), **moved, 'clouds': painted(picture), 'darkened': (0.6 * picture, None)}


def treatments(archive: RasterArchive, clouds: np.ndarray | None) -> Iterator[tuple[str, dict, dict]]:
    'What can be done about a fault: its name, what it needs, and the shift as it is measured.'
    moved = shift_between(archive)
    yield 'none', {}, moved
    if np.hypot(moved['right'], moved['down']) >= LEAST_SHIFT:
        yield 'align', {'align': True}, moved
    yield 'unlike', {'unlike': 0.02}, moved
    if clouds is not None:
        yield 'unusable', {'hidden': clouds}, moved


AGAIN = 'the newest old picture'


def alarms(place: Place, day: str, known: list[str], fault: str, answer) -> list[dict]:
    'A row for each way to treat a fault of the picture.'
    old, rows, a = [place.acquisitions[d] for d in known], [], place.acquisitions[day]
    truth, k, km2 = place.mask(day), place.scheme.num_classes, pixel_size(a) / 1e6
    picture, clouds = (place.image(known[-1]), None) if fault == AGAIN else variants(place.image(day))[fault]

    def opened():
        archive = RasterArchive(a, old, place.scheme, None, None, 'error', True)
        archive.images[day] = archive.pictures[day] = picture
        return archive

    for treatment, how, moved in treatments(opened(), clouds):
        archive = opened()
        if 'align' in how:
            archive.align(moved['right'], moved['down'])
        p = answer(archive, fault, picture, moved if 'align' in how else None).copy()
        if 'hidden' in how:
            p[:, clouds] = np.nan
        if 'unlike' in how:
            p[:, flagged_window(flag_unlike(archive, how['unlike'])[0], place.whole)] = np.nan
        at = archive.compare(place.whole, p, 'newest')
        now = place.mask(known[-1]) if fault == AGAIN else truth
        judged = (at['score'] != NOT_JUDGED) & (truth < k) & (now < k)
        year = PastYear(day, km2)
        year.add((0, 0), at['score'] / SCORE, now != at['then'], judged)
        rows.append({'place': place.name, 'test': day, 'fault': fault, 'treatment': treatment,
                     'right': moved['right'], 'down': moved['down'],
                     'share not judged': 1 - judged.sum() / (truth < k).sum(),
                     'share flagged': (judged & (at['score'] >= SCORE / 2)).sum() / judged.sum(),
                     **year.measures(0.5)})
    return rows


def false_alarms(place: Place, day: str, fault: str) -> list[dict]:
    'By trees of the last three maps.'
    known, plain = [d for d in place.days if d < day][-3:], file_store(place.folder / 'fits')
    place.model.fit(known)

    @cache
    def forecast(named: str, archive: RasterArchive) -> np.ndarray:
        def store(name, shape, fill):
            return plain(f'{named}_{name}' if name.startswith(day) else name, shape, fill)
        model = OutdatedMaps(archive.images, archive.masks, place.scheme.num_classes, store=store,
                             **({} if place.name == 'naip' else WORLD))
        model.fusion, model.known = place.model.fusion, place.model.known
        return model.predict_proba(day)

    def answer(archive, fault, picture, moved):
        return forecast(f'{fault}{"_align" if moved else ""}'.replace(' ', '_'), archive)
    return [row | {'answered by': 'trees'} for row in alarms(place, day, known, fault, answer)]


def small_network(k: int) -> nn.Sequential:
    'Five layers of 3 x 3, ever wider apart: 63 pixels are seen.'
    layers, channels = [], 3
    for apart in (1, 2, 4, 8, 16):
        layers += [nn.Conv2d(channels, 24, 3, padding=apart, dilation=apart), nn.BatchNorm2d(24), nn.ReLU()]
        channels = 24
    return nn.Sequential(*layers, nn.Conv2d(channels, k, 1))


@cache
def trained_network(place: Place, day: str, steps: int = 400) -> nn.Module:
    'Trained on the pictures and maps before that day, with brightness and flips drawn.'
    torch.manual_seed(0)
    rng, known, side = np.random.default_rng(0), [d for d in place.days if d < day], 96
    network = small_network(place.scheme.num_classes)
    best = torch.optim.Adam(network.parameters(), 3e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(best, 1e-2, steps)
    for _ in range(steps):
        crops = []
        for _ in range(4):
            d, (row, col) = rng.choice(known), (rng.integers(n - side) for n in place.all.shape)
            window, turn = (slice(row, row + side), slice(col, col + side)), rng.choice([-1, 1], 2)
            picture, mask = place.all.images[d][:, *window] * rng.uniform(0.6, 1.3), place.all.masks[d][window]
            crops.append((picture[:, ::turn[0], ::turn[1]].copy(), mask[::turn[0], ::turn[1]].astype(np.int64)))
        images, masks = (torch.from_numpy(np.stack(each)) for each in zip(*crops, strict=True))
        loss = nn.functional.cross_entropy(network(images / 128 - 1), masks, ignore_index=255)
        best.zero_grad()
        loss.backward()
        best.step()
        plan.step()
    return network.eval()


def network_alarms(place: Place, day: str, fault: str) -> list[dict]:
    'By a small network.'
    network, known = trained_network(place, day), [d for d in place.days if d < day]

    def answer(archive, fault, picture, moved):
        with torch.no_grad():
            p = network(torch.from_numpy(np.float32(picture))[None] / 128 - 1)[0].softmax(0).numpy()
        if moved:  # as `geoseg changes` does: the answer is brought back
            p = read_moved(lambda window: p[:, *window], place.all.shape, place.whole, moved['right'], moved['down'])
        return p
    return [row | {'answered by': 'network'} for row in alarms(place, day, known[-3:], fault, answer)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', choices=['answers', 'ways', 'prototype', 'false', 'network'])
    parser.add_argument('places', nargs='+', help='naip, or tiny and a seed')
    parser.add_argument('--prototype', help='path of outdated_map.py')
    asked = parser.parse_args()
    for name in asked.places:
        place = Place(name)
        if asked.what in ('false', 'network'):
            day, by = place.days[-1], 'network' if asked.what == 'network' else 'trees'
            for fault in (*variants(place.image(day)), AGAIN):
                keep(RESULTS / 'change_false_alarms.csv',
                     {'place': name, 'test': day, 'fault': fault, 'answered by': by},
                     partial(network_alarms if by == 'network' else false_alarms, place, day, fault))
            continue
        for day in place.days[2:]:
            row = {'place': name, 'test': day}
            later = day > place.days[2]
            if asked.what == 'answers':
                keep_answers(place, day, answers(place, day))
                keep(RESULTS / 'change_reliability.csv', row, partial(reliability, place, day))
            elif asked.what == 'ways' and later:
                keep_answers(place, day, ways(place, day))
            elif asked.what == 'prototype' and later:
                keep_answers(place, day, prototype_answer(asked.prototype, place, day))


if __name__ == '__main__':
    main()
