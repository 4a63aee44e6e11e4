"""Many timestamps at once are read as one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volspike.market import format_time, parse_time
from volspike.market.time import NOT_A_TIME, parse_times

ZONES = st.one_of(
    st.sampled_from(["", "Z", "z", " UTC", "+00:00", "-05:30", "+0530", "+5:30", "UTC", "z ", " +0000 UTC m=+1.5"]),
    st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 99), st.integers(0, 99)),
)
DATES = st.builds(
    "{:04}-{:02}-{:02}".format, st.integers(0, 9999) | st.integers(1999, 2030), st.integers(0, 13), st.integers(0, 32)
)
CLOCKS = st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 62))
FRACTIONS = st.one_of(st.just(""), st.text("0123456789", max_size=12).map(".{}".format))
LIKELY = st.builds("{}{}{}{}{}".format, DATES, st.sampled_from("T t"), CLOCKS, FRACTIONS, ZONES)


def one_by_one(text: str) -> int:
    try:
        ns = parse_time(text)
    except (ValueError, OverflowError):
        return int(NOT_A_TIME)
    return ns if abs(ns) < 2**63 else int(NOT_A_TIME)


@given(st.lists(LIKELY, max_size=20))
def test_texts_that_look_like_instants_are_read_as_the_market_room_reads_them(texts: list[str]) -> None:
    """A block of timestamps gives what ``nanoseconds`` gives one by one, right ones and wrong ones."""
    assert parse_times(texts).tolist() == [one_by_one(text) for text in texts]


@given(st.lists(st.integers(-(2**62), 2**62).map(format_time)))
def test_every_instant_reads_back(texts: list[str]) -> None:
    """What ``instant`` writes, to the ninth digit, is read exactly."""
    assert parse_times(texts).tolist() == [parse_time(text) for text in texts]


@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_text_is_read_or_told_unread(texts: list[str]) -> None:
    """Text with line ends, of other scripts or none at all never shifts its neighbours."""
    block = [*texts, "2025-12-06T05:45:36.037320"]
    assert parse_times(block).tolist() == [one_by_one(text) for text in block]


def test_an_instant_beyond_int64_is_unread() -> None:
    """The year 9999 is an instant, but no int64 of nanoseconds."""
    assert parse_times(["9999-12-31T23:59:59Z"]).tolist() == [NOT_A_TIME]
