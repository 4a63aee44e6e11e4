"""Room where tapes and outcomes are written, and for how long it lasts at the pace of the last day.

Versions: Python, volspike, what it runs on, and which extras are there.

What the tapes of today (UTC) are without, from their ledger.

Which model a live run would serve: whether it loads, when it was trained, whether it fits the source.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement

import volspike
from volspike.config import FeedSettings
from volspike.doctor.finding import Fact, Finding, Severity
from volspike.errors import ModelError, UnreadableFile
from volspike.live.scoring import LiveScorer
from volspike.live.sources import kinds_of
from volspike.market import SECOND_NS, Gap, format_time
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.models.choice import model_to_serve
from volspike.tape import LEDGER_NAME, read_ledger, read_tape_name
from volspike.tape.names import is_tape

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


PACKAGE: Final = "volspike"
KEY_PACKAGES: Final = ("numpy", "numba", "pyarrow", "onnxruntime", "scikit-learn", "fastapi", "websockets")
"""Those whose versions are told by name; all are held against their ranges."""

_PURPOSES: Final = {
    "kafka": "Kafka",
    "tracking": "MLflow",
    "monitor": "drift reports",
    "deep": "the LSTM",
    "notebook": "the notebook",
    "ray": "replay on Ray",
    "dev": "tests and lint",
}


def look_at_packages() -> list[Finding]:
    """Whether what is installed is what the package declares, and which of its extras are complete."""
    declared = [Requirement(text) for text in requires(PACKAGE) or ()]
    base = [each for each in declared if not _extra_of(each) and (each.marker is None or each.marker.evaluate())]
    return [_base(base), _extras(declared)]


def _base(declared: list[Requirement]) -> Finding:
    facts: dict[str, Fact] = {"python": platform.python_version(), "volspike": volspike.__version__}
    facts |= {name: installed(name) for name in KEY_PACKAGES}
    told = [f"Python {facts['python']}", f"volspike {facts['volspike']}"]
    told += [f"{name} {facts[name] or 'absent'}" for name in KEY_PACKAGES]
    wrong = [text for each in declared if (text := misfit(each))]
    if wrong:
        remedy = "install what it was tested with: pip install -r requirements/base.txt"
        found = f"not as declared: {', '.join(wrong)}"
        return Finding(check="versions", severity=Severity.BAD, found=found, remedy=remedy, facts=facts)
    return Finding(check="versions", severity=Severity.FINE, found=", ".join(told), facts=facts)


def _extras(declared: list[Requirement]) -> Finding:
    """An extra with nothing installed is a choice; one that is there in part does not work."""
    there, absent, broken = [], [], []
    for extra in extras_of(declared):
        wanted = [each for each in declared if _extra_of(each) == extra and each.name != PACKAGE]
        misfits = [text for each in wanted if (text := misfit(each))]
        if not misfits:
            there.append(extra)
        elif all(installed(each.name) is None for each in wanted):
            absent.append(extra)
        else:
            broken.append(f"[{extra}] {', '.join(misfits)}")
    facts: dict[str, Fact] = {"installed": " ".join(there), "absent": " ".join(absent)}
    told = f"installed: {_listed(there)}; not installed: {_listed(absent)}"
    if broken:
        found = f"{told}; in part: {'; '.join(broken)}"
        remedy = "complete what you use, as in pip install 'volspike[kafka]'"
        return Finding(check="extras", severity=Severity.NOTE, found=found, remedy=remedy, facts=facts)
    return Finding(check="extras", severity=Severity.FINE, found=told, facts=facts)


def extras_of(declared: list[Requirement]) -> list[str]:
    """The extras that bring packages of their own, each once, in the order in which they are declared."""
    names = (_extra_of(each) for each in declared if each.name != PACKAGE)
    return list(dict.fromkeys(name for name in names if name))


def misfit(wanted: Requirement) -> str:
    """How what is installed differs from what is wanted; empty where it does not."""
    there = installed(wanted.name)
    if there is None:
        return f"{wanted.name} absent, {wanted.specifier or 'any version'} wanted"
    if not wanted.specifier.contains(there, prereleases=True):
        return f"{wanted.name} {there}, {wanted.specifier} wanted"
    return ""


def installed(name: str) -> str | None:
    """The version that is installed of a package; None where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra_of(each: Requirement) -> str:
    """The extra that a requirement belongs to; empty for the base."""
    if each.marker is None or each.marker.evaluate({"extra": ""}):
        return ""
    return next((extra for extra in _named(each) if each.marker.evaluate({"extra": extra})), "")


def _named(each: Requirement) -> list[str]:
    """What a marker compares ``extra`` with."""
    return [word.strip("'\"") for word in str(each.marker).split() if word[:1] in {"'", '"'}]


def _listed(extras: list[str]) -> str:
    return ", ".join(f"{extra} ({_PURPOSES[extra]})" if extra in _PURPOSES else extra for extra in extras) or "none"


CHECK: Final = "gaps today"
NOTICED_SHARE: Final = 0.01
"""Beyond this share of the day so far, figures of the day are of another market than the one that was."""


def look_at_gaps(tape: Path, now: int) -> list[Finding]:
    """The gaps that reach into the day of ``now`` (ns UTC)."""
    if not tape.is_dir() or not any(is_tape(path) for path in tape.iterdir()):
        found = f"{tape} holds no tape"
        remedy = "record one: `volspike up` or `volspike ingest`"
        return [Finding(check=CHECK, severity=Severity.NOTE, found=found, remedy=remedy, facts={"path": str(tape)})]
    try:
        told = read_ledger(tape)
    except UnreadableFile as error:
        remedy = "give the user the right to read it"
        return [Finding(check=CHECK, severity=Severity.BAD, found=str(error), remedy=remedy, facts={"path": str(tape)})]
    midnight = now - now % DAY_NS
    today = [gap for gap in told.gaps if gap.end > midnight]
    findings = [_judged_gaps(tape, today, midnight, now)]
    if told.damaged:
        found = f"{tape / LEDGER_NAME}: {told.damaged:,} damaged lines"
        remedy = "nothing is lost but what they told; `volspike gaps` leaves them out"
        facts: dict[str, Fact] = {"damaged": told.damaged}
        findings.append(Finding(check=CHECK, severity=Severity.NOTE, found=found, remedy=remedy, facts=facts))
    return findings


def _judged_gaps(tape: Path, gaps: list[Gap], midnight: int, now: int) -> Finding:
    seconds = missing_seconds(gaps, midnight)
    share = seconds * SECOND_NS / max(now - midnight, SECOND_NS)
    causes = ", ".join(sorted({gap.cause.value for gap in gaps}))
    facts: dict[str, Fact] = {
        "path": str(tape),
        "gaps": len(gaps),
        "seconds": seconds,
        "share": share,
        "causes": causes,
    }
    if not gaps:
        return Finding(check=CHECK, severity=Severity.FINE, found=f"none in the ledger of {tape}", facts=facts)
    found = f"{len(gaps):,} gaps of together {seconds:,.1f} s ({100 * share:.2f} % of the day so far): {causes}"
    since = format_time(midnight)
    remedy = f"`volspike gaps --tape {tape} --since {since}`; `volspike backfill --gaps {tape}` fetches trades"
    severity = Severity.WARNING if share > NOTICED_SHARE else Severity.NOTE
    return Finding(check=CHECK, severity=severity, found=found, remedy=remedy, facts=facts)


def missing_seconds(gaps: list[Gap], since: int) -> float:
    """The seconds from ``since`` (ns UTC) on in which anything was missing, each counted once."""
    covered, reached = 0, since
    for gap in sorted(gaps, key=lambda gap: gap.start):
        covered += max(0, gap.end - max(gap.start, reached))
        reached = max(reached, gap.end)
    return covered / SECOND_NS


CHECK_SERVED: Final = "model"
_RETRAIN: Final = "train another with `volspike train --promote`, or name one with --model or MODEL_PATH"


def look_at_model(wished: Path | None, production: Path, feed: FeedSettings) -> list[Finding]:
    """Loads what ``volspike up`` would load for a real market, as it would: hash, features, profile of the source."""
    path = model_to_serve(wished, production, simulated=False)
    facts: dict[str, Fact] = {"path": str(path)}
    try:
        artifact = Artifact.load(path)
        LiveScorer(artifact).admits(set(kinds_of(feed)))
    except ModelError as error:
        return [Finding(check=CHECK_SERVED, severity=Severity.BAD, found=str(error), remedy=_RETRAIN, facts=facts)]
    known = artifact.metadata
    facts |= {
        "name": known.model,
        "digest": known.onnx_sha256[:12],
        "feature_digest": known.feature_digest,
        "created": known.created,
        "trained_until": known.data.end,
        "profile": known.profile,
        "simulated": known.simulated,
    }
    found = (
        f"{path}: {known.model} {known.onnx_sha256[:12]}, trained {_short(known.created)} "
        f"on data until {_short(known.data.end)}, fits features {known.feature_digest} and the {feed.protocol} feed"
    )
    if known.simulated:
        remedy = "train on a real market's tape before anybody relies on it"
        found += "; it learned from a SIMULATED market"
        return [Finding(check=CHECK_SERVED, severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]
    if path == DEFAULT_MODEL:
        remedy = "it works; once tapes of some days are there, `volspike train --promote` puts your own in its place"
        return [
            Finding(
                check=CHECK_SERVED,
                severity=Severity.NOTE,
                found=f"{found} (the one that ships)",
                remedy=remedy,
                facts=facts,
            )
        ]
    return [Finding(check=CHECK_SERVED, severity=Severity.FINE, found=found, facts=facts)]


def _short(instant: str) -> str:
    """To the second, for people."""
    return f"{instant[:19]}Z" if instant else "an untold time"
