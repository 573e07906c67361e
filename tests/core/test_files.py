"Files are whole or absent: no module writes past `core.files`, and a disk that fills leaves nothing half written."
import ast
import resource
from pathlib import Path

import pytest
from conftest import TESTS
from test_table import in_process
from verbs import JOBS, look, own_cache

import geoseg
from geoseg import cli
from geoseg.core.files import fill_folder, writing
from geoseg.core.locks import DRAFT
from geoseg.inference.rasters.rasters import FILES

ROOT = Path(geoseg.__file__).parent
WRITES = {'write_text', 'write_bytes', 'to_csv', 'to_json', 'to_parquet', 'to_file', 'tofile', 'save', 'save_file',
          'savez', 'savez_compressed', 'savetxt', 'savefig', 'imwrite', 'dump', 'export', 'write_dataframe', 'copyfile',
          'copy2', 'copytree', 'open_memmap', 'to_feather', 'to_pickle', 'touch', 'mkstemp', 'mkdtemp',
          'NamedTemporaryFile', 'TemporaryDirectory', 'TemporaryFile'}
WITHIN = {  # function or module -> why it may
    'core.files': 'is the helper',
    'core.locks': 'a lock is made in one step, by a link',
    **dict.fromkeys(('core.remote.DiskCache', 'core.remote.Parts'), 'a cache: a part counts once the index names it'),
    'core.streams.peak_resident_memory': 'a switch of the kernel',
    'inference.serve.Served.answer': 'the folder of one request, removed with it',
    'inference.rasters.draft.Draft': 'arrays that are taken up again; `done.json` says how far they are',
    'models.onnx.int8_bytes': 'onnxruntime hands its file over by name: the folder of one call, removed with it',
    'training.record.RunRecord.save': 'a copy beside its place, where nothing can be linked; moved in one step',
    **dict.fromkeys(('data.meshes.prepared._prepare', 'data.meshes.prepared._write_pixels',
                     'data.pictures.patches.DeepGlobeData', 'data.pictures.patches.PixelStore', 'world.layouts'),
                    'writes into the folder of `fill_folder`'),
}


def opens_to_write(call: ast.Call) -> bool:
    "Whether `open` has a mode with w, a, x or +."
    first = call.args[0] if isinstance(call.func, ast.Attribute) and call.args else None
    modes = [*call.args[1:], *(k.value for k in call.keywords if k.arg == 'mode'), *([first] if first else [])]
    return any(isinstance(mode, ast.Constant) and isinstance(mode.value, str) and len(mode.value) <= 3
               and set(mode.value) & set('wax+') for mode in modes)


def patched_class(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    "The class of a method that `@patch` puts into it; else nothing."
    patched = any(ast.unparse(decorator).partition('(')[0] == 'patch' for decorator in node.decorator_list)
    return [ast.unparse(node.args.args[0].annotation)] if patched else []


def bypasses(tree: ast.Module, module: str) -> list[str]:
    "Calls that write, neither in a `with writing(…)` nor into memory."
    found = []

    def visit(node, names, safe, memory):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [*names, *patched_class(node), node.name]
            memory = memory | {target.id for part in ast.walk(node) if isinstance(part, ast.Assign)
                               and 'IO()' in ast.unparse(part.value) for target in part.targets
                               if isinstance(target, ast.Name)}
        if isinstance(node, ast.With):
            safe = safe or any(ast.unparse(item.context_expr).startswith('writing(') for item in node.items)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            arguments = {part.id for argument in node.args for part in ast.walk(argument) if isinstance(part, ast.Name)}
            writes = name in WRITES or name == 'open' and opens_to_write(node)
            text = name in ('to_csv', 'to_json') and not node.args  # returns it
            if name == 'save' and not (isinstance(node.func.value, ast.Name) and node.func.value.id in ('np', 'torch')):
                writes = bool(isinstance(node.func.value, ast.Name) and node.func.value.id in ('page', 'image', 'map_')
                              or 'fromarray' in ast.unparse(node.func))
            if name in ('dump', 'export'):
                of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ''
                writes = of in ('json', 'yaml', 'mesh') and len(node.args) > 1
            where = '.'.join([module, *names])
            allowed = any(where == other or where.startswith(f'{other}.') for other in WITHIN)
            if writes and not (text or safe or allowed or arguments & memory):
                found.append(f'{where}: line {node.lineno}: {ast.unparse(node)[:60]}')
        for child in ast.iter_child_nodes(node):
            visit(child, names, safe, memory)

    visit(tree, [], False, set())
    return found


def test_no_module_writes_past_the_helper():
    paths = [path for path in ROOT.rglob('*.py') if path.name != '_modidx.py']
    found = [line for path in paths for line in bypasses(
        ast.parse(path.read_text(encoding='utf-8')), '.'.join(path.relative_to(ROOT).with_suffix('').parts))]
    assert found == [], '\n'.join(found)


@pytest.mark.parametrize('text', [
    "path.write_text('a')", "open(path, 'w')", "path.open('wb')", "open(path, mode='r+b')", 'torch.save(a, path)',
    'np.savez(path, a)', "rasterio.open(path, 'w', **how)", 'table.to_csv(path)', 'figure.savefig(path)',
    'json.dump(a, file)', 'page.save(str(path))', 'Image.fromarray(a).save(path)', 'tempfile.mkdtemp()'])
def test_the_check_sees_a_bypass(text):
    assert bypasses(ast.parse(f'def f(path):\n    {text}'), 'a')
    assert not bypasses(ast.parse(f'def f(path):\n    with writing(path) as draft:\n        {text}'), 'a')


def test_a_patched_method_is_of_its_class():
    found, = bypasses(ast.parse("@patch\n@b\ndef f(self: A, path):\n    path.write_text('a')"), 'm')
    assert found.startswith('m.A.f: line 4')


@pytest.mark.parametrize('text', ["open(path)", "open(path, 'rb')", 'table.to_csv(index=False)', 'memory.save(path)',
                                  "write_whole(path, 'a')", 'content = io.BytesIO()\n    torch.save(a, content)'])
def test_the_check_lets_others_pass(text):
    assert not bypasses(ast.parse(f'def f(path):\n    {text}'), 'a')


# a disk that fills ---------------------------------------------------------------------------------------------------

@pytest.fixture
def full_disk():
    "`full_disk(bytes)`: from now on no file may grow beyond; without a number, they may again."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit()


DISKS = {  # job -> the largest file that fits, in bytes
    'prepare patches': [20_000], 'prepare meshes': [3_000],
    'fit': [9_000, 100_000],
    'validate': [400], 'test pictures': [1_500], 'test places': [150], 'test meshes': [400],
    'predict pictures': [50, 6_000], 'predict the own pictures': [300], 'predict GeoTIFFs': [2_000],
    'update-map': [2_000, 30_000], 'changes': [30_000], 'sample': [20_000],
    'predict with a memory': [6_000], 'predict meshes': [6_000, 40_000], 'predict photos': [300],
    'gallery': [1_000], 'localize': [4_000],
    'calibrate pictures': [20_000, 200_000], 'calibrate places': [400], 'calibrate meshes': [400],
    'halt-cal': [20_000],
    'sweep': [100_000], 'find-lr': [9_000], 'export': [3_000],
    'table': [300], 'init': [300], 'statistics': [100],
    'audit pictures': [200, 5_000],
    'audit GeoTIFFs': [200, 5_000],
    'inspect pictures': [5_000], 'inspect places': [100], 'inspect meshes': [100],
}


def test_every_verb_and_every_kind_of_data_has_a_job():
    from geoseg.evaluation.kinds import KINDS
    from geoseg.inference.predict import find_answer  # noqa: F401  all answers are known
    assert {job.verb for job in JOBS.values()} == {*cli.VERBS} - {'recipes'}
    assert {name for name, job in JOBS.items() if job.writes} == {*DISKS}
    recipes = {'segmentation': 'unet', 'meshes': 'nomeformer', 'localization': 'game4loc-same-area'}
    for verb in ('test', 'calibrate', 'inspect', 'predict'):
        assert {job.recipe for job in JOBS.values() if job.verb == verb} >= {recipes[kind] for kind in KINDS}, verb


@pytest.mark.parametrize(('name', 'size'), [(name, size) for name, sizes in DISKS.items() for size in sizes])
def test_a_verb_on_a_disk_that_fills(name, size, own_run, full_disk, tmp_path, capsys, monkeypatch):
    job, out = JOBS[name], tmp_path / 'out'
    monkeypatch.chdir(TESTS.parent)
    monkeypatch.setattr('geoseg.training.sweep.papermill.execute_notebook', in_process)
    run = own_run(job.recipe)
    if job.verb == 'prepare':
        monkeypatch.setenv('GEOSEG_CACHE', str(own_cache(tmp_path / 'cache')))
    words = job.words(run, out)
    full_disk(size)
    status = cli.main(words)
    full_disk()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert status == 2, 'the disk was not full: choose a smaller size'
    assert len(lines) == 1 and 'cannot be written' in lines[0] and str(tmp_path.parent.parent) in lines[0], lines
    for folder in (run, out, tmp_path / 'cache' / 'patches', tmp_path / 'cache' / 'meshes'):
        if folder.exists():
            look(folder)


@pytest.mark.parametrize('layer', ['classes', 'probabilities', 'polygons', 'geojson'])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_a_raster_on_a_disk_that_fills(layer, share, trained, scene, full_disk, tmp_path, capsys, monkeypatch):
    words = ['predict', '--checkpoint', str(trained), f'data={scene}', 'window=64', 'batch_size=8']
    words += [f'write=[{layer}]'] * (layer != 'classes')
    assert cli.main([*words, f'out={tmp_path / "whole"}']) == 0
    size = next((tmp_path / 'whole').glob(f'*_{FILES[layer]}')).stat().st_size
    raw = 300 * 410 * (28 if layer == 'probabilities' else 1)  # the array, which lies on the disk first
    monkeypatch.setattr('geoseg.inference.rasters.stream.Draft.write', unlimited(full_disk))
    full_disk(int(share * size))
    status = cli.main([*words, f'out={tmp_path / "out"}'])
    full_disk()
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith('geoseg ')]
    assert status == 2 and len(line) == 1 and 'cannot be written' in line[0], (status, line, size, raw)
    look(tmp_path / 'out')
    monkeypatch.undo()
    assert cli.main([*words, f'out={tmp_path / "out"}']) == 0  # goes on where there is room
    look(tmp_path / 'out')


def unlimited(full_disk):
    "Arrays of a draft are as large as the raster: they are written whatever the limit."
    from geoseg.inference.rasters.draft import Draft
    write = Draft.write

    def wrapped(self, *args):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        full_disk()
        write(self, *args)
        full_disk(limit)

    return wrapped


def test_a_folder_of_the_cache_on_a_disk_that_fills(full_disk, tmp_path):
    from geoseg.world.layouts import world_data
    for layout in ('raster', 'deepglobe'):
        full_disk(5_000)
        with pytest.raises(OSError, match='cannot be written'):
            world_data(layout, tmp_path, size='tiny')
        full_disk()
        assert [*tmp_path.rglob('*.*')] == []


def test_what_a_killed_process_left_goes(tmp_path):
    for name in ('a.csv', 'b.ckpt'):
        (tmp_path / f'{DRAFT}{"0" * 8}-1-1-{name}').touch()  # of another machine, just now
    dead = tmp_path / (DRAFT + '-'.join([geoseg.core.locks.machine_id(), '999999999', '1', 'token']))
    dead.mkdir()
    (dead / 'x').touch()
    fill_folder(tmp_path / 'made', lambda folder: (folder / 'y').touch())
    assert not dead.exists() and len([*tmp_path.glob(f'{DRAFT}*')]) == 2


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / 'mine').write_text('mine')
    (tmp_path / 'table.csv').symlink_to('mine')
    with writing(tmp_path / 'table.csv') as draft:
        draft.write_text('new')
    assert (tmp_path / 'mine').read_text() == 'mine' and (tmp_path / 'table.csv').read_text() == 'new'
