"""What the last training and the last look for drift came to: two small files that whoever did it writes, for whoever

watches to read, in another process or in the same.

A look for drift as whoever watches wants to see it: its severity and its counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, get_args
from uuid import uuid4

import msgspec

from volspike.errors import UnreadableFile, UsageError

if TYPE_CHECKING:  # servers read results without the packages that measuring drift needs
    from volspike.monitoring.drift import Drift

RESULTS: Final = Path("models/results")
"""The folder where they are unless somebody names another."""

Severity: TypeAlias = Literal["none", "low", "medium", "high"]
Outcome: TypeAlias = Literal["promoted", "kept", "failed"]


class DriftResult(msgspec.Struct, frozen=True, kw_only=True):
    """A look for drift, made at ``time`` (ns UTC): which part of the features drifted, in [0, 1], and how badly.

    ``features`` counts those that were looked at by how badly each drifted; ``severity`` is that of the data as a
    whole; ``rows`` counts the newer rows.
    """

    time: int
    share: float
    severity: Severity
    features: dict[Severity, int]
    rows: int


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A training run, ended at ``time`` (ns UTC): its model, the reason, and what became of it.

    ``promoted`` is served from now on, ``kept`` is kept beside the one that is served, ``failed`` changed nothing.
    The figures are those of its model on rows that no choice looked at; None where undefined.
    """

    time: int
    model: str
    outcome: Outcome
    reason: str
    pr_auc: float | None = None
    brier: float | None = None
    precision: float | None = None
    recall: float | None = None
    base_rate: float | None = None


Result = TypeVar("Result", DriftResult, TrainingResult)

_FILES: Final[dict[type, str]] = {DriftResult: "drift.json", TrainingResult: "training.json"}


def keep_result(result: DriftResult | TrainingResult, folder: Path = RESULTS) -> Path:
    """Writes it in place of the one before; whoever reads meanwhile gets the one or the other.

    Raises:
        UsageError: the folder cannot be written.
    """
    file = folder / _FILES[type(result)]
    beside = file.with_name(f".{file.name}.{uuid4().hex[:8]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        beside.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    return file


def last_result(kind: type[Result], folder: Path = RESULTS) -> Result | None:
    """The newest of a kind; None where there was none yet.

    Raises:
        UnreadableFile: the file holds something else.
    """
    file = folder / _FILES[kind]
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(file, f"no {kind.__name__}: {error}; move it away") from error


LEVELS: Final[tuple[Severity, ...]] = get_args(Severity)


def drift_result(drift: Drift, time_ns: int) -> DriftResult:
    """The result made at ``time_ns`` (UTC); ``none`` is a data set, or a feature, that could not be judged."""
    counts = drift.counts()
    severity: Severity = "none" if drift.severity is None else LEVELS[LEVELS.index(drift.severity.value)]
    return DriftResult(
        time=time_ns,
        share=drift.share,
        severity=severity,
        features={level: counts[level] for level in LEVELS},
        rows=drift.current.rows,
    )
