"""The recurrent network of ``Lstm``: parameters, forward pass and training in JAX, which the extra [deep] installs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray
from scipy.special import huber

CHANNELS: Final = 2
BATCH_ROWS: Final = 512
_SCORED_ROWS: Final = 4096
_PATIENCE: Final = 3
_HUBER: Final = 1.5

Parameters: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class SequenceData:
    """Sequences (n, 60, 2) oldest second first, standardised columns (n, k), target and weight (n,); all float32."""

    sequence: NDArray[np.float32]
    columns: NDArray[np.float32]
    target: NDArray[np.float32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.target)


def initial_parameters(hidden: int, columns: int, seed: int) -> Parameters:
    """Random weights, in ONNX's order of gates (input, output, forget, cell), and outputs that start at 0."""
    first, second = jax.random.split(jax.random.PRNGKey(seed))
    spread = 1.0 / np.sqrt(hidden)
    uniform = partial(jax.random.uniform, minval=-spread, maxval=spread, dtype=jnp.float32)
    # A forget gate that starts open passes the complete minute through: Jozefowicz et al. (2015).
    bias = jnp.zeros(4 * hidden, jnp.float32).at[2 * hidden : 3 * hidden].set(1.0)
    return {
        "input": uniform(first, (CHANNELS, 4 * hidden)),
        "recurrent": uniform(second, (hidden, 4 * hidden)),
        "bias": bias,
        "out": jnp.zeros(hidden, jnp.float32),
        "columns": jnp.zeros(columns, jnp.float32),
        "level": jnp.zeros((), jnp.float32),
    }


def forward(parameters: Parameters, sequence: Any, columns: Any) -> Any:
    """The forecast for each row: a weighted sum of the last state of an LSTM (Hochreiter and Schmidhuber, 1997)."""
    hidden = parameters["out"].shape[0]
    start = jnp.zeros((sequence.shape[0], hidden), jnp.float32)

    # The input weights are applied to all seconds at once: one large product instead of sixty small ones.
    entering = jnp.swapaxes(sequence, 0, 1) @ parameters["input"] + parameters["bias"]

    def step(state: Any, second: Any) -> Any:
        output, cell = state
        gates = second + output @ parameters["recurrent"]
        enter, leave, forget, new = jnp.split(gates, 4, axis=1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return (jax.nn.sigmoid(leave) * jnp.tanh(cell), cell), None

    (output, _), _ = jax.lax.scan(step, (start, start), entering)
    return output @ parameters["out"] + columns @ parameters["columns"] + parameters["level"]


_forward = jax.jit(forward)


def predict(parameters: Parameters, sequence: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float64]:
    """``forward`` in blocks of one size, so that it is compiled only once."""
    forecast = np.empty(len(sequence))
    for start in range(0, len(sequence), _SCORED_ROWS):
        block = slice(start, start + _SCORED_ROWS)
        rows = len(sequence[block])
        padding = ((0, _SCORED_ROWS - rows), (0, 0))
        padded = _forward(parameters, np.pad(sequence[block], (*padding, (0, 0))), np.pad(columns[block], padding))
        forecast[block] = np.asarray(padded)[:rows]
    return forecast


def train(data: SequenceData, held_out: SequenceData, settings: Mapping[str, Any], seed: int) -> Parameters:
    """The parameters with the least loss on ``held_out``, by Adam over at most ``epochs`` passes."""
    parameters = initial_parameters(settings["hidden"], data.columns.shape[1], seed)
    optimizer = _optimizer(settings["learning_rate"])
    state = optimizer.init(parameters)
    best, least, since = parameters, _loss_of(parameters, held_out), 0
    random = np.random.default_rng(seed)
    for _ in range(settings["epochs"]):
        batches = _batches(data, random.permutation(len(data)))
        parameters, state = _epoch(optimizer, parameters, state, batches)
        loss = _loss_of(parameters, held_out)
        best, least, since = (parameters, loss, 0) if loss < least else (best, least, since + 1)
        if since == _PATIENCE:
            break
    return {name: np.asarray(value) for name, value in best.items()}


def mean_slopes(parameters: Parameters, data: SequenceData) -> NDArray[np.float64]:
    """Mean absolute slope of the forecast in each value of the sequence (60, 2)."""
    slopes: NDArray[np.float32] = np.asarray(_slopes(parameters, data.sequence, data.columns))
    return np.asarray(np.abs(slopes).mean(axis=0, dtype=np.float64))


def _slopes_of(parameters: Parameters, sequence: Any, columns: Any) -> Any:
    return jax.grad(lambda given: forward(parameters, given, columns).sum())(sequence)


_slopes = jax.jit(_slopes_of)


@cache
def _optimizer(learning_rate: float) -> Any:
    """One object per rate, so that what is compiled for it is reused."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))


def _batches(data: SequenceData, order: NDArray[np.int64]) -> tuple[Any, ...]:
    """The rows in this order as equal batches (m, b, …); the remaining few are skipped in this epoch."""
    size = min(BATCH_ROWS, len(order))
    order = order[: len(order) // size * size].reshape(-1, size)
    return data.sequence[order], data.columns[order], data.target[order], data.weight[order]


def _loss(parameters: Parameters, batch: tuple[Any, ...]) -> Any:
    sequence, columns, target, weight = batch
    return (weight * optax.losses.huber_loss(forward(parameters, sequence, columns), target, delta=_HUBER)).mean()


def _loss_of(parameters: Parameters, data: SequenceData) -> float:
    forecast = predict(parameters, data.sequence, data.columns)
    return float(np.average(huber(_HUBER, forecast - data.target), weights=data.weight))


@partial(jax.jit, static_argnums=0)
def _epoch(optimizer: Any, parameters: Parameters, state: Any, batches: tuple[Any, ...]) -> Any:
    def step(carried: Any, batch: tuple[Any, ...]) -> Any:
        parameters, state = carried
        updates, state = optimizer.update(jax.grad(_loss)(parameters, batch), state)
        return (optax.apply_updates(parameters, updates), state), None

    return jax.lax.scan(step, (parameters, state), batches)[0]
