"""One NDJSON tape as chunks of ticks, block by block, with its damaged lines set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from volspike.errors import MalformedTick
from volspike.market import Tick, Ticks
from volspike.tape.columns import columns_of
from volspike.tape.lines import TapeLine, decode_block, decode_line
from volspike.tape.oddities import SIMULATED, line_tick, read_oddity
from volspike.tape.report import TapeReport
from volspike.tape.streams import Blocks

BLOCK_BYTES = 2 << 20
"""Text decoded at a time; measured best of 256 KiB to 8 MiB."""


class Aside(Protocol):
    """Who takes damaged lines; ``rejects.SetAside`` is one."""

    def add(self, line: int, reason: str, text: bytes) -> None:
        """Takes the damaged line of this number, counted from 1."""


def ndjson_ticks(
    path: Path, report: TapeReport, aside: Aside | None = None, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[Ticks]:
    """The ticks of one tape in the order of its lines, a block's worth at a time.

    What was left out is told to ``report``, and the damaged lines to ``aside``.
    """
    reading = _Reading(path, report, aside)
    with Blocks(path, block_bytes) as blocks:
        counted = 0
        for block in blocks:
            yield reading.ticks(block)
            report.bytes_read += blocks.consumed - counted
            counted = blocks.consumed
        if blocks.fault is not None:
            report.add_note(path, blocks.fault)


def block_ticks(block: bytes, report: TapeReport, aside: Aside) -> Ticks:
    """The ticks of tape lines that came by another way than in a file, in their order; see ``ndjson_ticks``."""
    return _Reading(Path(), report, aside).ticks(block)


class _Found:
    """What the lines of one block were found to hold, each with its line number."""

    def __init__(self, lines: list[TapeLine], numbers: NDArray[np.int64]) -> None:
        self.lines = lines
        self.numbers = numbers
        self.odd: list[Tick] = []
        self.odd_numbers: list[int] = []
        self.rejected: list[tuple[int, str, bytes]] = []

    def add_ticks(self, number: int, ticks: Sequence[Tick]) -> None:
        self.odd.extend(ticks)
        self.odd_numbers.extend(number for _ in ticks)

    def reject(self, number: int, fault: MalformedTick, text: bytes) -> None:
        self.rejected.append((number, str(fault), text))


class _Reading:
    """One tape being read: where it stands, and to whom it tells what."""

    def __init__(self, path: Path, report: TapeReport, aside: Aside | None) -> None:
        self._path = path
        self._report = report
        self._aside = aside
        self._line = 1

    def ticks(self, block: bytes) -> Ticks:
        """The ticks of the next block, in the order of its lines."""
        first = self._line
        lines = decode_block(block)
        if lines is None:
            found = self._one_by_one(block, first)
            self._line += block.count(b"\n")
        else:
            found = _Found(lines, np.arange(first, first + len(lines)))
            self._report.lines += len(lines)
            self._line += len(lines)
        ticks = self._joined(found, block, first)
        for number, reason, text in sorted(found.rejected):
            self._report.add_rejected(self._path, number, reason)
            if self._aside is not None:
                self._aside.add(number, reason, text)
        return ticks

    def _one_by_one(self, block: bytes, first: int) -> _Found:
        """Every line by itself, so that only the damaged ones are lost."""
        lines: list[TapeLine] = []
        numbers: list[int] = []
        odd: list[tuple[int, bytes]] = []
        for number, text in enumerate(block.split(b"\n"), first):
            stripped = text.strip()
            if not stripped:
                continue
            self._report.lines += 1
            line = decode_line(stripped)
            if line is None:
                odd.append((number, stripped))
            else:
                lines.append(line)
                numbers.append(number)
        found = _Found(lines, np.array(numbers, np.int64))
        for number, text in odd:
            self._odd_line(found, number, text)
        return found

    def _odd_line(self, found: _Found, number: int, text: bytes) -> None:
        try:
            oddity = read_oddity(text)
        except MalformedTick as fault:
            found.reject(number, fault, text)
            return
        found.add_ticks(number, oddity.ticks)
        self._report.ignored.update(oddity.ignored)
        self._report.simulated |= oddity.simulated

    def _joined(self, found: _Found, block: bytes, first: int) -> Ticks:
        parts: list[Ticks] = []
        numbers = found.numbers
        if found.lines:
            self._report.simulated |= SIMULATED in {line.source for line in found.lines}
            ticks, usual = columns_of(found.lines)
            if not usual.all():
                self._unusual(found, np.flatnonzero(~usual), block.split(b"\n"), first)
                ticks, numbers = ticks[usual], numbers[usual]
            parts.append(ticks)
        if not found.odd:
            return parts[0] if parts else Ticks.join(())
        parts.append(Ticks.of(found.odd))
        numbers = np.concatenate([numbers, np.array(found.odd_numbers, np.int64)])
        return Ticks.join(parts)[np.argsort(numbers, kind="stable")]

    def _unusual(self, found: _Found, rows: NDArray[np.int64], texts: Sequence[bytes], first: int) -> None:
        """Lines of the right shape with something doubtful in them: the one-by-one rules decide."""
        for row in rows:
            number = int(found.numbers[row])
            try:
                tick = line_tick(found.lines[row])
            except MalformedTick as fault:
                found.reject(number, fault, texts[number - first].strip())
                continue
            if tick is None:
                self._report.ignored["history"] += 1
            else:
                found.add_ticks(number, (tick,))
