"""Downloads of large files over HTTP: several at once, resumable by byte range, with retries and shared pauses.

A file is ``<name>.part`` until it is complete. ``<name>.part.json`` holds what identifies the file on the server, so
that a later run continues only with bytes of the same file.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
import msgspec

from volspike.errors import DataError, UsageError
from volspike.feeds.connection import retry_after_s
from volspike.feeds.rest import checked_url, http_client
from volspike.locks import sync_to_disk

ATTEMPTS: Final = 8
"""Attempts without progress before a download fails."""

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
_BANNED: Final = 418
_BUSY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, _BANNED})
_BUFFER: Final = 1 << 20
_TIMEOUT_S: Final = 30.0
_LONGEST_TEXT: Final = 1 << 16
T = TypeVar("T")

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class FileMissing(DataError):
    """A file that the server does not have (404)."""


class DownloadStopped(Exception):
    """The downloads were stopped: another thread has failed, or the user has interrupted the command."""


class _Identity(msgspec.Struct, frozen=True):
    """The file on the server that a partial download belongs to; ``validator`` is its ETag or time of change."""

    url: str
    validator: str
    size: int


class Downloader:
    """GET and HEAD requests of several threads to one server.

    A refusal for too many requests (429, 418) pauses all threads for the time in ``Retry-After``. ``bearer`` is sent as
    the key and never part of a message. ``stop`` ends all waits and downloads; ``wait`` sleeps for seconds and returns
    whether ``stop`` was set.
    """

    def __init__(
        self,
        url: str,
        *,
        bearer: str | None = None,
        stop: threading.Event | None = None,
        wait: Callable[[float], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = checked_url(url)
        self.stop = stop or threading.Event()
        self._wait = wait or self.stop.wait
        self._clock = clock
        self._paused_until = 0.0
        self._has_answered = False
        headers = {"user-agent": "volspike", "accept-encoding": "identity"}
        if bearer:
            headers["authorization"] = f"Bearer {bearer}"
        self._http = http_client(httpx.Client, self.url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def size(self, path: str) -> int | None:
        """The size of a file in bytes; None if the server does not state it.

        Raises:
            FileMissing: the server does not have it.
            DataError: the server cannot be reached, or refuses the request.
        """

        def request() -> int | None:
            answer = self._http.head(self.url + path)
            self._check(answer)
            length = answer.headers.get("content-length", "")
            return int(length) if length.isdecimal() else None

        return self._retry(path, request, lambda: 0)

    def text(self, path: str) -> str:
        """A small text file.

        Raises: see ``size``.
        """

        def request() -> str:
            with self._http.stream("GET", self.url + path) as answer:
                self._check(answer)
                body = b""
                for chunk in answer.iter_raw():
                    body += chunk
                    if len(body) > _LONGEST_TEXT:
                        raise DataError(f"{self.url}{path}: a text file of more than {_LONGEST_TEXT:,} bytes")
            return body.decode("utf-8", "replace")

        return self._retry(path, request, lambda: 0)

    def fetch(self, path: str, to: Path, show: Callable[[int, int], None] = lambda done, total: None) -> int:  # noqa: ARG005
        """Downloads a file to ``to``, continuing ``<to>.part``; returns its size.

        ``show`` takes the bytes on disk and the size of the file (0 if unknown) after each chunk.

        Raises:
            FileMissing: the server does not have the file.
            DataError: the server cannot be reached, refuses the request, or its file changes at every attempt.
            DownloadStopped: ``stop`` was set.
        """
        part = to.with_name(to.name + ".part")
        facts = part.with_name(part.name + ".json")

        def done() -> int:
            return part.stat().st_size if part.exists() else 0

        size = self._retry(path, lambda: self._continue(path, part, facts, show), done)
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(to)
        facts.unlink(missing_ok=True)
        sync_folder(to.parent)
        return size

    def _continue(self, path: str, part: Path, facts: Path, show: Callable[[int, int], None]) -> int:
        """Downloads the rest of a file; returns its size."""
        url = self.url + path
        identity = _read_identity(facts, url)
        have = part.stat().st_size if identity is not None and part.exists() else 0
        if identity is not None and have and have == identity.size:
            return have
        headers = {}
        if identity is not None and have:
            headers["range"] = f"bytes={have}-"
            if identity.validator:
                headers["if-range"] = identity.validator
        with self._http.stream("GET", url, headers=headers) as answer:
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                facts.unlink(missing_ok=True)  # the file on the server is another one: begin again
                raise httpx.RemoteProtocolError("the server has no such part of the file")
            self._check(answer)
            start, size = _placed(answer)
            current = _Identity(url, _validator(answer), size)
            if start and (identity is None or start != have or not _is_same(identity, current)):
                facts.unlink(missing_ok=True)
                raise httpx.RemoteProtocolError("the file on the server has changed")
            if not start:
                part.unlink(missing_ok=True)
                _write_identity(facts, current)
            total = self._receive(answer, part, start, size, show)
        if size and total != size:
            if total > size:
                facts.unlink(missing_ok=True)
            raise httpx.RemoteProtocolError(f"{total:,} of {size:,} bytes arrived")
        return total

    def _receive(
        self, answer: httpx.Response, part: Path, start: int, size: int, show: Callable[[int, int], None]
    ) -> int:
        total = start
        with part.open("ab", buffering=_BUFFER) as file:
            for chunk in answer.iter_raw():
                file.write(chunk)
                total += len(chunk)
                show(total, size)
                if self.stop.is_set():
                    raise DownloadStopped
        return total

    def _check(self, answer: httpx.Response) -> None:
        """Raises unless the answer has the content."""
        status = answer.status_code
        if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return
        reason = f"{answer.request.url}: {status} {answer.reason_phrase}".strip()
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            raise FileMissing(reason)
        if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Busy(reason, retry_after_s(answer.headers.get("retry-after", "")), is_limit=status in _BUSY)
        remedy = (
            "check the key" if status == HTTPStatus.UNAUTHORIZED else "check the address and the terms of the venue"
        )
        raise DataError(f"{reason}; {remedy}")

    def _retry(self, path: str, request: Callable[[], T], progress: Callable[[], int]) -> T:
        """The result of a request, repeated after temporary failures; progress in bytes resets the attempts."""
        attempt, best = 0, progress()
        while True:
            self._pause()
            try:
                found = request()
            except _Busy as refusal:
                self._has_answered = True
                fault, wait = str(refusal), refusal.wait_s
                if refusal.is_limit:
                    self._paused_until = max(self._paused_until, self._clock() + wait)
            except httpx.UnsupportedProtocol as error:
                raise UsageError(f"{self.url} is not an http address") from error
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
                fault, wait = f"cannot reach {self.url}{path} ({reason})", 0.0
                if isinstance(error, httpx.ConnectError) and not self._has_answered:
                    attempt = ATTEMPTS  # a wrong address or no network: waiting helps neither
            else:
                self._has_answered = True
                return found
            attempt = 0 if progress() > best else attempt + 1
            best = max(best, progress())
            if attempt >= ATTEMPTS:
                raise DataError(f"{fault}: check the network and the address, then run the command again")
            if self._wait(max(wait, min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S))):
                raise DownloadStopped

    def _pause(self) -> None:
        """Waits while the server refuses further requests."""
        while (left := self._paused_until - self._clock()) > 0.0:
            if self._wait(left):
                raise DownloadStopped
        if self.stop.is_set():
            raise DownloadStopped


class _Busy(Exception):
    def __init__(self, reason: str, wait_s: float, *, is_limit: bool) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.is_limit = is_limit


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where the operating system can."""
    with suppress(OSError):
        sync_to_disk(folder)


def write_durably(path: Path, content: bytes) -> None:
    """Replaces a file atomically: after a crash it has the old or the new content."""
    part = path.with_name(path.name + ".new")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _read_identity(facts: Path, url: str) -> _Identity | None:
    try:
        identity = msgspec.json.decode(facts.read_bytes(), type=_Identity)
    except (OSError, ValueError):
        return None
    return identity if identity.url == url else None


def _write_identity(facts: Path, identity: _Identity) -> None:
    write_durably(facts, msgspec.json.encode(identity))


def _is_same(before: _Identity, now: _Identity) -> bool:
    if before.size and now.size and before.size != now.size:
        return False
    return not before.validator or not now.validator or before.validator == now.validator


def _validator(answer: httpx.Response) -> str:
    """The value for ``If-Range``: a strong ETag, otherwise the time of the last change."""
    etag = str(answer.headers.get("etag", ""))
    return etag if etag and not etag.startswith("W/") else str(answer.headers.get("last-modified", ""))


def _placed(answer: httpx.Response) -> tuple[int, int]:
    """The first byte of an answer within the file, and the size of the file, 0 if unknown."""
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        if found is None:
            raise httpx.RemoteProtocolError("a part of the file without its place")
        return int(found[1]), 0 if found[3] == "*" else int(found[3])
    length = answer.headers.get("content-length", "")
    return 0, int(length) if length.isdecimal() else 0
