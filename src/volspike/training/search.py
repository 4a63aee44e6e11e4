"""Which settings a model gets: a bounded search on the oldest fold's training rows alone.

Those rows are older than anything that any fold is calibrated, chosen or judged on, so that no figure of the report has
been looked at on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.splits import parted
from volspike.evaluation.metrics import average_precision
from volspike.models import DETECTORS, Sample
from volspike.training.fitting import taken_columns
from volspike.training.folds import Learned, Material

HELD_OUT: Final = 0.3
"""Of the training rows, the newest share, by which settings are compared; purged like every other cut."""

MOST_ROWS: Final = 60_000
"""So many rows tell one setting from another as well as ten times as many, and in a tenth of the time."""


LEAST_GAIN: Final = 0.005
"""Settings that gain less PR-AUC over the defaults than this have gained by chance as likely as not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The settings found (none: the defaults), the best PR-AUC of all tries on rows held out, and the defaults' own.

    ``told`` says why nothing was searched, where nothing was.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0
    best: float = float("nan")
    defaults: float = float("nan")
    told: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Arena:
    """What settings are tried on."""

    name: str
    seed: int
    sample: Sample
    x: NDArray[np.float64]
    y: NDArray[np.int8]

    def score(self, settings: Mapping[str, Any]) -> float:
        """PR-AUC on the rows held out that can be scored."""
        detector = DETECTORS[self.name](seed=self.seed, settings=settings).fit(self.sample)
        probability = detector.probability(self.x)
        known = np.isfinite(probability)
        return average_precision(self.y[known], probability[known])


def searched(name: str, material: Material, on_trial: Callable[[int], None]) -> Search:
    """The best settings of detector ``name`` of those that a seeded search proposes, if they beat its defaults.

    The tree-structured Parzen estimator of Bergstra, Bardenet, Bengio and Kégl, "Algorithms for Hyper-Parameter
    Optimization" (2011), by Optuna.
    """
    trials = material.request.search
    if trials == 0 or not _has_space(name):
        return Search()
    arena = _arena(name, material)
    if isinstance(arena, str):
        return Search(told=arena)
    defaults = arena.score({})
    settings, best = max(_tried(arena, trials, on_trial), key=lambda tried: tried[1])
    gained = best > defaults + LEAST_GAIN
    return Search(settings=settings if gained else {}, trials=trials, best=best, defaults=defaults)


def _tried(arena: _Arena, trials: int, on_trial: Callable[[int], None]) -> list[tuple[dict[str, Any], float]]:
    """Each try's settings and score, in the order of the tries."""
    import optuna  # noqa: PLC0415 - half a second that a run without a search need not wait

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=arena.seed))
    tried = []
    for number in range(1, trials + 1):
        on_trial(number)
        trial = study.ask()
        settings = DETECTORS[arena.name].space(trial)
        score = arena.score(settings)
        study.tell(trial, score)
        tried.append((settings, score))
    return tried


def _has_space(name: str) -> bool:
    """Whether there is anything to search."""
    return bool(DETECTORS[name].space(_Lowest()))


class _Lowest:
    """A trial that answers with the lowest of everything: good for asking whether it is asked at all."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del name, high, log
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        del name, high, log
        return low

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        del name
        return choices[0]


def _arena(name: str, material: Material) -> _Arena | str:
    """The oldest fold's training rows cut in two; or why they cannot be."""
    dataset, fold = material.dataset, material.folds.folds[0]
    older, newer = parted(dataset, fold.train, HELD_OUT, material.folds.embargo_s)
    learned, held_out = (Learned.of(dataset, rows, MOST_ROWS) for rows in (older, newer))
    for rows in (learned.rows, held_out.rows):
        if int(fold.y[rows].sum()) in (0, len(rows)):
            return (
                f"no settings are searched: the training rows of fold {fold.number} cannot be cut into two parts that "
                "both have spikes and calm"
            )
    features, _ = taken_columns(name, material, fold)
    held = held_out.sample(dataset, features, fold.y, fold.tau)
    return _Arena(name, material.request.seed, learned.sample(dataset, features, fold.y, fold.tau), held.x, held.y)
