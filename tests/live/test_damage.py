"""Damage of a feed, from its frames to the labelled rows of the recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.feeds.scripted import of

from volspike.datasets.build import build_features, label_file
from volspike.features import Every, FeatureSet
from volspike.feeds.decoder import EventDecoder
from volspike.feeds.events import FeedFrame
from volspike.feeds.inbox import Arrival
from volspike.feeds.venues import all_protocols
from volspike.labels import SpikeDefinition
from volspike.market import SECOND_NS, Gap, format_time
from volspike.tape import Ledger
from volspike.tape.recorder import Recorder

START = 1_767_225_600 * SECOND_NS
SECONDS, DAMAGED = 1000, 450
WINDOW, HORIZON = 300, 60
LATENCY = SECOND_NS // 20


def frame(second: int, shift_s: int = 0) -> bytes:
    time = format_time(START + (second + shift_s) * SECOND_NS)
    return (
        f'{{"type":"ticker","product_id":"BTC-USD","price":"{100 + second % 7}","time":"{time}",'
        f'"best_bid":"99","best_bid_size":"1","best_ask":"108","best_ask_size":"2","trade_id":{second + 1}}}'
    ).encode()


@pytest.mark.parametrize(
    "damaged",
    [
        frame(DAMAGED)[:40],
        frame(DAMAGED).replace(b'"price":"10', b'"price":"-10'),
        frame(DAMAGED, 299),
        frame(DAMAGED, -3600),
    ],
    ids=["truncated", "negative price", "299 s ahead", "an hour behind"],
)
def test_damage_marks_rows_and_removes_labels(tmp_path: Path, damaged: bytes) -> None:
    """One damaged tick: rows of the next 300 s are not complete, labels of the minute before are missing, no others."""
    decoder = EventDecoder(all_protocols()["coinbase-exchange"], {}, ("BTC-USD",))
    with Recorder(tmp_path) as recorder:
        for second in range(SECONDS):
            data = damaged if second == DAMAGED else frame(second)
            events = decoder.decode(Arrival(START + second * SECOND_NS + LATENCY, data))
            for gap in of(Gap, events):
                recorder.gap(gap)
            for event in of(FeedFrame, events):
                recorder.frame(event.received, event.frame)
    out = tmp_path / "features.parquet"
    build_features([tmp_path], out, FeatureSet(), Every.SECOND, gaps=Ledger.read(tmp_path))
    label_file(out, out, SpikeDefinition.parse("fixed:0.001"))
    rows = pq.read_table(out, columns=["timestamp", "is_whole", "is_warm", "future_volatility"])
    second = (
        rows["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64) // SECOND_NS - START // SECOND_NS - 1
    )
    assert second.tolist() == list(range(SECONDS - 1))
    lost = np.flatnonzero(~rows["is_whole"].to_numpy())
    assert DAMAGED - 1 <= lost[0] <= DAMAGED
    assert WINDOW <= len(lost) <= WINDOW + 3
    assert (np.diff(lost) == 1).all()
    unlabelled = np.flatnonzero(np.isnan(rows["future_volatility"].to_numpy()))
    within = unlabelled[unlabelled < SECONDS - 2 - HORIZON]
    assert DAMAGED - HORIZON - 2 <= within[0] <= DAMAGED - HORIZON
    assert DAMAGED <= within[-1] + 1 <= DAMAGED + 2
    assert (np.diff(within) == 1).all()
