"""Links within the built website. `python tools/site_links.py _docs` names each that leads nowhere, and ends with 1."""
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Links(HTMLParser):
    "What a page links to, and the anchors that it has."

    def __init__(self, text: str):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ('href', 'src') and value:
                self.links.append(value)
            elif name == 'id' or (name == 'name' and tag == 'a'):
                self.anchors.add(value)


def broken(site: Path) -> list[str]:
    "`page: link` for each link to a file or an anchor of the website that is not there."
    pages = {path.resolve(): Links(path.read_text(encoding='utf-8')) for path in sorted(site.rglob('*.html'))}
    found = []
    for page, parsed in pages.items():
        for link in dict.fromkeys(parsed.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            path = unquote(parts.path)
            target = (site / path.lstrip('/') if path.startswith('/') else page.parent / path).resolve()
            target = page if not path else target / 'index.html' if target.is_dir() else target
            anchor = unquote(parts.fragment)
            known = pages[target].anchors if target in pages else {anchor}
            if not target.exists() or (anchor and anchor not in known | {'top'}):
                found.append(f'{page.relative_to(site.resolve())}: {link}')
    return found


if __name__ == '__main__':
    wrong = broken(Path(sys.argv[1]))
    print('\n'.join(wrong) or 'every link within the website leads somewhere')
    sys.exit(bool(wrong))
