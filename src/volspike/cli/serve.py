"""``volspike serve``: the model over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from volspike.cli import options

EXAMPLES = "Example: volspike serve --model models/artifacts/random_forest --port 8000"


def run(
    model: options.Model = None,
    variant: options.Variant = None,
    host: options.Host = None,
    port: options.Port = None,
    allowed_host: options.AllowedHosts = None,
    root_path: options.RootPath = None,
    api_key_file: options.KeyFile = None,
    rate_limit: options.RateLimit = None,
    log_level: Annotated[
        str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR (env LOG_LEVEL; default INFO).")
    ] = None,
    config: options.Config = None,
) -> None:
    """Serve a model over HTTP: the named or promoted one, otherwise the one that ships, as `volspike up` does.

    A named or promoted model that cannot be loaded is reported as not ready. A model that appears in the folder later
    is verified, tried, and served from the next request on.
    """
    from volspike.api.server import serve
    from volspike.models.choice import with_companion

    settings = options.serving_settings(
        config,
        api_key_file,
        model=model,
        variant=variant,
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_host) if allowed_host else None,
        root_path=root_path,
        rate_limit=rate_limit,
        log_level=log_level,
    )
    # clients of the earlier system send its ten features, whatever model is served
    serve(with_companion(settings))
