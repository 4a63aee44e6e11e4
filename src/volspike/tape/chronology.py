"""The times of one tape: order of its lines, time zone, impossible times and clock steps.

A tape is read oldest first. The steps here take its ticks part by part, in constant memory, and keep the number of
the line or row of each tick.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volspike.errors import UnreadableFile, UsageError
from volspike.market import SECOND_NS, Ticks, format_time
from volspike.market.clock import AHEAD_NS, BEHIND_NS, STEP_TICKS, isolated_times
from volspike.market.tick import DTYPES
from volspike.tape.report import NumberedTicks, TapeReport

HOUR_NS: Final = 3600 * SECOND_NS
_QUARTER_NS = HOUR_NS // 4

_ENOUGH_PAIRS = 64
_NEWEST_FIRST_SHARE = 0.8
_LONGEST_HOLD = 65_536
_KEPT_STEPS = 5
_DST_TOLERANCE_NS = 900 * SECOND_NS

Reject = Callable[[NumberedTicks, int, str], None]
"""Takes a part, the place of an impossible tick in it, and the reason."""


def is_newest_first(parts: Iterable[Ticks]) -> bool:
    """Whether the first ticks of a tape go back in time, in receive time too; later parts are not read."""
    back = forward = distance = 0
    for part in parts:
        for rows in _rows_by_product(part):
            step = np.diff(part.time[rows])
            back += int(((step < 0) & (np.diff(part.received[rows]) <= 0)).sum())
            forward += int((step > 0).sum())
            distance -= int(step.clip(-HOUR_NS, HOUR_NS).sum())
        if back + forward >= _ENOUGH_PAIRS and abs(distance) >= SECOND_NS:
            break
    return distance >= SECOND_NS and back >= 2 and back >= _NEWEST_FIRST_SHARE * (back + forward)


def _rows_by_product(ticks: Ticks) -> Iterator[NDArray[np.intp] | slice]:
    """The rows of each product."""
    if len(ticks.products) == 1:
        yield slice(None)
        return
    for code in np.unique(ticks.product):
        yield np.flatnonzero(ticks.product == code)


_SPOOL_SCHEMA = pa.schema(
    [*((name, pa.from_numpy_dtype(dtype)) for name, dtype in DTYPES.items()), ("number", pa.int64())]
)


def oldest_first(parts: Iterable[NumberedTicks], *, in_memory: bool = False) -> Iterator[NumberedTicks]:
    """The ticks in the reverse order of their lines; those of one line keep their order.

    They are kept in a temporary file, or ``in_memory``. A tape that only begins newest first, such as batches of trades
    that are newest first each, keeps its order.
    """
    filled = (part for part in parts if len(part.ticks))
    with nullcontext(list(filled)) if in_memory else _spooled(filled) as kept:
        is_reversed = len(kept) > 0 and kept[0].ticks.time[0] > kept[-1].ticks.time[-1]
        for ticks, numbers in reversed(kept) if is_reversed else kept:
            order = np.argsort(-numbers if is_reversed else numbers, kind="stable")
            yield NumberedTicks(ticks[order], numbers[order])


@contextmanager
def _spooled(parts: Iterable[NumberedTicks]) -> Iterator[Sequence[NumberedTicks]]:
    """The parts in a temporary file."""
    with tempfile.TemporaryDirectory(prefix="volspike-") as folder:
        path = str(Path(folder) / "ticks.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, _SPOOL_SCHEMA) as spool:
            for ticks, numbers in parts:
                columns = [pa.array(column) for _, column in ticks.columns()]
                batch = pa.record_batch([*columns, pa.array(numbers)], schema=_SPOOL_SCHEMA)
                spool.write_batch(batch, {"products": json.dumps(ticks.products)})
        with pa.memory_map(path) as file, pa.ipc.open_file(file) as spool:
            yield _Spool(spool)


class _Spool(Sequence[NumberedTicks]):
    """The parts in an Arrow file."""

    def __init__(self, file: pa.RecordBatchFileReader) -> None:
        self._file = file

    def __len__(self) -> int:
        return int(self._file.num_record_batches)

    def __getitem__(self, place: Any) -> Any:
        batch, metadata = self._file.get_batch_with_custom_metadata(range(len(self))[place])
        products, columns = json.loads(metadata["products"]), {name: np.array(batch.column(name)) for name in DTYPES}
        return NumberedTicks(Ticks(tuple(products), **columns), np.array(batch.column("number")))


class TapeZone:
    """Whether the times of a tape, and its times of receipt, are without a zone; known after the first lines."""

    def __init__(self) -> None:
        self.naive_time = False
        self.naive_received = False


def zone_of(name: str) -> ZoneInfo:
    """The time zone of this name; raises ``UsageError`` if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--timezone {name}: no such time zone; use a name such as Europe/Berlin or UTC") from error


def localized(parts: Iterable[NumberedTicks], clock: TapeZone, zone: ZoneInfo) -> Iterator[NumberedTicks]:
    """The ticks with times without a zone read as local time in ``zone``; times with a zone do not change."""
    time, received = _LocalClock(zone), _LocalClock(zone)
    for ticks, numbers in parts:
        columns = dict(ticks.columns())
        if clock.naive_time:
            columns["time"] = time.utc(ticks.time)
        if clock.naive_received:
            is_same = np.array_equal(ticks.time, ticks.received) and clock.naive_time
            columns["received"] = columns["time"] if is_same else received.utc(ticks.received)
        yield NumberedTicks(Ticks(ticks.products, **columns), numbers)


class _LocalClock:
    """Local times, in their order, to UTC. In the hour that the clock repeats, a step back begins the second pass."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._previous = -(2**63)
        self._is_second_pass = False

    def utc(self, local: NDArray[np.int64]) -> NDArray[np.int64]:
        """The UTC times of local times, both in ns; skipped times have the offset before the change."""
        result = local.copy()
        quarters = local // _QUARTER_NS
        repeated: dict[int, tuple[int, int]] = {}
        for quarter in np.unique(quarters).tolist():
            first, second = (_offset_ns(self._zone, quarter * _QUARTER_NS, fold) for fold in (0, 1))
            if first > second:
                repeated[quarter] = first, second
            else:
                result[quarters == quarter] -= first
        previous = np.concatenate([[self._previous], local[:-1]])
        for place in np.flatnonzero(np.isin(quarters, list(repeated))) if repeated else ():
            first, second = repeated[int(quarters[place])]
            step = int(local[place]) - int(previous[place])
            if step < -_QUARTER_NS:
                self._is_second_pass = True
            elif step > HOUR_NS:
                self._is_second_pass = False
            result[place] -= second if self._is_second_pass else first
        if len(local):
            self._previous = int(local[-1])
            self._is_second_pass &= int(quarters[-1]) in repeated
        return result


def _offset_ns(zone: ZoneInfo, local: int, fold: int) -> int:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=local // SECOND_NS)
    offset = moment.replace(tzinfo=zone, fold=fold).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) * SECOND_NS


def zones_that_change(local: int, *, back: bool) -> list[str]:
    """Time zones whose clock shows the local time ``local`` (ns) twice or, without ``back``, never; best known first.

    >>> zones_that_change(1_761_445_800 * SECOND_NS, back=True)[0]
    'Europe/Berlin'
    """
    known = ("Europe/Berlin", "Europe/London", "America/New_York", "America/Chicago", "America/Los_Angeles")
    others = sorted(name for name in available_timezones() if name.startswith(_CONTINENTS))
    found = []
    for name in dict.fromkeys((*known, *others)):
        zone = ZoneInfo(name)
        first, second = _offset_ns(zone, local, 0), _offset_ns(zone, local, 1)
        if (first > second) if back else (first < second):
            found.append(name)
    return found


_CONTINENTS = ("Africa/", "America/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Pacific/")


class TimeFilter:
    """Rejects impossible times of one tape and reports clock steps.

    A run of fewer than ``STEP_TICKS`` ticks of a product is impossible if it is ahead or behind of the ticks before and
    after it (``market.clock.isolated_times``). A longer one is a clock step. At the end of a tape, where nothing
    follows, the times of receipt decide.

    Args:
        tape: the file or table.
        report: gets a note for each clock step.
        clock: whether its times have a zone.
        reject: takes impossible ticks.
        has_zone: the user has named the zone of times without one.
        rising: the column whose times must not go back by more than ``AHEAD_NS``. Without times of receipt, the order
            of rows is not that of a recorder, and a step back is no step of its clock.
    """

    def __init__(
        self,
        tape: object,
        report: TapeReport,
        clock: TapeZone,
        reject: Reject,
        *,
        has_zone: bool,
        rising: str | None = None,
    ) -> None:
        self._rising = rising
        self._tape = tape
        self._report = report
        self._clock = clock
        self._reject = reject
        self._has_zone = has_zone
        self._newest: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._steps = 0

    def possible(self, parts: Iterable[NumberedTicks]) -> Iterator[Ticks]:
        """The ticks whose times are possible, in their order.

        Raises:
            UnreadableFile: times without a zone go back by the hour of a change from summer time, and no zone is named;
                or the times must rise and go back.
        """
        held: NumberedTicks | None = None
        for part in parts:
            joined = part if held is None else _join(held, part)
            cut, is_impossible = self._check(joined, is_end=False)
            yield self._released(joined, cut, is_impossible)
            held = NumberedTicks(joined.ticks[cut:], joined.numbers[cut:]) if cut < len(joined.ticks) else None
        if held is not None:
            cut, is_impossible = self._check(held, is_end=True)
            yield self._released(held, cut, is_impossible)

    def _released(self, part: NumberedTicks, cut: int, is_impossible: NDArray[np.bool_] | None) -> Ticks:
        """The possible ticks before ``cut``; the others are rejected."""
        ticks = part.ticks if cut == len(part.ticks) else part.ticks[:cut]
        if is_impossible is not None and is_impossible[:cut].any():
            for place in np.flatnonzero(is_impossible[:cut]):
                time = format_time(int(ticks.time[place]))
                self._reject(part, int(place), f"the time {time} is impossible next to its neighbours")
            kept = ~is_impossible[:cut]
            ticks, numbers = ticks[kept], part.numbers[:cut][kept]
        else:
            numbers = part.numbers[:cut]
        for rows in _rows_by_product(ticks):
            times = ticks.time[rows]
            if len(times):
                product = ticks.products[int(ticks.product[rows][0])]
                offset = int((times - ticks.received[rows]).max())
                self._offsets[product] = max(offset, self._offsets.get(product, offset))
                self._note_steps(product, times, numbers[rows])
        return ticks

    def _check(self, part: NumberedTicks, *, is_end: bool) -> tuple[int, NDArray[np.bool_] | None]:
        """The number of ticks to release, and which of the ticks are impossible (None: none).

        The last run of a product is held back until it is known what follows.
        """
        ticks = part.ticks
        cut = len(ticks)
        is_impossible: NDArray[np.bool_] | None = None
        newest_of_all = max([*self._newest.values(), -(2**63)])
        for rows in _rows_by_product(ticks):
            times = ticks.time[rows]
            if not len(times):
                continue
            known = self._newest.get(ticks.products[int(ticks.product[rows][0])])
            with_known = times if known is None else np.concatenate([[known], times])
            cuts = np.flatnonzero(np.abs(np.diff(with_known)) > AHEAD_NS) + 1
            if not len(cuts):
                continue
            before = 0 if known is None else 1
            found = isolated_times(with_known)[before:]
            start = int(cuts[-1]) - before  # of the last run
            indices = np.arange(len(ticks))[rows]
            if is_end:
                found[start:] |= self._is_ahead_of_receipt(ticks, indices, start)
            elif len(times) - start < STEP_TICKS and len(ticks) <= _LONGEST_HOLD:
                others = max(newest_of_all, int(ticks.time[: indices[start]].max(initial=-(2**63))))
                first, reached = int(times[start]), int(with_known[: start + before].max(initial=-(2**63)))
                if first > others + AHEAD_NS or first < reached - BEHIND_NS:
                    cut = min(cut, int(indices[start]))
            if found.any():
                is_impossible = np.zeros(len(ticks), bool) if is_impossible is None else is_impossible
                is_impossible[indices[found]] = True
        return cut, is_impossible

    def _is_ahead_of_receipt(self, ticks: Ticks, rows: NDArray[np.intp], start: int) -> NDArray[np.bool_]:
        """Whether the last run of a product, a short one, is ahead of its times of receipt, and no earlier tick is."""
        offset = ticks.time[rows] - ticks.received[rows]
        known = self._offsets.get(ticks.products[int(ticks.product[rows[0]])], -(2**63))
        most = int(offset[:start].max(initial=known))
        if most == -(2**63) or len(rows) - start >= STEP_TICKS or not (most or offset.any()):
            return np.zeros(len(rows) - start, bool)
        ahead: NDArray[np.bool_] = offset[start:] > max(most, 0) + AHEAD_NS
        return ahead

    def _note_steps(self, product: str, times: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Remembers the newest time, and reports steps back of more than ``BEHIND_NS``, or refuses them."""
        known = self._newest.get(product)
        before = times[:-1] if known is None else np.concatenate([[known], times[:-1]])
        after, lines = (times[1:], numbers[1:]) if known is None else (times, numbers)
        step = after - before
        for place in np.flatnonzero(step < -(BEHIND_NS if self._rising is None else AHEAD_NS)):
            self._report_step_back(product, int(before[place]), int(after[place]), int(lines[place]))
        if self._is_unzoned:
            for place in np.flatnonzero(np.abs(step - HOUR_NS) < BEHIND_NS):
                self._report_skipped_hour(int(before[place]), int(lines[place]))
        self._newest[product] = int(times[-1])

    @property
    def _is_unzoned(self) -> bool:
        """Whether the times may be local times of an unknown zone."""
        return self._clock.naive_time and not self._has_zone

    def _report_skipped_hour(self, before: int, line: int) -> None:
        zones = zones_that_change(before + HOUR_NS // 2, back=False)[:2]
        if zones:
            self._report.add_note(
                self._tape,
                f"times without a zone skip an hour at line {line}, as local time does before summer, and are read as "
                f"UTC; if they are local, use --timezone {' or '.join(zones)}",
                is_loss=False,
            )

    def _report_step_back(self, product: str, before: int, after: int, line: int) -> None:
        step = before - after
        if self._is_unzoned and abs(step - HOUR_NS) <= _DST_TOLERANCE_NS:
            zones = zones_that_change(after, back=True)[:2]
            if zones:
                raise UnreadableFile(
                    f"{self._tape}:{line}",
                    f"times without a zone go back by an hour to {format_time(after).removesuffix('Z')}, as local time "
                    f"does after summer; read it with --timezone {' or '.join(zones)}, or with --timezone UTC if the "
                    "clock was set back",
                )
        if self._rising is not None:
            raise UnreadableFile(
                str(self._tape),
                f"the time of {product} goes back by {step / SECOND_NS:,.0f} s at row {line:,} "
                f"({format_time(after)} after {format_time(before)}): sort it by time, e.g. with "
                f'frame.sort("{self._rising}") or frame.sort_values("{self._rising}"), and drop copies of rows',
            )
        self._steps += 1
        self._report.clock_steps += 1
        if self._steps <= _KEPT_STEPS:
            self._report.add_note(
                self._tape,
                f"clock step at line {line}: the time of {product} goes back by {step / SECOND_NS:,.0f} s to "
                f"{format_time(after)}",
                is_loss=False,
            )


def _join(first: NumberedTicks, second: NumberedTicks) -> NumberedTicks:
    return NumberedTicks(Ticks.join([first.ticks, second.ticks]), np.concatenate([first.numbers, second.numbers]))
