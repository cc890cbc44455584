"""Online detection of spikes, level shifts and slow divergence in one metric: O(1) memory, microseconds a reading.

A reading is held against a robust local level (exponential smoothing with clipped errors), less the lag of that level
behind a falling curve, itself a running mean of the errors that shrinks as 1/t to the power 1.5, as the slopes of
learning curves do. What is left, whitened by its own lag-1 correlation and divided by a robust running scale, is z.
A fault that dies away as exp(-j/3) shows in z as w_j, whitened likewise. For each of the last six readings as its
beginning the filter that is best for that shape is

    M_k = (sum over j <= k of w_j z_(t - k + j)) / sqrt(sum of w_j^2)        alarm: max over k of M_k / tail_k > limit

and the slow creep of the level is watched beside it:

    D_t = level_t - lowest level > T * se      (se of the level allows for correlated noise)

tail_k is the running 99 % point of M_k over that of a normal variable, at least 1: real losses have heavy tails. While
an alarm stands, the level is kept and learns nothing. Readings that come back make it a spike; readings that stay make
it a level shift, and the level begins anew there.

Source: matched filter, North 1943; generalized likelihood ratio over the unknown beginning, Willsky and
Jones 1976; Gelper, Fried and Croux 2010 (robust exponential smoothing). The constants were chosen on the draws of
`benchmarks/anomalies.py --tuning` (noise of the nanoGPT logs and four shapes); the figures in the documents are of
other shapes and of noise from other sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

JumpKind = Literal["spike", "level_shift", "divergence"]

WARM_UP = 24
HOLD = 12
_LEVEL_GAIN = 0.06
_LAG_GAIN = 0.05
_SCALE_GAIN = 0.012
_TAIL_GAIN = 0.05
_CLIP = 3.0
_NORMAL = 1.2533  # sd of a normal variable / its mean absolute value
_FILTERS = 6
_DECAY = math.exp(-1 / 3)
_LIMIT = 4.1
_START = 30.0
_DRIFT_LIMIT = 7.0  # T
_FLATTENING = 1.5
_TAIL = 2.326  # 99 % point of a normal variable


@dataclass(frozen=True, slots=True)
class Jump:
    """What a detector found.

    Args:
        kind: "spike" as soon as readings leave the line; "level_shift" once they have stayed away for 12 readings;
            "divergence" where the level creeps the wrong way.
        step: of the reading that gave the alarm.
        since: step at which it began, as far as known.
        size: distance from the expected value (of a spike: where it began, as estimated), in the metric's unit.
        sigma: the same in local standard deviations of the readings.
        expected: value of the line.
    """

    kind: JumpKind
    step: int
    since: int
    size: float
    sigma: float
    expected: float


class JumpDetector:
    """Watches one metric.

    Args:
        rising_is_bad: True for losses and gradient norms, False for accuracies.
        relevant: share of the level below which a standard deviation is not believed: smaller jumps wake nobody.
    """

    __slots__ = (
        "_away_last",
        "_away_since",
        "_away_steps",
        "_away_sum",
        "_error",
        "_first",
        "_gap",
        "_held",
        "_lag",
        "_level",
        "_lowest",
        "_lowest_step",
        "_num",
        "_partial",
        "_plain",
        "_product",
        "_relevant",
        "_scale",
        "_sign",
        "_square",
        "_steps",
        "_tails",
    )

    def __init__(self, *, rising_is_bad: bool = True, relevant: float = 1e-3) -> None:
        self._sign = 1.0 if rising_is_bad else -1.0
        self._relevant = relevant
        self._num = 0
        self._first: list[float] = []
        self._level = self._plain = self._lag = self._error = 0.0
        self._gap = 1.0
        self._scale = self._square = self._product = 0.0
        self._partial = [0.0] * _FILTERS
        self._tails = [_TAIL] * _FILTERS
        self._steps = [0] * _FILTERS  # the newest first
        self._held = 0  # readings since an alarm, 0 where none stands
        self._away_sum = self._away_steps = self._away_last = 0.0
        self._away_since = 0
        self._lowest, self._lowest_step = math.inf, 0

    def update(self, step: int, value: float, noise: float = 0.0) -> Jump | None:
        """Take one finite reading; returns what it shows, if anything.

        Args:
            step: of the reading.
            value: the reading.
            noise: standard deviation that it has at the least, in its unit, e.g. of an accuracy over few predictions.
        """
        x = self._sign * value
        self._num += 1
        if self._num <= WARM_UP:
            self._first.append(x)
            self._lowest_step = self._lowest_step if self._num > 1 else step
            if self._num == WARM_UP:
                self._begin(step)
            return None
        gap = float(max(1, step - self._steps[0]))
        self._steps = [step, *self._steps[:-1]]
        self._lag *= 1 - _FLATTENING / self._num
        # The lag is of readings as far apart as usual; a curve that rises where it should fall has none to be trusted.
        lag = min(0.0, self._lag) * min(1.0, gap / self._gap)
        error = x - self._level - lag
        # No finer than what the curve itself moves between readings: one without noise is followed with a lag.
        expected = self._level + lag
        self._scale = max(self._scale, _LEVEL_GAIN * abs(lag), noise, self._relevant * abs(expected))
        if self._held:
            return self._hold(step, error, lag)
        innovation = error - self._correlation() * self._error
        z = innovation / self._scale if self._scale > 0 else math.copysign(10.0, innovation) if innovation else 0.0
        scores, roots = self._filter(z)
        at = max(range(_FILTERS), key=lambda k: scores[k] / self._tails[k])
        if scores[at] / self._tails[at] * _TAIL > _LIMIT * (1 + _START / self._num):
            self._held, self._away_since = 1, self._steps[at]
            self._away_sum = self._away_steps = self._away_last = 0.0
            self._level += _LEVEL_GAIN * lag
            self._partial = [0.0] * _FILTERS
            # By least squares the fault began with this size.
            size = scores[at] / roots[at] * self._scale if self._scale > 0 else error
            return self._found("spike", step, self._away_since, size, expected)
        for k, score in enumerate(scores):
            self._tails[k] = max(_TAIL, self._tails[k] + _TAIL_GAIN * ((score > self._tails[k]) - 0.01))
        self._learn(error, lag, innovation, gap)
        return self._drifted(step)

    def _filter(self, z: float) -> tuple[list[float], list[float]]:
        """Return M_k of a fault that began k readings ago, k = 0 to 5, and the roots of its sums of w_j^2."""
        weight, square = max(0.0, 1 - self._correlation() / _DECAY), 1.0
        partial, scores, roots = [z], [z], [1.0]
        for before in self._partial[:-1]:
            weight *= _DECAY
            square += weight * weight
            partial.append(before + weight * z)
            roots.append(math.sqrt(square))
            scores.append(partial[-1] / roots[-1])
        self._partial = partial
        return scores, roots

    def _correlation(self) -> float:
        return min(0.95, max(0.0, self._product / self._square)) if self._square > 0 else 0.0

    def _deviation(self) -> float:
        """Return the local standard deviation of the readings."""
        return self._scale / math.sqrt(1 - self._correlation() ** 2)

    def _found(self, kind: JumpKind, step: int, since: int, size: float, expected: float) -> Jump:
        deviation = self._deviation()
        return Jump(
            kind,
            step,
            since,
            self._sign * size,
            size / deviation if deviation > 0 else math.inf,
            self._sign * expected,
        )

    def _learn(self, error: float, lag: float, innovation: float, gap: float) -> None:
        bound = _CLIP * self._deviation()
        clipped = min(bound, max(-bound, error)) if bound > 0 else error
        gain = max(_LEVEL_GAIN, 2.0 / (self._num + 2))
        plain = self._level + lag + error
        self._level += gain * (lag + clipped)
        self._plain += gain * (min(self._plain + bound, plain) - self._plain)
        self._gap += gain * (gap - self._gap)
        self._lag += max(_LAG_GAIN, 1.0 / self._num) * (lag + clipped - self._lag)
        gain = max(_SCALE_GAIN, 1.0 / self._num)
        bound = _CLIP * self._scale
        size = min(abs(innovation), bound) if bound > 0 else abs(innovation)
        self._scale += gain * (_NORMAL * size - self._scale)
        self._square += gain * (clipped * clipped - self._square)
        self._product += gain * (clipped * self._error - self._product)
        self._error = clipped

    def _drifted(self, step: int) -> Jump | None:
        correlation = self._correlation()
        spread = _LEVEL_GAIN / (2 - _LEVEL_GAIN) * (1 + correlation) / (1 - correlation)
        error = self._deviation() * math.sqrt(spread)
        if self._plain <= self._lowest:
            self._lowest, self._lowest_step = self._plain, step
            return None
        rise = self._plain - self._lowest
        if rise < _DRIFT_LIMIT * error or error == 0:
            return None
        found = self._found("divergence", step, self._lowest_step, rise, self._lowest)
        self._lowest, self._lowest_step = self._plain, step
        return found

    def _hold(self, step: int, error: float, lag: float) -> Jump | None:
        """Wait for what an alarm becomes, prolonging the line."""
        self._held += 1
        expected = self._level + lag
        self._level += _LEVEL_GAIN * lag
        deviation = self._deviation()
        if self._held > HOLD // 2:
            self._away_sum += error
            self._away_steps += abs(error - self._away_last)
        self._away_last = error
        if self._held < HOLD:
            return None
        # Noise that has grown is learned from the readings behind the alarm, or alarms would never end.
        seen = _NORMAL / math.sqrt(2) * self._away_steps / (HOLD - HOLD // 2)
        if seen > 2 * self._scale:
            self._scale += 0.5 * (seen - self._scale)
            deviation = self._deviation()
        away = self._away_sum / (HOLD - HOLD // 2)
        self._held = 0
        if away < 1.5 * deviation or not away > 0:
            self._error = 0.0
            return None
        self._level += away
        self._plain = self._lowest = expected + away
        self._error, self._lowest_step = 0.0, step
        return self._found("level_shift", step, self._away_since, away, expected)

    def _begin(self, step: int) -> None:
        """Fit the level and the scale to the first readings: medians of thirds, and of differences."""
        num = len(self._first)
        third = num // 3
        left, right = (sorted(part)[third // 2] for part in (self._first[:third], self._first[-third:]))
        slope = (right - left) / (num - third)
        self._level = right  # not prolonged to here: a convex curve's line ends too low
        errors = [x - right - slope * (at - num + (third + 1) / 2) for at, x in enumerate(self._first)]
        self._gap = max(1.0, (step - self._lowest_step) / (num - 1))
        steps = sorted(abs(b - a) for a, b in pairwise(errors))
        self._scale = 1.4826 * steps[len(steps) // 2] / math.sqrt(2)
        self._square = sum(error * error for error in errors) / num
        self._product = 0.0
        self._first = []
        self._plain, self._lowest, self._lowest_step = right, right, step
        self._steps = [step] * _FILTERS
