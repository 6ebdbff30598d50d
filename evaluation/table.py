"""A table, before it has a format: on the console, as Markdown, CSV, LaTeX or HTML, by the same rules.

Every table of this project is a `Table`. A mean over seeds of which one is not finite is a dash, and a footnote says how many
are not, and what the others come to. A cell that does not apply is blank.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from evaluation.moments import Moments

__all__ = [
    "MISSING",
    "Cell",
    "Column",
    "Table",
    "TableRow",
    "significant",
    "tables_to_html",
    "tables_to_latex",
    "tables_to_markdown",
    "unique_clauses",
]

MISSING = "—"  # a mean that does not exist
ROUNDING = 1e-12  # what is smaller is a zero that was computed
_CONSOLE_DIGITS = 3
_WORDS = re.compile(r" (?![↑↓→])")  # a heading is broken here: no arrow stands alone
_FRAME = 3  # columns of a console that every column of a table needs beside its texts
_NARROW_TEXT = 20  # words longer than this, as of paths, are broken where they must be
_NARROWEST = 6  # names and texts are made no narrower while there is another way
_ARROWS = {"": "", "higher": " ↑", "lower": " ↓", "zero": " →0"}

Cell = str | Moments | None  # a text, a number over seeds, or nothing that applies
Texts = list[list[list[tuple[str, bool]]]]  # blocks of rows of (text, whether it is bold)


@dataclass(frozen=True, kw_only=True)
class Column:
    """What stands below one heading.

    Attributes:
        name: in the heading and in footnotes.
        unit: in brackets behind the name, where there is one to name.
        better: which direction is good; "" if neither is.
        digits: behind the point; None for three significant digits (`significant`).
        sign: print the plus of a positive number.
        key: tells rows apart, and is repeated where a console is too narrow for the whole table.
        left: aligned to the left, as texts are; a console breaks them between words, unless they are `key`.
        ranked: the best of each block is bold.
        joined: belongs to the column before it, and stays beside it.
        noted: a mean that does not exist has a footnote.
        short: the name on a console; "" for `name`.
    """

    name: str
    unit: str = ""
    better: Literal["", "higher", "lower", "zero"] = ""
    digits: int | None = 4
    sign: bool = False
    key: bool = False
    left: bool = False
    ranked: bool = False
    joined: bool = False
    noted: bool = True
    short: str = ""

    @property
    def heading(self) -> str:
        """Name, unit and an arrow for the direction."""
        return self.name + (f" ({self.unit})" if self.unit else "") + _ARROWS[self.better]

    def number(self, value: float) -> str:
        """One number as this column prints it."""
        if self.digits is None:
            return significant(value)
        return f"{value:{'+' if self.sign else ''}.{self.digits}f}"

    def text(self, cell: Cell) -> str:
        """Mean ± spread, a dash for a mean that does not exist, blank for what does not apply."""
        if cell is None or isinstance(cell, str):
            return cell or ""
        if math.isnan(cell.mean):
            return MISSING if cell.n else ""
        spread = "" if math.isnan(cell.std) else f" ±{replace(self, sign=False).number(cell.std)}"
        return self.number(cell.mean) + spread

    def score(self, value: float) -> float:
        """Of a mean: the smaller the better."""
        return {"higher": -value, "zero": abs(value)}.get(self.better, value)


@dataclass(frozen=True)
class TableRow:
    """One line.

    Attributes:
        cells: one for each column.
        label: what footnotes call the row; "" for its key cells.
    """

    cells: tuple[Cell, ...]
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table before it has a format.

    Attributes:
        caption: what it is of.
        columns: left to right.
        blocks: rows that are compared with one another; a rule divides blocks.
        notes: below it, before the footnotes on means that do not exist.
        repeats: what the numbers of one cell are of, in those footnotes.
        transposed: whether methods are columns and not rows: a footnote is then about a column.
    """

    caption: str = ""
    columns: tuple[Column, ...]
    blocks: tuple[tuple[TableRow, ...], ...]
    notes: tuple[str, ...] = ()
    repeats: str = "seeds"
    transposed: bool = False

    @property
    def headings(self) -> list[str]:
        """One for each column."""
        return [column.heading for column in self.columns]

    @property
    def rows(self) -> list[TableRow]:
        """Of all blocks."""
        return [row for block in self.blocks for row in block]

    def texts(self) -> Texts:
        """Blocks of rows of (text, whether it is bold)."""
        return [
            [
                [
                    (column.text(cell), column.ranked and _is_best(column, cell, [r.cells[place] for r in block]))
                    for place, (column, cell) in enumerate(zip(self.columns, row.cells, strict=True))
                ]
                for row in block
            ]
            for block in self.blocks
        ]

    def footnotes(self) -> list[str]:
        """The notes, and one for each row (or column) with a mean that does not exist."""
        found: dict[str, list[tuple[str, Column, Moments]]] = {}
        for row in self.rows:
            name = row.label or ", ".join(filter(None, (c for c in self._keys(row) if isinstance(c, str))))
            for column, cell in zip(self.columns, row.cells, strict=True):
                if isinstance(cell, Moments) and cell.n_nonfinite and column.noted:
                    about, part = (column.name, name) if self.transposed else (name, column.name)
                    found.setdefault(about, []).append((part, column, cell))
        return [*self.notes, *(self._footnote(about, cells) for about, cells in found.items())]

    def _keys(self, row: TableRow) -> list[Cell]:
        return [cell for column, cell in zip(self.columns, row.cells, strict=True) if column.key]

    def _footnote(self, about: str, cells: list[tuple[str, Column, Moments]]) -> str:
        worst = max((cell for _, _, cell in cells), key=lambda cell: cell.n_nonfinite)
        others = ", ".join(
            f"{part} {column.number(cell.mean_finite)}"
            for part, column, cell in cells
            if not math.isnan(cell.mean_finite)
        )
        text = f"{MISSING} {about}: {worst.n_nonfinite} of {worst.n} {self.repeats} not finite"
        return f"{text}; mean of the others: {others}." if others else f"{text}."

    def to_markdown(self) -> str:
        """GitHub Markdown: caption, table, notes."""
        lines = [f"**{_escape_markdown(self.caption)}**", ""] if self.caption else []
        lines.append("| " + " | ".join(map(_escape_markdown, self.headings)) + " |")
        lines.append("| " + " | ".join(":--" if column.left else "--:" for column in self.columns) + " |")
        for block in self.texts():
            for row in block:
                texts = [f"**{_escape_markdown(t)}**" if bold else _escape_markdown(t) for t, bold in row]
                lines.append("| " + " | ".join(texts) + " |")
        lines.append("")
        lines.extend(f"- {_escape_markdown(note)}" for note in self.footnotes())
        return "\n".join(lines)

    def to_latex(self) -> str:
        """A LaTeX table, its notes in the caption; needs the packages booktabs and graphicx."""
        blocks = []
        for block in self.texts():
            lines = []
            for row in block:
                texts = [f"\\textbf{{{_escape_latex(t)}}}" if bold else _escape_latex(t) for t, bold in row]
                lines.append("    " + " & ".join(texts) + r" \\")
            blocks.append("\n".join(lines))
        return "\n".join(
            [
                r"\begin{table}[t]",
                r"  \centering",
                f"  \\caption{{{_escape_latex(' '.join(filter(None, [self.caption, *self.footnotes()])))}}}",
                r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                f"  \\begin{{tabular}}{{{''.join('l' if column.left else 'r' for column in self.columns)}}}",
                r"    \toprule",
                "    " + " & ".join(map(_escape_latex, self.headings)) + r" \\",
                r"    \midrule",
                "\n    \\midrule\n".join(blocks),
                r"    \bottomrule",
                r"  \end{tabular}}",
                r"\end{table}",
            ]
        )

    def to_html(self) -> str:
        """A ``table`` element with its notes; every text is escaped."""
        lines = ["<table>", f"<caption>{html.escape(self.caption)}</caption>"] if self.caption else ["<table>"]
        lines.append("<thead>")
        heads = [f'<th scope="col"{_left(column)}>{html.escape(column.heading)}</th>' for column in self.columns]
        lines.append(f"<tr>{''.join(heads)}</tr>")
        lines.append("</thead>")
        for block in self.texts():
            lines.append("<tbody>")
            for row in block:
                cells = []
                for column, (text, bold) in zip(self.columns, row, strict=True):
                    inside = f"<strong>{html.escape(text)}</strong>" if bold else html.escape(text)
                    tag, scope = ("th", ' scope="row"') if column.key else ("td", "")
                    cells.append(f"<{tag}{scope}{_left(column)}>{inside}</{tag}>")
                lines.append(f"<tr>{''.join(cells)}</tr>")
            lines.append("</tbody>")
        lines.append("</table>")
        if notes := self.footnotes():
            lines += ["<ul>", *(f"<li>{html.escape(note)}</li>" for note in notes), "</ul>"]
        return "\n".join(lines)

    def to_csv(self) -> str:
        """Every digit: a column of numbers becomes its mean, ``std``, and where seeds were counted ``n``, ``n_nonfinite`` and
        ``mean_finite``. A mean that does not exist is empty, as is what does not apply.
        """
        columns: list[tuple[str, list[str]]] = []
        before = ""
        for place, column in enumerate(self.columns):
            name = f"{before} {column.name}" if column.joined else column.name
            before = before if column.joined else column.name
            cells = [row.cells[place] for row in self.rows]
            columns.append((name, [_exact(c.mean) if isinstance(c, Moments) else c or "" for c in cells]))
            numbers = [cell if isinstance(cell, Moments) else None for cell in cells]
            if any(numbers):
                columns.append((f"{name} std", [_exact(m.std) if m else "" for m in numbers]))
            if any(m and m.n for m in numbers):
                columns.append((f"{name} n", [str(m.n) if m else "" for m in numbers]))
                columns.append((f"{name} n_nonfinite", [str(m.n_nonfinite) if m else "" for m in numbers]))
                columns.append((f"{name} mean_finite", [_exact(m.mean_finite) if m else "" for m in numbers]))
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name for name, _ in columns])
        writer.writerows(zip(*(texts for _, texts in columns), strict=True))
        return stream.getvalue()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """On a console, with three digits at most: as many columns beside one another as fit, the others below, none cut."""
        columns = tuple(
            column if column.digits is None else replace(column, digits=min(column.digits, _CONSOLE_DIGITS))
            for column in self.columns
        )
        shown = replace(self, columns=columns)
        if self.caption:
            yield Text(self.caption)
        yield from _pieces(shown, options.max_width)
        yield from map(Text, shown.footnotes())


def tables_to_markdown(tables: Sequence[Table], title: str = "") -> str:
    """A Markdown page."""
    heading = [f"# {_escape_markdown(title)}"] if title else []
    return "\n\n".join([*heading, *(table.to_markdown() for table in tables)]) + "\n"


def tables_to_latex(tables: Sequence[Table]) -> str:
    """LaTeX tables, the packages they need named in the first line."""
    return "\n\n".join(["% needs \\usepackage{booktabs,graphicx}", *(table.to_latex() for table in tables)]) + "\n"


def tables_to_html(tables: Sequence[Table], title: str) -> str:
    """A page that needs no other file."""
    style = (
        "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse;margin-top:2em}"
        "caption{text-align:left;font-weight:bold;padding-bottom:.5em}"
        "th,td{padding:.2em .8em;text-align:right;white-space:nowrap}.left{text-align:left}"
        "thead,tbody{border-bottom:1px solid}thead{border-top:2px solid}tbody th{font-weight:normal}"
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *(table.to_html() for table in tables)])
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def unique_clauses(texts: Iterable[str], said: Collection[str] = ()) -> str:
    """What runs have noted, joined by semicolons: every clause once, since they share most of theirs, and none that is `said`."""
    clauses = dict.fromkeys(clause for text in texts if text for clause in text.split("; "))
    return "; ".join(clause for clause in clauses if clause not in said)


def significant(value: float) -> str:
    """Three significant digits, whole from 1,000 on, with an exponent below 0.001; what is zero up to rounding is 0."""
    size = abs(value)
    if size < ROUNDING:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1e}" if size < 1e-3 else f"{value:#.3g}".rstrip(".")


def _is_best(column: Column, cell: Cell, block: list[Cell]) -> bool:
    """Whether no other mean of the block is better at the digits shown; one alone is not the best of anything."""
    means = [c.mean for c in block if isinstance(c, Moments) and not math.isnan(c.mean)]
    if not isinstance(cell, Moments) or math.isnan(cell.mean) or len(means) < 2:
        return False
    return column.number(column.score(cell.mean)) == column.number(min(map(column.score, means)))


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _left(column: Column) -> str:
    return ' class="left"' if column.left else ""


# The console ---------------------------------------------------------------------------------------------------------------


def _pieces(table: Table, room: int) -> Iterator[RichTable]:
    """The table in pieces at most `room` wide, each with the key columns."""
    keys = [i for i, column in enumerate(table.columns) if column.key]
    units: list[list[int]] = []
    for i, column in enumerate(table.columns):
        if column.joined and units:
            units[-1].append(i)
        elif not column.key:
            units.append([i])
    texts = table.texts()
    least = _widths(table, texts, lambda text: min(max(map(cell_len, _WORDS.split(text))), _NARROW_TEXT))
    natural = _widths(table, texts, cell_len)

    def total(places: list[int]) -> int:
        return sum(least[i] for i in places) + _FRAME * len(places)

    units = units or [[]]
    while units:
        places = [*keys, *units.pop(0)]
        if total(places) > room and len(places) > len(keys) + 1:  # what belongs together goes apart
            units = [[place] for place in places[len(keys) :]] + units
            continue
        while units and total([*places, *units[0]]) <= room:
            places += units.pop(0)
        yield _rich(table, texts, places, _fit(table, places, least, natural, room - _FRAME * len(places)))


def _widths(table: Table, texts: Texts, width: Callable[[str], int]) -> list[int]:
    """Of each column, its heading and texts by `width`, which may break them; names of rows and numbers are in one piece."""
    rows = [row for block in texts for row in block]
    return [
        max(width(_console_heading(c)), *((width if c.left and not c.key else cell_len)(row[i][0]) for row in rows), 1)
        for i, c in enumerate(table.columns)
    ]


def _fit(table: Table, places: list[int], least: list[int], natural: list[int], room: int) -> list[int]:
    """Widths of the columns at `places` that sum to at most `room`: headings and texts are broken between words first, then
    the names of rows, and numbers only where nothing else is left.
    """
    widths = [least[i] for i in places]
    for n, i in enumerate(places):
        widths[n] += max(0, min(room - sum(widths), natural[i] - least[i]))
    named = [n for n, i in enumerate(places) if table.columns[i].key or table.columns[i].left]
    while sum(widths) > room and max(widths) > 1:
        shrink = [n for n in named if widths[n] > _NARROWEST] or range(len(widths))
        widths[max(shrink, key=widths.__getitem__)] -= 1
    return widths


def _rich(table: Table, texts: Texts, places: list[int], widths: list[int]) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for place, width in zip(places, widths, strict=True):
        column = table.columns[place]
        justify: Literal["left", "right"] = "left" if column.left else "right"
        shown.add_column(Text(_console_heading(column)), justify=justify, width=width, overflow="fold")
    for block in texts:
        for row in block:
            shown.add_row(*(Text(row[place][0], "bold" if row[place][1] else "") for place in places))
        shown.add_section()
    return shown


def _console_heading(column: Column) -> str:
    return replace(column, name=column.short or column.name).heading


# What a format reads as its own ---------------------------------------------------------------------------------------------


def _escape_markdown(text: str) -> str:
    for character in "\\|*_`<[":
        text = text.replace(character, "\\" + character)
    return text


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "—": "---",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "†": r"$\dagger$",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
