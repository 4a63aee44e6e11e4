"""The same figures of parts of the rows: which market, which hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from volspike.evaluation.blocks import spike_events
from volspike.evaluation.bootstrap import RESAMPLES
from volspike.evaluation.comparison import PERSISTENCE, Comparison, compare
from volspike.evaluation.scored import Scored
from volspike.market import SECOND_NS

LEAST_EVENTS: Final = 5
"""With fewer separate spike events than this a part is counted but not judged."""

HOUR_NS: Final = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the rows; ``comparison`` is None where it holds fewer than ``LEAST_EVENTS`` spike events.

    An episode that reaches from one hour into the next is one in each: its rows are judged where they stand.
    """

    label: str
    rows: int
    spike_events: int
    comparison: Comparison | None


def per_product(
    scored: Scored,
    names: Sequence[str],
    *,
    baseline_name: str = PERSISTENCE,
    baseline_is_probability: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Part, ...]:
    """A part for each product; ``names`` by its code."""
    return tuple(
        _part(name, scored.only(scored.product == code), baseline_name, baseline_is_probability, resamples, seed)
        for code, name in enumerate(names)
    )


def per_hour(
    scored: Scored,
    *,
    baseline_name: str = PERSISTENCE,
    baseline_is_probability: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Part, ...]:
    """A part for each hour of the day, ``"00"`` to ``"23"`` UTC, all days together."""
    hours = scored.time // HOUR_NS % 24
    return tuple(
        _part(f"{hour:02d}", scored.only(hours == hour), baseline_name, baseline_is_probability, resamples, seed)
        for hour in range(24)
    )


def _part(
    label: str, scored: Scored, baseline_name: str, baseline_is_probability: bool, resamples: int, seed: int
) -> Part:
    events = spike_events(scored.time[scored.y == 1])
    comparison = None
    if events >= LEAST_EVENTS:
        comparison = compare(
            scored,
            baseline_name=baseline_name,
            baseline_is_probability=baseline_is_probability,
            resamples=resamples,
            seed=seed,
        )
    return Part(label=label, rows=len(scored), spike_events=events, comparison=comparison)
