"""The side of a session that stands at the socket: stamps frames, follows their count, and never decodes."""

from __future__ import annotations

from volspike.config import FeedSettings
from volspike.feeds.feed_protocol import FeedProtocol
from volspike.feeds.inbox import Arrival, Inbox
from volspike.feeds.sequence import SequenceCheck
from volspike.feeds.subscription import names_of
from volspike.feeds.watch import SilenceWatch, Span
from volspike.market import SECOND_NS, Cause, Gap


class Intake:
    """Puts what one connection after another brings into the inbox, each gap before the frame that shows it.

    Instants are ns UTC of the wall clock, which is what gaps are told in; a step of that clock can make a silence
    longer or shorter than it was, but hides no frame.
    """

    def __init__(self, settings: FeedSettings, protocol: FeedProtocol, inbox: Inbox) -> None:
        self._sequence_of = protocol.sequence
        self._products = names_of(settings.products)
        self._silence_ns = round(settings.heartbeat_timeout_s * SECOND_NS)
        self._idle_ns = round(settings.idle_timeout_s * SECOND_NS)
        self._inbox = inbox
        self._earlier_repeated = 0
        self.frames = self.bytes = self.lost = self.last_received = 0
        self._check = SequenceCheck()
        self._watch = SilenceWatch(self._silence_ns, self._idle_ns, 0)

    @property
    def repeated(self) -> int:
        """Numbers that came twice or late, over all connections."""
        return self._earlier_repeated + self._check.repeated

    def begin(self, now: int) -> None:
        """A connection is made: its count begins anew, and so does listening for silence."""
        self._earlier_repeated += self._check.repeated
        self._check = SequenceCheck()
        self._watch = SilenceWatch(self._silence_ns, self._idle_ns, now)

    def arrive(self, received: int, data: bytes) -> None:
        """A frame came; takes some microseconds whatever it holds."""
        silence = self._watch.hear(received)
        if silence is not None:
            self._tell_silence(silence)
        number = self._sequence_of(data)
        if number >= 0:
            missing = self._check.missing(number)
            if missing:
                self._tell_missing(missing, received)
        self.frames += 1
        self.bytes += len(data)
        self.last_received = received
        self._inbox.put(Arrival(received, data))

    def look(self, now: int) -> bool:
        """Tell a silence that has become long enough; whether the connection is to be given up."""
        silence = self._watch.look(now)
        if silence is not None:
            self._tell_silence(silence)
        return self._watch.is_idle(now)

    def _tell_silence(self, span: Span) -> None:
        start, end = span
        self._inbox.note(Gap(start=start, end=end, products=self._products, cause=Cause.SILENCE))

    def _tell_missing(self, missing: range, received: int) -> None:
        self.lost += len(missing)
        gap = Gap(
            start=self.last_received,
            end=received,
            products=self._products,
            cause=Cause.SEQUENCE,
            lost=len(missing),
            detail=f"messages {missing[0]} to {missing[-1]}",
        )
        self._inbox.note(gap)
