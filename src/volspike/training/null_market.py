"""A null market: independent returns through the feature kernel, so that nothing is predictable.

One-second returns are drawn with replacement from a real recording: they keep their sizes and heavy tails, but not
their order. Quotes, sizes, sides and tick times are drawn independently as well. Any score above chance on this market
comes from the evaluation protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volspike.datasets import Dataset, FeatureFacts
from volspike.datasets.build import row_second
from volspike.datasets.dataset import PERSISTENCE, SESSION_GAP_NS, numbers
from volspike.datasets.feature_file import open_feature_file
from volspike.errors import NotEnoughData
from volspike.features import Every, FeatureEngine, FeatureRows
from volspike.labels import HORIZON_S, LevelThreshold, SpikeDefinition, SpikeKind, future_volatility
from volspike.market import SECOND_NS, Kind, Profile, Ticks

PRICE: Final = 100.0
HALF_SPREAD: Final = 1e-5
CHUNK_S: Final = 3600


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NullMarket:
    """``seconds`` from ``start`` (Unix second), returns drawn from ``returns``, ``ticks_per_second`` ticks."""

    returns: NDArray[np.float64]
    seconds: int
    ticks_per_second: float
    start: int
    seed: int = 0


def one_second_returns(path: Path, facts: FeatureFacts) -> NDArray[np.float64]:
    """The one-second log returns of all sessions in a feature file; a second without a tick returned 0.

    Raises:
        NotEnoughData: no session has two seconds.
    """
    with open_feature_file(path) as file:
        has_sessions = "session_id" in file.schema_arrow.names
        table = file.read(["timestamp", "product_id", "price", *(["session_id"] if has_sessions else [])])
    second = row_second(numbers(table, "timestamp").astype(np.int64), facts.every)
    session = numbers(table, "session_id").astype(np.int64) if has_sessions else np.zeros(len(second), np.int64)
    product = np.unique(np.asarray(table["product_id"].cast(pa.string())), return_inverse=True)[1]
    order = np.lexsort((second, session, product))
    second, price = second[order], numbers(table, "price")[order]
    starts = np.diff(second, prepend=second[:1]) > SESSION_GAP_NS // SECOND_NS
    for name in (session, product):
        starts |= np.diff(name[order], prepend=name[order][:1]) != 0
    segments = np.split(np.arange(len(second)), np.flatnonzero(starts))
    parts = [_returns(second[rows], price[rows]) for rows in segments if len(rows)] or [np.empty(0)]
    returns = np.concatenate(parts)
    if len(returns) == 0:
        raise NotEnoughData(f"{path}: no session has two seconds: record for longer")
    return returns


def _returns(second: NDArray[np.int64], price: NDArray[np.float64]) -> NDArray[np.float64]:
    every = np.arange(second[0], second[-1] + 1)
    return np.asarray(np.diff(np.log(price[np.searchsorted(second, every, side="right") - 1])))


def null_dataset(
    facts: FeatureFacts, market: NullMarket, most_rows: int, spike: SpikeDefinition | None = None
) -> Dataset:
    """The warm and labelled rows of a null market with the features, profile and row spacing of ``facts``.

    Of more than ``most_rows`` rows every k-th second's are kept. They have τ if ``spike`` derives it from outcomes
    (``level``); that of ``jump`` is derived from a feature.
    """
    engine = FeatureEngine(facts.feature_set, facts.profile, facts.every)
    rng = np.random.default_rng([market.seed, 1])
    closing = PRICE * np.exp(np.cumsum(rng.choice(market.returns, market.seconds)))
    rate = 1.0 if facts.every is Every.SECOND else market.ticks_per_second
    step = ceil(market.seconds * rate / most_rows)
    product = facts.leader or "NULL"
    tape = _generate_ticks(market, closing, facts.profile, product, rng)
    parts = [_thin_rows(rows, facts.every, step) for rows in engine.run_all(tape)]
    time, session, x = (np.concatenate(column) for column in zip(*parts, strict=True))
    future = future_volatility(closing, HORIZON_S)
    place = row_second(time, facts.every) - market.start
    volatility = future[place]
    level = spike if spike is not None and spike.kind is SpikeKind.LEVEL else None
    tau = np.full(len(place), np.nan)
    if level is not None:
        tau = LevelThreshold(level.value).taus(market.start + np.arange(len(future)), future)[place]
    known = np.isfinite(volatility)
    names = facts.feature_set.names
    persistence = x[known, names.index(PERSISTENCE)] if PERSISTENCE in names else np.full(known.sum(), np.nan)
    return Dataset(
        facts=msgspec.structs.replace(facts, simulated=True, losses=(), spike=None if level is None else str(level)),
        products=(product,),
        time=time[known],
        product=np.zeros(known.sum(), np.int32),
        session=session[known],
        names=names,
        x=x[known],
        future_volatility=volatility[known],
        tau=tau[known],
        persistence=persistence,
    )


def _thin_rows(
    rows: FeatureRows, every: Every, step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    kept = rows.is_warm & (row_second(rows.timestamp, every) % step == 0)
    return rows.timestamp[kept], rows.session_id[kept], rows.features[kept]


def _generate_ticks(
    market: NullMarket, closing: NDArray[np.float64], profile: Profile, product: str, rng: np.random.Generator
) -> Iterator[Ticks]:
    """The market's ticks hour by hour; every second has a tick and ends at its ``closing`` price."""
    opening = np.append(PRICE, closing[:-1])
    for first in range(0, market.seconds, CHUNK_S):
        beyond = min(first + CHUNK_S, market.seconds)
        count = 1 + rng.poisson(max(market.ticks_per_second - 1.0, 0.0), beyond - first)
        second = np.repeat(np.arange(first, beyond), count)
        place = np.arange(1, len(second) + 1) - np.repeat(np.cumsum(count) - count, count)
        price = opening[second] * (closing[second] / opening[second]) ** (place / count[second - first])
        moment = np.sort(second + rng.random(len(second)))
        ticks = _ticks(product, (market.start + second) * SECOND_NS + _fraction_ns(moment - second), price, rng)
        yield _with_profile(ticks, profile)


def _fraction_ns(fraction: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip((fraction * SECOND_NS).astype(np.int64), 0, SECOND_NS - 1)


def _ticks(product: str, time: NDArray[np.int64], price: NDArray[np.float64], rng: np.random.Generator) -> Ticks:
    n = len(time)
    half = HALF_SPREAD * rng.lognormal(0.0, 0.5, n)
    sizes = rng.lognormal(0.0, 1.0, (3, n))
    number = time  # ascending; a duplicate is unlikely and costs one tick
    return Ticks(
        products=(product,),
        time=time,
        received=time,
        kind=np.full(n, Kind.TICKER, np.int8),
        product=np.zeros(n, np.int32),
        price=price,
        best_bid=price * (1.0 - half),
        best_ask=price * (1.0 + half),
        bid_size=sizes[0],
        ask_size=sizes[1],
        last_size=sizes[2],
        side=rng.choice(np.array([-1, 1], np.int8), n),
        trade_id=number,
        sequence=number,
    )


def _with_profile(ticks: Ticks, profile: Profile) -> Ticks:
    """The ticks as the message kinds that a source of this profile sends."""
    if profile is Profile.TICKER:
        return ticks
    columns = dict(ticks.columns()) | {"kind": np.full(len(ticks), Kind.TRADE, np.int8)}
    trades = Ticks(ticks.products, **columns)
    if profile is Profile.TRADE:
        return trades
    both = Ticks.join([ticks, trades])
    return both[np.argsort(both.time, kind="stable")]
