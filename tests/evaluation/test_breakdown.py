"""Parts are evaluated like all rows if they contain enough events."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.markets import START, market
from volspike.evaluation import evaluate_scores, per_hour, per_product


def test_products_are_judged_alone() -> None:
    """Each product's metrics are those of its rows; a product with few rows is counted, not evaluated."""
    scored = market(20_000, products=3)
    kept = scored.only((scored.product < 2) | (scored.time < START + 600_000_000_000))
    parts = per_product(kept, ["ADA-USD", "BTC-USD", "ETH-USD"], resamples=20)
    assert [part.label for part in parts] == ["ADA-USD", "BTC-USD", "ETH-USD"]
    for code, part in enumerate(parts[:2]):
        rows = scored.product == code
        assert part.comparison is not None
        assert part.comparison.model == pytest.approx(evaluate_scores(scored.y[rows], scored.probability[rows], 0.3))
    assert parts[2].rows == 600
    assert parts[2].comparison is None


def test_hours_are_those_of_utc() -> None:
    """A row belongs to the hour of its time, all days together, and every hour of the day has its part."""
    scored = market(20_000, step_s=20.0)
    parts = per_hour(scored, resamples=10)
    assert [part.label for part in parts] == [f"{hour:02d}" for hour in range(24)]
    hours = np.array(scored.time, "datetime64[ns]").astype("datetime64[h]").astype(int) % 24
    assert [part.rows for part in parts] == np.bincount(hours, minlength=24).tolist()
    for hour, part in enumerate(parts):
        assert (part.comparison is None) == (part.spike_events < 5)
        if part.comparison is not None:
            assert part.comparison.model.base_rate == pytest.approx(scored.y[hours == hour].mean())
