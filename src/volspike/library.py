"""The library: tapes, features, labels, models and evaluation for notebooks and other pipelines.

    import volspike as vs

    tape = vs.read_tape("data/raw")
    rows = vs.labels(vs.features(tape, every="1s"), spike="jump:2")
    model = vs.load_model("default")
    print(vs.evaluate(rows, model))

Functions take a tape or a frame (polars, pandas, Arrow, or anything else with the Arrow C stream interface) and return
rows as the same kind of frame; a tape gives Arrow. Frames pass through the readers and the kernel of the commands, so
rows are bit-equal to those of ``volspike replay``. What the commands keep in a file's metadata (the row rate, the gaps
of the recording) an Arrow table keeps as well; polars and pandas drop it, so the functions take it as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from volspike.datasets import Dataset
from volspike.datasets.build import build_features, label_file
from volspike.datasets.dataset import dataset_of
from volspike.datasets.feature_file import KEY, FeatureFacts, RecordingGap, spec_in, windows_in
from volspike.errors import DataError, UnreadableFile, UsageError
from volspike.features import Every, FeatureEngine, FeatureRow, FeatureSet, profile_of
from volspike.labels import HORIZON_S, SpikeDefinition
from volspike.market import SECOND_NS, Gap, Kind, Profile, Tick
from volspike.models import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL, Artifact
from volspike.tape import ledgers_of, read_ticks, tapes_of, write_parquet

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

Frame: TypeAlias = Any
"""A polars or pandas data frame, an Arrow table, or an object with the Arrow C stream interface."""

SHIPPED_MODELS: Final[Mapping[str, Path]] = {
    "default": DEFAULT_MODEL,
    "baseline": BASELINE_MODEL,
    "simulated": SIMULATED_MODEL,
    "ten": TEN_MODEL,
}
"""The names of the models in the package."""


@dataclass(frozen=True, slots=True)
class Tape:
    """Recorded ticks on disk, which are read when they are used, and the gaps of their recording.

    It has the Arrow C stream interface: ``pl.DataFrame(tape)``, ``pa.table(tape)`` and narwhals read it.

    Attributes:
        paths: tapes, folders and globs.
        timezone: the time zone of times without one; None for UTC.
        gaps: the gaps in the ledgers next to the tapes.
    """

    paths: tuple[str, ...]
    timezone: str | None = None
    gaps: tuple[Gap, ...] = field(default=(), repr=False)

    def to_arrow(self) -> pa.Table:
        """All ticks as a table with the columns of a Parquet tape."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "ticks.parquet"
            write_parquet(self._ticks(), path)
            return pq.read_table(path)

    def to_polars(self) -> Any:
        """All ticks as a polars data frame."""
        return nw.from_arrow(self.to_arrow(), backend="polars").to_native()

    def to_pandas(self) -> Any:
        """All ticks as a pandas data frame."""
        return self.to_arrow().to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _ticks(self) -> Iterator[Any]:
        return read_ticks(list(self.paths), keep_rejected=False, timezone=self.timezone)


def read_tape(paths: str | Path | Sequence[str | Path], *, timezone: str | None = None) -> Tape:
    """A tape of one or several files, folders or globs, with the gaps of the ledgers next to them.

    Args:
        paths: NDJSON or Parquet tapes of any origin with a time and a price.
        timezone: the time zone of times that state none, such as ``Asia/Tokyo``; UTC by default.

    Raises:
        UsageError: a path names no tape.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    return Tape(tuple(str(path) for path in given), timezone, tuple(ledgers_of(tapes_of(given)).gaps))


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
) -> Frame:
    """The feature rows of ticks: those of ``volspike replay``, bit for bit.

    Args:
        data: a tape, or a frame with a column for the time (a timestamp) and one for the price under any common name;
            quotes, sizes, side and trade id are read where they exist.
        every: a row at the end of each second, or at each tick.
        feature_set: ``core`` (7 families), ``full`` (and 114 scale-free features) or ``deep`` (and the last 60 s);
            ``full+NAME`` adds the extra features ``NAME`` of an installed distribution.
        windows: window lengths in seconds.
        leader: a product whose volatility is added to every row.
        profile: the kinds of ticks that count; found in the data by default.
        gaps: losses of the recording in addition to those of a tape; rows whose windows cover one are not ``is_whole``.
        product: the product of a frame that has no column for it.
        simulated: whether a frame is of a simulated market; a tape knows it.

    Returns:
        A frame of the kind given, Arrow for a tape, with ``timestamp``, ``product_id``, ``session_id``, ``is_warm``,
        ``is_whole``, ``price`` and one column per feature (``volspike`` documents them in docs/feature_spec.md).

    Raises:
        UsageError: an unknown option.
        UnreadableFile: the frame has no time, no price or no product; the message lists its columns.
    """
    chosen = FeatureSet.of(windows, feature_set, leader)
    kinds = None if profile is None else _choice(Profile, profile, "profile")
    rate = _choice(Every, every, "every")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rows.parquet"
        if isinstance(data, Tape):
            build_features(data.paths, out, chosen, rate, kinds, [*data.gaps, *gaps], timezone=data.timezone)
            return _read(out)
        source = Path(folder) / "ticks.parquet"
        pq.write_table(_ticks_table(data, product), source, compression="none")
        with _without_path(source, "the frame"):
            facts = build_features([source], out, chosen, rate, kinds, list(gaps), simulated=simulated).facts
        table = _read(out)
        if facts.simulated and not isinstance(data, pa.Table):  # other frames keep no metadata
            table = table.append_column("simulated", pa.array(np.ones(len(table), np.bool_)))
        return _as_given(table, data)


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
    table, facts = _rows(frame, every, gaps)
    definition = SpikeDefinition.parse(spike)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(table.replace_schema_metadata({KEY: msgspec.json.encode(facts)}), path, compression="none")
        with _without_path(path, "the frame"):
            label_file(path, path, definition, horizon=horizon)
        return _as_given(_read(path), frame)


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

        table, facts = _rows(frame, every, gaps)
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
        return _as_given(pa.table(found | {"is_alert": open_rows}), frame)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, spike={self.spike!r}, folder={str(self.artifact.directory)!r})"


def load_model(name_or_path: str | Path = "default") -> Model:
    """A model of the package (``default``, ``baseline``, ``simulated``, ``ten``) or the artifact in a folder.

    Raises:
        ArtifactMissing: neither.
        ArtifactCorrupt: a file of the artifact was changed or damaged.
        SchemaMismatch: it was trained on features that this version defines differently.
    """
    path = Path(name_or_path)
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
        chosen = FeatureSet.of(windows, feature_set, leader)
        self._engine = FeatureEngine(chosen, _choice(Profile, profile, "profile"), _choice(Every, every, "every"))

    def update(self, tick: Tick | Mapping[str, Any]) -> list[FeatureRow]:
        """The rows that a tick makes; a mapping has the fields of ``Tick``, of which time and price are needed.

        ``time`` is in ns UTC or a ``datetime`` with a zone. Without ``kind``, a tick is what the profile counts.

        Raises:
            UsageError: a field is unknown, missing or of the wrong type.
        """
        return self._engine.update(tick if isinstance(tick, Tick) else self._tick(tick))

    def mark_gap(self, gap: Gap) -> None:
        """Mark a loss of data: rows of its products are not ``is_whole`` until it has left their windows."""
        self._engine.mark_gap(gap)

    def snapshot(self) -> bytes:
        """The state, from which another engine with the same options continues."""
        return self._engine.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot.

        Raises:
            DataError: the bytes are no complete snapshot.
            SchemaMismatch: it is of an engine with other options.
        """
        self._engine.restore(snapshot)

    def _tick(self, fields: Mapping[str, Any]) -> Tick:
        known = set(Tick.__struct_fields__)
        unknown, missing = sorted(set(fields) - known), sorted({"time", "price", "product_id"} - set(fields))
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


@dataclass(frozen=True, slots=True, eq=False)
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

    chosen = model if isinstance(model, Model) else load_model(model)
    table, facts = _rows(frame, every, gaps)
    if "future_volatility" not in table.column_names:
        raise UsageError("the frame has no labels: pass it through vs.labels(frame) first")
    dataset, _ = _dataset(table, facts, labelled=True)
    request = BacktestRequest(spike=None if spike is None else SpikeDefinition.parse(spike), budget=budget)
    return Evaluation(run_backtest(chosen.artifact, Path("frame"), dataset, request))


def _choice(kind: Any, value: str, name: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{name} must be one of {', '.join(kind)}, got {value!r}") from None


def _nanoseconds(time: Any) -> int:
    """ns UTC of a number of nanoseconds or a datetime."""
    if isinstance(time, int | np.integer):
        return int(time)
    if getattr(time, "tzinfo", None) is None:
        raise UsageError(f"the time of a tick is in ns UTC or a datetime with a zone, got {time!r}")
    microseconds = pa.scalar(time, pa.timestamp("us", "UTC")).value
    return int(microseconds) * 1000


def _arrow(frame: Frame) -> pa.Table:
    """Any frame as an Arrow table.

    Raises:
        UsageError: the object is no frame.
    """
    if isinstance(frame, pa.Table):
        return frame
    try:
        native = nw.from_native(frame)
    except TypeError:
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
        raise UsageError(f"expected a tape or a polars, pandas or Arrow frame, got {type(frame).__name__}") from None
    if isinstance(native, nw.LazyFrame):
        native = native.collect()
    table: pa.Table = native.to_arrow()
    return table


def _read(path: Path) -> pa.Table:
    """A feature file as a table with its facts."""
    with pq.ParquetFile(path) as file:
        return file.read().replace_schema_metadata({KEY: file.metadata.metadata[KEY]})


def _as_given(table: pa.Table, like: Frame) -> Frame:
    """The table as the kind of frame that was given; Arrow for other objects."""
    if isinstance(like, pa.Table):
        return table
    try:
        native = nw.from_native(like)
    except TypeError:
        return table
    backend = native.implementation
    plain = table.replace_schema_metadata(None)
    if backend.is_pandas():
        return plain.to_pandas()
    return nw.from_arrow(plain, backend=backend).to_native()


def _ticks_table(frame: Frame, product: str | None) -> pa.Table:
    """The ticks of a frame as a table that the reader of tapes accepts."""
    table = _arrow(frame)
    table = table.replace_schema_metadata(None)
    if product is not None:
        if "product_id" in table.column_names:
            raise UsageError("the frame has a column product_id: leave out product=, or drop the column")
        names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array([product]))
        table = table.append_column("product_id", names)
    return table


_ORIGIN_OPTION: Final = ("--origin real or --origin simulated", "simulated=False or simulated=True")


@contextmanager
def _without_path(path: Path, name: str) -> Iterator[None]:
    """Names the frame, and not a temporary file, in errors about its contents."""
    try:
        yield
    except UnreadableFile as error:
        reason = error.reason.replace(str(path), name).replace(*_ORIGIN_OPTION)
        raise UnreadableFile(name, reason) from error.__cause__
    except DataError as error:
        raise type(error)(str(error).replace(str(path), name)) from error.__cause__


def _rows(frame: Frame, every: str | None, gaps: Iterable[Gap]) -> tuple[pa.Table, FeatureFacts]:
    """Feature rows as a table, and their facts.

    Raises:
        UsageError: the frame has no feature rows, or its row rate is unknown.
    """
    table = _arrow(frame)
    known = (table.schema.metadata or {}).get(KEY)
    losses = tuple(RecordingGap(gap.start, gap.end, gap.products) for gap in gaps)
    if known is not None:
        facts = msgspec.json.decode(known, type=FeatureFacts)
        if every is not None and facts.every != every:
            raise UsageError(f"the rows were made with every={facts.every!s}, not {every}: leave out every=")
        return table, msgspec.structs.replace(facts, losses=facts.losses + losses)
    lacking = [name for name in ("timestamp", "product_id", "price", "is_warm") if name not in table.column_names]
    if lacking:
        raise UsageError(
            f"the frame lacks {', '.join(lacking)}, so it holds no feature rows: call vs.features(frame) first"
        )
    return table, _guessed_facts(table, None if every is None else _choice(Every, every, "every"), losses)


def _guessed_facts(table: pa.Table, every: Every | None, losses: tuple[RecordingGap, ...]) -> FeatureFacts:
    """The facts of rows whose metadata polars or pandas dropped, as far as their columns show them."""
    chosen = FeatureSet.of(windows_in(table.column_names), spec_in(table.column_names))
    is_quoted = "best_bid" in table.column_names and bool(pc.any(pc.is_finite(table["best_bid"])).as_py())
    return FeatureFacts(
        digest=chosen.digest,
        windows=chosen.windows,
        every=_rate_of(table) if every is None else every,
        profile=profile_of({Kind.TICKER if is_quoted else Kind.TRADE}),
        scope=chosen.scope,
        extras=tuple(extra.facts for extra in chosen.extras),
        simulated="simulated" in table.column_names,
        losses=losses,
    )


def _rate_of(table: pa.Table) -> Every:
    """The row rate that the times of rows show.

    Raises:
        UsageError: the times have no fractions of a second, as ticks may, and seconds are missing between them.
    """
    time = np.asarray(table["timestamp"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()))
    if np.any(time % SECOND_NS):
        return Every.TICK
    product = np.asarray(table["product_id"].combine_chunks().dictionary_encode().indices)
    order = np.lexsort((time, product))
    steps = np.diff(time[order])[np.diff(product[order]) == 0]
    session = np.asarray(table["session_id"])[order] if "session_id" in table.column_names else time[order] * 0
    within = steps[(np.diff(session) == 0)[np.diff(product[order]) == 0]]
    if len(within) and np.all(within == SECOND_NS):
        return Every.SECOND
    raise UsageError("the row rate cannot be seen in the times of the rows: state it as every='1s' or every='tick'")


def _dataset(table: pa.Table, facts: FeatureFacts, *, labelled: bool) -> tuple[Dataset, np.ndarray[Any, Any]]:
    """The dataset of feature rows, and each of its rows' row in the table."""
    if not pa.types.is_dictionary(table.schema.field("product_id").type):
        place = table.column_names.index("product_id")
        table = table.set_column(place, "product_id", table["product_id"].dictionary_encode())
    return dataset_of(table, facts, labelled)
