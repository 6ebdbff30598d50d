import sys

import pytest

from benchmarks import peer


def test_a_folder_without_their_code_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peer.py", "--peer", str(tmp_path), "--divergence", "fkl"])
    with pytest.raises(SystemExit, match=r"has no train\.py; clone https"):
        peer.main()


def test_a_stand_in_replaces_nothing_that_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_up_package", None)  # importing it raises ImportError
    peer._stand_in("json", loads=None)
    peer._stand_in("made_up_package", answer=42)
    import json

    assert json.loads("1") == 1
    assert sys.modules["made_up_package"].answer == 42
