"""The notebooks that take parameters, on tiny runs: `python tests/stored.py [NAME ...]` stores what they show.

Each is executed in nbs/ with the parameters below; the stored notebook keeps the sources and parameters of a reader.
tests/test_notebooks.py executes them once more and compares the words, without paths, times and numbers.
"""
import base64
import io
import shutil
import sys

import nbformat
import tiny
from run_notebook import words
from warm import NBS

RUNS = '../runs/stored'  # as seen from nbs/
TINY = tiny.settings('geosegformer', epochs=None, seed=None, batch_size=None, draw_every_n_epochs=None)
GIVEN = {
    'train.ipynb': {'recipe': 'geosegformer', 'data': 'world:tiny', 'epochs': 4, 'batch_size': 4, 'seed': 3,
                    'overrides': TINY},
    'evaluate.ipynb': {'block': 2},
    'predict.ipynb': {},
    'localize.ipynb': {},
    'sweep.ipynb': {},
}


def parameters(
    notebook: str,
    runs: str,  # folder of what it writes, as seen from nbs/
) -> dict:
    "What a notebook is given; evaluate.ipynb and predict.ipynb take the run of train.ipynb."
    given, name = GIVEN[notebook], notebook.removesuffix('.ipynb')
    if notebook in ('train.ipynb', 'sweep.ipynb'):
        return given | {'out': f'{runs}/{name}'}
    if notebook == 'localize.ipynb':
        from geoseg.inference.places.map_gallery import gallery
        from geoseg.world.layouts import world_data
        gallery(data=world_data('raster', size='tiny') / '20210902_image.tif', out=NBS / runs / 'gallery')
        photos = world_data('gta', size='tiny') / 'drone' / 'images'
        return given | {'photos': str(photos), 'gallery': f'{runs}/gallery', 'out': f'{runs}/places'}
    run, = (NBS / runs / 'train' / 'geosegformer').iterdir()
    return given | {'checkpoint': f'{runs}/train/geosegformer/{run.name}', 'out': f'{runs}/{name}'}


def code_cells(notebook) -> list:
    "The code cells, without the one that papermill puts in."
    return [cell for cell in notebook.cells
            if cell.cell_type == 'code' and 'injected-parameters' not in cell.metadata.get('tags', [])]


def lasting(outputs) -> list:
    "What of a cell's outputs is kept: no messages of libraries, no pages, which are as large as all the rest."
    return [output for output in outputs if output.get('name') != 'stderr'
            and '<iframe' not in output.get('data', {}).get('text/html', '')]


def small(picture: str) -> str:
    "A PNG in base64, with 256 colours if that makes it smaller."
    from PIL import Image
    whole, file = Image.open(io.BytesIO(base64.b64decode(picture))).convert('RGB'), io.BytesIO()
    whole.quantize(256, dither=Image.Dither.NONE).save(file, 'PNG', optimize=True)
    return min(base64.b64encode(file.getvalue()).decode(), picture, key=len)


def store(notebook: str):
    "Execute a notebook as a user does, and keep what it shows."
    import papermill
    executed = papermill.execute_notebook(NBS / notebook, NBS / RUNS / notebook, parameters(notebook, RUNS), cwd=NBS)
    kept = nbformat.read(NBS / notebook, as_version=4)
    for old, new in zip(code_cells(kept), code_cells(executed), strict=True):
        old.outputs = lasting(new.outputs)
        for output in old.outputs:
            if 'image/png' in output.get('data', {}):
                output.data['image/png'] = small(output.data['image/png'])
            if output.output_type == 'execute_result':
                output.execution_count = None
    nbformat.write(kept, NBS / notebook)


def stale(notebook: str, executed) -> list[str]:
    "The cells whose words are not those that are stored."
    stored = nbformat.read(NBS / notebook, as_version=4)
    both = [(old.id, words(old.outputs), words(lasting(new.outputs)))
            for old, new in zip(code_cells(stored), code_cells(executed), strict=True)]
    return [f'{notebook}, cell {cell}: stored {old!r}, now {new!r}' for cell, old, new in both if old != new]


if __name__ == '__main__':
    names = sys.argv[1:] or list(GIVEN)
    if 'train.ipynb' in names:
        shutil.rmtree(NBS / RUNS, ignore_errors=True)
    (NBS / RUNS).mkdir(parents=True, exist_ok=True)
    for name in names:
        store(name)
