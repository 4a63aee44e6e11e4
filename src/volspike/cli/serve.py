"""``volspike serve``: the model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = "Example: volspike serve --model models/artifacts/random_forest --port 8000"


def run(
    model: Annotated[
        Path | None, typer.Option(help="An artifact's folder (env MODEL_PATH; default models/artifacts/production).")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (env API_HOST; default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (env API_PORT; default 8000).")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR (env LOG_LEVEL; default INFO).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with a table named serving.")] = None,
) -> None:
    """Serve a model's probabilities. Without a model the server starts too, and says why it is not ready."""
    import msgspec

    from volspike.config import ServingSettings, settle
    from volspike.models import TEN_MODEL
    from volspike.serving.run import serve

    flags = {"model": model, "host": host, "port": port, "log_level": log_level}
    settings = settle(ServingSettings, flags, os.environ, config, "serving")
    # clients of the earlier system tell its ten features, whatever model is served now
    serve(msgspec.structs.replace(settings, companion=settings.companion or TEN_MODEL))
