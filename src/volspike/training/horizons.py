"""A model with several horizons: one artifact with a head for each further horizon.

The heads are trained one after the other, each on labels, purge and embargo of its own horizon, with the same spike
definition, columns and folds. They are stored in the folder of the first horizon's artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from volspike.datasets.build import label_file
from volspike.datasets.feature_file import facts_of, open_feature_file
from volspike.models import METADATA_FILE, ONNX_FILE, Artifact
from volspike.models.artifact import head_files
from volspike.models.metadata import decode_metadata
from volspike.progress import OnStep, part
from volspike.training.report import ModelResult, TrainingReport
from volspike.training.request import TrainingRequest, check_horizons
from volspike.training.run import train


def train_horizons(request: TrainingRequest, horizons: Sequence[int], on_step: OnStep) -> list[TrainingReport]:
    """Train the requested models for every horizon and write one artifact for each model; one report per horizon.

    The best baseline of the first horizon is trained for the others and written as well.

    ``on_step`` receives the name of each step as it begins. Each artifact is replaced at once by one with all heads.

    Raises:
        UsageError, UnreadableFile, NotEnoughData, SchemaMismatch, ModelError: as ``train``.
    """
    horizons = check_horizons(horizons)
    with open_feature_file(request.features) as file:
        spike = request.spike_definition(facts_of(request.features, file))
    reports: list[TrainingReport] = []
    with TemporaryDirectory(prefix="volspike-horizons-") as folder:
        for number, horizon in enumerate(horizons):
            step = part(on_step, number / len(horizons), (number + 1) / len(horizons), f"{horizon} s: ")
            place = Path(folder) / str(horizon)
            labelled = Path(folder) / "labelled.parquet"
            step("labels")
            label_file(request.features, labelled, spike, horizon=horizon)
            models = (*request.models, *(report.best_baseline for report in reports[:1]))
            each = replace(request, models=models, features=labelled, artifacts=place)
            reports.append(train(each, step))
        first, *others = [Path(folder) / str(horizon) for horizon in horizons]
        written = [result.model for result in _results(reports[0]) if result.artifact is not None]
        for name in written:
            _write_with_heads(first / name, [other / name for other in others], request.artifacts / name)
    return [_at_destination(report, request, written) for report in reports]


def _results(report: TrainingReport) -> tuple[ModelResult, ...]:
    return (*report.models, *report.baselines)


def _write_with_heads(first: Path, others: Sequence[Path], target: Path) -> None:
    """Writes the artifact of the first horizon with the others as heads."""
    extras = {file.name: file.read_bytes() for file in first.iterdir() if file.name not in {METADATA_FILE, ONNX_FILE}}
    for other in others:
        if other.is_dir():
            metadata = decode_metadata((other / METADATA_FILE).read_bytes())
            extras |= head_files(metadata.horizon_s, (other / ONNX_FILE).read_bytes(), metadata)
    metadata = decode_metadata((first / METADATA_FILE).read_bytes())
    Artifact.save(target, (first / ONNX_FILE).read_bytes(), metadata, extras)


def _at_destination(report: TrainingReport, request: TrainingRequest, written: Sequence[str]) -> TrainingReport:
    """The report with the request and the folders of the ``written`` artifacts."""

    def move(result: ModelResult) -> ModelResult:
        if result.artifact is None or result.model not in written:
            return replace(result, artifact=None, plots=())
        folder = request.artifacts / result.model
        return replace(result, artifact=folder, plots=tuple(folder / plot.name for plot in result.plots))

    models, baselines = tuple(map(move, report.models)), tuple(map(move, report.baselines))
    return replace(report, request=request, models=models, baselines=baselines)
