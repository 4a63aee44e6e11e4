"""The stage from ticks to feature rows, with one feature engine per partition.

The topic does not carry the gap ledger of a recording: ``is_whole`` depends on the ticks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from volspike.errors import DataError, SchemaMismatch
from volspike.features import Every, FeatureEngine, FeatureSet
from volspike.market import Profile, Ticks
from volspike.market.time import MILLISECOND_NS
from volspike.models import Metadata
from volspike.streams.sink import PartitionParts
from volspike.streams.state import MakeStage, ReceivedMessage, Stage, StageOutput
from volspike.streams.wire import FeatureHeaders, FeatureRowCodec
from volspike.tape import TapeReport
from volspike.tape.parse import block_ticks


@dataclass(frozen=True, slots=True)
class RowKind:
    """The kind of rows that a stream makes: feature set, row rate and profile of the ticks."""

    feature_set: FeatureSet
    every: Every
    profile: Profile

    @classmethod
    def for_model(
        cls,
        model: Metadata,
        *,
        windows: Sequence[int] | None = None,
        scope: str | None = None,
        every: Every | None = None,
        profile: Profile | None = None,
    ) -> Self:
        """The kind of rows that ``model`` requires, with the given parts replaced.

        Raises:
            SchemaMismatch: the model has a leader, whose ticks may be in another partition.
            UsageError: invalid windows or scope.
        """
        if model.leader is not None:
            raise SchemaMismatch(
                f"model {model.model} needs {model.leader} as leader, but a partition has only its own products",
                remedy="train one without --leader, or serve this one with `volspike up`",
            )
        features = FeatureSet.of(windows or model.windows, scope or model.feature_set.spec)
        return cls(features, every or Every(model.every), profile or model.source_profile or Profile.TICKER)

    def differs_from(self, model: Metadata) -> list[str]:
        """The differences between these rows and those that the model requires; empty if there are none."""
        pairs = (
            ("feature digest", model.feature_set.digest, self.feature_set.digest),
            ("rows every", model.every, self.every),
        )
        differing = [f"{what} {required}, not {actual}" for what, required, actual in pairs if required != actual]
        missing = model.missing_inputs(self.profile)
        lacking = [f"{supply} for {', '.join(names)}" for supply, names in missing.items()]
        return [*differing, *lacking]


class _State(msgspec.Struct, frozen=True):
    """The snapshot of a featurizer."""

    engine: bytes
    simulated: bool


class Featurizer:
    """A stage from tape lines to feature rows.

    Once a partition has received a simulated tick, its rows are labelled as simulated.
    """

    def __init__(
        self, feature_set: FeatureSet, profile: Profile, every: Every, sink: PartitionParts | None = None
    ) -> None:
        self._engine = FeatureEngine(feature_set, profile, every)
        self._codec = FeatureRowCodec(feature_set)
        self._sink = sink
        self._simulated = False
        self._headers = self._feature_headers()

    def _feature_headers(self) -> list[tuple[str, bytes]]:
        engine = self._engine
        headers = FeatureHeaders(
            digest=engine.feature_set.digest, every=engine.every, profile=engine.profile, simulated=self._simulated
        )
        return headers.encode()

    def restore(self, snapshot: bytes | None, offset: int, earlier: Sequence[int]) -> None:
        """Restores the state of a snapshot.

        Raises:
            DataError: the bytes are no snapshot.
            SchemaMismatch: it is of another feature set, profile or row rate.
        """
        if snapshot is not None:
            try:
                state = msgspec.msgpack.decode(snapshot, type=_State)
            except msgspec.DecodeError as error:
                raise DataError(f"not a featurizer's snapshot: {error}") from error
            self._engine.restore(state.engine)
            self._set_simulated(simulated=state.simulated)
        if self._sink is not None:
            self._sink.restore(offset, earlier)

    def process(self, messages: Sequence[ReceivedMessage]) -> StageOutput:
        """The rows of the next ticks."""
        ticks, dead, simulated = decode_ticks([message.value() for message in messages])
        self._set_simulated(simulated=simulated)
        output = StageOutput(headers=self._headers, dead=dead)
        for rows in self._engine.run(ticks):
            keys = [product.encode() for product in rows.products]
            output.keys += [keys[code] for code in rows.product.tolist()]
            output.values += self._codec.encode_rows(rows)
            output.timestamps_ms += (rows.timestamp // MILLISECOND_NS).clip(1).tolist()
            if self._sink is not None:
                self._sink.add(rows, simulated=self._simulated)
        return output

    def _set_simulated(self, *, simulated: bool) -> None:
        if simulated and not self._simulated:
            self._simulated = True
            self._headers = self._feature_headers()

    def after_recovery(self, alerted: int) -> None:
        """Nothing to do: a featurizer sends nothing outside."""

    def snapshot(self, offset: int) -> bytes:
        """The state of the engine; the rows so far are written to the sink first."""
        if self._sink is not None:
            self._sink.prepare(offset)
        return msgspec.msgpack.encode(_State(self._engine.snapshot(), self._simulated))

    def after_commit(self) -> None:
        """Publishes the written rows."""
        if self._sink is not None:
            self._sink.publish()

    def close(self) -> None:
        """Discards uncommitted rows."""
        if self._sink is not None:
            self._sink.close()


class _DeadLines:
    """Damaged lines by their position in a batch."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, reason: str, text: bytes) -> None:
        del text
        self.found.append((line - 1, reason))


def decode_ticks(values: Sequence[bytes | None]) -> tuple[Ticks, list[tuple[int, str]], bool]:
    """The ticks in messages of ``ticks.raw``; the unreadable messages with reasons; whether any tick is simulated.

    Valid lines without a tick, for example heartbeats, are skipped.
    """
    dead, report = _DeadLines(), TapeReport()
    block = b"\n".join([value or b"" for value in values])
    if block.count(b"\n") != len(values) - 1:
        # inside a JSON value a line end is white space; a message with two values is invalid either way
        block = b"\n".join([(value or b"").replace(b"\n", b" ") for value in values])
    ticks = block_ticks(block, report, dead)
    if report.lines != len(values):
        dead.found += [(place, "empty message") for place, value in enumerate(values) if not (value or b"").strip()]
        dead.found.sort()
    return ticks, dead.found, report.simulated


def featurizer_factory(
    feature_set: FeatureSet,
    profile: Profile,
    every: Every,
    make_sink: Callable[[int], PartitionParts] | None = None,
) -> MakeStage:
    """Returns a function that creates the featurizer of a partition."""

    def make(partition: int) -> Stage:
        return Featurizer(feature_set, profile, every, make_sink(partition) if make_sink is not None else None)

    return make
