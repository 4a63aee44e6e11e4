"""How far a backfill is: a small state file and the trades fetched so far, both beside the tape that is to be.

``<tape>.backfill`` tells what was asked for, how far it is and, once the tape stands, what it holds; it is always
replaced as a whole. ``<tape>.trades`` holds the trades, oldest first, 33 bytes each, and only grows; what lies
beyond the state's count was being written when the process died, and is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import UnreadableFile
from volspike.market import UNTOLD_ID, Gap, Kind, Tick, Ticks
from volspike.tape.backfill_search import Place

FORMAT = 1
_TRADE = np.dtype(
    [("time", "<i8"), ("trade_id", "<i8"), ("price", "<f8"), ("size", "<f8"), ("side", "i1")], align=False
)


class BackfillState(msgspec.Struct, frozen=True, kw_only=True):
    """What is fetched: trades of ``product_id`` in [``start``, ``end``) (ns UTC), ids ``first_id`` to ``end_id`` - 1.

    Ids below ``next_id`` are done: ``trades`` of them exist, and ``duplicates`` were told again. ``before`` and
    ``beyond`` are the trades next to the range. ``holes`` is known when it ``is_complete``.
    """

    format: int = FORMAT
    url: str
    product_id: str
    start: int
    end: int
    before: Place | None
    beyond: Place | None
    first_id: int
    end_id: int
    next_id: int
    trades: int = 0
    duplicates: int = 0
    is_complete: bool = False
    holes: tuple[Gap, ...] = ()


class BackfillProgress:
    """The two files beside ``tape``."""

    def __init__(self, tape: Path) -> None:
        self._state = tape.with_name(tape.name + ".backfill")
        self._trades = tape.with_name(tape.name + ".trades")

    @property
    def file(self) -> Path:
        """The state file."""
        return self._state

    def load(self) -> BackfillState | None:
        """The state of an earlier run; None where there was none, or its trades are gone.

        Raises:
            UnreadableFile: it is no state of a backfill, or one of a newer volspike.
        """
        try:
            state = msgspec.json.decode(self._state.read_bytes(), type=BackfillState)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UnreadableFile(self._state, f"is no state of a backfill ({error}): remove it to begin anew") from None
        if state.format > FORMAT:
            raise UnreadableFile(self._state, f"state format {state.format}: install a newer volspike, or remove it")
        if state.is_complete:
            return state
        kept = self._trades.stat().st_size if self._trades.exists() else 0
        return state if kept >= state.trades * _TRADE.itemsize else None

    def save(self, state: BackfillState) -> None:
        """Replaces the state as a whole: a crash leaves the old one or the new one."""
        part = self._state.with_name(self._state.name + ".part")
        with part.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._state)

    def add(self, state: BackfillState, trades: Sequence[Tick], next_id: int, duplicates: int) -> BackfillState:
        """Keeps more trades, oldest first, then the state that counts them; that state."""
        rows = [(tick.time, tick.trade_id, tick.price, tick.last_size, tick.side) for tick in trades]
        with self._trades.open("r+b" if self._trades.exists() else "wb") as file:
            file.truncate(file.seek(state.trades * _TRADE.itemsize))
            file.write(np.array(rows, _TRADE).tobytes())
            file.flush()
            os.fsync(file.fileno())
        told = msgspec.structs.replace(
            state, next_id=next_id, trades=state.trades + len(trades), duplicates=state.duplicates + duplicates
        )
        self.save(told)
        return told

    def ticks(self, state: BackfillState, rows: int) -> Iterator[Ticks]:
        """The trades kept, oldest first, ``rows`` at a time."""
        with self._trades.open("rb") as file:
            for done in range(0, state.trades, rows):
                count = min(rows, state.trades - done)
                yield _ticks(np.frombuffer(file.read(count * _TRADE.itemsize), _TRADE), state.product_id)

    def drop_trades(self) -> None:
        """Removes the trades kept; the state stays and tells what the tape holds."""
        self._trades.unlink(missing_ok=True)


def _ticks(trades: NDArray[np.void], product_id: str) -> Ticks:
    count = len(trades)
    untold = np.full(count, np.nan)
    return Ticks(
        products=(product_id,),
        time=trades["time"].astype(np.int64),
        received=trades["time"].astype(np.int64),
        kind=np.full(count, Kind.TRADE, np.int8),
        product=np.zeros(count, np.int32),
        price=trades["price"].astype(np.float64),
        best_bid=untold,
        best_ask=untold,
        bid_size=untold,
        ask_size=untold,
        last_size=trades["size"].astype(np.float64),
        side=trades["side"].astype(np.int8),
        trade_id=trades["trade_id"].astype(np.int64),
        sequence=np.full(count, UNTOLD_ID, np.int64),
    )
