"""Predictions and their outcomes a minute later, stored so that live performance comes from delayed labels.

Callers never wait: rows pass through a bounded queue to one thread, which writes them in batches.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from math import isfinite
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np
import structlog

from volspike.background import BackgroundTask, Backlog, SupervisedThread, supervised
from volspike.errors import UnreadableFile
from volspike.locks import LockFile
from volspike.market import SECOND_NS
from volspike.monitoring.outcome_database import (
    COMPANIONS,
    EVER,
    NO_PREDICTIONS,
    AlertEntry,
    DamagedDatabase,
    MinuteOutcome,
    OutcomeDatabase,
    OutcomeRecord,
    PredictionRecord,
    StoredRange,
    database_errors,
    file_identity,
    is_damage,
)
from volspike.monitoring.performance import Performance, ServedModel, evaluate_predictions
from volspike.stores import rename_damaged

QUEUE_ROWS: Final = 65_536
BATCH_ROWS: Final = 8_192
MAX_EVALUATED_ROWS: Final = 200_000
PRUNE_EVERY_S: Final = 3600.0
RETRY_S: Final = 10.0

_log = structlog.get_logger(__name__)


class OutcomeStore:
    """A SQLite file (WAL) with one row per product, second and model: the second's last prediction and its outcome.

    ``predict`` and ``outcome`` are called from one thread and never wait. If the writer is too slow, the oldest rows
    are dropped and counted. A killed process loses about the last ``flush_s``.

    No state of the file stops the caller. A damaged or foreign file is renamed and a new one begins, as it does if the
    file is moved or removed meanwhile. While it cannot be written, or another process stores predictions in it, rows
    are counted as lost, ``fault`` states the reason, and the file is tried again every ``RETRY_S``.

    Args:
        keep_days: older rows are deleted, at the start and every hour; 0 keeps all.
        flush_s: how long rows are collected before they are written together.
        now: the clock in seconds that determines which models are still in use.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_days: float = 30.0,
        flush_s: float = 0.5,
        queue_rows: int = QUEUE_ROWS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._keep_days, self._flush_s, self._now = path, keep_days, flush_s, now
        self._database: OutcomeDatabase | None = None
        self._lock = LockFile(path.with_name(f".{path.name}.lock"))
        self.is_shared = False
        """Whether another process stores its predictions in the file, so that this one stores none."""
        self._retry_at = 0.0
        self._damaged: tuple[int, int] | None = None
        """Identity of a file in which a reader found damage."""
        self._held: dict[str, PredictionRecord] = {}
        self._backlog: Backlog[PredictionRecord | OutcomeRecord | AlertEntry | Event] = Backlog(queue_rows)
        self._failed = 0
        self._fault: str | None = None
        self._use = BackgroundTask("outcomes file")
        self._pruned_at = -PRUNE_EVERY_S
        with suppress(UnreadableFile):
            self._opened()
        self._thread = supervised("outcomes", self._write_all)

    @property
    def lost(self) -> int:
        """Predictions and outcomes that were not stored: the queue was full, or writing failed."""
        return self._backlog.dropped + self._failed

    @property
    def fault(self) -> str | None:
        """The error of the last batch; None if it was written."""
        return self._fault

    @property
    def tasks(self) -> tuple[BackgroundTask, ...]:
        """The background tasks: the thread that writes, and its use of the file."""
        return (self._thread, self._use)

    def predict(self, prediction: PredictionRecord) -> None:
        """Store the prediction unless a later one of the same second follows; NaN is ignored."""
        if not isfinite(prediction.probability):
            return
        held = self._held.get(prediction.product)
        if held is not None and (
            held.time_ns // SECOND_NS != prediction.time_ns // SECOND_NS or held.model != prediction.model
        ):
            self._backlog.put(held)
        self._held[prediction.product] = prediction

    def outcome(self, outcome: OutcomeRecord) -> None:
        """Store the outcome of a second, for every model's prediction of it on that kind of market."""
        if not isfinite(outcome.future_volatility):
            return
        held = self._held.get(outcome.product)
        if held is not None and held.time_ns // SECOND_NS <= outcome.second:
            self._backlog.put(self._held.pop(outcome.product))
        self._backlog.put(outcome)

    def alert(self, alert: AlertEntry) -> None:
        """Store an alert, or its new state."""
        self._backlog.put(alert)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything so far is written; False on timeout. Do not call it in an event loop."""
        written = Event()
        self._queue_held()
        self._backlog.put(written)
        return written.wait(timeout)

    def performance(
        self,
        since_ns: int,
        product: str | None = None,
        *,
        model: ServedModel | None = None,
        limit: int = MAX_EVALUATED_ROWS,
    ) -> Performance:
        """The performance of ``model`` (None: the most recently used) since ``since_ns``, on at most ``limit`` rows.

        Opens its own connection and takes about 0.5 s for 200 000 rows; do not call it in an event loop.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        rows = NO_PREDICTIONS
        with self._reader() as database:
            if database is not None:
                model = database.newest() if model is None else model
                number = None if model is None else database.find(model)
                rows = database.evaluated(-1 if number is None else number, since_ns, product, limit)
        if len(rows.time) == limit:
            since_ns = int(np.min(rows.time))
        return evaluate_predictions(model, product, since_ns, rows.probability, rows.alert, rows.spike)

    def alerts(
        self, *, simulated: bool, limit: int, product: str | None = None, span: tuple[int, int] = EVER
    ) -> list[AlertEntry]:
        """The newest stored alerts of real or simulated markets, oldest first. Opens its own connection.

        Only those of ``product``, None for all, that overlap ``span`` (ns, end excluded).

        Raises:
            UnreadableFile: the file cannot be read.
        """
        with self._reader() as database:
            if database is None:
                return []
            return database.alerts(simulated=simulated, limit=limit, product=product, span=span)

    def first_second(self, product: str, *, simulated: bool) -> int | None:
        """The Unix second of a product's oldest prediction; None without one. Opens its own connection.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        with self._reader() as database:
            return None if database is None else database.first_second(product, simulated=simulated)

    def range(self, product: str, first: int, last: int, step_s: int, *, simulated: bool) -> StoredRange | None:
        """The predictions of the seconds from ``first`` to ``last``, excluded. Opens its own connection.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        with self._reader() as database:
            return None if database is None else database.range(product, first, last, step_s, simulated=simulated)

    def minutes(self, model: ServedModel, days: float) -> list[MinuteOutcome]:
        """The first prediction of each minute with a known outcome, by time. Opens its own connection.

        ``days`` count back from the model's newest prediction.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        with self._reader() as database:
            number = None if database is None else database.find(model)
            return [] if database is None or number is None else database.minutes(number, days)

    @contextmanager
    def _reader(self) -> Iterator[OutcomeDatabase | None]:
        """A connection of its own; None if there is no file yet.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        try:
            database = OutcomeDatabase.open_reader(self._path)
            if database is None:
                yield None
                return
            with closing(database), database_errors(self._path):
                yield database
        except DamagedDatabase as error:
            self._damaged = error.identity  # the writer renames it
            raise

    def close(self, timeout: float = 5.0) -> bool:
        """Write what is queued and close the file; on timeout count the rest as lost and return False."""
        self._queue_held()
        self._backlog.close()
        is_complete = self._thread.close(timeout)
        left = self._backlog.drop_all()  # also what a thread that ended with a fault has left
        return is_complete and not left

    def _queue_held(self) -> None:
        for product in list(self._held):
            self._backlog.put(self._held.pop(product))

    def _write_all(self, thread: SupervisedThread) -> None:
        while batch := self._batch():
            self._write(batch)
            is_due = time.monotonic() - self._pruned_at >= PRUNE_EVERY_S
            if self._database is not None and self._keep_days > 0 and is_due:
                self._pruned_at = time.monotonic()
                self._prune(self._database)
            thread.succeed()
        self._close_database()
        self._lock.release()

    def _opened(self) -> OutcomeDatabase:
        """The database, opened again if the file is another one than before.

        Raises:
            UnreadableFile: it cannot be opened, or the last attempt was less than ``RETRY_S`` ago.
        """
        database = self._database
        if database is not None and not database.is_in_place:
            _log.warning("outcomes_moved", file=str(self._path), reason="moved, removed or replaced; a new file begins")
            self._close_database()
        elif self._damaged is not None and self._damaged == file_identity(self._path):
            self._replace_damaged("a reader found damage")
        self._damaged = None
        if self._database is None:
            if time.monotonic() < self._retry_at:
                raise UnreadableFile(self._path, "cannot be opened")
            try:
                self._database = self._open()
            except UnreadableFile as error:
                self._retry_at = time.monotonic() + RETRY_S
                self._report(error.reason)
                raise
        return self._database

    def _open(self) -> OutcomeDatabase:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.is_shared = not self._lock.acquire()
            if self.is_shared:
                raise UnreadableFile(self._path, f"process {self._lock.holder()} stores its predictions in this file")
        except OSError as error:
            raise UnreadableFile(self._path, f"cannot be opened: {error.strerror or error}") from error
        try:
            return OutcomeDatabase(self._path)
        except DamagedDatabase as error:
            if rename_damaged(self._path, error.reason, COMPANIONS) is None:
                raise
            return OutcomeDatabase(self._path)

    def _close_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _replace_damaged(self, reason: str) -> None:
        self._close_database()
        rename_damaged(self._path, reason, COMPANIONS)

    def _report(self, reason: str) -> None:
        """Sets the fault, which is logged and counted once."""
        if reason != self._fault:
            self._use.fail(f"{self._path}: predictions are not stored: {reason}")
        self._fault = reason

    def _batch(self) -> list[PredictionRecord | OutcomeRecord | AlertEntry | Event]:
        """The rows of ``flush_s`` after the first one; empty at the end."""
        batch = self._backlog.take(1, None)
        if batch and not isinstance(batch[0], Event):
            self._backlog.wait_closed(self._flush_s)
        return batch + self._backlog.take(BATCH_ROWS, 0.0)

    def _write(self, batch: list[PredictionRecord | OutcomeRecord | AlertEntry | Event]) -> None:
        rows = [item for item in batch if not isinstance(item, Event)]
        try:
            if rows:
                self._write_rows(rows)
        except UnreadableFile:  # reported where it was opened
            self._failed += len(rows)
        except sqlite3.Error as error:  # disk full, or locked by another program: the pipeline continues
            self._failed += len(rows)
            self._report(str(error))
            self._close_database()  # the next batch checks the file again
        except Exception as error:  # counted here, logged by the supervisor of the thread
            self._failed += len(rows)
            self._fault = str(error)
            raise
        finally:
            for item in batch:
                if isinstance(item, Event):
                    item.set()

    def _write_rows(self, rows: list[PredictionRecord | OutcomeRecord | AlertEntry]) -> None:
        try:
            self._opened().write(rows, int(self._now()))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._replace_damaged(str(error))
            self._opened().write(rows, int(self._now()))
        self._fault = None
        self._use.succeed()

    def _prune(self, database: OutcomeDatabase) -> None:
        try:
            database.prune(self._keep_days, int(self._now()))
        except sqlite3.Error as error:
            _log.warning("predictions_not_pruned", file=str(self._path), reason=str(error))
