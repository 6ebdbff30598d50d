"""One table in five formats, and one rule for means that do not exist."""

from __future__ import annotations

import csv
import io
import math
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from evaluation.moments import Moments, moments, welch_error
from evaluation.table import Column, Table, TableRow, tables_to_html, tables_to_latex, tables_to_markdown

NASTY = 'a|b & <i>_x_</i> 100% "q" $y$ #1 {z} ~ ^ \\ `c` *d* [e]'
COLUMNS = (
    Column(name="Method", key=True, left=True),
    Column(name="ipc", key=True),
    Column(name="NLL", unit="nats", better="lower", ranked=True),
    Column(name="published", joined=True, short="paper"),
    Column(name="Accuracy", better="higher", ranked=True, short="Acc."),
    Column(name="ΔH", better="zero", ranked=True, digits=2),
    Column(name="KL", digits=None),
)


def row(name, ipc, *cells, label=""):
    return TableRow((name, ipc, *cells), label)


@pytest.fixture
def table():
    first = (
        row(
            "BPC-fKL",
            "1",
            moments([1.0, 2.0]),
            Moments(1.7, 0.02),
            moments([0.4, 0.5]),
            moments([-0.1]),
            Moments(0.00021),
        ),
        row(NASTY, "1", moments([0.3, 0.4, math.nan]), None, moments([0.4, 0.4]), moments([0.2]), Moments(12345.6)),
        row("Random", "1", moments([2.5]), None, moments([0.2]), moments([0.3]), None),
    )
    second = (
        row("Full data", "all", moments([0.5]), None, moments([0.9]), moments([0.0]), Moments(0.0), label="Full data"),
    )
    return Table(caption=f"Caption {NASTY}", columns=COLUMNS, blocks=(first, second), notes=(f"Note {NASTY}",))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_moments_leave_no_number_out(bad):
    found = moments([0.3, 0.4, bad])
    assert math.isnan(found.mean) and math.isnan(found.std)
    assert (found.n, found.n_nonfinite) == (3, 1) and found.mean_finite == pytest.approx(0.35)


def test_moments_of_few_numbers():
    assert moments([1.0, 3.0])[:2] == (2.0, pytest.approx(math.sqrt(2)))
    assert moments([1.0, 3.0]).standard_error == pytest.approx(1.0)
    assert moments([1.0]).mean == 1.0 and math.isnan(moments([1.0]).std) and math.isnan(moments([1.0]).standard_error)
    assert moments([]).n == 0 and math.isnan(moments([]).mean)
    assert math.isnan(moments([math.nan]).mean_finite)
    assert welch_error(moments([0.0, 2.0]), moments([0.0, 4.0])) == pytest.approx(math.sqrt(2 / 2 + 8 / 2))


def cells_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown(table):
    text = table.to_markdown()
    head, rule, fkl, nasty, random, full = cells_of(text)
    assert head == ["Method", "ipc", "NLL (nats) ↓", "published", "Accuracy ↑", "ΔH →0", "KL"]
    assert rule == [":--"] + ["--:"] * 6
    assert fkl == ["BPC-fKL", "1", "**1.5000 ±0.7071**", "1.7000 ±0.0200", "**0.4500 ±0.0707**", "**-0.10**", "2.1e-04"]
    assert nasty[2:] == ["—", "", "0.4000 ±0.0000", "0.20", "12,346"]
    assert random[2:] == ["2.5000", "", "0.2000", "0.30", ""]
    assert full[2:] == ["0.5000", "", "0.9000", "0.00", "0"]  # alone in its block: the best of nothing
    assert "1 of 3 seeds not finite; mean of the others: NLL 0.3500." in text
    # nothing of a name is read as Markdown
    assert r"a\|b & \<i>\_x\_\</i>" in text and r"\`c\` \*d\* \[e]" in text
    assert tables_to_markdown([table, table], "a_b").startswith("# a\\_b\n\n**Caption")


def test_latex(table):
    text = tables_to_latex([table])
    assert text.startswith("% needs \\usepackage{booktabs,graphicx}\n")
    assert r"\begin{tabular}{lrrrrrr}" in text and text.count(r"\midrule") == 2
    assert r"\textbf{1.5000 $\pm$0.7071}" in text and " --- & " in text
    assert r"a|b \& \textless{}i\textgreater{}\_x\_" in text and r"100\% " in text and r"\$y\$ \#1 \{z\}" in text
    assert text.count("{") == text.count("}")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {6}


def test_html_is_whole_escaped_and_says_what_its_cells_head(table):
    text = tables_to_html([table], title=f"Title {NASTY}")
    assert text.startswith("<!doctype html>\n")
    assert "src=" not in text and "href=" not in text and "@import" not in text and "<i>" not in text
    page = ElementTree.fromstring(
        text.partition("\n")[2].replace('<meta charset="utf-8">', "")
    )  # well-formed otherwise
    assert page.find("head/title").text == f"Title {NASTY}"
    element = page.find("body/table")
    assert element.find("caption").text == f"Caption {NASTY}"
    heads = element.findall("thead/tr/th")
    assert [h.text for h in heads] == [column.heading for column in COLUMNS]
    assert {h.get("scope") for h in heads} == {"col"}
    bodies = element.findall("tbody")
    assert [len(body.findall("tr")) for body in bodies] == [3, 1]
    nasty = bodies[0].findall("tr")[1]
    assert [(h.get("scope"), h.text) for h in nasty.findall("th")] == [("row", NASTY), ("row", "1")]
    assert [c.text for c in nasty.findall("td")][:2] == ["—", None]
    assert bodies[0].find("tr/td/strong").text == "1.5000 ±0.7071"
    notes = [item.text for item in page.findall("body/ul/li")]
    assert notes == [f"Note {NASTY}", f"— {NASTY}, 1: 1 of 3 seeds not finite; mean of the others: NLL 0.3500."]


def test_csv_holds_every_digit(table):
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [r["Method"] for r in rows] == ["BPC-fKL", NASTY, "Random", "Full data"]
    first, nasty, random, _ = rows
    assert (first["NLL"], first["NLL std"], first["NLL n"]) == ("1.5", repr(math.sqrt(0.5)), "2")
    assert (first["NLL published"], first["NLL published std"]) == ("1.7", "0.02") and "NLL published n" not in first
    assert (nasty["NLL"], nasty["NLL std"], nasty["NLL n"], nasty["NLL n_nonfinite"]) == ("", "", "3", "1")
    assert float(nasty["NLL mean_finite"]) == pytest.approx(0.35)
    assert random["KL"] == random["NLL published"] == ""


def on_console(table, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    Console(file=stream).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", [30, 40, 80, 160])
def test_a_console_of_any_width_cuts_no_number(table, width, monkeypatch):
    text = on_console(table, width, monkeypatch)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for number in ("1.500 ±0.707", "1.700 ±0.020", "0.450 ±0.071", "-0.10", "2.1e-04", "12,346", "2.500", "0.900", "—"):
        assert number in text, number
    # in every piece the rows have their names
    pieces = text.count("BPC-fK")
    assert pieces == text.count("Random")
    assert (pieces == 1) == (width == 160)


def test_long_names_are_broken_and_numbers_are_not(monkeypatch):
    columns = (Column(name="Prior", key=True, left=True), Column(name="NLL"), Column(name="bound"))
    name = "Mixture of Gaussians, components 500, interval 10"
    lines = (TableRow((name, moments([1.25, 1.75]), moments([-12.5]))),)
    text = on_console(Table(columns=columns, blocks=(lines,)), 28, monkeypatch)
    assert "1.500 ±0.354" in text and "-12.500" in text and max(map(len, text.splitlines())) <= 28
    assert all(word in text for word in re.findall(r"\w+", name))


def test_texts_are_broken_and_stay_beside_one_another(monkeypatch):
    columns = (Column(name="Dataset", key=True, left=True), Column(name="Where", left=True), Column(name="Images"))
    line = TableRow(("digits", "embedded in scikit-learn, so that no file is needed", "1,797"))
    text = on_console(Table(columns=columns, blocks=((line,),)), 40, monkeypatch)
    assert text.count("digits") == 1 and "1,797" in text and max(map(len, text.splitlines())) <= 40


def test_markup_is_text_on_a_console(monkeypatch):
    columns = (Column(name="[red]Method", key=True, left=True), Column(name="NLL"))
    table = Table(caption="[b]c", columns=columns, blocks=((TableRow(("[i]m", moments([1.0]))),),), notes=("[u]n",))
    text = on_console(table, 80, monkeypatch)
    assert all(part in text for part in ("[red]Method", "[b]c", "[i]m", "[u]n"))


def test_a_table_of_methods_across_has_a_footnote_for_each_method():
    columns = (Column(name="", key=True, left=True), Column(name="Random"), Column(name="BPC-W"))
    lines = tuple(TableRow((c, moments([0.5]), moments([math.nan, 0.25]))) for c in ("fog", "snow"))
    table = Table(columns=columns, blocks=(lines,), transposed=True, repeats="chains")
    expected = "— BPC-W: 1 of 2 chains not finite; mean of the others: fog 0.2500, snow 0.2500."
    assert table.footnotes() == [expected]


def test_a_diagnostic_that_a_sampler_lacks_is_a_dash_without_a_footnote():
    columns = (Column(name="Method", key=True), Column(name="E-BFMI", noted=False))
    table = Table(columns=columns, blocks=((TableRow(("Full", moments([math.nan]))),),))
    assert "| Full | — |" in table.to_markdown() and table.footnotes() == []


def test_latex_has_no_character_that_pdflatex_refuses():
    columns = (Column(name="Δ →", key=True), Column(name="λ", left=True))
    table = Table(caption="ΔH → 0 ±", columns=columns, blocks=((TableRow(("†", "λ —")),),), notes=("†",))
    assert tables_to_latex([table]).isascii()
