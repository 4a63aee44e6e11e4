"""The page on how good the models are, made from the figures that ``make results`` keeps in ``docs/results``."""

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
    """A data set, and what was asked of the model chosen on it: a gain over the best baseline of this share."""

    name: str
    title: str
    meaning: str
    gain: float
    asked: str


RECORDINGS: Final = (
    Recording(
        "bitflyer",
        "bitFlyer: a real market in a wild week",
        "Trades of BTC/JPY, a row per second (`--every 1s`).",
        0.20,
        "a PR-AUC at least 20 % above that of the best baseline, pooled and as mean per day, the interval of the "
        "difference without zero",
    ),
    Recording(
        "coinbase",
        "Coinbase: a few hours of quotes",
        "`ticker` of BTC-USD, a row per tick.",
        0.0,
        "a pooled PR-AUC not below that of the best baseline",
    ),
)


HEAD: Final = (
    "# How good the models are\n\n"
    "Every figure is out of sample. *Pooled* is over the test blocks by which the choice was made, *final block* over "
    "the newest one, which no choice looked at. PR-AUC is average precision: guessing reaches the base rate. A gain "
    "is the PR-AUC less that of the best baseline on the same rows; brackets are 95 % of a block bootstrap. A "
    "baseline is a rule that a trader has without learning: the best of them is what a model has to beat. `make "
    "results` measures all of it anew.\n"
)


def performance_summary(results: Path = RESULTS) -> str:
    """The page; a recording without figures is named as one that is still to be measured."""
    return "".join((HEAD, *(_recording(recording, results) for recording in RECORDINGS)))


def _recording(recording: Recording, results: Path) -> str:
    file = results / f"{recording.name}.json"
    head = f"\n## {recording.title}\n\n"
    if not file.is_file():
        return f"{head}Not measured yet: `make results` writes `docs/results/{file.name}`.\n"
    told = msgspec.json.decode(file.read_bytes())
    chosen = next(model for model in told["models"] if model["model"] == told["chosen"])
    parts = [
        head,
        _data(recording, told),
        f"**Asked:** {recording.asked}.\n\n**Reached:** {reached(recording, told, chosen)}\n\n",
        f"### Pooled over the selection folds\n\n{_pooled(told)}",
        f"### The final block\n\n{_final(told)}" if told["has_selection"] else "",
        f"### Alarms at `{told['threshold']}`, pooled\n\n{_alarms(told)}",
        _warnings(told),
    ]
    return "".join(parts).rstrip("\n") + "\n"


def _data(recording: Recording, told: Figures) -> str:
    market = " **SIMULATED: says nothing of a real market.**" if told["simulated"] else ""
    split = split_in_words(told["split"], len(told["folds"]), told["fold_by"], told["training"])
    blocks = ", ".join(f"{fold['block']}{' (final)' if fold['is_final'] else ''}" for fold in told["folds"])
    return (
        f"{recording.meaning}{market} {told['rows']:,} labelled rows of {', '.join(told['products'])}, "
        f"{day_and_time(told['start'])} to {day_and_time(told['end'])}; {split}, embargo {told['embargo_s']} s; test "
        f"blocks: {blocks}. τ is the {told['label_percentile']:g}th percentile of each fold's training rows; "
        f"{told['trials']} settings tried of each model on training rows. volspike {told['volspike_version']}, "
        f"{told['made']}.\n\n"
    )


def reached(recording: Recording, told: Figures, chosen: Figures) -> str:
    """What came of what was asked, in plain words."""
    name, best = told["chosen"], told["best_baseline"]
    if name == best:
        return f"no. `{name}`, itself the best baseline, was chosen: no model beat it on the selection folds."
    ours, theirs = chosen["pooled"]["model"], chosen["pooled"][best]
    if ours["pr_auc"] is None:
        return "cannot be told: the test rows are of one class only."
    low, high = ours["pr_auc_gain_low"], ours["pr_auc_gain_high"]
    ratio = ours["pr_auc"] / theirs["pr_auc"] - 1.0
    by_fold = _mean_ratio(chosen["pooled"]["folds"])
    is_clear = low is not None and low > 0.0
    is_reached = min(ratio, ratio if by_fold is None else by_fold) >= recording.gain and (
        is_clear or recording.gain == 0.0
    )
    clear = {None: "too few events to tell whether they differ", "better": "clear of zero"}.get(
        chosen["verdict"], "zero is not ruled out" if chosen["verdict"] != "worse" else "clearly below zero"
    )
    final = chosen["final"]["model"]
    ends = between(final["pr_auc_gain_low"], final["pr_auc_gain_high"])
    rested = "too little for an interval" if ends == DASH else ends
    is_told = told["has_selection"] and final["pr_auc"] is not None
    after = f" On the final block: {signed(final['pr_auc_gain'])} ({rested})." if is_told else ""
    return (
        f"{'yes' if is_reached else 'no'}. The chosen model, `{name}`, has {number(ours['pr_auc'])} where `{best}` has "
        f"{number(theirs['pr_auc'])}: {100 * ratio:+.0f} %, a difference of {signed(ours['pr_auc_gain'])} "
        f"({between(low, high)}; {clear}) over {ours['spike_events']} separate spike event(s)."
        f"{_in_folds(chosen['pooled']['folds'], by_fold)}{after}{_beside_hindsight(told, theirs['pr_auc'])}"
    )


def _mean_ratio(folds: Figures) -> float | None:
    """How far the mean of the folds lies above the baseline's, as a share of that."""
    ours, theirs = folds["model"], folds["baseline"]
    return None if ours is None or not theirs else float(ours / theirs - 1.0)


def _in_folds(folds: Figures, ratio: float | None) -> str:
    if ratio is None:
        return ""
    ends = between(folds["gain_low"], folds["gain_high"])
    return (
        f" As mean per fold: {number(folds['model'])} where the baseline has {number(folds['baseline'])}: "
        f"{100 * ratio:+.0f} %, a difference of {signed(folds['gain'])} ({ends}), ahead in {folds['ahead']} of "
        f"{folds['folds']}."
    )


def _beside_hindsight(told: Figures, baseline: float) -> str:
    """What a rule reaches that knows the minutes after the judged one too."""
    found = told.get("hindsight")
    if found is None:
        return ""
    return (
        " For scale: a rule that also knows the volatility of the two minutes *after* the judged one, which nobody "
        f"can, reaches {number(found['pr_auc'])} pooled ({100 * (found['pr_auc'] / baseline - 1.0):+.0f} %) and "
        f"{number(found['mean_per_fold'])} as mean per fold."
    )


def _name(model: Figures, told: Figures) -> str:
    marks = [
        "chosen" if model["model"] == told["chosen"] else "",
        "best baseline" if model["model"] == told["best_baseline"] else "baseline" if model["is_baseline"] else "",
    ]
    said = ", ".join(mark for mark in marks if mark)
    return f"`{model['model']}`{f' ({said})' if said else ''}"


def _with_span(figures: Figures, name: str, digits: int = 3) -> str:
    value, ends = figures.get(name), between(figures.get(f"{name}_low"), figures.get(f"{name}_high"), digits)
    return number(value, digits) if ends == DASH else f"{number(value, digits)} ({ends})"


def _gain(model: Figures, part: str, told: Figures) -> str:
    figures = model[part]["model"]
    if model["model"] == told["best_baseline"]:
        return DASH
    ends = between(figures["pr_auc_gain_low"], figures["pr_auc_gain_high"])
    return signed(figures["pr_auc_gain"]) if ends == DASH else f"{signed(figures['pr_auc_gain'])} ({ends})"


def _ranked(told: Figures) -> list[Any]:
    """The best pooled PR-AUC first; one without any last."""
    return sorted(told["models"], key=lambda model: -(model["pooled"]["model"]["pr_auc"] or 0.0))


def _pooled(told: Figures) -> str:
    rows = [
        (
            _name(model, told),
            _with_span(model["pooled"]["model"], "pr_auc"),
            _with_span(model["pooled"]["folds"], "model"),
            _gain(model, "pooled", told),
            _with_span(model["pooled"]["model"], "roc_auc"),
            number(model["pooled"]["model"]["brier"], 4),
            number(model["pooled"]["model"]["log_loss"]),
        )
        for model in _ranked(told)
    ]
    heads = ("", "PR-AUC", "mean per fold", f"gain over `{told['best_baseline']}`", "ROC-AUC", "Brier", "log loss")
    base = told["models"][0]["pooled"]["model"]
    return f"{table(heads, rows)}{base['rows']:,} rows, base rate {number(base['base_rate'])}.\n\n"


def _final(told: Figures) -> str:
    rows = [
        (
            _name(model, told),
            _with_span(model["final"]["model"], "pr_auc"),
            _gain(model, "final", told),
            _with_span(model["final"]["model"], "roc_auc"),
            number(model["final"]["model"]["brier"], 4),
        )
        for model in _ranked(told)
    ]
    base = told["models"][0]["final"]["model"]
    heads = ("", "PR-AUC", f"gain over `{told['best_baseline']}`", "ROC-AUC", "Brier")
    return (
        f"{table(heads, rows)}{base['rows']:,} rows, base rate {number(base['base_rate'])}, "
        f"{base['spike_events']} separate spike event(s).\n\n"
    )


def _alarms(told: Figures) -> str:
    rows = []
    for model in _ranked(told):
        events = model["pooled"]["model_events"]
        rows.append(
            (
                _name(model, told),
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
        "episodes caught",
        "onsets in time",
        "median lead, s",
        "alarms that were right",
        "false alarms/h",
        "in alarm",
    )
    return table(heads, rows)


def _warnings(told: Figures) -> str:
    if not told["warnings"]:
        return ""
    return "What to know besides:\n\n" + "".join(f"- {sentence}\n" for sentence in told["warnings"])
