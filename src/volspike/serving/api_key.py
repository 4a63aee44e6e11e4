"""The API key: who does not tell it gets 401, for everything but the questions whether the service lives.

Three ways to tell it, for three kinds of clients: ``X-API-Key`` (programs), ``Authorization: Bearer`` (Prometheus), and
``Authorization: Basic`` with the key as password and any name (browsers, which ask for it and then send it everywhere,
to ``/stream`` as well, where a page can set no header).
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Collection, Iterable, Iterator
from hmac import compare_digest
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from volspike.config import Secret
from volspike.serving.refusal import refuse

OPEN_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
"""What whoever watches over the process must be able to ask without a secret; none of it tells of the market."""

KEY_HEADER: Final = "X-API-Key"
_RAW_HEADER: Final = KEY_HEADER.lower().encode()
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="volspike", charset="UTF-8"')
_DETAIL: Final = f"this needs the API key: tell it in {KEY_HEADER}, or as a Bearer token, or as a Basic password"


class ApiKey:
    """Pure ASGI middleware: hands on what has the key, or needs none."""

    def __init__(self, app: ASGIApp, key: Secret, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self.app = app
        self._key = key.reveal().encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it before its body is read."""
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._has_key(scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await refuse(send, 401, _DETAIL, _CHALLENGE)

    def _has_key(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Compares what is told in a time that does not depend on where it differs."""
        return any(compare_digest(told, self._key) for told in keys_told(headers))


def keys_told(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The keys that a request tells, in whatever way.

    >>> list(keys_told([(b"x-api-key", b"a"), (b"authorization", b"Bearer b"), (b"authorization", b"Basic YW55Om0=")]))
    [b'a', b'b', b'm']
    """
    for name, value in headers:
        if name == _RAW_HEADER:
            yield value
        elif name == b"authorization":
            scheme, _, told = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield told.strip()
            elif scheme.lower() == b"basic":
                yield _password(told)


def _password(told: bytes) -> bytes:
    try:
        return b64decode(told.strip(), validate=True).partition(b":")[2]
    except NotBase64:
        return b""
