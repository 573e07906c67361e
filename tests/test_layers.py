"The rooms of the package: a module imports from its own layer or from lower ones, and nothing imports in a circle."
import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import geoseg

ROOT = Path(geoseg.__file__).parent
LAYERS = [{'core', 'geo', 'metrics'}, {'data'}, {'models', 'world'}, {'tasks', 'visualization'}, {'training'},
          {'inference'}, {'evaluation'}, {'lab'}, {'cli'}]
LONGEST = 700  # lines of a module


def modules(root: Path = ROOT) -> dict[str, Path]:
    "Modules that notebooks make, by dotted name below the package."
    paths = (p for p in sorted(root.rglob('*.py')) if p.name not in ('__init__.py', '_modidx.py'))
    return {'.'.join(p.relative_to(root).with_suffix('').parts): p for p in paths}


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    "Modules of the package that a module imports anywhere, in functions too."
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom):
            above = name.split('.')[:-node.level] if node.level else []
            words = (node.module or '').split('.') if node.module else []
            if not node.level:
                if not words or words[0] != 'geoseg':
                    continue
                words = words[1:]
            base = '.'.join([*above, *words])
            imported |= {f'{base}.{alias.name}'.lstrip('.') for alias in node.names} | {base}
        elif isinstance(node, ast.Import):
            imported |= {alias.name.removeprefix('geoseg.') for alias in node.names if alias.name.startswith('geoseg')}
    return imported & known - {name}


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    "Module -> modules that it imports."
    paths = modules(root)
    return {name: imports(name, path, set(paths)) for name, path in paths.items()}


def layer(name: str) -> int:
    "The number of a module's layer; an error for a room that has none."
    room = name.partition('.')[0]
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


def upward(edges: dict[str, set[str]]) -> list[str]:
    "Imports from a higher layer."
    return [f'{name} imports {other}' for name, others in edges.items() for other in sorted(others)
            if layer(other) > layer(name)]


def circle(edges: dict[str, set[str]]) -> list[str]:
    "The names of a circle; none where there is none."
    try:
        list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def folders(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    "The same graph between rooms; a room within a room belongs to the outer one."
    rooms = {}
    for name, others in edges.items():
        room = name.partition('.')[0]
        rooms.setdefault(room, set()).update({other.partition('.')[0] for other in others} - {room})
    return rooms


def inner_folders(edges: dict[str, set[str]], room: str) -> dict[str, set[str]]:
    "The graph between the folders within a room."
    rooms = {}
    for name, others in edges.items():
        words = name.split('.')
        if words[0] == room and len(words) == 3:
            near = {o.split('.')[1] for o in others if o.startswith(f'{room}.') and o.count('.') == 2}
            rooms.setdefault(words[1], set()).update(near - {words[1]})
    return rooms


def test_nothing_imports_upwards():
    assert upward(graph()) == []


def test_no_circle_of_modules_or_rooms():
    edges = graph()
    assert circle(edges) == []
    assert circle(folders(edges)) == []
    for room in folders(edges):
        assert circle(inner_folders(edges, room)) == []


@pytest.mark.parametrize('name', modules())
def test_no_module_is_too_long(name):
    assert len(modules()[name].read_text(encoding='utf-8').splitlines()) <= LONGEST


def test_the_checks_see_what_they_look_for(tmp_path):
    upper = 'def f():\n    from geoseg.core import a\n'
    for name, text in {'core/a.py': 'from ..data.b import x\n', 'data/b.py': upper, 'core/__init__.py': ''}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    edges = graph(tmp_path)
    assert upward(edges) == ['core.a imports data.b']
    assert set(circle(edges)) == {'core.a', 'data.b'}
    assert set(circle(folders(edges))) == {'core', 'data'}
