"""One metric along a run: steps, readings and, where known, the number of predictions behind each reading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Readings of one metric at increasing steps.

    Args:
        step: int64[n], strictly increasing, >= 0.
        value: float64[n], finite; the unit is in the metric's name (accuracies are fractions).
        count: int64[n], predictions behind each reading, >= 1; None where not recorded.
        metric: name, e.g. "mlm_accuracy".
        kind: "train" (each reading has its own fresh predictions) or "eval" (the same held-out predictions each
            time, so that their sampling error is common to all readings).

    Raises:
        InputError: lengths differ, steps do not increase, a value is not finite, or a count is below 1.
    """

    step: Integers
    value: Floats
    count: Integers | None = None
    metric: str = "value"
    kind: str = "train"

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", np.asarray(self.step, dtype=np.int64))
        object.__setattr__(self, "value", np.asarray(self.value, dtype=np.float64))
        if self.count is not None:
            object.__setattr__(self, "count", np.asarray(self.count, dtype=np.int64))
        self._check()
        for array in (self.step, self.value, self.count):
            if array is not None:
                array.flags.writeable = False

    def _check(self) -> None:
        name = self.metric
        if self.step.ndim != 1 or self.value.shape != self.step.shape:
            raise InputError(f"{name}: {self.value.size} values for {self.step.size} steps; give one value a step")
        if self.count is not None and self.count.shape != self.step.shape:
            raise InputError(f"{name}: {self.count.size} counts for {self.step.size} steps; give one count a step")
        if self.step.size and self.step[0] < 0:
            raise InputError(f"{name}: step {self.step[0]} is negative; count steps from 0")
        if (bad := np.flatnonzero(np.diff(self.step) <= 0)).size:
            at = int(bad[0])
            raise InputError(
                f"{name}: step {self.step[at + 1]} follows step {self.step[at]}; sort the steps and keep each once"
            )
        if (bad := np.flatnonzero(~np.isfinite(self.value))).size:
            raise InputError(f"{name}: the value at step {self.step[bad[0]]} is not a finite number; leave it out")
        if self.count is not None and (bad := np.flatnonzero(self.count < 1)).size:
            raise InputError(f"{name}: the count at step {self.step[bad[0]]} is below 1; leave that reading out")

    def __len__(self) -> int:
        return int(self.step.size)

    def part(self, start: int, stop: int | None = None) -> Series:
        """Return the readings `start` up to before `stop`, by position."""
        count = None if self.count is None else self.count[start:stop].copy()
        return Series(self.step[start:stop].copy(), self.value[start:stop].copy(), count, self.metric, self.kind)
