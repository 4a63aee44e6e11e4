"""Metrics made from their declarations."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from tests.metrics import EVERY
from volspike.telemetry import LABELS, Distribution, MetricSpec

SPEED = MetricSpec("speed_seconds", "histogram", "seconds", "How fast.", buckets=(0.1, 1.0, 2.5))


def samples(metric: Metric) -> dict[tuple[str, ...], float]:
    """Name and label values of each sample, without when it was created."""
    told = {(each.name, *each.labels.values()): each.value for each in metric.samples}
    return {key: value for key, value in told.items() if not key[0].endswith("_created")}


@given(st.lists(st.floats(-10, 10)))
def test_a_distribution_is_the_histogram_of_the_library(values: list[float]) -> None:
    """Values on a bound, below the first and beyond the last are counted where the library counts them."""
    registry = CollectorRegistry()
    histogram, ours = SPEED.histogram(registry), Distribution(SPEED, per_unit=1000)
    for value in (*values, 0.1, 1.0, 2.5):
        histogram.observe(value)
        ours.observe(value * 1000)
    (theirs,) = registry.collect()
    assert samples(ours.family()).keys() == samples(theirs).keys()
    assert samples(ours.family()) == pytest.approx(samples(theirs))
    assert ours.count == len(values) + 3


def test_a_family_has_the_samples_that_it_is_given() -> None:
    """A counter's samples end in _total, and without samples a metric is declared and has no value."""
    drinks = MetricSpec("drinks_total", "counter", "cups", "Drinks.", ("kind",))
    assert samples(drinks.family([(("tea",), 2), (("coffee",), inf)])) == {
        ("drinks_total", "tea"): 2,
        ("drinks_total", "coffee"): inf,
    }
    assert drinks.family([]).samples == []
    assert samples(MetricSpec("warmth", "gauge", "K", "Warmth.").single(3)) == {("warmth",): 3}


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_declarations_keep_the_conventions(metric: MetricSpec) -> None:
    """Names end as Prometheus wants them, each has a unit and a sentence, and each label is bounded by something."""
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)
    assert metric.unit
    assert metric.meaning.endswith(".")
    assert set(metric.labels) <= LABELS.keys()


def test_names_are_told_once() -> None:
    """No two metrics have one name."""
    assert len({metric.name for metric in EVERY}) == len(EVERY)
