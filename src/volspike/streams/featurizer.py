"""Which rows a stream makes: those that the model at its end was made for, where nobody asks for others.

Ticks → feature rows, one engine per partition, so that its state moves with the partition.

What a recording's ledger knows of gaps is not in the topic: rows after a loss are whole as far as the ticks tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import msgspec

from volspike.errors import DataError, SchemaMismatch
from volspike.features import Every, FeatureEngine, FeatureRows, FeatureSet
from volspike.market import Profile, Ticks
from volspike.models import Metadata
from volspike.streams.state import Made, MakeStage, Stage, Taken
from volspike.streams.wire import MILLISECOND_NS, FeatureHeaders, FeatureRowCodec
from volspike.tape import TapeReport
from volspike.tape.parse import block_ticks


@dataclass(frozen=True, slots=True)
class RowKind:
    """A feature set, how often it makes a row, and what it is told."""

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
        """The rows that ``model`` takes, but for what is given.

        Raises:
            SchemaMismatch: the model looks at a leader, whose ticks lie in another partition than those that it leads.
            UsageError: windows or a scope that cannot be.
        """
        if model.leader is not None:
            raise SchemaMismatch(
                f"model {model.model} looks at {model.leader} in all rows, and a partition knows its own products",
                remedy="train one without --leader, or serve this one with `volspike up`",
            )
        features = FeatureSet.of(windows or model.windows, scope or model.scope)
        return cls(features, every or Every(model.every), profile or Profile(model.profile))

    def differs_from(self, model: Metadata) -> list[str]:
        """In what these rows are not those that the model takes; empty where they are."""
        pairs = (
            ("feature digest", model.feature_digest, self.feature_set.digest),
            ("rows every", model.every, self.every),
            ("profile", model.profile, self.profile),
        )
        return [f"{what} {wanted}, not {was}" for what, wanted, was in pairs if wanted != was]


class RowSink(Protocol):
    """Who keeps a partition's rows beside the topic; ``sink.PartitionParts`` is one. Its calls are a stage's."""

    def restore(self, offset: int, earlier: Sequence[int]) -> None:
        """The next rows are those of ``offset`` on."""

    def add(self, rows: FeatureRows, *, simulated: bool) -> None:
        """Takes the next rows."""

    def prepare(self, offset: int) -> None:
        """Writes down what was taken, up to ``offset``, so that it outlives a failure."""

    def publish(self) -> None:
        """What was prepared is committed."""

    def close(self) -> None:
        """What is not committed is forgotten."""


class _State(msgspec.Struct, frozen=True):
    """A featurizer's snapshot."""

    engine: bytes
    simulated: bool


class Featurizer:
    """A stage from tape lines to feature rows.

    Once a partition has told of a simulated market, its rows say so.
    """

    def __init__(self, feature_set: FeatureSet, profile: Profile, every: Every, sink: RowSink | None = None) -> None:
        self._engine = FeatureEngine(feature_set, profile, every)
        self._codec = FeatureRowCodec(feature_set)
        self._sink = sink
        self._simulated = False
        self._headers = self._told()

    def _told(self) -> list[tuple[str, bytes]]:
        engine = self._engine
        told = FeatureHeaders(
            digest=engine.feature_set.digest, every=engine.every, profile=engine.profile, simulated=self._simulated
        )
        return told.encoded()

    def restore(self, snapshot: bytes | None, offset: int, earlier: Sequence[int]) -> None:
        """Takes up where the snapshot was made.

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
            self._mark(simulated=state.simulated)
        if self._sink is not None:
            self._sink.restore(offset, earlier)

    def take(self, messages: Sequence[Taken]) -> Made:
        """The rows of the next ticks."""
        ticks, dead, simulated = ticks_of([message.value() for message in messages])
        self._mark(simulated=simulated)
        made = Made(headers=self._headers, dead=dead)
        for rows in self._engine.run(ticks):
            keys = [product.encode() for product in rows.products]
            made.keys += [keys[code] for code in rows.product.tolist()]
            made.values += self._codec.encode_rows(rows)
            made.timestamps_ms += (rows.timestamp // MILLISECOND_NS).clip(1).tolist()
            if self._sink is not None:
                self._sink.add(rows, simulated=self._simulated)
        return made

    def _mark(self, *, simulated: bool) -> None:
        if simulated and not self._simulated:
            self._simulated = True
            self._headers = self._told()

    def recovered(self, told: int) -> None:
        """Nothing is told outside."""

    def snapshot(self, offset: int) -> bytes:
        """The engine's state; the rows up to here are written down first."""
        if self._sink is not None:
            self._sink.prepare(offset)
        return msgspec.msgpack.encode(_State(self._engine.snapshot(), self._simulated))

    def committed(self) -> None:
        """The rows that were written down are to stay."""
        if self._sink is not None:
            self._sink.publish()

    def close(self) -> None:
        """Forgets what is not committed."""
        if self._sink is not None:
            self._sink.close()


class _Dead:
    """Damaged lines by their place in a batch."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, reason: str, text: bytes) -> None:
        del text
        self.found.append((line - 1, reason))


def ticks_of(values: Sequence[bytes | None]) -> tuple[Ticks, list[tuple[int, str]], bool]:
    """The ticks in messages of ``ticks.raw``; which cannot be read, and why; whether any is simulated.

    What is no tick and no damage, a heartbeat for one, is neither.
    """
    dead, report = _Dead(), TapeReport()
    block = b"\n".join([value or b"" for value in values])
    if block.count(b"\n") != len(values) - 1:
        # within a JSON value a line end is as good as a blank, and two values in a message are one too many
        block = b"\n".join([(value or b"").replace(b"\n", b" ") for value in values])
    ticks = block_ticks(block, report, dead)
    if report.lines != len(values):
        dead.found += [(place, "empty message") for place, value in enumerate(values) if not (value or b"").strip()]
        dead.found.sort()
    return ticks, dead.found, report.simulated


def featurizing(
    feature_set: FeatureSet,
    profile: Profile,
    every: Every,
    make_sink: Callable[[int], RowSink] | None = None,
) -> MakeStage:
    """Makes the featurizer of a partition."""

    def make(partition: int) -> Stage:
        return Featurizer(feature_set, profile, every, make_sink(partition) if make_sink is not None else None)

    return make
