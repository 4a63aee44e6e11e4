"""Predictions kept, and a minute later what really happened, so that live figures come from delayed labels.

Whoever predicts never waits: rows go through a bounded queue to one thread that writes them in batches.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from threading import Event, Thread
from typing import Final

import numpy as np
import structlog

from volspike.background import Backlog
from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS
from volspike.monitoring.outcome_database import Outcome, OutcomeDatabase, Prediction
from volspike.monitoring.performance import Performance, ServedModel, performance_of

QUEUE_ROWS: Final = 65_536
BATCH_ROWS: Final = 8_192
MOST_JUDGED: Final = 200_000
PRUNE_EVERY_S: Final = 3600.0

_log = structlog.get_logger(__name__)


class OutcomeStore:
    """A SQLite file (WAL) of one row per product, second and model: the second's last prediction and its outcome.

    ``predict`` and ``outcome`` are called from one thread; they never wait, and what the writer is too slow for is
    let go, the oldest first, and counted. After ``kill -9`` all but about the last ``flush_s`` is there.

    Args:
        keep_days: older rows are removed, at the start and every hour.
        flush_s: how long rows gather before they are written together.
        now: the wall clock in seconds, for telling which models are still in use.

    Raises:
        UnreadableFile: the file cannot be opened or is something else.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_days: float = 14.0,
        flush_s: float = 0.5,
        queue_rows: int = QUEUE_ROWS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._keep_days, self._flush_s, self._now = path, keep_days, flush_s, now
        self._database = OutcomeDatabase(path)
        self._held: dict[str, Prediction] = {}
        self._backlog: Backlog[Prediction | Outcome | Event] = Backlog(queue_rows)
        self._failed = 0
        self._fault: str | None = None
        self._thread = Thread(target=self._write_all, name="volspike-outcomes", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many predictions and outcomes were not kept: the queue was full, or writing failed."""
        return self._backlog.dropped + self._failed

    @property
    def fault(self) -> str | None:
        """Why the last batch could not be written; None when it could."""
        return self._fault

    def predict(self, prediction: Prediction) -> None:
        """Keeps the prediction if it stays its second's last; one that is no number is none and is left out."""
        if not isfinite(prediction.probability):
            return
        held = self._held.get(prediction.product)
        if held is not None and (
            held.time_ns // SECOND_NS != prediction.time_ns // SECOND_NS or held.model != prediction.model
        ):
            self._backlog.put(held)
        self._held[prediction.product] = prediction

    def outcome(self, outcome: Outcome) -> None:
        """Tells what followed a second; every model's prediction for it on that kind of market is judged by it."""
        if not isfinite(outcome.future_volatility):
            return
        held = self._held.get(outcome.product)
        if held is not None and held.time_ns // SECOND_NS <= outcome.second:
            self._backlog.put(self._held.pop(outcome.product))
        self._backlog.put(outcome)

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until all that was told is written; False when that takes longer. Not for the event loop's thread."""
        written = Event()
        self._put_held()
        self._backlog.put(written)
        return written.wait(timeout)

    def performance(
        self,
        since_ns: int,
        product: str | None = None,
        *,
        model: ServedModel | None = None,
        most: int = MOST_JUDGED,
    ) -> Performance:
        """The figures of ``model`` (None: the one used last) from ``since_ns`` on.

        At most the newest ``most`` rows are judged. Reads on a connection of its own and takes about 0.5 s for
        200 000 rows: not for the event loop's thread.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        database = OutcomeDatabase(self._path)
        try:
            model = database.newest() if model is None else model
            number = None if model is None else database.find(model)
            judged = database.judged(-1 if number is None else number, since_ns, product, most)
        except sqlite3.Error as error:
            raise UnreadableFile(self._path, f"predictions cannot be read: {error}") from error
        finally:
            database.close()
        if len(judged.time) == most:
            since_ns = int(np.min(judged.time))
        return performance_of(model, product, since_ns, judged.probability, judged.called, judged.spike)

    def close(self, timeout: float = 5.0) -> bool:
        """Writes what waits and gives the file back; False, and the rest counted as lost, when that takes longer."""
        self._put_held()
        self._backlog.close()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._backlog.drop_all()
            return False
        return True

    def _put_held(self) -> None:
        for product in list(self._held):
            self._backlog.put(self._held.pop(product))

    def _write_all(self) -> None:
        pruned = -PRUNE_EVERY_S
        try:
            while batch := self._batch():
                self._write(batch)
                if time.monotonic() - pruned >= PRUNE_EVERY_S:
                    self._prune()
                    pruned = time.monotonic()
        finally:
            self._database.close()

    def _batch(self) -> list[Prediction | Outcome | Event]:
        """What gathered in ``flush_s`` after the first row; nothing at the end."""
        batch = self._backlog.take(1, None)
        if batch and not isinstance(batch[0], Event):
            self._backlog.wait_closed(self._flush_s)
        return batch + self._backlog.take(BATCH_ROWS, 0.0)

    def _write(self, batch: list[Prediction | Outcome | Event]) -> None:
        rows = [item for item in batch if not isinstance(item, Event)]
        try:
            if rows:
                self._database.write(rows, int(self._now()))
            self._fault = None
        except sqlite3.Error as error:  # disk full, locked by another program: the pipeline goes on without
            self._failed += len(rows)
            self._fault = str(error)
            _log.error("predictions_not_kept", file=str(self._path), reason=str(error), rows=len(rows))
        for item in batch:
            if isinstance(item, Event):
                item.set()

    def _prune(self) -> None:
        try:
            self._database.prune(self._keep_days, int(self._now()))
        except sqlite3.Error as error:
            _log.warning("predictions_not_pruned", file=str(self._path), reason=str(error))
