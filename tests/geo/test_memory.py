"The memory in several processes."
import torch

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
