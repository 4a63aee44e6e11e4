"""Backtest of a model on a feature file: the alerts it would have sent, what they caught, and what they cost.

Alerts are opened and closed by the rule of the live system (``volspike.episodes``). All scores are compared on the same
rows: those with a known outcome and threshold τ. A row that a model cannot score gets its lowest score, so that its
spikes count as missed. The model is compared with whichever baseline has the greatest PR-AUC on these rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData
from volspike.evaluation import (
    AlarmPoint,
    Comparison,
    ForecastComparison,
    Reliability,
    Scored,
    SpikeTimeline,
    alarm_curve,
    compare,
    compare_forecasts,
    reliability,
)
from volspike.evaluation.alarm_budget import DAY_S, AlarmScan
from volspike.evaluation.bootstrap import Draws
from volspike.evaluation.forecast_metrics import r_squared
from volspike.evaluation.metrics import average_precision, known
from volspike.evaluation.scored import BLOCK_S
from volspike.evaluation.spike_events import COLUMNS, AlarmOutcome, match_alarms
from volspike.labels import SpikeDefinition
from volspike.market import format_time
from volspike.models import Artifact, Metadata
from volspike.models.alert_level import BUDGET_MINUTES
from volspike.models.alert_thresholds import AlertThresholds
from volspike.models.artifact import load_stored_baseline
from volspike.models.calibration import Platt
from volspike.models.evidence import all_limitations, dataset_markets, texts
from volspike.models.volatility import forecast_inputs
from volspike.progress import OnStep, Step
from volspike.reporting.alert_history import (
    AlertRecord,
    DailyAlerts,
    SpikeSpan,
    day_figures,
    list_alerts,
    list_spans,
)

RESAMPLES: Final = 1000

PERSISTENCE: Final = "persistence"
EWMA_HALF_LIVES: Final = (10, 30, 60, 300)
"""Half-lives in seconds of the exponentially weighted volatilities that are baselines."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AlarmCost:
    """The cost of a missed onset and of an alert, in any unit."""

    miss: float
    alarm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestRequest:
    """Options of a backtest; without ``spike`` the model's own definition applies.

    With ``budget``, in minutes of alarm per day, the alert threshold follows the alarms so far
    (``models.alert_level``), as it does live for models with an ``adaptation``, whose default is ``BUDGET_MINUTES``.
    For other models the default is their own threshold. ``thresholds`` replace both for some products. ``venue`` is
    that of products whose name states none.
    """

    spike: SpikeDefinition | None = None
    budget: float | None = None
    thresholds: AlertThresholds = field(default_factory=AlertThresholds)
    cost: AlarmCost | None = None
    venue: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFigures:
    """PR-AUC of a baseline on the backtest's rows, and in the calm ones."""

    pr_auc: float
    pr_auc_calm: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Backtest:
    """A model's backtest.

    ``limitations`` are those of the model on these rows (``models.evidence``), which ``warnings`` include.
    ``budget`` is the minutes of alarm per day that the threshold holds, None for a fixed one. ``baselines`` are by
    PR-AUC, the best first; ``comparison`` is with the best, whose alarms use as many minutes as the model's. ``curve``
    and ``baseline_curve`` show onset recall over alarm minutes. ``reliability`` is None if the probabilities are of
    another spike definition, or without rows of both classes. ``volatility`` compares the expected volatility that is
    served with every model with the best of the baselines' own volatilities, ``volatility_baseline``; None if the rows
    lack its inputs.
    """

    features: Path
    metadata: Metadata
    spike: SpikeDefinition
    request: BacktestRequest
    products: tuple[str, ...]
    start: int
    end: int
    simulated: bool
    budget: float | None
    limitations: tuple[str, ...]
    warnings: tuple[str, ...]
    scored: Scored
    comparison: Comparison
    baselines: Mapping[str, BaselineFigures]
    alerts: tuple[AlertRecord, ...]
    spans: tuple[SpikeSpan, ...]
    days: tuple[DailyAlerts, ...]
    curve: tuple[AlarmPoint, ...]
    baseline_curve: tuple[AlarmPoint, ...]
    reliability: Reliability | None
    volatility: ForecastComparison | None
    volatility_baseline: str

    @property
    def threshold_text(self) -> str:
        """The source of the alert threshold as a phrase."""
        own = self.request.thresholds
        rule = "the model's own threshold" if self.budget is None else f"a budget of {self.budget:g} min per day"
        return f"{rule}, except {own}" if own else rule

    @property
    def alarm_minutes_per_day(self) -> float:
        """Minutes of alarm per covered day of a product."""
        return self.comparison.model_events.alarm_share * DAY_S / 60.0

    @property
    def median_lead_s(self) -> float:
        """The median lead of the onsets caught in time; NaN without any."""
        leads = [alert.lead_s for alert in self.alerts if alert.is_onset and alert.outcome is AlarmOutcome.IN_TIME]
        return float(np.median(leads)) if leads else nan

    @property
    def cost(self) -> float:
        """Of missed onsets and alerts; NaN without a request for it."""
        events, cost = self.comparison.model_events, self.request.cost
        return nan if cost is None else cost.miss * (events.onsets - events.onsets_caught) + cost.alarm * events.alarms

    @property
    def cost_without_alerts(self) -> float:
        """Of missing every onset; NaN without a request for it."""
        cost = self.request.cost
        return nan if cost is None else cost.miss * self.comparison.model_events.onsets

    def figures(self) -> Figures:
        """All figures by name, None where undefined, as ``--json`` prints them."""
        events, compared = self.comparison.model_events, self.comparison
        calm = compared.calm
        return {
            "model": self.metadata.model,
            "features": str(self.features),
            "spike": str(self.spike),
            "products": list(self.products),
            "simulated": self.simulated,
            "start": format_time(self.start),
            "end": format_time(self.end),
            "rows": len(self.scored),
            "hours": events.hours,
            "base_rate": known(compared.model.base_rate),
            "budget_minutes_per_day": self.budget,
            "alert_thresholds": dict(self.request.thresholds.values),
            "alarm_minutes_per_day": known(self.alarm_minutes_per_day),
            "alerts": events.alarms,
            "false_alerts": events.alarms - events.true_alarms,
            "events": events.episodes,
            "events_caught_in_time": events.in_time,
            "onsets": events.onsets,
            "onsets_caught": events.onsets_caught,
            "onset_recall": known(events.onset_recall),
            "median_lead_s": known(self.median_lead_s),
            "pr_auc": known(compared.pr_auc.model),
            "pr_auc_mean_of_days": known(compared.days.pr_auc.model),
            "pr_auc_calm": known(calm.pr_auc.model),
            "baseline": compared.baseline_name,
            "baseline_pr_auc": known(compared.pr_auc.baseline),
            "baseline_pr_auc_mean_of_days": known(compared.days.pr_auc.baseline),
            "baseline_pr_auc_calm": known(calm.pr_auc.baseline),
            "pr_auc_intervals": compared.pr_auc.figures(),
            "mean_of_days_intervals": compared.days.figures(),
            "calm_intervals": calm.figures(),
            "baseline_onsets_caught": compared.baseline_events.onsets_caught,
            "baselines": {
                name: {"pr_auc": known(found.pr_auc), "pr_auc_calm": known(found.pr_auc_calm)}
                for name, found in self.baselines.items()
            },
            "budgets": [point.figures() for point in compared.budgets],
            "volatility_baseline": self.volatility_baseline,
            "volatility": None if self.volatility is None else self.volatility.figures(),
            "cost": known(self.cost),
            "cost_without_alerts": known(self.cost_without_alerts),
            "curve": [point.figures() for point in self.curve],
            "baseline_curve": [point.figures() for point in self.baseline_curve],
            "days": [day.figures() for day in self.days],
            "alert_list": [alert.figures() for alert in self.alerts],
            "split_method": self.metadata.split.method,
            "limitations": list(self.limitations),
            "warnings": list(self.warnings),
        }


def run_backtest(
    artifact: Artifact, features: Path, dataset: Dataset, request: BacktestRequest, on_step: OnStep = lambda _: None
) -> Backtest:
    """Backtest ``artifact`` on all labelled rows of ``features``, loaded as ``dataset``.

    Raises:
        UsageError: an alert threshold of a product that the rows do not have.
        SchemaMismatch: the rows are of another kind than the model's, or lack what τ is derived from.
        NotEnoughData: no row has a known τ, or the model can score none.
        ArtifactCorrupt: the model's stored baseline is damaged.
    """
    metadata = artifact.metadata
    facts = dataset.facts
    artifact.check_dataset(dataset)
    request.thresholds.check(dataset.products)
    spike = request.spike or metadata.spike_definition
    is_own = spike == metadata.spike_definition
    tau = dataset.thresholds(spike, metadata.tau if is_own else None)
    rows = np.flatnonzero(np.isfinite(tau) & np.isfinite(dataset.persistence))
    if not len(rows):
        raise NotEnoughData(f"{features}: no row has a threshold τ of {spike} and the last minute's volatility")
    on_step(Step(f"scoring {len(rows):,} rows", 0.2))
    live = artifact.score_rows(dataset, np.arange(len(dataset)), tau)
    probability, unscored = with_lowest(live[rows])
    if unscored == len(rows):
        raise NotEnoughData(f"{features}: {metadata.model} can score none of {len(rows):,} rows; a value is missing")
    threshold = artifact.alert_thresholds(dataset, live, tau, request.budget)[rows]
    own = np.array([request.thresholds.of(product, nan) for product in dataset.products])[dataset.product[rows]]
    scored = Scored.of(
        dataset,
        rows,
        tau,
        probability=probability,
        threshold=np.where(np.isnan(own), threshold, own),
        baseline=np.zeros(len(rows)),  # the best one is not known yet
        baseline_threshold=np.inf,
        holds_budget=np.isnan(own) & (artifact.holds_budget or request.budget is not None),
    )
    on_step(Step("comparing with the baselines", 0.5))
    scores = {name: with_lowest(score)[0] for name, score in baseline_scores(artifact, dataset, rows, tau).items()}
    baselines = rank_baselines(scored, scores)
    best = next(iter(baselines))
    scored = scored.with_baseline(calibrated(scores[best], scored.y), np.full(len(rows), np.inf))
    timeline = SpikeTimeline.of(scored)
    scored = _with_equal_alarms(scored, timeline)
    on_step(Step("computing intervals", 0.7))
    alarms = timeline.alarms(scored.probability, scored.threshold)
    volatility, volatility_baseline = _compare_volatility(dataset, rows, request.seed)
    markets = dataset_markets(dataset.only(rows), request.venue)
    limitations = tuple(texts(all_limitations(metadata, markets, simulated=facts.simulated, profile=facts.profile)))
    is_reliable = (is_own or artifact.takes_tau) and 0 < int(scored.y.sum()) < len(scored)
    return Backtest(
        features=features,
        metadata=metadata,
        spike=spike,
        request=request,
        products=dataset.products,
        start=int(scored.time.min()),
        end=int(scored.time.max()),
        simulated=facts.simulated,
        budget=request.budget or (None if metadata.adaptation is None else BUDGET_MINUTES),
        limitations=limitations,
        warnings=tuple(_warnings(artifact, dataset, rows, unscored, spike, limitations)),
        scored=scored,
        comparison=compare(scored, baseline_name=best, resamples=RESAMPLES, seed=request.seed),
        baselines=baselines,
        alerts=list_alerts(scored, timeline, alarms, dataset.products),
        spans=list_spans(scored, timeline, alarms, dataset.products),
        days=day_figures(scored, timeline),
        curve=tuple(alarm_curve(timeline, scored.probability)),
        baseline_curve=tuple(alarm_curve(timeline, scored.baseline)),
        reliability=reliability(scored.y, scored.probability, scored.time) if is_reliable else None,
        volatility=volatility,
        volatility_baseline=volatility_baseline,
    )


def with_lowest(score: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """The scores with the lowest in place of undefined ones (0 if all are), and how many those are."""
    undefined = ~np.isfinite(score)
    lowest = float(score[~undefined].min()) if not undefined.all() else 0.0
    return np.where(undefined, lowest, score), int(undefined.sum())


def past_volatilities(dataset: Dataset, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Name → past volatility of these rows: ``persistence``, the last minute's, and ``ewma_S`` for every half-life."""
    found = {PERSISTENCE: dataset.persistence[rows]}
    for half_life in EWMA_HALF_LIVES:
        name = f"ewma_volatility_{half_life}s"
        if name in dataset.names:
            found[f"ewma_{half_life}"] = dataset.x[rows, dataset.names.index(name)]
    return found


def baseline_scores(
    artifact: Artifact, dataset: Dataset, rows: NDArray[np.int64], tau: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The score of each baseline whose columns exist, by name; NaN where undefined.

    They are r / (1 + r) for the ratio r of each of the ``past_volatilities`` to τ, and the best baseline of the model's
    training if it is stored with it.

    Raises:
        ArtifactCorrupt: the stored baseline is damaged.
    """
    scores = {name: values / (values + tau[rows]) for name, values in past_volatilities(dataset, rows).items()}
    stored = load_stored_baseline(artifact.directory)
    if stored is not None and stored.facts.model not in scores:
        columns = [name for name in stored.facts.features if name != "tau"]
        if all(name in dataset.names for name in columns):
            scores[stored.facts.model] = stored.probability(dataset.inputs(stored.facts.features, tau, rows))
    return scores


def calibrated(score: NDArray[np.float64], y: NDArray[np.int8]) -> NDArray[np.float64]:
    """A score in (0, 1) as the probability that it means on these rows, in the same order.

    The rule of alarms depends on the scale of a score: an alarm ends below four fifths of its threshold, which a
    volatility reaches later than the probability that it implies. Calibration on the tested rows themselves favours
    the baseline.
    """
    return Platt.fit(score, y).apply(score)


def rank_baselines(scored: Scored, scores: Mapping[str, NDArray[np.float64]]) -> dict[str, BaselineFigures]:
    """PR-AUC of each score (n,) on the rows of ``scored``, the greatest first."""
    calm = scored.is_calm
    found = {
        name: BaselineFigures(
            pr_auc=average_precision(scored.y, score), pr_auc_calm=average_precision(scored.y[calm], score[calm])
        )
        for name, score in scores.items()
    }
    return dict(sorted(found.items(), key=lambda item: -np.nan_to_num(item[1].pr_auc, nan=-1.0)))


def _compare_volatility(dataset: Dataset, rows: NDArray[np.int64], seed: int) -> tuple[ForecastComparison | None, str]:
    """The served forecast of the volatility against the past volatility with the greatest R², and the latter's name."""
    weights = forecast_inputs(dataset.names)
    if not weights:
        return None, ""
    realized = dataset.future_volatility[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(dataset.columns(tuple(weights))[rows])
        served = np.exp(logs @ np.array(list(weights.values())))
    best, best_fit = np.zeros(0), -np.inf
    name = ""
    for column, values in past_volatilities(dataset, rows).items():
        known_rows = (realized > 0.0) & (values > 0.0)
        fit = r_squared(np.log(realized[known_rows]), np.log(values[known_rows]))
        if fit > best_fit:
            best, best_fit, name = values, fit, column
    if not name:
        return None, ""
    draws = Draws.of(dataset.time[rows], BLOCK_S, RESAMPLES, seed)
    return compare_forecasts(realized, served, best, draws), name


def _with_equal_alarms(scored: Scored, timeline: SpikeTimeline) -> Scored:
    """The baseline with the lowest threshold that uses no more alarm minutes than the model does."""
    counts = match_alarms(timeline, scored.probability, scored.threshold).counts.sum(axis=0)
    used = dict(zip(COLUMNS, counts.tolist(), strict=True))
    scan = AlarmScan(timeline.series, timeline.seconds, scored.baseline, timeline.may_open)
    minutes = used["alarm_seconds"] / 60.0 / scan.days if scan.days else 0.0
    threshold = scan.threshold(scan.cut_within(minutes))
    return scored.with_baseline(scored.baseline, np.full(len(scored), threshold))


def _warnings(
    artifact: Artifact,
    dataset: Dataset,
    rows: NDArray[np.int64],
    unscored: int,
    spike: SpikeDefinition,
    limitations: Sequence[str],
) -> list[str]:
    metadata = artifact.metadata
    warnings = [f"{metadata.model}: {limitation}" for limitation in limitations]
    if spike != metadata.spike_definition and not artifact.takes_tau:
        warnings.append(
            f"{metadata.model} predicts spikes of {metadata.spike_definition}; for {spike} its probabilities are "
            "used as a ranking only"
        )
    if unscored:
        warnings.append(
            f"{unscored:,} of {len(rows):,} rows lack a value that {metadata.model} needs; they have its lowest score"
        )
    if left_out := len(dataset) - len(rows):
        warnings.append(f"{left_out:,} rows are left out: their threshold τ or last minute's volatility is unknown")
    return warnings
