"""Live rows: thresholds, outcomes and probabilities equal those of a feature file, bit for bit."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import build_features, label_file, row_second
from volspike.features import Every, FeatureSet, Scope
from volspike.feeds.events import FeedFrame, Frame
from volspike.feeds.simulation.market import simulate_market
from volspike.labels import SpikeDefinition
from volspike.live.dashboard import Dashboard
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer, ScoredRow
from volspike.market import SECOND_NS, Kind, Mode, Profile, Ticks
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.models.alert_level import AlertLevel
from volspike.models.metadata import Adaptation
from volspike.tape import read_ticks, write_parquet

START = 1_760_000_000_000_000_000
SECONDS = 9000


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two and a half hours of two products, the second with a silence that ends its session."""
    path = tmp_path_factory.mktemp("market") / "ticks.parquet"
    ticks = Ticks.join(list(simulate_market(["BTC-USD", "ETH-USD"], SECONDS, 3, START)))
    silent = (ticks.product == 1) & (ticks.time > START + 4000 * 10**9) & (ticks.time < START + 4400 * 10**9)
    write_parquet([ticks[np.flatnonzero(~silent)]], path, simulated=True)
    return path


def model(spike: str, adaptation: Adaptation | None = None) -> Artifact:
    """The shipped model's graph with another spike definition, for rows of a second."""
    known = Artifact.load(DEFAULT_MODEL)
    changes: dict[str, Any] = {"spike": spike, "every": "1s", "profile": "any", "adaptation": adaptation}
    return Artifact(known.directory, msgspec.structs.replace(known.metadata, **changes), known._scorer)


def recorded(market: Path, folder: Path, spike: str, every: Every = Every.SECOND) -> Dataset:
    """The labelled rows of the tape."""
    out = folder / "features.parquet"
    build_features([market], out, FeatureSet(scope=Scope.FULL), every)
    label_file(out, out, SpikeDefinition.parse(spike))
    return load_dataset(out, labelled=False)


def live(market: Path, artifact: Artifact) -> list[ScoredRow]:
    """The rows of a scorer that gets the ticks one by one."""
    scorer = LiveScorer(artifact)
    return [row for ticks in read_ticks([market]) for tick in ticks for row in scorer.update(tick)]


@pytest.mark.parametrize("spike", ["jump:2", "level:90"])
def test_thresholds_and_outcomes_equal_those_of_a_file(market: Path, tmp_path: Path, spike: str) -> None:
    """τ of each live row, and the outcome of each second with the τ of its row, are those of ``volspike label``."""
    dataset = recorded(market, tmp_path, spike)
    names = dataset.products
    seconds = row_second(dataset.time, Every.SECOND)
    rows = live(market, model(spike))
    tau = {(row.row.product_id, row.row.timestamp): row.tau for row in rows if row.row.is_warm}
    of_file = zip((names[code] for code in dataset.product), dataset.time.tolist(), dataset.tau.tolist(), strict=True)
    np.testing.assert_array_equal([tau[name, time] for name, time, _ in of_file], dataset.tau)
    assert np.isfinite(dataset.tau).sum() > 2000
    outcomes = {(each.product, each.second): each for row in rows for each in row.outcomes}
    known = np.isfinite(dataset.future_volatility)
    found = [outcomes[names[dataset.product[at]], int(seconds[at])] for at in np.flatnonzero(known)]
    np.testing.assert_array_equal([each.future_volatility for each in found], dataset.future_volatility[known])
    np.testing.assert_array_equal([each.tau for each in found], dataset.tau[known])


def test_probabilities_learn_from_outcomes_as_in_a_file(market: Path, tmp_path: Path) -> None:
    """A model that learns from outcomes has the same bits live and over the rows of a file, and they do change."""
    slopes = (0.0, 1.0, 0.0, 0.1, 0.0, 0.0)
    adaptation = Adaptation(listed=slopes, unlisted=slopes, deviation=0.5, alert_log_odds=-0.8)
    artifact = model("jump:1.2", adaptation)
    dataset = recorded(market, tmp_path, "jump:1.2")
    batch = artifact.score_rows(dataset, np.arange(len(dataset)))
    scored = {(row.row.product_id, row.row.timestamp): row.probability for row in live(market, artifact)}
    names = (dataset.products[code] for code in dataset.product)
    alive = [scored[name, time] for name, time in zip(names, dataset.time.tolist(), strict=True)]
    np.testing.assert_array_equal(alive, batch)
    raw = model("jump:1.2").score_rows(dataset, np.arange(len(dataset)))
    assert np.isfinite(batch).mean() > 0.9
    assert np.nanmean(np.abs(batch - raw)) > 1e-3


def test_under_a_budget_alerts_open_in_calm_rows_only(market: Path) -> None:
    """A row whose last minute has reached τ opens no alert, unless the threshold is fixed."""
    slopes = (0.0, 1.0, 0.0, 0.1, 0.0, 0.0)
    adaptation = Adaptation(listed=slopes, unlisted=slopes, deviation=0.5, alert_log_odds=-0.8)
    rows = [row for row in live(market, model("jump:1.2", adaptation)) if isfinite(row.probability)]
    calm, busy = (next(row for row in rows if row.is_calm is is_calm) for is_calm in (True, False))
    assert busy.row.by_name()["realized_volatility_60s"] >= busy.tau
    for row, budget, opens in ((calm, adaptation, True), (busy, adaptation, False), (busy, None, True)):
        pipeline = LivePipeline(LiveScorer(model("jump:1.2", budget)), ["BTC-USD"], "test", mode=Mode.SIMULATED)
        pipeline._take_row(row._replace(probability=0.999), 0)
        assert (pipeline._product(row.row.product_id).rule.episodes.current is not None) is opens


def test_a_restart_forgets_no_calibration(market: Path, tmp_path: Path) -> None:
    """A second pipeline continues where the first stopped, unless its market is of another kind.

    A product that is not subscribed for a while is not shown, and its state is kept.
    """
    slopes = (0.0, 1.0, 0.0, 0.1, 0.0, 0.0)
    adaptation = Adaptation(listed=slopes, unlisted=slopes, deviation=0.5, alert_log_odds=-0.8)
    artifact, file = model("jump:1.2", adaptation), tmp_path / "data" / "outcomes.calibration"
    first = LivePipeline(LiveScorer(artifact), ["BTC-USD"], "test", mode=Mode.SIMULATED, calibration=file)
    for ticks in read_ticks([market]):
        for tick in ticks:
            first.take(FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,))))
    first.close()
    learned = first.scorer._calibrations["BTC-USD"]
    assert learned.events > 0
    other = LivePipeline(LiveScorer(artifact), ["BTC-USD"], "test", mode=Mode.SIMULATED, calibration=file)
    assert Dashboard(other).snapshot(None)["products"] == ["BTC-USD"]
    other.close()
    both = ["BTC-USD", "ETH-USD"]
    second = LivePipeline(LiveScorer(artifact), both, "test", mode=Mode.SIMULATED, calibration=file)
    np.testing.assert_array_equal(second.scorer._calibrations["BTC-USD"].coefficients, learned.coefficients)
    assert second.scorer._calibrations["BTC-USD"].events == learned.events
    levels = [each.products["ETH-USD"].rule.level for each in (first, second)]
    assert levels[0] is not None
    assert levels[1] is not None
    assert levels[0].state() == levels[1].state() != AlertLevel(-0.8).state()
    real = LivePipeline(LiveScorer(artifact), ["BTC-USD"], "test", mode=Mode.LIVE, calibration=file)
    assert real.scorer._calibrations == {}


def test_a_damaged_calibration_file_stops_nothing(tmp_path: Path) -> None:
    """It is reported and replaced at the next save."""
    file = tmp_path / "outcomes.calibration"
    file.write_bytes(b"not a calibration")
    with capture_logs() as logged:
        LivePipeline(LiveScorer(model("jump:2")), ["BTC-USD"], "test", mode=Mode.SIMULATED, calibration=file)
    assert [entry["event"] for entry in logged] == ["damaged_file_renamed"]
    (renamed,) = tmp_path.iterdir()
    assert renamed.name.startswith("outcomes.calibration.damaged-")
    assert renamed.read_bytes() == b"not a calibration"


def test_live_rows_have_the_probabilities_of_every_horizon(market: Path) -> None:
    """The heads of a model score each warm row next to it."""
    artifact = model("jump:2")
    artifact.heads = {300: model("jump:2")}
    rows = live(market, artifact)
    warm = [row for row in rows if row.row.is_warm]
    assert {tuple(row.horizons) for row in warm} == {(300,)}
    assert all(row.horizons == {} for row in rows if not row.row.is_warm)
    assert [row.horizons[300] for row in warm] == [row.probability for row in warm]


def test_a_model_of_another_horizon_brings_its_own_outcomes(market: Path) -> None:
    """After it is adopted, outcomes cover its horizon and begin with the rows that it scored."""
    scorer, longer = LiveScorer(model("jump:2")), model("jump:2")
    longer.metadata = msgspec.structs.replace(longer.metadata, horizon_s=300)
    ticks = [tick for part in read_ticks([market]) for tick in part if tick.product_id == "BTC-USD"]
    half = len(ticks) // 2
    for tick in ticks[:half]:
        scorer.update(tick)
    scorer.adopt(longer)
    later = [row for tick in ticks[half:] for row in scorer.update(tick)]
    prices = {row.row.timestamp // SECOND_NS - 1: float(row.row.values[0]) for row in later}
    outcomes = [outcome for row in later for outcome in row.outcomes]
    assert outcomes[0].second >= min(prices)
    window = np.array([prices[outcomes[0].second + step] for step in range(301)])
    assert outcomes[0].future_volatility == pytest.approx(np.diff(np.log(window)).std(), rel=1e-9)


@pytest.mark.parametrize("trained", ["ticker", "ticker+trade", "trade"])
@pytest.mark.parametrize("kinds", [{Kind.TICKER}, {Kind.TRADE}, {Kind.TICKER, Kind.TRADE}])
def test_a_model_of_prices_is_served_on_every_source(trained: str, kinds: set[Kind]) -> None:
    """The shipped model has inputs from prices only: whatever its profile, it is served on each source."""
    known = Artifact.load(DEFAULT_MODEL)
    facts = msgspec.structs.replace(known.metadata, profile=trained, adaptation=None)
    scorer = LiveScorer(Artifact(known.directory, facts, known._scorer), kinds)
    scorer.check_source(kinds)
    kind = Kind.TRADE if scorer.profile is Profile.TRADE else Kind.TICKER
    assert kind in kinds
    ticks = Ticks.join(list(simulate_market(["BTC-USD"], 400, 3, START)))
    sent = [msgspec.structs.replace(tick, kind=kind, last_size=1.0) for tick in ticks]
    scored = [row for tick in sent for row in scorer.update(tick) if row.row.is_warm]
    assert len(scored) > 50
    for row in scored:
        values = [row.row.by_name()[name] for name in known.features]
        assert row.probability == known.probability_of(values, row.tau) or not isfinite(row.tau)
