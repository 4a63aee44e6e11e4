"""The SQLite database of predictions and outcomes: tables, writes and queries."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isnan, nan
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from volspike.episodes import CAP_S
from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS
from volspike.monitoring.performance import ServedModel

FORMAT: Final = 1

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, tau REAL, simulated INTEGER NOT NULL,
    used INTEGER NOT NULL,
    UNIQUE (digest, name, version, simulated))""",
    """CREATE TABLE IF NOT EXISTS predictions (
    model INTEGER NOT NULL, second INTEGER NOT NULL, product TEXT NOT NULL, time INTEGER NOT NULL,
    probability REAL NOT NULL, threshold REAL NOT NULL, alert INTEGER NOT NULL,
    future_volatility REAL, spike INTEGER, tau REAL,
    PRIMARY KEY (model, second, product)) WITHOUT ROWID""",
)
_ALERTS = """CREATE TABLE IF NOT EXISTS alerts (
    simulated INTEGER NOT NULL, opened INTEGER NOT NULL, product TEXT NOT NULL, id TEXT NOT NULL,
    closed INTEGER, peak REAL NOT NULL, threshold REAL NOT NULL, in_sample INTEGER NOT NULL,
    outcome TEXT NOT NULL, lead REAL, suppressed TEXT,
    PRIMARY KEY (simulated, opened, product)) WITHOUT ROWID"""
"""Added to a file of an earlier version, whose programs still use it."""
_MODEL = "INSERT INTO models (digest, name, version, tau, simulated, used) VALUES (?, ?, ?, ?, ?, ?)"
_PREDICTION = """INSERT INTO predictions (model, second, product, time, probability, threshold, alert, tau)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET time = excluded.time, probability = excluded.probability,
        threshold = excluded.threshold, alert = excluded.alert, tau = excluded.tau
    WHERE excluded.time >= predictions.time"""
# without τ there are no spikes: a comparison with NULL is NULL
_OUTCOME = """UPDATE predictions SET future_volatility = ?1,
        spike = (SELECT ?1 >= coalesce(predictions.tau, models.tau) FROM models WHERE id = predictions.model)
    WHERE model IN (SELECT id FROM models WHERE simulated = ?4) AND second = ?2 AND product = ?3"""
_ALERT = """INSERT OR REPLACE INTO alerts
    (simulated, opened, product, id, closed, peak, threshold, in_sample, outcome, lead, suppressed)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LISTED = """SELECT simulated, opened, product, id, closed, peak, threshold, in_sample, outcome, lead, {suppressed}
    FROM alerts WHERE simulated = ? AND opened >= ? AND opened < ? AND (? IS NULL OR product = ?)
        AND coalesce(closed, opened) >= ? ORDER BY opened DESC LIMIT ?"""
_MODELS = """SELECT id FROM models WHERE simulated = ?1
    AND EXISTS (SELECT 1 FROM predictions WHERE model = id AND second >= ?2 AND second < ?3)"""
_ROWS = """SELECT second, probability, threshold, future_volatility, spike{newest} FROM predictions
    WHERE model IN ({models}) AND second >= :first AND second < :last AND product = :product{group}"""
_RANGE = "SELECT second / :step * :step, max(probability), max(threshold) FROM ({rows}) GROUP BY 1 ORDER BY 1"
_SPIKES = "SELECT second, future_volatility FROM ({rows}) WHERE spike = 1 ORDER BY second"
# SQLite takes the other columns from the row with the least second
_MINUTES = """SELECT product, min(second), probability, spike FROM predictions
    WHERE model = ? AND second >= ? AND spike IS NOT NULL GROUP BY product, second / 60 ORDER BY 2"""
_EVALUATED = """SELECT time, probability, alert, spike FROM predictions
    WHERE model = ? AND second >= ? AND spike IS NOT NULL"""

_COLUMNS_OF: Final = {
    "models": frozenset(("id", "digest", "name", "version", "tau", "simulated", "used")),
    "predictions": frozenset(
        ("model", "second", "product", "time", "probability", "threshold", "alert", "future_volatility", "spike")
    ),
}
EVER: Final = (0, 2**62)
"""All times, in ns."""
_LONGEST_ALERT_NS: Final = round(2 * CAP_S) * SECOND_NS  # twice the cap: a silence closes it a little later

_LOG: Final = "-wal"
COMPANIONS: Final = (_LOG, "-shm")
"""Endings of the files that SQLite keeps next to the database."""

_COLUMNS: Final = [("time", "i8"), ("probability", "f8"), ("alert", "?"), ("spike", "i1")]
_FETCH_ROWS: Final = 1024
"""Rows per conversion to an array, which blocks other threads for about a millisecond."""


_log = structlog.get_logger(__name__)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the file's content is damaged, and not that it is locked or the disk is full."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Makes the errors of a disk and of SQLite in the block an ``UnreadableFile``, or a ``DamagedDatabase``."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise DamagedDatabase(path, f"not usable as an outcome database: {error}") from error
        raise UnreadableFile(path, f"not usable as an outcome database: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise DamagedDatabase(path, f"holds values of another kind than predictions: {error}") from error
    except OSError as error:
        reason = f"not usable as an outcome database: {error.strerror or error}"
        raise UnreadableFile(path, reason) from error


class PredictionRecord(msgspec.Struct, frozen=True, gc=False):
    """A prediction at ``time_ns``; ``alert`` is whether its probability reached the threshold.

    ``tau`` is the volatility from which its outcome is a spike; NaN: that of the model.
    """

    product: str
    time_ns: int
    probability: float
    threshold: float
    alert: bool
    model: ServedModel
    tau: float = nan


class OutcomeRecord(msgspec.Struct, frozen=True, gc=False):
    """The volatility that followed a second (Unix) of a product."""

    product: str
    second: int
    future_volatility: float
    simulated: bool


class AlertEntry(msgspec.Struct, frozen=True, gc=False):
    """An alert as it is listed; times in ns UTC.

    ``outcome`` is hit, false or pending, ``lead_s`` NaN if unknown. ``suppressed`` is the reason for which it was not
    sent, None if it was sent or the reason is unknown.
    """

    product: str
    id: str
    opened: int
    closed: int | None
    peak_probability: float
    threshold: float
    simulated: bool
    is_in_sample: bool
    outcome: str
    lead_s: float = nan
    suppressed: str | None = None


class MinuteOutcome(NamedTuple):
    """The first prediction of a minute with a known outcome, made in ``second`` (Unix)."""

    product: str
    second: int
    probability: float
    spike: bool


class StoredRange(msgspec.Struct, frozen=True):
    """A product's predictions in a range: n bars with their highest values, and m seconds that a spike followed.

    ``second`` and ``spike_second`` are Unix seconds, ascending; ``spike_volatility`` is the volatility after each.
    """

    second: NDArray[np.int64]
    probability: NDArray[np.float64]
    threshold: NDArray[np.float64]
    spike_second: NDArray[np.int64]
    spike_volatility: NDArray[np.float64]


class EvaluatedPredictions(msgspec.Struct, frozen=True):
    """The columns of n predictions with known outcomes, newest first."""

    time: NDArray[np.int64]
    probability: NDArray[np.float64]
    alert: NDArray[np.bool_]
    spike: NDArray[np.int8]


NO_PREDICTIONS: Final = EvaluatedPredictions(
    np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.bool_), np.empty(0, np.int8)
)


class DamagedDatabase(UnreadableFile):
    """A file that is no outcome database of this format, or a damaged one; ``identity`` is its device and inode."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.identity = file_identity(path)


def file_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _reader_uri(path: Path) -> str:
    # without a log no process writes to the file, and to open it as a shared one would create a log
    is_logged = path.with_name(f"{path.name}{_LOG}").exists()
    return f"{path.absolute().as_uri()}?mode={'ro' if is_logged else 'ro&immutable=1'}"


class OutcomeDatabase:
    """A connection for one thread at a time; every write is one transaction.

    Args:
        path: the file; a writer creates it.
        is_writer: whether the connection may change the file; a reader neither changes nor creates one.

    Raises:
        DamagedDatabase: the file is not an outcome database, is damaged, or has another version.
        UnreadableFile: the file cannot be opened, or is locked.
    """

    def __init__(self, path: Path, *, is_writer: bool = True) -> None:
        self._path, self._is_writer = path, is_writer
        with database_errors(path):
            if is_writer:
                path.parent.mkdir(parents=True, exist_ok=True)
            name = str(path) if is_writer else _reader_uri(path)
            self._connection = sqlite3.connect(
                name, timeout=5.0, isolation_level=None, check_same_thread=False, uri=not is_writer
            )
            try:
                self.is_empty = self._check_schema() == 0
                if is_writer:
                    self._prepare()
            except BaseException:
                self._connection.close()
                raise
        self._identity = file_identity(path)

    @classmethod
    def open_reader(cls, path: Path) -> OutcomeDatabase | None:
        """A connection of a reader; None if there is no file or it is empty.

        Raises:
            DamagedDatabase: the file is not an outcome database, is damaged, or has another version.
            UnreadableFile: the file cannot be opened, or is locked.
        """
        if not path.exists():
            return None
        reader = cls(path, is_writer=False)
        if reader.is_empty:
            reader.close()
            return None
        return reader

    @property
    def is_in_place(self) -> bool:
        """Whether the path still is the file that was opened; False if it was moved, removed or replaced."""
        return self._identity is not None and file_identity(self._path) == self._identity

    def _check_schema(self) -> int:
        """The number of tables.

        Raises:
            DamagedDatabase: not the tables of an outcome database of this format.
        """
        run = self._connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            raise DamagedDatabase(self._path, f"outcome database of format {version}, expected {FORMAT}")
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables and version == 0:
            return 0
        for table, columns in _COLUMNS_OF.items():
            missing = columns - self._columns(table)
            if missing:
                reason = f"not an outcome database: table {table} has no column {', '.join(sorted(missing))}"
                raise DamagedDatabase(self._path, reason)
        return len(tables)

    def _columns(self, table: str) -> set[str]:
        """The names of the columns of a table; none if there is no such table."""
        return {column[1] for column in self._connection.execute(f"PRAGMA table_info({table})")}

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        # a killed process loses no committed transaction; only a power cut could lose the last ones
        run("PRAGMA synchronous = NORMAL")
        with self._connection:
            run("BEGIN IMMEDIATE")
            if self.is_empty:
                for table in _TABLES:
                    run(table)
            elif "tau" not in self._columns("predictions"):
                # written before τ could differ from row to row; programs of that time still read the file
                run("ALTER TABLE predictions ADD COLUMN tau REAL")
            run(_ALERTS)
            if "suppressed" not in self._columns("alerts"):
                run("ALTER TABLE alerts ADD COLUMN suppressed TEXT")
            run(f"PRAGMA user_version = {FORMAT}")

    def write(self, items: Sequence[PredictionRecord | OutcomeRecord | AlertEntry], now_s: int) -> None:
        """Write all items in one transaction, in order."""
        run, used = self._connection.execute, dict[ServedModel, int]()
        with self._connection:
            run("BEGIN IMMEDIATE")
            for item in items:
                if isinstance(item, OutcomeRecord):
                    run(_OUTCOME, (item.future_volatility, item.second, item.product, item.simulated))
                    continue
                if isinstance(item, AlertEntry):
                    self._write_alert(item)
                    continue
                if item.model not in used:
                    used[item.model] = self._find_or_insert(item.model, now_s)
                second = item.time_ns // SECOND_NS
                tau = None if isnan(item.tau) else item.tau
                values = (second, item.product, item.time_ns, item.probability, item.threshold, item.alert, tau)
                run(_PREDICTION, (used[item.model], *values))
            for model in used.values():
                run("UPDATE models SET used = ? WHERE id = ?", (now_s, model))

    def _write_alert(self, alert: AlertEntry) -> None:
        when = (alert.simulated, alert.opened, alert.product, alert.id, alert.closed)
        what = (alert.peak_probability, alert.threshold, alert.is_in_sample, alert.outcome)
        lead = None if isnan(alert.lead_s) else alert.lead_s
        self._connection.execute(_ALERT, (*when, *what, lead, alert.suppressed))

    def alerts(
        self, *, simulated: bool, limit: int, product: str | None = None, span: tuple[int, int] = EVER
    ) -> list[AlertEntry]:
        """The newest alerts of real or of simulated markets, oldest first; none in a file of an earlier version.

        Only those of ``product``, None for all, that overlap ``span`` (ns, end excluded). An alert lasts at most
        ``CAP_S``.
        """
        columns = self._columns("alerts")
        if not columns:
            return []
        first, last = span
        listed = _LISTED.format(suppressed="suppressed" if "suppressed" in columns else "NULL")
        asked = (simulated, first - _LONGEST_ALERT_NS, last, product, product, first, limit)
        rows = self._connection.execute(listed, asked).fetchall()
        return [
            AlertEntry(
                product=product,
                id=name,
                opened=opened,
                closed=closed,
                peak_probability=peak,
                threshold=threshold,
                simulated=bool(is_simulated),
                is_in_sample=bool(in_sample),
                outcome=outcome,
                lead_s=nan if lead is None else lead,
                suppressed=suppressed,
            )
            for is_simulated, opened, product, name, closed, peak, threshold, in_sample, outcome, lead, suppressed in (
                rows[::-1]
            )
        ]

    def first_second(self, product: str, *, simulated: bool) -> int | None:
        """The second of the oldest prediction of a product; None without one."""
        firsts = [
            self._connection.execute(
                "SELECT second FROM predictions WHERE model = ? AND product = ? ORDER BY second LIMIT 1",
                (model, product),
            ).fetchone()
            for model in self._models(simulated)
        ]
        return min((first[0] for first in firsts if first is not None), default=None)

    def range(self, product: str, first: int, last: int, step_s: int, *, simulated: bool) -> StoredRange:
        """The predictions of the seconds from ``first`` to ``last``, excluded, by ``step_s`` seconds.

        Where several models have a prediction in a second, the one with the latest row counts.
        """
        run, asked = self._connection.execute, {"first": first, "last": last, "step": step_s, "product": product}
        models = [str(number) for (number,) in run(_MODELS, (simulated, first, last))]
        # SQLite takes the other columns from the row with the latest time; one model needs no such selection
        newest, group = (", max(time)", " GROUP BY second") if len(models) > 1 else ("", "")
        rows = _ROWS.format(models=", ".join(models), newest=newest, group=group)
        bars = run(_RANGE.format(rows=rows), asked).fetchall()
        spikes = run(_SPIKES.format(rows=rows), asked).fetchall()
        return StoredRange(
            second=np.array([second for second, _, _ in bars], np.int64),
            probability=np.array([probability for _, probability, _ in bars], np.float64),
            threshold=np.array([threshold for _, _, threshold in bars], np.float64),
            spike_second=np.array([second for second, _ in spikes], np.int64),
            spike_volatility=np.array([volatility for _, volatility in spikes], np.float64),
        )

    def minutes(self, model: int, days: float) -> list[MinuteOutcome]:
        """The first prediction of each minute with a known outcome, by time, of each product.

        ``days`` count back from the model's newest prediction.
        """
        (newest,) = self._connection.execute("SELECT max(second) FROM predictions WHERE model = ?", (model,)).fetchone()
        rows = self._connection.execute(_MINUTES, (model, (newest or 0) - round(days * 86_400)))
        return [
            MinuteOutcome(product, second, probability, bool(spike)) for product, second, probability, spike in rows
        ]

    def _models(self, simulated: bool) -> list[int]:
        """The models of real or of simulated markets; the most recently used is the last."""
        rows = self._connection.execute("SELECT id FROM models WHERE simulated = ? ORDER BY used, id", (simulated,))
        return [number for (number,) in rows]

    def _find_or_insert(self, model: ServedModel, now_s: int) -> int:
        found = self.find(model)
        if found is not None:
            return found
        tau = None if isnan(model.tau) else model.tau
        values = (model.digest, model.name, model.version, tau, model.simulated, now_s)
        return self._connection.execute(_MODEL, values).lastrowid or 0

    def find(self, model: ServedModel) -> int | None:
        """The id of a model; None if it has no predictions."""
        row = self._connection.execute(
            "SELECT id FROM models WHERE digest = ? AND name = ? AND version = ? AND simulated = ?",
            (model.digest, model.name, model.version, model.simulated),
        ).fetchone()
        return None if row is None else int(row[0])

    def newest(self) -> ServedModel | None:
        """The most recently used model; None in an empty database."""
        row = self._connection.execute(
            "SELECT digest, name, version, tau, simulated FROM models ORDER BY used DESC, id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        digest, name, version, tau, simulated = row
        tau = float("nan") if tau is None else tau
        return ServedModel(digest=digest, name=name, version=version, tau=tau, simulated=bool(simulated))

    def evaluated(self, model: int, since_ns: int, product: str | None, limit: int) -> EvaluatedPredictions:
        """Up to ``limit`` of a model's predictions since ``since_ns`` with known outcomes, newest first."""
        values: list[int | str] = [model, -(-since_ns // SECOND_NS)]
        where = ""
        if product is not None:
            where = " AND product = ?"
            values.append(product)
        rows = self._connection.execute(f"{_EVALUATED}{where} ORDER BY second DESC LIMIT ?", (*values, limit))
        parts = [np.empty(0, _COLUMNS)]
        while batch := rows.fetchmany(_FETCH_ROWS):
            parts.append(np.array(batch, _COLUMNS))
        table = np.concatenate(parts)
        return EvaluatedPredictions(table["time"], table["probability"], table["alert"], table["spike"])

    def prune(self, keep_days: float, now_s: int) -> int:
        """Delete predictions older than ``keep_days`` and return their number.

        For a model in use, the days count back from its own newest second, since a tape or a simulated market has its
        own time; a model that was not used for that long is deleted with all its predictions.
        """
        run, keep_s = self._connection.execute, round(keep_days * 86_400)
        deleted = 0
        with self._connection:
            run("BEGIN IMMEDIATE")
            for model, used in run("SELECT id, used FROM models").fetchall():
                if used < now_s - keep_s:
                    deleted += run("DELETE FROM predictions WHERE model = ?", (model,)).rowcount
                    run("DELETE FROM models WHERE id = ?", (model,))
                    continue
                (newest,) = run("SELECT max(second) FROM predictions WHERE model = ?", (model,)).fetchone()
                old = "DELETE FROM predictions WHERE model = ? AND second < ?"
                deleted += run(old, (model, (newest or 0) - keep_s)).rowcount
            for is_simulated, newest in run("SELECT simulated, max(opened) FROM alerts GROUP BY simulated").fetchall():
                old = "DELETE FROM alerts WHERE simulated = ? AND opened < ?"
                run(old, (is_simulated, newest - keep_s * SECOND_NS))
        return deleted

    def close(self) -> None:
        """Close the file. If it was moved, it takes its log with it, which would otherwise stay at the old place."""
        try:
            if self._is_writer and not self.is_in_place:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            _log.warning("outcomes_not_complete", file=str(self._path), reason=str(error))
        finally:
            self._connection.close()
