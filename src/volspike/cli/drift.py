"""``volspike drift``: a test for drift between older and newer rows, and a report of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Results, Seed, require_file
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working
from volspike.errors import UsageError
from volspike.progress import Step

if TYPE_CHECKING:
    from volspike.monitoring.drift import Drift, ReportType

EXAMPLES = (
    "Example: volspike drift --features data/processed/features.parquet --report-type data_drift "
    "--output reports/evidently/data_drift_report.html"
)


def run(
    features: Annotated[Path, typer.Option(help="Feature file; labels are not required.")],
    report_type: Annotated[
        str, typer.Option(help="data_drift (early and late rows) or train_test (training and test rows).")
    ] = "data_drift",
    split_ratio: Annotated[
        float | None,
        typer.Option(help="Share of reference rows (default: 0.5 for data_drift, 0.85 for train_test)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="HTML file for Evidently's report, with a JSON file next to it; needs the extra `monitor`."),
    ] = None,
    decision: Annotated[Path, typer.Option(help="JSON file for the result.")] = Path("reports/drift.json"),
    results: Results = Path("models/results"),
    columns: Annotated[list[str] | None, typer.Option(help="Features to test (default: all of the file).")] = None,
    seed: Seed = 0,
) -> None:
    """Test features for drift by blocks of time, so that an unchanged market raises no alarm."""
    import time

    import msgspec

    from volspike.datasets import load_dataset
    from volspike.datasets.feature_file import write_atomically
    from volspike.monitoring.drift import (
        SPLIT_RATIOS,
        check_drift,
        drift_result,
        drift_samples,
        shortage_of,
        split_remedy,
        untested_drift,
    )
    from volspike.monitoring.evidently import check_evidently, write_report
    from volspike.monitoring.results import write_result

    kind = report_type_of(report_type)
    require_file("--output", output, ".html")
    require_file("--decision", decision, ".json")
    if output is not None:
        check_evidently()
    with working("testing for drift") as show:
        dataset = load_dataset(features, labelled=False)
        embargo_s = dataset.facts.feature_set.longest_window
        ratio = SPLIT_RATIOS[kind] if split_ratio is None else split_ratio
        reference, current = drift_samples(dataset, ratio, embargo_s)
        simulated = dataset.facts.simulated
        if columns:
            _require(columns, current.names)
            reference, current = reference.columns(tuple(columns)), current.columns(tuple(columns))
        if shortage_of(reference, current):
            found = untested_drift(reference, current, split_remedy(dataset, ratio, embargo_s))
        else:
            found = check_drift(reference, current, seed=seed, on_step=show)
        with write_atomically(decision) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        write_result(drift_result(found, time.time_ns()), results)
        if output is not None:
            show(Step("writing the report", 0.9))
            pages = write_report(found, reference, current, output, simulated=simulated)
    print_result(found, simulated=simulated)
    out.print(f"findings → {decision}")
    if output is not None:
        out.print(f"report → {pages[0]} and {pages[1]}")


def report_type_of(text: str) -> ReportType:
    """The report type named by ``--report-type``."""
    from volspike.monitoring.drift import ReportType

    if text not in set(ReportType):
        raise UsageError(f"--report-type must be one of {', '.join(ReportType)}, got {text!r}")
    return ReportType(text)


def _require(columns: list[str], present: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in present]
    if missing:
        raise UsageError(f"no feature {', '.join(missing)} to test; the file has {', '.join(present)}")


def print_result(found: Drift, *, simulated: bool) -> None:
    """Prints the features by severity of drift, and the result for the data set."""
    note_if_simulated(simulated)
    for name, sample in (("reference", found.reference), ("current", found.current)):
        span = f", {sample.start} to {sample.end}" if sample.rows else ""
        out.print(f"{name}: {sample.rows:,} rows of {sample.hours:.1f} hours{span}")
    worst = sorted(found.features, key=lambda f: (f.adjusted_p is None, f.adjusted_p or 0.0, -(f.distance or 0.0)))
    rows = [
        [
            feature.name,
            feature.severity.value if feature.is_tested else "–",
            figure(feature.adjusted_p),
            figure(feature.p_value),
            figure(feature.distance, 3),
            f"{feature.blocks[0]}+{feature.blocks[1]}" if feature.is_tested else "–",
            figure(feature.memory_s, 0),
            f"{feature.missing_current:.1%}",
        ]
        for feature in worst[:15]
    ]
    heads = ["feature", "drift", "adjusted p", "p", "distance", "blocks", "memory s", "missing"]
    if found.tested:
        table(f"The {len(rows)} of {len(found.features)} features with the strongest evidence of drift", heads, rows)
    for note in found.notes:
        warn(note)
    out.print(f"drift of the data set: {found.verdict}")
