"""The public names of the package: tapes, features, labels, models, evaluation and the engine."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import volspike as vs
from volspike.datasets import load_dataset
from volspike.datasets.build import build_features, label_file
from volspike.errors import NotEnoughData, SchemaMismatch, UnreadableFile, UsageError, VolspikeError
from volspike.features import Every, FeatureSet
from volspike.feeds.simulation.market import simulate_market
from volspike.labels import SpikeDefinition
from volspike.market import SECOND_NS, Cause, Kind
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.tape import Ledger, write_ndjson, write_parquet

START = 1_760_000_400 * SECOND_NS
SECONDS = 5_400
GAP = vs.Gap(start=START + 4_000 * SECOND_NS, end=START + 4_030 * SECOND_NS, products=("BTC-USD",), cause=Cause.RESTART)

FRAMES: dict[str, Callable[[pa.Table], Any]] = {
    "arrow": lambda table: table,
    "polars": pl.DataFrame,
    "pandas": lambda table: table.to_pandas(),
    "stream": lambda table: pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape of a simulated market with a gap in its ledger, and what ``volspike replay --add-labels`` makes of it."""
    folder = tmp_path_factory.mktemp("library")
    tape = folder / "tape"
    tape.mkdir()
    write_ndjson(simulate_market(["BTC-USD"], SECONDS, 3, START), tape / "ticks.ndjson", simulated=True)
    ledger = Ledger(tape)
    ledger.add(GAP)
    assert ledger.flush()
    for every in Every:
        out = folder / f"{every}.parquet"
        build_features([tape], out, FeatureSet.of((30, 60, 300), "full"), every, gaps=[GAP])
        label_file(out, out, SpikeDefinition.parse("jump:2"))
    return folder


@pytest.fixture(scope="module")
def ticks(folder: Path) -> pa.Table:
    """The tape as a table of Arrow."""
    return vs.read_tape(folder / "tape").to_arrow()


def as_arrow(frame: Any) -> pa.Table:
    """Any frame as a table whose texts are texts."""
    return pl.DataFrame(frame).to_arrow()


def same(frame: Any, expected: pa.Table) -> bool:
    """Whether a frame has the columns of a file with equal bits."""
    table = as_arrow(frame)
    for name in expected.column_names:
        ours, theirs = as_numpy(table[name]), as_numpy(expected[name])
        if ours.dtype.kind == "f":
            ours, theirs = ours.view(np.int64), theirs.view(np.int64)
        if not np.array_equal(ours, theirs):
            return False
    return True


def as_numpy(column: pa.ChunkedArray) -> Any:
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()))
    if pa.types.is_dictionary(column.type) or pa.types.is_large_string(column.type):
        return np.array(column.to_pylist())
    values = np.asarray(column)
    return np.where(np.isnan(values), 0.5, values) if values.dtype.kind == "f" else values


@pytest.mark.parametrize("every", ["1s", "tick"])
def test_features_of_a_tape_are_those_of_replay(folder: Path, every: Any) -> None:
    """Bit for bit, the gaps of the ledger and the metadata included."""
    rows = vs.features(vs.read_tape(folder / "tape"), every=every)
    file = pq.read_table(folder / f"{every}.parquet")
    labels = ["future_volatility", "volatility_spike", "tau"]
    assert same(rows, file.drop_columns(labels))
    assert same(vs.labels(rows), file)
    assert not np.all(rows["is_whole"])


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_give_the_same_rows(folder: Path, ticks: pa.Table, kind: str) -> None:
    """Polars, pandas, Arrow and any Arrow stream; rows come back as the same kind, a stream's as Arrow."""
    make = FRAMES[kind]
    rows = vs.features(make(ticks), every="1s", gaps=[GAP], simulated=True)
    assert type(rows) is type({"stream": ticks}.get(kind, make(ticks)))
    labelled = vs.labels(rows, gaps=() if kind in {"arrow", "stream"} else [GAP])
    assert same(labelled, pq.read_table(folder / "1s.parquet"))


def test_a_simulated_market_stays_marked(ticks: pa.Table) -> None:
    """A table knows it; another frame must state its origin, and its rows of a simulated market have it in a column."""
    assert vs.features(ticks).schema.metadata == vs.features(ticks, simulated=True).schema.metadata
    with pytest.raises(UsageError, match="state simulated=True, not False"):
        vs.features(ticks, simulated=False)
    frame = pl.DataFrame(ticks)
    with pytest.raises(UnreadableFile, match="simulated=True"):
        vs.features(frame)
    assert vs.features(frame, simulated=True)["simulated"].all()
    assert "simulated" not in vs.features(frame, simulated=False).columns
    evaluation = vs.evaluate(vs.labels(vs.features(frame, simulated=True)))
    assert evaluation.figures["simulated"]


def test_ticks_of_elsewhere_need_a_time_a_price_and_a_product() -> None:
    """Common names are found; ``product=`` names the product; what is missing is named."""
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
    times = pl.datetime_range(start, end, "1s", eager=True, time_zone="UTC")
    frame = pl.DataFrame({"timestamp": times, "Price": np.full(len(times), 100.0), "qty": np.ones(len(times))})
    rows = vs.features(frame, product="ETH-USD")
    assert set(rows["product_id"].unique()) == {"ETH-USD"}
    assert rows["trade_intensity_60s"].max() == 60
    with pytest.raises(UnreadableFile, match=r"^the frame: no product"):
        vs.features(frame)
    with pytest.raises(UnreadableFile, match=r"^the frame: no tape: column price missing, found timestamp, qty"):
        vs.features(frame.drop("Price"), product="ETH-USD")
    with pytest.raises(UsageError, match="leave out product="):
        vs.features(frame.with_columns(product_id=pl.lit("A-B")), product="ETH-USD")
    with pytest.raises(UsageError, match="got list"):
        vs.features([1, 2, 3])


@pytest.mark.parametrize("kind", ["arrow", "polars", "pandas"])
@pytest.mark.parametrize("order", [1, -1])
def test_frames_pass_through_memory(
    folder: Path, ticks: pa.Table, kind: str, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From ticks in any order to an evaluation without a temporary file, and with the rows of the file."""
    frame = FRAMES[kind](ticks.take(np.arange(len(ticks))[::order]))
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    with pytest.raises(FileNotFoundError):
        tempfile.TemporaryDirectory()
    with pytest.warns(UserWarning, match="is newest first") if order < 0 else nullcontext():
        rows = vs.features(frame, gaps=[GAP], simulated=True)
    labelled = vs.labels(rows, gaps=[GAP])
    assert same(labelled, pq.read_table(folder / "1s.parquet"))
    assert len(vs.load_model().predict(labelled, gaps=[GAP])) == len(labelled)
    assert vs.evaluate(labelled, gaps=[GAP]).figures["simulated"]


def test_rows_of_polars_and_arrow_are_not_copied(ticks: pa.Table) -> None:
    """Labels and predictions share the memory of the rows that they extend."""
    rows = vs.features(pl.DataFrame(ticks), simulated=True).rechunk()
    for labelled in (vs.labels(rows), vs.labels(rows.to_arrow())):
        ours = labelled["price"]
        values = ours.to_numpy() if isinstance(ours, pl.Series) else ours.chunk(0).to_numpy()
        assert np.shares_memory(values, rows["price"].to_numpy())


def test_rows_keep_the_index_of_pandas(ticks: pa.Table) -> None:
    """So that labels and predictions can be assigned to the frame; a time in a named index is a column."""
    rows = vs.features(ticks.to_pandas().set_index("time"), simulated=True).set_index("timestamp")
    labelled = vs.labels(rows)
    assert labelled.index.equals(rows.index)
    assert labelled.columns.tolist() == [*rows.columns, "future_volatility", "volatility_spike", "tau"]
    later = rows[rows["is_warm"]].reset_index()
    scored = vs.load_model().predict(later[10:], every="1s")
    assert scored.index.tolist() == list(range(10, len(later)))
    assert scored["timestamp"].equals(later["timestamp"][10:])


def trades(count: int = 600, **columns: Any) -> pl.DataFrame:
    """Trades made elsewhere, one per second, with some of the columns replaced."""
    time = pl.Series(np.arange(count) * SECOND_NS + START).cast(pl.Datetime("ns", "UTC"))
    price = 100.0 + np.sin(np.arange(count))
    return pl.DataFrame({"time": time, "price": price, "size": np.ones(count)} | columns)


def test_what_is_left_out_is_a_warning() -> None:
    """Rejected rows with their number and first reason, dropped ticks, unread columns, a leader without ticks."""
    price = 100.0 + np.sin(np.arange(600))
    price[[3, 500]] = -1.0, np.nan
    rejected = "^2 of 600 rows are rejected; the first, row 4 of the frame: Expected a finite price above 0$"
    with pytest.warns(UserWarning, match=rejected) as caught:
        vs.features(trades(price=price), product="A-B")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for options, message in (
        ({"trade_id": np.r_[np.arange(599), 598]}, "dropped ticks: 1 duplicates"),
        ({"id": ["8f1c"] * 600}, "trade ids that are no numbers are not read"),
        ({"top_bid_vol": np.ones(600)}, "top_bid_vol is not read; if it is bid_size, rename it to that"),
    ):
        with pytest.warns(UserWarning, match=message):
            vs.features(trades(**options), product="A-B")
    with pytest.warns(UserWarning, match="no tick of the leader C-D"):
        vs.features(trades(), product="A-B", leader="C-D")


def test_a_frame_is_in_the_order_of_time_or_refused(ticks: pa.Table) -> None:
    """Rows out of order are named with their time; an order of receipt, as on a tape, is the order of the rows."""
    frame = trades(4_000)
    halves = pl.concat([frame[2_000:], frame[:2_000]])
    for wrong, row in ((pl.concat([frame, frame]), "4,001"), (halves, "2,001")):
        message = rf"^the frame: the time of A-B goes back by 3,999 s at row {row} .* after .*frame\.sort\(\"time\"\)"
        with pytest.raises(UnreadableFile, match=message):
            vs.features(wrong, product="A-B")
    with pytest.raises(UnreadableFile, match=r"goes back by .*: sort it by time"):
        vs.features(frame.sample(fraction=1.0, shuffle=True, seed=3), product="A-B")
    late = trades(4_000)["time"].to_numpy().copy()
    late[[100, 101]] = late[[101, 100]]
    expected = vs.features(frame, product="A-B")
    assert vs.features(halves.sort("time"), product="A-B").equals(expected)
    with pytest.warns(UserWarning, match="dropped ticks: 1 late"):
        vs.features(frame.with_columns(time=pl.Series(late)), product="A-B")
    with pytest.warns(UserWarning, match=r"clock step at line|dropped ticks: \d late"):
        vs.features(pa.concat_tables([ticks, ticks]))


def test_copies_of_rows_are_named() -> None:
    """By the trade id where there is one, otherwise where many rows equal the row before; equal trades are rare."""
    frame = trades()
    twice = pl.concat([frame, frame]).sort("time", maintain_order=True)
    with pytest.warns(UserWarning, match=r"^the frame: 600 of 1,200 rows equal the row before; if they are copies"):
        vs.features(twice, product="A-B")
    words = {"side": pl.lit("buy").cast(pl.Categorical), "venue": pl.lit(None)}
    with pytest.warns(UserWarning, match="600 of 1,200 rows equal the row before"):
        vs.features(twice.with_columns(**words), product="A-B")
    with pytest.warns(UserWarning, match="dropped ticks: 600 duplicates"):
        vs.features(twice.with_columns(trade_id=pl.int_range(1_200) // 2), product="A-B")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vs.features(twice.with_columns(size=pl.int_range(1_200) / 10), product="A-B")


@pytest.mark.parametrize(
    "change",
    [
        pl.col("time").dt.to_string("iso:strict"),
        *(pl.col("time").cast(pl.Int64) // per for per in (1, 1_000, 1_000_000, SECOND_NS)),
        pl.col("time").cast(pl.Float64) / SECOND_NS,
        pl.col("price", "size").cast(pl.String),
    ],
)
def test_times_and_numbers_of_any_type_are_read(change: pl.Expr) -> None:
    """As importing reads them: ISO 8601, numbers in s, ms, µs or ns, and numbers as texts."""
    frame = trades()
    assert vs.features(frame.with_columns(change), product="A-B").equals(vs.features(frame, product="A-B"))


def test_a_csv_file_of_pandas_is_read_without_parsing() -> None:
    """Texts of times, also without a zone, which are UTC or local times of ``timezone=``."""
    frame = trades()
    csv = frame.write_csv(datetime_format="%Y-%m-%d %H:%M:%S")
    expected = vs.features(frame, product="A-B")
    read = pd.read_csv(io.StringIO(csv))
    assert np.allclose(vs.features(read, product="A-B")["price"], expected["price"])  # pandas rounds the last bit
    local = vs.features(read, product="A-B", timezone="Asia/Tokyo")["timestamp"]
    assert local[0] == expected["timestamp"][0] - timedelta(hours=9)


def test_columns_without_a_time_or_number_name_the_remedy() -> None:
    """A value that cannot be read is a rejected row; a column of them, a far time or an unknown product an error."""
    far = pl.col("time") + pl.duration(days=9_000)
    for change, message in (
        (pl.lit("noon").alias("time"), r"no value of column time .*the first is 'noon': .* pd\.to_datetime"),
        (pl.lit("high").alias("price"), "no value of column price is a number; the first is 'high'"),
        (pl.int_range(600).alias("time"), "no time between 1990 and tomorrow"),
        (far, "no time between 1990 and tomorrow"),
        (pl.lit(True).alias("time"), "time is bool; convert them"),
        (pl.lit([1, 2]).alias("size"), "size is .*list.*; convert them"),
    ):
        with pytest.raises(UnreadableFile, match=message):
            vs.features(trades().with_columns(change), product="A-B")
    price = pl.when(pl.col("price") > 100.9).then(pl.lit("?")).otherwise(pl.col("price").cast(pl.String)).alias("price")
    with pytest.warns(UserWarning, match="rows are rejected; .*: Expected a finite price above 0"):
        vs.features(trades().with_columns(price), product="A-B")
    for product in ("", " ", "BTC USD"):
        with pytest.raises(UsageError, match="invalid product"):
            vs.features(trades(), product=product)
    for column in ("product", "symbol"):
        with pytest.raises(UsageError, match=f"has a column {column}: leave out product="):
            vs.features(trades().with_columns(pl.lit("ETH-USD").alias(column)), product="BTC-USD")
    assert vs.features(trades(), product="btc-usd")["product_id"][0] == "BTC-USD"


def test_quotes_without_a_price_have_the_middle() -> None:
    """As importing takes it; an empty side of the book gives no price."""
    quotes = trades().select("time", bid=pl.col("price") - 1.0, ask=pl.col("price") + 1.0)
    rows = vs.features(quotes, product="A-B")
    assert rows["price"].equals(vs.features(quotes.with_columns(price=pl.col("bid") + 1.0), product="A-B")["price"])
    quotes = quotes.with_columns(bid=pl.Series([0.0, *quotes["bid"][1:]]))
    with pytest.warns(UserWarning, match="1 of 600 rows are rejected"):
        vs.features(quotes, product="A-B")


def test_damaged_lines_of_a_tape_are_a_warning(tmp_path: Path) -> None:
    """And are not kept in a file, as the commands do."""
    path = tmp_path / "ticks.ndjson"
    write_ndjson(simulate_market(["BTC-USD"], 600, 3, START), path, simulated=True)
    path.write_bytes(path.read_bytes() + b'{"price": \n')
    tape = vs.read_tape(path)
    for use in (vs.features, vs.Tape.to_arrow, pa.table):
        with pytest.warns(UserWarning, match=r"^1 of [\d,]+ lines are rejected; the first, line \d+ of .*\.ndjson:"):
            use(tape)
    assert list(tmp_path.iterdir()) == [path]


def test_local_times_of_a_frame_have_a_zone() -> None:
    """``timezone=`` is that of times without one; a tape has its own."""
    frame = trades().with_columns(pl.col("time").dt.replace_time_zone(None))
    rows, local = (vs.features(frame, product="A-B", timezone=zone)["timestamp"] for zone in (None, "Asia/Tokyo"))
    assert (rows - local).unique().to_list() == [timedelta(hours=9)]
    with pytest.raises(UsageError, match="timezone='Mars/Base': no such time zone"):
        vs.features(frame, product="A-B", timezone="Mars/Base")
    with pytest.raises(UsageError, match=r"stated in vs\.read_tape"):
        vs.features(vs.Tape(("a.parquet",)), timezone="Asia/Tokyo")


def test_a_tape_is_streamed(tmp_path: Path) -> None:
    """The Arrow stream reads a tape when its batches are used: a file damaged meanwhile is found then."""
    count = 70_000
    price = 100.0 + np.sin(np.arange(count))
    for number, start in enumerate((START, START + count * SECOND_NS)):
        times = pl.Series(np.arange(count) * SECOND_NS + start).cast(pl.Datetime("ns", "UTC"))
        pl.DataFrame({"time": times, "price": price}).write_parquet(tmp_path / f"ticks_BTCUSD_{number}.parquet")
    tape = vs.read_tape(tmp_path)
    assert tape.to_arrow()["price"].to_pylist() == [*price, *price]
    stream = pa.RecordBatchReader.from_stream(tape)
    assert len(stream.read_next_batch()) == 65_536
    (tmp_path / "ticks_BTCUSD_1.parquet").write_bytes(b"PAR1")
    with pytest.raises(pa.ArrowInvalid, match=r"ticks_BTCUSD_1\.parquet: cannot be read"):
        stream.read_all()
    with pytest.raises(UnreadableFile, match=r"ticks_BTCUSD_1\.parquet"):
        pa.table(tape)


def test_predictions_are_those_of_the_model(folder: Path) -> None:
    """Aligned with the rows, also if they are in another order; missing where windows are not full."""
    path = folder / "1s.parquet"
    model, dataset, artifact = (
        vs.load_model("default"),
        load_dataset(path, labelled=False),
        Artifact.load(DEFAULT_MODEL),
    )
    expected = artifact.score_rows(dataset, np.arange(len(dataset)))
    table = pq.read_table(path)
    found = model.predict(table)
    assert found.column_names == ["timestamp", "product_id", "probability", "tau", "threshold", "is_alert"]
    probability = np.asarray(found["probability"])
    is_warm = np.asarray(table["is_warm"])
    assert np.array_equal(probability[is_warm], expected, equal_nan=True)
    assert np.isnan(probability[~is_warm]).all()
    assert np.isfinite(expected).sum() > 1000
    backwards = model.predict(table.take(np.arange(len(table))[::-1]))
    assert np.array_equal(np.asarray(backwards["probability"])[::-1], probability, equal_nan=True)
    assert isinstance(model.predict(pl.DataFrame(table), gaps=[GAP]), pl.DataFrame)


def test_an_evaluation_has_intervals_and_a_baseline(folder: Path) -> None:
    """Each figure of the model next to the best baseline, with the interval of the difference."""
    evaluation = vs.evaluate(pq.read_table(folder / "1s.parquet"))
    row = evaluation.table().to_pylist()[0]
    assert row["figure"] == "pr_auc"
    assert row["model"] == evaluation.pr_auc
    assert row["gain"] == pytest.approx(row["model"] - row["baseline"])
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    assert evaluation.baseline in evaluation.figures["baselines"]
    assert f"PR-AUC {evaluation.pr_auc:.3f}" in str(evaluation)
    for warning in evaluation.warnings:
        assert f"note: {warning}" in str(evaluation)
    assert repr(evaluation) == str(evaluation)  # a notebook shows the lines, not the arrays


def test_the_engine_makes_the_same_rows(folder: Path, ticks: pa.Table) -> None:
    """Tick by tick, from mappings, through a snapshot; equal to the rows of the tape without its gap."""
    expected = vs.features(ticks, every="1s", feature_set="core", simulated=True)
    engine, rows = vs.Engine(feature_set="core"), []
    for number, fields in enumerate(ticks.select(["time", "price", "product_id", "best_bid", "best_ask"]).to_pylist()):
        if number == 500:
            other = vs.Engine(feature_set="core")
            other.restore(engine.snapshot())
            engine = other
        rows += engine.update(fields | {"time": int(fields["time"].value)})
    assert [row.by_name()["realized_volatility_60s"] for row in rows if row.is_warm] == [
        value
        for value, is_warm in zip(
            expected["realized_volatility_60s"].to_pylist(), expected["is_warm"].to_pylist(), strict=True
        )
        if is_warm
    ]


def test_a_tick_states_its_fields() -> None:
    """A datetime with a zone is a time; unknown, missing and wrong fields are named."""
    engine = vs.Engine("tick", "core")
    at = datetime(2026, 1, 1, 0, 0, 1, 5, UTC)
    (row,) = engine.update({"time": at, "price": 1.0, "product_id": "BTC-USD"})
    assert row.timestamp == int(at.timestamp()) * SECOND_NS + 5_000
    (row,) = engine.update(vs.Tick(time=row.timestamp + 1, received=0, kind=Kind.TICKER, product_id="BTC-USD", price=2))
    assert row.by_name()["price"] == 2.0
    for fields, message in (
        ({"time": at, "price": 1.0}, "missing product_id"),
        ({"time": at, "price": 1.0, "product_id": "A-B", "qty": 1}, "unknown qty"),
        ({"time": at, "price": "high", "product_id": "A-B"}, "price"),
        ({"time": at.replace(tzinfo=None), "price": 1.0, "product_id": "A-B"}, "a datetime with a zone"),
    ):
        with pytest.raises(UsageError, match=message):
            engine.update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": np.nan}, "price of a tick is a finite number above 0, got nan"),
        ({"price": -5.0}, "price of a tick is a finite number above 0, got -5.0"),
        ({"last_size": -1.0}, "last_size of a tick is a finite number of 0 or more, or NaN, got -1.0"),
        ({"best_bid": np.inf}, "best_bid of a tick"),
        ({"time": 1_760_000_000}, r"in ns UTC, from 2000 to tomorrow, got 1760000000, .* 1970-01-01T00:00:01\.76Z"),
        ({"time": 2**63 - 1}, "from 2000 to tomorrow"),
        ({"product_id": " "}, "product of a tick"),
    ],
)
def test_a_tick_that_no_market_sends_is_refused(change: dict[str, Any], message: str) -> None:
    """As a mapping and as a ``Tick``, since the engine would drop it without an error."""
    fields: dict[str, Any] = {"time": START, "received": START, "kind": Kind.TICKER, "price": 1.0, "product_id": "A-B"}
    fields |= change
    for tick in (fields, vs.Tick(**fields)):
        with pytest.raises(UsageError, match=message):
            vs.Engine("tick", "core").update(tick)
    with pytest.raises(UsageError, match="a tick cannot be read"):
        vs.Engine("tick", "core").update(vs.Tick(**fields | {"time": START, "price": "high"}))
    fields |= {"time": START, "product_id": "A-B", "price": 1.0, "last_size": 1.0, "best_bid": 1.0}
    with pytest.raises(UsageError, match="received of a tick must be a number, got 'x'"):
        vs.Engine("tick", "core").update(vs.Tick(**fields | {"received": "x"}))
    with pytest.raises(UsageError, match="unknown 3"):
        vs.Engine("tick", "core").update({3: 3})  # type: ignore[dict-item]  # wrong on purpose


def test_the_row_rate_must_be_visible_or_stated(folder: Path) -> None:
    """Rows at full seconds with holes may be of ticks or of seconds; guessing would move the labels by a second."""
    rows = pl.DataFrame(pq.read_table(folder / "1s.parquet"))
    holes = rows.filter(pl.col("timestamp").dt.second() != 7)
    with pytest.raises(UsageError, match="every='1s'"):
        vs.labels(holes)
    assert vs.labels(holes, every="1s").height == holes.height
    with pytest.raises(UsageError, match="leave out every="):
        vs.labels(pq.read_table(folder / "1s.parquet"), every="tick")


MISSING = "^the rows lack columns that model relative_trees needs; missing: ewma_volatility_60s; keep these columns"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda rows: vs.labels(pl.DataFrame({"a": [1]})), UsageError, "call vs.features"),
        (lambda rows: vs.labels(rows, "jump:x"), VolspikeError, "jump"),
        (lambda rows: vs.evaluate(rows.drop_columns(["future_volatility"])), UsageError, "call|vs.labels"),
        (lambda rows: vs.features(rows, every="2s"), UsageError, "every must be one of tick, 1s"),  # type: ignore[arg-type]  # wrong on purpose
        (vs.features, UnreadableFile, "it holds feature rows"),
        (lambda rows: vs.load_model("no/such/model"), VolspikeError, "train one"),
        (lambda rows: vs.load_model().predict(rows.slice(0, 100)), NotEnoughData, "the frame"),
        (lambda rows: vs.load_model().predict(rows.drop_columns(["ewma_volatility_60s"])), SchemaMismatch, MISSING),
        (lambda rows: vs.load_model("baseline").predict(rows), SchemaMismatch, "every='tick'"),
        (lambda rows: vs.evaluate(rows, spike="level"), SchemaMismatch, "`vs.labels.frame, spike='level:90'"),
        (lambda rows: vs.read_tape("no/such/tape"), UsageError, "no such tape"),
    ],
)
def test_wrong_calls_say_what_to_do(folder: Path, call: Any, error: type[Exception], message: str) -> None:
    """One line that names the option, column or file."""
    with pytest.raises(error, match=message) as caught:
        call(pq.read_table(folder / "1s.parquet"))
    assert "tmp" not in str(caught.value)


def test_a_tape_reads_as_any_frame(folder: Path, ticks: pa.Table) -> None:
    """Through the Arrow interface, and with the zone of its local times."""
    tape = vs.read_tape(str(folder / "tape"))
    assert tape.gaps == (GAP,)
    assert tape.to_polars().equals(pl.DataFrame(tape))
    assert len(tape.to_pandas()) == len(pa.table(tape)) == len(ticks)
    local = folder / "local.parquet"
    table = ticks.set_column(0, "time", ticks["time"].cast(pa.timestamp("ns")))
    pq.write_table(table.select(["time", "price", "product_id"]), local)
    shifted = vs.read_tape(local, timezone="Asia/Tokyo").to_arrow()["time"].cast(pa.int64())
    assert np.all(np.asarray(ticks["time"].cast(pa.int64())) - np.asarray(shifted) == 9 * 3600 * SECOND_NS)


def test_the_names_work_whatever_was_imported_before() -> None:
    """``volspike.features`` and ``volspike.labels`` are also modules; the public functions are reached all the same."""
    code = """
import volspike as vs
import volspike.features, volspike.labels
from volspike.features import FeatureSet
assert callable(vs.features) and callable(vs.labels), "modules"
assert set(vs.__all__) <= set(dir(vs))
assert all(getattr(vs, name) is not None for name in vs.__all__)
try:
    vs.nothing
except AttributeError as error:
    assert "read_tape" in str(error)
else:
    raise SystemExit("an unknown name was found")
import sys
"""
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  our own code
    light = "import sys, volspike; raise SystemExit('pyarrow' in sys.modules or 'numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)  # noqa: S603


def test_a_parquet_tape_of_polars_reads(folder: Path, ticks: pa.Table) -> None:
    """Its categories have unsigned indices with nulls."""
    path = folder / "polars.parquet"
    pl.DataFrame(ticks).write_parquet(path)
    part = next(iter(simulate_market(["BTC-USD"], 10, 3, START)))
    write_parquet([part], folder / "own.parquet")
    assert len(vs.features(pl.read_parquet(path), simulated=True)) > SECONDS - 10
