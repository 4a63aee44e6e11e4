"""What the simulated exchange's two protocols have in common: who asked for what, and when something is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec

from volspike.feeds.simulated_words import Day, Outgoing
from volspike.market import Tick

SNAPSHOT_LEVEL = 0.01
REFUSAL = b'{"type":"error","message":"authentication failure"}'
_UNREADABLE = b'{"type":"error","message":"Malformed JSON"}'


class Speaker(Protocol):
    """One connection's side of a protocol, without a socket: what is heard and what happens in, frames out.

    ``now`` is simulated time in nanoseconds UTC and never goes back.
    """

    asked: int
    """How many subscribe messages came."""

    def hear(self, message: str | bytes, now: int) -> list[Outgoing]:
        """Answers a client's message."""

    def trade(self, trade: Tick) -> list[Outgoing]:
        """Tells a trade that happens now."""

    def quarter(self, now: int) -> list[Outgoing]:
        """What is said every 250 ms."""

    def second(self, now: int) -> list[Outgoing]:
        """What is said every second."""

    def skip(self, numbers: int) -> None:
        """Leaves out that many sequence numbers."""

    def unknown(self, now: int) -> Outgoing:
        """A message of a kind that no client knows."""

    def book(self, product: str, size: int, now: int) -> Outgoing:
        """A snapshot of a product's order book of at least ``size`` bytes."""


class Named(msgspec.Struct):
    """A channel in an Exchange subscription, with products of its own."""

    name: str
    product_ids: list[str] = []


class Request(msgspec.Struct):
    """What a client asks for, in either protocol: one ``channel``, or several ``channels``."""

    type: str
    product_ids: list[str] = []
    channel: str = ""
    channels: Annotated[list[str | Named], msgspec.Meta(max_length=64)] = []


_REQUEST = msgspec.json.Decoder(Request)


def heard(message: str | bytes) -> Request | None:
    """The request, or ``None`` for what is none."""
    try:
        request = _REQUEST.decode(message)
    except (ValueError, RecursionError):
        return None
    return request if request.type in {"subscribe", "unsubscribe"} else None


class Subscribed:
    """Which products a connection listens to in which channel, and the requests that changed it.

    A product that is not traded is left out without a word; ``X-USDC`` is ``X-USD``, as at Coinbase.
    """

    def __init__(self, channels: Sequence[str], products: Mapping[str, Day]) -> None:
        self._known = frozenset(channels)
        self._products = products
        self.channels: dict[str, list[str]] = {}

    def has(self, channel: str, product: str) -> bool:
        """Whether ``product`` is listened to in ``channel``."""
        return product in self.channels.get(channel, ())

    def change(self, is_wanted: bool, wishes: Mapping[str, Sequence[str]]) -> dict[str, list[str]] | None:
        """Adds or removes; tells what is new in each channel, or ``None`` if a channel is unknown and nothing changed.

        No products stands for all of them.
        """
        if not wishes or not self._known.issuperset(wishes):
            return None
        return {channel: self._change(is_wanted, channel, names) for channel, names in wishes.items()}

    def _change(self, is_wanted: bool, channel: str, names: Sequence[str]) -> list[str]:
        traded = self._traded(names) if names else list(self._products)
        before = self.channels.get(channel, [])
        if is_wanted:
            new = [name for name in traded if name not in before]
            if before or new:
                self.channels[channel] = before + new
            return new
        left = [name for name in before if name not in traded]
        if left:
            self.channels[channel] = left
        else:
            self.channels.pop(channel, None)
        return []

    def _traded(self, names: Sequence[str]) -> list[str]:
        told = [
            name.removesuffix("C") if name.endswith("-USDC") and name not in self._products else name for name in names
        ]
        return [name for name in dict.fromkeys(told) if name in self._products]


def unreadable() -> bytes:
    """The answer to what is no request."""
    return _UNREADABLE


def encoded(message: Any) -> bytes:
    """A message that is sent seldom, as JSON."""
    return msgspec.json.encode(message)
