"""``volspike import``: files of exchanges and other programs as tapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Run, assert_refused
from tests.tape.foreign_files import CSV_FILES, FILE_NAMES, trades

AGG = "binance spot aggTrades"


def file_of(folder: Path, layout: str, count: int = 2000) -> Path:
    """A file of a layout under its usual name."""
    path = folder / FILE_NAMES[layout]
    path.write_bytes(CSV_FILES[layout][1](trades(count)))
    return path


def test_what_was_read_is_printed_and_can_be_replayed(tmp_path: Path, volspike: Run) -> None:
    """Columns, units, span, rows, missing ids and rates are printed; ``replay`` reads the folder of the tapes."""
    path = file_of(tmp_path, AGG)
    outcome = volspike("import", path.name)
    assert outcome.status == 0, outcome.err
    assert f"{path.name}: binance, without a header" in outcome.out
    assert "column 1 → id; column 2 → price; column 3 → size; column 6 → time, µs" in outcome.out
    line = next(line for line in outcome.out.splitlines() if "binance:BTC-USDT" in line)
    assert line.split() == [
        "binance:BTC-USDT",
        "2025-10-04T00:00:00Z",
        "2025-10-04T00:08:19.75Z",
        "2,000",
        "0",
        "4",
        "100.0%",
    ]
    assert "2,000 rows, 0 rejected, 0 duplicates → data/imported/BTCUSDT-aggTrades-2025-10-04.parquet" in outcome.out
    again = volspike("import", path.name)
    assert (again.status, "already there" in again.out) == (0, True)
    replayed = volspike("replay", "--raw", "data/imported", "--out", "f.parquet", "--every", "1s")
    assert replayed.status == 0, replayed.err


def test_columns_are_named_in_one_option(tmp_path: Path, volspike: Run) -> None:
    """``--columns`` before the file does not take the file for a column."""
    (tmp_path / "a.csv").write_text("t;p\n1759536000;100\n1759536001;101\n")
    outcome = volspike("import", "--columns", "time=t,price=p", "--product", "kraken:ETH-USD", "a.csv")
    assert outcome.status == 0, outcome.err
    assert "t → time, s; p → price" in outcome.out
    assert "kraken:ETH-USD" in outcome.out


def test_damaged_rows_are_reported(tmp_path: Path, volspike: Run) -> None:
    """Damaged rows are warnings with file, line and reason, and the number of them."""
    path = file_of(tmp_path, AGG, 10)
    path.write_bytes(path.read_bytes() + b"1010,abc,1,1,1,1759536003000000,True,True\n1011,1\n")
    outcome = volspike("import", path.name)
    assert outcome.status == 0
    assert f"warning: {path.name}:11: column 2 (price): expected a number, got 'abc'" in outcome.err
    assert f"2 damaged of 12 rows were rejected and kept in {path.stem}.rejected.ndjson" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("nothing.csv", USAGE, ["no such file: nothing.csv"]),
        ("*.csv", USAGE, ["no such file: *.csv"]),
        ("a.csv", DATA, ["a.csv: no known format; its first line is 'x, y'", "--columns time=…,price=…"]),
        ("a.csv --format excel", USAGE, ["--format excel", "choose one of auto, tardis"]),
        ("a.csv --columns time=x,price=z", USAGE, ["--columns price=z", "its first line is x, y"]),
        ("a.csv --columns price=x", USAGE, ["--columns must name at least time=… and price=…"]),
        ("a.csv --out b.parquet", USAGE, ["--out b.parquet", "name a folder"]),
        ("a.csv --product nothing:", USAGE, ["invalid product"]),
    ],
)
def test_what_cannot_be_imported_is_refused(
    tmp_path: Path, volspike: Run, arguments: str, status: int, words: list[str]
) -> None:
    """One line with the reason and what to do."""
    if "*" not in arguments:
        (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert_refused(volspike("import", *arguments.split()), status, *words)
