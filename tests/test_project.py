"""The project around the package: what is installed and declared, and how `make check` finds faults."""
import ast
import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import check
import docs
import nbformat
import pytest
from check import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from readme import readme


def test_import_is_quick_and_loads_no_heavy_library():
    code = '''
import sys, time
start = time.perf_counter()
import geoseg
print(time.perf_counter() - start, *{'torch', 'lightning', 'numpy', 'pandas'} & set(sys.modules))
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    took, *heavy = done.stdout.split()
    assert float(took) < 1 and not heavy


@pytest.fixture
def setup_arguments(monkeypatch):
    "What setup.py hands to setuptools."
    setuptools = pytest.importorskip('setuptools')
    handed = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **arguments: handed.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path('setup.py')
    return handed


def test_setup_and_settings_agree(setup_arguments):
    import geoseg
    facts, installed = docs.settings(), metadata.distribution('geoseg')
    assert geoseg.__version__ == installed.version == facts['version'] == setup_arguments['version']
    assert installed.metadata['Name'] == facts['lib_name']
    assert installed.metadata['Summary'] == facts['description']
    script, = installed.entry_points.select(group='console_scripts')
    assert f'{script.name}={script.value}' == facts['console_scripts'].strip()
    needed = {name(line) for line in installed.requires if 'extra ==' not in line}
    assert needed == declared() == {name(line) for line in setup_arguments['install_requires']}


def test_the_wheel_holds_all_of_the_package(setup_arguments):
    geoseg = ROOT / 'geoseg'
    folders = {path.parent.relative_to(ROOT).as_posix() for path in geoseg.rglob('*.py')}
    assert {package.replace('.', '/') for package in setup_arguments['packages']} == folders
    packed = {path for pattern in setup_arguments['package_data']['geoseg'] for path in geoseg.glob(pattern)}
    others = {path for path in geoseg.rglob('*') if path.is_file() and path.suffix not in ('.py', '.pyc')}
    assert packed == others and any(path.suffix == '.yaml' for path in packed)


def name(requirement: str) -> str:
    "The normalised name of a distribution in a requirement: 'jsonargparse[signatures]>=4' -> 'jsonargparse'."
    return re.sub(r'[-_.]+', '-', re.match(r'[\w.-]+', requirement)[0]).lower()


OPTIONAL = {'IPython'}  # imported only where a notebook is running, which brings it


def declared(extras: bool = False) -> set[str]:
    "Names of the distributions that settings.ini requires, also those of its extras but for `dev`."
    lists = [text for key, text in docs.settings().items()
             if key == 'requirements' or extras and key.endswith('_requirements') and key != 'dev_requirements']
    return {name(line) for text in lists for line in text.splitlines() if line}


def imported(path: Path) -> set[str]:
    "Top-level modules that a file imports, of other distributions."
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module.split('.')[0])
    return modules - sys.stdlib_module_names - OPTIONAL - {'geoseg'}


def test_what_the_package_imports_is_declared():
    known, owners = declared(extras=True), metadata.packages_distributions()
    undeclared = [f'{path.relative_to(ROOT)} imports {module}'
                  for path in sorted((ROOT / 'geoseg').rglob('*.py')) for module in sorted(imported(path))
                  if not known & {name(owner) for owner in owners.get(module, [])}]
    assert not undeclared, '\n'.join(undeclared)


@pytest.fixture(scope='module')
def tidy(tmp_path_factory):
    "A project of one module and a front page, in step."
    root, made = tmp_path_factory.mktemp('tidy'), tmp_path_factory.mktemp('made')
    for file in ('settings.ini', 'pyproject.toml', 'geoseg/__init__.py', 'nbs/data/shared.ipynb'):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    one, two = new_output('stream', text='1\n'), new_output('execute_result', {'text/plain': '2'})
    cells = [new_markdown_cell('# Front page\n\n[a](data/shared.ipynb#a) ![b](images/map.png) `[c](d)`'),
             new_code_cell('#| hide\nimport numpy'),
             new_code_cell('#| echo: false\nprint(1)', outputs=[one]),
             new_code_cell('#| code-fold: show\n1 + 1', outputs=[two])]
    nbformat.write(new_notebook(cells=cells), root / 'nbs' / 'index.ipynb')
    check.nbdev_copy(root, made)
    shutil.copytree(made, root, dirs_exist_ok=True)
    (root / 'README.md').write_text(readme(root), encoding='utf-8')
    return root


def test_a_tidy_project_has_no_problems(tidy):
    assert check.problems(tidy) == []


def test_readme_is_the_front_page(tidy):
    assert (tidy / 'README.md').read_text(encoding='utf-8').split('\n\n', 1)[1] == (
        '# Front page\n\n[a](nbs/data/shared.ipynb#a) ![b](nbs/images/map.png) `[c](d)`\n\n'
        '    1\n\n```python\n1 + 1\n```\n\n    2\n')


@pytest.fixture
def project(tidy, tmp_path):
    "A copy of the tidy project, to be spoilt."
    return shutil.copytree(tidy, tmp_path / 'project')


SHARED, NOTEBOOK, INDEX = 'geoseg/data/shared.py', 'nbs/data/shared.ipynb', 'nbs/index.ipynb'
PATH = '/'.join(['', 'home', 'someone', 'data'])


@pytest.mark.parametrize('file, old, new, said', [
    (SHARED, 'def ', 'def  ', f'{SHARED}: not what the notebooks'),
    ('geoseg/_modidx.py', 'shared', 'shard', 'geoseg/_modidx.py: not what'),
    ('settings.ini', 'version = ', 'version = 9.', 'geoseg/__init__.py: not what'),
    ('README.md', 'Front', 'Back', 'README.md: differs'),
    (NOTEBOOK, '"execution_count": null', '"execution_count": 7', f'{NOTEBOOK}: not clean'),
    (NOTEBOOK, '"cells"', 'cells', f'{NOTEBOOK}: not a notebook'),
    (INDEX, 'Front page', 'x' * 401_000, f'{INDEX}: 40'),
    (INDEX, 'Front page', PATH, f'{INDEX}, cell 1: absolute path'),
    (INDEX, '"1\\n"', f'"{PATH}"', f'{INDEX}, cell 3: absolute path'),
    (INDEX, '"text/plain"', '"image/png"', f'README.md: {INDEX}, cell 4: the output'),
], ids=['module', 'index of symbols', 'version', 'README', 'uncleaned', 'unreadable', 'large', 'path in text',
        'path in output', 'picture on the front page'])
def test_an_edit_is_told(project, file, old, new, said):
    text = (project / file).read_text(encoding='utf-8')
    assert old in text
    (project / file).write_text(text.replace(old, new, 1), encoding='utf-8')
    before = {path: path.read_bytes() for path in project.rglob('*') if path.is_file()}
    complaints = check.problems(project)
    assert any(line.startswith(said) for line in complaints), complaints
    assert before == {path: path.read_bytes() for path in project.rglob('*') if path.is_file()}


def test_missing_and_left_over_files_are_told(project):
    (project / SHARED).unlink()
    (project / 'README.md').unlink()
    (project / 'geoseg/data/old.py').touch()
    missing, left_over, readme_missing = check.problems(project)
    assert missing == f'{SHARED}: missing' and readme_missing.startswith('README.md: ')
    assert left_over == 'geoseg/data/old.py: no notebook makes it; delete it'


@pytest.mark.skipif(not shutil.which('git'), reason='no git')
def test_a_path_in_a_script_is_told(project):
    subprocess.run(['git', 'init', '--quiet', str(project)], check=True)
    (project / '.gitignore').write_text('ignored.py\n')
    for file in ('script.py', 'ignored.py'):
        (project / file).write_text(f'one = 1\nfolder = "{PATH}"\n')
    assert check.problems(project) == [f'script.py, line 2: absolute path {PATH.removesuffix("data")}']
