"The script that measures a GPU runs on the CPU at tiny sizes."
import csv

import gpu


def test_every_kind_of_row(tmp_path, capsys):
    out = tmp_path / 'gpu.csv'
    words = ['--tiny', '--device', 'cpu', '--out', str(out)]
    assert gpu.main([*words, '--rows', 'tiled|memory|NCCL']) == 0
    table = list(csv.DictReader(out.open()))
    left = {row['row']: row['remark'] for row in table if not row['ours']}
    assert len(table) == 3 and left == {'two processes, NCCL': 'left out: two GPUs are needed'}
    assert all(float(row['ours']) > 0 and float(row['ratio']) > 0 for row in table if row['ours'])
    assert gpu.main([*words, '--rows', '^resume|training nomeformer,']) == 0
    exact, step = csv.DictReader(out.open())
    assert (exact['row'], float(exact['ours'])) == ('resume', 0) and '0 is exact' in exact['remark']
    assert float(step['ours']) > 0 and '32 bits' in step['remark']
    assert gpu.main([*words, '--seconds', '-1']) == 0  # nothing is begun when the time is over, and each row says so
    table = list(csv.DictReader(out.open()))
    assert len(table) == len([*gpu.rows()]) and all('were over' in row['remark'] for row in table)
