"""The state of a live pipeline for pages and ``/health``: connection, products, alerts, and the past.

Open pages are updated by the clock: rows four times per second, health every second, the list of markets every two.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from volspike.api.schema import ReplayState, SessionState, SourceState
from volspike.background import BackgroundTask, Periodic
from volspike.errors import UsageError
from volspike.live.bars import DAY_S
from volspike.live.history import HistoryRange, gap_spans, read_history
from volspike.live.metrics import percentiles
from volspike.live.pipeline import LivePipeline
from volspike.market import SECOND_NS
from volspike.market.time import MILLISECOND_NS
from volspike.models import Artifact
from volspike.models.evidence import has_evidence, texts
from volspike.monitoring.performance import ServedModel

ROWS_EVERY_S: Final = 0.25
HEALTH_EVERY_S: Final = 1.0
MARKETS_EVERY_S: Final = 2.0
DAY_NS: Final = DAY_S * SECOND_NS


class Dashboard:
    """The state of a pipeline, and its updates of open pages.

    ``periodic`` are the tasks that update open pages; add them to those of the pipeline.
    """

    def __init__(self, live: LivePipeline) -> None:
        self.live, self.products = live, live.products
        self.periodic = [
            Periodic(BackgroundTask("rows"), self._publish_rows, ROWS_EVERY_S),
            Periodic(BackgroundTask("health"), self._publish_health, HEALTH_EVERY_S),
            Periodic(BackgroundTask("markets"), self._publish_markets, MARKETS_EVERY_S),
        ]

    def health(self) -> dict[str, Any]:
        """Connection, latency, losses and recording, for the dashboard."""
        counts, recorder = self.live.counts, self.live.recorder
        return {
            "is_connected": counts.is_connected,
            "reason": counts.reason,
            "sessions": counts.sessions_state(),
            "source": self.live.source,
            "mode": self.live.mode,
            "simulated": self.live.mode.is_simulated,
            "replay": None if self.live.replay is None else self.live.replay.progress(),
            "latency_ms": percentiles(counts.recent_latency_ns, MILLISECOND_NS),
            "score_us": percentiles(counts.recent_scoring_ns, 1000),
            "frames": counts.frames,
            "ticks": counts.ticks,
            "malformed": counts.malformed,
            "gaps": sum(counts.gaps.values()),
            "unverifiable": sorted(counts.unverifiable),
            "reconnects": counts.reconnects,
            "refused_products": self._refused_products(),
            "last_received": counts.last_received // MILLISECOND_NS or None,
            "is_recording": recorder is not None and recorder.is_recording,
            "recorder_fault": None if recorder is None else recorder.fault or None,
            "outcomes_fault": None if self.live.outcomes is None else self.live.outcomes.fault,
            "disk_free_bytes": None if self.live.upkeep is None else self.live.upkeep.free_bytes,
            "started": counts.started // MILLISECOND_NS,
        }

    def state(self) -> SourceState:
        """The source and its products, for ``/health``."""
        replay = None if self.live.replay is None else ReplayState(**self.live.replay.progress())
        return SourceState(
            name=self.live.source,
            mode=self.live.mode,
            simulated=self.live.mode.is_simulated,
            replay=replay,
            products=[product.state() for product in self.products.values()],
            disk_free_bytes=None if self.live.upkeep is None else self.live.upkeep.free_bytes,
            refused_products=self._refused_products(),
            sessions=[SessionState(**each) for each in self.live.counts.sessions_state()],
        )

    def _refused_products(self) -> list[str]:
        return [] if self.live.counts.stats is None else list(self.live.counts.stats().refused)

    def snapshot(self, product: str | None) -> dict[str, Any]:
        """Everything that a page needs to show ``product`` (None: the first) at once.

        Raises:
            UsageError: unknown product.
        """
        name = next(iter(self.products)) if product is None else product
        if name not in self.products:
            raise UsageError(f"unknown product {name!r}; available: {', '.join(self.products)}")
        view, artifact = self.products[name].view, self.live.scorer.artifact
        return {
            "source": self.live.source,
            "mode": self.live.mode,
            "simulated": self.live.mode.is_simulated,
            "products": list(self.products),
            "product": name,
            "model": model_summary(artifact, name)
            | {"limitations": texts(self.live.limitations(artifact.metadata, [name]))},
            "warm_up": msgspec.to_builtins(view.warm_up()),
            "points": view.history(),
            "alerts": self.live.alerts.entries(),
            "counts": self.live.alerts.counts(name),
            "spikes": list(view.spikes),
            "markets": self.markets(),
            "explanation": view.explanation.fields(name, self.live.alerts.horizon_s),
            "health": self.health(),
            "performance": self.live.counts.performance,
            "snoozes": self.snoozes(),
        }

    def markets(self) -> list[dict[str, Any]]:
        """A row for each product, for the list of markets."""
        now, rows = time.perf_counter_ns(), []
        for name, product in self.products.items():
            is_timed = self.live.is_timed and product.last is not None
            newest = 0 if product.last is None else product.last.row.timestamp
            rows.append(
                product.view.overview(
                    is_alert=product.rule.episodes.current is not None,
                    age_s=(now - product.row_at) / SECOND_NS if is_timed else 0.0,
                    alerts=self.live.alerts.opened_since(name, newest - newest % DAY_NS),
                    snoozed_until=self.live.router.rules.snoozed_until(name),
                )
            )
        return rows

    async def history(self, product: str, query: Mapping[str, str]) -> dict[str, Any]:
        """The bars of a range of a product, and the alerts, spikes and gaps in it.

        Raises:
            LookupError: unknown product.
            UsageError: a value in the query that is not valid.
        """
        if product not in self.products:
            raise LookupError(f"unknown product {product!r}; available: {', '.join(self.products)}")
        view = self.products[product].view
        wanted = HistoryRange.of(query, view.newest_ms() or time.time_ns() // MILLISECOND_NS)
        answer = await read_history(product, wanted, view.bars, tuple(view.spike_rows), self.live.stored)
        alerts = self.live.alerts.entries(product, answer.alerts)
        alerts = [each for each in alerts if wanted.overlaps(each["opened"], each["closed"])]
        gaps = gap_spans([*view.gaps, *answer.gaps], product, wanted)
        return answer.fields() | {"alerts": alerts, "gaps": gaps}

    def snoozes(self) -> list[dict[str, Any]]:
        """The present snoozes."""
        snoozes: list[dict[str, Any]] = msgspec.to_builtins(self.live.router.rules.snoozes())
        return snoozes

    def publish_snoozes(self) -> None:
        """Send the present snoozes to the readers of the event stream."""
        self.live.publish("snooze", {"snoozes": self.snoozes()})

    async def _publish_rows(self) -> None:
        for name, product in self.products.items():
            point = product.view.take_unpublished() if self.live.publisher.is_wanted("tick", name) else None
            if point is not None:
                self.live.publish("tick", point)

    async def _publish_markets(self) -> None:
        if self.live.publisher.readers:
            self.live.publish("markets", {"markets": self.markets()})
            for name, product in self.products.items():
                if self.live.publisher.is_wanted("explanation", name):
                    self.live.publish("explanation", product.view.explanation.fields(name, self.live.alerts.horizon_s))

    async def _publish_health(self) -> None:
        self.live.publish("health", self.health())
        if self.live.is_behind and self.live.counts.is_in_real_time:
            self.live.is_behind = False
            self.live.publisher.refresh()  # pages miss most of the past, as they get at most four rows per second
        self.live.check_tape()


def model_summary(artifact: Artifact, product: str) -> dict[str, Any]:
    """The model that scores ``product``, for the dashboard."""
    metadata = artifact.metadata
    return {
        "name": metadata.model,
        "version": ServedModel.of(metadata, simulated=False).digest,
        "threshold": metadata.threshold,
        "threshold_name": metadata.served_threshold,
        "profile": metadata.profile,
        "every": metadata.every,
        "tau": metadata.tau,
        "spike": str(metadata.spike_definition),
        "spike_text": metadata.spike_definition.describe(),
        "horizon_s": metadata.horizon_s,
        "horizons": list(artifact.horizons),
        "learns": artifact.holds_budget,
        "is_product_in_training": product in metadata.products,
        "split_method": metadata.split.method,
        "has_evidence": has_evidence(metadata),
        "products": list(metadata.products),
        "venues": list(metadata.venues),
        "trained_from": metadata.data.start,
        "trained_until": metadata.data.end,
        "simulated": metadata.simulated,
        "metrics": metadata.metrics,
        "baseline": metadata.baseline,
    }
