"""The gap ledger, and gaps derived from a tape without one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from tests.tape.strategies import START, read_all, tick_at
from volspike.errors import UnreadableFile, UsageError
from volspike.market import SECOND_NS, Cause, Gap, Ticks
from volspike.tape import LEDGER_NAME, Ledger, read_ledger, read_ticks, silences, tapes_of, write_ndjson

GAP = Gap(start=START, end=START + 1, products=("BTC-USD",), cause=Cause.SEQUENCE, lost=3, detail='a "word"\n')

GAPS = st.builds(
    Gap,
    start=st.integers(0, 2**61),
    end=st.integers(0, 2**61),
    products=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    cause=st.sampled_from(Cause),
    lost=st.integers(-1, 2**40),
    detail=st.text(max_size=8),
)


def put(folder: Path, *gaps: Gap) -> Ledger:
    ledger = Ledger(folder)
    for gap in gaps:
        ledger.add(gap)
    assert ledger.flush()
    return ledger


@given(gaps=st.lists(GAPS, max_size=8), cut=st.integers(0, 8))
def test_gaps_come_back_as_they_were(gaps: list[Gap], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every field to the nanosecond, by start, each once, whichever runs wrote them."""
    folder = tmp_path_factory.mktemp("ledger")
    put(folder, *gaps[:cut])
    put(folder, *gaps[cut:], *gaps[:1])
    back = Ledger.read(folder)
    assert set(back) == set(gaps)
    assert len(back) == len(set(gaps))
    assert back == sorted(back, key=lambda gap: (gap.start, gap.end))


@given(size=st.integers(0, 400))
def test_a_torn_line_costs_only_itself(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever a ledger is cut, the lines before it read, and what is added later too."""
    folder = tmp_path_factory.mktemp("ledger")
    put(folder, GAP, *(Gap(start=n, end=n, products=(), cause=Cause.SILENCE) for n in range(2)))
    path = folder / LEDGER_NAME
    text = path.read_bytes()[:size]
    path.write_bytes(text)
    before = read_ledger(folder)
    assert len(before.gaps) >= text.count(b"\n")
    late = Gap(start=2**61, end=2**61, products=(), cause=Cause.OVERFLOW)
    put(folder, late)
    assert read_ledger(folder) == ([*before.gaps, late], before.damaged, [])


def test_spans_in_which_no_loss_can_be_noticed_are_no_gaps(tmp_path: Path) -> None:
    """They are read apart, joined where they meet, and a loss is written as before."""
    blind = Gap(
        start=START, end=START, products=("okx:BTC-USDT",), cause=Cause.UNVERIFIABLE, detail="no ids", verifiable=False
    )
    closed, later = replaced(blind, end=START + 9), replaced(blind, start=START + 20, end=START + 30)
    other = replaced(blind, products=("okx:ETH-USDT",), start=START + 1, end=START + 1)
    put(tmp_path, GAP, blind, closed, later, other)
    assert Ledger.read(tmp_path) == [GAP]
    assert read_ledger(tmp_path) == ([GAP], 0, [closed, other, later])
    texts = (tmp_path / LEDGER_NAME).read_text().splitlines()
    assert [text.endswith(',"verifiable":false}') for text in texts] == [False, True, True, True, True]
    assert "verifiable" not in texts[0]


def test_no_ledger_is_no_gap_and_one_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """Where nothing was lost there is no file; a folder of its name is an error by name."""
    assert Ledger.read(tmp_path) == []
    (tmp_path / LEDGER_NAME).mkdir()
    with pytest.raises(UnreadableFile, match=r"gaps\.ndjson"):
        Ledger.read(tmp_path)


def test_what_cannot_be_written_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a line leaves the ledger as it was, and the gaps in memory."""
    ledger = put(tmp_path, GAP)
    before = ledger.path.read_bytes()
    late = Gap(start=START + 5, end=START + 6, products=("BTC-USD",), cause=Cause.RECONNECT)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:40])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        ledger.add(late)
        assert not ledger.flush()
    assert "No space left" in ledger.fault
    assert (ledger.path.read_bytes(), ledger.pending) == (before, 1)
    assert ledger.flush()
    assert (Ledger.read(tmp_path), ledger.fault, ledger.pending) == ([GAP, late], "", 0)


def test_a_ledger_is_no_tape(tmp_path: Path) -> None:
    """Folders and globs pass it over, and named by itself it is refused."""
    put(tmp_path, GAP)
    write_ndjson([Ticks.of([tick_at(1)])], tmp_path / "a.ndjson")
    for source in (tmp_path, str(tmp_path / "*.ndjson")):
        assert [path.name for path in tapes_of(source)] == ["a.ndjson"]
        assert len(read_all(source)) == 1
    with pytest.raises(UsageError, match="no tape by its name"):
        read_ticks(tmp_path / LEDGER_NAME)


@given(
    steps=st.lists(st.tuples(st.sampled_from(["A", "B"]), st.integers(-2, 25)), max_size=30), chunk=st.integers(1, 9)
)
def test_silences_are_those_of_each_product(steps: list[tuple[str, int]], chunk: int) -> None:
    """However a tape is cut into chunks, each product's waits of more than 10 s are its gaps."""
    now, told, expected = 0, [], []
    latest: dict[str, int] = {}
    for product, seconds in steps:
        now += seconds * SECOND_NS
        told.append(tick_at(now, product_id=product))
        before = latest.get(product, now)
        if now - before > 10 * SECOND_NS:
            expected.append((START + before, START + now, (product,)))
        latest[product] = max(now, before)
    parts = [Ticks.of(told[at : at + chunk]) for at in range(0, len(told), chunk)]
    gaps = silences(parts)
    assert [(gap.start, gap.end, gap.products) for gap in gaps] == sorted(expected, key=lambda gap: gap[:2])
    assert {gap.cause for gap in gaps} <= {Cause.SILENCE}


@pytest.mark.parametrize(("beyond_ns", "gaps"), [(-1, 0), (0, 0), (1, 1)])
def test_silence_of_exactly_the_limit_is_no_gap(beyond_ns: int, gaps: int) -> None:
    """A silence is a gap only if it is longer than the limit."""
    received = [START, START + 10 * SECOND_NS + beyond_ns]
    assert len(silences([Ticks.of([tick_at(time) for time in received])], 10.0)) == gaps
