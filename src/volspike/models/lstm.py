"""``Lstm``: a recurrent network over the last minute, second by second, on the residual of a linear forecast.

JAX trains it and is an extra; ONNX Runtime serves it like every other model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from volspike.errors import UsageError
from volspike.models.detector import VOLATILITY_OFFSET, Detector, TrainingRows, Trial, as_shares, plain_volatilities
from volspike.models.forecast import LinearForecast, curve_from_errors, log_target
from volspike.models.onnx import GraphBuilder, LogisticCurve

if TYPE_CHECKING:
    from volspike.models.lstm_network import SequenceData

SECONDS: Final = 60
SCALE: Final = "realized_volatility_300s"
RETURNS: Final = tuple(f"lag_return_{second}s" for second in range(SECONDS, 0, -1))
TICKS: Final = tuple(f"lag_ticks_{second}s" for second in range(SECONDS, 0, -1))
REQUIRED: Final = (*RETURNS, *TICKS, SCALE)

_HELD_OUT: Final = 0.15
_IMPORTANCE_ROWS: Final = 2000
_MAX_DEVIATIONS: Final = 20.0


class Lstm(Detector):
    """A ridge regression of log volatility, a small LSTM on its residual, and a curve from the sum to a probability.

    The newest 15 % of the rows are held out: they decide when training stops, and the slope of the curve follows from
    the errors on them.

    Settings: ``hidden`` states, the maximum number of ``epochs``, ``learning_rate``, and ``most_rows``, the maximum
    number of training rows, drawn by weight if there are more.
    """

    name: ClassVar[str] = "lstm"
    defaults: ClassVar[Mapping[str, Any]] = {"hidden": 16, "epochs": 8, "learning_rate": 3e-3, "most_rows": 40_000}
    requirement: ClassVar[str] = "the columns of the deep feature set"

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The last minute's returns and ticks and the plain volatilities; () if one of ``REQUIRED`` is missing."""
        if not set(REQUIRED) <= set(offered):
            return ()
        used = {*REQUIRED, *plain_volatilities(offered)}
        return tuple(name for name in offered if name in used)

    @classmethod
    def search_space(cls, trial: Trial) -> dict[str, Any]:
        """The size of the network and its learning rate."""
        return {
            "hidden": trial.suggest_int("hidden", 8, 24),
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True),
        }

    def learn(self, rows: TrainingRows) -> LstmModel:
        """See ``Detector.learn``."""
        network = _network()
        target = log_target(rows.volatility, rows.tau)
        sequence = MinuteSequence.fit(rows.x, rows.names)
        linear = LinearForecast.fit(rows.x, rows.names, plain_volatilities(rows.names), target, rows.weight)
        residual = target - linear(rows.x)

        def data_of(part: NDArray[np.int64]) -> SequenceData:
            columns = linear.standard.apply(rows.x[part]).astype(np.float32)
            outcome = (residual[part].astype(np.float32), rows.weight[part].astype(np.float32))
            data: SequenceData = network.SequenceData(sequence.apply(rows.x[part]), columns, *outcome)
            return data

        past, newest = self._split(rows)
        training, held_out = data_of(past), data_of(newest)
        if len(past) < len(rows) - len(newest):
            training.weight[:] = 1.0  # the draw has applied the weights
        parameters = network.train(training, held_out, self._settings, self._seed)
        forecast = NetworkForecast(sequence, linear, parameters, len(rows.names))
        shares = forecast.importance(rows.x[newest[-_IMPORTANCE_ROWS:]], held_out)
        curve = curve_from_errors(target[newest] - forecast(rows.x[newest]), rows.weight[newest])
        return LstmModel(forecast, curve, shares)

    def _split(self, rows: TrainingRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows to train on, at most ``most_rows`` and drawn by weight, and the newest, which are held out."""
        cut = len(rows) - max(1, round(_HELD_OUT * len(rows)))
        past, newest = np.arange(cut), np.arange(cut, len(rows))
        most = self._settings["most_rows"]
        if cut > most:
            # The largest of ln w + Gumbel noise are a draw by weight without replacement: Vieira (2014).
            noise = np.random.default_rng(self._seed).gumbel(size=cut)
            past = np.sort(np.argpartition(-(np.log(rows.weight[:cut]) + noise), most)[:most])
        return past, newest


@dataclass(frozen=True, slots=True, eq=False)
class MinuteSequence:
    """The last minute of a row as the network's input, second by second.

    ``returns``, ``ticks`` and ``scale`` are positions in a row; ``mean`` and ``deviation`` are those of ln(1 + ticks)
    over the training rows.
    """

    returns: NDArray[np.int64]
    ticks: NDArray[np.int64]
    scale: int
    mean: np.float32
    deviation: np.float32

    @classmethod
    def fit(cls, x: NDArray[np.float32], names: Sequence[str]) -> Self:
        """Learns the distribution of ticks per second from complete rows."""
        returns, ticks = (np.array([names.index(name) for name in lags], np.int64) for lags in (RETURNS, TICKS))
        counted = np.log1p(np.maximum(x[:, ticks], 0.0, dtype=np.float64))
        deviation = np.float32(counted.std()) or np.float32(1.0)
        return cls(returns, ticks, names.index(SCALE), np.float32(counted.mean()), deviation)

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The sequence of each complete row, oldest second first: (n, 60, 2).

        The channels are the return in units of the last five minutes' volatility, at most 20, and the logarithm of the
        number of ticks.
        """
        scale = np.maximum(x[:, self.scale], np.float32(0.0)) + np.float32(VOLATILITY_OFFSET)
        with np.errstate(over="ignore"):
            scaled = x[:, self.returns] / scale[:, None]
        returns = np.clip(scaled, np.float32(-_MAX_DEVIATIONS), np.float32(_MAX_DEVIATIONS))
        counted = np.log(np.maximum(x[:, self.ticks], np.float32(0.0)) + np.float32(1.0))
        return np.stack([returns, (counted - self.mean) / self.deviation], axis=2)

    def add_to(self, graph: GraphBuilder) -> str:
        """Adds the sequences to a graph in the format of the LSTM operator: float32 [60, N, 2]."""
        zero, last = np.float32(0.0), np.array([2])
        known = graph.add("Max", graph.select(np.array([self.scale])), zero)
        scaled = graph.add("Div", graph.select(self.returns), graph.add("Add", known, np.float32(VOLATILITY_OFFSET)))
        returns = graph.add("Clip", scaled, np.float32(-_MAX_DEVIATIONS), np.float32(_MAX_DEVIATIONS))
        counted = graph.add("Add", graph.add("Max", graph.select(self.ticks), zero), np.float32(1.0))
        ticks = graph.add("Div", graph.add("Sub", graph.add("Log", counted), self.mean), self.deviation)
        channels = [graph.add("Unsqueeze", channel, last) for channel in (returns, ticks)]
        return graph.add("Transpose", graph.add("Concat", *channels, axis=2), perm=[1, 0, 2])


@dataclass(frozen=True, slots=True, eq=False)
class NetworkForecast:
    """A forecast of the logarithm of volatility over τ: the linear part plus the network."""

    sequence: MinuteSequence
    linear: LinearForecast
    parameters: dict[str, Any]
    width: int

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        columns = self.linear.standard.apply(x).astype(np.float32)
        forecast: NDArray[np.float64] = _network().predict(self.parameters, self.sequence.apply(x), columns)
        return self.linear(x) + forecast

    def importance(self, x: NDArray[np.float32], data: SequenceData) -> NDArray[np.float64]:
        """Shares of the mean absolute slope of the forecast in each column, per standard deviation of it.

        Slopes are those over ``data``, deviations those over rows ``x``.
        """
        spread = self.sequence.apply(x).std(axis=0, dtype=np.float64)
        by_second = _network().mean_slopes(self.parameters, data) * spread
        weight = np.zeros(self.width)
        weight[self.sequence.returns], weight[self.sequence.ticks] = by_second.T
        summed = self.linear.coefficients + np.asarray(self.parameters["columns"], np.float64)
        weight[self.linear.columns] = np.abs(summed)
        return as_shares(weight)


@dataclass(frozen=True, slots=True, eq=False)
class LstmModel:
    """The probability that a forecast volatility reaches τ; ``shares`` are the forecast's importances."""

    forecast: NetworkForecast
    curve: LogisticCurve
    shares: NDArray[np.float64]

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The curve at each row's forecast."""
        return self.curve(self.forecast(x))

    def importance(self) -> NDArray[np.float64]:
        """Those of the forecast."""
        return self.shares

    def to_onnx(self) -> ModelProto:
        """Scaling, network, linear part and curve as one graph."""
        graph, linear = GraphBuilder(self.forecast.width), self.forecast.linear
        given = {name: np.asarray(value, np.float32) for name, value in self.forecast.parameters.items()}
        hidden = len(given["out"])
        bias = np.concatenate([given["bias"], np.zeros(4 * hidden, np.float32)])
        weights = (given["input"].T[None], given["recurrent"].T[None], bias[None])
        state = graph.add("LSTM", self.forecast.sequence.add_to(graph), *weights, skipped=1, hidden_size=hidden)
        output = graph.add("MatMul", graph.add("Squeeze", state, np.array([0])), given["out"])
        summed = linear.coefficients + given["columns"].astype(np.float64)
        level = linear.intercept + float(given["level"])
        network = graph.to_double(output)
        forecast = graph.add("Add", network, linear.standard.add_weighted_sum(graph, summed, level))
        return graph.finish_curve(forecast, self.curve)


def _network() -> Any:
    """The module that uses JAX, which takes seconds to import and hundreds of megabytes on disk."""
    if find_spec("jax") is None or find_spec("optax") is None:
        raise UsageError("lstm needs an extra that is not installed: pip install 'volspike[deep]'")
    from volspike.models import lstm_network  # noqa: PLC0415

    return lstm_network
