"""``volspike infer``: a model over a feature file, timed or as if it were live."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, run_in, untouched
from volspike.cli.screen import SIMULATED
from volspike.models import Artifact

GOOD = "--model logistic --features features.parquet"


def test_benchmark_times_and_judges(features: Path, model: Path, volspike: Run) -> None:
    """Times per row and as a batch, the requirement, and metrics with a warning about the training data."""
    outcome = volspike("infer", *GOOD.split(), "--mode", "benchmark", "--n-samples", "500")
    assert outcome.status == 0
    first, training, title, *lines = outcome.out.splitlines()
    assert training.startswith("trained on BTC-USD on a simulated market, split time_based, threshold ")
    assert (first, title) == (SIMULATED, "logistic: 500 rows, one at a time and as one batch")
    assert any(re.fullmatch(r" *p50 +p95 +p99 +longest +rows/s *", line) for line in lines)
    assert any(re.fullmatch(r" *one row( +[\d.]+ µs){4} +[\d,]+ *", line) for line in lines)
    assert any(re.fullmatch(r"required: under 120 s per row; slowest 0\.\d+ s", line) for line in lines)
    assert re.match(r"440 rows, base rate 0\.\d+: PR-AUC .* \(persistence .*\), precision .* at threshold", lines[-1])
    assert "warning: logistic: IN SAMPLE: rows of simulated:BTC-USD lie within its training data" in outcome.err
    assert "warning: logistic: few events: " in outcome.err


def test_benchmark_is_the_default_and_takes_what_there_is(features: Path, model: Path, volspike: Run) -> None:
    """More rows than the file has warm ones are all of them; a file inside the model's folder means the folder."""
    warm = sum(pq.read_table(features)["is_warm"].to_pylist())
    outcome = volspike("infer", "--model", model / "model.onnx", "--features", features, "--n_samples", "99999")
    assert outcome.status == 0
    assert f"logistic: {warm:,} rows, one at a time" in outcome.out


def test_unlabelled_rows_are_timed_and_not_judged(features: Path, model: Path, volspike: Run) -> None:
    """Without labels there are times only, and a sentence that says why."""
    table = pq.read_table(features)
    pq.write_table(table.drop_columns(["future_volatility", "volatility_spike"]), features)
    outcome = volspike("infer", *GOOD.split(), "--n-samples", "60")
    assert outcome.status == 0
    assert "PR-AUC" not in outcome.out
    assert "so nothing is evaluated; label the file first" in outcome.err


def test_live_tells_when_the_alarm_goes_and_ends(features: Path, model: Path, volspike: Run) -> None:
    """Row by row: alternating alert and calm with time, product, probability and threshold, and a count."""
    outcome = volspike("infer", *GOOD.split(), "--mode", "live", "--n-samples", "2500")
    assert outcome.status == 0
    first, training, *told, total = outcome.out.splitlines()
    assert (first, training[:33]) == (SIMULATED, "trained on BTC-USD on a simulated")
    threshold = Artifact.load(model).threshold
    states = []
    for line in told:
        moment, product, state, probability, rest = line.split(maxsplit=4)
        assert re.fullmatch(r"2026-01-05T00:\d\d:\d\dZ", moment)
        assert (product, rest) == ("BTC-USD", f"(threshold {threshold:.4f})")
        assert (float(probability) >= round(threshold, 4)) or state == "calm"
        states.append(state)
    assert states
    assert states == ["ALERT" if index % 2 == 0 else "calm" for index in range(len(states))]
    assert total == f"2,500 rows scored, {states.count('ALERT'):,} alerts"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--model nowhere --features features.parquet", MODEL, ["nowhere", "model.onnx", "volspike train"]),
        ("--model flipped --features features.parquet", MODEL, ["flipped/model.onnx", "sha256", "complete folder"]),
        ("--model told --features features.parquet", MODEL, ["told/metadata.json", "volspike train"]),
        ("--model half --features features.parquet", MODEL, ["half", "no model.onnx", "volspike train"]),
        ("--model logistic --features narrow.parquet", MODEL, ["logistic expects feature digest", "volspike train"]),
        ("--model logistic --features ticks.parquet", MODEL, ["logistic expects rows every 1s, was tick"]),
        (
            "--model logistic --features trades.parquet",
            MODEL,
            ["logistic needs quotes", "missing: ", "spread"],
        ),
        ("--model logistic --features nowhere.parquet", DATA, ["nowhere.parquet: no such file", "volspike replay"]),
        ("--model logistic --features prose.parquet", DATA, ["prose.parquet: not a Parquet file"]),
        ("--model logistic --features cold.parquet", DATA, ["cold.parquet: none of its 100 rows is warm"]),
        (f"{GOOD} --mode dream", USAGE, ["--mode must be one of benchmark, live", "'dream'"]),
        (f"{GOOD} --n-samples 0", USAGE, ["--n-samples at least 1", "0"]),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: str, status: int, told: list[str], mixed: Path) -> None:
    """What the model expects and what there was, and what to do, in one line."""
    with untouched(mixed):
        outcome = run_in(mixed, "infer", *arguments.split())
    assert_refused(outcome, status, *told)


@pytest.fixture(scope="module")
def mixed(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and feature files that do not go together; read only."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(market / "models" / "logistic", folder / "logistic")
    spoil(folder, folder / "logistic")
    shutil.copy(market / "features.parquet", folder)
    (folder / "prose.parquet").write_text("Call me Ishmael. " * 100)
    pq.write_table(pq.read_table(folder / "features.parquet").slice(0, 100), folder / "cold.parquet")
    second = ["--every", "1s"]
    kinds = {"narrow": [*second, "--windows", "30", "60"], "ticks": [], "trades": [*second, "--profile", "trade"]}
    for name, options in kinds.items():
        replay = ["replay", "--raw", market / "tape.ndjson", "--out", f"{name}.parquet", *options]
        assert run_in(folder, *replay).status == 0
    return folder


def spoil(folder: Path, model: Path) -> None:
    """Copies of the model: one bit of the graph turned, metadata that is none, and no graph at all."""
    for name in ("flipped", "told", "half"):
        (folder / name).mkdir()
        for file in ("model.onnx", "metadata.json"):
            (folder / name / file).write_bytes((model / file).read_bytes())
    graph = bytearray((model / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (folder / "flipped" / "model.onnx").write_bytes(graph)
    (folder / "told" / "metadata.json").write_text("{}")
    (folder / "half" / "model.onnx").unlink()


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "--model", "logistic", "--features", "features.parquet"),
        ("backtest", "--model", "logistic", "--features", "features.parquet"),
        ("report", "--artifacts", "logistic", "--features", "features.parquet", "--output", "r.pdf"),
    ],
    ids=lambda command: command[0],
)
def test_labels_of_another_horizon_are_refused(
    features: Path, model: Path, tmp_path: Path, volspike: Run, command: tuple[str, ...]
) -> None:
    """A model of a minute is not evaluated on outcomes of five: the command names both and how to label the rows."""
    assert volspike("label", "--features", features.name, "--horizon", "300").status == 0
    with untouched(tmp_path):
        outcome = volspike(*command)
    assert_refused(outcome, MODEL, "forecasts 60 s, the labels of the rows cover 300 s", "--horizon 60")
