"""Where alerts go: Apprise addresses, which are secrets, and what of them may be shown."""

from __future__ import annotations

import logging
import re
from typing import Final, Protocol

import structlog

from volspike.errors import UsageError

_log = structlog.get_logger(__name__)

_SHAPE: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_AUTHORITY_END: Final = re.compile(r"[/?#\\]")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")

_HOSTED: Final = frozenset(
    (
        "http",
        "json",
        "xml",
        "form",
        "mailto",
        "gotify",
        "mmost",
        "rocket",
        "mqtt",
        "xmpp",
        "irc",
        "amqp",
        "apprise",
        "rsyslog",
        "growl",
        "synology",
        "signal",
        "hassio",
        "mastodon",
        "kodi",
        "nctalk",
        "ncloud",
    )
)
"""Schemes whose address names a host, without the s of their secure forms.

In others (``slack://TokenA/TokenB/TokenC``) a token stands in its place.
"""

_TALKATIVE: Final = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib", "slixmpp")
"""Loggers that tell whole addresses, with their tokens, when they debug or warn."""


def safe_address(url: str) -> str:
    """What may be shown of an Apprise URL: its scheme, and its host where that is one.

    >>> safe_address("json://user:secret@hooks.example.org:8080/token?key=secret")
    'json://hooks.example.org'
    >>> safe_address("slack://TokenA/TokenB/TokenC")
    'slack://…'
    """
    match = _SHAPE.fullmatch(url)
    if match is None:
        return "(no address)"
    scheme, rest = match[1].lower(), match[2]
    end = _AUTHORITY_END.search(rest)
    authority, tail = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    host = re.sub(r":\d*$", "", authority.rpartition("@")[2])
    names_host = scheme in _HOSTED or scheme.removesuffix("s") in _HOSTED
    # an @ further on may mean that a password holds a slash, and the host is elsewhere
    is_plain = names_host and "@" not in tail and "%40" not in tail and _HOST.fullmatch(host) is not None
    return f"{scheme}://{host}" if is_plain else f"{scheme}://…"


class Receiver(Protocol):
    """Somebody who can be told, slowly or not at all."""

    @property
    def address(self) -> str:
        """What may be shown of where it is."""

    def send(self, title: str, body: str) -> bool:
        """Tells it once; False when it did not take it. Called from one thread; may take seconds."""


class AppriseReceiver:
    """One Apprise URL. Apprise is loaded with the first message, since that takes a second.

    Raises:
        UsageError: the text is no URL; it is not repeated.
    """

    def __init__(self, url: str, timeout_s: float = 4.0) -> None:
        if _SHAPE.fullmatch(url) is None:
            raise UsageError("an alert receiver is no Apprise URL (scheme://…); it is not shown, as it may be a secret")
        self._url = url
        self._timeout_s = timeout_s
        self._service: _Notifier | None = None
        self._is_loaded = False

    @property
    def address(self) -> str:
        """Scheme and host."""
        return safe_address(self._url)

    def __repr__(self) -> str:
        return f"AppriseReceiver({self.address!r})"

    def send(self, title: str, body: str) -> bool:
        """Tells it once; False when it did not take it, or the URL is none that Apprise knows."""
        if not self._is_loaded:
            self._service = self._load()
            self._is_loaded = True
        return self._service is not None and self._service.send(title, body)

    def _load(self) -> _Notifier | None:
        try:
            return _Notifier(self._url, self._timeout_s)
        except ImportError:
            reason = "the package apprise is not installed"
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # its text, as Apprise's plugins write it, may hold all
            reason = "Apprise does not know such an address, or a part of it is missing"
        _log.error("alert_receiver_unusable", receiver=self.address, reason=reason)
        return None


class _Notifier:
    """Apprise with a single service, told from our own thread rather than from its pool.

    Raises:
        ImportError: Apprise is not installed.
        ValueError: it does not know the URL.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        mute()
        import apprise  # noqa: PLC0415  a second to load, which only who has receivers should wait for

        # without a service timeout Apprise sends here and now: a hanging thread of its pool would hold up our exit
        asset = apprise.AppriseAsset(app_id="volspike", async_mode=False, service_timeout=0)
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            raise ValueError("unknown to Apprise")
        service.socket_connect_timeout = min(service.socket_connect_timeout, timeout_s)
        service.socket_read_timeout = min(service.socket_read_timeout, timeout_s)
        self._apprise = apprise.Apprise(asset=asset)
        self._apprise.add(service)
        self._format, self._type = apprise.NotifyFormat.TEXT, apprise.NotifyType.WARNING

    def send(self, title: str, body: str) -> bool:
        """One attempt."""
        return bool(self._apprise.notify(body, title, self._type, self._format))


def mute() -> None:
    """Silences the libraries that would write addresses and tokens into the log; failures are told by ours."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
