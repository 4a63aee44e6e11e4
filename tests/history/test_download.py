"""Downloads by byte range from a local server with faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.history.archive_server import ArchiveServer, Fault, open_archive
from volspike.errors import DataError, UsageError
from volspike.feeds.rest import checked_url
from volspike.history.download import ATTEMPTS, Downloader, DownloadStopped, FileMissing

PATH = "/files/a.zip"
CONTENT = bytes(range(256)) * 4_000


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    """A server with one file."""
    with open_archive(ArchiveServer({PATH: CONTENT})) as opened:
        yield opened


class Waits:
    """Records waits instead of sleeping; ``stop_at`` is the number of the wait that is interrupted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> bool:
        """Lets time pass."""
        self.seconds.append(seconds)
        self.now += seconds
        return False

    def clock(self) -> float:
        """The time so far."""
        return self.now


def fetch(server: ArchiveServer, to: Path, waits: Waits | None = None) -> int:
    """Downloads the file."""
    passing = waits or Waits()
    with Downloader(server.url, wait=passing.wait, clock=passing.clock) as downloader:
        return downloader.fetch(PATH, to)


def test_a_file_arrives_complete_under_its_name(server: ArchiveServer, tmp_path: Path) -> None:
    """The download has the server's bytes, and no partial file remains."""
    assert fetch(server, tmp_path / "a.zip") == len(CONTENT)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("etags", [True, False])
def test_a_lost_connection_continues_where_it_ended(server: ArchiveServer, tmp_path: Path, etags: bool) -> None:
    """The second request has the range of the missing bytes, with and without an ETag."""
    server.etags = etags
    server.faults[PATH] = [Fault(cut_after=500_000)]
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [byte_range for _, _, byte_range in server.requests] == ["", "bytes=500000-"]


def test_a_reset_connection_is_tried_again(server: ArchiveServer, tmp_path: Path) -> None:
    """A connection that is reset before an answer gives a second request."""
    server.faults[PATH] = [Fault(cut_after=10), Fault(resets=True)]
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_ignores_the_range_sends_the_file_again(server: ArchiveServer, tmp_path: Path) -> None:
    """An answer from the start of the file replaces the partial download."""
    server.faults[PATH] = [Fault(cut_after=500_000), Fault(ignores_range=True)]
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def interrupt(server: ArchiveServer, to: Path, at: int) -> None:
    """A run that is killed after ``at`` bytes."""
    server.faults[PATH] = [Fault(cut_after=at)]
    stop = threading.Event()
    with (
        Downloader(server.url, stop=stop, wait=lambda seconds: True) as downloader,
        pytest.raises(DownloadStopped),
    ):
        downloader.fetch(PATH, to)


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_meanwhile_is_downloaded_from_its_start(
    server: ArchiveServer, tmp_path: Path, etags: bool
) -> None:
    """Bytes of two versions of a file are never joined."""
    server.etags = etags
    interrupt(server, tmp_path / "a.zip", 300_000)
    server.files[PATH] = CONTENT[::-1] + b"more"
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::-1] + b"more"


def test_a_file_that_became_shorter_is_downloaded_from_its_start(server: ArchiveServer, tmp_path: Path) -> None:
    """A range beyond the end (416) discards the partial download."""
    server.etags = False
    interrupt(server, tmp_path / "a.zip", 300_000)
    server.files[PATH] = CONTENT[:1000]
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[:1000]
    assert server.requests[-1][2] == ""


def test_a_partial_file_without_its_facts_is_not_continued(server: ArchiveServer, tmp_path: Path) -> None:
    """Bytes of unknown origin are discarded."""
    (tmp_path / "a.zip.part").write_bytes(b"other bytes")
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_request(server: ArchiveServer, tmp_path: Path) -> None:
    """A run that was killed before the file got its name only renames it."""
    interrupt(server, tmp_path / "a.zip", 300_000)
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    before = len(server.requests)
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert len(server.requests) == before


@pytest.mark.parametrize("status", [429, 418])
def test_a_refusal_waits_as_long_as_the_server_states(server: ArchiveServer, tmp_path: Path, status: int) -> None:
    """``Retry-After`` is honoured for too many requests and for a ban."""
    server.faults[PATH] = [Fault(status=status, headers={"retry-after": "17"})]
    waits = Waits()
    fetch(server, tmp_path / "a.zip", waits)
    assert sum(waits.seconds) >= 17.0


def test_a_refusal_pauses_every_thread(server: ArchiveServer) -> None:
    """A request of another thread that begins during the pause is sent after its end."""
    server.faults[PATH] = [Fault(status=429, headers={"retry-after": "60"})]
    waits = Waits()
    others: list[float] = []

    def wait(seconds: float) -> bool:
        if not others:
            others.append(0.0)
            downloader.size(PATH)
            others.append(waits.now)
        return waits.wait(seconds)

    with Downloader(server.url, wait=wait, clock=waits.clock) as downloader:
        assert downloader.size(PATH) == len(CONTENT)
    assert others[1] >= 60.0


def test_waits_grow_until_the_attempts_end(server: ArchiveServer, tmp_path: Path) -> None:
    """A server that fails for good gives one error with its answer, after growing waits."""
    server.faults[PATH] = [Fault(status=503)] * (ATTEMPTS + 1)
    waits = Waits()
    with pytest.raises(DataError, match="503"):
        fetch(server, tmp_path / "a.zip", waits)
    assert waits.seconds == sorted(waits.seconds)
    assert len(server.requests) == ATTEMPTS


def test_progress_resets_the_attempts(server: ArchiveServer, tmp_path: Path) -> None:
    """A connection that is lost many times, with new bytes each time, completes the file."""
    server.faults[PATH] = [Fault(cut_after=40_000) for _ in range(3 * ATTEMPTS)]
    fetch(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_missing_file_is_an_error_of_its_own(server: ArchiveServer, tmp_path: Path) -> None:
    """A 404 is not repeated."""
    with Downloader(server.url) as downloader, pytest.raises(FileMissing):
        downloader.fetch("/files/b.zip", tmp_path / "b.zip")
    assert len(server.requests) == 1


def test_a_refused_key_is_named_without_the_key(server: ArchiveServer, tmp_path: Path) -> None:
    """The message of a 401 names the address, never the key; the key was sent."""
    server.faults[PATH] = [Fault(status=401)]
    with Downloader(server.url, bearer="secret-key") as downloader, pytest.raises(DataError) as refused:
        downloader.fetch(PATH, tmp_path / "a.zip")
    assert "401" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert server.keys == ["Bearer secret-key"]


def test_an_address_without_a_server_fails_at_once(tmp_path: Path) -> None:
    """A connection that is refused before any answer is not repeated."""
    waits = Waits()
    with (
        Downloader("http://127.0.0.1:9", wait=waits.wait) as downloader,
        pytest.raises(DataError, match="cannot reach"),
    ):
        downloader.fetch(PATH, tmp_path / "a.zip")
    assert waits.seconds == []


@pytest.mark.parametrize("url", ["ftp://here", "here", "https://"])
def test_an_invalid_address_is_refused(url: str) -> None:
    """An address is one of http with a host."""
    with pytest.raises(UsageError, match="invalid address"):
        checked_url(url)
