"""A second model beside the served one: it answers what it alone understands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.api.conftest import FakeScorer

from volspike.api.app import create_app
from volspike.api.served_model import Scorer, load_artifact
from volspike.config import ServingSettings
from volspike.models import TEN_FEATURES, TEN_MODEL

SERVED = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}


def _load(path: Path) -> Scorer:
    return load_artifact(path) if path == TEN_MODEL else FakeScorer()


@pytest.fixture
def both(new_client: Any) -> Iterator[Any]:
    """A client of an application that serves a fake model and, beside it, the one of ten features."""
    with new_client(create_app(ServingSettings(companion=TEN_MODEL), _load)) as client:
        yield client


def test_each_model_answers_its_own_features(both: Any) -> None:
    """The served model's features go to it; the ten of the earlier system go to the companion, which is named."""
    assert both.predict({"features": SERVED}).json()["model_version"] == "random_forest (ml)"
    answer = both.predict({"features": dict.fromkeys(TEN_FEATURES, 0.1)})
    assert (answer.status_code, answer.json()["model_version"]) == (200, "logistic (ml)")


def test_what_neither_understands_is_refused_by_the_served_model(both: Any) -> None:
    """A refusal names what the served model misses, not what its companion would have liked."""
    answer = both.predict({"features": {"spread_mean_60s": 0.2}})
    assert answer.status_code == 422
    assert "log_return_60s" in answer.json()["detail"]


def test_without_a_companion_ten_features_are_refused(client: Any) -> None:
    """A model that was chosen stands alone: nobody else answers for it."""
    assert client.predict({"features": dict.fromkeys(TEN_FEATURES, 0.1)}).status_code == 422
