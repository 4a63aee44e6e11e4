"""What the messages are: a tick is its tape line, a feature row and a prediction are one JSON object each.

Keys are products, so all that is told of a product lies in one partition, in order. Kafka's timestamp is the receive
time of the tick, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import MalformedTick
from volspike.features import ROW_FLOATS, Every, FeatureRow, FeatureRows, FeatureSet
from volspike.market import Profile, format_time, parse_time

Headers: TypeAlias = list[tuple[str, bytes]]

MILLISECOND_NS: Final = 1_000_000
SLAB_ROWS: Final = 32
"""Rows that are encoded at a time; measured best of 1 to all."""


class Message(NamedTuple):
    """A message on its way into a topic; ``received`` in ns UTC."""

    key: bytes
    value: bytes
    received: int

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp; never below 1, for 0 stands for "now"."""
        return max(1, self.received // MILLISECOND_NS)


def tick_message(product_id: str, line: bytes, received: int) -> Message:
    """A tape line, with or without its line end, as a message."""
    return Message(product_id.encode(), line.rstrip(b"\r\n"), received)


class FeatureHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What is told beside every feature row: by which features, how often, from what it was made."""

    digest: str
    every: Every
    profile: Profile
    simulated: bool = False

    def encoded(self) -> Headers:
        """As headers of a message."""
        told = msgspec.to_builtins(self)
        return [(f"volspike.{name}", msgspec.json.encode(value).strip(b'"')) for name, value in told.items()]


def feature_headers(headers: Sequence[tuple[str, bytes]] | None) -> FeatureHeaders:
    """The headers of a feature row, read.

    Raises:
        MalformedTick: one is missing or has a value that it cannot have.
    """
    told = {
        name.removeprefix("volspike."): value.decode(errors="replace")
        for name, value in headers or ()
        if name.startswith("volspike.") and value is not None
    }
    try:
        return msgspec.convert(told, FeatureHeaders, strict=False)
    except msgspec.ValidationError as error:
        raise MalformedTick(f"headers: {error}") from error


def instants(times: NDArray[np.int64]) -> list[str]:
    """What ``instant`` makes of each time; a third of the price of a row would be spent in it one by one."""
    texts = np.datetime_as_string(times.view("M8[ns]"), unit="ns").tolist()
    return [text.rstrip("0").removesuffix(".") + "Z" for text in texts]


class FeatureRowCodec:
    """Feature rows of one set ↔ JSON objects with the columns of a feature file; what was not told is null.

    The floats survive to the last bit. ``timestamp`` is RFC 3339 with nanoseconds.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set
        self._floats = (*ROW_FLOATS, *feature_set.names)
        fields: list[tuple[str, Any]] = [("timestamp", str), ("product_id", str), ("session_id", int)]
        fields += [("is_warm", bool), ("is_whole", bool), *((name, float | None) for name in self._floats)]
        self._line = msgspec.defstruct("FeatureLine", fields, frozen=True, gc=False, forbid_unknown_fields=True)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(self._line).decode

    def encode(self, row: FeatureRow) -> bytes:
        """One row as a message's value."""
        line = self._line(
            format_time(row.timestamp), row.product_id, row.session_id, row.is_warm, row.is_whole, *row.values.tolist()
        )
        return self._encode(line)

    def encode_rows(self, rows: FeatureRows) -> list[bytes]:
        """Many rows, each as ``encode`` does it."""
        times, sessions = instants(rows.timestamp), rows.session_id.tolist()
        products = [rows.products[code] for code in rows.product.tolist()]
        warm, whole = rows.is_warm.tolist(), rows.is_whole.tolist()
        line, encode = self._line, self._encode
        encoded: list[bytes] = []
        for start in range(0, len(rows), SLAB_ROWS):
            # floats become objects a slab at a time: those of a whole batch do not fit into the processor's caches
            slab = slice(start, start + SLAB_ROWS)
            columns = zip(times[slab], products[slab], sessions[slab], warm[slab], whole[slab], strict=True)
            for told, values in zip(columns, rows.values[slab].tolist(), strict=True):
                encoded.append(encode(line(*told, *values)))
        return encoded

    def decode(self, value: bytes) -> FeatureRow:
        """The row of a message's value.

        Raises:
            MalformedTick: it is not a row of this set; a column that is missing or too many is named.
        """
        try:
            line: Any = self._decode(value)
            timestamp = parse_time(line.timestamp)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise MalformedTick(f"no feature row: {error}") from error
        told = [getattr(line, name) for name in self._floats]
        values = np.array([np.nan if value is None else value for value in told])
        return FeatureRow(
            timestamp, line.product_id, line.session_id, line.is_warm, line.is_whole, values, self.feature_set
        )


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of one feature row; null where it says nothing, because the row is not warm.

    ``timestamp`` is the row's (RFC 3339), ``digest`` that of the features, ``prediction`` 1 where the probability
    reaches the threshold. ``alert`` marks the row that begins an episode.
    """

    product_id: str
    timestamp: str
    probability: float | None
    prediction: int | None
    threshold: float
    alert: bool
    model_version: str
    simulated: bool
    digest: str


_PREDICTION: Final = msgspec.json.Decoder(Prediction)


def encode_prediction(prediction: Prediction) -> bytes:
    """A prediction as a message's value."""
    return msgspec.json.encode(prediction)


def decode_prediction(value: bytes) -> Prediction:
    """The prediction of a message's value.

    Raises:
        MalformedTick: it is none.
    """
    try:
        return _PREDICTION.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedTick(f"no prediction: {error}") from error


def dead_headers(reason: str, topic: str, partition: int, offset: int) -> Headers:
    """The headers of a dead letter: why, and where its message came from; its key and value stay what they were."""
    told: Mapping[str, object] = {"reason": reason, "topic": topic, "partition": partition, "offset": offset}
    return [(f"volspike.{name}", str(value).encode()) for name, value in told.items()]
