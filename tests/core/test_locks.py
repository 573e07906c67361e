"One writer for each output: the second is refused, whatever the verb, and a dead owner is no owner."
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny

from geoseg import cli
from geoseg.core.locks import Owner, machine_id, process_born


@pytest.fixture(scope='module')
def other():
    "A living process that writes whatever a test says."
    with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b'\n')


def lock(path: Path, pid: int, **changes):
    "What a process leaves that takes a lock."
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = asdict(Owner.this()) | {'pid': pid, 'born': process_born(pid) or '1'} | changes
    path.write_text(json.dumps(owner))


OUTPUTS = {  # verb -> recipe, and what is locked, below `out` or RUN
    'fit': ('unet', 'RUN/.lock'), 'validate': ('unet', 'out/.lock'), 'test': ('unet', 'out/.lock'),
    'predict': ('unet', 'out/.lock'), 'predict ': ('nomeformer', 'out/.lock'),
    'calibrate': ('unet', 'out/.lock'), 'calibrate ': ('unet', 'RUN/.lock'),
    'halt-cal': ('deepglobe-trm', 'RUN/.lock'), 'localize': ('game4loc-same-area', 'out/.lock'),
    'localize ': ('game4loc-same-area', 'out/.gallery.lock'), 'inspect': ('unet', 'out/.lock'),
    'sweep': ('unet', 'out/.lock'),
}


@pytest.mark.parametrize('verb', OUTPUTS)
def test_a_verb_beside_a_second_writer(verb, own_run, other, tmp_path, capsys):
    from geoseg.world.layouts import world_data
    recipe, path = OUTPUTS[verb]
    run, out, verb = own_run(recipe), tmp_path / 'out', verb.strip()
    path = Path(path.replace('RUN', str(run)).replace('out/', f'{out}/'))
    gta = world_data('gta', size='tiny')
    new = ['--recipe', recipe, f'data={tiny.DATA}', *tiny.words(tiny.settings(recipe))]
    old = ['--checkpoint', str(run), f'out={out}']
    words = {'fit': [f'resume={run}', 'epochs=9'], 'inspect': [*new, f'out={out}'],
             'sweep': [*(word for word in new if not word.startswith('seed=')), 'seeds=[0]', f'out={out}'],
             'halt-cal': [*old, 'delta=0.5', 'by=sample'],
             'localize': [*old, f'photos={gta / "drone" / "images"}', f'tiles={gta}', f'gallery={out / "gallery"}']}
    lock(path, other.pid)
    before = tiny.files_of(run), tiny.files_of(out)
    status = cli.main([verb, *words.get(verb, old), '--force'])  # no way to write two things into one place
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert status == 2 and len(line) == 1 and f'is being written by process {other.pid} on ' in line[0]
    assert (tiny.files_of(run), tiny.files_of(out)) == before


def test_reading_from_a_run_that_trains_goes_on(own_run, other, tmp_path, capsys):
    run = own_run('unet')
    lock(run / '.lock', other.pid)
    for verb in ('validate', 'predict'):
        assert cli.main([verb, '--checkpoint', str(run)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize('how', ['gone', 'its number given out again', 'elsewhere and silent',
                                 'elsewhere, with --force'])
def test_the_lock_of_a_dead_owner_is_taken_over(how, trained, tmp_path, other):
    changes = {'gone': {'pid': 999_999_999}, 'its number given out again': {'born': '1'}}
    path = tmp_path / 'out' / '.lock'
    lock(path, **{'pid': other.pid} | changes.get(how, {'machine': '0badc0de', 'host': 'elsewhere'}))
    words = ['validate', '--checkpoint', str(trained), f'out={tmp_path / "out"}']
    if how == 'elsewhere and silent':
        assert cli.main(words) == 2  # it was heard of a moment ago
        os.utime(path, (time.time() - 700,) * 2)
    assert cli.main(words + ['--force'] * how.endswith('--force')) == 0
    assert not path.exists() and (tmp_path / 'out' / 'scores.json').is_file()


def test_of_many_that_find_a_dead_owner_one_writes(tmp_path):
    lock(tmp_path / '.lock', 999_999_999)
    code = f'''if 1:
        import sys, time
        from pathlib import Path
        from geoseg.core.locks import Lock, OutputLocked
        print('ready', flush=True)
        sys.stdin.readline()
        try:
            lock = Lock(Path({str(tmp_path)!r}))
            print('mine', flush=True)
            time.sleep(2)
            lock.release()
        except OutputLocked as error:
            print(error, flush=True)'''
    several = [subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(4)]
    for process in several:
        process.stdout.readline()
    for process in several:
        process.stdin.write('\n')
        process.stdin.flush()
    said = [process.communicate()[0].strip() for process in several]
    assert said.count('mine') == 1 and sum('is being written by' in line for line in said) == 3, said
    assert [*tmp_path.iterdir()] == []


def test_a_prediction_that_is_finished_says_so(trained, scene, tmp_path, caplog):
    words = ['predict', '--checkpoint', str(trained), f'data={scene}', 'window=64', f'out={tmp_path / "out"}']
    assert cli.main(words) == 0
    target = tmp_path / 'out' / 'scene_classes.tif'
    made = target.stat()
    caplog.set_level('INFO', 'geoseg')
    assert cli.main(words) == 0
    assert f'{target}: is finished already' in caplog.text and target.stat().st_mtime_ns == made.st_mtime_ns


def test_a_machine_is_a_host_a_boot_and_a_container():
    assert machine_id() == machine_id() and len(machine_id()) == 8
