"""A forecast as many paths: laws weighted by how well they forecast within the run, spread to hold on unseen runs.

Every law of the grid (`laws`), on every reading of the schedule (`annealing`), is fitted to the run from four starting
points. Each fit is also made at ten earlier moments of the run and asked for what came next. The weight of a fit is its
prior over the mean squared error of those forecasts and over that of its own last residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.analysis.annealing import SHAPES, Schedule, forward_area, make_schedule, multi_power_drop, tissue_drop
from xuebu.analysis.laws import LawGrid, law_grid, solve_rows
from xuebu.history.series import Floats

Flags = npt.NDArray[np.bool_]

MIN_READINGS = 10
MIN_BINS = 8
MIN_PAST = 6
MIN_LATER = 2
GRID_AHEAD = 64
REACHED_OVER = 0.05
LEAST_AREA = 1e-6
OVER = 0.9
_KNOTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """The constants of the forecast: few, global, none of one curve; docs/forecasts.md says where each comes from."""

    num_bins: int = 120
    """The readings are averaged into at most so many spans of equal length."""
    starts: tuple[float, ...] = (0.03, 0.12, 0.3, 0.5)
    """Shares of the run seen at which the fits begin: early training often follows another law."""
    origins: tuple[float, ...] = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of the run seen from which past forecasts are made."""
    drops: tuple[float, ...] = (0.3, 0.6, 0.9)
    """What a whole decay of the learning rate takes off, in units of the present distance to the asymptote."""
    unannealed: float = 0.15
    """Prior mass of laws that see no annealing, where the schedule is recorded."""
    constant: float = 0.125
    """Prior mass of a rate that never falls, where the schedule is not recorded."""
    spread: float = 0.45
    """Factor on the spread of the paths, so that 90 % intervals hold on families of runs left out."""
    scarcity: float = 12.0
    """The spread is `spread` * (1 + scarcity / readings), at most `num_bins` of them counted."""
    floor: float = 0.25
    """Least spread of the paths, as a share of the expected move from the present level."""
    changed: float = 1.3
    """Factor on the spread where a run that is over is carried to another schedule."""
    rise: float = 0.2
    """Of a run that is only beginning: the 95 % quantile lies above the center by at least this share of the way to the
    level that ends the beginning, for each unit of the logarithm of the steps."""
    rise_anew: float = 0.7
    """The same where a run of another schedule from its start on is asked for."""


DEFAULTS = EnsembleSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """What may come: equally likely paths of the noise-free level.

    Args:
        step: float64[g], steps ahead, increasing, the last the end of the horizon.
        center: float64[g], the path expected.
        level: float64[k, g].
        reading: float64[k, g], the level as readings averaged over a twentieth of the horizon would show it.
        noise: standard error of a mean of the readings in the window asked for.
        now: present level, the mean of the last tenth of what was seen.
        flat: probability that there is no trend at all, 0 to 1.
        laws: share of each law in the forecast.
        clocks: share of each reading of the schedule.
        num_readings: readings the forecast is made of.
        num_origins: earlier moments it was tried at.
    """

    step: Floats
    center: Floats
    level: Floats
    reading: Floats
    noise: float
    now: float
    flat: float
    laws: Mapping[str, float]
    clocks: Mapping[str, float]
    num_readings: int
    num_origins: int


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The run so far, in bins, clocks, and how noisy its readings are."""

    step: Floats
    value: Floats
    count: Floats
    progress: Floats
    span: float


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Curves up to offset and scale: their basis where readings are [j, n] and ahead [j, g], and what each is."""

    seen: Floats
    ahead: Floats
    prior: Floats
    law: list[str]
    clock: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """All candidates fitted from one starting point: levels ahead [j, g], log weights [j], residuals [j, n]."""

    level: Floats
    log_weight: Floats
    residual: Floats
    num_origins: int


@dataclass(frozen=True, slots=True)
class _Noise:
    """Independent noise of readings: the variance of one, and how many there are a step."""

    variance: float
    density: float

    def of_mean(self, steps: float) -> float:
        """Return the standard error of a mean over so many steps."""
        return math.sqrt(self.variance / max(1.0, self.density * steps))

    def smoothed(self, rng: np.random.Generator, num: int, ahead: Floats, width: float) -> Floats:
        """Return noise [num, g] of running means over `width` steps, at the steps ahead."""
        knots = max(1, int((ahead[-1] - ahead[0]) / width * _KNOTS) + 1)
        white = rng.standard_normal((num, knots + _KNOTS)) * self.of_mean(width / _KNOTS)
        total = np.cumsum(white, axis=1)
        mean = (total[:, _KNOTS:] - total[:, :-_KNOTS]) / _KNOTS
        at = np.minimum(((ahead - ahead[0]) / width * _KNOTS).astype(np.int64), knots - 1)
        return np.asarray(mean[:, at])


def forecast_paths(
    step: Floats,
    value: Floats,
    *,
    window: tuple[float, float],
    schedule: Schedule | None = None,
    future: Schedule | None = None,
    weight: Floats | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    beginning: float | None = None,
    num_paths: int = 400,
    seed: int = 0,
    settings: EnsembleSettings = DEFAULTS,
) -> Paths:
    """Forecast the level of a metric from the last step seen to the end of a window.

    Args:
        step: float64[n], strictly increasing, n >= MIN_READINGS.
        value: float64[n], finite readings.
        window: first and last step over which a mean is asked for; the last lies beyond the last step seen.
        schedule: the learning rate of the run seen, as far as `window`; None where it is not known: then constant,
            linear, cosine and late-decay schedules that end with the window are averaged over.
        future: the schedule to forecast, if another than `schedule`; a run of its own from step 0 on.
        weight: float64[n] > 0, e.g. predictions behind each reading.
        bounds: values that the metric cannot pass.
        beginning: a level that the run is to come to before a rise that no law foresees need not be feared; None if it
            is there already, or none is known.
        num_paths: how many.
        seed: of the noise; same arguments, same paths.
        settings: the constants.

    Raises:
        ValueError: too few readings, or nothing lies ahead.

    Source: weights by past forecasts as Bates and Granger (1969); rolling origins: Tashman (2000). Flatness: the
    difference of the Bayesian information criteria (Schwarz 1978) of a constant and of the best curve, for the
    effective number of independent readings. Spread: split conformal prediction (Vovk et al. 2005) between families.
    """
    seen = _bin(step, clip_spikes(value), weight, settings.num_bins)
    if len(step) < MIN_READINGS:
        raise ValueError(f"{len(step)} readings are too few for a forecast; at least {MIN_READINGS} are needed")
    if seen.step.size < MIN_BINS:
        raise ValueError(
            f"the readings crowd in {seen.step.size} of {settings.num_bins} equal spans of the run; "
            f"readings in at least {MIN_BINS} are needed"
        )
    if window[1] <= step[-1]:
        raise ValueError(f"step {window[1]:g} is not beyond the last step {step[-1]:g}")
    ahead = np.linspace(float(step[-1]), window[1], GRID_AHEAD + 1)[1:]
    candidates = _candidates(seen, ahead, (schedule, future), settings)
    moments = np.array(settings.origins)
    origins = np.stack([moments, moments * (window[1] / float(step[-1])) * (1 + 1e-9)], axis=1)
    starts = [start for start in settings.starts if (seen.progress >= start).sum() >= MIN_BINS] or [0.0]
    fits = [_fit(seen, candidates, start, bounds, origins) for start in starts]
    weights = np.concatenate([fit.log_weight for fit in fits])
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    best = max(fits, key=lambda fit: float(fit.log_weight.max()))
    late = seen.progress > 0.5
    inflation = _inflation(best.residual[int(best.log_weight.argmax())][late])
    noise = _Noise(_reading_variance(seen, late), float(seen.count[late].sum()) / (0.5 * seen.span))
    rng = np.random.default_rng(seed)
    center, paths = _resample(np.concatenate([fit.level for fit in fits]), weights, ahead >= window[0], num_paths)
    now = float(np.average(seen.value[-_tenth(seen) :], weights=seen.count[-_tenth(seen) :]))
    changed, anew = _changes(seen, schedule, future)
    spread = settings.spread * (1 + settings.scarcity / seen.step.size) * (settings.changed if changed else 1.0)
    floor = settings.floor * np.abs(center - now)
    paths = center + spread * (paths - center + rng.standard_normal((num_paths, 1)) * floor)
    paths = paths + rng.standard_normal((num_paths, 1)) * noise.of_mean(0.5 * seen.span)
    flat, level, error = _flatness(seen, fits[0].residual, settings.starts[0])
    center = np.clip((1 - flat) * center + flat * level, *bounds)
    constant = rng.permutation(num_paths)[: round(flat * num_paths)]
    paths[constant] = level + error * rng.standard_normal((constant.size, 1))
    if beginning is not None:
        share = settings.rise_anew if anew else settings.rise
        paths = _with_rise(paths, center, share * np.log(ahead / float(step[-1])) * (beginning - now))
    paths = np.clip(paths, *bounds)
    return Paths(
        step=ahead,
        center=center,
        level=paths,
        reading=paths + noise.smoothed(rng, num_paths, ahead, REACHED_OVER * window[1]),
        noise=noise.of_mean(window[1] - window[0]) * math.sqrt(inflation),
        now=now,
        flat=flat,
        laws=_shares(candidates.law * len(fits), weights, flat),
        clocks=_shares(candidates.clock * len(fits), weights, flat),
        num_readings=len(step),
        num_origins=best.num_origins,
    )


def clip_spikes(value: Floats) -> Floats:
    """Return readings with lone spikes brought back to 5 robust standard deviations around a running median of 9.

    Where more than half of the readings equal their neighbors there is no such measure, and nothing is changed.
    """
    if value.size < 27:
        return value
    padded = np.pad(value, 4, mode="edge")
    median = np.median(np.lib.stride_tricks.sliding_window_view(padded, 9), axis=1)
    away = value - median
    scale = 1.4826 * float(np.median(np.abs(away)))
    return value if scale == 0 else median + np.clip(away, -5 * scale, 5 * scale)


def _bin(step: Floats, value: Floats, weight: Floats | None, num: int) -> _Seen:
    """Return means over spans of equal length, weighted; `count` is the number of readings in each, by weight."""
    share = np.ones_like(value) if weight is None else weight / weight.mean()
    first, last = float(step[0]), float(step[-1])
    if step.size > num:
        at = np.minimum(((step - first) / (last - first) * num).astype(np.int64), num - 1)
        total = np.bincount(at, share, num)
        kept = total > 0
        step = np.bincount(at, share * step, num)[kept] / total[kept]
        value = np.bincount(at, share * value, num)[kept] / total[kept]
        share = total[kept]
    return _Seen(step, value, share, (step - first) / (last - first), last - first)


def _candidates(
    seen: _Seen, ahead: Floats, schedules: tuple[Schedule | None, Schedule | None], settings: EnsembleSettings
) -> _Candidates:
    """Return every law on every clock: steps, the forward area, and the forward area with annealing."""
    schedule, future = schedules
    made: list[tuple[LawGrid, Floats | None, float, str]] = []
    now, both = float(seen.step[-1]), np.concatenate([seen.step, ahead])

    def split(function: Callable[[Schedule, Floats], Floats], past: Schedule, later: Schedule) -> Floats:
        # Both in units of the past's peak: a change during the warm-up may never reach it.
        return np.concatenate([function(past, seen.step), function(later, ahead) * (later.peak / past.peak)])

    if schedule is not None and float(forward_area(schedule, now)) > LEAST_AREA * now:
        later = future or schedule
        grid = law_grid(split(forward_area, schedule, later) / float(forward_area(schedule, now)))
        drops = [
            ("tissue", split(tissue_drop, schedule, later)),
            ("multi_power", split(multi_power_drop, schedule, later)),
        ]
        falls = max(float(drop.max()) for _, drop in drops) > 1e-6
        plain = settings.unannealed if falls else 1.0
        made = [(law_grid(both / now), None, plain / 2, "steps"), (grid, None, plain / 2, "forward_area")]
        made += [(grid, drop, (1 - plain) / 2, name) for name, drop in drops if falls]
    else:
        made = [(law_grid(both / now), None, settings.constant, "constant")]
        for shape in SHAPES[1:]:
            assumed = make_schedule(shape, float(ahead[-1]))
            area = forward_area(assumed, both)
            grid = law_grid(area / float(forward_area(assumed, now)))
            made.append((grid, multi_power_drop(assumed, both), (1 - settings.constant) / 3, shape))
    rows: list[Floats] = []
    priors: list[Floats] = []
    laws: list[str] = []
    clocks: list[str] = []
    for grid, drop, mass, name in made:
        for factor in (0.0,) if drop is None else settings.drops:
            rows.append(grid.basis if drop is None else grid.basis - factor * drop)
            priors.append(grid.prior * mass / (1 if drop is None else len(settings.drops)))
            laws += grid.law
            clocks += [name] * len(grid.law)
    basis = np.concatenate(rows)
    return _Candidates(basis[:, : seen.step.size], basis[:, seen.step.size :], np.concatenate(priors), laws, clocks)


def _fit(seen: _Seen, candidates: _Candidates, start: float, bounds: tuple[float, float], origins: Floats) -> _Fit:
    """Fit all candidates from one starting point, now and at earlier moments.

    Args:
        seen: the run.
        candidates: the curves.
        start: share of the run at which the fits begin.
        bounds: of the offset.
        origins: float64[m, 2], first and last step share of each past forecast.
    """
    used = seen.progress >= start
    tiny = 1e-10 * float(seen.value.var()) + 1e-30
    share = seen.step / seen.step[-1]
    errors = []
    for origin, end in origins.tolist():
        past, later = used & (share <= origin), (share > origin) & (share <= end)
        if past.sum() < MIN_PAST or later.sum() < MIN_LATER:
            continue
        offset, scale = solve_rows(candidates.seen[:, past], seen.value[past], seen.count[past], bounds)
        miss = seen.value[later] - offset[:, None] - scale[:, None] * candidates.seen[:, later]
        errors.append(np.log(miss**2 @ seen.count[later] / seen.count[later].sum() + tiny))
    offset, scale = solve_rows(candidates.seen[:, used], seen.value[used], seen.count[used], bounds)
    residual = seen.value - offset[:, None] - scale[:, None] * candidates.seen
    late = seen.progress > 0.5
    own = np.log(residual[:, late] ** 2 @ seen.count[late] / seen.count[late].sum() + tiny)
    past_error = np.mean(errors, axis=0) if errors else np.zeros_like(own)
    level = offset[:, None] + scale[:, None] * candidates.ahead
    return _Fit(level, np.log(candidates.prior) - own - past_error, residual, len(errors))


def _resample(levels: Floats, weights: Floats, inside: Flags, num: int) -> tuple[Floats, Floats]:
    """Return the center and `num` equally likely paths: the candidates at weighted quantiles of the level asked for."""
    asked = levels[:, inside].mean(axis=1) if inside.any() else levels[:, -1]
    order = np.argsort(asked, kind="stable")
    cumulated = np.cumsum(weights[order])
    at = np.searchsorted(cumulated, (np.arange(num) + 0.5) / num)
    paths = levels[order[np.minimum(at, order.size - 1)]]
    middle = paths[num // 2 - 2 : num // 2 + 2].mean(axis=0)
    return (middle + paths.mean(axis=0)) / 2, paths


def _changes(seen: _Seen, schedule: Schedule | None, future: Schedule | None) -> tuple[bool, bool]:
    """Say whether a run that is over is carried to another schedule, and whether to one that differs from its start."""
    if schedule is None or future is None:
        return False, False
    over = float(seen.step[-1]) >= OVER * float(schedule.step[-1])
    apart = np.abs(future.at(seen.step) - schedule.at(seen.step))
    return over, bool(apart.max() > 1e-3 * schedule.peak)


def _with_rise(paths: Floats, center: Floats, reach: Floats) -> Floats:
    """Return the paths, those above the middle no nearer to the center than a rise asks for.

    Args:
        paths: float64[k, g].
        center: float64[g].
        reach: float64[g], signed: how far from the center the 95 % quantile is to be at least.
    """
    sign = math.copysign(1.0, float(reach[-1]))
    away = sign * (paths - center)
    rank = (np.argsort(np.argsort(away[:, -1], kind="stable")) + 0.5) / away.shape[0]
    asked = (rank[:, None] - 0.5) / 0.45 * np.abs(reach)
    return np.asarray(center + sign * np.where(rank[:, None] > 0.5, np.maximum(away, asked), away))


def _tenth(seen: _Seen) -> int:
    return max(2, seen.step.size // 10)


def _reading_variance(seen: _Seen, late: Flags) -> float:
    """Return the variance of one reading around the level, from second differences of neighboring bins."""
    value, count = seen.value[late], seen.count[late]
    if value.size < 4:
        return 0.0
    return float(np.mean(np.diff(value, 2) ** 2) / 6 * count.mean())


def _inflation(residual: Floats) -> float:
    """Return the variance inflation of a mean by first-order autocorrelation: (1 + rho) / (1 - rho)."""
    away = residual - residual.mean()
    square = float(away @ away)
    rho = min(0.95, max(0.0, float(away[1:] @ away[:-1]) / square)) if square > 0 else 0.0
    return (1 + rho) / (1 - rho)


def _flatness(seen: _Seen, residual: Floats, start: float) -> tuple[float, float, float]:
    """Return the probability of no trend, the constant level and the standard error of that level.

    The curve has three parameters more than the constant, as a power law has.
    """
    used = seen.progress >= start
    value, count = seen.value[used], seen.count[used]
    level = float(np.average(value, weights=count))
    constant = float(count @ (value - level) ** 2)
    curved = residual[:, used] ** 2 @ count
    best = int(curved.argmin())
    num = max(2.0, value.size / _inflation(residual[best][used]))
    if constant <= 1e-24 * max(level * level, 1e-300) * value.size:
        return 1.0, level, 0.0
    gain = num / 2 * math.log(constant / max(float(curved[best]), 1e-300)) - 1.5 * math.log(num)
    error = math.sqrt(constant / count.sum() / num)
    return 1 / (1 + math.exp(min(50.0, max(-50.0, gain)))), level, error


def _shares(names: Sequence[str], weights: Floats, flat: float) -> dict[str, float]:
    found = dict.fromkeys(names, 0.0)
    for name, weight in zip(names, weights.tolist(), strict=True):
        found[name] += (1 - flat) * weight
    return found | ({"flat": flat} if flat > 0 else {})
