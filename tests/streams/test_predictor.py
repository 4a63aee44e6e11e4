"""Rows become predictions by the model that they were made for, and by no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from tests.streams.fake_kafka import FakeMessage
from tests.tape.strategies import tick_at
from volspike.errors import DataError, SchemaMismatch
from volspike.features import Every, FeatureEngine, FeatureRow, FeatureSet
from volspike.market import SECOND_NS, Profile
from volspike.models import TEN_MODEL, Artifact
from volspike.models.alert_thresholds import AlertThresholds
from volspike.monitoring.alerts import Alert, StreamAlerts
from volspike.streams.metrics import PredictionMetrics
from volspike.streams.predictor import PredictionStage
from volspike.streams.wire import FeatureHeaders, FeatureRowCodec, decode_prediction

ARTIFACT = Artifact.load(TEN_MODEL)
SET = FeatureSet(ARTIFACT.metadata.windows)
TOLD = FeatureHeaders(digest=SET.digest, every=Every.TICK, profile=Profile.TICKER)
CODEC = FeatureRowCodec(SET)


@dataclass(slots=True)
class FakeRouter:
    """Stores its arguments."""

    told: list[Alert] = field(default_factory=list)

    def send(self, alert: Alert) -> None:
        self.told.append(alert)


def rows(wild_from: int = 360, count: int = 500) -> list[FeatureRow]:
    """Six calm minutes, then jumps of a percent."""
    engine = FeatureEngine(SET, Profile.TICKER, Every.TICK)
    prices = [100.0 + (k % 2) * (1.0 if k >= wild_from else 0.001) for k in range(count)]
    return [row for k, price in enumerate(prices) for row in engine.update(tick_at(k * SECOND_NS, price))]


ROWS = rows()


def messages(start: int = 0, end: int | None = None, told: FeatureHeaders = TOLD) -> list[FakeMessage]:
    found = [
        FakeMessage("ticks.features", 0, place, b"BTC-USD", CODEC.encode(row), 1, tuple(told.encode()))
        for place, row in enumerate(ROWS)
    ]
    return found[start:end]


def stage(router: FakeRouter | None = None) -> PredictionStage[Alert]:
    watch = StreamAlerts(ARTIFACT.threshold, router)  # type: ignore[arg-type]
    made = PredictionStage(ARTIFACT, "logistic (ml)", watch)
    made.restore(None, 0, ())
    return made


def test_predictions_are_the_models_and_cold_rows_have_none() -> None:
    """Each row gets the model's probability to the bit, null while it is not warm, and where it begins an episode."""
    predictions = [decode_prediction(value) for value in stage().process(messages()).values]
    assert len(predictions) == len(ROWS)
    names = ROWS[0].by_name().keys()
    assert set(ARTIFACT.features) <= set(names)
    for row, prediction in zip(ROWS, predictions, strict=True):
        if not row.is_warm:
            assert (prediction.probability, prediction.prediction, prediction.alert) == (None, None, False)
            continue
        wanted = ARTIFACT.probability_of([row.by_name()[name] for name in ARTIFACT.features])
        assert prediction.probability is not None
        assert prediction.probability == pytest.approx(wanted, rel=1e-6)
        assert prediction.prediction == int(prediction.probability >= ARTIFACT.threshold)
    alerts = [k for k, prediction in enumerate(predictions) if prediction.alert]
    assert len(alerts) == 1
    assert predictions[alerts[0]].prediction == 1
    assert {prediction.digest for prediction in predictions} == {SET.digest}


@pytest.mark.parametrize("cut", [1, 299, 301, 400, 470])
def test_cutting_and_restoring_changes_no_prediction(cut: int) -> None:
    """An episode that is open when a partition moves is not opened again."""
    first = stage()
    found = first.process(messages(0, cut)).values
    second = PredictionStage(ARTIFACT, "logistic (ml)", StreamAlerts(ARTIFACT.threshold))
    second.restore(first.snapshot(cut), cut, ())
    found += second.process(messages(cut)).values
    assert [decode_prediction(value).alert for value in found] == [
        decode_prediction(value).alert for value in stage().process(messages()).values
    ]


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(TOLD, digest="7c1e"),
        msgspec.structs.replace(TOLD, every=Every.SECOND),
        msgspec.structs.replace(TOLD, profile=Profile.TRADE),
    ],
)
def test_rows_of_another_kind_stop_the_stage(other: FeatureHeaders) -> None:
    """Another digest, rate or profile is no dead letter: the worker stops with an error, and nothing is skipped."""
    with pytest.raises(SchemaMismatch, match="offset 3: give featurize and predict-stream the same --model"):
        stage().process([*messages(0, 3), *messages(3, 4, other)])


def test_what_is_no_row_is_dead_in_its_place() -> None:
    """Rows without headers, columns or a time are dead letters with a reason; the others are predicted."""
    good = messages(0, 5)
    headers = tuple(TOLD.encode())
    value = good[0].value() or b""
    bad = [
        FakeMessage("ticks.features", 0, 10, b"A", value),
        FakeMessage("ticks.features", 0, 11, b"A", b"{}", 1, headers),
        FakeMessage("ticks.features", 0, 12, b"A", None, 1, headers),
        FakeMessage("ticks.features", 0, 13, b"A", value.replace(b"2023-11-14T", b"yesterday "), 1, headers),
    ]
    made = stage().process([good[0], bad[3], *good[1:3], *bad[:3], *good[3:]])
    assert [place for place, _ in made.dead] == [1, 4, 5, 6]
    assert len(made.values) == len(made.keys) == len(made.timestamps_ms) == 5
    assert "headers" in made.dead[1][1]
    assert "instant" in made.dead[0][1]


def test_committed_rows_are_counted_once() -> None:
    """What is committed counts; what is taken back, or read once more after a restart, does not."""
    registry = CollectorRegistry()
    metrics = PredictionMetrics(registry)

    def counted() -> tuple[float | None, ...]:
        names = ("stream_probability_count", "stream_unscored_rows_total", "stream_alert_episodes_total")
        return tuple(registry.get_sample_value(name) for name in names)

    def fresh() -> PredictionStage[Alert]:
        router: Any = FakeRouter()
        return PredictionStage(ARTIFACT, "logistic (ml)", StreamAlerts(ARTIFACT.threshold, router), metrics)

    dropped = fresh()
    dropped.process(messages(0, 350))
    dropped.close()
    dropped.after_commit()
    again = fresh()
    again.process(messages(0, 350))
    again.after_recovery(350)
    assert counted() == (0, 0, 0)
    again.process(messages(350))
    again.after_commit()
    warm = sum(row.is_warm for row in ROWS[350:])
    assert counted() == (warm, len(ROWS) - 350 - warm, 1)
    cold = fresh()
    cold.process(messages(0, 10))
    cold.after_commit()
    assert counted() == (warm, len(ROWS) - 350 - warm + sum(not row.is_warm for row in ROWS[:10]), 1)


def test_an_alert_is_told_once_its_transaction_is_committed() -> None:
    """No alert is sent before the commit, and none if the transaction is aborted."""
    router = FakeRouter()
    it = stage(router)
    it.process(messages())
    assert router.told == []
    it.after_commit()
    assert [alert.is_open for alert in router.told] == [True]
    it.after_commit()
    assert len(router.told) == 1
    dropped = stage(router)
    dropped.process(messages())
    dropped.close()
    dropped.after_commit()
    assert len(router.told) == 1


def test_what_may_not_have_been_told_is_told_again() -> None:
    """After a failure, alerts of the last transaction are sent again with the same ids, older ones are not."""
    router = FakeRouter()
    it = stage(router)
    it.process(messages())
    it.after_commit()
    opened = next(k for k, value in enumerate(stage().process(messages()).values) if decode_prediction(value).alert)
    for told, times in ((opened + 1, 1), (opened, 2)):
        again = stage(router)
        again.process(messages())
        again.after_recovery(told)
        assert len(router.told) == times
    assert len({alert.id for alert in router.told}) == 1


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    """A foreign state is a data error; a model of another threshold begins without episodes."""
    with pytest.raises(DataError, match="not a snapshot of stream alerts"):
        stage().restore(b"x", 0, ())
    watch = StreamAlerts(0.5)
    watch.update("A", 0, 0.9, 1.0, simulated=False)
    kept, fresh = StreamAlerts(0.5), StreamAlerts(0.6)
    for other in (kept, fresh):
        other.restore(watch.snapshot())
    assert kept.update("A", SECOND_NS, 0.9, 1.0, simulated=False) is None
    assert fresh.update("A", SECOND_NS, 0.9, 1.0, simulated=False) is not None


def test_a_threshold_of_a_product_replaces_that_of_the_model() -> None:
    """It is in every prediction of the product, decides about its alerts, and survives a move of the partition."""
    thresholds = AlertThresholds.parse(["BTC-USD=0.000001"])
    watch = StreamAlerts(ARTIFACT.threshold, thresholds=thresholds)
    found = PredictionStage(ARTIFACT, "logistic (ml)", watch).process(messages(0, 320)).values
    predictions = [decode_prediction(value) for value in found]
    assert {prediction.threshold for prediction in predictions} == {0.000001}
    assert sum(prediction.alert for prediction in predictions) == 1
    assert all(prediction.prediction == 1 for prediction in predictions if prediction.probability is not None)
    assert watch.threshold_of("ETH-USD") == ARTIFACT.threshold
    kept, fresh = StreamAlerts(ARTIFACT.threshold, thresholds=thresholds), StreamAlerts(ARTIFACT.threshold)
    before = StreamAlerts(ARTIFACT.threshold, thresholds=thresholds)
    before.update("BTC-USD", 0, 0.9, 1.0, simulated=False)
    for other in (kept, fresh):
        other.restore(before.snapshot())
    assert kept.update("BTC-USD", SECOND_NS, 0.9, 1.0, simulated=False) is None
    assert fresh.update("BTC-USD", SECOND_NS, 0.9, 1.0, simulated=False) is not None


def test_a_snapshot_of_an_earlier_version_is_read() -> None:
    """It has no thresholds of products."""
    watch = StreamAlerts(0.5)
    watch.update("A", 0, 0.9, 1.0, simulated=False)
    earlier = msgspec.msgpack.decode(watch.snapshot())
    del earlier["thresholds"]
    again = StreamAlerts(0.5)
    again.restore(msgspec.msgpack.encode(earlier))
    assert again.update("A", SECOND_NS, 0.9, 1.0, simulated=False) is None
