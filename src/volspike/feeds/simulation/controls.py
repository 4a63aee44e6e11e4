"""Faults of the simulated exchange on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from volspike.errors import UsageError
from volspike.feeds.simulation.client import SimulatedConnection
from volspike.feeds.simulation.faults import Fault, Faults, Item

_HALF = b'{"channel":"ticker","timestamp":"2026-'


class FaultControls:
    """Faults on demand. Each method affects all open connections, or only ``connection``, and returns their number.

    Use it in the exchange's event loop. Seconds of a silence are simulated, those of a delay wall time.

    Attributes:
        rejected: the products whose subscription the exchange rejects; true if its error names them.
        answers_pings: whether the exchange answers pings.
        retry_after_s: while above 0, handshakes are answered with status 429 and this header ``Retry-After``.
    """

    def __init__(
        self,
        automatic: Faults,
        connections: Callable[[], Sequence[SimulatedConnection]],
        now: Callable[[], int],
        notice_s: float = 600.0,
    ) -> None:
        self.rejected: dict[str, bool] = {}
        self.answers_pings = True
        self.retry_after_s = 0
        self._automatic = automatic
        self._connections = connections
        self._now = now
        self._notice_s = notice_s

    @property
    def automatic(self) -> Faults:
        """The faults that occur by themselves; setting them takes effect with the next frame."""
        return self._automatic

    @automatic.setter
    def automatic(self, faults: Faults) -> None:
        if sum(faults.rates) > 1:
            raise UsageError(f"the rates of faults add up to {sum(faults.rates):g}; the most is 1")
        self._automatic = faults

    def drop(self, frames: int = 1, connection: int | None = None) -> int:
        """Lose the next frames."""
        return self._schedule(Fault.DROP, frames, 0.0, connection)

    def delay(self, seconds: float, connection: int | None = None) -> int:
        """Delay the next frame and all later ones."""
        return self._schedule(Fault.DELAY, 1, seconds, connection)

    def duplicate(self, frames: int = 1, connection: int | None = None) -> int:
        """Send the next frames twice."""
        return self._schedule(Fault.DUPLICATE, frames, 0.0, connection)

    def reorder(self, connection: int | None = None) -> int:
        """Send the next frame after its successor."""
        return self._schedule(Fault.REORDER, 1, 0.0, connection)

    def skip(self, numbers: int = 1, connection: int | None = None) -> int:
        """Skip that many sequence numbers, or trade ids."""
        return self._apply(lambda each: each.injector.skip(numbers, self._now()), connection)

    def silence(self, seconds: float, connection: int | None = None) -> int:
        """Lose all frames for ``seconds``."""
        return self._apply(lambda each: each.injector.silence(seconds, self._now()), connection)

    def close(self, code: int = 1001, reason: str = "", connection: int | None = None) -> int:
        """End the connection after the queued frames; ``code`` 0 is without a close frame."""
        return self._apply(lambda each: each.injector.close(code, reason, self._now()), connection)

    def shut_down(self, notice_s: float | None = None, connection: int | None = None) -> int:
        """Announce a shutdown (Binance's ``serverShutdown``, OKX's notice), and close ``notice_s`` of wall time later.

        None is ``shutdown_notice_s`` of the settings. Other protocols have no notice. New connections are accepted.
        """
        seconds = self._notice_s if notice_s is None else notice_s
        affected = self._affected(connection)
        for each in affected:
            each.shut_down(seconds, self._now)
        return len(affected)

    def malformed(self, data: bytes = _HALF, connection: int | None = None) -> int:
        """Send a text frame of these bytes."""
        return self._apply(lambda each: each.injector.malformed(data, self._now()), connection)

    def damage(self, way: str = "truncated", frames: int = 1, connection: int | None = None) -> int:
        """Damage the next frames in one of the ways ``DAMAGES``."""
        return self._schedule(Fault.DAMAGE, frames, way, connection)

    def mistime(self, seconds: float, frames: int = 1, connection: int | None = None) -> int:
        """Send the next frames with times of the exchange that are wrong by ``seconds``."""
        return self._schedule(Fault.MISTIME, frames, seconds, connection)

    def set_clock(self, seconds: float, connection: int | None = None) -> int:
        """Send all later frames with times of the exchange that are wrong by ``seconds``."""
        return self._apply(lambda each: each.injector.set_clock(seconds, self._now()), connection)

    def reset(self, connection: int | None = None) -> int:
        """Begin the sequence numbers at 0 again, or the trade ids at 1."""
        return self._apply(lambda each: each.injector.reset(self._now()), connection)

    def unknown(self, connection: int | None = None) -> int:
        """Send a message of an unknown kind."""
        return self._apply(lambda each: each.injector.unknown(self._now()), connection)

    def snapshot(self, product: str, size: int = 5_000_000, connection: int | None = None) -> int:
        """Send a snapshot of an order book of at least ``size`` bytes."""
        return self._apply(lambda each: each.injector.book(product, size, self._now()), connection)

    def _affected(self, number: int | None) -> list[SimulatedConnection]:
        return [each for each in self._connections() if not each.has_ended and number in {None, each.number}]

    def _schedule(self, fault: Fault, times: int, amount: float | str, number: int | None) -> int:
        affected = self._affected(number)
        for each in affected:
            each.injector.schedule(fault, times, amount)
        return len(affected)

    def _apply(self, fault: Callable[[SimulatedConnection], list[Item]], number: int | None) -> int:
        affected = self._affected(number)
        for each in affected:
            each.push(fault(each), self._now())
        return len(affected)
