"""Reading and writing instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.market import SECOND_NS, format_time, parse_time

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64)
def test_an_instant_reads_back(ns: int) -> None:
    """Every int64 of nanoseconds is written so that the same one is read."""
    assert parse_time(format_time(ns)) == ns


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001
    st.integers(-23 * 60, 23 * 60),
)
def test_zones_agree_with_the_standard_library(moment: datetime, minutes: int) -> None:
    """An instant in any zone is the one that the standard library reads."""
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
def test_spellings(text: str, ns: int) -> None:
    """The ways in which exchanges and tapes write time are read to the nanosecond; no zone is UTC."""
    assert parse_time(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1700000000",
        "2025-13-01T00:00:00Z",
        "2025-02-30T00:00:00Z",
        "2025-01-01",
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
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "2262-04-11T23:47:16.854775808Z",
    ],
)
def test_what_is_no_instant(text: str) -> None:
    """Text that is no instant, or one beyond int64, is a ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


@given(
    st.text(max_size=40)
    | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d*)?( ?[+-]\d\d:?\d\d)?", fullmatch=True)
)
def test_any_text(text: str) -> None:
    """Whatever the text, it is an int64 or a ValueError."""
    try:
        ns = parse_time(text)
    except ValueError:
        return
    assert -(2**63) <= ns < 2**63
    assert parse_time(format_time(ns)) == ns
