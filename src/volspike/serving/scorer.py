"""What the API needs of a model, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
