"""The page on model performance, generated from the results that ``make results`` writes to ``docs/results``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from volspike.reporting.format import DASH, between, day_and_time, number, share, signed, split_in_words, table

RESULTS: Final = Path(__file__).parent / "results"

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """A data set and the target for its chosen model: ``gain`` over the best baseline, as a share."""

    name: str
    title: str
    description: str
    gain: float
    target: str


RECORDINGS: Final = (
    Recording(
        "bitflyer",
        "bitFlyer: a volatile week of a real market",
        "Trades of BTC/JPY, one row per second (`--every 1s`).",
        0.20,
        "a PR-AUC at least 20 % above that of the best baseline, pooled and as the mean per day, and an interval of "
        "the difference above zero",
    ),
    Recording(
        "coinbase",
        "Coinbase: three hours of quotes",
        "`ticker` of BTC-USD, one row per tick.",
        0.0,
        "a pooled PR-AUC at least equal to that of the best baseline",
    ),
)

HEAD: Final = """# How good are the models?

Metrics of two real recordings. They show what the method achieves; a model for your market needs
[your own recordings](training.md).

"""

READING: Final = """
How to read the tables:

- Every metric is out of sample. *Pooled* covers the test blocks that the choice of the model is based on. The *final
  block* is the newest one and can only overrule the choice of a model.
- **PR-AUC** is the average precision. Random guessing reaches the base rate, the share of spikes.
- **Gain** is the PR-AUC minus that of the best baseline on the same rows. A baseline is a simple rule, such as the
  volatility of the last minute. A model is worth its cost only if it beats the best of them.
- **Brier score** and **log loss** measure the probabilities; lower is better. A constant forecast of the base rate p
  has a Brier score of p(1 − p). Do not rely on probabilities with a higher score.
- Brackets are 95 % block-bootstrap intervals. They do not cover days that differ from the recorded ones.

`make results` reproduces this page. The [selection rationale](selection_rationale.md) explains the models and the
choice; the terms are in the [glossary](glossary.md).
"""


def performance_summary(results: Path = RESULTS) -> str:
    """The page; a recording without results is listed as not measured."""
    runs = {recording.name: _run(recording, results) for recording in RECORDINGS}
    overview = [_overview(recording, run) for recording in RECORDINGS if (run := runs[recording.name]) is not None]
    heads = (
        "recording",
        "spike events",
        "chosen model",
        "PR-AUC",
        "best baseline",
        "base rate",
        "Brier",
        "constant Brier",
        "target met",
    )
    parts = [_recording(recording, runs[recording.name]) for recording in RECORDINGS]
    return "".join((HEAD, table(heads, overview).rstrip("\n") + "\n", READING, *parts))


def _run(recording: Recording, results: Path) -> Figures | None:
    file = results / f"{recording.name}.json"
    return msgspec.json.decode(file.read_bytes()) if file.is_file() else None


def _chosen(run: Figures) -> Figures:
    return next(model for model in run["models"] if model["model"] == run["chosen"])


def _overview(recording: Recording, run: Figures) -> tuple[str, ...]:
    pooled = _chosen(run)["pooled"]
    ours, theirs = pooled["model"], pooled[run["best_baseline"]]
    return (
        recording.title.partition(":")[0],
        str(ours["spike_events"]),
        f"`{run['chosen']}`",
        number(ours["pr_auc"]),
        f"`{run['best_baseline']}` {number(theirs['pr_auc'])}",
        number(ours["base_rate"]),
        number(ours["brier"], 4),
        number(_constant_brier(ours), 4),
        reached(recording, run, _chosen(run)).partition(".")[0],
    )


def _constant_brier(figures: Figures) -> float:
    """Brier score of a constant forecast of the base rate."""
    return float(figures["base_rate"] * (1.0 - figures["base_rate"]))


def _recording(recording: Recording, run: Figures | None) -> str:
    head = f"\n## {recording.title}\n\n"
    if run is None:
        return f"{head}Not measured yet: `make results` writes `docs/results/{recording.name}.json`.\n"
    parts = [
        head,
        _data(recording, run),
        f"**Target:** {recording.target}.\n\n**Target met:** {reached(recording, run, _chosen(run))}\n\n",
        f"### Pooled over the selection folds\n\n{_pooled(run)}",
        f"### Final block\n\n{_final(run)}" if run["has_selection"] else "",
        f"### Alerts at `{run['threshold']}`, pooled\n\n{_alerts(run)}",
        _warnings(run),
    ]
    return "".join(parts).rstrip("\n") + "\n"


def _data(recording: Recording, run: Figures) -> str:
    market = " **SIMULATED: no evidence for a real market.**" if run["simulated"] else ""
    split = split_in_words(run["split"], len(run["folds"]), run["fold_by"], run["training"])
    blocks = ", ".join(f"{fold['block']}{' (final)' if fold['is_final'] else ''}" for fold in run["folds"])
    return (
        f"{recording.description}{market} {run['rows']:,} labelled rows of {', '.join(run['products'])}, "
        f"{day_and_time(run['start'])} to {day_and_time(run['end'])}; {split}, embargo {run['embargo_s']} s; test "
        f"blocks: {blocks}. τ is the {run['label_percentile']:g}th percentile of each fold's training rows. "
        f"Hyperparameter trials per model: {run['trials']}. volspike {run['volspike_version']}, {run['made']}.\n\n"
    )


def reached(recording: Recording, run: Figures, chosen: Figures) -> str:
    """Whether the target is met, beginning with "yes", "no" or "unknown", and the numbers behind it."""
    name, best = run["chosen"], run["best_baseline"]
    if name == best:
        return f"no. No model beats the best baseline, `{name}`, on the selection folds; it was chosen itself."
    ours, theirs = chosen["pooled"]["model"], chosen["pooled"][best]
    if ours["pr_auc"] is None:
        return "unknown. The test rows contain one class only."
    low, high = ours["pr_auc_gain_low"], ours["pr_auc_gain_high"]
    ratio = ours["pr_auc"] / theirs["pr_auc"] - 1.0
    by_fold = _mean_ratio(chosen["pooled"]["folds"])
    is_clear = low is not None and low > 0.0
    is_reached = min(ratio, ratio if by_fold is None else by_fold) >= recording.gain and (
        is_clear or recording.gain == 0.0
    )
    verdict = {
        None: "too few events to decide whether they differ",
        "better": "the interval excludes zero",
        "worse": "the interval is below zero",
    }.get(chosen["verdict"], "the interval contains zero")
    final = chosen["final"]["model"]
    ends = between(final["pr_auc_gain_low"], final["pr_auc_gain_high"])
    interval = "too little data for an interval" if ends == DASH else ends
    has_final = run["has_selection"] and final["pr_auc"] is not None
    after = f" Gain on the final block: {signed(final['pr_auc_gain'])} ({interval})." if has_final else ""
    return (
        f"{'yes' if is_reached else 'no'}. The chosen model, `{name}`, has pooled PR-AUC {number(ours['pr_auc'])}, "
        f"the best baseline, `{best}`, has {number(theirs['pr_auc'])}. The gain is {signed(ours['pr_auc_gain'])} "
        f"({between(low, high)}), or {100 * ratio:+.0f} %; {verdict}. The rows contain {ours['spike_events']} spike "
        f"event(s).{_in_folds(chosen['pooled']['folds'], by_fold)}{after}"
    )


def _mean_ratio(folds: Figures) -> float | None:
    """Relative gain of the mean over the folds."""
    ours, theirs = folds["model"], folds["baseline"]
    return None if ours is None or not theirs else float(ours / theirs - 1.0)


def _in_folds(folds: Figures, ratio: float | None) -> str:
    if ratio is None:
        return ""
    ends = between(folds["gain_low"], folds["gain_high"])
    return (
        f" As the mean per fold: {number(folds['model'])} against {number(folds['baseline'])}, {100 * ratio:+.0f} %, a "
        f"gain of {signed(folds['gain'])} ({ends}); the model is better in {folds['ahead']} of {folds['folds']} folds."
    )


def _name(model: Figures, run: Figures) -> str:
    marks = [
        "chosen" if model["model"] == run["chosen"] else "",
        "best baseline" if model["model"] == run["best_baseline"] else "baseline" if model["is_baseline"] else "",
    ]
    named = ", ".join(mark for mark in marks if mark)
    return f"`{model['model']}`{f' ({named})' if named else ''}"


def _with_span(figures: Figures, name: str, digits: int = 3) -> str:
    value, ends = figures.get(name), between(figures.get(f"{name}_low"), figures.get(f"{name}_high"), digits)
    return number(value, digits) if ends == DASH else f"{number(value, digits)} ({ends})"


def _gain(model: Figures, part: str, run: Figures) -> str:
    figures = model[part]["model"]
    if model["model"] == run["best_baseline"]:
        return DASH
    ends = between(figures["pr_auc_gain_low"], figures["pr_auc_gain_high"])
    return signed(figures["pr_auc_gain"]) if ends == DASH else f"{signed(figures['pr_auc_gain'])} ({ends})"


def _ranked(run: Figures) -> list[Any]:
    """Models by pooled PR-AUC, highest first; undefined last."""
    return sorted(run["models"], key=lambda model: -(model["pooled"]["model"]["pr_auc"] or 0.0))


def _pooled(run: Figures) -> str:
    rows = [
        (
            _name(model, run),
            _with_span(model["pooled"]["model"], "pr_auc"),
            _with_span(model["pooled"]["folds"], "model"),
            _gain(model, "pooled", run),
            _with_span(model["pooled"]["model"], "roc_auc"),
            number(model["pooled"]["model"]["brier"], 4),
            number(model["pooled"]["model"]["log_loss"]),
        )
        for model in _ranked(run)
    ]
    heads = ("", "PR-AUC", "mean per fold", f"gain over `{run['best_baseline']}`", "ROC-AUC", "Brier", "log loss")
    base = run["models"][0]["pooled"]["model"]
    return (
        f"{table(heads, rows)}{base['rows']:,} rows, base rate {number(base['base_rate'])}; a constant forecast of it "
        f"has a Brier score of {number(_constant_brier(base), 4)}.\n\n"
    )


def _final(run: Figures) -> str:
    rows = [
        (
            _name(model, run),
            _with_span(model["final"]["model"], "pr_auc"),
            _gain(model, "final", run),
            _with_span(model["final"]["model"], "roc_auc"),
            number(model["final"]["model"]["brier"], 4),
        )
        for model in _ranked(run)
    ]
    base = run["models"][0]["final"]["model"]
    heads = ("", "PR-AUC", f"gain over `{run['best_baseline']}`", "ROC-AUC", "Brier")
    return (
        f"{table(heads, rows)}{base['rows']:,} rows, base rate {number(base['base_rate'])}, "
        f"{base['spike_events']} spike event(s).\n\n"
    )


def _alerts(run: Figures) -> str:
    rows = []
    for model in _ranked(run):
        events = model["pooled"]["model_events"]
        rows.append(
            (
                _name(model, run),
                f"{events['caught']} of {events['episodes']}",
                f"{events['onsets_caught']} of {events['onsets']}",
                number(events["lead_median_s"], 0),
                _with_span(events, "precision", 2),
                _with_span(events, "false_alarms_per_hour", 2),
                share(events["alarm_share"]),
            )
        )
    heads = (
        "",
        "spikes detected",
        "onsets detected in time",
        "median lead time, s",
        "precision of alerts",
        "false alerts/h",
        "time in alert",
    )
    return (
        f"{table(heads, rows)}A spike is a run of spike rows. An onset is a run that begins while the volatility of "
        "the last minute is below τ; it is detected in time if the alert opens within 60 s of its first row.\n\n"
    )


def _warnings(run: Figures) -> str:
    if not run["warnings"]:
        return ""
    return "Warnings of the training run:\n\n" + "".join(f"- {sentence}\n" for sentence in run["warnings"])
