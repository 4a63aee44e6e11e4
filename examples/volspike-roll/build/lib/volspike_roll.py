"""The effective spread that the returns of the last minutes imply.

Source: Roll, "A Simple Implicit Measure of the Effective Bid-Ask Spread in an Efficient Market", Journal of Finance 39
(1984): trades that bounce between bid and ask give consecutive returns the covariance -(spread / 2)^2.
"""

from math import log, nan, sqrt

from volspike.features import ExtraColumn, ExtraFeatures

DECAY = 0.5 ** (1 / 60)
"""Per second: a half-life of a minute."""

LEAST_SECONDS = 60


def update(state, inputs, out):
    """One second: the decayed mean of r(k) * r(k-1), and 10^4 * 2 * sqrt(-mean) where it is negative, else 0."""
    price, before, covariance, weight, seconds = state
    r = log(inputs[0] / price)
    if seconds >= 2:
        covariance = DECAY * covariance + r * before
        weight = DECAY * weight + 1.0
    state[:] = inputs[0], r, covariance, weight, seconds + 1
    if seconds + 1 >= LEAST_SECONDS:
        out[0] = 2e4 * sqrt(max(0.0, -covariance / weight))


ROLL = ExtraFeatures(
    name="roll",
    version="1",
    columns=(ExtraColumn("spread_bps", "basis points", "spread implied by the covariance of consecutive returns"),),
    inputs=("price",),
    initial=(nan, nan, 0.0, 0.0, 0.0),
    update=update,
)
