"""Hyperparameter search on the training rows of the oldest fold.

Those rows are older than every row used for calibration, thresholds, selection or evaluation, so that the search cannot
influence any reported metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.splits import split_rows
from volspike.evaluation.metrics import average_precision
from volspike.models import DETECTORS, Sample
from volspike.training.fitting import select_columns
from volspike.training.folds import FitRows, TrainingData

HELD_OUT: Final = 0.3
"""The newest share of the training rows, on which settings are compared; purged like every other cut."""

MOST_ROWS: Final = 60_000
"""Rows per part: enough to rank settings as ten times as many would, in a tenth of the time."""

LEAST_GAIN: Final = 0.005
"""PR-AUC that settings must gain over the defaults; less is as likely as not chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The settings found (empty: the defaults), the best held-out PR-AUC of all trials, and that of the defaults.

    ``warning`` says why no search was possible, if it was not.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0
    best: float = float("nan")
    defaults: float = float("nan")
    warning: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Objective:
    """Held-out PR-AUC of a detector as a function of its settings."""

    name: str
    seed: int
    sample: Sample
    x: NDArray[np.float64]
    y: NDArray[np.int8]

    def score(self, settings: Mapping[str, Any]) -> float:
        detector = DETECTORS[self.name](seed=self.seed, settings=settings).fit(self.sample)
        probability = detector.probability(self.x)
        known = np.isfinite(probability)
        return average_precision(self.y[known], probability[known])


def search_settings(name: str, data: TrainingData, on_trial: Callable[[int], None]) -> SearchResult:
    """The best of the settings that a seeded search proposes for detector ``name``, if they beat its defaults.

    The tree-structured Parzen estimator of Bergstra, Bardenet, Bengio and Kégl, "Algorithms for Hyper-Parameter
    Optimization" (2011), in Optuna's implementation.
    """
    trials = data.request.search
    if trials == 0 or not DETECTORS[name].search_space(_LowestTrial()):
        return SearchResult()
    objective = _build_objective(name, data)
    if objective is None:
        warning = (
            f"no settings are searched: the training rows of fold {data.fold_set.folds[0].number} cannot be cut into "
            "two parts that both hold spikes and calm"
        )
        return SearchResult(warning=warning)
    defaults = objective.score({})
    settings, best = max(_run_trials(objective, trials, on_trial), key=lambda trial: trial[1])
    is_better = best > defaults + LEAST_GAIN
    return SearchResult(settings=settings if is_better else {}, trials=trials, best=best, defaults=defaults)


def _run_trials(
    objective: _Objective, trials: int, on_trial: Callable[[int], None]
) -> list[tuple[dict[str, Any], float]]:
    """The settings and score of each trial, in order."""
    import optuna  # noqa: PLC0415 - half a second, only for runs with a search

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=objective.seed))
    results = []
    for number in range(1, trials + 1):
        on_trial(number)
        trial = study.ask()
        settings = DETECTORS[objective.name].search_space(trial)
        score = objective.score(settings)
        study.tell(trial, score)
        results.append((settings, score))
    return results


class _LowestTrial:
    """A trial that suggests the lowest value of everything; it shows whether a detector has settings to search."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del name, high, log
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        del name, high, log
        return low

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        del name
        return choices[0]


def _build_objective(name: str, data: TrainingData) -> _Objective | None:
    """The training rows of the oldest fold cut in two; None if one part holds a single class."""
    dataset, fold = data.dataset, data.fold_set.folds[0]
    older, newer = split_rows(dataset, fold.train, HELD_OUT, data.fold_set.embargo_s)
    fit_rows, held_out = (FitRows.select(dataset, rows, MOST_ROWS) for rows in (older, newer))
    if any(int(fold.y[part.rows].sum()) in (0, len(part.rows)) for part in (fit_rows, held_out)):
        return None
    features, _ = select_columns(name, data, fold)
    test = held_out.sample(dataset, features, fold.y, fold.tau)
    return _Objective(name, data.request.seed, fit_rows.sample(dataset, features, fold.y, fold.tau), test.x, test.y)
