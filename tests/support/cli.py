"""What tests of the command line share."""

import signal
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPERTS = ["--dataset", "digits", "--width", "4", "--depth", "1", "--num-experts", "2", "--epochs", "4"]


def one_line_error(done, *words):
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]


def kill_when(process, ready, timeout=120):
    """SIGKILL as soon as `ready()`; says whether it was still running."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and not ready():
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.005)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


def lines_of(path):
    return path.read_text().count("\n") if path.exists() else 0
