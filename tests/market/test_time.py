"""Parsing and formatting of times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.market import SECOND_NS, format_time, parse_time
from volspike.market.time import NOT_A_TIME, parse_times

INT64 = st.integers(-(2**63), 2**63 - 1)
BLOCK = 40
"""Texts enough for ``parse_times`` to try Arrow."""


@given(INT64)
def test_formatted_time_parses_back(ns: int) -> None:
    """Every int64 of nanoseconds is formatted so that it parses to the same number."""
    assert parse_time(format_time(ns)) == ns


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001
    st.integers(-23 * 60, 23 * 60),
)
def test_zones_agree_with_the_standard_library(moment: datetime, minutes: int) -> None:
    """A time in any zone equals what the standard library computes."""
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    expected = (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    assert parse_time(zoned.isoformat()) == expected


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
        ("1970-01-01 00:00:01", SECOND_NS),
        ("1970-01-01T00:01", 60 * SECOND_NS),
        ("1970-01-01T01:00:00+0100", 0),
        ("1969-12-31T19:00:00-05:00", 0),
        ("1970-01-01 00:00:01.5 +0000 UTC m=+139651.272674714", 1_500_000_000),
        ("2025-12-06T05:45:36.037320", 1_764_999_936_037_320_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * SECOND_NS),
        ("1677-09-21T00:12:43.145224192Z", -(2**63)),
        ("2262-04-11T23:47:16.854775807Z", 2**63 - 1),
    ],
)
def test_accepted_formats(text: str, ns: int) -> None:
    """The formats of exchanges and tapes parse to the nanosecond; a time without a zone is UTC."""
    assert parse_time(text) == ns
    assert parse_times([text] * BLOCK).tolist() == [ns] * BLOCK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1700000000",
        "2025-13-01T00:00:00Z",
        "2025-02-30T00:00:00Z",
        "2025-01-01",
        "2025-01-01T10",
        "2025-01-01T10Z",
        "2025-01-01T10+01:00",
        "2025-01-01T10:00+01",
        "2025-01-01T00:00:00+01",
        "2025-01-01t00:00:00Z",
        "2025-01-01T25:00:00Z",
        "2025-01-01T00:00:61Z",
        "2025-01-01T00:00:00.Z",
        "2025-01-01T00:00:00 ",
        " 2025-01-01T00:00:00",
        "2025-01-01T00:00:00+24:00",
        "2025-01-01T00:00:00+00:60",
        "2025-01-01T00:00:00 CET",
        "٢٠٢٥-01-01T00:00:00Z",
        "2025-01-01T00:00:0١Z",
        "2025-01-01T00:00:00\ud800",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "2262-04-11T23:47:16.854775808Z",
        "2262-04-11T23:47:16-23:59",
        "1677-09-21T00:12:44+23:59",
    ],
)
def test_rejected_texts(text: str) -> None:
    """Text that is not a time, or a time outside int64, is a ValueError, and ``NOT_A_TIME`` in a batch."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)
    assert parse_times([text] * BLOCK).tolist() == [NOT_A_TIME] * BLOCK


@given(
    st.text(max_size=40)
    | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d*)?( ?[+-]\d\d:?\d\d)?", fullmatch=True)
)
def test_any_text(text: str) -> None:
    """Any text is an int64 or a ValueError."""
    try:
        ns = parse_time(text)
    except ValueError:
        return
    assert -(2**63) <= ns < 2**63
    assert parse_time(format_time(ns)) == ns


ZONES = st.one_of(
    st.sampled_from(
        ["", "Z", "z", " UTC", "+00:00", "-05:30", "+0530", "+05", "+5:30", "UTC", "z ", " +0000 UTC m=+1.5"]
    ),
    st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 99), st.integers(0, 99)),
)
DATES = st.builds(
    "{:04}-{:02}-{:02}".format,
    st.integers(0, 9999) | st.integers(1999, 2030) | st.sampled_from([1677, 1678, 2261, 2262]),
    st.integers(0, 13),
    st.integers(0, 32),
)
CLOCKS = st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 62))
FRACTIONS = st.one_of(st.just(""), st.text("0123456789", max_size=12).map(".{}".format))
LIKELY = st.builds("{}{}{}{}{}".format, DATES, st.sampled_from("T t"), CLOCKS, FRACTIONS, ZONES)


def one_by_one(texts: list[str]) -> list[int]:
    """What ``parse_time`` makes of each text."""
    times = []
    for text in texts:
        try:
            times.append(parse_time(text))
        except ValueError:
            times.append(NOT_A_TIME)
    return times


@given(LIKELY)
def test_batch_of_one_format_equals_single_parses(text: str) -> None:
    """A batch of texts of one format, valid or not, equals parsing one at a time."""
    assert parse_times([text] * BLOCK).tolist() == one_by_one([text]) * BLOCK


@given(st.lists(LIKELY | st.text(max_size=30), max_size=60), st.booleans())
def test_mixed_batch_equals_single_parses(texts: list[str], is_long: bool) -> None:
    """Valid, invalid and arbitrary texts in one batch of any length do not affect each other."""
    batch = [*texts, *["2025-12-06T05:45:36.037320"] * (BLOCK * is_long)]
    assert parse_times(batch).tolist() == one_by_one(batch)


@given(st.lists(INT64.map(format_time), min_size=BLOCK, max_size=2 * BLOCK))
def test_batch_of_formatted_times_parses_back(texts: list[str]) -> None:
    """A batch of any int64 times parses to the ninth digit."""
    assert parse_times(texts).tolist() == one_by_one(texts)


def test_all_combinations_of_parts_equal_single_parses() -> None:
    """Every combination of dates, separators, clocks, fractions and zones equals parsing one at a time."""
    dates = ("2025-12-06", "2024-02-29", "2023-02-29", "1677-09-21", "2262-04-11", "0000-01-01", "9999-12-31")
    clocks = ("00:12:43", "23:47:16", "23:59:60", "24:00:00", "10:00", "10", "10:60:00")
    fractions = ("", ".", ".1", ".123456", ".123456789", ".1234567899", ",5")
    zones = ("", "Z", "z", " Z", "+00:00", "-23:59", "+23:59", "+24:00", "+0530", "-05", "+05:3", "UTC", " UTC")
    for date, separator, fraction, zone in product(dates, "T t", fractions, zones):
        for clock in clocks:
            batch = [f"{date}{separator}{clock}{fraction}{zone}"] * BLOCK
            assert parse_times(batch).tolist() == one_by_one(batch[:1]) * BLOCK, batch[0]


@pytest.mark.parametrize("length", [0, 1, 31, 32, 2047, 2048, 2049, 5000])
def test_batches_of_every_length(length: int) -> None:
    """Lengths around the sizes where the method or the block changes keep every row in its place."""
    texts = [format_time(1_764_999_936_000_000_000 + row * 1_234_567) for row in range(length)]
    assert parse_times(texts).tolist() == one_by_one(texts)
