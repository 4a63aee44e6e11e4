"""Ticks in, feature rows out: one at a time (live) or by the million (replay), through the same kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.features import kernel
from volspike.features.rows import ROW_FLOATS, Every, FeatureRow, FeatureRows
from volspike.features.schema import FeatureSet, Scope
from volspike.features.state import EngineState, dump, load
from volspike.market import Gap, Kind, Profile, Tick, Ticks

ROOM_PER_TICK = kernel.SESSION_GAP_NS // kernel.SECOND_NS + 2
"""Rows that one event can make at most, when rows are made per second."""

_TRADES = {
    Profile.TICKER: kernel.TRADES_IGNORED,
    Profile.TICKER_AND_TRADE: kernel.TRADES_TELL_SIZES,
    Profile.TRADE: kernel.TRADES_ARE_TICKS,
}


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of events that made no row of their own, by the rule of ``FeatureEngine``."""

    late: int
    duplicates: int
    unplaced: int
    invalid: int


class FeatureEngine:
    """The features of any number of products, each on its own clock.

    The rule for what comes out of order or twice, the same live and in replay:

    - An event whose trade id is among the 256 told last by its product and kind is a *duplicate*; where no id is told,
      one that repeats its predecessor of that kind in every field. It is counted and changes nothing.
    - An event older than the newest of its product and kind is *late*: counted, and changes nothing.
      (Ten in a row that are late by more than 300 s mean that the newer time was wrong: a new session begins.)
    - A trade older than the newest ticker message counts at the product's clock, where it became known.
    - A trade outside a session of ticker messages is *unplaced*, a price that is not finite and positive *invalid*.

    Args:
        feature_set: names and windows.
        profile: which kinds of events the source tells. Under ``ticker`` trades are left aside; under ``ticker+trade``
            they tell sizes alone; under ``trade`` each is a tick.
        every: a row per tick or per second.
    """

    def __init__(
        self,
        feature_set: FeatureSet | None = None,
        profile: Profile = Profile.TICKER,
        every: Every = Every.TICK,
    ) -> None:
        self.feature_set = feature_set or FeatureSet()
        self.profile = profile
        self.every = every
        self._windows = self.feature_set.windows
        # numba reads their number from the type: what is not asked for is not compiled in
        self._scope = (0,) * list(Scope).index(self.feature_set.scope)
        self._state = self._empty()
        self._codes: dict[str, int] = {}
        self._trades = _TRADES[profile]
        self._by_second = every is Every.SECOND
        self._room = ROOM_PER_TICK if self._by_second else 1
        self._values = np.empty((self._room, len(ROW_FLOATS) + len(self.feature_set.names)))
        self._marks = np.empty((self._room, kernel.MARKS), np.int64)

    def _empty(self) -> EngineState:
        feature_set = self.feature_set
        keeps_hours = feature_set.scope is not Scope.CORE
        return EngineState(len(feature_set.windows), feature_set.longest_window, keeps_hours)

    @property
    def products(self) -> tuple[str, ...]:
        """The products met so far, in the order of their first event."""
        return tuple(self._state.products)

    @property
    def bytes_per_product(self) -> int:
        """Memory that the state of one product takes."""
        return self._state.bytes_per_product

    def handled(self, product_id: str | None = None) -> Handled:
        """How many events were late, duplicate, unplaced or invalid, of one product or of all."""
        used = len(self._state.products)
        clocks = self._state.clocks[:used]
        if product_id is not None:
            clocks = clocks[[self._codes[product_id]]]
        kinds = (kernel.LATE, kernel.DUPLICATES, kernel.UNPLACED, kernel.INVALID)
        return Handled(*(int(clocks[:, kind].sum()) for kind in kinds))

    def _code(self, product_id: str) -> int:
        code = self._codes.get(product_id)
        if code is None:
            code = self._codes[product_id] = self._state.admit(product_id)
        return code

    def _leader(self) -> int:
        leader = self.feature_set.leader
        return kernel.NO_LEADER if leader is None else self._codes.get(leader, kernel.UNMET_LEADER)

    def update(self, tick: Tick) -> list[FeatureRow]:
        """The rows that this event makes: at most one per tick, or one per second that it shows to be over."""
        code = self._code(tick.product_id)
        rows = kernel.step(
            *self._state.arrays(),
            self._windows,
            self._scope,
            self._state.ring_length,
            self._trades,
            self._by_second,
            self._leader(),
            code,
            tick.time,
            int(tick.kind),
            tick.price,
            tick.best_bid,
            tick.best_ask,
            tick.bid_size,
            tick.ask_size,
            tick.last_size,
            int(tick.side),
            tick.trade_id,
            tick.sequence,
            self._values,
            self._marks,
            0,
        )
        return [self._row(row, tick.product_id) for row in range(rows)]

    def mark_gap(self, gap: Gap) -> None:
        """Rows of the gap's products are not whole until their longest window has left its end behind.

        Tell it before the first tick that came after the gap. A new session starts whole.
        """
        for product_id in gap.products:
            code = self._code(product_id)  # first: a product that is new may move the arrays
            clock = self._state.clocks[code]
            clock[kernel.HOLE_END] = max(clock[kernel.HOLE_END], gap.end)

    def run(self, ticks: Ticks, chunk: int = 16_384) -> Iterator[FeatureRows]:
        """The rows that these events make, in parts of at most ``chunk`` rows; what is not asked for is not computed.

        Shapes and results are those of ``update`` for each event in turn, bit for bit.
        """
        if chunk < self._room:
            raise UsageError(f"a chunk must hold at least {self._room} rows, was {chunk}")
        codes = np.array([self._code(name) for name in ticks.products], np.int64)[ticks.product]
        capacity = chunk if self._by_second else min(chunk, max(1, len(ticks)))
        first = 0
        while first < len(ticks):
            values = np.empty((capacity, self._values.shape[1]))
            marks = np.empty((capacity, kernel.MARKS), np.int64)
            first, rows = kernel.run(
                *self._state.arrays(),
                self._windows,
                self._scope,
                self._state.ring_length,
                self._trades,
                self._by_second,
                self._leader(),
                first,
                codes,
                ticks.time,
                ticks.kind,
                ticks.price,
                ticks.best_bid,
                ticks.best_ask,
                ticks.bid_size,
                ticks.ask_size,
                ticks.last_size,
                ticks.side,
                ticks.trade_id,
                ticks.sequence,
                values,
                marks,
                self._room,
            )
            if rows:
                yield self._rows(values[:rows], marks[:rows])

    def run_all(self, stream: Iterable[Ticks], gaps: Iterable[Gap] = ()) -> Iterator[FeatureRows]:
        """``run`` over a stream of parts, each gap marked before the first tick received at or after its end."""
        waiting = deque(sorted(gaps, key=lambda gap: gap.end))
        for ticks in stream:
            done = 0
            while waiting and len(ticks) and waiting[0].end <= ticks.received.max():
                after = int(np.argmax(ticks.received >= waiting[0].end))
                if after > done:
                    yield from self.run(ticks[done:after])
                    done = after
                self.mark_gap(waiting.popleft())
            yield from self.run(ticks[done:] if done else ticks)

    def _row(self, row: int, product_id: str) -> FeatureRow:
        timestamp, session_id, flags = self._marks[row, :3].tolist()
        warm, whole = flags & kernel.IS_WARM != 0, flags & kernel.IS_WHOLE != 0
        return FeatureRow(timestamp, product_id, session_id, warm, whole, self._values[row].copy(), self.feature_set)

    def _rows(self, values: NDArray[np.float64], marks: NDArray[np.int64]) -> FeatureRows:
        flags = marks[:, 2]
        return FeatureRows(
            self.feature_set,
            self.products,
            marks[:, 0].copy(),
            marks[:, 3].astype(np.int32),
            marks[:, 1].copy(),
            (flags & kernel.IS_WARM) != 0,
            (flags & kernel.IS_WHOLE) != 0,
            values,
            marks[:, kernel.MARK_EVENT].copy(),
        )

    def snapshot(self) -> bytes:
        """Everything that the next row depends on; small enough to be taken often."""
        return dump(self._state, self.feature_set.digest, self.profile, self.every)

    def between_sessions(self, product_id: str, feature_set: FeatureSet, every: Every) -> bytes:
        """A snapshot for an engine of another set that takes up this product where its next session begins.

        It holds what outlives a session: the newest times and contents, the trade ids told last, the counts.
        """
        begun = FeatureEngine(feature_set, self.profile, every)
        code, to = self._codes[product_id], begun._code(product_id)
        mine, theirs = self._state, begun._state
        theirs.clocks[to], theirs.news[to], theirs.ids[to] = mine.clocks[code], mine.news[code], mine.ids[code]
        theirs.clocks[to, kernel.IN_SESSION] = 0
        return begun.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Takes up where the engine that made the snapshot stopped.

        Raises:
            DataError: the bytes are no whole snapshot.
            SchemaMismatch: it is of another feature set, profile or row rate.
        """
        self._state = load(snapshot, self._empty(), self.feature_set.digest, self.profile, self.every)
        self._codes = {name: code for code, name in enumerate(self._state.products)}


def profile_of(kinds: set[Kind]) -> Profile:
    """The profile of a source that tells these kinds of events."""
    if Kind.TICKER not in kinds and kinds:
        return Profile.TRADE
    return Profile.TICKER_AND_TRADE if Kind.TRADE in kinds else Profile.TICKER
