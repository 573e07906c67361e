"What is counted, and how runs are compared."
import numpy as np
import pytest

import geoseg
from geoseg.core.errors import ConfigError
from geoseg.evaluation.evaluate import evaluate
from geoseg.training.run import Run

pytestmark = pytest.mark.usefixtures('cache')


@pytest.fixture
def on_meshes(tiny_run):
    'A textured run on the tiny world.'
    return Run(tiny_run('nomeformer-texture'))


@pytest.fixture
def run(tiny_run):
    return geoseg.Run(tiny_run('deepglobe-trm'))


def test_a_run_evaluates_each_face_once(on_meshes, tmp_path):
    result = evaluate(on_meshes.folder, out=tmp_path)
    kept = sum(m.meta['counts']['kept'] for m in result.data.prepared['test'])
    assert result.confusion.sum() == kept
    assert np.isfinite(result.loss) and len(result.blocks()) == len(result.names)


def test_evaluation_counts_every_patch(run, tmp_path):
    result = geoseg.evaluate(run.folder, split='val', out=tmp_path)
    assert result.scores['mIoU'] == run.metrics['mIoU/val'].max()
    assert 2 <= result.scores['Steps'] <= 6
    labelled = run.data().class_counts('val')[:, :-1].sum()
    dropped = run.data().images()['split'].eq('val').sum() * 16 - len(result.names)
    assert result.confusion.sum() <= labelled <= result.confusion.sum() + dropped * 0.1 * 32**2


def test_runs_are_compared_on_the_same_pixels(trained, tmp_path):
    from geoseg.evaluation.evaluate import compare
    one = geoseg.evaluate(trained, out=tmp_path / 'one')
    small = geoseg.evaluate(trained, out=tmp_path / 'small', overrides={'image_size': [32, 32]})
    table = compare({'one': one, 'again': one}, block=2)
    assert table.loc['again', 'mIoU'] == pytest.approx(one.scores['mIoU'], abs=1e-6)
    with pytest.raises(ConfigError, match='small was evaluated on other pixels than one in 24 of 24 images'):
        compare({'one': one, 'small': small})
