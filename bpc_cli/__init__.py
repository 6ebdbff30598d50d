"""The command line: one file per command, its flags beside its handler. Only `run.py` and the entry points import it."""
