"""`xuebu train`: pretraining on a built corpus, and going on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xuebu.cli.flags import OptionalName, OptionalPath, RecipeFlags, parse
from xuebu.cli.screen import make_console, make_progress, print_plain
from xuebu.cli.study import STOP_CODES, print_run
from xuebu.errors import ConfigError
from xuebu.train.settings import Recipe

DEFAULT_RECIPE = "sample"


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Pretrain an encoder on a corpus that `xuebu corpus build` made, or go on with a run.

    A resumed run writes the same bytes as one that was never interrupted; it takes its settings from its own run.toml.
    """

    corpus: OptionalPath = None
    """Folder of a built corpus."""
    vocab: OptionalPath = None
    """Folder or vocab.txt of a vocabulary; without, one is made from the training side of the corpus."""
    out: OptionalPath = None
    """Folder of the new run."""
    resume: OptionalPath = None
    """Folder of a run to go on with; all other settings come from it."""
    inexact: bool = False
    """With --resume: go on even where machine, torch or code differ from the run's; close, but not equal."""
    recipe: str = DEFAULT_RECIPE
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    preset: OptionalName = None
    """Model preset that replaces the recipe's [model]; `xuebu presets` lists them."""
    settings: RecipeFlags = field(default_factory=Recipe)
    """Settings of the recipe."""


def train(arguments: Sequence[str]) -> int:
    """Run the command."""
    _refuse_settings_on_resume(arguments)
    asked = parse(TrainArguments, arguments, prog="xuebu train", default_recipe=DEFAULT_RECIPE)
    missing = [flag for flag, value in (("--corpus", asked.corpus), ("--out", asked.out)) if value is None]
    if missing and asked.resume is None:
        raise ConfigError(f"{' and '.join(missing)} missing: name the corpus and the new run, or a run to --resume")
    from xuebu.study import StudyFolder, prepare_run, resume_and_describe, train_and_describe
    from xuebu.train.session import stop_on_signals

    console = make_console()
    progress = make_progress(console)
    with stop_on_signals() as stop:
        if asked.resume is not None:
            result = resume_and_describe(StudyFolder(asked.resume), inexact=asked.inexact, progress=progress, stop=stop)
        else:
            assert asked.corpus is not None and asked.out is not None  # `missing` is empty
            folder = StudyFolder(asked.out)
            prepare_run(folder, asked.corpus, asked.settings, vocabulary=asked.vocab, progress=progress, stop=stop)
            result = train_and_describe(folder, asked.settings, progress=progress, stop=stop)
    path = result.folder.path
    if result.analysis is None:
        print_plain(
            console,
            f"stopped ({result.reason}) and saved at step {result.step:,}; go on with: xuebu train --resume {path}",
        )
        return STOP_CODES.get(result.reason, 1)
    print_run(console, path, result.analysis)
    return 0


def _refuse_settings_on_resume(arguments: Sequence[str]) -> None:
    """Refuse settings beside --resume, before they are read: the run has its own."""
    flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    others = [flag for flag in flags if flag not in ("--resume", "--inexact", "--help")]
    if "--resume" in flags and others:
        raise ConfigError(f"--resume takes every setting from the run's own run.toml; leave out {' '.join(others)}")
