"Sweeps."
from pathlib import Path

import pandas as pd
import pytest
import tiny

from geoseg import cli

SMALL = tiny.settings('deepglobe-trm', val_share=None, ema=None, latent=None, lr=None, epochs=None, seed=None)
SMALL |= {'every_n_epochs': 0}
pytestmark = pytest.mark.usefixtures('cache')


def test_a_sweep_on_a_cluster(tmp_path, capsys, monkeypatch):
    "A seed by the address of a scheduler, then none: the row is there."
    from distributed import LocalCluster
    monkeypatch.chdir(Path(__file__).parents[2])
    words = ['sweep', '--recipe', 'deepglobe-trm', 'data=world:tiny', 'epochs=1', 'seeds=[3]', f'out={tmp_path}',
             'grid={t_max: [2]}', *tiny.words(SMALL)]
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        assert cli.main([*words, f'address={cluster.scheduler_address}']) == 0
    first = capsys.readouterr().out
    assert pd.read_csv(tmp_path / 'sweep.csv')['seed'].tolist() == [3]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == first
