"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from xuebu.train.settings import TrainSettings


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of an update.

    It rises linearly, reaching the peak at step `warmup_steps`, then falls to `final_share` of the peak at the last
    step: along a half cosine, along a line, or not at all. With `final_share` 0 the last update has the rate 0.

    Args:
        step: number of the update, from 1 to `settings.steps`.
        settings: peak, warm-up, kind and end of the schedule.

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, with one period (cosine).
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    span = settings.steps - settings.warmup_steps
    done = (step - settings.warmup_steps) / span if span else 0.0
    match settings.schedule:
        case "constant":
            share = 1.0
        case "linear":
            share = settings.final_share + (1.0 - settings.final_share) * (1.0 - done)
        case "cosine":
            share = settings.final_share + (1.0 - settings.final_share) * 0.5 * (1.0 + math.cos(math.pi * done))
    return settings.learning_rate * share
