"""Training in a forked child, for scripts that kill it."""
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

from geoseg.training.train import train


def train_in_fork(
    settings: dict[str, Any],  # arguments of `train`
    prepare: Callable[[], None] = lambda: None,  # what the child does first
) -> int:  # the child's process number
    'Train quietly in a child, which ends with 1 and one line if that fails.'
    child = os.fork()
    if child == 0:
        try:
            warnings.simplefilter('ignore')
            sys.stdout = sys.stderr = open(os.devnull, 'w')
            torch.set_num_threads(1)
            prepare()
            train(**settings)
            os._exit(0)
        except BaseException as error:
            sys.__stderr__.write(f'{settings}: {type(error).__name__}: {error}\n')
            os._exit(1)
    return child
