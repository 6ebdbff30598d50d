"""run.py in a process of its own."""

import os
import subprocess
import sys

import pytest
from cli import ROOT


@pytest.fixture
def place(tmp_path):
    """An environment of its own: no data, no cache, no network, and runs in tmp_path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("BPC_")}
    env |= {
        "BPC_RUNS": str(tmp_path / "runs"),
        "BPC_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        # nobody listens on port 9: a download fails at once, as it does offline
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }

    def run(*arguments, check=None):
        command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        if check is not None:
            assert done.returncode == check, done.stderr
        return done

    def start(*arguments):
        command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def until(*arguments, line):
        """The first line on stderr that begins so; then the process is killed."""
        command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
        with subprocess.Popen(
            command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                return next(text for text in process.stderr if text.startswith(line))
            finally:
                process.kill()

    run.start = start
    run.until = until
    run.path = tmp_path
    return run
