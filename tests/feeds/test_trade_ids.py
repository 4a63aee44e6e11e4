"""Lost trades by their ids, and the changeover from one connection to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.feeds.trade_ids import FILTER_NS, RESET_AFTER, Changeover, LostTrades, TradeLossCheck
from volspike.market import Kind, Tick

BTC, ETH = "binance:BTC-USDT", "binance:ETH-USDT"


def trade(number: int, product: str = BTC, time: int = 0) -> Tick:
    return Tick(time=time, received=time, kind=Kind.TRADE, product_id=product, price=1.0, trade_id=number)


def quote(update: int, product: str = BTC, time: int = 0) -> Tick:
    return Tick(time=time, received=time, kind=Kind.TICKER, product_id=product, price=1.0, sequence=update)


@given(st.sets(st.integers(0, 300), min_size=1, max_size=200), st.integers(1, 5))
def test_the_sum_of_all_losses_is_what_is_missing(numbers: set[int], frame: int) -> None:
    """However the trades are put into frames, each missing id is in exactly one loss, and no other is."""
    check, ordered = TradeLossCheck([BTC]), sorted(numbers)
    losses: list[LostTrades] = []
    for start in range(0, len(ordered), frame):
        losses += check.add([trade(number) for number in ordered[start : start + frame]], start)
    missing = [number for loss in losses for number in range(loss.first, loss.last + 1)]
    assert missing == sorted(set(range(ordered[0], ordered[-1] + 1)) - numbers)
    assert sum(loss.lost for loss in losses) == len(missing)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 60))
def test_late_trades_and_duplicates_are_no_losses(ids: list[int], turn: int) -> None:
    """Only a number above the next one is a loss, whatever the order."""
    check = TradeLossCheck([BTC])
    highest = -1
    for number in ids:
        losses = check.add([trade(number)], turn)
        assert [loss.lost for loss in losses] == (
            [number - highest - 1] if highest >= 0 and number > highest + 1 else []
        )
        highest = max(highest, number)
    assert check.highest(BTC) == highest
    assert check.highest(ETH) == -1


def test_products_are_counted_apart() -> None:
    """A product's first id is no loss, and ticks without an id or of other products count for nothing."""
    check = TradeLossCheck([BTC, ETH])
    assert check.add([trade(5), trade(900, ETH), trade(1, "binance:XRP-USDT"), quote(3)], 10) == ()
    assert check.add([trade(901, ETH), trade(9, "binance:XRP-USDT")], 20) == ()
    assert check.add([trade(7), trade(901, ETH)], 30) == (LostTrades(BTC, 6, 6, 10),)
    assert check.repeated == 1


def test_a_sum_of_trades_covers_their_ids() -> None:
    """With the first id of each, only ids between two of them are missing; an overlap is none."""
    check = TradeLossCheck([BTC])
    assert check.add([trade(10), trade(14)], 1, (8, 11)) == ()
    assert check.add([trade(20)], 2, (17,)) == (LostTrades(BTC, 15, 16, 1),)
    assert check.add([trade(25)], 3, (19,)) == ()
    assert check.add([trade(26)], 4, (26,)) == ()


def test_a_venue_that_counts_again_is_noticed() -> None:
    """After many lower ids in a row the loss is unknown, and the next jump is counted again."""
    check = TradeLossCheck([BTC])
    check.add([trade(10_000)], 1)
    for number in range(RESET_AFTER - 1):
        assert check.add([trade(number)], 2) == ()
    (loss,) = check.add([trade(RESET_AFTER - 1)], 3)
    assert (loss.lost, loss.since) == (-1, 1)
    assert loss.detail == "the trade ids were reset: 999 after 10000"
    assert [loss.lost for loss in check.add([trade(RESET_AFTER + 4)], 4)] == [4]


@pytest.mark.parametrize(("first", "last", "detail"), [(7, 7, "trade 7"), (7, 9, "trades 7 to 9")])
def test_a_loss_names_the_ids(first: int, last: int, detail: str) -> None:
    """So that they can be downloaded."""
    assert LostTrades(BTC, first, last, 0).detail == detail


@given(
    old=st.integers(0, 50),
    start=st.integers(0, 60),
    consecutive=st.booleans(),
)
def test_a_changeover_delivers_each_trade_once(old: int, start: int, *, consecutive: bool) -> None:
    """What the old connection delivered is dropped from the new one, and nothing else."""
    changeover = Changeover(consecutive=consecutive)
    changeover.begin(0)
    changeover.track(trade(number) for number in range(old))
    changeover.switch(1)
    kept = [n for n in range(start, 80) if changeover.is_new(trade(n), has_updates=True)]
    assert kept == list(range(max(old, start), 80))


def test_quotes_do_not_step_back() -> None:
    """They are compared by update number, or by time where the venue has none or numbers its messages instead."""
    changeover = Changeover(consecutive=True)
    changeover.begin(0)
    changeover.track([quote(7, time=100), quote(-1, ETH, 100)])
    changeover.switch(1)
    assert [changeover.is_new(quote(n, time=200), has_updates=True) for n in (6, 7, 8)] == [False, False, True]
    assert [changeover.is_new(quote(n, time=99), has_updates=False) for n in (6, 8)] == [False, False]
    assert [changeover.is_new(quote(-1, ETH, time), has_updates=True) for time in (99, 100, 101)] == [
        False,
        False,
        True,
    ]
    assert changeover.is_new(quote(1, "binance:XRP-USDT"), has_updates=True)


def test_unordered_trades_in_common_show_continuity() -> None:
    """A product's first new trade lacks an overlap unless both connections delivered a trade; each product once."""
    changeover = Changeover(consecutive=False)
    changeover.begin(0)
    changeover.track([trade(5), trade(3)])
    changeover.switch(1)
    assert not changeover.is_new(trade(3), has_updates=True)
    assert changeover.is_new(trade(4), has_updates=True)
    assert not changeover.lacks_overlap(trade(4))
    assert [changeover.lacks_overlap(trade(9, ETH)) for _ in range(2)] == [True, False]
    assert not changeover.lacks_overlap(quote(1, "binance:XRP-USDT"))


def test_the_comparison_ends() -> None:
    """Some time after the changeover ticks are no longer compared."""
    changeover = Changeover(consecutive=True)
    changeover.begin(0)
    changeover.track([trade(7)])
    changeover.switch(100)
    assert [changeover.is_over(FILTER_NS + 99), changeover.is_new(trade(7), has_updates=True)] == [False, False]
    assert [changeover.is_over(FILTER_NS + 100), changeover.is_new(trade(7), has_updates=True)] == [True, True]


def test_a_failed_changeover_tracks_nothing() -> None:
    """Ticks are tracked from the opening of the new connection to its failure."""
    changeover = Changeover(consecutive=True)
    states = [changeover.is_tracking]
    changeover.begin(0)
    states.append(changeover.is_tracking)
    changeover.cancel()
    assert [*states, changeover.is_tracking] == [False, True, False]
