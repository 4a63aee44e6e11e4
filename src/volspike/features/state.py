"""What the engine remembers of each product: plain arrays, so that a snapshot is their bytes and nothing else.

Per product: a ring of one record a second for the longest window, the totals, the opening record of each window, the
newest quote and contents, the clocks and counters, and the trade ids told last. With the default windows that is about
70 kB, whatever the rate; the features of ``catalogue`` add an hour of long records and a bank of weighted sums, 200 kB.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import DataError, SchemaMismatch
from volspike.features import kernel

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = tuple[Array, Array, Array, Array, Array, Array, Array, Array]

SNAPSHOT_FORMAT = 2


class EngineState:
    """The kernel's arrays, with room for some products; ``products`` names those that were met.

    Each array holds an equal number of rows per product, one product after the other.
    """

    def __init__(self, windows: int, longest_window: int, keeps_hours: bool = False, room: int = 0) -> None:
        self.products: list[str] = []
        self.windows = windows
        self.longest_window = longest_window
        self.keeps_hours = keeps_hours
        # the records of seconds s - w - 1 … s - 1, rounded up so that the place of a second is a mask away
        self.ring_length = 1 << (longest_window + 1).bit_length()
        self._allocate(room)

    def _allocate(self, room: int) -> None:
        self.rings = np.zeros((room * self.ring_length, kernel.RECORD))
        self.totals = np.zeros((room, kernel.RECORD))
        self.openings = np.zeros((room * self.windows, kernel.OPENING))
        hours, bank = (kernel.HOUR_LENGTH, kernel.BANK) if self.keeps_hours else (0, 0)
        self.hours = np.zeros((room * hours, kernel.HOUR_RECORD))
        self.bank = np.zeros((room, bank))
        self.news = np.zeros((room, kernel.NEWS))
        self.clocks = np.zeros((room, kernel.CLOCKS), np.int64)
        self.clocks[:, kernel.LARGEST_ID : kernel.LARGEST_ID + 2] = -1
        self.ids = np.full((room, 2, kernel.REMEMBERED_IDS), -1, np.int64)

    def arrays(self) -> Arrays:
        """The arrays in the order in which the kernel takes them."""
        return self.rings, self.totals, self.openings, self.hours, self.bank, self.news, self.clocks, self.ids

    @property
    def bytes_per_product(self) -> int:
        """Memory that one product takes."""
        return sum(
            array.nbytes for array in EngineState(self.windows, self.longest_window, self.keeps_hours, 1).arrays()
        )

    def admit(self, product_id: str) -> int:
        """The index of a new product. Room doubles, so that the thousandth product costs no more than the tenth."""
        index = len(self.products)
        if index == len(self.totals):
            old = self.arrays()
            self._allocate(max(1, 2 * index))
            for new, was in zip(self.arrays(), old, strict=True):
                new[: len(was)] = was
        self.products.append(product_id)
        return index

    def used(self) -> list[Array]:
        """Views of the arrays' rows that belong to products."""
        room = max(1, len(self.totals))
        return [array[: len(array) // room * len(self.products)] for array in self.arrays()]


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine's state as it is stored: MessagePack, little-endian arrays."""

    format: int
    digest: str
    profile: str
    every: str
    products: list[str]
    arrays: list[bytes]


def dump(state: EngineState, digest: str, profile: str, every: str) -> bytes:
    """The bytes of a snapshot."""
    arrays = [array.astype(array.dtype.newbyteorder("<")).tobytes() for array in state.used()]
    return msgspec.msgpack.encode(Snapshot(SNAPSHOT_FORMAT, digest, profile, every, list(state.products), arrays))


def load(blob: bytes, like: EngineState, digest: str, profile: str, every: str) -> EngineState:
    """The state in a snapshot, of the shape of ``like``.

    Raises:
        DataError: the bytes are no whole snapshot.
        SchemaMismatch: the snapshot is of another feature set, profile or row rate.
    """
    try:
        snapshot = msgspec.msgpack.decode(blob, type=Snapshot)
    except msgspec.DecodeError as error:
        raise DataError(f"not an engine snapshot: {error}") from error
    told = (snapshot.format, snapshot.digest, snapshot.profile, snapshot.every)
    wanted = (SNAPSHOT_FORMAT, digest, profile, every)
    if told != wanted:
        raise SchemaMismatch(
            f"snapshot of (format, digest, profile, every) {told} cannot be restored into {wanted}",
            remedy="replay the tape instead",
        )
    state = EngineState(like.windows, like.longest_window, like.keeps_hours, len(snapshot.products))
    state.products.extend(snapshot.products)
    if len(snapshot.arrays) != len(state.arrays()):
        raise DataError(f"not an engine snapshot: {len(snapshot.arrays)} arrays")
    for array, raw in zip(state.arrays(), snapshot.arrays, strict=True):
        if len(raw) != array.nbytes:
            raise DataError(f"engine snapshot is cut short: {len(raw)} bytes of {array.nbytes}")
        array[...] = np.frombuffer(raw, array.dtype.newbyteorder("<")).reshape(array.shape)
    return state
