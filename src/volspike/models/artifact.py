"""Replacing a folder as a whole: written beside it, checked, then renamed into its place.

Who reads meanwhile meets the old folder, the new one, or, between two renames, none; never a mixture.

An artifact: a folder with ``model.onnx``, ``metadata.json`` and plots, and the model loaded from it.

Nothing in the folder is code and nothing is unpickled. What is loaded has been checked: against its own hash,
and against the feature definitions of this volspike.

The best baseline of a training run, kept beside each of its models, so that whoever judges the model anew can judge
both on the same rows: ``baseline.onnx`` and ``baseline.json`` in the artifact's folder.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import ArtifactCorrupt, ArtifactMissing, SchemaMismatch, UsageError
from volspike.models.metadata import Metadata, decoded, encoded

if TYPE_CHECKING:
    from volspike.models.scorer import Scorer


def replace_folder(folder: Path, files: Mapping[str, bytes], *, mark: str, check: Callable[[Path], object]) -> None:
    """Make ``folder`` hold exactly ``files`` (name → content), or leave it as it was.

    ``check`` is called on the new folder before it takes the place of the old; what it raises stops the
    replacement. A folder that holds something but no file named ``mark`` is not ours and is left alone.

    Raises:
        UsageError: ``folder`` is not ours, or cannot be written.
    """
    if folder.exists() and not _is_ours(folder, mark):
        raise UsageError(f"{folder} holds something else than an artifact; name another folder, or move it away")
    beside = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    try:
        _write(beside, files)
        check(beside)
        _swap(beside, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _is_ours(folder: Path, mark: str) -> bool:
    return folder.is_dir() and ((folder / mark).is_file() or not any(folder.iterdir()))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _swap(new: Path, folder: Path) -> None:
    """Rename the old folder aside and the new one into its place; if that fails, the old one back."""
    if not folder.exists():
        new.rename(folder)
        return
    aside = new.with_name(new.name + ".old")
    folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


ONNX_FILE: Final = "model.onnx"
METADATA_FILE: Final = "metadata.json"


class Artifact:
    """A trained model, ready to score."""

    def __init__(self, directory: Path, metadata: Metadata, scorer: Scorer) -> None:
        self.directory = directory
        self.metadata = metadata
        self._scorer = scorer

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The artifact in a folder; the path of a file in the folder means the folder.

        Raises:
            ArtifactMissing: the folder or one of its two files is not there.
            ArtifactCorrupt: a file is not what was written, with the place of the fault.
            SchemaMismatch: it was trained on features that this volspike defines otherwise.
        """
        # ONNX Runtime takes a fifth of a second to import: it comes with the first model, not with every command.
        from volspike.models.scorer import Scorer  # noqa: PLC0415

        folder = directory if directory.is_dir() else directory.parent
        metadata_file, onnx_file = folder / METADATA_FILE, folder / ONNX_FILE
        absent = [file.name for file in (metadata_file, onnx_file) if not file.is_file()]
        if absent:
            raise ArtifactMissing(f"{directory}: no {' and no '.join(absent)}; train one with `volspike train`")
        metadata = _read_metadata(metadata_file)
        onnx = onnx_file.read_bytes()
        _check_hash(onnx_file, onnx, metadata)
        _check_features(metadata_file, metadata)
        try:
            scorer = Scorer(onnx, width=len(metadata.features), accepts_missing=metadata.accepts_missing)
        except ArtifactCorrupt as error:
            raise ArtifactCorrupt(f"{onnx_file}: {error}; train it anew with `volspike train`") from error
        return cls(folder, metadata, scorer)

    @classmethod
    def save(cls, directory: Path, onnx: bytes, metadata: Metadata, extras: Mapping[str, bytes]) -> Self:
        """Write an artifact with its extra files (name → content) and load it; the hash is filled in here.

        All of it is written beside ``directory``, loaded from there, and only then put in its place; whatever
        goes wrong before that leaves an existing artifact as it was.

        Raises:
            UsageError: ``directory`` holds something that is no artifact, or cannot be written.
            ModelError: what was written does not load.
        """
        metadata = msgspec.structs.replace(metadata, onnx_sha256=hashlib.sha256(onnx).hexdigest())
        files = {**extras, ONNX_FILE: onnx, METADATA_FILE: encoded(metadata)}
        replace_folder(directory, files, mark=METADATA_FILE, check=cls.load)
        return cls.load(directory)

    @property
    def name(self) -> str:
        """The detector's name, such as ``random_forest``."""
        return self.metadata.model

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of a row, in order."""
        return self.metadata.features

    @property
    def threshold(self) -> float:
        """The probability from which on there is an alert."""
        return self.metadata.threshold

    @property
    def accepts_missing(self) -> bool:
        """Whether a row with missing values gets a probability; else it gets NaN."""
        return self.metadata.accepts_missing

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, number of features).

        NaN for a row that misses a value, unless the model accepts that.
        """
        return self._scorer.probability(x)

    def probability_of(self, row: Sequence[float]) -> float:
        """The probability of a spike for one row of as many values as there are features."""
        return self._scorer.probability_of(row)

    def expects(self, digest: str, every: str, profile: str) -> None:
        """Refuse rows of another kind than those that the model was trained on.

        Raises:
            SchemaMismatch: the digest, the rows' spacing or the source's profile is another.
        """
        known = self.metadata
        if digest != known.feature_digest:
            raise SchemaMismatch(
                f"model {self.name} expects feature digest {known.feature_digest}, was {digest}",
                remedy=f"retrain with `volspike train`, or serve an artifact built for {digest}",
            )
        for what, wanted, was in (("rows every", known.every, every), ("profile", known.profile, profile)):
            if was != wanted:
                raise SchemaMismatch(
                    f"model {self.name} expects {what} {wanted}, was {was}",
                    remedy=f"retrain with `volspike train`, or serve an artifact built for {was}",
                )


def _read_metadata(file: Path) -> Metadata:
    try:
        return decoded(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{file}: {error}; train it anew with `volspike train`") from error


def _check_hash(file: Path, onnx: bytes, metadata: Metadata) -> None:
    found = hashlib.sha256(onnx).hexdigest()
    if found != metadata.onnx_sha256:
        raise ArtifactCorrupt(
            f"{file}: sha256 is {found[:12]}…, metadata says {metadata.onnx_sha256[:12]}…; "
            "copy the folder again whole, or train it anew with `volspike train`"
        )


def _check_features(file: Path, metadata: Metadata) -> None:
    try:
        features = metadata.feature_set
    except UsageError as error:
        raise ArtifactCorrupt(f"{file}: {error} - at `$.windows`") from error
    unknown = [name for name in metadata.features if name not in features.names]
    if unknown or features.digest != metadata.feature_digest:
        raise SchemaMismatch(
            f"model {metadata.model} expects feature digest {metadata.feature_digest}, "
            f"the {metadata.scope} set over windows {' '.join(map(str, metadata.windows))} has {features.digest} here",
            missing=unknown,
            remedy="retrain with `volspike train`",
        )


GRAPH_FILE: Final = "baseline.onnx"
FACTS_FILE: Final = "baseline.json"


class CompanionFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The baseline's name, columns in order, and the threshold that was served of it, chosen as the model's was."""

    model: str
    features: tuple[str, ...]
    threshold: float
    accepts_missing: bool
    onnx_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Companion:
    """A baseline that scores rows."""

    facts: CompanionFacts
    onnx: bytes

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, number of features); NaN where it has none."""
        from volspike.models.scorer import Scorer  # noqa: PLC0415

        facts = self.facts
        return Scorer(self.onnx, width=len(facts.features), accepts_missing=facts.accepts_missing).probability(x)


def companion_files(onnx: bytes, facts: CompanionFacts) -> dict[str, bytes]:
    """File name → content; the hash is filled in here."""
    facts = msgspec.structs.replace(facts, onnx_sha256=hashlib.sha256(onnx).hexdigest())
    return {GRAPH_FILE: onnx, FACTS_FILE: msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"}


def companion_of(folder: Path) -> Companion | None:
    """The baseline in an artifact's folder; None where there is none.

    Raises:
        ArtifactCorrupt: it is not what was written.
    """
    graph, told = folder / GRAPH_FILE, folder / FACTS_FILE
    if not (graph.is_file() and told.is_file()):
        return None
    onnx = graph.read_bytes()
    try:
        facts = msgspec.json.decode(told.read_bytes(), type=CompanionFacts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{told}: {error}; train it anew with `volspike train`") from error
    if hashlib.sha256(onnx).hexdigest() != facts.onnx_sha256:
        raise ArtifactCorrupt(f"{graph}: its sha256 is not the one in {FACTS_FILE}; copy the folder again whole")
    return Companion(facts, onnx)
