"""Predictions and their outcomes: what is kept, what survives, and whose figures they are."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from volspike.errors import UnreadableFile
from volspike.evaluation import evaluate_scores
from volspike.monitoring.outcome_database import OutcomeDatabase, OutcomeRecord, PredictionRecord
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.performance import ServedModel, calibration

SECOND = 1_000_000_000
START = 1_700_000_000
DAY = 86_400


def model(digest: str = "a", tau: float = 0.5, simulated: bool = False) -> ServedModel:
    return ServedModel(digest=digest, name="forest", version="forest (ml)", tau=tau, simulated=simulated)


def foreseen(
    second: int, probability: float, *, of: ServedModel | None = None, product: str = "X", ns: int = 0
) -> PredictionRecord:
    time = (START + second) * SECOND + ns
    return PredictionRecord(product, time, probability, 0.6, probability >= 0.6, of or model())


def happened(second: int, volatility: float, product: str = "X", simulated: bool = False) -> OutcomeRecord:
    return OutcomeRecord(product, START + second, volatility, simulated)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OutcomeStore]:
    it = OutcomeStore(tmp_path / "outcomes.sqlite", flush_s=0.01)
    yield it
    assert it.close()


def test_an_unexpected_error_does_not_end_the_writing(store: OutcomeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the failed batch are counted as lost, and the next ones are written."""
    written = store._database.write
    errors = [RuntimeError("unexpected")]

    def write(*batch: Any) -> None:
        if errors:
            raise errors.pop()
        written(*batch)

    monkeypatch.setattr(store._database, "write", write)
    (task,) = store.tasks
    store.predict(foreseen(0, 0.5))
    assert store.flush()
    assert (store.lost, store.fault) == (1, "unexpected")
    store.predict(foreseen(1, 0.5))
    assert store.flush(10.0)
    assert (store.lost, store.fault, task.faults) == (1, None, 1)
    assert len(rows(store._path)) == 1


def rows(path: Path, columns: str = "*") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    told = connection.execute(f"SELECT {columns} FROM predictions ORDER BY model, second, product").fetchall()  # noqa: S608
    connection.close()
    return told


def test_a_second_keeps_its_last_prediction(store: OutcomeStore, tmp_path: Path) -> None:
    """Only the last row of a second is stored, one per product, bit-equal."""
    for k in range(30):
        store.predict(foreseen(k // 10, k / 30, ns=k * 1000))
        store.predict(foreseen(k // 10, 1 - k / 30, product="Y", ns=k * 1000))
    store.predict(foreseen(2, math.nan, ns=SECOND - 1))
    assert store.flush()
    kept = rows(tmp_path / "outcomes.sqlite", "second, product, probability, alert")
    assert kept == [
        row
        for k in (9, 19, 29)
        for row in (
            (START + k // 10, "X", k / 30, int(k / 30 >= 0.6)),
            (START + k // 10, "Y", 1 - k / 30, int(1 - k / 30 >= 0.6)),
        )
    ]


def test_figures_are_those_of_the_evaluation(store: OutcomeStore) -> None:
    """Live precision, recall, Brier and PR-AUC equal those of ``volspike.evaluation`` on the same rows."""
    rng = np.random.default_rng(4)
    probability, volatility = rng.random(300), rng.random(300)
    for k in range(300):
        store.predict(foreseen(k, float(probability[k])))
    for k in range(200):
        store.outcome(happened(k, float(volatility[k])))
    assert store.flush()
    told = store.performance(START * SECOND)
    spike = (volatility[:200] >= 0.5).astype(np.int8)
    wanted = evaluate_scores(spike, probability[:200], 0.6)
    assert (told.rows, told.base_rate, told.alerts) == (200, wanted.base_rate, wanted.tp + wanted.fp)
    assert (told.precision, told.recall, told.pr_auc) == (wanted.precision, wanted.recall, wanted.pr_auc)
    assert told.brier == pytest.approx(wanted.brier)
    assert sum(part.n for part in told.calibration) == 200
    assert store.performance((START + 150) * SECOND).rows == 50
    newest = store.performance(START * SECOND, limit=20)
    assert (newest.rows, newest.since) == (20, (START + 180) * SECOND)


def test_products_are_told_apart_or_together(store: OutcomeStore) -> None:
    """The performance of one product includes only its rows."""
    for product, n in (("X", 3), ("Y", 5)):
        for k in range(n):
            store.predict(foreseen(k, 0.7, product=product))
            store.outcome(happened(k, 0.9, product))
    assert store.flush()
    assert [store.performance(0, product).rows for product in ("X", "Y", None, "Z")] == [3, 5, 8, 0]


def test_models_and_markets_are_never_mixed(store: OutcomeStore) -> None:
    """Rows of another model, or of a simulated market, are excluded."""
    mine, other, simulated = model("a"), model("b", tau=0.95), model("a", simulated=True)
    for which, n in ((mine, 2), (simulated, 3), (other, 4)):
        for k in range(n):
            store.predict(foreseen(k, 0.7, of=which))
    for k in range(4):
        store.outcome(happened(k, 0.9))
    assert store.flush()
    assert [store.performance(0, model=which).rows for which in (mine, simulated, other)] == [2, 0, 4]
    assert store.performance(0, model=mine).base_rate == 1.0
    assert store.performance(0, model=other).base_rate == 0.0
    assert store.performance(0).model == other
    assert store.performance(0, model=model("c")).rows == 0


def test_undefined_figures_are_none(store: OutcomeStore) -> None:
    """Without rows, and with spikes only, undefined metrics are NaN, and null in JSON."""
    empty = store.performance(0).figures()
    assert (empty["rows"], empty["alerts"]) == (0, 0)
    assert all(empty[name] is None for name in ("base_rate", "precision", "recall", "brier", "pr_auc"))
    store.predict(foreseen(0, 0.1))
    store.outcome(happened(0, 0.9))
    assert store.flush()
    told = store.performance(0).figures()
    assert (told["recall"], told["precision"], told["pr_auc"]) == (0.0, None, None)
    assert json.loads(json.dumps(told, allow_nan=False))["model"]["tau"] == 0.5


def test_without_tau_there_is_no_performance(store: OutcomeStore, tmp_path: Path) -> None:
    """A model without τ has stored predictions and outcomes, but no metrics."""
    store.predict(foreseen(0, 0.1, of=model(tau=math.nan)))
    store.outcome(happened(0, 0.9))
    assert store.flush()
    assert rows(tmp_path / "outcomes.sqlite", "future_volatility, spike") == [(0.9, None)]
    assert store.performance(0).rows == 0


def test_calibration_holds_every_row_once() -> None:
    """0 is in the first bin and 1 in the last; an empty bin has NaN rates."""
    parts = calibration(np.array([0.0, 0.05, 0.95, 1.0]), np.array([0, 1, 1, 1], np.int8))
    assert [part.n for part in parts] == [2, *[0] * 8, 2]
    assert (parts[0].observed_rate, parts[9].observed_rate) == (0.5, 1.0)
    assert parts[9].mean_probability == pytest.approx(0.975)
    assert math.isnan(parts[4].observed_rate)


def test_it_reopens_where_it_was(tmp_path: Path) -> None:
    """A later run adds outcomes to the predictions of an earlier one."""
    path = tmp_path / "outcomes.sqlite"
    first = OutcomeStore(path)
    first.predict(foreseen(0, 0.7))
    assert first.close()
    second = OutcomeStore(path, flush_s=0.01)
    second.outcome(happened(0, 0.9))
    assert second.flush()
    assert second.performance(0).rows == 1
    assert second.close()
    assert not list(tmp_path.glob("*-wal"))


_WRITER = """
import sys
from pathlib import Path
from volspike.monitoring.outcome_database import OutcomeRecord, PredictionRecord
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.performance import ServedModel
model = ServedModel(digest="a", name="forest", version="1", tau=0.5, simulated=False)
store = OutcomeStore(Path(sys.argv[1]), flush_s=0.0)
k = 0
while True:
    store.predict(PredictionRecord("X", (1_700_000_000 + k) * 10**9, 0.25, 0.6, False, model))
    store.outcome(OutcomeRecord("X", 1_700_000_000 + k - 60, 0.9, False))
    k += 1
    if k % 100 == 0:
        store.flush()
        print(k, flush=True)
"""


@pytest.mark.parametrize("at", [100, 300, 700])
def test_a_kill_loses_nothing_that_was_written(tmp_path: Path, at: int) -> None:
    """After kill -9 while writing, all flushed rows can be read, and the store opens again."""
    path = tmp_path / "outcomes.sqlite"
    command = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        told = next(int(line) for line in process.stdout if int(line) >= at)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    store = OutcomeStore(path)
    assert store.performance(0).rows >= told - 60
    kept = rows(path, "second")
    assert [second for (second,) in kept] == list(range(START, START + len(kept)))
    assert store.close()


def test_old_rows_go(tmp_path: Path) -> None:
    """A model keeps its last days; an unused one is deleted completely."""
    path = tmp_path / "outcomes.sqlite"
    database = OutcomeDatabase(path)
    database.write([foreseen(0, 0.1, of=model("old"))], START)
    database.write([foreseen(k * DAY, 0.1) for k in range(20)], START + 20 * DAY)
    assert database.prune(14, START + 20 * DAY) == 1 + 5
    assert database.find(model("old")) is None
    database.close()
    assert [second for (second,) in rows(path, "second")] == [START + k * DAY for k in range(5, 20)]


def test_a_full_queue_loses_the_oldest_and_counts(tmp_path: Path) -> None:
    """While the file is locked, callers never wait, and dropped rows are counted."""
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, flush_s=0.0, queue_rows=50)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for k in range(1000):
        store.predict(foreseen(k, 0.1))
    assert store.lost >= 1000 - 1 - 2 * 50
    lock.execute("COMMIT")
    lock.close()
    assert store.close(10.0)
    kept = rows(path, "second")
    assert len(kept) + store.lost == 1000
    assert kept[-1] == (START + 999,)


def test_a_fault_in_writing_is_told_and_passes(tmp_path: Path) -> None:
    """A batch that cannot be written is counted and logged; later ones are stored."""
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, flush_s=0.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("ALTER TABLE predictions RENAME TO away")
    store.predict(foreseen(0, 0.1))
    assert store.flush()
    assert (store.lost, "predictions" in (store.fault or "")) == (1, True)
    other.execute("ALTER TABLE away RENAME TO predictions")
    other.close()
    store.predict(foreseen(1, 0.1))
    assert store.flush()
    assert (store.lost, store.fault) == (1, None)
    assert store.close()
    assert rows(path, "second") == [(START + 1,)]


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """A file of another kind, another format, or an impossible path is named in the error."""
    (tmp_path / "text").write_text("no database, but long enough to be read as the head of one " * 10)
    sqlite3.connect(tmp_path / "later").execute("PRAGMA user_version = 99").connection.close()
    for name in ("text", "later", "text/file"):
        with pytest.raises(UnreadableFile, match=name):
            OutcomeStore(tmp_path / name)


def test_tau_of_its_own_decides_a_prediction_of_an_older_file(tmp_path: Path) -> None:
    """A file without the column of τ gets it; then each prediction is compared with its own τ."""
    path = tmp_path / "outcomes.sqlite"
    OutcomeDatabase(path).close()
    before = sqlite3.connect(path)
    before.execute("ALTER TABLE predictions DROP COLUMN tau")
    before.close()
    database = OutcomeDatabase(path)
    served = model(tau=float("nan"))
    rows = [msgspec.structs.replace(foreseen(second, 0.5, of=served), tau=tau) for second, tau in ((0, 1.0), (1, 3.0))]
    unknown = foreseen(2, 0.5, of=served)
    database.write([*rows, unknown, *(happened(second, 2.0) for second in range(3))], 0)
    number = database.find(served)
    assert number is not None
    assert database.evaluated(number, 0, None, 10).spike.tolist() == [0, 1]
    database.close()
