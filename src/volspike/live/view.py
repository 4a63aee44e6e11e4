"""The state of one product: the rule of its alerts, and its data for the dashboard."""

from __future__ import annotations

import time
from collections import deque
from math import isfinite, isnan, nan
from typing import Any, Final, NamedTuple, Self

from msgspec import to_builtins

from volspike.api.schema import ProductState, ThresholdSource, WarmUp
from volspike.episodes import Episode, EpisodeTracker
from volspike.features import ROW_FLOATS
from volspike.live.alert_log import Explanation
from volspike.live.bars import COLUMNS, DAY_S, SecondBars
from volspike.live.scoring import LiveScorer, ModelInputs, Outcome, ScoredRow
from volspike.live.warm_up import warm_up
from volspike.market import SECOND_NS, Gap, Tick, format_time
from volspike.market.product import split_product
from volspike.market.time import MILLISECOND_NS
from volspike.models import Artifact
from volspike.models.alert_level import AlertLevel
from volspike.models.alert_thresholds import AlertThresholds
from volspike.models.evidence import Spans, training_spans
from volspike.models.volatility import volatility_fields

SECOND_MS: Final = 1000
POINTS: Final = 15 * 60
POINTS_WITH_FEATURES: Final = 5 * 60
GAPS: Final = 1000
NO_MOVE: Final = (nan, nan, nan)
SPARK_POINTS: Final = 60
HOUR_NS: Final = 3600 * SECOND_NS
STALE_S: Final = 10.0
"""The silence that the gap ledger records as a gap."""


class _Shown(NamedTuple):
    """A row as the dashboard shows it: its alert threshold then, and the inputs of the model that scored it.

    ``is_in_sample`` is whether it lies within that model's own data.
    """

    scored: ScoredRow
    received: int
    threshold: float
    is_in_sample: bool
    inputs: ModelInputs


class ProductView:
    """The recent past of one product as JSON values; bounded at any rate. Rows are encoded only when they are shown.

    The bars of the last ``memory_s`` seconds are kept, with 88 bytes each.
    """

    def __init__(self, product: str, scorer: LiveScorer, memory_s: int = DAY_S) -> None:
        self.product = product
        # of the seconds before the newest row's; as JSON values from when they were first shown
        self._points: deque[_Shown | dict[str, Any]] = deque(maxlen=POINTS - 1)
        self.spikes: deque[dict[str, Any]] = deque(maxlen=POINTS)  # one per second of a spike
        self.bars = SecondBars(memory_s)
        self.spike_rows: deque[tuple[int, float]] = deque(maxlen=DAY_S)  # second and volatility after it
        self.explanation = Explanation()
        self.gaps: deque[Gap] = deque(maxlen=GAPS)
        self._scorer = scorer
        self._newest: _Shown | None = None
        self._is_published = True
        self._spark: tuple[int, list[float | None]] = (-1, [])

    def add_row(self, scored: ScoredRow, received: int, threshold: float, *, is_in_sample: bool = False) -> None:
        """Set the newest row and its alert threshold; it replaces an earlier one of the same second.

        ``is_in_sample`` is whether it lies within the model's own data.
        """
        before, self._newest = self._newest, _Shown(scored, received, threshold, is_in_sample, self._scorer.inputs)
        self._is_published = False
        second = scored.row.timestamp // SECOND_NS
        if before is not None and before.scored.row.timestamp // SECOND_NS != second:
            self._points.append(before)
        expected = scored.volatility
        move = NO_MOVE if expected is None else (expected.expected_bp, expected.low_bp, expected.high_bp)
        self.bars.add_score(second, scored.probability, threshold, move)
        self.explanation.add(second, scored.probability)

    def add_tick(self, tick: Tick) -> None:
        """Add a tick to the bars; call it before ``add_row`` for the rows that it makes."""
        spread = tick.best_ask - tick.best_bid
        middle = 0.5 * (tick.best_ask + tick.best_bid)
        self.bars.add_tick(tick.time // SECOND_NS, tick.price, 1e4 * spread / middle if middle > 0.0 else nan)

    def store_newest(self) -> None:
        """Turn the newest row into a point now, before another model replaces the one that scored it."""
        if self._newest is not None:
            self._points.append(self._newest)
            self._newest, self._is_published = None, True

    def take_unpublished(self) -> dict[str, Any] | None:
        """The newest row as a point with the product's warm-up, once."""
        if self._newest is None or self._is_published:
            return None
        self._is_published = True
        return _point(self._newest) | {"warm_up": to_builtins(self.warm_up())}

    def history(self) -> list[dict[str, Any]]:
        """All points, oldest first; only the newest ``POINTS_WITH_FEATURES`` have features."""
        bare = max(0, len(self._points) + 1 - POINTS_WITH_FEATURES)
        points = [_point(each) if isinstance(each, _Shown) else each for each in self._points]
        for point in points[:bare]:
            point.pop("features", None)
        self._points.clear()
        self._points.extend(points)
        return points if self._newest is None else [*points, _point(self._newest)]

    def warm_up(self) -> WarmUp:
        """The seconds and the inputs that the model still waits for after the newest row."""
        newest = None if self._newest is None else self._newest.scored
        return warm_up(newest, self._scorer.artifact, self._scorer.feature_set)

    def add_spike(self, outcome: Outcome) -> dict[str, Any]:
        """Add a second whose horizon was a spike; returns it for the event stream."""
        self.spike_rows.append((outcome.second, outcome.future_volatility))
        spike = {
            "product": self.product,
            "time": (outcome.second + 1) * SECOND_MS,
            "future_volatility": finite(outcome.future_volatility),
            "tau": outcome.tau,
        }
        self.spikes.append(spike)
        return spike

    def newest_ms(self) -> int | None:
        """The time of the newest row; None before the first."""
        return None if self._newest is None else self._newest.scored.row.timestamp // MILLISECOND_NS

    def overview(self, *, is_alert: bool, age_s: float, alerts: int, snoozed_until: int | None) -> dict[str, Any]:
        """The row of the product in the list of markets.

        ``age_s`` is the time since the newest row, 0 for a source with a time of its own, ``alerts`` those of today.
        """
        row = {"product": self.product, "venue": split_product(self.product)[0], "alerts": alerts}
        row["snoozed_until"] = snoozed_until
        if self._newest is None:
            unknown = dict.fromkeys(("price", "change_pct", "probability", "threshold", "is_calibrated", "time"))
            return row | unknown | {"state": "no_data", "spark": [], "gaps": len(self.gaps)}
        scored, threshold = self._newest.scored, self._newest.threshold
        spark = self._sparkline(scored.row.timestamp // SECOND_NS)
        known = [price for price in spark if price]
        change = 100 * (known[-1] / known[0] - 1) if len(known) > 1 else None
        recent = [gap for gap in self.gaps if gap.end > scored.row.timestamp - HOUR_NS]
        return row | {
            "price": finite(float(scored.row.values[0])),
            "change_pct": change,
            "probability": finite(scored.probability),
            "threshold": finite(threshold),
            "is_calibrated": scored.is_calibrated,
            "state": _state(scored, threshold, is_alert=is_alert, is_stale=age_s > STALE_S),
            "time": scored.row.timestamp // MILLISECOND_NS,
            "spark": spark,
            "gaps": len(recent),
        }

    def _sparkline(self, second: int) -> list[float | None]:
        """The last prices of the 15 s parts of the last 15 minutes; only the newest one changes within its part."""
        step = POINTS // SPARK_POINTS
        if self._spark[0] != second // step:
            bars = self.bars.between(second - POINTS + 1, second + 1).grouped(step)
            spark: list[float | None] = [None] * SPARK_POINTS
            for each, close in zip(bars.second.tolist(), bars.values[:, COLUMNS.index("close")].tolist(), strict=True):
                spark[max(0, SPARK_POINTS - 1 - (second // step - each // step))] = finite(close)
            self._spark = second // step, spark
        spark = self._spark[1]
        spark[-1] = finite(self.bars.last_price) or spark[-1]
        return spark.copy()


def _point(shown: _Shown) -> dict[str, Any]:
    """A row as JSON values; unknown numbers are None."""
    scored, row = shown.scored, shown.scored.row
    values = dict(zip(ROW_FLOATS, row.values.tolist(), strict=False))
    return {
        "product": row.product_id,
        "time": row.timestamp // MILLISECOND_NS,
        "received": shown.received // MILLISECOND_NS,
        "price": finite(values["price"]),
        "best_bid": finite(values["best_bid"]),
        "best_ask": finite(values["best_ask"]),
        "spread": finite(values["spread"]),
        "spread_bps": finite(values["spread_bps"]),
        "probability": finite(scored.probability),
        "tau": finite(scored.tau),
        **volatility_fields(scored.volatility),
        "state": None if scored.volatility is None else scored.volatility.state,
        "threshold": finite(shown.threshold),
        "is_calibrated": scored.is_calibrated,
        "horizons": {str(horizon): finite(probability) for horizon, probability in scored.horizons.items()},
        "is_warm": row.is_warm,
        "is_whole": row.is_whole,
        "is_in_sample": shown.is_in_sample,
        "features": shown.inputs.of(row),
    }


def _state(scored: ScoredRow, threshold: float, *, is_alert: bool, is_stale: bool) -> str:
    """The state of a product; the most severe one."""
    if is_stale:
        return "stale"
    if is_alert:
        return "alert"
    if isnan(scored.probability):
        return "warming_up"
    if not scored.row.is_whole:
        return "data_loss"
    return "above" if scored.probability >= threshold else "calm"


def finite(value: float) -> float | None:
    """A number for JSON, null if it is NaN or infinite."""
    return value if isfinite(value) else None


class AlertRule(NamedTuple):
    """The alerts of a product under a model: its episodes, and the source of their threshold.

    ``level`` is None if the threshold is fixed; ``own_data`` are the times of the model's training and evaluation.
    """

    episodes: EpisodeTracker
    source: ThresholdSource
    level: AlertLevel | None
    own_data: Spans

    @classmethod
    def of(cls, product: str, artifact: Artifact, thresholds: AlertThresholds, *, simulated: bool) -> Self:
        """The rule of a product: a threshold of the user, the budget of the model's alarm minutes, or its threshold.

        Raises:
            UsageError: the threshold of the model is not valid for alerts.
        """
        own, adaptation = thresholds.find(product), artifact.metadata.adaptation
        spans = training_spans(artifact.metadata, product, simulated=simulated)
        episodes = EpisodeTracker(artifact.threshold if own is None else own, product=product)
        if own is not None or adaptation is None:
            return cls(episodes, "model" if own is None else "option", None, spans)
        return cls(episodes, "budget", AlertLevel(adaptation.alert_log_odds), spans)


class LiveProduct:
    """A product of the pipeline: its alerts, its view, and its newest row.

    ``row_at`` is when the newest row was scored, on the clock of ``time.perf_counter_ns``. ``is_in_sample_logged`` is
    whether a row within the model's own data has been reported.
    """

    __slots__ = ("is_in_sample_logged", "last", "row_at", "rule", "view")

    def __init__(self, view: ProductView, rule: AlertRule) -> None:
        self.view, self.rule = view, rule
        self.last: ScoredRow | None = None
        self.row_at = 0
        self.is_in_sample_logged = False

    def is_in_sample(self, time_ns: int) -> bool:
        """Whether a time lies within the data that the model was trained or evaluated on."""
        for start, end in self.rule.own_data:  # noqa: SIM110  for each row; a generator would cost more
            if start <= time_ns <= end:
                return True
        return False

    def update(self, scored: ScoredRow) -> Episode | None:
        """The alert that a row opens or closes; a threshold with a budget follows the probabilities."""
        self.last, self.row_at = scored, time.perf_counter_ns()
        episodes, _, level, _ = self.rule
        time_ns, probability = scored.row.timestamp, scored.probability
        if level is None:
            return episodes.update(time_ns, probability)
        if not isnan(probability):
            episodes.set_threshold(level.update(time_ns, is_open=episodes.current is not None))
        return episodes.update(time_ns, probability, may_open=scored.is_calm)

    def expire(self) -> Episode | None:
        """The alert that closes because the rows have stopped."""
        if self.last is None:
            return None
        return self.rule.episodes.expire(self.last.row.timestamp + time.perf_counter_ns() - self.row_at)

    def adopt(self, rule: AlertRule) -> None:
        """Continue under the rule of another model; an open alert stays open."""
        self.view.store_newest()
        rule.episodes.resume(self.rule.episodes.state())
        self.rule = rule
        self.is_in_sample_logged = False
        self.view.explanation = Explanation()

    def state(self) -> ProductState:
        """The newest row's time, the alert threshold with its source, and the warm-up, for ``/health``."""
        newest = None if self.last is None else self.last.row.timestamp
        return ProductState(
            product=self.view.product,
            time=None if newest is None else format_time(newest),
            is_in_sample=newest is not None and self.is_in_sample(newest),
            threshold=self.rule.episodes.threshold,
            threshold_source=self.rule.source,
            warm_up=self.view.warm_up(),
        )
