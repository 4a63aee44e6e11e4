"""What the pages need of a live pipeline, whatever is behind it: how things are now, and what happens from now on.

Events are pairs of a name and one JSON object on one line (UTF-8). Numbers that are not known are null, times are
milliseconds since the epoch, UTC.

- ``tick``: one product's newest row: price, spread, probability, threshold, features; at most 4 a second
- ``alert``: an episode opened or closed
- ``spike``: a minute later, that the market really moved
- ``health``: connection, latency, losses, recording; once a second
- ``performance``: precision, recall and others from delayed labels; every 10 s
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol


class Subscription(Protocol):
    """One reader's events, oldest first, until ``close``. A slow reader loses the oldest, never memory."""

    @property
    def lost(self) -> int:
        """How many events this reader was too slow for."""
        ...

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        """The events, each with its name; ends after ``close``."""
        ...

    def close(self) -> None:
        """No further events; may be called twice."""
        ...


class LiveSource(Protocol):
    """A live pipeline as its watchers see it."""

    def snapshot(self, product: str | None) -> dict[str, Any]:
        """Everything that a page needs to draw ``product`` at once; the first product for None.

        Holds ``source, simulated, products, product, model, points, alerts, spikes, health, performance``.

        Raises:
            UsageError: there is no such product.
        """
        ...

    def subscribe(self) -> Subscription:
        """What happens from now on, in every product."""
        ...
