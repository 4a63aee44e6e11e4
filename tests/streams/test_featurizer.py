"""Messages of ticks become ticks, or dead letters, each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.strategies import tick_lists
from tests.streams.fake_kafka import FakeMessage
from tests.tape.recording import ticker
from tests.tape.strategies import tick_at
from volspike.errors import DataError
from volspike.features import Every, ExtraColumn, ExtraFeatures, FeatureEngine, FeatureSet
from volspike.market import SECOND_NS, Profile, Tick, Ticks
from volspike.streams.featurizer import Featurizer, decode_ticks
from volspike.streams.wire import FeatureRowCodec, decode_feature_headers
from volspike.tape import tape_line

SET = FeatureSet((3, 10))


def messages(values: Sequence[bytes | None]) -> list[FakeMessage]:
    return [FakeMessage("ticks.raw", 0, place, b"A", value) for place, value in enumerate(values)]


def fresh() -> Featurizer:
    stage = Featurizer(SET, Profile.TICKER, Every.TICK)
    stage.restore(None, 0, ())
    return stage


def lines(ticks: Sequence[Tick], *, simulated: bool = False) -> list[bytes]:
    return [tape_line(tick, simulated=simulated).rstrip() for tick in ticks]


@pytest.mark.parametrize(
    "damaged", [b"{", b"", None, b"  ", b"\xff", b'{"price": 1}', b"[1]", b'{"a": 1}\n{"a": 2}', b"}\n{"]
)
def test_a_damaged_message_is_dead_and_its_neighbours_live(damaged: bytes | None) -> None:
    """Whatever one message contains, its position and those of the others are correct."""
    told = lines([tick_at(k * SECOND_NS, 100.0 + k) for k in range(4)])
    ticks, dead, _ = decode_ticks([*told[:2], damaged, *told[2:]])
    assert ticks.price.tolist() == [100.0, 101.0, 102.0, 103.0]
    assert [place for place, _ in dead] == [2]
    assert all(reason for _, reason in dead)


def test_a_line_end_inside_of_a_message_is_a_blank() -> None:
    """A tick that is written over several lines is one tick."""
    (line,) = lines([tick_at(0, 5.0)])
    ticks, dead, _ = decode_ticks([line.replace(b",", b",\n"), line])
    assert (ticks.price.tolist(), dead) == ([5.0, 5.0], [])


def test_what_is_no_tick_and_no_damage_is_neither() -> None:
    """A heartbeat makes no row and is no dead letter; a bare frame of the exchange is a tick."""
    heartbeat = b'{"type":"heartbeat","sequence":90,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}'
    ticks, dead, _ = decode_ticks([heartbeat, ticker(10**18, 7.0).data])
    assert (ticks.price.tolist(), dead) == ([7.0], [])


@given(tick_lists(("A", "B")), st.lists(st.integers(0, 60), max_size=4), st.integers(0, 60))
def test_cutting_and_restoring_changes_no_row(told: list[Tick], cuts: list[int], restored_at: int) -> None:
    """However messages are cut into batches, and wherever a stage is restored, the rows are those of the engine."""
    values = lines(told)
    places = sorted({0, *cuts, restored_at, len(values)})
    stage, found = fresh(), []
    for start, end in pairwise(places):
        if start == restored_at:
            snapshot = stage.snapshot(start)
            stage = Featurizer(SET, Profile.TICKER, Every.TICK)
            stage.restore(snapshot, start, ())
        if part := messages(values)[start:end]:
            found += stage.process(part).values
    codec = FeatureRowCodec(SET)
    engine = FeatureEngine(SET, Profile.TICKER, Every.TICK)
    assert found == [value for rows in engine.run(Ticks.of(told)) for value in codec.encode_rows(rows)]


def add_up(state: np.ndarray, inputs: np.ndarray, out: np.ndarray) -> None:
    state[0] += inputs[0]
    out[0] = state[0]


EXTRA = ExtraFeatures(
    name="total",
    version="1",
    columns=(ExtraColumn("price", "quote", "sum of the prices of the session"),),
    inputs=("price",),
    initial=(0.0,),
    update=add_up,
    definition="sum",
)


@given(tick_lists(("A", "B")), st.integers(0, 60))
def test_extra_features_survive_a_restart(ticks: list[Tick], cut: int) -> None:
    """The state of an installed distribution's features is in the snapshot; their digest is in the headers."""
    extended = FeatureSet((3, 10), extras=(EXTRA,))
    values = lines(ticks)
    found, snapshot = [], None
    for part in (messages(values)[:cut], messages(values)[cut:]):
        stage = Featurizer(extended, Profile.TICKER, Every.SECOND)
        stage.restore(snapshot, cut if snapshot else 0, ())
        if part:
            output = stage.process(part)
            assert decode_feature_headers(output.headers).digest == extended.digest != SET.digest
            found += output.values
        snapshot = stage.snapshot(cut)
    codec = FeatureRowCodec(extended)
    rows = list(FeatureEngine(extended, Profile.TICKER, Every.SECOND).run(Ticks.of(ticks)))
    assert found == [value for each in rows for value in codec.encode_rows(each)]
    assert all(codec.decode(value).feature_set.names[-1] == "total__price" for value in found)


def test_a_simulated_market_is_told_from_then_on() -> None:
    """Headers say how rows were made; the mark outlives a restore."""
    stage = fresh()
    real, simulated = (lines([tick_at(k, 1.0)], simulated=bool(k)) for k in (0, 1))
    marks = []
    for values in (real, simulated, real):
        told = decode_feature_headers(stage.process(messages(values)).headers)
        assert (told.digest, told.every, told.profile) == (SET.digest, Every.TICK, Profile.TICKER)
        marks.append(told.simulated)
    assert marks == [False, True, True]
    again = Featurizer(SET, Profile.TICKER, Every.TICK)
    again.restore(stage.snapshot(3), 3, ())
    assert decode_feature_headers(again.process(messages(real)).headers).simulated


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    """A foreign state is a data error."""
    with pytest.raises(DataError, match="not a featurizer's snapshot"):
        Featurizer(SET, Profile.TICKER, Every.TICK).restore(b"x", 0, ())
