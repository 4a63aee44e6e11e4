"""Download of public trade history into Parquet tapes: complete, without duplicates, resumable at any time.

Trade ids of a product are consecutive and ascend with time. A search over single trades finds the first and last id of
a range; the ids between them are then fetched in blocks, oldest first. Missing ids are reported as gaps. Each block is
appended to a file, so a later run continues with the next block.

``<tape>.backfill`` holds the range, the progress and, at the end, the missing trades; it is replaced atomically.
``<tape>.trades`` holds the trades, 33 bytes each, oldest first; bytes beyond the count in the state belong to an
interrupted write and are cut off. ``plan_spans`` gives the ranges that close the gaps of a ledger.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import DataError, UnreadableFile, UsageError
from volspike.feeds.rest import LONGEST_PAGE, TradePages, TradePosition
from volspike.history.download import write_durably
from volspike.market import MISSING_ID, SECOND_NS, Cause, Gap, Kind, Tick, Ticks, format_time
from volspike.market.product import COINBASE, split_product
from volspike.tape.parquet import ROW_GROUP, ParquetTape

_FIRST_STRIDE = 1_000


class TradeIndex:
    """Finds the trades around a time; caches the trades it has seen, so that later searches are shorter.

    The times of ascending trade ids must not decrease; ids may be missing.
    """

    def __init__(self, pages: TradePages, product_id: str) -> None:
        self._pages = pages
        self._product_id = product_id
        self._seen: set[TradePosition] = set()

    def around(self, time: int) -> tuple[TradePosition | None, TradePosition | None]:
        """The last trade before ``time`` and the first at or after it; None if there is none."""
        for tick in self._pages.trades_at(self._product_id, time):
            self._seen.add(TradePosition(tick.trade_id, tick.time))
        if not any(place.time >= time for place in self._seen):
            newest = self._at_or_below(None)
            if newest is None or newest.time < time:
                return newest, None
        above = min(place for place in self._seen if place.time >= time)
        below = max((place for place in self._seen if place.time < time), default=None)
        floor = below.trade_id if below else -1  # trades up to this id are before `time`
        turn = 0
        while above.trade_id - floor > 1:
            guess = min(max(_next_guess(below, above, floor, time, turn), floor + 1), above.trade_id - 1)
            turn += 1
            found = self._at_or_below(guess)
            if found is not None and found.time >= time:
                above = found
            else:
                below, floor = found, guess
        return below, above

    def _at_or_below(self, trade_id: int | None) -> TradePosition | None:
        """The newest trade with an id of at most ``trade_id``, or of all trades if that is None."""
        after = None if trade_id is None else trade_id + 1
        page = self._pages.trades(self._product_id, after=after, limit=1)
        if not page:
            return None
        place = TradePosition(page[-1].trade_id, page[-1].time)
        self._seen.add(place)
        return place


def _next_guess(below: TradePosition | None, above: TradePosition, floor: int, time: int, turn: int) -> int:
    """The next id to query, between ``floor`` and ``above``."""
    if floor < 0:
        # The range is usually recent: go back in growing strides until one passes `time`.
        return above.trade_id - (_FIRST_STRIDE << 2 * min(turn, 20))
    if below is None or turn % 2:
        return (floor + above.trade_id) // 2
    # Interpolation, alternating with bisection because trades come in bursts.
    share = (time - below.time) / max(above.time - below.time, 1)
    return below.trade_id + int((above.trade_id - below.trade_id) * share)


FORMAT = 1
_TRADE = np.dtype(
    [("time", "<i8"), ("trade_id", "<i8"), ("price", "<f8"), ("size", "<f8"), ("side", "i1")], align=False
)


class BackfillState(msgspec.Struct, frozen=True, kw_only=True):
    """Backfill of the trades of ``product_id`` in [``start``, ``end``) (ns UTC), ids ``first_id`` to ``end_id``-1.

    Ids below ``next_id`` are done: ``trades`` of them exist, and ``duplicates`` were repeated. ``before`` and
    ``beyond`` are the trades next to the range. ``holes`` is set when the backfill ``is_complete``.
    """

    format: int = FORMAT
    url: str
    product_id: str
    start: int
    end: int
    before: TradePosition | None
    beyond: TradePosition | None
    first_id: int
    end_id: int
    next_id: int
    trades: int = 0
    duplicates: int = 0
    is_complete: bool = False
    holes: tuple[Gap, ...] = ()


class BackfillProgress:
    """The state file and the trades file next to ``tape``."""

    def __init__(self, tape: Path) -> None:
        self._state = tape.with_name(tape.name + ".backfill")
        self._trades = tape.with_name(tape.name + ".trades")

    @property
    def file(self) -> Path:
        """The state file."""
        return self._state

    def load(self) -> BackfillState | None:
        """The state of an earlier run; None if there is none, or its trades are missing.

        Raises:
            UnreadableFile: the file is not a backfill state, or is from a newer volspike.
        """
        try:
            state = msgspec.json.decode(self._state.read_bytes(), type=BackfillState)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UnreadableFile(self._state, f"not a backfill state ({error}): remove it to start again") from None
        if state.format > FORMAT:
            raise UnreadableFile(self._state, f"state format {state.format}: install a newer volspike, or remove it")
        if state.is_complete:
            return state
        kept = self._trades.stat().st_size if self._trades.exists() else 0
        return state if kept >= state.trades * _TRADE.itemsize else None

    def save(self, state: BackfillState) -> None:
        """Replaces the state atomically: after a crash the file has the old or the new state."""
        write_durably(self._state, msgspec.json.format(msgspec.json.encode(state)))

    def add(self, state: BackfillState, trades: Sequence[Tick], next_id: int, duplicates: int) -> BackfillState:
        """Appends trades, oldest first, then saves and returns the state that counts them."""
        rows = [(tick.time, tick.trade_id, tick.price, tick.last_size, tick.side) for tick in trades]
        with self._trades.open("r+b" if self._trades.exists() else "wb") as file:
            file.truncate(file.seek(state.trades * _TRADE.itemsize))
            file.write(np.array(rows, _TRADE).tobytes())
            file.flush()
            os.fsync(file.fileno())
        updated = msgspec.structs.replace(
            state, next_id=next_id, trades=state.trades + len(trades), duplicates=state.duplicates + duplicates
        )
        self.save(updated)
        return updated

    def ticks(self, state: BackfillState, rows: int) -> Iterator[Ticks]:
        """The stored trades, oldest first, ``rows`` at a time."""
        with self._trades.open("rb") as file:
            for done in range(0, state.trades, rows):
                count = min(rows, state.trades - done)
                yield _ticks(np.frombuffer(file.read(count * _TRADE.itemsize), _TRADE), state.product_id)

    def drop_trades(self) -> None:
        """Removes the trades file; the state file remains and describes the tape."""
        self._trades.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes both files, once a manifest describes the tape."""
        self._trades.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


def _ticks(trades: NDArray[np.void], product_id: str) -> Ticks:
    count = len(trades)
    missing = np.full(count, np.nan)
    return Ticks(
        products=(product_id,),
        time=trades["time"].astype(np.int64),
        received=trades["time"].astype(np.int64),
        kind=np.full(count, Kind.TRADE, np.int8),
        product=np.zeros(count, np.int32),
        price=trades["price"].astype(np.float64),
        best_bid=missing,
        best_ask=missing,
        bid_size=missing,
        ask_size=missing,
        last_size=trades["size"].astype(np.float64),
        side=trades["side"].astype(np.int8),
        trade_id=trades["trade_id"].astype(np.int64),
        sequence=np.full(count, MISSING_ID, np.int64),
    )


SETTLED_NS = 10 * SECOND_NS
"""The minimum age of a range's end: REST returns the newest trades with a delay."""

ProgressCallback = Callable[[int, int], None]
"""Gets the number of trade ids done and the total number."""


@dataclass(frozen=True, slots=True)
class Span:
    """A requested range: the trades of ``product_id`` with ``start`` <= time < ``end`` (ns UTC)."""

    product_id: str
    start: int
    end: int

    @property
    def tape_name(self) -> str:
        """``trades_BTCUSD_20261101_000000.parquet``, from the product and the start."""
        begun = datetime.fromtimestamp(self.start // SECOND_NS, UTC)
        return f"trades_{_file_symbol(self.product_id)}_{begun:%Y%m%d_%H%M%S}.parquet"


def _file_symbol(product_id: str) -> str:
    """A product in a file name: ``BTCUSD``, with its venue where it is not Coinbase: ``kraken-BTCUSD``."""
    venue, symbol = split_product(product_id)
    plain = symbol.replace("-", "").replace("/", "")
    return plain if venue == COINBASE else f"{venue}-{plain}"


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """Result of a backfill. ``tape`` is None without trades; ``holes`` are ids missing at the exchange.

    A hole starts with the last trade before it and ends with the first one after it, in exchange time.
    ``already_complete``: an earlier run had completed the range.
    """

    span: Span
    tape: Path | None
    trades: int
    duplicates: int
    holes: tuple[Gap, ...]
    already_complete: bool


def backfill(
    pages: TradePages,
    span: Span,
    folder: Path,
    *,
    index: TradeIndex | None = None,
    show: ProgressCallback = lambda done, total: None,  # noqa: ARG005
    block: int = LONGEST_PAGE,
    now: Callable[[], int] = time.time_ns,
) -> BackfillResult:
    """Fetches the trades of ``span`` into a Parquet tape in ``folder``, continuing an earlier run.

    The tape gets its name only when it is complete. Spans of one product may share an ``index``; ``block`` is the
    number of ids per request.

    Raises:
        UsageError: the span is invalid or not yet over, or another file has the tape's name.
        DataError: the exchange cannot be reached, rejects a request, or sends invalid data.
    """
    _refuse_untimely(span, now())
    tape = folder / span.tape_name
    progress = BackfillProgress(tape)
    state = progress.load()
    if state is not None:
        _refuse_other(state, span, pages.url, progress.file)
    elif tape.exists():
        raise UsageError(f"{tape} already exists and is not from a backfill: move it, or use another folder")
    if state is not None and state.is_complete and (tape.exists() or state.trades == 0):
        progress.drop_trades()  # they remain if a run was killed at its end
        return _make_result(state, span, tape, already_complete=True)
    if state is None or state.is_complete:
        state = _start_state(index or TradeIndex(pages, span.product_id), span, pages.url)
        folder.mkdir(parents=True, exist_ok=True)
        progress.save(state)
    state = _fetch_trades(pages, progress, state, block, show)
    state = _write_tape(progress, state, tape)
    return _make_result(state, span, tape, already_complete=False)


def _refuse_untimely(span: Span, now: int) -> None:
    if span.start >= span.end:
        raise UsageError(f"a range must start before it ends: {format_time(span.start)} to {format_time(span.end)}")
    if span.start < 0 or span.end > now - SETTLED_NS:
        raise UsageError(
            f"{format_time(span.start)} to {format_time(span.end)}: a range must lie between 1970 and ten seconds ago "
            f"({format_time(now - SETTLED_NS)})"
        )


def _refuse_other(state: BackfillState, span: Span, url: str, file: Path) -> None:
    """Rejects a state of another range or exchange; both are not part of a tape's name."""
    held = Span(state.product_id, state.start, state.end)
    if held == span and state.url == url:
        return
    done = "holds" if state.is_complete else "is fetching"
    raise UsageError(
        f"{file.name.removesuffix('.backfill')} {done} {held.product_id} "
        f"{format_time(held.start)} to {format_time(held.end)} from {state.url}: "
        f"request the same range, use another folder, or remove {file}"
    )


def _start_state(index: TradeIndex, span: Span, url: str) -> BackfillState:
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


def _fetch_trades(
    pages: TradePages, progress: BackfillProgress, state: BackfillState, block: int, show: ProgressCallback
) -> BackfillState:
    total = state.end_id - state.first_id
    show(state.next_id - state.first_id, total)
    while state.next_id < state.end_id:
        end = min(state.next_id + block, state.end_id)
        trades, duplicates = _fetch_block(pages, state.product_id, state.next_id, end)
        state = progress.add(state, trades, end, duplicates)
        show(end - state.first_id, total)
    return state


def _fetch_block(pages: TradePages, product_id: str, first: int, end: int) -> tuple[list[Tick], int]:
    """The trades with ids from ``first`` to ``end`` - 1, oldest first, and the number of duplicates.

    One page has all of them unless the exchange sends short pages or repeats trades.
    """
    found: dict[int, Tick] = {}
    received = 0
    cursor = end
    while cursor > first:
        page = pages.trades(product_id, after=cursor, limit=end - first)
        if not page:
            break
        for tick in page:
            if tick.trade_id >= first:
                received += 1
                found.setdefault(tick.trade_id, tick)
        cursor = min(tick.trade_id for tick in page)
    return [found[trade_id] for trade_id in sorted(found)], received - len(found)


def _write_tape(progress: BackfillProgress, state: BackfillState, tape: Path) -> BackfillState:
    """Writes the tape from the stored trades, verifies their order, and saves the complete state."""
    holes: list[Gap] = []
    previous = state.before
    if state.trades:
        with ParquetTape(tape) as written:
            for ticks in progress.ticks(state, ROW_GROUP):
                _refuse_disorder(ticks, previous, tape)
                holes.extend(_missing_trades(previous, ticks, state.product_id))
                previous = TradePosition(int(ticks.trade_id[-1]), int(ticks.time[-1]))
                written.write(ticks)
    if previous is not None and state.beyond is not None:
        holes.extend(_missing_between(previous, state.beyond, state.product_id))
    complete = msgspec.structs.replace(state, is_complete=True, holes=tuple(holes))
    progress.save(complete)
    progress.drop_trades()
    return complete


def _refuse_disorder(ticks: Ticks, previous: TradePosition | None, tape: Path) -> None:
    ids = ticks.trade_id if previous is None else np.concatenate(([previous.trade_id], ticks.trade_id))
    if np.any(np.diff(ids) <= 0):
        raise DataError(
            f"stored trades for {tape} do not ascend: remove {tape}.backfill and {tape}.trades, and start again"
        )


def _missing_trades(previous: TradePosition | None, ticks: Ticks, product_id: str) -> Iterator[Gap]:
    places = TradePosition(int(ticks.trade_id[0]), int(ticks.time[0]))
    if previous is not None:
        yield from _missing_between(previous, places, product_id)
    for row in np.flatnonzero(np.diff(ticks.trade_id) > 1).tolist():
        left, right = (TradePosition(int(ticks.trade_id[at]), int(ticks.time[at])) for at in (row, row + 1))
        yield from _missing_between(left, right, product_id)


def _missing_between(left: TradePosition, right: TradePosition, product_id: str) -> Iterator[Gap]:
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


def _make_result(state: BackfillState, span: Span, tape: Path, *, already_complete: bool) -> BackfillResult:
    return BackfillResult(
        span=span,
        tape=tape if state.trades else None,
        trades=state.trades,
        duplicates=state.duplicates,
        holes=state.holes,
        already_complete=already_complete,
    )


MARGIN_NS = SECOND_NS
"""Margin around a gap: gaps use local time, trades exchange time; the latency is below this."""


def plan_spans(gaps: Iterable[Gap], products: Iterable[str] = ()) -> list[Span]:
    """The spans that cover every gap, in full seconds, by product and time; adjacent spans are merged.

    An empty ``products`` means all products of the gaps. Trades at the edges of a span may be on the recorded tape as
    well; replay drops the duplicates by trade id.
    """
    wanted = set(products)
    spans: list[Span] = []
    for product_id, start, end in sorted(
        (product_id, *_seconds(gap))
        for gap in gaps
        for product_id in gap.products
        if not wanted or product_id in wanted
    ):
        last = spans[-1] if spans else None
        if last is not None and last.product_id == product_id and start <= last.end:
            spans[-1] = Span(product_id, last.start, max(last.end, end))
        else:
            spans.append(Span(product_id, start, end))
    return spans


def _seconds(gap: Gap) -> tuple[int, int]:
    """Start and end, rounded outward to full seconds, the resolution of tape names."""
    start = (gap.start - MARGIN_NS) // SECOND_NS
    end = -(-(gap.end + MARGIN_NS) // SECOND_NS)
    return start * SECOND_NS, end * SECOND_NS
