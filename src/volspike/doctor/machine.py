"""Checks of this machine: installed packages, disk space, today's gaps, and the model that would be served.

Each check imports what it needs, so that the versions are printed at once.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement

import volspike
from volspike.config import FeedSettings
from volspike.doctor.finding import Fact, Finding, Severity
from volspike.errors import ModelError, UnreadableFile, UsageError
from volspike.market import SECOND_NS, Gap, format_time
from volspike.plugins import ALERTS, FEATURES, GROUPS, MODELS, VENUES, Plugin, installed

DAY_NS: Final = 86_400 * SECOND_NS
LEAST_BYTES: Final = 500 << 20
LOW_BYTES: Final = 5 << 30
LEAST_DAYS: Final = 1.0
LOW_DAYS: Final = 14.0
_SHORTEST_SPAN_NS: Final = 600 * SECOND_NS
"""A rate measured over less than ten minutes says little about a day."""

_MAKE_ROOM: Final = (
    "run `volspike compact` to shrink old hours, move tapes elsewhere, or name another folder with --tape"
)


class Room(NamedTuple):
    """Free bytes of a disk, and whether files can be created there."""

    free: int
    is_writable: bool


def check_disk(tape: Path, outcomes: Path, now: int, room: Callable[[Path], Room] | None = None) -> list[Finding]:
    """One finding for the tape folder and one for the file of outcomes; ``now`` is in ns UTC."""
    measure = room or room_at
    per_day = bytes_per_day(tape, now)
    return [
        _disk_finding("tape folder", tape, measure(tape), per_day, {"tape_bytes": _size(tape)}),
        _disk_finding("outcomes", outcomes, measure(outcomes.parent), None, {"bytes": _size(outcomes)}),
    ]


def room_at(folder: Path) -> Room:
    """The disk space at ``folder``, or where it would be created."""
    there = folder.expanduser().absolute()
    while not there.exists():
        there = there.parent
    return Room(shutil.disk_usage(there).free, there.is_dir() and os.access(there, os.W_OK | os.X_OK))


def bytes_per_day(tape: Path, now: int) -> float | None:
    """Growth of the tapes over the last day; None if there are none, or for too short a time."""
    from volspike.tape.names import read_tape_name  # noqa: PLC0415

    if not tape.is_dir():
        return None
    named = [(path, name) for path in tape.iterdir() if (name := read_tape_name(path)) is not None]
    recent = [(path.stat().st_size, name.started) for path, name in named if now - DAY_NS <= name.started <= now]
    span = now - min((started for _, started in recent), default=now)
    if span < _SHORTEST_SPAN_NS:
        return None
    return sum(size for size, _ in recent) * DAY_NS / span


def _disk_finding(check: str, where: Path, room: Room, per_day: float | None, facts: dict[str, Fact]) -> Finding:
    days = room.free / per_day if per_day else None
    facts = {"path": str(where), **facts, "free_bytes": room.free, "bytes_per_day": per_day, "days_left": days}
    pace = "" if per_day is None or days is None else f"; {_human(per_day)} a day, enough for {_days(days)}"
    found = f"{where}: {_human(room.free)} free{pace}"
    if not room.is_writable:
        found, remedy = f"{where} is not writable", "grant write permission, or name another folder"
        return Finding(check=check, severity=Severity.BAD, found=found, remedy=remedy, facts=facts)
    if room.free < LEAST_BYTES or (days is not None and days < LEAST_DAYS):
        return Finding(check=check, severity=Severity.BAD, found=found, remedy=_MAKE_ROOM, facts=facts)
    if room.free < LOW_BYTES or (days is not None and days < LOW_DAYS):
        return Finding(check=check, severity=Severity.WARNING, found=found, remedy=_MAKE_ROOM, facts=facts)
    return Finding(check=check, severity=Severity.FINE, found=found, facts=facts)


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; 0 if it does not exist."""
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
"""Packages whose versions are listed; all packages are checked against their ranges."""

_PURPOSES: Final = {
    "kafka": "Kafka",
    "tracking": "MLflow",
    "monitor": "drift reports",
    "deep": "the LSTM",
    "notebook": "the notebook",
    "ray": "replay on Ray",
    "dev": "tests and lint",
}


def check_packages() -> list[Finding]:
    """Whether the installed packages match the declared ranges, and which extras are complete."""
    declared = [Requirement(text) for text in requires(PACKAGE) or ()]
    base = [each for each in declared if not _extra_of(each) and (each.marker is None or each.marker.evaluate())]
    return [_base(base), _extras(declared), _plugins()]


def _plugins() -> Finding:
    """The plug-ins of other distributions; each is imported, since one that fails is found no earlier than in use."""
    from volspike.features.extra import load_extra  # noqa: PLC0415
    from volspike.feeds.venues import load_protocol  # noqa: PLC0415
    from volspike.models import DETECTORS  # noqa: PLC0415

    loaders: dict[str, Callable[[Plugin], object]] = {
        VENUES: lambda plugin: load_protocol(plugin.entry, {}),
        MODELS: lambda plugin: DETECTORS[plugin.name],
        FEATURES: lambda plugin: load_extra(plugin.name),
        ALERTS: lambda plugin: plugin.load(),
    }
    listed, broken = [], []
    for group, kind in GROUPS.items():
        for plugin in installed(group):
            listed.append(f"{kind} {plugin.name} ({plugin.origin})")
            try:
                loaders[group](plugin)
            except UsageError as error:
                broken.append(str(error))
    facts: dict[str, Fact] = {"plugins": ", ".join(listed)}
    if broken:
        remedy = "correct or uninstall the distribution; pip show NAME describes it"
        found = "; ".join(broken)
        return Finding(check="plug-ins", severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)
    found = f"installed: {', '.join(listed)}" if listed else "none installed"
    return Finding(check="plug-ins", severity=Severity.FINE, found=found, facts=facts)


def _base(declared: list[Requirement]) -> Finding:
    facts: dict[str, Fact] = {"python": platform.python_version(), "volspike": volspike.__version__}
    facts |= {name: installed_version(name) for name in KEY_PACKAGES}
    listed = [f"Python {facts['python']}", f"volspike {facts['volspike']}"]
    listed += [f"{name} {facts[name] or 'absent'}" for name in KEY_PACKAGES]
    wrong = [text for each in declared if (text := mismatch(each))]
    if wrong:
        remedy = "install the tested versions: pip install -r requirements/base.txt"
        found = f"outside the declared ranges: {', '.join(wrong)}"
        return Finding(check="versions", severity=Severity.BAD, found=found, remedy=remedy, facts=facts)
    return Finding(check="versions", severity=Severity.FINE, found=", ".join(listed), facts=facts)


def _extras(declared: list[Requirement]) -> Finding:
    """An extra of which nothing is installed is a choice; one installed in part does not work."""
    there, absent, broken = [], [], []
    for extra in extras_of(declared):
        wanted = [each for each in declared if _extra_of(each) == extra and each.name != PACKAGE]
        mismatches = [text for each in wanted if (text := mismatch(each))]
        if not mismatches:
            there.append(extra)
        elif all(installed_version(each.name) is None for each in wanted):
            absent.append(extra)
        else:
            broken.append(f"[{extra}] {', '.join(mismatches)}")
    facts: dict[str, Fact] = {"installed": " ".join(there), "absent": " ".join(absent)}
    summary = f"installed: {_listed(there)}; not installed: {_listed(absent)}"
    if broken:
        found = f"{summary}; incomplete: {'; '.join(broken)}"
        remedy = "install the extras that you use, for example pip install 'volspike[kafka]'"
        return Finding(check="extras", severity=Severity.NOTE, found=found, remedy=remedy, facts=facts)
    return Finding(check="extras", severity=Severity.FINE, found=summary, facts=facts)


def extras_of(declared: list[Requirement]) -> list[str]:
    """The extras with packages of their own, in the order of their declaration."""
    names = (_extra_of(each) for each in declared if each.name != PACKAGE)
    return list(dict.fromkeys(name for name in names if name))


def mismatch(wanted: Requirement) -> str:
    """How the installed version differs from the required one; empty if it does not."""
    there = installed_version(wanted.name)
    if there is None:
        return f"{wanted.name} absent, {wanted.specifier or 'any version'} required"
    if not wanted.specifier.contains(there, prereleases=True):
        return f"{wanted.name} {there}, {wanted.specifier} required"
    return ""


def installed_version(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
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
    """The values with which a marker compares ``extra``."""
    return [word.strip("'\"") for word in str(each.marker).split() if word[:1] in {"'", '"'}]


def _listed(extras: list[str]) -> str:
    return ", ".join(f"{extra} ({_PURPOSES[extra]})" if extra in _PURPOSES else extra for extra in extras) or "none"


GAPS: Final = "gaps today"
NOTICED_SHARE: Final = 0.01
"""Share of the day so far beyond which missing data makes the figures of the day unreliable."""


def check_gaps(tape: Path, now: int) -> list[Finding]:
    """The gaps that reach into the day of ``now`` (ns UTC)."""
    from volspike.tape.ledger import read_ledger  # noqa: PLC0415
    from volspike.tape.names import LEDGER_NAME, is_tape  # noqa: PLC0415

    if not tape.is_dir() or not any(is_tape(path) for path in tape.iterdir()):
        found = f"no tape in {tape}"
        remedy = "record one: `volspike up` or `volspike ingest`"
        return [Finding(check=GAPS, severity=Severity.NOTE, found=found, remedy=remedy, facts={"path": str(tape)})]
    try:
        ledger = read_ledger(tape)
    except UnreadableFile as error:
        remedy = "grant read permission"
        return [Finding(check=GAPS, severity=Severity.BAD, found=str(error), remedy=remedy, facts={"path": str(tape)})]
    midnight = now - now % DAY_NS
    today = [gap for gap in ledger.gaps if gap.end > midnight]
    findings = [_gaps_finding(tape, today, midnight, now)]
    blind = sorted({product for span in ledger.unverifiable for product in span.products})
    if blind:
        found = f"no loss can be noticed on the feed of {', '.join(blind)}: recordings of it may lack data"
        remedy = "no action needed; a source with numbered messages or trades shows losses"
        findings.append(
            Finding(check=GAPS, severity=Severity.NOTE, found=found, remedy=remedy, facts={"path": str(tape)})
        )
    if ledger.damaged:
        found = f"{tape / LEDGER_NAME}: {ledger.damaged:,} damaged lines"
        remedy = "no action needed: the gaps in these lines are unknown, `volspike gaps` ignores them"
        facts: dict[str, Fact] = {"damaged": ledger.damaged}
        findings.append(Finding(check=GAPS, severity=Severity.NOTE, found=found, remedy=remedy, facts=facts))
    return findings


def _gaps_finding(tape: Path, gaps: list[Gap], midnight: int, now: int) -> Finding:
    from volspike.tape.ledger import missing_seconds  # noqa: PLC0415

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
        return Finding(check=GAPS, severity=Severity.FINE, found=f"none in the ledger of {tape}", facts=facts)
    found = f"{len(gaps):,} gaps, {seconds:,.1f} s in total ({100 * share:.2f} % of the day so far): {causes}"
    since = format_time(midnight)
    remedy = f"`volspike gaps --tape {tape} --since {since}`; `volspike backfill --gaps {tape}` downloads trades"
    severity = Severity.WARNING if share > NOTICED_SHARE else Severity.NOTE
    return Finding(check=GAPS, severity=severity, found=found, remedy=remedy, facts=facts)


MODEL: Final = "model"
_RETRAIN: Final = "train another with `volspike train --promote`, or name one with --model or MODEL_PATH"


def check_model(requested: Path | None, production: Path, feeds: Sequence[FeedSettings]) -> list[Finding]:
    """Loads the model that ``volspike up`` would serve for a real market; checks hash, features and profile."""
    from volspike.live.scoring import LiveScorer  # noqa: PLC0415
    from volspike.live.sources import kinds_of  # noqa: PLC0415
    from volspike.models import DEFAULT_MODEL, Artifact  # noqa: PLC0415
    from volspike.models.choice import model_to_serve  # noqa: PLC0415

    path = model_to_serve(requested, production, simulated=False)
    facts: dict[str, Fact] = {"path": str(path)}
    try:
        artifact = Artifact.load(path)
        kinds = set().union(*(kinds_of(feed) for feed in feeds))
        LiveScorer(artifact, kinds).check_source(kinds)
    except ModelError as error:
        return [Finding(check=MODEL, severity=Severity.BAD, found=str(error), remedy=_RETRAIN, facts=facts)]
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
        f"on data until {_short(known.data.end)}, fits features {known.feature_digest} and the feed of "
        f"{', '.join(feed.protocol for feed in feeds)}"
    )
    if known.simulated:
        remedy = "train on the tape of a real market before you rely on it"
        found += "; it was trained on a SIMULATED market"
        return [Finding(check=MODEL, severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]
    if path == DEFAULT_MODEL:
        remedy = "no action needed; after some days of recording, `volspike train --promote` replaces it with your own"
        return [
            Finding(
                check=MODEL,
                severity=Severity.NOTE,
                found=f"{found} (the shipped model)",
                remedy=remedy,
                facts=facts,
            )
        ]
    return [Finding(check=MODEL, severity=Severity.FINE, found=found, facts=facts)]


def _short(instant: str) -> str:
    """A time to the second."""
    return f"{instant[:19]}Z" if instant else "an unknown time"
