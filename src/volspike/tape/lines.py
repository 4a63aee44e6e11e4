"""A tape's own line shape, a block at a time: text → ``TapeLine`` structs, in C, with the lines known to be whole.

What the structs mean as ticks is in ``columns``; lines of any other shape are ``oddities``.
"""

from __future__ import annotations

from math import nan
from typing import Any

import msgspec
import numpy as np

from volspike.compiled import compiled
from volspike.feeds import UNREADABLE, Identifier, RawTicker
from volspike.market import UNTOLD_ID


class TapeLine(msgspec.Struct, gc=False, kw_only=True):
    """One line of a tape, the fields that volspike reads; the 24 hour figures are for people.

    ``time`` (the exchange's clock), ``sequence`` and ``source`` are told by tapes of our own, and stand before
    what ``raw`` tells. Decode with ``strict=False``, for numbers come as text.
    """

    timestamp: str
    product_id: str
    price: float
    best_bid: float | None = nan
    best_ask: float | None = nan
    raw: RawTicker
    time: str = ""
    sequence: Identifier = UNTOLD_ID
    source: str = ""


_LINE = msgspec.json.Decoder(TapeLine, strict=False)

_NEWLINE, _OPENS, _CLOSES = b"\n{}"


@compiled
def _one_object_per_line(text: Any) -> int:
    """The number of lines where each surely holds one object of its own, else -1.

    Inside of a JSON value no line end can stand between ``}`` and ``{``. So where all of them do, as many
    objects as lines means one on each, which a decoder of many lines does not check itself.
    """
    size = len(text)
    if size == 0 or text[0] != _OPENS:
        return -1
    if text[size - 1] == _NEWLINE:
        size -= 1
    if text[size - 1] != _CLOSES:
        return -1
    lines = 1
    for at in range(size):
        if text[at] == _NEWLINE:
            if text[at - 1] != _CLOSES or text[at + 1] != _OPENS:
                return -1
            lines += 1
    return lines


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8 throughout; the JSON decoder does not look at fields that it skips."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def decode_block(block: bytes) -> list[TapeLine] | None:
    """The lines of a block, one for each; None where any of it is not exactly of the tape's shape."""
    lines = _one_object_per_line(np.frombuffer(block, np.uint8))
    if lines < 0 or not is_utf8(block):
        return None
    try:
        decoded = _LINE.decode_lines(block)
    except UNREADABLE:
        return None
    return decoded if len(decoded) == lines else None


def decode_line(text: bytes) -> TapeLine | None:
    """One line, or None where it is not exactly of the tape's shape."""
    if not is_utf8(text):
        return None
    try:
        return _LINE.decode(text)
    except UNREADABLE:
        return None
