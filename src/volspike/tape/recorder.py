"""Live recording: decoded frames → one NDJSON file per product and hour, and a gap ledger in the same folder.

The recorder runs in the loop that receives frames, so it never raises because of a disk and never waits for one: lines
are buffered for half a second, and files are flushed to the disk in a thread when their hour is over.

A process that is killed loses the lines it had not passed to the operating system and leaves files that can be read.
While files cannot be written, as on a full disk, ticks are counted as lost, ``is_recording`` is False, and the recorder
tries again every ten seconds. The ledger gets a gap for each such loss and for the time between two runs.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from volspike.feeds.events import Frame
from volspike.locks import try_lock
from volspike.market import SECOND_NS, Cause, Gap
from volspike.tape.ledger import Ledger, last_received, repair_folder
from volspike.tape.names import symbol_of, tape_name
from volspike.tape.write import frame_lines

FLUSH_NS = SECOND_NS // 2
"""Age at which buffered lines are passed to the operating system."""

RETRY_NS = 10 * SECOND_NS
"""Pause after a failed write before the next attempt."""

HOUR_NS = 3_600 * SECOND_NS

_LATE_NS = 60 * SECOND_NS
"""Frames of an hour may still arrive this long after it, and a clock may step back by as much at a full hour."""

_BUFFERED_LINES = 1_024  # half a megabyte: writing more would block the caller for milliseconds
_SAME_SECOND = 1_000
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)


class Recorder:
    """Records the new ticks of frames into ``folder``. It does not raise if the disk fails; see ``fault``.

    Call ``frame`` for every frame, ``gap`` for every gap that the session reports, and ``tick`` several times a second,
    so that lines are flushed while the market is silent. ``clock`` returns ns UTC; ``simulated`` marks every line.

        with Recorder(Path("data/raw")) as recorder:
            recorder.frame(received, decode_any(data, received))
    """

    def __init__(self, folder: str | Path, *, clock: Callable[[], int] = time.time_ns, simulated: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        self.ledger = Ledger(self.folder)
        self.recorded = 0
        """Ticks passed to the operating system."""
        self.unrecorded = 0
        """Ticks lost because they could not be written."""
        self.repaired: list[Path] = []
        """Files of an earlier run from which an incomplete last line was removed."""
        self._clock = clock
        self._simulated = simulated
        self._products: dict[str, _ProductRecording] = {}
        self._earlier: dict[str, int] = {}
        self._is_repaired = False
        self._buffered = 0
        self._write_fault = ""
        self._sync_fault = ""
        self._flushed_at = clock()
        self._retry_at = 0
        self._ledger_retry_at = 0
        self._syncing: ThreadPoolExecutor | None = None
        try:
            self._prepare_folder()
        except OSError as error:
            self._stop(error, self._flushed_at)

    @property
    def is_recording(self) -> bool:
        """False while ticks are lost, and counted, because no file can be written."""
        return not self._write_fault

    @property
    def fault(self) -> str:
        """The reason why the tape or the ledger cannot be written; empty if both can."""
        return self._write_fault or self.ledger.fault or self._sync_fault

    @property
    def files(self) -> list[Path]:
        """The files that are being written."""
        return [product.file.path for product in self._products.values() if product.file is not None]

    def frame(self, received: int, frame: Frame) -> None:
        """Records the new ticks of one frame that was received at ``received`` (ns UTC)."""
        now = self._clock()
        if frame.ticks:
            if self._write_fault and now < self._retry_at:
                for tick in frame.ticks:
                    self._count_lost(self._product(tick.product_id), received)
            else:
                self._append(received, frame)
        if self._write_fault or self._buffered >= _BUFFERED_LINES or self._is_flush_due(now):
            self._flush(now)

    def gap(self, gap: Gap) -> None:
        """Adds a gap that the session reports to the ledger."""
        self.ledger.add(gap)

    def tick(self, now: int) -> None:
        """Flushes lines that are old enough at ``now`` (ns UTC, of ``clock``) and closes the files of past hours."""
        if not self._is_flush_due(now):
            return
        self._flush(now)
        for product in self._products.values():
            if product.file is not None and now - (product.file.hour + 1) * HOUR_NS > _LATE_NS:
                self._finish(product)

    def flush(self) -> None:
        """Passes all buffered lines to the operating system."""
        self._flush(self._clock())

    def close(self) -> None:
        """Writes what is buffered, flushes every file to the disk and ends the recording; may be called twice."""
        self._flush(self._clock(), is_last=True)
        for product in self._products.values():
            self._finish(product)
        if self._syncing is not None:
            self._syncing.shutdown()
            self._syncing = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare_folder(self) -> None:
        """Makes the folder; the first time, repairs what an earlier run left and finds its last line per product."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._is_repaired:
            return
        self.repaired = repair_folder(self.folder)
        self._earlier = last_received(self.folder)
        self._is_repaired = True
        for product_id, product in self._products.items():
            product.continue_after(self._earlier.get(symbol_of(product_id)))

    def _product(self, product_id: str) -> _ProductRecording:
        product = self._products.get(product_id)
        if product is None:
            product = self._products[product_id] = _ProductRecording()
            product.continue_after(self._earlier.get(symbol_of(product_id)))
        return product

    def _append(self, received: int, frame: Frame) -> None:
        lines = frame_lines(frame, simulated=self._simulated)
        for tick, line in zip(frame.ticks, lines, strict=True):
            product = self._product(tick.product_id)
            file = product.file
            if file is None or not file.takes(received):
                try:
                    file = self._open_next_file(product, tick.product_id, received)
                except OSError as error:
                    self._stop(error, self._clock())
                    self._count_lost(product, received)
                    continue
            file.append(line, received)
            self._buffered += 1

    def _open_next_file(self, product: _ProductRecording, product_id: str, received: int) -> HourFile:
        """Opens the file that begins at ``received``; notes the gap before it, if ticks were or may have been lost."""
        if product.file is not None:
            self._write(product)
            self._finish(product)
        if self._write_fault:
            self._prepare_folder()
        product.file = HourFile(self.folder, product_id, received)
        if product.unrecorded:
            # added to the ledger after the first line is written: a full disk still creates empty files
            product.gap = product.gap_until(received, product_id, self._write_fault)
        elif product.is_continued and product.latest is not None:
            self.ledger.add(_restart_gap(product.latest, received, product_id, -1, "no recorder was running"))
            product.is_continued = False
        return product.file

    def _is_flush_due(self, now: int) -> bool:
        """True also if the clock has stepped back, by an unknown amount."""
        return not 0 <= now - self._flushed_at < FLUSH_NS

    def _flush(self, now: int, *, is_last: bool = False) -> None:
        if self._write_fault and now < self._retry_at and not is_last:
            return
        self._flushed_at = now
        self._flush_ledger(now, is_last)
        self._buffered = 0
        written = 0
        for product in self._products.values():
            try:
                written += self._write(product)
            except OSError as error:
                self._stop(error, now)
                return
        if written:
            self._write_fault = ""
        self._flush_ledger(now, is_last)

    def _flush_ledger(self, now: int, is_last: bool) -> None:
        if self.ledger.pending and (is_last or now >= self._ledger_retry_at) and not self.ledger.flush():
            self._ledger_retry_at = now + RETRY_NS

    def _write(self, product: _ProductRecording) -> int:
        """Passes a product's lines to the operating system and returns their number."""
        file = product.file
        if file is None:
            return 0
        before = file.lines
        try:
            file.write()
        finally:
            written = file.lines - before
            self.recorded += written
            if written:
                product.latest = file.latest
                if product.gap is not None:
                    self.ledger.add(product.gap)
                    product.gap, product.unrecorded, product.is_continued = None, 0, False
        return written

    def _stop(self, error: OSError, now: int) -> None:
        """Closes all files until the next attempt and counts the lines that they did not take."""
        place = error.filename or self.folder
        self._write_fault = f"{place}: {error.strerror or error}"
        self._retry_at = now + RETRY_NS
        self._buffered = 0
        for product in self._products.values():
            file, product.file, product.gap = product.file, None, None
            if file is not None:
                if file.buffered:
                    self.unrecorded += file.buffered
                    product.count_lost(file.first_buffered, file.buffered)
                file.abandon()

    def _count_lost(self, product: _ProductRecording, received: int) -> None:
        product.count_lost(received, 1)
        self.unrecorded += 1

    def _finish(self, product: _ProductRecording) -> None:
        """Flushes a file to the disk in a thread, since that takes time."""
        if product.file is None:
            return
        if self._syncing is None:
            self._syncing = ThreadPoolExecutor(1, thread_name_prefix="tape")
        self._syncing.submit(self._sync, product.file)
        product.file = None

    def _sync(self, file: HourFile) -> None:
        try:
            file.sync_and_close()
        except OSError as error:
            self._sync_fault = f"{file.path}: {error.strerror or error}"


class _ProductRecording:
    """The open file of one product, and what of the product is not recorded."""

    def __init__(self) -> None:
        self.file: HourFile | None = None
        self.latest: int | None = None
        """When the last recorded tick was received, ns UTC."""
        self.is_continued = False
        """True until the first line after that of an earlier run."""
        self.unrecorded = 0
        self.first_unrecorded = 0
        self.gap: Gap | None = None
        """The gap before the open file, until the file has a line."""

    def continue_after(self, latest: int | None) -> None:
        """Continues an earlier run whose last tick was received at ``latest``, if there was one."""
        self.latest = latest
        self.is_continued = latest is not None

    def count_lost(self, received: int, ticks: int) -> None:
        """Counts lost ticks, the first of which was received at ``received``."""
        if self.unrecorded == 0:
            self.first_unrecorded = received
        self.unrecorded += ticks

    def gap_until(self, received: int, product_id: str, fault: str) -> Gap:
        """The gap from the last recorded tick, or the first lost one, to ``received``."""
        start = self.first_unrecorded if self.latest is None else self.latest
        lost = -1 if self.is_continued else self.unrecorded
        return _restart_gap(start, received, product_id, lost, f"{self.unrecorded} ticks not recorded: {fault}")


def _restart_gap(start: int, end: int, product_id: str, lost: int, detail: str) -> Gap:
    return Gap(start=min(start, end), end=end, products=(product_id,), cause=Cause.RESTART, lost=lost, detail=detail)


class HourFile:
    """The lines of one product in one hour UTC, buffered until ``write``; the file only ever holds complete lines.

    ``latest`` is when the last line in the file was received (ns UTC), None before the first one.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, folder: Path, product_id: str, received: int) -> None:
        self.hour = received // HOUR_NS
        self.latest: int | None = None
        self.lines = 0
        self.path, self._descriptor = _create(folder, product_id, received)
        try_lock(self._descriptor)
        self._size = 0
        self._buffer: list[bytes] = []
        self._times: list[int] = []

    @property
    def buffered(self) -> int:
        """The number of lines that are not written yet."""
        return len(self._buffer)

    @property
    def first_buffered(self) -> int:
        """When the first line that is not written yet was received."""
        return self._times[0]

    def takes(self, received: int) -> bool:
        """Whether a tick belongs into this file: it is of its hour, or the clock stepped back a little."""
        return self.hour * HOUR_NS - _LATE_NS <= received < (self.hour + 1) * HOUR_NS

    def append(self, line: bytes, received: int) -> None:
        """Buffers one line, its line end included."""
        self._buffer.append(line)
        self._times.append(received)

    def write(self) -> None:
        """Passes the buffered lines to the operating system.

        Raises:
            OSError: not all of them could be written, or the file was removed. The file ends with a complete line, and
                the lines that were not written are still buffered.
        """
        if not self._buffer:
            return
        if os.fstat(self._descriptor).st_nlink == 0:
            raise OSError(errno.ENOENT, "the file was removed while it was recorded", str(self.path))
        text = memoryview(b"".join(self._buffer))
        written = 0
        try:
            while written < len(text):
                written += os.write(self._descriptor, text[written:])
        finally:
            self._keep_complete_lines(bytes(text[:written]))

    def _keep_complete_lines(self, written: bytes) -> None:
        """Counts the complete lines in ``written`` and cuts an incomplete one off the file."""
        complete = written.rfind(b"\n") + 1
        self._size += complete
        if complete < len(written):
            with suppress(OSError):  # then the next start repairs the file
                os.ftruncate(self._descriptor, self._size)
        lines = written.count(b"\n")
        if lines:
            self.latest = self._times[lines - 1]
        self.lines += lines
        del self._buffer[:lines], self._times[:lines]

    def sync_and_close(self) -> None:
        """Flushes the file to the disk and closes it.

        Raises:
            OSError: the disk did not take it.
        """
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Closes the file without flushing it to the disk; an empty file is removed."""
        os.close(self._descriptor)
        if self._size == 0:
            with suppress(OSError):
                self.path.unlink()


def _create(folder: Path, product_id: str, received: int) -> tuple[Path, int]:
    """A new file and its descriptor; the second one of the same name ends in ``_2``."""
    # a product's name comes from the exchange and must not lead to another folder
    name = tape_name(symbol_of(product_id), received, "")
    for number in range(1, _SAME_SECOND):
        path = folder / f"{name}{f'_{number}' if number > 1 else ''}.ndjson"
        with suppress(FileExistsError):
            return path, os.open(path, _NEW_FILE, 0o644)
    raise FileExistsError(errno.EEXIST, f"there are {_SAME_SECOND} files of this name", str(folder / name))
