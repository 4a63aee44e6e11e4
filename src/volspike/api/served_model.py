"""What the API needs of a model, and where it comes from.

A trial before a model is served: it must score, the same alone and among others, and tell probabilities.

Loading a model to serve: a scorer that was tried, or the reason why there is none.

The folder that a model is served from, looked at again and again: what is new there is loaded and tried.

It is looked at by the clock. A file watcher would wait on the very folder that a promotion renames away, and hears
nothing of a mounted volume; two ``stat`` calls a second cost microseconds and see both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.errors import ArtifactCorrupt, VolspikeError
from volspike.models import METADATA_FILE, ONNX_FILE
from volspike.models.metadata import DataFacts, Figure


class Facts(Protocol):
    """What a model says of itself, as far as the API repeats it. Models of equal facts are one model."""

    @property
    def created(self) -> str:
        """When the model was trained, RFC 3339."""

    @property
    def onnx_sha256(self) -> str:
        """The hash of the model's graph."""

    @property
    def feature_digest(self) -> str:
        """The digest of the feature set that the model was trained on."""

    @property
    def simulated(self) -> bool:
        """Whether the model learned from a simulated market."""

    @property
    def data(self) -> DataFacts:
        """What data it saw."""

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Figure]]:
        """What it and its baselines reached on rows that it had not learned from, by who and by figure."""


class Scorer(Protocol):
    """A model as the API sees it; ``volspike.models.Artifact`` is one."""

    @property
    def name(self) -> str:
        """The model's name: ``random_forest``."""

    @property
    def directory(self) -> Path:
        """Where the model was loaded from."""

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the model takes, in its order."""

    @property
    def threshold(self) -> float:
        """The probability from which a row is a spike."""

    @property
    def metadata(self) -> Facts:
        """What the model says of itself."""

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The spike probability of each row of ``x`` (float64[n, f]), float64[n]; safe to call from several threads."""

    def probability_of(self, row: Sequence[float]) -> float:
        """The spike probability of one row of f values."""


Load = Callable[[Path], Scorer]


def load_artifact(path: Path) -> Scorer:
    """The artifact in ``path``; its hash and digest are verified.

    Raises:
        ModelError: nothing is there, the files are damaged, or they belong to other features.
    """
    # ONNX Runtime comes with it, which /docs and a server without a model do not need
    from volspike.models import Artifact  # noqa: PLC0415

    return Artifact.load(path)


def model_version(name: str) -> str:
    """The name by which answers and metrics call a model.

    >>> model_version("random_forest"), model_version("baseline")
    ('random_forest (ml)', 'baseline (baseline)')
    """
    return f"{name} ({'baseline' if name == 'baseline' else 'ml'})"


VALUES: Final = (0.0, 1e-4, 1.0, 100.0)
"""What every feature of a trial row is: the size of nothing, a return, a ratio and a count."""

TOLERANCE: Final = 1e-6


def prove(scorer: Scorer) -> None:
    """Score the trial rows, together and one by one. NaN, which a model may have for values of no market, is no fault.

    Raises:
        ArtifactCorrupt: there is no score at all, one that is no probability, or another alone than among others.
    """
    rows = np.repeat(np.array(VALUES)[:, None], len(scorer.features), axis=1)
    try:
        together = scorer.probability(rows)
        alone = np.array([scorer.probability_of(row) for row in rows.tolist()])
    except Exception as error:  # ONNX Runtime's errors share no other parent
        raise ArtifactCorrupt(f"{scorer.directory}: it fails on trial ({error}); train it anew") from error
    scored = together[~np.isnan(together)]
    is_sound = len(scored) > 0 and bool(np.all((scored >= 0.0) & (scored <= 1.0)))
    if not (is_sound and np.allclose(together, alone, rtol=0.0, atol=TOLERANCE, equal_nan=True)):
        raise ArtifactCorrupt(
            f"{scorer.directory}: on trial it scored {together.tolist()} together and {alone.tolist()} alone, "
            "wanted the same probabilities; train it anew with `volspike train`"
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a server has to serve: a scorer, or the reason why there is none; exactly one of them."""

    scorer: Scorer | None
    reason: str | None


def load_or_reason(path: Path, load: Load) -> Loaded:
    """The scorer in ``path``, tried, or why it cannot be had: a server without a model still answers, and says so."""
    try:
        scorer = load(path)
        prove(scorer)
    except (VolspikeError, OSError, ValueError) as error:  # ValueError: text that is not UTF-8, among others
        return Loaded(None, " ".join(str(error).split()) or type(error).__name__)
    return Loaded(scorer, None)


Identity: TypeAlias = tuple[tuple[int, int, int, int], ...]

_FILES: Final = (METADATA_FILE, ONNX_FILE)


class ModelFolder:
    """What stands in a folder, and what stood there at the last look. One thread at a time may look."""

    def __init__(self, path: Path, load: Load) -> None:
        self.path = path
        self._load = load
        self._seen: Identity | None = None

    def look(self) -> Loaded | None:
        """What is there, if it is another than at the last look: a model, verified and tried, or why there is none.

        None where nothing is there, nothing is new, or it is being replaced just now; it blocks while it reads.
        """
        seen = _identity(self.path)
        if seen is None or seen == self._seen:
            return None
        loaded = load_or_reason(self.path, self._load)
        if loaded.scorer is None and _identity(self.path) != seen:
            return None  # half of the old and half of the new: the next look finds it whole
        self._seen = seen
        return loaded


def _identity(path: Path) -> Identity | None:
    """Tells one pair of files from another without reading them; None where they are not both there.

    The inode's change time moves with every write, rename and change of rights; a modification time can be copied.
    """
    try:
        folder = path if path.is_dir() else path.parent
        stats = [(folder / name).stat() for name in _FILES]
    except OSError:
        return None
    return tuple((each.st_dev, each.st_ino, each.st_ctime_ns, each.st_size) for each in stats)
