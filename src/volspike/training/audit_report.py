"""What an audit found, and what it means."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

from volspike.evaluation import Interval
from volspike.evaluation.bootstrap import LEAST_BLOCKS
from volspike.evaluation.metrics import known
from volspike.training.audit_request import PROTOCOLS, AuditRequest
from volspike.training.protocol_score import ProtocolScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Scores by (data, protocol), named as in ``WORLDS`` and ``PROTOCOLS``.

    ``rows`` and ``null_rows`` are those of the data and of the null market; of the data every ``step``-th second's.
    """

    request: AuditRequest
    rows: int
    step: int
    null_rows: int
    simulated: bool
    scores: dict[tuple[str, str], ProtocolScore]

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON has it: what is undefined is None."""
        return {
            "features": str(self.request.features),
            "model": self.request.model,
            "seed": self.request.seed,
            "label_percentile": self.request.label_percentile,
            "simulated": self.simulated,
            "rows": self.rows,
            "every_nth_second": self.step,
            "null_market_rows": self.null_rows,
            "scores": [
                {"data": data, "protocol": protocol, **_told(asdict(score))}
                for (data, protocol), score in self.scores.items()
            ],
            "sentences": list(self.sentences()),
        }

    def sentences(self) -> tuple[str, ...]:
        """What the figures say of each protocol."""
        return tuple(self._sentence(protocol) for protocol in PROTOCOLS)

    def _sentence(self, protocol: str) -> str:
        noise, turned, yours = (self.scores[data, protocol] for data in ("null market", "turned", "yours"))
        on_noise = (
            f"{protocol} scores {noise.pr_auc:.2f} on a market that nobody can foresee "
            f"(guessing: {_span(noise.guessing)})"
        )
        if isnan(noise.pr_auc) or isnan(yours.pr_auc):
            return f"{protocol} cannot be judged: its test rows are of one class only; record for longer"
        if noise.finds_something:
            return f"{on_noise}: {_leaking(yours, turned)}"
        return f"{on_noise}: it makes nothing of noise. {_honest(yours)}"


def _leaking(yours: ProtocolScore, turned: ProtocolScore) -> str:
    """What is left of a score of which a protocol makes most by itself."""
    made = min(turned.pr_auc, yours.pr_auc)
    return (
        f"it leaks. With your own labels turned round in time, so that features tell nothing of them, it scores "
        f"{turned.pr_auc:.2f}: of the {yours.pr_auc:.2f} that it gives your data {made:.2f} is the protocol, and the "
        f"other {yours.pr_auc - made:.2f} cannot be told from it."
    )


def _honest(yours: ProtocolScore) -> str:
    """What a score says that a protocol does not make by itself."""
    guessing = f"guessing reaches there ({_span(yours.guessing)})"
    few = f" {yours.spike_events} event(s) are too few to tell." if yours.spike_events < LEAST_BLOCKS else ""
    if not yours.finds_something:
        return f"The {yours.pr_auc:.2f} that it gives your data is no more than {guessing}: no foresight is shown.{few}"
    return (
        f"The {yours.pr_auc:.2f} (95 % {_span(yours.interval)}) that it gives your data is more than {guessing}: "
        f"foresight, on days like these; the last minute's volatility alone scores {yours.persistence:.2f}.{few}"
    )


def _span(interval: Interval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}"


def _told(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: _told(value) if isinstance(value, dict) else known(value) for name, value in figures.items()}
