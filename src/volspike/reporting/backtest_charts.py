"""Charts of a backtest as SVG for an HTML page: onset recall over alarm minutes, and the alerts of each day.

Colours are classes of the page's style, so that the charts follow its light or dark scheme. Every mark has a tooltip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import isnan
from typing import Final

from volspike.evaluation import AlarmPoint
from volspike.evaluation.scored import DAY_NS
from volspike.market import SECOND_NS, format_time
from volspike.reporting.alert_history import AlertRecord, SpikeSpan
from volspike.reporting.backtest import Backtest

WIDTH: Final = 880
CURVE_HEIGHT: Final = 320
CURVE_MINUTES: Final = 120.0
"""The alarm minutes per day at which the chart of the curve ends."""

LEFT: Final = 64
RIGHT: Final = 16
TOP: Final = 12
BOTTOM: Final = 44

STRIP_HEIGHT: Final = 30
MOST_STRIPS: Final = 60
"""Strips of the timeline; the newest are shown."""

NARROWEST: Final = 1.5
"""Width of the shortest mark, in pixels: a day has 880, a minute two thirds of one."""

OUTCOME_CLASSES: Final = {"in time": "good", "late": "late", "repeated": "late", "false": "bad"}


def recall_chart(backtest: Backtest) -> str:
    """Onset recall of model and baseline over alarm minutes per day, and the point at which the alerts were sent."""
    parts = [*_recall_axes()]
    parts += _curve(backtest.comparison.baseline_name, "baseline", backtest.baseline_curve)
    parts += _curve(backtest.metadata.model, "model", backtest.curve)
    events = backtest.comparison.model_events
    if events.onsets and backtest.alarm_minutes_per_day <= CURVE_MINUTES:
        x, y = _x(backtest.alarm_minutes_per_day), _y(events.onset_recall)
        sent = f"alerts sent: {backtest.alarm_minutes_per_day:.0f} min per day, {events.onset_recall:.0%} of onsets"
        parts.append(f'<circle class="sent" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{escape(sent)}</title></circle>')
    return _svg(CURVE_HEIGHT, "Share of onsets caught over minutes of alarm per day", parts)


def _x(minutes: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * minutes / CURVE_MINUTES


def _y(share: float) -> float:
    return TOP + (CURVE_HEIGHT - TOP - BOTTOM) * (1.0 - share)


def _recall_axes() -> Iterator[str]:
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{percent} %</text>'
    for minutes in range(0, round(CURVE_MINUTES) + 1, 15):
        yield f'<text class="middle" x="{_x(minutes):.1f}" y="{CURVE_HEIGHT - BOTTOM + 18}">{minutes}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="middle" x="{middle}" y="{CURVE_HEIGHT - 6}">minutes of alarm per day</text>'


def _curve(label: str, style: str, points: Sequence[AlarmPoint]) -> Iterator[str]:
    shown = [point for point in points if point.minutes_per_day <= CURVE_MINUTES and point.onsets]
    if not shown:
        return
    line = " ".join(f"{_x(point.minutes_per_day):.1f},{_y(point.onset_recall):.1f}" for point in shown)
    yield f'<polyline class="{style}" points="{line}"/>'
    for point in shown:
        text = (
            f"{label}: {point.onsets_caught} of {point.onsets} onsets at {point.minutes_per_day:.1f} min per day, "
            f"{point.alarms} alerts, threshold {point.threshold:.4g}"
        )
        x, y = _x(point.minutes_per_day), _y(point.onset_recall)
        yield f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(text)}</title></circle>'


def timeline_chart(backtest: Backtest) -> tuple[str, int]:
    """A strip per product and UTC day with spike events above and alerts below; and how many strips are left out."""
    strips = sorted(_strips(backtest), key=lambda strip: (strip[1], strip[0]))
    shown = strips[-MOST_STRIPS:]
    height = TOP + STRIP_HEIGHT * len(shown) + 24
    parts = [*_hours(height)]
    for number, (product, day) in enumerate(shown):
        parts += _strip(backtest, product, day, TOP + STRIP_HEIGHT * number, several=len(backtest.products) > 1)
    return _svg(height, "Spike events and alerts of each day", parts), len(strips) - len(shown)


def _strips(backtest: Backtest) -> set[tuple[str, int]]:
    """Product and day of everything to be shown, and all days of the rows."""
    moments = [(span.product, span.first) for span in backtest.spans]
    moments += [(alert.product, alert.opened) for alert in backtest.alerts]
    return {(product, moment // DAY_NS) for product, moment in moments}


def _hours(height: float) -> Iterator[str]:
    for hour in range(0, 25, 3):
        x = _at(hour / 24)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - 22}"/>'
        yield f'<text class="middle" x="{x:.1f}" y="{height - 6}">{hour:02d}:00</text>'


STRIP_LEFT: Final = 150


def _at(share_of_day: float) -> float:
    return STRIP_LEFT + (WIDTH - STRIP_LEFT - RIGHT) * share_of_day


def _strip(backtest: Backtest, product: str, day: int, top: float, *, several: bool) -> Iterator[str]:
    date = format_time(day * DAY_NS)[:10]
    name = f"{date[5:]} {product.rpartition(':')[2]}" if several else date
    yield f'<text class="end" x="{STRIP_LEFT - 10}" y="{top + 17}">{escape(name)}</text>'
    yield f'<line class="grid" x1="{STRIP_LEFT}" x2="{WIDTH - RIGHT}" y1="{top + 14}" y2="{top + 14}"/>'
    for span in backtest.spans:
        if span.product == product and span.first // DAY_NS == day:
            yield _mark("spike" if span.is_onset else "ongoing", span.first, span.last, day, top + 3, _of_span(span))
    for alert in backtest.alerts:
        if alert.product == product and alert.opened // DAY_NS == day:
            style = OUTCOME_CLASSES[str(alert.outcome)]
            yield _mark(style, alert.opened, alert.closed, day, top + 15, _of_alert(alert))


def _mark(style: str, start: int, end: int, day: int, top: float, text: str) -> str:
    left = _at((start - day * DAY_NS) / DAY_NS)
    width = max(NARROWEST, _at(min(1.0, (end - day * DAY_NS) / DAY_NS)) - left)
    box = f'x="{left:.1f}" y="{top}" width="{width:.1f}" height="10"'
    return f'<rect class="{style}" {box}><title>{escape(text)}</title></rect>'


def _of_span(span: SpikeSpan) -> str:
    kind = "onset" if span.is_onset else "spike after a volatile minute"
    caught = "caught in time" if span.is_in_time else "not caught in time"
    return f"{clock(span.first)} {kind}, {(span.last - span.first) / SECOND_NS:.0f} s of rows, {caught}"


def _of_alert(alert: AlertRecord) -> str:
    lead = "" if isnan(alert.lead_s) else f", lead {alert.lead_s:.0f} s"
    return f"{clock(alert.opened)} alert for {alert.minutes:.1f} min, peak {alert.peak:.3f}, {alert.outcome}{lead}"


def clock(time_ns: int) -> str:
    """The UTC time of day to the second.

    >>> clock(3_723_000_000_000)
    '01:02:03'
    """
    return format_time(time_ns)[11:19]


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    view = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view}>\n' + "\n".join(parts) + "\n</svg>"
