"""Jobs of the command line that write something: each verb on each kind of data, and how their files are read.

Tests that kill, that fill the disk, and that write beside a second writer walk them all.
"""
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import rasterio
import tiny
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from test_table import command

from geoseg.core.files import cache_folder
from geoseg.core.locks import DRAFT
from geoseg.data.meshes.files import read_mesh


@dataclass(frozen=True)
class Job:
    'A verb on one kind of data.'

    verb: str
    recipe: str
    data: str = ''  # what is asked for, below the worlds; '': the run's own
    more: tuple[str, ...] = ()  # further words
    writes: bool = True  # files of its own

    def words(self, run: Path, out: Path) -> list[str]:
        'The command line, into a folder.'
        gta = world('gta')
        settings = tiny.settings(self.recipe, epochs=1) | {'trainer.limit_train_batches': 1,
                                                           'trainer.limit_val_batches': 1}
        typed = {word.partition('=')[0] for word in self.more}
        settings = {key: value for key, value in settings.items() if key not in typed}
        if self.recipe.startswith('game4loc'):
            del settings['trainer.limit_val_batches']
        given = {'settings': settings, 'run': run, 'out': out, 'tiles': gta, 'photos': gta / 'drone' / 'images',
                 'map': next(world('raster').glob('*_image.tif')), 'new': world('raster') / '20220712_image.tif'}
        of_files = self.verb in ('update-map', 'changes', 'sample', 'table')
        words = [self.verb] if of_files else command(self.verb, self.recipe, given)
        words = [word for word in words if not (self.data and word.startswith('data='))]
        words = [word for word in words if not word.startswith(f'out={out}')] + [f'out={out}'] * self.writes * (
            self.verb != 'prepare')
        data = [f'data={world(self.data)}'] if self.data and '/' not in self.data else [
            f'data={world(self.data.partition("/")[0]) / self.data.partition("/")[2]}'] if self.data else []
        folders = {'out': out, 'gta': gta, 'raster': world('raster'), 'changes': changes_raster(run.parent)}
        return [*words, *data, *(word.format(**folders) for word in self.more)]


def changes_raster(folder: Path) -> Path:
    'A map of changes of two classes.'
    path = folder / 'drawn_changes.tif'
    if not path.is_file():
        codes = np.zeros((3, 60, 60), np.uint16)
        codes[0, :20, :30], codes[0, 50:] = 1, 3
        with rasterio.open(path, 'w', driver='GTiff', width=60, height=60, count=3, dtype='uint16', nodata=65535,
                           crs='EPSG:32633', transform=rasterio.Affine(2, 0, 500000, 0, -2, 5200000)) as file:
            file.write(codes)
            file.update_tags(classes=json.dumps(['field', 'water']))
    return path


def world(layout: str) -> Path:
    'The folder of a tiny world.'
    from geoseg.world.layouts import world_data
    return world_data(layout, size='tiny')


ALL_LAYERS = 'write=[color,overlay,probabilities]'
JOBS = {
    'prepare patches': Job('prepare', 'deepglobe-trm'),
    'prepare meshes': Job('prepare', 'nomeformer'),
    'fit': Job('fit', 'unet', more=('draw_every_n_epochs=1', 'every_n_epochs=1', 'weights_end=true',
                                    'trainer.logger=false', 'resume=auto')),
    'validate': Job('validate', 'unet'),
    'test pictures': Job('test', 'unet'),
    'test places': Job('test', 'game4loc-same-area'),
    'test meshes': Job('test', 'nomeformer'),
    'predict pictures': Job('predict', 'unet', 'folders/images/test', (ALL_LAYERS,)),
    'predict the own pictures': Job('predict', 'deepglobe-trm'),
    'predict GeoTIFFs': Job('predict', 'unet', 'raster/20170621_image.tif',
                            ('window=64', 'write=[probabilities,geojson,qgis]')),
    'update-map': Job('update-map', 'unet', 'raster/20210902_image.tif', (
        'maps={raster}', 'known=[20190514,20200819]', 'block=24', 'sample=3000', 'most=300', 'taught=400', 'window=64',
        'write=[probabilities,geojson,qgis]')),
    'changes': Job('changes', 'unet', 'raster/20210902_image.tif', (
        'maps={raster}', 'known=[20190514,20200819]', 'block=24', 'sample=3000', 'most=300', 'taught=400',
        'window=64')),
    'sample': Job('sample', 'unet', more=('data={changes}', 'size=60', 'least=10')),
    'predict with a memory': Job('predict', 'geosegformer', more=('update=true',)),
    'predict meshes': Job('predict', 'nomeformer', more=('write=[page,probabilities]',)),
    'predict photos': Job('predict', 'game4loc-same-area', more=('gallery={out}/gallery', 'tiles={gta}')),
    'gallery': Job('gallery', 'game4loc-same-area'),
    'localize': Job('localize', 'game4loc-same-area', more=('gallery={out}/gallery',)),
    'calibrate pictures': Job('calibrate', 'unet'),
    'calibrate places': Job('calibrate', 'game4loc-same-area'),
    'calibrate meshes': Job('calibrate', 'nomeformer'),
    'halt-cal': Job('halt-cal', 'deepglobe-trm'),
    'sweep': Job('sweep', 'unet'),
    'find-lr': Job('find-lr', 'unet'),
    'table': Job('table', 'unet', 'folders'),
    'init': Job('init', 'unet'),
    'statistics': Job('statistics', 'unet'),
    'inspect pictures': Job('inspect', 'unet'),
    'inspect places': Job('inspect', 'game4loc-same-area'),
    'inspect meshes': Job('inspect', 'nomeformer'),
    'audit pictures': Job('audit-labels', 'unet'),
    'audit GeoTIFFs': Job('audit-labels', 'unet', 'raster', ('chip=64',)),
    'export': Job('export', 'game4loc-same-area'),
    'efficiency': Job('efficiency', 'unet', writes=False),
    'serve': Job('serve', 'unet', writes=False),
    'profile': Job('profile', 'unet', writes=False),
}
INTO_THE_RUN = ('calibrate', 'halt-cal')  # they write what they find into the checkpoint, too


def own_cache(folder: Path) -> Path:
    'A cache with the worlds and nothing that was prepared.'
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / 'world').exists():
        (folder / 'world').symlink_to(Path(cache_folder() / 'world').resolve())
    return folder


def copy_of(run: Path, target: Path) -> Path:
    'A copy of a run; a checkpoint is large, and only ever replaced.'
    return shutil.copytree(run, target, copy_function=lambda source, target: (
        os.link if source.endswith('.ckpt') else shutil.copy2)(source, target))


# whole or absent

def read(path: Path):
    "What a file holds, read to its end by the reader of its kind; what differs from run to run left out."
    kind = path.suffix
    if kind in ('.csv', '.txt', '.md', '.html', '.yaml', '.vrt'):
        text = path.read_text()
        assert text.endswith('\n') or kind in ('.html', '.vrt', '.csv', '.yaml'), f'{path} is cut short'
        if kind == '.csv' and text:
            pd.read_csv(path)
        if kind == '.yaml':
            yaml.safe_load(text)
        if kind == '.html':
            assert text.rstrip().endswith(('</html>', '</script>')), f'{path} is cut short'
        return text
    if kind in ('.json', '.geojson'):
        return timeless(json.loads(path.read_text()))
    if kind == '.png':
        return np.asarray(Image.open(path)).tolist()
    if kind in ('.ckpt', '.pth'):
        known = torch.load(path, weights_only=True)
        return {key: value for key, value in known.items() if key != 'loops'}
    if kind in ('.npz', '.npy', '.safetensors'):
        if kind == '.safetensors':
            with safe_open(path, 'np') as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        else:
            arrays = dict(np.load(path)) if kind == '.npz' else {'': np.load(path)}
        return {name: array.tolist() for name, array in arrays.items()}
    if kind == '.ply':
        mesh = read_mesh(path)
        assert mesh.labels is not None, f'{path} has no labels'
        return mesh.labels.tolist()
    if kind == '.tif':
        with rasterio.open(path) as file:
            return file.read().tolist(), str(file.profile)
    if kind == '.gpkg':
        import geopandas
        return geopandas.read_file(path).to_json()
    if kind == '.parquet':
        return pd.read_parquet(path).to_csv()
    if kind == '.onnx':
        import onnxruntime
        onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        return path.read_bytes()
    if kind == '.qml':
        return ElementTree.parse(path).getroot().tag
    if kind in ('.raw', '.bin', '.xml', '.qgz') or path.name == '.lock':
        return path.read_bytes()
    raise AssertionError(f'{path}: say how it is read')


def timeless(value):
    'Plain values without seconds, sizes of memory, and times of files.'
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items()
                if not re.search('seconds|peak|started|ended|modified', str(key))}
    return value


def look(folder: Path, killed: bool = False):
    "Each file is whole; nothing is left of what was being written, but where it was killed."
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(folder).parts
        left = any(part.startswith((DRAFT, '.lock', '.gallery.lock')) for part in inside)
        assert killed or not left, f'{path} is left'
        drafts = any(part.endswith('.draft') for part in inside)
        if path.is_file() and not left and 'tensorboard' not in inside and not drafts:
            if path.name != 'log.txt':  # grows line by line
                read(path)


STAMP = re.compile(r'\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d+)?')  # of a run's folder


def contents(*folders: Path) -> Iterator[tuple[str, Path]]:
    'Files by name, those that tell of a moment apart; a run by any name.'
    for folder in folders:
        for path in sorted(folder.rglob('*')):
            name = path.relative_to(folder)
            moment = {'tensorboard', 'world', 'log.txt', 'metadata.json', 'summary.md', '.finished.json'}
            if path.is_file() and not moment & set(name.parts):
                yield STAMP.sub('RUN', f'{folder.name}/{name.as_posix()}'), path
