"The summary of the benchmarks is that of the stored table, and holds every row with a goal."
import copy
import re

import benchmarks
import nbformat
import pytest


@pytest.fixture
def page():
    return nbformat.read(benchmarks.PAGE, as_version=4)


def test_the_summary_is_that_of_the_stored_table():
    assert benchmarks.main(check=True) == 0, 'python tools/benchmarks.py'


def test_the_page_begins_with_its_summary(page):
    assert benchmarks.MARK in page.cells[1].source and page.cells[0].cell_type == 'markdown'
    assert next(i for i, cell in enumerate(page.cells) if '| goal |' in cell.source) == 1


def test_every_row_with_a_goal_is_in_it(page):
    goals = [row for row in benchmarks.stored_rows(page) if row['target']]
    found = [row for row in goals if any(row['benchmark'].startswith(begin) and row['against'] == against
                                         for _, _, begin, against in benchmarks.ROWS)]
    assert goals and found == goals


def test_another_ratio_another_name_and_another_goal_are_noticed(page, tmp_path):
    first = next(row for row in benchmarks.stored_rows(page) if row['target'])
    for old, new in ((f'>{first["ratio"]}<', '>1<'), (f'>{first["result"]}<', '>other<'),
                     ('>index to train id', '>index to id')):
        changed = copy.deepcopy(page)
        for cell in changed.cells:
            for output in cell.get('outputs', []):
                if 'text/html' in output.get('data', {}):
                    output.data['text/html'] = output.data['text/html'].replace(old, new)
        nbformat.write(changed, tmp_path / 'page.ipynb')
        try:
            assert benchmarks.main(True, tmp_path / 'page.ipynb') == 1, (old, new)
        except ValueError as error:
            assert re.search('no such row', str(error)) and 'index' in old
