"""``volspike drift``: whether newer rows of a market are distributed as older ones were, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.monitoring.drift import Drift, ReportType

EXAMPLES = (
    "Example: volspike drift --features data/processed/features.parquet --report-type data_drift "
    "--output reports/evidently/data_drift_report.html"
)


def run(
    features: Annotated[Path, typer.Option(help="A feature file; labels are not needed.")],
    report_type: Annotated[
        str, typer.Option(help="data_drift (early against late rows) or train_test (trained on against tested on).")
    ] = "data_drift",
    split_ratio: Annotated[
        float | None,
        typer.Option(help="Share of rows that are reference; 0.5 for data_drift, 0.85 for train_test."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Evidently's page; its JSON goes beside it. Needs the extra `monitor`.")
    ] = None,
    decision: Annotated[Path, typer.Option(help="Where volspike's own findings go, as JSON.")] = Path(
        "reports/drift.json"
    ),
    results: Annotated[Path, typer.Option(help="Where the server looks for the last result, for its metrics.")] = Path(
        "models/results"
    ),
    columns: Annotated[list[str] | None, typer.Option(help="Features to look at; all of the file by default.")] = None,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Test features for drift by blocks of time, so that an unchanged market raises no alarm."""
    import time

    import msgspec

    from volspike.datasets import load_dataset
    from volspike.datasets.feature_file import replacing
    from volspike.monitoring.drift import SPLIT_RATIOS, drift_samples, look_for_drift
    from volspike.monitoring.evidently import check_evidently, write_report
    from volspike.monitoring.results import drift_result, keep_result

    kind = report_type_of(report_type)
    if output is not None:
        check_evidently()
    with working("looking for drift") as show:
        dataset = load_dataset(features, labelled=False)
        embargo_s = dataset.facts.feature_set.longest_window
        ratio = SPLIT_RATIOS[kind] if split_ratio is None else split_ratio
        reference, current = drift_samples(dataset, ratio, embargo_s)
        if columns:
            _require(columns, current.names)
            reference, current = reference.columns(tuple(columns)), current.columns(tuple(columns))
        found = look_for_drift(reference, current, seed=seed)
        with replacing(decision) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        keep_result(drift_result(found, time.time_ns()), results)
        if output is not None:
            show("Evidently's report")
            pages = write_report(found, reference, current, output)
    tell(found, simulated=dataset.facts.simulated)
    out.print(f"findings → {decision}")
    if output is not None:
        out.print(f"Evidently's report → {pages[0]} and {pages[1]}")


def report_type_of(text: str) -> ReportType:
    """The kind of report that ``--report-type`` names."""
    from volspike.monitoring.drift import ReportType

    if text not in set(ReportType):
        raise UsageError(f"--report-type is one of {', '.join(ReportType)}; was {text!r}")
    return ReportType(text)


def _require(columns: list[str], present: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in present]
    if missing:
        raise UsageError(f"no feature {', '.join(missing)} that could drift; there are {', '.join(present)}")


def tell(found: Drift, *, simulated: bool) -> None:
    """Prints what drifted, the worst first, and the decision."""
    note_if_simulated(simulated)
    for name, sample in (("reference", found.reference), ("current", found.current)):
        out.print(f"{name}: {sample.rows:,} rows of {sample.hours:.1f} hours, {sample.start} to {sample.end}")
    worst = sorted(found.features, key=lambda f: (f.adjusted_p is None, f.adjusted_p or 0.0, -(f.distance or 0.0)))
    rows = [
        [
            feature.name,
            feature.severity.value if feature.is_judged else "–",
            figure(feature.adjusted_p),
            figure(feature.p_value),
            figure(feature.distance, 3),
            f"{feature.blocks[0]}+{feature.blocks[1]}" if feature.is_judged else "–",
            figure(feature.memory_s, 0),
            f"{feature.missing_current:.1%}",
        ]
        for feature in worst[:15]
    ]
    heads = ["feature", "drift", "p, of all", "p, own", "distance", "blocks", "memory s", "missing"]
    table(f"Of {len(found.features)} features, the {len(rows)} that stand out most", heads, rows)
    for note in found.notes:
        warn(note)
    level = "not known" if found.severity is None else found.severity.value
    out.print(
        f"drift of the data set: {level} ({found.share:.0%} of {len(found.features)} features drifted, "
        f"{found.judged} could be judged)"
    )
