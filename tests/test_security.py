"What comes from strangers: names in pages and tables, code beside the data, folders of somebody else's run."
import ast
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import geoseg
from geoseg.core.pages import csv_text, guard_cell, read_csv
from geoseg.data.labels import LabelScheme

ROOT = Path(geoseg.__file__).parent
HOSTILE = '<img src=x onerror="alert(1)">`${alert(2)}</script><script>alert(3)</script>'
FORMULAS = ['=1+2', '+cmd', '-x', '@SUM(1)', "'quoted", "''", '=HYPERLINK("http://x","y")', 'plain', '-3', 'a,"b"']


def calls(name: str) -> list[str]:
    "Where a method of that name is called in the package."
    return [f'{path.relative_to(ROOT)}:{node.lineno}' for path in sorted(ROOT.rglob('*.py'))
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
            if isinstance(node, ast.Call) and getattr(node.func, 'attr', None) == name]


class Tags(HTMLParser):
    "The tags of a page, and the text of its scripts."

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == 'script'

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = False


def mesh_page(folder):
    from geoseg.visualization.meshes import write_mesh_page
    scheme = LabelScheme([HOSTILE, 'b'], colors=[(0, 0, 0), (9, 9, 9)])
    return write_mesh_page(folder / f'{HOSTILE.replace("/", "")}.html', np.random.default_rng(0).random((4, 3, 3)),
                           {HOSTILE: np.zeros((4, 3), np.uint8)}, scheme)


def map_page(folder):
    from geoseg.data.rasters.chips import RasterData
    from geoseg.visualization.maps import write_page
    from geoseg.world.layouts import world_data
    data = RasterData(str(world_data('raster', size='tiny')), chip=64)
    data.setup()
    last = max({a for part in data.acquisitions.values() for a in part}, key=lambda a: a.time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(last), 'name', HOSTILE)
        predictions = {HOSTILE: np.zeros((last.height, last.width), np.uint8)}
        return write_page(folder / 'map.html', data, predictions, tiles=None)


def flight_page(folder):
    from geoseg.visualization.localization import write_flight
    places = pd.DataFrame({'photo': [HOSTILE], 'tile': [HOSTILE], 'rank': 1, 'confidence': .5, 'refined_lat': 47.,
                           'refined_long': 8.})
    gps = pd.DataFrame({'lat': [47.], 'long': [8.]}, index=[HOSTILE])
    return write_flight(folder / 'flight.html', places, gps, tiles=None)


def memory_page(folder):
    import torch

    from geoseg.geo.coords import Frame
    from geoseg.geo.memory import GeoMemory
    from geoseg.visualization.memory import write_memory_page
    memory = GeoMemory(4, frame=Frame('EPSG:32632', (4e5, 5e6)))
    memory.write(torch.rand(9, 2) * 50, torch.rand(9, 4), torch.arange(9), torch.arange(9, dtype=torch.float64))
    return write_memory_page(folder / 'memory.html', memory, tiles=None)


PAGES = {'visualization/meshes.py': mesh_page, 'visualization/maps.py': map_page,
         'visualization/localization.py': flight_page, 'visualization/memory.py': memory_page}


def test_the_writers_of_pages_are_all_here():
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob('*.py')
             if re.search('folium|<script', path.read_text(encoding='utf-8')) and path.name not in (
                 '_modidx.py', 'pages.py')}
    assert found == set(PAGES)


@pytest.mark.parametrize('module', PAGES)
def test_no_name_becomes_a_part_of_a_page(module, tmp_path):
    text = PAGES[module](tmp_path).read_text(encoding='utf-8')
    page = Tags(text)
    assert not [tag for tag in page.tags if tag[0] == 'img' or 'onerror' in tag[1]]
    assert not [script for script in page.scripts if script.strip() == 'alert(3)']
    if module == 'visualization/meshes.py':
        assert 'innerHTML' not in text and not re.search('`[^`]*__', text)
    else:  # folium puts popups between back quotes
        assert '${alert' not in text


def test_every_table_is_written_by_one_helper():
    assert [where.partition(':')[0] for where in calls('to_csv')] == ['core/pages.py']
    assert calls('writerows') == calls('writerow') == calls('to_html') == []
    assert {where.partition(':')[0] for where in calls('read_csv')} == {'core/pages.py'}


def test_a_table_comes_back(tmp_path):
    path = tmp_path / 'a.csv'
    table = pd.DataFrame({'name': FORMULAS, '=2': FORMULAS[::-1], 'loss': np.linspace(-2, 2, len(FORMULAS))})
    path.write_text(csv_text(table, index=False), encoding='utf-8')
    raw = pd.read_csv(path, dtype=str)
    assert not [cell for name in ('name', "'=2") for cell in raw[name] if re.match(r'[=@]|[+-](?!\d)', cell)]
    assert raw['loss'].iloc[0] == '-2.0'
    pd.testing.assert_frame_equal(read_csv(path, dtype={'name': str, '=2': str}), table)
    turned = table.set_index('name')
    path.write_text(csv_text(turned), encoding='utf-8')
    assert read_csv(path, index_col=0, dtype={'name': str}).index.astype(str).tolist() == FORMULAS
    plain = pd.DataFrame({'name': ['a', 'b'], 'loss': [-1, 1]})
    assert csv_text(plain, index=False) == plain.to_csv(index=False, lineterminator='\n')  # files look as they did


@pytest.mark.parametrize('quoting', range(4))
def test_a_quote_of_a_person_stays(tmp_path, quoting):
    path = tmp_path / 'own.csv'
    pd.DataFrame({'name': FORMULAS, 'split': 'train'}).to_csv(path, index=False, quoting=quoting, escapechar='\\')
    given = pd.read_csv(path, dtype=str, escapechar='\\')
    assert read_csv(path, dtype=str, escapechar='\\').equals(given)


def test_readers_take_the_quote_off(tmp_path):
    from geoseg.data.pictures.geotags import read_gps
    from geoseg.data.splits import read_split, write_split
    from geoseg.training.ledger import Ledger
    names = [name for name in FORMULAS if name != '-3']
    write_split(pd.DataFrame({'name': names, 'split': 'train'}), tmp_path / 'split.csv')
    assert read_split(tmp_path / 'split.csv', names)['name'].tolist() == names
    gps = pd.DataFrame({'filename': names, 'lat': -1., 'long': -2.})
    (tmp_path / 'gps.csv').write_text(csv_text(gps, index=False), encoding='utf-8')
    assert read_gps(tmp_path / 'gps.csv').index.tolist() == names
    scheme = LabelScheme(names)
    assert LabelScheme.load(scheme.save(tmp_path / 'category.csv')).names == scheme.names
    ledger = Ledger(tmp_path, 'rows')
    for i, name in enumerate(names):
        ledger.add(str(i), {'name': name})
    assert ledger.table()['name'].tolist() == names
    assert all(guard_cell(name) == name for name in (-1, 2.5, None, 'plain'))
