"""Online calibration: a model's probability corrected by the outcomes of the product that it is applied to.

A model of many markets is over- or under-confident on a single one, and most on a market unlike those it learned from.
``OnlineCalibration`` learns the correction while the product is scored. It is a logistic regression whose inputs are
the model's log odds and the logarithms of the exponentially weighted volatilities of ``HALF_LIVES`` relative to the
threshold τ, and whose coefficients have a normal prior, ``metadata.Adaptation``. Where the model is of no use, the
coefficients move to the volatilities, which need no training.

The coefficients are the state of an extended Kalman filter (Fahrmeir, "Posterior mode estimation by extended Kalman
filtering for multivariate dynamic generalized linear models", JASA 87, 1992): each outcome is one Newton step from the
present mean, and between outcomes mean and covariance return to the prior with a time constant of ``MEMORY_S``. The
labels of neighbouring seconds share nearly all their seconds, so an outcome has the weight 1 / horizon.

One kernel serves live rows (``observe`` and ``probability``) and recorded ones (``run``), with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, isfinite, log, nan
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.compiled import compiled, internal
from volspike.errors import DataError
from volspike.labels import HORIZON_S
from volspike.models.metadata import Adaptation

HALF_LIVES: Final = (10, 30, 60, 300)
VOLATILITIES: Final = tuple(f"ewma_volatility_{half_life}s" for half_life in HALF_LIVES)
"""The features that it uses next to the model's probability, in the order of every argument ``volatilities``."""

SIZE: Final = 2 + len(HALF_LIVES)
"""The number of coefficients: the intercept, that of the log odds, and one for each volatility."""

EVENTS_NEEDED: Final = 20
"""Spike events after which a product counts as calibrated: with one in 25 minutes a spike, about eight hours. The rate
of 20 events is known to about a quarter."""

MEMORY_S: Final = 365.0 * 86_400.0
CENTRE_LOG_ODDS: Final = -3.2
"""The log odds at which the inputs are centred, a probability of 4 %: the slopes then leave the level unchanged."""

CENTRE_LOG_RATIO: Final = log(0.5)
"""The same for volatilities over τ: half of τ is the trailing hour's volatility under ``jump:2``."""

RATIO_OFFSET: Final = 0.05
"""Added to a volatility over τ before its logarithm, so that all very calm minutes are alike."""

LEAST: Final = 1e-6
"""Probabilities are kept this far from 0 and 1, which no outcomes can prove."""

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

_NEVER: Final = -(2**62)
_EVENTS, _LAST_SPIKE, _COUNTS = 0, 1, 2
_FORMAT: Final = 1


class CalibrationState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that later probabilities of a product depend on: little-endian arrays, and the horizon and prior."""

    format: int
    horizon_s: int
    prior_mean: tuple[float, ...]
    deviation: float
    arrays: list[bytes]


class OnlineCalibration:
    """The calibration of one product.

    Args:
        adaptation: the prior, from training.
        is_listed: whether the product is one of those that the model was trained on.
        horizon: in seconds.
    """

    def __init__(self, adaptation: Adaptation, *, is_listed: bool, horizon: int = HORIZON_S) -> None:
        self._mean = adaptation.listed if is_listed else adaptation.unlisted
        self._deviation, self._horizon = adaptation.deviation, horizon
        self._prior = np.array([*self._mean, self._deviation**2])
        # the mean of the coefficients, and below it their covariance
        self._beliefs = np.vstack([self._mean, np.eye(SIZE) * self._deviation**2])
        # inputs and τ of the seconds whose outcome is not known yet, each at its second modulo the length
        self._pending = np.zeros((horizon + 1, SIZE + 1))
        self._seconds = np.full(horizon + 1, _NEVER)
        self._counts = np.array([0, _NEVER])
        self._row = np.zeros((1, len(HALF_LIVES)))

    @property
    def events(self) -> int:
        """The spike events among the outcomes: spikes at least a horizon after the one before."""
        return int(self._counts[_EVENTS])

    @property
    def is_calibrated(self) -> bool:
        """Whether the outcomes contain enough events to trust the level of the probabilities."""
        return self.events >= EVENTS_NEEDED

    @property
    def coefficients(self) -> Floats:
        """(SIZE,) the present coefficients."""
        mean: Floats = self._beliefs[0].copy()
        return mean

    def observe(self, second: int, future_volatility: float) -> None:
        """Learns from the outcome of a second; ignored if the second was not scored, or its outcome is unknown.

        Outcomes arrive in the order of their seconds, and before the first row at which they are known.
        """
        _observe(*self._arrays(), second, future_volatility)

    def probability(self, second: int, probability: float, volatilities: Sequence[float], tau: float) -> float:
        """The calibrated probability of a row; NaN if an input is unknown.

        Of several rows in one second the last counts when the outcome is known. Seconds never decrease.

        Args:
            second: Unix second of the row.
            probability: that of the model.
            volatilities: the row's values of ``VOLATILITIES``.
            tau: the row's threshold.
        """
        self._row[0] = volatilities
        return float(_score(*self._arrays(), second, probability, self._row, tau))

    def run(
        self,
        second: Integers,
        probability: Floats,
        volatilities: Floats,
        tau: Floats,
        future_volatility: Floats,
        *,
        is_per_second: bool = True,
    ) -> Floats:
        """(n,) the calibrated probabilities of recorded rows in time order, as if they had been scored live.

        Args:
            second: (n,) ascending Unix seconds.
            probability: (n,) those of the model.
            volatilities: (n, 4) the columns ``VOLATILITIES``.
            tau: (n,) the thresholds.
            future_volatility: (n,) NaN where the outcome never becomes known.
            is_per_second: rows are at the end of each second, so that an outcome is known to the row ``horizon``
                seconds later; for rows at ticks it is known a second after that.
        """
        calibrated = np.empty(len(second))
        lag = self._horizon + (0 if is_per_second else 1)
        columns = np.ascontiguousarray(volatilities)
        _run(*self._arrays(), second, probability, columns, tau, future_volatility, lag, calibrated)
        return calibrated

    def dump(self) -> bytes:
        """The state, to be restored by ``load``."""
        _, *own = self._arrays()
        arrays = [array.astype(array.dtype.newbyteorder("<")).tobytes() for array in own]
        return msgspec.msgpack.encode(CalibrationState(_FORMAT, self._horizon, self._mean, self._deviation, arrays))

    def load(self, blob: bytes) -> bool:
        """Continues from the bytes of ``dump``; False, and no change, if they have another horizon or prior.

        Raises:
            DataError: the bytes are no complete state.
        """
        try:
            state = msgspec.msgpack.decode(blob, type=CalibrationState)
        except msgspec.DecodeError as error:
            raise DataError(f"not the state of a calibration: {error}") from error
        if (state.format, state.horizon_s, state.prior_mean, state.deviation) != (
            _FORMAT,
            self._horizon,
            self._mean,
            self._deviation,
        ):
            return False
        _, *own = self._arrays()
        if [len(raw) for raw in state.arrays] != [array.nbytes for array in own]:
            raise DataError("the state of a calibration is incomplete")
        for array, raw in zip(own, state.arrays, strict=True):
            array[...] = np.frombuffer(raw, array.dtype.newbyteorder("<")).reshape(array.shape)
        return True

    def _arrays(self) -> tuple[Floats, Floats, Floats, Integers, Integers]:
        """The kernel's arguments; the first, the prior, never changes."""
        return self._prior, self._beliefs, self._pending, self._seconds, self._counts


def calibration_inputs(probability: Floats, volatilities: Floats, tau: Floats) -> Floats:
    """(n, SIZE) the inputs of the regression for n rows, of which ``volatilities`` are (n, 4); NaN if unknown."""
    within = np.clip(probability, LEAST, 1.0 - LEAST)
    return np.column_stack(
        [
            np.ones(len(tau)),
            np.log(within / (1.0 - within)) - CENTRE_LOG_ODDS,
            np.log(volatilities / tau[:, None] + RATIO_OFFSET) - CENTRE_LOG_RATIO,
        ]
    )


# ``observe`` and ``score`` are the kernel; ``_observe``, ``_score`` and ``_run`` are its ways in from Python.


@internal
def observe(
    prior: Floats,
    beliefs: Floats,
    pending: Floats,
    seconds: Integers,
    counts: Integers,
    second: int,
    volatility: float,
) -> None:
    """One step of the filter, for the outcome of a second that is pending."""
    horizon = len(seconds) - 1
    row = second % len(seconds)
    if seconds[row] != second or not isfinite(volatility):
        return
    seconds[row] = _NEVER
    is_spike = volatility >= pending[row, SIZE]
    if is_spike:
        if second - counts[_LAST_SPIKE] >= horizon:
            counts[_EVENTS] += 1
        counts[_LAST_SPIKE] = second
    _return_to_prior(prior, beliefs)
    expected = _logistic(_margin(beliefs, pending, row))
    spread = np.zeros(SIZE)
    variance = 0.0
    for i in range(SIZE):
        for j in range(SIZE):
            spread[i] += beliefs[1 + i, j] * pending[row, j]
        variance += pending[row, i] * spread[i]
    weight = 1.0 / horizon
    information = weight * expected * (1.0 - expected)
    gain = 1.0 / (1.0 + information * variance)
    error = weight * ((1.0 if is_spike else 0.0) - expected)
    for i in range(SIZE):
        beliefs[0, i] += gain * error * spread[i]
        for j in range(SIZE):
            beliefs[1 + i, j] -= gain * information * spread[i] * spread[j]


@internal
def _return_to_prior(prior: Floats, beliefs: Floats) -> None:
    """The change of mean and covariance in the second between two outcomes (Ornstein-Uhlenbeck)."""
    kept = 1.0 - 1.0 / MEMORY_S
    square = kept * kept
    for i in range(SIZE):
        beliefs[0, i] = prior[i] + kept * (beliefs[0, i] - prior[i])
        for j in range(SIZE):
            beliefs[1 + i, j] *= square
        beliefs[1 + i, i] += (1.0 - square) * prior[SIZE]


@internal
def score(
    beliefs: Floats,
    pending: Floats,
    seconds: Integers,
    second: int,
    probability: float,
    volatilities: Floats,
    at: int,
    tau: float,
) -> float:
    """The calibrated probability of a row, which becomes pending; its volatilities are in row ``at``."""
    row = second % len(seconds)
    seconds[row] = _NEVER
    if not (isfinite(probability) and 0.0 < tau < inf):
        return nan
    for i in range(len(HALF_LIVES)):
        ratio = volatilities[at, i] / tau
        if not 0.0 <= ratio < inf:
            return nan
        pending[row, 2 + i] = log(ratio + RATIO_OFFSET) - CENTRE_LOG_RATIO
    within = min(max(probability, LEAST), 1.0 - LEAST)
    pending[row, 0] = 1.0
    pending[row, 1] = log(within / (1.0 - within)) - CENTRE_LOG_ODDS
    pending[row, SIZE] = tau
    seconds[row] = second
    return min(max(_logistic(_margin(beliefs, pending, row)), LEAST), 1.0 - LEAST)


@internal
def _margin(beliefs: Floats, pending: Floats, row: int) -> float:
    margin = 0.0
    for i in range(SIZE):
        margin += pending[row, i] * beliefs[0, i]
    return margin


@internal
def _logistic(margin: float) -> float:
    return 1.0 / (1.0 + exp(-margin))


@compiled
def _observe(
    prior: Floats,
    beliefs: Floats,
    pending: Floats,
    seconds: Integers,
    counts: Integers,
    second: int,
    volatility: float,
) -> None:
    observe(prior, beliefs, pending, seconds, counts, second, volatility)


@compiled
def _score(
    prior: Floats,  # noqa: ARG001  every way in takes the same arrays first
    beliefs: Floats,
    pending: Floats,
    seconds: Integers,
    counts: Integers,  # noqa: ARG001
    second: int,
    probability: float,
    volatilities: Floats,
    tau: float,
) -> float:
    return score(beliefs, pending, seconds, second, probability, volatilities, 0, tau)


@compiled
def _run(
    prior: Floats,
    beliefs: Floats,
    pending: Floats,
    seconds: Integers,
    counts: Integers,
    second: Integers,
    probability: Floats,
    volatilities: Floats,
    tau: Floats,
    future_volatility: Floats,
    lag: int,
    calibrated: Floats,
) -> None:
    known = 0
    for row in range(len(second)):
        while second[known] + lag <= second[row]:
            if second[known] != second[known + 1]:  # the last row of its second
                observe(prior, beliefs, pending, seconds, counts, second[known], future_volatility[known])
            known += 1
        calibrated[row] = score(beliefs, pending, seconds, second[row], probability[row], volatilities, row, tau[row])
