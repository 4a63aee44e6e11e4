"""The hand on the simulated exchange's faults: what goes wrong now, and what goes wrong by itself from now on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from volspike.errors import UsageError
from volspike.feeds.simulated_connection import SimulatedConnection
from volspike.feeds.simulated_faults import Faults, Item
from volspike.feeds.simulated_record import Fault

_HALF = b'{"channel":"ticker","timestamp":"2026-'


class FaultControls:
    """Each method strikes the connections that are open, or only number ``connection``, and returns how many.

    To be called in the exchange's event loop. Seconds of silence are simulated, those of a delay the wall's.
    """

    def __init__(
        self, standing: Faults, connections: Callable[[], Sequence[SimulatedConnection]], now: Callable[[], int]
    ) -> None:
        self._standing = standing
        self._connections = connections
        self._now = now

    @property
    def standing(self) -> Faults:
        """What goes wrong by itself; may be set, and holds from the next frame on."""
        return self._standing

    @standing.setter
    def standing(self, faults: Faults) -> None:
        if sum(faults.rates) > 1:
            raise UsageError(f"the rates of faults add up to {sum(faults.rates):g}; at most one strikes a frame")
        self._standing = faults

    def drop(self, frames: int = 1, connection: int | None = None) -> int:
        """The next frames are lost."""
        return self._order(Fault.DROP, frames, 0.0, connection)

    def delay(self, seconds: float, connection: int | None = None) -> int:
        """The next frame, and all behind it, waits."""
        return self._order(Fault.DELAY, 1, seconds, connection)

    def duplicate(self, frames: int = 1, connection: int | None = None) -> int:
        """The next frames come twice."""
        return self._order(Fault.DUPLICATE, frames, 0.0, connection)

    def reorder(self, connection: int | None = None) -> int:
        """The next frame comes after the one that follows it."""
        return self._order(Fault.REORDER, 1, 0.0, connection)

    def skip(self, numbers: int = 1, connection: int | None = None) -> int:
        """That many sequence numbers are never used."""
        return self._strike(lambda each: each.injector.skip(numbers, self._now()), connection)

    def silence(self, seconds: float, connection: int | None = None) -> int:
        """Nothing comes, and what would have come is lost."""
        return self._strike(lambda each: each.injector.silence(seconds, self._now()), connection)

    def close(self, code: int = 1001, reason: str = "", connection: int | None = None) -> int:
        """The connection ends behind what was said before; ``code`` 0 is without a close frame."""
        return self._strike(lambda each: each.injector.close(code, reason, self._now()), connection)

    def malformed(self, data: bytes = _HALF, connection: int | None = None) -> int:
        """A text frame of just these bytes."""
        return self._strike(lambda each: each.injector.malformed(data, self._now()), connection)

    def unknown(self, connection: int | None = None) -> int:
        """A message of a kind that no client knows."""
        return self._strike(lambda each: each.injector.unknown(self._now()), connection)

    def snapshot(self, product: str, size: int = 5_000_000, connection: int | None = None) -> int:
        """An order book's snapshot of at least ``size`` bytes."""
        return self._strike(lambda each: each.injector.book(product, size, self._now()), connection)

    def _struck(self, number: int | None) -> list[SimulatedConnection]:
        return [each for each in self._connections() if not each.has_ended and number in {None, each.number}]

    def _order(self, fault: Fault, times: int, amount: float, number: int | None) -> int:
        struck = self._struck(number)
        for each in struck:
            each.injector.order(fault, times, amount)
        return len(struck)

    def _strike(self, fault: Callable[[SimulatedConnection], list[Item]], number: int | None) -> int:
        struck = self._struck(number)
        for each in struck:
            each.push(fault(each), self._now())
        return len(struck)
