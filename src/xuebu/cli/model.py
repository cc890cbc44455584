"""`xuebu params` and `xuebu presets`: sizes of models, computed. Need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from xuebu.cli.flags import ModelFlags, OptionalName, parse
from xuebu.cli.screen import make_console, print_plain, print_table
from xuebu.config import Range
from xuebu.model.presets import PRESETS, count_parameters
from xuebu.model.settings import ModelSettings


@dataclass(frozen=True, kw_only=True)
class ParamsArguments:
    """Count the parameters of a model, part by part."""

    vocab_size: Annotated[int, Range(6)] = 21_128
    """Entries of the vocabulary."""
    recipe: OptionalName = None
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    preset: OptionalName = None
    """Model preset that replaces the recipe's [model]."""
    settings: ModelFlags = field(default_factory=ModelSettings)
    """Settings of the recipe's [model]."""


def params(arguments: Sequence[str]) -> int:
    """Run `xuebu params`."""
    asked = parse(ParamsArguments, arguments, prog="xuebu params", section="model")
    print_plain(make_console(), count_parameters(asked.settings, asked.vocab_size).summary())
    return 0


@dataclass(frozen=True, kw_only=True)
class PresetsArguments:
    """List the model presets."""

    vocab_size: Annotated[int, Range(6)] = 21_128
    """Entries of the vocabulary."""


def presets(arguments: Sequence[str]) -> int:
    """Run `xuebu presets`."""
    asked = parse(PresetsArguments, arguments, prog="xuebu presets")
    rows = [
        [
            name,
            str(settings.num_layers),
            str(settings.hidden_size),
            str(settings.num_heads),
            f"{settings.intermediate_size:,}",
            f"{count_parameters(settings, asked.vocab_size).total:,}",
            "yes" if settings.is_hugging_face else "no",
        ]
        for name, settings in PRESETS.items()
    ]
    columns = [
        "preset",
        ">layers",
        ">hidden",
        ">heads",
        ">inner",
        f">parameters ({asked.vocab_size:,} tokens)",
        "as HF BERT",
    ]
    print_table(make_console(), columns, rows)
    return 0
