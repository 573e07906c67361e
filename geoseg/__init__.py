"""Semantic segmentation that knows where it is.

Importing the package takes milliseconds: subpackages load when they are used, and the few names that everybody
needs are found here.
"""
__version__ = "0.1.0"

import os
import sys


def leave_working_folder():
    """Nothing is imported because of where one stands: the working folder goes off the path, unless geoseg lies there.

    `python -m` and an empty part of PYTHONPATH put it there."""
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        return
    if here != os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
        sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]


# the command, or `python -m geoseg.cli`, alone or under torchrun: before anything else is imported
if os.path.basename((getattr(sys, 'argv', None) or [''])[0]) in ('geoseg', 'geoseg.exe', '-m'):
    leave_working_folder()

import importlib  # noqa: E402

_NAMES = {
    'train': 'training.train',
    'evaluate': 'evaluation.evaluate',
    'predict': 'inference.predict',
    'explore': 'lab.explore',
    'Run': 'training.run',
    'Predictor': 'models.wrapped',
    'load_plugins': 'core.plugins',
    'recipes': 'training.recipes',
    'LabelScheme': 'data.labels',
    'world_data': 'world.layouts',
}
_SUBPACKAGES = ('cli', 'core', 'data', 'evaluation', 'geo', 'inference', 'lab', 'metrics', 'models', 'tasks', 'training',
                'visualization', 'world')
__all__ = sorted(_NAMES)


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f'.{_NAMES[name]}', __name__), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
    return [*__all__, *_SUBPACKAGES, '__version__']
