"""State of the engine for each product: plain arrays, so that a snapshot is their bytes.

With the default windows a product has about 80 kB, whatever the rate: mostly the ring, one record of sums per second of
the longest window. The full and the deep feature set add 210 kB, mostly for records of the last hour. ``kernel.layout``
describes the columns.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import DataError, SchemaMismatch
from volspike.features.kernel import layout

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = tuple[Array, Array, Array, Array, Array, Array, Array, Array]

SNAPSHOT_FORMAT = 4


class EngineState:
    """The kernel's arrays, with capacity for some products; ``products`` are the names of those in use.

    Each array has an equal number of rows per product, one product after the other.
    """

    def __init__(self, windows: int, longest_window: int, keeps_hours: bool = False, capacity: int = 0) -> None:
        self.products: list[str] = []
        self.windows = windows
        self.longest_window = longest_window
        self.keeps_hours = keeps_hours
        # the records of seconds s - w - 1 … s - 1, rounded up to a power of two: a mask finds the row of a second
        self.ring_length = 1 << (longest_window + 1).bit_length()
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.rings = np.zeros((capacity * self.ring_length, layout.RECORD_COLUMNS))
        self.totals = np.zeros((capacity, layout.RECORD_COLUMNS))
        self.starts = np.zeros((capacity * self.windows, layout.START_COLUMNS))
        hours, averages = (layout.HOUR_LENGTH, layout.AVERAGE_COLUMNS) if self.keeps_hours else (0, 0)
        self.hours = np.zeros((capacity * hours, layout.HOUR_COLUMNS))
        self.averages = np.zeros((capacity, averages))
        self.latest = np.zeros((capacity, layout.LATEST_COLUMNS))
        self.clocks = np.zeros((capacity, layout.CLOCK_COLUMNS), np.int64)
        self.clocks[:, layout.LARGEST_ID : layout.LARGEST_ID + 2] = -1
        self.trade_ids = np.full((capacity, 2, layout.REMEMBERED_IDS), -1, np.int64)

    def arrays(self) -> Arrays:
        """The arrays in the order in which the kernel takes them and a snapshot stores them."""
        return (
            self.rings,
            self.totals,
            self.starts,
            self.hours,
            self.averages,
            self.latest,
            self.clocks,
            self.trade_ids,
        )

    @property
    def bytes_per_product(self) -> int:
        """Memory for one product."""
        one = EngineState(self.windows, self.longest_window, self.keeps_hours, 1)
        return sum(array.nbytes for array in one.arrays())

    def add_product(self, product_id: str) -> int:
        """The index of a new product. Capacity doubles, so the thousandth product costs no more than the tenth."""
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
        capacity = max(1, len(self.totals))
        return [array[: len(array) // capacity * len(self.products)] for array in self.arrays()]


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An engine's state as it is stored: MessagePack with little-endian arrays, and the state of extra features."""

    format: int
    digest: str
    profile: str
    every: str
    products: list[str]
    arrays: list[bytes]
    extra: bytes = b""


def dump(state: EngineState, digest: str, profile: str, every: str, extra: bytes = b"") -> bytes:
    """The bytes of a snapshot."""
    arrays = [array.astype(array.dtype.newbyteorder("<")).tobytes() for array in state.used()]
    return msgspec.msgpack.encode(
        Snapshot(SNAPSHOT_FORMAT, digest, profile, every, list(state.products), arrays, extra)
    )


def load(blob: bytes, like: EngineState, digest: str, profile: str, every: str) -> tuple[EngineState, bytes]:
    """The state in a snapshot, of the shape of ``like``, and that of the extra features.

    Raises:
        DataError: the bytes are not a complete snapshot.
        SchemaMismatch: the snapshot is of another feature set, profile or row rate.
    """
    try:
        snapshot = msgspec.msgpack.decode(blob, type=Snapshot)
    except msgspec.DecodeError as error:
        raise DataError(f"not an engine snapshot: {error}") from error
    found = (snapshot.format, snapshot.digest, snapshot.profile, snapshot.every)
    expected = (SNAPSHOT_FORMAT, digest, profile, every)
    if found != expected:
        raise SchemaMismatch(
            f"snapshot has (format, digest, profile, every) {found}, the engine needs {expected}",
            remedy="replay the tape instead",
        )
    state = EngineState(like.windows, like.longest_window, like.keeps_hours, len(snapshot.products))
    state.products.extend(snapshot.products)
    if len(snapshot.arrays) != len(state.arrays()):
        raise DataError(f"not an engine snapshot: {len(snapshot.arrays)} arrays instead of {len(state.arrays())}")
    for array, raw in zip(state.arrays(), snapshot.arrays, strict=True):
        if len(raw) != array.nbytes:
            raise DataError(f"engine snapshot is incomplete: {len(raw)} bytes of {array.nbytes}")
        array[...] = np.frombuffer(raw, array.dtype.newbyteorder("<")).reshape(array.shape)
    return state, snapshot.extra
