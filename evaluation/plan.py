"""A plan: a published table or figure as commands that depend on each other. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bpc.errors import unknown_name

if TYPE_CHECKING:
    from evaluation.table import Table

__all__ = ["SCALES", "Command", "Step", "Target", "plan_of"]

# how much is done: digits in minutes; a small machine's hours; as published
SCALES = ("smoke", "cpu", "full")

Command = list[str]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a plan, a value: it can be printed, sent to another machine, and run in any order that `needs` allows.

    A step's result lies in `out`, with the hash of its configuration in ``run.json``: a step that is done is found by it.

    Attributes:
        command: what follows ``run.py``.
        writes: folders that it makes or goes on in; the first holds its result.
        needs: numbers of the steps in the plan (from 0) whose folders it reads or goes on in.
        stage: words that announce it and its neighbours of the same stage; nothing announces it by its command.
    """

    command: tuple[str, ...]
    writes: tuple[Path, ...]
    needs: tuple[int, ...] = ()
    stage: str = ""

    @property
    def out(self) -> Path:
        """Where its result is."""
        return self.writes[0]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One table or figure, published or ours.

    Attributes:
        what: in a line.
        commands: (name of the scale, folder, common flags) -> commands, in an order that works.
        published: rows of Table 4 of `evaluation.published` to stand beside variants of one method, by the variant's name.
        tables: what `run.py tabulate` makes of its folder, if it is not a table of variants.
    """

    what: str
    commands: Callable[[str, Path, Command], Iterable[Command | tuple[str, Command]]]
    published: dict[str, tuple[str, str]] = field(default_factory=dict)
    tables: Callable[[Path], list[Table]] | None = None

    def steps(self, scale: str, out: Path, common: Command) -> list[Step]:
        """The plan at a scale.

        Raises:
            ConfigError: an unknown scale.
        """
        if scale not in SCALES:
            raise unknown_name("scale", scale, SCALES)
        return plan_of(self.commands(scale, out, common))


def plan_of(commands: Iterable[Command | tuple[str, Command]]) -> list[Step]:
    """Steps of commands in an order that works, each alone or with its stage; who needs whom is read off their paths.

    A command needs an earlier one when one of its paths is, holds, or lies in a folder that the earlier one writes.
    """
    steps: list[Step] = []
    for entry in commands:
        stage, command = entry if isinstance(entry, tuple) else ("", entry)
        paths = _paths(command)
        needs = tuple(
            i for i, step in enumerate(steps) if any(_overlap(path, own) for path in paths for own in step.writes)
        )
        steps.append(Step(command=tuple(command), writes=_writes(command), needs=needs, stage=stage))
    return steps


def _paths(command: Command) -> list[Path]:
    """The folders of a study that a command names: all its words with a slash, but for where datasets are."""
    pairs = zip(["", *command], command, strict=False)
    return [Path(word) for before, word in pairs if "/" in word and before not in ("--data-root", "--title")]


def _writes(command: Command) -> tuple[Path, ...]:
    """Folders a command writes: --out and --base, the store of `experts`; else it goes on in the last folder it is given."""
    names = ("--out", "--base", *(("--experts",) if command[0] == "experts" else ()))
    found = [Path(command[command.index(name) + 1]) for name in names if name in command]
    return tuple(found or _paths(command)[-1:])


def _overlap(a: Path, b: Path) -> bool:
    """Whether one is, or holds, the other; by their texts, since a plan of hundreds of steps compares a million."""
    first, second = f"{a}/", f"{b}/"
    return first.startswith(second) or second.startswith(first)
