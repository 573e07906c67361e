"Sentences that nobody should stumble over: the habits that a reader marked, in prose, docstrings and errors."
import json
import re
from pathlib import Path

NBS = Path(__file__).parent.parent / 'nbs'
HABITS = {  # what is written: what to write instead
    r'\b(?:hears?|heard)\b(?! of|`)': 'a network recalls, gets or weighs; it hears nothing',
    r'\b(?:is|are|was|were|be|been) told (?!apart|from chance)': 'say what happens: refused, printed, set, known',
    r"(?:^|[.;:]\s+|^\s+['\"])Of (?:the|those|other|two|three|each|every|all|its|a|an)\b": 'subject first, not "Of …,"',
    r'\bcould shame\b': 'the strongest baseline',
    r'\blaid on its first tile\b': 'aligned to its top-ranked tile',
    r'\bof pictures as index PNGs\b': 'PNGs for images, GeoTIFFs for rasters',
}


def sentences(path):
    "Markdown, and the docstrings of one line, with the cell that holds them."
    for cell in json.loads(path.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            yield cell['id'], source
        else:
            for line in re.findall(r"^\s+(['\"]{1,3}[A-Z`].*?['\"]{1,3})$", source, flags=re.M):
                yield cell['id'], line


def test_habits_that_read_badly_are_gone():
    found = [f'{path.relative_to(NBS)} {cell}: {text[max(0, hit.start() - 40):hit.end() + 40]!r}: {better}'
             for path in sorted(NBS.rglob('*.ipynb')) for cell, text in sentences(path)
             for pattern, better in HABITS.items() for hit in re.finditer(pattern, text, flags=re.M)]
    assert not found, '\n'.join(found)


def test_the_habits_are_noticed():
    bad = ['What it hears it weighs.', 'A network is told where it is.', 'Fine. Of the years two are left.',
           'The arm that could shame it.']
    assert all(any(re.search(pattern, text, flags=re.M) for pattern in HABITS) for text in bad)
    good = ['Masks are told apart by values.', 'Some of the years are left.', 'A lock that was heard of a moment ago.']
    assert not any(re.search(pattern, text, flags=re.M) for pattern in HABITS for text in good)
