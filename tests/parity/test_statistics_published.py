"""Every digit of the published study, redone from its own history, and what an honest reading adds.

The file is not in the repository. XUEBU_SHARED_DATA names the folder that holds history/training_history_100k.json.
"""

import os
from pathlib import Path

import pytest

from xuebu.analysis.analyze import Analysis, analyze_history
from xuebu.analysis.chance import mean_of_readings
from xuebu.analysis.correlation import correlate
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.residuals import autocorrelation
from xuebu.history.importers import read_any

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    folder = os.environ.get("XUEBU_SHARED_DATA")
    if not folder:
        pytest.skip("XUEBU_SHARED_DATA is not set: the published history is not in the repository")
    path = Path(folder) / "history" / "training_history_100k.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return analyze_history(read_any(path))


def test_the_studys_own_digits(analysis: Analysis) -> None:
    pearson = analysis.correlations["pearson"]
    line = analysis.fits["linear"]
    assert analysis.num_points == 1000
    assert pearson.coefficient == pytest.approx(0.7869267513375451, abs=1e-14)
    assert line.r_squared == pytest.approx(0.6192537119706625, abs=1e-13)
    assert line.parameters["scale"] == pytest.approx(2.857e-6, abs=5e-10)
    naive = pearson.intervals[0]
    assert (naive.low, naive.high) == pytest.approx((0.762, 0.809), abs=5e-4)


def test_the_line_is_refuted_by_its_residuals_and_out_of_sample(analysis: Analysis) -> None:
    line, curve = analysis.fits["linear"], analysis.fits["saturating"]
    assert line.residuals is not None
    assert curve.residuals is not None
    assert line.rss == pytest.approx(4.18, abs=5e-3)
    assert line.residuals.durbin_watson == pytest.approx(0.48, abs=5e-3)
    assert line.residuals.lag1_autocorrelation == pytest.approx(0.7526, abs=5e-4)  # 0.756 as cor(e[1:], e[:-1])
    assert line.residuals.effective_size_ar1 == pytest.approx(141, abs=0.5)
    assert line.residuals.effective_size_lag_sum == pytest.approx(9, abs=0.1)
    assert curve.rss == pytest.approx(1.12, abs=5e-3)
    assert curve.residuals.lag1_autocorrelation == pytest.approx(0.09, abs=5e-3)
    assert curve.residuals.effective_size_lag_sum == pytest.approx(260, abs=2)
    assert curve.asymptote is not None
    assert curve.asymptote.value == pytest.approx(0.574, abs=5e-4)
    assert analysis.comparison is not None
    assert analysis.comparison.decision == "second"
    assert analysis.comparison.num_second_better == analysis.comparison.num_origins
    intervals = {interval.name: interval for interval in analysis.correlations["pearson"].intervals}
    assert intervals["ar1_linear"].p_value is None
    assert intervals["lag_sum_linear"].p_value is None
    assert intervals["likelihood"].recommended


def test_the_interval_to_quote_and_why_the_sizes_differ(analysis: Analysis) -> None:
    quoted = analysis.correlations["pearson"].recommended
    assert quoted is not None
    assert (quoted.low, quoted.high) == pytest.approx((0.749, 0.805), abs=3e-3)
    assert analysis.correlations["pearson"].strength() == "strong to very strong"
    sizes = {one.name: one.effective_size for one in analysis.correlations["pearson"].intervals}
    assert sizes["ar1_linear"] == pytest.approx(141, abs=0.5)
    assert sizes["lag_sum_linear"] == pytest.approx(9, abs=0.1)
    assert sizes["lag_sum_saturating"] == pytest.approx(260, abs=2)
    assert sizes["likelihood"] == pytest.approx(885, abs=30)
    line, curve = analysis.fits["linear"], analysis.fits["saturating"]
    value, step = analysis.series.value, analysis.series.step
    misfit, noise = (autocorrelation(value - fit.predict(step), 20) for fit in (line, curve))
    assert misfit[1] ** 10 < 0.06  # what AR(1) expects ten readings on
    assert misfit[10] == pytest.approx(0.71, abs=5e-3)  # what there is: a bend, not noise
    assert 0.02 < noise[1:21].mean() < 0.1


def test_given_the_learning_rate_and_in_differences(analysis: Analysis) -> None:
    given, levels, differences = analysis.associations
    assert given.coefficient == pytest.approx(0.670, abs=1e-3)
    assert given.quoted.low is not None and given.quoted.low > 0.6
    assert levels.coefficient == pytest.approx(-0.975, abs=1e-3)
    assert levels.p_value is None  # one trend in both: about one effective pair
    assert differences.coefficient == pytest.approx(-0.850, abs=1e-3)
    assert differences.quoted.high is not None and differences.quoted.high < -0.8


def test_the_first_half_against_what_happened(analysis: Analysis) -> None:
    half = analysis.series.part(0, 500)
    happened = mean_of_readings(analysis.series.value[-100:], 0.95)
    assert int(half.step[-1]) == 50_000
    assert happened.value == pytest.approx(0.580, abs=5e-4)
    line, curve = fit_curve(half, "linear"), fit_curve(half, "saturating")
    assert float(line.predict(100_000.0)) == pytest.approx(0.945, abs=5e-4)
    assert float(curve.predict(100_000.0)) == pytest.approx(0.553, abs=5e-4)
    assert curve.asymptote is not None
    assert (
        happened.value not in curve.asymptote
    )  # that interval supposes the curve, and the schedule had its fall ahead
    own = correlate(half, "pearson").coefficient
    assert own == pytest.approx(0.865, abs=5e-4)  # higher than over the whole run, and predicts worse
    assert own > analysis.correlations["pearson"].coefficient


def test_60_percent_is_not_reached_at_128k(analysis: Analysis) -> None:
    assert (0.60 - 0.15) / 3.5e-6 == pytest.approx(128_571, abs=1)
    line, curve = analysis.fits["linear"], analysis.fits["saturating"]
    crossing = (0.60 - line.parameters["offset"]) / line.parameters["scale"]
    assert crossing == pytest.approx(83_212, abs=1)
    near = (analysis.series.step > 78_000) & (analysis.series.step <= 88_000)
    assert analysis.series.value[near].mean() == pytest.approx(0.578, abs=5e-4)
    assert curve.asymptote is not None
    assert curve.asymptote.high is not None and curve.asymptote.high < 0.60


def test_200k_steps_do_not_give_87_percent(analysis: Analysis) -> None:
    assert analysis.forecast is not None
    own = analysis.forecast.of("saturating")
    assert own is not None
    assert analysis.forecast.target_step == 200_000
    assert own.value == pytest.approx(0.574, abs=1e-3)
    assert own.high < 0.6
    assert analysis.forecast.interval is not None
    assert analysis.forecast.interval.high is not None
    assert analysis.forecast.interval.high < 0.87
    flags = {finding.flag for finding in analysis.verdict}
    assert {"line_is_wrong_model", "nsp_at_chance", "few_predictions", "plateaued"} <= flags
