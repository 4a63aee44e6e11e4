"""Charts of HTML pages, drawn by Bokeh: the timeline of a day, alarm recall, lead times, reliability, and days.

A tag ``property=variable`` of a model names the variable of the page's style sheet that colours it, so that the charts
follow the light or dark scheme of the page. Lines differ in their dashes and marks, not in colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from volspike.evaluation import AlarmPoint, Reliability
from volspike.evaluation.scored import DAY_NS
from volspike.market import SECOND_NS, format_time
from volspike.reporting.alert_history import AlertRecord, LeadBin, SpikeSpan
from volspike.reporting.format import number, share, span

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

CURVE_MINUTES: Final = 120.0
"""The alarm minutes per day at which the chart of recall ends."""

MOST_STRIPS: Final = 60
"""Days of a product in the chart of days; the newest are shown."""

OUTCOME_CLASSES: Final = {"in time": "good", "late": "late", "repeated": "late", "false": "bad"}
STYLES: Final = (
    ("model", "solid", "circle"),
    ("baseline", "dashed", "square"),
    ("other", "dotted", "triangle"),
)
"""Colour, line and mark of the model and of each baseline."""

LEFT_PX: Final = 76
NARROWEST_MS: Final = 60_000
"""Width of the shortest mark of a chart of days: it has about 1,000 pixels."""


def create_plot(height: int, **options: Any) -> figure:
    """A plot as wide as the page, without toolbar, with colours of the page."""
    from bokeh.plotting import figure  # noqa: PLC0415  takes half a second, and a PDF needs none

    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools=[],
        min_border_left=LEFT_PX,
        min_border_right=12,
        outline_line_color=None,
        **options,
    )
    plot.background_fill_color = plot.border_fill_color = None  # the page is visible through it
    for axis in plot.axis:
        axis.tags = [
            *(f"{part}_text_color=quiet" for part in ("major_label", "axis_label")),
            *(f"{part}_line_color=edge" for part in ("axis", "major_tick", "minor_tick")),
        ]
        axis.axis_label_text_font_style = "normal"
    for grid in plot.grid:
        grid.tags = ["grid_line_color=grid"]
    return plot


def _colour(renderer: Any, *tags: str) -> None:
    """Names the colours of a renderer's glyph; it looks the same when something else is selected."""
    renderer.glyph.tags = list(tags)
    renderer.nonselection_glyph = renderer.muted_glyph = None


def _explain(plot: figure, renderers: Sequence[Any], tooltip: str) -> None:
    from bokeh.models import HoverTool  # noqa: PLC0415

    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=tooltip, point_policy="follow_mouse"))


def _source(**columns: Any) -> ColumnDataSource:
    from bokeh.models import ColumnDataSource  # noqa: PLC0415

    return ColumnDataSource(columns)


def _style_legend(plot: figure, location: str) -> None:
    for legend in plot.legend:
        legend.location = location
        _colour_legend(legend)


def _colour_legend(legend: Any) -> None:
    legend.border_line_color = None
    legend.background_fill_alpha = 0.8
    legend.tags = ["label_text_color=ink", "background_fill_color=card"]


def recall_chart(
    curves: Mapping[str, Sequence[AlarmPoint]], sent: tuple[float, float], most_minutes: float = CURVE_MINUTES
) -> Any:
    """Share of onsets caught over minutes of alarm per day, of the model and then of baselines.

    ``sent`` are the minutes and the share of the alerts at the model's own threshold.
    """
    plot = create_plot(
        340,
        x_range=(0, most_minutes),
        y_range=(-0.03, 1.03),
        x_axis_label="minutes of alarm per day",
        y_axis_label="onsets caught in time",
    )
    plot.yaxis.formatter = _percent()
    marks = []
    for (label, points), (colour, dash, mark) in zip(curves.items(), STYLES, strict=False):
        shown = [point for point in points if point.minutes_per_day <= most_minutes and point.onsets]
        data = _source(
            x=[point.minutes_per_day for point in shown],
            y=[point.onset_recall for point in shown],
            text=[_describe_point(label, point) for point in shown],
        )
        line = plot.line("x", "y", source=data, line_width=2, line_dash=dash, legend_label=label)
        _colour(line, f"line_color={colour}")
        points_drawn = plot.scatter("x", "y", source=data, size=7, marker=mark, legend_label=label)
        _colour(points_drawn, f"fill_color={colour}", f"line_color={colour}")
        marks.append(points_drawn)
    minutes, recall = sent
    if not isnan(recall) and minutes <= most_minutes:
        text = f"alerts sent: {minutes:.0f} min per day, {recall:.0%} of the onsets"
        data = _source(x=[minutes], y=[recall], text=[text])
        ring = plot.scatter("x", "y", source=data, size=15, fill_alpha=0, line_width=2, legend_label="alerts sent")
        _colour(ring, "line_color=ink")
        marks.append(ring)
    _explain(plot, marks, "@text")
    _style_legend(plot, "top_left")
    return plot


def _percent() -> Any:
    from bokeh.models import NumeralTickFormatter  # noqa: PLC0415

    return NumeralTickFormatter(format="0 %")


def _describe_point(label: str, point: AlarmPoint) -> str:
    return (
        f"{label}: {point.onsets_caught} of {point.onsets} onsets at {point.minutes_per_day:.1f} min per day, "
        f"{point.alarms} alerts, threshold {point.threshold:.4g}"
    )


def lead_chart(bins: Sequence[LeadBin]) -> Any:
    """Alerts by their lead time, those of onsets separately."""
    from bokeh.models import BasicTicker, Range1d  # noqa: PLC0415

    labels = [each.label for each in bins]
    plot = create_plot(300, x_range=labels, x_axis_label="lead time, seconds", y_axis_label="alerts")
    plot.y_range = Range1d(0, 1.35 * max(1, *(each.alerts for each in bins)))  # the legend is above the bars
    plot.xgrid.visible = False
    plot.yaxis.ticker = plot.ygrid.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)  # counts
    data = _source(
        label=labels,
        onsets=[each.onsets for each in bins],
        others=[each.alerts - each.onsets for each in bins],
        text=[f"{each.label} s: {each.alerts} alerts, {each.onsets} of them of onsets" for each in bins],
    )
    bars = plot.vbar_stack(
        ["onsets", "others"],
        x="label",
        width=0.85,
        source=data,
        hatch_pattern=[None, "/"],
        legend_label=["spike event after a calm minute (onset)", "other spike event"],
    )
    _colour(bars[0], "fill_color=model", "line_color=card")
    _colour(bars[1], "fill_color=card", "hatch_color=baseline", "line_color=baseline")
    if len(bins) > 8:
        plot.xaxis.major_label_orientation = 0.9
    _explain(plot, bars, "@text")
    _style_legend(plot, "top_left")
    return plot


def reliability_chart(label: str, found: Reliability) -> Any:
    """Observed over predicted share of spikes in bins of equally many rows, with 95 % intervals."""
    ends = [part.interval.high for part in found.bins if not isnan(part.interval.high)]
    top = 1.08 * max(
        [part.mean_probability for part in found.bins] + [part.observed_rate for part in found.bins] + ends
    )
    top = min(1.02, top or 1.0)
    plot = create_plot(
        340,
        x_range=(-0.02 * top, top),
        y_range=(-0.02 * top, top),
        x_axis_label="predicted: mean probability of the bin",
        y_axis_label="observed: share of spikes",
    )
    plot.xaxis.formatter = plot.yaxis.formatter = _percent() if top > 0.1 else _percent_with_digit()
    ideal = plot.line([0, 1], [0, 1], line_dash="dotdash", line_width=1.5, legend_label="as often as predicted")
    _colour(ideal, "line_color=quiet")
    data = _source(
        x=[part.mean_probability for part in found.bins],
        y=[part.observed_rate for part in found.bins],
        low=[part.interval.low for part in found.bins],
        high=[part.interval.high for part in found.bins],
        text=[
            f"predicted {share(part.mean_probability)}, observed {share(part.observed_rate)} (95 %: "
            f"{span(part.interval)}); {part.rows:,} rows, {part.spike_events} spike events"
            for part in found.bins
        ],
    )
    whiskers = plot.segment("x", "low", "x", "high", source=data, line_width=2)
    _colour(whiskers, "line_color=model")
    line = plot.line("x", "y", source=data, line_width=1.5, legend_label=label)
    _colour(line, "line_color=model")
    points = plot.scatter("x", "y", source=data, size=8, legend_label=label)
    _colour(points, "fill_color=model", "line_color=model")
    _explain(plot, [points, whiskers], "@text")
    _style_legend(plot, "top_left")
    return plot


def _percent_with_digit() -> Any:
    from bokeh.models import NumeralTickFormatter  # noqa: PLC0415

    return NumeralTickFormatter(format="0.0 %")


def days_chart(spans: Sequence[SpikeSpan], alerts: Sequence[AlertRecord], *, several: bool) -> tuple[Any, int]:
    """A strip per product and UTC day with spike events above and alerts below; and how many strips are left out."""
    from bokeh.models import DatetimeTickFormatter, FactorRange  # noqa: PLC0415

    strips = sorted({(day, product) for product, day in _strips(spans, alerts)})
    shown = strips[-MOST_STRIPS:]
    names = {strip: _strip_name(*strip, several=several) for strip in shown}
    plot = create_plot(
        70 + 28 * max(1, len(shown)),
        x_range=(0, DAY_NS / 1e6),
        y_range=FactorRange(factors=[names[strip] for strip in reversed(shown)]),
        x_axis_label="time of day (UTC)",
        x_axis_type="datetime",
    )
    plot.min_border_left = 110
    plot.xaxis.formatter = DatetimeTickFormatter(hours="%H:%M", days="%H:%M", minutes="%H:%M", hourmin="%H:%M")
    events = [span for span in spans if (span.first // DAY_NS, span.product) in names]
    data = _source(
        left=[(span.first % DAY_NS) / 1e6 for span in events],
        right=[_right(span.first, span.last) for span in events],
        strip=[(names[span.first // DAY_NS, span.product], 0.2) for span in events],
        alpha=[1.0 if span.is_onset else 0.45 for span in events],
        text=[describe_span(span) for span in events],
    )
    bars = plot.hbar(y="strip", left="left", right="right", height=0.34, source=data, fill_alpha="alpha", line_width=1)
    _colour(bars, "fill_color=spike", "line_color=spike")
    renderers = [bars]
    for style in ("good", "late", "bad"):
        kept = [
            alert
            for alert in alerts
            if OUTCOME_CLASSES[str(alert.outcome)] == style and (alert.opened // DAY_NS, alert.product) in names
        ]
        data = _source(
            left=[(alert.opened % DAY_NS) / 1e6 for alert in kept],
            right=[_right(alert.opened, alert.closed) for alert in kept],
            strip=[(names[alert.opened // DAY_NS, alert.product], -0.2) for alert in kept],
            text=[describe_alert(alert) for alert in kept],
        )
        bars = plot.hbar(y="strip", left="left", right="right", height=0.34, source=data, line_width=1)
        _colour(bars, f"fill_color={style}", f"line_color={style}")
        renderers.append(bars)
    _explain(plot, renderers, "@text")
    return plot, len(strips) - len(shown)


def _strips(spans: Sequence[SpikeSpan], alerts: Sequence[AlertRecord]) -> Iterator[tuple[str, int]]:
    yield from ((span.product, span.first // DAY_NS) for span in spans)
    yield from ((alert.product, alert.opened // DAY_NS) for alert in alerts)


def _strip_name(day: int, product: str, *, several: bool) -> str:
    date = format_time(day * DAY_NS)[:10]
    return f"{date[5:]} {product.rpartition(':')[2]}" if several else date


def _right(start: int, end: int) -> float:
    """The end of a mark in milliseconds of its day; a day's last mark ends with it."""
    left = (start % DAY_NS) / 1e6
    return min(DAY_NS / 1e6, left + max(NARROWEST_MS, (end - start) / 1e6))


def describe_span(span: SpikeSpan) -> str:
    """The text of a spike event."""
    kind = "onset" if span.is_onset else "spike after a volatile minute"
    caught = "caught in time" if span.is_in_time else "not caught in time"
    return f"{clock(span.first)} {kind}, {(span.last - span.first) / SECOND_NS:.0f} s of rows, {caught}"


def describe_alert(alert: AlertRecord) -> str:
    """The text of an alert: opening, length, peak, threshold, outcome and lead."""
    lead = "" if isnan(alert.lead_s) else f", lead {alert.lead_s:.0f} s"
    return (
        f"{clock(alert.opened)} alert for {alert.minutes:.1f} min, peak {number(alert.peak)} at threshold "
        f"{number(alert.threshold)}, {alert.outcome}{lead}"
    )


def clock(time_ns: int) -> str:
    """The UTC time of day to the second.

    >>> clock(3_723_000_000_000)
    '01:02:03'
    """
    return format_time(time_ns)[11:19]


def timeline_chart() -> Any:
    """Price and probability of a day with linked pan, zoom and crosshair; without data, which the page's script fills.

    It finds by name: the sources ``bars``, ``missing``, ``spikes`` and ``alerts``, the ranges ``time``, ``price`` and
    ``probability``.
    """
    from bokeh.layouts import column  # noqa: PLC0415
    from bokeh.models import ColumnDataSource, Range1d, Span  # noqa: PLC0415

    time = Range1d(0, 1, name="time", min_interval=30_000)
    bars = ColumnDataSource({name: [] for name in ("time", "price", "probability", "threshold", "event")}, name="bars")
    bands = {name: ColumnDataSource({key: [] for key in _BAND}, name=name) for name in ("missing", "spikes", "alerts")}
    cursor = Span(dimension="height", line_width=1, level="overlay", tags=["line_color=quiet"])
    price, chance = (_day_panel(name, height, time, cursor) for name, height in (("price", 320), ("probability", 240)))
    for plot in (price, chance):
        _draw_bands(plot, bands)
    price.yaxis.axis_label, chance.yaxis.axis_label = "price", "probability of a spike"
    chance.xaxis.axis_label = "time (UTC)"
    price.xaxis.visible = False
    price.yaxis.formatter.use_scientific = False
    chance.yaxis.formatter = _percent()
    line = price.line("time", "price", source=bars, line_width=1.4, line_join="round")
    _colour(line, "line_color=price")
    for plot, shown in ((price, line), (chance, _draw_probability(chance, bars))):
        _explain_rows(plot, shown)
    return column(price, chance, sizing_mode="stretch_width", spacing=0)


_BAND: Final = ("start", "end", "text", "style")
"""Columns of a source of bands."""


def _day_panel(name: str, height: int, time: Any, cursor: Any) -> figure:
    """An empty panel over ``time``, moved by dragging and by the wheel; ``cursor`` is the crosshair of all panels."""
    from bokeh.models import (  # noqa: PLC0415
        CrosshairTool,
        DatetimeTickFormatter,
        PanTool,
        Range1d,
        Span,
        WheelZoomTool,
    )

    plot = create_plot(height, x_range=time, y_range=Range1d(0, 1, name=name), x_axis_type="datetime")
    plot.xaxis.formatter = DatetimeTickFormatter(
        days="%m-%d", hours="%H:%M", hourmin="%H:%M", minutes="%H:%M", minsec="%H:%M:%S", seconds="%H:%M:%S"
    )
    level = Span(dimension="width", line_width=1, level="overlay", tags=["line_color=quiet"])
    pan, zoom = PanTool(dimensions="width"), WheelZoomTool(dimensions="width", maintain_focus=False)
    plot.add_tools(pan, zoom, CrosshairTool(overlay=[cursor, level]))
    plot.toolbar.active_drag, plot.toolbar.active_scroll = pan, zoom
    return plot


def _draw_bands(plot: figure, sources: Mapping[str, ColumnDataSource]) -> None:
    """Missing data, spike events and alerts behind the lines. A silence has no row that could explain it."""
    for style, alpha in (("silent", 0.35), ("not scored", 0.35), ("incomplete", 0.1)):
        grey = _band(plot, sources["missing"], style, fill_alpha=alpha, line_color=None)
        _colour(grey, "fill_color=void")
        if style == "silent":
            _explain(plot, [grey], "@text")
    event = _band(plot, sources["spikes"], "spike", fill_alpha=0.12, hatch_pattern="/", hatch_scale=14, hatch_alpha=0.3)
    _colour(event, "fill_color=spike", "line_color=spike", "hatch_color=spike")
    for style, dash in (("good", "solid"), ("late", "dashed"), ("bad", "dotted")):
        alert = _band(plot, sources["alerts"], style, fill_alpha=0.22, line_width=1.5, line_dash=dash)
        _colour(alert, f"fill_color={style}", f"line_color={style}")


def _band(plot: figure, source: ColumnDataSource, style: str, **options: Any) -> Any:
    return plot.vstrip(x0="start", x1="end", source=source, view=_view(style), level="underlay", **options)


def _draw_probability(plot: figure, bars: ColumnDataSource) -> Any:
    """The lines of probability and threshold, named above the panel, where they hide nothing; the former's renderer."""
    from bokeh.models import Legend  # noqa: PLC0415

    plot.add_layout(Legend(orientation="horizontal", padding=0, margin=4, spacing=16), "above")
    likely = plot.line("time", "probability", source=bars, line_width=1.6, legend_label="probability")
    _colour(likely, "line_color=model")
    limit = plot.step(
        "time",
        "threshold",
        source=bars,
        mode="after",
        line_width=1.5,
        line_dash="dashed",
        legend_label="alert threshold",
    )
    _colour(limit, "line_color=baseline")
    for legend in plot.legend:
        _colour_legend(legend)
    return likely


def _explain_rows(plot: figure, line: Any) -> None:
    """A tooltip with the values of the row below the pointer, and the events around it."""
    from bokeh.models import CustomJSHover, HoverTool  # noqa: PLC0415

    rounded = CustomJSHover(code="return Number.isNaN(value) ? '–' : (100 * value).toFixed(1) + ' %'")
    plot.add_tools(
        HoverTool(
            renderers=[line],
            mode="vline",
            line_policy="nearest",
            tooltips=[
                ("UTC", "@time{%F %T}"),
                ("price", "@price{0,0.00[00]}"),
                ("probability", "@probability{custom}"),
                ("threshold", "@threshold{custom}"),
                ("event", "@event"),
            ],
            formatters={"@time": "datetime", "@probability": rounded, "@threshold": rounded},
        )
    )


def _view(style: str) -> Any:
    """The bands whose column ``style`` is this one."""
    from bokeh.models import CDSView, GroupFilter  # noqa: PLC0415

    return CDSView(filter=GroupFilter(column_name="style", group=style))
