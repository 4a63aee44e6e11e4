"""The files of a recording: one NDJSON file per product and hour, and what could not be written to them.

``TapeFiles`` is used by one thread at a time, the writer thread of ``Recorder``. Its calls wait for the disk and raise
no ``OSError``: while files cannot be written, ticks are counted as lost, and the next attempt is ten seconds later. The
gap ledger gets a gap for each such loss and for the time between two runs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from volspike.errors import UsageError
from volspike.locks import BINARY, LockFile, is_in_place, try_lock
from volspike.market import SECOND_NS, Cause, Gap
from volspike.tape.ledger import Ledger, last_received, repair_folder
from volspike.tape.names import HOUR_NS, RECORDER_LOCK_NAME, symbol_of, tape_name

RETRY_NS = 10 * SECOND_NS
"""Pause after a failed write before the next attempt."""

_LATE_NS = 60 * SECOND_NS
"""Frames of an hour may still arrive this long after it, and a clock may step back by as much at a full hour."""

_SAME_SECOND = 1_000
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | BINARY

Entry: TypeAlias = tuple[str, int, bytes | int]
"""A product, when a tick of it was received (ns UTC), and its line; or the number of lost ticks from then on."""


class TapeFiles:
    """The open files of a recording into ``folder`` and its gap ledger; ``now`` is ns UTC in all methods.

    Raises:
        UsageError: another process records into the folder.
    """

    def __init__(self, folder: Path, now: int) -> None:
        self.folder = folder
        self.ledger = Ledger(folder)
        self.recorded = 0
        """Ticks passed to the operating system."""
        self.unrecorded = 0
        """Ticks lost because they could not be written."""
        self.repaired: list[Path] = []
        """Files of an earlier run from which an incomplete last line was removed."""
        self.write_fault = ""
        """Why no file can be written; empty if files can be written."""
        self._lock = LockFile(folder / RECORDER_LOCK_NAME)
        self._products: dict[str, _ProductRecording] = {}
        self._earlier: dict[str, int] = {}
        self._is_repaired = False
        self._taken = 0
        """How many of the entries of the current ``write`` are in a buffer or counted."""
        self._sync_fault = ""
        self._retry_at = 0
        self._ledger_retry_at = 0
        self._syncing: ThreadPoolExecutor | None = None
        try:
            self._prepare_folder()
        except BlockingIOError as error:
            raise UsageError(f"{error.filename}: {error.strerror}") from error
        except OSError as error:
            self.stop(error, now)

    @property
    def fault(self) -> str:
        """The reason why the tape or the ledger cannot be written; empty if both can."""
        return self.write_fault or self.ledger.fault or self._sync_fault

    @property
    def open_files(self) -> list[Path]:
        """The files that are being written."""
        return [file.path for product in list(self._products.values()) if (file := product.file) is not None]

    def write(self, entries: Sequence[Entry], now: int) -> None:
        """Writes lines in their order, and the ledger's pending gaps; what cannot be written is counted as lost."""
        self._taken = 0
        for product_id, received, content in entries:
            if self._is_stopped(now) or not self._take(product_id, received, content, now):
                self._count_lost(product_id, received, content)
            self._taken += 1
        if self._is_stopped(now):
            return
        self._flush_ledger(now)
        written = 0
        for product in self._products.values():
            try:
                written += self._write(product)
            except OSError as error:
                self.stop(error, now)
                return
        if written:
            self.write_fault = ""
        self._flush_ledger(now)

    def end_past_hours(self, now: int) -> None:
        """Closes the files of hours that are over."""
        for product in self._products.values():
            if product.file is not None and now - (product.file.hour + 1) * HOUR_NS > _LATE_NS:
                self._finish(product)

    def stop(self, error: BaseException, now: int) -> None:
        """Closes all files until the next attempt and counts the lines that they did not take."""
        self.write_fault = _describe(error, self.folder)
        self._retry_at = now + RETRY_NS
        for product in self._products.values():
            file, product.file, product.gap = product.file, None, None
            if file is not None:
                if file.buffered:
                    self.unrecorded += file.buffered
                    product.count_lost(file.first_buffered, file.buffered)
                file.abandon()

    def fail(self, error: BaseException, entries: Sequence[Entry], now: int) -> None:
        """Stops after an unexpected error in ``write`` and counts the lines that it did not reach."""
        self.stop(error, now)
        for entry in entries[self._taken :]:
            self._count_lost(*entry)

    def close(self, now: int) -> None:
        """Ends the recording: flushes every file to the disk, and adds losses that no line followed to the ledger."""
        for product_id, product in self._products.items():
            if product.has_loss:
                self.ledger.add(product.gap_until(now, product_id, self.write_fault))
            self._finish(product)
        self.ledger.flush()
        if self._syncing is not None:
            self._syncing.shutdown()
        self._lock.release()

    def _prepare_folder(self) -> None:
        """Makes and locks the folder; the first time, repairs what an earlier run left and finds its last lines.

        Raises:
            BlockingIOError: another process records into the folder.
            OSError: the folder cannot be made, locked or listed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire():
            raise BlockingIOError(errno.EWOULDBLOCK, _in_use(self._lock.holder()), str(self.folder))
        if self._is_repaired:
            return
        self.repaired = repair_folder(self.folder)
        self._earlier = last_received(self.folder)
        self._is_repaired = True
        for product_id, product in self._products.items():
            product.continue_after(self._earlier.get(symbol_of(product_id)))

    def _is_stopped(self, now: int) -> bool:
        """Whether the next attempt is later; also true at a clock that was set back by less than the pause."""
        return bool(self.write_fault) and 0 < self._retry_at - now <= RETRY_NS

    def _product(self, product_id: str) -> _ProductRecording:
        product = self._products.get(product_id)
        if product is None:
            product = _ProductRecording()
            product.continue_after(self._earlier.get(symbol_of(product_id)))
            self._products[product_id] = product
        return product

    def _count_lost(self, product_id: str, received: int, content: bytes | int) -> None:
        """Counts a line as lost, or notes lost ticks that are counted elsewhere."""
        if isinstance(content, int):
            self._product(product_id).count_lost(received, content)
        else:
            self._product(product_id).count_lost(received, 1)
            self.unrecorded += 1

    def _take(self, product_id: str, received: int, content: bytes | int, now: int) -> bool:
        """Buffers a line in the file of its hour, or begins a gap at the line before a loss; False if that fails."""
        product = self._product(product_id)
        try:
            if isinstance(content, int):
                self._write(product)
                product.count_lost(received, content)
                return True
            file = product.file
            if file is None or not file.takes(received):
                file = self._open_next_file(product, product_id, received)
            elif product.has_loss and product.gap is None:
                product.gap = product.gap_until(received, product_id, self.write_fault)
        except OSError as error:
            self.stop(error, now)
            return False
        file.append(content, received)
        return True

    def _open_next_file(self, product: _ProductRecording, product_id: str, received: int) -> HourFile:
        """Opens the file that begins at ``received``; notes the gap before it, if ticks were or may have been lost."""
        if product.file is not None:
            self._write(product)
            self._finish(product)
        if self.write_fault:
            self._prepare_folder()
        product.file = HourFile(self.folder, product_id, received)
        if product.has_loss:
            # added to the ledger after the first line is written: a full disk still creates empty files
            product.gap = product.gap_until(received, product_id, self.write_fault)
        elif product.is_continued and product.latest is not None:
            self.ledger.add(_restart_gap(product.latest, received, product_id, -1, "no recorder was running"))
            product.is_continued = False
        return product.file

    def _flush_ledger(self, now: int) -> None:
        if self.ledger.pending and not 0 < self._ledger_retry_at - now <= RETRY_NS and not self.ledger.flush():
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
                    product.end_gap()
        return written

    def _finish(self, product: _ProductRecording) -> None:
        """Flushes a file to the disk in another thread: the lines of other files must not wait for that."""
        if product.file is None:
            return
        if self._syncing is None:
            self._syncing = ThreadPoolExecutor(1, thread_name_prefix="tape-sync")
        self._syncing.submit(self._sync, product.file)
        product.file = None

    def _sync(self, file: HourFile) -> None:
        try:
            file.sync_and_close()
        except Exception as error:  # noqa: BLE001  the end of the thread: nothing can be raised to a caller
            self._sync_fault = _describe(error, file.path)


class _ProductRecording:
    """The open file of one product, and what of the product is not recorded."""

    def __init__(self) -> None:
        self.file: HourFile | None = None
        self.latest: int | None = None
        """When the last recorded tick was received, ns UTC."""
        self.is_continued = False
        """True until the first line after that of an earlier run."""
        self.has_loss = False
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
        if not self.has_loss:
            self.first_unrecorded = received
        self.has_loss = True
        self.unrecorded += ticks

    def gap_until(self, received: int, product_id: str, fault: str) -> Gap:
        """The gap from the last recorded tick, or the first lost one, to ``received``."""
        start = self.first_unrecorded if self.latest is None else self.latest
        lost = -1 if self.is_continued else self.unrecorded
        reason = fault or "the disk was too slow"
        return _restart_gap(start, received, product_id, lost, f"{self.unrecorded} ticks not recorded: {reason}")

    def end_gap(self) -> None:
        """Begins again after a line was written."""
        self.gap, self.has_loss, self.unrecorded, self.is_continued = None, False, 0, False


def _restart_gap(start: int, end: int, product_id: str, lost: int, detail: str) -> Gap:
    return Gap(start=min(start, end), end=end, products=(product_id,), cause=Cause.RESTART, lost=lost, detail=detail)


def _in_use(holder: int | None) -> str:
    who = "another recorder" if holder is None else f"another recorder (process {holder})"
    return f"{who} writes to this folder: stop it, or record into another folder (--out of ingest, --tape of up)"


def _describe(error: BaseException, place: Path) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or place}: {error.strerror or error}"
    return f"{place}: {error!r}"


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
            OSError: not all of them could be written, or the file was removed or moved. The file ends with a complete
                line, and the lines that were not written are still buffered.
        """
        if not self._buffer:
            return
        if not is_in_place(self._descriptor, self.path):
            raise OSError(errno.ENOENT, "the file was removed or moved while it was recorded", str(self.path))
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
        with suppress(OSError):
            if self._size == 0 and is_in_place(self._descriptor, self.path):
                self.path.unlink()
        with suppress(OSError):
            os.close(self._descriptor)


def _create(folder: Path, product_id: str, received: int) -> tuple[Path, int]:
    """A new file and its descriptor; the second one of the same name ends in ``_2``."""
    name = tape_name(product_id, received, "")
    for number in range(1, _SAME_SECOND):
        path = folder / f"{name}{f'_{number}' if number > 1 else ''}.ndjson"
        with suppress(FileExistsError):
            return path, os.open(path, _NEW_FILE, 0o644)
    raise FileExistsError(errno.EEXIST, f"there are {_SAME_SECOND} files of this name", str(folder / name))
