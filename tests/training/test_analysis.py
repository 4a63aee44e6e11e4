"""A feature analysis recommends predictive features without redundant ones, and never uses the final block."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.training.conftest import MakeDataset

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.training.analysis import (
    CSV_COLUMNS,
    AnalysisRequest,
    FeatureAnalysis,
    analyze_dataset,
    plot_correlation,
    write_analysis,
)

REQUEST = AnalysisRequest(features=Path("features.parquet"), model="logistic", repeats=2)
PREDICTIVE = "realized_volatility_60s"


def analyzed(dataset: Dataset, request: AnalysisRequest = REQUEST) -> FeatureAnalysis:
    return analyze_dataset(dataset, request, lambda step: None)


@pytest.fixture(scope="module")
def with_copy(make_dataset: MakeDataset) -> Dataset:
    """A market with two redundant predictive columns, one empty column, and noise."""
    market = make_dataset(9000, skill=1.0)
    x = market.x.copy()
    x[:, market.names.index("spread_mean_60s")] = np.random.default_rng(5).normal(size=len(market))
    x[:, market.names.index("realized_volatility_300s")] = 2.0 * market.persistence
    x[:, market.names.index("volume_velocity_60s")] = np.nan
    return replace(market, x=x)


@pytest.fixture(scope="module")
def analysis(with_copy: Dataset) -> FeatureAnalysis:
    return analyzed(with_copy)


def test_predictive_feature_is_recommended_once(analysis: FeatureAnalysis) -> None:
    """Of two redundant columns one is recommended, first, and its loss is far above that of noise."""
    both = {PREDICTIVE, "realized_volatility_300s"}
    assert analysis.recommended[0] in both
    assert len(both & set(analysis.recommended)) == 1
    first = next(feature for feature in analysis.features if feature.name == PREDICTIVE)
    assert first.group == 0
    assert first.together.is_significant
    assert first.together.mean > 5 * max(f.together.mean for f in analysis.features if f.name not in both)


def test_empty_column_is_not_used(analysis: FeatureAnalysis) -> None:
    """The importance of an empty column is NaN, not 0."""
    empty = next(feature for feature in analysis.features if feature.name == "volume_velocity_60s")
    assert not empty.is_used
    assert np.isnan([empty.own, empty.alone.mean]).all()
    assert empty.name not in analysis.recommended


def test_final_block_is_not_used(with_copy: Dataset, analysis: FeatureAnalysis) -> None:
    """Whatever the final block holds, metrics, correlations and recommendations are unchanged."""
    x, future = with_copy.x.copy(), with_copy.future_volatility.copy()
    x[-850:] = -x[-850:]
    future[-850:] *= 100.0
    other = analyzed(replace(with_copy, x=x, future_volatility=future))
    assert str(other.features) == str(analysis.features)
    assert other.recommended == analysis.recommended
    np.testing.assert_array_equal(other.correlation, analysis.correlation)
    assert other.pr_auc == analysis.pr_auc


def test_noise_recommends_few_features(make_dataset: MakeDataset) -> None:
    """On noise the recommendation is a single feature with a warning, or a few of twenty-one by chance."""
    found = analyzed(make_dataset(9000, skill=0.0))
    assert 1 <= len(found.recommended) <= 4
    assert abs(found.pr_auc - found.base_rate) < 0.05


def test_files_hold_what_was_found(analysis: FeatureAnalysis, tmp_path: Path) -> None:
    """Two plots that open, a table line per feature, and names that --columns accepts as they are."""
    files = write_analysis(analysis, tmp_path / "feature_analysis")
    assert {file.name for file in files} == {file.name for file in (tmp_path / "feature_analysis").iterdir()}
    assert (tmp_path / "feature_analysis/recommended_features.txt").read_text().split() == list(analysis.recommended)
    with (tmp_path / "feature_analysis/feature_importance.csv").open() as text:
        lines = list(csv.DictReader(text))
    assert tuple(lines[0]) == CSV_COLUMNS
    assert {line["feature"] for line in lines} == {feature.name for feature in analysis.features}
    assert {line["feature"] for line in lines if line["recommended"] == "1"} == set(analysis.recommended)
    assert next(line for line in lines if line["feature"] == "volume_velocity_60s")["pr_auc_lost_alone"] == ""
    for name in ("feature_importance.png", "correlation_heatmap.png"):
        with Image.open(tmp_path / "feature_analysis" / name) as picture:
            assert picture.format == "PNG"


def test_a_heatmap_grows_with_its_columns(analysis: FeatureAnalysis) -> None:
    """With two hundred features each cell has at least ten pixels."""
    count = 200
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (count, count))
    correlation = (noise + noise.T) / 2 + np.eye(count)
    features = tuple(replace(analysis.features[0], name=f"feature_number_{place}s") for place in range(count))
    wide = replace(analysis, features=features, correlation=np.clip(correlation, -1, 1))
    with Image.open(BytesIO(plot_correlation(wide))) as picture:
        width, height = picture.size
    assert min(width, height) > 10 * count


def test_single_class_is_refused(make_dataset: MakeDataset) -> None:
    """If no held-out row is a spike, the analysis fails with an error that says so."""
    market = make_dataset(9000, skill=1.0)
    future = market.future_volatility.copy()
    future[4000:] = 1e-7
    with pytest.raises(NotEnoughData, match="spikes and calm"):
        analyzed(replace(market, future_volatility=future))


@pytest.mark.parametrize("request_", [replace(REQUEST, model="lgbm"), replace(REQUEST, repeats=0)])
def test_invalid_options_are_refused(request_: AnalysisRequest, with_copy: Dataset) -> None:
    """An unknown model or no repeats are refused with the valid values."""
    with pytest.raises(UsageError, match="--repeats must be at least 1 and --model one of baseline"):
        analyzed(with_copy, request_)
