"""Replay into feature files, and their labels."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from volspike.datasets import load_dataset
from volspike.datasets.build import build_features, label_file, label_table, read_ahead
from volspike.datasets.dataset import compare
from volspike.datasets.feature_file import KEY, FeatureFacts, FeatureTable, SuppliedFacts, facts_of
from volspike.errors import DataError, NotEnoughData, SchemaMismatch, UnreadableFile, UsageError
from volspike.features import ROW_COLUMNS, Every, FeatureEngine, FeatureSet, Scope
from volspike.feeds.simulation.market import simulate_market
from volspike.labels import SpikeDefinition, future_volatility
from volspike.market import SECOND_NS, Kind, Profile, Tick, Ticks
from volspike.tape import TableTape, read_ticks, tape_metadata, write_parquet

SET = FeatureSet((30, 60, 120))


def facts(path: Path) -> FeatureFacts:
    with pq.ParquetFile(path) as file:
        return facts_of(path, file)


@pytest.mark.parametrize("every", list(Every))
def test_a_feature_file_has_the_rows_of_a_live_engine(tape: Path, tmp_path: Path, every: Every) -> None:
    """The rows of the file are bit-identical to those of an engine that gets the ticks one by one."""
    out = tmp_path / "features.parquet"
    build_features([tape], out, SET, every)
    engine = FeatureEngine(SET, every=every)
    live = [row for ticks in read_ticks([tape]) for tick in ticks for row in engine.update(tick)]
    table = pq.read_table(out)
    assert table.column_names == [*ROW_COLUMNS, *SET.names]
    assert np.asarray(table["timestamp"].cast(pa.int64())).tolist() == [row.timestamp for row in live]
    assert table["product_id"].to_pylist() == [row.product_id for row in live]
    assert table["is_whole"].to_pylist() == [row.is_whole for row in live]
    for name in (*SET.names, "spread_bps", "gap_seconds"):
        want = np.array([row.by_name()[name] for row in live])
        assert np.asarray(table[name]).tobytes() == want.tobytes(), name


def test_a_feature_file_has_its_facts(tape: Path, features: Path) -> None:
    """Digest, windows, row rate, profile, τ and that the market was simulated are kept in the file."""
    kept = facts(features)
    assert (kept.digest, kept.windows, kept.every, kept.profile) == (
        SET.digest,
        SET.windows,
        Every.SECOND,
        Profile.TICKER,
    )
    assert kept.simulated
    assert kept.tau is not None
    assert kept.tau > 0


def test_labels_are_those_of_the_closing_prices(features: Path) -> None:
    """Each product's labels in the file equal those computed from its closing prices alone."""
    table = pq.read_table(features)
    for product in ("BTC-USD", "ETH-USD"):
        mine = table.filter(pa.compute.equal(table["product_id"], product))
        want = future_volatility(np.asarray(mine["price"]))
        np.testing.assert_allclose(mine["future_volatility"].to_numpy(zero_copy_only=False), want, rtol=1e-12)


def test_rows_per_tick_and_per_second_have_the_same_labels(tape: Path, features: Path, tmp_path: Path) -> None:
    """A second's label does not depend on how often rows are made."""
    by_tick = tmp_path / "ticks.parquet"
    build_features([tape], by_tick, SET, Every.TICK)
    label_file(by_tick, by_tick)
    seconds: dict[tuple[str, int], list[float | None]] = {}
    table = pq.read_table(features)
    for time, product, label in zip(
        *(table[name].to_pylist() for name in ("session_id", "product_id", "future_volatility")), strict=True
    ):
        seconds.setdefault((product, time), []).append(label)
    table = pq.read_table(by_tick)
    instants = np.asarray(table["timestamp"].cast(pa.int64())) // SECOND_NS
    labels = table["future_volatility"].to_pylist()
    rows = zip(instants.tolist(), table["product_id"].to_pylist(), table["session_id"].to_pylist(), labels, strict=True)
    checked = 0
    for second, product, session, label in rows:
        want = seconds[product, session]
        if second - session < len(want) and label is not None:
            assert label == want[second - session]
            checked += 1
    assert checked > 10_000


def test_unlabelled_rows_are_null(features: Path) -> None:
    """A row whose next minute is not over has no label, rather than a calm one."""
    table = pq.read_table(features)
    assert table["volatility_spike"].null_count == table["future_volatility"].null_count == 2 * 60


def test_later_data_changes_no_earlier_label(tape: Path, tmp_path: Path) -> None:
    """With a given τ, a longer tape has the same labels for the rows of a shorter tape."""
    ticks = Ticks.join(list(read_ticks([tape])))
    short_tape = tmp_path / "short.parquet"
    write_parquet([ticks[: len(ticks) // 2]], short_tape)
    tables = []
    for name, source in (("short", short_tape), ("long", tape)):
        out = tmp_path / f"{name}_features.parquet"
        build_features([source], out, SET, Every.TICK)
        label_file(out, out, SpikeDefinition.parse("fixed:1e-4"))
        tables.append(pq.read_table(out))
    short, long = tables
    spike = short["volatility_spike"].to_pylist()
    known = [row for row, value in enumerate(spike) if value is not None]
    assert len(known) > 1000
    same = long["volatility_spike"].to_pylist()
    assert [spike[row] for row in known] == [same[row] for row in known]


def test_threshold_comes_from_the_past(features: Path, tmp_path: Path) -> None:
    """A volatile end of the file does not change τ, which comes from the first 70 % of the rows."""
    table = pq.read_table(features)
    price = np.asarray(table["price"]).copy()
    tail = slice(int(len(price) * 0.8), None)
    price[tail] *= np.exp(np.random.default_rng(0).normal(0, 0.05, len(price[tail])))
    volatile = table.set_column(table.column_names.index("price"), "price", pa.array(price))
    path = tmp_path / "volatile.parquet"
    pq.write_table(volatile, path)
    assert label_file(path, path).facts.tau == facts(features).tau


def test_a_flat_market_has_no_labels(tmp_path: Path) -> None:
    """Without price moves there is no τ, and the file is unchanged."""
    flat = [
        Tick(time=k * SECOND_NS, received=k * SECOND_NS, kind=Kind.TICKER, product_id="X", price=5.0)
        for k in range(1, 700)
    ]
    tape, out = tmp_path / "flat.parquet", tmp_path / "features.parquet"
    write_parquet([Ticks.of(flat)], tape)
    build_features([tape], out, SET)
    before = out.read_bytes()
    with pytest.raises(NotEnoughData, match="hardly moved"):
        label_file(out, out)
    assert out.read_bytes() == before


def test_profile_is_detected_from_the_tape(tmp_path: Path) -> None:
    """Trades alone give profile trade; a tape that changes its profile is rejected unless the profile is given."""

    def tick(second: int, kind: Kind) -> Tick:
        time = second * SECOND_NS
        return Tick(time=time, received=time, kind=kind, product_id="X", price=5.0, last_size=1.0)

    trades, mixed = tmp_path / "trades.parquet", tmp_path / "mixed.parquet"
    write_parquet([Ticks.of([tick(k, Kind.TRADE) for k in range(1, 50)])], trades)
    early = [tick(k // 4000 + 1, Kind.TICKER) for k in range(270_000)]
    distinct = [
        Tick(**{name: getattr(t, name) for name in Tick.__struct_fields__} | {"time": t.time + k})
        for k, t in enumerate(early)
    ]
    write_parquet([Ticks.of([*distinct, tick(60, Kind.TRADE)])], mixed)
    assert build_features([trades], tmp_path / "out.parquet", SET).facts.profile is Profile.TRADE
    with pytest.raises(DataError, match="--profile"):
        build_features([mixed], tmp_path / "no.parquet", SET)
    assert not (tmp_path / "no.parquet").exists()
    assert build_features([mixed], tmp_path / "yes.parquet", SET, profile=Profile.TICKER).rows == 270_000


@pytest.mark.parametrize("spike", ["jump:2", "level", "fixed:1e-4", "percentile:90"])
def test_tables_give_the_rows_of_files(tmp_path: Path, spike: str) -> None:
    """From a table of ticks to a table of labelled rows, with the rows and the facts of the files."""
    tape, out = tmp_path / "tape.parquet", tmp_path / "rows.parquet"
    write_parquet(simulate_market(["BTC-USD", "ETH-USD"], 4_000, 3, 10**18), tape, simulated=True)
    wide, definition = FeatureSet(scope=Scope.FULL), SpikeDefinition.parse(spike)
    build_features([tape], out, wide, Every.SECOND)
    label_file(out, out, definition)
    rows = FeatureTable(wide)
    table = pq.read_table(tape).replace_schema_metadata(tape_metadata(simulated=True))
    result = build_features(TableTape(table), rows, wide, Every.SECOND)
    labelled, file = label_table(rows.take(), result.facts, definition), pq.read_table(out)
    assert labelled.schema.equals(file.schema.remove_metadata())
    assert labelled.schema.metadata[KEY] == pq.read_metadata(out).metadata[KEY]
    assert pl.DataFrame(labelled).equals(pl.DataFrame(file))
    assert result.rows == rows.written == len(labelled)
    assert len(rows.take()) == 0


def test_chunks_of_rows_in_memory_are_long(tmp_path: Path) -> None:
    """Small parts are joined, so that only the last chunk may be short."""
    write_parquet(simulate_market(["BTC-USD"], 40_000, 3, 10**18), tmp_path / "tape.parquet")
    build_features([tmp_path / "tape.parquet"], tmp_path / "rows.parquet", SET, Every.SECOND)
    table, rows = pq.read_table(tmp_path / "rows.parquet"), FeatureTable(SET)
    for start in range(0, len(table), 1000):
        rows.write_table(table.slice(start, 1000))
    collected = rows.take()
    assert [len(chunk) for chunk in collected["price"].chunks] == [17_000, 17_000, 5_999]
    assert pl.DataFrame(collected).equals(pl.DataFrame(table))


def test_one_simulated_tape_makes_the_file_simulated(tmp_path: Path) -> None:
    """A file from real and simulated tapes is marked as simulated."""
    real = [
        Tick(time=t, received=t, kind=Kind.TICKER, product_id="X", price=5.0 + k % 3)
        for k in range(70_000)
        if (t := 10**18 + k * 10**7)
    ]
    tapes = tmp_path / "real.parquet", tmp_path / "simulated.parquet"
    write_parquet([Ticks.of(real)], tapes[0])
    write_parquet([Ticks.of([tick_later(tick) for tick in real[:100]])], tapes[1], simulated=True)
    out = tmp_path / "features.parquet"
    assert build_features(tapes, out, SET, profile=Profile.TICKER).facts.simulated
    assert facts(out).simulated


def tick_later(tick: Tick) -> Tick:
    time = tick.time + 10**12
    return Tick(time=time, received=time, kind=tick.kind, product_id=tick.product_id, price=tick.price)


def test_bad_feature_files_are_named(tmp_path: Path, tape: Path, features: Path) -> None:
    """Errors for missing, foreign and unlabelled files name the file and the remedy."""
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    unlabelled = tmp_path / "unlabelled.parquet"
    build_features([tape], unlabelled, SET)
    for path, words in (
        (tmp_path / "absent.parquet", "no such file"),
        (text, "not a Parquet file"),
        (other, "not a feature file"),
        (tape, "not a feature file"),
        (unlabelled, "no labels"),
    ):
        with pytest.raises(UnreadableFile, match=words) as fault:
            load_dataset(path)
        assert str(path) in str(fault.value)


def test_a_file_without_facts_is_refused_or_read_with_stated_facts(features: Path, tmp_path: Path) -> None:
    """A feature file that another program saved without its metadata is read only with row rate, profile and origin."""
    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(features).replace_schema_metadata(None), bare)
    with pytest.raises(UnreadableFile, match=r"volspike label .* --every tick\|1s --profile .* --origin real"):
        load_dataset(bare)
    with pytest.raises(UnreadableFile, match=r"bare.parquet --origin real\|simulated"):
        label_file(bare, bare, supplied=SuppliedFacts(Every.SECOND, Profile.TICKER))
    label_file(bare, bare, supplied=SuppliedFacts(Every.SECOND, Profile.TICKER, simulated=True))
    facts = load_dataset(bare).facts
    assert (facts.digest, facts.every, facts.profile, facts.simulated) == (
        SET.digest,
        Every.SECOND,
        Profile.TICKER,
        True,
    )
    assert np.array_equal(load_dataset(bare).x, load_dataset(features).x, equal_nan=True)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_column_states_the_origin(features: Path, tmp_path: Path, simulated: bool) -> None:
    """A column ``simulated`` that remained in the data replaces --origin."""
    table = pq.read_table(features).replace_schema_metadata(None)
    bare = tmp_path / "bare.parquet"
    pq.write_table(table.append_column("simulated", pa.array([simulated] * len(table))), bare)
    result = label_file(bare, tmp_path / "out.parquet", supplied=SuppliedFacts(Every.SECOND, Profile.TICKER))
    assert result.facts.simulated is simulated


def test_stated_facts_may_not_contradict_the_file(features: Path, tmp_path: Path) -> None:
    """An option that differs from the metadata is refused."""
    with pytest.raises(UnreadableFile, match="its metadata states every 1s, not tick"):
        label_file(features, tmp_path / "out.parquet", supplied=SuppliedFacts(every=Every.TICK))


def test_unwritable_targets_are_usage_errors(tape: Path, tmp_path: Path) -> None:
    """A target below a file is refused before anything is read."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        build_features([tape], tmp_path / "file" / "out.parquet", SET)


def test_compare_finds_what_differs(features: Path, tape: Path, tmp_path: Path) -> None:
    """Two replays are equal; one changed value is found with its column; other windows are refused."""
    again, changed, other = (tmp_path / f"{name}.parquet" for name in ("again", "changed", "other"))
    build_features([tape], again, SET, Every.SECOND)
    assert compare(again, features).is_equal
    table = pq.read_table(again)
    spread = np.asarray(table["spread"]).copy()
    spread[100] += 0.5
    table = table.set_column(table.column_names.index("spread"), "spread", pa.array(spread))
    facts = {KEY: pq.read_metadata(again).metadata[KEY]}
    pq.write_table(table.replace_schema_metadata(facts), changed)
    found = compare(changed, features)
    assert found.differing["spread"][0] == 1
    assert found.differing["spread"][1] == pytest.approx(0.5)
    build_features([tape], other, FeatureSet((30,)), Every.SECOND)
    with pytest.raises(SchemaMismatch):
        compare(other, features)


def test_read_ahead_keeps_order_and_errors() -> None:
    """Chunks keep their order; an error follows the chunks before it, and nothing is read after it."""
    parts = [Ticks.of([Tick(time=k, received=k, kind=Kind.TICKER, product_id="A", price=1.0)]) for k in range(7)]
    assert [int(ticks.time[0]) for ticks in read_ahead(iter(parts))] == list(range(7))
    requested = []

    def failing() -> Iterator[Ticks]:
        for number, part in enumerate(parts):
            requested.append(number)
            if number == 3:
                raise UnreadableFile("tape", "torn")
            yield part

    found: list[int] = []
    with pytest.raises(UnreadableFile, match="torn"):
        found.extend(int(ticks.time[0]) for ticks in read_ahead(failing()))
    assert requested == [0, 1, 2, 3]


def test_read_ahead_is_bounded() -> None:
    """A consumer that stops early causes at most two more reads."""
    requested = []

    def counting() -> Iterator[Ticks]:
        for number in range(100):
            requested.append(number)
            yield Ticks.of([Tick(time=number, received=0, kind=Kind.TICKER, product_id="A", price=1.0)])

    ahead = read_ahead(counting())
    next(ahead)
    assert isinstance(ahead, Generator)
    ahead.close()
    assert len(requested) <= 3


@pytest.mark.parametrize("spike", ["jump:2", "level:90", "fixed:1e-4"])
def test_later_ticks_change_no_earlier_threshold(spike: str, tape: Path, tmp_path: Path) -> None:
    """τ of a row is the same bits in a longer tape, under every definition that uses the past only."""
    ticks = Ticks.join(list(read_ticks([tape])))
    short_tape = tmp_path / "short.parquet"
    write_parquet([ticks[: len(ticks) // 2]], short_tape)
    tables = []
    for name, source in (("short", short_tape), ("long", tape)):
        out = tmp_path / f"{name}_features.parquet"
        build_features([source], out, FeatureSet(scope=Scope.FULL), Every.SECOND)
        label_file(out, out, SpikeDefinition.parse(spike))
        tables.append(pq.read_table(out, columns=["product_id", "timestamp", "tau"]).to_pandas())
    short, long = tables
    both = short.merge(long, on=["product_id", "timestamp"], how="left", suffixes=("", "_long"))
    assert len(both) > 1000
    np.testing.assert_array_equal(both["tau"], both["tau_long"])


def test_a_jump_is_relative_to_the_trailing_hour(tape: Path, tmp_path: Path) -> None:
    """τ is a multiple of the column of the trailing hour, a spike is at or above it, and the facts name it."""
    out = tmp_path / "f.parquet"
    build_features([tape], out, FeatureSet(scope=Scope.FULL), Every.SECOND)
    result = label_file(out, out, SpikeDefinition.parse("jump:1.5"))
    table = pq.read_table(out).to_pandas()
    np.testing.assert_array_equal(table["tau"], 1.5 * table["realized_volatility_3600s"].where(lambda v: v > 0))
    known = table["future_volatility"].notna() & table["tau"].notna()
    np.testing.assert_array_equal(
        table["volatility_spike"][known], table["future_volatility"][known] >= table["tau"][known]
    )
    assert (result.facts.spike, result.facts.tau, result.labelled) == ("jump:1.5", None, int(known.sum()))


def test_a_jump_needs_the_column_of_the_trailing_hour(features: Path) -> None:
    """A file of the core set is refused with the feature set that has the column."""
    with pytest.raises(UnreadableFile, match="realized_volatility_3600s; replay with --feature-set full"):
        label_file(features, features, SpikeDefinition.parse("jump"))
