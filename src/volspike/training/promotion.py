"""Putting a model into service: its whole folder, in place of the one before it, in one step, and back again.

What is served says itself which model it took the place of (``promotion.json``), so that folder and file change
together. The one before it goes to ``retired`` first: a run that ends in between leaves a copy too many, and nothing
else changed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from volspike.errors import ArtifactMissing, UsageError
from volspike.locks import take
from volspike.market import format_time
from volspike.models import DEFAULT_MODEL, METADATA_FILE, SIMULATED_MODEL, Artifact, Metadata
from volspike.models.artifact import replace_folder
from volspike.models.choice import PRODUCTION, holds_model
from volspike.models.history import HistoryEntry, remember
from volspike.models.metadata import decoded

PROMOTION_FILE: Final = "promotion.json"
RETIRED: Final = "retired"
CHALLENGER: Final = "challenger"
"""A model that waits to be served, and its file ``shadow.json`` that says so."""

SHADOW_FILE: Final = "shadow.json"
SHIPPED: Final = "shipped"
"""What stands for the model that comes with volspike where something was before it, or is to be again."""

KEPT: Final = 10
"""Models that were served before and are kept to go back to."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """When and why a model was put into service, and under which name the one before it is kept; "" for none."""

    time: str
    reason: str
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """An artifact among others: its name there, and its facts."""

    name: str
    folder: Path
    metadata: Metadata

    @property
    def digest(self) -> str:
        """The first twelve digits of its graph's hash."""
        return self.metadata.onnx_sha256[:12]


def promote(artifact: Path, reason: str = "asked for", trigger: str = "by hand", artifacts: Path | None = None) -> Path:
    """Copy a written artifact to ``production`` among the artifacts; returns where it stands now.

    ``artifacts`` is the folder that it lies in where none is named. ``artifact`` may be one that was served before: it
    is then named by its folder in ``retired``.

    Raises:
        UsageError: something else than an artifact stands there, it cannot be written, somebody else is at it, or a
            model of a simulated market would take the place of a real one's.
        ModelError: the artifact does not load.
    """
    if artifacts is None:
        artifacts = artifact.parent.parent if artifact.parent.name == RETIRED else artifact.parent
    metadata = Artifact.load(artifact).metadata
    with alone(artifacts):
        standing = in_production(artifacts)
        if standing is not None and metadata.simulated and not standing.metadata.simulated:
            raise UsageError(
                f"{artifact} learned from a simulated market and would take the place of {standing.metadata.model}, "
                "which learned from a real one; keep it under another --artifacts"
            )
        previous = SHIPPED if standing is None else _retire(artifacts, standing)
        told = Promotion(time=format_time(time.time_ns()), reason=reason, previous=previous)
        files = _files(artifact) | {PROMOTION_FILE: msgspec.json.format(msgspec.json.encode(told)) + b"\n"}
        place = _serve(artifacts, files)
        _remember(artifacts, HistoryEntry(time=told.time, event="promoted", reason=reason, trigger=trigger), previous)
        _prune(artifacts)
        if artifact == artifacts / CHALLENGER:
            shutil.rmtree(artifact, ignore_errors=True)  # it waits no longer
    return place


def rollback(artifacts: Path, reason: str = "asked for") -> Path:
    """Serve the model again that was served before the present one; returns where it stands.

    Raises:
        ArtifactMissing: nothing is in production, or what was before it is no longer there.
        UsageError: nothing was before it, or the folder cannot be written.
        ModelError: the one before does not load.
    """
    with alone(artifacts):
        standing = in_production(artifacts)
        if standing is None:
            raise ArtifactMissing(f"{artifacts / PRODUCTION}: no model in production, so that there is no way back")
        before = promotion_of(standing.folder)
        if before is None or not before.previous:
            raise UsageError(f"{standing.metadata.model} is the first model in production; promote another by name")
        ours = SIMULATED_MODEL if standing.metadata.simulated else DEFAULT_MODEL
        source = ours if before.previous == SHIPPED else artifacts / RETIRED / before.previous
        Artifact.load(source)
        left = _retire(artifacts, standing)
        place = _serve(artifacts, _files(source))
        now = format_time(time.time_ns())
        _remember(artifacts, HistoryEntry(time=now, event="rolled_back", reason=reason, trigger="by hand"), left)
    return place


def in_production(artifacts: Path) -> Standing | None:
    """What is in production; None where nothing was put there.

    Raises:
        ArtifactCorrupt: it is damaged.
    """
    folder = artifacts / PRODUCTION
    return Standing(PRODUCTION, folder, Artifact.load(folder).metadata) if holds_model(folder) else None


def standing_models(artifacts: Path) -> list[Standing]:
    """Every artifact there: those trained, the one in production, those that were served before; damaged ones not."""
    folders = [*sorted(artifacts.glob("*")), *sorted((artifacts / RETIRED).glob("*"))]
    found = []
    for folder in folders:
        if folder.name.startswith(".") or not holds_model(folder):
            continue
        try:
            metadata = decoded((folder / METADATA_FILE).read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, OSError):
            continue
        found.append(Standing(folder.relative_to(artifacts).as_posix(), folder, metadata))
    return found


def named_artifact(artifacts: Path, name: str) -> Path:
    """The folder of the artifact called ``name``: that of its folder, of one in ``retired``, or its digest's start.

    Raises:
        ArtifactMissing: none is called so.
        UsageError: several are.
    """
    there = [one for one in standing_models(artifacts) if one.name != PRODUCTION]
    named = [one for one in there if name in {one.name, one.folder.name}]
    digests = [one for one in there if len(name) >= 4 and one.metadata.onnx_sha256.startswith(name)]
    chosen = named or digests
    if not chosen:
        raise ArtifactMissing(f"no model {name!r} in {artifacts}; `volspike models list` tells those that there are")
    if len({one.digest for one in chosen}) > 1:
        raise UsageError(f"{name!r} names {', '.join(one.name for one in chosen)}; give more of the digest")
    return chosen[0].folder


def promotion_of(folder: Path) -> Promotion | None:
    """Why an artifact's folder is in production; None where it was put there by other hands, or the file is damaged."""
    try:
        return msgspec.json.decode((folder / PROMOTION_FILE).read_bytes(), type=Promotion)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


@contextmanager
def alone(artifacts: Path, deed: str = "putting a model into service") -> Iterator[None]:
    """For a deed that nobody else may do at the same time.

    Raises:
        UsageError: somebody else is at it, or the folder cannot be written.
    """
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        stream = (artifacts / f".{deed.partition(' ')[0]}.lock").open("ab")
    except OSError as error:
        raise UsageError(f"{artifacts} cannot be written: {error.strerror or error}") from error
    with stream:
        if not take(stream.fileno()):
            raise UsageError(f"another run is {deed} in {artifacts}: try again when it is done")
        yield


def _retire(artifacts: Path, standing: Standing) -> str:
    """Keeps a copy of what is served, and returns its name in ``retired``."""
    told = promotion_of(standing.folder)
    since = standing.metadata.created if told is None else told.time
    stamp = "".join(sign for sign in since[:26] if sign.isalnum())
    name = f"{standing.metadata.model}-{stamp}-{standing.digest[:8]}"
    replace_folder(artifacts / RETIRED / name, _files(standing.folder), mark=METADATA_FILE, check=Artifact.load)
    return name


def _serve(artifacts: Path, files: dict[str, bytes]) -> Path:
    place = artifacts / PRODUCTION
    replace_folder(place, files, mark=METADATA_FILE, check=Artifact.load)
    return place


def _remember(artifacts: Path, entry: HistoryEntry, previous: str) -> None:
    metadata = decoded((artifacts / PRODUCTION / METADATA_FILE).read_bytes())
    remember(
        artifacts,
        msgspec.structs.replace(
            entry,
            model=metadata.model,
            digest=metadata.onnx_sha256[:12],
            previous=previous,
            data_start=metadata.data.start,
            data_end=metadata.data.end,
        ),
    )


def _prune(artifacts: Path) -> None:
    """Lets go of the oldest of those that were served before."""
    retired = sorted((artifacts / RETIRED).glob("[!.]*"), key=lambda folder: folder.stat().st_mtime)
    for folder in retired[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != SHADOW_FILE}
