"""What the network of ``lstm`` is given of a row: the last minute second by second, on a scale of its own.

A recurrent network over the last minute, second by second, on what a linear forecast of volatility leaves.

Trained by JAX, which is an extra; served like the others by ONNX Runtime, which needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.models.detector import (
    STILL_VOLATILITY,
    Sample,
    TrainingRows,
    Trial,
    plain_volatilities,
    score_complete,
    settings_over,
    shares,
    training_rows,
)
from volspike.models.forecast import LinearForecast, log_target, reaching
from volspike.models.onnx import Nodes

if TYPE_CHECKING:
    from volspike.models.lstm_network import Material

SECONDS: Final = 60
SCALE: Final = "realized_volatility_300s"
RETURNS: Final = tuple(f"lag_return_{second}s" for second in range(SECONDS, 0, -1))
TICKS: Final = tuple(f"lag_ticks_{second}s" for second in range(SECONDS, 0, -1))
NEEDED: Final = (*RETURNS, *TICKS, SCALE)

_MOST_DEVIATIONS: Final = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class MinuteInput:
    """Where the columns stand in a row, and the mean and deviation of ln(1 + ticks) over the training rows."""

    returns: NDArray[np.int64]
    ticks: NDArray[np.int64]
    scale: int
    mean: np.float32
    deviation: np.float32

    @classmethod
    def fit(cls, x: NDArray[np.float32], names: Sequence[str]) -> Self:
        """Learn from complete rows how many ticks a second has."""
        returns, ticks = (np.array([names.index(name) for name in lags], np.int64) for lags in (RETURNS, TICKS))
        counted = np.log1p(np.maximum(x[:, ticks], 0.0, dtype=np.float64))
        deviation = np.float32(counted.std()) or np.float32(1.0)
        return cls(returns, ticks, names.index(SCALE), np.float32(counted.mean()), deviation)

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The sequence of each complete row, oldest second first: (n, 60, 2).

        A return is told in the volatilities of the last five minutes, at most twenty; ticks as their logarithm.
        """
        scale = np.maximum(x[:, self.scale], np.float32(0.0)) + np.float32(STILL_VOLATILITY)
        with np.errstate(over="ignore"):
            scaled = x[:, self.returns] / scale[:, None]
        returns = np.clip(scaled, np.float32(-_MOST_DEVIATIONS), np.float32(_MOST_DEVIATIONS))
        counted = np.log(np.maximum(x[:, self.ticks], np.float32(0.0)) + np.float32(1.0))
        return np.stack([returns, (counted - self.mean) / self.deviation], axis=2)

    def to_nodes(self, nodes: Nodes) -> str:
        """Adds the sequences as the LSTM operator takes them: float32 [60, N, 2]."""
        none, last = np.float32(0.0), np.array([2])
        known = nodes.add("Max", nodes.gathered(np.array([self.scale])), none)
        scaled = nodes.add("Div", nodes.gathered(self.returns), nodes.add("Add", known, np.float32(STILL_VOLATILITY)))
        returns = nodes.add("Clip", scaled, np.float32(-_MOST_DEVIATIONS), np.float32(_MOST_DEVIATIONS))
        counted = nodes.add("Add", nodes.add("Max", nodes.gathered(self.ticks), none), np.float32(1.0))
        ticks = nodes.add("Div", nodes.add("Sub", nodes.add("Log", counted), self.mean), self.deviation)
        channels = [nodes.add("Unsqueeze", channel, last) for channel in (returns, ticks)]
        return nodes.add("Transpose", nodes.add("Concat", *channels, axis=2), perm=[1, 0, 2])


_DEFAULTS: Final = {"hidden": 16, "epochs": 8, "learning_rate": 3e-3, "most_rows": 40_000}
_HELD_OUT: Final = 0.15
_LOOKED_AT: Final = 2000


class Lstm:
    """A ridge regression of the logarithm of volatility, a small LSTM on its residual, a curve into a probability.

    The newest 15 % of the rows are not trained on: they end the training, and the curve is as steep as the errors on
    them allow. Settings:
    ``hidden`` states, ``epochs`` at most, ``learning_rate``, and ``most_rows``, drawn by weight where there are more.
    """

    name: ClassVar[str] = "lstm"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        self._seed = seed
        self._settings = settings_over(_DEFAULTS, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The last minute's returns and ticks and the plain volatilities; none where one of the first is not there."""
        if not set(NEEDED) <= set(offered):
            return ()
        taken = {*NEEDED, *plain_volatilities(offered)}
        return tuple(name for name in offered if name in taken)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """The network's size and the length of its steps."""
        return {
            "hidden": trial.suggest_int("hidden", 8, 24),
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True),
        }

    def fit(self, sample: Sample) -> Self:
        """Learn from the rows that have all their values."""
        network = _network()
        absent = [name for name in NEEDED if name not in sample.names]
        if absent:
            raise UsageError(f"{self.name} needs the columns of the deep feature set; {absent[0]} is not there")
        rows = training_rows(sample, accepts_missing=False)
        target = log_target(rows.volatility, sample.tau)
        self._width = len(sample.names)
        self._input = MinuteInput.fit(rows.x, sample.names)
        self._linear = LinearForecast.fit(rows.x, sample.names, plain_volatilities(sample.names), target, rows.weight)
        residual = target - self._linear(rows.x)
        past, newest = self._parts(rows)
        material = self._material(rows, residual, past)
        if len(past) < len(rows) - len(newest):
            material.weight[:] = 1.0  # the draw has weighed them
        held_out = self._material(rows, residual, newest)
        self._parameters = network.trained(material, held_out, self._settings, self._seed)
        self._importance = self._shares(rows.x[newest[-_LOOKED_AT:]], held_out)
        self._curve = reaching(target[newest] - self._forecast(rows.x[newest]), rows.weight[newest])
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike; NaN for a row that misses a value."""
        return score_complete(x, lambda rows: self._curve(self._forecast(rows)))

    def importance(self) -> NDArray[np.float64]:
        """Shares of the mean absolute slope of the forecast in each column, per standard deviation of it."""
        return self._importance

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """Scaling, network, linear part and curve as one graph."""
        nodes = Nodes(self._width)
        given = {name: np.asarray(value, np.float32) for name, value in self._parameters.items()}
        hidden = len(given["out"])
        bias = np.concatenate([given["bias"], np.zeros(4 * hidden, np.float32)])
        weights = (given["input"].T[None], given["recurrent"].T[None], bias[None])
        state = nodes.add("LSTM", self._input.to_nodes(nodes), *weights, skipped=1, hidden_size=hidden)
        told = nodes.add("MatMul", nodes.add("Squeeze", state, np.array([0])), given["out"])
        summed = self._linear.coefficients + given["columns"].astype(np.float64)
        level = self._linear.intercept + float(given["level"])
        forecast = nodes.add("Add", nodes.in_double(told), self._linear.standard.weighted_sum(nodes, summed, level))
        return nodes.served_curve(forecast, self._curve)

    def _parts(self, rows: TrainingRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows to train on, at most so many and drawn by weight, and the newest, which are held out."""
        cut = len(rows) - max(1, round(_HELD_OUT * len(rows)))
        past, newest = np.arange(cut), np.arange(cut, len(rows))
        most = self._settings["most_rows"]
        if cut > most:
            # The largest of ln w + Gumbel noise are a draw by weight without replacement: Vieira (2014).
            noise = np.random.default_rng(self._seed).gumbel(size=cut)
            past = np.sort(np.argpartition(-(np.log(rows.weight[:cut]) + noise), most)[:most])
        return past, newest

    def _material(self, rows: TrainingRows, residual: NDArray[np.float64], part: NDArray[np.int64]) -> Material:
        x = rows.x[part]
        material: Material = _network().Material(
            self._input.apply(x),
            self._linear.standard.apply(x).astype(np.float32),
            residual[part].astype(np.float32),
            rows.weight[part].astype(np.float32),
        )
        return material

    def _forecast(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        columns = self._linear.standard.apply(x).astype(np.float32)
        forecast: NDArray[np.float64] = _network().predicted(self._parameters, self._input.apply(x), columns)
        return self._linear(x) + forecast

    def _shares(self, x: NDArray[np.float32], material: Material) -> NDArray[np.float64]:
        by_sequence, _ = _network().slopes(self._parameters, material)
        spread = self._input.apply(x).std(axis=0, dtype=np.float64)
        weight = np.zeros(self._width)
        weight[self._input.returns] = (by_sequence * spread)[:, 0]
        weight[self._input.ticks] = (by_sequence * spread)[:, 1]
        summed = self._linear.coefficients + np.asarray(self._parameters["columns"], np.float64)
        weight[self._linear.standard.columns] = np.abs(summed)
        return shares(weight)


def _network() -> Any:
    """JAX and what is built on it, which cost seconds to import and hundreds of megabytes on disk."""
    if find_spec("jax") is None or find_spec("optax") is None:
        raise UsageError("lstm needs an extra that is not installed: pip install 'volspike[deep]'")
    from volspike.models import lstm_network  # noqa: PLC0415

    return lstm_network
