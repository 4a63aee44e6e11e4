"""A challenger that won waits in shadow: beside the champion it scores what is recorded, and counts for nothing yet.

Live rows and replayed ones are the same bit for bit, so that what it would have said live is what it says of the tape:
the process that listens to the market has no second model to carry.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from volspike.datasets import Dataset
from volspike.errors import ArtifactCorrupt
from volspike.market import SECOND_NS, nanoseconds
from volspike.models import METADATA_FILE, Artifact
from volspike.models.artifact import replace_folder
from volspike.models.choice import holds_model
from volspike.retraining.champion import Champion
from volspike.retraining.duel import Verdict, duel, rows_after, unseen_rows
from volspike.training.promotion import CHALLENGER, SHADOW_FILE

MOST_DAYS: Final = 14.0
"""A challenger that no market has judged by then is dropped: it is old itself."""


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """Since when (RFC 3339) a challenger waits, for how many hours of market, why it was trained, and its version in
    the tracker, "" without one."""

    since: str
    hours: float
    reason: str
    version: str = ""


def put_in_shadow(artifacts: Path, challenger: Path, shadow: Shadow) -> Path:
    """Copies a written artifact to ``challenger`` among the artifacts, in place of one that waited there.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = artifacts / CHALLENGER
    files = {file.name: file.read_bytes() for file in challenger.iterdir() if file.is_file()}
    files[SHADOW_FILE] = msgspec.json.format(msgspec.json.encode(shadow)) + b"\n"
    replace_folder(place, files, mark=METADATA_FILE, check=Artifact.load)
    return place


def waiting(artifacts: Path) -> tuple[Artifact, Shadow] | None:
    """The challenger that waits; None where there is none.

    Raises:
        ArtifactCorrupt: its files are not what was written.
    """
    place = artifacts / CHALLENGER
    if not holds_model(place) or not (place / SHADOW_FILE).is_file():
        return None
    try:
        shadow = msgspec.json.decode((place / SHADOW_FILE).read_bytes(), type=Shadow)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{place / SHADOW_FILE}: {error}; remove {place}") from error
    return Artifact.load(place), shadow


def in_shadow(dataset: Dataset, champion: Champion, challenger: Artifact, shadow: Shadow, now_ns: int) -> Verdict:
    """How the challenger did on all that neither model has seen, once enough was recorded since it was made.

    Undecided while there is too little of that; after 14 days without a decision it has lost.
    """
    rows = rows_after(dataset, max(nanoseconds(challenger.metadata.data.end), champion.seen_until))
    seconds = len(set((dataset.time[rows] // SECOND_NS).tolist()))
    age_days = (now_ns - nanoseconds(shadow.since)) / (86_400 * SECOND_NS)
    span_h = float(dataset.time[rows[-1]] - dataset.time[rows[0]]) / SECOND_NS / 3600.0 if len(rows) else 0.0
    figures = {"shadow_hours": round(span_h, 2), "shadow_seconds": seconds, "shadow_days": round(age_days, 2)}
    verdict = Verdict(is_not_worse=None, reason=f"{span_h:.1f} of {shadow.hours:g} hours in shadow", figures=figures)
    if span_h >= shadow.hours:
        told = duel(
            dataset, unseen_rows(dataset, champion.seen_until, challenger.metadata), champion.artifact, challenger
        )
        verdict = msgspec.structs.replace(told, figures=told.figures | figures)
    if verdict.is_not_worse is None and age_days > MOST_DAYS:
        reason = f"{verdict.reason}, after {age_days:.0f} days"
        return msgspec.structs.replace(verdict, is_not_worse=False, reason=reason)
    return verdict


def leave_shadow(artifacts: Path) -> None:
    """Removes the challenger that waited: it is served now, or has lost."""
    shutil.rmtree(artifacts / CHALLENGER, ignore_errors=True)
