"The Dockerfile is what its tool makes, and the pinned list suffices for what settings.ini requires."
import re

import dockerfile
import docs
from check import ROOT
from packaging.requirements import Requirement

LINE = re.compile(r'([a-z0-9]+(?:-[a-z0-9]+)*)==([0-9][0-9a-z.]*)')


def versions(text):
    "Names and versions of a list; every line is one of them."
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), [line for line, match in zip(text.splitlines(), found, strict=True) if not match]
    names = [match[1] for match in found]
    assert names == sorted(set(names))
    return {match[1]: match[2] for match in found}


def required():
    facts = docs.settings()
    keys = ('requirements', *(f'{extra}_requirements' for extra in dockerfile.EXTRAS))
    return [Requirement(line) for key in keys for line in facts[key].splitlines() if line.strip()]


def test_the_dockerfile_is_what_its_tool_makes():
    text = (ROOT / 'Dockerfile').read_text(encoding='utf-8')
    assert text == dockerfile.dockerfile()
    names = {name for line in text.splitlines() if line.startswith('COPY ') for name in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in names)
    kept = {line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines() if line.startswith('!')}
    assert kept == names
    assert len(dockerfile.python_lines(text)) == 3
    assert '://' not in text and '--index' not in text


def test_the_pinned_list_suffices():
    pinned = versions((ROOT / 'pinned.txt').read_text(encoding='utf-8'))
    lacking = [str(one) for one in required() if dockerfile.normal(one.name) not in pinned
               or not one.specifier.contains(pinned[dockerfile.normal(one.name)])]
    assert not lacking
    here = versions(dockerfile.pinned())
    assert {dockerfile.normal(one.name) for one in required()} <= {*here}
    assert not {'geoseg', 'pytest', 'nbdev', 'ruff'} & ({*pinned} | {*here})  # what serves needs no tools
