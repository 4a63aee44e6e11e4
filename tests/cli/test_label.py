"""``volspike label``: labels added to a feature file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED
from volspike.datasets.dataset import compare


@pytest.fixture
def bare(features: Path) -> Path:
    """The feature file without its labels."""
    table = pq.read_table(features)
    pq.write_table(table.drop_columns(["future_volatility", "volatility_spike", "tau"]), features)
    return features


def test_a_file_is_labelled_where_it_lies(bare: Path, market: Path, volspike: Run) -> None:
    """Labels added afterwards are those that the replay adds."""
    outcome = volspike("label", "--features", bare.name)
    assert (outcome.status, outcome.err) == (0, "")
    assert compare(bare, market / "features.parquet", labels=True).is_equal
    first, second, third = outcome.out.splitlines()
    assert first == SIMULATED
    assert second == f"{pq.read_metadata(bare).num_rows:,} rows → features.parquet"
    assert "rows labelled" in third


def test_output_leaves_the_source_as_it_is(bare: Path, tmp_path: Path, volspike: Run) -> None:
    """With --output the labels go to another file alone."""
    before = bare.read_bytes()
    assert volspike("label", "--features", bare.name, "--output", "new/g.parquet").status == 0
    assert bare.read_bytes() == before
    assert pq.read_schema(tmp_path / "new/g.parquet").names[-3:] == ["future_volatility", "volatility_spike", "tau"]


def test_a_given_tau_is_taken(bare: Path, volspike: Run) -> None:
    """τ can be given; all labels use it."""
    outcome = volspike("label", "--features", bare.name, "--tau", "5e-5")
    assert "τ = 5.000e-05 (given)" in outcome.out
    table = pq.read_table(bare)
    future, spike = (table[name].to_numpy() for name in ("future_volatility", "volatility_spike"))
    known = np.isfinite(future)
    np.testing.assert_array_equal(spike[known], future[known] >= 5e-5)


def test_the_percentile_is_taken_in_either_spelling(bare: Path, volspike: Run) -> None:
    """``--threshold_percentile 95`` finds a higher τ than the default and says so."""
    outcome = volspike("label", "--features", bare.name, "--threshold_percentile", "95")
    assert "(percentile 95 of the first 70% of labelled rows" in outcome.out


def test_a_file_too_short_for_labels_is_told(bare: Path, tmp_path: Path, volspike: Run) -> None:
    """Where no row's future is known: refused without τ, and with one nothing is divided by nothing."""
    pq.write_table(pq.read_table(bare).slice(0, 30), bare)
    with untouched(tmp_path):
        assert_refused(volspike("label", "--features", bare.name), DATA, "no row's future is known")
    outcome = volspike("label", "--features", bare.name, "--tau", "1e-4")
    assert outcome.status == 0
    assert "0 rows labelled, no spikes" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--features nowhere.parquet", DATA, ["nowhere.parquet: no such file", "volspike replay"]),
        ("--features prose.parquet", DATA, ["prose.parquet: not a Parquet file"]),
        ("--features empty.parquet", DATA, ["empty.parquet: not a Parquet file", "0 bytes"]),
        ("--features cut.parquet", DATA, ["cut.parquet: not a Parquet file"]),
        ("--features lacking.parquet", DATA, ["lacking.parquet: lacks the columns spread_mean_60s"]),
        ("--features tape.parquet", DATA, ["tape.parquet: not a feature file", "volspike replay"]),
        (
            "--features features.parquet --threshold-percentile 0",
            USAGE,
            ["percentile must be above 0 and below 100", "was 0"],
        ),
        ("--features features.parquet --tau -1", USAGE, ["fixed must be above 0", "-1"]),
        ("--features features.parquet --spike leap:2", USAGE, ["no spike definition 'leap:2'", "jump:2"]),
        ("--features features.parquet --spike fixed", USAGE, ["no spike definition 'fixed'", "fixed:VALUE"]),
        ("--features features.parquet --spike level:100", USAGE, ["level must be above 0 and below 100"]),
        ("--features features.parquet --horizon 5", USAGE, ["horizon 60 to 3600 s", "5"]),
        ("--features features.parquet --gap-threshold-seconds -1", USAGE, ["above 0", "-1.0"]),
        ("--features features.parquet --output features.parquet/g.parquet", USAGE, ["cannot write features.parquet/"]),
        ("--features features.parquet --output folder", USAGE, ["folder"]),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    arguments: str, status: int, told: list[str], features: Path, market: Path, tmp_path: Path, volspike: Run
) -> None:
    """The file, what is wrong with it and what to do, in one line; no file is touched."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "prose.parquet").write_text("Call me Ishmael. " * 100)
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "cut.parquet").write_bytes(features.read_bytes()[:-1000])
    pq.write_table(pq.read_table(features).drop_columns(["spread_mean_60s"]), tmp_path / "lacking.parquet")
    shutil.copy(market / "tape.ndjson", tmp_path)
    assert volspike("convert", "--raw", "tape.ndjson", "--out", "tape.parquet").status == 0
    with untouched(tmp_path):
        outcome = volspike("label", *arguments.split())
    assert_refused(outcome, status, *told)
