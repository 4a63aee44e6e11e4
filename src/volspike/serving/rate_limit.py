"""How often a client may ask: 429 with ``Retry-After`` for who asks more, before anything of the request is read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import ceil
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from volspike.serving.client import client_of
from volspike.serving.refusal import refuse
from volspike.serving.token_bucket import TokenBuckets


class RateLimit:
    """Pure ASGI middleware: ``per_minute`` requests a client to ``paths``, as many at once at most."""

    def __init__(
        self, app: ASGIApp, per_minute: int, paths: Collection[str], clock: Callable[[], float] = monotonic
    ) -> None:
        self.app = app
        self._per_minute = per_minute
        self._paths = paths
        self._clock = clock
        self._buckets = TokenBuckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on while its client has tokens."""
        if scope["type"] == "http" and scope["path"] in self._paths:
            wait_s = self._buckets.take(client_of(scope), self._clock())
            if wait_s > 0.0:
                seconds = ceil(wait_s)
                told = f"this client has asked more than {self._per_minute} times a minute; ask again in {seconds} s"
                await refuse(send, 429, told, (b"retry-after", str(seconds).encode()))
                return
        await self.app(scope, receive, send)
