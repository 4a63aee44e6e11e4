"""Arguments of the library's functions: each has the type that the function takes, or the error names it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import isfinite
from typing import Any, Final, TypeVar

import numpy as np

from volspike.errors import UsageError

_LONGEST: Final = 60

_Class = TypeVar("_Class")
_Word = TypeVar("_Word", bound=StrEnum)


def shown(value: object) -> str:
    """A value as messages show it: short ones as Python writes them, others by their type.

    >>> shown(3), shown("x"), shown([0] * 1000)
    ('3', "'x'", 'a list')
    """
    if value is None or isinstance(value, str | int | float | np.number):
        text = repr(value.item() if isinstance(value, np.number) else value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def take(name: str, value: _Class, kind: Any, takes: str) -> _Class:
    """The value, if it is an instance of the class or classes ``kind``.

    Raises:
        UsageError: with the name of the argument, what it takes, and the value.
    """
    if isinstance(value, kind):
        return value
    raise UsageError(f"{name} must be {takes}, got {shown(value)}")


def take_text(name: str, value: object, takes: str) -> str:
    """A text.

    Raises:
        UsageError: it is none, or blank.
    """
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name} must be {takes}, got {shown(value)}")
    return value


def take_whole(name: str, value: object, takes: str) -> int:
    """A whole number of Python or NumPy.

    Raises:
        UsageError: it is none, or a flag.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UsageError(f"{name} must be {takes}, got {shown(value)}")
    return int(value)


def take_positive(name: str, value: object, takes: str) -> float:
    """A finite number above 0.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise UsageError(f"{name} must be {takes}, got {shown(value)}")
    number = float(value)
    if not (isfinite(number) and number > 0.0):
        raise UsageError(f"{name} must be {takes}, got {shown(value)}")
    return number


def take_each(name: str, values: object, kind: Any, takes: str) -> list[Any]:
    """The values of an iterable, instances of the class or classes ``kind``.

    Raises:
        UsageError: it is none, or a value is of another kind.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise UsageError(f"{name} must be {takes}, got {shown(values)}")
    found: list[Any] = list(values)
    for value in found:
        if not isinstance(value, kind):
            raise UsageError(f"{name} must be {takes}, got {shown(value)} among them")
    return found


def take_word(name: str, value: object, kind: type[_Word]) -> _Word:
    """The member of an enumeration.

    Raises:
        UsageError: the value is none of its words.
    """
    if isinstance(value, str) and value in set(kind):
        return kind(value)
    raise UsageError(f"{name} must be one of {', '.join(kind)}, got {shown(value)}")
