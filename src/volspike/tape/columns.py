"""Tape lines → columns, vectorised; gives exactly what ``oddities.line_tick`` gives line by line.

Only lines with nothing unusual about them are turned here. The others are told by ``Columns.usual``, and read
one by one, so that every doubtful case has one rule, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volspike.feeds import LAST_MATCH, SIDES, TAKER_OF_MAKER, RawTicker
from volspike.market import UNTOLD_ID, Kind, Side, Ticks
from volspike.market.time import UNREAD, parse_times
from volspike.tape.lines import TapeLine

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_UNKNOWN_SIDE = 2


class Columns(NamedTuple):
    """As many ticks as lines; only those where ``usual`` holds are meant."""

    ticks: Ticks
    usual: Mask


class _Book(NamedTuple):
    """One side of the book."""

    price: Floats
    size: Floats
    is_usual: Mask


def columns_of(lines: Sequence[TapeLine]) -> Columns:
    """The lines as ticks, row by row."""
    raws = [line.raw for line in lines]
    received = parse_times([line.timestamp for line in lines])
    time = _exchange_times(lines, raws, received)
    price = _floats(lines, "price")
    types = [raw.type for raw in raws]
    trade_id = _integers(raws, "trade_id")
    size = _floats(raws, "size")
    is_trade = _is_trade(raws, types, size, trade_id)
    last_size = np.where(is_trade, size, _floats(raws, "last_size"))
    bid, ask = _book(lines, raws, "best_bid", is_trade), _book(lines, raws, "best_ask", is_trade)
    side = _sides([raw.side for raw in raws], is_trade)
    products, product = _products([line.product_id for line in lines])
    usual = (received != UNREAD) & (time != UNREAD) & _is_price(price) & _is_size(last_size)
    usual &= (side != _UNKNOWN_SIDE) & bid.is_usual & ask.is_usual
    if "" in products:
        usual &= product != products.index("")
    if LAST_MATCH in types:
        usual &= np.array([name != LAST_MATCH for name in types])
    ticks = Ticks(
        products=products,
        time=time,
        received=received,
        kind=np.where(is_trade, np.int8(Kind.TRADE), np.int8(Kind.TICKER)),
        product=product,
        price=price,
        best_bid=bid.price,
        best_ask=ask.price,
        bid_size=bid.size,
        ask_size=ask.size,
        last_size=last_size,
        side=side,
        trade_id=trade_id,
        sequence=_sequences(lines, raws),
    )
    return Columns(ticks, usual)


def _floats(structs: Sequence[object], name: str) -> Floats:
    return np.array(list(map(attrgetter(name), structs)), np.float64)


def _integers(structs: Sequence[object], name: str) -> NDArray[np.int64]:
    return np.array(list(map(attrgetter(name), structs)), np.int64)


def _is_price(values: Floats) -> Mask:
    return (values > 0.0) & (values < np.inf)


def _is_size(values: Floats) -> Mask:
    """NaN, not told, is fine."""
    return np.isnan(values) | ((values >= 0.0) & (values < np.inf))


def _exchange_times(
    lines: Sequence[TapeLine], raws: Sequence[RawTicker], received: NDArray[np.int64]
) -> NDArray[np.int64]:
    texts = [line.time or raw.time for line, raw in zip(lines, raws, strict=True)]
    if not any(texts):
        return received
    if all(texts):
        return parse_times(texts)
    told = [row for row, text in enumerate(texts) if text]
    time = received.copy()
    time[told] = parse_times([texts[row] for row in told])
    return time


def _sequences(lines: Sequence[TapeLine], raws: Sequence[RawTicker]) -> NDArray[np.int64]:
    own = _integers(lines, "sequence")
    is_untold = own == UNTOLD_ID
    return np.where(is_untold, _integers(raws, "sequence"), own) if is_untold.any() else own


def _book(lines: Sequence[TapeLine], raws: Sequence[RawTicker], name: str, is_trade: Mask) -> _Book:
    """One side; what ``raw`` tells is only looked up where the better source leaves something open."""
    price = _floats(lines, name)
    if np.isnan(price).any():
        price = np.where(np.isnan(price), _floats(raws, name), price)
    size = _floats(raws, f"{name}_quantity")
    if np.isnan(size).any():
        size = np.where(np.isnan(size), _floats(raws, f"{name}_size"), size)
    is_empty = np.isnan(price) | (price == 0.0)
    is_usual = is_trade | is_empty | (_is_price(price) & _is_size(size))
    is_untold = is_empty | is_trade
    if is_untold.any():
        price, size = np.where(is_untold, np.nan, price), np.where(is_untold, np.nan, size)
    return _Book(price, size, is_usual)


def _is_trade(raws: Sequence[RawTicker], types: Sequence[str], size: Floats, trade_id: NDArray[np.int64]) -> Mask:
    """As ``RawTicker.is_trade``: by name, or a size and an id without quotes."""
    is_trade: Mask = ~np.isnan(size) & (trade_id != UNTOLD_ID)
    if is_trade.any():
        is_trade &= np.isnan(_floats(raws, "best_bid")) & np.isnan(_floats(raws, "best_ask"))
    if "match" in types:
        is_trade |= np.array([name == "match" for name in types])
    return is_trade


def _sides(words: Sequence[str], is_trade: Mask) -> NDArray[np.int8]:
    """The taker's side; a trade's word is the maker's."""
    if not any(words):
        return np.zeros(len(words), np.int8)
    return np.where(is_trade, _codes(words, TAKER_OF_MAKER), _codes(words, SIDES))


def _codes(words: Sequence[str], sides: Mapping[str, Side]) -> NDArray[np.int8]:
    codes = {word: int(side) for word, side in sides.items()}
    return np.array([codes.get(word, _UNKNOWN_SIDE) for word in words], np.int8)


def _products(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    if len(codes) == 1:
        return tuple(codes), np.zeros(len(names), np.int32)
    return tuple(codes), np.array([codes[name] for name in names], np.int32)
