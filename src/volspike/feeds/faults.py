"""Turning whatever stops a decoder into ``MalformedTick`` with the path of the fault."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.quotes import without_empty
from volspike.market import nanoseconds

T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises on bad bytes: its own errors and Unicode's are ``ValueError``, deep nesting the other."""

_LOCATED = re.compile(r"(?P<reason>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)


def located(error: Exception) -> MalformedTick:
    """The ``MalformedTick`` that says what ``error``, one of ``UNREADABLE``, says.

    msgspec writes "Expected `float`, got `str` - at `$.x`", and locates a missing field at its object.
    """
    if isinstance(error, RecursionError):
        return MalformedTick("JSON is nested too deeply")
    match = _LOCATED.fullmatch(str(error))
    reason, path = (match["reason"], match["path"] or "$") if match else (str(error), "$")
    missing = _MISSING.fullmatch(reason)
    if missing:
        return MalformedTick("required and missing", f"{path}.{missing['field']}")
    return MalformedTick(reason, path)


def placed(fault: MalformedTick, path: str) -> MalformedTick:
    """The same fault, its path now starting at ``path`` instead of at the root of the message."""
    return MalformedTick(fault.reason, path + fault.path.removeprefix("$"))


def read(decoder: msgspec.json.Decoder[T], frame: bytes | str) -> T:
    """The frame as the decoder's type; raises ``MalformedTick`` for anything else."""
    try:
        return decoder.decode(frame)
    except UNREADABLE as error:
        raise located(error) from error


def read_without_empty(decoder: msgspec.json.Decoder[T], frame: bytes | str) -> T:
    """The frame as the decoder's type, fields that may be empty left out where they are; several times slower.

    Raises:
        MalformedTick: it is something else even so.
    """
    try:
        plain: Any = without_empty(msgspec.json.decode(frame))
        return msgspec.convert(plain, decoder.type, strict=False)
    except UNREADABLE as error:
        raise located(error) from error


def read_time(text: str, path: str) -> int:
    """Nanoseconds of an RFC 3339 or Go timestamp; raises ``MalformedTick`` at ``path`` if it is neither."""
    try:
        return nanoseconds(text)
    except ValueError as error:
        raise MalformedTick(str(error), path) from error
