"""The library: tapes, features, labels, models and evaluation for notebooks and other pipelines.

    import volspike as vs

    tape = vs.read_tape("data/raw")
    rows = vs.labels(vs.features(tape, every="1s"), spike="jump:2")
    model = vs.load_model("default")
    print(vs.evaluate(rows, model))

Functions take a tape or a frame (polars, pandas, Arrow, or anything else with the Arrow C stream interface) and return
rows as the same kind of frame; a tape gives Arrow. Frames pass through the readers and the kernel of the commands, in
memory, so rows are bit-equal to those of ``volspike replay``. What the commands keep in a file's metadata (the row
rate, the gaps of the recording) an Arrow table keeps as well; polars and pandas drop it, so the functions take it as
arguments. What the commands print on stderr, such as rejected rows, is a ``UserWarning``.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa

from volspike.arguments import take, take_each, take_positive, take_text, take_whole, take_word
from volspike.datasets import Dataset
from volspike.datasets.build import BuildResult, build_features, label_table
from volspike.datasets.dataset import dataset_of
from volspike.datasets.feature_file import KEY, FeatureFacts, FeatureTable
from volspike.errors import UnreadableFile, UsageError, VolspikeError
from volspike.features import Every, FeatureEngine, FeatureRow, FeatureSet
from volspike.frames import NAME, Frame, as_given, as_table, feature_rows
from volspike.labels import HORIZON_S, SpikeDefinition
from volspike.market import SECOND_NS, Gap, Kind, Profile, Tick, format_time
from volspike.models import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL, Artifact
from volspike.tape import (
    TAPE_SCHEMA,
    TableTape,
    TapeReport,
    frame_tape,
    ledgers_of,
    read_ticks,
    tape_metadata,
    tapes_of,
    tick_table,
)
from volspike.tape.chronology import zone_of
from volspike.tape.file_formats import LATEST_AHEAD_NS

if TYPE_CHECKING:
    from volspike.reporting.backtest import Backtest

__all__ = [
    "Engine",
    "Evaluation",
    "Gap",
    "Model",
    "Tape",
    "Tick",
    "evaluate",
    "features",
    "labels",
    "load_model",
    "read_tape",
]

SHIPPED_MODELS: Final[Mapping[str, Path]] = {
    "default": DEFAULT_MODEL,
    "baseline": BASELINE_MODEL,
    "simulated": SIMULATED_MODEL,
    "ten": TEN_MODEL,
}
"""The names of the models in the package."""


_LABEL_COMMAND: Final = re.compile(r"`volspike label --features FILE ([^`]+)`")
_OPTION: Final = re.compile(r"--(timezone|profile|every|feature-set|leader|origin|spike|horizon)\b(?: ([\w+/:.-]+\w))?")


def _in_python(text: str) -> str:
    """A message with the arguments of functions in place of the options of commands.

    >>> _in_python("read it with --timezone Asia/Tokyo, or state --origin real; check --profile")
    "read it with timezone='Asia/Tokyo', or state simulated=False; check profile="
    >>> _in_python("label them with `volspike label --features FILE --horizon 300`")
    'label them with `vs.labels(frame, horizon=300)`'
    """
    return _OPTION.sub(_argument, _LABEL_COMMAND.sub(r"`vs.labels(frame, \1)`", text))


def _argument(option: re.Match[str]) -> str:
    name, value = option[1].replace("-", "_"), option[2] or ""
    if name == "origin":
        return f"simulated={value == 'simulated'}"
    return f"{name}={value if value.isdigit() or not value else repr(value)}"


@contextmanager
def _options_of_python() -> Iterator[None]:
    """Errors name the arguments of functions, not the options of commands."""
    try:
        yield
    except VolspikeError as error:
        error.args = (_in_python(str(error)),)
        if isinstance(error, UnreadableFile):
            error.reason = _in_python(error.reason)
        raise


@dataclass(frozen=True, slots=True)
class Tape:
    """Recorded ticks on disk, which are read when they are used, and the gaps of their recording.

    Polars, Arrow and others read it through the Arrow C stream interface, batch by batch: ``pl.DataFrame(tape)``.

    Attributes:
        paths: tapes, folders and globs.
        timezone: the time zone of times without one; None for UTC.
        gaps: the gaps in the ledgers next to the tapes.
    """

    paths: tuple[str, ...]
    timezone: str | None = None
    gaps: tuple[Gap, ...] = field(default=(), repr=False)

    @_options_of_python()
    def to_arrow(self) -> pa.Table:
        """All ticks as a table with the columns and the metadata of a Parquet tape."""
        schema, batches = self._batches()
        return pa.Table.from_batches(batches, schema).unify_dictionaries()

    def to_polars(self) -> Any:
        """All ticks as a polars data frame."""
        import polars as pl  # noqa: PLC0415  it may be missing

        return pl.from_arrow(self.to_arrow(), rechunk=False)

    def to_pandas(self) -> Any:
        """All ticks as a pandas data frame."""
        return self.to_arrow().to_pandas()

    @_options_of_python()
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return pa.RecordBatchReader.from_batches(*self._batches()).__arrow_c_stream__(requested_schema)

    def _batches(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The schema, which states whether the ticks are simulated, and all ticks, which are read as they are used."""
        report = TapeReport()
        parts = read_ticks(list(self.paths), report=report, keep_rejected=False, timezone=self.timezone)
        first = next(parts)
        schema = TAPE_SCHEMA.with_metadata(tape_metadata(report.simulated))

        def batches() -> Iterator[pa.RecordBatch]:
            for ticks in chain([first], parts):
                yield from tick_table(ticks).to_batches()
            _warn(_remarks(report, "lines"))

        return schema, batches()


@_options_of_python()
def read_tape(paths: str | Path | Sequence[str | Path], *, timezone: str | None = None) -> Tape:
    """A tape of one or several files, folders or globs, with the gaps of the ledgers next to them.

    Args:
        paths: NDJSON or Parquet tapes of any origin with a time and a price.
        timezone: the time zone of times that state none, such as ``Asia/Tokyo``; UTC by default.

    Raises:
        UsageError: a path names no tape, or there is no such time zone.
    """
    named = "a path, or a list of paths: files, folders or globs"
    given = [paths] if isinstance(paths, str | Path) else take_each("paths", paths, (str, Path), named)
    if timezone is not None:
        zone_of(take_text("timezone", timezone, ZONE))
    return Tape(tuple(str(path) for path in given), timezone, tuple(ledgers_of(tapes_of(given)).gaps))


@_options_of_python()
def features(
    data: Tape | Frame,
    every: Literal["1s", "tick"] = "1s",
    feature_set: str = "full",
    *,
    windows: Iterable[int] = (30, 60, 300),
    leader: str | None = None,
    profile: Literal["ticker", "ticker+trade", "trade"] | None = None,
    gaps: Iterable[Gap] = (),
    product: str | None = None,
    simulated: bool | None = None,
    timezone: str | None = None,
) -> Frame:
    """The feature rows of ticks: those of ``volspike replay``, bit for bit.

    Args:
        data: a tape, or a frame with a column for the time and one for the price, or bid and ask, under any common
            name; quotes, sizes, side and trade id are read where they exist.
        every: a row at the end of each second, or at each tick.
        feature_set: ``core`` (7 families), ``full`` (and 114 scale-free features) or ``deep`` (and the last 60 s);
            ``full+NAME`` adds the extra features ``NAME`` of an installed distribution.
        windows: window lengths in seconds.
        leader: a product whose volatility is added to every row.
        profile: the kinds of ticks that count; found in the data by default.
        gaps: losses of the recording in addition to those of a tape; rows whose windows cover one are not ``is_whole``.
        product: the product of a frame that has no column for it.
        simulated: whether the ticks are of a simulated market, if neither the tape nor the metadata of a table knows.
        timezone: the time zone of a frame's times that state none; UTC by default. A tape has it from ``read_tape``.

    Warns:
        UserWarning: rows of the frame or lines of the tape are rejected, or columns not read; with the first reason.

    Returns:
        A frame of the kind given, Arrow for a tape, with ``timestamp``, ``product_id``, ``session_id``, ``is_warm``,
        ``is_whole``, ``price`` and one column per feature (``volspike`` documents them in docs/feature_spec.md).

    Raises:
        UsageError: an unknown option.
        UnreadableFile: the frame has no time, no price or no product; the message lists its columns.
            Also if it is not in the order of time, oldest or newest first.
        DataError: most of the ticks are older than those before them.
    """
    chosen = _feature_set(windows, feature_set, leader)
    kinds = None if profile is None else take_word("profile", profile, Profile)
    rate = take_word("every", every, Every)
    stated_gaps = _gaps(gaps)
    if product is not None:
        take("product", product, str, "the name of a product, such as 'BTC-USD'")
    if simulated is not None:
        take("simulated", simulated, bool, "True, False or None")
    if timezone is not None:
        take_text("timezone", timezone, ZONE)
    source: list[str] | TableTape
    if isinstance(data, Tape):
        if product is not None or timezone is not None:
            raise UsageError("product= is for frames; the time zone of a tape is stated in vs.read_tape(…, timezone=…)")
        source, losses, timezone = list(data.paths), [*data.gaps, *stated_gaps], data.timezone
    else:
        source, losses = frame_tape(as_table(data), NAME, product), stated_gaps
    rows = FeatureTable(chosen)
    result = build_features(
        source, rows, chosen, rate, kinds, losses, timezone=timezone, simulated=simulated, keep_rejected=False
    )
    _warn([*_remarks(result.report, "lines" if isinstance(data, Tape) else "rows"), *_drops(result, leader)])
    if simulated not in {None, result.facts.simulated}:
        stated = result.facts.simulated
        raise UsageError(f"the ticks themselves state simulated={stated}, not {simulated}: leave out simulated=")
    table = rows.take().replace_schema_metadata({KEY: msgspec.json.encode(result.facts)})
    if isinstance(data, Tape):
        return table
    if result.facts.simulated and not isinstance(data, pa.Table):  # other frames keep no metadata
        table = table.append_column("simulated", pa.array(np.ones(len(table), np.bool_)))
    return as_given(table, data)


@_options_of_python()
def labels(
    frame: Frame,
    spike: str = "jump:2",
    horizon: int = HORIZON_S,
    *,
    every: Literal["1s", "tick"] | None = None,
    gaps: Iterable[Gap] = (),
) -> Frame:
    """The rows with ``future_volatility``, ``volatility_spike`` and ``tau``; missing where the future is unknown.

    Args:
        frame: rows of ``features``.
        spike: ``jump:K`` (K times the volatility of the last hour), ``level`` (the 90th percentile of the last day),
            ``fixed:VALUE``, or ``percentile:P`` of the first 70 % of the rows.
        horizon: seconds over which the future volatility is taken.
        every: the row rate, needed if a polars or pandas frame does not show it: its times have no
            fraction of a second, and seconds are missing between them.
        gaps: losses of the recording, which labels must not cover; an Arrow table knows those of its tape.

    Raises:
        UsageError: an unknown spike definition or horizon, or the row rate is unknown.
        NotEnoughData: no row has a known future.
    """
    definition, seconds = _spike(spike), take_whole("horizon", horizon, "a whole number of seconds")
    table, facts = feature_rows(frame, _rate(every), _gaps(gaps))
    labelled = label_table(table, facts, definition, seconds, NAME)
    return as_given(labelled, frame, is_aligned=True)


class Model:
    """A trained model.

    Attributes:
        artifact: its files and metadata.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @property
    def name(self) -> str:
        """Its kind, such as ``lightgbm``."""
        return self.artifact.name

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return self.artifact.features

    @property
    def spike(self) -> str:
        """The definition of the spikes that it forecasts."""
        return str(self.artifact.metadata.spike_definition)

    @_options_of_python()
    def predict(self, frame: Frame, *, every: Literal["1s", "tick"] | None = None, gaps: Iterable[Gap] = ()) -> Frame:
        """The probability of a spike within the horizon for each row of ``features``.

        Returns:
            A frame of the kind given with as many rows, in their order: ``timestamp``, ``product_id``, ``probability``,
            ``tau`` (the volatility that a spike reaches), ``threshold`` (the alert threshold) and ``is_alert``. Values
            are missing for rows whose windows are not full. A model that calibrates itself learns from the outcomes of
            earlier rows, as it does live.

        Raises:
            SchemaMismatch: the rows are of another feature set, rate or profile, or lack a column.
            NotEnoughData: no row is warm.
        """
        from volspike.episodes import SeriesOrder, alarm_runs  # noqa: PLC0415  numba takes half a second to import

        table, facts = feature_rows(frame, _rate(every), _gaps(gaps))
        dataset, rows = _dataset(table, facts, labelled=False)
        artifact = self.artifact
        artifact.check_dataset(dataset)
        tau = dataset.thresholds(artifact.metadata.spike_definition, artifact.metadata.tau)
        probability = artifact.score_rows(dataset, np.arange(len(dataset)), tau)
        threshold = artifact.alert_thresholds(dataset, probability, tau)
        series = SeriesOrder.of(dataset.time, dataset.product)
        is_alert = np.empty(len(dataset), np.bool_)
        may_open = dataset.is_calm(tau) if artifact.holds_budget else True
        is_alert[series.order] = alarm_runs(series, probability, threshold, may_open).mask(len(dataset))
        columns = {"probability": probability, "tau": tau, "threshold": threshold}
        found = {"timestamp": table["timestamp"], "product_id": table["product_id"]}
        for name, values in columns.items():
            aligned = np.full(len(table), np.nan)
            aligned[rows] = values
            found[name] = pa.array(aligned, mask=np.isnan(aligned))
        open_rows = np.zeros(len(table), np.bool_)
        open_rows[rows] = is_alert
        return as_given(pa.table(found | {"is_alert": open_rows}), frame, is_aligned=True)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, spike={self.spike!r}, folder={str(self.artifact.directory)!r})"


def load_model(name_or_path: str | Path = "default") -> Model:
    """A model of the package (``default``, ``baseline``, ``simulated``, ``ten``) or the artifact in a folder.

    Raises:
        ArtifactMissing: neither.
        ArtifactCorrupt: a file of the artifact was changed or damaged.
        SchemaMismatch: it was trained on features that this version defines differently.
    """
    takes = f"one of {', '.join(SHIPPED_MODELS)}, or the folder of a model"
    path = Path(take("name_or_path", name_or_path, (str, Path), takes))
    return Model(Artifact.load(path if path.exists() else SHIPPED_MODELS.get(str(name_or_path), path)))


class Engine:
    """Features, tick by tick, of any number of products, as ``volspike up`` computes them.

    engine = vs.Engine()
    for tick in ticks:
        for row in engine.update(tick):
            print(row.timestamp, row.by_name()["realized_volatility_60s"])
    """

    def __init__(
        self,
        every: Literal["1s", "tick"] = "1s",
        feature_set: str = "full",
        *,
        windows: Iterable[int] = (30, 60, 300),
        leader: str | None = None,
        profile: Literal["ticker", "ticker+trade", "trade"] = "ticker",
    ) -> None:
        chosen = _feature_set(windows, feature_set, leader)
        self._engine = FeatureEngine(chosen, take_word("profile", profile, Profile), take_word("every", every, Every))

    def update(self, tick: Tick | Mapping[str, Any]) -> list[FeatureRow]:
        """The rows that a tick makes; a mapping has the fields of ``Tick``, of which time and price are needed.

        ``time`` is in ns UTC or a ``datetime`` with a zone. Without ``kind``, a tick is what the profile counts.

        Raises:
            UsageError: a field is unknown, missing, of the wrong type or impossible: a time before 2000, a price that
                is not above 0, a negative size.
        """
        if not isinstance(tick, Tick):
            tick = self._tick(take("tick", tick, Mapping, "a Tick or a mapping with the fields of one"))
        _check_tick(tick)
        return self._engine.update(tick)

    def mark_gap(self, gap: Gap) -> None:
        """Mark a loss of data: rows of its products are not ``is_whole`` until it has left their windows."""
        self._engine.mark_gap(take("gap", gap, Gap, "a volspike.Gap"))

    def snapshot(self) -> bytes:
        """The state, from which another engine with the same options continues."""
        return self._engine.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot.

        Raises:
            DataError: the bytes are no complete snapshot.
            SchemaMismatch: it is of an engine with other options.
        """
        self._engine.restore(take("snapshot", snapshot, bytes, "the bytes of Engine.snapshot()"))

    def _tick(self, fields: Mapping[str, Any]) -> Tick:
        known = set(Tick.__struct_fields__)
        unknown, missing = sorted(map(str, set(fields) - known)), sorted({"time", "price", "product_id"} - set(fields))
        if unknown or missing:
            parts = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(
                missing
            )
            raise UsageError(f"a tick has the fields {', '.join(Tick.__struct_fields__)}: {'; '.join(parts)}")
        own = Kind.TRADE if self._engine.profile is Profile.TRADE else Kind.TICKER
        time = _nanoseconds(fields["time"])
        received = _nanoseconds(fields["received"]) if "received" in fields else time
        try:
            return msgspec.convert({"kind": own, **fields, "time": time, "received": received}, Tick)
        except msgspec.ValidationError as error:
            raise UsageError(f"a tick cannot be read: {error}") from error


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evaluation:
    """Quality of a model on labelled rows, next to the best baseline, with 95 % intervals.

    Attributes:
        backtest: everything that was found: alerts, events, days, reliability.
    """

    backtest: Backtest

    @property
    def figures(self) -> dict[str, Any]:
        """All figures by name, None where undefined."""
        return self.backtest.figures()

    @property
    def pr_auc(self) -> float:
        """Area under the precision-recall curve of the model."""
        return self.backtest.comparison.pr_auc.model

    @property
    def baseline(self) -> str:
        """The name of the best baseline."""
        return self.backtest.comparison.baseline_name

    @property
    def verdict(self) -> str | None:
        """``better``, ``worse`` or ``not shown to differ`` in PR-AUC; None with fewer than five spike events."""
        return self.backtest.comparison.verdict()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The limits of this result, one sentence each."""
        return self.backtest.warnings

    def table(self) -> pa.Table:
        """Model and baseline as rows: figure, model, low, high, baseline, gain, gain_low, gain_high."""
        compared = self.backtest.comparison
        rows = [
            {
                "figure": name,
                "model": getattr(compared.model, name),
                "low": compared.model_intervals[name].low,
                "high": compared.model_intervals[name].high,
                "baseline": getattr(compared.baseline, name),
                "gain": compared.gain_of(name),
                "gain_low": interval.low,
                "gain_high": interval.high,
            }
            for name, interval in compared.gain_intervals.items()
        ]
        return pa.Table.from_pylist(rows)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        compared, interval = self.backtest.comparison, self.backtest.comparison.gain_intervals["pr_auc"]
        own = compared.model_intervals["pr_auc"]
        return (
            f"{self.backtest.metadata.model} on {len(self.backtest.scored):,} rows of "
            f"{', '.join(self.backtest.products)}, {compared.spike_events} spike events\n"
            f"PR-AUC {compared.model.pr_auc:.3f} ({own.low:.3f} to {own.high:.3f}), "
            f"{self.baseline} {compared.baseline.pr_auc:.3f}, base rate {compared.model.base_rate:.3f}\n"
            f"difference {compared.gain:+.3f} ({interval.low:+.3f} to {interval.high:+.3f}): "
            f"{self.verdict or 'too few spike events for a conclusion'}"
        ) + "".join(f"\nnote: {text}" for text in self.warnings)


@_options_of_python()
def evaluate(
    frame: Frame,
    model: Model | str | Path = "default",
    *,
    spike: str | None = None,
    budget: float | None = None,
    every: Literal["1s", "tick"] | None = None,
    gaps: Iterable[Gap] = (),
) -> Evaluation:
    """Evaluate a model on labelled rows: intervals by block bootstrap, and the best of the baselines on the same rows.

    Args:
        frame: rows of ``labels``; rows that the model was trained on are no evidence, and the result says so.
        model: a model, or what ``load_model`` takes.
        spike: the definition of a spike; the model's own by default.
        budget: minutes of alarm per day that alerts may take; the model's own by default.
        every: as in ``labels``.
        gaps: as in ``labels``.

    Raises:
        UsageError: the frame has no labels.
        SchemaMismatch: the rows are of another kind than the model's.
        NotEnoughData: no row has a known future and a threshold.
    """
    from volspike.reporting.backtest import BacktestRequest, run_backtest  # noqa: PLC0415  imports the plots

    named = f"a volspike.Model, one of {', '.join(SHIPPED_MODELS)}, or the folder of a model"
    stated = take("model", model, (Model, str, Path), named)
    definition = None if spike is None else _spike(spike)
    if budget is not None:
        budget = take_positive("budget", budget, "a number of minutes of alarm per day above 0")
    chosen = stated if isinstance(stated, Model) else load_model(stated)
    table, facts = feature_rows(frame, _rate(every), _gaps(gaps))
    if "future_volatility" not in table.column_names:
        raise UsageError("the frame has no labels: pass it through vs.labels(frame) first")
    dataset, _ = _dataset(table, facts, labelled=True)
    request = BacktestRequest(spike=definition, budget=budget)
    return Evaluation(run_backtest(chosen.artifact, Path("frame"), dataset, request))


ZONE: Final = "the name of a time zone, such as 'Asia/Tokyo'"


def _rate(every: object) -> Every | None:
    return None if every is None else take_word("every", every, Every)


def _gaps(gaps: object) -> list[Gap]:
    return take_each("gaps", gaps, Gap, "a list of volspike.Gap, such as the gaps of a tape")


def _spike(spike: object) -> SpikeDefinition:
    return SpikeDefinition.parse(take_text("spike", spike, "a definition of spikes, such as 'jump:2'"))


def _feature_set(windows: object, feature_set: object, leader: object) -> FeatureSet:
    lengths = take_each("windows", windows, (int, np.integer), "a list of seconds, such as [30, 60, 300]")
    scope = take_text("feature_set", feature_set, "the name of a feature set, such as 'full'")
    if leader is not None:
        leader = take_text("leader", leader, "the name of a product, such as 'BTC-USD'")
    return FeatureSet.of(map(int, lengths), scope, leader)


_EARLIEST_NS: Final = 946_684_800 * SECOND_NS
_SIZES: Final = ("best_bid", "best_ask", "bid_size", "ask_size", "last_size")


def _check_tick(tick: Tick) -> None:
    """Refuses values that no market sends, which the engine would drop or take for another time."""
    try:
        if tick.time < _EARLIEST_NS or tick.time > time_ns() + LATEST_AHEAD_NS:
            raise UsageError(
                f"the time of a tick is in ns UTC, from 2000 to tomorrow, got {tick.time}, which is "
                f"{format_time(tick.time)}; a number of seconds is multiplied by 1_000_000_000"
            )
        if not 0.0 < tick.price < inf:
            raise UsageError(f"the price of a tick is a finite number above 0, got {tick.price}")
        for name in _SIZES:
            value = getattr(tick, name)
            if value < 0.0 or value == inf:
                raise UsageError(f"{name} of a tick is a finite number of 0 or more, or NaN, got {value}")
        for name in ("received", "kind", "side", "trade_id", "sequence"):
            take(f"{name} of a tick", getattr(tick, name), (int, np.integer), "a number")
        if not tick.product_id.strip():
            raise UsageError(f"the product of a tick is a name such as 'BTC-USD', got {tick.product_id!r}")
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UsageError(f"a tick cannot be read: {error}") from error


def _nanoseconds(time: Any) -> int:
    """ns UTC of a number of nanoseconds or a datetime."""
    if isinstance(time, int | np.integer):
        return int(time)
    if getattr(time, "tzinfo", None) is None:
        raise UsageError(f"the time of a tick is in ns UTC or a datetime with a zone, got {time!r}")
    microseconds = pa.scalar(time, pa.timestamp("us", "UTC")).value
    return int(microseconds) * 1000


_MOST_REMARKS: Final = 5


def _remarks(report: TapeReport, lines: str) -> list[str]:
    """The remarks about a tape or frame that was read, one sentence each; ``lines`` is the word for what it counts."""
    texts = [f"{note.file}: {note.text}" for note in report.notes]
    if report.rejected:
        first = report.rejections[0]
        texts.insert(
            0,
            f"{report.rejected:,} of {report.lines:,} {lines} are rejected; the first, {lines[:-1]} {first.line} of "
            f"{first.file}: {first.reason}",
        )
    others = len(texts) - _MOST_REMARKS
    return [*texts[:_MOST_REMARKS], f"{others} more remarks, such as: {texts[_MOST_REMARKS]}"] if others > 0 else texts


def _drops(result: BuildResult, leader: str | None) -> Iterator[str]:
    """The ticks that the engine dropped, as a sentence; raises if they are most of the ticks."""
    text = result.describe_dropped()
    if text is not None:
        yield text
    if leader is not None and leader not in result.report.products:
        yield f"no tick of the leader {leader}: its features are missing in every row"


def _warn(texts: Iterable[str]) -> None:
    """Warns at the line that called the package."""
    frame, level = sys._getframe(), 1  # noqa: SLF001  warnings can skip a package from Python 3.12 on only
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("volspike", "contextlib")):
        frame, level = frame.f_back, level + 1
    for text in texts:
        warnings.warn(_in_python(text), stacklevel=level)


def _dataset(table: pa.Table, facts: FeatureFacts, *, labelled: bool) -> tuple[Dataset, np.ndarray[Any, Any]]:
    """The dataset of feature rows, and each of its rows' row in the table."""
    if not pa.types.is_dictionary(table.schema.field("product_id").type):
        place = table.column_names.index("product_id")
        table = table.set_column(place, "product_id", table["product_id"].dictionary_encode())
    return dataset_of(table, facts, labelled)
