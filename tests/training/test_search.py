"""A search uses the training rows of the oldest fold and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from volspike.datasets import Dataset
from volspike.training.folds import prepare_training_data
from volspike.training.request import TrainingRequest
from volspike.training.search import SearchResult, search_settings

RequestFor = Callable[..., TrainingRequest]


def found(dataset: Dataset, request: TrainingRequest, name: str = "xgboost") -> SearchResult:
    return search_settings(name, prepare_training_data(request, dataset), lambda trial: None)


def test_rows_outside_the_first_training_part_change_nothing(market: Dataset, request_for: RequestFor) -> None:
    """Corrupt values in every other row leave settings and scores bit-identical."""
    request = request_for(models=("xgboost",), folds=3, search=3)
    first = prepare_training_data(request, market).fold_set.folds[0]
    corrupted = np.setdiff1d(np.arange(len(market)), first.train)
    x, volatility = market.x.copy(), market.future_volatility.copy()
    x[corrupted] = 1e9
    volatility[corrupted] *= 1e3
    clean, dirty = found(market, request), found(replace(market, x=x, future_volatility=volatility), request)
    assert clean == dirty
    assert clean.trials == 3


def test_training_rows_matter(market: Dataset, request_for: RequestFor) -> None:
    """Permuted values in the training rows change the result: the test above can fail."""
    request = request_for(models=("xgboost",), folds=3, search=2)
    first = prepare_training_data(request, market).fold_set.folds[0]
    x = market.x.copy()
    x[first.train] = np.random.default_rng(0).permutation(x[first.train])
    assert found(market, request) != found(replace(market, x=x), request)


def test_trials_are_reported_and_repeatable(market: Dataset, request_for: RequestFor) -> None:
    """Each trial is reported; the same seed finds the same settings, another seed tries others."""
    request = request_for(models=("xgboost",), search=2)
    tried: list[int] = []
    data = prepare_training_data(request, market)
    once = search_settings("xgboost", data, tried.append)
    assert tried == [1, 2]
    assert once == search_settings("xgboost", data, lambda trial: None)
    assert once != found(market, replace(request, seed=5))


@pytest.mark.parametrize(("name", "trials"), [("har", 5), ("xgboost", 0)])
def test_without_a_search_the_defaults_are_used(
    name: str, trials: int, market: Dataset, request_for: RequestFor
) -> None:
    """A model without settings, or a search of no trials, uses the defaults."""
    search = found(market, request_for(search=trials), name)
    assert (search.settings, search.trials) == ({}, 0)


def test_search_without_held_out_spikes_is_skipped(market: Dataset, request_for: RequestFor) -> None:
    """If the held-out training rows have no spike, the defaults are used, with a warning."""
    first = prepare_training_data(request_for(folds=2), market).fold_set.folds[0]
    calm = market.future_volatility.copy()
    calm[len(first.train) // 2 : len(first.train)] = 1e-7
    search = found(replace(market, future_volatility=calm), request_for(folds=2, search=2))
    assert search.settings == {}
    assert "no settings are searched" in search.warning


@pytest.mark.parametrize(("best", "is_taken"), [(0.25, False), (0.25 + 1e-9, True)])
def test_settings_must_gain_more_than_the_limit(
    best: float, is_taken: bool, market: Dataset, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gain of exactly ``LEAST_GAIN`` keeps the defaults, a larger one takes the settings."""
    monkeypatch.setattr("volspike.training.search.LEAST_GAIN", 0.125)  # exact in binary
    monkeypatch.setattr("volspike.training.search._Objective.score", lambda *_: 0.125)
    monkeypatch.setattr("volspike.training.search._run_trials", lambda *_: [({"max_depth": 3}, best)])
    assert bool(found(market, request_for(search=1)).settings) is is_taken
