"""Products that the exchange refuses: the others are requested without them, and they again from time to time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from volspike.market.product import split_product

RETRY_AFTER_S: Final = 300.0
"""Pause before a refused product is requested again."""


class RefusedSince(NamedTuple):
    """Since when (ns UTC) a product is refused, and when (s of a monotonic clock) it is requested again."""

    since: int
    retry_at: float


class Refusals:
    """The refused ones among ``products``, and the requests that a connection should therefore send.

    The reader of frames reports refusals; the task that owns the connection waits for requests and sends them.
    ``symbol`` is the venue's spelling of a symbol, by which its errors name a product.
    """

    def __init__(
        self,
        products: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        *,
        symbol: Callable[[str], str] = str,
    ) -> None:
        self._products = tuple(products)
        self._clock = clock
        self._names = {product: _named(product, symbol) for product in products}
        self._has_requests = asyncio.Event()
        self._is_rest_due = self._is_single_due = False
        self._has_tried_singly = False
        self.refused: dict[str, RefusedSince] = {}

    @property
    def accepted(self) -> tuple[str, ...]:
        """The products that are not refused; all of them if all are, because an exchange without any is of no use."""
        return tuple(product for product in self._products if product not in self.refused) or self._products

    def begin_connection(self) -> None:
        """A new connection requests all ``accepted`` products itself."""
        self._has_requests.clear()
        self._is_rest_due = self._is_single_due = self._has_tried_singly = False

    def named_in(self, text: str) -> tuple[str, ...]:
        """The products that an error message names."""
        return tuple(product for product, name in self._names.items() if name.search(text))

    def refuse(self, products: Iterable[str], received: int, *, rest_is_sent: bool = False) -> tuple[str, ...]:
        """Mark products as refused since ``received`` and return the new ones.

        The rest is requested without them, unless the exchange sends it already.
        """
        new = tuple(product for product in products if product not in self.refused)
        for product in new:
            self.refused[product] = RefusedSince(received, self._clock() + RETRY_AFTER_S)
        if new and not rest_is_sent:
            self._is_rest_due = True
            self._has_requests.set()
        return new

    def request_singly(self) -> bool:
        """Request each product by itself, once per connection: the exchange does not say which of them it refuses."""
        if self._has_tried_singly or len(self._products) == 1:
            return False
        self._has_tried_singly = self._is_single_due = True
        self._has_requests.set()
        return True

    def accept(self, product: str) -> RefusedSince:
        """A refused product has data again; returns its refusal."""
        return self.refused.pop(product)

    async def wait(self) -> None:
        """Wait until a refusal makes a request necessary."""
        await self._has_requests.wait()

    async def next_requests(self) -> list[tuple[str, ...]]:
        """Wait until something is to be requested: groups of products, each for subscribe messages of its own."""
        while True:
            groups = self._take_groups()
            if groups:
                return groups
            retry_at = min((refusal.retry_at for refusal in self.refused.values()), default=None)
            try:
                async with asyncio.timeout(None if retry_at is None else max(0.0, retry_at - self._clock())):
                    await self.wait()
            except TimeoutError:
                continue

    def _take_groups(self) -> list[tuple[str, ...]]:
        self._has_requests.clear()
        groups: list[tuple[str, ...]] = []
        if self._is_single_due:
            groups = [(product,) for product in self.accepted]
        elif self._is_rest_due and len(self.refused) < len(self._products):
            groups = [self.accepted]
        self._is_rest_due = self._is_single_due = False
        now = self._clock()
        for product, refusal in self.refused.items():
            if refusal.retry_at <= now:
                self.refused[product] = RefusedSince(refusal.since, now + RETRY_AFTER_S)
                groups.append((product,))
        return groups


def _named(product: str, symbol: Callable[[str], str]) -> re.Pattern[str]:
    """Finds a product in an error of the venue, in our spelling or the venue's, in any case."""
    ours = split_product(product)[1]
    spellings = "|".join(sorted({re.escape(ours), re.escape(symbol(ours))}))
    return re.compile(rf"(?<![\w/-])(?:{spellings})(?![\w/-])", re.IGNORECASE)
