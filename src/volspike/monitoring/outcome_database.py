"""The SQLite database of predictions and outcomes: tables, writes and queries."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

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
_EVALUATED = """SELECT time, probability, alert, spike FROM predictions
    WHERE model = ? AND second >= ? AND spike IS NOT NULL"""

_COLUMNS: Final = [("time", "i8"), ("probability", "f8"), ("alert", "?"), ("spike", "i1")]
_FETCH_ROWS: Final = 1024
"""Rows per conversion to an array, which blocks other threads for about a millisecond."""


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


class EvaluatedPredictions(msgspec.Struct, frozen=True):
    """The columns of n predictions with known outcomes, newest first."""

    time: NDArray[np.int64]
    probability: NDArray[np.float64]
    alert: NDArray[np.bool_]
    spike: NDArray[np.int8]


class OutcomeDatabase:
    """A connection for one thread at a time; every write is one transaction.

    Raises:
        UnreadableFile: the file is not an outcome database, has another version, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UnreadableFile(path, f"not usable as an outcome database: {error}") from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._connection.close()
            raise UnreadableFile(path, f"not usable as an outcome database: {error}") from error

    def _prepare(self, path: Path) -> None:
        run = self._connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            self._connection.close()
            raise UnreadableFile(path, f"outcome database of format {version}, expected {FORMAT}: move the file away")
        run("PRAGMA journal_mode = WAL")
        # a killed process loses no committed transaction; only a power cut could lose the last ones
        run("PRAGMA synchronous = NORMAL")
        if version == 0:
            for table in _TABLES:
                run(table)
            run(f"PRAGMA user_version = {FORMAT}")
        elif "tau" not in {column[1] for column in run("PRAGMA table_info(predictions)")}:
            # written before τ could differ from row to row; programs of that time still read the file
            run("ALTER TABLE predictions ADD COLUMN tau REAL")

    def write(self, items: Sequence[PredictionRecord | OutcomeRecord], now_s: int) -> None:
        """Write all items in one transaction, in order."""
        run, used = self._connection.execute, dict[ServedModel, int]()
        with self._connection:
            run("BEGIN IMMEDIATE")
            for item in items:
                if isinstance(item, OutcomeRecord):
                    run(_OUTCOME, (item.future_volatility, item.second, item.product, item.simulated))
                    continue
                if item.model not in used:
                    used[item.model] = self._find_or_insert(item.model, now_s)
                second = item.time_ns // SECOND_NS
                tau = None if isnan(item.tau) else item.tau
                values = (second, item.product, item.time_ns, item.probability, item.threshold, item.alert, tau)
                run(_PREDICTION, (used[item.model], *values))
            for model in used.values():
                run("UPDATE models SET used = ? WHERE id = ?", (now_s, model))

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
        return deleted

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
