"""Tapes → feature file: replay, in constant memory whatever the length of the tape."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from volspike.datasets.ahead import Ahead
from volspike.datasets.facts import FeatureFacts, Loss
from volspike.datasets.shared import Engine, shared
from volspike.datasets.units import Recipe
from volspike.datasets.writing import FeatureFileWriter, replacing
from volspike.errors import DataError, UnreadableFile
from volspike.features import Every, FeatureSet, Handled, profile_of
from volspike.market import Gap, Kind, Profile, Ticks
from volspike.tape import TapeReport, read_ticks, tapes_of

LOOK_AHEAD_TICKS = 200_000
"""Ticks that are read before the profile of a tape is settled."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a replay made and what it left out."""

    rows: int
    facts: FeatureFacts
    handled: Handled
    report: TapeReport


def build_features(
    sources: Sequence[str | Path],
    out: Path,
    feature_set: FeatureSet,
    every: Every = Every.TICK,
    profile: Profile | None = None,
    gaps: Sequence[Gap] = (),
    on_progress: Callable[[TapeReport], None] | None = None,
    engine: Engine | None = None,
) -> BuildResult:
    """Replays tapes into ``out``. Without a ``profile`` the kinds of the first 200 000 ticks tell it.

    ``gaps`` are those that the recording's ledger names; the rows after one are not whole. With an ``engine`` the
    work is shared out; rows, their order and the facts are those of one pass, bit for bit.

    Raises:
        UsageError: no such tape, or ``out`` cannot be written.
        UnreadableFile: not one tick in the tapes.
        WorkerLost: a process of the engine ended.
        DataError: a tape turns out to tell more kinds than it began with.
    """
    report = TapeReport()
    ahead = None if engine is None else Ahead.of(engine, tapes_of(sources), report)
    stream = read_ticks(sources, report=report, elsewhere=ahead)
    settled, stream = (profile, stream) if profile is not None else _settle(stream)
    recipe = Recipe(feature_set, settled, every)
    with replacing(out) as part, FeatureFileWriter(part, feature_set) as writer:
        written = (
            _in_one_pass(recipe, stream, gaps, writer)
            if engine is None
            else shared(engine, recipe, stream, gaps, writer)
        )
        handled = Handled(0, 0, 0, 0)
        for handled in written:  # noqa: B007  the last is the whole
            if on_progress is not None:
                on_progress(report)
        if writer.written == 0:
            raise UnreadableFile(", ".join(map(str, sources)), "its ticks make no feature row; is --profile right?")
        if profile is None:
            _agree(settled, report)
        facts = writer.facts = _facts(feature_set, every, settled, report, gaps)
    return BuildResult(writer.written, facts, handled, report)


def _in_one_pass(
    recipe: Recipe, stream: Iterator[Ticks], gaps: Sequence[Gap], writer: FeatureFileWriter
) -> Iterator[Handled]:
    """Writes the rows of the stream; yields now and then, and last of all, what became of its events.

    Reading, features and writing go on at the same time, each in a thread of its own: kernel and Parquet hold no GIL.
    """
    engine = recipe.engine()
    with ThreadPoolExecutor(1) as writing:
        written = Future[None]()
        written.set_result(None)
        for rows in engine.run_all(read_ahead(stream), gaps):
            written.result()
            written = writing.submit(writer.write, rows)
            yield engine.handled()
        written.result()
    yield engine.handled()


def read_ahead(stream: Iterator[Ticks], most: int = 2) -> Iterator[Ticks]:
    """The same parts, read in a thread while the ones before them are worked on; at most ``most`` lie ready."""
    with ThreadPoolExecutor(1) as reading:
        ready = deque(reading.submit(next, stream, None) for _ in range(most))
        while (ticks := ready.popleft().result()) is not None:
            ready.append(reading.submit(next, stream, None))
            yield ticks


def _facts(
    feature_set: FeatureSet, every: Every, profile: Profile, report: TapeReport, gaps: Sequence[Gap]
) -> FeatureFacts:
    return FeatureFacts(
        digest=feature_set.digest,
        windows=feature_set.windows,
        every=every,
        profile=profile,
        scope=feature_set.scope,
        leader=feature_set.leader,
        simulated=report.simulated,
        losses=tuple(Loss(gap.start, gap.end, gap.products) for gap in gaps),
    )


def _settle(stream: Iterator[Ticks]) -> tuple[Profile, Iterator[Ticks]]:
    """The profile of a tape by its first ticks, and the whole stream again."""
    seen: list[Ticks] = []
    kinds: set[Kind] = set()
    count = 0
    for ticks in stream:
        seen.append(ticks)
        count += len(ticks)
        kinds.update(Kind(int(kind)) for kind in {ticks.kind.min(), ticks.kind.max()})
        if count >= LOOK_AHEAD_TICKS or len(kinds) == len(Kind):
            break
    return profile_of(kinds), chain(seen, stream)


def _agree(settled: Profile, report: TapeReport) -> None:
    told = profile_of(report.kinds)
    if told is not settled:
        raise DataError(
            f"the tape began as profile {settled} and went on as {told}: counts would mean two things in one file; "
            f"name the one you want with --profile {told}"
        )
