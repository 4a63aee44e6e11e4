"""A feature analysis names what foresees, once, and never looks at the final block."""

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
TELLING = "realized_volatility_60s"


def analyzed(dataset: Dataset, request: AnalysisRequest = REQUEST) -> FeatureAnalysis:
    return analyze_dataset(dataset, request, lambda step: None)


@pytest.fixture(scope="module")
def with_copy(make_dataset: MakeDataset) -> Dataset:
    """A market in which two columns say the same of the next minute, one tells nothing ever, and the rest are noise."""
    market = make_dataset(9000, skill=1.0)
    x = market.x.copy()
    x[:, market.names.index("spread_mean_60s")] = np.random.default_rng(5).normal(size=len(market))
    x[:, market.names.index("realized_volatility_300s")] = 2.0 * market.persistence
    x[:, market.names.index("volume_velocity_60s")] = np.nan
    return replace(market, x=x)


@pytest.fixture(scope="module")
def analysis(with_copy: Dataset) -> FeatureAnalysis:
    return analyzed(with_copy)


def test_what_foresees_is_recommended_once(analysis: FeatureAnalysis) -> None:
    """Of two columns that say the same one is taken, first; noise is not among those with a great loss."""
    both = {TELLING, "realized_volatility_300s"}
    assert analysis.recommended[0] in both
    assert len(both & set(analysis.recommended)) == 1
    first = next(feature for feature in analysis.features if feature.name == TELLING)
    assert first.group == 0
    assert first.together.is_significant
    assert first.together.mean > 5 * max(f.together.mean for f in analysis.features if f.name not in both)


def test_what_no_row_tells_is_not_taken(analysis: FeatureAnalysis) -> None:
    """A column without values has no importance rather than none at all: NaN, never 0."""
    untold = next(feature for feature in analysis.features if feature.name == "volume_velocity_60s")
    assert not untold.is_used
    assert np.isnan([untold.own, untold.alone.mean]).all()
    assert untold.name not in analysis.recommended


def test_the_final_block_is_not_looked_at(with_copy: Dataset, analysis: FeatureAnalysis) -> None:
    """Whatever the newest rows hold, all figures, correlations and recommendations stay as they were."""
    x, future = with_copy.x.copy(), with_copy.future_volatility.copy()
    x[-850:] = -x[-850:]
    future[-850:] *= 100.0
    other = analyzed(replace(with_copy, x=x, future_volatility=future))
    assert str(other.features) == str(analysis.features)
    assert other.recommended == analysis.recommended
    np.testing.assert_array_equal(other.correlation, analysis.correlation)
    assert other.pr_auc == analysis.pr_auc


def test_noise_recommends_hardly_anything(make_dataset: MakeDataset) -> None:
    """Where nothing foresees there is still a name to train on, with a warning, or a stray few of twenty-one."""
    found = analyzed(make_dataset(9000, skill=0.0))
    assert 1 <= len(found.recommended) <= 4
    assert abs(found.pr_auc - found.base_rate) < 0.05


def test_files_hold_what_was_found(analysis: FeatureAnalysis, tmp_path: Path) -> None:
    """Four files: pictures that open, a line per feature, and names that can be given to --columns as they are."""
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
    """With two hundred features each still has ten pixels and more, so that its name can be read."""
    count = 200
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (count, count))
    correlation = (noise + noise.T) / 2 + np.eye(count)
    features = tuple(replace(analysis.features[0], name=f"feature_number_{place}s") for place in range(count))
    wide = replace(analysis, features=features, correlation=np.clip(correlation, -1, 1))
    with Image.open(BytesIO(plot_correlation(wide))) as picture:
        width, height = picture.size
    assert min(width, height) > 10 * count


def test_rows_of_one_class_are_told(make_dataset: MakeDataset) -> None:
    """Where no unseen row is a spike nothing can be lost, and the error says so."""
    market = make_dataset(9000, skill=1.0)
    future = market.future_volatility.copy()
    future[4000:] = 1e-7
    with pytest.raises(NotEnoughData, match="spikes and calm"):
        analyzed(replace(market, future_volatility=future))


@pytest.mark.parametrize("request_", [replace(REQUEST, model="lgbm"), replace(REQUEST, repeats=0)])
def test_what_cannot_be_analyzed_is_refused(request_: AnalysisRequest, with_copy: Dataset) -> None:
    """No such model, or no repeats: one line that lists what there is."""
    with pytest.raises(UsageError, match="--repeats must be at least 1 and --model one of baseline"):
        analyzed(with_copy, request_)
