"""Command-line parsing: several values after a flag, underscores for dashes."""

from __future__ import annotations

import pytest

from volspike.cli.app import spelled_out

SEVERAL = {"--windows", "--models"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", ""),
        ("--windows 30", "--windows 30"),
        ("--windows 30 60 300", "--windows 30 --windows 60 --windows 300"),
        ("--windows 30 --windows 60", "--windows 30 --windows 60"),
        ("--windows=30 --windows=60", "--windows=30 --windows=60"),
        ("--windows 30 60 --out f", "--windows 30 --windows 60 --out f"),
        ("--out f --windows 30 60", "--out f --windows 30 --windows 60"),
        ("--windows 30 60 --models a b", "--windows 30 --windows 60 --models a --models b"),
        ("--windows -5 -0.5 60", "--windows -5 --windows -0.5 --windows 60"),
        ("--out f extra", "--out f extra"),
        ("--windows=30 60", "--windows=30 60"),
        ("--windows", "--windows"),
        ("--windows --out f", "--windows --out f"),
        ("--add_labels", "--add-labels"),
        ("--add_labels --label_threshold_percentile 95", "--add-labels --label-threshold-percentile 95"),
        ("--split_method=time_based", "--split-method=time_based"),
        ("--split_method time_based", "--split-method time_based"),
        ("--models random_forest", "--models random_forest"),
        ("--out=some_file.parquet", "--out=some_file.parquet"),
        ("-h", "-h"),
        ("--windows 30 -- 60 --add_labels", "--windows 30 -- 60 --add_labels"),
    ],
)
def test_values_follow_their_flag_one_by_one(given: str, read: str) -> None:
    """Flags that take several values get each one named; other flags and every value stay what they are."""
    assert list(spelled_out(given.split(), SEVERAL)) == read.split()


def test_values_that_begin_with_a_dash_belong_to_the_flag_before() -> None:
    """A single value with blanks or a dash in it is passed on unchanged."""
    given = ["--raw", "a file.ndjson", "b-c_d.ndjson", "--out", "-"]
    assert list(spelled_out(given, {"--raw"})) == [
        *("--raw", "a file.ndjson"),
        *("--raw", "b-c_d.ndjson"),
        *("--out", "-"),
    ]
