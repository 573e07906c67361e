"The parameterised notebooks and the tutorials run from papermill, as a user runs them."
from pathlib import Path

import papermill
import pytest

from geoseg.training.run import Run
from geoseg.training.train import train

NBS = Path(__file__).parents[1] / 'nbs'
SMALL = {'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8], 'warmup_epochs': 0.5, 'num_workers': 0,
         'image_size': [64, 64], 'crop': [64, 64], 'trainer.accelerator': 'cpu'}


def run(notebook, folder, **parameters):
    'Execute a notebook in its own folder; the path of the executed copy.'
    path = NBS / notebook
    output = folder / path.name
    papermill.execute_notebook(path, output, parameters, cwd=path.parent, progress_bar=False)
    return output


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    'A run of train.ipynb on the tiny world.'
    folder = tmp_path_factory.mktemp('train')
    run('train.ipynb', folder, recipe='unet', data='world:tiny', epochs=2, seed=5, out=str(folder / 'runs'),
        overrides=SMALL, PAPERMILL_OUTPUT_PATH=str(folder / 'train.ipynb'))
    return Run(next((folder / 'runs' / 'unet').iterdir()))


def test_train_leaves_a_whole_run(trained):
    names = {str(p.relative_to(trained.folder)) for p in trained.folder.rglob('*') if p.is_file()}
    assert {'config.yaml', 'metadata.json', 'metrics.csv', 'per_class.csv', 'log.txt', 'train.ipynb',
            'checkpoints/best.ckpt', 'checkpoints/last.ckpt', 'figures/curves.png', 'figures/per_class.png',
            'figures/predictions.png'} <= names
    assert not [name for name in names if name.endswith('.tmp')]
    assert trained.metrics['epoch'].tolist() == [0, 1]


def test_train_equals_the_function_to_the_last_digit(trained, tmp_path):
    again = train('unet', 'world:tiny', epochs=2, seed=5, out=tmp_path, overrides=SMALL)
    for name in ('metrics.csv', 'per_class.csv'):
        assert (again.folder / name).read_bytes() == (trained.folder / name).read_bytes()


def test_evaluate(trained, tmp_path):
    run('evaluate.ipynb', tmp_path, checkpoint=str(trained.folder), split='val', block=2,
        against=[str(trained.last)])
    tables = {p.name for p in (trained.folder / 'evaluation' / 'val').iterdir()}
    assert {'metrics.csv', 'per_class.csv', 'per_image.csv', 'confusion.csv', 'intervals.csv', 'worst.png',
            'class_intervals.csv', 'compared.csv'} <= tables


def test_predict(trained, tmp_path):
    pictures = len(trained.data().datasets['test'])
    run('predict.ipynb', tmp_path, checkpoint=str(trained.folder), out=str(tmp_path / 'masks'))
    assert len(list((tmp_path / 'masks').rglob('*.png'))) == pictures
    run('predict.ipynb', tmp_path, checkpoint=str(trained.folder), out=str(tmp_path / 'more'), window=32,
        tta=['horizontal'], postprocess={'open': 3}, write=['overlay', 'probabilities'])
    assert len(list((tmp_path / 'more/overlay').rglob('*.png'))) == pictures
    assert len(list((tmp_path / 'more/probabilities').rglob('*.npz'))) == pictures


@pytest.mark.parametrize('notebook', ['train.ipynb', 'evaluate.ipynb', 'predict.ipynb', 'localize.ipynb'])
def test_an_unknown_parameter_stops_before_any_work(tmp_path, notebook):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'epoch"):
        run(notebook, tmp_path, epochz=3, out=str(tmp_path / 'runs'))
    assert not (tmp_path / 'runs').exists()


LONG = sorted(str(p.relative_to(NBS)) for p in (*NBS.glob('tutorials/*.ipynb'), *NBS.glob('benchmarks.ipynb')))


@pytest.mark.parametrize('notebook', LONG)
def test_long_notebooks_run_quickly(tmp_path, notebook):
    run(notebook, tmp_path, quick=True)
