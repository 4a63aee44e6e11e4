"""Simulated markets for the tests: spikes that cluster in time, and a model and a baseline that know a part of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from volspike.evaluation import Scored

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def autoregressive(random: np.random.Generator, n: int, memory: float) -> NDArray[np.float64]:
    """n steps of a stationary AR(1) of unit variance that forgets to 1/e within ``memory`` steps."""
    keep = np.exp(-1.0 / memory)
    shock = random.normal(size=n) * np.sqrt(1.0 - keep * keep)
    shock[0] /= np.sqrt(1.0 - keep * keep)
    level: NDArray[np.float64] = lfilter([1.0], [1.0, -keep], shock)
    return level


def market(
    n: int = 6000,
    *,
    seed: int = 0,
    products: int = 1,
    folds: int = 1,
    step_s: float = 1.0,
    memory: float = 120.0,
    skill: float = 1.0,
) -> Scored:
    """``n`` rows of each product, ``step_s`` apart; the model sees what comes with ``skill``, the baseline with 0.5."""
    random = np.random.default_rng(seed)
    level = np.concatenate([autoregressive(random, n, memory) for _ in range(products)])
    rows = n * products
    noise = np.concatenate([autoregressive(random, n, memory) for _ in range(2 * products)])
    logit = 1.5 * (skill * level + noise[:rows]) - 2.5
    baseline = np.exp(0.5 * level + noise[rows:])
    return Scored(
        time=np.tile(START + np.round(np.arange(n) * step_s * SECOND).astype(np.int64), products),
        product=np.repeat(np.arange(products, dtype=np.int32), n),
        fold=np.tile((np.arange(n) * folds // n).astype(np.int32), products),
        y=(level > 1.28).astype(np.int8),
        past_volatility=np.exp(np.roll(level, 5) - 1.28),
        probability=1.0 / (1.0 + np.exp(-logit)),
        threshold=np.full(rows, 0.3),
        baseline=baseline,
        baseline_threshold=np.full(rows, 2.0),
    )
