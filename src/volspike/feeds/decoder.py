"""Entries of the inbox → events: frames are decoded, and everything lost becomes a gap, here and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, Frame
from volspike.feeds.inbox import AckDeadline, Arrival, Entry, Overflow
from volspike.feeds.protocol import FeedProtocol, SubscriptionCheck
from volspike.market import SECOND_NS, Cause, Gap, Tick

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
        if not self._pending:
            return []
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

    Every loss becomes a ``Gap`` here: what intake and inbox report, absence after a lost connection, and damage. Ticks
    of products that are not in ``products``, the names under which data may arrive, are rejected and counted.
    """

    def __init__(self, protocol: FeedProtocol, requested: Mapping[str, Set[str]], products: tuple[str, ...]) -> None:
        self._protocol = protocol
        self._decode_frame = protocol.decode
        self._requested = requested
        self._products = products
        self._names = frozenset(products)
        self._subscription = SubscriptionCheck(requested)
        self._damage = DamageGaps(products)
        self._reported: set[str] = set()
        self._last = 0
        self._absent_since = 0
        self.ticks = self.malformed = self.errors = self.connections = self.gaps = self.latency_ns = 0
        self.unrequested = 0
        self.ignored: Counter[str] = Counter()

    def decode(self, entry: Entry) -> Sequence[FeedEvent]:
        """The events of an entry; a gap comes before the frame that ends it."""
        if isinstance(entry, Arrival):
            return self._decode_arrival(entry)
        damage = self._count(self._damage.end_all(self._last))
        if isinstance(entry, Overflow):
            self._last = entry.end
            return (*damage, *self._count(entry.gaps(self._products)))
        if isinstance(entry, Gap):
            return self._count([*damage, entry])
        if isinstance(entry, AckDeadline):
            return (*damage, *self._check_acks(entry))
        return (*damage, self._follow_state(entry))

    def finish(self, now: int) -> Sequence[FeedEvent]:
        """The gaps that are still open when the session ends at ``now``."""
        damage = self._count(self._damage.end_all(now))
        return (*damage, *self._count([self._end_absence(now)])) if self._absent_since else damage

    def _decode_arrival(self, arrival: Arrival) -> Sequence[FeedEvent]:
        received, data, last = arrival.received, arrival.data, self._last
        self._last = received
        try:
            frame = self._decode_frame(data, received)
        except MalformedTick as error:
            self.malformed += 1
            self._damage.add(self._protocol.damage(data, error), last, received)
            return (*self._count(self._damage.end_with(received, ())), FeedFault(received, data, error))
        if not self._subscription.is_confirmed:
            self._subscription.update(frame)
        before: list[FeedEvent] = []
        if frame.faults:
            self.malformed += 1
            for damage in frame.faults:
                self._damage.add(damage, last, received)
            before.append(FeedFault(received, data, frame.faults[0].error))
        ticks = frame.ticks
        if ticks:
            if not all(tick.product_id in self._names for tick in ticks):
                frame = self._reject_unrequested(frame, received, before)
                ticks = frame.ticks
            if ticks:
                self.ticks += len(ticks)
                self.latency_ns = received - ticks[-1].time
        elif frame.ignored is not None:
            self.ignored[frame.ignored] += 1
        before += self._count(self._damage.end_with(received, ticks))
        event = FeedFrame(received, data, frame)
        if self._absent_since and ticks:
            return (*before, *self._count([self._end_absence(received)]), event)
        if frame.error is not None:
            return (*before, event, self._exchange_error(frame, received))
        return (*before, event) if before else (event,)

    def _reject_unrequested(self, frame: Frame, received: int, before: list[FeedEvent]) -> Frame:
        """The frame without ticks of products that were not requested; reports each such product once."""
        kept = [place for place, tick in enumerate(frame.ticks) if tick.product_id in self._names]
        self.unrequested += len(frame.ticks) - len(kept)
        others = {tick.product_id for tick in frame.ticks} - self._names - self._reported
        if others and len(self._reported) < _MOST_NAMES:
            self._reported |= others
            self.errors += 1
            products = tuple(sorted(others))
            reason = f"the exchange sends products that were not requested, which are rejected: {', '.join(products)}"
            before.append(FeedError(received=received, reason=reason, products=products))
        ticks, messages = frame.ticks, frame.messages
        return msgspec.structs.replace(
            frame,
            ticks=tuple(ticks[place] for place in kept),
            messages=tuple(messages[place] for place in kept) if messages else (),
        )

    def _exchange_error(self, frame: Frame, received: int) -> FeedError:
        self.errors += 1
        error = frame.error
        text = ": ".join(filter(None, (error.message, error.reason))) if error else ""
        return FeedError(received=received, reason=f"error message from the exchange: {text or 'no text'}")

    def _check_acks(self, deadline: AckDeadline) -> Sequence[FeedEvent]:
        missing = self._subscription.missing()
        self._subscription = SubscriptionCheck({})
        if not missing:
            return ()
        self.errors += 1
        channels = "; ".join(" ".join((channel, *products)) for channel, products in missing.items())
        products = tuple(sorted({product for products in missing.values() for product in products}))
        reason = f"requested and not confirmed by the exchange: {channels}"
        return (FeedError(received=deadline.received, reason=reason, products=products),)

    def _follow_state(self, state: FeedState) -> FeedState:
        if state.is_connected:
            self.connections += 1
            self._subscription = SubscriptionCheck(self._requested)
        elif not self._absent_since:
            self._absent_since = self._last
        return state

    def _end_absence(self, end: int) -> Gap:
        start, self._absent_since = self._absent_since, 0
        return Gap(start=start, end=max(start, end), products=self._products, cause=Cause.RECONNECT)

    def _count(self, gaps: list[Gap]) -> list[Gap]:
        self.gaps += len(gaps)
        return gaps
