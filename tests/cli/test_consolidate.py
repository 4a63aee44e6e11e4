"""``volspike consolidate``: several feature files made one, and its parts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, untouched, words
from volspike.cli.consolidate import STRATIFIED_IS_NO_EVIDENCE
from volspike.cli.screen import SIMULATED
from volspike.datasets.dataset import compare

INTO = ["--output", "all.parquet"]


def rows(file: Path) -> int:
    return int(pq.read_metadata(file).num_rows)


@pytest.fixture
def halves(features: Path, tmp_path: Path) -> list[str]:
    """The feature file in two parts that overlap by 100 rows, named against their order in time."""
    table = pq.read_table(features)
    pq.write_table(table.slice(1400), tmp_path / "a.parquet")
    pq.write_table(table.slice(0, 1500), tmp_path / "b.parquet")
    return ["a.parquet", "b.parquet"]


def test_rows_that_stand_twice_are_kept_once(halves: list[str], features: Path, tmp_path: Path, volspike: Run) -> None:
    """Two overlapping parts give the complete file again, labelled like it, and duplicates are counted."""
    outcome = volspike("consolidate", "--features", *halves, *INTO)
    assert (outcome.status, outcome.err) == (0, "")
    assert compare(tmp_path / "all.parquet", features, labels=True).is_equal
    first, second, third = outcome.out.splitlines()
    assert first == SIMULATED
    total = rows(features)
    assert second == f"2 files, {total + 100:,} rows, 100 of them duplicates → {total:,} rows in all.parquet"
    assert "rows labelled" in third


@pytest.mark.parametrize("flags", ["--split-method time_based", "--split_method=time_based", ""])
def test_splits_write_three_files_in_time_order(flags: str, features: Path, tmp_path: Path, volspike: Run) -> None:
    """The splits are in time order with gaps between them, and their sizes are printed."""
    outcome = volspike("consolidate", "--features", features.name, *INTO, "--splits", *flags.split())
    assert (outcome.status, outcome.err) == (0, "")
    endings = {"train": "train", "validation": "val", "test": "test"}
    parts = {name: tmp_path / f"all_{ending}.parquet" for name, ending in endings.items()}
    times = [pq.read_table(part)["timestamp"].to_numpy() for part in parts.values()]
    assert all(before.max() < after.min() for before, after in pairwise(times))
    assert outcome.out.splitlines()[-3:] == [
        f"{name}: {rows(path):,} rows → {path.name}" for name, path in parts.items()
    ]
    assert sum(map(rows, parts.values())) < rows(features)


def test_a_second_run_does_not_read_what_the_first_wrote(features: Path, tmp_path: Path, volspike: Run) -> None:
    """A glob that matches the results as well gives the same results again."""
    for _ in range(2):
        outcome = volspike("consolidate", "--features", "*.parquet", "--output", "features_all.parquet", "--splits")
        assert outcome.status == 0
        assert outcome.out.splitlines()[1].startswith("1 files, ")


def test_stratified_says_what_it_is_worth(features: Path, volspike: Run) -> None:
    """The stratified split prints its warning."""
    outcome = volspike("consolidate", "--features", features.name, *INTO, "--splits", "--split_method", "stratified")
    assert outcome.status == 0
    assert words(outcome.err) == f"warning: {STRATIFIED_IS_NO_EVIDENCE}"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--features nowhere*.parquet", USAGE, ["no feature file matches nowhere*.parquet", "volspike replay"]),
        ("--features features.parquet nowhere.parquet", USAGE, ["no feature file matches nowhere.parquet"]),
        ("--features=", USAGE, ["no feature file matches"]),
        ("", USAGE, ["no feature file matches data/processed/features*.parquet", "volspike replay"]),
        ("--features all.parquet", USAGE, ["all.parquet matches only files of an earlier consolidation"]),
        ("--features features.parquet prose.parquet", DATA, ["prose.parquet: not a Parquet file"]),
        ("--features features.parquet lacking.parquet", DATA, ["lacking.parquet: lacks the columns spread_mean_60s"]),
        ("--features features.parquet narrow.parquet", MODEL, ["narrow.parquet", "(30, 60)", "(30, 60, 300)"]),
        (
            "--features features.parquet --split-method odd --splits",
            USAGE,
            ["unknown split method 'odd'", "walk_forward"],
        ),
        ("--features features.parquet --threshold-percentile 101", USAGE, ["percentile must be above 0 and below 100"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: str, status: int, told: list[str], features: Path, market: Path, tmp_path: Path, volspike: Run
) -> None:
    """Which file or option, why, and what to do, in one line; an earlier result stays as it was."""
    (tmp_path / "prose.parquet").write_text("Call me Ishmael. " * 100)
    (tmp_path / "all.parquet").write_bytes(features.read_bytes())
    pq.write_table(pq.read_table(features).drop_columns(["spread_mean_60s"]), tmp_path / "lacking.parquet")
    narrow = ["--out", "narrow.parquet", "--every", "1s", "--windows", "30", "60"]
    assert volspike("replay", "--raw", market / "tape.ndjson", *narrow).status == 0
    with untouched(tmp_path):
        outcome = volspike("consolidate", *arguments.split(), *INTO)
    assert_refused(outcome, status, *told)
