"""Tapes for tests of what is made from their lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from volspike.market import Tick
from volspike.tape import tape_line


def write_tape(path: Path, ticks: Iterable[Tick]) -> Path:
    """A tape with these ticks in this order."""
    path.write_bytes(b"".join(tape_line(tick) for tick in ticks))
    return path


def lines_of(tape: Path) -> list[bytes]:
    """Its lines without their ends."""
    return tape.read_bytes().splitlines()
