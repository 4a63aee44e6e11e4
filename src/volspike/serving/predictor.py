"""One model answering ``/predict``: body bytes in, status and body bytes out, without HTTP."""

from __future__ import annotations

from time import perf_counter
from typing import Final, Literal

import numpy as np
from msgspec import UNSET, UnsetType

from volspike.serving.answers import Decision, Prediction, Predictions, Refusal, encode
from volspike.serving.metrics import Metrics
from volspike.serving.rows import Values, read_rows
from volspike.serving.scorer import Scorer, model_version

OK: Final = 200
UNPROCESSABLE: Final = 422


class Predictor:
    """A scorer with its metrics; thread-safe as far as the scorer is."""

    def __init__(self, scorer: Scorer, metrics: Metrics, max_rows: int) -> None:
        self.scorer = scorer
        self.version = model_version(scorer.name)
        self._names = tuple(scorer.features)
        self._threshold = float(scorer.threshold)
        self._simulated: Literal[True] | UnsetType = True if scorer.metadata.simulated else UNSET
        self._max_rows = max_rows
        self._latency = metrics.latency
        self._quiet, self._spikes = metrics.prediction_counters(self.version)

    def reply(self, body: bytes) -> tuple[int, bytes]:
        """The status and the answer to a ``/predict`` body: 200, or 422 that names what is wrong."""
        started = perf_counter()
        rows = read_rows(body, self._names, self._max_rows)
        if isinstance(rows, Refusal):
            return UNPROCESSABLE, encode(rows)
        answer = self._one(rows.values[0]) if rows.single else self._many(rows.values)
        if isinstance(answer, Refusal):
            return UNPROCESSABLE, encode(answer)
        encoded = encode(answer)
        self._latency.observe(perf_counter() - started)
        return OK, encoded

    def _one(self, row: Values) -> Prediction | Refusal:
        started = perf_counter()
        probability = float(self.scorer.probability_of(row))
        elapsed_ms = 1e3 * (perf_counter() - started)
        if probability != probability:  # noqa: PLR0124  the quickest test for NaN
            return _UNSCORABLE
        spike = probability >= self._threshold
        (self._spikes if spike else self._quiet).inc()
        return Prediction(
            prediction=1 if spike else 0,
            probability=probability,
            alert=spike,
            inference_time_ms=round(elapsed_ms, 4),
            model_version=self.version,
            threshold=self._threshold,
            simulated=self._simulated,
        )

    def _many(self, rows: list[Values]) -> Predictions | Refusal:
        x = np.array(rows, dtype=np.float64)
        started = perf_counter()
        probability = self.scorer.probability(x)
        elapsed_ms = 1e3 * (perf_counter() - started)
        if np.isnan(probability).any():
            return _UNSCORABLE
        alert: list[bool] = (probability >= self._threshold).tolist()
        scores: list[float] = probability.tolist()
        self._spikes.inc(sum(alert))
        self._quiet.inc(len(alert) - sum(alert))
        decisions: list[Decision] = [1 if spike else 0 for spike in alert]
        return Predictions(
            prediction=decisions,
            probability=scores,
            scores=scores,
            alert=alert,
            threshold=[self._threshold] * len(alert),
            inference_time_ms=round(elapsed_ms, 4),
            model_version=self.version,
            simulated=self._simulated,
        )


# Finite values can still overflow inside a graph (a z-score of 1e38), which is the values' fault and not the server's.
_UNSCORABLE: Final = Refusal(detail="the model gives no probability for these values; send values of a market")
