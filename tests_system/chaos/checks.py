"""Comparison of a program's tape and gap ledger with the journal of its exchange.

A gap explains a lost tick if it names its product, has a fitting cause, and lies between the receipts of the product's
ticks before and after it. Losses on Coinbase Exchange that only numbers of messages could reveal are counted and
excluded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Final, NamedTuple

from tests_system.chaos.run import Result
from tests_system.chaos.truth import ExpectedTick, Journal, TickKey, WireTick
from volspike.feeds.simulation.faults import Fault
from volspike.market import SECOND_NS, Cause, Gap, Tick
from volspike.tape import Ledger, read_ticks

TRANSIT_NS: Final = SECOND_NS
"""Ticks made so shortly before SIGTERM may still be in transit."""

NOTICED_SILENCE_NS: Final = 11 * SECOND_NS
"""A silence of 10 s is a gap also where messages have no numbers; the session checks it every second."""

OLDEST_LOST: Final = "oldest sent tick that a kill lost, ms before it"

EXAMPLES: Final = 5
"""Violations of a check that are reported in full."""


@dataclass
class Findings:
    """Counts of what was checked, and the violations of each check."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def violate(self, check: str, text: str) -> None:
        """Add a violation."""
        self.violations[check].append(text)

    def summary(self) -> str:
        """The violated checks with examples; empty if there are none."""
        return "\n".join(
            f"{check}: {len(texts)} violations\n" + "\n".join(f"  {text}" for text in texts[:EXAMPLES])
            for check, texts in self.violations.items()
        )


class TapeTick(NamedTuple):
    """A tick on the tape, in both forms, the run that recorded it, and the position and connection of its frame.

    The position is -1 for a tick that was not sent.
    """

    tick: Tick
    wire: WireTick
    run: int
    position: int
    connection: int

    @property
    def received(self) -> int:
        """When it was received, ns UTC of our clock."""
        return self.tick.received

    @property
    def time(self) -> int:
        """The exchange's time, ns UTC."""
        return self.tick.time


class Tape(NamedTuple):
    """The tape and the ledger of a program; ``ticks`` in the order of the tape."""

    ticks: list[TapeTick]
    gaps: list[Gap]

    @classmethod
    def of(cls, result: Result) -> Tape:
        """The tape as its readers see it."""
        starts = [run.started for run in result.program.runs]
        positions = {wire: deque(sent) for wire, sent in result.journal.positions.items()}
        ticks = []
        for part in read_ticks([result.program.tape], keep_rejected=False):
            for tick in part:
                wire = wire_tick(tick)
                unused = positions.get(wire)
                position = unused.popleft() if unused else -1
                run = bisect_right(starts, tick.received) - 1
                ticks.append(TapeTick(tick, wire, run, position, result.journal.frames[position].connection))
        return cls(ticks, Ledger.read(result.program.tape))

    def of_product(self, product: str) -> list[TapeTick]:
        """The ticks of one product."""
        return [each for each in self.ticks if each.tick.product_id == product]


def wire_tick(tick: Tick) -> WireTick:
    """A recorded tick in the form of the journal."""
    key = TickKey(int(tick.kind), tick.product_id, tick.time, tick.price, tick.trade_id)
    quotes = (tick.best_bid, tick.best_ask, tick.bid_size, tick.ask_size, tick.last_size)
    best_bid, best_ask, bid_size, ask_size, last_size = (None if isnan(value) else value for value in quotes)
    return WireTick(key, best_bid, best_ask, bid_size, ask_size, last_size, int(tick.side), tick.sequence)


def check_processes(result: Result, findings: Findings) -> None:
    """Killed processes end by their kill, the last one with status 0; none logs an error."""
    statuses = [run.status for run in result.program.runs]
    if statuses != [-9] * (len(statuses) - 1) + [0]:
        findings.violate("processes end by their signal", f"exit statuses {statuses}")
    for line in result.program.log.splitlines():
        if "Traceback" in line or '"level":"error"' in line.replace(" ", ""):
            findings.violate("no process logs an error", line[:300])
    findings.counts["kills"] = len(statuses) - 1
    findings.counts["faults"] = result.program.faults.total()


def check_tape(journal: Journal, tape: Tape, findings: Findings) -> None:
    """Nothing is on the tape that was not sent, and nothing more often than it was sent."""
    recorded = Counter(each.wire for each in tape.ticks)
    findings.counts["ticks sent"] = journal.sent.total()
    findings.counts["ticks on the tape"] = recorded.total()
    for wire, count in recorded.items():
        if count > journal.sent[wire]:
            findings.violate("the tape has only what was sent", f"{wire}: {count} times, sent {journal.sent[wire]}")


class Losses(NamedTuple):
    """Expected ticks that are not on the tape: those whose loss the client can notice, and the others."""

    noticeable: list[ExpectedTick]
    unnoticeable: list[ExpectedTick]


def check_losses(result: Result, tape: Tape, findings: Findings) -> Losses:
    """Every tick of the market since the first recorded one is on the tape or in a gap; returns the lost ones."""
    journal, program = result.journal, result.program
    recorded = Counter(each.wire.key for each in tape.ticks)
    neighbours = {product: Neighbours(tape.of_product(product)) for product in program.exchange.settings.products}
    everything = Neighbours(tape.ticks)
    losses = Losses([], [])
    for tick in journal.expected():
        around = neighbours[tick.key.product]
        if recorded[tick.key]:
            recorded[tick.key] -= 1
            findings.counts["expected ticks on the tape"] += 1
        elif tick.position > around.first:  # earlier ones are from before the subscription
            if tick.position >= around.last:
                if tick.made < program.runs[-1].ended - TRANSIT_NS:
                    findings.violate("SIGTERM loses nothing", f"{tick}")
            elif tick.is_verifiable or everything.silence_ns(tick.position) > NOTICED_SILENCE_NS:
                losses.noticeable.append(tick)
                _check_gap(tape, tick, around, findings)
                _measure_kill(result, tick, around, findings)
            else:
                losses.unnoticeable.append(tick)
    findings.counts["expected ticks lost"] = len(losses.noticeable)
    findings.counts["lost unnoticeably (no numbers)"] = len(losses.unnoticeable)
    findings.counts["trades between two subscriptions"] = len(journal.unsubscribed)
    return losses


class Neighbours:
    """Ticks on the tape by position; ``first`` and ``last`` are the positions at its ends."""

    def __init__(self, ticks: Sequence[TapeTick]) -> None:
        self._ticks = sorted((each for each in ticks if each.position >= 0), key=lambda each: each.position)
        self._positions = [each.position for each in self._ticks]
        self.first, self.last = self._positions[0], self._positions[-1]

    def of(self, position: int) -> tuple[TapeTick, TapeTick]:
        """The last tick that was sent before a position, and the first one after it."""
        at = bisect_left(self._positions, position)
        return self._ticks[at - 1], self._ticks[at]

    def silence_ns(self, position: int) -> int:
        """The time without a tick around a position, by their receipt."""
        before, after = self.of(position)
        return after.received - before.received


def _check_gap(tape: Tape, tick: ExpectedTick, around: Neighbours, findings: Findings) -> None:
    before, after = around.of(tick.position)
    fitting = fitting_causes(before, after, tick)
    between = [
        gap
        for gap in tape.gaps
        if gap.end > before.received and gap.start < after.received and tick.key.product in gap.products
    ]
    if not any(gap.cause in fitting for gap in between):
        findings.violate(
            "a lost tick is in a gap of its product with a fitting cause",
            f"{tick.key} ({tick.fault or 'not sent'}), received around it: {before.received} (run {before.run}) and "
            f"{after.received} (run {after.run}); fitting: {sorted(fitting)}, gaps: {between}",
        )


def _measure_kill(result: Result, tick: ExpectedTick, around: Neighbours, findings: Findings) -> None:
    """Keep the largest time before a kill from which a sent tick is not on the tape."""
    before, after = around.of(tick.position)
    if before.run != after.run and tick.was_sent:
        lost_ms = (result.program.runs[before.run].ended - tick.made) // 1_000_000
        findings.counts[OLDEST_LOST] = max(findings.counts[OLDEST_LOST], lost_ms)


def fitting_causes(before: TapeTick, after: TapeTick, tick: ExpectedTick) -> set[Cause]:
    """The causes that the gap of a lost tick may have, from the runs and connections before and after it."""
    if before.run != after.run:
        return {Cause.RESTART}
    if before.connection != after.connection:
        return {Cause.RECONNECT, Cause.SEQUENCE, Cause.SILENCE, Cause.MALFORMED}
    match tick.fault:
        case Fault.DROP:
            return {Cause.SEQUENCE}
        case Fault.SILENCE:
            return {Cause.SEQUENCE, Cause.SILENCE}
        case Fault.DAMAGE | Fault.MISTIME:
            return {Cause.MALFORMED, Cause.CLOCK}
    return {Cause.SEQUENCE, Cause.MALFORMED}
