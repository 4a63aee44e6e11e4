"""``volspike models``: the list of models, promotion and rollback."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.screen import figure, out, table, warn, warn_of_limitations
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.lifecycle.promotion import StoredModel
    from volspike.training.tracking import TrackingSettings

EXAMPLES = "Example: volspike models promote lightgbm"


class ModelAction(StrEnum):
    """The operation on the models."""

    LIST = "list"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


def run(
    action: Annotated[
        ModelAction,
        typer.Argument(help="`list` shows the models, `promote` serves NAME, `rollback` serves the previous model."),
    ],
    name: Annotated[
        str | None, typer.Argument(help="The model's name in the list, or the start of its digest.")
    ] = None,
    artifacts: Annotated[Path, typer.Option(help="Folder of the artifacts.")] = Path("models/artifacts"),
    reason: Annotated[str, typer.Option(help="Reason for the history.")] = "no reason given",
    force: Annotated[
        bool, typer.Option("--force", help="Promote a model without evidence or with a degenerate threshold.")
    ] = False,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="MLflow store whose alias `champion` follows the served model.")
    ] = None,
) -> None:
    """List the models, promote one, or roll back to the previous one; servers follow without a restart."""
    from volspike.config import load_settings
    from volspike.lifecycle.promotion import find_model, promote, rollback
    from volspike.training.tracking import TrackingSettings

    if (name is not None) != (action is ModelAction.PROMOTE):
        raise UsageError("promote takes the name of a model, list and rollback take none")
    if force and action is not ModelAction.PROMOTE:
        raise UsageError("--force belongs to `volspike models promote NAME`")
    if action is ModelAction.LIST:
        _list(artifacts)
        return
    # not checked: a rollback must not fail because the tracking server does
    tracking = load_settings(TrackingSettings, {"tracking_uri": mlflow_uri}, os.environ, None, "tracking")
    place = rollback(artifacts, reason) if name is None else promote(find_model(artifacts, name), reason, force=force)
    _print_result(place, tracking)


def _print_result(place: Path, tracking: TrackingSettings) -> None:
    from volspike.lifecycle.promotion import RETIRED
    from volspike.models import METADATA_FILE
    from volspike.models.choice import holds_model
    from volspike.models.evidence import model_limitations
    from volspike.models.metadata import decode_metadata
    from volspike.training.mlflow import set_champion_by_digest

    if not holds_model(place):
        out.print(
            f"serving: the shipped model for the kind of market; no model is promoted to {place}, and the last one "
            f"is kept in {place.parent / RETIRED}"
        )
        if tracking.is_on:
            warn("the shipped model is not in MLflow: the alias `champion` was not moved")
        return
    metadata = decode_metadata((place / METADATA_FILE).read_bytes())
    if fault := set_champion_by_digest(tracking, metadata.onnx_sha256):
        warn(fault)
    warn_of_limitations(metadata.model, model_limitations(metadata))
    out.print(f"serving: {metadata.model} {metadata.onnx_sha256[:12]}, trained {metadata.created} → {place}")


def _list(artifacts: Path) -> None:
    """Prints the models and their limitations; a star marks the served one, which also has its own name."""
    from volspike.lifecycle.promotion import list_models
    from volspike.models.evidence import model_limitations

    models = list_models(artifacts)
    if not models:
        out.print(f"no model in {artifacts}: the shipped model is served; train one with `volspike train`")
        return
    table(
        "Models (* is served; figures are those of the newest test rows, none without evidence)",
        ("name", "model", "digest", "trained", "data until", "PR-AUC", "95 %", "base rate", "market"),
        [_figures(one) for one in models],
        2,
    )
    table(
        "Training and limitations",
        ("name", "split", "threshold", "", "products", "venues", "limitations"),
        [_training(one) for one in models],
        7,
    )
    for one in {one.digest: one for one in models}.values():
        warn_of_limitations(one.name, model_limitations(one.metadata))


def _shown_name(one: StoredModel) -> str:
    from volspike.models.choice import PRODUCTION

    return f"{one.name}{' *' if one.name == PRODUCTION else ''}"


def _figures(one: StoredModel) -> list[str]:
    from volspike.models.evidence import has_evidence

    metadata = one.metadata
    # without evidence there are no figures of held-out rows
    final = (metadata.metrics.get("model_final") or metadata.metrics.get("model", {})) if has_evidence(metadata) else {}
    low, high = (final.get(f"pr_auc_{end}") for end in ("low", "high"))
    return [
        _shown_name(one),
        metadata.model,
        one.digest,
        metadata.created[:16],
        metadata.data.end[:16],
        figure(final.get("pr_auc"), 3),
        "–" if low is None or high is None else f"{low:.3f} … {high:.3f}",
        figure(final.get("base_rate"), 3),
        "SIMULATED" if metadata.simulated else "real",
    ]


def _training(one: StoredModel) -> list[str]:
    from volspike.models.evidence import model_limitations, venues_text

    metadata = one.metadata
    return [
        _shown_name(one),
        metadata.split.method,
        metadata.served_threshold,
        f"{metadata.threshold:.3f}",
        ", ".join(metadata.products),
        venues_text(metadata),
        ", ".join(limitation.kind.value for limitation in model_limitations(metadata)) or "none",
    ]
