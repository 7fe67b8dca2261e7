"""`python -m cpm_tune` is the same program as `cpm-tune` and `tune.py`."""

import sys

from cpm_tune.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
