"""How restless a simulated market is, second by second: its volatility, the stress in its book, its bursts.

Onsets of stress come at random. Most of them, and not all, lead to a burst of volatility some 25 s later; a few
bursts come unannounced. Each burst breeds aftershocks as in a Hawkes process, drawn by its clusters (Hawkes and
Oakes, "A cluster process representation of a self-exciting process", J. Appl. Prob. 11, 1974): every event has
a Poisson number of children at exponential delays. So a book tells something of what comes, and never all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

CHUNK_S = 600

_ANNOUNCED_SHARE = 0.65
_UNANNOUNCED_PER_S = 1 / 2400
_CHILDREN = 0.45
_CHILD_DELAY_S = 25.0
_STRESS_MEMORY_S = 30.0
_BURST_MEMORY_S = 35.0
_CALM_MEMORY_S = 400.0
_CALM_SPREAD = 0.35


@dataclass(frozen=True, slots=True)
class Mood:
    """One chunk of ``CHUNK_S`` seconds: log volatility, stress (0 is none), lean (which side thins), burst strength."""

    log_volatility: Seconds
    stress: Seconds
    lean: Seconds
    bursts: Seconds

    def __add__(self, other: Mood) -> Mood:
        return Mood(
            self.log_volatility + other.log_volatility,
            self.stress + other.stress,
            self.lean + other.lean,
            self.bursts + other.bursts,
        )


def decayed(shocks: Seconds, memory_s: float, before: float) -> Seconds:
    """x(k) = φ x(k-1) + shocks(k) with φ = exp(-1/memory_s), from x(-1) = ``before``, without a loop.

    Written as φ^k Σ φ^-j shocks(j), whose terms stay far from overflow for chunks of some 100 memories.
    """
    age = np.arange(1, len(shocks) + 1) / memory_s
    return np.asarray(np.exp(-age) * (before + np.cumsum(shocks * np.exp(age))))


class Moods:
    """Draws one chunk after another; what it carries between them does not grow with their number."""

    def __init__(self, onsets_per_s: float) -> None:
        self._onsets_per_s = onsets_per_s
        self._pending: Seconds = np.empty(0)
        self._calm = self._excitement = self._stress = self._lean = 0.0

    def next(self, rng: np.random.Generator) -> Mood:
        """The mood of the next ``CHUNK_S`` seconds."""
        onsets = rng.random(rng.poisson(self._onsets_per_s * CHUNK_S)) * CHUNK_S
        bursts = _per_second(self._bursts(rng, onsets), rng)
        alarm = _per_second(onsets, rng)
        calm_step = _CALM_SPREAD * np.sqrt(2 / _CALM_MEMORY_S)
        calm = decayed(rng.normal(0.0, calm_step, CHUNK_S), _CALM_MEMORY_S, self._calm)
        excitement = decayed(bursts, _BURST_MEMORY_S, self._excitement)
        stress = decayed(alarm + 0.4 * bursts, _STRESS_MEMORY_S, self._stress)
        lean = decayed(alarm * rng.choice([-1.0, 1.0], CHUNK_S), _STRESS_MEMORY_S, self._lean)
        self._calm, self._excitement, self._stress, self._lean = calm[-1], excitement[-1], stress[-1], lean[-1]
        return Mood(calm + excitement, stress, lean, bursts)

    def _bursts(self, rng: np.random.Generator, onsets: Seconds) -> Seconds:
        """When in this chunk it bursts, in seconds; what the chunk sets off after its end is kept for the next."""
        followed = onsets[rng.random(len(onsets)) < _ANNOUNCED_SHARE]
        announced = followed + rng.gamma(4.0, 6.0, len(followed))
        unannounced = rng.random(rng.poisson(_UNANNOUNCED_PER_S * CHUNK_S)) * CHUNK_S
        generations = [np.concatenate([self._pending, announced, unannounced])]
        while len(generations[-1]):
            parents = generations[-1][generations[-1] < CHUNK_S]
            children = np.repeat(parents, rng.poisson(_CHILDREN, len(parents)))
            generations.append(children + rng.exponential(_CHILD_DELAY_S, len(children)))
        times = np.concatenate(generations)
        self._pending = times[times >= CHUNK_S] - CHUNK_S
        return times[times < CHUNK_S]


def _per_second(times: Seconds, rng: np.random.Generator) -> Seconds:
    """Strengths, drawn around 0.9, of events summed in the second where they fall."""
    strength = rng.gamma(3.0, 0.3, len(times))
    return np.asarray(np.bincount(times.astype(np.int64), strength, CHUNK_S), np.float64)
