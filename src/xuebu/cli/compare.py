"""`xuebu compare`: runs side by side. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from xuebu.analysis.align import Axis
from xuebu.cli.flags import OptionalName, OptionalPath, parse
from xuebu.cli.screen import make_console, print_plain, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from xuebu.analysis.measures import Cell
    from xuebu.analysis.runs import Measure, RunComparison


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Set runs side by side: every headline figure, and the differences to the first run with their intervals.

    Takes run folders of xuebu or anybody's logs, mixed as they come. Curves are laid over each other: up to which step
    runs are identical, the difference reading by reading, how much sooner one reaches a level. Runs that differ only
    in their seed are taken as replicates, with the band between them.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Two to six run folders or history files; the others are held against the first. With --save or --reference:
    one to sixty."""
    by: Axis = "step"
    """What readings are aligned by: steps, tokens seen, seconds of training, or floating-point operations."""
    target: float | None = None
    """Level to be reached, e.g. 0.5; without, where the slower run is after three quarters."""
    seeds: tuple[int, ...] = ()
    """Sizes of groups of seeds, in the order given, e.g. 3 3; without, runs whose run.toml differ only in the seed."""
    save: OptionalName = None
    """Save these runs' band as a reference under this name, and compare nothing."""
    reference: OptionalName = None
    """Hold these runs against the reference saved under this name, and compare nothing else."""
    references: OptionalPath = None
    """Folder of references; without, the environment's XUEBU_REFERENCES, else the user's data folder."""
    out: OptionalPath = None
    """Folder for comparison.json and the charts; without, they are not written."""
    seed: int = 0
    """Seed of the bootstraps."""


def compare(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = parse(CompareArguments, arguments, prog="xuebu compare")
    from xuebu.analysis.runs import compare_runs, read_runs

    console = make_console()
    if asked.save is not None or asked.reference is not None:
        return _reference(asked, console)
    runs = read_runs(asked.paths, seed=asked.seed)
    found = compare_runs(runs, axis=asked.by, target=asked.target, groups=asked.seeds, seed=asked.seed)
    print_table(console, ["", *(f">{name}" for name in found.names)], _level_rows(found), "Runs side by side")
    console.print()
    heads = ["", "run", ">difference", ">95 % interval", ">in percent"]
    print_table(console, heads, _difference_rows(found), f"Differences to {found.names[0]}")
    console.print()
    for line in found.verdict:
        print_plain(console, line)
    for one in found.duels:
        print_plain(console, f"\n{one.run} against {found.names[0]}, by {asked.by}", style="bold")
        for line in one.lines():
            print_plain(console, f"  {line}")
    if found.seeds is not None:
        print_plain(console, "\nSeeds as replicates", style="bold")
        for line in found.seeds.lines():
            print_plain(console, f"  {line}")
    print_plain(console)
    for note in _notes(found):
        print_plain(console, f"note: {note}")
    if asked.out is not None:
        from xuebu.charts.compared import run_comparison, seed_bands
        from xuebu.charts.draw import draw
        from xuebu.files import write_json
        from xuebu.fonts import cjk_font

        write_json(asked.out / "comparison.json", found.to_json())
        figures = [run_comparison({run.name: run.history for run in runs})]
        figures += [seed_bands(found.seeds.bands)] if found.seeds is not None else []
        print_plain(console)
        for figure in figures:
            for path in draw(figure, asked.out / figure.name, font=cjk_font()):
                print_plain(console, f"chart       {path}")
        print_plain(console, f"comparison  {asked.out / 'comparison.json'}")
    return 0


def _reference(asked: CompareArguments, console: Console) -> int:
    """Save a reference, or hold runs against one."""
    from xuebu.analysis.pairing import (
        curve_along,
        hold_against_reference,
        load_reference,
        reference_folder,
        save_reference,
    )
    from xuebu.analysis.runs import MOST_RUNS, read_runs
    from xuebu.errors import ConfigError

    if asked.save is not None and asked.reference is not None:
        raise ConfigError("--save and --reference: give one of them")
    folder = asked.references or reference_folder()
    runs = read_runs(asked.paths, seed=asked.seed, least=1, most=MOST_RUNS)
    if asked.save is not None:
        print_plain(console, f"reference   {save_reference(asked.save, runs, folder, axis=asked.by)}")
        return 0
    assert asked.reference is not None
    bands = load_reference(asked.reference, folder)
    held = hold_against_reference(bands, runs)
    for one in held:
        print_plain(console, one.summary())
    if asked.out is not None:
        from xuebu.charts.compared import ROLES, seed_bands
        from xuebu.charts.draw import draw
        from xuebu.files import write_json
        from xuebu.fonts import cjk_font

        write_json(asked.out / "reference.json", {"schema_version": 1, "held": [one.to_json() for one in held]})
        band = next(one for one in bands if any(run.history.has(one.kind, one.metric) for run in runs))
        shown = [run for run in runs if run.history.has(band.kind, band.metric)][: len(ROLES) - 1]
        figure = seed_bands((band,), {run.name: curve_along(run, band) for run in shown})
        for path in draw(figure, asked.out / figure.name, font=cjk_font()):
            print_plain(console, f"chart       {path}")
        print_plain(console, f"reference   {asked.out / 'reference.json'}")
    return 0


def _level_rows(found: RunComparison) -> list[list[str]]:
    return [[measure.name, *(_cell_text(cell, measure) for cell in measure.cells)] for measure in found.measures]


def _cell_text(cell: Cell | None, measure: Measure) -> str:
    from xuebu.analysis.runs import show_ends, show_value

    if cell is None:
        return "–"
    lines = [show_value(cell.interval.value, measure.unit)]
    if ends := show_ends(cell.interval, measure.unit):
        lines.append(ends)
    behind = [f"step {cell.step:,}"] if cell.step is not None and measure.key.startswith("best") else []
    behind += [f"{cell.predictions:,} predictions"] if cell.predictions else []
    return "\n".join([*lines, ", ".join(behind)] if behind else lines)


def _difference_rows(found: RunComparison) -> list[list[str]]:
    from xuebu.analysis.runs import show_ends, show_value

    rows = []
    for measure in found.measures:
        for one in filter(None, measure.differences):
            value = show_value(one.interval.value, measure.unit, sign=True)
            percent = "" if one.percent is None else f"{one.percent:+,.1f} %"
            counted = measure.unit in ("count", "seconds")
            ends = show_ends(one.interval, measure.unit, sign=True) or ("" if counted else "none")
            rows.append([measure.name, one.run, value, ends, percent])
    return rows


def _notes(found: RunComparison) -> list[str]:
    """Return what the comparison assumes: its own notes, and once each those of its differences."""
    of_differences = [
        f"{one.run}: {one.interval.note}"
        for measure in found.measures
        for one in measure.differences
        if one and measure.key in ("mlm_accuracy", "best_mlm_accuracy") and one.interval.note
    ]
    return [*found.notes, *dict.fromkeys(of_differences)]
