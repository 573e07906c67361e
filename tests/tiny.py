"""The smallest settings of each recipe with which a run does everything once; made and shared by `tiny_run`."""
import re
from pathlib import Path
from typing import Any

COMMON = {'num_workers': 0, 'epochs': 2, 'batch_size': 4, 'warmup_epochs': 0.5, 'save_top_k': 0, 'seed': 3,
          'draw_every_n_epochs': 0,
          'trainer.accelerator': 'cpu', 'trainer.enable_progress_bar': False}
ENCODER = {'encoder': 'tu-resnet10t', 'decoder_channels': [16, 8, 8, 8, 8]}
SCENES = {'epochs': 1, 'image_size': [32, 32], 'trainer.limit_train_batches': 3}
CYCLE = SCENES | {'warmup_epochs': None}  # the rate follows one cycle, without such a setting
MESHES = {'embedding_dim': 16, 'num_heads': 2, 'num_attention_blocks': 2, 'cluster_size': 64, 'n_clusters': 8,
          'warmup_epochs': None}
CROSS_VIEW = {'backbone': 'vit_tiny_patch16_224', 'image_size': 32, 'batch_size': 3, 'every_n_epochs': 1,
              'options': {'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2}}

DATA = 'world:tiny'
SETTINGS = {
    'deepglobe-trm': {'width': 16, 'patch': 32, 'lr': 2e-3, 'val_share': 0.4, 'ema': 0.9, 'latent': True,
                      'by': 'step', 'every_n_epochs': 1, 'trainer.limit_train_batches': 4},
    'game4loc-cross-area': CROSS_VIEW,
    'game4loc-same-area': CROSS_VIEW,
    'geosegformer': {'model_size': 'nano', 'feature_dim': 16, 'image_size': [64, 96]},
    'nomeformer': MESHES,
    'nomeformer-texture': MESHES | {'texture_embed_dim': 8, 'max_texture_pixels': 8},
    'unet': ENCODER | {'image_size': [64, 64], 'crop': [64, 64], 'batch_size': 8, 'lr': 3e-3, 'ema': 0.9},
    'wildscenes-deeplabv3': CYCLE | {'backbone': 'nano'},
    'wildscenes-fcn': CYCLE | {'backbone': 'nano'},
    'wildscenes-mask2former': SCENES | {'image_size': [64, 64], 'size': 'nano', 'pretrained': False,
                                        'trainable_layers': 2, 'warmup_epochs': None},
    'wildscenes-unet': CYCLE | ENCODER,
}


def settings(
    recipe: str,
    **changes,  # other values; None leaves a setting to the recipe
) -> dict[str, Any]:  # overrides
    'Tiny settings of a recipe.'
    if recipe not in SETTINGS:
        raise LookupError(f'the recipe {recipe!r} has no tiny settings: add them to tests/tiny.py')
    merged = COMMON | SETTINGS[recipe] | changes
    return {key: value for key, value in merged.items() if value is not None}


def words(given: dict[str, Any]) -> list[str]:
    'The same on the command line.'
    return [f'{key}={value}' for key, value in given.items()]


def train(recipe: str, out, data: str = DATA, **changes):  # -> Run
    'A tiny run of a recipe, trained now.'
    import geoseg
    return geoseg.train(recipe, data, out=out, overrides=settings(recipe, **changes))


def files_of(folder: Path) -> dict[str, list]:
    'Size and time of each file.'
    stats = {str(p.relative_to(folder)): p.stat() for p in sorted(folder.rglob('*')) if p.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def same_state(a: Path, b: Path):
    'Weights, averages, optimizer and schedule of two checkpoints are equal to the bit.'
    import torch
    a, b = (torch.load(path, map_location='cpu', weights_only=True) for path in (a, b))
    assert a.keys() == b.keys()
    for part in ('state_dict', 'ema') if 'ema' in a else ('state_dict',):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), f'{part} {name}'
    for x, y in zip(a['optimizer_states'], b['optimizer_states'], strict=True):
        for key, state in x['state'].items():
            for name, value in state.items():
                assert torch.equal(value, y['state'][key][name]), f'optimizer {key} {name}'
    assert a['lr_schedulers'] == b['lr_schedulers']
    assert a['global_step'] == b['global_step'] and a['epoch'] == b['epoch']


def difference(one: Path, two: Path) -> str:
    'What first differs between two runs; nothing where they are the same.'
    import torch
    names = [sorted(str(p.relative_to(run)) for part in ('checkpoints', 'figures') for p in (run / part).rglob('*'))
             for run in (one, two)]
    if names[0] != names[1]:
        return f'files {sorted(set(names[0]) ^ set(names[1]))}'
    tables = [name for name in ('metrics.csv', 'per_class.csv', 'train_log.csv', 'split.csv') if (one / name).is_file()]
    for name in [*tables, *(name for name in names[0] if name.endswith('.png'))]:
        if (one / name).read_bytes() != (two / name).read_bytes():
            return name
    for name in (name for name in names[0] if name.endswith('.ckpt')):
        known = [torch.load(run / name, map_location='cpu', weights_only=True) for run in (one, two)]
        for part in known[0].keys() | known[1].keys() - {'loops'}:
            if part != 'loops' and not same(*(checkpoint.get(part) for checkpoint in known)):
                return f'{name} {part}'
    clocks = re.compile(r'^(# .*|\| (started|resumed|command|git commit) \|.*|cd .*|geoseg .*)$', re.M)  # and folders
    if len({clocks.sub('', (run / 'summary.md').read_text()) for run in (one, two)}) > 1:
        return 'summary.md'
    return ''


def same(one, two) -> bool:
    'Whether plain values and tensors are equal, tensors to the bit.'
    import torch
    if isinstance(one, torch.Tensor):
        return (isinstance(two, torch.Tensor) and one.shape == two.shape and one.dtype == two.dtype
                and torch.equal(one.nan_to_num(), two.nan_to_num()))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or one != one and two != two
