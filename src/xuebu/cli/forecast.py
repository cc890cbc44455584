"""`xuebu forecast`: what more steps would buy, when a level is reached, and what it costs. Needs no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from xuebu.cli.flags import OptionalName, OptionalPath, parse
from xuebu.cli.screen import make_console, print_plain
from xuebu.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ForecastArguments:
    """Forecast a run: its level at the end and at twice the steps, when a target is reached, and what it costs.

    Reads what `xuebu analyze` reads. Every forecast is an interval; a target comes with the probability that it is
    never reached within the horizon.
    """

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder or history file."""
    target: OptionalName = None
    """Level to reach, as metric=value: mlm_accuracy=0.60."""
    metric: OptionalName = None
    """Metric to forecast, if no target names one."""
    kind: Literal["auto", "eval", "train"] = "auto"
    """Held-out or training readings; auto: held-out where there are any."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step to forecast; without, the planned end of the run, or twice its last step."""
    schedule: Literal["auto", "constant", "linear", "cosine", "late-decay"] = "auto"
    """Learning-rate schedule of the run; auto: from run.toml or the log, else an average over the usual ones."""
    planned: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step at which that schedule ends, if the log does not say; of a run that has ended, its last step."""
    price: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Price of a device hour, in any currency."""
    devices: int = 1
    """Devices that are paid for."""
    watts: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Electrical power of a device, in watts."""
    level: float = 0.9
    """Probability of the intervals; they are calibrated at 0.9."""
    out: OptionalPath = None
    """Folder for forecast.json; for a run folder it is written there."""
    seed: int = 0
    """Seed of the noise."""


def forecast(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = parse(ForecastArguments, arguments, prog="xuebu forecast")
    from xuebu.analysis.prospect import Prices, forecast_run
    from xuebu.files import write_json
    from xuebu.history.importers import read_any

    if not asked.path.exists():
        raise InputError(f"{asked.path}: no such file or folder")
    _check(asked)
    named, target = _target_of(asked.target)
    if named and asked.metric and named != asked.metric:
        raise InputError(f"--target is about {named}, --metric about {asked.metric}; give one")
    found = forecast_run(
        read_any(asked.path),
        metric=named or asked.metric,
        kind=None if asked.kind == "auto" else asked.kind,
        target=target,
        steps=asked.steps,
        settings=train_settings(asked.path),
        shape=None if asked.schedule == "auto" else asked.schedule,
        planned=asked.planned,
        prices=Prices(num_devices=asked.devices, per_device_hour=asked.price, watts_per_device=asked.watts),
        level=asked.level,
        seed=asked.seed,
    )
    console = make_console()
    print_plain(console, found.summary())
    folder = asked.out or (asked.path if asked.path.is_dir() else None)
    if folder is not None:
        write_json(folder / "forecast.json", found.to_json())
        print_plain(console, f"\nforecast  {folder / 'forecast.json'}")
    return 0


def _check(asked: ForecastArguments) -> None:
    """Refuse numbers that mean nothing."""
    if not 0.5 <= asked.level < 1:
        raise InputError(f"--level {asked.level:g} must be at least 0.5 and below 1")
    if asked.devices < 1:
        raise InputError(f"--devices {asked.devices} must be at least 1")
    for name, value in (("--price", asked.price), ("--watts", asked.watts)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} {value:g} must be a number above 0")


def _target_of(text: str | None) -> tuple[str | None, float | None]:
    """Return metric and value of "metric=value"."""
    if text is None:
        return None, None
    metric, equals, value = text.partition("=")
    try:
        if not metric.strip() or not equals:
            raise ValueError
        return metric.strip(), float(value)
    except ValueError:
        raise InputError(f"--target {text!r} must be metric=value, such as mlm_accuracy=0.60") from None


def train_settings(path: Path) -> Mapping[str, Any] | None:
    """Return the table "train" of a run folder's run.toml, or of that beside a history file; None without one."""
    file = (path if path.is_dir() else path.parent) / "run.toml"
    if not file.is_file() or (not path.is_dir() and path.name != "history.jsonl"):
        return None
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}; move it away to forecast without its schedule") from None
    table = content.get("train")
    return table if isinstance(table, dict) else None
