"""Data of the dashboard: list of markets, alerts with outcomes, explanations, the past, over a restart too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from tests.live.markets import START, frame, walk
from tests.live.test_alerting import Steady, Stored
from tests.live.test_stream import Reader

from volspike.episodes import Episode
from volspike.feeds.simulation.market import iterate_ticks, simulate_trades
from volspike.live.alert_log import AlertLog
from volspike.live.dashboard import Dashboard
from volspike.live.metrics import LiveCounts
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.live.up import HEAD_START_S, SIMULATED_SEED, history_routes
from volspike.market import SECOND_NS, Cause, Gap, Kind, Mode, Tick
from volspike.models import DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL, Artifact
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder

MS = 1_000_000


def pipeline(**options: Any) -> LivePipeline:
    mode = options.pop("mode", Mode.LIVE)
    return LivePipeline(Steady(Artifact.load(TEN_MODEL)), ["BTC-USD"], "test", mode=mode, **options)


def fed(live: LivePipeline, seconds: int = 200) -> LivePipeline:
    for tick in walk(seconds):
        live.take(frame(tick))
    return live


def get(live: LivePipeline, path: str, **query: Any) -> httpx.Response:
    """The response of the dashboard's routes."""
    app = FastAPI()
    app.include_router(history_routes(Dashboard(live)))

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return await client.get(path, params=query)

    return asyncio.run(request())


@pytest.mark.parametrize(("model", "row_before_jump"), [(DEFAULT_MODEL, 11), (TEN_MODEL, 10)])
def test_an_outcome_is_stored_with_the_rows_that_it_follows(model: Path, row_before_jump: int) -> None:
    """The first rows whose horizon has the jump are those a minute before it, for rows of seconds and of ticks."""
    store: Any = Stored()
    live = LivePipeline(LiveScorer(Artifact.load(model)), ["BTC-USD"], "test", mode=Mode.LIVE, outcomes=store)
    start = 1_765_000_000
    for second in range(90):
        price = 100.0 if second < 70 else 101.0
        quote: dict[str, Any] = {"best_bid": price - 0.1, "best_ask": price + 0.1}
        time_ns = (start + second) * SECOND_NS + SECOND_NS // 2
        moved = Tick(time=time_ns, received=time_ns, kind=Kind.TICKER, product_id="BTC-USD", price=price, **quote)
        live.take(frame(moved))
    moving = [each.second - start for each in store.outcomes if each.future_volatility > 0.0]
    assert min(moving) == row_before_jump


@pytest.mark.parametrize("start_ms", [0, 130, 370, 500, 610, 890])
def test_a_newcomer_sees_a_spike_and_an_alert_within_three_minutes(start_ms: int) -> None:
    """The simulated market of ``up`` has both on BTC-USD in the three minutes after its head start, at any second."""
    live = LivePipeline(LiveScorer(Artifact.load(SIMULATED_MODEL)), ["BTC-USD"], "test", mode=Mode.SIMULATED)
    start = 1_765_000_000
    start_ns = start * SECOND_NS + start_ms * MS
    for ticks in simulate_trades(["BTC-USD"], HEAD_START_S + 180, SIMULATED_SEED, start_ns):
        for each in iterate_ticks(ticks):
            live.take(frame(each))
    begin, end = 1000 * (start + HEAD_START_S), 1000 * (start + HEAD_START_S + 180)
    assert any(begin < alert["opened"] < end for alert in live.alerts.entries())
    assert any(begin < spike["time"] < end for spike in Dashboard(live).snapshot(None)["spikes"])


def test_the_past_is_served_as_columns() -> None:
    """All columns have one value per bar; the newest second is included by default."""
    live = fed(pipeline())
    answer = get(live, "/history", **{"product": "BTC-USD", "from": START // MS}).json()
    columns = ("open", "high", "low", "close", "spread_bps", "probability", "threshold", "expected_bp")
    assert {len(answer[name]) for name in columns} == {len(answer["time"])} == {200}
    assert answer["time"][-1] == answer["to"] - 1 == START // MS + 199_000
    assert answer["earliest"] == START // MS
    assert answer["probability"][-1] == 0.01
    (alert,) = answer["alerts"]
    assert alert["opened"] == START // MS
    assert get(live, "/alerts").json()["alerts"] == [alert]
    assert get(live, "/alerts", product="ETH-USD").json()["alerts"] == []


def test_a_product_with_a_venue_is_named_in_any_case() -> None:
    """Its past, its alerts and its stream are found by the canonical name, which the address of a page has encoded."""
    live = LivePipeline(Steady(Artifact.load(TEN_MODEL)), ["BTC-USD", "binance:BTC-USDT"], "test", mode=Mode.LIVE)
    for tick in walk(70):
        live.take(frame(msgspec.structs.replace(tick, product_id="binance:BTC-USDT")))
    for name in ("binance:BTC-USDT", "Binance:btc-usdt"):
        assert len(get(live, "/history", product=name).json()["time"]) == 7  # of 10 s
        assert len(get(live, "/alerts", product=name).json()["alerts"]) == 1
    assert get(live, "/alerts", product="BTC-USD").json()["alerts"] == []
    assert Dashboard(live).snapshot("binance:BTC-USDT")["points"][-1]["product"] == "binance:BTC-USDT"


@pytest.mark.parametrize(
    ("query", "status"), [({}, 404), ({"product": "X"}, 404), ({"product": "BTC-USD", "points": 1}, 422)]
)
def test_invalid_requests_are_refused(query: dict[str, Any], status: int) -> None:
    """An unknown product is not found, an invalid value is named."""
    answer = get(pipeline(), "/history", **query)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(("unknown product", "points must be"))


@given(st.dictionaries(st.sampled_from(["product", "from", "to", "points", "x"]), st.text(max_size=20)))
def test_no_query_is_an_error_of_the_server(query: dict[str, str]) -> None:
    """Any text is answered or refused."""
    live = pipeline()
    for path in ("/history", "/alerts"):
        assert get(live, path, **{"product": "BTC-USD"} | query).status_code in {200, 404, 422}


NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(0, 4 * 10**12).map(str),
    st.sampled_from(["-0", "00", "+1", "1_0", "1e3", "NaN", "inf", " 1", "\u0663", "\u00b2", "9" * 5000]),
)


@given(st.dictionaries(st.sampled_from(["from", "to", "points", "limit"]), NUMBERS, min_size=1))
def test_no_number_is_an_error_of_the_server(query: dict[str, str]) -> None:
    """Numbers of any size and spelling are answered or refused."""
    live = pipeline()
    for path in ("/history", "/alerts"):
        assert get(live, path, product="BTC-USD", **query).status_code in {200, 422}


def test_a_request_that_was_left_while_it_waited_is_not_read() -> None:
    """Two ranges are read at the same time; a client that disconnects while it waits for its turn costs nothing."""

    async def run() -> None:
        live, read, released = fed(pipeline(), 60), [], asyncio.Event()
        dashboard = Dashboard(live)
        history = dashboard.history

        async def slow(product: str, query: Mapping[str, str]) -> dict[str, Any]:
            read.append(query["points"])
            await released.wait()
            return await history(product, query)

        dashboard.history = slow  # type: ignore[method-assign]
        app = FastAPI()
        app.include_router(history_routes(dashboard))
        readers = [Reader(app, "/history", f"product=BTC-USD&points={points}") for points in (10, 20, 30, 40)]
        while len(read) < 2:
            await asyncio.sleep(0)
        readers[2].leave()
        released.set()
        for reader in readers:
            await reader.end()
        assert read == ["10", "20", "40"]
        assert [reader.status for reader in readers] == [200, 200, 204, 200]

    asyncio.run(run())


def test_a_restart_keeps_alerts_explanations_and_the_past(tmp_path: Path) -> None:
    """A second process shows what the first one stored, and explains with the same minutes."""
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    recorder = Recorder(tmp_path / "tape")
    first = fed(pipeline(outcomes=store, recorder=recorder), 400)
    shown = Dashboard(first).snapshot(None)["explanation"]
    first.close()
    again = OutcomeStore(tmp_path / "outcomes.sqlite", now=lambda: START / SECOND_NS)
    second = pipeline(outcomes=again, recorder=Recorder(tmp_path / "tape"))
    second.restore()
    assert second.alerts.entries() == first.alerts.entries()
    assert second.alerts.entries()[0]["outcome"] == "hit"
    minutes = [each["minutes"] for each in Dashboard(second).snapshot(None)["explanation"]["bins"]]
    assert minutes == [each["minutes"] for each in shown["bins"]]
    query = {"from": str(START // MS), "to": str(START // MS + 400_000), "points": "10"}
    past = asyncio.run(Dashboard(second).history("BTC-USD", query))
    assert past["close"] == asyncio.run(Dashboard(first).history("BTC-USD", query))["close"]
    second.close()


def test_a_range_has_alerts_that_are_no_longer_listed(tmp_path: Path) -> None:
    """The newest alerts are in memory, those of a range of the past in the stored ones; none is there twice."""
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    live = fed(pipeline(outcomes=store), 200)
    (listed,) = live.alerts.entries()
    old = AlertLog(60, Mode.LIVE).add(
        Episode(id="old", product="BTC-USD", opened=START - 90 * SECOND_NS, peak_probability=0.5, threshold=0.2),
        is_in_sample=False,
        suppressed="snoozed",
    )
    store.alert(old)
    assert store.flush()
    query = {"product": "BTC-USD", "from": START // MS - 100_000, "to": START // MS + 200_000}
    shown = get(live, "/history", **query).json()["alerts"]
    assert [(each["id"], each["suppressed"]) for each in shown] == [("old", "snoozed"), (listed["id"], None)]
    assert (shown[0]["state"], shown[0]["closed"]) == ("closed", START // MS - 30_000)
    assert get(live, "/history", **query | {"from": START // MS - 20_000}).json()["alerts"] == [listed]
    live.close()


def test_the_list_of_markets_has_state_and_data_health() -> None:
    """A market is calm, in alert, has lost data, or has no data; its sparkline covers 15 minutes."""
    live = pipeline()
    (row,) = Dashboard(live).markets()
    assert (row["state"], row["price"], row["spark"]) == ("no_data", None, [])
    fed(live, 50)
    (row,) = Dashboard(live).markets()
    assert (row["product"], row["venue"], row["state"]) == ("BTC-USD", "coinbase", "alert")
    assert row["alerts"] == 1
    assert [price is None for price in row["spark"][-4:]] == [False] * 4
    assert row["spark"][0] is None
    live.take(Gap(start=START, end=START + SECOND_NS, products=("BTC-USD",), cause=Cause.SILENCE))
    assert Dashboard(live).markets()[0]["gaps"] == 1
    assert Dashboard(fed(pipeline(), 300)).markets()[0]["state"] == "calm"


def test_the_sparkline_equals_the_last_prices_of_its_parts() -> None:
    """At every second it has the last price of each 15 s of the last 15 minutes, whenever it was shown before."""
    live, prices = pipeline(), dict[int, float]()
    for tick in walk(1000):
        if (second := tick.time // SECOND_NS) % 97 < 20:  # silence
            continue
        live.take(frame(tick))
        prices[second // 15] = tick.price
        if second % 7 < 2:
            spark = Dashboard(live).markets()[0]["spark"]
            inside = [prices.get(part) for part in range(second // 15 - 58, second // 15 + 1)]
            assert spark[1:] == inside


def test_the_age_of_past_ticks_is_no_latency() -> None:
    """Ticks that a source sends late at its start are not timed; from the first one in real time on all are."""
    counts = LiveCounts(START, 0.4, None, [])
    for late_s, second in ((3.0, 0), (2.0, 1), (0.9, 2), (4.0, 3)):
        tick = Tick(time=START + second * SECOND_NS, received=0, kind=Kind.TICKER, product_id="A", price=1.0)
        counts.add(frame(msgspec.structs.replace(tick, received=tick.time + round(late_s * SECOND_NS))))
    assert [late / SECOND_NS for late in counts.recent_latency_ns] == [0.9, 4.0]
