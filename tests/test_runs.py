"""A run's folder: what it deletes (its own), what it refuses (anybody else's), and records that somebody damaged."""

import json
import os

import pytest
import torch

from bpc.errors import BpcError, ConfigError, FileFormatError
from bpc.files import (
    explain_os_error,
    load_own_tensors,
    load_tensors,
    own_content,
    save_tensors,
    write_atomic,
    write_json,
)
from bpc.runs import Run, check_folder, default_out, own_file, read_run

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


def test_a_finished_run_whose_promised_file_is_gone_is_not_finished(tmp_path, capsys):
    """A deleted coreset.safetensors left "holds this run already, finished"."""
    path = tmp_path / "r"
    with Run(path, "distill", {"a": 1}, CPU) as run:
        run.file("coreset.safetensors", promised=True).write_text("ours")
        run.file("learning.png").write_text("a picture")
        run.record("done")
    (path / "learning.png").unlink()
    with Run(path, "distill", {"a": 1}, CPU) as run:
        assert run.done
    (path / "coreset.safetensors").unlink()
    with Run(path, "distill", {"a": 1}, CPU) as run:
        assert not run.done
    assert "coreset.safetensors is gone" in capsys.readouterr().err
    assert read_run(path)["outputs"] == ["coreset.safetensors"]  # the promise outlives the resumed run


@pytest.mark.parametrize("outputs", [["../../etc/passwd"], "coreset", [5], [".."]])
def test_promises_are_plain_names(tmp_path, outputs):
    path = finished(tmp_path / "r")
    write_json(path / "run.json", {**json.loads((path / "run.json").read_text()), "outputs": outputs})
    with pytest.raises(FileFormatError, match="outputs"):
        read_run(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"5", b"[]", b'{"a": 1}', b"{"])
def test_a_record_that_is_no_record(tmp_path, content):
    path = finished(tmp_path / "r")
    (path / "run.json").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"run\.json") as caught:
        Run(path, "evaluate", {"a": 1}, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["run.json", ".files", "log.jsonl", "checkpoint.safetensors"])
def test_a_pipe_in_a_run_does_not_hang(tmp_path, name):
    path = finished(tmp_path / "r")
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    with pytest.raises(BpcError, match="a pipe, a socket or a device"), Run(path, "evaluate", {"a": 1}, CPU) as run:
        run.trim_log("step", 1)
        load_own_tensors(path / name, run.hash)


def test_a_log_that_is_no_text_is_trimmed(tmp_path):
    with Run(tmp_path / "r", "distill", {"a": 1}, CPU) as run:
        run.log(step=1)
        with open(run.path / "log.jsonl", "ab") as stream:
            stream.write(b"\xff\xfe\n[1]\n" + b"[" * 100_000 + b'\n{"step": 9}\n')
        run.trim_log("step", 1)
        assert (run.path / "log.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\udcff"])
def test_names_of_folders_can_be_written_into_tables(tmp_path, name):
    """They were refused by rows.csv, after all the learning, or by the encoder."""
    with pytest.raises(ConfigError, match="control characters or is not UTF-8"):
        Run(tmp_path / name, "evaluate", {"a": 1}, CPU)
    assert not list(tmp_path.iterdir())


def test_damaged_checkpoints_say_how_to_go_on(tmp_path):
    for content in (b"", b"junk" * 100):
        (tmp_path / "c").write_bytes(content)
        with pytest.raises(FileFormatError, match=r"c is not a checkpoint: .* start over with --no-resume"):
            load_own_tensors(tmp_path / "c", "abc", what="a checkpoint")
    save_tensors(tmp_path / "c", {"a": torch.ones(1)}, {"config_hash": "other"})
    with pytest.raises(FileFormatError, match=r"another configuration.* --no-resume"):
        load_own_tensors(tmp_path / "c", "abc")
    with pytest.raises(FileFormatError, match=r"damaged \(KeyError: 'b'\).* --no-resume"), own_content(tmp_path / "c"):
        load_own_tensors(tmp_path / "c", "other")[0]["b"]


def test_temporary_files_of_others_go_when_they_are_old(tmp_path):
    """Of tables, stores and caches too: whatever `write_atomic` writes."""
    old, young, foreign = (tmp_path / n for n in (".t.md.abcd1234.tmp", ".t.md.abcd1235.tmp", ".x.md.abcd1234.tmp"))
    for path in (old, young, foreign):
        path.write_text("torn")
    for path in (old, foreign):
        os.utime(path, (1e9, 1e9))
    write_atomic(tmp_path / "t.md", lambda stream: stream.write(b"whole"))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([young.name, foreign.name, "t.md"])


def test_an_unreadable_file_is_not_called_truncated(tmp_path, monkeypatch):
    save_tensors(tmp_path / "c", {"a": torch.ones(1)}, {})

    def refuse(self, *args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(FileFormatError, match=r"Cannot read .*Permission denied") as caught:
        load_tensors(tmp_path / "c")
    assert "truncated" not in str(caught.value)


def test_advice_fits_what_was_tried():
    """An unreadable BPC_DATA_ROOT gave "Cannot write ... choose another folder with --out"."""
    denied = PermissionError(13, "Permission denied")
    assert "--out" in str(explain_os_error(denied, "x"))
    assert str(explain_os_error(denied, "x", doing="read or write")) == (
        "Cannot read or write x: no permission to read or write it: check the path and its permissions."
    )


@pytest.mark.parametrize("name", [".files", "log.jsonl", "rows.csv"])
def test_a_link_leads_no_run_to_another_file(tmp_path, name):
    """In a folder that somebody shared, the run's lines were appended to whatever the link led to."""
    path = finished(tmp_path / "r")
    (tmp_path / "thesis.tex").write_text("five years")
    (path / name).unlink()
    (path / name).symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(ConfigError, match="is a link"), Run(path, "evaluate", {"a": 1}, CPU) as run:
        run.log(step=2)
        run.file("rows.csv")
        run.file("another.png")
    with pytest.raises(ConfigError, match="is a link"):
        own_file(path, name if name != ".files" else "another.png")
    assert (tmp_path / "thesis.tex").read_text() == "five years"
