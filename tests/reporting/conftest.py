"""A simulated market, models trained on it, and their evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.reporting.pages import evaluated
from volspike.datasets.feature_file import FeatureFacts, feature_schema, with_facts
from volspike.features import Every, FeatureSet
from volspike.lifecycle.promotion import promote_chosen
from volspike.market import SECOND_NS, Profile
from volspike.reporting.evaluate import EvaluationReport
from volspike.training.report import TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train

FEATURES = FeatureSet()
START = 1_764_979_200
ROWS = 24_000


def market_table(rows: int, *, calm_from: int | None = None) -> pa.Table:
    """Rows of a labelled feature file, one per second, with two-minute regimes that the features reflect.

    From row ``calm_from`` on the market is calm.
    """
    random = np.random.default_rng(4)
    regime = np.repeat(random.normal(size=rows // 120 + 1), 120)[:rows]
    if calm_from is not None:
        regime[calm_from:] = -3.0
    columns = {name: random.normal(size=rows) for name in FEATURES.names}
    columns["realized_volatility_60s"] = np.exp(regime + 0.5 * random.normal(size=rows) - 9)
    columns["spread_mean_60s"] = regime + 0.3 * random.normal(size=rows)
    schema = feature_schema(FEATURES, labelled=True)
    told = columns | {
        "timestamp": pa.array((START + np.arange(rows)) * SECOND_NS, pa.timestamp("ns", "UTC")),
        "product_id": pa.array(["BTC-USD", "ETH-USD"] * (rows // 2)).dictionary_encode(),
        "session_id": np.full(rows, START),
        "is_warm": np.ones(rows, bool),
        "is_whole": np.ones(rows, bool),
        "future_volatility": np.exp(regime + 0.1 * random.normal(size=rows) - 9),
        "volatility_spike": np.zeros(rows, np.int8),
    }
    arrays = [told.get(field.name, np.ones(rows)) for field in schema]
    facts = FeatureFacts(
        digest=FEATURES.digest, windows=FEATURES.windows, every=Every.SECOND, profile=Profile.TICKER, simulated=True
    )
    cast = [pa.array(values).cast(field.type) for field, values in zip(schema, arrays, strict=True)]
    return pa.Table.from_arrays(cast, schema=with_facts(schema, facts))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``features.parquet``; ``report`` adds ``models``. Read only."""
    folder = tmp_path_factory.mktemp("reporting")
    pq.write_table(market_table(ROWS), folder / "features.parquet")
    return folder


@pytest.fixture(scope="session")
def report(folder: Path) -> TrainingReport:
    """Two models, trained on the folder's features and written to its ``models``; the better one is in production."""
    request = TrainingRequest(
        features=folder / "features.parquet",
        models=("logistic", "har"),
        artifacts=folder / "models",
        folds=3,
        search=0,
        promote=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volspike.training.evaluate.RESAMPLES", 50)
        return promote_chosen(train(request, lambda step: None))


@pytest.fixture(scope="session")
def evaluation(folder: Path, report: TrainingReport) -> EvaluationReport:
    """The trained models, evaluated on their training file."""
    return evaluated(folder / "features.parquet", folder / "models")
