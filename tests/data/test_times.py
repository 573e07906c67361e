"Times in tables: a moment that is meant for sure, or an error that names the line."
import time
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.pictures.geotags import LAST, read_gps, read_poses, read_time, unix_time
from geoseg.data.pictures.images import GeotaggedData

FORMS = ('%Y-%m-%dT%H:%M:%S', '%Y-%m-%d %H:%M:%S', '%Y%m%dT%H%M%S', '%Y:%m:%d %H:%M:%S')
MOMENTS = st.datetimes(datetime(1801, 1, 1), datetime(2099, 12, 30)).map(lambda t: t.replace(microsecond=0))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(MOMENTS, st.sampled_from(FORMS), st.integers(-14 * 60, 14 * 60), st.sampled_from(['', 'Z', 'offset']))
def test_each_form_of_a_moment_is_that_moment(moment, form, minutes, zone):
    ahead = timezone(timedelta(minutes=minutes if zone == 'offset' else 0))
    told = {'': '', 'Z': 'Z', 'offset': f'{"-" if minutes < 0 else "+"}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}'}
    expected = (moment.replace(tzinfo=ahead) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    assert read_time(moment.strftime(form) + told[zone]) == expected
    if 1e8 <= expected:
        assert read_time(str(int(expected))) == read_time(f'{expected:.18e}') == expected


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.text('0123456789-:/. TZ+eE', max_size=24), st.floats().map(str), st.integers().map(str)))
def test_any_text_is_a_time_in_range_or_an_error(text):
    try:
        seconds = unix_time(text, 'gps.csv: line 7')
    except ValueError as error:
        assert str(error).startswith('gps.csv: line 7: time is ') and 'ISO 8601' in str(error)
    else:
        assert not text.strip() and np.isnan(seconds) or seconds <= LAST
        assert not text.strip().isdecimal() or len(text.strip()) in (8, 9, 10) or text.strip().startswith('0')


@pytest.mark.parametrize('text', ['2017', '201706', '1497950000500', '1497950000500000000', '21/06/2017', '06/21/2017',
                                  '21.06.2017 09:00', '21-06-2017', 'now', 'today', 'nan', 'NaT', 'inf', '-1', '0',
                                  '1.49795E+09', '0000:00:00 00:00:00', '0001-01-01T00:00:00', '2017-13-01',
                                  '2017-06-21 25:00', '4102444801', '2017-06', '42906.375', '09:00:00'])
def test_what_could_mean_several_things_is_refused(text, tmp_path):
    rows = ['a.jpg,50,4,2017-06-21', f'b.jpg,50,4,{text}']
    (tmp_path / 'gps.csv').write_text('filename,lat,long,time\n' + '\n'.join(rows))
    with pytest.raises(ValueError, match='gps.csv: line 3: time is ') as error:
        read_gps(tmp_path / 'gps.csv')
    assert repr(text) in str(error.value) and 'UNIX seconds' in str(error.value) and '2017:06:21' in str(error.value)


def test_a_folder_is_split_in_the_order_of_such_times(tmp_path):
    from PIL import Image
    rows = []
    for i in range(10):
        for folder in ('img', 'mask'):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new('L', (8, 8)).save(tmp_path / folder / f'p{9 - i}.png')
        rows.append(f'p{9 - i}.png,50,{4 + i / 1000},2017:06:{10 + i} {18 - i:02}:00:00,flight')
    (tmp_path / 'gps.csv').write_text('filename,lat,long,time,source\n' + '\n'.join(rows))
    (tmp_path / 'classes.txt').write_text('0 a\n1 b\n')
    data = GeotaggedData(str(tmp_path), split='time')
    data.setup()
    table = data.table.set_index('name')
    assert table.split[[f'p{i}' for i in range(9, 2, -1)]].eq('train').all() and table.split['p0'] == 'test'
    assert table.time['p9'] == datetime(2017, 6, 10, 18, tzinfo=UTC).timestamp()


def test_a_table_of_poses_reads_dates_alike_and_keeps_its_stamps(tmp_path):
    file = tmp_path / 'poses2d.csv'
    texts = ['1623378835-623811943', '1623378836.5', '1623378837500000000', '2021:06:11 02:34:00',
             '2021-06-11T02:35:00Z']
    file.write_text('timestamp,x,y\n' + ''.join(f'{t},{i},0\n' for i, t in enumerate(texts)))
    times = [1623378835.623811943, 1623378836.5, 1623378837.5, 1623378840, 1623378900]
    assert np.allclose(read_poses(file).time, times)
    file.write_text('timestamp,x,y\n5,0,0\n11.06.2021,0,0\n')  # stamps may count from any moment
    with pytest.raises(ValueError, match="line 3: time is '11.06.2021', expected UNIX seconds"):
        read_poses(file)


def test_times_cost_a_small_multiple_of_places(tmp_path):
    n, spent = 20_000, {}
    for timed in (False, True):
        table = pd.DataFrame({'filename': [f'{i}.jpg' for i in range(n)], 'lat': 1., 'long': 2.})
        if timed:
            table['time'] = pd.date_range('2020-01-01', periods=n, freq='min').strftime('%Y-%m-%dT%H:%M:%SZ')
        table.to_csv(tmp_path / 'gps.csv', index=False)
        costs = []
        for _ in range(3):
            start = time.process_time()
            read_gps(tmp_path / 'gps.csv')
            costs.append(time.process_time() - start)
        spent[timed] = min(costs)
    assert spent[True] < 8 * spent[False], spent
