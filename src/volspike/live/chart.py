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
    from bokeh.models import (  # noqa: PLC0415
        ColumnDataSource,
        CrosshairTool,
        FixedTicker,
        Grid,
        LinearAxis,
        NumeralTickFormatter,
        PanTool,
        Range1d,
        Span,
        WheelZoomTool,
    )
    from bokeh.plotting import figure  # noqa: PLC0415

    def source(name: str, columns: tuple[str, ...]) -> ColumnDataSource:
        return ColumnDataSource({each: [] for each in columns}, name=name)

    time = Range1d(0, 1, name="time", min_interval=SHORTEST_VIEW_MS, max_interval=LONGEST_VIEW_MS, bounds=None)
    bars, candles = source("bars", LINE_COLUMNS), source("candles", CANDLE_COLUMNS)
    move = source("move", ("xs", "ys"))
    bands = {name: source(name, BAND_COLUMNS) for name in ("gaps", "spikes", "alerts")}
    now = Span(dimension="height", line_width=1, name="cursor", level="overlay")

    def plot(name: str, height: int | None, numerals: str) -> Any:
        sizing = (
            {"sizing_mode": "stretch_both"} if height is None else {"sizing_mode": "stretch_width", "height": height}
        )
        made = figure(
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
            **sizing,
        )
        pan, zoom = PanTool(dimensions="width"), WheelZoomTool(dimensions="width", maintain_focus=False)
        level = Span(dimension="width", line_width=1, name=f"{name}-cursor", level="overlay")
        made.add_tools(pan, zoom, CrosshairTool(overlay=[now, level]))
        made.toolbar.active_drag, made.toolbar.active_scroll = pan, zoom
        formatter = NumeralTickFormatter(format=numerals, name=f"{name}-numerals")
        axis = LinearAxis(name=f"{name}-axis", formatter=formatter, axis_line_color=None, minor_tick_line_color=None)
        made.add_layout(axis, "right")
        made.add_layout(Grid(dimension=1, ticker=axis.ticker), "center")
        for band, filled in bands.items():
            hatch = {"hatch_pattern": "/", "hatch_scale": 8, "hatch_weight": 1} if band == "spikes" else {}
            shown = made.vstrip(x0="start", x1="end", source=filled, level="underlay", line_color=None, **hatch)
            shown.glyph.name = f"{name}-{band}"
        return made

    price, chance = plot("price", None, "0,0.00"), plot("probability", 150, "0 %")
    times = LinearAxis(name="time-axis", ticker=FixedTicker(ticks=[], name="times"), axis_line_color=None)
    chance.add_layout(times, "below")
    for each in (price, chance):
        each.add_layout(Grid(dimension=0, ticker=times.ticker), "center")

    moved = price.patches("xs", "ys", source=move, line_color=None, name="move-band")
    wicks = price.segment("time", "low", "time", "high", source=candles, name="wicks", visible=False)
    bodies = price.vbar(
        "time", top="open", bottom="close", width=700, source=candles, fill_color="fill", name="bodies", visible=False
    )
    line = price.line("time", "close", source=bars, line_width=1.6, line_join="round", name="line")
    price.add_layout(Span(dimension="width", line_width=1, line_dash="dotted", name="last"))
    likely = chance.line("time", "probability", source=bars, line_width=1.6, line_join="round")
    limit = chance.step("time", "threshold", source=bars, line_width=1.3, line_dash=[6, 4], mode="after")
    named = {
        "move-fill": moved,
        "wick": wicks,
        "body": bodies,
        "close": line,
        "chance": likely,
        "limit": limit,
    }
    for name, renderer in named.items():
        renderer.glyph.name = name
        renderer.nonselection_glyph = renderer.muted_glyph = None
    return dict(json_item(column(price, chance, sizing_mode="stretch_both", spacing=0, name="charts")))
