"""What runs are compared by: the metric that all recorded, an axis, groups of seeds, and references kept by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from xuebu.analysis.align import Axis, Identity, align, identity, places
from xuebu.analysis.intervals import Interval
from xuebu.analysis.measures import Run, part
from xuebu.analysis.replicates import Band, Held, band_of, band_of_json, difference_of_bands, hold_against
from xuebu.analysis.versus import PairedCurves, compare_curves
from xuebu.errors import InputError
from xuebu.files import read_json, write_json
from xuebu.history.series import Floats, Series

METRICS = ("mlm_accuracy", "mlm_loss_nats", "loss_nats", "loss")
_NAME = re.compile(r"[\w][\w.-]{0,80}")


@dataclass(frozen=True, slots=True)
class Duel:
    """A run against the first one.

    Args:
        run: its name.
        identity: up to where both recorded the same.
        curves: one for each metric that both recorded.
        missing: why there is none of a metric, a line each.
    """

    run: str
    identity: Identity
    curves: tuple[PairedCurves, ...]
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say what was found, a line each."""
        return [self.identity.summary(), *(one.summary() for one in self.curves), *self.missing]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "run": self.run,
            "identity": self.identity.to_json(),
            "curves": [one.to_json() for one in self.curves],
            "missing": list(self.missing),
        }


@dataclass(frozen=True, slots=True)
class Seeds:
    """Groups of runs that differ only in their seed.

    Args:
        bands: one a group, the first to hold the others against.
        differences: of each further group to the first, last third; None where one of both has a single run.
        held: each run of the further groups against the first group's band.
    """

    bands: tuple[Band, ...]
    differences: tuple[Interval | None, ...]
    held: tuple[Held, ...]

    def lines(self) -> list[str]:
        """Say each band, each difference, and where each run lies."""
        found = [band.summary() for band in self.bands]
        scale = 100.0 if self.bands and "accuracy" in self.bands[0].metric else 1.0
        unit = " points" if scale > 1 else ""
        for band, one in zip(self.bands[1:], self.differences, strict=True):
            told = "takes two seeds of each" if one is None else f"{one.words(scale, unit, 2)} ({one.note})"
            found.append(f"{band.name} minus {self.bands[0].name} over the last third: {told}")
        return found + [one.summary() for one in self.held]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "bands": [band.to_json() for band in self.bands],
            "differences": [one.to_json() if one else None for one in self.differences],
            "held": [one.to_json() for one in self.held],
        }


def common_metrics(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return metric and kind that every run recorded: held-out ones where all have them, in the order of METRICS."""
    found = []
    for metric in METRICS:
        for kind in ("eval", "train"):
            if all(run.history.has(kind, metric) for run in runs):
                found.append((metric, kind))
                break
    return found


def duel(first: Run, other: Run, *, axis: Axis = "step", target: float | None = None, seed: int = 0) -> Duel:
    """Return a run against the first, along an axis.

    Args:
        first: the run to hold it against.
        other: the run.
        axis: what readings are aligned by.
        target: level of the first common metric to be reached; None for the one that both reach.
        seed: of the bootstraps.

    Raises:
        InputError: a run did not record what the axis needs.
    """
    curves, missing = [], []
    metrics = common_metrics((first, other))
    if not metrics:
        missing.append(f"no metric of {', '.join(METRICS)} is in both")
    for number, (metric, kind) in enumerate(metrics):
        ends = [_curve(run, metric, kind, axis) for run in (first, other)]
        try:
            pair = align(ends[0], ends[1], axis)
        except InputError as error:
            missing.append(f"{metric}: {error}")
            continue
        curves.append(compare_curves(pair, metric, kind, target=None if number else target, seed=seed))
    return Duel(other.name, identity(first.history, other.history), tuple(curves), tuple(missing))


def _curve(run: Run, metric: str, kind: str, axis: Axis) -> tuple[Floats, Floats]:
    series: Series = run.history.column(kind, metric)
    return places(run.history, series, axis), series.value


def curve_along(run: Run, band: Band) -> tuple[Floats, Floats]:
    """Return places and readings of a run's metric along a band's axis."""
    return _curve(run, band.metric, band.kind, band.axis)


def group_seeds(runs: Sequence[Run], sizes: Sequence[int] = ()) -> list[list[Run]]:
    """Return runs in groups that differ only in their seed.

    Args:
        runs: in order.
        sizes: number of runs in each group, in order; none: by run.toml, where everything but seed, folder and clock is
            the same (a run without one stands alone).

    Raises:
        InputError: the sizes do not add up to the runs.
    """
    if sizes:
        if sum(sizes) != len(runs) or min(sizes) < 1:
            raise InputError(f"groups of {', '.join(map(str, sizes))} runs: give sizes that add up to {len(runs)}")
        ends = np.cumsum([0, *sizes])
        return [list(runs[start:end]) for start, end in pairwise(ends)]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        recipe = repr(_without_seed(run.facts)) if run.facts else run.name
        groups.setdefault(recipe, []).append(run)
    return list(groups.values())


def _without_seed(facts: Mapping[str, Any]) -> Any:
    """Return run.toml without what may differ between seeds of one recipe, keys in order."""
    kept = {name: part(facts, name) for name in facts if name != "run"}
    kept["run"] = {"digests": part(facts, "run", "digests")}
    return _sorted(kept)


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [(key, _sorted(value[key])) for key in sorted(value) if key not in ("seed", "name", "folder")]
    return value


def bands_of(groups: Sequence[Sequence[Run]], *, axis: Axis = "step", level: float = 0.95) -> Seeds | None:
    """Return the bands of groups of seeds; None where the runs share no metric.

    Args:
        groups: of `group_seeds`, the others to be held against the first.
        axis: what readings are aligned by.
        level: confidence level.

    Raises:
        InputError: a run lacks what the axis needs, or a group's runs share too few places.
    """
    metrics = common_metrics([run for group in groups for run in group])
    if not metrics:
        return None
    metric, kind = metrics[0]
    bands = tuple(_band(name_of(group), group, metric, kind, axis=axis, level=level) for group in groups)
    differences = tuple(
        difference_of_bands(bands[0], band) if len(bands[0].runs) > 1 and len(band.runs) > 1 else None
        for band in bands[1:]
    )
    held = [hold_against(bands[0], run.name, *_curve(run, metric, kind, axis)) for group in groups[1:] for run in group]
    return Seeds(bands, differences, tuple(held))


def _band(name: str, runs: Sequence[Run], metric: str, kind: str, *, axis: Axis, level: float = 0.95) -> Band:
    curves = [(run.name, *_curve(run, metric, kind, axis)) for run in runs]
    return band_of(name, curves, metric=metric, kind=kind, axis=axis, level=level)


def name_of(group: Sequence[Run]) -> str:
    """Return the name of a group: that of its run, or of its first and how many there are."""
    return group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more"


def reference_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where references are kept: XUEBU_REFERENCES, else xuebu/references in the user's data folder."""
    if environment.get("XUEBU_REFERENCES"):
        return Path(environment["XUEBU_REFERENCES"])
    data = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".local" / "share")
    return Path(data) / "xuebu" / "references"


def save_reference(name: str, runs: Sequence[Run], folder: Path, *, axis: Axis = "step") -> Path:
    """Save the band of runs of one recipe under a name, for every metric that they recorded.

    Args:
        name: letters, digits, dots, dashes and underscores.
        runs: seeds of one recipe, at least one.
        folder: where.
        axis: what readings are aligned by.

    Raises:
        InputError: the name cannot be a file's, or the runs share no metric or too few readings.
    """
    metrics = common_metrics(runs)
    if not metrics:
        raise InputError(f"{name}: the runs share none of {', '.join(METRICS)}; nothing to save")
    path = _reference_path(name, folder)
    write_json(path, {"name": name, "bands": [_band(name, runs, *metric, axis=axis).to_json() for metric in metrics]})
    return path


def load_reference(name: str, folder: Path) -> list[Band]:
    """Return the bands of a saved reference, one a metric.

    Args:
        name: of the reference.
        folder: where references are kept.

    Raises:
        InputError: there is no such reference, or it is damaged.
    """
    path = _reference_path(name, folder)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in folder.glob("*.json"))) or "none"
        raise InputError(f"{path}: no reference {name!r}; saved are: {known}")
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("bands"), list) or not value["bands"]:
        raise InputError(f"{path}: not a saved reference; save it again")
    return [band_of_json(one, str(path)) for one in value["bands"]]


def hold_against_reference(bands: Sequence[Band], runs: Sequence[Run]) -> list[Held]:
    """Hold runs against a reference, each by the first of its metrics that the run recorded.

    Args:
        bands: of `load_reference`.
        runs: any number.

    Raises:
        InputError: a run recorded none of its metrics.
    """
    found = []
    for run in runs:
        band = next((one for one in bands if run.history.has(one.kind, one.metric)), None)
        if band is None:
            metrics = ", ".join(f"{one.kind} {one.metric}" for one in bands)
            raise InputError(f"{run.name}: recorded none of the reference's metrics ({metrics})")
        found.append(hold_against(band, run.name, *curve_along(run, band)))
    return found


def _reference_path(name: str, folder: Path) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a reference: letters, digits, dots, dashes and underscores only")
    return folder / f"{name}.json"
