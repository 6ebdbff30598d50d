"""What README and docs show is run, and what they name exists."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
TEXTS = [page.read_text() for page in PAGES]
README = TEXTS[0]
EVERYTHING = "\n".join(TEXTS)
LEARN, OWN_NETWORK, LOAD = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
DOCS_PYTHON = [
    pytest.param(block, id=f"{name}-{i}")
    for name, text in zip(NAMES[1:], TEXTS[1:], strict=True)
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
]
each_page = pytest.mark.parametrize(
    "page, text", [pytest.param(*pair, id=pair[0].name) for pair in zip(PAGES, TEXTS, strict=True)]
)


def commands():
    """Every whole command: lines of shell blocks, and the first column of the table of commands."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", EVERYTHING, flags=re.DOTALL)).splitlines()
    shown = [line.split("  #")[0].removeprefix("python ").strip() for line in lines if "run.py" in line]
    return [*shown, *re.findall(r"^\| `(run\.py [^`]+)` \|", EVERYTHING, flags=re.MULTILINE)]


@pytest.mark.slow
def test_the_api_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(LEARN, "README.md", "exec"), {})
    assert "torch.Size([10, 1, 8, 8])" in capsys.readouterr().out


@pytest.mark.slow
def test_own_network(tmp_path, monkeypatch):
    import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPC_RUNS", str(tmp_path / "runs"))
    (tmp_path / "mynet.py").write_text(OWN_NETWORK)
    arguments = (
        "distill --dataset digits --model mynet.py:build --divergence fkl --ipc 1 --steps 3 --num-experts 1".split()
    )
    scoring = "--seeds 2 --test-images 50 --protocol exact --chains 2 --warmup 3 --samples 8".split()
    assert run.main([*arguments, *scoring, "--leapfrog-steps", "2", "--reference", "none"]) == 0


def test_a_coreset_file_loads_without_this_project(tmp_path, monkeypatch, digits):
    from bpc.coreset import Pseudocoreset

    split = digits.train.take(slice(0, 10))
    folder = tmp_path / "demo" / "coresets" / "fkl-0"
    folder.mkdir(parents=True)
    Pseudocoreset(
        points=digits.normalise(split.images),
        labels=split.labels,
        weights=split.labels.new_ones(10).float(),
        mean=digits.mean,
        std=digits.std,
        dataset="digits",
        method="fkl",
        num_classes=10,
    ).save(folder / "coreset.safetensors")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(LOAD, "README.md", "exec"), names)
    assert names["images"].shape == (10, 1, 8, 8)
    assert names["images"].min() >= 0
    assert names["images"].max() <= 1
    assert names["labels"].tolist() == split.labels.tolist()


@pytest.mark.parametrize("block", DOCS_PYTHON)
def test_python_of_the_docs_runs(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {})
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("command", commands())
def test_every_whole_command_parses(command):
    from bpc_cli.main import parse

    parse(shlex.split(command)[1:])


def test_every_command_exists():
    from bpc_cli.main import COMMANDS, GROUPS

    assert set(re.findall(r"run\.py ([a-z]\w*)", EVERYTHING)) <= {*COMMANDS, *GROUPS}
    assert {*COMMANDS, *GROUPS} - set(re.findall(r"run\.py (\w+)", README)) <= {"demo", "tabulate"}
    for group, (_, members, _) in GROUPS.items():
        assert set(re.findall(rf"\b{group} ([a-z]+)`", EVERYTHING)) <= set(members)


def test_every_flag_exists():
    from bpc_cli.main import COMMANDS, GROUPS

    def fields(group):
        for field in dataclasses.fields(group):
            yield field.name.replace("_", "-")
            if dataclasses.is_dataclass(field.default):
                yield from fields(field.default)
            elif dataclasses.is_dataclass(field.default_factory):
                yield from fields(field.default_factory)

    every = [*COMMANDS.values(), *(command for _, members, _ in GROUPS.values() for command in members.values())]
    known = {name for command in every for name in fields(command.flags)} | {"help"}
    named = set(re.findall(r"--([a-z][a-z-]+)", EVERYTHING))
    assert {name for name in named if name not in known and name.removeprefix("no-") not in known} == set()


def test_every_target_and_study_exists():
    from evaluation.reproduce import TARGETS
    from evaluation.studies import STUDIES

    papers = (
        r"\b(?:kim2022|ai2021|tomczak2018|pooladzandi2022)-(?:table|fig)\d+(?:-\w+)?|regression-\w+|posterior-digits"
    )
    assert set(re.findall(papers, EVERYTHING)) - {"regression-coreset"} <= set(TARGETS)
    assert set(re.findall(r"run\.py study (\w+)", EVERYTHING)) == {*STUDIES, "chain"}


@each_page
def test_pictures_and_links_exist(page, text):
    for path in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in path or (page.parent / path).exists(), path


@each_page
def test_anchors_exist(page, text):
    for path, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", text):
        titles = re.findall(r"^#+ (.*)$", (page.parent / path).read_text() if path else text, flags=re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, anchor


@each_page
def test_one_title_per_page_and_first(page, text):
    code_out = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len(re.findall(r"^# ", code_out, flags=re.MULTILINE)) == 1
    assert text.startswith("# ")


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    assert set(re.findall(r"\]\((\w[\w-]*\.md)\)", index)) == {p.name for p in PAGES[1:]} - {"index.md"}
