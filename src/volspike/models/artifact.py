"""An artifact: a folder with ``model.onnx``, ``metadata.json`` and plots, and the model loaded from it.

Nothing in the folder is code and nothing is unpickled. What is loaded has been checked: against its own hash,
and against the feature definitions of this volspike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import ArtifactCorrupt, ArtifactMissing, SchemaMismatch, UsageError
from volspike.models.folder import replace_folder
from volspike.models.metadata import Metadata, decoded, encoded

if TYPE_CHECKING:
    from volspike.models.scorer import Scorer

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
