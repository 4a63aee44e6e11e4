"""``Artifact``: a folder with ``model.onnx``, ``metadata.json`` and plots, and the model loaded from it.

Nothing in the folder is code and nothing is unpickled. A loaded model has been checked against its own hash and against
the feature definitions of this version. An artifact's folder may also hold a ``StoredBaseline``: the best baseline of
the training run, so that a later evaluation can compare both on the same rows.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, log, nan
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.episodes import SeriesOrder
from volspike.errors import ArtifactCorrupt, ArtifactMissing, SchemaMismatch, UsageError
from volspike.features.schema import DEFINITION
from volspike.labels import TRAILING_HOUR, SpikeKind, jump_threshold
from volspike.locks import try_lock
from volspike.models.evidence import model_limitations, texts
from volspike.models.metadata import SUPPLIERS, Metadata, decode_metadata, encode_metadata

if TYPE_CHECKING:
    from volspike.datasets import Dataset
    from volspike.market import Profile
    from volspike.models.scorer import Scorer


ONNX_FILE: Final = "model.onnx"
METADATA_FILE: Final = "metadata.json"


class Artifact:
    """A trained model, ready to score.

    ``heads`` are its models for other horizons by their length in seconds, ascending; each uses features of this one.
    """

    def __init__(self, directory: Path, metadata: Metadata, scorer: Scorer) -> None:
        self.directory = directory
        self.metadata = metadata
        self._scorer = scorer
        self.heads: Mapping[int, Artifact] = {}
        self._spike = metadata.spike_definition
        self._digest = metadata.feature_set.digest

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Loads the artifact in a folder, or in the folder of the given file.

        Raises:
            ArtifactMissing: the folder or one of its two files does not exist.
            ArtifactCorrupt: a file was changed or damaged; the message says where.
            SchemaMismatch: it was trained on features that this version defines differently.
        """
        # ONNX Runtime takes a fifth of a second to import; commands without a model do not need it.
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
            width = len(metadata.features) + metadata.takes_tau
            scorer = Scorer(onnx, width=width, accepts_missing=metadata.accepts_missing)
        except ArtifactCorrupt as error:
            raise ArtifactCorrupt(f"{onnx_file}: {error}; train it again with `volspike train`") from error
        artifact = cls(folder, metadata, scorer)
        artifact.heads = _load_heads(artifact)
        return artifact

    @classmethod
    def save(cls, directory: Path, onnx: bytes, metadata: Metadata, extras: Mapping[str, bytes]) -> Self:
        """Writes an artifact with its extra files (name → content) and loads it; fills in the hash and the limitations.

        It replaces an existing artifact only after it has been loaded from a temporary folder.

        Raises:
            UsageError: ``directory`` contains something other than an artifact, or cannot be written.
            ModelError: the new artifact does not load.
        """
        limitations = tuple(texts(model_limitations(metadata)))
        metadata = msgspec.structs.replace(
            metadata, onnx_sha256=hashlib.sha256(onnx).hexdigest(), limitations=limitations
        )
        files = {**extras, ONNX_FILE: onnx, METADATA_FILE: encode_metadata(metadata)}
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
        """The probability from which there is an alert."""
        return self.metadata.threshold

    @property
    def accepts_missing(self) -> bool:
        """Whether a row with missing values gets a probability; otherwise it gets NaN."""
        return self.metadata.accepts_missing

    @property
    def takes_tau(self) -> bool:
        """Whether τ of each row is an input."""
        return self.metadata.takes_tau

    def probability(self, x: NDArray[np.float64], tau: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, number of features).

        ``tau`` (n,) are the thresholds of a model that ``takes_tau``, by default those of its spike definition. NaN for
        a row that misses a value, unless the model accepts that, and where a τ that the model takes is unknown.
        """
        if not self.takes_tau:
            return self._scorer.probability(x)
        tau = self.thresholds(x) if tau is None else tau
        probability = self._scorer.probability(np.column_stack([x, tau]))
        probability[~np.isfinite(tau)] = np.nan
        return probability

    def probability_of(self, row: Sequence[float], tau: float | None = None) -> float:
        """The probability of a spike for one row of as many values as there are features; otherwise as above."""
        if not self.takes_tau:
            return self._scorer.probability_of(row)
        tau = self.threshold_of(row) if tau is None else tau
        return self._scorer.probability_of([*row, tau]) if isfinite(tau) else nan

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuses rows of another kind than the training rows, or with labels of another horizon.

        Raises:
            SchemaMismatch: the features, the rows' spacing or the horizon differ, or the profile lacks a feature.
        """
        facts, horizon = dataset.facts, self.metadata.horizon_s
        missing = [name for name in self.features if name not in dataset.names]
        if missing and facts.digest in (self.metadata.feature_digest, self._digest):
            raise SchemaMismatch(
                f"the rows lack columns that model {self.name} needs",
                missing=missing,
                remedy="keep these columns, or compute the rows again",
            )
        self.check_inputs(facts.digest, str(facts.every), facts.profile, dataset.names, facts.leader)
        if facts.horizon_s != horizon and np.isfinite(dataset.future_volatility).any():
            raise SchemaMismatch(
                f"model {self.name} forecasts {horizon} s, the labels of the rows cover {facts.horizon_s} s",
                remedy=f"label them with `volspike label --features FILE --horizon {horizon}`",
            )

    def score_rows(
        self, dataset: Dataset, rows: NDArray[np.int64], tau: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """The probability of a spike for these rows of a data set.

        ``tau`` (n,) are the thresholds of all rows, by default those of the model's spike definition. A model with an
        ``adaptation`` learns from the outcomes of all rows before each of them, as it does live.

        Raises:
            SchemaMismatch: the rows lack a column that the model needs, or what τ is derived from.
        """
        tau = dataset.thresholds(self._spike, self.metadata.tau) if tau is None else tau
        if self.metadata.adaptation is None:
            return self.probability(dataset.inputs(self.features, tau, rows), tau[rows])
        probability = self.probability(dataset.inputs(self.features, tau), tau)
        return self._calibrate(dataset, probability, tau)[rows]

    def _calibrate(
        self, dataset: Dataset, probability: NDArray[np.float64], tau: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(n,) the probabilities of a data set after online calibration, product by product, as live."""
        # numba takes half a second to import
        from volspike.datasets.build import row_second  # noqa: PLC0415
        from volspike.models.adaptive import VOLATILITIES, OnlineCalibration  # noqa: PLC0415

        metadata, every = self.metadata, dataset.facts.every
        missing = [name for name in VOLATILITIES if name not in dataset.names]
        if missing or metadata.adaptation is None:
            raise SchemaMismatch(
                f"model {self.name} learns from outcomes with columns that the rows lack",
                missing=missing,
                remedy="replay with --feature-set full",
            )
        second, volatilities = row_second(dataset.time, every), dataset.columns(VOLATILITIES)
        calibrated = np.full(len(dataset), nan)
        for code, name in enumerate(dataset.products):
            rows = np.flatnonzero(dataset.product == code)
            is_listed, horizon = name in metadata.products, metadata.horizon_s
            calibration = OnlineCalibration(metadata.adaptation, is_listed=is_listed, horizon=horizon)
            calibrated[rows] = calibration.run(
                second[rows],
                probability[rows],
                volatilities[rows],
                tau[rows],
                dataset.future_volatility[rows],
                is_per_second=every == "1s",
            )
        return calibrated

    @property
    def holds_budget(self) -> bool:
        """Whether the alert threshold follows a budget of alarm minutes instead of being fixed."""
        return self.metadata.adaptation is not None

    def alert_thresholds(
        self,
        dataset: Dataset,
        probability: NDArray[np.float64],
        tau: NDArray[np.float64],
        budget_minutes: float | None = None,
    ) -> NDArray[np.float64]:
        """(n,) the alert threshold of each row of a data set, given the ``probability`` and ``tau`` (n,) of each.

        It follows the alarm minutes if the model has an ``adaptation`` or a budget is given, and otherwise is the
        model's own.
        """
        adaptation = self.metadata.adaptation
        if adaptation is None and budget_minutes is None:
            return np.full(len(probability), self.threshold)
        from volspike.models.alert_level import BUDGET_MINUTES, alert_levels  # noqa: PLC0415

        # a threshold above 1 means no alert: the level begins at its highest
        first = min(max(self.threshold, 1e-6), 1.0 - 1e-6)
        log_odds = log(first / (1.0 - first)) if adaptation is None else adaptation.alert_log_odds
        series = SeriesOrder.of(dataset.time, dataset.product)
        budget = budget_minutes or BUDGET_MINUTES
        return alert_levels(series, probability, log_odds, budget, dataset.is_calm(tau))

    def thresholds(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) τ of rows ``x`` (n, number of features) under the model's spike definition.

        NaN where the features do not contain what τ is derived from; that of ``level`` is never derived from a row.
        """
        if self._spike.kind is SpikeKind.JUMP and TRAILING_HOUR in self.features:
            return jump_threshold(x[:, self.features.index(TRAILING_HOUR)], self._spike.value)
        return np.full(len(x), nan if self._spike.is_adaptive else self.metadata.tau)

    def threshold_of(self, row: Sequence[float]) -> float:
        """τ of one row; otherwise as ``thresholds``."""
        if self._spike.kind is SpikeKind.JUMP and TRAILING_HOUR in self.features:
            return jump_threshold(row[self.features.index(TRAILING_HOUR)], self._spike.value)
        return nan if self._spike.is_adaptive else self.metadata.tau

    @property
    def horizons(self) -> tuple[int, ...]:
        """The horizons in seconds: that of this model, then those of its heads."""
        return (self.metadata.horizon_s, *self.heads)

    def check_inputs(
        self, digest: str, every: str, profile: Profile, names: Sequence[str] = (), leader: str | None = None
    ) -> None:
        """Refuses rows that lack an input of the model, or of another spacing than the training rows.

        Rows of another feature set are accepted if their ``names`` contain all features of the model and their
        ``leader`` is that of the model, if it has one: a name has the same formula in every set.

        Raises:
            SchemaMismatch: the features or the rows' spacing differ, or the profile does not supply a feature.
        """
        known, other = self.metadata, "retrain with `volspike train`, or serve an artifact built for"
        is_same = digest in (known.feature_digest, self._digest)
        missing = [name for name in self.features if names and name not in names]
        if missing or (not is_same and (not names or known.leader not in (None, leader))):
            raise SchemaMismatch(
                f"model {self.name} expects feature digest {known.feature_digest}, was {digest}",
                missing=missing,
                remedy=f"{other} {digest}; or replay with {known.row_options}",
            )
        if known.every != every:
            raise SchemaMismatch(
                f"model {self.name} expects rows every {known.every}, was {every}",
                remedy=f"{other} {every}; or replay with --every {known.every}",
            )
        self.check_profile(profile)

    def check_profile(self, profile: Profile) -> None:
        """Refuses a profile that does not supply a feature of the model.

        Raises:
            SchemaMismatch: with the names of these features, and what supplies them.
        """
        missing = self.metadata.missing_inputs(profile)
        if not missing:
            return
        raise SchemaMismatch(
            f"model {self.name} needs {' and '.join(missing)}, which a source of profile {profile} does not send",
            missing=[name for names in missing.values() for name in names],
            remedy=f"choose {' and '.join(SUPPLIERS[supply] for supply in missing)}, or train without these features",
        )


def head_files(horizon: int, onnx: bytes, metadata: Metadata) -> dict[str, bytes]:
    """The files of a head, name → content, to be stored in the folder of an artifact of another horizon."""
    metadata = msgspec.structs.replace(metadata, onnx_sha256=hashlib.sha256(onnx).hexdigest())
    return {f"horizon_{horizon}.onnx": onnx, f"horizon_{horizon}.json": encode_metadata(metadata)}


def _load_heads(artifact: Artifact) -> dict[int, Artifact]:
    """The heads in the folder of an artifact.

    Raises:
        ArtifactCorrupt: a file is damaged or missing, or a head needs a feature that the artifact does not have.
        SchemaMismatch: a head was trained on features that this version defines differently.
    """
    from volspike.models.scorer import Scorer  # noqa: PLC0415  as in ``Artifact.load``

    heads = {}
    for file in artifact.directory.glob("horizon_*.json"):
        metadata, graph = _read_metadata(file), file.with_suffix(".onnx")
        if not graph.is_file():
            raise ArtifactCorrupt(f"{artifact.directory}: {file.name} without {graph.name}; copy the complete folder")
        onnx = graph.read_bytes()
        _check_hash(graph, onnx, metadata)
        _check_features(file, metadata)
        if not set(metadata.features) <= set(artifact.features):
            raise ArtifactCorrupt(f"{file}: needs features that {METADATA_FILE} does not have; train them together")
        width = len(metadata.features) + metadata.takes_tau
        scorer = Scorer(onnx, width=width, accepts_missing=metadata.accepts_missing)
        heads[metadata.horizon_s] = Artifact(artifact.directory, metadata, scorer)
    return dict(sorted(heads.items()))


def _read_metadata(file: Path) -> Metadata:
    try:
        return decode_metadata(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{file}: {error}; train it again with `volspike train`") from error


def _check_hash(file: Path, onnx: bytes, metadata: Metadata) -> None:
    found = hashlib.sha256(onnx).hexdigest()
    if found != metadata.onnx_sha256:
        raise ArtifactCorrupt(
            f"{file}: sha256 is {found[:12]}…, metadata says {metadata.onnx_sha256[:12]}…; "
            "copy the complete folder again, or train it again with `volspike train`"
        )


def _check_features(file: Path, metadata: Metadata) -> None:
    try:
        features = metadata.feature_set
    except UsageError as error:
        raise ArtifactCorrupt(f"{file}: {error} - at `$.windows`") from error
    except SchemaMismatch as error:
        raise SchemaMismatch(f"{file}: {error}") from error
    unknown = [name for name in metadata.features if name not in features.names]
    if unknown or metadata.feature_definition != DEFINITION:
        raise SchemaMismatch(
            f"model {metadata.model} expects feature digest {metadata.feature_digest} of definition "
            f"{metadata.feature_definition}, the {metadata.scope} set over windows "
            f"{' '.join(map(str, metadata.windows))} has {features.digest} of definition {DEFINITION} here",
            missing=unknown,
            remedy="retrain with `volspike train`",
        )


def replace_folder(folder: Path, files: Mapping[str, bytes], *, mark: str, check: Callable[[Path], object]) -> None:
    """Makes ``folder`` contain exactly ``files`` (name → content), or leaves it as it was.

    The files are written to a new folder, which is renamed into place: readers see the old folder, the new one or,
    between two renames, none; never a mixture. ``check`` is called on the new folder first; an error from it stops the
    replacement. A folder that contains something but no file named ``mark`` is not replaced.

    Raises:
        UsageError: ``folder`` contains something other than an artifact, or cannot be written.
    """
    if folder.exists() and not _is_replaceable(folder, mark):
        raise UsageError(f"{folder} contains something other than an artifact; choose another folder, or move it away")
    new = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    try:
        new.mkdir(parents=True)
        with _locked(new):
            for name, content in files.items():
                (new / name).write_bytes(content)
            check(new)
            _swap(new, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Removes ``folder`` in one step: a run that is killed leaves it complete, or a rest for ``recover_folders``.

    Raises:
        UsageError: it cannot be removed.
    """
    rest = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    try:
        with _locked(folder):
            folder.rename(rest)
            shutil.rmtree(rest, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be removed: {error.strerror or error}") from error


_STAGING: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}(?P<old>\.old)?")


def recover_folders(parent: Path) -> None:
    """Finishes the replacements in ``parent`` that a killed ``replace_folder`` has left; running ones are not touched.

    A folder that was renamed away and not replaced yet gets its name back; all other temporary folders are deleted.
    """
    for staging in sorted(parent.glob(".*"), reverse=True) if parent.is_dir() else ():  # ".old" first
        match = _STAGING.fullmatch(staging.name)
        if match is None or not staging.is_dir():
            continue
        folder = parent / match["name"]
        with _locked(staging) as is_leftover:
            if is_leftover and match["old"] and not folder.exists():
                staging.rename(folder)
            elif is_leftover:
                shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds the lock of a folder, which stays with it when it is renamed; yields False if another process holds it.

    Where a folder cannot be opened (Windows), there is no lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _is_replaceable(folder: Path, mark: str) -> bool:
    return folder.is_dir() and ((folder / mark).is_file() or not any(folder.iterdir()))


def _swap(new: Path, folder: Path) -> None:
    """Renames the old folder to a temporary name and the new one to its name; if that fails, the old one back."""
    if not folder.exists():
        new.rename(folder)
        return
    old = new.with_name(new.name + ".old")
    with _locked(folder):
        folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


GRAPH_FILE: Final = "baseline.onnx"
FACTS_FILE: Final = "baseline.json"


class StoredBaselineFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``baseline.json``: the baseline's name, its columns in order, and its threshold, chosen as the model's was."""

    model: str
    features: tuple[str, ...]
    threshold: float
    accepts_missing: bool
    onnx_sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class StoredBaseline:
    """The best baseline of a training run, stored in the model's artifact."""

    facts: StoredBaselineFacts
    onnx: bytes

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, f); NaN for a row that cannot be scored."""
        from volspike.models.scorer import Scorer  # noqa: PLC0415

        facts = self.facts
        return Scorer(self.onnx, width=len(facts.features), accepts_missing=facts.accepts_missing).probability(x)


def stored_baseline_files(onnx: bytes, facts: StoredBaselineFacts) -> dict[str, bytes]:
    """The files to store, name → content; fills in the hash."""
    facts = msgspec.structs.replace(facts, onnx_sha256=hashlib.sha256(onnx).hexdigest())
    return {GRAPH_FILE: onnx, FACTS_FILE: msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"}


def load_stored_baseline(folder: Path) -> StoredBaseline | None:
    """The baseline in an artifact's folder, if there is one.

    Raises:
        ArtifactCorrupt: a file was changed or damaged.
    """
    graph, described = folder / GRAPH_FILE, folder / FACTS_FILE
    if not (graph.is_file() and described.is_file()):
        return None
    onnx = graph.read_bytes()
    try:
        facts = msgspec.json.decode(described.read_bytes(), type=StoredBaselineFacts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(f"{described}: {error}; train it again with `volspike train`") from error
    if hashlib.sha256(onnx).hexdigest() != facts.onnx_sha256:
        raise ArtifactCorrupt(f"{graph}: its sha256 is not the one in {FACTS_FILE}; copy the complete folder again")
    return StoredBaseline(facts, onnx)
