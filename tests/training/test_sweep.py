"Sweeps."
from pathlib import Path

import pandas as pd
import pytest
import tiny
from test_table import in_process

from geoseg import cli
from geoseg.training.run import runs_in
from geoseg.training.search import begun_trials, choose, count_scored, open_study, tell

SMALL = tiny.settings('deepglobe-trm', val_share=None, ema=None, latent=None, lr=None, epochs=None, seed=None)
SMALL |= {'every_n_epochs': 0}
GRID = {'lr': {'low': 1e-5, 'high': 1e-2, 'log': True}, 'ema': [0.5, 0.9]}
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


@pytest.fixture
def quick(monkeypatch):
    'Notebooks run in this process.'
    monkeypatch.setattr('geoseg.training.sweep.papermill.execute_notebook', in_process)


def search_words(out, trials, **more) -> list[str]:
    'A search over the rate and the decay of the averaged weights.'
    seeds = more.pop('seeds', 1)
    given = SMALL | {'warmup_epochs': 0, 'trainer.limit_train_batches': 1} | more
    return ['sweep', '--recipe', 'deepglobe-trm', 'data=world:tiny', f'out={out}', f'trials={trials}',
            f'seeds={seeds}', 'grid={lr: {low: 1e-5, high: 1e-2, log: true}, ema: [0.5, 0.9]}',
            *tiny.words({'epochs': 1} | given)]


def test_a_search_goes_on_with_its_trials(tmp_path, capsys, quick):
    "Two trials, one of them begun by another process; the same words again run nothing; best first."
    tmp_path = tmp_path / 'out'
    assert cli.main(search_words(tmp_path, 1)) == 0
    study = open_study(tmp_path, 'maximize')
    begun = study.ask()
    lr = choose(begun, GRID)['lr']
    assert cli.main(search_words(tmp_path, 2)) == 0
    study = open_study(tmp_path, 'maximize')
    assert count_scored(study) == len(study.trials) == 2 and not begun_trials(study)
    assert study.trials[1].params['lr'] == lr
    rows = pd.read_csv(tmp_path / 'sweep.csv')
    assert rows['seed'].tolist() == [0, 0] and rows['lr'].iloc[1] == pytest.approx(lr)
    assert [trial.value for trial in study.trials] == pytest.approx(rows['mIoU/val'].tolist())
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.ckpt')}
    assert cli.main(search_words(tmp_path, 2)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.ckpt')}
    lines = capsys.readouterr().out.splitlines()[-2:]
    scores = [float(line.split()[-2]) for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_a_run_that_falls_behind_ends_early(tmp_path, quick):
    study = open_study(tmp_path, 'maximize')
    for _ in range(4):
        trial = study.ask()
        choose(trial, GRID)
        for epoch in range(4):
            trial.report(1., epoch)
        tell(study, trial.number, 1.)
    assert cli.main(search_words(tmp_path, 5, epochs=4, seeds='[0, 1]')) == 0
    [row] = pd.read_csv(tmp_path / 'sweep.csv').to_dict('records')  # the second seed is not run
    [run] = runs_in(tmp_path / row['key'])
    assert len(pd.read_csv(run / 'metrics.csv')) == 2
    assert 'the run ends with epoch 1' in (run / 'log.txt').read_text()
    last = open_study(tmp_path, 'maximize').trials[-1]
    assert last.state.name == 'PRUNED' and last.user_attrs == {'ended': 1}


@pytest.mark.parametrize(('words', 'said'), [
    (['trials=0'], 'trials is 0'), (['trials=3', 'grid={}'], 'a grid to search'),
    (['trials=3', 'job=1'], 'no list of jobs'),
    (['trials=3', 'grid={lr: {low: 1, high: 0.1}}'], 'low below high'),
    (['trials=3', 'grid={lrr: {low: 0.1, high: 1}}'], "'lrr'"), (['grid={lr: {low: 0.1, high: 1}}'], 'give trials'),
    (['seeds=1', 'grid={}', 'job=1'], 'job is 1, expected one of the 1 jobs'),
    (['job=0', 'workers=2'], 'leave out workers')])
def test_bad_searches_are_one_line(tmp_path, capsys, words, said):
    given = ['grid={t_max: [2]}'] * (not any(word.startswith('grid') for word in words))
    start = ['sweep', '--recipe', 'deepglobe-trm', 'data=world:tiny', f'out={tmp_path / "out"}', *tiny.words(SMALL)]
    assert cli.main([*start, *given, *words]) == 2
    last = capsys.readouterr().err.strip().splitlines()
    assert len(last) == 1 and said in last[0]
    assert not (tmp_path / 'out').exists()
