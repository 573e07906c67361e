"What lies in a folder is used, or counted with its reason, by every reader; names lose their last suffix alone."
import json
import logging
import os
import re
import shutil
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from geoseg import cli
from geoseg.core.listing import AGAIN, HIDDEN, NOWHERE, OTHER, TABLES, collect_notes, list_files, match_rows, note, stem
from geoseg.core.pages import line_of
from geoseg.data.labels import LabelScheme
from geoseg.data.layouts import layout_of
from geoseg.data.loading import LAYOUTS
from geoseg.data.meshes.clusters import MeshData, meshes_in
from geoseg.data.meshes.files import read_mesh, write_obj
from geoseg.data.pictures.files import EXTENSIONS, list_images, pair_files, read_image
from geoseg.data.pictures.geotags import read_gps, read_poses
from geoseg.data.rasters.files import match_pattern
from geoseg.data.splits import read_split
from geoseg.inference.pictures import picture_files
from geoseg.inference.rasters.rasters import find_rasters
from geoseg.world.layouts import world_data

NAMES = st.text(string.ascii_letters + string.digits + '._- äß', min_size=1, max_size=8).filter(
    lambda name: name.strip('. ') and name not in TABLES)
SUFFIXES = st.sampled_from(['.png', '.PNG', '.Jpg', '.jpeg', '.JFIF', '.tif', '.TIFF', '.webp', '.gif', '.txt', ''])
PATHS = st.tuples(st.lists(st.sampled_from(['a', 'b.c', 'D', '.h']), max_size=2), NAMES, SUFFIXES)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(PATHS, min_size=1, max_size=8), links=st.lists(st.tuples(
    st.sampled_from(['', 'a', 'b.c']), st.sampled_from(['.', 'a', 'b.c', 'D', 'nowhere'])), max_size=3))
def test_nothing_in_a_folder_is_dropped_in_silence(tmp_path, files, links):
    "Each entry of a random tree is listed, or left out with a reason; only tables and side files are not counted."
    root = tmp_path / 'tree'
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folders, name, suffix in files:
        path = root.joinpath(*folders, name + suffix)
        if not path.exists() and all(not parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for number, (folder, target) in enumerate(links):
        if (root / folder).is_dir():
            (root / folder / f'link{number}').symlink_to(root / target)
    listing = list_files(root, EXTENSIONS)
    out = {name: reason for reason, names in listing.left_out.items() for name in names}
    whole = [Path(parent, name) for parent, _, names in os.walk(root) for name in names]
    for path in whole:
        key, known = path.relative_to(root).as_posix(), path.suffix.lower() in EXTENSIONS
        above = [part for part in path.relative_to(root).parts[:-1] if part.startswith('.')]
        if above:
            assert key not in listing.files
            hidden = path.relative_to(root).parts.index(above[0])
            assert out['/'.join(path.relative_to(root).parts[:hidden + 1])] == HIDDEN
        elif path.name.startswith('.'):
            assert key not in listing.files and (not known or out[key] == HIDDEN)
        elif not path.exists():
            assert out[key] == NOWHERE
        else:
            assert (key in listing.files) == known and (known or out[key] == OTHER)
    for parent, folders, _ in os.walk(root):  # a folder behind a link is read once, wherever it leads
        for name in folders:
            path = Path(parent, name)
            if path.is_symlink() and path.resolve().is_relative_to(root) and '/.' not in f'/{path.relative_to(root)}':
                inside = any(key.startswith(path.relative_to(root).as_posix() + '/') for key in listing.files)
                assert inside or out.get(path.relative_to(root).as_posix()) == AGAIN
    assert len({os.path.realpath(path) for path in listing.files.values()}) == len(listing.files)
    try:
        names = [*list_images(root)]
    except ValueError as error:
        assert 'two pictures of one name' in str(error) or 'no images in it' in str(error)
    else:
        assert names == sorted(map(stem, listing.files)) and len(names) == len(listing.files)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(files=st.lists(st.tuples(st.sampled_from(['', 'f1/', 'f2/']), NAMES), min_size=1, max_size=6, unique=True),
       rows=st.lists(st.tuples(st.sampled_from(['', 'f1/', 'f2/', 'img/f1/']), NAMES), max_size=6, unique=True))
def test_no_file_is_given_the_row_of_another(files, rows):
    "A row goes to one file at most, and what it names is that file's path or a part of it."
    files, rows = [f'{folder}{name}.png' for folder, name in files], [f'{folder}{name}.png' for folder, name in rows]
    try:
        found = match_rows(rows, files, 'table.csv')
    except ValueError as error:
        assert str(error).startswith('table.csv: line')
        return
    given_rows = [row for row in found if row is not None]
    assert len(given_rows) == len(set(given_rows))
    for file, row in zip(files, found, strict=True):
        if row is not None:
            assert stem(rows[row]).rpartition('/')[2] in (stem(file).rpartition('/')[2], file.rpartition('/')[2])
        assert row is not None or file not in rows


def picture(path, size=(32, 32), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(path, **options)
    return path


def left_out(module, root, folder):
    "How many files a data module says that it does not read, by reason."
    options = {'deepglobe': {'index_dir': folder, 'patch': 32}, 'mesh': {'cache': folder}}.get(module.layout, {})
    with collect_notes() as notes:
        module(str(root), **options).setup()
    [said] = [text for text in notes if 'left out' in text] or ['']
    return {reason: int(number) for number, reason in re.findall(r'(\d+) (hidden|of another kind|not read)', said)}


@pytest.mark.parametrize('layout', ['folders', 'geotagged', 'wildscenes', 'deepglobe', 'raster', 'mesh'])
def test_every_layout_says_what_it_does_not_read(layout, tmp_path):
    "A hidden file, one of another kind and one that no split takes: all counted, by every data module."
    root, suffix = tmp_path / 'data', {'raster': '.tif', 'mesh': '.ply'}.get(layout, '.png')
    shutil.copytree(world_data(layout, size='tiny'), root)
    module = layout_of(root)
    assert module is LAYOUTS[layout]
    before, first = left_out(module, root, tmp_path), sorted(root.rglob(f'*{suffix}'))[0]
    (root / 'stray').mkdir()
    shutil.copy(first, root / 'stray' / f'aside{suffix}')
    shutil.copy(first, root / f'._hidden{suffix}')
    (root / 'letter.docx').touch()
    after = left_out(module, root, tmp_path)
    assert after == {reason: before.get(reason, 0) + 1 for reason in ('hidden', 'of another kind', 'not read')}


UNDECODABLE = os.fsdecode(b'caf\xe9')  # Latin-1, as older disks have it


@pytest.mark.parametrize('layout', ['folders', 'geotagged', 'wildscenes', 'deepglobe', 'raster', 'mesh', 'gta'])
def test_a_name_that_is_no_text_is_one_line(layout, tmp_path, capsys):
    "In a file that is read, in a folder above it, and in a name that is typed: named before any work, by every layout."
    root = shutil.copytree(world_data(layout, size='tiny'), tmp_path / 'data')
    file = next(path for path in sorted(root.rglob('*')) if 'mask' not in str(path)
                and path.suffix in ('.tif', '.ply', '.png', '.jpg'))
    file.rename(file.with_name(f'{UNDECODABLE}_image.tif' if layout == 'raster' else f'{UNDECODABLE}_{file.name}'))
    out = tmp_path / 'out'
    words = ['inspect', f'data={root}', f'out={out}', *([f'index_dir={out}'] if layout == 'deepglobe' else [])]
    assert cli.main(words) == 2 and not out.exists()
    said = capsys.readouterr().err
    assert layout == 'gta' or said.count('\n') == 1 and 'caf\\udce9' in said and 'rename' in said, said
    typed = root.rename(tmp_path / UNDECODABLE)
    assert cli.main(['inspect', f'data={typed}', f'out={out}']) == 2 and not out.exists()
    assert 'not UTF-8' in capsys.readouterr().err
    with pytest.raises(ValueError, match='not UTF-8'):
        layout_of(typed)(typed).setup()


def test_a_name_that_is_no_text_and_is_not_read_is_told_as_its_bytes(tmp_path, caplog):
    picture(tmp_path / 'a.png')
    (tmp_path / f'{UNDECODABLE}.docx').touch()
    words = list_files(tmp_path, ('.png',)).words()
    assert words.encode() and 'caf\\udce9.docx' in words


def test_upper_case_suffixes_are_read(tmp_path):
    for name in ('2014_image.TIF', '2015_image.tif', '._2015_image.tif'):
        (tmp_path / name).touch()
    assert {key[0] for key in match_pattern(tmp_path, '{date}_image.tif')} == {'2014', '2015'}
    for name in ('a.JPG', 'b.Jpeg', 'c.JFIF', 'd.PNG', 'e.BMP', 'f.WEBP'):
        picture(tmp_path / 'img' / f'{name}', format={'.JFIF': 'JPEG'}.get(name[1:]))
    assert [*list_images(tmp_path / 'img')] == [*'abcdef']
    assert all(read_image(path).shape == (32, 32, 3) for path in list_images(tmp_path / 'img').values())
    (tmp_path / 'mesh').mkdir()
    for name in ('a.PLY', 'b.Obj'):
        (tmp_path / 'mesh' / name).touch()
    assert len(meshes_in(tmp_path / 'mesh')) == 2


@pytest.mark.parametrize('links', [True, False])
def test_pictures_and_masks_in_linked_folders_pair(tmp_path, links):
    for kind in ('images', 'masks'):
        picture(tmp_path / 'set' / kind / 'site_1.5m.png')
        picture(tmp_path / 'other' / kind / 'site_1.8m.png')
        if links:
            (tmp_path / 'set' / kind / 'more').symlink_to(tmp_path / 'other' / kind)
            (tmp_path / 'set' / kind / 'self').symlink_to(tmp_path / 'set' / kind)
    names = pair_files(tmp_path / 'set' / 'images', tmp_path / 'set' / 'masks')['name'].tolist()
    assert names == (['more/site_1.8m'] if links else []) + ['site_1.5m']


def test_plain_tiffs_are_pictures_and_what_lies_beside_geotiffs_is_said(scene, tmp_path, caplog):
    picture(tmp_path / 'plain' / 'a.tif')
    assert find_rasters(tmp_path / 'plain') is None and [*picture_files(tmp_path / 'plain')] == ['a']
    assert find_rasters(tmp_path / 'plain' / 'a.tif') is None
    assert [*picture_files(tmp_path / 'plain' / 'a.tif')] == ['a']
    picture(tmp_path / 'plain' / 'b.jpg')
    assert [*picture_files(tmp_path / 'plain')] == ['a', 'b']
    (tmp_path / 'deep').mkdir()
    shutil.copytree(tmp_path / 'plain', tmp_path / 'deep' / 'day')
    assert [*picture_files(tmp_path / 'deep')] == ['day/a', 'day/b']
    shutil.copy(scene, tmp_path / 'plain' / 'c.TIF')
    (tmp_path / 'plain' / '._c.tif').write_bytes(b'\0\5\x16\7')
    assert [a.image.name for a in find_rasters(tmp_path / 'plain')] == ['c.TIF']


def test_names_of_photos_in_two_folders(tmp_path):
    "A row of gps.csv belongs to one photo; where it fits two, the line is named."
    from geoseg.data.pictures.images import GeotaggedData
    for name in ('f1/DJI_1', 'f2/DJI_1', 'f2/DJI_3'):
        picture(tmp_path / 'img' / f'{name}.png', (8, 8))
        (tmp_path / 'mask' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / 'mask' / f'{name}.png')
    (tmp_path / 'classes.txt').write_text('0 a\n1 b\n')
    table = tmp_path / 'gps.csv'
    table.write_text('filename,lat,long\nDJI_3.png,50.3,4\nDJI_1.png,50,4\n')
    with pytest.raises(ValueError, match=r'gps.csv: line 3: DJI_1.png fits 2 files, f1/DJI_1.png and f2/DJI_1.png'):
        GeotaggedData(str(tmp_path), split='random').setup()
    table.write_text('filename,lat,long\nDJI_3.png,50.3,4\nf2/DJI_1.png,50.2,4\nimg\\f1\\DJI_1.png,50.1,4\n')
    data = GeotaggedData(str(tmp_path), split='random')
    data.setup()
    assert dict(zip(data.table['name'], data.table['lat'], strict=True)) == {
        'f1/DJI_1': 50.1, 'f2/DJI_1': 50.2, 'f2/DJI_3': 50.3}


def damaged(path, how):
    "A photo whose EXIF is damaged in one way."
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003], exif.get_ifd(0x8769)[0x9011] = '2017:06:21 09:00:00', '+02:00'
    if how == 'clock':
        exif.get_ifd(0x8769)[0x9003] = 'last summer'
    elif how == 'offset':
        exif.get_ifd(0x8769)[0x9011] = 'CEST'
    elif how == 'fix':
        exif.get_ifd(0x8825)[1] = 'N'
    picture(path, (8, 8), exif=exif)
    if how == 'cut':
        whole = path.read_bytes()
        at = whole.find(b'Exif\0\0')
        size = int.from_bytes(whole[at - 2:at], 'big')
        path.write_bytes(whole[:at - 2] + (20).to_bytes(2, 'big') + whole[at:at + 18] + whole[at - 2 + size:])


@pytest.mark.parametrize('how', ['clock', 'offset', 'fix', 'cut'])
def test_a_damaged_photo_does_not_stop_the_rest(how, tmp_path):
    from geoseg.data.pictures.images import GeotaggedData
    for i in range(4):
        damaged(tmp_path / 'img' / f'p{i}.jpg', how if i == 2 else '')
        (tmp_path / 'mask').mkdir(exist_ok=True)
        Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / 'mask' / f'p{i}.png')
    (tmp_path / 'classes.txt').write_text('0 a\n1 b\n')
    (tmp_path / 'gps.csv').write_text('filename,lat,long\n' + ''.join(f'p{i}.jpg,50,4.00{i}\n' for i in range(4)))
    with collect_notes() as notes:
        data = GeotaggedData(str(tmp_path), split='random', batch_size=1)
        data.setup()
    assert sum('the EXIF of 1 of 4 images (first: ' in text and 'p2.jpg' in text for text in notes) == 1
    known = ~np.isnan(data.table['time'])
    assert known.tolist() == [True, True, how == 'fix', True] and not data.table['lat'].isna().any()
    for dataset in data.datasets.values():
        assert [dataset[i]['image'].shape[-1] for i in range(len(dataset))]
    (tmp_path / 'gps.csv').unlink()
    with pytest.raises(ValueError, match='no gps.csv, and no place in the EXIF for 4 of 4 images'):
        GeotaggedData(str(tmp_path), split='random').setup()


LEFT_OUT = {  # what is laid into a folder of a layout, what is said of it
    'folders': (['images/train/readme.pdf'], '1 of another kind (first: images/train/readme.pdf)'),
    'geotagged': (['mask.gif', 'before.jpg'], '1 of another kind (first: mask.gif), 1 not read (first: before.jpg)'),
    'wildscenes': (['before.jpg'], '1 not read (first: before.jpg)'),
    'deepglobe': (['before.jpg'], '1 not read (first: before.jpg)'),
    'raster': (['before.jpg'], '2 of another kind (first: before.jpg)'),  # a JPEG beside GeoTIFFs
    'gta': (['drone/images/zz.png', 'satellite/._2_0_0_0.png', 'drone/images/a.JPG'],
            'in none of cross-area-drone2sate-train.json and cross-area-drone2sate-test.json (first: drone/images/'),
    'mesh': (['train/a.stl'], '1 of another kind (first: train/a.stl)')}


@pytest.mark.parametrize('layout', [*LEFT_OUT])
def test_inspect_says_once_what_is_left_out(layout, tmp_path, capsys, cache):
    from geoseg.cli import main
    root, (names, said) = tmp_path / 'data', LEFT_OUT[layout]
    shutil.copytree(world_data(layout, size='tiny'), root)
    for name in names:
        picture(root / name, seed=1) if name.lower().endswith(('.png', '.jpg')) else (root / name).touch()
    assert main(['inspect', f'data={root}', 'num_workers=0']) == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(said) == 1, shown
    if layout == 'gta':  # two of these and the photos of the other area's split
        photos = {entry['drone_img_name'] for part in ('train', 'test')
                  for entry in json.loads((root / f'cross-area-drone2sate-{part}.json').read_text())}
        unused = [path for path in (root / 'drone/images').iterdir() if path.name not in photos]
        assert f'1 hidden (first: satellite/._2_0_0_0.png), {len(unused)} in none of' in shown.out


def test_what_is_noted_is_logged_where_no_report_is_made(caplog):
    with caplog.at_level(logging.INFO, 'geoseg'):
        note('one')
        with pytest.raises(ValueError), collect_notes():
            note('two')
            raise ValueError
        with collect_notes() as notes:
            note('three')
            note('three')
    assert [record.getMessage() for record in caplog.records] == ['one', 'two'] and notes == ['three']


TABLE_FILES = {  # a reader, its first lines, a line at fault
    'gps.csv': (read_gps, 'filename,lat,long', 'a{}.jpg,1,2', 'x.jpg,99,2'),
    'gps.csv of times': (read_gps, 'filename,lat,long,time', 'a{}.jpg,1,2,20170621', 'x.jpg,9,2,now'),
    'gps.csv of twins': (read_gps, 'filename,lat,long', 'a{}.jpg,1,2', 'a0.jpg,1,2'),
    'split.csv': (read_split, 'name,split', 'a{},train', 'x,tran'),
    'split.csv of twins': (read_split, 'name,split', 'a{},train', 'a0,val'),
    'poses2d.csv': (read_poses, 'timestamp x y', '162337883{}.5 1 2', '1623378999.5 1 none'),
    'poses2d.csv of times': (read_poses, 'timestamp,x,y', '162337883{}.5,1,2', 'now,1,2'),
    'poses2d.csv of twins': (read_poses, 'ts,x,y', '162337883{}.5,1,2', '1623378830.5,1,2'),
    'category.csv': (LabelScheme.load, 'id,name,r,g,b', '{0},a{0},1,2,{0}', 'one,x,1,2,3'),
    'classes.txt': (LabelScheme.load, '0 first', '1{0} a{0}', '70000 x'),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(blank=st.lists(st.sampled_from(['', ' ', '  ']), max_size=3), before=st.integers(1, 4), ahead=st.integers(0, 2),
       end=st.sampled_from(['\n', '\r\n', '\r']))
@pytest.mark.parametrize('case', TABLE_FILES)
def test_an_error_names_the_line_of_the_file(case, tmp_path_factory, blank, before, ahead, end):
    read, head, good, bad = TABLE_FILES[case]
    lines = [*[''] * ahead, head]
    for number in range(before):
        lines += [*(blank if number == before - 1 else ['']), good.format(number)]
    path = tmp_path_factory.mktemp('t') / case.split()[0]
    path.write_bytes(end.join([*lines, bad, good.format(9), '']).encode())
    with pytest.raises(ValueError, match=f'(line|row) {len(lines) + 1}[: ]'):
        read(path)


def test_a_row_of_several_lines_is_counted_by_its_first(tmp_path):
    path = tmp_path / 'gps.csv'
    path.write_text('filename,lat,long,note\n\na.jpg,1,2,"two\n\nlines"\nb.jpg,1,99x,""\n')
    with pytest.raises(ValueError, match='line 6: long is'):
        read_gps(path)
    assert line_of(path, 0) == 3 and line_of(tmp_path / 'none.csv', 5) == 7
    path.write_text('filename,lat,long\n\n\nDJI_1.png,1,2\n')
    with pytest.raises(ValueError, match=r'gps.csv: line 4: DJI_1.png fits 2 files'):
        match_rows(read_gps(path).index, ['f1/DJI_1.png', 'f2/DJI_1.png'], path)


@pytest.mark.parametrize('split', [True, False])
def test_two_meshes_of_one_name_share_no_labels(split, tmp_path):
    shutil.copytree(world_data('mesh', size='tiny'), tmp_path, dirs_exist_ok=True)
    mesh = min((tmp_path / 'train').glob('*.ply'))
    write_obj(mesh.with_suffix('.OBJ'), read_mesh(mesh))
    root = tmp_path if split else tmp_path / 'train'
    data = MeshData({'train': str(root), 'val': str(tmp_path / 'val')} if split else str(root),
                    labels=str(tmp_path / 'category.csv'))
    with pytest.raises(ValueError, match=f'train: two meshes of one name: {mesh.stem}.OBJ, {mesh.stem}.ply; rename'):
        data.files()
