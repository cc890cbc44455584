"""`xuebu vocab train | show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from xuebu.cli.flags import OptionalName, VocabularyFlags, parse
from xuebu.cli.screen import make_console, make_progress, print_plain
from xuebu.errors import ConfigError
from xuebu.tokens.settings import VocabularySettings


@dataclass(frozen=True, kw_only=True)
class VocabTrainArguments:
    """Make a vocabulary from the training side of a corpus, in a form that transformers' AutoTokenizer reads."""

    corpus: Annotated[Path, tyro.conf.Positional]
    """Folder of a built corpus."""
    out: Path
    """Folder of the vocabulary: vocab.txt, tokenizer.json, tokenizer_config.json."""
    recipe: OptionalName = None
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    settings: VocabularyFlags = field(default_factory=VocabularySettings)
    """Settings of the recipe's [vocabulary]."""


def train(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab train`."""
    asked = parse(VocabTrainArguments, arguments, prog="xuebu vocab train", section="vocabulary")
    if (asked.out / "vocab.txt").exists():
        raise ConfigError(f"{asked.out}: holds a vocabulary; remove it or choose another folder by --out")
    from xuebu.corpus.card import load_card
    from xuebu.study import make_vocabulary

    load_card(asked.corpus)  # says so if this is no finished corpus
    console = make_console()
    vocabulary = make_vocabulary(asked.corpus, asked.settings, asked.out, progress=make_progress(console))
    print_plain(console, vocabulary.summary())
    print_plain(console, f"vocabulary {asked.out}")
    return 0


@dataclass(frozen=True, kw_only=True)
class VocabShowArguments:
    """Show a vocabulary, or how it cuts a text."""

    vocab: Annotated[Path, tyro.conf.Positional]
    """Folder or vocab.txt of a vocabulary."""
    text: OptionalName = None
    """A text to cut into tokens."""
    first: int = 40
    """How many entries to show."""


def show(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab show`."""
    asked = parse(VocabShowArguments, arguments, prog="xuebu vocab show")
    from xuebu.tokens.vocab import load_vocabulary

    vocabulary = load_vocabulary(asked.vocab)
    console = make_console()
    print_plain(console, vocabulary.summary())
    if asked.text is None:
        print_plain(console, " ".join(vocabulary.tokens[: asked.first]))
    else:
        ids = vocabulary.encode(asked.text)
        print_plain(console, "  ".join(f"{vocabulary.tokens[token]}:{token}" for token in ids))
    return 0
