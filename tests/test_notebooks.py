"The parameterised notebooks and the tutorials run from papermill, as a user runs them."
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import stored
import tiny
from warm import NBS, execute

import geoseg
from geoseg.evaluation.calibration import calibrate
from geoseg.inference.rasters.changes import changes
from geoseg.training.run import Run
from geoseg.world.layouts import world_data


@pytest.fixture(scope='session')
def made(once):
    'The tiny run as train.ipynb makes it, in a kernel as a user starts it. Not to be written into.'
    def make(folder):
        given = tiny.settings('unet', draw_every_n_epochs=10)
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


def test_train_shows_what_changed_beside_copies(tmp_path):
    given = tiny.settings('unet', **{'trainer.limit_train_batches': 1, 'chip': 64})
    separate = {name: given.pop(name) for name in ('epochs', 'batch_size', 'lr', 'seed')}
    given.pop('image_size', None)
    notebook = execute('train.ipynb', tmp_path, recipe='unet', data=str(world_data('raster', size='tiny')),
                       out=str(tmp_path / 'runs'), overrides=given, **separate | {'epochs': 1})
    assert [path.name for path in (tmp_path / 'runs').rglob('changed_*')] == ['changed_20210902.png']
    [table] = [str(cell.outputs) for cell in notebook.cells if 'maps_beside_copies(predictor' in cell.source]
    assert all(words in table for words in ('the network', 'copy of 2020', 'majority of the earlier maps'))


def test_papermill_as_it_is_typed(tmp_path):
    'Without an output path, its output a pipe; data and runs in folders whose names are numbers.'
    tiny_settings = tiny.settings('unet', **{'trainer.limit_train_batches': 1})
    for name in ('epochs', 'seed'):
        tiny_settings.pop(name)
    shutil.copytree(geoseg.world_data('folders', size='tiny'), tmp_path / '2020')
    (tmp_path / 'more.yaml').write_text(json.dumps({'overrides': tiny_settings}))
    typed = 'papermill train.ipynb -p epochs 1 -p recipe unet -p data 2020 -p out 7 -k warm --inject-output-path'
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])  # as in an activated environment
    done = subprocess.run([*typed.split(), '--cwd', str(tmp_path), '-f', str(tmp_path / 'more.yaml')], cwd=NBS,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | {'PATH': path})
    assert done.returncode == 0, done.stderr[-2000:]
    executed, [folder] = json.loads(done.stdout), (tmp_path / '7/unet').iterdir()
    assert executed['cells'][-1]['outputs'][0]['text'] == [f'7/unet/{folder.name}\n']
    assert len(Run(folder).metrics) == 1 and Run(folder).config['data']['init_args']['root'] == '2020'
    assert not (folder / 'train.ipynb').exists() and not (NBS / '-').exists()  # nothing to copy


def test_evaluate(own_run, tmp_path):
    run = Run(own_run('unet'))
    execute('evaluate.ipynb', tmp_path, checkpoint=str(run.folder), split='val', block=2, against=[str(run.last)])
    tables = {p.name for p in (run.folder / 'evaluation' / 'val').iterdir()}
    assert {'metrics.csv', 'per_class.csv', 'per_image.csv', 'confusion.csv', 'intervals.csv', 'worst.png',
            'class_intervals.csv', 'compared.csv'} <= tables


def test_one_sample_has_scores_without_intervals(trained, tmp_path):
    data = Path(shutil.copytree(world_data('folders', size='tiny'), tmp_path / 'data'))
    for kind in ('images', 'masks'):
        for path in sorted((data / kind / 'test').iterdir())[1:]:
            path.unlink()
    notebook = execute('evaluate.ipynb', tmp_path, checkpoint=str(trained), data=str(data), out=str(tmp_path / 'out'),
                       against=[str(trained)])
    assert 'no intervals: 1 sample' in str(notebook)
    scores = pd.read_csv(tmp_path / 'out/intervals.csv')
    assert scores['score'].notna().any() and scores[['low', 'high']].isna().all(axis=None)
    assert (tmp_path / 'out/per_class.png').is_file()
    assert pd.read_csv(tmp_path / 'out/compared.csv')['mIoU'].nunique() == 1


def test_predict(trained, tmp_path):
    pictures = len(Run(trained).data().datasets['test'])
    execute('predict.ipynb', tmp_path, checkpoint=str(trained), out=str(tmp_path / 'masks'))
    assert len(list((tmp_path / 'masks').rglob('*.png'))) == pictures
    execute('predict.ipynb', tmp_path, checkpoint=str(trained), out=str(tmp_path / 'more'), window=32,
            tta=['horizontal'], postprocess={'open': 3}, write=['overlay', 'probabilities'])
    assert len(list((tmp_path / 'more/overlay').rglob('*.png'))) == pictures
    assert len(list((tmp_path / 'more/probabilities').rglob('*.npz'))) == pictures


@pytest.mark.parametrize('notebook', ['train.ipynb', 'evaluate.ipynb', 'predict.ipynb', 'changes.ipynb',
                                      'localize.ipynb'])
def test_an_unknown_parameter_stops_before_any_work(tmp_path, notebook):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'epoch"):
        execute(notebook, tmp_path, epochz=3, out=str(tmp_path / 'runs'))
    assert not (tmp_path / 'runs').exists()


@pytest.fixture(scope='session')
def stored_run(once):
    "A folder with the tiny run that the stored notebooks show, as seen from nbs/, and the executed train.ipynb in it."
    def make(folder):
        execute('train.ipynb', folder, **stored.parameters('train.ipynb', os.path.relpath(folder, NBS)))

    return once('stored', make)


@pytest.mark.long
@pytest.mark.parametrize('notebook', stored.GIVEN)
def test_stored_words_are_those_of_a_tiny_run(stored_run, notebook, tmp_path, monkeypatch):
    warm_kernel = next(Path(path, 'kernels/warm') for path in os.environ['JUPYTER_PATH'].split(os.pathsep)
                       if Path(path, 'kernels/warm').is_dir())
    shutil.copytree(warm_kernel, tmp_path / 'jupyter/kernels/python3')  # of the runs of a sweep
    monkeypatch.setenv('JUPYTER_PATH', os.pathsep.join([str(tmp_path / 'jupyter'), os.environ['JUPYTER_PATH']]))
    if notebook == 'train.ipynb':
        executed = nbformat.read(stored_run / notebook, as_version=4)
    else:
        executed = execute(notebook, tmp_path, **stored.parameters(notebook, os.path.relpath(stored_run, NBS)))
    complaints = stored.stale(notebook, executed)
    assert not complaints, '\n'.join([f'python tests/stored.py {notebook}', *complaints])
    cells = stored.code_cells(executed)
    next(cell for cell in cells if stored.words(cell.outputs)).outputs = []
    assert stored.stale(notebook, executed)  # what is missing is noticed


LONG = sorted(str(p.relative_to(NBS)) for p in (*NBS.glob('tutorials/*.ipynb'), *NBS.glob('benchmarks.ipynb')))


@pytest.mark.long
@pytest.mark.parametrize('notebook', LONG)
def test_long_notebooks_run_quickly(tmp_path, notebook):
    untagged = [cell.source for cell in nbformat.read(NBS / notebook, as_version=4).cells
                if cell.source.startswith('quick = ') and 'parameters' not in cell.metadata.get('tags', [])]
    assert not untagged  # its own value would replace the given one
    execute(notebook, tmp_path, quick=True)


@pytest.fixture
def on_meshes(tiny_run):
    'A textured run on the tiny world.'
    return Run(tiny_run('nomeformer-texture'))


@pytest.mark.parametrize(('notebook', 'parameters'), [
    ('train.ipynb', {'recipe': 'nomeformer', 'data': 'world:tiny', 'epochs': 1}), ('evaluate.ipynb', {}),
    ('predict.ipynb', {})])
def test_notebooks_take_meshes(on_meshes, tmp_path, notebook, parameters):
    if notebook == 'train.ipynb':
        parameters = parameters | {'overrides': tiny.settings('nomeformer', epochs=None)}
    else:
        parameters = {'checkpoint': str(on_meshes.folder)}
    execute(notebook, tmp_path, out=str(tmp_path / 'out'), **parameters)
    figures = {'train.ipynb': 'predictions.png', 'evaluate.ipynb': 'worst.png', 'predict.ipynb': '*.ply'}
    assert list((tmp_path / 'out').rglob(figures[notebook]))


@pytest.mark.parametrize(('notebook', 'function'), [('predict.ipynb', geoseg.predict), ('changes.ipynb', changes)])
def test_notebook_and_function_have_the_same_parameters(notebook, function):
    cells = json.loads((NBS / notebook).read_text())['cells']
    [source] = [''.join(c['source']) for c in cells if 'parameters' in c['metadata'].get('tags', [])]
    given = {}
    exec(source, given)  # our own notebook
    given.pop('__builtins__')
    theirs = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    assert set(given) == set(theirs)
    assert all(bool(given[name]) == bool(theirs[name]) for name in given if name != 'checkpoint')


def test_notebooks_show_rasters_and_calibration(own_run, scene, tmp_path):
    trained = own_run('unet')
    calibrated = calibrate(trained)
    assert geoseg.Run(trained).predictor().temperature == calibrated.temperature != 1
    for name, parameters in {'predict': {'data': str(scene), 'out': str(tmp_path / 'maps'), 'window': 128},
                             'evaluate': {'out': str(tmp_path / 'scores')}}.items():
        execute(f'{name}.ipynb', tmp_path, checkpoint=str(trained), **parameters)
    assert (tmp_path / 'maps/scene_classes.tif').is_file() and (tmp_path / 'scores/reliability.png').is_file()
