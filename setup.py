"Reads everything from settings.ini, the one place where the project's facts stand."
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

parser = ConfigParser(delimiters=['='])
parser.read(Path(__file__).parent / 'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']


def lines(key):
    return [line for line in cfg.get(key, '').splitlines() if line.strip()]


class BuildWithNotebooks(build_py):
    "`geoseg sweep` runs a notebook: an installed package takes along a copy, made here."

    def run(self):
        super().run()
        if not self.editable_mode:  # the package lies beside nbs/
            folder = Path(self.build_lib) / cfg['lib_name'] / 'notebooks'
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(__file__).parent / cfg['nbs_path'] / 'train.ipynb', folder)


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    keywords=cfg['keywords'].split(),
    license='Apache-2.0',
    packages=find_packages(include=[cfg['lib_name'], f"{cfg['lib_name']}.*"]),
    package_data={cfg['lib_name']: ['recipes/*.yaml', 'training/*.yaml', 'evaluation/*.csv',
                                   'visualization/assets/*', 'lab/assets/*']},
    cmdclass={'build_py': BuildWithNotebooks},
    python_requires=f">={cfg['min_python']}",
    install_requires=lines('requirements'),
    extras_require={key.removesuffix('_requirements'): lines(key) for key in cfg if key.endswith('_requirements')},
    entry_points={'console_scripts': lines('console_scripts'),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    zip_safe=False,
)
