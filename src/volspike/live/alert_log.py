"""The alerts of all products with their outcomes, and what followed the probabilities stated before.

An alert is a hit if one of its rows, while it was open, was followed by a spike; the lead is the time from its opening
to the realized spike, one horizon after the event's first such row. These are the rules of ``evaluation.spike_events``.
The outcome of an alert stays pending if that of none of its rows becomes known, as after a restart or lost data.
A second here is the Unix second of a row's timestamp.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable
from math import inf, isfinite, isnan, nan
from typing import Any, Final

from msgspec.structs import replace

from volspike.episodes import HOLD_S, Episode
from volspike.evaluation.spike_events import LEAD_CAP_HORIZONS
from volspike.market import SECOND_NS, Mode
from volspike.market.time import MILLISECOND_NS
from volspike.monitoring.outcome_database import AlertEntry

ALERTS: Final = 500
HIT, FALSE, PENDING = "hit", "false", "pending"

EDGES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Limits of the probabilities that are explained together; a bin contains its lower limit, the last both."""
MINUTES: Final = 200
_MAX_PENDING: Final = 120


class _Events:
    """The newest spike event of a product: its first and last second, and whether an alert has caught it."""

    first: float = -inf
    last: float = -inf
    is_caught: bool = False


class AlertLog:
    """The newest alerts of all products, oldest first, as the page and ``/alerts`` show them."""

    def __init__(self, horizon_s: int, mode: Mode, limit: int = ALERTS) -> None:
        self.horizon_s, self._mode, self._limit = horizon_s, mode, limit
        self._alerts: OrderedDict[tuple[str, str], AlertEntry] = OrderedDict()
        self._undecided: dict[str, dict[str, bool]] = {}  # product → id → whether an outcome of its rows is known
        self._events: dict[str, _Events] = {}
        self._open: dict[str, AlertEntry] = {}
        self._spikes: dict[str, int] = {}

    def restore(self, alerts: Iterable[AlertEntry]) -> None:
        """Begin with stored alerts, oldest first.

        An outcome that was pending stays so: the outcomes of the rows before a restart do not become known after it.
        """
        for alert in alerts:
            self._keep(_ended(alert))

    def add(self, episode: Episode, *, is_in_sample: bool, suppressed: str | None = None) -> AlertEntry:
        """Add an alert that opened, or its closed state."""
        key = (episode.product, episode.id)
        before = self._alerts.get(key)
        alert = AlertEntry(
            product=episode.product,
            id=episode.id,
            opened=episode.opened,
            closed=episode.closed,
            peak_probability=episode.peak_probability,
            threshold=episode.threshold,
            simulated=self._mode.is_simulated,
            is_in_sample=is_in_sample,
            outcome=PENDING if before is None else before.outcome,
            lead_s=nan if before is None else before.lead_s,
            suppressed=suppressed,
        )
        if alert.outcome == PENDING:
            self._undecided.setdefault(alert.product, {}).setdefault(alert.id, False)
        return self._keep(alert)

    def _keep(self, alert: AlertEntry) -> AlertEntry:
        key = (alert.product, alert.id)
        self._alerts[key] = alert
        if alert.closed is None:
            self._open[alert.product] = alert
        elif alert.product in self._open and self._open[alert.product].id == alert.id:
            del self._open[alert.product]
        while len(self._alerts) > self._limit:
            _, oldest = self._alerts.popitem(last=False)
            self._undecided.get(oldest.product, {}).pop(oldest.id, None)
        return alert

    def raise_peak(self, product: str, probability: float) -> None:
        """Raise the peak of the open alert of a product; its final peak comes when it closes."""
        alert = self._open.get(product)
        if alert is not None and probability > alert.peak_probability:
            self._keep(replace(alert, peak_probability=probability))

    def outcome(self, product: str, second: int, *, is_spike: bool) -> list[AlertEntry]:
        """Add whether the rows of a second were followed by a spike; returns the alerts whose outcome it decides."""
        events = self._events.setdefault(product, _Events())
        if is_spike:
            if second - events.last >= self.horizon_s:
                events.first, events.is_caught = second, False
                self._spikes[product] = self._spikes.get(product, 0) + 1
            events.last = second
        decided = []
        undecided = self._undecided.get(product, {})
        for name, has_outcome in list(undecided.items()):
            alert = self._alerts[product, name]
            opened = alert.opened // SECOND_NS
            closed = inf if alert.closed is None else alert.closed / SECOND_NS
            if opened <= second < closed:
                undecided[name] = True
                if not is_spike:
                    continue
                lead = min(events.first + self.horizon_s - alert.opened / SECOND_NS, LEAD_CAP_HORIZONS * self.horizon_s)
                changed = replace(alert, outcome=HIT, lead_s=nan if events.is_caught else lead)
                events.is_caught = True
            elif second >= closed:
                changed = replace(alert, outcome=FALSE)
            else:
                continue
            del undecided[name]
            if changed.outcome == HIT or has_outcome:
                decided.append(self._keep(changed))
        return decided

    def counts(self, product: str) -> dict[str, int]:
        """The number of alerts of a product, and of its spike events since the start."""
        alerts = sum(alert.product == product for alert in self._alerts.values())
        return {"alerts": alerts, "spikes": self._spikes.get(product, 0)}

    def opened_since(self, product: str, since_ns: int) -> int:
        """The number of alerts of a product that opened since a time."""
        return sum(alert.product == product and alert.opened >= since_ns for alert in self._alerts.values())

    def entries(self, product: str | None = None, stored: Iterable[AlertEntry] = ()) -> list[dict[str, Any]]:
        """The alerts of a product, or of all, as JSON values, oldest first; those of ``stored`` too."""
        known = {(alert.product, alert.id): _ended(alert) for alert in stored} | self._alerts
        chosen = [alert for alert in known.values() if product in {None, alert.product}]
        return [self.fields(alert) for alert in sorted(chosen, key=lambda alert: alert.opened)]

    def fields(self, alert: AlertEntry) -> dict[str, Any]:
        """An alert as JSON values; times in ms."""
        return {
            "product": alert.product,
            "id": alert.id,
            "state": "open" if alert.closed is None else "closed",
            "opened": alert.opened // MILLISECOND_NS,
            "closed": None if alert.closed is None else alert.closed // MILLISECOND_NS,
            "peak_probability": alert.peak_probability if isfinite(alert.peak_probability) else None,
            "threshold": alert.threshold if isfinite(alert.threshold) else None,
            "mode": self._mode,
            "simulated": alert.simulated,
            "is_in_sample": alert.is_in_sample,
            "outcome": alert.outcome,
            "lead_s": None if isnan(alert.lead_s) else alert.lead_s,
            "suppressed": alert.suppressed,
        }


def _ended(alert: AlertEntry) -> AlertEntry:
    """A stored alert; one that was open when its process ended has lasted a minute."""
    return alert if alert.closed is not None else replace(alert, closed=alert.opened + round(HOLD_S * SECOND_NS))


class Explanation:
    """Of the latest minutes in which a product was scored like now: how many were followed by a spike.

    One row of each minute counts, the first, so that no two horizons of a minute overlap.
    """

    def __init__(self) -> None:
        self._bins: list[deque[bool]] = [deque(maxlen=MINUTES) for _ in EDGES[1:]]
        self._pending: OrderedDict[int, float] = OrderedDict()
        self._second = -1

    def add(self, second: int, probability: float) -> None:
        """Add a row in a second; of several in it the last counts, and a row without a probability does not."""
        if not isfinite(probability):
            return
        if second // 60 != self._second // 60:
            self._second = second
        elif second != self._second:
            return
        self._pending[second] = probability
        if len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)  # some outcomes never become known

    def outcome(self, second: int, *, is_spike: bool) -> None:
        """Add whether the rows of a second were followed by a spike."""
        probability = self._pending.pop(second, None)
        if probability is not None:
            self.count(probability, is_spike=is_spike)

    def count(self, probability: float, *, is_spike: bool) -> None:
        """Add a minute that was scored with a probability."""
        place = min(max(bisect_right(EDGES, probability) - 1, 0), len(self._bins) - 1)
        self._bins[place].append(is_spike)

    def fields(self, product: str, horizon_s: int) -> dict[str, Any]:
        """The minutes and those with a spike, by probability, as JSON values."""
        bins = [
            {"low": low, "high": high, "minutes": len(each), "spikes": sum(each)}
            for low, high, each in zip(EDGES[:-1], EDGES[1:], self._bins, strict=True)
        ]
        return {"product": product, "horizon_s": horizon_s, "bins": bins}
