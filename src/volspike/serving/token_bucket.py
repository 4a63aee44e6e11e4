"""Token buckets, one a client, in bounded memory: who has been away longest is forgotten first.

Pure: knows of names and of times that it is told, not of HTTP or clocks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

CLIENTS: Final = 10_000
"""How many clients are remembered, of about 200 bytes each."""


class TokenBuckets:
    """Every client begins with ``per_minute`` tokens, takes one a request, and gets ``per_minute`` back each minute.

    A client that was forgotten begins anew; that takes ``clients`` others since it was last seen.
    """

    def __init__(self, per_minute: int, clients: int = CLIENTS) -> None:
        self._most = float(per_minute)
        self._per_s = per_minute / 60.0
        self._clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → tokens, and when that was so

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, now_s: float) -> float:
        """Take a token: 0.0 where there was one, else the seconds until there is. ``now_s`` never runs backwards."""
        kept = self._buckets.get(client)
        if kept is None:
            tokens = self._most
            if len(self._buckets) >= self._clients:
                self._buckets.popitem(last=False)
        else:
            tokens = min(self._most, kept[0] + (now_s - kept[1]) * self._per_s)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_s
        self._buckets[client] = (tokens if wait_s else tokens - 1.0, now_s)
        self._buckets.move_to_end(client)
        return wait_s
