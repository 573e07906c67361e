"Pages that geoseg writes open in a browser without a network, with all their layers."
import re
import shutil
import subprocess

import pytest
from test_security import PAGES

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
LINKED = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)=["\'](?!data:)[^>]*>')


@pytest.mark.parametrize('module', PAGES)
def test_a_page_links_to_nothing(module, tmp_path):
    assert not LINKED.findall(PAGES[module](tmp_path).read_text(encoding='utf-8'))


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason='no chromium')
def test_maps_are_drawn_without_a_network(tmp_path):
    maps = {module: PAGES[module](tmp_path) for module in PAGES if 'meshes' not in module}
    for module, page in maps.items():
        text = page.read_text(encoding='utf-8')
        shown = subprocess.run(
            [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND',
             f'--user-data-dir={tmp_path / "profile"}', '--window-size=1000,700', '--virtual-time-budget=5000',
             '--dump-dom', page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
        shown = re.sub('<script.*?</script>', '', shown, flags=re.S)  # Leaflet's own text
        layers = len(re.findall(r'\w+_[0-9a-f]{32},', re.search(r'_layers = {(.*?)};', text, re.S)[1]))
        assert layers and len(re.findall('<input[^>]*leaflet-control-layers-selector', shown)) == layers, module
        assert re.search('<(img|path)[^>]*leaflet-(image-layer|interactive)', shown), module
