"""Live recording: decoded frames → one NDJSON file per product and hour, and a gap ledger in the same folder.

The recorder is called in the loop that receives frames, so it never waits for a disk: it puts lines into a bounded
queue, from which a thread writes them twice a second (see ``hour_files``). Lines for which the queue has no space, as
at a disk that does not answer, are counted as lost like those that cannot be written.

A process that is killed loses the lines of the last half second and leaves files that can be read. While files cannot
be written, as on a full disk, ``is_recording`` is False, and the recorder tries again every ten seconds. The ledger
gets a gap for each loss and for the time between two runs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from volspike.background import BackgroundTask, SupervisedThread, supervised
from volspike.feeds.events import Frame
from volspike.market import Gap
from volspike.tape.hour_files import Entry, TapeFiles
from volspike.tape.write import frame_lines

FLUSH_S = 0.5
"""Age at which queued lines are passed to the operating system."""

QUEUE_LINES = 65_536
"""30 MB; two minutes of twenty busy products."""

CLOSE_S = 30.0
"""How long ``close`` waits for the disk."""

_SLICE_LINES = 1_024  # half a megabyte: joining more would hold the interpreter for milliseconds
_WAKE_LINES = 8 * _SLICE_LINES


class Recorder:
    """Records the new ticks of frames into ``folder``. It does not raise if the disk fails; see ``fault``.

    Call ``frame`` for every frame and ``gap`` for every gap that the session reports, in one thread. ``clock`` returns
    ns UTC; ``simulated`` marks every line.

        with Recorder(Path("data/raw")) as recorder:
            recorder.frame(received, decode_any(data, received))

    Raises:
        UsageError: another process records into the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        clock: Callable[[], int] = time.time_ns,
        simulated: bool = False,
        queue_lines: int = QUEUE_LINES,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._clock = clock
        self._simulated = simulated
        self._most = queue_lines
        self._flush_s = flush_s
        self._files = TapeFiles(self.folder, clock())
        self._queue: deque[Entry] = deque()
        self._in_work = 0
        self._refused = 0
        self._losses: dict[str, tuple[int, int]] = {}
        self._abandoned = ""
        self._wake = Event()
        self._flushes: deque[Event] = deque()
        self._is_closing = False
        self._thread = supervised("tape", self._write_all)

    @property
    def recorded(self) -> int:
        """Ticks passed to the operating system."""
        return self._files.recorded

    @property
    def unrecorded(self) -> int:
        """Ticks lost because they could not be written."""
        return self._files.unrecorded + self._refused

    @property
    def waiting(self) -> int:
        """Ticks that wait to be written."""
        return len(self._queue) + self._in_work

    @property
    def tasks(self) -> tuple[BackgroundTask, ...]:
        """The background task that writes."""
        return (self._thread,)

    @property
    def repaired(self) -> list[Path]:
        """Files of an earlier run from which an incomplete last line was removed."""
        return self._files.repaired

    @property
    def is_recording(self) -> bool:
        """False while ticks are lost, and counted, because they cannot be written."""
        return not (self._files.write_fault or self._losses or self._abandoned)

    @property
    def fault(self) -> str:
        """The reason why the tape or the ledger cannot be written; empty if both can."""
        if self._losses:
            return f"{self.folder}: the disk is too slow: more than {self._most} ticks wait to be written"
        return self._abandoned or self._files.fault

    @property
    def files(self) -> list[Path]:
        """The files that are being written."""
        return self._files.open_files

    def frame(self, received: int, frame: Frame) -> None:
        """Records the new ticks of one frame that was received at ``received`` (ns UTC)."""
        if not frame.ticks:
            return
        queue = self._queue
        if len(queue) >= self._most:
            self._refuse(received, frame)
            return
        if self._losses:
            self._queue_losses()
        for tick, line in zip(frame.ticks, frame_lines(frame, simulated=self._simulated), strict=True):
            queue.append((tick.product_id, received, line))
        if len(queue) >= _WAKE_LINES and not self._wake.is_set():
            self._wake.set()

    def gap(self, gap: Gap) -> None:
        """Adds a gap that the session reports to the ledger."""
        self._files.ledger.add(gap)

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything so far is written or counted as lost; False on timeout. It blocks an event loop."""
        written = Event()
        self._flushes.append(written)
        self._wake.set()
        return written.wait(timeout)

    def close(self, timeout: float = CLOSE_S) -> None:
        """Writes what is queued, flushes every file to the disk and ends the recording; may be called twice.

        If the disk does not take everything within ``timeout`` s, the rest is counted as lost.
        """
        if self._is_closing:
            return
        self._most = 0  # later frames are lost
        self._is_closing = True
        self._wake.set()
        if not self._thread.close(timeout):
            lost = self.waiting
            self._refused += lost
            self._queue.clear()
            self._abandoned = f"{self.folder}: the disk did not take {lost} ticks within {timeout:g} s"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse(self, received: int, frame: Frame) -> None:
        """Counts the ticks of a frame as lost."""
        self._refused += len(frame.ticks)
        for tick in frame.ticks:
            first, ticks = self._losses.get(tick.product_id, (received, 0))
            self._losses[tick.product_id] = first, ticks + 1

    def _queue_losses(self) -> None:
        """Queues the losses so far, so that the next line of each product ends a gap."""
        self._queue.extend((product_id, first, ticks) for product_id, (first, ticks) in self._losses.items())
        self._losses.clear()

    def _write_all(self, thread: SupervisedThread) -> None:
        while not self._is_closing:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            self._write_queue()
            thread.succeed()
        self._queue_losses()
        self._write_queue()
        self._files.close(self._clock())

    def _write_queue(self) -> None:
        """Writes what is queued now, and the gaps also if nothing is."""
        flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
        try:
            left = len(self._queue)
            self._write(min(left, _SLICE_LINES))
            while (left := left - _SLICE_LINES) > 0:
                self._write(min(left, _SLICE_LINES))
        finally:
            for written in flushes:
                written.set()

    def _write(self, lines: int) -> None:
        now = self._clock()
        entries = [self._queue.popleft() for _ in range(lines)]
        self._in_work = lines
        try:
            self._files.write(entries, now)
            self._files.end_past_hours(now)
        except BaseException as error:
            self._files.fail(error, entries, now)
            raise
        finally:
            self._in_work = 0
