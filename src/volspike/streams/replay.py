"""Recorded tapes as messages, in the order of receive time, their lines byte for byte as they stand.

A tape into a topic at its own pace, faster, or as fast as the broker takes it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from volspike.errors import MalformedTick, UnreadableFile
from volspike.market import SECOND_NS
from volspike.market.time import NOT_A_TIME, parse_times
from volspike.streams.wire import Message, tick_message
from volspike.tape import TapeReport, tape_line, tapes_of
from volspike.tape.blocks import Blocks
from volspike.tape.lines import SIMULATED, read_oddity
from volspike.tape.names import is_parquet
from volspike.tape.parquet import parquet_ticks

BLOCK_BYTES: Final = 256 << 10
"""Text taken at a time; a tape that starts later is not read before its first block."""

PARQUET_ROWS: Final = 4_096


class _Placed(msgspec.Struct, gc=False):
    """Just what a message needs besides the line itself."""

    timestamp: str
    product_id: str
    source: str = ""


_PLACED: Final = msgspec.json.Decoder(_Placed)


def tape_messages(sources: str | Path | Sequence[str | Path], report: TapeReport) -> Iterator[Message]:
    """The lines of tapes as messages for ``ticks.raw``, by receive time; tapes are merged where they overlap.

    A line that names its product and its receive time goes as it stands: whoever reads the topic judges it as the
    reader of a tape would. Of another form (a bare frame, Parquet) each tick becomes a line. What names neither is
    told to ``report`` and left out. ``report`` counts ``lines`` and, as ``ticks``, the messages.

    Raises:
        UsageError: a source names no tape; at the call.
        UnreadableFile: nothing in any of them can be sent; at the call.
    """
    paths = tapes_of(sources)
    report.files = [str(path) for path in paths]
    report.total_bytes = sum(path.stat().st_size for path in paths)
    return _in_order(paths, report)


class _Head(NamedTuple):
    """An open tape at its next message; ``reached`` is the latest receive time up to it, which never steps back."""

    reached: int
    rank: int
    message: Message
    rest: Iterator[Message]


def _in_order(paths: Sequence[Path], report: TapeReport) -> Iterator[Message]:
    timed = []
    for path in paths:
        first = next(_messages(path, TapeReport()), None)
        if first is None:
            _read_in_vain(path, report)
        else:
            timed.append((first.received, path))
    if not timed:
        raise UnreadableFile(report.files[0], f"{report.lines:,} lines and not one tick in it: record a tape first")
    timed.sort(key=lambda tape: tape[0])
    return _counted(_merged(timed, report), report)


def _merged(timed: Sequence[tuple[int, Path]], report: TapeReport) -> Iterator[Message]:
    """By receive time, equal times in the order of the tapes; inside of a tape the order stays as it is.

    A tape is opened when the others have come to its first message.
    """
    open_tapes: list[_Head] = []
    opened = 0
    while opened < len(timed) or open_tapes:
        while opened < len(timed) and (not open_tapes or timed[opened][0] < open_tapes[0].reached):
            rest = _messages(timed[opened][1], report)
            heapq.heappush(open_tapes, _Head(timed[opened][0], opened, next(rest), rest))
            opened += 1
        head = open_tapes[0]
        yield head.message
        following = next(head.rest, None)
        if following is None:
            heapq.heappop(open_tapes)
        else:
            reached = max(head.reached, following.received)
            heapq.heapreplace(open_tapes, _Head(reached, head.rank, following, head.rest))


def _messages(path: Path, report: TapeReport) -> Iterator[Message]:
    return _of_parquet(path, report) if is_parquet(path) else _of_text(path, report)


def _read_in_vain(path: Path, report: TapeReport) -> None:
    for _ in _messages(path, report):
        pass
    report.add_note(path, "no tick in it")


def _counted(messages: Iterator[Message], report: TapeReport) -> Iterator[Message]:
    for message in messages:
        report.ticks += 1
        yield message


def _of_text(path: Path, report: TapeReport) -> Iterator[Message]:
    number, counted = 1, 0
    with Blocks(path, BLOCK_BYTES) as blocks:
        for block in blocks:
            lines = block.split(b"\n")
            yield from _of_lines(path, number, lines, report)
            number += block.count(b"\n")
            report.bytes_read += blocks.consumed - counted
            counted = blocks.consumed
        if blocks.fault is not None:
            report.add_note(path, blocks.fault)


def _of_lines(path: Path, first: int, lines: Sequence[bytes], report: TapeReport) -> Iterator[Message]:
    placed = [_placed(line) for line in lines]
    times = parse_times([each.timestamp if each is not None else "" for each in placed]).tolist()
    for number, (line, each, received) in enumerate(zip(lines, placed, times, strict=True), first):
        if each is not None and received != NOT_A_TIME and each.product_id:
            report.lines += 1
            report.simulated |= each.source == SIMULATED
            yield tick_message(each.product_id, line, received)
        elif stripped := line.strip():
            report.lines += 1
            yield from _of_oddity(path, number, stripped, report)


def _placed(line: bytes) -> _Placed | None:
    try:
        return _PLACED.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _of_oddity(path: Path, number: int, text: bytes, report: TapeReport) -> Iterator[Message]:
    """A line that does not place itself: the ticks that the tape's reader finds in it, each as a line of its own."""
    try:
        oddity = read_oddity(text)
    except MalformedTick as fault:
        report.add_rejected(path, number, str(fault))
        return
    report.ignored.update(oddity.ignored)
    report.simulated |= oddity.simulated
    for tick in oddity.ticks:
        yield tick_message(tick.product_id, tape_line(tick, simulated=oddity.simulated), tick.received)


def _of_parquet(path: Path, report: TapeReport) -> Iterator[Message]:
    told = TapeReport()
    for ticks in parquet_ticks(path, told, rows=PARQUET_ROWS):
        report.simulated |= told.simulated
        for tick in ticks:
            yield tick_message(tick.product_id, tape_line(tick, simulated=told.simulated), tick.received)
    report.lines += told.lines
    report.rejected += told.rejected
    report.rejections += told.rejections
    report.bytes_read += path.stat().st_size


SHOW_EVERY_S: Final = 0.5
_LOOK_EVERY: Final = 512
_LONGEST_WAIT_S: Final = 0.1


class Outlet(Protocol):
    """Where messages go; a ``TopicProducer``."""

    @property
    def delivered(self) -> int:
        """Messages that arrived."""
        ...

    def send(self, message: Message) -> None:
        """Takes a message; may wait."""
        ...

    def serve(self, timeout_s: float = 0.0) -> None:
        """Waits up to ``timeout_s``, and may return sooner."""
        ...


@dataclass(slots=True)
class ReplayProgress:
    """How far a replay is; ``behind_s`` is the most by which a message was sent after it was due."""

    sent: int = 0
    seconds: float = 0.0
    market_seconds: float = 0.0
    behind_s: float = 0.0

    @property
    def rate(self) -> float:
        """Messages a second since the start."""
        return self.sent / self.seconds if self.seconds > 0 else 0.0


def replay(
    messages: Iterable[Message],
    outlet: Outlet,
    speed: float,
    progress: ReplayProgress,
    *,
    clock: Callable[[], float] = time.monotonic,
    show: Callable[[ReplayProgress], None] = lambda _: None,
) -> None:
    """Sends all messages, each when it is due; ``progress`` is filled meanwhile and shown now and then.

    A message is due (received − first received) / ``speed`` seconds after the start, by ``clock`` and not after the
    one before it, so nothing adds up. One whose receive time steps back goes at once. ``speed`` 0 waits for nothing.

    Raises:
        StreamError: as ``outlet`` raises it.
    """
    began, shown, first = clock(), 0.0, None
    due = began
    for message in messages:
        if first is None:
            first = message.received
        progress.market_seconds = max(progress.market_seconds, (message.received - first) / SECOND_NS)
        if speed:
            due = max(due, began + (message.received - first) / SECOND_NS / speed)
            _wait_until(due, outlet, clock)
            progress.behind_s = max(progress.behind_s, clock() - due)
        outlet.send(message)
        progress.sent += 1
        if speed or progress.sent % _LOOK_EVERY == 0:
            progress.seconds = clock() - began
            if progress.seconds - shown >= SHOW_EVERY_S:
                shown = progress.seconds
                show(progress)
    progress.seconds = clock() - began


def _wait_until(due: float, outlet: Outlet, clock: Callable[[], float]) -> None:
    """In slices, for a signal is only seen between them."""
    while (ahead := due - clock()) > 0:
        outlet.serve(min(ahead, _LONGEST_WAIT_S))
