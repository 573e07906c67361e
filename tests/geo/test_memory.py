"The memory in several processes, and one that comes from somebody else."
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from geoseg.geo.memory import GeoMemory


def entries(seed: int, n: int):
    'Arguments of a write.'
    drawn = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 2, generator=drawn) * 40, torch.randn(n, 6, generator=drawn),
            torch.randint(0, 4, (n,), generator=drawn), torch.rand(n, generator=drawn).double())


WRITES = [(5, 3), (0, 40), (7, 0), (0, 0), (30, 2)]  # entries that each of two processes writes


def write_as(rank: int, folder: str):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    memory = GeoMemory(6, slots=3, radius=10.)
    for step, counts in enumerate(WRITES):
        memory.write(*entries(2 * step + rank, counts[rank]))
    torch.save(memory.state(), f'{folder}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_every_process_holds_the_same_memory(tmp_path):
    torch.multiprocessing.start_processes(write_as, (str(tmp_path),), 2, start_method='fork')
    one, two = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    alone = GeoMemory(6, slots=3, radius=10.)
    for step, counts in enumerate(WRITES):
        parts = zip(*(entries(2 * step + rank, counts[rank]) for rank in (0, 1)), strict=True)
        alone.write(*(torch.cat(pair) for pair in parts))
    assert len(alone) > 20
    for name, value in alone.state().items():
        assert torch.equal(value, one[name]) and torch.equal(value, two[name]), name


def stored(folder, about=None, tables=None):
    "A small memory that was saved, then changed; its name."
    memory = GeoMemory(4, classes=2)
    memory.write(torch.rand(9, 2) * 50, torch.rand(9, 4), torch.arange(9), torch.arange(9, dtype=torch.float64),
                 torch.rand(9, 2))
    memory.save(folder / 'a')
    known = json.loads((folder / 'a.json').read_text())
    (folder / 'a.json').write_text(about if isinstance(about, str) else json.dumps(known | (about or {})))
    kept = load_file(folder / 'a.safetensors')
    kept |= {name: change(kept[name]).contiguous() for name, change in (tables or {}).items()}
    save_file({name: value for name, value in kept.items() if value.numel()}, folder / 'a.safetensors')
    return folder / 'a'


@pytest.mark.parametrize('about', ['{}', '[]', '5', '{', '[' * 100_000, *({key: value} for key, value in [
    ('slots', 10**12), ('slots', 7), ('dim', 'a'), ('dim', 5), ('dtype', 'load'), ('radius', -1), ('radius', math.nan),
    ('evil', 1), ('classes', [1])])], ids=lambda about: str(about)[:30])
def test_a_memory_of_a_stranger(tmp_path, about):
    with pytest.raises(ValueError, match=r'a\.(json|safetensors)'):
        GeoMemory.load(stored(tmp_path, about))


@pytest.mark.parametrize('name, change', [
    ('about', lambda x: x[:3]), ('about', lambda x: x * 0), ('rows', lambda x: x + 1000), ('rows', lambda x: x * 0),
    ('keys', lambda x: x.float()), ('keys', lambda x: x[:0]), ('xy', lambda x: x[:1]), ('xy', lambda x: x[..., :1]),
    ('features', lambda x: x[..., 0]), ('features', lambda x: x * math.nan), ('stamp', lambda x: x[:, :3])])
def test_tables_of_a_memory_fit_together(tmp_path, name, change):
    assert len(GeoMemory.load(stored(tmp_path))) == 9
    with pytest.raises(ValueError, match=r'a\.safetensors'):
        GeoMemory.load(stored(tmp_path, tables={name: change}))
