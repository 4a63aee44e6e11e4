"""The four files of a feature analysis."""

from __future__ import annotations

import csv
from io import StringIO
from math import isnan
from pathlib import Path
from typing import Final

from volspike.datasets.feature_file import replacing
from volspike.training.analysis import Analysis
from volspike.training.analysis_pictures import correlation_picture, importance_picture

HEADS: Final = (
    "feature",
    "group",
    "pr_auc_lost_with_group",
    "spread_with_group",
    "at_least_with_group",
    "pr_auc_lost_alone",
    "spread_alone",
    "at_least_alone",
    "models_own_share",
    "recommended",
)
"""Columns of the CSV. ``at_least`` is the lower 95 % end, ``spread`` the standard deviation over folds."""


def write_analysis(analysis: Analysis, folder: Path) -> tuple[Path, ...]:
    """Writes the pictures, the table and the names, each whole or not at all; the recommended names come last.

    Raises:
        UsageError: the folder cannot be written to.
    """
    contents = {
        "feature_importance.png": importance_picture(analysis),
        "correlation_heatmap.png": correlation_picture(analysis),
        "feature_importance.csv": importance_table(analysis).encode(),
        "recommended_features.txt": "".join(f"{name}\n" for name in analysis.recommended).encode(),
    }
    for name, content in contents.items():
        with replacing(folder / name) as part:
            part.write_bytes(content)
    return tuple(folder / name for name in contents)


def importance_table(analysis: Analysis) -> str:
    """A line per feature, the most important group first; what is undefined is empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADS)
    for feature in sorted(analysis.features, key=lambda each: (each.group, not each.is_taken, -each.alone.mean)):
        figures = [
            getattr(drop, name) for drop in (feature.together, feature.alone) for name in ("mean", "spread", "low")
        ]
        shown = ["" if isnan(value) else f"{value:.6g}" for value in (*figures, feature.own)]
        writer.writerow([feature.name, feature.group + 1, *shown, int(feature.name in analysis.recommended)])
    return text.getvalue()
