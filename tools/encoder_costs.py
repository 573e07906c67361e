"""What a training step costs with each encoder: a U-Net on it, and the bare network of the library in a plain loop.

python tools/encoder_costs.py nbs/models/encoder_costs.csv

A row: CPU seconds a step (forward, backward, AdamW; 4 pictures of 128 pixels, two threads), the median of interleaved
rounds, and the peak memory of a process that does nothing but such steps. Rows are kept as they come: what is in the
file is not measured again.
"""
import argparse
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

import timm
import torch
from torch import nn
from torchgeo_speed import keep, stored
from transformers import SegformerForImageClassification

from geoseg.models.encoders import segformer_config, size_options
from geoseg.models.unet import UNet

ENCODERS = ('tu-tf_efficientnet_lite0', 'resnet18', 'resnet34', 'resnet50', 'tu-convnext_tiny', 'mit_b0', 'mit_b1',
            'tu-swin_tiny_patch4_window7_224', 'tu-vit_small_patch14_dinov2')
COLUMNS = ['encoder', 'parameters', 'bare parameters', 'step', 'bare step', 'peak MiB', 'bare peak MiB']
CLASSES, SIDE, PICTURES = 11, 128, 4


def bare(name: str) -> nn.Module:
    "The network of the library as a classifier."
    short = name.removeprefix('tu-')
    if short.startswith('mit_'):
        return SegformerForImageClassification(segformer_config(short.removeprefix('mit_'), CLASSES))
    options = size_options(short)
    options |= {'dynamic_img_pad': True} if 'dynamic_img_size' in options else {}  # patches of 14 in pictures of 128
    return timm.create_model(short, num_classes=CLASSES, **options)


def network(name: str, kind: str) -> nn.Module:
    return UNet(CLASSES, encoder=name, decoder_channels=(96, 64, 48, 32, 16)) if kind == 'U-Net' else bare(name)


def stepper(name: str, kind: str):
    "A function that does one training step, and the number of parameters."
    torch.manual_seed(0)
    net = network(name, kind).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    image = torch.rand(PICTURES, 3, SIDE, SIDE)
    target = torch.randint(CLASSES, (PICTURES, SIDE, SIDE) if kind == 'U-Net' else (PICTURES,))

    def step():
        optimizer.zero_grad()
        out = net(image)
        logits = out if torch.is_tensor(out) else out['logits']
        nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()

    return step, sum(p.numel() for p in net.parameters())


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_child(end, work, *given):
    torch.set_num_threads(2)
    end.send(work(*given))


def apart(work, *given) -> dict:
    "What a function gives in a process of its own, forked before anything was computed."
    context = multiprocessing.get_context('fork')
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=in_child, args=(there, work, *given))
    child.start()
    there.close()
    answer = here.recv()  # EOFError where it failed
    child.join()
    return answer


def memory(name: str, kind: str) -> int:
    "Peak memory of two steps above that of the imports, MiB."
    before = resident()
    step, _ = stepper(name, kind)
    step()
    step()
    return round(resident() - before)


def measure(name: str, rounds: int) -> dict:
    steps = {kind: stepper(name, kind) for kind in ('U-Net', 'bare')}
    seconds = {kind: [] for kind in steps}
    for i in range(rounds + 1):
        for kind, (step, _) in steps.items():
            begun = time.process_time()
            step()
            if i:  # the first is to warm up
                seconds[kind].append(time.process_time() - begun)
    middle = {kind: round(statistics.median(values), 4) for kind, values in seconds.items()}
    return {'encoder': name.removeprefix('tu-'), 'parameters': steps['U-Net'][1], 'bare parameters': steps['bare'][1],
            'step': middle['U-Net'], 'bare step': middle['bare']}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('out', type=Path)
    parser.add_argument('--rounds', type=int, default=7)
    given = parser.parse_args()
    rows = stored(given.out, COLUMNS)
    for name in ENCODERS:
        if name.removeprefix('tu-') not in {row['encoder'] for row in rows}:
            peaks = {f'{what}peak MiB': apart(memory, name, kind) for kind, what in (('U-Net', ''), ('bare', 'bare '))}
            rows.append(apart(measure, name, given.rounds) | peaks)
            keep(given.out, rows)
            print(name, flush=True)


if __name__ == '__main__':
    main()
