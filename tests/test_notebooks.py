"The parameterised notebooks and the tutorials run from papermill, as a user runs them."
import papermill
import pytest
import tiny
from warm import NBS, execute

from geoseg.training.runs import Run


@pytest.fixture(scope='session')
def made(once):
    'The tiny run as train.ipynb makes it, in a kernel as a user starts it. Not to be written into.'
    def make(folder):
        given = tiny.settings('unet')
        separate = {name: given.pop(name) for name in ('epochs', 'batch_size', 'lr', 'seed')}
        execute('train.ipynb', folder, 'python3', recipe='unet', data=tiny.DATA, out=str(folder / 'runs'),
                overrides=given, PAPERMILL_OUTPUT_PATH=str(folder / 'train.ipynb'), **separate)

    return Run(next((once('train', make) / 'runs' / 'unet').iterdir()))


def test_train_leaves_a_whole_run(made):
    names = {str(p.relative_to(made.folder)) for p in made.folder.rglob('*') if p.is_file()}
    assert {'config.yaml', 'metadata.json', 'metrics.csv', 'per_class.csv', 'log.txt', 'train.ipynb',
            'checkpoints/best.ckpt', 'checkpoints/last.ckpt', 'figures/curves.png', 'figures/per_class.png',
            'figures/predictions.png'} <= names
    assert not [name for name in names if name.endswith('.tmp')]
    assert made.metrics['epoch'].tolist() == [0, 1]


def test_train_equals_the_function_to_the_last_digit(made, trained):
    for name in ('metrics.csv', 'per_class.csv'):
        assert (trained / name).read_bytes() == (made.folder / name).read_bytes()


def test_evaluate(own_run, tmp_path):
    run = Run(own_run('unet'))
    execute('evaluate.ipynb', tmp_path, checkpoint=str(run.folder), split='val', block=2, against=[str(run.last)])
    tables = {p.name for p in (run.folder / 'evaluation' / 'val').iterdir()}
    assert {'metrics.csv', 'per_class.csv', 'per_image.csv', 'confusion.csv', 'intervals.csv', 'worst.png',
            'class_intervals.csv', 'compared.csv'} <= tables


def test_predict(trained, tmp_path):
    pictures = len(Run(trained).data().datasets['test'])
    execute('predict.ipynb', tmp_path, checkpoint=str(trained), out=str(tmp_path / 'masks'))
    assert len(list((tmp_path / 'masks').rglob('*.png'))) == pictures
    execute('predict.ipynb', tmp_path, checkpoint=str(trained), out=str(tmp_path / 'more'), window=32,
            tta=['horizontal'], postprocess={'open': 3}, write=['overlay', 'probabilities'])
    assert len(list((tmp_path / 'more/overlay').rglob('*.png'))) == pictures
    assert len(list((tmp_path / 'more/probabilities').rglob('*.npz'))) == pictures


@pytest.mark.parametrize('notebook', ['train.ipynb', 'evaluate.ipynb', 'predict.ipynb', 'localize.ipynb'])
def test_an_unknown_parameter_stops_before_any_work(tmp_path, notebook):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'epoch"):
        execute(notebook, tmp_path, epochz=3, out=str(tmp_path / 'runs'))
    assert not (tmp_path / 'runs').exists()


LONG = sorted(str(p.relative_to(NBS)) for p in (*NBS.glob('tutorials/*.ipynb'), *NBS.glob('benchmarks.ipynb')))


@pytest.mark.long
@pytest.mark.parametrize('notebook', LONG)
def test_long_notebooks_run_quickly(tmp_path, notebook):
    execute(notebook, tmp_path, quick=True)
