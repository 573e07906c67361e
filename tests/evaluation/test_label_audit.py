"Labels spoilt on purpose are found before others; and what the audit refuses."
from pathlib import Path

import numpy as np
import pytest

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.data.labels import LabelScheme
from geoseg.data.loading import LabelledPicture
from geoseg.evaluation.label_audit import FAR, Place, deal_folds, find_places, judge_labels
from geoseg.world.label_errors import LABEL_ERRORS, spoil_labels

SCHEME = LabelScheme(['field', 'wood', 'water'])
COLOURS = np.array([[200, 180, 60], [30, 90, 40], [40, 60, 150]])


def drawn(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    "A picture of squares in noisy colours, and its true labels."
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (side // 12, side // 12)).repeat(12, 0).repeat(12, 1).astype(np.uint8)
    image = COLOURS[labels] + rng.normal(0, 12, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def picture(image, labels, name='a', ground=None) -> LabelledPicture:
    one = LabelledPicture.whole('train', name, labels.shape, lambda: (image, labels))
    one.ground = ground
    return one


@pytest.mark.parametrize('ground', [True, False])
def test_what_people_do_wrong_is_found_first(ground):
    "On one ground seen twice, and in pictures: nine in ten of the first places; chance is below one in ten."
    pictures, wrong = [], []
    for seed in range(6):
        image, truth = drawn(seed)
        labels = spoil_labels(truth, ('swapped', 'missed')[seed % 2], 3, seed=seed, largest=0.2)
        pictures.append(picture(image, labels, str(seed), (0, 96 * (seed // 2)) if ground else None))
        wrong.append(labels != truth)
    audit = judge_labels(pictures, SCHEME, 3, 1000)
    right = [wrong[p.picture][p.row:, p.col:][:p.pixels.shape[0], :p.pixels.shape[1]][p.pixels].mean() > 0.5
             for p in audit.places[:20]]
    assert np.mean(wrong) < 0.1 and np.mean(right) > 0.9
    assert audit.table['score'].is_monotonic_decreasing
    again = judge_labels(pictures, SCHEME, 3, 1000)
    assert again.table.equals(audit.table)


def place(probability, label_probability, habit, row=0) -> Place:
    return Place(0, row, 0, np.ones((3, 3), bool), 0, 1, probability, label_probability, habit)


def test_a_place_is_as_suspicious_as_its_answer_is_likelier_than_label_and_habit():
    "By hand; a confident answer that the judge always gives comes after a less confident one that it never gives."
    assert place(0.8, 0.1, 0.4).score == pytest.approx(np.log(20))
    habitual, rare = place(0.97, 0.02, 0.5), place(0.7, 0.02, 0.)
    assert sorted([habitual, rare], key=Place.order) == [rare, habitual]
    assert place(0.7, 0., 0.).score == place(0.7, 1e-4, 1e-5).score == pytest.approx(np.log(0.7) + 6 * np.log(10))
    alike = [place(0.9, 0.05, 0.2, row) for row in (5, 2)]
    assert sorted(alike, key=Place.order) == alike[::-1]


def test_right_labels_are_left_alone():
    audit = judge_labels([picture(*drawn(seed), str(seed)) for seed in range(6)], SCHEME, 3, 1500)
    assert len(audit.places) <= 3 and max(audit.share.values()) < 0.05


def test_who_judges_has_not_seen():
    "No pixel teaches the fold that judges it, whether the ground is shared or not; neighbours on a ground differ."
    image, labels = drawn(0)
    for pictures in ([picture(image, labels, ground=(0, 96 * i)) for i in range(3)],
                     [picture(image, labels) for _ in range(7)]):
        dealt, size, places = deal_folds(pictures, 3)
        for row, col in places:
            rows, cols = (part.ravel() for part in np.mgrid[row:row + 96, col:col + 96])
            own = dealt.of(rows, cols)
            for fold in range(3):
                assert not (dealt.teaches(rows, cols, fold, size) & (own == fold)).any()
        assert {int(dealt.of(np.array([r]), np.array([c]))[0]) for r, c in places} <= {0, 1, 2}
    assert places[-1][0] > FAR


def test_edges_are_not_places():
    "What is narrower than three pixels is an edge; with smallest below 9 it counts, too."
    labels = np.zeros((20, 20), np.uint8)
    probability = np.stack([np.full((20, 20), 0.9), np.full((20, 20), 0.1)])
    probability[:, 5:7] = [[[0.1]], [[0.9]]]
    assert [*find_places(probability, labels, np.array([0.5, 0.5]))] == []
    [(rows, cols, own, label, answer)] = find_places(probability, labels, np.array([0.5, 0.5]), 1)
    assert (rows, cols, label, answer, own.sum()) == (slice(5, 7), slice(0, 20), 0, 1, 40)


@pytest.mark.parametrize('error', LABEL_ERRORS)
def test_errors_are_as_many_as_asked_for_and_the_same_each_time(error):
    truth = drawn(1, 240)[1]
    spoilt = spoil_labels(truth, error, 3, share=0.05, seed=4, largest=0.2)
    assert 0.01 < (spoilt != truth).mean() < 0.1
    assert np.array_equal(spoilt, spoil_labels(truth, error, 3, share=0.05, seed=4, largest=0.2))


@pytest.mark.parametrize(('words', 'says'), [
    (['data=world:gta:tiny'], 'pixels'), (['data=world:tiny', 'folds=1'], 'folds is 1, expected a whole number'),
    (['data=world:tiny', 'crops=many'], "crops is 'many'"), ([], 'data=FOLDER is missing')])
def test_what_cannot_be_audited_is_one_line(words, says, tmp_path, capsys):
    assert cli.main(['audit-labels', *words, f'out={tmp_path / "out"}']) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert len(lines) == 1 and says in lines[0]
    assert not (tmp_path / 'out' / 'places.csv').exists()


def test_nothing_to_audit():
    with pytest.raises(ConfigError, match='too few for 5 folds'):
        judge_labels([picture(*drawn(0))], SCHEME)
    with pytest.raises(ConfigError, match='no picture has labels'):
        judge_labels([], SCHEME)


def test_the_folder_of_the_data_is_no_folder_of_answers(tmp_path, capsys):
    from geoseg.world.layouts import world_data
    root = world_data('raster', size='tiny')
    assert cli.main(['audit-labels', f'data={root}', f'out={root}']) == 2
    assert 'choose another folder' in capsys.readouterr().err
    assert not (Path(root) / 'places.csv').exists()
