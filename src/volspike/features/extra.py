"""Extra features: columns per second that an installed distribution computes from the rows of the built-in features.

A distribution adds them with an entry point of the group ``volspike.features`` that names an ``ExtraFeatures``; the
feature set ``full+NAME`` has them. The engine calls ``update`` once per row, so that rows are equal live, in replay and
after a restart.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import DataError, PluginFailed, SchemaMismatch, UsageError
from volspike.plugins import FEATURES, describe_names, find_plugin

Floats: TypeAlias = NDArray[np.float64]
Update: TypeAlias = Callable[[Floats, Floats, Floats], None]

SEPARATOR: Final = "__"
"""Between the name of the extra features and that of a column: no built-in column contains it."""

SECOND: Final = "second"
IS_WHOLE: Final = "is_whole"
ROW_FACTS: Final = (SECOND, IS_WHOLE)
"""Inputs that are no column of floats: the Unix second that the row ends, and whether it ``is_whole`` (1 or 0)."""

MOST_STATE: Final = 100_000
"""Floats of state per product: a snapshot, which is taken often, contains them."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A column of extra features: its name without the prefix, its unit and its meaning."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraFeatures:
    """Columns that ``update`` computes at the end of each second of a product's session.

    ``update(state, inputs, out)`` receives float64 arrays, which it must not keep: the product's ``state``, which it
    changes in place, the ``inputs`` of the row, and ``out``, full of NaN, into which it writes the columns. It may be a
    Python function or compiled by numba, depends on nothing but ``state`` and ``inputs``, and leaves NaN where a value
    is unknown; an infinite value becomes NaN. ``state`` is equal to ``initial`` at the first row of each session; a
    session has a row for every second.

    Attributes:
        name: the name in feature sets; lower-case letters, digits and single underscores. Column ``c`` becomes
            ``name__c``.
        version: increase it when values change for a reason outside of the definition, such as another library.
        columns: the columns, in the order of ``out``.
        inputs: columns of the row: floats of every row (such as ``price``), built-in features of the set, ``second``
            (the Unix second that the row ends) and ``is_whole`` (1 or 0).
        initial: the state at the start of a session, at least one number.
        update: the function.
        definition: text that changes whenever values change; by default the source of the module of ``update``.
        origin: distribution and version; set when the entry point is loaded.

    Raises:
        UsageError: an invalid name, no column, input or state, or no definition and no source.
    """

    name: str
    version: str
    columns: tuple[ExtraColumn, ...]
    inputs: tuple[str, ...]
    initial: tuple[float, ...]
    update: Update
    definition: str = field(default="", repr=False)
    origin: str = field(default="", compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        labels = [column.name for column in self.columns]
        for text in (self.name, *labels):
            if _NAME.fullmatch(text) is None:
                raise UsageError(
                    f"extra features: {text!r} is no name; use lower-case letters, digits and single underscores"
                )
        for what, given in (("columns", labels), ("inputs", list(self.inputs))):
            if not given or len(set(given)) != len(given):
                raise UsageError(f"extra features {self.name}: {what} must be names without duplicates, got {given}")
        if not 1 <= len(self.initial) <= MOST_STATE:
            raise UsageError(
                f"extra features {self.name}: state must be 1 to {MOST_STATE:,} numbers, has {len(self.initial):,}"
            )
        definition = self.definition or _source(self.name, self.update)
        lines = [
            f"{self.name} {self.version}",
            *(f"{column.name} [{column.unit}]: {column.meaning}" for column in self.columns),
            f"inputs {' '.join(self.inputs)}",
            f"initial {' '.join(map(repr, map(float, self.initial)))}",
            definition,
        ]
        object.__setattr__(self, "digest", hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns in a row."""
        return tuple(f"{self.name}{SEPARATOR}{column.name}" for column in self.columns)

    @property
    def facts(self) -> ExtraFacts:
        """The name, digest and origin, as files and models store them."""
        return ExtraFacts(name=self.name, digest=self.digest, origin=self.origin)


def _source(name: str, update: Update) -> str:
    """The source of the module of a function.

    Raises:
        UsageError: it has none.
    """
    function: Any = getattr(update, "py_func", update)  # of a function compiled by numba
    try:
        return inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"extra features {name}: the source of update is not available; state a definition, and change it with the "
            "values"
        ) from error


class ExtraFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The extra features of a feature file or a model; ``origin`` is the distribution and its version."""

    name: str
    digest: str
    origin: str = ""


def load_extra(name: str) -> ExtraFeatures:
    """The extra features of this name.

    Raises:
        UsageError: no distribution adds them, or they cannot be used; the message names the distribution.
    """
    plugin = find_plugin(FEATURES, name)
    if plugin is None:
        known = ", ".join(describe_names(FEATURES)) or "none"
        raise UsageError(f"no extra features named {name!r}; installed: {known}")
    loaded = plugin.load()
    if not isinstance(loaded, ExtraFeatures):
        raise UsageError(f"{plugin.place} must name an ExtraFeatures, got {type(loaded).__name__}")
    if loaded.name != name:
        raise UsageError(f"{plugin.place} must have the name of its ExtraFeatures, {loaded.name}")
    return replace(loaded, origin=plugin.origin)


def resolve_extras(facts: Iterable[ExtraFacts]) -> tuple[ExtraFeatures, ...]:
    """The installed extra features that a file or a model states.

    Raises:
        SchemaMismatch: one is not installed, or its digest differs; the message names the distribution to install.
        UsageError: one cannot be loaded.
    """
    return tuple(_resolve(each) for each in facts)


def _resolve(facts: ExtraFacts) -> ExtraFeatures:
    install = f"install {facts.origin or 'the distribution that adds them'}"
    if find_plugin(FEATURES, facts.name) is None:
        raise SchemaMismatch(
            f"the extra features {facts.name} (digest {facts.digest}) are not installed",
            remedy=f"{install}; `volspike doctor` lists what is installed",
        )
    extra = load_extra(facts.name)
    if extra.digest != facts.digest:
        raise SchemaMismatch(
            f"the extra features {facts.name} have digest {facts.digest} there, {extra.digest} here ({extra.origin})",
            remedy=f"{install} as it was, or replay and train again",
        )
    return extra


def is_extra(name: str) -> bool:
    """Whether a column is one of extra features."""
    return SEPARATOR in name


def extras_in(names: Iterable[str]) -> tuple[str, ...]:
    """The names of the extra features whose columns are among ``names``.

    >>> extras_in(["price", "roll__spread_bps"])
    ('roll',)
    """
    return tuple(sorted({name.partition(SEPARATOR)[0] for name in names if is_extra(name)}))


class _Part:
    """One of the extra features of an engine: the columns of its inputs, and its places in state and result."""

    def __init__(self, extra: ExtraFeatures, columns: Sequence[str], state: int, out: int) -> None:
        self.extra = extra
        self.inputs = np.array([columns.index(name) for name in extra.inputs], np.intp)
        self.state = slice(state, state + len(extra.initial))
        self.out = slice(out, out + len(extra.columns))


class ExtraState:
    """The state of the extra features of an engine: as many numbers per product, whatever the number of ticks.

    ``columns`` are the names of the floats of a row without the extra features.
    """

    def __init__(self, extras: Sequence[ExtraFeatures], columns: Sequence[str]) -> None:
        inputs = (*columns, *ROW_FACTS)
        self._initial = np.array([number for extra in extras for number in extra.initial], np.float64)
        self._parts: list[_Part] = []
        state = out = 0
        for extra in extras:
            self._parts.append(_Part(extra, inputs, state, out))
            state += len(extra.initial)
            out += len(extra.columns)
        self._width = out
        self._states = np.empty((0, len(self._initial)))
        self._newest = np.empty((0, 2), np.int64)  # session and second of each product's newest row

    def compute(
        self,
        products: NDArray[np.int64],
        time: NDArray[np.int64],
        session_id: NDArray[np.int64],
        is_whole: NDArray[np.bool_],
        values: Floats,
    ) -> Floats:
        """(n, columns) the extra features of n rows in order, whose floats are ``values`` (n, f); NaN if infinite.

        Raises:
            PluginFailed: an ``update`` raised; the message names its distribution.
        """
        seconds = time // 1_000_000_000
        inputs = np.column_stack([values, seconds, is_whole])
        of_parts = [np.ascontiguousarray(inputs[:, part.inputs]) for part in self._parts]
        out = np.full((len(values), self._width), np.nan)
        rows = zip(products.tolist(), seconds.tolist(), session_id.tolist(), strict=True)
        for row, (product, second, session) in enumerate(rows):
            state = self._state(product, session, second)
            for part, own in zip(self._parts, of_parts, strict=True):
                try:
                    part.extra.update(state[part.state], own[row], out[row, part.out])
                except Exception as error:  # other people's code may raise anything
                    raise PluginFailed(
                        f"the extra features {part.extra.name} of {part.extra.origin or 'an unknown distribution'} "
                        f"failed at second {second}: {type(error).__name__}: {error}; correct update, or leave them "
                        "out of the feature set"
                    ) from error
        out[np.isinf(out)] = np.nan
        return out

    def _state(self, product: int, session: int, second: int) -> Floats:
        """The state of a product before a row; the initial one at the first row of a session."""
        self._add_products(product + 1)
        known, newest = self._newest[product].tolist()
        state: Floats = self._states[product]
        if session != known or second <= newest:  # a clock that was set back begins a session in the past
            state[:] = self._initial
        self._newest[product] = session, second
        return state

    def _add_products(self, count: int) -> None:
        more = count - len(self._states)
        if more > 0:
            self._states = np.vstack([self._states, np.tile(self._initial, (more, 1))])
            self._newest = np.vstack([self._newest, np.full((more, 2), -1)])

    def dump(self, products: int) -> bytes:
        """The states of this many products: a constant number of bytes for each."""
        self._add_products(products)
        return self._newest.astype("<i8").tobytes() + self._states.astype("<f8").tobytes()

    def load(self, blob: bytes, products: int) -> None:
        """Continue with the stored states of this many products.

        Raises:
            DataError: the bytes are no states of these extra features.
        """
        newest = products * 16
        expected = newest + products * self._initial.nbytes
        if len(blob) != expected:
            raise DataError(f"snapshot of extra features is incomplete: {len(blob)} bytes of {expected}")
        self._newest = np.frombuffer(blob[:newest], "<i8").astype(np.int64).reshape(products, 2)
        states = np.frombuffer(blob[newest:], "<f8").astype(np.float64)
        self._states = states.reshape(products, len(self._initial))
