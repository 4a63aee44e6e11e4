"""The encoding of messages: a tick is its tape line; a feature row and a prediction are one JSON object each.

Keys are products, so all messages of a product are in one partition, in order. Kafka's timestamp is the receive
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
from volspike.labels import HORIZON_S
from volspike.market import Profile, format_time, parse_time
from volspike.market.time import MILLISECOND_NS

Headers: TypeAlias = list[tuple[str, bytes]]

SLAB_ROWS: Final = 32
"""Rows encoded at a time; the fastest of the sizes measured."""


class Message(NamedTuple):
    """A message for a topic; ``received`` in ns UTC."""

    key: bytes
    value: bytes
    received: int

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp; at least 1, since 0 means "now"."""
        return max(1, self.received // MILLISECOND_NS)


def tick_message(product_id: str, line: bytes, received: int) -> Message:
    """A tape line, with or without its line end, as a message."""
    return Message(product_id.encode(), line.rstrip(b"\r\n"), received)


class FeatureHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The headers of every feature row: feature digest, row rate, profile, and whether the market is simulated."""

    digest: str
    every: Every
    profile: Profile
    simulated: bool = False

    def encode(self) -> Headers:
        """The values as headers of a message."""
        fields = msgspec.to_builtins(self)
        return [(f"volspike.{name}", msgspec.json.encode(value).strip(b'"')) for name, value in fields.items()]


def decode_feature_headers(headers: Sequence[tuple[str, bytes]] | None) -> FeatureHeaders:
    """The decoded headers of a feature row.

    Raises:
        MalformedTick: a header is missing or invalid.
    """
    fields = {
        name.removeprefix("volspike."): value.decode(errors="replace")
        for name, value in headers or ()
        if name.startswith("volspike.") and value is not None
    }
    try:
        return msgspec.convert(fields, FeatureHeaders, strict=False)
    except msgspec.ValidationError as error:
        raise MalformedTick(f"headers: {error}") from error


def format_times(times: NDArray[np.int64]) -> list[str]:
    """``format_time`` of each time; calling it one by one would take a third of the time per row."""
    texts = np.datetime_as_string(times.view("M8[ns]"), unit="ns").tolist()
    return [text.rstrip("0").removesuffix(".") + "Z" for text in texts]


class FeatureRowCodec:
    """Feature rows of one set ↔ JSON objects with the columns of a feature file; missing values are null.

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
        """The value of a message with one row."""
        line = self._line(
            format_time(row.timestamp), row.product_id, row.session_id, row.is_warm, row.is_whole, *row.values.tolist()
        )
        return self._encode(line)

    def encode_rows(self, rows: FeatureRows) -> list[bytes]:
        """The values of messages with many rows, as from ``encode``."""
        times, sessions = format_times(rows.timestamp), rows.session_id.tolist()
        products = [rows.products[code] for code in rows.product.tolist()]
        warm, whole = rows.is_warm.tolist(), rows.is_whole.tolist()
        line, encode = self._line, self._encode
        encoded: list[bytes] = []
        for start in range(0, len(rows), SLAB_ROWS):
            # floats become Python objects one slab at a time: those of all rows would not fit into the CPU cache
            slab = slice(start, start + SLAB_ROWS)
            columns = zip(times[slab], products[slab], sessions[slab], warm[slab], whole[slab], strict=True)
            for header, values in zip(columns, rows.values[slab].tolist(), strict=True):
                encoded.append(encode(line(*header, *values)))
        return encoded

    def decode(self, value: bytes) -> FeatureRow:
        """The row in the value of a message.

        Raises:
            MalformedTick: not a row of this feature set; the message names a missing or unexpected column.
        """
        try:
            line: Any = self._decode(value)
            timestamp = parse_time(line.timestamp)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise MalformedTick(f"not a feature row: {error}") from error
        floats = [getattr(line, name) for name in self._floats]
        values = np.array([np.nan if value is None else value for value in floats])
        return FeatureRow(
            timestamp, line.product_id, line.session_id, line.is_warm, line.is_whole, values, self.feature_set
        )


class StreamPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction for one feature row; probability and prediction are null if the row is not warm.

    ``timestamp`` is that of the row (RFC 3339), ``digest`` that of the features, ``prediction`` 1 if the probability
    reaches the threshold. ``alert`` marks the row that opens an episode. A volatility of at least ``tau`` over the
    horizon is a spike; the expected one and its 10-90 % band are in basis points over the horizon.
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
    spike: str = ""
    tau: float | None = None
    horizon_s: int = HORIZON_S
    expected_volatility_bp: float | None = None
    volatility_low_bp: float | None = None
    volatility_high_bp: float | None = None


_PREDICTION: Final = msgspec.json.Decoder(StreamPrediction)


def encode_prediction(prediction: StreamPrediction) -> bytes:
    """The value of a message with a prediction."""
    return msgspec.json.encode(prediction)


def decode_prediction(value: bytes) -> StreamPrediction:
    """The prediction in the value of a message.

    Raises:
        MalformedTick: not a prediction.
    """
    try:
        return _PREDICTION.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedTick(f"not a prediction: {error}") from error


def dead_letter_headers(reason: str, topic: str, partition: int, offset: int) -> Headers:
    """The headers of a dead letter: the reason and the origin of the message; key and value are unchanged."""
    fields: Mapping[str, object] = {"reason": reason, "topic": topic, "partition": partition, "offset": offset}
    return [(f"volspike.{name}", str(value).encode()) for name, value in fields.items()]
