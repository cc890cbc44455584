"""What may change when a run goes on, and what differs where it may not; plain functions of recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xuebu.config import settings_from, to_table
from xuebu.errors import ConfigError, ResumeError
from xuebu.train.settings import Recipe

FREE_KEYS = (
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.max_hours",
    "train.max_cost",
    "train.cost_per_hour",
    "train.grace_seconds",
)
"""Settings that change no byte of weights, optimizer or history: they may differ from session to session."""

ROUNDING_KEYS = ("train.micro_batch_tokens", "train.threads", "train.lanes")
"""Settings that change results by rounding only: they may differ with --inexact."""

_GROWING_KEYS = ("train.steps", "train.legs")


def adopt(recorded: Recipe, asked: Recipe, *, inexact: bool) -> tuple[Recipe, list[str]]:
    """Return a run's recipe with the settings that may change taken from the one asked for, and what is inexact in it.

    Raises:
        ResumeError: another setting differs; names it, and those that may.
    """
    allowed = FREE_KEYS + (ROUNDING_KEYS if inexact else ())
    if recorded.train.roll_back:  # where a run goes back to follows from this one
        allowed = tuple(key for key in allowed if key != "train.checkpoint_every")
    differing = recorded.differing_keys(asked)
    refused = [key for key in differing if key not in allowed]
    if refused:
        hint = " without --inexact" if not inexact and set(refused) <= set(ROUNDING_KEYS) else ""
        raise ResumeError(
            f"a run keeps its recipe: {_list(refused)} cannot change on --resume{hint}. "
            f"What can: {', '.join(FREE_KEYS)}, and --steps to extend a finished run"
        )
    was, now = to_table(recorded)["train"], to_table(asked)["train"]
    names = [key.removeprefix("train.") for key in differing]
    merged = settings_from(Recipe, {**to_table(recorded), "train": {**was, **{n: now[n] for n in names}}}, where="run")
    lines = [f"{n} was {was[n]}, is {now[n]}" for n in names if f"train.{n}" in ROUNDING_KEYS]
    return merged, lines


def extend(recipe: Recipe, steps: int, *, done: int) -> Recipe:
    """Return the recipe of a finished run with another leg, to `steps` in all.

    Args:
        recipe: of the run.
        steps: how many steps it is to have in the end.
        done: how many it has.

    Raises:
        ResumeError: the run is not finished, or is that long already, or its schedule runs on time.
    """
    train = recipe.train
    if train.steps == steps:
        return recipe
    if done < train.steps:
        raise ResumeError(
            f"only a finished run can be extended: this one is at step {done:,} of {train.steps:,}; let it finish "
            "first (its schedule was made for that length)"
        )
    if steps < train.steps:
        raise ResumeError(f"--steps {steps} is less than the {train.steps:,} steps that the run has done")
    try:
        longer = dataclasses.replace(train, steps=steps, legs=(*train.legs, train.steps))
    except ConfigError as error:
        raise ResumeError(str(error)) from None
    return dataclasses.replace(recipe, train=longer)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each key in which the origins of two checkpoints differ, but for keys that may."""
    mine, theirs = _flat(now), _flat(before)
    free = {f"recipe.{key}" for key in (*FREE_KEYS, *ROUNDING_KEYS, *_GROWING_KEYS)} | {"processes"}
    if mine.get("recipe.train.schedule_hours"):
        free.add("recipe.train.warmup_steps")
    keys = sorted(key for key in mine.keys() | theirs.keys() if key not in free and mine.get(key) != theirs.get(key))
    return [_difference(key, theirs.get(key), mine.get(key)) for key in keys]


def rounding_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each key in which the origins of two checkpoints differ so that results differ by rounding.

    run.toml cannot tell: a session that changed it may have been killed before its first checkpoint, and what it had
    recorded is cut away with the rest of its history.
    """
    was, is_now = _flat(before), _flat(now)
    keys = [f"recipe.{key}" for key in ROUNDING_KEYS] + ["processes"]
    return [
        f"{key.rpartition('.')[2]} was {was[key]}, is {is_now[key]}"
        for key in keys
        if key in was and was[key] != is_now[key]
    ]


def _difference(key: str, was: Any, now: Any) -> str:
    group, _, name = key.partition(".")
    if group == "digests":
        return f"another {name}"
    return f"{name} is {was} there, {now} here"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
