"""Bad input stops before any work, with one line that names what is wrong, and leaves nothing half-written."""
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tiny
import torch
from PIL import Image
from tiny import words

from geoseg import cli
from geoseg.cli import as_read
from geoseg.core.signatures import misfit
from geoseg.world.layouts import world_data

TINY = tiny.settings('unet', image_size=[32, 32], crop=[32, 32], epochs=1, batch_size=4)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    'Each test works in a folder of its own, without a GPU or a connection.'
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    return tmp_path


@pytest.fixture
def refused(capsys):
    'Run the command line; it must end with status 2 and one line, which holds all the given words.'
    def run(verb, *arguments, says, left=0):
        capsys.readouterr()
        assert cli.main([verb, *map(str, arguments)]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if 'Warning' not in line]
        said = [line for line in lines if line.startswith(f'geoseg {verb}: ')]
        assert len(said) == 1 and lines[-1] == said[0], lines  # nothing after it
        for word in says:
            assert word in said[0], said[0]
        runs = [p for p in Path('runs').glob('*/*')]
        assert len(runs) == left, 'a run that never began left its folder'
        assert not [p for p in Path('.').rglob('.*') if p.is_file()], 'half-written files'
        return runs
    return run


@pytest.fixture
def fit(refused):
    def run(*arguments, says, left=0, data='world:tiny', **settings):
        given = {key: value for key, value in (TINY | settings).items() if value is not None}
        return refused('fit', '--recipe', 'unet', f'data={data}', *words(given), *arguments, says=says, left=left)
    return run


@pytest.fixture
def world():
    'A copy of the tiny world that a test may damage; of `folders` only four pictures a split.'
    def copy(layout):
        folder = Path(shutil.copytree(world_data(layout, size='tiny'), layout))
        for split in folder.glob('*s/*'):
            for path in sorted(split.iterdir())[4:]:
                path.unlink()
        return folder
    return copy


@pytest.mark.parametrize('data', ['2020', 2020])
def test_a_folder_that_is_not_there_is_named_as_data_and_from_where(here, data):
    from geoseg.training.train import train
    with pytest.raises(FileNotFoundError) as error:  # as a notebook calls it, without the checks of the command line
        train('unet', data)
    assert str(error.value) == f'data: 2020: no such file or folder (as seen from {Path.cwd()})'
    with pytest.raises(FileNotFoundError) as error:
        train('unet', here / 'photos')
    assert str(error.value) == f'data: {here / "photos"}: no such file or folder'


def cut(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


# ---- data

def test_missing_mask(fit, world):
    data = world('folders')
    mask = sorted((data / 'masks/train').iterdir())[3]
    mask.unlink()
    fit(data=data, says=['masks/train', 'no mask for 1 of 4 images', mask.stem])


def test_mask_of_another_size(fit, world):
    data = world('folders')
    mask = sorted((data / 'masks/train').iterdir())[3]
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(mask)
    fit(data=data, says=[str(mask), '20 x 10', '64 x 64'])


def test_unknown_label_value(fit, world):
    data = world('folders')
    mask = sorted((data / 'masks/train').iterdir())[3]
    pixels = np.array(Image.open(mask))
    pixels[:3, :4] = 77
    Image.fromarray(pixels).save(mask)
    fit(data=data, says=[str(mask), '77 (12 px)', 'does not declare', 'unknown=ignore'])  # masks are read before work


@pytest.mark.parametrize('file', ['images/train', 'masks/train', 'images/val'])
def test_truncated_png(fit, world, file):
    data = world('folders')
    path = sorted((data / file).iterdir())[3]
    cut(path)
    # masks are read before work; a picture when its turn comes
    fit(data=data, says=[str(path), 'not a readable', 'truncated'], left=0 if file.startswith('masks') else 1)


def test_truncated_jpeg(fit, world):
    data = world('folders')
    png = sorted((data / 'images/train').iterdir())[3]
    jpeg = png.with_suffix('.jpg')
    Image.open(png).save(jpeg)
    png.unlink()
    cut(jpeg)
    fit(data=data, says=[str(jpeg), 'not a readable image', 'truncated'], left=1)


def test_empty_file(fit, world):
    data = world('folders')
    path = sorted((data / 'images/train').iterdir())[3]
    path.write_bytes(b'')
    fit(data=data, says=[str(path), 'not a readable image'])


def test_empty_folders(fit, world, here):
    (here / 'empty').mkdir()
    fit(data=here / 'empty', says=['empty: no layout', 'it holds nothing'])
    fit(data=here / 'absent', says=['absent: no such file or folder'])
    data = world('folders')
    shutil.rmtree(data / 'images/train')
    (data / 'images/train').mkdir()
    fit(data=data, says=['images/train: no images in it'])


def test_no_classes(fit, world):
    data = world('folders')
    (data / 'classes.txt').unlink()
    (data / 'category.csv').unlink(missing_ok=True)
    fit(data=data, says=['neither category.csv nor classes.txt', 'labels'])
    fit(data=data, labels='wildscene', says=['wildscene: no such file', 'wildscenes15'])


def test_places_missing_in_gps_csv(fit, world):
    data = world('geotagged')
    lines = (data / 'gps.csv').read_text().splitlines()
    (data / 'gps.csv').write_text('\n'.join(lines[:4] + lines[6:]))
    first = lines[4].partition(',')[0]
    fit(data=data, says=['gps.csv: no row for 2 of 103 images', f'first: {first}', 'optional'])


def test_split_csv(fit, world):
    data = world('geotagged')
    lines = (data / 'split.csv').read_text().splitlines()
    (data / 'split.csv').write_text('\n'.join([*lines, 'lost.jpg,train']))
    fit(data=data, says=['split.csv: no image for 1 of 104 rows', 'lost'])
    (data / 'split.csv').write_text('\n'.join(lines[:4] + lines[6:]))
    fit(data=data, says=['split.csv: no row for 2 of 103 images', lines[4].partition('.jpg')[0]])
    fit(data=data, split='absent.csv', says=['absent.csv: no such file'])


def test_raster_without_crs(fit, world):
    data = world('raster')
    path = sorted(data.glob('*_image.tif'))[0]
    with rasterio.open(path) as file:
        pixels, profile = file.read(), file.profile
    path.unlink()
    profile.pop('crs')
    with rasterio.open(path, 'w', **profile) as file:
        file.write(pixels)
    fit(data=data, says=[str(path), 'CRS'])


def test_raster_mask_missing_or_cut(fit, world):
    data = world('raster')
    mask = sorted(data.glob('*_mask.tif'))[0]
    cut(sorted(data.glob('*_image.tif'))[0])
    fit(data=data, says=[mask.name.replace('mask', 'image'), 'cannot be read'])
    mask.unlink()
    fit(data=data, says=['no mask', '1 of 6 images', mask.name.replace('mask', 'image')])


# ---- recipe and settings

def test_unknown_names(fit, refused):
    refused('fit', '--recipe', 'unett', 'data=world:tiny', says=["unknown recipe 'unett'", 'nearest: unet'])
    refused('fit', 'data=world:tiny', says=['--recipe NAME is missing', 'unet'])
    refused('fitt', says=["unknown verb 'fitt'", 'predict'])
    fit('dropuot=0.2', says=["unknown key 'dropuot'", 'nearest: model.init_args.network.init_args.dropout'])
    fit('--model.init_args.network.init_args.dropuot=0.2', says=['dropuot', 'nearest', 'network.init_args.dropout'])
    fit('--trainer.max_epoch=2', says=['trainer.max_epoch', 'nearest: trainer.max_epochs'])
    fit('--model.init_args.loss.class_path=geoseg.training.losses.Focal', says=['model.loss', "'Focal'"])


@pytest.mark.parametrize('text, says', [
    ('modle: {}', ["unknown section 'modle'", 'nearest: model']),
    ('trainer: {max_epoch: 3}', ['max_epoch', 'nearest: trainer.max_epochs']),
    ('trainer: {max_epochs: [', ['more.yaml: ', 'line 1']),
    ('[1, 2]', ['more.yaml: expected a mapping', 'list']),
])
def test_config_file(refused, here, text, says):
    (here / 'more.yaml').write_text(text)
    refused('fit', '--recipe', 'unet', '--config', 'more.yaml', 'data=world:tiny', says=says)


def test_config_file_absent(refused):
    refused('fit', '--recipe', 'unet', '--config', 'absent.toml', says=['absent.toml: no such configuration'])


@pytest.mark.parametrize('setting, says', [
    ('dropout=lots', ['dropout', "'lots'", 'expected float']),
    ('lr=fast', ['optimizer.lr', "'fast'", 'expected float']),
    ('epochs=many', ['max_epochs', "'many'", 'expected int']),
    ('--trainer.max_steps=many', ['trainer.max_steps', "'many'", 'expected int']),
    ('batch_size=0', ['batch_size must be at least 1, not 0']),
    ('lr=-1', ['-1', 'learning rate']),
    ('dropout=2', ['dropout', 'between 0 and 1']),
    ('ema=2', ['ema', 'between 0 and 1']),
    ('split=tim', ['tim', "'time'"]),
    ('monitor=mIuO', ['run.monitor', 'mIuO', 'mIoU']),
    ('encoder=resnet35', ['resnet35', 'resnet34']),
    ('--trainer.precision=7', ['trainer.precision', "'7'", '16-mixed']),
    ('--trainer.strategy=dpp', ['dpp', 'ddp']),
    ('data={train: here', ['data', '{train: here']),
])
def test_values(refused, setting, says):
    key = setting.partition('=')[0]
    given = words({k: v for k, v in (TINY | {'data': 'world:tiny'}).items() if k != key})
    refused('fit', '--recipe', 'unet', *given, setting, says=says)


def test_what_follows_something_else_cannot_be_set(fit):
    fit('--data.init_args.seed=5', says=['seed_everything'])
    fit('num_classes=3', says=['num_classes', 'data'])


def test_gpu_where_there_is_none(fit, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    fit(**{'trainer.accelerator': 'gpu'}, says=['gpu'])


def test_out_not_writable(fit, here):
    (here / 'file').write_text('')
    fit(out='file/runs', says=['file/runs: cannot be written to'])
    fit(out='file', says=['file: cannot be written to'])


@pytest.mark.filterwarnings('ignore:For .tu-')
def test_pretrained_offline(fit, monkeypatch, here):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(here / 'hub'))
    fit(pretrained='true', encoder='resnet34', says=['weights resnet34', 'pretrained: false', 'HF_HOME'])
    fit(pretrained='true', says=['weights tu-resnet10t', 'pretrained: false'])


# ---- checkpoints

def test_resume_of_no_run(refused, here, trained):
    refused('fit', f'resume={here}', says=[f'{here}: not the folder of a run'])
    refused('fit', '--recipe', 'unet', 'resume=last', says=['runs/unet: no run to resume'])
    refused('fit', '--recipe', 'unet', 'resume=7', f'out={trained.parent.parent}',
            says=['no whole checkpoint of epoch 7', 'every_n_epochs=1'])
    refused('fit', '--recipe', 'unet', 'data=world:tiny', *words(TINY), 'weights_only=true', says=['resume'])


def test_checkpoint_of_another_recipe(refused, here, trained):
    import geoseg
    shutil.copy(Path(geoseg.__file__).parent / 'recipes/unet.yaml', here / 'other.yaml')
    refused('fit', '--recipe', 'other.yaml', f'resume={trained}', says=["recipe 'unet'", "not of 'other'"])


def test_weights_of_another_network(refused, fit, trained):
    says = [f'{trained}/checkpoints/last.ckpt: weights of another network', '(16, ', '(8, ']
    fit(f'resume={trained}', 'weights_only=true', decoder_channels=[8, 8, 8, 8, 8], says=says)
    refused('fit', f'resume={trained}', 'decoder_channels=[8, 8, 8, 8, 8]', says=[
        'decoder_channels is (16, 8, 8, 8, 8)', 'not (8, 8, 8, 8, 8)', 'the weights belong to the network'])


def test_checkpoint_of_other_classes(refused, world, trained):
    data = world('folders')
    (data / 'category.csv').unlink(missing_ok=True)
    (data / 'classes.txt').write_text('0 water\n1 land\n')
    refused('test', '--checkpoint', trained, f'data={data}', says=['trained on the classes water, forest',
                                                                   'the data has water, land'])


def test_no_checkpoint(refused, here, trained):
    (here / 'words.ckpt').write_text('hello' * 100)
    torch.save(torch.zeros(2), 'tensor.ckpt')
    torch.save({'state_dict': {}}, 'foreign.ckpt')
    shutil.copy(trained / 'checkpoints/best.ckpt', 'cut.ckpt')
    cut(here / 'cut.ckpt')
    shutil.copy(trained / 'checkpoints/best.ckpt', 'alone.ckpt')
    for name, says in {'words': 'not a readable checkpoint', 'tensor': 'not a checkpoint of geoseg',
                       'foreign': 'not a checkpoint of geoseg', 'cut': 'not a readable checkpoint',
                       'alone': 'move the whole folder', 'absent': 'no such checkpoint'}.items():
        refused('test', '--checkpoint', f'{name}.ckpt', says=[f'{name}.ckpt: ', says])
    refused('test', '--checkpoint', here, says=['not the folder of a run'])
    refused('test', '--recipe', 'unet', says=['--checkpoint'])
    refused('fit', '--recipe', 'unet', 'data=world:tiny', *words(TINY), 'resume=words.ckpt', 'weights_only=true',
            says=['words.ckpt: not a readable checkpoint'])


@pytest.mark.parametrize('verb', ['test', 'predict'])
def test_out_of_an_evaluation_not_writable(refused, here, trained, monkeypatch, verb):
    def too_late(*arguments):
        raise AssertionError('the network ran before the folder was tried')

    (here / 'file').write_text('')
    monkeypatch.setattr('geoseg.models.unet.UNet.forward', too_late)
    refused(verb, '--checkpoint', trained, 'out=file/tables', says=['file/tables', 'cannot be written to'])


@pytest.mark.parametrize('verb', [*cli.VERBS])
def test_a_value_of_another_kind_is_told_before_any_work(verb, refused, monkeypatch):
    'A mapping, and a list of mappings, for each setting of a verb that takes none.'
    monkeypatch.setattr(cli, 'check_needs', lambda *_: None)
    tried = 0
    for parameter in cli.VERBS[verb].signature.parameters:
        if parameter.name in ('data', 'trust'):
            continue
        for typed, value in (('{a: 1}', {'a': 1}), ('[{a: 1}]', [{'a': 1}])):
            if misfit(parameter, as_read(parameter, value if typed[0] == '{' else typed)):
                refused(verb, f'{parameter.name}={typed}', says=[f'{parameter.name} is ', repr(value)])
                tried += 1
    assert tried >= 2 or verb in ('inspect', 'profile', 'prepare', 'recipes'), tried


@pytest.mark.parametrize('words', ['area=5', 'area=[{a: 1}]', 'device=5', 'device=nowhere', 'bands=true',
                                   'trust={a: 1}', 'known={a: 1}', 'average_with=[{a: 1}]'])
def test_a_value_that_is_none_of_its_kind(words, refused, world):
    raster = world('raster')
    verb = 'gallery' if words.startswith('device') else 'update-map'
    refused(verb, f'data={raster / "20220712_image.tif"}', *[f'maps={raster}'] * (verb == 'update-map'), words,
            says=[words.partition('=')[0]])
