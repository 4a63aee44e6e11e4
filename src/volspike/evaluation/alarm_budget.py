"""Onset recall at a budget of alarm minutes per day.

Two scores are compared where they cost their user the same attention: at thresholds with equally many minutes of alarm
per covered day of a product. Alarms are the episodes that users are sent under a budget (``volspike.episodes``): they
open in calm rows only and include the hold. ``volspike.evaluation.spike_events`` defines which onsets they catch.

The rule of alarms depends on the scale of a score, because an alarm ends below four fifths of its threshold. Compare
probabilities with probabilities: a volatility falls to four fifths later than the probability that it implies.

Alarm minutes are no monotonous function of the threshold: a score that never falls below it has a single alarm, which
is capped. Thresholds are therefore tried from the highest score down, and everything below the first threshold that
exceeds a budget is out of reach, whatever its minutes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.episodes import Runs, SeriesOrder, alarm_runs
from volspike.evaluation.bootstrap import Contrast, Draws, contrast
from volspike.evaluation.metrics import MOST_FLAGGED, Cuts, known, ratio
from volspike.evaluation.scored import Scored
from volspike.evaluation.spike_events import SpikeTimeline

BUDGETS: Final = (15.0, 30.0, 60.0)
"""Alarm minutes per day at which recall is reported."""

CURVE_LIMIT: Final = 240.0
"""The alarm minutes per day at which a curve ends, four hours of attention."""

GRID: Final = 40
"""Thresholds tried one after the other, evenly spaced in the logarithm of flagged rows; bisection follows."""

DAY_S: Final = 86_400.0


class AlarmScan:
    """The alarms of one score at its possible thresholds, from the highest down.

    Args:
        series: the order of the n rows.
        seconds: (n,) the time each position covers (``SeriesOrder.seconds``).
        score: (n,) in the rows' order, no NaN.
        may_open: of each row (n,) in the rows' order or of all: whether an alarm may open.
    """

    def __init__(
        self,
        series: SeriesOrder,
        seconds: NDArray[np.float64],
        score: NDArray[np.float64],
        may_open: NDArray[np.bool_] | bool = True,
    ) -> None:
        self._series, self._score, self._may_open = series, score, may_open
        self._covered = np.append(0.0, np.cumsum(seconds))
        self._cuts = Cuts.of(np.zeros(len(score), np.int8), score)
        self._minutes: dict[int, float] = {}

    @property
    def days(self) -> float:
        """The covered time of all products, in days."""
        return float(self._covered[-1]) / DAY_S

    def threshold(self, at: int) -> float:
        """The threshold of cut ``at``, counted from the highest score; that of cut −1 flags nothing."""
        if at < 0:
            return float(np.nextafter(self._cuts.score[0], np.inf)) if len(self._cuts.score) else np.inf
        return self._cuts.threshold(at)

    def alarms(self, at: int) -> Runs:
        """The alarms at the threshold of cut ``at``."""
        return alarm_runs(self._series, self._score, self.threshold(at), self._may_open)

    def minutes_per_day(self, at: int) -> float:
        """Minutes of alarm per covered day at the threshold of cut ``at``; 0 if no time is covered."""
        if at not in self._minutes:
            alarms = self.alarms(at)
            seconds = float((self._covered[alarms.last + 1] - self._covered[alarms.first]).sum())
            self._minutes[at] = seconds / 60.0 / self.days if seconds else 0.0
        return self._minutes[at]

    def grid(self) -> list[int]:
        """At most ``GRID`` cuts, from the highest score to the one that flags ``MOST_FLAGGED`` of the rows."""
        return self._cuts.spread(GRID, MOST_FLAGGED)

    def cut_within(self, budget: float) -> int:
        """The lowest cut before the first that exceeds ``budget`` minutes per day; −1 if the highest score does."""
        within = -1
        for at in self.grid():
            if self.minutes_per_day(at) > budget:
                return self._bisect(within, at, budget)
            within = at
        return within

    def _bisect(self, within: int, beyond: int, budget: float) -> int:
        while beyond - within > 1:
            middle = (within + beyond) // 2
            if self.minutes_per_day(middle) > budget:
                beyond = middle
            else:
                within = middle
        return within


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmPoint:
    """Alarms at one threshold; ``lead_median_s`` is over the onsets that were caught in time. NaN where undefined."""

    threshold: float
    minutes_per_day: float
    alarms: int
    onsets: int
    onsets_caught: int
    onset_recall: float
    lead_median_s: float

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined."""
        return {name: known(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint:
    """Model and baseline at the same budget of alarm minutes per day, each at its own threshold.

    The thresholds are chosen on the evaluated rows, as those of any curve are: the figures rank scores, as PR-AUC does,
    and do not show how well a threshold chosen beforehand keeps the budget. The intervals of ``onset_recall`` keep the
    thresholds and resample the onsets.
    """

    budget: float
    model: AlarmPoint
    baseline: AlarmPoint
    onset_recall: Contrast

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined: onset recall, and what each score reaches it with."""
        own: dict[str, int | float | None] = {"budget": self.budget, "onsets": self.model.onsets}
        for name, point in (("model", self.model), ("baseline", self.baseline)):
            own |= {f"{name}_{figure}": known(getattr(point, figure)) for figure in _OF_EACH}
        return own | {f"recall_{name}": value for name, value in self.onset_recall.figures().items()}


_OF_EACH: Final = ("threshold", "minutes_per_day", "alarms", "onsets_caught", "lead_median_s")


def budget_scan(timeline: SpikeTimeline, score: NDArray[np.float64]) -> AlarmScan:
    """The alarms of a score (n,) of the rows of ``timeline`` under a budget: they open in calm rows."""
    return AlarmScan(timeline.series, timeline.seconds, score, timeline.is_calm)


def alarm_curve(timeline: SpikeTimeline, score: NDArray[np.float64]) -> list[AlarmPoint]:
    """Onset recall over alarm minutes from the highest threshold to the last within ``CURVE_LIMIT``."""
    scan = budget_scan(timeline, score)
    points = []
    for at in scan.grid():
        if scan.minutes_per_day(at) > CURVE_LIMIT:
            break
        points.append(_point(timeline, scan, at)[0])
    return points


def budget_points(scored: Scored, draws: Draws) -> tuple[BudgetPoint, ...]:
    """Onset recall of model and baseline at each budget; ``draws`` are of the rows of ``scored``."""
    timeline = SpikeTimeline.of(scored)
    scans = [budget_scan(timeline, score) for score in (scored.probability, scored.baseline)]
    pairs = [[_point(timeline, scan, scan.cut_within(budget)) for scan in scans] for budget in BUDGETS]
    onset_rows = timeline.series.order[timeline.spikes.first[timeline.is_onset]]
    columns = np.zeros((len(scored), 1 + 2 * len(pairs)))
    columns[onset_rows] = np.column_stack([np.ones(len(onset_rows)), *(caught for pair in pairs for _, caught in pair)])
    sums = draws.sums(columns)
    with np.errstate(invalid="ignore"):
        recalls = sums[:, 1:] / sums[:, :1]
    return tuple(
        BudgetPoint(
            budget=budget,
            model=model,
            baseline=baseline,
            onset_recall=contrast(model.onset_recall, baseline.onset_recall, *recalls[:, 2 * i : 2 * i + 2].T),
        )
        for i, (budget, ((model, _), (baseline, _))) in enumerate(zip(BUDGETS, pairs, strict=True))
    )


def _point(timeline: SpikeTimeline, scan: AlarmScan, at: int) -> tuple[AlarmPoint, NDArray[np.bool_]]:
    """The alarms at a cut, and whether each onset is caught in time."""
    alarms = scan.alarms(at)
    lead = timeline.leads(alarms)[timeline.is_onset]
    caught = lead > 0.0
    point = AlarmPoint(
        threshold=scan.threshold(at),
        minutes_per_day=scan.minutes_per_day(at),
        alarms=len(alarms),
        onsets=len(lead),
        onsets_caught=int(caught.sum()),
        onset_recall=ratio(int(caught.sum()), len(lead)),
        lead_median_s=float(np.median(lead[caught])) if caught.any() else nan,
    )
    return point, caught
