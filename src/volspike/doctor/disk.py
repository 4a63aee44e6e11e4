"""Room where tapes and outcomes are written, and for how long it lasts at the pace of the last day."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from volspike.doctor.finding import Fact, Finding, Severity
from volspike.market import SECOND_NS
from volspike.tape import read_tape_name

DAY_NS: Final = 86_400 * SECOND_NS
LEAST_BYTES: Final = 500 << 20
LOW_BYTES: Final = 5 << 30
LEAST_DAYS: Final = 1.0
LOW_DAYS: Final = 14.0
_SHORTEST_SPAN_NS: Final = 600 * SECOND_NS
"""A rate taken over less than ten minutes says more about the start than about a day."""

_MAKE_ROOM: Final = (
    "`volspike compact` makes old hours a fraction of their size; or move tapes elsewhere, or give --tape"
)


class Room(NamedTuple):
    """A disk as far as it matters: free bytes, and whether files can be made there."""

    free: int
    is_writable: bool


def look_at_disk(tape: Path, outcomes: Path, now: int, room: Callable[[Path], Room] | None = None) -> list[Finding]:
    """One finding for the folder of tapes, one for the file of outcomes; ``now`` is in ns UTC."""
    look = room or room_at
    per_day = bytes_per_day(tape, now)
    return [
        _judged("tape folder", tape, look(tape), per_day, {"tape_bytes": _size(tape)}),
        _judged("outcomes", outcomes, look(outcomes.parent), None, {"bytes": _size(outcomes)}),
    ]


def room_at(folder: Path) -> Room:
    """The room where ``folder`` is, or would be made."""
    there = folder.expanduser().absolute()
    while not there.exists():
        there = there.parent
    return Room(shutil.disk_usage(there).free, there.is_dir() and os.access(there, os.W_OK | os.X_OK))


def bytes_per_day(tape: Path, now: int) -> float | None:
    """How fast the tapes of the last day grew; None where there are none, or too short a time of them."""
    if not tape.is_dir():
        return None
    named = [(path, name) for path in tape.iterdir() if (name := read_tape_name(path)) is not None]
    recent = [(path.stat().st_size, name.started) for path, name in named if now - DAY_NS <= name.started <= now]
    span = now - min((started for _, started in recent), default=now)
    if span < _SHORTEST_SPAN_NS:
        return None
    return sum(size for size, _ in recent) * DAY_NS / span


def _judged(check: str, where: Path, room: Room, per_day: float | None, facts: dict[str, Fact]) -> Finding:
    days = room.free / per_day if per_day else None
    facts = {"path": str(where), **facts, "free_bytes": room.free, "bytes_per_day": per_day, "days_left": days}
    pace = "" if per_day is None or days is None else f"; {_human(per_day)} a day, room for {_days(days)}"
    found = f"{where}: {_human(room.free)} free{pace}"
    if not room.is_writable:
        found, remedy = f"{where} cannot be written", "give the user the right to write there, or name another folder"
        return Finding(check=check, severity=Severity.BAD, found=found, remedy=remedy, facts=facts)
    if room.free < LEAST_BYTES or (days is not None and days < LEAST_DAYS):
        return Finding(check=check, severity=Severity.BAD, found=found, remedy=_MAKE_ROOM, facts=facts)
    if room.free < LOW_BYTES or (days is not None and days < LOW_DAYS):
        return Finding(check=check, severity=Severity.WARNING, found=found, remedy=_MAKE_ROOM, facts=facts)
    return Finding(check=check, severity=Severity.FINE, found=found, facts=facts)


def _size(path: Path) -> int:
    """The bytes of a file, or of the files in a folder; 0 where there is nothing."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.iterdir() if each.is_file())
    return path.stat().st_size if path.is_file() else 0


def _human(count: float) -> str:
    """
    >>> _human(3_400_000_000)
    '3.4 GB'
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _days(days: float) -> str:
    return f"{days:,.0f} days" if days >= 2 else f"{24 * days:.0f} hours"
