"""The last page: how the figures came about, and what they do not tell."""

from __future__ import annotations

from collections.abc import Sequence

from volspike.reporting.evaluate import Evaluation
from volspike.reporting.judged import Judged
from volspike.reporting.paper import Paper
from volspike.reporting.words import SIMULATED

METHOD = {
    "Label": "A row is a spike if the standard deviation of the 60 one-second log returns after it is at least τ. τ is "
    "a percentile of the model's own training rows and frozen from there on; a row's label under one model may differ "
    "from that under another.",
    "Rows": "Only rows that training neither learned from, calibrated on nor chose thresholds by: the final block, "
    "which walk_forward and time_based training set apart as the newest, and what the file has after it.",
    "Purge and embargo": "Between the rows that a model was made from and those that judge it, every row is missing "
    "whose label reaches into the later part, or into what the later part's windows look back at (López de Prado, "
    "Advances in Financial Machine Learning, 2018, chapter 7).",
    "Figures": "PR-AUC is the average precision in step form; curves, areas, Brier score and log loss are of the "
    "calibrated probabilities of the ONNX graph that is served, not of the library that trained it.",
    "Intervals": "95 %, from a moving block bootstrap (Künsch, 1989) of stretches of time, all products together, at "
    "least ten minutes long and four times as long as nine of ten spike episodes; model and baseline are drawn alike, "
    "so that the difference has an interval of its own. Of products and hours there are fewer draws.",
    "Events": "Spike rows less than 60 seconds apart are one episode; separate spike events are more than five minutes "
    "apart. With fewer than five of them nothing is judged.",
}

LIMITS = (
    "An interval tells how far a figure could have come out otherwise on days like those recorded, not on others.",
    "Whoever compares many models on these rows and keeps the best has chosen by them: its figure is then too kind.",
    "A probability warns of volatility. It says nothing of direction, and is no basis for an order by itself.",
    "τ, thresholds and calibration belong to the market that the model learned from, and age with it.",
)


def write_method_page(paper: Paper, evaluation: Evaluation) -> None:
    """Writes it on a page of its own."""
    paper.page()
    paper.heading("Method", 0)
    paper.listed([f"{name}. {text}" for name, text in METHOD.items()])
    paper.heading("Limits", 1)
    if evaluation.simulated:
        paper.shout(SIMULATED)
    paper.listed(LIMITS)
    paper.heading("The models", 1)
    paper.table(
        ("model", "trained", "volspike", "features", "ONNX sha256"), _models(evaluation.models), _WIDTHS, texts=5
    )


_WIDTHS = (1.6, 1.6, 0.8, 1.1, 1.6)


def _models(models: Sequence[Judged]) -> list[tuple[str, ...]]:
    return [
        (
            model.title,
            model.metadata.created[:16].replace("T", " "),
            model.metadata.volspike_version,
            model.metadata.feature_digest,
            model.metadata.onnx_sha256[:16],
        )
        for model in models
    ]
