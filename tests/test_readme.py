"""What the README shows is run."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.slow
def test_the_api_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    assert "torch.Size([10, 1, 8, 8])" in capsys.readouterr().out


@pytest.mark.slow
def test_own_network(tmp_path, monkeypatch):
    import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    (tmp_path / "mynet.py").write_text(BLOCKS[1])
    arguments = (
        "distill --dataset digits --model mynet.py:build --divergence fkl --ipc 1 --steps 3 --num-experts 1".split()
    )
    scoring = "--seeds 2 --test-images 50 --protocol exact --chains 2 --warmup 3 --samples 8".split()
    assert run.main([*arguments, *scoring, "--leapfrog-steps", "2", "--reference", "none"]) == 0


def test_every_command_exists():
    from bpc_cli.main import COMMANDS, GROUPS

    assert set(re.findall(r"run\.py (\w+)", TEXT)) <= {*COMMANDS, *GROUPS}


def test_pictures_exist():
    root = Path(__file__).resolve().parents[1]
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT):
        assert (root / path).is_file(), path
