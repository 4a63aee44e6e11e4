"""Trades of the past, fetched from the exchange into a tape: whole, each once, and resumable at any moment.

Trade ids of a product are consecutive. So the ends of the range are found first, and then the ids between them are
fetched in blocks, oldest first: each block is asked for by its ids, is complete or names what is missing, and can be
appended to what is kept. A later run goes on at the first block that is not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from volspike.errors import DataError, UsageError
from volspike.feeds.rest import LONGEST_PAGE
from volspike.market import SECOND_NS, Cause, Gap, Tick, Ticks, instant
from volspike.tape.backfill_progress import BackfillProgress, BackfillState
from volspike.tape.backfill_search import Place, TradeIndex, TradePages
from volspike.tape.parquet_writer import ROW_GROUP, ParquetTape

SETTLED_NS = 10 * SECOND_NS
"""How long ago a range must have ended: the exchange tells its newest trades over REST a little late."""

Show = Callable[[int, int], None]
"""Told now and then: trade ids done, and trade ids in all."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for: the trades of ``product_id`` with ``start`` <= time < ``end`` (ns UTC)."""

    product_id: str
    start: int
    end: int

    @property
    def tape_name(self) -> str:
        """``trades_BTCUSD_20261101_000000.parquet``, from the product and the start."""
        begun = datetime.fromtimestamp(self.start // SECOND_NS, UTC)
        return f"trades_{self.product_id.replace('-', '')}_{begun:%Y%m%d_%H%M%S}.parquet"


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What came of it. ``tape`` is None where nothing was traded; ``holes`` are ids that the exchange does not have.

    A hole begins with the last trade before it and ends with the first one after it, by the exchange's clock.
    ``was_there`` says that an earlier run had done it all.
    """

    span: Span
    tape: Path | None
    trades: int
    duplicates: int
    holes: tuple[Gap, ...]
    was_there: bool


def backfill(
    pages: TradePages,
    span: Span,
    folder: Path,
    *,
    index: TradeIndex | None = None,
    show: Show = lambda done, total: None,  # noqa: ARG005
    block: int = LONGEST_PAGE,
    now: Callable[[], int] = time.time_ns,
) -> Backfilled:
    """Fetches the trades of ``span`` into a Parquet tape in ``folder``, going on where an earlier run stopped.

    The tape stands under its name only when it is whole. ``index`` may be shared by several spans of one product,
    ``block`` is the number of ids asked for at a time.

    Raises:
        UsageError: the span is none or not yet over, or the tape's name is taken by something else.
        DataError: the exchange cannot be reached, refuses, or tells what cannot be.
    """
    _refuse_untimely(span, now())
    tape = folder / span.tape_name
    progress = BackfillProgress(tape)
    state = progress.load()
    if state is not None:
        _refuse_other(state, span, pages.url, progress.file)
    elif tape.exists():
        raise UsageError(f"{tape} is there already, and was not written by a backfill: move it, or take another folder")
    if state is not None and state.is_complete and (tape.exists() or state.trades == 0):
        progress.drop_trades()  # a run that was killed at its very end may have left them
        return _result(state, span, tape, was_there=True)
    if state is None or state.is_complete:
        state = _begun(index or TradeIndex(pages, span.product_id), span, pages.url)
        folder.mkdir(parents=True, exist_ok=True)
        progress.save(state)
    state = _fetched(pages, progress, state, block, show)
    state = _written(progress, state, tape)
    return _result(state, span, tape, was_there=False)


def _refuse_untimely(span: Span, now: int) -> None:
    if span.start >= span.end:
        raise UsageError(f"a range must begin before it ends: {instant(span.start)} to {instant(span.end)}")
    if span.start < 0 or span.end > now - SETTLED_NS:
        raise UsageError(
            f"{instant(span.start)} to {instant(span.end)}: only what lies between 1970 and ten seconds ago "
            f"({instant(now - SETTLED_NS)}) can be fetched"
        )


def _refuse_other(state: BackfillState, span: Span, url: str, file: Path) -> None:
    """A tape's name tells no end and no exchange, so two backfills may want the same one."""
    held = Span(state.product_id, state.start, state.end)
    if held == span and state.url == url:
        return
    done = "holds" if state.is_complete else "is fetching"
    raise UsageError(
        f"{file.name.removesuffix('.backfill')} {done} {held.product_id} {instant(held.start)} to {instant(held.end)} "
        f"from {state.url}: ask for the same, or take another folder, or remove {file}"
    )


def _begun(index: TradeIndex, span: Span, url: str) -> BackfillState:
    before, first = index.around(span.start)
    last, beyond = index.around(span.end)
    is_empty = first is None or last is None or last.trade_id < first.trade_id
    first_id = 0 if first is None or is_empty else first.trade_id
    end_id = 0 if last is None or is_empty else last.trade_id + 1
    return BackfillState(
        url=url,
        product_id=span.product_id,
        start=span.start,
        end=span.end,
        before=before,
        beyond=beyond,
        first_id=first_id,
        end_id=end_id,
        next_id=first_id,
    )


def _fetched(
    pages: TradePages, progress: BackfillProgress, state: BackfillState, block: int, show: Show
) -> BackfillState:
    total = state.end_id - state.first_id
    show(state.next_id - state.first_id, total)
    while state.next_id < state.end_id:
        end = min(state.next_id + block, state.end_id)
        trades, duplicates = _block(pages, state.product_id, state.next_id, end)
        state = progress.add(state, trades, end, duplicates)
        show(end - state.first_id, total)
    return state


def _block(pages: TradePages, product_id: str, first: int, end: int) -> tuple[list[Tick], int]:
    """The trades with ids from ``first`` to ``end`` - 1, oldest first, and how many were told again.

    One page holds them all, unless the exchange gives shorter pages than asked for, or repeats itself.
    """
    found: dict[int, Tick] = {}
    told = 0
    cursor = end
    while cursor > first:
        page = pages.trades(product_id, after=cursor, limit=end - first)
        if not page:
            break
        for tick in page:
            if tick.trade_id >= first:
                told += 1
                found.setdefault(tick.trade_id, tick)
        cursor = min(tick.trade_id for tick in page)
    return [found[trade_id] for trade_id in sorted(found)], told - len(found)


def _written(progress: BackfillProgress, state: BackfillState, tape: Path) -> BackfillState:
    """Writes the tape from what is kept, verifies it on the way, and says so in the state."""
    holes: list[Gap] = []
    previous = state.before
    if state.trades:
        with ParquetTape(tape) as written:
            for ticks in progress.ticks(state, ROW_GROUP):
                _refuse_disorder(ticks, previous, tape)
                holes.extend(_holes(previous, ticks, state.product_id))
                previous = Place(int(ticks.trade_id[-1]), int(ticks.time[-1]))
                written.write(ticks)
    if previous is not None and state.beyond is not None:
        holes.extend(_hole(previous, state.beyond, state.product_id))
    complete = msgspec.structs.replace(state, is_complete=True, holes=tuple(holes))
    progress.save(complete)
    progress.drop_trades()
    return complete


def _refuse_disorder(ticks: Ticks, previous: Place | None, tape: Path) -> None:
    ids = ticks.trade_id if previous is None else np.concatenate(([previous.trade_id], ticks.trade_id))
    if np.any(np.diff(ids) <= 0):
        raise DataError(f"trades kept for {tape} do not ascend: remove {tape}.backfill and {tape}.trades, begin anew")


def _holes(previous: Place | None, ticks: Ticks, product_id: str) -> Iterator[Gap]:
    places = Place(int(ticks.trade_id[0]), int(ticks.time[0]))
    if previous is not None:
        yield from _hole(previous, places, product_id)
    for row in np.flatnonzero(np.diff(ticks.trade_id) > 1).tolist():
        left, right = (Place(int(ticks.trade_id[at]), int(ticks.time[at])) for at in (row, row + 1))
        yield from _hole(left, right, product_id)


def _hole(left: Place, right: Place, product_id: str) -> Iterator[Gap]:
    """The gap between two trades, if ids are missing there."""
    lost = right.trade_id - left.trade_id - 1
    if lost > 0:
        yield Gap(
            start=left.time,
            end=right.time,
            products=(product_id,),
            cause=Cause.SEQUENCE,
            lost=lost,
            detail=f"the exchange has no trades {left.trade_id + 1} to {right.trade_id - 1}",
        )


def _result(state: BackfillState, span: Span, tape: Path, *, was_there: bool) -> Backfilled:
    return Backfilled(
        span=span,
        tape=tape if state.trades else None,
        trades=state.trades,
        duplicates=state.duplicates,
        holes=state.holes,
        was_there=was_there,
    )
