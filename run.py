#!/usr/bin/env python3
"""The command line's door: `python run.py --help` teaches. The commands are in `bpc_cli`, one file each."""

import os
import sys

try:
    from bpc_cli.main import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    os.environ.setdefault("KMP_WARNINGS", "0")
    sys.exit(main())
