"A verb that is killed leaves whole files and its inputs as they were, and ends as if it had not been: kill_verbs.py."
import pandas as pd
import pytest
import warm
from conftest import TESTS
from verbs import JOBS

QUICK = ('prepare patches', 'predict pictures', 'calibrate pictures', 'inspect meshes')


@pytest.mark.long
def test_verbs_that_are_killed(tiny_run, tmp_path):
    runs = [f'{recipe}={tiny_run(recipe)}' for recipe in dict.fromkeys(JOBS[name].recipe for name in QUICK)]
    done = warm.run(TESTS / 'kill_verbs.py', tmp_path / 'rows.csv', '--only', *QUICK, '--moments', 'writing', 'written',
                    '--runs', *runs)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    rows = pd.read_csv(tmp_path / 'rows.csv', keep_default_na=False)
    assert rows[['whole', 'identical']].all(axis=None) and rows['killed'].sum() >= 7, rows.to_string()
