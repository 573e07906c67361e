"""What a page of the website shows of its module: entries of nbdev, with methods, in order and linked right."""
import ast
import json
import operator
import re
from importlib import import_module
from pathlib import Path

from nbdev import doclinks, processors, showdoc

from geoseg._modidx import d as INDEX

FENCED = re.compile(r'^```.*?^```', flags=re.DOTALL | re.MULTILINE)
NAME_LINK = re.compile(r'\[(`[^`]+`)\]\([^)]*\)')
NOQA = re.compile(r'[ \t]*# noqa\b.*$', flags=re.MULTILINE)  # a word to the linter
PLAIN_WORD = re.compile(r'[a-z]+')
MODULE = re.compile(r'^\s*#\|\s*default_exp\s+(\S+)', flags=re.MULTILINE)

original_names, original_init = processors._def_names, showdoc.BasicMarkdownRenderer.__init__
original_link = doclinks.NbdevLookup._link_sym


def modules_of() -> dict[str, list[str]]:
    "The modules that define a name."
    modules = {}
    for module, symbols in INDEX['syms'].items():
        for symbol in symbols:
            modules.setdefault(symbol.removeprefix(f'{module}.'), []).append(module)
    return modules


def methods(node: ast.AST) -> list[str]:
    "The public methods of a class that say what they do."
    body = node.body if isinstance(node, ast.ClassDef) else []
    return [f'{node.name}.{part.name}' for part in body
            if isinstance(part, ast.FunctionDef) and not part.name.startswith('_') and ast.get_docstring(part)]


def names_to_show(cell, shown: set[str]) -> list[str]:
    "Functions, classes and their methods; nbdev inserts each before those that it has inserted."
    names = []
    for name in original_names(cell, shown):
        names.append(name)
        for node in cell.parsed_():
            if getattr(node, 'name', '') == name:
                names += [method for method in methods(node) if method not in shown]
    return names[::-1]


def exported(sym, name: str, module: str | None):
    "The symbol in the written module, where all that its annotations name is defined."
    try:
        return operator.attrgetter(name)(import_module(f'geoseg.{module}'))
    except (ImportError, AttributeError):
        return sym


def render_with(module: str | None):
    "A method under a decorator keeps its class; asterisks in a docstring stay asterisks."
    def render(self, sym, name: str | None = None, title_level: int = 3, **kwargs):
        def plain(symbol):
            return getattr(symbol, 'fget', None) or getattr(symbol, 'func', None) or symbol

        name = name or getattr(plain(sym), '__qualname__', '')
        symbol = plain(exported(sym, name, module))
        original_init(self, symbol, name or None, 4 if '.' in name else title_level, **kwargs)
        if name and module:
            self.fn = f'geoseg.{module}.{name}'
        parts = re.split(r'(`[^`\n]*`)', self.docs)
        parts[::2] = [part.replace('*', r'\*') for part in parts[::2]]
        self.docs = ''.join(parts)

    return render


def line_of(symbol: str, file: str) -> int | None:
    "Where a symbol is defined in its module; nbdev looks for it without the module's name."
    return doclinks._get_exps(file).get(symbol.removeprefix(f'{file.removesuffix(".py").replace("/", ".")}.'))


def link_to(module: str | None):
    "Links names as a reader of the page of `module` means them."
    modules = modules_of()

    def link_symbol(self, found: re.Match) -> str:
        name, homes = found[1], modules.get(found[1], [])
        linked = found.string[:found.start()].endswith('[')
        if linked or PLAIN_WORD.fullmatch(name) and not found[0].endswith('()`'):
            return found[0]  # a word is a folder, a column or a verb, more often than the function of that name
        if len(homes) < 2:
            return original_link(self, found)
        home = f'geoseg.{module}'
        return f'[{found[0]}]({self.doc(f"{home}.{name}")})' if home in homes else found[0]

    return link_symbol


def prepare(page: Path) -> str | None:
    "Before nbdev processes a notebook: the module that it defines."
    cells = json.loads(page.read_text(encoding='utf-8'))['cells']
    found = MODULE.search('\n'.join(''.join(cell['source']) for cell in cells))
    module = found and found[1]
    processors._def_names, showdoc.BasicMarkdownRenderer.__init__ = names_to_show, render_with(module)
    doclinks.NbdevLookup._link_sym, doclinks._lineno = link_to(module), line_of
    return module


def finish(page: Path, module: str | None):
    "After nbdev has written a page: code has no links and no words to the linter, a module says how it is imported."
    notebook = json.loads(page.read_text(encoding='utf-8'))
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            cell['source'] = NOQA.sub('', ''.join(cell['source'])).splitlines(keepends=True)
        for output in cell.get('outputs', []):
            if text := ''.join(output.get('data', {}).get('text/markdown', '')):
                unlinked = FENCED.sub(lambda fence: NAME_LINK.sub(r'\1', fence[0]), text)
                output['data']['text/markdown'] = unlinked.splitlines(keepends=True)
    if module:
        line = {'cell_type': 'markdown', 'id': 'import-path', 'metadata': {}, 'source': [f'Module `geoseg.{module}`']}
        notebook['cells'].insert(1, line)
    page.write_text(json.dumps(notebook), encoding='utf-8')
