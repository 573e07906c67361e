"""What a GPU makes of the package, in under eight minutes: python tools/gpu.py [--out FILE] [--seconds N] [--tiny].

It needs no built environment: what it imports it imports late, and a row whose library is missing, whose time is over,
or which fails is written as left out, with the reason. The most important rows come first, and each is written at once.
`--tiny` takes the settings of tests/tiny.py, so that it runs on a CPU, too.
"""
import argparse
import csv
import importlib.util
import os
import re
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP), str(TOP / 'tests')]
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
COLUMNS = ['device', 'row', 'ours', 'reference', 'unit', 'ratio', 'peak MiB', 'remark']
RECIPES = ['geosegformer', 'unet', 'wildscenes-deeplabv3', 'wildscenes-mask2former', 'deepglobe-trm',
           'game4loc-cross-area', 'nomeformer', 'nomeformer-texture', 'wildscenes-fcn', 'wildscenes-unet',
           'game4loc-same-area']


class Left(Exception):
    'A row that is left out; says why.'


def waits(device):
    'Wait for what a device has been told.'
    import torch
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(call, device, rounds):
    'Median seconds of a call, after two to warm up.'
    taken = []
    for i in range(rounds + 2):
        waits(device)
        start = time.perf_counter()
        call()
        waits(device)
        taken += [time.perf_counter() - start] if i > 1 else []
    return sorted(taken)[len(taken) // 2]


def forget_peak(device):
    import torch
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device):
    import torch
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == 'cuda' else ''


def built(recipe, tiny):
    'Task and first batch of a recipe, on the synthetic world.'
    from tiny import settings

    from geoseg.training.config import parse
    given = {'data': 'world:tiny', 'num_workers': 0}
    if tiny:
        given |= settings(recipe)
    elif 'wildscenes' in recipe or recipe in ('geosegformer', 'unet'):
        given |= {'image_size': [512, 512]} | ({'pretrained': False} if 'mask2former' in recipe else {})
    cli = parse([recipe], given)
    cli.build(None)
    cli.datamodule.setup('fit')
    return cli.model, next(iter(cli.datamodule.train_dataloader())), cli.datamodule


class Again:
    'A batch, several times.'

    def __init__(self, batch, times):
        self.batch, self.times = batch, times

    def __len__(self):
        return self.times

    def __iter__(self):
        return iter([self.batch] * self.times)


def training(recipe, precision, device, tiny):
    'Steps a second of the engine against the bare loop over the same batch.'
    import lightning as L
    import torch
    task, batch, data = built(recipe, tiny)
    steps, kind, remark = 4 if tiny else 15, {'bf16-mixed': torch.bfloat16, '16-mixed': torch.float16}[precision], ''
    if device.type == 'cpu':
        if precision == '16-mixed':
            raise Left('fp16 is for a GPU')
        precision, remark = '32-true', 'in 32 bits: many a CPU takes minutes for a step in bf16'

    data.train_dataloader = lambda: Again(batch, steps + 3)

    class Times(L.Callback):
        taken = []  # of this call alone: the class is made anew

        def on_train_batch_end(self, *args):
            waits(device)
            self.taken.append(time.perf_counter())

    forget_peak(device)
    trainer = L.Trainer(accelerator='gpu' if device.type == 'cuda' else 'cpu', devices=1, max_epochs=1, logger=False,
                        precision=precision, callbacks=[Times()], enable_progress_bar=False, enable_checkpointing=False,
                        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    gaps = sorted(b - a for a, b in zip(Times.taken[2:], Times.taken[3:], strict=False))
    ours, used = gaps[len(gaps) // 2], peak(device)
    optimizer, scaler = task.make_optimizer(), torch.amp.GradScaler(device.type, enabled=precision == '16-mixed')
    task.to(device).train()
    batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}

    def step():
        optimizer.zero_grad()
        with torch.autocast(device.type, kind, enabled=not remark):
            loss = task.compute_loss(task(batch), batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    reference = seconds(step, device, steps)
    return 1 / ours, 1 / reference, 'steps /s', used, remark


def tiled(device, tiny):
    'Windows a second of a raster against the bare network on windows that are there already.'
    import numpy as np
    import rasterio
    import torch
    from rasterio.transform import from_origin

    from geoseg.data.labels import LabelScheme
    from geoseg.inference.rasters.rasters import find_rasters, predict_raster
    from geoseg.models.predictor import Predictor
    from geoseg.models.unet import UNet
    side, batch = (384, 2) if tiny else (8192, 8)
    network = UNet(7, encoder='tu-resnet10t' if tiny else 'resnet34')
    predictor = Predictor(network, LabelScheme(list('abcdefg'), np.arange(21).reshape(7, 3)), device=device)
    window = 128 if tiny else 512
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder, 'land.tif'), np.random.default_rng(0)
        with rasterio.open(path, 'w', driver='GTiff', width=side, height=side, count=3, dtype='uint8', tiled=True,
                           crs='EPSG:32633', transform=from_origin(4e5, 5.2e6, 2, 2), compress='deflate') as f:
            f.write(np.kron(rng.integers(0, 256, (3, side // 32, side // 32)), np.ones((1, 32, 32))).astype(np.uint8))
        [a] = find_rasters(path)
        forget_peak(device)
        report = predict_raster(predictor, a, folder, window=window, batch_size=batch)
        used, spent = peak(device), sum(report['seconds'].values()) - report['seconds']['files']
    images = {'image': torch.randn(batch, 3, window, window)}
    bare = seconds(lambda: predictor.logits(images).softmax(1), device, 3 if tiny else 20) / batch
    return report['windows'] / spent, 1 / bare, 'windows /s', used, 'without the writing of the files'


def compiled(device, tiny):
    'A forward pass through torch.compile against one without.'
    import torch
    if device.type == 'cpu':
        raise Left('compilation takes a CPU minutes')
    task, batch, _ = built('unet', tiny)
    network, image = task.network.to(device).eval(), batch['image'].to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        plain = seconds(lambda: network(image), device, 20)
        fast = torch.compile(network)
        ours = seconds(lambda: fast(image), device, 20)
    return 1 / ours, 1 / plain, 'forward passes /s', peak(device), 'unet, bf16'


def memory_reads(device, tiny):
    'Reads of a memory with a million entries against one with ten thousand.'
    import torch

    from geoseg.geo.coords import Frame
    from geoseg.geo.memory import GeoMemory
    taken = []
    for entries in (100, 400) if tiny else (10_000, 1_000_000):
        torch.manual_seed(0)
        memory = GeoMemory(64, radius=20., frame=Frame('EPSG:32633', (0., 0.)))
        side = 20. * entries**0.5
        xy = torch.rand(entries, 2) * side
        memory.to(device)
        memory.write(xy.to(device), torch.randn(entries, 64, device=device),
                     torch.ones(entries, dtype=torch.int64, device=device),
                     torch.zeros(entries, dtype=torch.float64, device=device))
        asked = (torch.rand(8 * 128 * 128 // (64 if tiny else 1), 2) * side).to(device)
        source = torch.zeros(len(asked), dtype=torch.int64, device=device)
        taken.append(seconds(lambda m=memory, q=asked, s=source: m.read(q, s, 8), device, 5))
    return 1 / taken[1], 1 / taken[0], 'reads /s', peak(device), 'the reference is the small memory'


def resumed(device, tiny):
    'How far the weights of a run that went on from its first epoch lie from those of the run that never stopped.'
    import shutil

    import torch
    from tiny import settings

    import geoseg
    how = settings('unet') | {'trainer.accelerator': 'gpu' if device.type == 'cuda' else 'cpu', 'every_n_epochs': 1}
    with tempfile.TemporaryDirectory() as folder:
        whole = geoseg.train('unet', 'world:tiny', out=f'{folder}/whole', overrides=how)
        copy = shutil.copytree(whole.folder, Path(folder, 'cut', 'unet', whole.folder.name))  # the same schedule
        before = (copy / 'checkpoints' / 'last.ckpt').stat().st_mtime_ns
        cut = geoseg.train('unet', resume=0, out=f'{folder}/cut')
        one, two = (torch.load(run.last, map_location='cpu', weights_only=True) for run in (whole, cut))
        if cut.last.stat().st_mtime_ns == before or one['global_step'] != two['global_step']:
            raise RuntimeError('the copy did not go on to the same step')
        far = max(float((value.double() - two[part][name].double()).abs().max())
                  for part in ('state_dict', 'ema') for name, value in one.get(part, {}).items())
    return far, 0., 'largest difference of a weight', '', 'beside the same run without a stop; 0 is exact'


def nccl(device, tiny):
    import torch
    if device.type != 'cuda' or torch.cuda.device_count() < 2:
        raise Left('two GPUs are needed')
    import lightning as L
    task, batch, data = built('unet', tiny)
    data.train_dataloader = lambda: Again(batch, 30)
    start = time.perf_counter()
    L.Trainer(accelerator='gpu', devices=2, strategy='ddp_spawn', max_epochs=1, logger=False, enable_progress_bar=False,
              enable_checkpointing=False, use_distributed_sampler=False, limit_val_batches=0).fit(task, datamodule=data)
    return 30 / (time.perf_counter() - start), float('nan'), 'steps /s, start included', '', 'two processes'


def rows():
    'Name, function and arguments of each row, the most important ones first.'
    yield 'training geosegformer, bf16', training, ('geosegformer', 'bf16-mixed')
    yield 'tiled prediction, UNet', tiled, ()
    yield 'resume', resumed, ()
    for recipe in RECIPES[1:]:
        yield f'training {recipe}, bf16', training, (recipe, 'bf16-mixed')
    yield 'memory reads at a million entries', memory_reads, ()
    yield 'torch.compile', compiled, ()
    for recipe in RECIPES[:4]:
        yield f'training {recipe}, fp16', training, (recipe, '16-mixed')
    yield 'two processes, NCCL', nccl, ()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=str(TOP / 'nbs' / 'gpu.csv'))
    parser.add_argument('--seconds', type=float, default=450., help='budget')
    parser.add_argument('--device', default=None)
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--rows', default='', help='those whose names match')
    given = parser.parse_args(argv)
    begun = time.monotonic()
    if importlib.util.find_spec('torch') is None:
        print('no torch here: nothing can be measured', file=sys.stderr)
        return 2
    import torch
    device = torch.device(given.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    left = 0
    with open(given.out, 'w', newline='') as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row, function, arguments in rows():
            if not re.search(given.rows, row):
                continue
            result = {'device': name + (', tiny' if given.tiny else ''), 'row': row}
            try:
                if time.monotonic() - begun > given.seconds:
                    raise Left(f'the {given.seconds:.0f} s were over')
                ours, reference, unit, used, remark = function(*arguments, device, given.tiny)
                ratio = ours / reference if reference else ''
                result |= {'ours': f'{ours:.4g}', 'reference': f'{reference:.4g}', 'unit': unit, 'peak MiB': used,
                           'ratio': ratio and f'{ratio:.3f}', 'remark': remark}
            except Exception as error:
                left += 1
                why = str(error).strip().splitlines() or ['']
                kind = '' if isinstance(error, Left) else f'{type(error).__name__}: '
                result['remark'] = f'left out: {kind}{why[0][:200]}'
            table.writerow(result)
            file.flush()
            print(*(f'{key} {value}' for key, value in result.items() if value != ''), sep=', ', flush=True)
    print(f'{time.monotonic() - begun:.0f} s, {left} rows left out; {given.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
