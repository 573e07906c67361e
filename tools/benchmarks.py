"""Makes the summary of nbs/benchmarks.ipynb from its stored table: `python tools/benchmarks.py`; `--check` compares."""
import re
import sys
from html import unescape
from pathlib import Path

import nbformat

PAGE = Path(__file__).resolve().parent.parent / 'nbs/benchmarks.ipynb'
MARK = '<!-- made from the stored table below by tools/benchmarks.py -->'
ROWS = (  # what is measured, by room; benchmark and reference as the stored table names them
    ('labels', 'class numbers of a mask', 'index to train id', 'np.vectorize'),
    ('labels', 'classes of a colour mask', 'colour to train id', 'np.vectorize'),
    ('metrics', 'confusion matrix', 'confusion matrix', 'torchmetrics'),
    ('metrics', 'confusion matrix', 'confusion matrix', 'scikit-learn'),
    ('metrics', 'boundary F1', 'with boundary F1', 'distance transforms'),
    ('chips of rasters', 'decoded blocks kept', 'chip + mask, warm', 'plain reads, then tensors'),
    ('chips of rasters', 'decoded blocks kept', 'chip + mask, warm', 'plain reads, open files'),
    ('chips of rasters', 'nothing kept', 'chip + mask, cold', 'plain reads, cold'),
    ('chips of rasters', 'larger than memory', 'chip + mask, no cache', 'plain reads, no cache'),
    ('chips of rasters', 'decoded blocks kept', 'chip + mask, warm', 'files opened for each chip'),
    ('chips of rasters', 'two workers', 'batches of 8 chips, 2 workers', '0 workers'),
    ('augmentation', 'the recipe unet, 256²', 'augment, recipe unet, 256²', 'bare Compose'),
    ('augmentation', 'everything, 512²', 'augment, everything, 512²', 'bare Compose'),
    ('training', 'steps of U-Net', 'training steps, UNet', 'bare PyTorch loop'),
    ('training', 'the end of an epoch', 'end of an epoch, UNet', 'torch.save'),
    ('training', 'cross-entropy of 19 classes', 'cross-entropy, 19 classes', 'plain function'),
    ('training', 'a place for each photo', 'GeoSegFormer step, a place a photo', 'no place'),
    ('training', 'a place for each cell', 'GeoSegFormer step, a place a cell', 'no place'),
    ('training', 'with a memory', 'GeoSegFormer step with memory,', 'no memory'),
    ('training', 'with a memory and maps', 'GeoSegFormer step with memory and maps', 'no memory'),
    ('training', 'the decoder of SegFormer', 'SegFormer decoder', "library's head"),
    *(('memory', f'{what} among {many} entries', f'memory read, 4,096 {what} × 8 × 64 of {many} ', '10,000 entries')
      for what in ('positions', 'cells of a picture') for many in ('100,000', '1,000,000')),
    ('memory', 'a query at 10,000 places', 'memory read, a query', 'loop over numbers'),
    ('memory', 'a query at 10,000 places', 'memory read, a query', 'loop over text keys'),
    ('early exit', 'three steps instead of six', 'tiles of 128', 'all six steps'),
    ('localization', 'contrastive loss', 'weighted InfoNCE', 'loop over rows'),
    ('localization', 'ranks of 15,000 tiles', 'retrieval, queries', 'argsort and scikit-learn'),
    ('localization', 'exclusive batches, an epoch', 'exclusive epoch', ''),
    ('meshes', 'features of 100,000 faces', 'prepare a mesh', 'face by face'),
)


def stored_rows(notebook) -> list[dict[str, str]]:
    "The last stored table, a row for each comparison."
    tables = [output.data['text/html'] for cell in notebook.cells for output in cell.get('outputs', [])
              if 'against' in output.get('data', {}).get('text/html', '')]
    rows = [[unescape(re.sub(r'<[^>]+>', '', cell)).strip() for cell in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row)]
            for row in re.findall(r'<tr.*?</tr>', tables[-1], flags=re.DOTALL)]
    return [dict(zip(['benchmark', *rows[0][1:]], row, strict=True)) for row in rows[2:]]


def summary(notebook) -> str:
    "The Markdown of the summary; ValueError where a row is not in the stored table."
    lines = ['| | what is measured | beside | ratio | goal |', '|---|---|---|---:|---|']
    rows, before = stored_rows(notebook), ''
    for room, what, begin, against in ROWS:
        found = [row for row in rows if row['benchmark'].startswith(begin) and row['against'] == against]
        if not found:
            raise ValueError(f'{begin}, {against}: no such row is stored')
        row = found[0]
        goal = f'{row["target"]}: {row["result"].lower()}' if row['target'] else ''
        lines.append(f'| {room * (room != before)} | {what} | {against} | {row["ratio"]} | {goal} |')
        before = room
    return '\n'.join([MARK, '', *lines])


def main(check: bool, page: Path = PAGE) -> int:
    "0 where the summary is that of the stored table, or was written."
    notebook = nbformat.read(page, as_version=4)
    [cell] = [cell for cell in notebook.cells if MARK in cell.source]
    text = cell.source[:cell.source.index(MARK)] + summary(notebook)
    if check:
        return int(text != cell.source)
    if text != cell.source:
        cell.source = text
        nbformat.write(notebook, page)
    return 0


if __name__ == '__main__':
    sys.exit(main('--check' in sys.argv))
