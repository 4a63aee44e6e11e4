"""A parallel replay gives the file of a single pass, bit for bit, or no file."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.strategies import SECOND, START, tick_lists

from volspike.datasets.build import BuildResult, build_features
from volspike.datasets.bulk import PendingUnit, ReplayOptions, StreamPartitioner, UnitInput, UnitResult, run_unit
from volspike.datasets.engines import LocalEngine, create_engine
from volspike.errors import DataError, UnreadableFile, UsageError, WorkerLost
from volspike.features import Every, FeatureSet, Scope
from volspike.market import Cause, Gap, Kind, Profile, Tick, Ticks
from volspike.tape import TapeReport, read_ticks, write_ndjson, write_parquet

CORE = FeatureSet((5, 30, 60))
FULL = FeatureSet((5, 30, 60), Scope.FULL)
STEPS = st.one_of(
    st.integers(0, 2 * SECOND),
    st.sampled_from([0, 10 * SECOND + 1, 45 * SECOND, 300 * SECOND, 300 * SECOND + 1, 900 * SECOND]),
    st.integers(-3 * SECOND, 0),
    st.sampled_from([-400 * SECOND, -(10**5) * SECOND]),
)
"""Steps with many silences, and with clocks that are set back."""


@dataclass(frozen=True)
class DoneUnit:
    rows: UnitResult
    state: bytes

    def result(self) -> UnitResult:
        return self.rows


@dataclass(frozen=True)
class ReadTape:
    tape: Path
    read_report: TapeReport

    def ticks(self) -> Iterator[Ticks]:
        return read_ticks([self.tape], report=self.read_report)

    def report(self) -> TapeReport:
        return self.read_report


@dataclass(frozen=True)
class OneByOne:
    """An engine that runs each unit at once."""

    workers: int = 1

    def read(self, tape: Path) -> ReadTape:
        return ReadTape(tape, TapeReport())

    def start(self, unit: UnitInput, state: Any) -> PendingUnit:
        return DoneUnit(*run_unit(unit, state))


def assert_equal(one: tuple[Path, BuildResult], other: tuple[Path, BuildResult]) -> None:
    """Both files hold the same rows in the same order, bits and facts alike, and both replays counted the same."""
    a, b = (pq.read_table(path) for path, _ in (one, other))
    assert a.schema.equals(b.schema, check_metadata=True)
    assert a["product_id"].to_pylist() == b["product_id"].to_pylist()
    for name in a.column_names:
        if name != "product_id":
            left, right = (np.asarray(table[name].combine_chunks().cast(_bits(table[name].type))) for table in (a, b))
            assert left.tobytes() == right.tobytes(), name
    (_, first), (_, second) = one, other
    assert (first.rows, first.facts, first.dropped) == (second.rows, second.facts, second.dropped)
    assert _unordered(first.report) == _unordered(second.report)


def _unordered(report: TapeReport) -> dict[str, Any]:
    """The report as a mapping; if tapes overlap, the order of its lists is not defined."""
    fields = asdict(report)
    return fields | {
        name: sorted(map(str, fields[name])) for name in ("products", "rejections", "notes", "rejected_files")
    }


def _bits(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def replay_both(
    tapes: Sequence[Path], folder: Path, engine: Any, feature_set: FeatureSet, **options: Any
) -> tuple[tuple[Path, BuildResult], tuple[Path, BuildResult]]:
    """Files and results of a single pass and of a parallel replay."""
    one, other = folder / "one.parquet", folder / "other.parquet"
    return (
        (one, build_features(tapes, one, feature_set, **options)),
        (other, build_features(tapes, other, feature_set, engine=engine, **options)),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[Tick]], list[Gap]]:
    """Tapes of several products that overlap, received in another order than stamped, and the gaps in them."""
    products = draw(st.sampled_from([("A",), ("A", "B"), ("A", "B", "C", "D", "E", "F")]))
    stamped = draw(tick_lists(products, min_size=2, max_size=60, steps=STEPS))
    received, now = [], START
    for tick in stamped:
        now += draw(st.sampled_from([0, 0, SECOND // 10, SECOND, 100 * SECOND]))
        fields = {name: getattr(tick, name) for name in Tick.__struct_fields__}
        received.append(Tick(**fields | {"received": now - draw(st.sampled_from([0, 0, 1, SECOND]))}))
    tapes: list[list[Tick]] = [[], [], []]
    for tick in received:
        tapes[draw(st.integers(0, 2))].append(tick)
    ends = st.integers(START - SECOND, now + SECOND)
    gaps = [
        Gap(start=end - SECOND, end=end, products=tuple(draw(st.sets(st.sampled_from((*products, "Z"))))),
            cause=draw(st.sampled_from([Cause.SILENCE, Cause.CLOCK])))
        for end in draw(st.lists(ends, max_size=4))
    ]  # fmt: skip
    return [tape for tape in tapes if tape], gaps


@given(
    histories(),
    st.sampled_from(Every),
    st.sampled_from([Profile.TICKER, Profile.TICKER_AND_TRADE, Profile.TRADE]),
    st.sampled_from([CORE, CORE, FULL]),
    st.sampled_from([2, 7, 20, 500]),
)
@settings(max_examples=40)
def test_units_give_the_rows_of_one_pass(
    history: tuple[list[list[Tick]], list[Gap]], every: Every, profile: Profile, feature_set: FeatureSet, stretch: int
) -> None:
    """For any split of any stream, rows, order, facts and counts equal those of a single pass."""
    parts, gaps = history
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        tapes = [folder / f"{index}.parquet" for index in range(len(parts))]
        for tape, ticks in zip(tapes, parts, strict=True):
            write_parquet([Ticks.of(ticks)], tape)
        patch.setattr("volspike.datasets.build.read_ticks", _in_chunks_of(stretch))
        options: dict[str, Any] = {"every": every, "profile": profile, "gaps": gaps}
        try:
            one = build_features(tapes, folder / "one.parquet", feature_set, **options)
        except UnreadableFile:
            with pytest.raises(UnreadableFile, match="no feature row"):
                build_features(tapes, folder / "other.parquet", feature_set, engine=OneByOne(), **options)
            return
        other = build_features(tapes, folder / "other.parquet", feature_set, engine=OneByOne(), **options)
        assert_equal((folder / "one.parquet", one), (folder / "other.parquet", other))


def _in_chunks_of(count: int) -> Any:
    def read(*sources: Any, **options: Any) -> Iterator[Ticks]:
        return read_ticks(*sources, **options, chunk=count)

    return read


def session(start: int, product: str = "A", seconds: int = 20) -> list[Tick]:
    return [
        Tick(time=t, received=t, kind=Kind.TICKER, product_id=product, price=5.0 + second % 3, trade_id=t // SECOND)
        for second in range(seconds)
        if (t := start + second * SECOND)
    ]


@pytest.mark.parametrize("every", list(Every))
def test_a_session_does_not_wait_for_the_one_before(every: Every) -> None:
    """A unit at the start of a session has its complete state, including trade ids for duplicates."""
    ticks = [*session(START), *session(START + 1000 * SECOND)]
    ticks.insert(25, ticks[3])
    partitions = StreamPartitioner(ReplayOptions(CORE, Profile.TICKER, every), 4)
    first, second = partitions.units(Ticks.of(ticks), 0, [])
    assert first.initial_state is None
    assert second.initial_state is not None
    assert len(first.input.ticks) == (21 if every is Every.SECOND else 20)
    result, _ = run_unit(second.input, second.initial_state)
    assert result.dropped.duplicates == 1
    assert result.positions.tolist() == sorted(result.positions)
    assert result.positions[0] == (21 if every is Every.SECOND else 20)


def test_a_leader_keeps_all_products_together() -> None:
    """With a leader there is one partition and no cut at sessions: every row may need the leader's state."""
    feature_set = FeatureSet((5, 30, 60), Scope.FULL, "A")
    ticks = [*session(START), *session(START, "B"), *session(START + 1000 * SECOND)]
    (unit,) = StreamPartitioner(ReplayOptions(feature_set, Profile.TICKER, Every.TICK), 8).units(Ticks.of(ticks), 0, [])
    assert len(unit.input.ticks) == len(ticks)
    assert unit.initial_state is None


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two NDJSON tapes and a Parquet one, two products in each, with damaged lines."""
    folder = tmp_path_factory.mktemp("days")
    paths = []
    for day in range(3):
        start = START + day * 4000 * SECOND
        ticks = Ticks.of(sorted(session(start) + session(start, "B"), key=lambda tick: tick.time))
        path = folder / f"day{day}.{'parquet' if day == 2 else 'ndjson'}"
        if day == 2:
            write_parquet([ticks], path, simulated=True)
        else:
            write_ndjson([ticks], path)
            with path.open("a") as file:
                file.write("no tick\n")
        paths.append(path)
    return paths


@pytest.mark.parametrize("leader", [None, "A"])
def test_processes_and_threads_give_the_file_of_one_pass(days: list[Path], tmp_path: Path, leader: str | None) -> None:
    """Tapes read by processes and rows made by threads: the same file and the same report, rejects included."""
    feature_set = FeatureSet((5, 30, 60), Scope.FULL, leader)
    with LocalEngine(2) as engine:
        one, other = replay_both(days, tmp_path, engine, feature_set)
    assert_equal(one, other)
    assert other[1].report.rejected == 2
    assert len(other[1].report.rejected_files) == 2
    assert json.loads(Path(other[1].report.rejected_files[0]).read_text())["text"] == "no tick"


class _Killed(LocalEngine):
    def read(self, tape: Path) -> Any:
        reading = super().read(tape)
        for process in multiprocessing.active_children():
            process.kill()
        return reading


def test_a_killed_worker_fails_the_replay(days: list[Path], tmp_path: Path) -> None:
    """After a reading process is killed there is one clear error, no file and no process."""
    before = set(multiprocessing.active_children())
    with pytest.raises(WorkerLost, match="nothing was written"), _Killed(2) as engine:
        build_features(days, tmp_path / "out.parquet", CORE, engine=engine)
    assert list(tmp_path.iterdir()) == []
    assert set(multiprocessing.active_children()) <= before


def test_an_interrupted_replay_leaves_nothing(days: list[Path], tmp_path: Path) -> None:
    """Ctrl-C in the midst ends the workers and leaves the old file as it was."""
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    before = set(multiprocessing.active_children())

    def interrupt(report: TapeReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), LocalEngine(2) as engine:
        build_features(days, out, CORE, engine=engine, on_progress=interrupt)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert set(multiprocessing.active_children()) <= before


def test_an_error_of_a_worker_is_raised_unchanged(days: list[Path], tmp_path: Path) -> None:
    """A damaged tape raises the same error in a worker as in this process."""
    broken = tmp_path / "broken.parquet"
    data = bytearray(days[2].read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    broken.write_bytes(data)
    tapes, out = [days[0], broken], tmp_path / "out.parquet"
    with pytest.raises(DataError) as here:
        build_features(tapes, out, CORE)
    with LocalEngine(2) as engine, pytest.raises(DataError) as there:
        build_features(tapes, out, CORE, engine=engine)
    assert type(here.value) is type(there.value)
    assert str(here.value) == str(there.value)
    assert not out.exists()


def test_workers_are_started_on_request() -> None:
    """Without --workers there is a single pass; more processes must be requested."""
    with create_engine("local", None, None) as engine:
        assert engine is None
    with create_engine("local", 1, None) as engine:
        assert engine is None
    with create_engine("local", 2, None) as engine:
        assert engine is not None


@pytest.mark.parametrize(("name", "address"), [("dask", None), ("local", "127.0.0.1:1")])
def test_what_does_not_fit_is_refused(name: str, address: str | None) -> None:
    """An unknown engine, and an address without Ray, are usage errors."""
    with pytest.raises(UsageError, match="--engine"):
        create_engine(name, None, address)


def test_without_ray_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, the error names the remedy."""
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'volspike\[ray\]'"):
        create_engine("ray", None, None)
