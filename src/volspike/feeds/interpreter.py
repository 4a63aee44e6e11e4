"""The side of a session that faces its user: decodes what the inbox holds and tells what it means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

from volspike.errors import MalformedTick
from volspike.feeds.feed_protocol import FeedProtocol
from volspike.feeds.frame import Frame
from volspike.feeds.inbox import AckDue, Arrival, Entry, Overflow
from volspike.feeds.session_events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState
from volspike.feeds.subscription import Subscription
from volspike.market import Cause, Gap


class Interpreter:
    """Entries of the inbox in order → events in order.

    Keeps what stretches over frames: what was granted, and since when a lost connection has told nothing.
    """

    def __init__(self, protocol: FeedProtocol, asked: Mapping[str, Set[str]], products: tuple[str, ...]) -> None:
        self._decode = protocol.decode
        self._asked = asked
        self._products = products
        self._subscription = Subscription(asked)
        self._last = 0
        self._absent_since = 0
        self.ticks = self.malformed = self.errors = self.connections = self.gaps = self.latency_ns = 0
        self.ignored: Counter[str] = Counter()

    def read(self, entry: Entry) -> Sequence[FeedEvent]:
        """What an entry tells; a gap stands before the frame that ends it."""
        if isinstance(entry, Arrival):
            return self._arrival(entry)
        if isinstance(entry, Overflow):
            self._last = entry.end
            return self._counted(entry.gaps(self._products))
        if isinstance(entry, Gap):
            return self._counted([entry])
        if isinstance(entry, AckDue):
            return self._ack_due(entry)
        return (self._state(entry),)

    def end(self, now: int) -> Sequence[FeedEvent]:
        """What is still to be told when nothing more comes: an absence that goes on."""
        return self._counted([self._absence(now)]) if self._absent_since else ()

    def _arrival(self, arrival: Arrival) -> Sequence[FeedEvent]:
        received, data = arrival.received, arrival.data
        self._last = received
        try:
            frame = self._decode(data, received)
        except MalformedTick as error:
            self.malformed += 1
            return (FeedFault(received, data, error),)
        if frame.ticks:
            self.ticks += len(frame.ticks)
            self.latency_ns = received - frame.ticks[-1].time
        elif frame.ignored is not None:
            self.ignored[frame.ignored] += 1
        if not self._subscription.is_granted:
            self._subscription.see(frame)
        event = FeedFrame(received, data, frame)
        if self._absent_since and frame.ticks:
            return (*self._counted([self._absence(received)]), event)
        return (event,) if frame.error is None else (event, self._refusal(frame, received))

    def _refusal(self, frame: Frame, received: int) -> FeedError:
        self.errors += 1
        error = frame.error
        told = ": ".join(filter(None, (error.message, error.reason))) if error else ""
        return FeedError(received=received, reason=f"the exchange answers: {told or 'error'}")

    def _ack_due(self, due: AckDue) -> Sequence[FeedEvent]:
        missing = self._subscription.missing()
        self._subscription = Subscription({})
        if not missing:
            return ()
        self.errors += 1
        told = "; ".join(" ".join((channel, *products)) for channel, products in missing.items())
        products = tuple(sorted({product for products in missing.values() for product in products}))
        return (FeedError(received=due.received, reason=f"asked and not acknowledged: {told}", products=products),)

    def _state(self, state: FeedState) -> FeedState:
        if state.is_connected:
            self.connections += 1
            self._subscription = Subscription(self._asked)
        elif not self._absent_since:
            self._absent_since = self._last
        return state

    def _absence(self, end: int) -> Gap:
        start, self._absent_since = self._absent_since, 0
        return Gap(start=start, end=max(start, end), products=self._products, cause=Cause.RECONNECT)

    def _counted(self, gaps: list[Gap]) -> list[Gap]:
        self.gaps += len(gaps)
        return gaps
