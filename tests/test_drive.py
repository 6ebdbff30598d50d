"""The one driver of long work: when it saves, and what it never saves."""

import pytest

from bpc import drive as module
from bpc.drive import drive


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when told to."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def run(steps, seconds, whole=True):
    taken, saved = [], []
    try:
        drive(
            steps,
            took=taken.append,
            save=lambda: saved.append(list(taken)),
            checkpoint_seconds=seconds,
            whole=lambda: whole,
        )
    except KeyboardInterrupt:
        return taken, saved, True
    return taken, saved, False


def test_checkpoints_come_by_the_clock(clock):
    def steps():
        for i in range(6):
            clock[0] += 10
            yield i

    taken, saved, stopped = run(steps(), 25)
    assert taken == list(range(6)) and not stopped
    assert saved == [[0, 1, 2], [0, 1, 2, 3, 4, 5]]  # after 30 and 60 seconds
    assert run(steps(), 1e9)[1] == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_stop_in_the_middle_of_a_step(clock, whole):
    """What was taken is saved, if it can be; work that changes its state in place is never saved half done."""

    def steps():
        yield 0
        raise KeyboardInterrupt

    assert run(steps(), 1e9, whole) == ([0], [[0]] if whole else [], True)


def test_other_errors_save_nothing(clock):
    """A step that diverged must not become the checkpoint."""

    def steps():
        yield 0
        raise ValueError("diverged")

    saved = []
    with pytest.raises(ValueError, match="diverged"):
        drive(
            steps(), took=saved.append, save=lambda: saved.append("saved"), checkpoint_seconds=1e9, whole=lambda: True
        )
    assert saved == [0]
