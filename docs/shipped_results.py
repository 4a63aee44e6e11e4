"""Results of a shipped model on a market: PR-AUC against the best baseline, calibration and alarm minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from volspike.episodes import SeriesOrder, alarm_runs
from volspike.evaluation import Comparison, Contrast, Scored, compare, pooled, reliability
from volspike.evaluation.metrics import average_precision
from volspike.market import SECOND_NS, format_time
from volspike.models.alert_level import alert_levels
from volspike.models.metadata import Adaptation
from volspike.models.volatility import forecast_inputs
from volspike.reporting.format import DASH, table
from volspike.training.pooled import Market

DAY_NS = 86_400 * SECOND_NS
EARLY_SHARE = 0.6
"""The share of a market's time, rounded to days if it has several, that the later days follow."""

BASELINES = {
    "realized_volatility_60s": "persistence",
    **{f"ewma_volatility_{half_life}s": f"ewma_{half_life}" for half_life in (10, 30, 60, 300)},
}
DECILE_EVENTS = 50
"""Spike events that a tenth of the probabilities needs for its rate to be compared."""

LEAST_DAY_S = 6 * 3600
"""The covered seconds that a day needs for its alarm minutes to be compared with the budget."""

RESAMPLES = 300


@dataclass(frozen=True)
class Result:
    """The figures of one market, named with the month in which its recording begins.

    ``deciles`` are observed over predicted rates of the tenths of the probabilities with enough events. ``minutes`` are
    alarm minutes per day from the market's first row on: of all days together, and of each. ``baselines`` are the
    scores of all baselines on ``scored``.
    """

    market: str
    days: float
    comparison: Comparison
    deciles: tuple[float, ...]
    minutes: tuple[float, ...]
    scored: Scored
    baselines: Mapping[str, NDArray[np.float64]]

    def cells(self) -> list[str]:
        """The cells of its row in the table."""
        compared, minutes, days = self.comparison, self.minutes, self.minutes[1:]
        return [
            self.market,
            f"{self.days:.1f}",
            f"{compared.spike_events}",
            f"{compared.model.base_rate:.3f}",
            f"{compared.pr_auc.model:.3f}",
            f"{compared.pr_auc.baseline:.3f} ({compared.baseline_name})",
            _multiple(compared.pr_auc),
            _multiple(compared.calm.pr_auc),
            f"{min(self.deciles):.2f} … {max(self.deciles):.2f}" if self.deciles else DASH,
            f"{minutes[0]:.0f}" + (f" ({min(days):.0f} … {max(days):.0f})" if len(days) > 1 else ""),
        ]


HEADS = (
    "market",
    "days",
    "spike events",
    "base rate",
    "PR-AUC",
    "best baseline",
    "multiple",
    "multiple in calm rows",
    "observed / predicted",
    "alarm minutes per day",
)


def results_table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    return table(HEADS, [result.cells() for result in results])


def _multiple(figure: Contrast) -> str:
    ends = figure.ratio_interval
    return f"×{figure.ratio:.2f} ({ends.low:.2f} … {ends.high:.2f})" if isfinite(figure.ratio) else DASH


def baseline_scores(market: Market) -> dict[str, NDArray[np.float64]]:
    """(n,) scores of the baselines: past volatilities over τ, and their HAR forecast."""
    dataset = market.dataset
    weights = forecast_inputs(dataset.names)
    with np.errstate(divide="ignore"):
        har = np.exp(np.log(dataset.columns(list(weights))) @ np.array(list(weights.values())))
    past = {name: dataset.columns([column])[:, 0] for column, name in BASELINES.items()}
    return {name: score / market.tau for name, score in (past | {"har": har}).items()}


def best_baseline(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]]) -> str:
    """The baseline with the greatest PR-AUC on these rows."""
    return max(scores, key=lambda name: np.nan_to_num(average_precision(y, scores[name])))


def result_of(
    market: Market, probability: NDArray[np.float64], adaptation: Adaptation, rows: NDArray[np.bool_]
) -> Result:
    """The figures of the given rows of a market; alert thresholds and alarms run from its first row."""
    y, dataset = market.y, market.dataset
    series = SeriesOrder.of(dataset.time, dataset.product)
    is_calm = dataset.is_calm(market.tau)
    levels = alert_levels(series, probability, adaptation.alert_log_odds, may_open=is_calm)
    is_open, seconds = np.zeros(len(y), np.bool_), np.empty(len(y))
    is_open[series.order] = alarm_runs(series, probability, levels, is_calm).mask(len(y))
    seconds[series.order] = series.seconds()
    used = rows & np.isfinite(probability) & np.isfinite(dataset.persistence)
    scores = {name: np.nan_to_num(score, nan=-1.0)[used] for name, score in baseline_scores(market).items()}
    best = best_baseline(y[used], scores)
    scored = Scored(
        time=dataset.time[used],
        product=dataset.product[used],
        fold=np.zeros(int(used.sum()), np.int32),
        y=y[used],
        past_volatility=(dataset.persistence / market.tau)[used],
        probability=probability[used],
        threshold=levels[used],
        baseline=scores[best],
        baseline_threshold=np.ones(int(used.sum())),
        holds_budget=True,
    )
    day = dataset.time // DAY_NS
    known = np.isfinite(probability)
    days = [known & (day == each) for each in np.unique(day)]
    spans = [known, *(each for each in days if seconds[each].sum() >= LEAST_DAY_S)]
    bins = reliability(scored.y, scored.probability, scored.time, resamples=1).bins
    return Result(
        market=f"{market.name} {format_time(int(dataset.time[0]))[:7]}",
        days=float(seconds[used].sum()) / 86_400.0,
        comparison=compare(scored, baseline_name=best, resamples=RESAMPLES),
        deciles=tuple(part.ratio for part in bins if part.spike_events >= DECILE_EVENTS),
        minutes=tuple(float(seconds[span & is_open].sum() / seconds[span].sum()) * 1440.0 for span in spans),
        scored=scored,
        baselines=scores,
    )


def all_markets(results: Sequence[Result]) -> tuple[Scored, str]:
    """The rows of all results with the baseline that is best on all of them together, and its name."""
    names = results[0].baselines
    together = {name: np.concatenate([result.baselines[name] for result in results]) for name in names}
    scored = pooled(
        [
            replace(result.scored, product=np.full(len(result.scored), code, np.int32))
            for code, result in enumerate(results)
        ]
    )
    best = best_baseline(scored.y, together)
    return replace(scored, baseline=together[best]), best


def start_of_later_days(market: Market) -> int:
    """The time (ns) that separates earlier and later days of a market; hours if it has one day only."""
    first, last = int(market.dataset.time[0]), int(market.dataset.time[-1])
    cut = int(first + EARLY_SHARE * (last - first))
    return round(cut / DAY_NS) * DAY_NS if _has_days(first, last) else cut


def end_of_first_day(market: Market) -> int:
    """The time (ns) at which a calibration has had a day of outcomes, half of the time if there is only one day."""
    first, last = int(market.dataset.time[0]), int(market.dataset.time[-1])
    return first + (DAY_NS if _has_days(first, last) else (last - first) // 2)


def _has_days(first: int, last: int) -> bool:
    return last - first > 1.4 * DAY_NS
