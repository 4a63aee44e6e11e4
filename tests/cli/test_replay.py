"""``volspike replay``: what it writes and says, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED
from volspike.datasets.dataset import compare
from volspike.features import ROW_COLUMNS, FeatureSet, Scope

OLD = b"what stood here before"


def column(file: Path, name: str) -> pa.ChunkedArray:
    return pq.read_table(file, columns=[name])[name]


def test_a_tape_becomes_a_feature_file(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """Rows, features, file and kind of market are printed, and the file contains exactly these."""
    outcome = volspike("replay", "--raw", tape, "--out", "new/folder/f.parquet", "--every", "1s")
    assert (outcome.status, outcome.err) == (0, "")
    table = pq.read_table(tmp_path / "new/folder/f.parquet")
    assert table.column_names == [*ROW_COLUMNS, *FeatureSet(scope=Scope.FULL).names]
    told = f"{len(table):,} rows of 135 features from {len(tape.read_bytes().splitlines()):,} ticks"
    assert outcome.out == f"{SIMULATED}\n{told} (profile ticker, every 1s) → new/folder/f.parquet\n"
    assert len(table) in range(50 * 60 - 2, 50 * 60 + 1)


def test_a_row_per_tick_is_the_default(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """Without --every there are as many rows as ticks."""
    assert volspike("replay", "--raw", tape, "--out", "f.parquet").status == 0
    assert pq.read_metadata(tmp_path / "f.parquet").num_rows == len(tape.read_bytes().splitlines())


def test_windows_are_a_setting(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """``--windows 30 60`` and ``--windows 60 --windows 30`` make the same 14 features and 114."""
    for name, windows in (("a", ["--windows", "30", "60"]), ("b", ["--windows", "60", "--windows", "30"])):
        assert volspike("replay", "--raw", tape, "--out", f"{name}.parquet", "--every", "1s", *windows).status == 0
    assert pq.read_schema(tmp_path / "a.parquet").names == [*ROW_COLUMNS, *FeatureSet((30, 60), Scope.FULL).names]
    assert compare(tmp_path / "a.parquet", tmp_path / "b.parquet").is_equal


@pytest.mark.parametrize(("scope", "count"), [("core", 21), ("full", 135), ("deep", 255)])
def test_the_feature_set_is_a_setting(scope: str, count: int, tape: Path, tmp_path: Path, volspike: Run) -> None:
    """``--feature-set`` makes more features or fewer; those of the smaller set are the same bit for bit."""
    for name in ("core", scope):
        made = volspike("replay", "--raw", tape, "--out", f"{name}.parquet", "--every", "1s", "--feature-set", name)
        assert made.status == 0
    assert f" rows of {count} features from " in made.out
    table = pq.read_table(tmp_path / f"{scope}.parquet")
    assert table.column_names == [*ROW_COLUMNS, *FeatureSet(scope=Scope(scope)).names]
    core = pq.read_table(tmp_path / "core.parquet")
    for name in core.column_names:
        # as bits: NaN equals NaN
        both = [np.asarray(part[name].to_numpy()) for part in (core, table)]
        assert both[0].tobytes() == both[1].tobytes() or both[0].dtype == object, name


def test_a_leader_adds_its_volatility(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """``--leader`` adds columns; a product that leads itself, in either spelling, finds its own volatility there."""
    led = ["--leader", "coinbase:BTC-USD", "--windows", "60"]
    assert volspike("replay", "--raw", tape, "--out", "f.parquet", "--every", "1s", *led).status == 0
    table = pq.read_table(tmp_path / "f.parquet")
    warm = table["is_warm"].to_numpy()
    own, told = (table[name].to_numpy()[warm] for name in ("realized_volatility_60s", "leader_volatility_60s"))
    assert len(own) > 1000
    np.testing.assert_array_equal(told, own)


def test_a_leader_that_the_tapes_lack_is_reported(tape: Path, volspike: Run) -> None:
    """The rows of a replay without a tick of the leader have no value of it; a warning says what to add."""
    led = ["--leader", "binance:BTC-USDT", "--windows", "60"]
    outcome = volspike("replay", "--raw", tape, "--out", "f.parquet", "--every", "1s", *led)
    assert outcome.status == 0
    assert "no tick of the leader binance:BTC-USDT" in outcome.err
    assert "--raw" in outcome.err


@pytest.mark.parametrize("flag", ["--add-labels", "--add_labels"])
def test_labels_are_added_in_either_spelling(flag: str, tape: Path, tmp_path: Path, volspike: Run) -> None:
    """Labels add two columns, and the number of labelled rows and τ are printed."""
    outcome = volspike("replay", "--raw", tape, "--out", "f.parquet", "--every", "1s", flag)
    labels = column(tmp_path / "f.parquet", "volatility_spike")
    labelled = len(labels) - labels.null_count
    spikes = int(np.nansum(labels.to_numpy()))
    told = outcome.out.splitlines()[-1]
    assert told.startswith(f"{labelled:,} rows labelled, {spikes / labelled:.2%} spikes at τ = ")
    assert "percentile 90 of the first 70% of labelled rows" in told


def test_several_tapes_and_globs_are_read_together(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """A tape cut in two replays like the complete one, listed one by one or by a glob."""
    lines = tape.read_bytes().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    for name, part in (("2.ndjson", lines[1500:]), ("10.ndjson", lines[:1500])):
        (tmp_path / "parts" / name).write_bytes(b"".join(part))
    made: dict[str, list[object]] = {
        "whole": [tape],
        "named": ["parts/2.ndjson", "parts/10.ndjson"],
        "glob": ["parts/*.ndjson"],
        "folder": ["parts"],
    }
    for name, sources in made.items():
        assert volspike("replay", "--raw", *sources, "--out", f"{name}.parquet", "--every", "1s").status == 0
    files = [tmp_path / f"{name}.parquet" for name in made]
    assert all(compare(files[0], file).is_equal for file in files)


def test_damaged_lines_are_told_and_set_aside(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """Damage is counted, reported by file and line, and rejected; the rest is replayed and the status is 0."""
    lines = tape.read_bytes().splitlines(keepends=True)
    lines[10:10] = [b"not json\n", lines[0][:40] + b"\n"]
    tape.write_bytes(b"".join(lines))
    outcome = volspike("replay", "--raw", "tape.ndjson", "--out", "f.parquet")
    assert outcome.status == 0
    assert pq.read_metadata(tmp_path / "f.parquet").num_rows == len(lines) - 2
    first, second, total = outcome.err.splitlines()
    assert first.startswith("warning: tape.ndjson:11: ")
    assert second.startswith("warning: tape.ndjson:12: ")
    assert total == (f"warning: 2 damaged of {len(lines):,} lines were dropped and kept in tape.rejected.ndjson")
    aside = [json.loads(line) for line in (tmp_path / "tape.rejected.ndjson").read_bytes().splitlines()]
    assert [(line["line"], line["text"]) for line in aside] == [(11, "not json"), (12, lines[0][:40].decode())]


def test_ticks_that_make_no_row_are_told(tape: Path, volspike: Run) -> None:
    """What came late or twice is counted on standard error."""
    lines = tape.read_bytes().splitlines(keepends=True)
    tape.write_bytes(b"".join([*lines[:20], lines[19], *lines[20:], lines[0], lines[1]]))
    outcome = volspike("replay", "--raw", tape, "--out", "f.parquet", "--every", "1s")
    assert outcome.status == 0
    assert "dropped ticks: 2 late, 1 duplicates" in outcome.err


def test_equal_files_compare_equal(features: Path, market: Path, volspike: Run) -> None:
    """A second replay of a tape is the first one bit for bit, its labels too."""
    again = ["replay", "--raw", market / "tape.ndjson", "--out", "g.parquet", "--every", "1s", "--add-labels"]
    rows = pq.read_metadata(features).num_rows
    for flags in ([], ["--compare-labels"]):
        outcome = volspike(*again, "--compare", features.name, *flags)
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out.splitlines()[-1] == f"equal to features.parquet bit for bit: {rows:,} rows"


def test_different_files_tell_how_and_end_with_3(features: Path, market: Path, volspike: Run) -> None:
    """A value that differs in its last bit, and a missing row, are reported by column and count."""
    table = pq.read_table(features)
    prices = table["price"].to_numpy().copy()
    prices[7] = np.nextafter(prices[7], np.inf)
    changed = table.set_column(table.column_names.index("price"), "price", pa.array(prices)).slice(1)
    pq.write_table(changed, features)
    again = ["replay", "--raw", market / "tape.ndjson", "--out", "g.parquet", "--every", "1s"]
    outcome = volspike(*again, "--compare", features.name)
    rows = len(changed)
    assert outcome.status == DATA
    assert outcome.err.startswith(
        f"warning: differs: {rows:,} rows in common, 1 rows only here, 0 only in features.parquet; "
        "differing columns: price (1 rows, ≤ 1.46e-11)"
    )
    assert outcome.err.count("\n") == 1


def test_row_rates_that_differ_are_reported_before_the_replay(features: Path, market: Path, volspike: Run) -> None:
    """A file with a row per second is not compared with rows per tick; the error names both rates and the option."""
    again = ("replay", "--raw", market / "tape.ndjson", "--out", "again.parquet", "--every", "tick")
    outcome = volspike(*again, "--compare", features.name)
    assert_refused(outcome, MODEL, "row rates differ", "every 1s", "every tick", "--every 1s")


def test_files_of_other_windows_are_not_compared(features: Path, market: Path, volspike: Run) -> None:
    """Feature files of two sets cannot be compared; the error has both digests."""
    other = ["replay", "--raw", market / "tape.ndjson", "--out", "g.parquet", "--every", "1s", "--windows", "30", "60"]
    outcome = volspike(*other, "--compare", features.name)
    assert outcome.status == MODEL
    assert outcome.err.count("\n") == 1
    assert FeatureSet(scope=Scope.FULL).digest in outcome.err
    assert FeatureSet((30, 60), Scope.FULL).digest in outcome.err


def test_a_name_with_brackets_is_told_as_it_is(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """What looks like markup in a file's name is printed and not obeyed."""
    outcome = volspike("replay", "--raw", tape, "--out", "[bold]f[/x]:100:.parquet", "--every", "1s")
    assert outcome.status == 0
    assert outcome.out.endswith("→ [bold]f[/x]:100:.parquet\n")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no tapes."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty.ndjson").touch()
    (folder / "empty.parquet").touch()
    (folder / "prose.ndjson").write_text("Call me Ishmael.\nSome years ago\n")
    (folder / "prose.parquet").write_text("Call me Ishmael. " * 100)
    (folder / "other.ndjson").write_text('{"a":1}\n{"a":2}\n')
    (folder / "notes.txt").write_text("notes")
    pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), folder / "other.parquet")
    pq.write_table(pa.table({"time": ["now"], "price": [1.0], "size": [1.0]}), folder / "types.parquet")
    return folder


@pytest.mark.parametrize(
    ("sources", "status", "told"),
    [
        ("{wrong}/empty.ndjson", DATA, ["empty.ndjson", "empty", "record a tape first"]),
        ("{wrong}/empty.parquet", DATA, ["empty.parquet", "cannot be read as Parquet", "0 bytes"]),
        ("{wrong}/prose.ndjson", DATA, ["prose.ndjson", "2 lines, no tick", "one tick or one Coinbase frame"]),
        ("{wrong}/prose.parquet", DATA, ["prose.parquet", "cannot be read as Parquet"]),
        ("{wrong}/other.ndjson", DATA, ["other.ndjson", "2 rejected, the first at line 1"]),
        ("{wrong}/other.parquet", DATA, ["other.parquet", "column time, price missing", "found a, b"]),
        ("{wrong}/types.parquet", DATA, ["types.parquet", "time is string", "times must be timestamps"]),
        ("{wrong}/notes.txt", USAGE, ["notes.txt", "is no tape by its name", ".ndjson"]),
        ("nowhere/*.ndjson", USAGE, ["no tape matches nowhere/*.ndjson"]),
        ("nowhere.ndjson", USAGE, ["no such tape: nowhere.ndjson"]),
        ("{wrong}/empty.ndjson nowhere.ndjson", USAGE, ["no such tape: nowhere.ndjson"]),
    ],
)
def test_what_is_no_tape_is_refused(
    sources: str, status: int, told: list[str], wrong: Path, tmp_path: Path, volspike: Run
) -> None:
    """The file, what was found in it and what to give instead, in one line; an older result stays as it was."""
    (tmp_path / "f.parquet").write_bytes(OLD)
    with untouched(tmp_path, wrong):
        outcome = volspike("replay", "--raw", *sources.format(wrong=wrong).split(), "--out", "f.parquet")
    assert_refused(outcome, status, *told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--every 2s", ["--every must be one of tick, 1s", "'2s'"]),
        ("--windows 0", ["windows must be", "at least 1", "[0]"]),
        ("--windows 60 -5", ["windows must be", "-5"]),
        ("--windows 60 100000", ["the longest window can be 7200 s", "100000 s"]),
        ("--feature-set all", ["unknown feature set 'all'", "core, full, deep"]),
        ("--feature-set core --leader BTC-USD", ["leader", "not the core set"]),
        ("--windows 10 60", ["[10, 60]", "choose other windows, or the core feature set"]),
        ("--profile level2", ["--profile must be auto or one of ticker, ticker+trade, trade", "'level2'"]),
        ("--add-labels --label-threshold-percentile 100", ["percentile must be above 0 and below 100", "100"]),
        ("--add-labels --label-gap-threshold-seconds 0", ["gap", "above 0", "0.0"]),
        ("--out tape.ndjson", ["--out tape.ndjson is one of the tapes to read", "another name"]),
        ("--out ./../{here}/tape.ndjson", ["is one of the tapes to read"]),
        ("--out tape.ndjson/f.parquet", ["cannot write tape.ndjson/f.parquet"]),
        ("--out folder", ["folder"]),
        ("--compare f.parquet", ["--out would replace f.parquet", "another name"]),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: str, told: list[str], tape: Path, tmp_path: Path, volspike: Run
) -> None:
    """The request and the alternatives on one line, status 2; tape and earlier result are unchanged."""
    (tmp_path / "f.parquet").write_bytes(OLD)
    (tmp_path / "folder").mkdir()
    with untouched(tmp_path):
        arguments = options.format(here=tmp_path.name).split()
        outcome = volspike("replay", "--raw", "tape.ndjson", "--out", "f.parquet", *arguments)
    assert_refused(outcome, USAGE, *told)


@pytest.mark.parametrize(("file", "told"), [("nowhere.parquet", "no such file"), ("f.txt", "not a Parquet file")])
def test_a_file_to_compare_with_is_opened_first(
    file: str, told: str, tape: Path, tmp_path: Path, volspike: Run
) -> None:
    """An impossible comparison is reported before the replay, and nothing is replaced."""
    (tmp_path / "f.txt").write_text("text")
    (tmp_path / "f.parquet").write_bytes(OLD)
    with untouched(tmp_path):
        outcome = volspike("replay", "--raw", tape, "--out", "f.parquet", "--compare", file)
    assert_refused(outcome, DATA, file, told)


def test_too_short_a_tape_is_not_labelled(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """Without a row whose future is known there is nothing to label: an error, and nothing is written."""
    tape.write_bytes(b"".join(tape.read_bytes().splitlines(keepends=True)[:50]))
    with untouched(tmp_path):
        outcome = volspike("replay", "--raw", tape, "--out", "f.parquet", "--add-labels")
    assert_refused(outcome, DATA, "no row's future is known", "record for longer")


def test_real_recordings_are_not_called_simulated(tape: Path, tmp_path: Path, volspike: Run) -> None:
    """The mark is the tape's own: lines without it are a market's."""
    tape.write_bytes(tape.read_bytes().replace(b',"source":"simulated"', b""))
    shutil.copy(tape, tmp_path / "real.ndjson")
    outcome = volspike("replay", "--raw", "real.ndjson", "--out", "f.parquet", "--every", "1s")
    assert outcome.status == 0
    assert "SIMULATED" not in outcome.out + outcome.err
