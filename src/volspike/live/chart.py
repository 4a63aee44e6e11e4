"""The chart of the dashboard as a Bokeh document without data; the page fills its sources and sets its colours.

Bokeh draws it in the browser from the file in Bokeh's own wheel, so that nothing is loaded from another host. Bokeh was
chosen because its wheel contains BokehJS (1.3 MB; plotly's file has 4.8 MB), pans and zooms with wheel, drag and pinch,
has linked crosshairs, few dependencies, and a BSD licence.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

SCRIPT: Final = "bokeh.min.js"
LINE_COLUMNS: Final = ("time", "close", "probability", "threshold")
CANDLE_COLUMNS: Final = ("time", "open", "high", "low", "close", "fill")
BAND_COLUMNS: Final = ("start", "end")
RIGHT_PX: Final = 78
SHORTEST_VIEW_MS: Final = 15_000
LONGEST_VIEW_MS: Final = 31 * 86_400_000


def script() -> bytes:
    """BokehJS, from the installed package."""
    return files("bokeh").joinpath("server", "static", "js", SCRIPT).read_bytes()


def chart_document() -> dict[str, Any]:
    """Two plots with one time axis: prices above, probabilities below, as the JSON that ``Bokeh.embed`` takes.

    The page finds a model by its name: sources ``bars``, ``candles``, ``move``, ``alerts``, ``spikes`` and ``gaps``,
    ranges ``time``, ``price`` and ``probability``. It takes about half a second, most of it to import Bokeh.
    """
    from bokeh.embed import json_item  # noqa: PLC0415  takes half a second, needed when a page is opened
    from bokeh.layouts import column  # noqa: PLC0415
    from bokeh.models import FixedTicker, Grid, LinearAxis, Range1d, Span  # noqa: PLC0415

    time = Range1d(0, 1, name="time", min_interval=SHORTEST_VIEW_MS, max_interval=LONGEST_VIEW_MS, bounds=None)
    cursor = Span(dimension="height", line_width=1, name="cursor", level="overlay")
    bands = {name: _source(name, BAND_COLUMNS) for name in ("gaps", "spikes", "alerts")}
    bars = _source("bars", LINE_COLUMNS)
    price = _plot("price", "0,0.00", time, cursor, bands, sizing_mode="stretch_both")
    chance = _plot("probability", "0 %", time, cursor, bands, sizing_mode="stretch_width", height=150)
    times = LinearAxis(name="time-axis", ticker=FixedTicker(ticks=[], name="times"), axis_line_color=None)
    chance.add_layout(times, "below")
    for plot in (price, chance):
        plot.add_layout(Grid(dimension=0, ticker=times.ticker), "center")
    price.add_layout(Span(dimension="width", line_width=1, line_dash="dotted", name="last"))
    for name, renderer in (_price_renderers(price, bars) | _probability_renderers(chance, bars)).items():
        renderer.glyph.name = name
        renderer.nonselection_glyph = renderer.muted_glyph = None
    return dict(json_item(column(price, chance, sizing_mode="stretch_both", spacing=0, name="charts")))


def _source(name: str, columns: tuple[str, ...]) -> Any:
    from bokeh.models import ColumnDataSource  # noqa: PLC0415

    return ColumnDataSource({each: [] for each in columns}, name=name)


def _plot(name: str, numerals: str, time: Any, cursor: Any, bands: dict[str, Any], **size: Any) -> Any:
    """An empty plot over ``time`` with its value axis on the right, tools, crosshair and bands."""
    from bokeh.models import (  # noqa: PLC0415
        CrosshairTool,
        Grid,
        LinearAxis,
        NumeralTickFormatter,
        PanTool,
        Range1d,
        Span,
        WheelZoomTool,
    )
    from bokeh.plotting import figure  # noqa: PLC0415

    plot = figure(
        name=f"{name}-plot",
        x_range=time,
        y_range=Range1d(0, 1, name=name),
        x_axis_type=None,
        y_axis_type=None,
        tools=[],
        toolbar_location=None,
        min_border=0,
        min_border_right=RIGHT_PX,
        outline_line_color=None,
        **size,
    )
    pan, zoom = PanTool(dimensions="width"), WheelZoomTool(dimensions="width", maintain_focus=False)
    level = Span(dimension="width", line_width=1, name=f"{name}-cursor", level="overlay")
    plot.add_tools(pan, zoom, CrosshairTool(overlay=[cursor, level]))
    plot.toolbar.active_drag, plot.toolbar.active_scroll = pan, zoom
    formatter = NumeralTickFormatter(format=numerals, name=f"{name}-numerals")
    axis = LinearAxis(name=f"{name}-axis", formatter=formatter, axis_line_color=None, minor_tick_line_color=None)
    plot.add_layout(axis, "right")
    plot.add_layout(Grid(dimension=1, ticker=axis.ticker), "center")
    for band, source in bands.items():
        hatch = {"hatch_pattern": "/", "hatch_scale": 8, "hatch_weight": 1} if band == "spikes" else {}
        shown = plot.vstrip(x0="start", x1="end", source=source, level="underlay", line_color=None, **hatch)
        shown.glyph.name = f"{name}-{band}"
    return plot


def _price_renderers(plot: Any, bars: Any) -> dict[str, Any]:
    """The expected move, candles and line of the price, by the names of their glyphs."""
    candles, move = _source("candles", CANDLE_COLUMNS), _source("move", ("xs", "ys"))
    body = {"top": "open", "bottom": "close", "width": 700, "fill_color": "fill"}
    return {
        "move-fill": plot.patches("xs", "ys", source=move, line_color=None, name="move-band"),
        "wick": plot.segment("time", "low", "time", "high", source=candles, name="wicks", visible=False),
        "body": plot.vbar("time", source=candles, name="bodies", visible=False, **body),
        "close": plot.line("time", "close", source=bars, line_width=1.6, line_join="round", name="line"),
    }


def _probability_renderers(plot: Any, bars: Any) -> dict[str, Any]:
    """The probability and the alert threshold, by the names of their glyphs."""
    step = {"line_width": 1.3, "line_dash": [6, 4], "mode": "after"}
    return {
        "chance": plot.line("time", "probability", source=bars, line_width=1.6, line_join="round"),
        "limit": plot.step("time", "threshold", source=bars, **step),
    }
