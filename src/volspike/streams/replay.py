"""Replay of recorded tapes into a topic: lines unchanged, in order of receive time, at any speed."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from volspike.errors import MalformedTick, UnreadableFile
from volspike.market import SECOND_NS
from volspike.market.time import NOT_A_TIME, parse_times
from volspike.streams.wire import Message, tick_message
from volspike.tape import TapeReport, tape_line, tapes_of
from volspike.tape.blocks import Blocks, holds_parquet
from volspike.tape.lines import SIMULATED, read_irregular_line
from volspike.tape.names import venue_of, with_venue
from volspike.tape.parquet import parquet_ticks

BLOCK_BYTES: Final = 256 << 10
"""Text read at a time; a tape that starts later is only read up to its first block."""

PARQUET_ROWS: Final = 4_096


class _LineKey(msgspec.Struct, gc=False):
    """The fields of a line that a message needs."""

    timestamp: str
    product_id: str
    source: str = ""


_LINE_KEY: Final = msgspec.json.Decoder(_LineKey)


def tape_messages(sources: str | Path | Sequence[str | Path], report: TapeReport) -> Iterator[Message]:
    """The lines of tapes as messages for ``ticks.raw``, by receive time; overlapping tapes are merged.

    A line with product and receive time is sent unchanged; consumers treat it as the reader of a tape would. In other
    forms (bare frames, Parquet) each tick becomes a line. Lines without both are dropped and added to ``report``, which
    counts ``lines`` and, as ``ticks``, the messages.

    Raises:
        UsageError: a source names no tape; raised by the call.
        UnreadableFile: no tape has a line to send; raised by the call.
    """
    paths = tapes_of(sources)
    report.files = [str(path) for path in paths]
    report.total_bytes = sum(path.stat().st_size for path in paths)
    return _in_order(paths, report)


class _Head(NamedTuple):
    """An open tape at its next message; ``reached`` is the latest receive time so far, which never decreases."""

    reached: int
    rank: int
    message: Message
    rest: Iterator[Message]


def _in_order(paths: Sequence[Path], report: TapeReport) -> Iterator[Message]:
    timed = []
    for path in paths:
        first = next(_messages(path, TapeReport()), None)
        if first is None:
            _note_empty(path, report)
        else:
            timed.append((first.received, path))
    if not timed:
        raise UnreadableFile(report.files[0], f"{report.lines:,} lines without a tick: record a tape first")
    timed.sort(key=lambda tape: tape[0])
    return _counted(_merged(timed, report), report)


def _merged(timed: Sequence[tuple[int, Path]], report: TapeReport) -> Iterator[Message]:
    """Messages by receive time, equal times in the order of the tapes; the order within a tape is kept.

    A tape is opened when the others have reached its first message.
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
    return _parquet_messages(path, report) if holds_parquet(path) else _text_messages(path, report)


def _note_empty(path: Path, report: TapeReport) -> None:
    for _ in _messages(path, report):
        pass
    report.add_note(path, "contains no tick")


def _counted(messages: Iterator[Message], report: TapeReport) -> Iterator[Message]:
    for message in messages:
        report.ticks += 1
        yield message


def _text_messages(path: Path, report: TapeReport) -> Iterator[Message]:
    number, counted = 1, 0
    with Blocks(path, BLOCK_BYTES) as blocks:
        for block in blocks:
            lines = block.split(b"\n")
            yield from _line_messages(path, number, lines, report)
            number += block.count(b"\n")
            report.bytes_read += blocks.consumed - counted
            counted = blocks.consumed
        if blocks.fault is not None:
            report.add_note(path, blocks.fault)


def _line_messages(path: Path, first: int, lines: Sequence[bytes], report: TapeReport) -> Iterator[Message]:
    keys = [_line_key(line) for line in lines]
    venue = venue_of(path)
    times = parse_times([each.timestamp if each is not None else "" for each in keys]).tolist()
    for number, (line, each, received) in enumerate(zip(lines, keys, times, strict=True), first):
        is_named = each is not None and each.product_id and with_venue((each.product_id,), venue) == (each.product_id,)
        if each is not None and received != NOT_A_TIME and is_named:
            report.lines += 1
            report.simulated |= each.source == SIMULATED
            yield tick_message(each.product_id, line, received)
        elif stripped := line.strip():
            report.lines += 1
            yield from _line_content_messages(path, number, stripped, report)


def _line_key(line: bytes) -> _LineKey | None:
    try:
        return _LINE_KEY.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _line_content_messages(path: Path, number: int, text: bytes, report: TapeReport) -> Iterator[Message]:
    """The ticks in a line of another form, each as a line of its own."""
    try:
        line_content = read_irregular_line(text)
    except MalformedTick as fault:
        report.add_rejected(path, number, str(fault))
        return
    for damage in line_content.faults:
        report.add_rejected(path, number, str(damage))
    report.ignored.update(line_content.ignored)
    report.simulated |= line_content.simulated
    for tick in line_content.ticks:
        (product,) = with_venue((tick.product_id,), venue_of(path))
        named = tick if product == tick.product_id else msgspec.structs.replace(tick, product_id=product)
        yield tick_message(product, tape_line(named, simulated=line_content.simulated), tick.received)


def _parquet_messages(path: Path, report: TapeReport) -> Iterator[Message]:
    tape_report = TapeReport()
    venue = venue_of(path)
    for ticks in parquet_ticks(path, tape_report, rows=PARQUET_ROWS):
        report.simulated |= tape_report.simulated
        for tick in replace(ticks, products=with_venue(ticks.products, venue)):
            yield tick_message(tick.product_id, tape_line(tick, simulated=tape_report.simulated), tick.received)
    report.lines += tape_report.lines
    report.rejected += tape_report.rejected
    report.rejections += tape_report.rejections
    report.bytes_read += path.stat().st_size


SHOW_EVERY_S: Final = 0.5
_SHOW_CHECK_EVERY: Final = 512
_LONGEST_WAIT_S: Final = 0.1


class Outlet(Protocol):
    """Receives messages, as ``TopicProducer`` does."""

    @property
    def delivered(self) -> int:
        """Delivered messages."""
        ...

    def send(self, message: Message) -> None:
        """Sends a message; may wait."""
        ...

    def serve(self, timeout_s: float = 0.0) -> None:
        """Waits up to ``timeout_s``; may return earlier."""
        ...


@dataclass(slots=True)
class ReplayProgress:
    """The progress of a replay; ``behind_s`` is the longest delay of a message after it was due."""

    sent: int = 0
    seconds: float = 0.0
    market_seconds: float = 0.0
    behind_s: float = 0.0

    @property
    def rate(self) -> float:
        """Messages per second since the start."""
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
    """Sends all messages, each when it is due; updates ``progress`` and calls ``show`` with it twice a second.

    A message is due (received − first received) / ``speed`` seconds after the start, measured by ``clock`` from the
    start, so delays do not accumulate. If the receive time steps back, the message is sent at once. ``speed`` 0 never
    waits.

    Raises:
        StreamError: from ``outlet``.
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
        if speed or progress.sent % _SHOW_CHECK_EVERY == 0:
            progress.seconds = clock() - began
            if progress.seconds - shown >= SHOW_EVERY_S:
                shown = progress.seconds
                show(progress)
    progress.seconds = clock() - began


def _wait_until(due: float, outlet: Outlet, clock: Callable[[], float]) -> None:
    """Waits in slices, since signals are only handled between them."""
    while (ahead := due - clock()) > 0:
        outlet.serve(min(ahead, _LONGEST_WAIT_S))
