"""Tapes put in time order: one after the other, merged by receive time where they overlap, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volspike.market import Ticks


class TimedTape(NamedTuple):
    """A tape that is known to start at ``first`` (received, ns); ``open`` reads it from there on."""

    first: int
    open: Callable[[], Iterator[Ticks]]


def merged(tapes: Sequence[TimedTape]) -> Iterator[Ticks]:
    """The ticks of all tapes by receive time; equal times in the order of the tapes.

    The order inside of a tape is kept even where its receive times step back: that is the order in which the
    live system saw its ticks. A tape is opened when the others have come to its first tick, so that only as many
    chunks are held as tapes overlap.
    """
    waiting = sorted(tapes, key=lambda tape: tape.first)
    open_tapes: list[_Head] = []
    rank = 0
    while waiting or open_tapes:
        while waiting and all((waiting[0].first, rank) <= head.last for head in open_tapes):
            head = _Head(rank, waiting.pop(0).open())
            rank += 1
            if head.advance():
                open_tapes.append(head)
        if not open_tapes:
            continue
        slowest = min(open_tapes, key=lambda head: head.last)
        yield _joined([head.taken(slowest.last) for head in open_tapes])
        open_tapes = [head for head in open_tapes if len(head.ticks) or head.advance()]


@dataclass(slots=True)
class _Head:
    """An open tape and its chunk at hand. ``keys`` is the latest receive time up to each tick: it never steps back."""

    rank: int
    chunks: Iterator[Ticks]
    ticks: Ticks = field(default_factory=lambda: Ticks.join(()))
    keys: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    reached: int = np.iinfo(np.int64).min

    @property
    def last(self) -> tuple[int, int]:
        """Nothing that this tape still holds beyond its chunk comes before this place in the order."""
        return self.reached, self.rank

    def advance(self) -> bool:
        """Takes the next chunk that is not empty; False at the tape's end."""
        for chunk in self.chunks:
            if len(chunk):
                self.ticks = chunk
                self.keys = np.maximum(np.maximum.accumulate(chunk.received), self.reached)
                self.reached = int(self.keys[-1])
                return True
        return False

    def taken(self, place: tuple[int, int]) -> tuple[Ticks, NDArray[np.int64]]:
        """Removes and returns the ticks at hand up to ``place`` (time, rank), with their keys."""
        time, rank = place
        cut = int(np.searchsorted(self.keys, time, side="right" if self.rank <= rank else "left"))
        taken = self.ticks[:cut], self.keys[:cut]
        self.ticks, self.keys = self.ticks[cut:], self.keys[cut:]
        return taken


def _joined(parts: Iterable[tuple[Ticks, NDArray[np.int64]]]) -> Ticks:
    told = [(ticks, keys) for ticks, keys in parts if len(ticks)]
    if len(told) == 1:
        return told[0][0]
    order = np.argsort(np.concatenate([keys for _, keys in told]), kind="stable")
    return Ticks.join([ticks for ticks, _ in told])[order]


def rechunked(parts: Iterable[Ticks], chunk: int) -> Iterator[Ticks]:
    """The same ticks in chunks of exactly ``chunk``, the last one shorter."""
    held: list[Ticks] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count < chunk:
            continue
        whole = Ticks.join(held) if len(held) > 1 else part
        for start in range(0, count - chunk + 1, chunk):
            yield whole[start : start + chunk]
        count %= chunk
        held = [whole[len(whole) - count :]]
    if count:
        yield Ticks.join(held) if len(held) > 1 else held[0]
