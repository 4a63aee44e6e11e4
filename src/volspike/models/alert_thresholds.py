"""Alert thresholds that a user sets, for a product, the products of a venue, or all.

Such a threshold replaces the model's own and the one that holds a budget of alarm minutes (``models.alert_level``). The
alert-episode rule stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from volspike.errors import UsageError
from volspike.market.product import canonical_product, split_product

ALL: Final = "*"
OPTION: Final = "--alert-threshold"
_FORM: Final = "use BTC-USD=0.4, binance:*=0.5 for the products of a venue, or 0.5 for all"


@dataclass(frozen=True, slots=True)
class AlertThresholds:
    """Thresholds above 0 and up to 1, by canonical product, by ``venue:*``, and by ``*`` for all products.

    The most specific applies.
    """

    values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """The thresholds of texts such as ``BTC-USD=0.4``, ``binance:*=0.5`` and ``0.5``.

        >>> AlertThresholds.parse(["btc-usd=0.4", "Binance:*=0.5", "0.6"]).values
        {'BTC-USD': 0.4, 'binance:*': 0.5, '*': 0.6}

        Raises:
            UsageError: a text of another form, a threshold outside (0, 1], or two for the same product.
        """
        values: dict[str, float] = {}
        for text in texts:
            stated, separator, number = text.strip().rpartition("=")
            if separator and not stated.strip():
                raise UsageError(f"{OPTION} {text!r}: no product is named; {_FORM}")
            product = _pattern(text, stated.strip() or ALL)
            if product in values:
                raise UsageError(f"{OPTION} {text!r}: {_named(product)} already has the threshold {values[product]:g}")
            values[product] = _threshold(text, number)
        return cls(values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __str__(self) -> str:
        return ", ".join(f"{_named(product)} {value:g}" for product, value in self.values.items())

    def find(self, product: str) -> float | None:
        """The threshold of a product; None if none is set for it."""
        if not self.values:
            return None
        venue = f"{split_product(product)[0]}:{ALL}"
        return self.values.get(product, self.values.get(venue, self.values.get(ALL)))

    def of(self, product: str, default: float) -> float:
        """The threshold of a product, ``default`` if none is set for it."""
        found = self.find(product)
        return default if found is None else found

    def unused(self, products: Collection[str]) -> list[str]:
        """The products and venues with a threshold that match none of ``products``."""
        known = {*products, *(f"{split_product(product)[0]}:{ALL}" for product in products), ALL}
        return [product for product in self.values if product not in known]

    def check(self, products: Collection[str]) -> None:
        """Refuse a threshold for a product or venue that is not among ``products``.

        Raises:
            UsageError: there is one; the error lists the accepted products and venues.
        """
        unused = self.unused(products)
        if unused:
            venues = dict.fromkeys(f"{split_product(product)[0]}:{ALL}" for product in products)
            raise UsageError(
                f"{OPTION}: unknown product {', '.join(unused)}; accepted are {', '.join((*products, *venues))}"
            )


def _pattern(text: str, stated: str) -> str:
    """The canonical form of a product, of ``venue:*``, or ``*``."""
    if stated == ALL:
        return ALL
    venue, separator, symbol = stated.rpartition(":")
    try:
        if separator and symbol == ALL:
            return f"{split_product(canonical_product(f'{venue}:X'))[0]}:{ALL}"
        return canonical_product(stated)
    except UsageError as error:
        raise UsageError(f"{OPTION} {text!r}: no product {stated!r}; {_FORM}") from error


def _named(product: str) -> str:
    return "every product" if product == ALL else product


def _threshold(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        raise UsageError(f"{OPTION} {text!r}: {number.strip()!r} is no number; {_FORM}") from None
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise UsageError(f"{OPTION} {text!r}: a threshold is a probability above 0 and up to 1, got {number.strip()}")
    return value
