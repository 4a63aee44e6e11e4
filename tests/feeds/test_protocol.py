"""Sequence numbers of frames, and the confirmation of subscriptions."""

from __future__ import annotations

import pytest

from volspike.feeds.events import Frame, Heartbeat, Subscriptions
from volspike.feeds.protocol import SubscriptionCheck
from volspike.feeds.venues.coinbase_advanced_trade import PROTOCOL, advanced_trade_sequence
from volspike.market import Kind, Tick


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        (b'{"channel":"ticker","timestamp":"t","sequence_num":16,"events":[]}', 16),
        (b'{"channel": "ticker", "sequence_num": "0", "events": []}', 0),
        (b'{"channel":"ticker","sequence_num":7,"events":[{"type":"upd', 7),
        (b'{"channel":"l2_data","pad":"' + b"x" * 207 + b'","sequence_num":123456,"events":[]}', 123456),
        (b'{"channel":"l2_data","events":"' + b"x" * 999 + b'","sequence_num":5}', 5),
        (b'{"type":"error","message":"say \\"sequence_num\\":9,"}', -1),
        (b'{"type":"error","message":"authentication failure"}', -1),
        (b'{"channel":"ticker","sequence_num":-4}', -1),
        (b'{"chan', -1),
        (b"\xff\xfe", -1),
        (b"[" * 100_000, -1),
        (b"", -1),
    ],
)
def test_sequence_number_of_a_frame(frame: bytes, number: int) -> None:
    """The number is found at the start, across its edge and after the body; it is -1 if there is none."""
    assert advanced_trade_sequence(frame) == number


def acked(**channels: tuple[str, ...]) -> Frame:
    return Frame(time=0, ack=Subscriptions(channels=channels))


def subscription() -> SubscriptionCheck:
    both = {"BTC-USD", "ETH-USD"}
    return SubscriptionCheck({"ticker": both, "market_trades": both, "heartbeats": set()})


def test_product_left_out_of_the_confirmation_is_missing() -> None:
    """A product left out of one channel is missing there; a channel without products is missing by its name."""
    check = subscription()
    check.update(acked(ticker=("BTC-USD", "ETH-USD"), market_trades=("ETH-USD",)))
    assert check.missing() == {"market_trades": ("BTC-USD",), "heartbeats": ()}


def test_confirmations_add_up() -> None:
    """One confirmation per channel, in any order and with more than was requested, confirms all."""
    check = subscription()
    check.update(acked(heartbeats=("heartbeats",), candles=("BTC-USD",)))
    check.update(acked(ticker=("SOL-USD", "ETH-USD", "BTC-USD")))
    assert not check.is_confirmed
    check.update(acked(market_trades=("BTC-USD", "ETH-USD")))
    assert check.is_confirmed


def test_data_confirms_after_an_empty_confirmation() -> None:
    """After an empty confirmation, a tick confirms its product and channel, and a heartbeat its channel."""
    check = SubscriptionCheck({"ticker": {"BTC-USD"}, "heartbeats": set()})
    check.update(acked())
    assert check.missing() == {"ticker": ("BTC-USD",), "heartbeats": ()}
    tick = Tick(time=0, received=0, kind=Kind.TICKER, product_id="BTC-USD", price=1.0)
    check.update(Frame(time=0, ticks=(tick,)))
    check.update(Frame(time=0, heartbeats=(Heartbeat(time=0, counter=1),)))
    assert check.is_confirmed


def test_heartbeat_confirms_its_product() -> None:
    """Heartbeats of Exchange name their product and confirm it."""
    check = SubscriptionCheck({"heartbeat": {"BTC-USD", "ETH-USD"}})
    check.update(Frame(time=0, heartbeats=(Heartbeat(time=0, product_id="BTC-USD"),)))
    assert check.missing() == {"heartbeat": ("ETH-USD",)}


def test_alias_confirms_its_product() -> None:
    """BTC-USDC is confirmed as BTC-USD, and its data may have both names; ETH-BTC has no other name."""
    check = SubscriptionCheck({"ticker": {"BTC-USDC"}}, PROTOCOL.data_name)
    check.update(acked(ticker=("BTC-USD",)))
    assert check.is_confirmed
    assert PROTOCOL.data_names(["BTC-USDC", "ETH-BTC", "BTC-USD"]) == ("BTC-USD", "BTC-USDC", "ETH-BTC")
