"Tiles of several CRS and pixel sizes are one area: no ground is in two splits."
import numpy as np
import pandas as pd
from a_raster import GRID, write
from affine import Affine
from pyproj import Transformer

from geoseg.core.listing import collect_notes
from geoseg.data.rasters.chips import RasterData
from geoseg.data.rasters.regions import region_window
from geoseg.data.tables import RasterTableData

RNG = np.random.default_rng(0)


def tiles(folder):
    "Three tiles of 5 m that overlap by a quarter, and one of 7 m in another zone over two of them."
    for n in range(3):
        grid = GRID @ Affine.translation(60 * n, 0)
        write(folder / f't{n}_image.tif', RNG.integers(1, 255, (3, 80, 80)).astype(np.uint8), transform=grid)
        write(folder / f't{n}_mask.tif', RNG.integers(0, 2, (80, 80)).astype(np.uint8), transform=grid)
    x, y = Transformer.from_crs('EPSG:32631', 'EPSG:32632', always_xy=True).transform(*(GRID @ (40, 20)))
    grid = Affine(7, 0, x, 0, -7, y)
    write(folder / 't9_image.tif', RNG.integers(1, 255, (3, 50, 60)).astype(np.uint8), 'EPSG:32632', grid)
    write(folder / 't9_mask.tif', RNG.integers(0, 2, (50, 60)).astype(np.uint8), 'EPSG:32632', grid)
    (folder / 'classes.txt').write_text('0 low\n1 high\n')


def places(areas):
    "Which squares of 5 m the labelled pixels of areas lie in."
    found = set()
    for area in areas:
        a = area.acquisition
        own = np.ones((a.height, a.width), bool)
        if a.limit is not None:
            from rasterio.windows import Window
            own = a.limit.inside(Window(0, 0, a.width, a.height))
        rows, cols = np.nonzero(own)
        xy = np.array(Affine(*a.transform) @ (cols + 0.5, rows + 0.5))
        x, y = Transformer.from_crs(a.crs, 'EPSG:32631', always_xy=True).transform(*xy)
        found |= {(int(c), int(r)) for c, r in zip(*(~GRID @ (np.array(x), np.array(y))), strict=True)}
    return found


def test_blocks_of_ground_of_a_mosaic(tmp_path):
    tiles(tmp_path)
    data = RasterData(tmp_path, pattern='{tile}_image.tif', mask_pattern='{tile}_mask.tif', split='block', block=32,
                      chip=32, ratios=(2, 1, 1))
    seen = {split: places(areas) for split, areas in data.areas().items() if split in ('train', 'val', 'test')}
    assert all(len(part) > 500 for part in seen.values())
    for one, two in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        both = seen[one] & seen[two]  # pixels of 7 m have their centres elsewhere
        assert len(both) < 0.03 * min(len(seen[one]), len(seen[two])), (one, two)
    whole = [region_window(a, {}) for a in data.acquisitions[tmp_path]]
    assert len(set().union(*seen.values())) > 0.97 * len(places(whole))
    data.setup()
    assert data.class_counts('train')[:, :2].sum() > 0 and not data.shared_ground()


def test_overlaps_of_a_table_go_to_the_test(tmp_path):
    tiles(tmp_path)
    pd.DataFrame({'image': [f't{n}_image.tif' for n in (0, 1, 2, 9)], 'label': [f't{n}_mask.tif' for n in (0, 1, 2, 9)],
                  'split': ['train', 'test', 'val', 'train']}).to_csv(tmp_path / 'table.csv', index=False)
    with collect_notes() as notes:
        data = RasterTableData(tmp_path / 'table.csv', chip=32)
        areas = data.areas()
    assert any('3 rasters overlap rasters of another split' in line for line in notes)
    seen = {split: places(part) for split, part in areas.items() if part}
    assert not seen['val'] & seen['test'] and len(seen['test']) == 80 * 80
    assert len(seen['train'] & seen['test']) < 0.03 * len(seen['train']) and not data.shared_ground()
