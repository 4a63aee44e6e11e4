"""Alert thresholds that a user sets: form, precedence, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.models.alert_thresholds import AlertThresholds

PRODUCTS = ("BTC-USD", "binance:BTC-USDT", "binance:ETH-USDT")


def test_the_most_specific_threshold_applies() -> None:
    """A product before its venue, its venue before all; a bare name is Coinbase's."""
    thresholds = AlertThresholds.parse(["0.9", "binance:*=0.5", "Binance:btc-usdt=0.4", "coinbase:*=0.7"])
    names = ["binance:BTC-USDT", "binance:ETH-USDT", "BTC-USD", "kraken:BTC-USD"]
    assert [thresholds.find(name) for name in names] == [0.4, 0.5, 0.7, 0.9]
    assert AlertThresholds.parse(["BTC-USD=1"]).of("BTC-USD", 0.3) == 1.0
    assert AlertThresholds.parse(["BTC-USD=1"]).of("ETH-USD", 0.3) == 0.3
    assert not AlertThresholds()
    assert AlertThresholds().find("BTC-USD") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no number"),
        ("BTC-USD", "'BTC-USD' is no number"),
        ("BTC-USD=", "'' is no number"),
        ("=0.5", "no product is named"),
        ("BTC-USD=high", "'high' is no number"),
        ("BTC-USD=0", "above 0 and up to 1, got 0"),
        ("BTC-USD=-0.1", "above 0 and up to 1, got -0.1"),
        ("BTC-USD=1.0000001", "above 0 and up to 1, got 1.0000001"),
        ("BTC-USD=nan", "above 0 and up to 1, got nan"),
        ("inf", "above 0 and up to 1, got inf"),
        ("BTC USD=0.5", "no product 'BTC USD'; use BTC-USD=0.4, binance:*=0.5"),
        ("bin*:BTC=0.5", "no product 'bin*:BTC'"),
        ("binance:BTC*=0.5", "no product 'binance:BTC*'"),
        (":*=0.5", "no product ':*'"),
    ],
)
def test_a_threshold_of_another_form_is_refused(text: str, told: str) -> None:
    """The error has the option, the text, and what is accepted."""
    with pytest.raises(UsageError, match="--alert-threshold") as error:
        AlertThresholds.parse([text])
    assert told in str(error.value)


@pytest.mark.parametrize(
    "texts", [["BTC-USD=0.4", "coinbase:btc-usd=0.5"], ["0.4", "*=0.5"], ["okx:*=0.1", "OKX:*=0.1"]]
)
def test_two_thresholds_of_one_product_are_refused(texts: list[str]) -> None:
    """Which of them would apply is not for the program to guess."""
    with pytest.raises(UsageError, match="already has the threshold"):
        AlertThresholds.parse(texts)


@pytest.mark.parametrize("text", ["SOL-USD=0.4", "binance:SOL-USDT=0.4", "kraken:*=0.4"])
def test_a_product_that_the_source_does_not_send_is_refused(text: str) -> None:
    """The error lists the products and venues that are accepted."""
    with pytest.raises(UsageError) as error:
        AlertThresholds.parse(["0.5", "BTC-USD=0.3", text]).check(PRODUCTS)
    assert str(error.value) == (
        f"--alert-threshold: unknown product {text.removesuffix('=0.4')}; accepted are BTC-USD, binance:BTC-USDT, "
        "binance:ETH-USDT, coinbase:*, binance:*"
    )


def test_products_of_the_source_are_accepted() -> None:
    """By name, by venue, or all."""
    AlertThresholds.parse(["0.5", "BTC-USD=0.3", "binance:*=0.4", "coinbase:*=0.2"]).check(PRODUCTS)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text fails in another way, and thresholds lie in (0, 1]."""
    try:
        values = AlertThresholds.parse([text]).values
    except UsageError:
        return
    assert all(0.0 < value <= 1.0 for value in values.values())
