"""Results of the last drift check and the last training run: two small files, read by the metrics of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar
from uuid import uuid4

import msgspec

from volspike.errors import UnreadableFile, UsageError

RESULTS: Final = Path("models/results")
"""The default folder."""

ResultSeverity: TypeAlias = Literal["none", "low", "medium", "high"]
TrainingOutcome: TypeAlias = Literal["promoted", "kept", "failed"]


class DriftResult(msgspec.Struct, frozen=True, kw_only=True):
    """A drift check at ``time`` (ns UTC): the share of the features that drifted, and the severity of the data set.

    ``features`` counts the features by severity, ``none`` being those without a test; ``rows`` counts the newer rows.
    """

    time: int
    share: float
    severity: ResultSeverity
    features: dict[ResultSeverity, int]
    rows: int


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A training run that ended at ``time`` (ns UTC): its model, the reason for it, and its outcome.

    The model was ``promoted``, or ``kept`` without being promoted, or the run ``failed``. The metrics are those on the
    final block, which no model was fitted to; None where undefined.
    """

    time: int
    model: str
    outcome: TrainingOutcome
    reason: str
    pr_auc: float | None = None
    brier: float | None = None
    precision: float | None = None
    recall: float | None = None
    base_rate: float | None = None


Result = TypeVar("Result", DriftResult, TrainingResult)

_FILES: Final[dict[type, str]] = {DriftResult: "drift.json", TrainingResult: "training.json"}


def write_result(result: DriftResult | TrainingResult, folder: Path = RESULTS) -> Path:
    """Replace the previous result of this kind atomically.

    Raises:
        UsageError: the folder cannot be written.
    """
    file = folder / _FILES[type(result)]
    temporary = file.with_name(f".{file.name}.{uuid4().hex[:8]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        temporary.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}; choose another --results") from error
    return file


def read_result(kind: type[Result], folder: Path = RESULTS) -> Result | None:
    """The last result of a kind; None if there is none.

    Raises:
        UnreadableFile: the file is damaged.
    """
    file = folder / _FILES[kind]
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(file, f"no {kind.__name__}: {error}; move it away") from error
