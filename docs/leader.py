"""The value of a leader's features, measured: ``python docs/leader.py FOLDER``.

``FOLDER`` holds the recordings of two venues named below. A model is fitted on each fold of a walk-forward split, with
the features of the leader and without them, on the same rows. The differences have 95 % intervals of a paired block
bootstrap. Nothing that is fitted here is kept. The output is ``docs/leader.md``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from volspike.datasets import Dataset, load_dataset
from volspike.datasets.build import build_features, label_file
from volspike.evaluation import Comparison, Interval, Scored, compare, pooled
from volspike.features import Every, FeatureSet, Scope
from volspike.features.catalogue import LEADER, names_of
from volspike.labels import SpikeDefinition
from volspike.market import SECOND_NS
from volspike.training.fitting import FoldFit, fit_fold
from volspike.training.folds import Fold, TrainingData, prepare_training_data
from volspike.training.request import TrainingRequest

REPORT: Final = Path(__file__).parent / "leader.md"
SPIKE: Final = SpikeDefinition.parse("jump:2")
STEP_S: Final = 5
FOLDS: Final = 4
MODELS: Final = ("logistic", "lightgbm")
WITHOUT: Final = "without leader"


@dataclass(frozen=True, slots=True)
class Pair:
    """A leader and the products whose spikes are predicted, in tapes below a folder."""

    tapes: str
    leader: str
    followers: tuple[str, ...]
    expectation: str


_COINBASE: Final = tuple(
    f"{name}-USD" for name in ["AAVE", "AVAX", "BCH", "CRV", "DOGE", "ENA", "ETC", "LINK", "POL", "WIF"]
)
_BINANCE: Final = tuple(f"binance:{name}-USDT" for name in ["POL", "SKY", "TRX"])

PAIRS: Final = (
    Pair("two_venues_20180812", "bitflyer:BTC-JPY", ("btcbox:BTC-JPY",), "bitFlyer moves about 15 s earlier"),
    Pair("two_venues_20180812", "btcbox:BTC-JPY", ("bitflyer:BTC-JPY",), "the reverse, a counter-example"),
    Pair("crash_20251010", "gemini:BTC-USD", _COINBASE, "bitcoin before ten other coins, day of a crash"),
    Pair("crash_20251010", "gemini:BTC-USD", _BINANCE, "bitcoin before three other coins, another quote currency"),
)


def rows_of(pair: Pair, folder: Path) -> Dataset:
    """The labelled rows of the followers, one in ``STEP_S`` seconds, with the leader's features."""
    feature_set = FeatureSet.of((30, 60, 300), Scope.FULL, pair.leader)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "features.parquet"
        build_features([str(folder / pair.tapes)], file, feature_set, Every.SECOND)
        label_file(file, file, SPIKE)
        dataset = load_dataset(file)
    codes = [dataset.products.index(name) for name in pair.followers]
    is_kept = np.isin(dataset.product, codes) & (dataset.time // SECOND_NS % STEP_S == 0)
    return dataset.only(is_kept)


def fits(data: TrainingData, model: str) -> Iterator[tuple[Fold, FoldFit, FoldFit]]:
    """Each fold with the model's fit on all columns and on those without the leader's, on the same rows."""
    names = names_of(LEADER)
    plain = replace(data, columns=tuple(name for name in data.columns if name not in names))
    for fold in data.fold_set.folds:
        yield fold, fit_fold(model, data, fold, {}), fit_fold(model, plain, fold, {})


def measure(data: TrainingData, model: str) -> tuple[Comparison, float]:
    """The model with the leader's features compared with the same model without, and the share of their importance."""
    parts, shares = [], []
    for fold, led, plain in fits(data, model):
        parts.append(
            Scored.of(
                data.dataset,
                led.test.rows,
                fold.tau,
                probability=led.test.probability,
                threshold=led.threshold,
                baseline=plain.test.probability,
                baseline_threshold=plain.threshold,
                fold=fold.number,
            )
        )
        total = sum(led.importance.values())
        shares.append(sum(led.importance.get(name, 0.0) for name in names_of(LEADER)) / total if total else 0.0)
    return compare(pooled(parts), baseline_name=WITHOUT, baseline_is_probability=True), float(np.mean(shares))


def _with_interval(value: float, interval: Interval, *, sign: str = "") -> str:
    return f"{value:{sign}.3f} ({interval.low:{sign}.3f} … {interval.high:{sign}.3f})"


def report_row(pair: Pair, model: str, found: Comparison, share: float, rows: int) -> tuple[str, ...]:
    """A row of the report: figures with and without the leader, and their differences with intervals."""
    gain = found.gain_intervals
    return (
        f"{pair.leader} → {followers(pair)}",
        model,
        f"{rows:,}",
        str(found.spike_events),
        f"{found.baseline.pr_auc:.3f}",
        _with_interval(found.gain, gain["pr_auc"], sign="+"),
        found.verdict() or "too few events",
        f"{found.baseline.log_loss:.4f}",
        f"{found.gain_of('log_loss'):+.4f} ({gain['log_loss'].low:+.4f} … {gain['log_loss'].high:+.4f})",
        found.verdict("log_loss") or "too few events",
        f"{share:.0%}",
    )


def followers(pair: Pair) -> str:
    """The name of the first follower, and their number if there are several."""
    return pair.followers[0] if len(pair.followers) == 1 else f"{len(pair.followers)} of {pair.followers[0]}, …"


HEADER: Final = (
    "leader → product",
    "model",
    "test rows",
    "spike events",
    "PR-AUC without",
    "gain with the leader",
    "PR-AUC is",
    "log loss without",
    "change with the leader",
    "log loss is",
    "importance of its features",
)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def report_text(rows: Sequence[tuple[str, ...]]) -> str:
    """The report in Markdown."""
    notes = "".join(f"- {pair.leader} → {followers(pair)}: {pair.expectation}.\n" for pair in PAIRS)
    return (
        "<!-- generated by `python docs/leader.py FOLDER`; do not edit -->\n\n# Value of a leader\n\n"
        "The same models on the same rows, with and without the eight features of a leader "
        "([definitions](feature_spec.md)): walk-forward over "
        f"{FOLDS} folds, spikes are `{SPIKE}` ({SPIKE.describe()}), default settings, a row every {STEP_S} s. The "
        "intervals (95 %) are those of the difference in a paired block bootstrap: both models are evaluated on the "
        "same resampled blocks. A log loss below that without the leader is better. Each recording is one day, so the "
        "intervals do not show how other days differ. Nothing fitted here ships.\n\n"
        f"{_table(HEADER, rows)}{notes}"
    )


def main() -> None:
    """Measure every pair and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the recordings")
    parser.add_argument("--models", nargs="+", default=MODELS)
    given = parser.parse_args()
    rows = []
    for pair in PAIRS:
        dataset = rows_of(pair, given.folder)
        tapes, models = given.folder / pair.tapes, tuple(given.models)
        request = TrainingRequest(features=tapes, models=models, folds=FOLDS, fold_by="rows", spike=str(SPIKE))
        data = prepare_training_data(request, dataset)
        for model in given.models:
            found, share = measure(data, model)
            rows.append(report_row(pair, model, found, share, found.model.rows))
            print(" | ".join(rows[-1]), flush=True)  # noqa: T201
    REPORT.write_text(report_text(rows))


if __name__ == "__main__":
    main()
