"""A run's folder: what it deletes (its own), what it refuses (anybody else's), and records that somebody damaged."""

import json

import pytest
import torch

from bpc.errors import ConfigError, FileFormatError
from bpc.files import write_json
from bpc.runs import Run, check_folder, default_out, read_run

CPU = torch.device("cpu")


def finished(path, names=("rows.csv", "coreset.png")):
    with Run(path, "evaluate", {"a": 1}, CPU) as run:
        for name in names:
            run.file(name).write_text("ours")
        run.log(step=1)
        run.record("done")
    return path


def test_starting_over_deletes_what_the_run_has_written_and_nothing_else(tmp_path):
    """`Run._open` unlinked every file of the folder: a README.md and a thesis.tex were lost."""
    path = finished(tmp_path / "r")
    mine = {"README.md": "notes", "thesis.tex": "five years", "predictive-mine.safetensors": "x"}
    for name, text in mine.items():
        (path / name).write_text(text)
    (path / "sub").mkdir()
    (path / "sub" / "rows.csv").write_text("deep")
    with Run(path, "evaluate", {"a": 1}, CPU, resume=False) as run:
        assert not (path / "rows.csv").exists() and not (path / "coreset.png").exists() and not run.done
    assert {name: (path / name).read_text() for name in mine} == mine
    assert (path / "sub" / "rows.csv").read_text() == "deep"


@pytest.mark.parametrize("line", ["../thesis.tex", "/etc/hosts", "sub/x", "..", ".lock", ""])
def test_a_list_from_elsewhere_names_no_other_file(tmp_path, line):
    path = finished(tmp_path / "r")
    (tmp_path / "thesis.tex").write_text("five years")
    with open(path / ".files", "a") as stream:
        stream.write(line + "\n")
    with Run(path, "evaluate", {"a": 1}, CPU, resume=False):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "five years"


def test_a_run_without_a_list_is_not_deleted(tmp_path):
    path = finished(tmp_path / "r")
    (path / ".files").unlink()
    with pytest.raises(ConfigError, match="kept no list"):
        Run(path, "evaluate", {"a": 1}, CPU, resume=False)
    assert (path / "rows.csv").exists()
    Run(path, "evaluate", {"a": 1}, CPU).close()


def test_a_foreign_folder_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    Run(folder, "evaluate", {"a": 1}, CPU).close()  # an empty one is taken
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("five years")
    before = sorted(p.name for p in other.iterdir())
    with pytest.raises(ConfigError, match=r"not empty and no run of ours \(thesis.tex there\)"):
        Run(other, "evaluate", {"a": 1}, CPU)
    assert sorted(p.name for p in other.iterdir()) == before
    check_folder(other, beside=("thesis.tex",))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(file)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wall_seconds", "abc"), ("wall_seconds", -1), ("wall_seconds", True), ("config", 5), ("status", None), ("job", [1]),
        ("config_hash", 7),
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_line(tmp_path, field, value):
    path = finished(tmp_path / "r")
    record = json.loads((path / "run.json").read_text())
    write_json(path / "run.json", {**record, field: value})
    with pytest.raises(FileFormatError, match=r"run\.json"):
        Run(path, "evaluate", {"a": 1}, CPU)
    with pytest.raises(FileFormatError, match=r"run\.json"):
        read_run(path)


def test_temporary_files_of_killed_runs_go(tmp_path):
    path = finished(tmp_path / "r")
    ours, foreign = path / ".rows.csv.abcd1234.tmp", path / ".thesis.tex.abcd1234.tmp"
    ours.write_text("torn")
    foreign.write_text("mine")
    Run(path, "evaluate", {"a": 1}, CPU).close()
    assert not ours.exists() and foreign.exists()


def test_no_name_leaves_the_folder_of_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    for name in ("/../../PWN2", "..", "a\nb", "a\\b", "\0", "..\\..", "~root"):
        path = default_out("evaluate", name, "x")
        assert path.parent == tmp_path / "runs" and not set(path.name) & set("/\\\n\0~")
    assert default_out("..").parent == tmp_path / "runs" and default_out("..").name not in ("", ".", "..")
    assert default_out("evaluate", "digits", "hmc@pyro").name == "evaluate-digits-hmc@pyro"


def test_names_of_files_have_no_folders(tmp_path):
    with Run(tmp_path / "r", "evaluate", {"a": 1}, CPU) as run, pytest.raises(ValueError, match="without folders"):
        run.file("../x")
