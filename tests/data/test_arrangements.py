"""Own folders, however they are named: recognised, or named in the message with the settings that help."""
import csv
import logging
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from geoseg import cli
from geoseg.data.layouts import LAYOUTS, recognise
from geoseg.data.pictures.arrangements import arrangements
from geoseg.training.config import parse
from geoseg.world.layouts import world_data, world_layouts

WORDS = tiny.words(tiny.settings('unet', image_size=[32, 32], crop=[32, 32], epochs=1, batch_size=2, save_top_k=0)
                   | {'trainer.limit_train_batches': 1, 'trainer.limit_val_batches': 1})
SPLITS = ('train', 'val', 'test')
WAYS = {  # image, mask; {s} is the split
    'images masks': ('images/{n}.png', 'masks/{n}.png'),
    'upper case': ('Images/{n}.JPG', 'MASKS/{n}.PNG'),
    'img gt': ('img/{n}.jpg', 'gt/{n}.bmp'),
    'photos annotations': ('photos/{n}.jpg', 'Annotations/{n}.tif'),
    'image labels, splits below': ('image/{s}/{n}.png', 'labels/{s}/{n}.png'),
    'splits above': ('{s}/images/{n}.png', '{s}/masks/{n}.png'),
    'splits above, upper case': ('{S}/Images/{n}.png', '{S}/Labels/{n}.png'),
    'splits in names': ('{s}_images/{n}.png', '{s}_masks/{n}.png'),
    'as SegNet': ('{s}/{n}.png', '{s}annot/{n}.png'),
    'as MMSegmentation': ('img_dir/{s}/{n}.jpg', 'ann_dir/{s}/{n}.png'),
    'suffix of masks': ('images/{n}.jpg', 'masks/{n}_seg.png'),
    'as CamVid': ('images/{n}.png', 'labels/{n}_L.png'),
    'another suffix': ('images/{n}.png', 'masks/{n}.classes.png'),
    'both suffixes': ('images/{n}_rgb.png', 'masks/{n}_label.png'),
    'beside': ('{n}.jpg', '{n}_mask.png'),
    'beside, below splits': ('{s}/{n}.jpg', '{s}/{n}_mask.png'),
    'beside in images': ('images/{n}.jpg', 'images/{n}-mask.png'),
    'one name, two extensions': ('{n}.jpg', '{n}.png'),
}


def fill(root, image, mask, count=5, classes='0 bg\n1 fg\n', name='a_{}'):
    'Drawn pictures, a mask each: {split: names}.'
    number, made = 0, {}
    for split in SPLITS:
        for _ in range(count):
            number += 1
            words = {'n': name.format(f'{number:02}'), 's': split, 'S': split.title()}
            square = np.zeros((32, 32), np.uint8)
            square[4:20, 4 + number % 4:20] = 1
            for form, pixels in ((image, np.repeat(100 * square[..., None] + number, 3, 2)), (mask, square)):
                path = root / form.format(**words)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, quality=95)
            made.setdefault(split, []).append(words['n'])
    if classes:
        (root / 'classes.txt').write_text(classes)
    return made


def table_of(root, **given):
    data = parse(['unet'], {'data': str(root), 'num_workers': 0, 'image_size': [32, 32]} | given).build_data()
    data.setup()
    return data.table


@pytest.mark.parametrize('way', WAYS)
def test_every_arrangement_is_read_whole(way, tmp_path):
    made = fill(tmp_path, *WAYS[way])
    table = table_of(tmp_path)
    assert sorted(n.rsplit('/', 1)[-1] for n in table['name']) == sorted(sum(made.values(), []))
    for name, image, mask in zip(table['name'], table['image'], table['mask'], strict=True):
        number = int(name.rsplit('_', 1)[-1])
        assert np.array(Image.open(mask))[10, 10] == 1 and abs(int(np.array(Image.open(image))[0, 0, 0]) - number) < 3
    if '{s}' in WAYS[way][0].lower():  # the folders say who trains
        for split, names in made.items():
            assert sorted(n.rsplit('/', 1)[-1] for n in table['name'][table['split'] == split]) == names


@pytest.mark.parametrize('way', ['upper case', 'splits above', 'suffix of masks', 'beside', 'one name, two extensions'])
def test_verbs_take_an_arrangement(way, tmp_path, capsys):
    fill(tmp_path / 'mine', *WAYS[way])
    words = [f'data={tmp_path / "mine"}', *WORDS]
    assert cli.main(['inspect', '--recipe', 'unet', *words]) == 0
    assert cli.main(['fit', '--recipe', 'unet', *words, f'out={tmp_path / "runs"}']) == 0
    run = next((tmp_path / 'runs' / 'unet').iterdir())
    for extra in [], [f'data={tmp_path / "mine"}']:  # its own data, and the same folder named again
        assert cli.main(['test', '--checkpoint', str(run), *extra]) == 0
    assert len(list(csv.DictReader(open(run / 'split.csv')))) == 15
    capsys.readouterr()


def test_folders_of_any_name_are_settings(tmp_path):
    fill(tmp_path, 'bilder/{n}.png', 'von_anna/{n}_anna.png')
    with pytest.raises(ValueError, match='bilder/ 15 .png; von_anna/ 15 .png. .*: '
                                         'image_dir=bilder mask_dir=von_anna mask_suffix=_anna$'):
        table_of(tmp_path)
    assert len(table_of(tmp_path, image_dir='bilder', mask_dir='von_anna')) == 15
    fill(tmp_path, 'images/{n}.png', 'masks/{n}.png')  # what is typed goes before what is known
    table = table_of(tmp_path, image_dir='bilder', mask_dir='von_anna')
    assert {path.parent.name for path in table['mask']} == {'von_anna'}
    with pytest.raises(FileNotFoundError, match=r'bilde: no such folder \(image_dir\); .* holds .*bilder/ 15 .png'):
        table_of(tmp_path, image_dir='bilde', mask_dir='von_anna')


@pytest.mark.parametrize('more, ways', [
    ('gt/{n}.png', ['mask_dir=gt', 'mask_dir=masks']), ('masks_old/{n}.png', ['mask_dir=masks'])])
def test_two_readings_are_an_error_with_both(more, ways, tmp_path):
    fill(tmp_path, 'images/{n}.png', 'masks/{n}.png')
    fill(tmp_path, 'images/{n}.png', more)
    if len(ways) == 1:
        assert len(table_of(tmp_path)) == 15
        return
    with pytest.raises(ValueError, match='2 ways; choose one: image_dir=images mask_dir=.*; or image_dir') as told:
        table_of(tmp_path)
    assert all(way in str(told.value) for way in ways)
    for folder in 'gt', 'masks':
        assert {path.parent.name for path in table_of(tmp_path, mask_dir=folder)['mask']} == {folder}


def test_messages_say_what_was_seen(tmp_path):
    (tmp_path / 'photos').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'photos' / 'a.jpg')
    with pytest.raises(ValueError, match='it holds photos/ 1 .jpg. Pictures without masks .*predict'):
        recognise(tmp_path)
    fill(tmp_path / 'zip' / 'inner', 'images/{n}.png', 'masks/{n}.png')
    with pytest.raises(ValueError, match='zip/inner in it is of layout folders: data=.*zip/inner'):
        recognise(tmp_path)
    fill(tmp_path / 'off', 'images/{n}.png', 'masks/x{n}y.png')
    with pytest.raises(ValueError, match='no mask for 15 of 15 .*called xa_01y.png: image_suffix and mask_suffix'):
        table_of(tmp_path / 'off')
    with pytest.raises(ValueError, match="unknown key 'mask_sufix'; nearest: data.init_args.mask_suffix"):
        table_of(tmp_path / 'off', mask_sufix='y')


def test_jpegs_with_such_ends_are_pictures(tmp_path):
    for name in 'left_l.jpg', 'left.jpg', 'a_mask.jpg', 'a.jpg':
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    assert arrangements(tmp_path) == []


def test_places_beside_folders_of_other_names(tmp_path):
    made = fill(tmp_path, 'images/{n}.jpg', 'labels/{n}.png')
    rows = [f'{n}.jpg,50,{4 + i * 1e-4:.4f}' for i, n in enumerate(sum(made.values(), []))]
    (tmp_path / 'gps.csv').write_text('filename,lat,long\n' + '\n'.join(rows) + '\n')
    assert recognise(tmp_path).layout == 'geotagged'
    assert table_of(tmp_path)['lat'].notna().all()
    shutil.move(tmp_path / 'images', tmp_path / 'img')
    shutil.move(tmp_path / 'labels', tmp_path / 'mask')
    (tmp_path / 'gps.csv').unlink()
    assert table_of(tmp_path)['lat'].isna().all()  # a recipe without places needs none
    with pytest.raises(ValueError, match='no gps.csv, and no place in the EXIF .*optional'):
        parse(['geosegformer'], {'data': str(tmp_path), 'num_workers': 0}).build_data().setup()


# splits

@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, 'geoseg')
    return lambda: caplog.text


def test_train_and_test_without_val(tmp_path, said):
    made = fill(tmp_path, 'images/{s}/{n}.png', 'masks/{s}/{n}.png', count=9)
    for kind in 'images', 'masks':
        shutil.rmtree(tmp_path / kind / 'val')
    table = table_of(tmp_path)
    assert table['split'].value_counts().to_dict() == {'train': 7, 'val': 2, 'test': 9}
    assert table['name'][table['split'] == 'val'].tolist() == [f'train/{n}' for n in made['train'][-2:]]
    assert 'no folder of validation: 2 of 9 training pictures validate' in said()
    given = {split: tmp_path / 'roots' / split for split in ('train', 'test')}
    for root in given.values():
        fill(root, 'images/{n}.png', 'masks/{n}.png', count=3)
    data = parse(['unet'], {'data': {k: str(v) for k, v in given.items()}, 'image_size': [32, 32]}).build_data()
    data.setup()
    assert data.table['split'].value_counts().to_dict() == {'train': 7, 'val': 2, 'test': 9}


@pytest.mark.parametrize('name', ['{}x', 'ca{}', 'DSC_{}', '{}'])
def test_irregular_names_are_split_all_the_same(name, tmp_path, said):
    fill(tmp_path, 'images/{n}.png', 'masks/{n}.png', name=name)
    drives = {'fr': 2, 'se': 1}
    for drive, count in drives.items():
        for i in range(count):
            for kind in 'images', 'masks':
                source = next((tmp_path / kind).iterdir())
                shutil.copy(source, tmp_path / kind / f'{drive}_{i}.png')
    table = table_of(tmp_path)
    assert len(table) == 18 and set(table['split']) == set(SPLITS)
    assert 'drives have fewer than 3 pictures' in said() and 'split.csv' in said()


def test_pictures_without_masks_are_for_prediction(tmp_path, said):
    made = fill(tmp_path, 'images/{n}.png', 'masks/{n}.png')
    lost = made['train'][:3]
    for name in lost:
        (tmp_path / 'masks' / f'{name}.png').unlink()
    with pytest.raises(ValueError, match='no mask for 3 of 15 .*; masks=optional'):
        table_of(tmp_path)
    table = table_of(tmp_path, masks='optional')
    assert table['name'][table['split'] == 'predict'].tolist() == lost
    assert (table['mask'].isna() == (table['split'] == 'predict')).all() and len(table) == 15
    assert 'no mask for 3 of 15 pictures (first: a_01): they are for prediction' in said()


def test_inspect_reports_what_becomes_of_pictures(tmp_path, said, capsys):
    from geoseg.cli import main
    made = fill(tmp_path, '{s}/{n}.jpg', '{s}/{n}_mask.png')
    shutil.rmtree(tmp_path / 'val')
    (tmp_path / 'train' / f'{made["train"][0]}_mask.png').unlink()
    assert main(['inspect', f'data={tmp_path}', 'masks=optional', 'num_workers=0']) == 0
    shown = capsys.readouterr().out
    assert 'training pictures validate' in shown and 'they are for prediction' in shown and not said()


def test_too_few_pictures_say_what_helps(tmp_path):
    fill(tmp_path, 'images/{n}.png', 'masks/{n}.png')
    for i in range(3, 16):
        for kind in 'images', 'masks':
            (tmp_path / kind / f'a_{i:02}.png').unlink()
    with pytest.raises(ValueError, match='2 samples cannot be split into 3 parts: .*ratios.*split.csv'):
        table_of(tmp_path)


def test_drawn_layouts_are_each_their_own():
    for layout in LAYOUTS:
        if layout in world_layouts:
            assert recognise(world_data(layout, size='tiny')).layout == layout
