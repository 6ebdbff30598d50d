"""`python -m bpc_cli` is `run.py`: how a plan starts its steps in processes of their own."""

import sys

from bpc_cli.main import main

sys.exit(main())
