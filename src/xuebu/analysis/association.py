"""Two metrics of one run, or step and metric given the learning rate: how strongly they go together.

Two metrics that both rise correlate, whatever they have to do with each other. So they are held together in levels and
in differences (each reading less the one before): what two trends have in common is gone from the differences. Of step
and metric there are no differences worth the name: those of an even grid of steps are all alike.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.bootstrap import block_indices, block_length, redraw_noise
from xuebu.analysis.coefficients import MOST_RESAMPLED, coefficient_of, fisher_interval, strength_words
from xuebu.analysis.estimand import Coefficient
from xuebu.analysis.hac import automatic_lag, long_run_variance
from xuebu.analysis.honest import pair_memory, quote_pair, quote_step
from xuebu.analysis.influence import influence
from xuebu.analysis.intervals import Interval, student_quantile
from xuebu.analysis.likelihood import LEAST_READINGS, trend_noise
from xuebu.analysis.residuals import autocorrelation
from xuebu.analysis.surrogate import ShiftTest, shift_test
from xuebu.analysis.wording import plain
from xuebu.errors import InputError
from xuebu.history.records import History
from xuebu.history.series import Floats, Series
from xuebu.rng import key_of

Form = Literal["levels", "differences", "given"]
DRAWS: dict[Coefficient, int] = {"pearson": 1000, "spearman": 200, "kendall": 100}
FLAT = 1e-12
LOSSES = ("mlm_loss_nats", "loss_nats", "loss")
FORMS: tuple[Literal["levels", "differences"], ...] = ("levels", "differences")


@dataclass(frozen=True, slots=True)
class Association:
    """A coefficient of two metrics, with its intervals.

    Args:
        first: name of the one.
        second: name of the other.
        form: "levels", "differences", or "given" (partial).
        given: what is held fixed; "" for nothing.
        coefficient_name: which.
        coefficient: its value.
        num: pairs of readings.
        naive: interval as if all pairs were independent.
        naive_p_value: likewise.
        quoted: the interval to quote.
        hac: by the long-run variance of the influences (Newey and West); None for partial ones.
        bootstrap: by resampling in blocks; None above 50,000 pairs (Spearman 20,000, Kendall 10,000).
        p_value: of no association; None where fewer than 20 effective pairs are left.
        effective_size: number of independent pairs, by the likelihood of the influences.
        effective_size_product: by the sum of products of both autocorrelations; None for partial ones.
        shifts: test by circular shifts; None for partial ones.
        note: estimand, and what is assumed.
    """

    first: str
    second: str
    form: Form
    given: str
    coefficient_name: Coefficient
    coefficient: float
    num: int
    naive: Interval
    naive_p_value: float | None
    quoted: Interval
    hac: Interval | None
    bootstrap: Interval | None
    p_value: float | None
    effective_size: float
    effective_size_product: float | None
    shifts: ShiftTest | None
    note: str

    def headline(self) -> str:
        """Say in one line what goes together and how strongly."""
        told = f"{self.first} and {self.second}" + {"differences": ", in differences", "levels": ", in levels"}.get(
            self.form, f", {self.given} held fixed"
        )
        size = f"{self.num:,} pairs worth {self.effective_size:.0f}"
        ends = f"{self.quoted.low:.3f} to {self.quoted.high:.3f}" if self.quoted.low is not None else "no interval"
        word = strength_words(self.quoted)
        return f"{told}: {self.coefficient_name} {self.coefficient:.3f} ({ends}{f', {word}' if word else ''}; {size})"

    def summary(self) -> str:
        """Say the coefficient, every interval and the shift test."""
        lines = [self.headline()]
        for name in ("naive", "hac", "bootstrap"):
            one: Interval | None = getattr(self, name)
            if one is not None and one.low is not None:
                lines.append(f"  {name}: {one.low:.3f} to {one.high:.3f} ({one.method})")
        if self.p_value is not None:
            lines.append(f"  p = {self.p_value:.3g} of no association")
        if self.shifts is not None:
            lines.append(f"  {self.shifts.summary()}")
        return "\n".join([*lines, f"  {self.note}"])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        nested = ("naive", "quoted", "hac", "bootstrap", "shifts")
        found = {name: plain(getattr(self, name)) for name in self.__slots__ if name not in nested}
        return found | {name: one.to_json() if (one := getattr(self, name)) is not None else None for name in nested}


def aligned(first: Series, second: Series) -> tuple[Floats, Floats, Floats]:
    """Return the steps that both series have, and both metrics there.

    Raises:
        InputError: there are fewer than 8 such steps.
    """
    steps, one, two = np.intersect1d(first.step, second.step, assume_unique=True, return_indices=True)
    if steps.size < LEAST_READINGS:
        raise InputError(
            f"{first.metric} and {second.metric} share {steps.size} steps; at least {LEAST_READINGS} are needed: "
            "record both at the same steps"
        )
    return steps.astype(np.float64), first.value[one], second.value[two]


def associate(
    first: Series,
    second: Series,
    name: Coefficient = "pearson",
    *,
    form: Literal["levels", "differences"] = "levels",
    level: float = 0.95,
    seed: int = 0,
) -> Association:
    """Return how strongly two metrics go together, with naive and honest intervals.

    Args:
        first: one metric.
        second: another; only steps that both have count.
        name: which coefficient.
        form: "levels", or "differences" of neighboring readings.
        level: confidence level.
        seed: of bootstrap, draws and drawn shifts.

    Raises:
        InputError: fewer than 8 common steps, or one of the two does not change.

    Source: effective pairs by products of autocorrelations, n / (1 + 2 sum rho_x rho_y) up to the first product that is
    not above 2 / sqrt(n): Bartlett (1935), Pyper and Peterman (1998); pairs in blocks: Politis and Romano (1994); the
    interval to quote: `xuebu.analysis.honest`.
    """
    _, x, y = aligned(first, second)
    if form == "differences":
        x, y = np.diff(x), np.diff(y)
    for one, metric in ((x, first.metric), (y, second.metric)):
        if x.size < LEAST_READINGS or np.ptp(one) <= FLAT * max(1.0, float(np.abs(one).max())):
            raise InputError(f"{metric}: no change in {form}; a correlation takes {LEAST_READINGS} unlike readings")
    value, naive_p = coefficient_of(name, x, y)
    num = x.size
    low, high, method = fisher_interval(name, value, num, level)
    note = "the correlation of both metrics as they go on alike; two trends correlate in levels whatever causes them"
    if form == "differences":
        note = "the correlation of changes from one reading to the next; noise of single readings is doubled in them"
    found = {"naive": Interval(value, low, high, level, method, "pairs taken as independent")}
    moves = influence(name, x, y)
    if abs(value) >= 1 - 1e-9 or not np.ptp(moves):
        none = Interval(value, None, None, level, "none", "the two go together exactly")
        size, p_value, quoted, hac, bootstrap = float(num), None, none, None, None
    else:
        places = np.arange(num, dtype=np.float64)
        noise = trend_noise(places, moves[None, :], level_only=True)
        parts = pair_memory(x, y) if name == "pearson" else pair_memory(_ranks(x), _ranks(y))
        memory = trend_noise(places, parts, level_only=True)
        told = quote_pair(noise, memory, value, level=level, seed=key_of(seed, "association", name))
        size, p_value = told.effective_size, told.p_value
        quoted = Interval(
            value, told.low, told.high, level, "likelihood of the pairs' influences, on z", _doubt(told.refused)
        )
        lag = automatic_lag(moves)
        spread = math.sqrt(max(long_run_variance(moves, lag), 0.0) / num) / (1 - value**2)
        hac = _on_z(value, student_quantile(level, num - 1) * spread, level, f"Newey-West of influences, lag {lag}")
        bootstrap = _block_bootstrap(name, x, y, value, level=level, seed=seed) if num <= MOST_RESAMPLED[name] else None
    return Association(
        first=first.metric,
        second=second.metric,
        form=form,
        given="",
        coefficient_name=name,
        coefficient=value,
        num=num,
        naive=found["naive"],
        naive_p_value=naive_p,
        quoted=quoted,
        hac=hac,
        bootstrap=bootstrap,
        p_value=p_value,
        effective_size=size,
        effective_size_product=effective_size_product(x, y),
        shifts=shift_test(name, x, y, seed=seed),
        note=note,
    )


def partial_given(
    series: Series, given: Series, name: Coefficient = "pearson", *, level: float = 0.95, seed: int = 0
) -> Association:
    """Return the correlation of step and metric with another metric, such as the learning rate, held fixed.

    Args:
        series: the metric.
        given: what to hold fixed; between its own steps it is interpolated.
        name: Pearson; Spearman (Pearson of ranks); or Kendall (interval by block bootstrap alone).
        level: confidence level.
        seed: of draws and bootstrap.

    Raises:
        InputError: there are fewer than 8 readings, the metric is constant, or the step goes exactly with what is given
            (a learning rate that falls in a straight line).

    Source: partial correlation as that of what both leave when regressed on the given one; Kendall (1942), "Partial
    rank correlation"; interval as `quote_step`, the steps and the given metric taken as fixed.
    """
    step, value = series.step.astype(np.float64), series.value
    if len(series) < LEAST_READINGS or np.ptp(value) == 0:
        raise InputError(f"{series.metric}: a partial correlation takes {LEAST_READINGS} readings that differ")
    held = np.interp(step, given.step.astype(np.float64), given.value)
    x, y, z = (step, value, held) if name != "spearman" else (_ranks(step), _ranks(value), _ranks(held))
    columns = None if np.ptp(z) <= FLAT * max(1.0, float(np.abs(z).max())) else z[:, None]
    try:
        noise = trend_noise(x, y[None, :], columns)
    except ValueError:
        raise InputError(
            f"{given.metric} goes exactly with the step here: holding it fixed leaves nothing of the step"
        ) from None
    found = partial_value(name, x, y, z)
    naive_low, naive_high, method = fisher_interval(name, found, len(series) - 1, level)
    fitted = noise.columns[:, : int(noise.width[0])]
    if name == "kendall":
        size = len(series)
        mean = fitted @ (fitted.T @ y) if noise.block == 1 else y
        drawn = (
            np.concatenate(
                [
                    [partial_value(name, x, mean + row, z) for row in rows]
                    for rows in redraw_noise(y - mean, fitted.shape[1], DRAWS[name], key_of(seed, "partial"))
                ]
            )
            if noise.block == 1
            else np.zeros(0)
        )
        spread = float(np.arctanh(np.clip(drawn, -1 + 1e-12, 1 - 1e-12)).std(ddof=1)) if drawn.size else math.nan
        quoted = _on_z(
            found, student_quantile(level, max(1, size - fitted.shape[1])) * spread, level, "block bootstrap"
        )
        sizes, p_value = float(np.median(noise.draw(0, 1000, seed).effective_size)), None
        bootstrap: Interval | None = quoted
    else:
        told = quote_step(noise, "pearson", level=level, seed=key_of(seed, "partial", name))
        # Where few effective readings are left, the sample's value can lie beyond the middle 95 % of the posterior.
        low, high = min(told.low, found), max(told.high, found)
        quoted = Interval(found, low, high, level, "likelihood of trend and noise", _doubt(told.refused))
        sizes, p_value, bootstrap = told.effective_size, told.p_value, None
    return Association(
        first="step",
        second=series.metric,
        form="given",
        given=given.metric,
        coefficient_name=name,
        coefficient=found,
        num=len(series),
        naive=Interval(found, naive_low, naive_high, level, method, "readings taken as independent"),
        naive_p_value=None,
        quoted=quoted,
        hac=None,
        bootstrap=bootstrap,
        p_value=p_value,
        effective_size=sizes,
        effective_size_product=None,
        shifts=None,
        note=f"of the fixed grid of steps; {given.metric} taken out of step and {series.metric} by a straight line",
    )


def associations_of(history: History, series: Series, *, level: float = 0.95, seed: int = 0) -> tuple[Association, ...]:
    """Return what an analysis shows beside step and metric, by Pearson, as far as the history tells it.

    Args:
        history: of the run.
        series: the metric analyzed.
        level: confidence level.
        seed: of the bootstraps.

    Returns:
        Step and metric with the learning rate held fixed; metric and loss of the same records in levels and in
        differences. What cannot be computed (a rate that falls in a straight line) is left out.
    """
    found = []
    if history.has("train", "learning_rate"):
        with suppress(InputError):
            rate = history.column("train", "learning_rate")
            found.append(partial_given(series, rate, level=level, seed=seed))
    loss = next((one for one in LOSSES if one != series.metric and history.has(series.kind, one)), None)
    if loss is not None:
        other = history.column(series.kind, loss)
        for form in FORMS:
            with suppress(InputError):
                found.append(associate(series, other, form=form, level=level, seed=seed))
    return tuple(found)


def partial_value(name: Coefficient, x: Floats, y: Floats, z: Floats) -> float:
    """Return the partial coefficient of x and y given z (ranks, for Spearman); the plain one if z is constant."""
    kind: Coefficient = "kendall" if name == "kendall" else "pearson"
    xy = coefficient_of(kind, x, y)[0]
    if np.ptp(z) <= FLAT * max(1.0, float(np.abs(z).max())):
        return xy
    xz, yz = coefficient_of(kind, x, z)[0], coefficient_of(kind, y, z)[0]
    rest = (1 - xz * xz) * (1 - yz * yz)
    return max(-1.0, min(1.0, (xy - xz * yz) / math.sqrt(rest))) if rest > 0 else math.nan


def effective_size_product(x: Floats, y: Floats) -> float:
    """Return n / (1 + 2 sum of products of both autocorrelations), at most n; as in `associate`."""
    product = autocorrelation(x) * autocorrelation(y)
    small = np.flatnonzero(product[1:] <= 2 / math.sqrt(x.size))
    end = 1 + (int(small[0]) if small.size else x.size - 1)
    return min(float(x.size), x.size / (1 + 2 * float(product[1:end].sum())))


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _doubt(refused: bool) -> str:
    return "fewer than 20 effective readings: no p-value" if refused else ""


def _on_z(value: float, half: float, level: float, method: str) -> Interval:
    if not math.isfinite(half) or abs(value) >= 1:
        return Interval(value, None, None, level, method, "cannot be computed here")
    center = math.atanh(value)
    return Interval(value, math.tanh(center - half), math.tanh(center + half), level, method + ", on z")


def _block_bootstrap(name: Coefficient, x: Floats, y: Floats, value: float, *, level: float, seed: int) -> Interval:
    """Return the interval from resampling pairs in blocks, long enough for the more persistent of both."""
    length = max(block_length(x - x.mean()), block_length(y - y.mean()))
    found = np.concatenate(
        [
            _coefficients(name, x[rows], y[rows])
            for rows in block_indices(x.size, DRAWS[name], length, key_of(seed, "pairs", name))
        ]
    )
    found = found[np.isfinite(found)]
    spread = float(np.arctanh(np.clip(found, -1 + 1e-12, 1 - 1e-12)).std(ddof=1))
    half = student_quantile(level, max(1.0, x.size / length - 1)) * spread
    return _on_z(
        value, half, level, f"stationary block bootstrap of pairs, mean length {length:.1f}, {len(found)} draws"
    )


def _coefficients(name: Coefficient, x: Floats, y: Floats) -> Floats:
    """Return the coefficient of each row of two float64[b, n]; NaN where a row is constant."""
    if name == "kendall":
        return np.array(
            [
                coefficient_of(name, one, two)[0] if np.ptp(one) > 0 and np.ptp(two) > 0 else math.nan
                for one, two in zip(x, y, strict=True)
            ]
        )
    if name == "spearman":
        from scipy.stats import rankdata

        x, y = rankdata(x, axis=1), rankdata(y, axis=1)
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (x, y))
    length = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), length, out=np.full(length.size, np.nan), where=length > 0))
