"""From the bytes of a ``/predict`` body to rows of numbers in the model's order, or to a refusal that names each fault.

What is right goes a fast, typed way. What that way refuses is read again, slowly and generously, to name what is wrong:
Python's own JSON reader takes the NaN, the infinities and the broken surrogates that a client may send.

One model answering ``/predict``: body bytes in, status and body bytes out, without HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from volspike.api.answers import Decision, Prediction, Predictions, Refusal, RowFaults, encode
from volspike.api.metrics import Metrics
from volspike.api.served_model import Scorer, model_version

LARGEST: Final = 3.4028234663852886e38
"""The largest single-precision number: ONNX graphs compute in it, so what lies beyond is infinite to the model."""

MOST_FAULTY_ROWS: Final = 100
"""How many faulty rows a refusal lists; the time and size of an answer stay bounded."""

MOST_NAMES_TOLD: Final = 12
"""How many names the sentence of a refusal spells out; the lists beside it hold them all."""

_WANTED: Final = 'send {"features": {name: number, …}} or {"rows": [{name: number, …}, …]}'

Values: TypeAlias = list[float]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the model's order of features; ``single`` where the body was one row."""

    values: list[Values]
    single: bool


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    features: dict[str, float] | UnsetType = UNSET
    rows: list[dict[str, float]] | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Body).decode


def read_rows(body: bytes, names: Sequence[str], max_rows: int) -> Rows | Refusal:
    """The rows of ``body`` with their values in the order of ``names``, or why there are none.

    A body is ``{"features": {name: number}}`` or ``{"rows": [{name: number}, …]}`` with 1 to ``max_rows`` rows. Every
    row has exactly ``names``; a boolean is no number, and a number beyond single precision is not finite.
    """
    return _fast(body, names, max_rows) or _slow(body, names, max_rows)


def _fast(body: bytes, names: Sequence[str], max_rows: int) -> Rows | None:
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
    if len(features) != len(row) or max(row) > LARGEST or min(row) < -LARGEST:
        return None
    return row


def _slow(body: bytes, names: Sequence[str], max_rows: int) -> Rows | Refusal:
    try:
        # integers as floats: Python refuses to read integers of more than 4300 digits
        document = json.loads(body.decode(), parse_int=float)
    except RecursionError:
        return Refusal(detail="the body is nested too deeply; " + _WANTED)
    except UnicodeDecodeError as error:
        return Refusal(detail=f"the body is not UTF-8 (byte {error.start}); " + _WANTED)
    except json.JSONDecodeError as error:
        return Refusal(detail=f"the body is not JSON ({error.msg} at character {error.pos}); " + _WANTED)
    given = _shape(document, max_rows)
    if isinstance(given, Refusal):
        return given
    single = "features" in document
    faults = list(_faulty(given, frozenset(names), names))
    if faults:
        return _refusal(faults, names, single=single)
    return Rows([[row[name] for name in names] for row in given], single=single)


def _shape(document: Any, max_rows: int) -> list[dict[str, Any]] | Refusal:
    """The rows as they were sent, or what is wrong with the body's shape."""
    if not isinstance(document, dict):
        return Refusal(detail=f"the body is {_kind(document)}; " + _WANTED)
    strange = [_printable(key) for key in document if key not in {"features", "rows"}]
    if strange or len(document) != 1:
        holds = _told(strange) + " beside" if strange else "both" if document else "neither of"
        return Refusal(detail=f"the body has {holds} features and rows; " + _WANTED)
    rows = [document["features"]] if "features" in document else document["rows"]
    if not isinstance(rows, list):
        return Refusal(detail=f"rows is {_kind(rows)}, must be a list of objects; " + _WANTED)
    if not 1 <= len(rows) <= max_rows:
        return Refusal(detail=f"rows holds {len(rows)} rows, must hold 1 to {max_rows}")
    strays = [(index, row) for index, row in enumerate(rows) if not isinstance(row, dict)]
    if not strays:
        return rows
    place = "features" if "features" in document else f"rows[{strays[0][0]}]"
    return Refusal(detail=f"{place} is {_kind(strays[0][1])}, must be an object of names and numbers; " + _WANTED)


def _faulty(rows: Iterable[dict[str, Any]], known: frozenset[str], names: Sequence[str]) -> Iterable[RowFaults]:
    found = 0
    for index, row in enumerate(rows):
        faults = RowFaults(
            row=index,
            missing=[name for name in names if name not in row],
            unknown=[_printable(name) for name in row if name not in known],
            not_finite=[name for name in names if name in row and not _is_finite(row[name])],
        )
        if faults.missing or faults.unknown or faults.not_finite:
            yield faults
            found += 1
        if found == MOST_FAULTY_ROWS:
            return


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and isfinite(value) and abs(value) <= LARGEST


def _refusal(faults: list[RowFaults], names: Sequence[str], *, single: bool) -> Refusal:
    """One refusal for all faults: the lists are the union over the rows, in the order in which names were met."""
    missing = _union(fault.missing for fault in faults)
    unknown = _union(fault.unknown for fault in faults)
    not_finite = _union(fault.not_finite for fault in faults)
    kinds = (("missing", missing), ("unknown", unknown), ("not a finite number", not_finite))
    parts = [f"{kind}: {_told(listed)}" for kind, listed in kinds if listed]
    if not single:
        at_least = "at least " if len(faults) == MOST_FAULTY_ROWS else ""
        parts.insert(0, f"{at_least}{len(faults)} of the rows cannot be scored, the first is row {faults[0].row}")
    parts.append(f"the model takes {', '.join(names)}, each a finite number")
    return Refusal(
        detail="; ".join(parts),
        missing=missing,
        unknown=unknown,
        not_finite=not_finite,
        rows=UNSET if single else faults,
    )


def _union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(name for listed in lists for name in listed))


def _told(listed: Sequence[str]) -> str:
    told = ", ".join(listed[:MOST_NAMES_TOLD])
    return f"{told} and {len(listed) - MOST_NAMES_TOLD} more" if len(listed) > MOST_NAMES_TOLD else told


def _printable(name: str) -> str:
    """``name`` as UTF-8 can carry it: JSON escapes can spell half a surrogate pair."""
    return name.encode("utf-8", "backslashreplace").decode()


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", float: "a number"}
    return names[type(value)]


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
