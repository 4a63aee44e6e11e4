"""Settings from flags, environment variables, a TOML file and defaults, in this order of precedence.

Unknown keys are rejected by name.
"""

from __future__ import annotations

import hmac
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from volspike.errors import UsageError


class Secret:
    """A text that no log, error or repr shows; only ``reveal`` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))


_Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_OrNone: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]

LEAST_KEY_CHARACTERS: Final = 16
"""Shorter API keys could be guessed by trying them all."""


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the HTTP API: address, served model and limits per client.

    ``model`` is an artifact folder or a file in it; without it, ``version`` names a folder in ``artifacts``; without
    both, the production model is served. ``variant`` ``baseline`` serves the z-score baseline regardless of these.
    ``companion`` is a second model, for inputs that only it accepts. The server checks the folder for a new model every
    ``reload_s`` seconds; 0 turns this off. ``results`` is the folder with the results of the last training and the last
    drift check.

    Requests are answered if their ``Host`` is an IP address, a loopback name, ``host`` or one of ``allowed_hosts``
    (``*.example.org``: all names below; ``*``: any). ``root_path`` is the prefix, such as ``/volspike``, under which a
    proxy serves the pages.

    A client address may send ``rate_limit`` requests to ``/predict`` per minute, also in one burst; 0 is no limit.
    ``trusted_proxies`` are addresses or networks whose forwarded client address is used. With ``api_key``, every
    path except ``/health`` requires the key. A request head is limited to ``head_s`` seconds and ``max_head_bytes``, a
    body to ``body_s`` and ``max_body_bytes``. The server closes the connection of a client that reads nothing of a
    response for ``stalled_s``, and rejects connections beyond ``max_connections``.
    """

    model: Path | None = None
    version: str | None = None
    variant: Literal["ml", "baseline"] = "ml"
    artifacts: Path = Path("models/artifacts")
    companion: Path | None = None
    results: Path = Path("models/results")
    reload_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    root_path: str = ""
    log_level: str = "INFO"
    log_requests: bool = False
    api_key: Secret | None = None
    rate_limit: _OrNone = 1000
    trusted_proxies: tuple[str, ...] = ()
    max_connections: _Count = 800
    max_head_bytes: _Count = 16 << 10
    max_body_bytes: _Count = 1 << 20
    max_rows: _Count = 10_000
    head_s: _Seconds = 10.0
    body_s: _Seconds = 30.0
    stalled_s: _Seconds = 60.0

    def __post_init__(self) -> None:
        key = self.api_key
        if key is not None and not _KEY.fullmatch(key.reveal()):
            raise ValueError(f"api_key must be {LEAST_KEY_CHARACTERS} to 512 visible ASCII characters")
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise ValueError(f"root_path must be a path such as /volspike, was {self.root_path!r}")
        for name in self.allowed_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(f"allowed_hosts takes names without a port, such as market.example.org, got {name!r}")
        if self.version is not None and not _NAME.fullmatch(self.version):
            raise ValueError(f"version must be the name of a folder in {self.artifacts}, was {self.version!r}")


_ROOT_PATH: Final = re.compile(r"(/[\w.~-]+)*", re.ASCII)
_HOST_NAME: Final = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_KEY: Final = re.compile(rf"[\x21-\x7e]{{{LEAST_KEY_CHARACTERS},512}}")
_NAME: Final = re.compile(r"\w[\w.-]*")


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Receivers of alerts, quiet hours, and alert thresholds.

    ``receivers`` are Apprise URLs. ``quiet_hours`` are windows such as ``mon-fri 22:00-07:00 Europe/Berlin``.
    ``thresholds`` are texts such as ``BTC-USD=0.4``, ``binance:*=0.5`` or ``0.5``.
    """

    receivers: tuple[Secret, ...] = ()
    quiet_hours: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()


class FeedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The exchange and products to listen to, and the limits of a session.

    An empty ``url`` means the protocol's own; ``urls`` are addresses of the user by protocol. ``matches``
    subscribes to Exchange's trades as well, which its tickers already contain. No frame for ``heartbeat_timeout_s``
    is a gap; no frame for ``idle_timeout_s`` closes the connection. A connection that sent a tick or lasted
    ``lasting_s`` resets the backoff. A connection that is replaced as planned and the next one receive together for
    ``overlap_s``; where only pings are answered in a calm market, one without a tick for ``data_timeout_s`` is replaced
    as well. The queue between socket and reader holds ``queue_frames`` frames of ``queue_bytes`` bytes together.
    """

    protocol: str = "coinbase"
    url: str = ""
    urls: dict[str, str] = {}
    products: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("BTC-USD",)
    matches: bool = False
    connect_timeout_s: _Seconds = 10.0
    ack_timeout_s: _Seconds = 5.0
    heartbeat_timeout_s: _Seconds = 10.0
    idle_timeout_s: _Seconds = 30.0
    close_timeout_s: _Seconds = 1.0
    lasting_s: _Seconds = 30.0
    overlap_s: _Seconds = 3.0
    data_timeout_s: _Seconds = 300.0
    backoff_min_s: _Seconds = 0.25
    backoff_max_s: _Seconds = 30.0
    queue_frames: _Count = 65_536
    queue_bytes: _Count = 128 << 20
    max_frame_bytes: _Count = 32 << 20
    compression: bool = True


ENVIRONMENT: dict[str, str] = {
    "MODEL_PATH": "model",
    "RESULTS_PATH": "results",
    "MODEL_VERSION": "version",
    "MODEL_VARIANT": "variant",
    "API_HOST": "host",
    "API_PORT": "port",
    "ROOT_PATH": "root_path",
    "API_KEY": "api_key",
    "RATE_LIMIT": "rate_limit",
    "LOG_LEVEL": "log_level",
    "ALERT_URLS": "receivers",
    "QUIET_HOURS": "quiet_hours",
    "ALERT_THRESHOLDS": "thresholds",
    "COINBASE_WS_URL": "url",
    "KAFKA_BOOTSTRAP_SERVERS": "bootstrap_servers",
    "KAFKA_TOPIC_RAW": "topic_raw",
    "KAFKA_TOPIC_FEATURES": "topic_features",
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_EXPERIMENT_NAME": "experiment",
}
"""Environment variable → field, by the names that users of the earlier system know."""

_SEPARATORS: Final = {"ALERT_URLS": None, "ALERT_THRESHOLDS": None, "QUIET_HOURS": ";"}
"""What separates the values of a variable with several, None for white space; such a variable without one is unset."""

S = TypeVar("S", bound=msgspec.Struct)


def load_settings(
    kind: type[S], flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None, section: str
) -> S:
    """The settings of ``kind`` from flags (``None`` is "not given"), environment and a TOML file's ``section``.

    Raises:
        UsageError: an unknown key or a value of the wrong type, named with its place.
    """
    names = {field.name for field in msgspec.structs.fields(kind)}
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged.update(tomllib.loads(file.read_text("utf-8")).get(section, {}))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"settings file {file}: {error}") from error
    merged.update(
        {
            name: value
            for key, name in ENVIRONMENT.items()
            if key in environ and name in names and (value := _environment_value(key, environ[key])) != []
        }
    )
    merged.update({name: value for name, value in flags.items() if value is not None})
    try:
        return msgspec.convert(merged, kind, strict=False, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        raise UsageError(f"settings for {section}: {error}") from error


def _environment_value(key: str, text: str) -> str | list[str]:
    """The text of a variable, or its values if it may have several."""
    if key not in _SEPARATORS:
        return text
    return [value.strip() for value in text.split(_SEPARATORS[key]) if value.strip()]


def _decoded(kind: Any, value: Any) -> Any:
    if kind in {Path, Path | None}:
        return Path(value)
    if kind in {Secret, Secret | None}:
        if not isinstance(value, str):
            raise TypeError("a secret must be a text")
        return Secret(value)
    raise TypeError(f"no settings of type {kind}")
