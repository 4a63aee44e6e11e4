"""Thresholds of products, quiet hours and snoozes in the live pipeline."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from tests.live.markets import START, frame, walk

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.features import FeatureRow
from volspike.live.dashboard import Dashboard
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer, ScoredRow
from volspike.live.sources import open_source
from volspike.live.up import _check_thresholds
from volspike.market import SECOND_NS, Mode, Tick
from volspike.models import DEFAULT_MODEL, TEN_MODEL, Artifact
from volspike.models.alert_thresholds import AlertThresholds
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcome_database import AlertEntry, OutcomeRecord, PredictionRecord
from volspike.monitoring.quiet import QuietHours, SendingRules

PAIRS = ["BTC-USD", "ETH-USD"]


class Steady(LiveScorer):
    """A scorer whose probability is 0.3, and 0.01 from the hundredth second on."""

    def score(self, row: FeatureRow) -> ScoredRow:
        second = row.timestamp // SECOND_NS - START // SECOND_NS
        return super().score(row)._replace(probability=0.3 if second < 100 else 0.01)


class Stored:
    """An outcome store that keeps predictions in memory."""

    tasks = ()
    lost = 0
    fault = None

    def __init__(self) -> None:
        self.predictions: list[PredictionRecord] = []
        self.alerts: list[AlertEntry] = []
        self.outcomes: list[OutcomeRecord] = []

    def alert(self, alert: AlertEntry) -> None:
        self.alerts.append(alert)

    def predict(self, record: PredictionRecord) -> None:
        self.predictions.append(record)

    def outcome(self, record: OutcomeRecord) -> None:
        self.outcomes.append(record)

    def close(self) -> None:
        """Has nothing to close."""


def both(seconds: int) -> list[Tick]:
    """Ticks of both products, one of each per second."""
    ticks = [(tick, msgspec.structs.replace(tick, product_id="ETH-USD")) for tick in walk(seconds)]
    return [tick for pair in ticks for tick in pair]


def run(model: Path = TEN_MODEL, seconds: int = 50, **options: Any) -> LivePipeline:
    live = LivePipeline(Steady(Artifact.load(model)), PAIRS, "test", mode=Mode.LIVE, **options)
    for tick in both(seconds):
        live.take(frame(tick))
    return live


def states(live: LivePipeline, product: str) -> list[str]:
    return [alert["state"] for alert in live.alerts.entries(product)]


@pytest.mark.parametrize("model", [TEN_MODEL, DEFAULT_MODEL])
def test_a_threshold_of_a_product_replaces_that_of_the_model(model: Path) -> None:
    """It decides about alerts and is on the page, in ``/health``, in the metrics and with the stored predictions."""
    store: Any = Stored()
    live = run(model, thresholds=AlertThresholds.parse(["BTC-USD=0.3", "ETH-USD=0.300001"]), outcomes=store)
    assert (states(live, "BTC-USD"), states(live, "ETH-USD")) == (["open"], [])
    assert [Dashboard(live).snapshot(product)["points"][-1]["threshold"] for product in PAIRS] == [0.3, 0.300001]
    assert Dashboard(live).snapshot("BTC-USD")["alerts"][0]["threshold"] == 0.3
    shown = [(each.threshold, each.threshold_source) for each in Dashboard(live).state().products]
    assert shown == [(0.3, "option"), (0.300001, "option")]
    assert {(each.product, each.threshold, each.alert) for each in store.predictions} == {
        ("BTC-USD", 0.3, True),
        ("ETH-USD", 0.300001, False),
    }
    registry = CollectorRegistry()
    registry.register(live.collector())
    lines = generate_latest(registry).decode().splitlines()
    assert 'alert_threshold{product="BTC-USD"} 0.3' in lines
    assert 'alert_threshold{product="ETH-USD"} 0.300001' in lines


def test_other_products_keep_the_threshold_of_the_model() -> None:
    """A fixed one for one model, the budget of alarm minutes for the other."""
    thresholds = AlertThresholds.parse(["BTC-USD=0.4"])
    fixed, adaptive = run(TEN_MODEL, thresholds=thresholds), run(DEFAULT_MODEL, thresholds=thresholds)
    assert [each.threshold_source for each in Dashboard(fixed).state().products] == ["option", "model"]
    assert [each.threshold_source for each in Dashboard(adaptive).state().products] == ["option", "budget"]
    assert Dashboard(fixed).state().products[1].threshold == fixed.scorer.artifact.threshold
    assert Dashboard(adaptive).state().products[1].threshold not in {0.4, adaptive.scorer.artifact.threshold}


def test_a_threshold_of_a_product_survives_a_change_of_the_model() -> None:
    """It belongs to the user, not to the model; an open alert continues."""
    live = run(TEN_MODEL, thresholds=AlertThresholds.parse(["BTC-USD=0.3"]))
    live.adopt(Artifact.load(TEN_MODEL))
    assert Dashboard(live).state().products[0].threshold == 0.3
    for tick in both(55)[100:]:
        live.take(frame(tick))
    assert states(live, "BTC-USD") == ["open"]


def test_the_level_of_a_product_is_kept_while_a_threshold_replaces_it(tmp_path: Path) -> None:
    """Once the threshold is removed, the product continues at the level that it had learned before."""
    file = tmp_path / "outcomes.calibration"
    first = run(DEFAULT_MODEL, calibration=file)
    first._calibration.save(first._calibration_state())
    learned = Dashboard(first).state().products[0].threshold
    second = run(DEFAULT_MODEL, seconds=0, calibration=file, thresholds=AlertThresholds.parse(["BTC-USD=0.3"]))
    second._calibration.save(second._calibration_state())
    third = LivePipeline(Steady(Artifact.load(DEFAULT_MODEL)), PAIRS, "test", mode=Mode.LIVE, calibration=file)
    level = third.products["BTC-USD"].rule.level
    assert level is not None
    assert level.threshold == learned


def test_a_threshold_of_a_product_that_the_source_lacks_is_refused() -> None:
    """The products of an exchange are known before it is served; those of a tape are not, so that it is logged."""

    async def check(texts: list[str]) -> None:
        settings = FeedSettings(products=("BTC-USD", "binance:BTC-USDT"))
        async with open_source("simulator", settings) as source:
            _check_thresholds(AlertThresholds.parse(texts), source)

    asyncio.run(check(["BTC-USD=0.4", "binance:*=0.5", "0.6"]))
    with pytest.raises(UsageError, match=r"unknown product okx:\*; accepted are BTC-USD, binance:BTC-USDT"):
        asyncio.run(check(["okx:*=0.4"]))


def test_an_alert_that_is_not_sent_is_shown_and_marked() -> None:
    """In quiet hours and while snoozed, the page has the alert with the reason, and the metrics count it."""
    rules = SendingRules([QuietHours.parse("00:00-24:00")])
    rules.snooze("ETH-USD", 5)
    thresholds = AlertThresholds.parse(["0.3"])
    with structlog.testing.capture_logs() as logs:
        live = run(thresholds=thresholds, seconds=300, router=AlertRouter(rules=rules))
    shown = {product: live.alerts.entries(product) for product in PAIRS}
    marks = {product: [(each["state"], each["suppressed"]) for each in alerts] for product, alerts in shown.items()}
    assert marks == {"BTC-USD": [("closed", "quiet_hours")], "ETH-USD": [("closed", "snoozed")]}
    assert [entry["suppressed"] for entry in logs if entry["event"] == "alert_opened"] == ["quiet_hours", "snoozed"]
    registry = CollectorRegistry()
    registry.register(live.collector())
    lines = generate_latest(registry).decode().splitlines()
    assert 'alert_suppressed_total{reason="quiet_hours"} 1.0' in lines
    assert 'alert_suppressed_total{reason="snoozed"} 1.0' in lines
    live.close()
    sent = run(thresholds=thresholds)
    assert [each["suppressed"] for each in sent.alerts.entries()] == [None, None]


def test_snoozes_are_in_the_snapshot_and_on_the_stream() -> None:
    """A page that opens has them, and an open page receives each change."""
    live = LivePipeline(Steady(Artifact.load(TEN_MODEL)), PAIRS, "test", mode=Mode.LIVE)
    assert Dashboard(live).snapshot(None)["snoozes"] == []

    async def changed() -> list[tuple[str, Any]]:
        queue = live.publisher.subscribe()
        live.router.rules.snooze("BTC-USD", 5)
        Dashboard(live).publish_snoozes()
        queue.close()
        return [(event, msgspec.json.decode(data)) async for event, data in queue]

    ((event, data),) = asyncio.run(changed())
    until = live.router.rules.snoozed_until("BTC-USD")
    assert (event, data) == ("snooze", {"snoozes": [{"product": "BTC-USD", "until": until}]})
    assert Dashboard(live).snapshot("ETH-USD")["snoozes"] == data["snoozes"]
