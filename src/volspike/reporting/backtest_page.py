"""The files of a backtest: one HTML page that loads nothing else, and its alerts, curves and days as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any, Final

from volspike.errors import UsageError
from volspike.evaluation.spike_events import LEAD_CAP_HORIZONS
from volspike.market import format_time
from volspike.reporting.alert_history import AlertRecord
from volspike.reporting.backtest import Backtest
from volspike.reporting.backtest_charts import MOST_STRIPS, OUTCOME_CLASSES, recall_chart, timeline_chart
from volspike.reporting.format import (
    SIMULATED,
    Table,
    budget_table,
    day_and_time,
    headline_table,
    number,
    reliability_table,
    share,
    signed,
    span,
)

PAGE: Final = "backtest.html"
MOST_ALERTS: Final = 500
"""Alerts listed on the page, the newest; the CSV file holds all."""

_STYLE: Final = """
:root { color-scheme: light dark; --page: #f3f5f9; --card: #fff; --edge: #d5dce7; --ink: #131a26; --quiet: #546278;
  --model: #0b5cc4; --baseline: #a84c06; --spike: #d98a00; --good: #0b7048; --bad: #c2182b; --grid: #e6eaf1; }
@media (prefers-color-scheme: dark) { :root { --page: #0b0f15; --card: #131922; --edge: #263041; --ink: #e9eef6;
  --quiet: #9dabc0; --model: #6db1ff; --baseline: #ffb938; --spike: #ffb938; --good: #4fd39a; --bad: #ff6b6b;
  --grid: #222c3b; } }
* { box-sizing: border-box; }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: .5rem 0; } h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 1rem;
  margin: 0 0 1rem; }
p { margin: .25rem 0 .75rem; } .quiet { color: var(--quiet); }
.simulated { background: #ffc933; color: #1a1400; padding: .5rem 1rem; font-weight: 600; border-radius: 6px; }
.tiles { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; } .text { text-align: left; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--quiet); font: 12px system-ui, sans-serif; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; } svg .grid { stroke: var(--grid); }
polyline { fill: none; stroke-width: 2; } polyline.model { stroke: var(--model); }
polyline.baseline { stroke: var(--baseline); stroke-dasharray: 6 4; }
circle.model { fill: var(--model); } circle.baseline { fill: var(--baseline); }
circle.sent { fill: none; stroke: var(--ink); stroke-width: 2; }
rect.spike { fill: var(--spike); } rect.ongoing { fill: var(--spike); opacity: .45; }
rect.good { fill: var(--good); } rect.late { fill: var(--quiet); } rect.bad { fill: var(--bad); }
.key { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; vertical-align: -1px; }
.key.spike { background: var(--spike); } .key.good { background: var(--good); } .key.bad { background: var(--bad); }
.key.late { background: var(--quiet); } .key.model { background: var(--model); }
.key.baseline { background: var(--baseline); }
td.good { color: var(--good); } td.bad { color: var(--bad); }
"""


def write_backtest(backtest: Backtest, folder: Path) -> tuple[Path, ...]:
    """Write ``backtest.html``, ``alerts.csv``, ``curve.csv`` and ``days.csv`` into ``folder``.

    Raises:
        UsageError: the folder cannot be written.
    """
    files = {
        PAGE: backtest_page(backtest),
        "alerts.csv": _as_csv([alert.figures() for alert in backtest.alerts]),
        "curve.csv": _as_csv(list(_curve_rows(backtest))),
        "days.csv": _as_csv([day.figures() for day in backtest.days]),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; choose another --out") from error
    return tuple(folder / name for name in files)


def _curve_rows(backtest: Backtest) -> Iterator[dict[str, Any]]:
    curves = {backtest.metadata.model: backtest.curve, backtest.comparison.baseline_name: backtest.baseline_curve}
    for name, points in curves.items():
        yield from ({"score": name} | point.figures() for point in points)


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal names as CSV; undefined values are empty."""
    text = StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def day_table(backtest: Backtest) -> Table:
    """The figures of each UTC day."""
    heads = ("day", "rows", "base rate", "PR-AUC", backtest.comparison.baseline_name, "onsets", "caught")
    rows = [
        (
            day.day,
            f"{day.rows:,}",
            share(day.base_rate),
            number(day.pr_auc),
            number(day.baseline_pr_auc),
            f"{day.onsets}",
            f"{day.onsets_caught}",
            f"{day.alerts}",
            f"{day.false_alerts}",
            number(day.alarm_minutes_per_day, 1),
        )
        for day in backtest.days
    ]
    return Table((*heads, "alerts", "false", "alarm min/day"), rows)


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


def volatility_table(backtest: Backtest) -> Table | None:
    """QLIKE and R² of the expected volatility and of the best past volatility; None if it is not served."""
    found = backtest.volatility
    if found is None:
        return None
    heads = ("volatility", "expected", "95 %", backtest.volatility_baseline, "95 %", "difference", "95 %")
    rows = [
        (
            name,
            number(each.model),
            span(each.model_interval),
            number(each.baseline),
            span(each.baseline_interval),
            signed(each.gain),
            span(each.gain_interval),
        )
        for name, each in (("QLIKE (lower is better)", found.qlike), ("R² of its logarithm", found.r_squared))
    ]
    return Table(heads, rows)


def baseline_table(backtest: Backtest) -> Table:
    """PR-AUC of every baseline, the best first."""
    rows = [(name, number(found.pr_auc), number(found.pr_auc_calm)) for name, found in backtest.baselines.items()]
    return Table(("baseline", "PR-AUC", "PR-AUC in calm rows"), rows)


def backtest_page(backtest: Backtest) -> str:
    """The page as HTML, with its style and charts inside."""
    title = f"Backtest of {backtest.metadata.model} on {backtest.features.name}"
    timeline, hidden = timeline_chart(backtest)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="simulated">{escape(SIMULATED)}</p>' if backtest.simulated else "",
        f'<p class="quiet">{escape(_description(backtest))}</p>',
        *(f"<p>⚠ {escape(sentence)}</p>" for sentence in backtest.warnings),
        _section("Result", _tiles(backtest)),
        _section(
            "Onsets caught over minutes of alarm",
            '<p class="quiet"><span class="key model"></span>'
            f'{escape(backtest.metadata.model)}<span class="key baseline"></span>'
            f"{escape(backtest.comparison.baseline_name)}, the best baseline on these rows. "
            f"The circle marks the alerts below, at {escape(backtest.threshold_text)}.</p>{recall_chart(backtest)}"
            + _html_table(budget_table(backtest.metadata.model, backtest.comparison)),
        ),
        _section(
            "Ranking of the rows",
            _html_table(headline_table(backtest.metadata.model, backtest.comparison))
            + _html_table(baseline_table(backtest)),
        ),
        _section("Spikes and alerts by day", _legend(hidden) + timeline),
        _section("Days", _html_table(day_table(backtest))),
        _reliability_section(backtest),
        _volatility_section(backtest),
        _alert_section(backtest),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _description(backtest: Backtest) -> str:
    return (
        f"{len(backtest.scored):,} rows of {', '.join(backtest.products)}, {day_and_time(format_time(backtest.start))} "
        f"to {day_and_time(format_time(backtest.end))}. Spike definition {backtest.spike}: "
        f"{backtest.spike.describe()}. {share(backtest.comparison.model.base_rate)} of the rows are spikes."
    )


def _tiles(backtest: Backtest) -> str:
    events, ratio = backtest.comparison.model_events, backtest.comparison.calm.pr_auc.ratio
    theirs = backtest.comparison.baseline_events.onsets_caught
    budget = "" if backtest.budget is None or backtest.request.thresholds else f", budget {backtest.budget:g}"
    cap = LEAD_CAP_HORIZONS * backtest.scored.horizon_s
    tiles = [
        (f"{events.onsets_caught} of {events.onsets}", f"onsets caught in time; the best baseline {theirs}"),
        (f"{events.alarms}", f"alerts, {events.alarms - events.true_alarms} of them false"),
        (number(backtest.alarm_minutes_per_day, 1), f"minutes of alarm per day{budget}"),
        (f"{number(backtest.median_lead_s, 0)} s", f"median lead before the spike is realized, at most {cap} s"),
        (f"×{number(ratio, 2)}", f"PR-AUC in calm rows over {backtest.comparison.baseline_name}"),
    ]
    if backtest.request.cost is not None:
        without = number(backtest.cost_without_alerts, 1)
        tiles.append((number(backtest.cost, 1), f"cost of missed onsets and alerts; without alerts {without}"))
    cells = "".join(f"<div><b>{escape(value)}</b>{escape(text)}</div>" for value, text in tiles)
    return f'<div class="tiles">{cells}</div>'


def _legend(hidden: int) -> str:
    keys = (("spike", "spike event"), ("good", "alert in time"), ("late", "late or repeated"), ("bad", "false alert"))
    items = "".join(f'<span class="key {style}"></span>{text}' for style, text in keys)
    more = f" The newest {MOST_STRIPS} of {MOST_STRIPS + hidden} strips are shown." if hidden else ""
    return f'<p class="quiet">{items}.{more}</p>'


def _reliability_section(backtest: Backtest) -> str:
    if backtest.reliability is None:
        return ""
    text = (
        '<p class="quiet">Rows in ten groups of equally many by their probability. A ratio of 1 means that spikes were '
        "as frequent as predicted; with few spike events it means little.</p>"
    )
    return _section("Calibration", text + _html_table(reliability_table(backtest.reliability)))


def _volatility_section(backtest: Backtest) -> str:
    table = volatility_table(backtest)
    return "" if table is None else _section("Expected volatility", _html_table(table))


def _alert_section(backtest: Backtest) -> str:
    shown = backtest.alerts[-MOST_ALERTS:]
    more = (
        f" The newest {len(shown)} of {len(backtest.alerts)}; alerts.csv holds all."
        if len(shown) < len(backtest.alerts)
        else ""
    )
    text = (
        '<p class="quiet">An alert catches the first spike event that it overlaps. It is in time if it opened before '
        f"the spike was realized, and false if it overlaps no spike.{more}</p>"
    )
    classes = [OUTCOME_CLASSES[str(alert.outcome)] for alert in shown]
    return _section("Alerts", text + _html_table(alert_table(shown), classes))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def _html_table(table: Table, classes: Sequence[str] = ()) -> str:
    """A table; the third cell of row i has the class ``classes[i]``."""
    columns = ["text" if column < table.texts else "number" for column in range(len(table.heads))]
    rows = [_html_row("th", table.heads, columns)]
    for index, cells in enumerate(table.rows):
        marked = [*columns[:2], f"{columns[2]} {classes[index]}", *columns[3:]] if classes else columns
        rows.append(_html_row("td", cells, marked))
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _html_row(tag: str, cells: Sequence[str], classes: Sequence[str]) -> str:
    inner = (f'<{tag} class="{style}">{escape(text)}</{tag}>' for text, style in zip(cells, classes, strict=True))
    return f"<tr>{''.join(inner)}</tr>"
