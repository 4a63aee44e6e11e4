"""Markets of known predictability, and champions trained on the first part of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from tests.training.markets import market_of
from volspike.datasets import Dataset
from volspike.lifecycle.need import RetrainingRequest
from volspike.lifecycle.promotion import promote
from volspike.training.request import TrainingRequest
from volspike.training.run import train_on

Ask: TypeAlias = Callable[..., RetrainingRequest]


def until(dataset: Dataset, rows: int) -> Dataset:
    """The first rows of a data set."""
    by_row = {field.name for field in fields(Dataset)} - {"facts", "products", "names"}
    return replace(dataset, **{name: getattr(dataset, name)[:rows] for name in by_row})


@pytest.fixture(scope="session")
def whole() -> Dataset:
    """25 000 seconds in which features predict spikes."""
    return market_of(25_000, skill=1.0)


@pytest.fixture(scope="session")
def trained_folder(whole: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of the first 6000 seconds: ``good``, and ``blind``, which was trained on noise."""
    folder = tmp_path_factory.mktemp("trained")
    for name, dataset in (("good", until(whole, 6000)), ("blind", market_of(6000, skill=0.0, seed=9))):
        request = TrainingRequest(
            features=Path("features.parquet"), models=("logistic",), artifacts=folder / name, folds=2, search=0
        )
        train_on(dataset, request, lambda _: None)
    return folder


@pytest.fixture
def champion(tmp_path: Path, trained_folder: Path) -> Callable[[str], Path]:
    """Promotes the ``good`` or the ``blind`` model among the test's artifacts, and returns their folder."""

    def put(name: str) -> Path:
        artifacts = tmp_path / "artifacts"
        promote(trained_folder / name / "logistic", "first", artifacts=artifacts)
        return artifacts

    return put


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """A request with the given changes, which writes to the test's folder only."""
    plain = RetrainingRequest(
        features=Path("features.parquet"),
        artifacts=tmp_path / "artifacts",
        outcomes=tmp_path / "outcomes.sqlite",
        results=tmp_path / "results",
        models=("logistic",),
        shadow_hours=0.0,
        folds=2,
    )
    return lambda **changes: replace(plain, **changes)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred resamples per interval: these tests do not check its width."""
    monkeypatch.setattr("volspike.training.evaluate.RESAMPLES", 100)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Dataset], None]:
    """Sets the rows that the run loads."""

    def hold(dataset: Dataset) -> None:
        monkeypatch.setattr("volspike.lifecycle.retrain.load_thinned", lambda *_: dataset)

    return hold


def as_real(dataset: Dataset) -> Dataset:
    """The same rows, marked as of a real market."""
    return replace(dataset, facts=msgspec.structs.replace(dataset.facts, simulated=False))
