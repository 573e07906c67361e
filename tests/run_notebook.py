"Run a notebook from top to bottom as nbdev_test does, in its own folder."
import sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.test import test_nb

if __name__ == '__main__':
    config = get_config()
    passed, _ = test_nb(Path(sys.argv[1]), skip_flags=config.tst_flags.split(), basepath=config.config_path)
    sys.exit(not passed)
