"""Feature rows → predictions, in batches; a row of another kind than the model's stops the worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import MalformedTick, SchemaMismatch
from volspike.market.time import NOT_A_TIME, parse_times
from volspike.models import Artifact
from volspike.streams.metrics import PredictionMetrics
from volspike.streams.state import Made, MakeStage, Taken
from volspike.streams.wire import MILLISECOND_NS, FeatureHeaders, Prediction, encode_prediction, feature_headers


class Told(Protocol):
    """Something to tell: that an episode opened or closed."""

    @property
    def is_open(self) -> bool:
        """Whether it opened."""


A = TypeVar("A", bound=Told)


class AlertWatch(Protocol[A]):
    """The episodes of a partition's products, and whom to tell of them."""

    def update(
        self, product: str, time_ns: int, probability: float | None, price: float, *, simulated: bool
    ) -> A | None:
        """What a row gives rise to, if anything; nobody is told yet."""

    def tell(self, told: A) -> None:
        """Tells it; never waits."""

    def snapshot(self) -> bytes:
        """Everything that later episodes depend on."""

    def restore(self, snapshot: bytes) -> None:
        """Takes up where the snapshot was made."""


class _Read(NamedTuple):
    """A feature row: its place in the batch, its offset, how it was made, and what the model needs of it."""

    place: int
    offset: int
    kind: FeatureHeaders
    line: Any


class Predictor(Generic[A]):
    """A stage from feature rows to predictions.

    An alert is told once its transaction is committed. A worker that dies between the two tells it again when it, or
    another, takes up the partition: each alert is told at least once, and once more at most for each such death.
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
        self._heard: list[tuple[str, bytes]] | None = None
        self._kind: FeatureHeaders | None = None
        fields: list[tuple[str, Any]] = [("timestamp", str), ("product_id", str), ("price", float), ("is_warm", bool)]
        fields += [(name, float | None) for name in artifact.features if name != "price"]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("ScoredLine", fields, frozen=True, gc=False)).decode
        several = len(artifact.features) > 1
        get = attrgetter(*artifact.features)
        self._features: Callable[[Any], Any] = get if several else lambda line: (get(line),)

    def restore(self, snapshot: bytes | None, offset: int, earlier: Sequence[int]) -> None:
        """Takes up the episodes where the snapshot was made.

        Raises:
            DataError: the bytes are no snapshot.
        """
        del offset, earlier
        if snapshot is not None:
            self._watch.restore(snapshot)

    def take(self, messages: Sequence[Taken]) -> Made:
        """The predictions of the next rows.

        Raises:
            SchemaMismatch: a row was made by other features, at another rate or from another profile than the model's.
        """
        made = Made()
        read: list[_Read] = []
        for place, message in enumerate(messages):
            try:
                read.append(_Read(place, message.offset(), self._kind_of(message), self._line(message)))
            except MalformedTick as error:
                made.dead.append((place, str(error)))
        times = parse_times([row.line.timestamp for row in read])
        if (times == NOT_A_TIME).any():
            made.dead += [
                (row.place, f"not an RFC 3339 instant: {row.line.timestamp!r} at $.timestamp")
                for row, time in zip(read, times.tolist(), strict=True)
                if time == NOT_A_TIME
            ]
            made.dead.sort()
            read = [row for row, time in zip(read, times.tolist(), strict=True) if time != NOT_A_TIME]
            times = times[times != NOT_A_TIME]
        if read:
            self._predict(read, times, made)
        return made

    def _kind_of(self, message: Taken) -> FeatureHeaders:
        """What the headers tell, once held against the model; mostly they are those of the message before."""
        headers = message.headers()
        if self._kind is None or headers != self._heard:
            kind = feature_headers(headers)
            try:
                self._artifact.expects(kind.digest, kind.every, kind.profile)
            except SchemaMismatch as error:
                raise SchemaMismatch(
                    error.what,
                    remedy=f"row at offset {message.offset()}: give featurize and predict-stream the same --model, and "
                    "topics and groups of their own where another model's rows are there",
                ) from error
            self._kind, self._heard = kind, headers
        return self._kind

    def _line(self, message: Taken) -> Any:
        try:
            line = self._decode(message.value() or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedTick(f"no feature row: {error}") from error
        return line

    def _predict(self, read: Sequence[_Read], times: NDArray[np.int64], made: Made) -> None:
        threshold, version, digest = self._artifact.threshold, self._version, self._artifact.metadata.feature_digest
        scores = self._scores(read)
        self._scored += scores
        for (_, offset, kind, line), time, probability in zip(read, times.tolist(), scores, strict=True):
            told = self._watch.update(line.product_id, time, probability, line.price, simulated=kind.simulated)
            if told is not None:
                self._waiting.append((offset, told))
            prediction = Prediction(
                product_id=line.product_id,
                timestamp=line.timestamp,
                probability=probability,
                prediction=None if probability is None else int(probability >= threshold),
                threshold=threshold,
                alert=told is not None and told.is_open,
                model_version=version,
                simulated=kind.simulated,
                digest=digest,
            )
            made.keys.append(line.product_id.encode())
            made.values.append(encode_prediction(prediction))
        made.timestamps_ms += (times // MILLISECOND_NS).clip(1).tolist()

    def _scores(self, read: Sequence[_Read]) -> list[float | None]:
        """The probability of each row; None where it is not warm, or misses a value that the model needs."""
        is_warm = np.array([row.line.is_warm for row in read], np.bool_)
        scores = np.full(len(read), np.nan)
        if is_warm.any():
            warm = [self._features(row.line) for row in read if row.line.is_warm]
            scores[is_warm] = self._artifact.probability(np.array(warm, np.float64))
        return [None if np.isnan(score) else score for score in scores.tolist()]

    def recovered(self, told: int) -> None:
        """Tells once more what may not have been told: alerts of messages from ``told`` on."""
        self._waiting = [(offset, each) for offset, each in self._waiting if offset >= told]
        self._scored = []  # they count where they were committed
        self.committed()

    def snapshot(self, offset: int) -> bytes:
        """The episodes."""
        del offset
        return self._watch.snapshot()

    def committed(self) -> None:
        """Tells the alerts of what was taken, and counts it."""
        waiting, self._waiting = self._waiting, []
        scored, self._scored = self._scored, []
        for _, told in waiting:
            self._watch.tell(told)
        if self._metrics is not None:
            self._metrics.rows(scored)
            for _, told in waiting:
                self._metrics.episode(is_open=told.is_open)

    def close(self) -> None:
        """Forgets what is not committed."""
        self._waiting, self._scored = [], []


def predicting(
    artifact: Artifact,
    model_version: str,
    make_watch: Callable[[], AlertWatch[A]],
    metrics: PredictionMetrics | None = None,
) -> MakeStage:
    """Makes the predictor of a partition; ``metrics`` are those of all of a worker's partitions."""
    return lambda _: Predictor(artifact, model_version, make_watch(), metrics)
