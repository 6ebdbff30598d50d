"""What commands print: wide in a pipe, as wide as the terminal where its width is known."""

import pytest

from bpc_cli.show import PIPE_WIDTH, print_tables
from evaluation.moments import moments
from evaluation.table import Column, Table, TableRow


@pytest.mark.parametrize("columns", [None, 40])
def test_tables_are_as_wide_as_there_is_room(columns, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    heads = (Column(name="Method", key=True, left=True), *(Column(name=f"metric {i}") for i in range(6)))
    line = TableRow(("BPC-fKL", *(moments([0.25 + i, 0.75 + i]) for i in range(6))))
    print_tables(Table(columns=heads, blocks=((line,),)))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= (columns or PIPE_WIDTH)
    assert all(f"{i}.500 ±0.354" in out for i in range(6))
    assert (out.count("BPC-fKL") == 1) == (columns is None)
