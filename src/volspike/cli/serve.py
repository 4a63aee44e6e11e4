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

    A folder in --model without a model is refused. Any other model that cannot be loaded, such as one in MODEL_PATH, is
    reported as not ready. A model that appears in the folder later is verified, tried, and served from the next request
    on.
    """
    from volspike.api.server import serve
    from volspike.errors import ArtifactMissing
    from volspike.models.choice import BASELINE, holds_model, with_companion

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
    # MODEL_PATH may be filled later, as a volume; the variant baseline ignores the option
    if model is not None and settings.variant != BASELINE and not holds_model(model):
        raise ArtifactMissing(
            f"{model}: no model to serve; train one with `volspike train`, or name a folder that is filled later in "
            "MODEL_PATH"
        )
    # clients of the earlier system send its ten features, whatever model is served
    serve(with_companion(settings))
