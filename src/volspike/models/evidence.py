"""Limitations of a model: what its figures do not show, and what sets a market apart from those it was trained on.

``model_limitations`` are those of the model alone, ``market_limitations`` those of using it on given markets. Every
command, response and page that shows a model takes them from here. A limitation that ``is_blocking`` prevents a
promotion without ``--force``, automatic ones included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import numpy as np

from volspike.features.catalogue import LEADER, names_of
from volspike.market import Profile, format_time, parse_time
from volspike.market.product import SIMULATED_VENUE, split_product
from volspike.models.metadata import Figure, MarketFacts, Metadata

if TYPE_CHECKING:
    from volspike.datasets import Dataset

MOST_ALARM_SHARE: Final = 0.5
"""A threshold in alarm on a greater share of the test rows is degenerate; thresholds are chosen with the same limit."""

LEAST_SPIKE_EVENTS: Final = 5
"""With fewer separate spike events in the test rows no conclusion is drawn."""

STRATIFIED: Final = "stratified"
"""The split method whose test rows overlap the training rows in time."""

NOT_STATED: Final = "not stated"


class LimitationKind(StrEnum):
    """The kinds of limitations, as short labels."""

    NO_EVIDENCE = "NO EVIDENCE"
    DEGENERATE_THRESHOLD = "DEGENERATE THRESHOLD"
    SIMULATED = "SIMULATED"
    IN_SAMPLE = "IN SAMPLE"
    FEW_EVENTS = "few events"
    PRODUCT = "another product"
    VENUE = "another venue"
    NOT_STATED = "not stated"
    TICK_RATE = "tick rate"
    NO_LEADER = "NO LEADER"


_BLOCKING: Final = frozenset({LimitationKind.NO_EVIDENCE, LimitationKind.DEGENERATE_THRESHOLD})


class Limitation(msgspec.Struct, frozen=True):
    """A limitation with its explanation, without the model's name."""

    kind: LimitationKind
    reason: str

    @property
    def text(self) -> str:
        """Label and explanation in one line."""
        return f"{self.kind.value}: {self.reason}"

    @property
    def is_blocking(self) -> bool:
        """Whether a model with it is promoted only with ``--force``."""
        return self.kind in _BLOCKING


Limitations: TypeAlias = tuple[Limitation, ...]

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges of time, both ends included (ns UTC)."""


def model_limitations(metadata: Metadata) -> Limitations:
    """The limitations of a model wherever it is used, the most severe first."""
    return (
        *_split_limitations(metadata),
        *_threshold_limitations(metadata),
        *_event_limitations(metadata),
        *_statement_limitations(metadata),
    )


def blocking_limitations(metadata: Metadata) -> Limitations:
    """The limitations that prevent a promotion without ``--force``."""
    return tuple(limitation for limitation in model_limitations(metadata) if limitation.is_blocking)


def has_evidence(metadata: Metadata) -> bool:
    """Whether the model's figures are those of rows that its training could not have seen."""
    return metadata.split.method != STRATIFIED


def market_limitations(
    metadata: Metadata,
    markets: Sequence[MarketFacts],
    *,
    simulated: bool,
    profile: Profile | None = None,
    received: Collection[str] | None = None,
) -> Limitations:
    """The limitations of using the model on rows of these markets.

    A market without ``start`` and ``end`` is a live one, whose rows are later than any training data. ``profile`` is
    that of the rows, ``received`` the products whose ticks the rows are computed from; None if unknown.
    """
    return (
        *_leader_limitations(metadata, received),
        *_tick_limitations(metadata, profile),
        *_simulation_limitations(metadata, simulated),
        *_sample_limitations(metadata, markets, simulated),
        *_product_limitations(metadata, markets, simulated),
    )


def all_limitations(
    metadata: Metadata,
    markets: Sequence[MarketFacts],
    *,
    simulated: bool,
    profile: Profile | None = None,
    received: Collection[str] | None = None,
) -> Limitations:
    """The limitations of the model and those of using it on rows of these markets, as in ``market_limitations``."""
    of_markets = market_limitations(metadata, markets, simulated=simulated, profile=profile, received=received)
    return (*model_limitations(metadata), *of_markets)


def texts(limitations: Iterable[Limitation]) -> list[str]:
    """Each limitation in one line."""
    return [limitation.text for limitation in limitations]


def live_markets(products: Iterable[str], *, simulated: bool) -> tuple[MarketFacts, ...]:
    """The markets of products that are received live, without a time range."""
    named = (split_product(product) for product in products)
    return tuple(MarketFacts(venue=_venue(venue, simulated), product=product) for venue, product in named)


def dataset_markets(dataset: Dataset, venue: str | None = None) -> tuple[MarketFacts, ...]:
    """The markets of a data set's rows with their time ranges; ``venue`` is that of products whose name states none."""
    found = []
    for code, name in enumerate(dataset.products):
        time = dataset.time[dataset.product == code]
        if not len(time):
            continue
        stated, product = split_product(name) if venue is None else split_product(name, venue)
        span = {"start": format_time(int(np.min(time))), "end": format_time(int(np.max(time)))}
        found.append(MarketFacts(venue=_venue(stated, dataset.facts.simulated), product=product, **span))
    return tuple(found)


def _venue(venue: str, simulated: bool) -> str:
    return SIMULATED_VENUE if simulated else venue


def describe_training(metadata: Metadata) -> str:
    """Split method, served threshold, products and venues in one line.

    ``trained on BTC-USD at coinbase, split walk_forward, threshold best_f1 (0.4)``
    """
    requested = metadata.requested_threshold
    substitute = f", in place of {requested}" if requested not in ("", metadata.served_threshold) else ""
    venues = f"at {', '.join(metadata.venues)}" if metadata.venues else f"venue {NOT_STATED}"
    venues = "on a simulated market" if metadata.venues == (SIMULATED_VENUE,) else venues
    return (
        f"trained on {', '.join(metadata.products)} {venues}, split {metadata.split.method}, threshold "
        f"{metadata.served_threshold} ({metadata.threshold:.4g}){substitute}"
    )


def venues_text(metadata: Metadata) -> str:
    """The venues of the training data, for people."""
    return ", ".join(metadata.venues) or NOT_STATED


def _split_limitations(metadata: Metadata) -> Iterator[Limitation]:
    if not has_evidence(metadata):
        yield Limitation(
            LimitationKind.NO_EVIDENCE,
            "stratified split, its test rows overlap its training rows in time; use --split-method walk_forward",
        )


def _threshold_limitations(metadata: Metadata) -> Iterator[Limitation]:
    """A threshold in alarm on too many of the test rows, or never; of the final block where there is one."""
    named = f"{metadata.served_threshold} ({metadata.threshold:.4g})"
    if metadata.adaptation is None and metadata.threshold > 1.0:
        yield Limitation(LimitationKind.DEGENERATE_THRESHOLD, f"{named} is above 1, so that it never alerts")
        return
    figures = metadata.metrics.get("model_final") or metadata.metrics.get("model", {})
    events = metadata.metrics.get("model_events_final") or metadata.metrics.get("model_events", {})
    rows, spikes = figures.get("rows") or 0, (figures.get("tp") or 0) + (figures.get("fn") or 0)
    flagged = _flagged(figures)
    share = max(flagged / rows if rows and flagged is not None else 0.0, events.get("alarm_share") or 0.0)
    if share > MOST_ALARM_SHARE:
        yield Limitation(
            LimitationKind.DEGENERATE_THRESHOLD,
            f"{named} is in alarm on {share:.0%} of {rows:,} test rows, at most {MOST_ALARM_SHARE:.0%} is useful",
        )
    elif flagged == 0 and spikes:
        yield Limitation(
            LimitationKind.DEGENERATE_THRESHOLD,
            f"{named} never alerts on {rows:,} test rows, {spikes:,} of them spikes",
        )


def _flagged(figures: Mapping[str, Figure]) -> float | None:
    hits, false = figures.get("tp"), figures.get("fp")
    return None if hits is None or false is None else hits + false


def _event_limitations(metadata: Metadata) -> Iterator[Limitation]:
    events = metadata.metrics.get("model", {}).get("spike_events")
    if events is not None and events < LEAST_SPIKE_EVENTS:
        yield Limitation(
            LimitationKind.FEW_EVENTS,
            f"{events:g} separate spike event(s) in its test rows, a conclusion needs {LEAST_SPIKE_EVENTS}",
        )


def _statement_limitations(metadata: Metadata) -> Iterator[Limitation]:
    absent = {
        "the figures of its test rows": not metadata.metrics.get("model"),
        "the venues of its training data": not metadata.markets,
    }
    if missing := [name for name, is_absent in absent.items() if is_absent]:
        yield Limitation(LimitationKind.NOT_STATED, f"{' and '.join(missing)} (an artifact of an earlier version)")


def _leader_limitations(metadata: Metadata, received: Collection[str] | None) -> Iterator[Limitation]:
    used = [name for name in metadata.features if name in _OF_LEADER]
    if received is None or not used or metadata.leader in received:
        return
    effect = "" if metadata.accepts_missing else ", so that it gives no probability"
    yield Limitation(
        LimitationKind.NO_LEADER,
        f"no ticks of its leader {metadata.leader}: {', '.join(used)} are missing{effect}; receive {metadata.leader} "
        "as well",
    )


def _tick_limitations(metadata: Metadata, profile: Profile | None) -> Iterator[Limitation]:
    counting = () if profile is None else metadata.tick_counting_inputs(profile)
    if counting:
        trained, used = ("trades", "quotes") if metadata.source_profile is Profile.TRADE else ("quotes", "trades")
        yield Limitation(
            LimitationKind.TICK_RATE,
            f"trained on {trained} and used on {used}, which do not arrive at the same rate; {', '.join(counting)} "
            "count ticks and have another level here",
        )


_OF_LEADER: Final = frozenset(names_of(LEADER))


def _simulation_limitations(metadata: Metadata, simulated: bool) -> Iterator[Limitation]:
    if metadata.simulated != simulated:
        trained, used = ("a simulated", "a real") if metadata.simulated else ("a real", "a simulated")
        yield Limitation(LimitationKind.SIMULATED, f"trained on {trained} market and used on {used} one")


def _sample_limitations(metadata: Metadata, markets: Sequence[MarketFacts], simulated: bool) -> Iterator[Limitation]:
    if metadata.simulated != simulated:
        return
    overlapping = [market for market in markets if _is_in_sample(metadata, market)]
    if overlapping:
        named = ", ".join(dict.fromkeys(market.name for market in overlapping))
        yield Limitation(
            LimitationKind.IN_SAMPLE,
            f"rows of {named} lie within its training data, which end {metadata.data.end[:19]}Z, so that their "
            "figures are not out of sample",
        )


def _is_in_sample(metadata: Metadata, market: MarketFacts) -> bool:
    """Whether the market's rows overlap training rows of the same market, or product if no venue is stated."""
    if not market.start:
        return False
    first, last = parse_time(market.start), parse_time(market.end)
    return any(first <= end and last >= start for start, end in _spans(metadata, market.venue, market.product))


def training_spans(metadata: Metadata, product: str, *, simulated: bool) -> Spans:
    """Start and end (ns UTC) of each recording of a product, at the venue of its name, that the model learned from.

    None for a market of the other kind, simulated or real. If the metadata state no venue, products decide.
    """
    if metadata.simulated != simulated:
        return ()
    venue, name = split_product(product)
    return _spans(metadata, _venue(venue, simulated), name)


def _spans(metadata: Metadata, venue: str, product: str) -> Spans:
    data = metadata.data
    trained = metadata.markets or tuple(
        MarketFacts(venue=venue, product=split_product(name)[1]) for name in metadata.products
    )
    return tuple(
        (parse_time(market.start or data.start), parse_time(market.end or data.end))
        for market in trained
        if (market.venue, market.product) == (venue, product)
    )


def _product_limitations(metadata: Metadata, markets: Sequence[MarketFacts], simulated: bool) -> Iterator[Limitation]:
    known = {split_product(name)[1] for name in metadata.products}
    new = [market.product for market in markets if market.product not in known]
    if new:
        named = ", ".join(dict.fromkeys(new))
        yield Limitation(LimitationKind.PRODUCT, f"not trained on {named}, but on {', '.join(sorted(known))}")
    pairs = {(market.venue, market.product) for market in metadata.markets}
    if not pairs or metadata.simulated != simulated:
        return
    elsewhere = [
        market for market in markets if market.product in known and (market.venue, market.product) not in pairs
    ]
    if elsewhere:
        where = ", ".join(sorted({market.name for market in metadata.markets}))
        named = ", ".join(dict.fromkeys(market.name for market in elsewhere))
        yield Limitation(LimitationKind.VENUE, f"not trained on {named}, but on {where}")
