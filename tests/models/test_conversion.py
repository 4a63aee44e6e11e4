"""The ONNX form of a detector keeps one contract, and defects of converters are corrected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from tests.models.samples import ANY_COLUMNS, fitted, market_sample, sample_of
from volspike.models.onnx import OPSET
from volspike.models.scorer import Scorer

detectors = pytest.mark.parametrize("name", ANY_COLUMNS)


def served(detector: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
    onnx = detector.to_onnx().SerializeToString()
    return Scorer(onnx, width=x.shape[1], accepts_missing=detector.accepts_missing).probability(x)


def base_values(model: Any) -> list[float]:
    """Where the sums over trees start in the one ensemble of a graph."""
    (ensemble,) = (node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier")
    return [value for kept in ensemble.attribute if kept.name == "base_values" for value in kept.floats]


@detectors
def test_the_graph_has_one_input_one_output_and_a_modest_opset(name: str) -> None:
    """No label and no map is served, and nothing in the graph is newer than opset 15 and ai.onnx.ml 3."""
    model = fitted(name, market_sample(1000, 1)).to_onnx()
    assert [end.name for end in model.graph.input] == ["features"]
    assert [end.name for end in model.graph.output] == ["probability"]
    versions = {known.domain: known.version for known in model.opset_import}
    assert len(versions) == len(model.opset_import)
    assert versions[""] == OPSET == 15
    assert versions.get("ai.onnx.ml", 1) <= 3
    assert model.ir_version == 8


@pytest.mark.parametrize("name", ["baseline", "logistic"])
def test_linear_models_drop_what_only_the_label_needs(name: str) -> None:
    """The branch that picks the likelier class is not run at every row."""
    model = fitted(name, market_sample(1000, 2)).to_onnx()
    assert {"ArgMax", "ArrayFeatureExtractor"}.isdisjoint(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("level", [3.0, -3.0, 700.1, -9.87e6, 3.3e38, -3.3e38])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_forest_splits_between_neighbours_of_float32(level: float, steps: int) -> None:
    """A threshold halfway between float32 neighbours keeps each on its side, whichever of them it rounds to."""
    lower = np.float32(level) + steps * np.spacing(np.float32(level))
    upper = np.nextafter(lower, np.float32(np.inf))
    x = np.repeat([[lower], [upper]], 200, axis=0).astype(np.float64)
    forest = fitted("random_forest", sample_of(x, np.repeat([0, 1], 200).astype(np.int8)))
    np.testing.assert_allclose(served(forest, x[[0, -1]]), [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(forest.probability(x[[0, -1]]), [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("is_missing_a_spike", [False, True])
def test_missing_values_take_their_own_branch(is_missing_a_spike: bool) -> None:
    """If a missing value is informative, the ONNX form follows the branch that XGBoost learned, whichever that is."""
    random = np.random.default_rng(3)
    x = random.normal(size=(2000, 3))
    holed = random.random(2000) < 0.3
    x[holed, 0] = np.nan
    y = np.where(holed, is_missing_a_spike, x[:, 0] > 0.5).astype(np.int8)
    detector = fitted("xgboost", sample_of(x, y), column_share=1.0)
    probability = served(detector, x)
    np.testing.assert_allclose(probability, detector.probability(x), atol=1e-5, rtol=0)
    assert (probability[holed].min() > 0.9) if is_missing_a_spike else (probability[holed].max() < 0.1)


def test_xgboost_starts_at_the_base_rate_as_converted() -> None:
    """Where the converter is right about the log odds to start at, ours are the same."""
    detector: Any = fitted("xgboost", market_sample(1500, 4))
    converted = convert_xgboost(detector._model.trees, "as it is", [("features", FloatTensorType([None, 10]))])
    assert base_values(detector.to_onnx()) == pytest.approx(base_values(converted), rel=1e-6)


@pytest.mark.parametrize("spikes", [1, 5, 14, 250])
def test_xgboost_without_a_split_gives_the_base_rate(spikes: int) -> None:
    """Spikes too few or too random to split off: both forms give about the base rate, not one half."""
    x = np.zeros((500, 2))
    y = np.zeros(500, np.int8)
    y[:spikes] = 1
    detector = fitted("xgboost", sample_of(x, y))
    np.testing.assert_allclose(served(detector, x), detector.probability(x), atol=1e-6, rtol=0)
    assert served(detector, x)[0] == pytest.approx(spikes / 500, rel=0.3)


def test_the_converter_still_needs_the_base_rate_set() -> None:
    """With a first tree of one leaf onnxmltools starts at the rate itself; once it does not, ours can go."""
    x = np.zeros((500, 2))
    y = np.zeros(500, np.int8)
    y[:5] = 1
    detector: Any = fitted("xgboost", sample_of(x, y))
    converted = convert_xgboost(detector._model.trees, "as it is", [("features", FloatTensorType([None, 2]))])
    assert base_values(converted) == pytest.approx([0.01])
    assert base_values(detector.to_onnx()) == pytest.approx([np.log(0.01 / 0.99)])
