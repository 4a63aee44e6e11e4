"""Values exactly at τ, at a threshold or at a limit: "at least" includes the value itself, everywhere in the system."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from tests.streams.test_predictor import messages, stage
from tests.tape.strategies import tick_at
from volspike.api.metrics import ApiMetrics
from volspike.api.predict import PredictHandler
from volspike.cli.infer import _live
from volspike.datasets import Dataset
from volspike.episodes import HORIZON_NS, EpisodeTracker, SeriesOrder, alarm_runs, spike_runs
from volspike.evaluation.bootstrap import Calls, Draws, resampled_figures
from volspike.evaluation.metrics import evaluate_scores
from volspike.evaluation.scored import Scored, spike_events
from volspike.evaluation.spike_events import find_events
from volspike.evaluation.thresholds import (
    alarm_minutes_threshold,
    best_f1_threshold,
    cost_threshold,
    false_alarm_threshold,
    rate_threshold,
)
from volspike.labels import (
    DelayedLabel,
    DelayedLabels,
    SecondGrid,
    SpikeDefinition,
    is_gap_in_horizon,
    is_spike,
    spikes,
)
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer, RowThresholds, ScoredRow
from volspike.market import SECOND_NS, Mode
from volspike.models import TEN_MODEL, Artifact
from volspike.monitoring.drift import DriftSeverity, dataset_severity, feature_severity
from volspike.monitoring.outcome_database import OutcomeDatabase, OutcomeRecord, PredictionRecord
from volspike.monitoring.performance import ServedModel
from volspike.streams.wire import decode_prediction

LEVEL: Final = 0.5
BELOW: Final = math.nextafter(LEVEL, 0.0)
RELEASE: Final = 0.8 * LEVEL


def live_pipeline() -> tuple[LivePipeline, ScoredRow]:
    """A pipeline whose τ and threshold are ``LEVEL``, and a row."""
    artifact = Artifact.load(TEN_MODEL)
    artifact.metadata = msgspec.structs.replace(
        artifact.metadata, tau=LEVEL, thresholds={"rate_10": LEVEL}, served_threshold="rate_10"
    )
    scorer = LiveScorer(artifact)
    pipeline = LivePipeline(scorer, ["BTC-USD"], "test", mode=Mode.SIMULATED)
    (row, *_) = [row for second in range(3) for row in scorer.update(tick_at(second * SECOND_NS, 100.0))]
    return pipeline, row


def live_spike(volatility: float) -> bool:
    pipeline, row = live_pipeline()
    thresholds = RowThresholds(SpikeDefinition.parse(f"fixed:{LEVEL}"), LEVEL, 60)
    thresholds.add(0, float("nan"))
    outcome = thresholds.outcome(DelayedLabel("BTC-USD", 0, volatility))
    pipeline._take_row(row._replace(outcomes=[outcome]), 0)
    return pipeline.counts.of("BTC-USD").spikes == 1


def stored_spike(volatility: float, tau: float = float("nan"), model_tau: float = LEVEL) -> bool:
    model = ServedModel(digest="a", name="a", version="a", tau=model_tau, simulated=False)
    with TemporaryDirectory() as folder:
        database = OutcomeDatabase(Path(folder) / "outcomes.sqlite")
        database.write(
            [PredictionRecord("X", 0, 0.1, LEVEL, False, model, tau), OutcomeRecord("X", 0, volatility, False)], 0
        )
        number = database.find(model)
        assert number is not None
        spike = database.evaluated(number, 0, None, 10).spike.tolist()
        database.close()
    return bool(spike == [1])


SPIKES: Final[dict[str, Callable[[float], bool]]] = {
    "rule": lambda volatility: is_spike(volatility, LEVEL),
    "recorded": lambda volatility: spikes(np.array([volatility]), LEVEL).tolist() == [1],
    "live": live_spike,
    "stored": stored_spike,
    "stored with τ of its own": lambda volatility: stored_spike(volatility, LEVEL, float("nan")),
}


@pytest.mark.parametrize("place", SPIKES)
def test_a_future_volatility_at_tau_is_a_spike(place: str) -> None:
    """τ itself is a spike, the next smaller number is not."""
    assert SPIKES[place](LEVEL)
    assert not SPIKES[place](BELOW)


def predictor(probability: float) -> PredictHandler:
    scorer: Any = SimpleNamespace(
        name="logistic",
        features=("a",),
        threshold=LEVEL,
        heads={},
        accepts_missing=False,
        metadata=SimpleNamespace(simulated=False, spike_definition="fixed:1", horizon_s=60),
        threshold_of=lambda _: 1.0,
        thresholds=lambda x: np.ones(len(x)),
        probability_of=lambda *_: probability,
        probability=lambda x, _: np.full(len(x), probability),
    )
    return PredictHandler(scorer, ApiMetrics(), 10)


def api_one(probability: float) -> bool:
    reply = predictor(probability).reply(b'{"features": {"a": 1.0}}')
    assert isinstance(reply, bytes)
    answer = msgspec.json.decode(reply)
    assert answer["alert"] is (answer["prediction"] == 1)
    return bool(answer["alert"])


def api_many(probability: float) -> bool:
    reply = predictor(probability).reply(b'{"rows": [{"a": 1.0}, {"a": 2.0}]}')
    assert isinstance(reply, bytes)
    answer = msgspec.json.decode(reply)
    assert answer["alert"] == [decision == 1 for decision in answer["prediction"]]
    return bool(answer["alert"][0])


def live_alert(probability: float) -> bool:
    pipeline, row = live_pipeline()
    stored: list[PredictionRecord] = []
    pipeline.outcomes = SimpleNamespace(predict=stored.append, alert=lambda _: None)  # type: ignore[assignment]
    pipeline._take_row(row._replace(probability=probability), 0)
    is_open = pipeline._product("BTC-USD").rule.episodes.current is not None
    assert [prediction.alert for prediction in stored] == [is_open]
    return is_open


def stream_alert(probability: float) -> bool:
    predictions = stage()
    threshold = predictions._artifact.threshold
    value = threshold if probability == LEVEL else math.nextafter(threshold, 0.0)
    predictions._scores = lambda read: ([value] * len(read), [None] * len(read))  # type: ignore[method-assign]
    prediction = decode_prediction(predictions.process(messages(0, 1)).values[0])
    assert prediction.alert is (prediction.prediction == 1)
    return prediction.alert


def infer_alert(probability: float, capsys: pytest.CaptureFixture[str]) -> bool:
    artifact: Any = SimpleNamespace(
        name="a",
        score_rows=lambda *_: np.full(1, probability),
        alert_thresholds=lambda *_: np.full(1, LEVEL),
        holds_budget=False,
    )
    facts: Any = None
    none, number = np.zeros(1), np.zeros(1, np.int64)
    dataset = Dataset(facts, ("X",), number, number.astype(np.int32), number, (), np.zeros((1, 0)), none, none, none)
    _live(artifact, dataset, np.array([0]), np.ones(1))
    return "1 rows scored, 1 alerts" in capsys.readouterr().out


def recall_in_resamples(probability: float) -> bool:
    rows = 100
    calls = Calls(np.ones(rows, np.int8), np.full(rows, probability), np.full(rows, LEVEL), is_probability=True)
    (figures,) = resampled_figures([calls], Draws.of(np.arange(rows) * SECOND_NS, 10.0, resamples=2))
    return bool(figures["recall"].tolist() == [1.0, 1.0])


def recorded_episode(probability: float) -> bool:
    series = SeriesOrder.of(np.zeros(1, np.int64), np.zeros(1, np.int32))
    return len(alarm_runs(series, np.array([probability]), LEVEL)) == 1


ALERTS: Final[dict[str, Callable[[float], bool]]] = {
    "api, one row": api_one,
    "api, rows": api_many,
    "live": live_alert,
    "stream": stream_alert,
    "live episode": lambda probability: EpisodeTracker(LEVEL, product="X").update(0, probability) is not None,
    "recorded episode": recorded_episode,
    "metrics": lambda probability: evaluate_scores(np.ones(1, np.int8), np.array([probability]), LEVEL).tp == 1,
    "resampled metrics": recall_in_resamples,
}


@pytest.mark.parametrize("place", ALERTS)
def test_a_probability_at_the_threshold_is_an_alert(place: str) -> None:
    """The threshold itself is an alert, the next smaller number is not."""
    assert ALERTS[place](LEVEL)
    assert not ALERTS[place](BELOW)


def test_infer_counts_a_probability_at_the_threshold_as_an_alert(capsys: pytest.CaptureFixture[str]) -> None:
    """The same holds for ``volspike infer --mode live``."""
    assert infer_alert(LEVEL, capsys)
    assert not infer_alert(BELOW, capsys)


def live_end(rows: list[tuple[int, float]]) -> int | None:
    """The time (ns) at which the live episode that these rows (ns, probability) open closes."""
    tracker = EpisodeTracker(LEVEL, product="X")
    events = [tracker.update(time, probability) for time, probability in rows]
    return next((event.closed for event in events if event is not None and not event.is_open), None)


def recorded_end(rows: list[tuple[int, float]]) -> int | None:
    """The same for recorded rows."""
    time, probability = (np.array(column) for column in zip(*rows, strict=True))
    series = SeriesOrder.of(time.astype(np.int64), np.zeros(len(time), np.int32))
    runs = alarm_runs(series, probability.astype(np.float64), LEVEL)
    last = int(runs.last[0])
    return int(time[last + 1]) if last + 1 < len(time) else None


S: Final = SECOND_NS
LOW: Final = math.nextafter(RELEASE, 0.0)
NAN: Final = math.nan

ENDS: Final[dict[str, tuple[list[tuple[int, float]], int | None]]] = {
    "release level keeps it open": ([(0, LEVEL), (30 * S, LEVEL), (60 * S, RELEASE), (80 * S, RELEASE)], None),
    "below the release level closes it": ([(0, LEVEL), (30 * S, LEVEL), (60 * S, LOW), (70 * S, LOW)], 70 * S),
    "hold time reached": ([(0, LEVEL), (50 * S, LOW), (60 * S, LOW)], 60 * S),
    "hold time not reached": ([(0, LEVEL), (50 * S, LOW), (60 * S - 1, LOW)], None),
    "quiet time reached": ([(0, LEVEL), (30 * S, LEVEL), (60 * S, LOW), (70 * S, LOW)], 70 * S),
    "quiet time not reached": ([(0, LEVEL), (30 * S, LEVEL), (60 * S, LOW), (70 * S - 1, LOW)], None),
    "unknown time reached": ([(0, LEVEL), (5 * S, LEVEL), (65 * S, NAN)], 65 * S),
    "unknown time not reached": ([(0, LEVEL), (5 * S, LEVEL), (65 * S - 1, NAN)], None),
    "unknown time and hold reached at once": ([(0, LEVEL), (60 * S, NAN)], 60 * S),
    "cap reached": ([*((second * S, LEVEL) for second in range(0, 300, 30)), (300 * S, LEVEL)], 300 * S),
    "cap not reached": ([*((second * S, LEVEL) for second in range(0, 300, 30)), (300 * S - 1, LEVEL)], None),
}


@pytest.mark.parametrize("end", [live_end, recorded_end])
@pytest.mark.parametrize("case", ENDS)
def test_episode_limits_are_reached_at_the_exact_value(case: str, end: Callable[[Any], int | None]) -> None:
    """Release level, hold, quiet and unknown time count from the exact value on, live and recorded."""
    rows, closed = ENDS[case]
    assert end(rows) == closed


def test_a_row_back_by_exactly_the_unknown_time_is_late() -> None:
    """60 s before the newest is a late row, one nanosecond more restarts time."""
    for back, closes in ((60 * S, False), (60 * S + 1, True)):
        tracker = EpisodeTracker(LEVEL, product="X")
        tracker.update(100 * S, LEVEL)
        assert (tracker.update(100 * S - back, LEVEL) is not None) is closes


def test_a_gap_at_the_edge_of_the_horizon_is_outside_it() -> None:
    """The horizon of second 0 runs from the end of second 0 to that of second 60; a gap that only touches it is out."""
    second = np.array([0])
    assert not is_gap_in_horizon(second, 0, S)[0]
    assert is_gap_in_horizon(second, 0, S + 1)[0]
    assert not is_gap_in_horizon(second, 61 * S, 62 * S)[0]
    assert is_gap_in_horizon(second, 61 * S - 1, 62 * S)[0]


@pytest.mark.parametrize(("silence_s", "has_label"), [(300, True), (301, False)])
def test_a_silence_of_exactly_the_session_gap_ends_no_session(silence_s: int, has_label: bool) -> None:
    """300 s without a row belong to one session; more do not. Live and recorded labels agree."""
    time = np.array([0, silence_s]) * S
    grid = SecondGrid(300 * S, is_per_second=False)
    grid.add(time, time // S, np.zeros(2, np.int64), np.array([100.0, 101.0]))
    recorded = [value for _, values, _ in grid.labels() for value in values.tolist() if math.isfinite(value)]
    labels = DelayedLabels()
    live = [label for at in time.tolist() for label in labels.add("X", at, 100.0, 0)]
    assert (len(recorded), len(live)) == (int(has_label), int(has_label))


def test_spike_rows_exactly_a_horizon_apart_are_two_events() -> None:
    """60 s apart share no second of their future; five minutes apart are still one spike event of the bootstrap."""
    for step, runs in ((HORIZON_NS, 2), (HORIZON_NS - 1, 1)):
        series = SeriesOrder.of(np.array([0, step]), np.zeros(2, np.int32))
        assert len(spike_runs(series, np.ones(2, np.int8))) == runs
        assert series.seconds()[0] == (0.0 if runs == 2 else pytest.approx(60.0))
    assert spike_events(np.array([0, 300 * S])) == 1
    assert spike_events(np.array([0, 300 * S + 1])) == 2


def scored(past_volatility: float, alarm_at_s: int) -> Scored:
    """A spike at second 60 of 200, and an alarm that opens at ``alarm_at_s``."""
    rows = 200
    return Scored(
        time=np.arange(rows) * S,
        product=np.zeros(rows, np.int32),
        fold=np.zeros(rows, np.int32),
        y=(np.arange(rows) >= 60).astype(np.int8),
        past_volatility=np.full(rows, past_volatility),
        probability=np.where(np.arange(rows) >= alarm_at_s, 1.0, 0.0),
        threshold=np.full(rows, LEVEL),
        baseline=np.zeros(rows),
        baseline_threshold=np.ones(rows),
    )


def test_an_onset_begins_while_the_last_minute_is_below_tau() -> None:
    """A last minute exactly at τ is itself a spike, so the event that begins then is no onset."""
    onset = [find_events(scored(past, 0)).counts[:, 3].sum() for past in (math.nextafter(1.0, 0.0), 1.0)]
    assert onset == [1.0, 0.0]


def test_a_lead_counts_up_to_its_cap() -> None:
    """120 s before the spike is realized is a lead of 120 s, and so is an earlier alarm."""
    leads = [find_events(scored(0.0, opened)).lead_s.tolist() for opened in (1, 0)]
    assert leads == [[119.0], [120.0]]
    late = replace(scored(0.0, 0), time=np.where(np.arange(200) == 0, -S, np.arange(200) * S))
    assert find_events(late).lead_s.tolist() == [120.0]


def test_alarm_minutes_use_their_budget_completely() -> None:
    """A threshold whose alarms last exactly as long as the budget allows is allowed."""
    rows = 2881  # 30 s apart; an alarm is open at its row and the next
    time, score = np.arange(rows) * 30 * S, np.zeros(rows)
    score[[10, 700]] = 0.9, 0.8
    thresholds = [alarm_minutes_threshold(score, time, np.zeros(rows, np.int32), most) for most in (2.0, 1.99, 0.99)]
    assert [int((score >= threshold).sum()) for threshold in thresholds] == [2, 1, 0]


def test_an_alarm_at_the_moment_of_the_spike_is_not_in_time() -> None:
    """A lead of 0 is not in time, one second is."""
    assert find_events(scored(0.0, 119)).counts[:, 2].sum() == 1.0
    assert find_events(scored(0.0, 120)).counts[:, 2].sum() == 0.0


def test_thresholds_use_their_allowance_completely() -> None:
    """A share of rows, or of false alarms per hour, that is exactly reached is allowed."""
    score = np.arange(10.0) / 10
    y = (score >= 0.5).astype(np.int8)
    assert (score >= rate_threshold(score, 0.2)).sum() == 2
    assert (score >= (best_f1_threshold(y, score) or 0.0)).sum() == 5
    assert (score >= (cost_threshold(y, score, 100.0) or 0.0)).sum() == 5
    time = np.arange(0, 3600, 30) * S  # 120 rows, 3 570 s until the last
    values, spike = np.zeros(120), np.zeros(120, np.int8)
    values[[10, 50]], spike[10] = (0.9, 0.8), 1
    product = np.zeros(120, np.int32)
    found = [false_alarm_threshold(spike, values, time, product, most) for most in (3600.0 / 3570.0, 1.0)]
    assert [None if value is None else bool(value < 0.8) for value in found] == [True, False]


def test_the_lowest_score_as_threshold_flags_its_rows() -> None:
    """A chosen threshold that equals a score flags the rows of that score."""
    score = np.full(4, 0.25)
    threshold = rate_threshold(score, 1.0)
    assert threshold == 0.25
    assert evaluate_scores(np.zeros(4, np.int8), score, threshold).fp == 4


def test_drift_severities_at_their_limits() -> None:
    """A p-value at a limit is the more severe, a share of features at a limit the less severe."""
    assert feature_severity(0.05) is DriftSeverity.MEDIUM
    assert feature_severity(math.nextafter(0.05, 1.0)) is DriftSeverity.LOW
    assert feature_severity(0.01) is DriftSeverity.HIGH
    assert feature_severity(math.nextafter(0.01, 1.0)) is DriftSeverity.MEDIUM
    assert dataset_severity(0.5) is DriftSeverity.LOW
    assert dataset_severity(math.nextafter(0.5, 1.0)) is DriftSeverity.MEDIUM
    assert dataset_severity(0.75) is DriftSeverity.MEDIUM
    assert dataset_severity(math.nextafter(0.75, 1.0)) is DriftSeverity.HIGH


@pytest.mark.parametrize(("span_s", "blocks"), [(100, 11), (101, 12), (50, 6), (49, 0)])
def test_a_resample_has_one_block_more_than_fit_into_the_time(span_s: int, blocks: int) -> None:
    """``ceil(span / length) + 1`` blocks of the given length, none for less than five lengths of time."""
    draws = Draws.of(np.arange(span_s + 1) * S, 10.0, resamples=3)
    assert draws.first.shape == draws.beyond.shape == ((3, blocks) if blocks else (0, 0))


def test_the_default_number_of_draws() -> None:
    """A thousand resamples, as every interval in a report states."""
    assert len(Draws.of(np.arange(101) * S, 10.0)) == 1000


def test_a_block_is_as_long_as_stated() -> None:
    """No block holds more rows than seconds of its length, and full blocks hold exactly as many."""
    draws = Draws.of(np.arange(1001) * S, 20.0, resamples=50)
    lengths = draws.beyond - draws.first
    assert lengths.max() == 20
    inside = (draws.first > 0) & (draws.beyond < 1001)
    assert (lengths[inside] == 20).all()
