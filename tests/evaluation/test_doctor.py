"""What `run.py doctor` says of a data root that cannot be used, and that it survives one."""

import os

import pytest
from rich.console import Console

from bpc.data import load_dataset
from bpc.errors import DataError
from evaluation.doctor import report


def text_of(data_root, capsys):
    for table in report(data_root):
        Console(width=500).print(table)
    return capsys.readouterr().out


def deny(monkeypatch, root):
    """Make the system refuse everything below `root`, as it does to anyone but root himself."""
    for name in ("stat", "scandir"):
        real = getattr(os, name)

        def refuse(path=".", *args, real=real, **options):
            if str(path).startswith(str(root)):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **options)

        monkeypatch.setattr(os, name, refuse)


def test_a_file_is_no_data_root(tmp_path, capsys):
    """`doctor --data-root /etc/passwd` said nothing."""
    file = tmp_path / "passwd"
    file.write_text("")
    assert "passwd, which is a file, not a folder" in text_of(file, capsys)
    assert "nowhere, which does not exist" in text_of(tmp_path / "nowhere", capsys)
    with pytest.raises(DataError, match=r"missing.*which is a file, not a folder.*Nothing is downloaded"):
        load_dataset("mnist", data_root=file)


def test_an_unreadable_data_root(tmp_path, capsys, monkeypatch):
    """It gave "Cannot write ...; choose another folder with --out", and ended `doctor`."""
    monkeypatch.setenv("BPC_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "secret"
    root.mkdir()
    deny(monkeypatch, root)
    assert "secret, which cannot be read: Permission denied" in text_of(root, capsys)
    with pytest.raises(DataError, match=r"missing.*cannot be read: Permission denied.*Nothing is downloaded"):
        load_dataset("mnist", data_root=root)


def test_names_are_no_markup(tmp_path, capsys):
    folder = tmp_path / "[bold]x"
    folder.mkdir()
    assert "[bold]x" in text_of(folder, capsys)
