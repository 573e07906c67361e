"What geoseg guesses of a folder is a configuration that fit takes as it is, and a table that inspect reads."
import re
import struct

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import tiny
import yaml
from a_raster import write
from PIL import Image

from geoseg import cli
from geoseg.core.errors import ConfigError
from geoseg.core.listing import collect_notes
from geoseg.data.labels import LabelScheme
from geoseg.data.rasters.labels import LabelSettings, open_labels
from geoseg.evaluation.beginning import attribute_table, guess_classes, init, table
from geoseg.world.layouts import world_data

RNG = np.random.default_rng(0)
RAT = ('<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable><FieldDefn index="0"><Name>Value</Name>'
       '</FieldDefn><FieldDefn index="1"><Name>Count</Name></FieldDefn><FieldDefn index="2"><Name>Class_Name</Name>'
       '</FieldDefn><Row index="0"><F>3</F><F>9</F><F>water</F></Row><Row index="1"><F>7</F><F>9</F><F>land</F></Row>'
       '</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>')


@pytest.fixture
def scene(tmp_path):
    "One raster of four bands of 16 bits, and its mask with an attribute table; no class list."
    where = np.indices((160, 200)).sum(0) % 60 > 30
    write(tmp_path / 'data' / '2020_image.tif', (RNG.integers(0, 900, (4, 160, 200)) + 3000 * where).astype(np.uint16))
    write(tmp_path / 'data' / '2020_mask.tif', np.where(where, 7, 3).astype(np.uint8))
    (tmp_path / 'data' / '2020_mask.tif.aux.xml').write_text(RAT)
    return tmp_path / 'data'


def test_fit_takes_what_init_writes(scene, tmp_path, capsys):
    "Names of the attribute table, a range for the numbers, blocks for a single date; nothing else is needed."
    assert attribute_table(scene / '2020_mask.tif') == {3: 'water', 7: 'land'}
    assert cli.main(['init', f'data={scene}', f'out={tmp_path / "config.yaml"}']) == 0
    said = capsys.readouterr().out
    assert 'classes: water, land, guessed' in said and '1 labelled dates are too few' in said and 'split: train' in said
    text = (tmp_path / 'config.yaml').read_text()
    config = yaml.safe_load(text)
    arguments = config['data']['init_args']
    assert len(arguments['value_range']) == 4 and arguments['split'] == 'block' and '    # ' in text
    assert LabelScheme.load(tmp_path / 'config_classes.csv').ids == {3: 0, 7: 1, 255: 255}
    words = tiny.words({key: value for key, value in tiny.settings('unet', epochs=1).items()
                        if key not in ('image_size', 'crop')} | {'trainer.limit_train_batches': 1})
    words = [word for word in words if not word.startswith('save_top_k')]
    assert cli.main(['fit', '--config', str(tmp_path / 'config.yaml'), *words, f'out={tmp_path / "runs"}']) == 0
    assert len([*(tmp_path / 'runs').rglob('best.ckpt')]) == 1


def write_dbf(path, columns, rows):
    "A dBASE III table of text and numbers, as GIS programs write attribute tables: (name, kind, width) a column."
    head = struct.pack('<BBBBIHH20x', 3, 24, 1, 1, len(rows), 33 + 32 * len(columns), 1 + sum(c[2] for c in columns))
    fields = b''.join(struct.pack('<11sc4xBB14x', name.encode(), kind.encode(), width, 0)
                      for name, kind, width in columns)
    body = b''.join(b' ' + b''.join(str(cell).encode().rjust(width) if kind == 'N' else str(cell).encode().ljust(width)
                                    for cell, (_, kind, width) in zip(row, columns, strict=True)) for row in rows)
    path.write_bytes(head + fields + b'\r' + body + b'\x1a')


def test_an_attribute_table_of_esri_names_the_classes(scene):
    (scene / '2020_mask.tif.aux.xml').unlink()
    write_dbf(scene / '2020_mask.tif.vat.dbf', [('Value', 'N', 9), ('Count', 'N', 9), ('Class_Name', 'C', 20)],
              [(3, 100, 'open water'), (7, 200, 'dry land')])
    assert attribute_table(scene / '2020_mask.tif') == {3: 'open water', 7: 'dry land'}
    assert guess_classes(scene).names == ['open water', 'dry land']


def test_the_column_of_a_vector_file_names_the_classes(scene, tmp_path):
    (scene / '2020_mask.tif').unlink(), (scene / '2020_mask.tif.aux.xml').unlink()
    with rasterio.open(scene / '2020_image.tif') as file:
        west, south, east, north = file.bounds
        crs = file.crs
    middle = (west + east) / 2
    parts = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    gpd.GeoDataFrame({'cover': ['marsh', 'heath']}, geometry=parts, crs=crs).to_file(tmp_path / 'cover.gpkg')
    given = {'label_file': str(tmp_path / 'cover.gpkg'), 'label_field': 'cover'}
    _, said = init(str(scene), str(tmp_path / 'config.yaml'), **given)
    assert any('classes: heath, marsh' in line for line in said)
    arguments = yaml.safe_load((tmp_path / 'config.yaml').read_text())['data']['init_args']
    assert arguments['label_field'] == 'cover' and arguments['label_file'].endswith('cover.gpkg')
    assert LabelScheme.load(tmp_path / 'config_classes.csv').names == ['heath', 'marsh']


def test_colors_of_palettes_are_kept(tmp_path):
    for n in range(4):
        (tmp_path / 'images').mkdir(exist_ok=True), (tmp_path / 'masks').mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(tmp_path / 'images' / f'{n}.png')
        mask = Image.fromarray(RNG.integers(1, 4, (32, 32)).astype(np.uint8), 'P')
        mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
        mask.save(tmp_path / 'masks' / f'{n}.png')
    scheme = guess_classes(tmp_path)
    assert scheme.names == ['class 1', 'class 2', 'class 3'] and scheme.ids == {1: 0, 2: 1, 3: 2, 255: 255}
    assert scheme.colors.tolist() == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]


@pytest.mark.parametrize('layout', ['folders', 'geotagged', 'raster'])
def test_a_table_of_a_layout_reads_the_same_images(layout, tmp_path, capsys):
    root = world_data(layout, size='tiny')
    rows, said = table(root, tmp_path / 'table.csv')
    assert set(rows) >= {'image', 'label'} and rows['label'].notna().all() and 'as its layout tells' in said[0]
    words = [f'data={tmp_path / "table.csv"}', 'allow_outside=true', f'labels={root / "category.csv"}']
    words = [word for word in words if layout != 'folders' or (root / 'category.csv').is_file() or 'labels' not in word]
    assert cli.main(['inspect', *words, *([f'labels={root / "classes.txt"}'] if len(words) == 2 else [])]) == 0
    out = capsys.readouterr().out
    assert f'next: geoseg fit --recipe unet data={tmp_path / "table.csv"} allow_outside=' in out


def test_a_table_of_names_without_a_scheme(tmp_path):
    "Masks are told by their values or names, and go to the image with the same numbers."
    for n, name in enumerate(('north', 'east', 'west')):
        write(tmp_path / 'data' / f'{name} {n}.tif', RNG.integers(0, 255, (3, 40, 40)).astype(np.uint8))
        write(tmp_path / 'data' / 'drawn' / f'{n}_by_me.tif', RNG.integers(0, 2, (40, 40)).astype(np.uint8))
    rows, said = table(tmp_path / 'data', tmp_path / 'data' / 'table.csv')
    found = dict(zip(rows['image'], rows['label'], strict=True))
    assert found == {f'{name} {n}.tif': f'drawn/{n}_by_me.tif' for n, name in enumerate(('north', 'east', 'west'))}
    assert 'by their names and values' in said[0]
    assert pd.read_csv(tmp_path / 'data' / 'table.csv').columns.tolist() == ['image', 'label']


def test_what_init_cannot_do_is_one_line(scene, tmp_path, capsys):
    for words, message in ((['data=nowhere'], 'no such file or folder'), ([], 'data=FOLDER is missing'),
                           ([f'data={scene}', 'out=x.txt'], 'expected a name that ends in .yaml'),
                           ([f'data={scene}', 'patch=9', f'out={tmp_path}/c.yaml'], "unknown setting 'patch'")):
        assert cli.main(['init', *words]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg init')]
        assert message in line
    with pytest.raises(FileNotFoundError):
        init(tmp_path / 'none', tmp_path / 'c.yaml')


def columns(scene, path, **values):
    'A vector file of strips of the scene, with columns.'
    with rasterio.open(scene / '2020_image.tif') as file:
        west, south, east, north = file.bounds
        crs = file.crs
    count = len(next(iter(values.values())))
    edges = np.linspace(west, east, count + 1)
    parts = [shapely.box(a, south, b, north) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    gpd.GeoDataFrame(values, geometry=parts, crs=crs).to_file(path)


@pytest.mark.parametrize(('column', 'refused', 'says'), [
    ('height', True, r'height holds 40 numbers with fractions \(first: 0\.5\), which are measures, not classes; '
                     r'label_field may be another column \(owner, cover, years\), or give the list of classes'),
    ('owner', False, r'owner has 40 values in 40 features, and each becomes a class \(o0, o1, o10, …\); if these are '
                     r'no classes, label_field may be another column'),
    ('years', False, ''), ('cover', False, '')])
def test_a_column_that_is_hardly_one_of_classes_is_said(column, refused, says, scene, tmp_path):
    'Measures are refused, names that hardly repeat are noted, classes and whole numbers (as floats, too) are taken.'
    columns(scene, tmp_path / 'cover.gpkg', height=np.arange(40) + 0.5, owner=[f'o{i}' for i in range(40)],
            cover=['marsh', 'heath'] * 20, years=np.arange(40) % 2 + 3.)
    given = {'label_file': str(tmp_path / 'cover.gpkg'), 'label_field': column}
    if refused:
        with pytest.raises(ConfigError, match=says):
            init(str(scene), str(tmp_path / 'config.yaml'), **given)
        assert not (tmp_path / 'config.yaml').exists()
        return
    (scene / '2020_mask.tif').unlink()
    _, said = init(str(scene), str(tmp_path / 'config.yaml'), **given)
    notes = [line for line in said if 'each becomes a class' in line]
    assert bool(notes) == bool(says) and all(re.search(says, line) for line in notes)


def test_a_column_of_ever_more_values_is_said_once_there_are_many(scene, tmp_path):
    'Few values that repeat are classes, however many features there are; more than 254 are refused.'
    for count, features, noted in ((12, 60, False), (33, 99, True), (9, 16, True), (8, 8, False)):
        kinds = [f'k{i % count}' for i in range(features)]
        columns(scene, tmp_path / f'{count}.gpkg', kind=kinds, other=range(features))
        with collect_notes() as notes:
            scheme = open_labels(tmp_path / f'{count}.gpkg', LabelSettings('kind')).classes()
        assert scheme.num_classes == count and any('each becomes a class' in note for note in notes) == noted
    columns(scene, tmp_path / 'many.gpkg', kind=[f'k{i}' for i in range(300)], other=range(300))
    with pytest.raises(ConfigError, match=r'kind has 300 values, expected at most 254 classes; .*column \(other\)'):
        open_labels(tmp_path / 'many.gpkg', LabelSettings('kind')).classes()


def test_what_is_missing_is_said_with_the_next_step(scene, tmp_path, capsys):
    'The command of each message is one that works.'
    assert cli.main(['inspect', f'data={scene}']) == 2
    said = capsys.readouterr().err
    command = re.search(r'(geoseg init \S+) writes it', said)[1].split()[1:]
    assert cli.main([*command, f'out={tmp_path}/c.yaml']) == 0 and (tmp_path / 'c_classes.csv').is_file()
    capsys.readouterr()
    photos = tmp_path / 'photos'
    photos.mkdir()
    for i in range(3):
        Image.fromarray(RNG.integers(0, 256, (24, 32, 3), np.uint8)).save(photos / f'{i}.jpg')
    for verb in ('init', 'inspect'):
        assert cli.main([verb, f'data={photos}']) == 2
        said = capsys.readouterr().err
        steps = 'draw masks of a few', f'geoseg localize photos={photos}', 'geoseg predict'
        order = [said.index(words) for words in steps]
        assert order == sorted(order)
    for file in [*scene.glob('*mask*')]:
        file.unlink()
    assert cli.main(['init', f'data={scene}', f'out={tmp_path}/bare.yaml']) == 2
    said = capsys.readouterr().err
    assert 'geoseg.explore(' in said and "labels='drawn.gpkg'" in said
    line = re.search(r"printf '(.*?)' > (\S+);", said)
    (scene / 'classes.txt').write_text(line[1].replace('\\n', '\n'))
    assert line[2] == str(scene / 'classes.txt') and LabelScheme.load(scene).names == ['background', 'water']


def test_workers_find_the_masks_that_one_process_finds(tmp_path, capsys):
    from distributed import LocalCluster
    for i in range(7):
        noise, few = RNG.integers(0, 256, (40, 50, 3)), np.kron(RNG.integers(0, 3, (4, 5)), np.ones((10, 10)))
        (tmp_path / 'data' / 'a').mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / 'data' / f'scan{i}.png')
        Image.fromarray(few.astype(np.uint8)).save(tmp_path / 'data' / 'a' / f'scan{i}_truth.png' if i % 2 else
                                                   tmp_path / 'data' / 'a' / f'scan{i}_b.png')
    words = ['table', f'data={tmp_path / "data"}']
    assert cli.main([*words, f'out={tmp_path / "one.csv"}']) == 0
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        assert cli.main([*words, f'out={tmp_path / "two.csv"}', f'address={cluster.scheduler_address}']) == 0
    assert 'by their names and values' in capsys.readouterr().out
    assert (tmp_path / 'one.csv').read_bytes() == (tmp_path / 'two.csv').read_bytes()
    rows = pd.read_csv(tmp_path / 'one.csv')
    assert len(rows) == 7 and rows['label'].str.contains('truth|_b').all()
    assert cli.main([*words, f'out={tmp_path / "no.csv"}', 'workers=0']) == 2
    assert 'workers is 0' in capsys.readouterr().err and not (tmp_path / 'no.csv').exists()
