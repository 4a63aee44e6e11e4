"""Recording live: frames → tapes, one file per product and hour, beside them the ledger of what was lost.

A run that is killed loses what it had not handed to the operating system yet, half a second of it, and leaves
files that read. A run that cannot write goes on, says so, and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from volspike.feeds.events import Frame
from volspike.market import SECOND_NS, Cause, Gap
from volspike.tape.hour_file import HOUR_NS, HourFile, last_received, repair_folder
from volspike.tape.ledger import Ledger
from volspike.tape.names import symbol_of
from volspike.tape.write import frame_lines

FLUSH_NS = SECOND_NS // 2
"""How old lines get before they are handed to the operating system, given that something calls often enough."""

RETRY_NS = 10 * SECOND_NS
"""How long a recorder that could not write waits until it tries again."""

_STEP_BACK_NS = 60 * SECOND_NS
_MOST_HELD_LINES = 1_024  # half a megabyte: more would hold up the caller for milliseconds


class _Track:
    """The recording of one product: its file, and what of it is not on a tape."""

    def __init__(self) -> None:
        self.file: HourFile | None = None
        self.latest: int | None = None
        self.is_resumed = False
        self.unrecorded = 0
        self.first_unrecorded = 0
        self.gap: Gap | None = None

    def resume(self, latest: int | None) -> None:
        """Goes on behind the last line, received at ``latest``, of an earlier run, if there was one."""
        self.latest = latest
        self.is_resumed = latest is not None

    def lose(self, received: int, lines: int = 1) -> None:
        """Counts lines that are on no tape, the first of them received at ``received``."""
        if self.unrecorded == 0:
            self.first_unrecorded = received
        self.unrecorded += lines


class Recorder:
    """Writes what a session tells into ``folder``. Nothing that happens to the disk raises; see ``is_recording``.

    Call ``frame`` for every frame, ``gap`` for every loss, and ``tick`` some times a second, so that lines are
    flushed while the market is silent. ``clock`` tells the time in ns UTC; ``simulated`` marks every line.

        with Recorder(Path("data/raw")) as recorder:
            recorder.frame(received, decode_any(data, received))
    """

    def __init__(self, folder: str | Path, *, clock: Callable[[], int] = time.time_ns, simulated: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        self.ledger = Ledger(self.folder)
        self.recorded = 0
        """Ticks that were handed to the operating system."""
        self.unrecorded = 0
        """Ticks that are on no tape."""
        self.repaired: list[Path] = []
        """Tapes of an earlier run whose torn last line was cut off."""
        self._clock = clock
        self._simulated = simulated
        self._tracks: dict[str, _Track] = {}
        self._earlier: dict[str, int] = {}
        self._held = 0
        self._fault = ""
        self._finish_fault = ""
        self._flushed = clock()
        self._retry_at = 0
        self._ledger_retry_at = 0
        self._finisher: ThreadPoolExecutor | None = None
        self._has_looked_back = False
        try:
            self._look_back()
        except OSError as error:
            self._fail(error, self._flushed)

    @property
    def is_recording(self) -> bool:
        """False while ticks are lost to the tape because it cannot be written; they are then counted."""
        return not self._fault

    @property
    def fault(self) -> str:
        """What keeps the recorder, or its ledger, from writing; empty where nothing does."""
        return self._fault or self.ledger.fault or self._finish_fault

    @property
    def files(self) -> list[Path]:
        """The files that are being written."""
        return [track.file.path for track in self._tracks.values() if track.file is not None]

    def frame(self, received: int, frame: Frame) -> None:
        """Records the new ticks of one frame that was received at ``received`` (ns UTC)."""
        now = self._clock()
        if frame.ticks:
            if self._fault and now < self._retry_at:
                self._lose(received, frame)
            else:
                self._take(received, frame)
        if self._fault or self._held >= _MOST_HELD_LINES or not 0 <= now - self._flushed < FLUSH_NS:
            self._flush(now)

    def gap(self, gap: Gap) -> None:
        """Puts a loss that the session tells into the ledger."""
        self.ledger.add(gap)

    def tick(self, now: int) -> None:
        """Flushes what is due at ``now`` (ns UTC, of ``clock``), and finishes the files of hours that are over."""
        if not 0 <= now - self._flushed < FLUSH_NS:
            self._flush(now)
            hour = now // HOUR_NS
            for track in self._tracks.values():
                # a minute later, for frames of the last second may still be under way
                if track.file is not None and track.file.hour < hour and now % HOUR_NS > _STEP_BACK_NS:
                    self._finish(track)

    def flush(self) -> None:
        """Hands everything so far to the operating system."""
        self._flush(self._clock())

    def close(self) -> None:
        """Writes everything out, onto the disk, and ends the recording; a second call does nothing."""
        self._flush(self._clock(), is_last=True)
        for track in self._tracks.values():
            self._finish(track)
        if self._finisher is not None:
            self._finisher.shutdown()
            self._finisher = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look_back(self) -> None:
        """Mends what an earlier run left, and learns when it recorded its last lines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._has_looked_back:
            return
        self.repaired = repair_folder(self.folder)
        self._earlier = last_received(self.folder)
        self._has_looked_back = True
        for product_id, track in self._tracks.items():
            track.resume(self._earlier.get(symbol_of(product_id)))

    def _track(self, product_id: str) -> _Track:
        track = self._tracks.get(product_id)
        if track is None:
            track = self._tracks[product_id] = _Track()
            track.resume(self._earlier.get(symbol_of(product_id)))
        return track

    def _take(self, received: int, frame: Frame) -> None:
        lines = frame_lines(frame, simulated=self._simulated)
        for tick, line in zip(frame.ticks, lines, strict=True):
            track = self._track(tick.product_id)
            file = track.file
            if file is None or _is_over(file, received):
                try:
                    file = self._opened(track, tick.product_id, received)
                except OSError as error:
                    self._fail(error, self._clock())
                    self._lose_tick(track, received)
                    continue
            file.append(line, received)
            self._held += 1

    def _opened(self, track: _Track, product_id: str, received: int) -> HourFile:
        """The next file of a product; what is missing before its first line is told to the ledger."""
        if track.file is not None:
            self._write_out(track)
            self._finish(track)
        if self._fault:
            self._look_back()
        track.file = HourFile(self.folder, product_id, received)
        if track.unrecorded:
            # known for sure once the first line lies in the file; a disk that is full still makes empty files
            track.gap = self._hole(track, product_id, received)
        elif track.is_resumed and track.latest is not None:
            self.ledger.add(_restart(track.latest, received, product_id, -1, "nobody was recording"))
            track.is_resumed = False
        return track.file

    def _hole(self, track: _Track, product_id: str, received: int) -> Gap:
        start = track.first_unrecorded if track.latest is None else track.latest
        lost = -1 if track.is_resumed else track.unrecorded
        return _restart(start, received, product_id, lost, f"{track.unrecorded} ticks not recorded: {self._fault}")

    def _flush(self, now: int, *, is_last: bool = False) -> None:
        if self._fault and now < self._retry_at and not is_last:
            return
        self._flushed = now
        self._flush_ledger(now, is_last)
        was_faulty, self._held = bool(self._fault), 0
        written = 0
        for track in self._tracks.values():
            try:
                written += self._write_out(track)
            except OSError as error:
                self._fail(error, now)
                return
        if was_faulty and written:
            self._fault = ""
        self._flush_ledger(now, is_last)

    def _flush_ledger(self, now: int, is_last: bool) -> None:
        if self.ledger.pending and (is_last or now >= self._ledger_retry_at) and not self.ledger.flush():
            self._ledger_retry_at = now + RETRY_NS

    def _write_out(self, track: _Track) -> int:
        """How many lines of a product were handed to the operating system."""
        file = track.file
        if file is None:
            return 0
        before = file.lines
        try:
            file.write_out()
        finally:
            written = file.lines - before
            self.recorded += written
            if written:
                track.latest = file.latest
                if track.gap is not None:
                    self.ledger.add(track.gap)
                    track.gap, track.unrecorded, track.is_resumed = None, 0, False
        return written

    def _fail(self, error: OSError, now: int) -> None:
        """Stops recording: files are closed as they are, and what they did not take is counted."""
        place = error.filename or self.folder
        self._fault = f"{place}: {error.strerror or error}"
        self._retry_at = now + RETRY_NS
        self._held = 0
        for track in self._tracks.values():
            if track.file is not None:
                if track.file.held:
                    self.unrecorded += track.file.held
                    track.lose(track.file.oldest_held, track.file.held)
                track.file.abandon()
                track.file, track.gap = None, None

    def _lose(self, received: int, frame: Frame) -> None:
        for tick in frame.ticks:
            self._lose_tick(self._track(tick.product_id), received)

    def _lose_tick(self, track: _Track, received: int) -> None:
        track.lose(received)
        self.unrecorded += 1

    def _finish(self, track: _Track) -> None:
        """Closes a file beside the caller's loop: a disk takes its time."""
        if track.file is None:
            return
        if self._finisher is None:
            self._finisher = ThreadPoolExecutor(1, thread_name_prefix="tape")
        self._finisher.submit(self._finished, track.file)
        track.file = None

    def _finished(self, file: HourFile) -> None:
        try:
            file.finish()
        except OSError as error:
            self._finish_fault = f"{file.path}: {error.strerror or error}"


def _is_over(file: HourFile, received: int) -> bool:
    """Whether a tick belongs into another file; a clock that steps back a little at the full hour changes nothing."""
    return not file.hour * HOUR_NS - _STEP_BACK_NS <= received < (file.hour + 1) * HOUR_NS


def _restart(start: int, end: int, product_id: str, lost: int, detail: str) -> Gap:
    return Gap(start=min(start, end), end=end, products=(product_id,), cause=Cause.RESTART, lost=lost, detail=detail)
