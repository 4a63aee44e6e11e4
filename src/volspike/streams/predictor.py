"""The stage from feature rows to predictions, in batches; a row that does not match the model stops the worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import MalformedTick, SchemaMismatch
from volspike.market.time import MILLISECOND_NS, NOT_A_TIME, parse_times
from volspike.models import Artifact
from volspike.models.volatility import (
    DEFAULT_BAND,
    ExpectedVolatility,
    expected_volatility,
    forecast_inputs,
    forecast_log_volatility,
    volatility_fields,
)
from volspike.streams.metrics import PredictionMetrics
from volspike.streams.state import MakeStage, ReceivedMessage, StageOutput
from volspike.streams.wire import (
    FeatureHeaders,
    StreamPrediction,
    decode_feature_headers,
    encode_prediction,
)


class EpisodeChange(Protocol):
    """The opening or closing of an alert episode."""

    @property
    def is_open(self) -> bool:
        """Whether the episode opened."""


A = TypeVar("A", bound=EpisodeChange)


class AlertWatch(Protocol[A]):
    """Tracks the alert episodes of a partition's products and sends alerts."""

    def threshold_of(self, product: str) -> float:
        """The alert threshold of a product."""

    def update(
        self, product: str, time_ns: int, probability: float | None, price: float, *, simulated: bool
    ) -> A | None:
        """The change that a row causes, if any; nothing is sent yet."""

    def publish(self, change: A) -> None:
        """Sends the alert; never waits."""

    def snapshot(self) -> bytes:
        """The state that later episodes depend on."""

    def restore(self, snapshot: bytes) -> None:
        """Restores the state of a snapshot."""


class _InputRow(NamedTuple):
    """A feature row: its position in the batch, its offset, its headers, and the fields that the model needs."""

    place: int
    offset: int
    kind: FeatureHeaders
    line: Any


class PredictionStage(Generic[A]):
    """A stage from feature rows to predictions.

    An alert is sent once its transaction is committed. If the worker crashes in between, the next owner of the
    partition sends it again: each alert is sent at least once, and at most once more for each such crash.
    """

    def __init__(
        self, artifact: Artifact, model_version: str, watch: AlertWatch[A], metrics: PredictionMetrics | None = None
    ) -> None:
        self._artifact = artifact
        self._version = model_version
        self._watch = watch
        self._metrics = metrics
        self._waiting: list[tuple[int, A]] = []
        self._scored: list[float | None] = []
        self._last_headers: list[tuple[str, bytes]] | None = None
        self._last_kind: FeatureHeaders | None = None
        fields: list[tuple[str, Any]] = [("timestamp", str), ("product_id", str), ("price", float), ("is_warm", bool)]
        weights = forecast_inputs(artifact.metadata.feature_set.names)
        self._volatility_weights = tuple(weights.values())
        self._spike, self._horizon = str(artifact.metadata.spike_definition), artifact.metadata.horizon_s
        fields += [(name, float | None) for name in dict.fromkeys((*artifact.features, *weights)) if name != "price"]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("ScoredLine", fields, frozen=True, gc=False)).decode
        several = len(artifact.features) > 1
        get = attrgetter(*artifact.features)
        self._features: Callable[[Any], Any] = get if several else lambda line: (get(line),)
        self._volatilities: Callable[[Any], Any] = attrgetter(*weights) if weights else lambda _: ()

    def restore(self, snapshot: bytes | None, offset: int, earlier: Sequence[int]) -> None:
        """Restores the episodes of a snapshot.

        Raises:
            DataError: the bytes are no snapshot.
        """
        del offset, earlier
        if snapshot is not None:
            self._watch.restore(snapshot)

    def process(self, messages: Sequence[ReceivedMessage]) -> StageOutput:
        """The predictions of the next rows.

        Raises:
            SchemaMismatch: a row was made by other features, at another rate, or from a profile without its features.
        """
        output = StageOutput()
        read: list[_InputRow] = []
        for place, message in enumerate(messages):
            try:
                read.append(_InputRow(place, message.offset(), self._row_kind(message), self._line(message)))
            except MalformedTick as error:
                output.dead.append((place, str(error)))
        times = parse_times([row.line.timestamp for row in read])
        if (times == NOT_A_TIME).any():
            output.dead += [
                (row.place, f"not an RFC 3339 instant: {row.line.timestamp!r} at $.timestamp")
                for row, time in zip(read, times.tolist(), strict=True)
                if time == NOT_A_TIME
            ]
            output.dead.sort()
            read = [row for row, time in zip(read, times.tolist(), strict=True) if time != NOT_A_TIME]
            times = times[times != NOT_A_TIME]
        if read:
            self._predict(read, times, output)
        return output

    def _row_kind(self, message: ReceivedMessage) -> FeatureHeaders:
        """The headers of a row after comparison with the model; usually they equal those of the previous message."""
        headers = message.headers()
        if self._last_kind is None or headers != self._last_headers:
            kind = decode_feature_headers(headers)
            try:
                self._artifact.check_inputs(kind.digest, kind.every, kind.profile)
            except SchemaMismatch as error:
                raise SchemaMismatch(
                    error.what,
                    remedy=f"row at offset {message.offset()}: give featurize and predict-stream the same --model, and "
                    "separate topics and groups from those of other models",
                ) from error
            self._last_kind, self._last_headers = kind, headers
        return self._last_kind

    def _line(self, message: ReceivedMessage) -> Any:
        try:
            line = self._decode(message.value() or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedTick(f"not a feature row: {error}") from error
        return line

    def _predict(self, read: Sequence[_InputRow], times: NDArray[np.int64], output: StageOutput) -> None:
        version, digest = self._version, self._artifact.metadata.feature_digest
        scores, taus = self._scores(read)
        self._scored += scores
        for (_, offset, kind, line), time, probability, tau in zip(read, times.tolist(), scores, taus, strict=True):
            volatility = self._expected_volatility(line)
            threshold = self._watch.threshold_of(line.product_id)
            change = self._watch.update(line.product_id, time, probability, line.price, simulated=kind.simulated)
            if change is not None:
                self._waiting.append((offset, change))
            prediction = StreamPrediction(
                product_id=line.product_id,
                timestamp=line.timestamp,
                probability=probability,
                prediction=None if probability is None else int(probability >= threshold),
                threshold=threshold,
                alert=change is not None and change.is_open,
                model_version=version,
                simulated=kind.simulated,
                digest=digest,
                spike=self._spike,
                tau=tau,
                horizon_s=self._horizon,
                **volatility_fields(volatility),
            )
            output.keys.append(line.product_id.encode())
            output.values.append(encode_prediction(prediction))
        output.timestamps_ms += (times // MILLISECOND_NS).clip(1).tolist()

    def _scores(self, read: Sequence[_InputRow]) -> tuple[list[float | None], list[float | None]]:
        """Probability and τ of each row; None if it is not warm or lacks a value that they need."""
        is_warm = np.array([row.line.is_warm for row in read], np.bool_)
        scores, tau = np.full(len(read), np.nan), np.full(len(read), np.nan)
        if is_warm.any():
            warm = np.array([self._features(row.line) for row in read if row.line.is_warm], np.float64)
            tau[is_warm] = self._artifact.thresholds(warm)
            scores[is_warm] = self._artifact.probability(warm, tau[is_warm])
        without_nan = [[None if np.isnan(value) else value for value in each.tolist()] for each in (scores, tau)]
        return without_nan[0], without_nan[1]

    def _expected_volatility(self, line: Any) -> ExpectedVolatility | None:
        """The expected volatility with the band of the recordings; None if the row is not warm or lacks an input."""
        past = self._volatilities(line)
        if not line.is_warm or not past or None in past:
            return None
        return expected_volatility(forecast_log_volatility(past, self._volatility_weights), DEFAULT_BAND, self._horizon)

    def after_recovery(self, alerted: int) -> None:
        """Sends the alerts of messages from ``alerted`` on, which may not have been sent before."""
        self._waiting = [(offset, each) for offset, each in self._waiting if offset >= alerted]
        self._scored = []  # they were counted by the worker that committed them
        self.after_commit()

    def snapshot(self, offset: int) -> bytes:
        """The state of the episodes."""
        del offset
        return self._watch.snapshot()

    def after_commit(self) -> None:
        """Sends the alerts of the committed rows and counts the rows."""
        waiting, self._waiting = self._waiting, []
        scored, self._scored = self._scored, []
        for _, change in waiting:
            self._watch.publish(change)
        if self._metrics is not None:
            self._metrics.rows(scored)
            for _, change in waiting:
                self._metrics.episode(is_open=change.is_open)

    def close(self) -> None:
        """Discards uncommitted rows."""
        self._waiting, self._scored = [], []


def predictor_factory(
    artifact: Artifact,
    model_version: str,
    make_watch: Callable[[], AlertWatch[A]],
    metrics: PredictionMetrics | None = None,
) -> MakeStage:
    """Returns a function that creates the predictor of a partition; all partitions of a worker share ``metrics``."""
    return lambda _: PredictionStage(artifact, model_version, make_watch(), metrics)
