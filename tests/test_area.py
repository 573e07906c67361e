"No verb forgets `area`: one that lies elsewhere is refused by each verb that reads rasters, in words that name it."
import pytest
import tiny
from test_table import VERBS, command

from geoseg import cli

ELSEWHERE = 'area=[3, 4, 5, 6, "EPSG:4326"]'  # far from the world
WITHOUT = {  # verb -> why it reads no raster
    'localize': 'photos are placed; the gallery was limited when it was made',
    'halt-cal': 'a network with classes alone does not halt',
    'efficiency': 'times inputs of its own',
    'serve': 'answers what is sent',
}


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "What the verbs are told, on rasters."
    from geoseg.world.layouts import world_data
    root, out = world_data('raster', size='tiny'), tmp_path_factory.mktemp('area')
    settings = tiny.settings('unet', epochs=1) | {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1}
    run = tiny.train('unet', out / 'runs', data=str(root), epochs=1, **{'trainer.limit_train_batches': 1})
    return {'settings': settings, 'run': run.folder, 'out': out / 'out', 'photos': out, 'tiles': out, 'root': root,
            'map': next(root.glob('*_image.tif')), 'new': root / '20220712_image.tif'}


@pytest.mark.parametrize('verb', [verb for verb in VERBS if verb not in WITHOUT])
def test_an_area_elsewhere_is_refused(verb, given, capsys):
    words = [word for word in command(verb, 'unet', given) if word != f'data={tiny.DATA}' and (
        verb != 'init' or not word.startswith('data='))]
    words += [f'data={given["root"]}'] * (not any(word.startswith('data=') for word in words))
    status, said = cli.main([*words, ELSEWHERE]), capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith(f'geoseg {verb}: ')]
    assert status == 2 and len(lines) == 1, said.err
    assert 'touches none of' in lines[0], lines[0]
