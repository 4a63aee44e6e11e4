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
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from volspike.evaluation import evaluate_scores
from volspike.monitoring.outcome_database import (
    AlertEntry,
    DamagedDatabase,
    OutcomeDatabase,
    OutcomeRecord,
    PredictionRecord,
)
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
    database = store._database
    assert database is not None
    written = database.write
    errors = [RuntimeError("unexpected")]

    def write(*batch: Any) -> None:
        if errors:
            raise errors.pop()
        written(*batch)

    monkeypatch.setattr(database, "write", write)
    task, _ = store.tasks
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


def make_file(path: Path, kind: str) -> None:
    """Puts a file at ``path`` that is no outcome database of this format."""
    if kind == "text":
        path.write_text("no database, but long enough to be read as the head of one " * 10)
        return
    if kind == "later":
        statement = "PRAGMA user_version = 99"
    elif kind == "foreign":
        statement = "CREATE TABLE models (id INTEGER PRIMARY KEY, price REAL)"
    else:
        OutcomeDatabase(path).close()
        content = path.read_bytes()
        path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
        return
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


NO_STORES = ["text", "later", "foreign", "damaged"]


@pytest.mark.parametrize("kind", NO_STORES)
def test_a_file_of_another_kind_is_renamed_and_a_new_one_begins(tmp_path: Path, kind: str) -> None:
    """Its content is kept under another name, and predictions are stored."""
    path = tmp_path / "outcomes.sqlite"
    make_file(path, kind)
    content = path.read_bytes()
    store = OutcomeStore(path)
    store.predict(foreseen(0, 0.1))
    assert store.close()
    assert (store.lost, store.fault) == (0, None)
    (renamed,) = tmp_path.glob("outcomes.sqlite.damaged-*")
    assert renamed.read_bytes() == content
    assert rows(path, "second") == [(START,)]


@pytest.mark.parametrize("kind", NO_STORES)
def test_a_reader_refuses_such_a_file_and_leaves_it(tmp_path: Path, kind: str) -> None:
    """A reader renames nothing, since another process may be writing."""
    path = tmp_path / "outcomes.sqlite"
    make_file(path, kind)
    content = path.read_bytes()
    with pytest.raises(DamagedDatabase, match=r"outcomes\.sqlite"):
        OutcomeDatabase.open_reader(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == content


def test_reading_creates_no_file(tmp_path: Path) -> None:
    """Neither without a file, nor for an empty one, nor for one that no process writes."""
    path = tmp_path / "folder" / "outcomes.sqlite"
    assert OutcomeDatabase.open_reader(path) is None
    assert list(tmp_path.iterdir()) == []
    OutcomeDatabase(path).close()
    reader = OutcomeDatabase.open_reader(path)
    assert reader is not None
    assert reader.newest() is None
    reader.close()
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(b"")
    assert OutcomeDatabase.open_reader(path) is None
    assert path.read_bytes() == b""


@pytest.mark.parametrize("change", ["move", "remove", "replace"])
def test_a_file_that_changes_while_it_is_written_loses_nothing_more(tmp_path: Path, change: str) -> None:
    """Rows go to a new file at the path; the old one, if it still exists, keeps its rows."""
    path, away = tmp_path / "outcomes.sqlite", tmp_path / "away.sqlite"
    store = OutcomeStore(path, flush_s=0.0)
    store.predict(foreseen(0, 0.1))
    assert store.flush()
    if change == "remove":
        path.unlink()
    else:
        path.rename(away)
    if change == "replace":
        make_file(path, "foreign")
    for second in (1, 2):
        store.predict(foreseen(second, 0.1))
        assert store.flush()
    assert store.performance(0).model is not None
    assert store.close()
    assert store.lost == 0
    assert rows(path, "second") == [(START + 1,), (START + 2,)]
    if away.exists():
        assert rows(away, "second") == [(START,)]
    assert len(list(tmp_path.glob("outcomes.sqlite.damaged-*[Z0-9]"))) == (change == "replace")


def test_damage_found_in_writing_begins_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If SQLite reports a damaged file, the batch is written to a new one."""
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, flush_s=0.0)
    database = store._database
    assert database is not None

    def write(*_: object) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(database, "write", write)
    store.predict(foreseen(0, 0.1))
    assert store.close()
    assert store.lost == 0
    assert rows(path, "second") == [(START,)]
    assert list(tmp_path.glob("outcomes.sqlite.damaged-*"))


def test_damage_that_only_a_reader_finds_is_renamed(tmp_path: Path) -> None:
    """After a reader has found values of another kind, the writer begins a new file."""
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, flush_s=0.0)
    store.predict(foreseen(0, 0.1))
    store.outcome(happened(0, 0.9))
    assert store.flush()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("UPDATE predictions SET probability = 'high'")
    other.close()
    with pytest.raises(DamagedDatabase, match="another kind"):
        store.performance(0)
    store.predict(foreseen(1, 0.1))
    assert store.flush()
    assert store.performance(0).rows == 0
    assert store.close()
    assert rows(path, "second") == [(START + 1,)]


@pytest.mark.parametrize("place", ["folder", "file/outcomes.sqlite", "locked"])
def test_a_file_that_cannot_be_opened_is_a_fault_and_no_exception(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are counted as lost until the file can be opened."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / place
    holder = OutcomeStore(path) if place == "locked" else None
    store = OutcomeStore(path, flush_s=0.0)
    store.predict(foreseen(0, 0.1))
    assert store.flush()
    assert (store.lost, store.fault is not None) == (1, True)
    assert store.is_shared == (place == "locked")
    _, use = store.tasks
    assert (use.faults, str(path) in (use.error or "")) == (1, True)
    if holder is not None:
        assert str(os.getpid()) in (store.fault or "")
        assert holder.close()
    elif place == "folder":
        path.rmdir()
    else:
        (tmp_path / "file").unlink()
    monkeypatch.setattr(sys.modules[OutcomeStore.__module__], "RETRY_S", 0.0)
    store._retry_at = 0.0
    store.predict(foreseen(1, 0.1))
    assert store.flush()
    assert (store.lost, store.fault, use.error) == (1, None, None)
    assert store.close()
    assert rows(path, "second") == [(START + 1,)]


def test_a_full_disk_costs_only_the_rows_of_that_time(tmp_path: Path) -> None:
    """While the database may not grow, rows are counted as lost; later ones are stored."""
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, flush_s=0.0)
    database = store._database
    assert database is not None
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count = {pages}")
    for second in range(1000):
        store.predict(foreseen(second, 0.1))
    assert store.flush()
    assert store.lost > 0
    assert "full" in (store.fault or "")
    store.predict(foreseen(1000, 0.1))
    assert store.flush()
    assert store.fault is None
    assert store.close()
    assert len(rows(path)) + store.lost == 1001


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


def alert(opened: int, closed: int | None, product: str = "X", suppressed: str | None = None) -> AlertEntry:
    return AlertEntry(
        product=product,
        id=f"{opened}-{product}",
        opened=(START + opened) * SECOND,
        closed=None if closed is None else (START + closed) * SECOND,
        peak_probability=0.7,
        threshold=0.6,
        simulated=False,
        is_in_sample=False,
        outcome="pending",
        suppressed=suppressed,
    )


def test_alerts_are_stored_with_the_reason_why_they_were_not_sent(store: OutcomeStore) -> None:
    """The state that was stored last is read back with all its fields."""
    sent, quiet = alert(0, 60), alert(100, None, suppressed="quiet_hours")
    for each in (sent, quiet, alert(100, 190, suppressed="quiet_hours")):
        store.alert(each)
    assert store.flush()
    assert same(store.alerts(simulated=False, limit=9), [sent, alert(100, 190, suppressed="quiet_hours")])
    assert store.alerts(simulated=True, limit=9) == []


def test_a_file_without_the_reason_gets_its_column(tmp_path: Path) -> None:
    """A reader of such a file leaves it as it is; a writer adds the column and keeps the alerts."""
    path = tmp_path / "outcomes.sqlite"
    OutcomeDatabase(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE alerts DROP COLUMN suppressed")
        connection.execute(
            "INSERT INTO alerts VALUES (0, ?, 'X', '0-X', ?, 0.7, 0.6, 0, 'pending', NULL)", times(0, 60)
        )
        connection.commit()
    with closing(OutcomeDatabase(path, is_writer=False)) as reader:
        assert same(reader.alerts(simulated=False, limit=9), [alert(0, 60)])
    with closing(OutcomeDatabase(path)) as writer:
        writer.write([alert(100, 160, suppressed="snoozed")], START)
        found = writer.alerts(simulated=False, limit=9)
    assert same(found, [alert(0, 60), alert(100, 160, suppressed="snoozed")])


def times(*seconds: int) -> tuple[int, ...]:
    return tuple((START + second) * SECOND for second in seconds)


def same(found: list[AlertEntry], expected: list[AlertEntry]) -> bool:
    """Whether alerts are equal; their lead is NaN, which equals nothing."""
    return [repr(each) for each in found] == [repr(each) for each in expected]


def test_alerts_of_a_span_are_those_that_overlap_it(store: OutcomeStore) -> None:
    """An alert that was open at the begin of the span belongs to it, one that opens at its end does not."""
    for each in (
        alert(0, 60),
        alert(50, 110),
        alert(100, None),
        alert(150, 210),
        alert(200, 260),
        alert(100, 160, "Y"),
    ):
        store.alert(each)
    assert store.flush()
    first, last = times(100, 200)
    found = store.alerts(simulated=False, limit=9, product="X", span=(first, last))
    assert [(each.opened // SECOND - START, each.product) for each in found] == [(50, "X"), (100, "X"), (150, "X")]
    assert len(store.alerts(simulated=False, limit=9, span=(first, last))) == 4
    assert [each.opened for each in store.alerts(simulated=False, limit=1)] == list(times(200))


def test_of_two_models_in_a_second_the_one_that_served_last_is_shown(store: OutcomeStore) -> None:
    """Each bar has the predictions that were in force, whichever model is used now, also where a bar has both."""
    old, new = model("a"), model("b", tau=0.1)
    for second in range(20):
        store.predict(foreseen(second, 0.9 if second == 3 else 0.2, of=old))
    for second in range(10, 40):
        store.predict(foreseen(second, 0.1, of=new, ns=5))
    for second in range(15, 17):  # an earlier row of a second does not replace a later one
        store.predict(foreseen(second, 0.8, of=old))
    store.predict(foreseen(40, 0.3, of=old))  # used last
    for second in range(40):
        store.outcome(happened(second, 0.3 if second in {5, 15} else 0.0))
    assert store.flush()
    found = store.range("X", START, START + 60, 20, simulated=False)
    assert found is not None
    assert (found.second - START // 20 * 20).tolist() == [0, 20, 40]
    assert found.probability.tolist() == [0.9, 0.1, 0.3]
    assert (found.spike_second - START).tolist() == [15]
