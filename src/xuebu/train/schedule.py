"""The learning rate as a function of the step, or of the time."""

from __future__ import annotations

import math

from xuebu.train.settings import TrainSettings


def learning_rate(position: float, settings: TrainSettings) -> float:
    """Return the learning rate of an update.

    It rises linearly, reaching the peak at step `warmup_steps`, then falls to `final_share` of the peak at the last
    step: along a half cosine, along a line, or not at all. With `final_share` 0 the last update has the rate 0.

    A run that was extended has further legs. Each begins where the one before ended, rises within `warmup_steps` (or
    the leg, if that is shorter) to `leg_share` of the peak, and falls again to `final_share` at its own end; a constant
    rate stays constant. What an extension adds changes no rate before it.

    Args:
        position: number of the update, from 1 to `settings.steps`; a fraction where the schedule runs on time.
        settings: peak, warm-up, kind, legs and end of the schedule.

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, with one period a leg (cosine); re-warming: Ibrahim et al.
    2024, "Simple and Scalable Strategies to Continually Pre-train Large Language Models", section 4.1.
    """
    start = max((leg for leg in settings.legs if leg < position), default=0)
    end = min((leg for leg in (*settings.legs, settings.steps) if leg >= position), default=settings.steps)
    first = start == 0
    if settings.schedule == "constant" and not first:
        return settings.learning_rate
    peak = 1.0 if first else max(settings.leg_share, settings.final_share)
    low = 0.0 if first else settings.final_share
    warmup = min(settings.warmup_steps, end - start)
    if position - start < warmup:
        return settings.learning_rate * (low + (peak - low) * (position - start) / warmup)
    span = end - start - warmup
    done = (position - start - warmup) / span if span else 0.0
    match settings.schedule:
        case "constant":
            share = 1.0
        case "linear":
            share = settings.final_share + (peak - settings.final_share) * (1.0 - done)
        case "cosine":
            share = settings.final_share + (peak - settings.final_share) * 0.5 * (1.0 + math.cos(math.pi * done))
    return settings.learning_rate * share


def schedule_position(step: int, seconds: float, settings: TrainSettings) -> float:
    """Return where an update stands in the schedule, in steps.

    Args:
        step: number of the update.
        seconds: of training before it; counts where the schedule runs on time (`schedule_hours`).
        settings: length of the schedule.
    """
    if not settings.schedule_hours:
        return step
    return min(seconds / (3600 * settings.schedule_hours), 1.0) * settings.steps


def ngram_scale(step: int, settings: TrainSettings) -> float:
    """Return what n-gram embeddings and prior are multiplied by at an update: 1, falling along a line where they fade.

    Shares are of the first leg: what has faded stays away when a run is extended.
    """
    start, end = settings.ngram_fade_start, settings.ngram_fade_end
    if start == 1.0:
        return 1.0
    planned = (*settings.legs, settings.steps)[0]
    return min(max((end - step / planned) / (end - start), 0.0), 1.0)


def teacher_weight(step: int, settings: TrainSettings) -> float:
    """Return the share of soft targets in the loss of an update, numbered from 1: it falls along a line to 0.

    Shares are of the first leg, as in `ngram_scale`.
    """
    if not settings.ngram_teacher:
        return 0.0
    end = settings.ngram_teacher_end * (*settings.legs, settings.steps)[0]
    return settings.ngram_teacher * max(1.0 - (step - 1) / end, 0.0)


def is_over(step: int, seconds: float, settings: TrainSettings) -> bool:
    """Whether a run has done its steps, or its time is up where the schedule runs on time."""
    return step >= settings.steps or (settings.schedule_hours > 0 and seconds >= 3600 * settings.schedule_hours)
