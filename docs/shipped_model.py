"""Train a shipped model on feature files of many markets: ``python docs/shipped_model.py FOLDER FILE…``.

A file is named after the venue, as in ``bitflyer_2018.parquet``. Files given with ``--evaluate`` are never trained on.
The model is written to FOLDER with its metadata and a card, which has two evaluations: the later days of every market,
scored by a model of the days before, and every market scored by a model that has never seen its product.
``make default-model`` and ``make simulated-model`` run this.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import structs
from shipped_results import (
    RESAMPLES,
    Result,
    all_markets,
    end_of_first_day,
    result_of,
    results_table,
    start_of_later_days,
)

from volspike import __version__
from volspike.evaluation import compare
from volspike.evaluation.metrics import known
from volspike.labels import TAU, SpikeDefinition
from volspike.market import format_time
from volspike.models import Artifact, DataFacts, Detector, Metadata, SplitFacts
from volspike.models.adaptive import EVENTS_NEEDED
from volspike.models.alert_level import BUDGET_MINUTES
from volspike.models.metadata import ANY_PROFILE, Adaptation, MarketFacts, PartFigures
from volspike.reporting.card import CARD_FILE
from volspike.reporting.format import SIMULATED
from volspike.training.evaluate import library_versions
from volspike.training.fitting import export_detector
from volspike.training.pooled import (
    STEP_S,
    Market,
    PooledTraining,
    StackingRows,
    TrainingPart,
    adaptation_of,
    budget_log_odds,
    calibrated,
    left_out_probabilities,
    load_markets,
    probabilities,
    stacking_coefficients,
)

SPIKE = SpikeDefinition.parse("jump:2")
VERIFIED_ROWS = 20_000
NOTE = (
    "the model is trained on all rows; model and baseline in the metrics are those of the later days of every market, "
    "scored by a model of the days before them and calibrated online"
)


def read(files: Sequence[Path]) -> list[Market]:
    """The markets of feature files, whose names begin with the venue."""
    markets = []
    for file in sorted(files):
        say(f"reading {file.name}")
        markets += load_markets(file, file.stem.partition("_")[0], SPIKE)
    return markets


def say(step: str) -> None:
    """Print the step that begins."""
    print(f"{time.strftime('%H:%M:%S')} {step}", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Train, evaluate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("features", type=Path, nargs="+", help="labelled feature files, one row per second")
    parser.add_argument("--evaluate", type=Path, nargs="*", default=[], help="files that are only evaluated on")
    given = parser.parse_args()
    markets = read(given.features)
    training = PooledTraining([TrainingPart.of(market) for market in markets])
    say("fitting on all markets")
    model = training.fit()
    say("fitting on the earlier days of all markets")
    early = PooledTraining([TrainingPart.of(market, before=start_of_later_days(market)) for market in markets]).fit()

    scores = left_out_probabilities(training, markets, say)
    stacking = [StackingRows.of(market, score) for market, score in zip(markets, scores, strict=True)]
    prior = adaptation_of(stacking_coefficients(stacking))
    unseen = [calibrated(market, score, prior, is_listed=False) for market, score in zip(markets, scores, strict=True)]
    start = round(budget_log_odds(markets, unseen), 3)
    adaptation = structs.replace(prior, alert_log_odds=start)

    later, left_out = [], []
    for market, score in zip(markets, scores, strict=True):
        say(f"evaluating on {market.name}")
        rows = market.dataset.time >= start_of_later_days(market)
        probability = calibrated(market, probabilities(early, market), adaptation, is_listed=True)
        later.append(result_of(market, probability, adaptation, rows))
        own = adaptation_of(stacking_coefficients(stacking, market.product), start)
        probability = calibrated(market, score, own, is_listed=False)
        left_out.append(result_of(market, probability, own, market.dataset.time >= end_of_first_day(market)))
    for file in sorted(given.evaluate):
        for market in read([file]):
            probability = calibrated(market, probabilities(model, market), adaptation, is_listed=False)
            left_out.append(result_of(market, probability, adaptation, market.dataset.time >= end_of_first_day(market)))
    say(f"writing {given.folder}")
    write(given.folder, markets, training, model, adaptation, later, left_out)


def write(
    folder: Path,
    markets: Sequence[Market],
    training: PooledTraining,
    model: Detector,
    adaptation: Adaptation,
    later: Sequence[Result],
    left_out: Sequence[Result],
) -> None:
    """Write the artifact and its card."""
    sample = training.sample()
    graph = export_detector(model, sample.x[:: max(1, len(sample) // VERIFIED_ROWS)]).graph
    metadata = metadata_of(markets, training, model, adaptation, later)
    card = card_of(metadata, later, left_out)
    Artifact.save(folder, graph.SerializeToString(), metadata, {CARD_FILE: card.encode()})


def metadata_of(
    markets: Sequence[Market],
    training: PooledTraining,
    model: Detector,
    adaptation: Adaptation,
    later: Sequence[Result],
) -> Metadata:
    """The metadata; its metrics are those of the later days, all markets together."""
    sample, facts = training.sample(), markets[0].dataset.facts
    scored, baseline = all_markets(later)
    threshold = f"minutes_{BUDGET_MINUTES:g}_per_day"
    ends = [(int(market.dataset.time[0]), int(market.dataset.time[-1])) for market in markets]
    return Metadata(
        model=model.name,
        created=format_time(time.time_ns()),
        volspike_version=__version__,
        features=tuple(name for name in sample.names if name != TAU),
        left_out=(),
        feature_digest=facts.digest,
        windows=facts.windows,
        every=str(facts.every),
        profile=ANY_PROFILE,
        scope=str(facts.scope),
        simulated=facts.simulated,
        products=training.products,
        markets=tuple(
            MarketFacts(venue=market.venue, product=market.product, start=format_time(first), end=format_time(last))
            for market, (first, last) in zip(markets, ends, strict=True)
        ),
        horizon_s=facts.horizon_s,
        label_percentile=90.0,
        tau=float(np.median(sample.tau)),
        spike=str(SPIKE),
        takes_tau=True,
        adaptation=adaptation,
        thresholds={threshold: float(1.0 / (1.0 + np.exp(-adaptation.alert_log_odds)))},
        served_threshold=threshold,
        accepts_missing=model.accepts_missing,
        data=DataFacts(
            rows=sum(len(market.tau) for market in markets),
            train_rows=sum(len(market.tau) for market in markets),
            validation_rows=0,
            test_rows=len(scored),
            start=format_time(min(first for first, _ in ends)),
            end=format_time(max(last for _, last in ends)),
            learned_rows=len(sample),
            weights="root of the rows of a market",
        ),
        split=SplitFacts(method="pooled", folds=1, fractions=(), note=NOTE, purge_s=facts.horizon_s),
        metrics=compare(scored, baseline_name=baseline, resamples=RESAMPLES).figures(),
        importance=dict(zip(sample.names, model.importance().tolist(), strict=True)),
        versions=library_versions(model.name),
        onnx_sha256="",
        calibration="online",
        baseline=baseline,
        product_metrics=tuple(
            PartFigures(
                label=result.market,
                rows=len(result.scored),
                spike_events=result.comparison.spike_events,
                base_rate=known(result.comparison.model.base_rate),
                pr_auc=known(result.comparison.pr_auc.model),
                baseline_pr_auc=known(result.comparison.pr_auc.baseline),
            )
            for result in later
        ),
    )


def card_of(metadata: Metadata, later: Sequence[Result], left_out: Sequence[Result]) -> str:
    """The card in Markdown."""
    model, baseline, data = metadata.metrics["model"], metadata.metrics[metadata.baseline], metadata.data
    name = "simulated" if metadata.simulated else "default"
    market = "the simulated exchange" if metadata.simulated else "real markets"
    simulated = f"**{SIMULATED}**\n\n" if metadata.simulated else ""
    return f"""# The model for {market}

{simulated}Gradient-boosted trees on {len(metadata.features)} inputs that every source provides: prices and the
number of ticks, relative to the product's last hour. The model forecasts whether the volatility of the next minute
reaches {SPIKE.value:g} times that of the last hour (`{SPIKE}`), whatever the price level and the currency. It is served
for {market} until a model is promoted. `make {name}-model` builds it from {data.learned_rows:,} rows, one in {STEP_S}
seconds, of {len(later)} markets from {data.start[:10]} to {data.end[:10]}.

**Calibration.** Each product's own outcomes calibrate its probabilities online; they count as calibrated after
{EVENTS_NEEDED} spike events. A product that is not among those of training ({", ".join(metadata.products)}) begins
closer to the exponentially weighted volatilities than to the model. The alert threshold follows the product's own
probabilities, so that alarms use {BUDGET_MINUTES:g} minutes per day.

**Performance on all markets together.** PR-AUC {model["pr_auc"]:.3f} on the later days, {baseline["pr_auc"]:.3f} for
the best baseline ({metadata.baseline}), base rate {model["base_rate"]:.3f}.

The tables compare the model on each market with the baseline that is best on the same rows: persistence, exponentially
weighted volatilities with half-lives of 10, 30, 60 and 300 s, or HAR. Intervals are 95 % by block bootstrap. Calm rows
are those whose last minute was no spike. "Observed / predicted" is the range over those tenths of the probabilities
that have 50 spike events. Alarm minutes per day are those of the complete recording, and the range over its days.

**Later days of the markets**, scored by a model of the days before.

{results_table(later)}
**Products that the model has not seen**, after a day of outcomes (half of the recording if it has one day only).

{results_table(left_out)}
**Limits.** The model uses no sizes, quotes or order books. A spike that nothing precedes, such as scheduled news, is
not forecast. On markets whose price moves in few seconds of the hour, neither model nor baselines predict much. It
warns; it is no basis for trading.
"""


if __name__ == "__main__":
    main()
