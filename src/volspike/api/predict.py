"""One model answering ``/predict``: body bytes in, status and body bytes out, without HTTP.

A valid body is decoded by a fast typed decoder. A body that it rejects is decoded again by Python's JSON reader, which
accepts NaN, infinities and broken surrogates, so that the response can name every error in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf, isfinite, isinf, isnan, nan
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from volspike.api.metrics import ApiMetrics
from volspike.api.schema import BinaryLabel, HorizonPrediction, Prediction, Predictions, Refusal, RowFaults, encode
from volspike.features.catalogue import CATALOGUE
from volspike.features.schema import FeatureSet
from volspike.models import Artifact
from volspike.models.volatility import (
    DEFAULT_BAND,
    ExpectedVolatility,
    expected_volatility,
    forecast_inputs,
    forecast_log_volatility,
    volatility_fields,
)

OK: Final = 200
UNPROCESSABLE: Final = 422

MAX_FLOAT32: Final = 3.4028234663852886e38
"""ONNX graphs compute in single precision, where anything larger is infinite."""

MAX_FAULTY_ROWS: Final = 100
"""How many invalid rows a refusal lists, so that its time and size stay bounded."""

MAX_LISTED_NAMES: Final = 12
"""How many names the sentence of a refusal lists; its fields hold all of them."""

MAX_ROWS_IN_DETAIL: Final = 3
"""How many rows with different errors the sentence of a refusal describes; its field ``rows`` holds more."""

MAX_SUGGESTIONS: Final = 5
MAX_NAME: Final = 64
SIMILARITY: Final = 0.8
"""How alike two names are (``difflib``) for one to be taken for the other."""

_FEATURE_NAMES: Final = frozenset((*CATALOGUE, *FeatureSet().names))

_EXPECTED: Final = 'send {"features": {name: number, …}} or {"rows": [{name: number, …}, …]}'

Values: TypeAlias = list[float]


def model_version(name: str) -> str:
    """The name by which responses and metrics identify a model.

    >>> model_version("random_forest"), model_version("baseline")
    ('random_forest (ml)', 'baseline (baseline)')
    """
    return f"{name} ({'baseline' if name == 'baseline' else 'ml'})"


class PredictHandler:
    """A model with its metrics; thread-safe, as the model is."""

    def __init__(self, artifact: Artifact, metrics: ApiMetrics, max_rows: int) -> None:
        self.artifact = artifact
        self.version = model_version(artifact.name)
        self._names = tuple(artifact.features)
        self._threshold = float(artifact.threshold)
        self._simulated: Literal[True] | UnsetType = True if artifact.metadata.simulated else UNSET
        self._max_rows = max_rows
        self._spike, self._horizon = str(artifact.metadata.spike_definition), artifact.metadata.horizon_s
        weights = forecast_inputs(self._names)
        self._volatility_places = [self._names.index(name) for name in weights]
        self._volatility_weights = tuple(weights.values())
        self._heads = [(head, [self._names.index(name) for name in head.features]) for head in artifact.heads.values()]
        self._latency = metrics.latency
        self._negatives, self._positives = metrics.prediction_counters(self.version)

    def reply(self, body: bytes) -> bytes | Refusal:
        """The response to a ``/predict`` body, or a refusal that names every error in it."""
        started = perf_counter()
        rows = parse_rows(body, self._names, self._max_rows, accepts_missing=self.artifact.accepts_missing)
        if isinstance(rows, Refusal):
            return rows
        answer = self._predict_one(rows.values[0]) if rows.single else self._predict_many(rows.values)
        if isinstance(answer, Refusal):
            return answer
        encoded = encode(answer)
        self._latency.observe(perf_counter() - started)
        return encoded

    @property
    def features_in_words(self) -> str:
        """The number of features, the model and the first names, for a refusal."""
        return f"the {len(self._names)} features of {self.version}: {_listed(self._names)}"

    def distance(self, refusal: Refusal) -> float:
        """The number of names that a refusal lists as missing or unknown; infinite if none of its features was sent."""
        if len(refusal.missing) == len(self._names):
            return inf
        return len(refusal.missing) + len(refusal.unknown)

    def _predict_one(self, row: Values) -> Prediction | Refusal:
        started = perf_counter()
        tau = self.artifact.threshold_of(row)
        probability = float(self.artifact.probability_of(row, tau))
        elapsed_ms = 1e3 * (perf_counter() - started)
        if probability != probability:  # noqa: PLR0124  the fastest test for NaN
            return _UNSCORABLE
        spike = probability >= self._threshold
        (self._positives if spike else self._negatives).inc()
        volatility = self._expected_volatility(row)
        return Prediction(
            prediction=1 if spike else 0,
            probability=probability,
            alert=spike,
            inference_time_ms=round(elapsed_ms, 4),
            model_version=self.version,
            threshold=self._threshold,
            spike=self._spike,
            tau=tau if isfinite(tau) else None,
            horizon_s=self._horizon,
            **volatility_fields(volatility),
            horizons=self._other_horizons(row) if self._heads else UNSET,
            simulated=self._simulated,
        )

    def _predict_many(self, rows: list[Values]) -> Predictions | Refusal:
        x = np.array(rows, dtype=np.float64)
        started = perf_counter()
        tau = self.artifact.thresholds(x)
        probability = self.artifact.probability(x, tau)
        elapsed_ms = 1e3 * (perf_counter() - started)
        if np.isnan(probability).any():
            return _UNSCORABLE
        alert: list[bool] = (probability >= self._threshold).tolist()
        scores: list[float] = probability.tolist()
        self._positives.inc(sum(alert))
        self._negatives.inc(len(alert) - sum(alert))
        volatility = [self._expected_volatility(row) for row in rows]
        labels: list[BinaryLabel] = [1 if spike else 0 for spike in alert]
        return Predictions(
            prediction=labels,
            probability=scores,
            scores=scores,
            alert=alert,
            threshold=[self._threshold] * len(alert),
            inference_time_ms=round(elapsed_ms, 4),
            model_version=self.version,
            spike=self._spike,
            horizon_s=self._horizon,
            tau=[value if isfinite(value) else None for value in tau.tolist()],
            expected_volatility_bp=[None if each is None else each.expected_bp for each in volatility],
            volatility_low_bp=[None if each is None else each.low_bp for each in volatility],
            volatility_high_bp=[None if each is None else each.high_bp for each in volatility],
            horizons=[self._other_horizons(row) for row in rows] if self._heads else UNSET,
            simulated=self._simulated,
        )

    def _other_horizons(self, row: Values) -> list[HorizonPrediction]:
        """The predictions of the model's heads."""
        predictions = []
        for head, places in self._heads:
            values = [row[place] for place in places]
            tau = head.threshold_of(values)
            probability = head.probability_of(values, tau)
            horizon = head.metadata.horizon_s
            volatility = self._expected_volatility(row, horizon)
            predictions.append(
                HorizonPrediction(
                    horizon_s=horizon,
                    probability=probability if isfinite(probability) else None,
                    tau=tau if isfinite(tau) else None,
                    **volatility_fields(volatility),
                )
            )
        return predictions

    def _expected_volatility(self, row: Values, horizon: int | None = None) -> ExpectedVolatility | None:
        """The expected volatility with the band of the recordings: a request has no history of its product."""
        past = [row[place] for place in self._volatility_places]
        forecast = forecast_log_volatility(past, self._volatility_weights)
        return expected_volatility(forecast, DEFAULT_BAND, horizon or self._horizon)


def nearest_refusal(refusals: Sequence[tuple[PredictHandler, Refusal]]) -> Refusal:
    """The refusal of the model whose features are nearest to those that were sent, with the other models' features.

    The first model's if no feature of any was sent, or if several are equally near.
    """
    nearest, refusal = min(refusals, key=lambda each: each[0].distance(each[1]))
    others = [handler for handler, _ in refusals if handler is not nearest]
    if not others or not (refusal.missing or refusal.unknown):
        return refusal
    also = "; ".join(f"the server also accepts {handler.features_in_words}" for handler in others)
    detail = f"compared with the features of {nearest.version}: {refusal.detail}; {also}"
    return msgspec.structs.replace(refusal, detail=detail, model_version=nearest.version)


# Finite values can still overflow inside a graph (a z-score of 1e38): an error of the values, not of the server. The
# threshold of a row may also be unknown: its trailing hour did not move, or it depends on outcomes.
_UNSCORABLE: Final = Refusal(
    detail="the model has no probability for these values; send features of a market that moved in the trailing hour"
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the model's order of features; ``single`` if the body held one row."""

    values: list[Values]
    single: bool


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    features: dict[str, float] | UnsetType = UNSET
    rows: list[dict[str, float]] | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Body).decode


def parse_rows(body: bytes, names: Sequence[str], max_rows: int, *, accepts_missing: bool = False) -> Rows | Refusal:
    """The rows of ``body`` with their values in the order of ``names``, or every error in it.

    A body is ``{"features": {name: number}}`` or ``{"rows": [{name: number}, …]}`` with 1 to ``max_rows`` rows. Every
    row has exactly ``names``; a boolean is not a number, and a number beyond single precision is not finite. With
    ``accepts_missing`` a value may be null, which becomes NaN.
    """
    return _parse_valid(body, names, max_rows) or _parse_or_refuse(body, names, max_rows, accepts_missing)


def _parse_valid(body: bytes, names: Sequence[str], max_rows: int) -> Rows | None:
    """The rows of a valid body; None for any other."""
    try:
        decoded = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if decoded.rows is UNSET and decoded.features is not UNSET:
        row = _ordered(decoded.features, names)
        return None if row is None else Rows([row], single=True)
    if decoded.rows is UNSET or decoded.features is not UNSET or not 1 <= len(decoded.rows) <= max_rows:
        return None
    values = []
    for features in decoded.rows:
        row = _ordered(features, names)
        if row is None:
            return None
        values.append(row)
    return Rows(values, single=False)


def _ordered(features: dict[str, float], names: Sequence[str]) -> Values | None:
    try:
        row = [features[name] for name in names]
    except KeyError:
        return None
    if len(features) != len(row) or max(row) > MAX_FLOAT32 or min(row) < -MAX_FLOAT32:
        return None
    return row


def _parse_or_refuse(body: bytes, names: Sequence[str], max_rows: int, accepts_missing: bool) -> Rows | Refusal:
    try:
        # integers as floats: Python refuses to parse integers of more than 4300 digits
        document = json.loads(body.decode(), parse_int=float)
    except RecursionError:
        return Refusal(detail="the body is nested too deeply; " + _EXPECTED)
    except UnicodeDecodeError as error:
        return Refusal(detail=f"the body is not UTF-8 (byte {error.start}); " + _EXPECTED)
    except json.JSONDecodeError as error:
        fault = f"not JSON ({error.msg} at character {error.pos})" if body.strip() else "empty"
        return Refusal(detail=f"the body is {fault}; {_EXPECTED}")
    rows = _rows_of(document, max_rows)
    if isinstance(rows, Refusal):
        return rows
    single = "features" in document
    faults = list(_faults_of(rows, names, accepts_missing))
    if faults:
        return _refusal(faults, rows, names, single=single, accepts_missing=accepts_missing)
    return Rows([[nan if row[name] is None else row[name] for name in names] for row in rows], single=single)


def _rows_of(document: Any, max_rows: int) -> list[dict[str, Any]] | Refusal:
    """The rows as sent, or the error in the shape of the body."""
    if not isinstance(document, dict):
        return Refusal(detail=f"the body is {_kind(document)}; " + _EXPECTED)
    unknown = [_printable(key) for key in document if key not in {"features", "rows"}]
    if unknown or len(document) != 1:
        found = "both features and rows" if document else "neither features nor rows"
        found = f"unknown fields: {_listed(unknown)}" if unknown else found
        return Refusal(detail=f"the body has {found}; {_EXPECTED}")
    rows = [document["features"]] if "features" in document else document["rows"]
    if not isinstance(rows, list):
        return Refusal(detail=f"rows is {_kind(rows)}, must be a list of objects; " + _EXPECTED)
    if not 1 <= len(rows) <= max_rows:
        return Refusal(detail=f"rows has {len(rows)} rows, must have 1 to {max_rows}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            place = "features" if "features" in document else f"rows[{index}]"
            return Refusal(detail=f"{place} is {_kind(row)}, must be an object of names and numbers; " + _EXPECTED)
    return rows


def _faults_of(rows: Iterable[dict[str, Any]], names: Sequence[str], accepts_missing: bool) -> Iterable[RowFaults]:
    known, found = frozenset(names), 0
    for index, row in enumerate(rows):
        faults = RowFaults(
            row=index,
            missing=[name for name in names if name not in row],
            unknown=[_printable(name) for name in row if name not in known],
            not_finite=[name for name in names if name in row and not _is_valid(row[name], accepts_missing)],
        )
        if faults.missing or faults.unknown or faults.not_finite:
            yield faults
            found += 1
        if found == MAX_FAULTY_ROWS:
            return


def _is_valid(value: Any, accepts_missing: bool) -> bool:
    if value is None:
        return accepts_missing
    return isinstance(value, float) and isfinite(value) and abs(value) <= MAX_FLOAT32


def _refusal(
    faults: list[RowFaults],
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    *,
    single: bool,
    accepts_missing: bool,
) -> Refusal:
    """One refusal for all faults; its lists are the union over the rows, in order of first occurrence."""
    missing = _union(fault.missing for fault in faults)
    unknown = _union(fault.unknown for fault in faults)
    not_finite = _union(fault.not_finite for fault in faults)
    suggestions = _suggestions(unknown, missing)
    if single or all(_has_same_faults(fault, faults[0]) for fault in faults):
        parts = _parts(faults[0], rows[faults[0].row], suggestions)
    else:
        shown = faults[:MAX_ROWS_IN_DETAIL]
        parts = [f"row {each.row}: {', '.join(_parts(each, rows[each.row], suggestions))}" for each in shown]
        if len(faults) > len(shown):
            parts.append(f"{len(faults) - len(shown)} more in `rows`")
    if not single:
        at_least = "at least " if len(faults) == MAX_FAULTY_ROWS else ""
        parts.insert(0, f"{at_least}{len(faults)} of the rows cannot be scored, the first is row {faults[0].row}")
    or_null = ", or null where it is unknown" if accepts_missing else ""
    needed = ", ".join(names) if len(names) <= MAX_LISTED_NAMES else f"{len(names)} features: {_listed(names)}"
    parts.append(f"the model needs {needed}, each a finite number{or_null}")
    return Refusal(
        detail="; ".join(parts),
        missing=missing,
        unknown=unknown,
        not_finite=not_finite,
        suggestions=suggestions or UNSET,
        rows=UNSET if single else faults,
    )


def _has_same_faults(one: RowFaults, other: RowFaults) -> bool:
    return (one.missing, one.unknown, one.not_finite) == (other.missing, other.unknown, other.not_finite)


def _parts(fault: RowFaults, row: dict[str, Any], suggestions: Mapping[str, str]) -> list[str]:
    """A phrase for each kind of fault of a row."""
    unknown = [f"{name} (did you mean {suggestions[name]}?)" if name in suggestions else name for name in fault.unknown]
    values = [f"{name} ({_value_kind(row[name])})" for name in fault.not_finite]
    kinds = (("missing", fault.missing), ("unknown", unknown), ("not a finite number", values))
    return [f"{kind}: {_listed(listed)}" for kind, listed in kinds if listed]


def _suggestions(unknown: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
    """Unknown name → the missing feature that it resembles; each feature once, never for the name of a feature.

    Only the first ``MAX_SUGGESTIONS`` unknown names of usual length are compared, so that the time is bounded.
    """
    left, found = {name.lower(): name for name in missing}, {}
    for name in [name for name in unknown if len(name) <= MAX_NAME][:MAX_SUGGESTIONS]:
        if name not in _FEATURE_NAMES and (close := get_close_matches(name.lower().strip(), left, 1, SIMILARITY)):
            found[name] = left.pop(close[0])
    return found


def _value_kind(value: Any) -> str:
    if not isinstance(value, float):
        return _kind(value)
    return "NaN" if isnan(value) else "infinite" if isinf(value) else "beyond single precision"


def _union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(name for listed in lists for name in listed))


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:MAX_LISTED_NAMES])
    return f"{listed} and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else listed


def _printable(name: str) -> str:
    """``name`` as UTF-8 can represent it: JSON escapes can spell half a surrogate pair."""
    return name.encode("utf-8", "backslashreplace").decode()


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", float: "a number"}
    return names[type(value)]
