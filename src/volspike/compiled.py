"""``numba.njit`` with a type, so that what it decorates keeps its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., object])

compiled: Callable[[F], F] = njit(cache=True, nogil=True)
"""Compiles a function at its first call and keeps the machine code on disk."""
