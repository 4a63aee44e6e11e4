"""The stored results of the last training run and the last drift check."""

from __future__ import annotations

from pathlib import Path

import pytest

from volspike.errors import UnreadableFile, UsageError
from volspike.monitoring.results import DriftResult, TrainingResult, read_result, write_result

DRIFT = DriftResult(time=1, share=0.25, severity="low", features={"none": 3, "low": 1}, rows=500)
TRAINING = TrainingResult(time=2, model="har", outcome="kept", reason="asked for", pr_auc=0.3)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    """Each kind has its own file, and the newest takes the place of the one before."""
    folder = tmp_path / "models" / "results"
    assert read_result(DriftResult, folder) is None
    write_result(TRAINING, folder)
    write_result(DriftResult(time=0, share=1.0, severity="high", features={"high": 4}, rows=9), folder)
    write_result(DRIFT, folder)
    assert read_result(DriftResult, folder) == DRIFT
    assert read_result(TrainingResult, folder) == TRAINING
    assert sorted(file.name for file in folder.iterdir()) == ["drift.json", "training.json"]


@pytest.mark.parametrize("text", [b"", b"\xff", b"{}", b'{"time": 1, "share": 1, "severity": "awful"}'])
def test_a_file_of_something_else_is_named(tmp_path: Path, text: bytes) -> None:
    """A damaged file is an error that names it."""
    (tmp_path / "drift.json").write_bytes(text)
    with pytest.raises(UnreadableFile, match=r"drift\.json: no DriftResult"):
        read_result(DriftResult, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file in the folder's place is a usage error."""
    (tmp_path / "results").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_result(DRIFT, tmp_path / "results")
