"""The feature engine and its rows: ticks in, feature rows out, one at a time (live) or as columns (replay)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.features.extra import ExtraState
from volspike.features.kernel import layout
from volspike.features.schema import ROW_FLOATS, FeatureSet, Scope
from volspike.features.state import EngineState, dump, load
from volspike.market import Cause, Gap, Kind, Profile, Tick, Ticks

Floats: TypeAlias = NDArray[np.float64]


class Every(StrEnum):
    """The row rate: a row at each tick, or at the end of each second of a session."""

    TICK = "tick"
    SECOND = "1s"


class FeatureRow(msgspec.Struct, frozen=True, gc=False):
    """One feature row; ``timestamp`` in ns UTC, ``session_id`` the Unix second in which the session began.

    ``values`` are the floats of ``ROW_FLOATS`` and then the features of the set.
    """

    timestamp: int
    product_id: str
    session_id: int
    is_warm: bool
    is_whole: bool
    values: Floats
    feature_set: FeatureSet

    @property
    def features(self) -> Floats:
        """The features alone, in the order of the set."""
        return self.values[len(ROW_FLOATS) :]

    def by_name(self) -> dict[str, float]:
        """Every float of the row under its column's name."""
        return dict(zip(ROW_FLOATS + self.feature_set.names, self.values.tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRows:
    """n feature rows as columns. ``values`` is (n, 7 + features), its columns those of ``column_names``.

    ``event`` is the index of the tick that made the row, among those passed to ``FeatureEngine.run``.
    """

    feature_set: FeatureSet
    products: tuple[str, ...]
    timestamp: NDArray[np.int64]
    product: NDArray[np.int32]
    session_id: NDArray[np.int64]
    is_warm: NDArray[np.bool_]
    is_whole: NDArray[np.bool_]
    values: Floats
    event: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns of ``values``."""
        return ROW_FLOATS + self.feature_set.names

    @property
    def features(self) -> Floats:
        """The features alone: (n, features), in the order of the set."""
        return self.values[:, len(ROW_FLOATS) :]

    def column(self, name: str) -> Floats:
        """One float column by name."""
        return self.values[:, self.column_names.index(name)]

    def __getitem__(self, row: int) -> FeatureRow:
        return FeatureRow(
            int(self.timestamp[row]),
            self.products[int(self.product[row])],
            int(self.session_id[row]),
            bool(self.is_warm[row]),
            bool(self.is_whole[row]),
            self.values[row].copy(),
            self.feature_set,
        )

    def __iter__(self) -> Iterator[FeatureRow]:
        return (self[row] for row in range(len(self)))


ROWS_PER_EVENT = layout.SESSION_GAP_NS // layout.SECOND_NS + 2
"""The most rows that one event can make, with a row per second."""

_TRADES = {
    Profile.TICKER: layout.TRADES_IGNORED,
    Profile.TICKER_AND_TRADE: layout.TRADES_GIVE_SIZES,
    Profile.TRADE: layout.TRADES_ARE_TICKS,
}


@dataclass(frozen=True, slots=True)
class DroppedEvents:
    """How many events changed nothing, by reason; ``FeatureEngine`` defines the reasons."""

    late: int
    duplicates: int
    unplaced: int
    invalid: int


class FeatureEngine:
    """The features of any number of products, each on its own clock.

    The rule for events that are out of order or repeated is the same live and in replay:

    - An event is a *duplicate* if its trade id is among the last 256 of its product and kind or, without a trade id,
      if it equals the event of that kind before it in every field. A trade with neither an id nor a sequence number is
      none: several equal trades at one time are common.
    - An event older than the newest of its product and kind is *late*. (After ten in a row that are late by more than
      300 s, or with the first one late by more than a second after a gap with the cause ``clock``, the newer time was
      wrong, and a new session begins.)
    - A trade older than the newest ticker message counts at the product's clock, where it became known.
    - A trade outside a session of ticker messages is *unplaced*; an event whose price is not finite and positive is
      *invalid*.

    Duplicate, late, unplaced and invalid events are counted and change nothing.

    Args:
        feature_set: names and windows.
        profile: which kinds of events the source has. Under ``ticker`` trades are ignored; under ``ticker+trade`` they
            provide the sizes; under ``trade`` each is a tick.
        every: a row per tick or per second.

    Raises:
        UsageError: the set has extra features, which are per second, and the rows are per tick.
    """

    def __init__(
        self,
        feature_set: FeatureSet | None = None,
        profile: Profile = Profile.TICKER,
        every: Every = Every.TICK,
    ) -> None:
        from volspike.features.kernel.step import run, step  # noqa: PLC0415  numba takes half a second to import

        self._kernel_step, self._kernel_run = step, run
        self.feature_set = feature_set or FeatureSet()
        self.profile = profile
        self.every = every
        self._windows = self.feature_set.windows
        # numba reads the length of this tuple from its type and leaves out the features that are not in the set
        self._scope = (0,) * list(Scope).index(self.feature_set.scope)
        if self.feature_set.extras and every is not Every.SECOND:
            names = ", ".join(extra.name for extra in self.feature_set.extras)
            raise UsageError(f"the extra features {names} are per second: choose --every 1s")
        self._state = self._empty_state()
        self._extra = self._empty_extra()
        self._codes: dict[str, int] = {}
        self._trades = _TRADES[profile]
        self._by_second = every is Every.SECOND
        self._rows_per_event = ROWS_PER_EVENT if self._by_second else 1
        self._values = np.empty((self._rows_per_event, len(ROW_FLOATS) + len(self.feature_set.built_in)))
        self._marks = np.empty((self._rows_per_event, layout.MARK_COLUMNS), np.int64)

    def _empty_state(self) -> EngineState:
        feature_set = self.feature_set
        keeps_hours = feature_set.scope is not Scope.CORE
        return EngineState(len(feature_set.windows), feature_set.longest_window, keeps_hours)

    def _empty_extra(self) -> ExtraState | None:
        """The state of the extra features; None if the set has none."""
        extras = self.feature_set.extras
        return ExtraState(extras, ROW_FLOATS + self.feature_set.built_in) if extras else None

    @property
    def products(self) -> tuple[str, ...]:
        """The products so far, in the order of their first event."""
        return tuple(self._state.products)

    @property
    def bytes_per_product(self) -> int:
        """Memory for the state of one product."""
        return self._state.bytes_per_product

    def dropped(self, product_id: str | None = None) -> DroppedEvents:
        """How many events of one product, or of all, were late, duplicate, unplaced or invalid."""
        used = len(self._state.products)
        clocks = self._state.clocks[:used]
        if product_id is not None:
            clocks = clocks[[self._codes[product_id]]]
        reasons = (layout.LATE, layout.DUPLICATES, layout.UNPLACED, layout.INVALID)
        return DroppedEvents(*(int(clocks[:, reason].sum()) for reason in reasons))

    def _code(self, product_id: str) -> int:
        code = self._codes.get(product_id)
        if code is None:
            code = self._codes[product_id] = self._state.add_product(product_id)
        return code

    def _leader(self) -> int:
        leader = self.feature_set.leader
        return layout.NO_LEADER if leader is None else self._codes.get(leader, layout.LEADER_NOT_MET)

    def update(self, tick: Tick) -> list[FeatureRow]:
        """The rows that this event makes: at most one per tick, or one for every second that it shows to be over."""
        code = self._code(tick.product_id)
        rows = self._kernel_step(
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
        )
        if self._extra is not None and rows:
            return list(self._rows(self._values[:rows].copy(), self._marks[:rows]))
        return [self._row(row, tick.product_id) for row in range(rows)]

    def mark_gap(self, gap: Gap) -> None:
        """Makes rows of the gap's products not ``is_whole`` until their longest window begins after its end.

        Call it before the first tick after the gap. A new session begins without gaps. After a clock step, a session
        begins also with a time before the newest, which would otherwise be late.
        """
        for product_id in gap.products:
            code = self._code(product_id)  # first, because a new product may move the arrays
            clock = self._state.clocks[code]
            # the loss lies after the last event, whatever the difference between our clock and the exchange's
            clock[layout.SILENCE_END] = max(clock[layout.SILENCE_END], gap.end, clock[layout.CLOCK])
            if gap.cause is Cause.CLOCK:
                clock[layout.OLDER_IN_A_ROW] = layout.CLOCK_SET_BACK_AFTER

    def run(self, ticks: Ticks, chunk: int = 16_384) -> Iterator[FeatureRows]:
        """The rows that these events make, in parts of at most ``chunk`` rows, computed as they are consumed.

        Values are those of ``update`` for each event in turn, bit for bit.
        """
        if chunk < self._rows_per_event:
            raise UsageError(f"a chunk must hold at least {self._rows_per_event} rows, got {chunk}")
        codes = np.array([self._code(name) for name in ticks.products], np.int64)[ticks.product]
        ticks = Ticks(ticks.products, **{name: _read_only(column) for name, column in ticks.columns()})
        capacity = chunk if self._by_second else min(chunk, max(1, len(ticks)))
        first = 0
        while first < len(ticks):
            values = np.empty((capacity, self._values.shape[1]))
            marks = np.empty((capacity, layout.MARK_COLUMNS), np.int64)
            first, rows = self._kernel_run(
                *self._state.arrays(),
                self._windows,
                self._scope,
                self._state.ring_length,
                self._trades,
                self._by_second,
                self._leader(),
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
                first,
                self._rows_per_event,
            )
            if rows:
                yield self._rows(values[:rows], marks[:rows])

    def run_all(self, stream: Iterable[Ticks], gaps: Iterable[Gap] = ()) -> Iterator[FeatureRows]:
        """``run`` over a stream of parts; each gap is marked before the first tick received at or after its end."""
        pending = deque(sorted(gaps, key=lambda gap: gap.end))
        for ticks in stream:
            done = 0
            while pending and len(ticks) and pending[0].end <= ticks.received.max():
                after = int(np.argmax(ticks.received >= pending[0].end))
                if after > done:
                    yield from self.run(ticks[done:after])
                    done = after
                self.mark_gap(pending.popleft())
            yield from self.run(ticks[done:] if done else ticks)

    def _row(self, row: int, product_id: str) -> FeatureRow:
        timestamp, session_id, flags = self._marks[row, :3].tolist()
        is_warm, is_whole = flags & layout.IS_WARM != 0, flags & layout.IS_WHOLE != 0
        values = self._values[row].copy()
        return FeatureRow(timestamp, product_id, session_id, is_warm, is_whole, values, self.feature_set)

    def _rows(self, values: NDArray[np.float64], marks: NDArray[np.int64]) -> FeatureRows:
        flags = marks[:, layout.MARK_FLAGS]
        time, products = marks[:, layout.MARK_TIME].copy(), marks[:, layout.MARK_PRODUCT]
        session_id, is_whole = marks[:, layout.MARK_SESSION].copy(), (flags & layout.IS_WHOLE) != 0
        if self._extra is not None:
            values = np.hstack([values, self._extra.compute(products, time, session_id, is_whole, values)])
        return FeatureRows(
            self.feature_set,
            self.products,
            time,
            products.astype(np.int32),
            session_id,
            (flags & layout.IS_WARM) != 0,
            is_whole,
            values,
            marks[:, layout.MARK_EVENT].copy(),
        )

    def snapshot(self) -> bytes:
        """Everything that later rows depend on; small enough to be taken often."""
        extra = b"" if self._extra is None else self._extra.dump(len(self.products))
        return dump(self._state, self.feature_set.digest, self.profile, self.every, extra)

    def between_sessions(self, product_id: str, feature_set: FeatureSet, every: Every) -> bytes:
        """A snapshot for an engine of another feature set that continues this product with its next session.

        It contains what outlives a session: newest times and messages, remembered trade ids, counts.
        """
        other = FeatureEngine(feature_set, self.profile, every)
        here, there = self._codes[product_id], other._code(product_id)
        mine, theirs = self._state, other._state
        theirs.clocks[there], theirs.latest[there] = mine.clocks[here], mine.latest[here]
        theirs.trade_ids[there] = mine.trade_ids[here]
        theirs.clocks[there, layout.IN_SESSION] = 0
        return other.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Continues where the engine that took the snapshot stopped.

        Raises:
            DataError: the bytes are not a complete snapshot.
            SchemaMismatch: it is of another feature set, profile or row rate.
        """
        self._state, stored = load(snapshot, self._empty_state(), self.feature_set.digest, self.profile, self.every)
        self._extra = self._empty_extra()
        if self._extra is not None:
            self._extra.load(stored, len(self.products))
        self._codes = {name: code for code, name in enumerate(self._state.products)}


def _read_only(column: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written to, as those of Arrow's columns: numba compiles for each mix of both kinds."""
    view = column.view()
    view.flags.writeable = False
    return view


def profile_of(kinds: set[Kind]) -> Profile:
    """The profile of a source with these kinds of events."""
    if Kind.TICKER not in kinds and kinds:
        return Profile.TRADE
    return Profile.TICKER_AND_TRADE if Kind.TRADE in kinds else Profile.TICKER


def compile_kernel() -> None:
    """Compiles both entry points for the core and the full feature set and keeps the machine code for later starts.

    Row rates and profiles share it. The deep feature set is compiled when it is first used, in about ten seconds.
    """
    tick = Tick(time=10**18, received=10**18, kind=Kind.TICKER, product_id="X", price=1.0)
    for scope in (Scope.CORE, Scope.FULL):
        for every in Every:
            FeatureEngine(FeatureSet(scope=scope), every=every).update(tick)
            list(FeatureEngine(FeatureSet(scope=scope), every=every).run(Ticks.of([tick])))
