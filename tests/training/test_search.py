"""A search looks at the oldest training rows, and at nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from volspike.datasets import Dataset
from volspike.training import TrainingRequest
from volspike.training.folds import gathered
from volspike.training.search import Search, searched

RequestFor = Callable[..., TrainingRequest]


def found(dataset: Dataset, request: TrainingRequest, name: str = "xgboost") -> Search:
    return searched(name, gathered(request, dataset), lambda trial: None)


def test_rows_outside_the_first_training_part_change_nothing(market: Dataset, request_for: RequestFor) -> None:
    """Poison in every validation, test and final row leaves the settings and their scores as they were, bit for bit."""
    request = request_for(models=("xgboost",), folds=3, search=3)
    first = gathered(request, market).folds.folds[0]
    poisoned = np.setdiff1d(np.arange(len(market)), first.train)
    x, volatility = market.x.copy(), market.future_volatility.copy()
    x[poisoned] = 1e9
    volatility[poisoned] *= 1e3
    clean, dirty = found(market, request), found(replace(market, x=x, future_volatility=volatility), request)
    assert clean == dirty
    assert clean.trials == 3


def test_training_rows_do_matter(market: Dataset, request_for: RequestFor) -> None:
    """The same poison in training rows is noticed: the test above is able to fail."""
    request = request_for(models=("xgboost",), folds=3, search=2)
    first = gathered(request, market).folds.folds[0]
    x = market.x.copy()
    x[first.train] = np.random.default_rng(0).permutation(x[first.train])
    assert found(market, request) != found(replace(market, x=x), request)


def test_trials_are_told_and_repeatable(market: Dataset, request_for: RequestFor) -> None:
    """Each try is announced, and the same seed finds the same; another seed tries others."""
    request = request_for(models=("xgboost",), search=2)
    tried: list[int] = []
    material = gathered(request, market)
    once = searched("xgboost", material, tried.append)
    assert tried == [1, 2]
    assert once == searched("xgboost", material, lambda trial: None)
    assert once != found(market, replace(request, seed=5))


@pytest.mark.parametrize(("name", "trials"), [("har", 5), ("xgboost", 0)])
def test_nothing_to_search_is_the_defaults(name: str, trials: int, market: Dataset, request_for: RequestFor) -> None:
    """A model without settings, or a search of no trials, has the defaults at no cost."""
    search = found(market, request_for(search=trials), name)
    assert (search.settings, search.trials) == ({}, 0)


def test_training_rows_that_cannot_be_cut_are_told(market: Dataset, request_for: RequestFor) -> None:
    """Where the held-out training rows have no spike, the defaults stand, and why is said."""
    first = gathered(request_for(folds=2), market).folds.folds[0]
    calm = market.future_volatility.copy()
    calm[len(first.train) // 2 : len(first.train)] = 1e-7
    search = found(replace(market, future_volatility=calm), request_for(folds=2, search=2))
    assert search.settings == {}
    assert "no settings are searched" in search.told
