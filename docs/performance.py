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
    """A data set and the target of the best learned model: its PR-AUC as a multiple of that of the best baseline.

    ``pooled`` and ``calm`` are the least multiples, None without a target. ``is_certain``: with intervals above 1.
    """

    name: str
    title: str
    description: str
    pooled: float | None
    calm: float | None
    is_certain: bool = False

    @property
    def target(self) -> str:
        """The target as a phrase."""
        parts = [(self.pooled, "pooled"), (self.calm, "in calm rows")]
        wanted = [f"×{multiple:.2f} {rows}" for multiple, rows in parts if multiple is not None]
        if not wanted:
            return "none, as the recording has too few spikes"
        certain = ", with intervals above ×1" if self.is_certain else ""
        return f"the PR-AUC of the best learned model is at least {' and '.join(wanted)} of the best baseline{certain}"


RECORDINGS: Final = (
    Recording(
        "bitflyer",
        "bitFlyer 2018, 90th percentile",
        "Trades of BTC/JPY in a volatile week, one row per second (`--every 1s`).",
        1.10,
        1.40,
        is_certain=True,
    ),
    Recording(
        "jump_bitflyer_2018-01",
        "bitFlyer 2018",
        "The same trades with the default spike of `up`.",
        1.10,
        1.40,
        is_certain=True,
    ),
    Recording("jump_binance_2025", "Binance 2025", "Trades of BTC-USDC on a quiet Saturday.", None, 1.0),
    Recording("jump_fxcm_2014", "FXCM 2014", "Quotes of EUR-USD.", None, 1.0),
    Recording("jump_oanda_2014", "OANDA 2014", "Quotes of EUR-USD and gold.", None, 1.0),
    Recording("jump_us_2013", "US equities 2013", "Trades of AIG and BAC in regular hours.", None, 1.0),
    Recording(
        "jump_coinbase_2016", "Coinbase 2016", "Second closes of BTC-USD, 4 to 6 % of seconds active.", None, 1.0
    ),
    Recording("coinbase", "Coinbase 2025, 90th percentile", "`ticker` of BTC-USD, one row per tick.", None, None),
)

HEAD: Final = """# How good are the models?

What training on one recording achieves, market by market. The shipped model has
[its own evaluation](../src/volspike/models/default/card.md); a model for your market needs
[your own recordings](training.md).

"""

READING: Final = """
How to read the tables:

- Every metric is out of sample. *Pooled* covers the test blocks that the choice of the model is based on. The *final
  block* is the newest one and can only overrule the choice of a model.
- **PR-AUC** is the average precision. Random guessing reaches the base rate, the share of spikes. *Per day* is its mean
  over the days. *Calm rows* are those whose last minute was no spike itself: there a warning has value.
- A target is *uncertain* if the multiple is reached, but its interval includes ×1 or is not known.
- A **baseline** is a simple rule, such as the volatility of the last minute. A model is worth its cost only if it beats
  the best of them. Multiples compare with the baseline that is best on the same rows.
- **Onsets in time** at 30 minutes: the share of spikes from a calm start that an alert precedes, if the threshold
  keeps alerts open for 30 minutes per day. The threshold is chosen on the same rows, for all models alike.
- **Brier score** and **log loss** measure the probabilities; lower is better. A constant forecast of the base rate p
  has a Brier score of p(1 − p). Do not rely on probabilities with a higher score.
- Brackets are 95 % block-bootstrap intervals. They do not cover days that differ from the recorded ones.

There is no upper bound of what could be forecast: none was fitted. `make results` reproduces this page. The
[selection rationale](selection_rationale.md) explains the models and the choice; the terms are in the
[glossary](glossary.md).
"""

_BUDGETS: Final = (15, 30, 60)


def performance_summary(results: Path = RESULTS) -> str:
    """The page; a recording without results is listed as not measured."""
    runs = {recording.name: _run(recording, results) for recording in RECORDINGS}
    overview = [_overview(recording, run) for recording in RECORDINGS if (run := runs[recording.name]) is not None]
    heads = (
        "recording",
        "spike",
        "events",
        "best learned model",
        "best baseline",
        "pooled",
        "per day",
        "calm rows",
        "target met",
        "chosen to serve",
    )
    parts = [_recording(recording, runs[recording.name]) for recording in RECORDINGS]
    return "".join((HEAD, table(heads, overview).rstrip("\n") + "\n", READING, *parts))


def _run(recording: Recording, results: Path) -> Figures | None:
    file = results / f"{recording.name}.json"
    return msgspec.json.decode(file.read_bytes()) if file.is_file() else None


def learned(run: Figures) -> Figures:
    """The learned model with the greatest pooled PR-AUC."""
    return next(model for model in _ranked(run) if not model["is_baseline"])


def _overview(recording: Recording, run: Figures) -> tuple[str, ...]:
    model = learned(run)
    multiples = [_multiple_text(model, run, part) for part in ("pr_auc", "days", "calm")]
    return (
        recording.title,
        f"`{run['spike']}`",
        str(model["pooled"]["model"]["spike_events"]),
        f"`{model['model']}`",
        f"`{run['best_baseline']}`",
        *multiples,
        reached(recording, run).partition(".")[0],
        f"`{run['chosen']}`",
    )


@dataclass(frozen=True, slots=True)
class Multiple:
    """PR-AUC of a model over that of the best baseline on the same rows, and that baseline.

    The interval is known for the baseline that is best on all rows.
    """

    value: float
    baseline: str
    low: float | None
    high: float | None


def multiple(model: Figures, run: Figures, part: str) -> Multiple | None:
    """The multiple on the rows of ``part``: ``pr_auc`` (all rows), ``days`` (mean over days) or ``calm``."""
    baselines = {
        each["model"]: value
        for each in run["models"]
        if each["is_baseline"] and (value := each["pooled"][part]["model"]) is not None
    }
    ours = model["pooled"][part]
    if ours["model"] is None or not baselines:
        return None
    best = max(baselines, key=lambda name: baselines[name])
    if not baselines[best]:
        return None
    is_compared = best == run["best_baseline"]
    low, high = (ours["ratio_low"], ours["ratio_high"]) if is_compared else (None, None)
    return Multiple(ours["model"] / baselines[best], best, low, high)


def _multiple_text(model: Figures, run: Figures, part: str) -> str:
    found = multiple(model, run, part)
    if found is None:
        return DASH
    ends = between(found.low, found.high, 2)
    extra = ends if ends != DASH else f"`{found.baseline}`" if found.baseline != run["best_baseline"] else ""
    return f"×{found.value:.2f}" + (f" ({extra})" if extra else "")


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
        f"**Target:** {recording.target}. **Target met:** {reached(recording, run)}\n\n",
        _scores(run),
        _alerts(run),
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
        f"blocks: {blocks}. A spike is a minute with a volatility of {run['spike_text']}. "
        f"Hyperparameter trials per model: {run['trials']}. volspike {run['volspike_version']}, {run['made']}.\n\n"
    )


def reached(recording: Recording, run: Figures) -> str:
    """Whether the target is met, beginning with one word, and the numbers behind it.

    "uncertain": the multiple is reached, but its interval includes 1 or is not known.
    """
    model = learned(run)
    if model["pooled"]["model"]["pr_auc"] is None:
        return "unknown. The test rows contain one class only."
    text = f"{_gain_in_words(run, model)} {_choice_in_words(run)}"
    wanted = {"pr_auc": recording.pooled, "calm": recording.calm}
    if set(wanted.values()) == {None}:
        return f"no target. {text}"
    found = [(multiple(model, run, part), least) for part, least in wanted.items() if least is not None]
    if any(each is None or each.value < least for each, least in found):
        return f"no. {text}"
    is_certain = all(each is not None and each.low is not None and each.low > 1.0 for each, _ in found)
    if recording.is_certain and any(each is not None and each.low is not None and each.low <= 1.0 for each, _ in found):
        return f"no. {text}"
    return f"{'yes' if is_certain else 'uncertain'}. {text}"


def _choice_in_words(run: Figures) -> str:
    if run["chosen"] != run["best_baseline"]:
        return f"`{run['chosen']}` was chosen to be served."
    return (
        f"The best baseline, `{run['chosen']}`, was chosen to be served: no learned model has an interval of its gain "
        "above zero, at least 20 spike events, and a final block that does not contradict it."
    )


def _gain_in_words(run: Figures, model: Figures) -> str:
    ours, final = model["pooled"]["model"], model["final"]["model"]
    verdict = {
        None: "too few events to decide whether they differ",
        "better": "the interval excludes zero",
        "worse": "the interval is below zero",
    }.get(model["verdict"], "the interval contains zero")
    low, high = ours["pr_auc_gain_low"], ours["pr_auc_gain_high"]
    ends = between(final["pr_auc_gain_low"], final["pr_auc_gain_high"])
    interval = "too little data for an interval" if ends == DASH else ends
    has_final = run["has_selection"] and final["pr_auc"] is not None
    after = f" Gain on the final block: {signed(final['pr_auc_gain'])} ({interval})." if has_final else ""
    return (
        f"The best learned model, `{model['model']}`, has pooled PR-AUC {number(ours['pr_auc'])}, the best baseline, "
        f"`{run['best_baseline']}`, {number(model['pooled']['pr_auc']['baseline'])}. The gain is "
        f"{signed(ours['pr_auc_gain'])} ({between(low, high)}); {verdict}.{after}"
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


def _ranked(run: Figures) -> list[Any]:
    """Models by pooled PR-AUC, highest first; undefined last."""
    return sorted(run["models"], key=lambda model: -(model["pooled"]["model"]["pr_auc"] or 0.0))


def _scores(run: Figures) -> str:
    rows = [
        (
            _name(model, run),
            _with_span(model["pooled"]["pr_auc"], "model"),
            _with_span(model["pooled"]["days"], "model"),
            _with_span(model["pooled"]["calm"], "model"),
            _with_span(model["final"]["model"], "pr_auc") if run["has_selection"] else DASH,
            number(model["pooled"]["model"]["brier"], 4),
            number(model["pooled"]["model"]["log_loss"]),
        )
        for model in _ranked(run)
    ]
    heads = ("PR-AUC", "pooled", "per day", "calm rows", "final block", "Brier", "log loss")
    pooled, final = run["models"][0]["pooled"], run["models"][0]["final"]["model"]
    base, calm = pooled["model"], pooled["calm"]
    after = (
        f"; final block {final['rows']:,} rows, base rate {number(final['base_rate'])}, {final['spike_events']} events"
        if run["has_selection"]
        else ""
    )
    return (
        f"{table(heads, rows)}Pooled {base['rows']:,} rows, base rate {number(base['base_rate'])}, in calm rows "
        f"{number(calm['base_rate'])}{after}. A constant forecast of the base rate has a Brier score of "
        f"{number(_constant_brier(base), 4)}.\n\n"
    )


def _alerts(run: Figures) -> str:
    rows = []
    for model in _ranked(run):
        pooled, events = model["pooled"], model["pooled"]["model_events"]
        rows.append(
            (
                _name(model, run),
                *(_with_span(pooled[f"minutes_{minutes}_per_day"], "recall_model", 2) for minutes in _BUDGETS),
                number(pooled["minutes_30_per_day"]["model_lead_median_s"], 0),
                f"{events['onsets_caught']} of {events['onsets']}",
                _with_span(events, "precision", 2),
                share(events["alarm_share"]),
            )
        )
    budgets = (f"{minutes} minutes" for minutes in _BUDGETS)
    served = f"`{run['threshold']}`"
    heads = ("onsets in time at", *budgets, "lead at 30, s", f"at {served}", "precision of alerts", "time in alert")
    return table(heads, rows)


def _warnings(run: Figures) -> str:
    if not run["warnings"]:
        return ""
    return "\nWarnings of the training run:\n\n" + "".join(f"- {sentence}\n" for sentence in run["warnings"])
