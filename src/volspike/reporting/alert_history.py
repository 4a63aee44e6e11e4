"""The alerts and spike events of scored rows one by one, and the figures of each day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import nan
from typing import Any, Final

import numpy as np

from volspike.episodes import Runs
from volspike.evaluation import Scored, SpikeTimeline
from volspike.evaluation.alarm_budget import DAY_S
from volspike.evaluation.metrics import average_precision, known
from volspike.evaluation.scored import DAY_NS
from volspike.evaluation.spike_events import COLUMNS, AlarmOutcome, match_alarms
from volspike.market import SECOND_NS, format_time
from volspike.reporting.format import Table, number

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRecord:
    """An alert that would have been sent; times in ns UTC.

    ``peak`` is the highest probability while it was open. ``lead_s`` is the time from its opening to the realized
    spike, NaN unless it caught one. ``is_onset``: whether its spike began in a calm row.
    """

    product: str
    opened: int
    closed: int
    peak: float
    threshold: float
    outcome: AlarmOutcome
    lead_s: float
    is_onset: bool

    @property
    def minutes(self) -> float:
        """How long it was open."""
        return (self.closed - self.opened) / SECOND_NS / 60.0

    def figures(self) -> Figures:
        """The values by name, times in RFC 3339, None where undefined."""
        return {
            "product": self.product,
            "opened": format_time(self.opened),
            "closed": format_time(self.closed),
            "peak": self.peak,
            "threshold": self.threshold,
            "outcome": str(self.outcome),
            "lead_s": known(self.lead_s),
            "is_onset": self.is_onset,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeSpan:
    """A spike event from its first to its last row (ns UTC), and whether an alert caught it in time."""

    product: str
    first: int
    last: int
    is_onset: bool
    is_in_time: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyAlerts:
    """The figures of one UTC day, all products together; an event or alert belongs to the day it begins on."""

    day: str
    rows: int
    base_rate: float
    pr_auc: float
    baseline_pr_auc: float
    events: int
    onsets: int
    onsets_caught: int
    alerts: int
    false_alerts: int
    alarm_minutes_per_day: float

    def figures(self) -> Figures:
        """The figures by name, None where undefined."""
        return {name: value if name == "day" else known(value) for name, value in asdict(self).items()}


def list_alerts(
    scored: Scored, timeline: SpikeTimeline, alarms: Runs, products: tuple[str, ...]
) -> tuple[AlertRecord, ...]:
    """The alerts of ``alarms`` in order of time; the products by code."""
    matches = timeline.match(alarms)
    order = timeline.series.order
    peaks = np.maximum.reduceat(
        np.append(scored.probability[order], -np.inf), np.column_stack([alarms.first, alarms.last + 1]).ravel()
    )[::2]
    closed = timeline.series.time[alarms.last] + np.rint(timeline.seconds[alarms.last] * SECOND_NS).astype(np.int64)
    alerts = [
        AlertRecord(
            product=products[int(scored.product[row])],
            opened=int(scored.time[row]),
            closed=int(end),
            peak=float(peak),
            threshold=float(scored.threshold[row]),
            outcome=outcome,
            lead_s=float(lead),
            is_onset=bool(event >= 0 and timeline.is_onset[event]),
        )
        for row, end, peak, outcome, lead, event in zip(
            order[alarms.first], closed, peaks, matches.outcomes(), matches.lead_s, matches.event, strict=True
        )
    ]
    return tuple(sorted(alerts, key=lambda alert: (alert.opened, alert.product)))


def list_spans(
    scored: Scored, timeline: SpikeTimeline, alarms: Runs, products: tuple[str, ...]
) -> tuple[SpikeSpan, ...]:
    """The spike events, and whether ``alarms`` caught them."""
    time = timeline.series.time
    lead = timeline.leads(alarms)
    return tuple(
        SpikeSpan(
            product=products[int(scored.product[timeline.series.order[first]])],
            first=int(time[first]),
            last=int(time[last]),
            is_onset=bool(is_onset),
            is_in_time=bool(ahead > 0.0),
        )
        for first, last, is_onset, ahead in zip(
            timeline.spikes.first, timeline.spikes.last, timeline.is_onset, lead, strict=True
        )
    )


def day_figures(scored: Scored, timeline: SpikeTimeline) -> tuple[DailyAlerts, ...]:
    """The figures of each UTC day of ``scored``, oldest first."""
    counts = match_alarms(timeline, scored.probability, scored.threshold).counts
    days, code = np.unique(scored.day, return_inverse=True)
    found = []
    for place, day in enumerate(days.tolist()):
        rows = code == place
        part = scored.only(rows)
        of = dict(zip(COLUMNS, counts[rows].sum(axis=0).tolist(), strict=True))
        found.append(
            DailyAlerts(
                day=format_time(day * DAY_NS)[:10],
                rows=len(part),
                base_rate=float(part.y.mean()),
                pr_auc=average_precision(part.y, part.probability),
                baseline_pr_auc=average_precision(part.y, part.baseline),
                events=round(of["episodes"]),
                onsets=round(of["onsets"]),
                onsets_caught=round(of["onsets_caught"]),
                alerts=round(of["alarms"]),
                false_alerts=round(of["alarms"] - of["true_alarms"]),
                alarm_minutes_per_day=of["alarm_seconds"] / of["seconds"] * DAY_S / 60.0 if of["seconds"] else nan,
            )
        )
    return tuple(found)


LEAD_BIN_S: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadBin:
    """Alerts that caught a spike event, by their lead time; ``onsets`` of them caught one that began in a calm row."""

    label: str
    alerts: int
    onsets: int


def lead_bins(alerts: Sequence[AlertRecord], cap_s: float) -> tuple[LeadBin, ...]:
    """Alerts by lead time in steps of ten seconds up to ``cap_s``, the longest lead that counts; the first are late.

    A lead of 0 is late; a step includes its upper end.
    """
    leads = np.array([alert.lead_s for alert in alerts])
    is_onset = np.array([alert.is_onset for alert in alerts], np.bool_)
    ends = np.arange(0, cap_s + LEAD_BIN_S, LEAD_BIN_S)
    place = np.searchsorted(ends, leads[~np.isnan(leads)], side="left")
    all_counts, onsets = (
        np.bincount(found, minlength=len(ends)) for found in (place, place[is_onset[~np.isnan(leads)]])
    )
    labels = ["late", *(f"{low:.0f}–{high:.0f}" for low, high in pairwise(ends))]
    return tuple(
        LeadBin(label=label, alerts=int(count), onsets=int(onset))
        for label, count, onset in zip(labels, all_counts, onsets, strict=True)
    )


def alert_table(alerts: Sequence[AlertRecord]) -> Table:
    """The alerts one by one."""
    rows = [
        (
            format_time(alert.opened)[:19].replace("T", " "),
            alert.product,
            str(alert.outcome),
            number(alert.minutes, 1),
            number(alert.peak),
            number(alert.threshold),
            number(alert.lead_s, 0),
        )
        for alert in alerts
    ]
    return Table(("opened (UTC)", "product", "outcome", "minutes", "peak", "threshold", "lead, s"), rows, 3)


def lead_table(bins: Sequence[LeadBin]) -> Table:
    """Alerts by lead time."""
    rows = [(each.label, f"{each.alerts}", f"{each.onsets}") for each in bins]
    return Table(("lead time, s", "alerts that caught a spike event", "of them onsets"), rows)
