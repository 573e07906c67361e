"""The website, as far as it can be tried without Quarto."""
import json
import operator
import re
import shutil
from importlib import import_module

import docs
import nbformat
import pytest
import site_links
import warm
import yaml
from docs import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from readme import is_relative

from geoseg._modidx import d as INDEX
from geoseg.models.packages import PACKAGES


@pytest.fixture(scope='session')
def site(once):
    "The folder in which the pages were processed, and what was wrong with them."
    into = once('site', lambda into: (into / 'wrong.json').write_text(json.dumps(docs.process(ROOT, into, warm.run))))
    return into, json.loads((into / 'wrong.json').read_text())


@pytest.fixture(scope='session')
def html(site, once):
    "Each page as pandoc renders it, or the error."
    def render(page):
        try:
            return docs.render(site[0] / '_proc' / page)
        except (RuntimeError, FileNotFoundError) as error:
            return {'error': str(error)}

    def make(folder):
        (folder / 'html.json').write_text(json.dumps({page: render(page) for page in docs.pages(site[0])}))

    return json.loads((once('html', make) / 'html.json').read_text())


@pytest.mark.long
def test_pages_are_processed_without_a_complaint(site):
    assert not site[1], '\n'.join(site[1])


@pytest.mark.parametrize('run, name', [(docs.run_apart, 'here'), (warm.run, '__version__')], ids=['apart', 'warm'])
def test_a_page_that_fails_is_named(tmp_path, run, name):  # a process of its own has the package that was copied
    root, into = tmp_path / 'root', tmp_path / 'into'
    for folder in (root / 'nbs', root / 'geoseg', into):
        folder.mkdir(parents=True)
    for name in ('settings.ini', 'pyproject.toml', '_quarto.yml'):
        shutil.copy(ROOT / name, root)
    (root / 'geoseg/__init__.py').write_text('here = 1\n')
    for page, symbol in {'whole': name, 'wrong': 'gone'}.items():
        cells = [new_markdown_cell(f'# {page}'), new_code_cell(f'#| export\nfrom geoseg import {symbol}')]
        nbformat.write(new_notebook(cells=cells), root / 'nbs' / f'{page}.ipynb')
    complaint, = docs.process(root, into, run)
    assert complaint.startswith('nbs/wrong.ipynb: ImportError') and "'gone'" in complaint
    assert (into / '_proc/whole.ipynb').is_file()


def test_every_paragraph_reaches_its_page(site):
    for page in docs.pages():
        texts = [cell.source for cell in nbformat.read(site[0] / '_proc' / page, as_version=4).cells]
        assert '[[`' not in ''.join(texts), f'{page}: a link within a link'
        assert '# noqa' not in ''.join(texts), f'{page}: a word to the linter'
    lost = docs.lost_paragraphs(ROOT, site[0])
    assert not lost, 'title and description stand alone in the first cell of a notebook\n' + '\n'.join(lost)


def entries(page):
    "The descriptions of symbols on a processed page."
    for cell in nbformat.read(page, as_version=4).cells:
        for output in cell.get('outputs', []):
            yield output.get('data', {}).get('text/markdown', '')


def test_each_symbol_that_says_what_it_does_has_an_entry_without_links_in_code(site):
    headings, linked = {}, []
    for page in docs.pages():
        text = '\n'.join(entries(site[0] / '_proc' / page))
        headings[page] = set(re.findall(r'^#+ (\S+)$', text, flags=re.MULTILINE))
        assert '#LNone' not in text, f'{page}: a symbol without a line in its source'
        linked += [f'{page}: {code}' for code in re.findall(r'^```.*?^```', text, flags=re.DOTALL | re.MULTILINE)
                   if '](' in code]
    assert not linked, '\n'.join(linked)
    missing = []
    for module, symbols in INDEX['syms'].items():
        for symbol, (address, _) in symbols.items():
            name = symbol.removeprefix(f'{module}.')
            public = not any(part.startswith('_') for part in name.split('.'))
            if public and operator.attrgetter(name)(import_module(module)).__doc__:
                page = address.split('#')[0].replace('.html', '.ipynb')
                missing += [f'{page}: {name}'] * (name not in headings[page])
    assert not missing, '\n'.join(missing)


@pytest.mark.parametrize('page', docs.pages())
def test_a_page_begins_with_text(page):
    title, text = nbformat.read(ROOT / 'nbs' / page, as_version=4).cells[:2]
    assert title.source.startswith('# ') and '\n> ' in title.source
    assert text.cell_type == 'markdown', 'what is it for, where does it sit on the way of the data, what to read before'


def test_a_lost_paragraph_is_named(tmp_path):
    for folder, cells in {'nbs': ['# a\n\n> b c\n\nd [e](f)', '`g`'], '_proc': ['---\ntitle: a', '[`g`](h)']}.items():
        (tmp_path / folder).mkdir()
        nbformat.write(new_notebook(cells=[new_markdown_cell(text) for text in cells]), tmp_path / folder / 'x.ipynb')
    assert docs.lost_paragraphs(tmp_path, tmp_path) == ['x.ipynb: > b c', 'x.ipynb: d [e](f)']


def test_pandoc_renders_each_page(html):
    errors = [f'{page}: {result["error"]}' for page, result in html.items() if not isinstance(result, str)]
    assert not errors, '\n'.join(errors)


def test_links_lead_somewhere(html):
    rendered = {page: result if isinstance(result, str) else '' for page, result in html.items()}
    broken = docs.broken_links(ROOT, rendered)
    assert not broken, '\n'.join(broken)


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / 'nbs').mkdir()
    (tmp_path / 'settings.ini').write_text('[DEFAULT]\ngit_url = https://example.org/x\nbranch = main\n')
    links = ('[a](b.ipynb) [b](#here) [c](#gone) [d](b.ipynb#there) ![e](../settings.ini) `[f](code.ipynb)` '
             '[g](c.ipynb) [h](https://example.org/x/blob/main/settings.ini) [i](https://example.org/x/blob/main/no)')
    for name, source in {'a': links, 'b': ''}.items():
        cell = f'{{"cell_type": "markdown", "source": ["{source}"]}}'
        (tmp_path / 'nbs' / f'{name}.ipynb').write_text(f'{{"cells": [{cell}]}}')
    broken = docs.broken_links(tmp_path, {'a.ipynb': '<h2 id="here">', 'b.ipynb': '<h2 id="there">'})
    assert [line.split(': ')[1] for line in broken] == ['#gone', '../settings.ini', 'c.ipynb',
                                                       'https://example.org/x/blob/main/no']


def test_the_table_of_licences_has_the_data_and_weights_that_pages_use():
    sources = [(path, path.read_text(encoding='utf-8')) for path in [*(ROOT / 'nbs').rglob('*.ipynb')]]
    page = next(text for path, text in sources if path.name == 'data_licences.ipynb')
    sets = {name for path, text in sources if path.name != 'shared.ipynb'
            for name in re.findall(r"shared_data\('([a-z]+)", text)}
    loaders = ''.join(path.read_text(encoding='utf-8') for path in (ROOT / 'geoseg/models').glob('*.py'))
    hub = set(re.findall(r"f'((?:nvidia|facebook)/[a-z0-9]+)-", loaders))
    missing = [name for name in (*sorted(sets), *sorted(hub), *PACKAGES) if f'`{name}' not in page]
    assert {'naip', 'caliterra'} <= sets and len(hub) == 2 and not missing


def test_the_sidebar_lists_each_page_once():
    shown, pages = docs.listed(docs.config()['website']['sidebar']), docs.pages()
    assert not set(pages) - set(shown), 'pages that the sidebar in _quarto.yml lacks'
    others = {path.relative_to(ROOT / 'nbs').as_posix() for path in (ROOT / 'nbs').rglob('*.qmd')}
    assert not set(shown) - set(pages) - others, 'in the sidebar, but no such page'
    assert len(shown) == len(set(shown))


def test_the_gallery_has_each_tutorial_and_their_code_is_folded(site):
    head = (ROOT / 'nbs/tutorials/index.qmd').read_text(encoding='utf-8').split('---')[1]
    tutorials = [page for page in docs.listed(docs.config()['website']['sidebar']) if page.startswith('tutorials/')]
    gallery = [f'tutorials/{page}' for page in yaml.safe_load(head)['listing']['contents']]
    assert ['tutorials/index.qmd', *gallery] == tutorials
    assert 'code-fold: true' in (site[0] / '_proc/tutorials/_metadata.yml').read_text(encoding='utf-8')


def test_each_entry_of_the_navbar_opens_a_sidebar():
    website = docs.config()['website']
    first = [docs.listed(sidebar['contents'])[0] for sidebar in website['sidebar']]
    assert [entry['href'] for entry in website['navbar']['left']] == first
    assert len({sidebar['id'] for sidebar in website['sidebar']}) == len(first)


def test_quarto_yml_agrees_with_files_and_settings():
    config, facts = docs.config(), docs.settings()
    assert (ROOT / 'nbs' / '_quarto.yml').read_bytes() == (ROOT / '_quarto.yml').read_bytes()
    assert config['project']['type'] == 'website'
    assert (ROOT / 'nbs' / config['format']['html']['css']).is_file()
    for picture in ('favicon', 'image'):
        assert (ROOT / 'nbs' / config['website'][picture]).is_file()
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert (cited['version'], cited['repository-code']) == (facts['version'], facts['git_url'])
    navbar = config['website']['navbar']
    for target in docs.listed(navbar['left'] + navbar['right']):
        assert target == facts['git_url'] or (ROOT / 'nbs' / target).is_file(), target


def test_links_of_readme_lead_somewhere():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    targets = [target for part in docs.CODE.split(text)[::2] for target in docs.LINK.findall(part)]
    files = [target.split('#')[0] for target in targets if is_relative(target)]
    assert not [file for file in files if not (ROOT / file).exists()]


def test_broken_links_of_a_built_site_are_named(tmp_path):
    (tmp_path / 'guides').mkdir()
    links = ['guides/a.html#here', '#top', 'guides/', 'https://example.org/x', '#no', 'a%20b.png']
    (tmp_path / 'index.html').write_text(''.join(f'<a href="{link}">' for link in links) + '<img src=/a%20b.png>')
    (tmp_path / 'guides/a.html').write_text('<h1 id="here">a</h1><a href="../index.html#gone">b</a><a href="c.html">c')
    (tmp_path / 'guides/index.html').write_text('<link href="../site.css">')
    (tmp_path / 'a b.png').touch()
    assert site_links.broken(tmp_path) == ['guides/a.html: ../index.html#gone', 'guides/a.html: c.html',
                                           'guides/index.html: ../site.css', 'index.html: #no']


# names that Quarto 1.7 documents: projects, websites, navigation, HTML basics, page layout
PROJECT = {'project', 'metadata-files', 'format', 'website'}
HTML = {'theme', 'css', 'toc', 'toc-depth', 'code-copy', 'code-fold', 'code-overflow', 'respect-user-color-scheme',
        'grid'}
GRID = {'sidebar-width', 'body-width', 'margin-width', 'gutter-width'}
WEBSITE = {'favicon', 'image', 'open-graph', 'twitter-card', 'page-footer', 'page-navigation', 'back-to-top-navigation',
           'repo-actions', 'repo-subdir', 'navbar', 'sidebar'}
NAVBAR, FOOTER = {'background', 'search', 'left', 'right'}, {'left', 'right', 'center', 'border', 'background'}
SIDEBAR, ENTRY = {'id', 'title', 'style', 'collapse-level', 'contents'}, {'text', 'href', 'icon', 'aria-label'}


def test_the_website_is_told_what_quarto_knows():
    config = docs.config()
    html, website = config['format']['html'], config['website']
    assert set(config) <= PROJECT and set(html) <= HTML and set(html['grid']) <= GRID
    assert set(website) <= WEBSITE and set(website['navbar']) <= NAVBAR and set(website['page-footer']) <= FOOTER
    assert all(set(entry) <= ENTRY for side in ('left', 'right') for entry in website['navbar'][side])

    def check(contents):
        for entry in contents:
            if not isinstance(entry, str):
                assert set(entry) <= {'section', 'contents'} or set(entry) <= ENTRY, entry
                check(entry.get('contents', []))

    for sidebar in website['sidebar']:
        assert set(sidebar) <= SIDEBAR
        check(sidebar['contents'])


def test_code_fits_the_body_of_a_page():
    grid = docs.config()['format']['html']['grid']
    size = float(re.search(r'font-size: ([0-9.]+)px', (docs.ROOT / 'nbs/styles.css').read_text())[1])
    pixels = {name: int(width.removesuffix('px')) for name, width in grid.items()}
    assert sum(pixels.values()) <= 1400 and 120 * 0.602 * size < pixels['body-width'] - 30  # of a letter; padding
