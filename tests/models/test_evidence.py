"""Limitations of a model, and of a model on a market."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from tests.lifecycle.conftest import as_real
from tests.training.markets import market_of
from volspike.evaluation.comparison import LEAST_EVENTS
from volspike.evaluation.metrics import MOST_FLAGGED
from volspike.market import Profile, parse_time
from volspike.models import DEFAULT_MODEL, METADATA_FILE, Metadata
from volspike.models.evidence import (
    LEAST_SPIKE_EVENTS,
    MOST_ALARM_SHARE,
    Limitation,
    LimitationKind,
    blocking_limitations,
    dataset_markets,
    describe_training,
    has_evidence,
    live_markets,
    market_limitations,
    model_limitations,
    training_spans,
)
from volspike.models.metadata import Adaptation, MarketFacts, decode_metadata, encode_metadata

START, END = "2025-12-01T00:00:00Z", "2025-12-05T00:00:00Z"
COINBASE = MarketFacts(venue="coinbase", product="BTC-USD", start=START, end=END)


def figures(flagged: int, *, rows: int = 1000, spikes: int = 100, events: int = 9) -> dict[str, int]:
    """Figures of test rows of which ``flagged`` are flagged, spikes first."""
    tp = min(flagged, spikes)
    return {"rows": rows, "tp": tp, "fp": flagged - tp, "fn": spikes - tp, "spike_events": events}


def with_facts(metadata: Metadata, **changes: Any) -> Metadata:
    """The metadata of a model with good figures on a stated market, and these changes."""
    good: dict[str, Any] = {"markets": (COINBASE,), "metrics": {"model": figures(80)}}
    return msgspec.structs.replace(metadata, **(good | changes))


def kinds(limitations: tuple[Limitation, ...]) -> list[LimitationKind]:
    """The kinds, in order."""
    return [limitation.kind for limitation in limitations]


def test_limits_are_those_of_training() -> None:
    """The limits here equal those by which thresholds are chosen and conclusions are drawn."""
    assert (MOST_ALARM_SHARE, LEAST_SPIKE_EVENTS) == (MOST_FLAGGED, LEAST_EVENTS)


def test_good_model_has_none(metadata: Metadata) -> None:
    """A walk-forward model with enough events and a useful threshold has no limitation."""
    assert model_limitations(with_facts(metadata)) == ()


def test_stratified_split_is_no_evidence(metadata: Metadata) -> None:
    """A stratified split is a blocking limitation, whatever the figures are."""
    split = msgspec.structs.replace(metadata.split, method="stratified")
    model = with_facts(metadata, split=split)
    assert not has_evidence(model)
    assert kinds(blocking_limitations(model)) == [LimitationKind.NO_EVIDENCE]


@pytest.mark.parametrize(
    ("flagged", "is_degenerate"), [(0, True), (1, False), (500, False), (501, True), (900, True), (1000, True)]
)
def test_threshold_is_degenerate_above_half_of_the_rows_or_at_none(
    metadata: Metadata, flagged: int, is_degenerate: bool
) -> None:
    """In alarm on more than half of the test rows, or on none although there were spikes."""
    found = blocking_limitations(with_facts(metadata, metrics={"model": figures(flagged)}))
    assert kinds(found) == [LimitationKind.DEGENERATE_THRESHOLD] * is_degenerate
    assert all("best_f1 (0.4)" in limitation.reason for limitation in found)


def test_threshold_is_evaluated_on_the_final_block(metadata: Metadata) -> None:
    """The served threshold is that of the final fold; thresholds of earlier folds are not served."""
    metrics = {"model": figures(80), "model_final": figures(900)}
    assert kinds(model_limitations(with_facts(metadata, metrics=metrics))) == [LimitationKind.DEGENERATE_THRESHOLD]
    metrics = {"model": figures(900), "model_final": figures(80)}
    assert model_limitations(with_facts(metadata, metrics=metrics)) == ()


def test_open_alerts_count_as_alarm(metadata: Metadata) -> None:
    """Few flagged rows can keep alerts open for most of the time."""
    metrics = {"model": figures(80), "model_events": {"alarm_share": 0.9}}
    assert "90%" in model_limitations(with_facts(metadata, metrics=metrics))[0].reason


def test_threshold_above_one_never_alerts(metadata: Metadata) -> None:
    """It is degenerate unless the threshold follows the alarms."""
    never = with_facts(metadata, thresholds={"best_f1": 1.0 + 1e-9})
    assert kinds(blocking_limitations(never)) == [LimitationKind.DEGENERATE_THRESHOLD]
    adaptation = Adaptation(listed=(0.0,), unlisted=(0.0,), deviation=0.5, alert_log_odds=0.0)
    assert blocking_limitations(msgspec.structs.replace(never, adaptation=adaptation)) == ()


def test_calm_test_rows_without_an_alarm_are_no_fault(metadata: Metadata) -> None:
    """Where no test row was a spike, no alarm is right; the missing events are named."""
    calm = with_facts(metadata, metrics={"model": figures(0, spikes=0, events=0)})
    assert kinds(model_limitations(calm)) == [LimitationKind.FEW_EVENTS]


@pytest.mark.parametrize(("events", "is_few"), [(0, True), (4, True), (5, False)])
def test_few_events_are_named(metadata: Metadata, events: int, is_few: bool) -> None:
    """Fewer than five separate spike events are a limitation that does not block."""
    model = with_facts(metadata, metrics={"model": figures(80, events=events)})
    assert kinds(model_limitations(model)) == [LimitationKind.FEW_EVENTS] * is_few
    assert blocking_limitations(model) == ()


def test_artifact_of_an_older_version_states_nothing() -> None:
    """Metadata without the new fields still load; what they lack is named."""
    document = msgspec.json.decode((DEFAULT_MODEL / METADATA_FILE).read_bytes())
    older = {
        name: value for name, value in document.items() if name not in {"markets", "limitations", "requested_threshold"}
    }
    model = decode_metadata(msgspec.json.encode(older | {"metrics": {}}))
    assert model.venues == ()
    assert "venue not stated" in describe_training(model)
    (found,) = model_limitations(model)
    assert found.text.startswith("not stated: the figures of its test rows and the venues of its training data")


def test_market_of_the_training_has_none(metadata: Metadata) -> None:
    """Live rows of a product and venue of the training are what the model is for."""
    assert market_limitations(with_facts(metadata), live_markets(["BTC-USD"], simulated=False), simulated=False) == ()


@pytest.mark.parametrize(
    ("product", "kind", "named"),
    [
        ("ETH-USD", LimitationKind.PRODUCT, "not trained on ETH-USD, but on BTC-USD"),
        ("gemini:ETH-USD", LimitationKind.PRODUCT, "not trained on ETH-USD"),
        ("gemini:BTC-USD", LimitationKind.VENUE, "not trained on gemini:BTC-USD, but on coinbase:BTC-USD"),
    ],
)
def test_other_products_and_venues_are_named(
    metadata: Metadata, product: str, kind: LimitationKind, named: str
) -> None:
    """A product or venue that training has not seen is a limitation."""
    (found,) = market_limitations(with_facts(metadata), live_markets([product], simulated=False), simulated=False)
    assert found.kind is kind
    assert named in found.reason


@pytest.mark.parametrize("trained_on_simulated", [True, False])
def test_simulated_and_real_markets_differ(metadata: Metadata, trained_on_simulated: bool) -> None:
    """A model of a simulated market on a real one, and the reverse, say so."""
    model = with_facts(metadata, simulated=trained_on_simulated)
    markets = live_markets(["BTC-USD"], simulated=not trained_on_simulated)
    (found,) = market_limitations(model, markets, simulated=not trained_on_simulated)
    assert found.kind is LimitationKind.SIMULATED


@pytest.mark.parametrize(
    ("venue", "start", "end", "is_in_sample"),
    [
        ("coinbase", "2025-12-04T00:00:00Z", "2025-12-08T00:00:00Z", True),
        ("coinbase", END, "2025-12-08T00:00:00Z", True),
        ("coinbase", "2025-11-01T00:00:00Z", "2025-11-30T00:00:00Z", False),
        ("coinbase", "2025-12-05T00:00:01Z", "2025-12-08T00:00:00Z", False),
        ("gemini", "2025-12-02T00:00:00Z", "2025-12-03T00:00:00Z", False),
    ],
)
def test_rows_of_the_training_are_in_sample(
    metadata: Metadata, venue: str, start: str, end: str, is_in_sample: bool
) -> None:
    """Only rows of a market within its own training data are not out of sample."""
    rows = MarketFacts(venue=venue, product="BTC-USD", start=start, end=end)
    found = market_limitations(with_facts(metadata), [rows], simulated=False)
    assert (LimitationKind.IN_SAMPLE in kinds(found)) == is_in_sample


def test_without_venues_products_decide_what_is_in_sample(metadata: Metadata) -> None:
    """Metadata of an earlier version are compared by product and the range of all data."""
    data = msgspec.structs.replace(metadata.data, start=START, end=END)
    older = with_facts(metadata, markets=(), data=data)
    rows = MarketFacts(venue="gemini", product="BTC-USD", start=START, end=END)
    assert kinds(market_limitations(older, [rows], simulated=False)) == [LimitationKind.IN_SAMPLE]


def test_spans_are_those_of_the_market(metadata: Metadata) -> None:
    """Each recording of a product at its venue is a span; a market of the other kind has none."""
    again = msgspec.structs.replace(COINBASE, start="2026-01-01T00:00:00Z", end="2026-01-02T00:00:00Z")
    model = with_facts(metadata, markets=(COINBASE, again))
    assert training_spans(model, "BTC-USD", simulated=False) == tuple(
        (parse_time(market.start), parse_time(market.end)) for market in (COINBASE, again)
    )
    assert training_spans(model, "gemini:BTC-USD", simulated=False) == ()
    assert training_spans(model, "BTC-USD", simulated=True) == ()


def test_markets_of_rows_have_their_time_range() -> None:
    """The venue is that of the name, then the stated one, then Coinbase; a simulated market has its own."""
    rows = market_of(100, skill=1.0)
    (simulated,) = dataset_markets(rows)
    assert (simulated.name, simulated.start) == ("simulated:BTC-USD", "2025-12-06T00:00:00Z")
    assert [each.venue for each in dataset_markets(as_real(rows))] == ["coinbase"]
    assert [each.venue for each in dataset_markets(as_real(rows), "gemini")] == ["gemini"]
    assert dataset_markets(as_real(rows).only(np.zeros(100, np.bool_))) == ()


def test_metadata_with_markets_survive_a_round_trip(metadata: Metadata) -> None:
    """Markets, venues and limitations are written and read."""
    model = with_facts(metadata, limitations=("few events: 1",), requested_threshold="rate_10")
    assert decode_metadata(encode_metadata(model)) == model
    assert model.venues == ("coinbase",)
    assert "in place of rate_10" in describe_training(model)


@pytest.mark.parametrize(
    ("trained", "served", "feature", "warns"),
    [
        ("trade", Profile.TICKER, "trade_intensity_60s", True),
        ("ticker", Profile.TRADE, "tick_ratio_60s", True),
        ("ticker", Profile.TICKER_AND_TRADE, "trade_intensity_60s", False),
        ("any", Profile.TRADE, "trade_intensity_60s", False),
        ("trade", Profile.TICKER, "realized_volatility_60s", False),
    ],
)
def test_features_that_count_ticks_are_named_where_ticks_differ(
    metadata: Metadata, trained: str, served: Profile, feature: str, warns: bool
) -> None:
    """Quotes and trades arrive at different rates, so a model that counts them has a limitation on the other."""
    model = msgspec.structs.replace(with_facts(metadata), profile=trained, features=(feature,))
    found = market_limitations(model, (), simulated=model.simulated, profile=served)
    assert kinds(found) == [LimitationKind.TICK_RATE] * warns
    assert not warns or feature in found[0].reason


@pytest.mark.parametrize(
    ("feature", "received", "warns"),
    [
        ("leader_return_5s", ["BTC-USD"], True),
        ("leader_return_5s", ["BTC-USD", "binance:BTC-USDT"], False),
        ("realized_volatility_60s", ["BTC-USD"], False),
        ("leader_return_5s", None, False),
    ],
)
def test_a_leader_that_is_not_received_is_named(
    metadata: Metadata, feature: str, received: list[str] | None, warns: bool
) -> None:
    """A model with features of a leader has a limitation where the leader is not received; unknown is no limitation."""
    model = msgspec.structs.replace(with_facts(metadata), leader="binance:BTC-USDT", features=(feature,))
    found = market_limitations(model, (), simulated=model.simulated, received=received)
    assert kinds(found) == [LimitationKind.NO_LEADER] * warns
    assert not warns or ("binance:BTC-USDT" in found[0].reason and feature in found[0].reason)


NEEDS = {
    "realized_volatility_60s": set(Profile),
    "trade_intensity_60s": set(Profile),
    "leader_return_1s": set(Profile),
    "spread_mean_60s": {Profile.TICKER, Profile.TICKER_AND_TRADE},
    "weighted_mid_bps": {Profile.TICKER, Profile.TICKER_AND_TRADE},
    "volume_velocity_60s": {Profile.TRADE, Profile.TICKER_AND_TRADE},
    "flow_imbalance_60s": {Profile.TRADE, Profile.TICKER_AND_TRADE},
}


@pytest.mark.parametrize("feature", NEEDS)
@pytest.mark.parametrize("trained", [*Profile, "any"])
@pytest.mark.parametrize("served", list(Profile))
def test_only_a_missing_input_prevents_another_profile(
    metadata: Metadata, feature: str, trained: str, served: Profile
) -> None:
    """A model is accepted on every profile that supplies its features, and on that of its training."""
    model = msgspec.structs.replace(metadata, profile=str(trained), features=(feature, "log_return_60s"))
    missing = [name for names in model.missing_inputs(served).values() for name in names]
    assert missing == ([] if served in NEEDS[feature] or served == trained else [feature])
