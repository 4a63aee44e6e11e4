"""Gaps of a tape without a ledger: where nothing of a product was received for long."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from volspike.market import SECOND_NS, Cause, Gap, Ticks

LONGEST_SILENCE_S = 10.0
"""What a product may be silent; heartbeats are not on a tape, so a calm market looks like a loss there."""


def silences(parts: Iterable[Ticks], longest_s: float = LONGEST_SILENCE_S) -> list[Gap]:
    """The stretches longer than ``longest_s`` in which no tick of a product was received, by start.

    ``parts`` are ticks in the order of their receipt, in chunks; where the clock steps back no time has passed.
    """
    limit = int(longest_s * SECOND_NS)
    latest: dict[str, int] = {}
    gaps: list[Gap] = []
    for part in parts:
        for code, name in enumerate(part.products):
            received = part.received[part.product == code]
            if len(received) == 0:
                continue
            times = np.maximum.accumulate(np.concatenate([[latest.get(name, received[0])], received]))
            before = np.flatnonzero(np.diff(times) > limit)
            gaps.extend(_silence(name, int(times[row]), int(times[row + 1])) for row in before)
            latest[name] = int(times[-1])
    return sorted(gaps, key=lambda gap: (gap.start, gap.end))


def _silence(product_id: str, start: int, end: int) -> Gap:
    return Gap(
        start=start,
        end=end,
        products=(product_id,),
        cause=Cause.SILENCE,
        detail="derived from the tape",
    )
