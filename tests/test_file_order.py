"""The order of write, fsync, rename and unlink: after a power failure each file is the old one or the new one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.files import FileOperations, recorded_operations
from tests.history.trades_exchange import LATER, Exchange, client_of, market
from tests.lifecycle.artifacts import artifact
from tests.tape.recording import NOON, Clock, ticker
from tests.tape.strategies import tick_at
from volspike.datasets.feature_file import write_atomically
from volspike.history.backfill import Span, backfill
from volspike.lifecycle.promotion import HISTORY_FILE, HistoryEntry, append_entry, promote
from volspike.market import SECOND_NS, Ticks
from volspike.models.artifact import replace_folder
from volspike.tape import Recorder, compact, write_ndjson, write_parquet

HOUR_NS = 3600 * SECOND_NS
FIRST, SECOND = "ticks_BTCUSD_20231115_120000.ndjson", "ticks_BTCUSD_20231115_130000.ndjson"
TAPE = "ticks_BTCUSD_20231115_12.parquet"


def record(folder: Path, seconds: Sequence[int]) -> None:
    """Records one frame at each of these seconds after noon."""
    clock = Clock(NOON)
    with Recorder(folder, clock=clock) as recorder:
        for second in seconds:
            clock.now = NOON + second * SECOND_NS
            recorder.frame(*ticker(clock.now))
            recorder.flush()


def assert_complete(operations: FileOperations, call: str, file: str, written: Path) -> None:
    """The file had all of its content when ``call`` was made."""
    sizes = [operation.size for operation in operations.all if (operation.call, operation.file) == (call, file)]
    assert sizes == [written.stat().st_size]
    assert sizes[0] > 0


def test_recorder_flushes_each_hour_to_the_disk_after_its_last_line(tmp_path: Path) -> None:
    """An hour file is written, then flushed to the disk; nothing is renamed or removed."""
    with recorded_operations(tmp_path) as operations:
        record(tmp_path, [0, 1, 3600])
    assert operations.of(FIRST) == ["write", "write", "fsync"]
    assert operations.of(SECOND) == ["write", "fsync"]
    assert_complete(operations, "fsync", FIRST, tmp_path / FIRST)


def test_recorder_cuts_off_a_torn_line_after_it_is_kept_elsewhere(tmp_path: Path) -> None:
    """The rest of a torn line is in its file of rejected lines before it is cut off the tape."""
    record(tmp_path, [0, 1])
    tape = tmp_path / FIRST
    tape.write_bytes(tape.read_bytes()[:-30])
    with recorded_operations(tmp_path) as operations, pytest.MonkeyPatch.context() as patch:
        truncate = os.ftruncate

        def recorded(descriptor: int, length: int) -> None:
            operations.record_descriptor("truncate", descriptor)
            truncate(descriptor, length)

        patch.setattr(os, "ftruncate", recorded)
        Recorder(tmp_path, clock=Clock(NOON + 9 * SECOND_NS)).close()
    rejected = FIRST.replace(".ndjson", ".rejected.ndjson")
    assert operations.names() == [f"rename {rejected}.part -> {rejected}", f"truncate {FIRST}"]


@pytest.mark.parametrize("keep", [False, True])
def test_compaction_removes_a_recording_after_its_tape_is_on_the_disk(tmp_path: Path, keep: bool) -> None:
    """The Parquet tape is flushed before it is named, its name is flushed too, and only then the recording goes."""
    record(tmp_path, [0, 1, 2])
    os.utime(tmp_path / FIRST, ns=(NOON, NOON))
    with recorded_operations(tmp_path) as operations:
        compact(tmp_path, keep=keep, clock=lambda: NOON + 3 * HOUR_NS)
    assert operations.names() == [
        f"fsync {TAPE}.unverified.part",
        f"rename {TAPE}.unverified.part -> {TAPE}.unverified",
        f"rename {TAPE}.unverified -> {TAPE}",
        "fsync .",
        *([] if keep else [f"unlink {FIRST}"]),
    ]
    assert_complete(operations, "fsync", f"{TAPE}.unverified.part", tmp_path / TAPE)


def test_parquet_tape_is_named_after_it_is_on_the_disk(tmp_path: Path) -> None:
    """A Parquet tape is flushed to the disk, then takes the place of the one before it."""
    for _ in range(2):
        with recorded_operations(tmp_path) as operations:
            write_parquet([Ticks.of([tick_at(1), tick_at(2)])], tmp_path / "a.parquet")
        assert operations.names() == ["fsync a.parquet.part", "rename a.parquet.part -> a.parquet"]
        assert_complete(operations, "fsync", "a.parquet.part", tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.zst", "a.ndjson.gz"])
def test_ndjson_tape_is_named_after_its_last_line(tmp_path: Path, name: str) -> None:
    """A converted NDJSON tape is complete when it takes its name."""
    with recorded_operations(tmp_path) as operations:
        write_ndjson([Ticks.of([tick_at(1), tick_at(2)])], tmp_path / name)
    assert operations.names() == [f"rename {name}.part -> {name}"]
    assert_complete(operations, "rename", f"{name}.part", tmp_path / name)


def test_feature_file_is_replaced_after_it_is_written(tmp_path: Path) -> None:
    """A feature file is complete when it takes the place of the old one; a failure removes only the new one."""
    file = tmp_path / "features.parquet"
    part = f".features.parquet.{os.getpid()}.part"
    file.write_bytes(b"old")
    with recorded_operations(tmp_path) as operations:
        with pytest.raises(ValueError, match="null byte"), write_atomically(file) as path:
            path.with_name("\0").touch()
        assert file.read_bytes() == b"old"
        with write_atomically(file) as path:
            path.write_bytes(b"newest")
    assert operations.names() == [f"unlink {part}", f"rename {part} -> features.parquet"]
    assert operations.all[1].size == len(b"newest")


def test_backfill_removes_its_trades_after_the_tape_is_on_the_disk(tmp_path: Path) -> None:
    """Trades are flushed before the state that counts them, the tape before the state that says it is complete."""
    span = Span("BTC-USD", NOON - 100_000 * SECOND_NS, LATER - 100 * SECOND_NS)
    with recorded_operations(tmp_path) as operations, client_of(Exchange(market(20))) as client:
        tape = backfill(client, span, tmp_path, now=lambda: LATER).tape
    assert tape is not None
    state = [
        f"fsync {tape.name}.backfill.new",
        f"rename {tape.name}.backfill.new -> {tape.name}.backfill",
        "fsync .",
    ]
    assert operations.names() == [
        *state,
        f"fsync {tape.name}.trades",
        *state,
        f"fsync {tape.name}.part",
        f"rename {tape.name}.part -> {tape.name}",
        *state,
        f"unlink {tape.name}.trades",
    ]


def without_random_names(operations: FileOperations) -> list[str]:
    return [re.sub(r"\.[0-9a-f]{8}\b", ".X", name) for name in operations.names()]


def test_folder_is_replaced_after_it_is_written(tmp_path: Path) -> None:
    """The new folder is complete and checked before the old one moves aside, and the old one goes last."""
    folder = tmp_path / "model"
    replace_folder(folder, {"mark": b"old"}, mark="mark", check=lambda _: None)
    with recorded_operations(tmp_path) as operations:
        replace_folder(
            folder,
            {"mark": b"new", "more": b"x"},
            mark="mark",
            check=lambda new: operations.record_path("check", new / "more"),
        )
    assert without_random_names(operations) == [
        "check .model.X/more",
        "rename model -> .model.X.old",
        "rename .model.X -> model",
        "unlink .model.X.old/mark",
        "rmdir .model.X.old",
    ]
    assert operations.all[0].size == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"mark": b"new", "more": b"x"}


def test_promotion_keeps_the_champion_before_it_replaces_it(tmp_path: Path) -> None:
    """The model in production is copied to ``retired`` before the new one replaces it; the log is written last."""
    artifact(tmp_path / "har", created="2026-01-01T00:00:00Z")
    promote(tmp_path / "har")
    with recorded_operations(tmp_path) as operations:
        promote(tmp_path / "har")
    renamed = [operation for operation in operations.all if operation.call in {"rename", "fsync"}]
    retired, aside, served, logged = map(str, renamed)
    assert re.fullmatch(r"rename retired/\.(\w+)-\S+ -> retired/\1-\S+", retired)
    assert re.fullmatch(r"rename production -> \.production\.[0-9a-f]{8}\.old", aside)
    assert re.fullmatch(r"rename \.production\.[0-9a-f]{8} -> production", served)
    assert logged == f"fsync {HISTORY_FILE}"


def test_promotion_history_is_flushed_after_its_line(tmp_path: Path) -> None:
    """A line of the history is on the disk when the call returns."""
    with recorded_operations(tmp_path) as operations:
        append_entry(
            tmp_path, HistoryEntry(time="2026-01-01T00:00:00Z", event="promoted", reason="test", trigger="by hand")
        )
    assert operations.names() == [f"fsync {HISTORY_FILE}"]
    assert_complete(operations, "fsync", HISTORY_FILE, tmp_path / HISTORY_FILE)
