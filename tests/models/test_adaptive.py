"""Online calibration: probabilities come true on the product they are applied to, live as in a replay."""

from __future__ import annotations

import math
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit

from volspike.errors import DataError
from volspike.models.adaptive import (
    CENTRE_LOG_ODDS,
    CENTRE_LOG_RATIO,
    EVENTS_NEEDED,
    LEAST,
    MEMORY_S,
    RATIO_OFFSET,
    SIZE,
    OnlineCalibration,
    calibration_inputs,
)
from volspike.models.metadata import Adaptation

HORIZON = 5
PRIOR = Adaptation(
    listed=(CENTRE_LOG_ODDS, 1.0, 0.0, 0.0, 0.0, 0.0),
    unlisted=(-3.0, 0.5, 0.1, 0.2, 0.3, 0.4),
    deviation=0.5,
    alert_log_odds=-1.0,
)
TAU = 1e-4

Floats = NDArray[np.float64]


class Rows:
    """Rows of a product in time order, some of them in the same second, some with unknown values."""

    def __init__(self, count: int, seed: int, *, every_second: bool) -> None:
        random = np.random.default_rng(seed)
        steps = random.integers(1, 3, count) if every_second else random.integers(0, 4, count)
        self.second = 1_700_000_000 + np.cumsum(steps)
        self.probability = self._unknown(random, expit(random.normal(-2.0, 2.0, count)))
        self.volatilities = self._unknown(random, TAU * np.exp(random.normal(-0.7, 0.8, (count, SIZE - 2))))
        self.tau = self._unknown(random, np.full(count, TAU))
        self.volatility = self._unknown(random, TAU * np.exp(random.normal(-0.7, 1.0, count)))
        self.is_per_second = every_second

    def _unknown(self, random: np.random.Generator, values: Floats) -> Floats:
        values[random.random(values.shape) < 0.03] = nan
        return values

    def replayed(self, calibration: OnlineCalibration, part: slice = slice(None)) -> Floats:
        return calibration.run(
            self.second[part],
            self.probability[part],
            self.volatilities[part],
            self.tau[part],
            self.volatility[part],
            is_per_second=self.is_per_second,
        )

    def live(self, calibration: OnlineCalibration, cut: int = -1) -> tuple[Floats, OnlineCalibration]:
        """The probabilities of rows that arrive one by one; before row ``cut`` the calibration is saved and loaded."""
        lag = HORIZON + (0 if self.is_per_second else 1)
        known, scored = 0, []
        for row, second in enumerate(self.second.tolist()):
            if row == cut:
                saved, calibration = calibration.dump(), calibration_of()
                assert calibration.load(saved)
            while self.second[known] + lag <= second:
                if self.second[known] != self.second[known + 1]:
                    calibration.observe(int(self.second[known]), float(self.volatility[known]))
                known += 1
            volatilities = self.volatilities[row].tolist()
            scored.append(
                calibration.probability(second, float(self.probability[row]), volatilities, float(self.tau[row]))
            )
        return np.array(scored), calibration


def calibration_of(*, is_listed: bool = False) -> OnlineCalibration:
    return OnlineCalibration(PRIOR, is_listed=is_listed, horizon=HORIZON)


@given(st.integers(1, 80), st.integers(0, 1000), st.booleans(), st.integers(0, 80))
def test_live_rows_and_recorded_rows_have_the_same_bits(count: int, seed: int, every_second: bool, cut: int) -> None:
    """Rows one by one give the probabilities, coefficients and events of a replay, even across a restart."""
    rows = Rows(count, seed, every_second=every_second)
    replay = calibration_of()
    replayed = rows.replayed(replay)
    live, calibration = rows.live(calibration_of(), cut)
    assert live.tobytes() == replayed.tobytes()
    assert calibration.coefficients.tobytes() == replay.coefficients.tobytes()
    assert calibration.events == replay.events


@given(st.integers(0, 1000), st.booleans(), st.integers(1, 60))
def test_later_rows_change_no_earlier_probability(seed: int, every_second: bool, end: int) -> None:
    """A replay of the first rows gives the first probabilities of a replay of all, whatever follows."""
    rows = Rows(60, seed, every_second=every_second)
    complete, begun = rows.replayed(calibration_of()), rows.replayed(calibration_of(), slice(end))
    assert begun.tobytes() == complete[:end].tobytes()


@given(st.integers(0, 1000))
def test_an_outcome_counts_from_the_row_at_which_it_is_known(seed: int) -> None:
    """Another outcome of the first second changes the probabilities of all rows a horizon later, and none before."""
    rows = Rows(40, seed, every_second=True)
    rows.probability[0], rows.volatilities[0], rows.tau[0] = 0.2, TAU, TAU
    rows.volatility[0] = 2 * TAU
    spike = rows.replayed(calibration_of())
    rows.volatility[0] = TAU / 2
    calm = rows.replayed(calibration_of())
    before = rows.second - rows.second[0] < HORIZON
    assert spike[before].tobytes() == calm[before].tobytes()
    after = ~before & ~np.isnan(calm)
    assert (spike[after] != calm[after]).all()


def test_the_filter_is_that_of_the_formulas() -> None:
    """Mean and covariance equal a NumPy version of one Newton step per outcome with a return to the prior."""
    rows = Rows(200, 3, every_second=True)
    calibration = calibration_of()
    scored = rows.replayed(calibration)
    prior, variance = np.array(PRIOR.unlisted), PRIOR.deviation**2
    mean, covariance = prior.copy(), np.eye(SIZE) * variance
    inputs = calibration_inputs(rows.probability, rows.volatilities, rows.tau)
    kept = 1 - 1 / MEMORY_S
    known = 0
    for row, second in enumerate(rows.second):
        while rows.second[known] + HORIZON <= second:
            x = inputs[known]
            if np.isfinite(x).all() and np.isfinite(rows.volatility[known]):
                mean = prior + kept * (mean - prior)
                covariance = kept**2 * covariance + (1 - kept**2) * variance * np.eye(SIZE)
                expected = expit(x @ mean)
                precision = np.linalg.inv(covariance) + expected * (1 - expected) / HORIZON * np.outer(x, x)
                covariance = np.linalg.inv(precision)
                mean = mean + covariance @ x * (float(rows.volatility[known] >= TAU) - expected) / HORIZON
            known += 1
        np.testing.assert_allclose(scored[row], expit(inputs[row] @ mean), rtol=1e-9)
    np.testing.assert_allclose(calibration.coefficients, mean, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_model_of_another_market_is_corrected_within_a_day(factor: float) -> None:
    """Odds five times too high or too low come true in every fifth of the probabilities after a day of outcomes."""
    random = np.random.default_rng(5)
    count = 3 * 86_400
    minutes = random.normal(-3.0, 1.0, count // 60 + 2)
    log_odds = np.interp(np.arange(count) / 60, np.arange(len(minutes)), minutes)
    spike = np.repeat(random.random(count // 60), 60) < expit(log_odds)
    calibration = OnlineCalibration(PRIOR, is_listed=True)
    scored = calibration.run(
        np.arange(count),
        expit(log_odds + math.log(factor)),
        np.full((count, SIZE - 2), TAU / 2),
        np.full(count, TAU),
        np.where(spike, 2.0, 0.5) * TAU,
    )
    later = slice(86_400, None)
    for part in np.array_split(np.argsort(scored[later]), 5)[1:]:
        assert spike[later][part].mean() == pytest.approx(scored[later][part].mean(), rel=0.2)


def test_without_outcomes_the_prior_decides() -> None:
    """A listed product has the model's probability, any other one that is shrunk towards the volatilities."""
    row = (1_700_000_000, 0.3, [TAU / 2] * (SIZE - 2), TAU)
    assert calibration_of(is_listed=True).probability(*row) == pytest.approx(0.3)
    inputs = [1.0, logit(0.3) - CENTRE_LOG_ODDS, *[math.log(0.5 + RATIO_OFFSET) - CENTRE_LOG_RATIO] * 4]
    assert calibration_of().probability(*row) == pytest.approx(expit(np.dot(inputs, PRIOR.unlisted)))


@pytest.mark.parametrize(
    ("probability", "volatility", "tau"),
    [(nan, TAU, TAU), (0.3, nan, TAU), (0.3, TAU, nan), (0.3, TAU, 0.0), (0.3, math.inf, TAU)],
)
def test_a_row_with_an_unknown_input_is_not_scored(probability: float, volatility: float, tau: float) -> None:
    """Its probability is unknown, and its outcome teaches nothing."""
    calibration = calibration_of()
    assert isnan(calibration.probability(100, probability, [TAU, volatility, TAU, TAU], tau))
    calibration.observe(100, 2 * TAU)
    assert calibration.coefficients.tolist() == list(PRIOR.unlisted)
    assert calibration.events == 0


def test_certain_probabilities_stay_finite() -> None:
    """0 and 1 are kept away from certainty, whatever the outcome."""
    calibration = calibration_of(is_listed=True)
    for second, probability in enumerate([0.0, 1.0] * 50):
        assert LEAST <= calibration.probability(second, probability, [0.0] * (SIZE - 2), TAU) <= 1 - LEAST
        calibration.observe(second, 2 * TAU * (second % 4 < 2))
    assert np.isfinite(calibration.coefficients).all()


def spikes_at(calibration: OnlineCalibration, seconds: list[int]) -> None:
    for second in seconds:
        calibration.probability(second, 0.1, [TAU] * (SIZE - 2), TAU)
        calibration.observe(second, TAU)


def test_spikes_less_than_a_horizon_apart_are_one_event() -> None:
    """A spike exactly a horizon after the last one is the next event, and a volatility of exactly τ is a spike."""
    calibration = calibration_of()
    spikes_at(calibration, [100, 104, 108, 108 + HORIZON])
    assert calibration.events == 2


def test_it_is_calibrated_from_twenty_events_on() -> None:
    """Nineteen separate spikes are too few."""
    calibration = calibration_of()
    spikes_at(calibration, [HORIZON * event for event in range(1, EVENTS_NEEDED)])
    assert not calibration.is_calibrated
    spikes_at(calibration, [HORIZON * EVENTS_NEEDED])
    assert calibration.is_calibrated


def test_a_state_of_another_prior_is_not_loaded() -> None:
    """The coefficients of another model mean nothing to this one."""
    saved, other = calibration_of(is_listed=True), calibration_of()
    spikes_at(saved, [100])
    assert not other.load(saved.dump())
    assert other.coefficients.tolist() == list(PRIOR.unlisted)


@pytest.mark.parametrize("damage", [lambda blob: b"", lambda blob: blob[: len(blob) // 2], lambda blob: b"\xff" + blob])
def test_a_damaged_state_is_refused(damage: object) -> None:
    """An incomplete or foreign state raises."""
    assert callable(damage)
    with pytest.raises(DataError, match="calibration"):
        calibration_of().load(damage(calibration_of().dump()))
