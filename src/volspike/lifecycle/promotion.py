"""Promotion and rollback of the served model, and the history of both.

Promotion replaces ``artifacts/production`` in one step. The folder itself records which model it replaced
(``promotion.json``), so that the record and the model change together. The previous model is copied to
``artifacts/retired`` first: a run that is killed in between leaves an extra copy and changes nothing else. Each event
is a line in ``history.jsonl``, which is only ever appended.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
import structlog

from volspike.errors import ArtifactMissing, UnreadableFile, UsageError
from volspike.locks import try_lock
from volspike.market import format_time
from volspike.models import METADATA_FILE, Artifact, Metadata
from volspike.models.artifact import recover_folders, remove_folder, replace_folder
from volspike.models.choice import PRODUCTION, holds_model
from volspike.models.evidence import blocking_limitations, texts
from volspike.models.metadata import decode_metadata
from volspike.stores import DAMAGED

if TYPE_CHECKING:
    from volspike.training.report import TrainingReport

HISTORY_FILE: Final = "history.jsonl"

Event: TypeAlias = Literal["checked", "trained", "waits", "rejected", "promoted", "rolled_back", "failed"]

_log = structlog.get_logger(__name__)


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event at ``time`` (RFC 3339), its reason, and the model (``digest``: of its ONNX graph) it is about.

    ``checked``: no training was needed. ``trained``: a challenger was trained. ``waits``: it stays in shadow.
    ``rejected``: it was dropped. ``promoted`` and ``rolled_back``: another model is served, without a digest if it is
    the ``shipped`` one. ``failed``: the run changed nothing. ``severity`` is the drift found, ``data_start`` and
    ``data_end`` bound the rows used, ``figures`` are the numbers behind the decision.
    """

    time: str
    event: Event
    reason: str
    trigger: str = ""
    model: str = ""
    digest: str = ""
    previous: str = ""
    severity: str = ""
    data_start: str = ""
    data_end: str = ""
    figures: dict[str, Any] = {}


def entry_about(metadata: Metadata, **event: Any) -> HistoryEntry:
    """The entry of an ``event`` of a model; the other fields of the entry are its facts."""
    data, digest = metadata.data, metadata.onnx_sha256[:12]
    return HistoryEntry(model=metadata.model, digest=digest, data_start=data.start, data_end=data.end, **event)


def append_entry(artifacts: Path, entry: HistoryEntry) -> None:
    """Append a line and sync it to disk; if the file cannot be written, the line is logged instead.

    What the line records has happened already, so a full disk must not make it look like a failure.
    """
    file = artifacts / HISTORY_FILE
    line = msgspec.json.encode(entry) + b"\n"
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            # a killed run may have left half a line: start a new one
            start = b"\n" if stream.tell() and not _ends_with_newline(file) else b""
            stream.write(start + line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        _log.error("history_not_written", file=str(file), reason=error.strerror or str(error), entry=line.decode())


def read_history(artifacts: Path) -> list[HistoryEntry]:
    """All entries, oldest first; a damaged line is skipped.

    Raises:
        UnreadableFile: the file exists and cannot be opened.
    """
    try:
        lines = (artifacts / HISTORY_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableFile(artifacts / HISTORY_FILE, f"cannot be opened: {error.strerror or error}") from error
    return [entry for line in lines if (entry := _decode_entry(line)) is not None]


def _decode_entry(line: bytes) -> HistoryEntry | None:
    try:
        return msgspec.json.decode(line, type=HistoryEntry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


PROMOTION_FILE: Final = "promotion.json"
RETIRED: Final = "retired"
CHALLENGER: Final = "challenger"
"""The folder of a model in shadow; its ``shadow.json`` records since when."""

SHADOW_FILE: Final = "shadow.json"
SHIPPED: Final = "shipped"
"""The value of ``Promotion.previous`` for the model that ships with volspike, which needs no copy."""

KEPT: Final = 10
"""Number of previously served models kept for a rollback."""

NO_REASON: Final = "no reason given"


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """When and why a model was promoted, and the name of the previous model in ``retired``; "" for none."""

    time: str
    reason: str
    previous: str = ""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """An artifact below the artifacts folder: its path there as ``name``, and its metadata."""

    name: str
    folder: Path
    metadata: Metadata

    @property
    def digest(self) -> str:
        """The first twelve digits of the SHA-256 of its ONNX graph."""
        return self.metadata.onnx_sha256[:12]


def promote(
    artifact: Path,
    reason: str = NO_REASON,
    trigger: str = "by hand",
    artifacts: Path | None = None,
    *,
    force: bool = False,
) -> Path:
    """Copy ``artifact`` to ``artifacts/production``; returns that folder.

    Without ``artifacts`` it is the folder that holds ``artifact``, which may be a model in ``retired``. With ``force``
    its blocking limitations (``volspike.models.evidence``) become part of the reason.

    Raises:
        UsageError: ``production`` is not an artifact, cannot be written, is being changed by another run, or holds a
            model of a real market while ``artifact`` learned from a simulated one; or ``artifact`` has a blocking
            limitation, without ``force``.
        ModelError: the artifact does not load.
    """
    if artifacts is None:
        artifacts = artifact.parent.parent if artifact.parent.name == RETIRED else artifact.parent
    metadata = Artifact.load(artifact).metadata
    if blocking := texts(blocking_limitations(metadata)):
        if not force:
            raise UsageError(
                f"{artifact} is not promoted: {'; '.join(blocking)}; to serve it nevertheless, run `volspike models "
                f"promote {artifact.name} --force`"
            )
        reason = f"{reason} (forced; {'; '.join(blocking)})"
    with exclusive_access(artifacts):
        recover_artifacts(artifacts)
        served = load_production(artifacts)
        if served is not None and metadata.simulated and not served.metadata.simulated:
            raise UsageError(
                f"{artifact} learned from a simulated market and would replace {served.metadata.model}, "
                "which learned from a real one; keep it under another --artifacts"
            )
        previous = SHIPPED if served is None else _retire(artifacts, served)
        promotion = Promotion(time=format_time(time.time_ns()), reason=reason, previous=previous)
        files = _read_files(artifact) | {PROMOTION_FILE: msgspec.json.format(msgspec.json.encode(promotion)) + b"\n"}
        place = _replace_production(artifacts, files)
        _append_served(artifacts, previous, time=promotion.time, event="promoted", reason=reason, trigger=trigger)
        _prune_retired(artifacts)
        if artifact == artifacts / CHALLENGER:
            shutil.rmtree(artifact, ignore_errors=True)
    return place


def promote_chosen(report: TrainingReport) -> TrainingReport:
    """Promote the chosen model of a training run if its request says so; the report with ``promoted`` filled in.

    Raises:
        UsageError, ModelError: as ``promote``.
    """
    if not report.request.promote:
        return report
    return replace(report, promoted=promote(report.request.artifacts / report.chosen))


def rollback(artifacts: Path, reason: str = NO_REASON) -> Path:
    """Serve the previous model again; returns the folder ``production``.

    The rollback of a first promotion removes that folder: nothing is promoted then, and the model that ships for the
    kind of market is served, as before the promotion.

    Raises:
        ArtifactMissing: ``production`` is empty, or the previous model was deleted.
        UsageError: there is no previous model, or the folder cannot be written.
        ModelError: the previous model does not load.
    """
    with exclusive_access(artifacts):
        recover_artifacts(artifacts)
        served = load_production(artifacts)
        if served is None:
            raise ArtifactMissing(f"{artifacts / PRODUCTION}: no model in production to roll back from")
        promotion = read_promotion(served.folder)
        if promotion is None or not promotion.previous:
            raise UsageError(f"{served.metadata.model} is the first model in production; promote another by name")
        now = format_time(time.time_ns())
        event: dict[str, Any] = {"time": now, "event": "rolled_back", "reason": reason, "trigger": "by hand"}
        if promotion.previous == SHIPPED:
            replaced = _retire(artifacts, served)
            remove_folder(served.folder)
            append_entry(artifacts, HistoryEntry(model=SHIPPED, previous=replaced, **event))
            return served.folder
        source = artifacts / RETIRED / promotion.previous
        Artifact.load(source)
        replaced = _retire(artifacts, served)
        place = _replace_production(artifacts, _read_files(source))
        _append_served(artifacts, replaced, **event)
    return place


def load_production(artifacts: Path) -> StoredModel | None:
    """The model in ``production``; None if there is none.

    Raises:
        ArtifactCorrupt: it is damaged.
    """
    folder = artifacts / PRODUCTION
    return StoredModel(PRODUCTION, folder, Artifact.load(folder).metadata) if holds_model(folder) else None


def list_models(artifacts: Path) -> list[StoredModel]:
    """Every readable artifact: trained, in production, and previously served."""
    folders = [*sorted(artifacts.glob("*")), *sorted((artifacts / RETIRED).glob("*"))]
    found = []
    for folder in folders:
        if folder.name.startswith(".") or DAMAGED in folder.name or not holds_model(folder):
            continue
        try:
            metadata = decode_metadata((folder / METADATA_FILE).read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, OSError):
            continue
        found.append(StoredModel(folder.relative_to(artifacts).as_posix(), folder, metadata))
    return found


def find_model(artifacts: Path, name: str) -> Path:
    """The folder of the artifact with this folder name, or whose digest starts with ``name`` (four digits or more).

    Raises:
        ArtifactMissing: no artifact matches.
        UsageError: several do.
    """
    models = [model for model in list_models(artifacts) if model.name != PRODUCTION]
    named = [model for model in models if name in {model.name, model.folder.name}]
    found = named or [model for model in models if len(name) >= 4 and model.metadata.onnx_sha256.startswith(name)]
    if not found:
        raise ArtifactMissing(f"no model {name!r} in {artifacts}; list the models with `volspike models list`")
    if len({model.digest for model in found}) > 1:
        raise UsageError(f"{name!r} matches {', '.join(model.name for model in found)}; give more of the digest")
    return found[0].folder


def read_promotion(folder: Path) -> Promotion | None:
    """The promotion record of a folder; None if it is missing or damaged."""
    try:
        return msgspec.json.decode((folder / PROMOTION_FILE).read_bytes(), type=Promotion)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


@contextmanager
def exclusive_access(artifacts: Path, operation: str = "promoting a model") -> Iterator[None]:
    """Hold the lock of ``operation`` (one per first word) on the artifacts folder.

    Raises:
        UsageError: another run holds it, or the folder cannot be written.
    """
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        stream = (artifacts / f".{operation.partition(' ')[0]}.lock").open("ab")
    except OSError as error:
        raise UsageError(f"{artifacts} cannot be written: {error.strerror or error}") from error
    with stream:
        if not try_lock(stream.fileno()):
            raise UsageError(f"another run is {operation} in {artifacts}: try again when it has ended")
        yield


def recover_artifacts(artifacts: Path) -> None:
    """Finish what a killed promotion has left: a model that was being replaced is served again."""
    for folder in (artifacts, artifacts / RETIRED):
        recover_folders(folder)


def _retire(artifacts: Path, model: StoredModel) -> str:
    """Copy the served model to ``retired``; returns its name there."""
    promotion = read_promotion(model.folder)
    since = model.metadata.created if promotion is None else promotion.time
    stamp = "".join(character for character in since[:26] if character.isalnum())
    name = f"{model.metadata.model}-{stamp}-{model.digest[:8]}"
    replace_folder(artifacts / RETIRED / name, _read_files(model.folder), mark=METADATA_FILE, check=Artifact.load)
    return name


def _replace_production(artifacts: Path, files: dict[str, bytes]) -> Path:
    place = artifacts / PRODUCTION
    replace_folder(place, files, mark=METADATA_FILE, check=Artifact.load)
    return place


def _append_served(artifacts: Path, previous: str, **event: Any) -> None:
    """Append an event of the model now in production."""
    metadata = decode_metadata((artifacts / PRODUCTION / METADATA_FILE).read_bytes())
    append_entry(artifacts, entry_about(metadata, previous=previous, **event))


def _prune_retired(artifacts: Path) -> None:
    """Delete all but the newest previously served models."""
    retired = sorted((artifacts / RETIRED).glob("[!.]*"), key=lambda folder: folder.stat().st_mtime)
    for folder in retired[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _read_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != SHADOW_FILE}
