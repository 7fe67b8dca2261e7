#!/usr/bin/env python
"""Run cpm-tune from a checkout: the same program as the installed `cpm-tune` command."""

import sys

from cpm_tune.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
