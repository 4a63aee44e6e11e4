"""The documented commands in order: replay, train, infer, serve; and ``volspike demo``."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests_system.processes import Server, run_volspike, succeeded

REPLAY = 'replay --raw "../shared/data/coinbase/*.ndjson" --out data/processed/features.parquet --add-labels'
TRAIN = "train --features data/processed/features.parquet --models baseline logistic random_forest"
INFER = (
    "infer --model models/artifacts/random_forest --features data/processed/features.parquet "
    "--mode benchmark --n-samples 1000"
)
SERVE = "serve --model models/artifacts/random_forest --port 0"
BODY = (
    '{"features":{"log_return_300s":0.001,"spread_mean_300s":0.5,"trade_intensity_300s":100,'
    '"order_book_imbalance_300s":0.6,"spread_mean_60s":0.3,"order_book_imbalance_60s":0.55,'
    '"price_velocity_300s":0.0001,"realized_volatility_300s":0.002,"order_book_imbalance_30s":0.52,'
    '"realized_volatility_60s":0.0015}}'
)
ANSWER = {"prediction", "probability", "alert", "inference_time_ms", "model_version", "threshold"}
FORECAST = {"expected_volatility_bp", "volatility_low_bp", "volatility_high_bp", "horizon_s", "spike", "tau"}
FILES = {"feature_importance.png", "metadata.json", "model.onnx"}


@pytest.mark.parametrize(
    "workspace", [pytest.param("recorded", marks=pytest.mark.shared_data), "simulated"], indirect=True
)
def test_from_a_tape_to_a_probability(workspace: Path, serve: Callable[..., Server]) -> None:
    """Each command succeeds, writes the input of the next one, and prints its results."""
    tapes = workspace / "../shared/data/coinbase"
    before = sorted(tapes.iterdir())
    simulated = before == [tapes / "ticks.ndjson"]

    output = succeeded(run_volspike(workspace, *shlex.split(REPLAY))).out
    assert ("SIMULATED" in output) == simulated
    assert re.search(r"[\d,]+ rows of 135 features from [\d,]+ ticks \(profile ticker, every tick\)", output)
    assert re.search(r"[\d,]+ rows labelled, [\d.]+% spikes at τ = ", output)
    schema = pq.read_schema(workspace / "data/processed/features.parquet")
    assert {"future_volatility", "volatility_spike", "log_return_300s"} <= set(schema.names)
    assert sorted(tapes.iterdir()) == before

    output = succeeded(run_volspike(workspace, *TRAIN.split())).out
    assert ("SIMULATED" in output) == simulated
    assert "split walk_forward" in output
    assert re.search(r"^chosen: [a-z_0-9]+( \(baseline\))?; ", output, re.MULTILINE)
    assert re.search(r"^ (persistence|ewma_\d+|har|garch|seasonal|baseline) \* ", output, re.MULTILINE)
    assert "…" not in output.replace(" … ", "")
    for model in ("baseline", "logistic", "random_forest"):
        folder = workspace / "models/artifacts" / model
        assert {path.name for path in folder.iterdir()} >= FILES
        assert json.loads((folder / "metadata.json").read_text())["simulated"] == simulated

    output = succeeded(run_volspike(workspace, *INFER.split())).out
    assert ("SIMULATED" in output) == simulated
    assert "random_forest: 1,000 rows" in output
    assert "required: under 120 s per row" in output

    server = serve(workspace, *SERVE.split()[1:])
    old = server.post("/predict", BODY)
    assert (old.status, set(old.json)) == (200, ANSWER | FORECAST)
    assert old.json["model_version"] == "logistic (ml)"  # the model of the ten features of the earlier system
    features = dict.fromkeys(server.get("/version").json["features"], 0.5)
    answer = server.post("/predict", json.dumps({"features": features}))
    assert (answer.status, set(answer.json)) == (200, ANSWER | FORECAST | ({"simulated"} if simulated else set()))
    assert 0.0 <= answer.json["probability"] <= 1.0
    assert answer.json["model_version"] == "random_forest (ml)"


def test_demo_runs_in_an_empty_folder(tmp_path: Path) -> None:
    """``demo --once`` simulates a market, marks it as such, trains models, prints one prediction, and succeeds."""
    outcome = succeeded(run_volspike(tmp_path, "demo", "--once", "--port", "0"))
    assert outcome.out.index("SIMULATED") < outcome.out.index("rows of 135 features")
    (answer,) = (json.loads(line) for line in outcome.out.splitlines() if line.startswith('  {"prediction"'))
    assert set(answer) == ANSWER | FORECAST | {"simulated"}
    assert answer["simulated"] is True
    port = re.search(r"see http://127\.0\.0\.1:(\d+)/ ", outcome.out)
    assert port is not None
    assert int(port[1]) > 0
    assert (tmp_path / "models/artifacts/random_forest/model.onnx").is_file()
