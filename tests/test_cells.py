"""Cells hold one idea: none is over 60 lines. Long classes and functions are built up by small functions and `@patch`.

`@patch` leaves a function of the same name as it was; no method hides another.
"""
import ast
import json
from pathlib import Path

import pytest

NBS, MOST = Path(__file__).parent.parent / 'nbs', 60
PACKAGE = NBS.parent / 'geoseg'


def long_cells(root):
    "The first line and the length of each code cell over 60 lines, by notebook."
    found = {}
    for path in sorted(root.rglob('*.ipynb')):
        for cell in json.loads(path.read_text())['cells']:
            lines = ''.join(cell['source']).splitlines()
            if cell['cell_type'] == 'code' and len(lines) > MOST:
                name = next((line for line in lines if line.startswith(('class ', 'def '))), lines[0])
                found.setdefault(path.relative_to(root).as_posix(), []).append(f'{name} ({len(lines)} lines)')
    return found


def test_no_cell_is_over_60_lines():
    found = [f'{page}: {"; ".join(cells)}' for page, cells in long_cells(NBS).items()]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('kind, length, counted', [('code', 61, 1), ('code', 60, 0), ('markdown', 61, 0)])
def test_a_long_cell_is_noticed(tmp_path, kind, length, counted):
    cell = {'cell_type': kind, 'source': ['def long():\n', *['    pass\n'] * (length - 1)]}
    (tmp_path / 'room').mkdir()
    (tmp_path / 'room/page.ipynb').write_text(json.dumps({'cells': [cell]}))
    expected = {'room/page.ipynb': [f'def long(): ({length} lines)']} if counted else {}
    assert long_cells(tmp_path) == expected


def hidden(source):
    "Names at the top of a module that are defined twice: functions, classes, imports, and methods by their class."
    names, twice = [], []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names += [(alias.asname or alias.name).partition('.')[0] for alias in node.names
                      if isinstance(node, ast.ImportFrom) or alias.asname]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = node.args.args[0] if isinstance(node, ast.FunctionDef) and node.args.args else None
            patched = any(ast.unparse(decorator).partition('(')[0] == 'patch' for decorator in node.decorator_list)
            names.append((ast.unparse(first.annotation), node.name) if patched else node.name)
    for i, name in enumerate(names):
        if name in names[:i]:
            twice.append(name if isinstance(name, str) else '.'.join(name))
    return twice


def test_no_definition_hides_another():
    found = [f'{path.relative_to(PACKAGE)}: {name}' for path in sorted(PACKAGE.rglob('*.py')) if path.stem != '_modidx'
             for name in hidden(path.read_text(encoding='utf-8'))]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('source, found', [
    ('@patch\ndef a(self: A): ...\n@patch\ndef a(self: B): ...', []),
    ('@patch(as_prop=True)\ndef a(self: A): ...\n@patch\ndef a(self: A): ...', ['A.a']),
    ('def a(): ...\ndef a(): ...', ['a']), ('from b import a\ndef a(): ...', ['a']),
    ('from b import a\n@patch\ndef a(self: A): ...', [])])
def test_what_is_hidden_is_noticed(source, found):
    assert hidden(source) == found
