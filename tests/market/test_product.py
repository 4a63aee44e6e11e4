"""Names of products."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.market.product import KNOWN_VENUES, canonical_product, hyphenated, product_name, split_product

symbols = st.from_regex(r"[A-Z0-9]{1,6}-[A-Z]{3,4}(-[A-Z0-9]{4,6})?", fullmatch=True)
venues = st.sampled_from(sorted(KNOWN_VENUES))


@given(venues, symbols)
def test_a_name_is_venue_and_symbol(venue: str, symbol: str) -> None:
    """Both are found again in the canonical name, however a user writes it; Coinbase is left out."""
    name = product_name(venue, symbol)
    assert split_product(name) == (venue, symbol)
    assert canonical_product(f" {venue.title()}:{symbol.lower()} ") == canonical_product(name) == name
    assert (":" in name) == (venue != "coinbase")


@pytest.mark.parametrize(
    "name", ["", "binance:", ":BTC-USD", "a:b:C-D", "BTC USD", "binance:BTC/../USD:", "1x:BTC-USD"]
)
def test_a_malformed_name_is_refused(name: str) -> None:
    """The error shows how products are named."""
    with pytest.raises(UsageError, match="products are named as BTC-USD or binance:BTC-USDT"):
        canonical_product(name)


@pytest.mark.parametrize(
    ("symbol", "product"),
    [
        ("BTCUSDT", "BTC-USDT"),
        ("ETHBTC", "ETH-BTC"),
        ("BTC-USD-PERP", "BTC-USD-PERP"),
        ("USDT", "USDT"),
        ("XYZ", "XYZ"),
    ],
)
def test_a_hyphen_comes_before_the_quote_currency(symbol: str, product: str) -> None:
    """A symbol with a hyphen, or without a known quote currency, stays as it is."""
    assert hyphenated(symbol) == product
