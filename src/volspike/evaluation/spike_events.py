"""Figures of spike events and alarm episodes: how many events were caught, how early, and how many alarms were false.

An event is one of ``spike_runs``, an alarm one of ``alarm_runs``. An onset is an event whose first row is calm: the
last minute's volatility is below τ.

An alarm catches one event only: the first with a row at which the alarm is open. The spike is realized one horizon (60
seconds by default) after the event's first row: that is the first row whose horizon is a spike. The lead is the time
from the opening of the first alarm that catches the event to that moment, at most ``LEAD_CAP_HORIZONS`` horizons (120
seconds by default); a lead above 0 is in time. The last minute's own volatility with the threshold τ has a lead of 0.

Long alarms gain nothing: ``volspike.episodes`` closes an alarm after five minutes and opens the next only once the
score has fallen, an alarm catches one event however long it is open, and a longer lead than the cap counts as the cap.
An alarm that is simply on catches the first event of its series at most.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import isnan, nan
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.episodes import Runs, SeriesOrder, alarm_runs, spike_runs
from volspike.evaluation.bootstrap import Draws, Interval, percentile_interval
from volspike.evaluation.metrics import known
from volspike.evaluation.scored import Scored
from volspike.market import SECOND_NS

LEAD_CAP_HORIZONS: Final = 2
"""The longest lead that counts: an alarm that opened a horizon before the event's first row did not warn of it."""

COLUMNS: Final = (
    "episodes",
    "caught",
    "in_time",
    "onsets",
    "onsets_caught",
    "alarms",
    "true_alarms",
    "seconds",
    "alarm_seconds",
)
"""Counts per row: events and alarms that begin at it, and the time it covers. "Episodes" are spike events."""

SHARES: Final = {
    "recall": ("caught", "episodes", 1.0),
    "recall_in_time": ("in_time", "episodes", 1.0),
    "onset_recall": ("onsets_caught", "onsets", 1.0),
    "precision": ("true_alarms", "alarms", 1.0),
    "alarm_share": ("alarm_seconds", "seconds", 1.0),
    "false_alarms_per_hour": ("false_alarms", "seconds", 3600.0),
}
"""Figure → numerator, denominator, factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFigures:
    """Figures of events and alarms over ``hours`` of covered time, summed over products; undefined ones are NaN.

    ``episodes`` are spike events; ``in_time`` counts those caught before they were realized. ``onsets`` are the events
    that begin while the last minute's volatility is below τ, ``onsets_caught`` those of them caught in time.
    Median and quartiles of the lead are over the caught events. ``intervals`` are of the shares, by name.
    """

    hours: float
    episodes: int
    caught: int
    in_time: int
    recall: float
    recall_in_time: float
    lead_median_s: float
    lead_low_s: float
    lead_high_s: float
    alarms: int
    true_alarms: int
    precision: float
    false_alarms_per_hour: float
    alarm_share: float
    onsets: int
    onsets_caught: int
    onset_recall: float
    intervals: dict[str, Interval] = field(default_factory=dict)

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined; an interval's ends as ``<figure>_low`` and ``_high``."""
        figures = {name: known(value) for name, value in asdict(self).items() if name != "intervals"}
        for name, interval in self.intervals.items():
            figures |= {f"{name}_low": known(interval.low), f"{name}_high": known(interval.high)}
        return figures


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """``counts`` (n, ``COLUMNS``) of each row, and ``lead_s`` of the caught events."""

    counts: NDArray[np.float64]
    lead_s: NDArray[np.float64]


class AlarmOutcome(StrEnum):
    """How an alarm turned out."""

    IN_TIME = "in time"
    """It caught an event before the spike was realized."""
    LATE = "late"
    """It caught an event after the spike was realized."""
    REPEATED = "repeated"
    """Its event had been caught by an earlier alarm."""
    FALSE = "false"
    """No event has a row at which it was open."""


@dataclass(frozen=True, slots=True, eq=False)
class AlarmMatches:
    """Of each of a alarms: its event, −1 for none, and its lead in seconds, NaN unless it catches the event."""

    event: NDArray[np.int64]
    lead_s: NDArray[np.float64]

    def outcomes(self) -> list[AlarmOutcome]:
        """How each alarm turned out."""
        return [_outcome(event, lead) for event, lead in zip(self.event.tolist(), self.lead_s.tolist(), strict=True)]


def _outcome(event: int, lead: float) -> AlarmOutcome:
    if event < 0:
        return AlarmOutcome.FALSE
    if isnan(lead):
        return AlarmOutcome.REPEATED
    return AlarmOutcome.IN_TIME if lead > 0.0 else AlarmOutcome.LATE


@dataclass(frozen=True, slots=True, eq=False)
class SpikeTimeline:
    """The spike events of n rows, found once for alarms at any number of thresholds.

    ``is_onset`` is of each event; ``seconds`` (n, by position) is the time that each row covers. ``is_calm``, and
    ``may_open``, where an alarm may open, are (n,) in the rows' order.
    """

    series: SeriesOrder
    spikes: Runs
    is_onset: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    is_calm: NDArray[np.bool_]
    may_open: NDArray[np.bool_]

    @classmethod
    def of(cls, scored: Scored) -> Self:
        """The events of the rows of ``scored``."""
        series = scored.series()
        spikes = spike_runs(series, scored.y)
        is_calm = scored.is_calm
        return cls(series, spikes, is_calm[series.order[spikes.first]], series.seconds(), is_calm, scored.may_open)

    def alarms(self, score: NDArray[np.float64], threshold: NDArray[np.float64] | float) -> Runs:
        """The alarms of a score (n, in the rows' order) at one threshold or one per row."""
        return alarm_runs(self.series, score, threshold, self.may_open)

    def leads(self, alarms: Runs) -> NDArray[np.float64]:
        """(e,) seconds from the first alarm that catches each event to the realized spike, capped; NaN if none does."""
        matches = self.match(alarms)
        lead = np.full(len(self.spikes), nan)
        caught = ~np.isnan(matches.lead_s)
        lead[matches.event[caught]] = matches.lead_s[caught]
        return lead

    def match(self, alarms: Runs) -> AlarmMatches:
        """The event of each alarm and, for the first alarm of an event, its lead."""
        event = alarms.first_overlap(self.spikes)
        overlapping = np.flatnonzero(event >= 0)
        caught, earliest = np.unique(event[overlapping], return_index=True)
        catching = overlapping[earliest]
        realized = self.series.time[self.spikes.first[caught]] + self.series.horizon_ns
        lead = np.full(len(alarms), nan)
        ahead = np.minimum(
            realized - self.series.time[alarms.first[catching]], LEAD_CAP_HORIZONS * self.series.horizon_ns
        )
        lead[catching] = ahead / SECOND_NS
        return AlarmMatches(event, lead)


def find_events(scored: Scored, *, of_baseline: bool = False) -> Events:
    """The spike events of the rows, and the alarms of the model or of the baseline at their thresholds."""
    score = scored.baseline if of_baseline else scored.probability
    threshold = scored.baseline_threshold if of_baseline else scored.threshold
    return match_alarms(SpikeTimeline.of(scored), score, threshold)


def match_alarms(timeline: SpikeTimeline, score: NDArray[np.float64], threshold: NDArray[np.float64] | float) -> Events:
    """The events of ``timeline``, and the alarms of a score (n, in the rows' order) at one threshold or one per row."""
    series, spikes, n = timeline.series, timeline.spikes, len(timeline.seconds)
    alarms = timeline.alarms(score, threshold)
    lead = timeline.leads(alarms)
    is_caught, in_time = ~np.isnan(lead), lead > 0.0

    def count(positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(series.order[positions], minlength=n)

    counted = {
        "episodes": count(spikes.first),
        "caught": count(spikes.first[is_caught]),
        "in_time": count(spikes.first[in_time]),
        "onsets": count(spikes.first[timeline.is_onset]),
        "onsets_caught": count(spikes.first[timeline.is_onset & in_time]),
        "alarms": count(alarms.first),
        "true_alarms": count(alarms.first[alarms.first_overlap(spikes) >= 0]),
        "seconds": np.bincount(series.order, timeline.seconds, n),
        "alarm_seconds": np.bincount(series.order, timeline.seconds * alarms.mask(n), n),
    }
    counts = np.column_stack([counted[name] for name in COLUMNS]).astype(np.float64)
    return Events(counts, lead[is_caught])


def event_figures(events: Events, draws: Draws | None = None) -> EventFigures:
    """The figures of all events, with intervals if there are draws of their rows.

    In a resample an event or alarm belongs to its first row, its time to the rows it covers.
    """
    sums = events.counts.sum(axis=0, keepdims=True)
    count = dict(zip(COLUMNS, np.rint(sums[0]).astype(int).tolist(), strict=True))
    share = {name: float(values[0]) for name, values in _shares(sums).items()}
    leads = events.lead_s
    low, middle, high = np.quantile(leads, [0.25, 0.5, 0.75]).tolist() if len(leads) else (nan, nan, nan)
    return EventFigures(
        hours=float(sums[0, COLUMNS.index("seconds")]) / 3600.0,
        episodes=count["episodes"],
        caught=count["caught"],
        in_time=count["in_time"],
        recall=share["recall"],
        recall_in_time=share["recall_in_time"],
        lead_median_s=middle,
        lead_low_s=low,
        lead_high_s=high,
        alarms=count["alarms"],
        true_alarms=count["true_alarms"],
        precision=share["precision"],
        false_alarms_per_hour=share["false_alarms_per_hour"],
        alarm_share=share["alarm_share"],
        onsets=count["onsets"],
        onsets_caught=count["onsets_caught"],
        onset_recall=share["onset_recall"],
        intervals={} if draws is None else _intervals(draws, events.counts),
    )


def _intervals(draws: Draws, counts: NDArray[np.float64]) -> dict[str, Interval]:
    return {name: percentile_interval(values) for name, values in _shares(draws.sums(counts)).items()}


def _shares(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """``SHARES`` of sums (r, ``COLUMNS``), each (r,); NaN for a denominator of 0."""
    of = dict(zip(COLUMNS, sums.T, strict=True))
    of["false_alarms"] = of["alarms"] - of["true_alarms"]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: np.where(of[over] > 0.0, times * of[counted] / of[over], nan)
            for name, (counted, over, times) in SHARES.items()
        }
