"""What `serve` and `up` take alike: where to listen, what to serve, and what a client may do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.config import ServingSettings

Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="An artifact's folder (env MODEL_PATH, or MODEL_VERSION for one among models/artifacts)."),
]
Variant: TypeAlias = Annotated[
    str | None,
    typer.Option(help="ml, or baseline: back to the z-score rule, whatever else is set (env MODEL_VARIANT)."),
]
Host: TypeAlias = Annotated[
    str | None, typer.Option(help="Address to listen on (env API_HOST; default 127.0.0.1: this machine alone).")
]
Port: TypeAlias = Annotated[int | None, typer.Option(help="Port; 0 takes a free one (env API_PORT; default 8000).")]
KeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A file with the key that clients must tell in X-API-Key (or env API_KEY); no key is asked for without.",
        envvar="API_KEY_FILE",
    ),
]
RateLimit: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Requests a minute and client to /predict; 0: no limit (env RATE_LIMIT; default 1000)."),
]
Config: TypeAlias = Annotated[Path | None, typer.Option(help="A TOML file with a table named serving.")]


def serving_settings(config: Path | None, key_file: Path | None, **flags: Any) -> ServingSettings:
    """The settings of flags, environment and file.

    Raises:
        UsageError: one of them cannot be understood, or the key's file cannot be read.
    """
    from volspike.config import ServingSettings, settle

    flags |= {"api_key": None if key_file is None else _key_in(key_file)}
    return settle(ServingSettings, flags, os.environ, config, "serving")


def key_of(key_file: Path | None) -> str | None:
    """The key that a client tells: a file's, else the environment's, else none."""
    return os.environ.get("API_KEY") if key_file is None else _key_in(key_file)


def _key_in(file: Path) -> str:
    """The key, which is not repeated in any error."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"API key file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"API key file {file}: holds something else than ASCII characters") from error
