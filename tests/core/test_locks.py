"One writer for each output: the second is refused, whatever the verb, and a dead owner is no owner."
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny
from tiny import same
from verbs import JOBS, contents, look, own_cache, read, world

from geoseg import cli
from geoseg.core.locks import DRAFT, Lock, OutputLocked, Owner, machine_id, process_born, remove_leftovers
from geoseg.models.checkpoints import change_card
from geoseg.training.ledger import Ledger


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


OUTPUTS = {name: 'out/.lock' for name, job in JOBS.items() if job.writes and job.verb not in ('prepare', 'fit')} | {
    'fit ': 'RUN/.lock', 'calibrate pictures ': 'RUN/.lock', 'calibrate meshes ': 'RUN/.lock', 'halt-cal ': 'RUN/.lock',
    'table': 'out/.table.csv.lock', 'init': 'out/.config.yaml.lock', 'localize ': 'out/.gallery.lock',
    'predict photos ': 'out/.gallery.lock'}  # job -> what is locked


@pytest.mark.parametrize('name', OUTPUTS)
def test_a_verb_beside_a_second_writer(name, own_run, other, tmp_path, capsys):
    job, out = JOBS[name.strip()], tmp_path / 'out'
    run = own_run(job.recipe)
    path = Path(OUTPUTS[name].replace('RUN', str(run)).replace('out/', f'{out}/'))
    words = ['fit', f'resume={run}', 'epochs=9'] if job.verb == 'fit' else job.words(run, out)
    lock(path, other.pid)
    before = tiny.files_of(run), tiny.files_of(out)
    status = cli.main([*words, '--force'])  # no way to write two things into one place
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert status == 2 and len(line) == 1 and f'is being written by process {other.pid} on ' in line[0]
    assert (tiny.files_of(run), tiny.files_of(out)) == before


@pytest.mark.parametrize(('changes', 'taken'), [
    ({}, True), ({'life': 1}, False), ({'life': 2}, False), ({'job': 'gpu/8'}, False), ({'job': 'cpu/7'}, False),
    ({'job': ''}, False), ({'job': 'gpu/7_3'}, False)])
def test_a_job_that_is_queued_again_takes_its_locks_on_another_node(tmp_path, monkeypatch, changes, taken):
    "A preempted job, or one whose node has failed, begins again elsewhere long before the lock counts as silent."
    lock(tmp_path / '.lock', 1, **{'machine': '0badc0de', 'host': 'node1', 'job': 'gpu/7', 'life': 0} | changes)
    for name, value in {'JOB_ID': '7', 'CLUSTER_NAME': 'gpu', 'RESTART_COUNT': '1'}.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    with contextlib.nullcontext() if taken else pytest.raises(OutputLocked, match='on node1'):
        Lock(tmp_path).release()


def test_rows_that_two_processes_add_stay(tmp_path):
    children = []
    for name in 'ab':
        children.append(os.fork())
        if children[-1] == 0:
            for i in range(15):
                Ledger(tmp_path, 'rows').add(f'{name}{i}', {'i': i})
            os._exit(0)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert len(Ledger(tmp_path, 'rows').table()) == 30 and [path.name for path in tmp_path.iterdir()] == ['rows.csv']


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


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize('name', [name for name, job in JOBS.items() if job.verb == 'prepare'])
def test_two_that_prepare_the_same_end_with_the_same(name, force, tmp_path, monkeypatch, capsys):
    """Prepared data lie under a name that says what they are made of, so a second writer is not refused: each makes a
    draft of its own, neither removes that of the other, and who comes last finds what it would have written."""
    caches = {part: own_cache(tmp_path / part) for part in ('alone', 'both')}
    words = [*JOBS[name].words(tmp_path / 'run', tmp_path / 'out'), *['force=true'] * force]

    def prepare(cache):
        monkeypatch.setenv('GEOSEG_CACHE', str(cache))
        assert cli.main(words) == 0, capsys.readouterr().err

    prepare(caches['alone'])
    if force:
        prepare(caches['both'])
    at_the_end, go_on = (os.pipe() for _ in range(2))
    child = os.fork()
    if child == 0:  # the first: it has written all, and is about to give it its name, when the second begins
        rename = os.rename

        def renaming(*args):
            if not os.get_blocking(at_the_end[1]):
                return rename(*args)
            os.set_blocking(at_the_end[1], False)
            os.write(at_the_end[1], b'x')
            os.read(go_on[0], 1)
            return rename(*args)

        os.rename = renaming
        try:
            monkeypatch.setenv('GEOSEG_CACHE', str(caches['both']))
            os._exit(cli.main(words))
        except BaseException:
            os._exit(1)
    assert os.read(at_the_end[0], 1)
    prepare(caches['both'])
    os.write(go_on[1], b'x')
    assert os.waitpid(child, 0)[1] == 0
    ends = [dict(contents(*(path for path in cache.iterdir() if path.name != 'world'))) for cache in caches.values()]
    assert ends[0].keys() == ends[1].keys() and ends[0]
    for path in caches['both'].iterdir():
        if path.name != 'world':
            look(path)  # no draft is left
    assert all(same(*map(read, pair)) for pair in zip(*(end.values() for end in ends), strict=True))


@pytest.mark.parametrize('name', [name for name, job in JOBS.items() if job.verb in ('predict', 'localize')
                                  and name != 'predict the own pictures'])
def test_a_prediction_that_is_finished_says_so(name, own_run, tmp_path, capsys, caplog):
    job, out = JOBS[name], tmp_path / 'out'
    run = own_run(job.recipe)
    words, caplog = job.words(run, out), [caplog.set_level('INFO', 'geoseg'), caplog][1]

    def again(*more):
        caplog.clear()
        before = tiny.files_of(out)
        assert cli.main([*words, *more]) == 0, capsys.readouterr().err
        finished = f'{out}: is finished already, by the same job' in caplog.text
        assert finished == (tiny.files_of(out) == before)
        return finished

    assert not again()
    told = capsys.readouterr().out
    assert again() and capsys.readouterr().out == told
    files = sorted(path for path in out.rglob('*') if path.suffix in ('.png', '.tif', '.ply', '.csv', '.safetensors'))
    files[-1].unlink()
    assert not again() and files[-1].is_file()  # what is missing is written
    change_card(run / 'checkpoints/best.ckpt', {'temperature': 2.})
    assert not again()  # another checkpoint
    assert not again('k=2' if 'game4loc' in job.recipe else 'batch_size=3')  # other options


@pytest.mark.parametrize('name', ['predict pictures', 'predict GeoTIFFs', 'predict meshes', 'predict photos'])
def test_a_prediction_of_changed_data_is_another(name, own_run, tmp_path, caplog, capsys):
    job, out = JOBS[name], tmp_path / 'out'
    layout, _, rest = (job.data or {'nomeformer': 'mesh', 'game4loc-same-area': 'gta'}[job.recipe]).partition('/')
    data = shutil.copytree(world(layout), tmp_path / 'data') / rest
    other_data = ('data=', 'tiles=', 'gallery=')
    words = [word for word in job.words(own_run(job.recipe), out) if not word.startswith(other_data)] + [f'data={data}']
    caplog.set_level('INFO', 'geoseg')
    assert cli.main(words) == 0, capsys.readouterr().err
    files = [data] if data.is_file() else sorted(data.rglob('*'))
    first = next(path for path in files if path.suffix in ('.png', '.tif', '.ply', '.obj'))
    for touched in (True, False):
        if touched:
            os.utime(first)
        caplog.clear()
        assert cli.main(words) == 0, capsys.readouterr().err
        assert (f'{out}: is finished already' in caplog.text) != touched


def test_a_machine_is_a_host_a_boot_and_a_container():
    assert machine_id() == machine_id() and len(machine_id()) == 8


def leave_pipe(path):
    os.mkfifo(path)


def leave_link(path):
    path.symlink_to('nowhere')


@pytest.mark.parametrize('leave', [leave_pipe, leave_link, Path.mkdir, *(
    lambda path, text=text: path.write_text(text) for text in (
        '[' * 100_000, '{}', '5', '"a"', 'x' * 100_000, json.dumps(asdict(Owner.this()) | {'pid': '../self'}),
        json.dumps(asdict(Owner.this()) | {'pid': 10**30, 'machine': machine_id()})))])
def test_what_is_no_lock_is_somebody_elses(tmp_path, leave):
    leave(tmp_path / '.lock')
    with pytest.raises(OutputLocked, match='by another process'):
        Lock(tmp_path)
    assert os.path.lexists(tmp_path / '.lock') and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('name', ['x-\u00b2-y', 'x-\u0661-y', 'x-1-', '--', 'x-' + '9' * 5000, 'x-999999999-1'])
def test_a_draft_of_any_name(tmp_path, name):
    name = f'{DRAFT}{name}'[:250]
    (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert (tmp_path / name).exists()  # nobody can say that its process is gone
