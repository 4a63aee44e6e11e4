"""A market as Kafka messages, some of them damaged, and the rows and predictions that a plain replay gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from volspike.features import Every, FeatureEngine, FeatureRows, FeatureSet
from volspike.market import SECOND_NS, Kind, Profile, Tick, Ticks
from volspike.models import TEN_MODEL, Artifact
from volspike.models.volatility import (
    DEFAULT_BAND,
    expected_volatility,
    forecast_inputs,
    forecast_log_volatility,
    volatility_fields,
)
from volspike.monitoring.alerts import StreamAlerts
from volspike.streams.wire import (
    FeatureRowCodec,
    Message,
    StreamPrediction,
    encode_prediction,
    format_times,
    tick_message,
)
from volspike.tape import tape_line

START = 1_760_000_000 * SECOND_NS
PAIRS = ("BTC-USD", "ETH-USD", "SOL-USD", "DOGE-USD", "ADA-USD", "XRP-USD")
DAMAGED = (b"{", b'{"price": 1}', b"\xff\xfe", b"", b'{"a": 1}\n{"a": 2}', b"no json at all")


@dataclass(slots=True)
class Market:
    """Messages in order, the ticks in them, and the values of the damaged messages."""

    messages: list[Message] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)


def make_market(count: int, damaged_every: int = 2_000, seed: int = 11) -> Market:
    """``count`` ticks of six products, ten a second of each, with calm and volatile periods in turn."""
    rng = np.random.default_rng(seed)
    market = Market()
    steps = rng.normal(0.0, 1.0, count).tolist()
    prices = dict.fromkeys(PAIRS, 100.0)
    for number in range(count):
        pair = PAIRS[number % len(PAIRS)]
        received = START + number * SECOND_NS // (10 * len(PAIRS))
        volatility = 2e-4 if (received // SECOND_NS) % 1200 > 1000 else 1e-5
        prices[pair] = round(prices[pair] * (1.0 + volatility * steps[number]), 6)
        tick = Tick(
            time=received - 20_000_000,
            received=received,
            kind=Kind.TICKER,
            product_id=pair,
            price=prices[pair],
            best_bid=round(prices[pair] - 0.01, 6),
            best_ask=round(prices[pair] + 0.01, 6),
            bid_size=1.0 + number % 7,
            ask_size=2.0,
            last_size=0.5,
        )
        market.ticks.append(tick)
        market.messages.append(tick_message(pair, tape_line(tick), received))
        if damaged_every and number % damaged_every == damaged_every // 2:
            # every value is different, so that a duplicate is detected
            count_so_far = len(market.damaged)
            value = DAMAGED[count_so_far] if count_so_far < len(DAMAGED) else b"damaged %d" % number
            market.damaged.append(value)
            market.messages.append(Message(pair.encode(), value, received))
    return market


def replay_rows(ticks: list[Tick], feature_set: FeatureSet, every: Every = Every.TICK) -> Iterator[FeatureRows]:
    """The rows of a plain replay."""
    return FeatureEngine(feature_set, Profile.TICKER, every).run(Ticks.of(ticks))


def expected_rows(ticks: list[Tick], feature_set: FeatureSet, every: Every = Every.TICK) -> dict[str, list[bytes]]:
    """The expected values of ``ticks.features``, by product."""
    values: dict[str, list[bytes]] = {}
    codec = FeatureRowCodec(feature_set)
    for rows in replay_rows(ticks, feature_set, every):
        for code, value in zip(rows.product.tolist(), codec.encode_rows(rows), strict=True):
            values.setdefault(rows.products[code], []).append(value)
    return values


def expected_predictions(ticks: list[Tick], model_version: str) -> tuple[dict[str, list[bytes]], set[tuple[str, bool]]]:
    """The expected values of ``ticks.predictions``, by product, and the alerts as (id, whether it opens)."""
    artifact = Artifact.load(TEN_MODEL)
    feature_set = FeatureSet(artifact.metadata.windows)
    values: dict[str, list[bytes]] = {}
    alerts: set[tuple[str, bool]] = set()
    watch = StreamAlerts(artifact.threshold)
    for rows in replay_rows(ticks, feature_set):
        columns = [rows.column_names.index(name) for name in artifact.features]
        scores = artifact.probability(rows.values[:, columns])
        scores[~rows.is_warm] = np.nan
        weights = forecast_inputs(feature_set.names)
        past = rows.values[:, [rows.column_names.index(name) for name in weights]].tolist()
        volatilities = (
            expected_volatility(forecast_log_volatility(row, tuple(weights.values())), DEFAULT_BAND, 60)
            if warm
            else None
            for row, warm in zip(past, rows.is_warm.tolist(), strict=True)
        )
        scored_rows = zip(
            rows.product.tolist(), rows.timestamp.tolist(), format_times(rows.timestamp), rows.column("price").tolist(),
            scores.tolist(), strict=True,
        )  # fmt: skip
        for code, time, text, price, score in scored_rows:
            product, known = rows.products[code], None if np.isnan(score) else score
            volatility = next(volatilities)
            event = watch.update(product, time, known, price, simulated=False)
            if event is not None:
                alerts.add((event.id, event.is_open))
            prediction = StreamPrediction(
                product_id=product,
                timestamp=text,
                probability=known,
                prediction=None if known is None else int(known >= artifact.threshold),
                threshold=artifact.threshold,
                alert=event is not None and event.is_open,
                model_version=model_version,
                simulated=False,
                digest=feature_set.digest,
                spike=str(artifact.metadata.spike_definition),
                tau=None if known is None else artifact.metadata.tau,
                **volatility_fields(volatility),
            )
            values.setdefault(product, []).append(encode_prediction(prediction))
    return values, alerts
