"""Parts lie end to end, whatever happened between writing and renaming one."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.tape.strategies import tick_at
from volspike.datasets.feature_file import facts_of, open_feature_file
from volspike.errors import UnreadableFile, UsageError
from volspike.features import Every, FeatureEngine, FeatureRows, FeatureSet
from volspike.market import SECOND_NS, Profile, Ticks
from volspike.streams.sink import PartitionParts, facts_for, list_parts, merge_parts, parquet_sink, parts_folder

SET = FeatureSet((3, 10))
FACTS = facts_for(SET, Every.TICK, Profile.TICKER)


def rows(count: int, product: str = "A", start_s: float = 0.0) -> FeatureRows:
    ticks = [tick_at(round((start_s + k) * SECOND_NS), 100.0 + k % 5, product) for k in range(count)]
    return next(FeatureEngine(SET, Profile.TICKER, Every.TICK).run(Ticks.of(ticks)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "features.parquet"


def sink(file: Path, partition: int = 0, group: str = "g", offset: int = 0) -> PartitionParts:
    made = parquet_sink(file, group, "ticks.raw", FACTS)(partition)
    made.restore(offset, ())
    return made


def places(file: Path) -> list[tuple[int, int, bool]]:
    return [(part.start, part.end, part.is_committed) for part in list_parts(parts_folder(file))]


def written(it: PartitionParts, end: int, *, count: int = 5, publish: bool = True) -> None:
    it.add(rows(count, start_s=end), simulated=False)
    it.prepare(end)
    if publish:
        it.publish()


def test_a_part_counts_once_it_is_committed(file: Path) -> None:
    """Until then it is hidden, and no merge takes it."""
    it = sink(file)
    written(it, 10, publish=False)
    assert places(file) == [(0, 10, False)]
    assert merge_parts(file).parts == 0
    it.publish()
    assert places(file) == [(0, 10, True)]
    assert merge_parts(file).rows == 5


@pytest.mark.parametrize(
    ("offset", "earlier", "kept"),
    [(10, (), True), (30, (10, 20), True), (0, (), False), (30, (5, 20), False), (300, (100, 200), False)],
)
def test_a_hidden_part_is_settled_by_what_was_committed(
    file: Path, offset: int, earlier: tuple[int, ...], kept: bool
) -> None:
    """It gets its name where its end is that of a committed snapshot, and goes where it is not."""
    written(sink(file), 10, publish=False)
    again = parquet_sink(file, "g", "ticks.raw", FACTS)(0)
    again.restore(offset, earlier)
    committed = [(start, end) for start, end, is_committed in places(file) if is_committed]
    assert committed == ([(0, 10)] if kept else [])


def test_the_part_of_a_worker_that_was_overtaken_is_no_error(file: Path) -> None:
    """The next owner of the partition may have renamed it already."""
    it = sink(file)
    written(it, 10, publish=False)
    sink(file, offset=10)
    it.publish()
    assert places(file) == [(0, 10, True)]


def test_a_part_that_vanishes_before_its_commit_is_no_error_and_after_it_is(file: Path) -> None:
    """The next owner of the partition has removed it, and the commit fails; otherwise rows would be missing."""
    it = sink(file)
    written(it, 10, publish=False)
    sink(file)  # knows of no such commit
    assert places(file) == []
    with pytest.raises(FileNotFoundError):
        it.publish()


def test_parts_of_another_run_are_refused(file: Path) -> None:
    """Rows beyond the group's offset would be duplicates."""
    written(sink(file), 10)
    with pytest.raises(UsageError, match="belong to another run"):
        sink(file, offset=5)
    written(sink(file, group="other"), 10)
    with pytest.raises(UnreadableFile, match="several groups"):
        merge_parts(file)


def test_merged_rows_are_in_time_order(file: Path) -> None:
    """Partitions are interleaved by time, each in its own order; the parts stay, and the stream goes on."""
    for partition, product in ((0, "A"), (1, "B")):
        it = sink(file, partition)
        it.add(rows(40, product, 0.5 * partition), simulated=bool(partition))
        it.prepare(40)
        it.publish()
    merged = merge_parts(file)
    table = pq.read_table(file)
    assert (merged.rows, merged.parts, table.num_rows) == (80, 2, 80)
    assert table["product_id"].to_pylist() == ["A", "B"] * 40
    times = table["timestamp"].cast("int64").to_pylist()
    assert times == sorted(times)
    with open_feature_file(file) as opened:
        assert facts_of(file, opened).simulated
    assert len(places(file)) == 2


def test_offsets_that_lie_elsewhere_are_told(file: Path) -> None:
    """Where another machine had the partition meanwhile, the merge says which offsets it lacks."""
    written(sink(file), 10)
    written(sink(file, offset=25), 30)
    assert merge_parts(file).elsewhere == [(0, 10, 25)]


def test_overlapping_parts_are_refused(file: Path) -> None:
    """The same offsets in two parts would be duplicate rows."""
    written(sink(file), 10)
    parts = list_parts(parts_folder(file))
    twin = parts[0].path.with_name(parts[0].path.name.replace(f"{10:020d}", f"{12:020d}"))
    twin.write_bytes(parts[0].path.read_bytes())
    with pytest.raises(UnreadableFile, match="overlaps"):
        merge_parts(file)


def test_labels_come_once_the_minute_is_over(file: Path) -> None:
    """Rows of the last minute have none; where no minute is over yet, the file is there without."""
    it = sink(file)
    written(it, 30, count=30)
    early = merge_parts(file, 90.0)
    assert early.labels is None
    assert early.unlabelled
    assert "volatility_spike" not in pq.read_schema(file).names
    written(it, 500, count=400)
    late = merge_parts(file, 90.0)
    assert late.labels is not None
    assert 0 < late.labels.labelled < late.rows
