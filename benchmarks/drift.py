"""False alarms and detections of the drift test on simulated markets: ``python -m benchmarks.drift``.

The markets have stationary stochastic volatility with a known memory (an AR(1) in the logarithm, started in its
stationary distribution), and returns, spreads and an imbalance that depend on it. The reference is the common method:
a Kolmogorov-Smirnov test per feature that treats rows as independent; the data set has drifted if more than half of
the p-values are below 0.05.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import ks_2samp
from tests.monitoring.markets import halves, stochastic_volatility

from benchmarks.figures import Figure
from volspike.monitoring.drift import check_drift

MARKETS: tuple[tuple[float, float], ...] = (
    (6.0, 300.0), (12.0, 600.0), (24.0, 900.0), (48.0, 900.0), (48.0, 3600.0), (168.0, 3600.0), (24.0, 7200.0)
)  # fmt: skip
"""Duration of a market in hours, and the memory of its volatility in seconds."""

CHANGES = (1.0, 1.5, 2.0)
SEEDS = 100
PERMUTATIONS = 499


def rates(hours: float, memory_s: float, scale: float, seeds: int) -> dict[str, float]:
    """Shares of ``seeds`` markets: drifted, any feature drifted, unknown, drifted by the naive test, tested."""
    counts = dict.fromkeys(("alarm", "any", "untold", "naive", "judged"), 0.0)
    for seed in range(seeds):
        early, late = halves(
            stochastic_volatility(hours, memory_s, seed, step_s=20 if hours < 100 else 60), scale=scale
        )
        found = check_drift(early, late, permutations=PERMUTATIONS)
        counts["alarm"] += found.is_drifted
        counts["any"] += any(feature.severity.is_drift for feature in found.features)
        counts["untold"] += found.severity is None
        counts["judged"] += found.tested / len(found.features)
        p_values = [ks_2samp(early.x[:, at], late.x[:, at]).pvalue for at in range(len(early.names))]
        counts["naive"] += float(np.mean(np.array(p_values) <= 0.05)) > 0.5
    return {name: count / seeds for name, count in counts.items()}


HEADS = (
    "hours",
    "memory",
    "scale",
    "data set drifted",
    "any feature drifted",
    "unknown",
    "features tested",
    "naive test",
)


def lines(seeds: int) -> Iterator[str]:
    """A Markdown table over all markets and changes, line by line."""
    yield row(HEADS)
    yield row(("---",) * len(HEADS))
    for hours, memory_s in MARKETS:
        for scale in CHANGES:
            found = rates(hours, memory_s, scale, seeds)
            shown = [f"{found[name]:.0%}" for name in ("alarm", "any", "untold", "judged", "naive")]
            yield row((f"{hours:g}", f"{memory_s / 60:g} min", f"{scale:g}", *shown))


def row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> list[Figure]:
    """Two representative rows of the table: no change, and doubled volatility."""
    calm, doubled = (rates(48.0, 900.0, scale, 60) for scale in (1.0, 2.0))
    return [
        Figure(
            "drift reported between two halves of one stationary market",
            f"{calm['alarm']:.1%}", "≤ 5 %", calm["alarm"] <= 0.05, f"naive KS test: {calm['naive']:.1%}",
        ),
        Figure(
            "drift reported after volatility doubled",
            f"{doubled['alarm']:.1%}", "≥ 80 %", doubled["alarm"] >= 0.8, f"naive KS test: {doubled['naive']:.1%}",
        ),
    ]  # fmt: skip


def run(arguments: Sequence[str]) -> None:
    """Print the complete table."""
    for line in lines(int(arguments[0]) if arguments else SEEDS):
        print(line, flush=True)


if __name__ == "__main__":
    run(sys.argv[1:])
