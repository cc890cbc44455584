import math

import numpy as np
import pytest

from xuebu.analysis.curves import FAMILIES, Family, basis, basis_gradient, has_shape, num_parameters
from xuebu.analysis.fit import binomial_weights, fit_curve, min_points, profile_fit
from xuebu.analysis.rates import rates_of
from xuebu.analysis.series import Series

STEP = np.arange(100, 10_001, 100)
SHAPES: dict[Family, float] = {"linear": 1.0, "logarithmic": 1.0, "power_law": 0.6, "saturating": 2500.0}


def curve(family: Family, offset: float = 0.6, scale: float = -0.4) -> np.ndarray:
    growth = 3e-5 if family == "linear" else 0.05 if family == "logarithmic" else scale
    return offset + growth * basis(family, STEP, SHAPES[family], 100.0)


def noisy(family: Family = "saturating", sigma: float = 0.01, seed: int = 0) -> Series:
    return Series(
        STEP, curve(family) + np.random.default_rng(seed).normal(scale=sigma, size=STEP.size), None, "mlm_accuracy"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_differences(family: Family) -> None:
    shape, step = SHAPES[family], np.array([100.0, 700.0, 9000.0])
    by_step, by_log_shape = basis_gradient(family, step, shape, 100.0)
    ahead, behind = basis(family, step + 0.01, shape, 100.0), basis(family, step - 0.01, shape, 100.0)
    assert by_step == pytest.approx((ahead - behind) / 0.02, rel=1e-5, abs=1e-12)
    more, less = (basis(family, step, shape * math.exp(move), 100.0) for move in (1e-6, -1e-6))
    assert by_log_shape == pytest.approx((more - less) / 2e-6, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_recovers_the_curve_without_noise(family: Family) -> None:
    found = fit_curve(Series(STEP, curve(family), None, "mlm_accuracy"), family)
    assert found.predict(STEP) == pytest.approx(curve(family), abs=1e-9)
    assert found.r_squared == pytest.approx(1.0)
    assert found.converged
    assert not found.at_bound
    if has_shape(family):
        assert found.parameters["shape"] == pytest.approx(SHAPES[family], rel=1e-6)
        assert found.asymptote is not None
        assert found.asymptote.value == pytest.approx(0.6, abs=1e-7)
    else:
        assert found.asymptote is None
    assert found.slope(STEP[3:5]) == pytest.approx(
        (found.predict(STEP[3:5] + 1) - found.predict(STEP[3:5] - 1)) / 2, rel=1e-4
    )


def test_the_best_of_a_fit_cannot_be_bettered_nearby() -> None:
    series = noisy(sigma=0.03)
    found = fit_curve(series, "saturating")
    for name in found.parameters:
        for factor in (0.999, 1.001):
            changed = {**found.parameters, name: found.parameters[name] * factor}
            other = changed["offset"] + changed["scale"] * basis("saturating", STEP, changed["shape"], 100.0)
            assert ((series.value - other) ** 2).sum() > found.rss


def test_the_fast_fit_of_many_series_equals_the_careful_one() -> None:
    many = [noisy(sigma=0.02, seed=seed) for seed in range(5)]
    offset, scale, shape = profile_fit("saturating", STEP.astype(float), np.stack([one.value for one in many], axis=1))
    for index, one in enumerate(many):
        careful = fit_curve(one, "saturating")
        assert shape[index] == pytest.approx(careful.parameters["shape"], rel=5e-3)
        fast = offset[index] + scale[index] * basis("saturating", STEP, shape[index], 100.0)
        assert ((one.value - fast) ** 2).sum() == pytest.approx(careful.rss, rel=1e-4)


def test_a_straight_run_has_no_asymptote_to_tell() -> None:
    found = fit_curve(noisy("linear", sigma=0.002), "saturating")
    assert found.at_bound
    assert found.asymptote is not None
    assert found.asymptote.low is None
    assert found.standard_errors["shape"] is None
    assert "no bend" in found.note


def test_a_falling_curve_is_fitted_as_well() -> None:
    values = 3.0 + 5.0 * np.exp(-STEP / 2000)
    found = fit_curve(Series(STEP, values, None, "mlm_loss_nats"), "saturating")
    assert found.asymptote is not None
    assert found.asymptote.value == pytest.approx(3.0, abs=1e-6)
    assert found.parameters["scale"] > 0


def test_step_zero_does_no_harm() -> None:
    step = np.arange(0, 2001, 50)
    for family in FAMILIES:
        found = fit_curve(Series(step, 0.2 - 0.15 * np.exp(-step / 600), None, "mlm_accuracy"), family)
        assert np.isfinite(found.predict(step)).all()


def test_weights_pull_the_fit_toward_readings_of_many_predictions() -> None:
    count = np.where(STEP <= 5000, 10_000, 100)
    value = np.where(STEP <= 5000, 0.3, 0.5)
    series = Series(STEP, value + 1e-3 * np.sin(STEP), count, "mlm_accuracy")
    weights = binomial_weights(series)
    assert weights is not None
    weighted, plain = fit_curve(series, "linear", weights=weights), fit_curve(series, "linear")
    assert abs(weighted.predict(2500.0) - 0.3) < abs(plain.predict(2500.0) - 0.3)
    root = np.sqrt(weights)
    expected = np.linalg.lstsq(np.stack([root, root * STEP], axis=1), root * series.value, rcond=None)[0]
    assert [weighted.parameters["offset"], weighted.parameters["scale"]] == pytest.approx(expected, rel=1e-9)
    assert binomial_weights(noisy()) is None


def test_equal_weights_change_nothing() -> None:
    series = noisy()
    plain, weighted = fit_curve(series, "saturating"), fit_curve(series, "saturating", weights=np.full(STEP.size, 7.0))
    assert plain.to_json() == weighted.to_json()


def test_too_few_readings_are_refused() -> None:
    for family in FAMILIES:
        assert min_points(family) > num_parameters(family)
        few = noisy().part(0, min_points(family) - 1)
        with pytest.raises(ValueError, match="takes at least"):
            fit_curve(few, family)


def test_intervals_of_asymptote_and_rates_cover() -> None:
    """50 runs of a saturating curve with correlated noise: each 95 % interval holds its truth in 43 or more."""
    truth_end = 0.4 * math.exp(-(10_000 - 100) / 2500) / 2500 * 1e6
    expected = curve("saturating")
    design = np.stack([np.ones(STEP.size), STEP], axis=1)
    truth_line = float(np.linalg.lstsq(design, expected, rcond=None)[0][1]) * 1e6
    truth_third = float(np.polyfit(STEP[-33:], expected[-33:], 1)[0]) * 1e6
    hits = np.zeros(4)
    for seed in range(50):
        noise = np.random.default_rng(seed).normal(scale=0.01, size=STEP.size + 100)
        for index in range(1, noise.size):
            noise[index] += 0.4 * noise[index - 1]
        series = Series(STEP, expected + noise[100:], None, "mlm_accuracy")
        line, bent = fit_curve(series, "linear"), fit_curve(series, "saturating")
        rates = rates_of(series, line, bent)
        assert bent.asymptote is not None
        assert rates.end_of_curve is not None
        assert rates.last_third is not None
        rated = (truth_line in rates.line, truth_third in rates.last_third, truth_end in rates.end_of_curve)
        hits += [0.6 in bent.asymptote, *rated]
    assert (hits >= 43).all(), hits


def test_rates_have_the_unit_of_their_metric() -> None:
    series = noisy(sigma=0.001)
    line, bent = fit_curve(series, "linear"), fit_curve(series, "saturating")
    rates = rates_of(series, line, bent)
    assert rates.unit == "percentage points per 10,000 steps"
    assert rates.line.value == pytest.approx(line.parameters["scale"] * 1e6)
    assert rates.last_third is not None
    assert rates.end_of_curve is not None
    assert rates.line.value > rates.last_third.value > rates.end_of_curve.value > 0
    loss = Series(STEP, 1 - series.value, None, "mlm_loss_nats")
    of_loss = rates_of(loss, fit_curve(loss, "linear"), None)
    assert of_loss.unit == "nats per 10,000 steps"
    assert of_loss.line.value == pytest.approx(-line.parameters["scale"] * 1e4)
    assert of_loss.end_of_curve is None
    assert "per 10,000 steps" in rates.summary()
    assert rates.to_json()["last_third"]["value"] == rates.last_third.value


def test_few_readings_have_a_slope_without_an_interval() -> None:
    series = noisy().part(0, 6)
    rates = rates_of(series, fit_curve(series, "linear"), None)
    assert rates.line.low is None
    assert rates.last_third is None
