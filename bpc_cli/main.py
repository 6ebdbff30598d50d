"""Parse, dispatch, errors: every mistake of the user's is one line on stderr and exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import tyro

from bpc.errors import BpcError, ConfigError, unknown_name
from bpc.runtime import keep_freed_memory, printable_output, repeatable_kernels
from bpc_cli import compare, demo, distill, doctor, evaluate, experts, reference, reproduce, select, ssl, study, vae
from bpc_cli.flags import check_flags

__all__ = ["COMMANDS", "Command", "TimeIsUp", "call", "main", "parse"]

DESCRIPTION = "Bayesian pseudocoresets: small synthetic datasets whose posterior stands in for the full data's."
FIRST_STEPS = """\
run.py demo                                    the whole job on digits, minutes, no file needed
run.py doctor                                  what is here, and what is missing
run.py distill --divergence fkl --ipc 10       the job on CIFAR-10
run.py COMMAND --help                          every flag of a command"""


@dataclass(frozen=True)
class Command:
    """A command, or one of a group's: its flags, what does it, and examples for its help."""

    flags: type
    run: Callable[[Any], Path | None]
    examples: str = ""


COMMANDS: dict[str, Command] = {
    "demo": Command(demo.Demo, demo.run_demo, demo.EXAMPLES),
    "doctor": Command(doctor.Doctor, doctor.run_doctor, doctor.EXAMPLES),
    "experts": Command(experts.Experts, experts.run_experts, experts.EXAMPLES),
    "distill": Command(distill.Distill, distill.run_distill, distill.EXAMPLES),
    "select": Command(select.Select, select.run_select, select.EXAMPLES),
    "evaluate": Command(evaluate.Evaluate, evaluate.run_evaluate, evaluate.EXAMPLES),
    "reference": Command(reference.MakeReference, reference.run_reference, reference.EXAMPLES),
    "compare": Command(compare.Compare, compare.run_compare, compare.EXAMPLES),
    "reproduce": Command(reproduce.Reproduce, reproduce.run_reproduce, reproduce.EXAMPLES),
    "study": Command(study.Study, study.run_study, study.EXAMPLES),
    "tabulate": Command(reproduce.Tabulate, reproduce.run_tabulate),
}
GROUPS: dict[str, tuple[str, dict[str, Command], str]] = {
    "vae": (
        "VAEs whose prior is a coreset: ByPE-VAE, VampPrior, Exemplar and others.",
        {name: Command(*parts) for name, parts in vae.VAE_COMMANDS.items()},
        vae.EXAMPLES,
    ),
    "ssl": (
        "Learning from few labels and chosen synthetic images.",
        {name: Command(*parts) for name, parts in ssl.SSL_COMMANDS.items()},
        ssl.EXAMPLES,
    ),
}


class TimeIsUp(KeyboardInterrupt):
    """`--stop-after` has used its seconds: like Ctrl-C, running work leaves a checkpoint."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers and spot machines send it: like Ctrl-C, running work leaves a checkpoint."""


def parse(arguments: list[str]) -> tuple[Command, Any]:
    """The command and its flags.

    Raises:
        ConfigError: they do not parse.
        SystemExit: help was asked for, and printed.
    """
    for argument in arguments:
        if any("\ud800" <= c <= "\udfff" for c in argument):  # it may end in a table, which is UTF-8
            raise ConfigError(f"{argument!a} is not UTF-8; rename the file or folder, or type another word.")
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_overview()
    if arguments[0] == "--version":
        _print_version()
    name, rest, prog = arguments[0], arguments[1:], f"run.py {arguments[0]}"
    commands = COMMANDS
    if name in GROUPS:
        description, commands, examples = GROUPS[name]
        if not rest or rest[0] in ("-h", "--help"):
            _print_list(prog, description, commands, examples)
        name, rest, prog = rest[0], rest[1:], f"{prog} {rest[0]}"
    if name not in commands:
        kind = "command" if commands is COMMANDS else f"command of {prog.rsplit(' ', 1)[0]}"
        raise unknown_name(
            kind, name, [*commands, *(GROUPS if commands is COMMANDS else ())], hint="--help lists them."
        )
    command = commands[name]
    caught, shown = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(caught), contextlib.redirect_stdout(shown):
            args: Any = tyro.cli(command.flags, args=rest, prog=prog, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if stop.code:
            raise ConfigError(_parse_error(caught.getvalue(), prog, rest)) from None
        for line in shown.getvalue().splitlines():  # the description is not wrapped by tyro
            print(line if not line[:1].isalpha() or line.startswith("usage") else _wrapped(line))
        if command.examples:
            print(f"\nExamples:\n{_indented(command.examples)}")
        raise
    check_flags(args)
    return command, args


def call(arguments: list[str]) -> Path | None:
    """Do what a command line asks for, inside another command (a plan's step)."""
    command, args = parse(arguments)
    return command.run(args)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    printable_output()
    try:
        with _terminating():
            return _run(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    try:
        try:
            command, args = parse(arguments)
        except SystemExit as stop:
            sys.stdout.flush()
            return int(stop.code or 0)
        keep_freed_memory()
        repeatable_kernels()
        made = command.run(args)
        if made is not None:
            print(made)
        sys.stdout.flush()
        return 0
    except BpcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        from bpc.files import explain_os_error

        print(
            f"error: {explain_os_error(error, error.filename or 'the output', doing='read or write')}", file=sys.stderr
        )
        _forget_output()
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print("error: Out of memory; a smaller --memory-budget, --width or --ipc needs less.", file=sys.stderr)
        return 2
    except TimeIsUp:
        return _stopped("time is up", 75)
    except Terminated:
        return _stopped("terminated", 143)
    except KeyboardInterrupt:
        return _stopped("stopped", 130)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's own, CUDA's (a RuntimeError), and that of torch's allocator on the CPU, which has no class of its own."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _stopped(word: str, code: int) -> int:
    print(f"{word}; the same command goes on from what is saved.", file=sys.stderr)
    return code


def _forget_output() -> None:
    """What could not be written to stdout is not tried again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM is handled like Ctrl-C while a command runs (in the main thread, the only one that gets signals)."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Help and mistakes ----------------------------------------------------------------------------------------------------


def _indented(text: str) -> str:
    """Examples: what a command is for stands beside it where every line fits, else above it."""
    lines = ["  " + line for line in text.splitlines()]
    if max(map(len, lines)) <= shutil.get_terminal_size().columns:
        return "\n".join(lines)
    made: list[str] = []
    block: list[str] = []
    for line in text.splitlines():
        command, _, note = line.strip().partition("   ")
        block.append(("      " if block else "  ") + command)
        if not command.endswith("\\"):
            made += [f"  # {note.strip()}"] * bool(note.strip()) + block
            block = []
    return "\n".join(made + block)


def _wrapped(text: str, indent: int = 0) -> str:
    """A sentence in the width of the terminal, its later lines indented."""
    return textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent=" " * indent)


def _first_sentence(flags: type) -> str:
    return str(flags.__doc__).strip().splitlines()[0]


def _print_overview() -> NoReturn:
    lines = [f"usage: run.py COMMAND [OPTIONS]\n\n{_wrapped(DESCRIPTION)}\n\nCommands:"]
    every = {name: _first_sentence(command.flags) for name, command in COMMANDS.items()}
    every |= {name: f"{text} ({', '.join(commands)})" for name, (text, commands, _) in GROUPS.items()}
    lines += [_wrapped(f"  {name:10s} {text}", 13) for name, text in every.items()]
    print("\n".join(lines) + f"\n\nFirst steps:\n{_indented(FIRST_STEPS)}")
    raise SystemExit(0)


def _print_list(prog: str, description: str, commands: dict[str, Command], examples: str) -> NoReturn:
    print(f"usage: {prog} COMMAND [OPTIONS]\n\n{_wrapped(description)}\n\nCommands:")
    for name, command in commands.items():
        print(_wrapped(f"  {name:10s} {_first_sentence(command.flags)}", 13))
    print(f"\nExamples:\n{_indented(examples)}")
    raise SystemExit(0)


def _print_version() -> NoReturn:
    import importlib.metadata

    try:
        version = importlib.metadata.version("bayesian-pseudocoresets")
    except importlib.metadata.PackageNotFoundError:
        version = "of a checkout that is not installed"
    print(f"bayesian-pseudocoresets {version}")
    raise SystemExit(0)


def _parse_error(printed: str, prog: str, rest: list[str]) -> str:
    """Tyro's boxed message as one line that says what to do."""
    bare = (re.sub(r"[╭╮╰╯─│]+|-{5,}", " ", line).strip() for line in printed.splitlines())
    text = " ".join(" ".join(bare).split())
    more = f" {prog} --help explains every flag."
    if found := re.search(r"Unrecognized options: (.+?)(?: (?:Similar|Perhaps|For full|Available)|$)", text):
        unknown = found[1].split(",")[0].split()[0]
        known = _flags_of(prog)
        if unknown.startswith("-"):
            return (
                f"{unknown_name('option', unknown, known or [unknown])}".split("; choose from")[0]
                + "."
                + _near(unknown, known)
                + more
            )
        return f"{unknown!r} is no option of {prog}.{more}"
    if found := re.search(r"Error parsing (\S+): (.+?) (?:Argument helptext|For full)", text):
        return f"{found[1]}: {_plain(found[2].rstrip('.'))}.{more}"
    if found := re.search(r"Missing value for argument '([^']+)'", text):
        return f"{found[1]} needs a value.{more}"
    if missing := re.findall(r"(--[a-z][a-z-]*|[A-Z]+\.\.\.)(?=[^-]*\(required\))", text):
        return f"{prog} needs {' and '.join(dict.fromkeys(missing))}.{more}"
    return f"{text.removesuffix('.')}.{more}"


def _plain(reason: str) -> str:
    """Python's words for a value that does not read as a number, as people say it."""
    for words, kind in (("invalid literal for int() with base 10: ", "a whole number"), ("to float: ", "a number")):
        if words in reason:
            return f"{reason.split(words)[1].split(' - ')[0].strip()} is not {kind}"
    return reason


def _flags_of(prog: str) -> list[str]:
    """Every option of a command, from its own help."""
    names = prog.split()[1:]
    commands = GROUPS[names[0]][1] if names[0] in GROUPS else COMMANDS
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(commands[names[-1]].flags, args=["--help"], prog=prog, config=(tyro.conf.OmitArgPrefixes,))
    return sorted(set(re.findall(r"--[a-z][a-z-]*", shown.getvalue())))


def _near(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
