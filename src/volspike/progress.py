"""Progress of long operations: named steps, each with the share of the operation that is done when it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

OnStep: TypeAlias = Callable[[str], None]
"""Receives the name of each step of an operation as it begins; a ``Step`` also states the progress."""


class Step(str):
    """The name of a step, and ``done``: the share of the operation before it, in [0, 1].

    >>> Step("fold 2 of 4", 0.25).done
    0.25
    """

    __slots__ = ("done",)
    done: float

    def __new__(cls, name: str, done: float) -> Step:
        """A step after that share of its operation; a share outside [0, 1] is the nearest limit."""
        step = super().__new__(cls, name)
        step.done = min(1.0, max(0.0, done))
        return step


def counted(on_step: OnStep, steps: int) -> OnStep:
    """A function that passes on each name as a step of an operation with this number of equal steps."""
    begun = 0

    def step(name: str) -> None:
        nonlocal begun
        on_step(Step(name, begun / max(1, steps)))
        begun += 1

    return step


def part(on_step: OnStep, start: float, end: float, prefix: str = "") -> OnStep:
    """A function for the steps of a part of an operation, from ``start`` to ``end`` as shares of the operation.

    ``prefix`` precedes the names.
    """

    def step(name: str) -> None:
        done = name.done if isinstance(name, Step) else 0.0
        on_step(Step(prefix + name, start + (end - start) * done))

    return step
