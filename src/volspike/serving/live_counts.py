"""What a live pipeline counts of its own doings: plain numbers, a fraction of a microsecond each."""

from __future__ import annotations

import time
from typing import Final

from volspike.episodes import Episode
from volspike.market import SECOND_NS, Cause, Gap
from volspike.serving.metrics_live import FEED_LATENCY, SCORE_LATENCY, SCORE_PROBABILITY
from volspike.serving.scoring import ScoredRow
from volspike.telemetry import OTHER, Distribution

MOST_PRODUCTS: Final = 64
"""How many products are counted apart; a tape may hold any number."""


class ProductCounts:
    """One product's counts; ``row_at`` is when its newest row was made, by the clock of ``time.perf_counter_ns``."""

    __slots__ = ("episodes", "is_alert_open", "newest", "row_at", "rows", "spikes", "ticks")

    def __init__(self) -> None:
        self.ticks = 0
        self.rows = 0
        self.newest: ScoredRow | None = None
        self.row_at = 0
        self.episodes = 0
        self.is_alert_open = False
        self.spikes = 0


class LiveCounts:
    """The counts of one pipeline since its start; products beyond the first ``MOST_PRODUCTS`` are one, ``other``."""

    def __init__(self) -> None:
        self.products: dict[str, ProductCounts] = {}
        self.latency = Distribution(FEED_LATENCY, per_unit=SECOND_NS)
        self.scoring = Distribution(SCORE_LATENCY, per_unit=SECOND_NS)
        self.probability = Distribution(SCORE_PROBABILITY)
        self.gaps = dict.fromkeys(Cause, 0)
        self.gap_ns = dict.fromkeys(Cause, 0)
        self.lost = 0
        self.heard_at = time.perf_counter_ns()
        """When the last frame was taken, by the clock of ``time.perf_counter_ns``; at first, the start."""

    def of(self, product: str) -> ProductCounts:
        """The counts of a product."""
        counts = self.products.get(product)
        if counts is None:
            label = product if len(self.products) < MOST_PRODUCTS else OTHER
            counts = self.products.setdefault(label, ProductCounts())
        return counts

    def row(self, scored: ScoredRow, at: int) -> None:
        """One more row, made at ``at``."""
        counts = self.of(scored.row.product_id)
        counts.rows += 1
        counts.newest, counts.row_at = scored, at
        if scored.probability == scored.probability:
            self.probability.observe(scored.probability)

    def episode(self, episode: Episode) -> None:
        """An alert episode opened or closed."""
        counts = self.of(episode.product)
        counts.episodes += episode.is_open
        counts.is_alert_open = episode.is_open

    def gap(self, gap: Gap) -> None:
        """Something was lost."""
        self.gaps[gap.cause] += 1
        self.gap_ns[gap.cause] += gap.end - gap.start
        self.lost += max(0, gap.lost)
