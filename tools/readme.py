"""Makes README.md from nbs/index.ipynb: `python tools/readme.py`; with `--check` it only compares."""
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
FIRST = '<!-- made from nbs/index.ipynb by `make readme`; edit the notebook -->'
LINK = re.compile(r'(?<=\]\()[^)\s]+|(?<=\bsrc=")[^"]+|(?<=\bhref=")[^"]+')
CODE = re.compile(r'(```.*?```|`[^`\n]*`)', flags=re.DOTALL)
DIRECTIVE = re.compile(r'^#\|\s*(.+?)\s*$\n?', flags=re.MULTILINE)


def is_relative(target: str) -> bool:
    "True for a link to another file; False for an address with a scheme and for a place on the same page."
    return not re.match(r'[a-z]+:|#|/', target)


def replace_links(text: str, new) -> str:
    "`text` with each link target outside code replaced by `new(target)`."
    parts = CODE.split(text)
    parts[::2] = [LINK.sub(lambda found: new(found[0]), part) for part in parts[::2]]
    return ''.join(parts)


def from_the_top(target: str) -> str:
    "A link as it stands in nbs/, for a reader of the top folder."
    return posixpath.normpath(f'nbs/{target}') if is_relative(target) else target


def visible(cell, number: int):
    "The code cell as a reader should see it, or None where a directive hides all of it."
    directives = {line.replace(' ', '') for line in DIRECTIVE.findall(cell.source)}
    if directives & {'hide', 'include:false', 'export', 'exporti'}:
        return None
    cell.source = '' if 'echo:false' in directives else DIRECTIVE.sub('', cell.source)
    cell.metadata = {'transient': {'remove_source': not cell.source}}  # nbconvert's word for it
    outputs = [] if 'output:false' in directives else cell.outputs
    cell.outputs = [shown(output, number) for output in outputs if output.get('name') != 'stderr']
    return cell if cell.source or cell.outputs else None


def shown(output, number: int):
    "The output with the one form that GitHub shows best: Markdown, then HTML, then plain text."
    data = output.get('data', {})
    if pictures := [kind for kind in data if kind.startswith('image/')]:
        raise ValueError(f'nbs/index.ipynb, cell {number}: the output is a picture ({pictures[0]}); '
                         'on the front page a picture is a file in nbs/images that a Markdown cell links to')
    for kind in ('text/markdown', 'text/html', 'text/plain'):
        if kind in data:
            output.data = {kind: re.sub(r'<style.*?</style>\s*', '', data[kind], flags=re.DOTALL)}
            break
    return output


def readme(root: Path = ROOT) -> str:
    "The text of README.md; ValueError where the front page shows what README.md cannot."
    notebook = nbformat.read(root / 'nbs' / 'index.ipynb', as_version=4)
    cells = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == 'markdown':
            cell.source = replace_links(cell.source, from_the_top)
            cells.append(cell)
        elif cell.cell_type == 'code' and visible(cell, number):
            cells.append(cell)
    notebook.cells, notebook.metadata = cells, {'language_info': {'name': 'python'}}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return f'{FIRST}\n\n' + re.sub(r'[ \t]*\n(?:[ \t]*\n){2,}', '\n\n', text).strip() + '\n'


if __name__ == '__main__':
    path, text = ROOT / 'README.md', readme()
    if '--check' not in sys.argv:
        path.write_text(text, encoding='utf-8')
    elif path.read_text(encoding='utf-8') != text:
        sys.exit('README.md differs from nbs/index.ipynb: run `make readme`')
