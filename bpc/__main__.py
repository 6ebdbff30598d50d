"""`python -m bpc`: the same commands as `python run.py`."""

import sys

from bpc_cli.main import main

sys.exit(main())
