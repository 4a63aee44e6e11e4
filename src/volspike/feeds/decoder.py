"""Entries of the inbox → events: frames are decoded, and everything lost becomes a gap, here and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, Frame
from volspike.feeds.inbox import (
    AckDeadline,
    Arrival,
    ChangeoverNote,
    ChangeoverStage,
    ClockStep,
    Entry,
    Notice,
    Overflow,
)
from volspike.feeds.protocol import FeedProtocol, SubscriptionCheck, TradeIds
from volspike.feeds.refusals import Refusals
from volspike.feeds.trade_ids import Changeover, LostTrades, TradeLossCheck
from volspike.market import SECOND_NS, Cause, Gap, Tick
from volspike.market.clock import TimeCheck

LONGEST_FAULT_NS: Final = SECOND_NS
"""How long damaged frames in a row are collected in one gap."""

_DETAIL_CHARACTERS = 200
_MOST_NAMES = 64


class DamageGaps:
    """Gaps of damaged frames. Damage of the same products in a row is one gap, which ends with their next tick.

    So a product whose every frame is damaged makes a gap per second and not one per frame.
    """

    def __init__(self, products: tuple[str, ...]) -> None:
        self._products = products
        self._pending: dict[tuple[str, ...], _Loss] = {}
        self._since = 0

    @property
    def is_pending(self) -> bool:
        """Whether there is damage without a gap so far."""
        return bool(self._pending)

    def add(self, damage: Damage, last: int, received: int) -> None:
        """Add the damage of a frame received at ``received``; ``last`` is when the frame before it was (0: none)."""
        known = tuple(product for product in damage.products if product in self._products)
        products = known if known and len(known) == len(damage.products) else self._products
        loss = self._pending.get(products)
        if loss is None:
            if not self._pending:
                self._since = received
            start = min(last, received) if last else received
            loss = self._pending[products] = _Loss(start=start, detail=str(damage.error)[:_DETAIL_CHARACTERS])
        loss.count += 1
        loss.lost = -1 if damage.lost < 0 or loss.lost < 0 else loss.lost + damage.lost

    def end_with(self, received: int, ticks: Iterable[Tick]) -> list[Gap]:
        """The gaps that end with a frame received at ``received`` with ``ticks``; they come before the frame."""
        lacking = {product for products in self._pending for product in products}
        is_due = received - self._since >= LONGEST_FAULT_NS or any(tick.product_id in lacking for tick in ticks)
        return self.end_all(received) if is_due else []

    def end_all(self, end: int) -> list[Gap]:
        """All gaps, ended at ``end``."""
        gaps = [
            Gap(
                start=loss.start,
                end=max(loss.start, end),
                products=products,
                cause=Cause.MALFORMED,
                lost=loss.lost,
                detail=loss.detail if loss.count == 1 else f"{loss.count} faults, the first: {loss.detail}",
            )
            for products, loss in self._pending.items()
        ]
        self._pending.clear()
        return gaps


class _Loss(msgspec.Struct):
    start: int
    detail: str
    count: int = 0
    lost: int = 0


class EventDecoder:
    """Turns entries of the inbox, in order, into events.

    Every loss becomes a ``Gap`` here: what intake and inbox report, absence after a lost connection, damage, impossible
    times, clock steps and missing trade ids. Ticks of products that are not in ``products``, the names under which data
    may arrive, are rejected and counted. ``feed`` is the name of the protocol in events. ``on_closing`` is called when
    the exchange announces that it will close the connection.
    """

    def __init__(
        self,
        protocol: FeedProtocol,
        requested: Mapping[str, Set[str]],
        products: tuple[str, ...],
        refusals: Refusals | None = None,
        feed: str = "",
        on_closing: Callable[[], None] | None = None,
    ) -> None:
        self._on_closing = on_closing
        is_consecutive = protocol.trade_ids is TradeIds.CONSECUTIVE
        self._ids = TradeLossCheck(products) if is_consecutive else None
        self._changeover = Changeover(consecutive=is_consecutive)
        self._is_changing = False
        self._numbered: Set[str] = frozenset()
        """Products of the first frame after a reconnection whose trades are compared with those before it."""
        self._unsettled: set[str] = set()
        """Products without a trade since the last reconnection, whose ids will show how many were lost."""
        self._is_verifiable = protocol.verifiable
        self._unverified_since = 0
        self._feed = feed
        self._refusals = Refusals(()) if refusals is None else refusals
        self._data_name = protocol.data_name
        self._codec = protocol.codec(products)
        self._decode_frame = self._codec.decode
        self._requested = requested
        self._products = products
        self._names = frozenset(products)
        self._subscription = SubscriptionCheck(requested, protocol.data_name)
        self._damage = DamageGaps(products)
        self._times = TimeCheck()
        self._reported: set[str] = set()
        self._is_tried_singly = False
        self._last = 0
        self._absent_since = 0
        self.ticks = self.malformed = self.errors = self.connections = self.gaps = self.latency_ns = 0
        self.unrequested = 0
        self.last_data = 0
        """When the last tick was received, ns UTC."""
        self.ignored: Counter[str] = Counter()

    @property
    def repeated(self) -> int:
        """Trades whose id came twice or late."""
        return 0 if self._ids is None else self._ids.repeated

    def decode(self, entry: Entry) -> Sequence[FeedEvent]:
        """The events of an entry; a gap comes before the frame that ends it."""
        if isinstance(entry, Arrival):
            return self._decode_arrival(entry)
        damage = self._count(self._damage.end_all(self._last))
        return [*damage, *self._follow(entry)]

    def _follow(self, entry: Overflow | Notice) -> Sequence[FeedEvent]:
        match entry:
            case Overflow():
                self._last = entry.end
                return self._count(entry.gaps(self._products))
            case Gap():
                return self._count([entry])
            case ClockStep():
                return self._take_our_step(entry)
            case AckDeadline():
                return self._check_acks(entry)
            case ChangeoverNote():
                self._follow_changeover(entry)
                return ()
            case FeedState():
                return self._follow_state(entry)

    def finish(self, now: int) -> Sequence[FeedEvent]:
        """The gaps that are still open when the session ends at ``now``."""
        ended: list[FeedEvent] = [*self._count(self._damage.end_all(now))]
        if self._absent_since:
            ended += self._count(self._end_absence(now, ()))
        return [*ended, *self._end_unverified(now)]

    def _decode_arrival(self, arrival: Arrival) -> Sequence[FeedEvent]:
        received, data, last = arrival.received, arrival.data, self._last
        self._last = received
        try:
            frame = self._decode_frame(data, received)
        except MalformedTick as error:
            self.malformed += 1
            self._damage.add(self._codec.damage(data, error), last, received)
            return (*self._count(self._damage.end_with(received, ())), FeedFault(received, data, error))
        if not self._subscription.is_confirmed:
            self._subscription.update(frame)
        before: list[FeedEvent] = []
        if frame.faults:
            self._take_faults(arrival, frame, last, before)
        if self._is_changing:
            frame = self._join(frame, received, before)
        losses: Sequence[LostTrades] = () if self._ids is None else self._compare_ids(self._ids, frame, received)
        names, times = self._names, self._times
        for place, tick in enumerate(frame.ticks):
            reason = times.fault(tick.product_id, tick.time, received) if tick.product_id in names else ""
            if reason or times.step_ns or tick.product_id not in names:
                frame = self._check_ticks(arrival, frame, last, before, place, reason)
                break
        ticks = frame.ticks
        if ticks:
            self.ticks += len(ticks)
            self.last_data = received
            self.latency_ns = received - ticks[-1].time
            if self._refusals.refused:
                before += self._end_refusals({tick.product_id for tick in ticks}, received)
        else:
            self._take_message(frame)
        if self._damage.is_pending:
            before += self._count(self._damage.end_with(received, ticks))
        event = FeedFrame(received, data, frame, self._feed)
        if losses or (ticks and (self._absent_since or self._unsettled)):
            before += self._count(self._missing(received, ticks, losses))
        if frame.error is not None:
            return (*before, event, self._exchange_error(frame, received))
        return (*before, event) if before else (event,)

    def _take_faults(self, arrival: Arrival, frame: Frame, last: int, before: list[FeedEvent]) -> None:
        self.malformed += 1
        for damage in frame.faults:
            self._damage.add(damage, last, arrival.received)
        before.append(FeedFault(arrival.received, arrival.data, frame.faults[0].error))

    def _take_message(self, frame: Frame) -> None:
        """A frame without ticks."""
        if frame.ignored is not None:
            self.ignored[frame.ignored] += 1
        if frame.is_closing and self._on_closing is not None:
            self._on_closing()

    def _check_ticks(
        self, arrival: Arrival, frame: Frame, last: int, before: list[FeedEvent], first: int, first_reason: str
    ) -> Frame:
        """The frame without ticks that were not requested or have impossible times; ``before`` gets what that means.

        The ticks before ``first`` are valid, and the check of that one returned ``first_reason``.
        """
        received, ticks, times = arrival.received, frame.ticks, self._times
        kept, others, fault = list(range(first)), [], ""
        for place, tick in enumerate(ticks[first:], first):
            product = tick.product_id
            if product not in self._names:
                others.append(product)
                continue
            reason = first_reason if place == first else times.fault(product, tick.time, received)
            if times.step_ns:
                before += self._end_clock_step(last, received)
            if reason:
                fault = fault or reason
                self._damage.add(Damage(MalformedTick(reason, "$.time"), (product,), 1), last, received)
            else:
                kept.append(place)
        if len(kept) == len(ticks):
            return frame
        if others:
            self.unrequested += len(others)
            before += self._report_unrequested(set(others), received)
        if fault:
            self.malformed += not frame.faults
            before.append(FeedFault(received, arrival.data, MalformedTick(fault, "$.time")))
        return _keep_ticks(frame, kept)

    def _report_unrequested(self, products: set[str], received: int) -> list[FeedEvent]:
        """An error that names products which were not requested, each of them once."""
        new = products - self._reported
        if not new or len(self._reported) >= _MOST_NAMES:
            return []
        self._reported |= new
        self.errors += 1
        names = tuple(sorted(new))
        reason = f"the exchange sends products that were not requested, which are rejected: {', '.join(names)}"
        return [FeedError(received=received, reason=reason, products=names)]

    def _end_clock_step(self, last: int, received: int) -> list[Gap]:
        """The gap of the exchange's clock step that the times of ticks have shown."""
        damage = self._damage.end_all(received)
        start = min([gap.start for gap in damage], default=min(last or received, received))
        product = self._times.stepped_product
        products = (product,) if product else self._products
        detail = f"the exchange's times have changed by {self._times.step_ns / SECOND_NS:+.3f} s against our clock"
        step = Gap(start=start, end=received, products=products, cause=Cause.CLOCK, lost=0, detail=detail)
        return self._count([*damage, step])

    def _take_our_step(self, step: ClockStep) -> list[Gap]:
        self._times.set_our_clock(step.by)
        detail = f"our clock was set by {step.by / SECOND_NS:+.3f} s"
        return self._count(
            [Gap(start=step.start, end=step.end, products=self._products, cause=Cause.CLOCK, lost=0, detail=detail)]
        )

    def _exchange_error(self, frame: Frame, received: int) -> FeedError:
        error = frame.error
        text = ": ".join(filter(None, (error.message, error.reason))) if error else ""
        return self._refuse(f"error message from the exchange: {text or 'no text'}", received)

    def _refuse(self, reason: str, received: int) -> FeedError:
        """The error for ``reason``; products that it names are refused, and the others requested without them."""
        self.errors += 1
        names = self._refusals.named_in(reason)
        new = self._refusals.refuse(names, received)
        if new:
            self._subscription.leave_out(set(new))
            reason += "; the other products are requested without"
        elif not names and not self._subscription.is_confirmed and self._refusals.request_singly():
            self._is_tried_singly = True
            reason += "; each product is requested by itself"
        return FeedError(received=received, reason=reason, products=names)

    def _end_refusals(self, products: set[str], received: int) -> list[Gap]:
        """The gaps of refused products that have data again."""
        names = [name for name in self._refusals.refused if name in products or self._data_name(name) in products]
        gaps = []
        for name in names:
            since = min(self._refusals.accept(name).since, received)
            detail = "the exchange refused the product"
            products_of_gap = tuple(dict.fromkeys((self._data_name(name), name)))
            gap = Gap(start=since, end=received, products=products_of_gap, cause=Cause.RECONNECT, detail=detail)
            gaps.append(gap)
        return self._count(gaps)

    def _check_acks(self, deadline: AckDeadline) -> Sequence[FeedEvent]:
        if self._is_tried_singly:  # the deadline of those requests comes later
            self._is_tried_singly = False
            return ()
        missing = self._subscription.missing()
        self._subscription = SubscriptionCheck({})
        if not missing:
            return ()
        self.errors += 1
        channels = "; ".join(" ".join((channel, *products)) for channel, products in missing.items())
        products = tuple(sorted({product for products in missing.values() for product in products}))
        if set(missing.get("ticker", ())) < set(self._requested.get("ticker", ())) - self._refusals.refused.keys():
            self._refusals.refuse(missing.get("ticker", ()), deadline.received, rest_is_sent=True)
        reason = f"requested and not confirmed by the exchange: {channels}"
        return (FeedError(received=deadline.received, reason=reason, products=products),)

    def _follow_state(self, state: FeedState) -> Sequence[FeedEvent]:
        if state.is_connected:
            self.connections += 1
            self._subscription = SubscriptionCheck(self._requested, self._data_name)
            self._subscription.leave_out(set(self._refusals.refused))
            self._is_tried_singly = False
            self._times.begin_connection()
            if not self._is_verifiable and not self._unverified_since:
                self._unverified_since = state.received
                return (state, self._unverified(state.received, state.received))
        elif not self._absent_since:
            self._absent_since = self._last
        if not state.is_connected and self._refusals.named_in(state.reason):
            return (state, self._refuse(state.reason, state.received), *self._end_unverified(state.received))
        return (state,) if state.is_connected else (state, *self._end_unverified(state.received))

    def _end_absence(self, end: int, losses: Sequence[LostTrades]) -> list[Gap]:
        """The gaps of a reconnection that ends at ``end``.

        The trade ids of the first frame show how many trades of its products were lost.
        """
        start, self._absent_since = min(self._absent_since, end), 0
        lost = dict.fromkeys(self._numbered, 0) | {loss.product_id: loss.lost for loss in reversed(losses)}
        detail = {loss.product_id: loss.detail for loss in reversed(losses)}
        gaps = [
            Gap(
                start=start,
                end=end,
                products=(product,),
                cause=Cause.RECONNECT,
                lost=count,
                detail=detail.get(product, ""),
            )
            for product, count in sorted(lost.items())
        ]
        self._numbered = frozenset()
        others = tuple(product for product in self._products if product not in lost)
        if self._ids is not None:
            self._unsettled = set(others)
        if others:
            gaps.append(Gap(start=start, end=end, products=others, cause=Cause.RECONNECT))
        return gaps

    def _compare_ids(self, ids: TradeLossCheck, frame: Frame, received: int) -> Sequence[LostTrades]:
        """The losses that the trade ids of a frame show."""
        if self._absent_since:
            self._numbered = {
                tick.product_id for tick in frame.ticks if tick.trade_id >= 0 and ids.highest(tick.product_id) >= 0
            }
        return ids.add(frame.ticks, received, frame.first_ids)

    def _missing(self, received: int, ticks: Sequence[Tick], losses: Sequence[LostTrades]) -> list[Gap]:
        """The gaps that a frame ends: of a reconnection, or of missing trade ids."""
        if self._absent_since and ticks:
            return self._end_absence(received, losses)
        gaps = [self._gap_of(loss, received) for loss in losses]
        self._unsettled.difference_update(tick.product_id for tick in ticks if tick.trade_id >= 0)
        return gaps

    def _gap_of(self, loss: LostTrades, received: int) -> Gap:
        is_late = loss.product_id in self._unsettled
        self._unsettled.discard(loss.product_id)
        return Gap(
            start=min(loss.since, received),
            end=received,
            products=(loss.product_id,),
            cause=Cause.RECONNECT if is_late else Cause.SEQUENCE,
            lost=loss.lost,
            detail=loss.detail,
        )

    def _follow_changeover(self, note: ChangeoverNote) -> None:
        changeover = self._changeover
        match note.stage:
            case ChangeoverStage.OPENED:
                changeover.begin(note.received)
            case ChangeoverStage.FAILED:
                changeover.cancel()
            case ChangeoverStage.SWITCHED:
                changeover.switch(note.received)
        self._is_changing = changeover.is_tracking or changeover.is_filtering

    def _join(self, frame: Frame, received: int, before: list[FeedEvent]) -> Frame:
        """During a changeover: the frame without what the old connection has delivered."""
        changeover = self._changeover
        if not changeover.is_filtering:
            changeover.track(frame.ticks)
            return frame
        if changeover.is_over(received):
            self._is_changing = False
            return frame
        has_updates = frame.sequence < 0
        kept = [place for place, tick in enumerate(frame.ticks) if changeover.is_new(tick, has_updates=has_updates)]
        if has_updates:  # numbered messages are complete on each connection, and both were open together
            for place in kept:
                if changeover.lacks_overlap(frame.ticks[place]):
                    before += self._count([self._unjoined(frame.ticks[place].product_id, received)])
        return frame if len(kept) == len(frame.ticks) else _keep_ticks(frame, kept)

    def _unjoined(self, product: str, received: int) -> Gap:
        return Gap(
            start=min(self._changeover.began, received),
            end=received,
            products=(product,),
            cause=Cause.RECONNECT,
            detail="the old and the new connection have no trade in common",
        )

    def _end_unverified(self, end: int) -> list[Gap]:
        """The entry over a connection of a feed on which no loss can be noticed, when it ends."""
        start, self._unverified_since = self._unverified_since, 0
        return [self._unverified(start, max(start, end))] if start else []

    def _unverified(self, start: int, end: int) -> Gap:
        return Gap(
            start=start,
            end=end,
            products=self._products,
            cause=Cause.UNVERIFIABLE,
            detail=f"no loss can be noticed on the feed {self._feed}",
            verifiable=False,
        )

    def _count(self, gaps: list[Gap]) -> list[Gap]:
        self.gaps += len(gaps)
        return gaps


def _keep_ticks(frame: Frame, places: Sequence[int]) -> Frame:
    """The frame with only these of its ticks and of the exchange's messages for them."""
    ticks, messages, first_ids = frame.ticks, frame.messages, frame.first_ids
    return msgspec.structs.replace(
        frame,
        ticks=tuple(ticks[place] for place in places),
        messages=tuple(messages[place] for place in places) if messages else (),
        first_ids=tuple(first_ids[place] for place in places) if first_ids else (),
    )
