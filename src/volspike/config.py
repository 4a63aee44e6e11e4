"""Settings, built once at the edge: a flag beats the environment, which beats the file, which beats the default.

Nothing else in the package reads the environment. Unknown keys are refused by name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from volspike.errors import UsageError


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the API listens and what it serves. ``model`` is an artifact's folder (or a file in it).

    ``companion`` is a second model, which answers what the first does not understand and it does. ``results`` is the
    folder where the last training and the last look for drift leave what they came to.
    """

    model: Path = Path("models/artifacts/production")
    companion: Path | None = None
    results: Path = Path("models/results")
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "INFO"
    max_body_bytes: int = 1 << 20
    max_rows: int = 10_000


_Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class FeedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which exchange is listened to, for what, and how patiently.

    ``url`` left empty is the protocol's own. ``matches`` adds the Exchange's trades to its tickers, which tell
    them already. Nothing for ``heartbeat_timeout_s`` is a gap, nothing for ``idle_timeout_s`` ends the connection;
    one that held for ``lasting_s`` lets the next wait be short again. The queue between the socket and whoever
    reads holds ``queue_frames`` frames of together ``queue_bytes`` bytes.
    """

    protocol: Literal["coinbase", "coinbase-exchange"] = "coinbase"
    url: str = ""
    products: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("BTC-USD",)
    matches: bool = False
    connect_timeout_s: _Seconds = 10.0
    ack_timeout_s: _Seconds = 5.0
    heartbeat_timeout_s: _Seconds = 10.0
    idle_timeout_s: _Seconds = 30.0
    close_timeout_s: _Seconds = 1.0
    lasting_s: _Seconds = 30.0
    backoff_min_s: _Seconds = 0.25
    backoff_max_s: _Seconds = 30.0
    queue_frames: _Count = 65_536
    queue_bytes: _Count = 128 << 20
    max_frame_bytes: _Count = 32 << 20
    compression: bool = True


ENVIRONMENT: dict[str, str] = {
    "MODEL_PATH": "model",
    "API_HOST": "host",
    "API_PORT": "port",
    "LOG_LEVEL": "log_level",
    "COINBASE_WS_URL": "url",
    "KAFKA_BOOTSTRAP_SERVERS": "bootstrap_servers",
    "KAFKA_TOPIC_RAW": "topic_raw",
    "KAFKA_TOPIC_FEATURES": "topic_features",
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_EXPERIMENT_NAME": "experiment",
}
"""Environment variable → field, by the names that users of the earlier system know."""

S = TypeVar("S", bound=msgspec.Struct)


def settle(kind: type[S], flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None, section: str) -> S:
    """The settings of ``kind`` from flags (``None`` is "not given"), environment and a TOML file's ``section``.

    Raises:
        UsageError: an unknown key or a value of the wrong type, named with its place.
    """
    names = {field.name for field in msgspec.structs.fields(kind)}
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged.update(tomllib.loads(file.read_text()).get(section, {}))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"settings file {file}: {error}") from error
    merged.update({name: environ[key] for key, name in ENVIRONMENT.items() if key in environ and name in names})
    merged.update({name: value for name, value in flags.items() if value is not None})
    try:
        return msgspec.convert(merged, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UsageError(f"settings for {section}: {error}") from error


def _path(kind: Any, value: Any) -> Any:
    if kind in {Path, Path | None}:
        return Path(value)
    raise TypeError(f"no settings of type {kind}")
