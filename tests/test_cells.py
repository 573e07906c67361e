"Cells hold one idea: none is over 60 lines, but those that are left here, a list that only shrinks."
import json
from pathlib import Path

import pytest

NBS, MOST = Path(__file__).parent.parent / 'nbs', 60
LEFT = {  # notebook: how many of its cells are over 60 lines. Lower a number as soon as it can be; raise none
    'benchmarks.ipynb': 8, 'core/locks.ipynb': 1, 'core/plugins.ipynb': 1, 'core/remote.ipynb': 2,
    'core/signals.ipynb': 1, 'data/alignment.ipynb': 1, 'data/augment.ipynb': 2, 'data/labels.ipynb': 2,
    'data/loading.ipynb': 3, 'data/meshes/clusters.ipynb': 2, 'data/pairs/crossview.ipynb': 2,
    'data/pairs/pairs.ipynb': 1, 'data/pictures/annotated.ipynb': 1, 'data/pictures/annotations.ipynb': 3,
    'data/pictures/images.ipynb': 4, 'data/pictures/patches.ipynb': 2, 'data/rasters/chips.ipynb': 2,
    'data/rasters/limits.ipynb': 1, 'data/rasters/reader.ipynb': 2, 'data/rasters/stac.ipynb': 1,
    'data/rasters/vectors.ipynb': 1, 'data/tables.ipynb': 1, 'evaluation/archive.ipynb': 1,
    'evaluation/calibration.ipynb': 1, 'evaluation/elsewhere.ipynb': 1, 'evaluation/evaluate.ipynb': 2,
    'evaluation/export.ipynb': 1, 'evaluation/kinds.ipynb': 1, 'evaluation/label_audit.ipynb': 1,
    'evaluation/published_rows.ipynb': 1, 'evaluation/statistics.ipynb': 1, 'geo/memory.ipynb': 1,
    'inference/answer.ipynb': 2, 'inference/pictures.ipynb': 1, 'inference/places/gallery.ipynb': 1,
    'inference/places/localize.ipynb': 1, 'inference/places/localizer.ipynb': 1,
    'inference/places/map_gallery.ipynb': 2, 'inference/places/mosaic.ipynb': 1,
    'inference/places/place_files.ipynb': 1, 'inference/postprocess.ipynb': 1, 'inference/qgis.ipynb': 1,
    'inference/rasters/changes.ipynb': 3, 'inference/rasters/compare.ipynb': 1, 'inference/rasters/outdated.ipynb': 1,
    'inference/rasters/rasters.ipynb': 1, 'inference/serve.ipynb': 1, 'lab/explore.ipynb': 2, 'lab/labels.ipynb': 1,
    'lab/views.ipynb': 1, 'lab/whole.ipynb': 1, 'models/crossview.ipynb': 1, 'models/encoders.ipynb': 1,
    'models/geosegformer.ipynb': 1, 'models/mask2former.ipynb': 1, 'models/nomeformer.ipynb': 1,
    'models/outdated.ipynb': 1, 'models/predictor.ipynb': 1, 'models/refiner.ipynb': 1, 'models/wrapped.ipynb': 1,
    'tasks/base.ipynb': 1, 'tasks/localization.ipynb': 1, 'tasks/place.ipynb': 1, 'tasks/refinement.ipynb': 1,
    'tasks/segmentation.ipynb': 1, 'training/callbacks.ipynb': 1, 'training/config.ipynb': 2,
    'training/divergence.ipynb': 1, 'training/foreign.ipynb': 3, 'training/record.ipynb': 1,
    'training/resume.ipynb': 1, 'training/run.ipynb': 1, 'training/train.ipynb': 2, 'tutorials/geo_memory.ipynb': 1,
    'tutorials/localization.ipynb': 1, 'tutorials/refiner.ipynb': 1, 'visualization/meshes.ipynb': 1,
    'visualization/photo_map.ipynb': 1, 'world/layouts.ipynb': 1, 'world/meshes.ipynb': 1,
}


def long_cells(root):
    "The first line and the length of each code cell over 60 lines, by notebook."
    found = {}
    for path in sorted(root.rglob('*.ipynb')):
        for cell in json.loads(path.read_text())['cells']:
            lines = ''.join(cell['source']).splitlines()
            if cell['cell_type'] == 'code' and len(lines) > MOST:
                name = next((line for line in lines if line.startswith(('class ', 'def '))), lines[0])
                found.setdefault(path.relative_to(root).as_posix(), []).append(f'{name} ({len(lines)} lines)')
    return found


def test_no_further_cell_is_over_60_lines():
    more = [f'{page}: {len(cells)} cells over {MOST} lines, {LEFT.get(page, 0)} were left: {"; ".join(cells)}'
            for page, cells in long_cells(NBS).items() if len(cells) > LEFT.get(page, 0)]
    assert not more, '\n'.join(more)


def test_each_notebook_that_is_left_is_there():
    assert not [page for page in LEFT if not (NBS / page).is_file()]


@pytest.mark.parametrize('kind, length, counted', [('code', 61, 1), ('code', 60, 0), ('markdown', 61, 0)])
def test_a_long_cell_is_noticed(tmp_path, kind, length, counted):
    cell = {'cell_type': kind, 'source': ['def long():\n', *['    pass\n'] * (length - 1)]}
    (tmp_path / 'room').mkdir()
    (tmp_path / 'room/page.ipynb').write_text(json.dumps({'cells': [cell]}))
    expected = {'room/page.ipynb': [f'def long(): ({length} lines)']} if counted else {}
    assert long_cells(tmp_path) == expected
