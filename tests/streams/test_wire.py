"""Messages in the topics are read as they were written."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given

from tests.features.strategies import tick_lists
from tests.tape.strategies import tick_at, ticks
from volspike.errors import MalformedTick
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.market import Profile, Tick, Ticks
from volspike.streams.wire import (
    FeatureHeaders,
    FeatureRowCodec,
    StreamPrediction,
    dead_letter_headers,
    decode_feature_headers,
    decode_prediction,
    encode_prediction,
    tick_message,
)
from volspike.tape import tape_line

SET = FeatureSet((3, 10))
CODEC = FeatureRowCodec(SET)


@given(ticks())
def test_a_tick_is_its_tape_line_without_the_end(tick: Tick) -> None:
    """Value, key and timestamp are those of the tape; a timestamp of 0 would mean "now"."""
    line = tape_line(tick)
    message = tick_message(tick.product_id, line, tick.received)
    assert message.value + b"\n" == line
    assert message.key.decode() == tick.product_id
    assert message.timestamp_ms == max(1, tick.received // 1_000_000)


@given(tick_lists(("BTC-USD", "ETH-USD")))
def test_feature_rows_read_back_to_the_bit(told: list[Tick]) -> None:
    """Every column comes back, what was not known as null and NaN; many rows encode as one by one."""
    for rows in FeatureEngine(SET, Profile.TICKER, Every.TICK).run(Ticks.of(told)):
        values = CODEC.encode_rows(rows)
        for row, value in zip(rows, values, strict=True):
            assert CODEC.encode(row) == value
            read = CODEC.decode(value)
            assert (read.timestamp, read.product_id, read.session_id) == (row.timestamp, row.product_id, row.session_id)
            assert (read.is_warm, read.is_whole) == (row.is_warm, row.is_whole)
            np.testing.assert_array_equal(read.values, row.values)
            assert b"NaN" not in value


def test_a_row_of_another_set_is_refused_by_name() -> None:
    """A column that is missing or unknown is named, whichever set is the greater."""
    (row,) = FeatureEngine(SET, Profile.TICKER, Every.TICK).update(tick_at(0))
    with pytest.raises(MalformedTick, match="log_return_30s"):
        FeatureRowCodec(FeatureSet((3, 10, 30))).decode(CODEC.encode(row))
    with pytest.raises(MalformedTick, match="log_return_10s"):
        FeatureRowCodec(FeatureSet((3,))).decode(CODEC.encode(row))


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b"\xff", b'{"timestamp": "yesterday"}'])
def test_what_is_no_row_and_no_prediction_is_refused(value: bytes) -> None:
    """Any other bytes are one kind of error, which a worker can send to the dead letters."""
    with pytest.raises(MalformedTick):
        CODEC.decode(value)
    with pytest.raises(MalformedTick):
        decode_prediction(value)


def test_headers_tell_how_a_row_was_made() -> None:
    """Digest, rate, profile and the simulated mark come back; without them a row is not to be trusted."""
    told = FeatureHeaders(digest="7c1e", every=Every.SECOND, profile=Profile.TICKER_AND_TRADE, simulated=True)
    assert decode_feature_headers([("other", b"x"), *told.encode()]) == told
    assert ("volspike.simulated", b"true") in told.encode()
    for broken in (None, [], told.encode()[1:], [*told.encode()[:-1], ("volspike.simulated", b"perhaps")]):
        with pytest.raises(MalformedTick, match="headers"):
            decode_feature_headers(broken)


def test_a_prediction_reads_back() -> None:
    """What the model did not say stays null."""
    told = StreamPrediction(
        product_id="BTC-USD",
        timestamp="2025-12-06T05:45:35.123456789Z",
        probability=None,
        prediction=None,
        threshold=0.25,
        alert=False,
        model_version="random_forest (ml)",
        simulated=False,
        digest="7c1e",
    )
    assert decode_prediction(encode_prediction(told)) == told
    assert msgspec.json.decode(encode_prediction(told))["probability"] is None


def test_a_dead_letter_tells_where_it_came_from() -> None:
    """Reason, topic, partition and offset are in headers; the message itself is unchanged."""
    assert dead_letter_headers("no JSON at $", "ticks.raw", 2, 17) == [
        ("volspike.reason", b"no JSON at $"),
        ("volspike.topic", b"ticks.raw"),
        ("volspike.partition", b"2"),
        ("volspike.offset", b"17"),
    ]
