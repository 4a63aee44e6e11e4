"""The SQLite file of predictions and outcomes: its tables, what is written and what is asked of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from math import isnan
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
    future_volatility REAL, spike INTEGER,
    PRIMARY KEY (model, second, product)) WITHOUT ROWID""",
)
_MODEL = "INSERT INTO models (digest, name, version, tau, simulated, used) VALUES (?, ?, ?, ?, ?, ?)"
_PREDICTION = """INSERT INTO predictions (model, second, product, time, probability, threshold, alert)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET time = excluded.time, probability = excluded.probability,
        threshold = excluded.threshold, alert = excluded.alert
    WHERE excluded.time >= predictions.time"""
# a model without τ has no spikes: NULL compares to NULL
_OUTCOME = """UPDATE predictions SET future_volatility = ?1,
        spike = (SELECT ?1 >= tau FROM models WHERE id = predictions.model)
    WHERE model IN (SELECT id FROM models WHERE simulated = ?4) AND second = ?2 AND product = ?3"""
_JUDGED = """SELECT time, probability, alert, spike FROM predictions
    WHERE model = ? AND second >= ? AND spike IS NOT NULL"""

_COLUMNS: Final = [("time", "i8"), ("probability", "f8"), ("alert", "?"), ("spike", "i1")]
_FETCHED: Final = 1024
"""Rows made into arrays at once: other threads wait for that long, about a millisecond."""


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """What was foreseen at ``time_ns``; ``alert`` tells whether it was called a spike."""

    product: str
    time_ns: int
    probability: float
    threshold: float
    alert: bool
    model: ServedModel


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What followed a second (Unix) of a product."""

    product: str
    second: int
    future_volatility: float
    simulated: bool


class Judged(msgspec.Struct, frozen=True):
    """The columns of n predictions whose outcome is known, newest first."""

    time: NDArray[np.int64]
    probability: NDArray[np.float64]
    called: NDArray[np.bool_]
    spike: NDArray[np.int8]


class OutcomeDatabase:
    """One connection, for one thread at a time. Every write is a transaction: it is there as a whole or not at all.

    Raises:
        UnreadableFile: the file is no such database, is of another version, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UnreadableFile(path, f"predictions cannot be kept there: {error}") from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._connection.close()
            raise UnreadableFile(path, f"predictions cannot be kept there: {error}") from error

    def _prepare(self, path: Path) -> None:
        run = self._connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            self._connection.close()
            raise UnreadableFile(path, f"format {version} of predictions, wanted {FORMAT}: move it away")
        run("PRAGMA journal_mode = WAL")
        # a kill loses nothing that was committed; only a power cut could lose the last transactions
        run("PRAGMA synchronous = NORMAL")
        if version == 0:
            for table in _TABLES:
                run(table)
            run(f"PRAGMA user_version = {FORMAT}")

    def write(self, items: Sequence[Prediction | Outcome], now_s: int) -> None:
        """Writes all in one transaction, in their order."""
        run, used = self._connection.execute, dict[ServedModel, int]()
        with self._connection:
            run("BEGIN IMMEDIATE")
            for item in items:
                if isinstance(item, Outcome):
                    run(_OUTCOME, (item.future_volatility, item.second, item.product, item.simulated))
                    continue
                if item.model not in used:
                    used[item.model] = self._id(item.model, now_s)
                second = item.time_ns // SECOND_NS
                told = (second, item.product, item.time_ns, item.probability, item.threshold, item.alert)
                run(_PREDICTION, (used[item.model], *told))
            for model in used.values():
                run("UPDATE models SET used = ? WHERE id = ?", (now_s, model))

    def _id(self, model: ServedModel, now_s: int) -> int:
        found = self.find(model)
        if found is not None:
            return found
        tau = None if isnan(model.tau) else model.tau
        told = (model.digest, model.name, model.version, tau, model.simulated, now_s)
        return self._connection.execute(_MODEL, told).lastrowid or 0

    def find(self, model: ServedModel) -> int | None:
        """The number under which a model's predictions stand; None if it has none."""
        row = self._connection.execute(
            "SELECT id FROM models WHERE digest = ? AND name = ? AND version = ? AND simulated = ?",
            (model.digest, model.name, model.version, model.simulated),
        ).fetchone()
        return None if row is None else int(row[0])

    def newest(self) -> ServedModel | None:
        """The model that was used last."""
        row = self._connection.execute(
            "SELECT digest, name, version, tau, simulated FROM models ORDER BY used DESC, id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        digest, name, version, tau, simulated = row
        tau = float("nan") if tau is None else tau
        return ServedModel(digest=digest, name=name, version=version, tau=tau, simulated=bool(simulated))

    def judged(self, model: int, since_ns: int, product: str | None, most: int) -> Judged:
        """Up to ``most`` of a model's predictions since then whose outcome is known, newest first."""
        asked: list[int | str] = [model, -(-since_ns // SECOND_NS)]
        where = ""
        if product is not None:
            where = " AND product = ?"
            asked.append(product)
        rows = self._connection.execute(f"{_JUDGED}{where} ORDER BY second DESC LIMIT ?", (*asked, most))
        parts = [np.empty(0, _COLUMNS)]
        while batch := rows.fetchmany(_FETCHED):
            parts.append(np.array(batch, _COLUMNS))
        table = np.concatenate(parts)
        return Judged(table["time"], table["probability"], table["alert"], table["spike"])

    def prune(self, keep_days: float, now_s: int) -> int:
        """Removes what is older than ``keep_days``, and returns how many predictions that was.

        A model in use keeps the last days before its own newest second, whatever time its market had (a tape's or
        a simulated one's); a model unused for that long goes altogether.
        """
        run, keep_s = self._connection.execute, round(keep_days * 86_400)
        gone = 0
        with self._connection:
            run("BEGIN IMMEDIATE")
            for model, used in run("SELECT id, used FROM models").fetchall():
                if used < now_s - keep_s:
                    gone += run("DELETE FROM predictions WHERE model = ?", (model,)).rowcount
                    run("DELETE FROM models WHERE id = ?", (model,))
                    continue
                (newest,) = run("SELECT max(second) FROM predictions WHERE model = ?", (model,)).fetchone()
                old = "DELETE FROM predictions WHERE model = ? AND second < ?"
                gone += run(old, (model, (newest or 0) - keep_s)).rowcount
        return gone

    def close(self) -> None:
        """Gives the file back."""
        self._connection.close()
