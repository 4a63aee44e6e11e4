"""The recurrent network, in JAX and as a graph."""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tests.models.samples import chosen, exported, fitted, full_sample
from volspike.errors import UsageError
from volspike.models import DETECTORS, Detector, Sample, lstm
from volspike.models.lstm import TICKS


def rising(rows: int) -> Sample:
    """Spikes follow minutes in which there were more and more ticks, calm ones those in which there were fewer."""
    sample = chosen("lstm", full_sample(rows, 3, deep=True))
    random = np.random.default_rng(3)
    is_rising = random.random(rows) < 0.3
    ticks = np.sort(random.poisson(20, (rows, 60)), axis=1).astype(np.float64)
    x = random.lognormal(size=sample.x.shape) * 1e-4
    # TICKS is in time's order: what ascends along it rises in time.
    x[:, [sample.names.index(name) for name in TICKS]] = np.where(is_rising[:, None], ticks, ticks[:, ::-1])
    volatility = np.where(is_rising, 3.0, 0.3)
    return dataclasses.replace(sample, x=x, y=is_rising.astype(np.int8), volatility=volatility, tau=np.ones(rows))


def taught(sample: Sample, seed: int = 0, **settings: Any) -> Detector:
    """A network that has learned as much as there is to learn of rising ticks."""
    return fitted("lstm", sample, seed=seed, hidden=6, epochs=6, learning_rate=0.03, **settings)


@cache
def learned(seed: int) -> tuple[Sample, Detector]:
    """Rising ticks, and a network that has learned from them."""
    sample = rising(2000)
    return sample, taught(sample, seed)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without JAX the columns can still be listed, and training names the extra it needs."""
    sample = chosen("lstm", full_sample(100, 1, deep=True))

    def without_jax(name: str) -> Any:
        return None if name == "jax" else find_spec(name)

    monkeypatch.setattr(lstm, "find_spec", without_jax)
    assert DETECTORS["lstm"].columns(sample.names) == sample.names
    with pytest.raises(UsageError, match=r"pip install 'volspike\[deep\]'"):
        DETECTORS["lstm"]().fit(sample)


def test_one_lag_too_few_and_it_takes_nothing() -> None:
    """Without a single one of the sixty seconds, or the scale of their returns, it cannot run."""
    offered = full_sample(100, 2, deep=True).names
    for absent in ("lag_return_60s", "lag_ticks_1s", "realized_volatility_300s"):
        assert DETECTORS["lstm"].columns([name for name in offered if name != absent]) == ()


def test_it_reads_the_order_of_the_seconds() -> None:
    """A spike that depends only on the order of the last minute's ticks is learned, which no sum over them could."""
    sample, detector = learned(seed=1)
    probability, is_spike = detector.probability(sample.x), sample.y == 1
    assert np.median(probability[is_spike]) > np.quantile(probability[~is_spike], 0.9)


def test_the_graph_steps_through_the_seconds_as_the_network_does() -> None:
    """The exported operator has the gates in ONNX's order: a network that learned agrees to 1e-5, at extremes too."""
    sample, detector = learned(seed=1)
    random = np.random.default_rng(7)
    extreme = sample.x.copy()
    places = random.integers(0, extreme.shape[1], len(extreme))
    extreme[np.arange(len(extreme)), places] = random.choice([0.0, -1e-3, 1e-45, 1e12, -3e38, 3e38], len(extreme))
    for x in (sample.x, extreme):
        served = exported(detector, x.shape[1]).probability(x)
        np.testing.assert_allclose(served, detector.probability(x), atol=1e-5, rtol=0)


def test_columns_may_stand_in_any_order() -> None:
    """The sequence is put together by name: rows with their columns shuffled are scored alike."""
    sample = chosen("lstm", full_sample(700, 4, deep=True))
    order = np.random.default_rng(4).permutation(len(sample.names))
    shuffled = dataclasses.replace(sample, names=tuple(sample.names[place] for place in order), x=sample.x[:, order])
    plain, mixed = fitted("lstm", sample), fitted("lstm", shuffled)
    np.testing.assert_allclose(mixed.probability(shuffled.x), plain.probability(sample.x), atol=1e-4)


def test_a_draw_by_weight_leaves_out_what_weighs_nothing() -> None:
    """Where there are more rows than it trains on, sequences of next to no weight are not among those it draws."""
    sample = rising(2000)
    weight = np.where(np.arange(2000) < 150, 1e-9, 1.0)
    spoiled = sample.x.copy()
    # Turned round in time, which the totals over all rows do not show.
    places = [sample.names.index(name) for name in TICKS]
    spoiled[:150, places] = spoiled[:150, places[::-1]]
    clean, dirty, plain = (
        taught(dataclasses.replace(sample, x=x, weight=weighed), most_rows=1536).probability(sample.x)
        for x, weighed in ((sample.x, weight), (spoiled, weight), (spoiled, np.ones(2000)))
    )
    np.testing.assert_allclose(clean, dirty, atol=1e-4)
    assert np.abs(clean - plain).max() > 1e-3


def test_seeds_tell_networks_apart() -> None:
    """Another seed starts elsewhere and ends elsewhere."""
    sample, first = learned(seed=1)
    _, second = learned(seed=2)
    assert np.abs(first.probability(sample.x) - second.probability(sample.x)).max() > 1e-4
