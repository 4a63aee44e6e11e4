"""The history of one product: the files that are missing in its folder, downloaded, verified and converted to tapes.

A killed run leaves a folder from which the next one continues. Each file passes these steps, each of them atomic: the
download gets its name once it is complete and verified; the tape gets its name once it is converted; the manifest names
the tape; the download is removed. Downloads lie in a hidden folder, which readers of tapes skip.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

import volspike
from volspike.errors import DataError, UsageError
from volspike.history.archives import Archive, ArchiveFile, plan_files, product_folder
from volspike.history.conversion import Conversion, DamagedDownload, convert_file
from volspike.history.download import Downloader, DownloadStopped, FileMissing, sync_folder
from volspike.history.manifest import (
    FileRecord,
    Manifest,
    has_tape,
    manifest_of,
    unit_of,
    write_ledger,
    write_manifest,
)
from volspike.locks import LockFile
from volspike.market import Gap

DOWNLOADS: Final = ".downloads"
LOCK_NAME: Final = ".history.lock"
FETCHES: Final = 3
"""Downloads of a file that fails its verification, before the run fails."""

CONVERTERS: Final = 2
"""Files converted at the same time; Arrow and zlib run outside Python's lock."""

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(slots=True)
class HistoryProgress:
    """The progress of a run; bytes are those of the files of the venue.

    ``started`` is when the first byte was requested, in seconds of ``time.monotonic``.
    """

    files: int = 0
    files_done: int = 0
    bytes_done: int = 0
    rows: int = 0
    started: float = field(default_factory=time.monotonic)
    _current: dict[str, tuple[int, int]] = field(default_factory=dict)
    _finished_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, name: str, done: int, total: int) -> None:
        """Counts the bytes of a file that are on disk; those of an earlier run do not count as received."""
        with self._lock:
            before = self._current.get(name)
            if before is None or done < before[0]:
                before = (max(0, done - (1 << 18)), total)
            self.bytes_done += done - before[0]
            self._current[name] = (done, total)

    def finish(self, name: str, rows: int) -> None:
        """Counts a file that is finished or missing."""
        with self._lock:
            done, _ = self._current.pop(name, (0, 0))
            self._finished_bytes += done
            self.files_done += 1
            self.rows += rows

    def bytes_per_second(self) -> float:
        """The mean speed of the downloads so far."""
        return self.bytes_done / max(1e-3, time.monotonic() - self.started)

    def share(self) -> float:
        """The share of the files that is done; a file that is being downloaded counts by its bytes."""
        with self._lock:
            parts = sum(done / total for done, total in self._current.values() if total)
        return (self.files_done + 0.9 * parts) / max(1, self.files)


ShowProgress = Callable[[HistoryProgress], None]


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """The trades of ``product_id`` on ``days`` from ``archive``, into a folder below ``out``."""

    archive: Archive
    product_id: str
    kind: str
    days: Sequence[date]
    out: Path
    url: str
    key: str | None = None
    parallel: int = 4
    keep: bool = False
    now_ns: Callable[[], int] = time.time_ns

    @property
    def folder(self) -> Path:
        """The folder of the product's tapes."""
        return self.out / product_folder(self.archive.name, self.product_id)


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """Result of a run: files and rows that are new, days without a file, and the gaps within the requested days.

    ``unpublished`` are days that the venue has not published yet; a later run fetches them. ``rows_in_folder`` counts
    all rows, ``already_there`` the requested days that needed no download.
    """

    folder: Path
    manifest: Manifest
    files: int
    bytes: int
    rows: int
    rejected: int
    already_there: int
    missing: tuple[date, ...]
    unpublished: tuple[date, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that a run would download, and its size in bytes; None if the server does not have it, -1 if unknown."""

    file: ArchiveFile
    bytes: int | None


def check_request(request: HistoryRequest) -> None:
    """Refuses days that need a key, before any download.

    Raises:
        UsageError: the archive has no files of the kind, or a day needs a key and there is none.
    """
    archive = request.archive
    if request.kind not in archive.kinds:
        raise UsageError(f"{archive.name} has no files of {request.kind}; available: {', '.join(archive.kinds)}")
    closed = [day for day in request.days if archive.needs_key(day)]
    if closed and not request.key:
        named = ", ".join(map(str, closed[:3])) + (f" and {len(closed) - 3} more" if len(closed) > 3 else "")
        raise UsageError(
            f"{archive.name} needs a key for {named}: set {archive.key_variable}; the first day of a month needs none"
        )


def wanted_files(request: HistoryRequest) -> list[ArchiveFile]:
    """The files that the request needs and its folder lacks, oldest first.

    Raises:
        UsageError: the folder holds another kind of files.
        UnreadableFile: its manifest cannot be read.
    """
    manifest = _manifest(request)
    there = {day for record in manifest.files if has_tape(request.folder, record) for day in record.days()}
    lost = [record for record in manifest.files if not has_tape(request.folder, record)]
    # a month whose tape was removed is replaced as one file
    days = {day for day in request.days if day not in there} | {day for record in lost for day in record.days()}
    return plan_files(request.archive, request.product_id, request.kind, days, request.now_ns())


def plan_download(request: HistoryRequest) -> list[PlannedFile]:
    """The files that a run would download, with their sizes by HEAD requests.

    Raises:
        DataError: the server cannot be reached or refuses a request.
    """
    check_request(request)
    files = wanted_files(request)

    def size_of(downloader: Downloader, file: ArchiveFile) -> list[PlannedFile]:
        try:
            size = downloader.size(file.path)
        except FileMissing:
            if file.layout.is_monthly:
                return [planned for day in file.days() for planned in size_of(downloader, day)]
            return [PlannedFile(file, None)]
        return [PlannedFile(file, -1 if size is None else size)]

    with _downloader(request) as downloader, ThreadPoolExecutor(request.parallel) as pool:
        found = list(pool.map(lambda file: size_of(downloader, file), files))
    return [planned for group in found for planned in group]


def collect_history(request: HistoryRequest, show: ShowProgress = lambda progress: None) -> HistoryResult:  # noqa: ARG005
    """Downloads what the folder lacks, converts it to tapes, and updates manifest and gap ledger.

    Raises:
        UsageError: the request is invalid, or another process works in the folder.
        DataError: the server cannot be reached, refuses a request, or has damaged files; or has none of the files.
    """
    check_request(request)
    folder = request.folder
    files = wanted_files(request)
    (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        files = wanted_files(request)  # another run may have ended meanwhile
        run = _Run(request, _manifest(request), show)
        return run.collect(files)


def _downloader(request: HistoryRequest) -> Downloader:
    return Downloader(request.url, bearer=request.key)


def _manifest(request: HistoryRequest) -> Manifest:
    """The manifest of the folder, or a new one."""
    archive, folder = request.archive, request.folder
    layout = archive.layout(request.kind, is_monthly=False)
    consecutive = layout is not None and layout.has_consecutive_ids
    return manifest_of(folder, archive.name, request.product_id, request.kind, archive.terms, consecutive=consecutive)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = LockFile(folder / LOCK_NAME)
    if not lock.acquire():
        holder = lock.holder()
        raise UsageError(f"{folder}: another run downloads into it (process {holder}); wait for its end")
    try:
        yield
    finally:
        lock.release()


class _Run:
    """One run: threads that download and convert, and the manifest that they update."""

    def __init__(self, request: HistoryRequest, manifest: Manifest, show: ShowProgress) -> None:
        self._request = request
        self._folder = request.folder
        self._downloads = request.folder / DOWNLOADS
        self._manifest = manifest
        self._lock = threading.Lock()
        self._progress = HistoryProgress()
        self._show = show
        self._stop = threading.Event()
        self._downloading = threading.Semaphore(request.parallel)
        self._converters = ThreadPoolExecutor(CONVERTERS, thread_name_prefix="volspike-conversion")
        self._unpublished: list[date] = []
        self._new: list[FileRecord] = []

    def collect(self, files: Sequence[ArchiveFile]) -> HistoryResult:
        """Downloads and converts the files; the manifest contains each as soon as its tape is complete."""
        before = self._manifest.days()
        self._remove_leftovers(files)
        self._progress.files = len(files)
        with Downloader(self._request.url, bearer=self._request.key, stop=self._stop) as downloader:
            self._run_all(downloader, files)
        self._check_found(files)
        if self._folder.exists():
            self._remove_leftovers([])
            if self._manifest.files:
                write_ledger(self._folder, self._manifest)
        return self._result(before)

    def _run_all(self, downloader: Downloader, files: Sequence[ArchiveFile]) -> None:
        pool = ThreadPoolExecutor(self._request.parallel + CONVERTERS, thread_name_prefix="volspike-history")
        with self._converters, pool:
            futures: list[Future[None]] = [pool.submit(self._take, downloader, file) for file in files]
            try:
                ended, waiting = set[Future[None]](), set(futures)
                while waiting and not any(each.exception() for each in ended):
                    ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
                    self._show(self._progress)
            finally:
                if any(not each.done() for each in futures):
                    self._stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        faults = [fault for each in futures if not each.cancelled() and (fault := each.exception()) is not None]
        real = [fault for fault in faults if not isinstance(fault, DownloadStopped)]
        if real:
            raise real[0]

    def _take(self, downloader: Downloader, file: ArchiveFile) -> None:
        """Downloads and converts one file; a month that the venue does not have is taken by the day."""
        try:
            record = self._fetch_and_convert(downloader, file)
        except FileMissing:
            if file.layout.is_monthly:
                self._progress.files += len(list(file.days())) - 1
                for day in file.days():
                    self._take(downloader, day)
                return
            self._add_missing(file)
            return
        except BaseException:
            self._stop.set()
            raise
        with self._lock:
            self._manifest = self._manifest.with_file(record)
            self._new.append(record)
            write_manifest(self._folder, self._manifest)
        if not self._request.keep:
            (self._downloads / file.name).unlink(missing_ok=True)
        self._progress.finish(file.name, record.rows)

    def _fetch_and_convert(self, downloader: Downloader, file: ArchiveFile) -> FileRecord:
        """The record of a file; a download that fails its verification is repeated."""
        to = self._downloads / file.name
        for attempt in range(FETCHES):
            try:
                with self._downloading:
                    size, sha256, verified = self._fetch(downloader, file, to)
                # threads of their own, because the memory of a conversion stays with its thread
                return self._converters.submit(self._convert, file, to, size, sha256, verified).result()
            except DamagedDownload as fault:
                to.unlink(missing_ok=True)
                if attempt == FETCHES - 1:
                    raise DataError(
                        f"{downloader.url}{file.path} is damaged in {FETCHES} downloads ({fault}): "
                        "try again later, or use another mirror with --base-url"
                    ) from fault
        raise AssertionError  # the last attempt returns or raises

    def _fetch(self, downloader: Downloader, file: ArchiveFile, to: Path) -> tuple[int, str, str]:
        """Downloads a file, unless it is there; its size, its SHA-256, and how it was verified."""
        expected = self._checksum(downloader, file)
        if not to.exists():
            downloader.fetch(file.path, to, lambda done, total: self._progress.show(file.name, done, total))
        with to.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = to.stat().st_size
        packed = "CRC of the zip archive" if to.suffix == ".zip" else "CRC of the gzip file"
        if expected is None:
            return size, sha256, f"size and {packed}"
        if sha256 != expected:
            raise DamagedDownload(f"SHA-256 {sha256[:12]}…, the venue states {expected[:12]}…")
        return size, sha256, "SHA-256 of the venue"

    def _checksum(self, downloader: Downloader, file: ArchiveFile) -> str | None:
        """The SHA-256 that the venue publishes; None if it publishes none."""
        if not file.archive.checksum_ending:
            return None
        path = file.path + file.archive.checksum_ending
        try:
            text = downloader.text(path)
        except FileMissing:
            return None  # the file itself may be there, or be missing too
        found = text.split()[:1]
        if not found or not _SHA256.fullmatch(found[0]):
            raise DataError(f"{downloader.url}{path}: no SHA-256, it begins with {text[:40]!r}")
        return found[0].lower()

    def _convert(self, file: ArchiveFile, to: Path, size: int, sha256: str, verified: str) -> FileRecord:
        facts = {
            "source": file.archive.name,
            "url": self._request.url + file.path,
            "sha256": sha256,
            "size_unit": unit_of(file.product_id),
            "terms": file.archive.terms,
        }
        content: Conversion = convert_file(file, to, self._folder / file.tape_name, facts, self._check_stop)
        sync_folder(self._folder)
        return FileRecord(
            tape=file.tape_name if content.rows else "",
            first=file.first,
            end=file.end,
            url=self._request.url + file.path,
            bytes=size,
            sha256=sha256,
            verified=verified,
            volspike=volspike.__version__,
            **content._asdict(),
        )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise DownloadStopped

    def _add_missing(self, file: ArchiveFile) -> None:
        with self._lock:
            if file.is_due(self._request.now_ns()):
                self._manifest = self._manifest.with_missing_day(file.first)
                if self._manifest.files:
                    write_manifest(self._folder, self._manifest)
            else:
                self._unpublished.append(file.first)
        self._progress.finish(file.name, 0)

    def _check_found(self, files: Sequence[ArchiveFile]) -> None:
        """Refuses a product of which the venue has no file at all: its name is probably wrong."""
        if self._manifest.files or not files or len(self._unpublished) == len(files):
            return
        first = files[0]
        raise DataError(
            f"{self._request.archive.name} has no file of {self._request.product_id} on any of the requested days, "
            f"such as {self._request.url}{first.path}: check the product and the days"
        )

    def _remove_leftovers(self, files: Collection[ArchiveFile]) -> None:
        """Removes what a killed run left: unfinished tapes, and downloads that are not needed any more."""
        for path in self._folder.glob("*.part"):
            path.unlink(missing_ok=True)
        if self._request.keep or not self._downloads.is_dir():
            return
        names = {file.name for file in files} | {day.name for file in files for day in file.days()}
        for path in self._downloads.iterdir():
            if path.name.removesuffix(".json").removesuffix(".part") not in names:
                path.unlink(missing_ok=True)
        if not names:
            self._downloads.rmdir()

    def _result(self, before: set[date]) -> HistoryResult:
        days = set(self._request.days)
        return HistoryResult(
            folder=self._folder,
            manifest=self._manifest,
            files=len(self._new),
            bytes=sum(record.bytes for record in self._new),
            rows=sum(record.rows for record in self._new),
            rejected=sum(record.rejected for record in self._new),
            already_there=len(days & before),
            missing=tuple(day for day in self._manifest.missing_days if day in days),
            unpublished=tuple(sorted(self._unpublished)),
            gaps=tuple(self._manifest.gaps()),
        )
