"""`xuebu vocab masks`: what masking does to a store, a run or a text, counted and shown."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.text import Text

from xuebu.batches.settings import BatchSettings
from xuebu.cli.flags import OptionalName, OptionalPath, parse
from xuebu.cli.screen import make_console, make_progress, print_plain, print_table
from xuebu.errors import ConfigError, InputError
from xuebu.progress import show_text

if TYPE_CHECKING:
    from xuebu.batches.loader import Loader
    from xuebu.batches.preview import Example
    from xuebu.train.settings import Recipe

BatchFlags = Annotated[BatchSettings, tyro.conf.arg(name="batches")]

_LOOKS = {"mask": ("【", "】", "bold red"), "random": ("{", "}", "bold yellow"), "kept": ("<", ">", "bold green"),
          "matched": ("{", "}", "bold magenta")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MaskArguments:
    """Show what masking does: the realized rate, words masked whole, shares of replacements, by class, and examples.

    Exit code 1 if a figure is otherwise than the settings ask for; training stops at once for the same reason.
    """

    source: Annotated[str, tyro.conf.Positional]
    """A run or study folder, a token store, a text file, or a text itself."""
    preview: int = 3
    """How many sequences to show."""
    tokens: int = 200_000
    """How many tokens to look at."""
    vocab: OptionalPath = None
    """Vocabulary of a store, where it does not lie beside it, or of a text; without, one is made from the text."""
    recipe: OptionalName = None
    """Shipped recipe by name, or a TOML file; its settings are the defaults of the flags below. Without: the run's."""
    seed: int = 0
    """Seed of the order, the pairs and the masks."""
    as_json: bool = False
    """Print JSON."""
    settings: BatchFlags = field(default_factory=BatchSettings)
    """Settings of the recipe's [batches]."""


def masks(arguments: Sequence[str]) -> int:
    """Run the command."""
    own = _recipe_of_run(arguments)
    asked = parse(MaskArguments, arguments, prog="xuebu vocab masks", own_recipe=own, section="batches")
    if asked.tokens < 1 or asked.preview < 0:
        raise ConfigError("--tokens must be at least 1, and --preview at least 0")
    from xuebu.batches.preview import report_masks

    with tempfile.TemporaryDirectory() as folder:
        loader = _open(asked, Path(folder))
        found = report_masks(loader, num_tokens=asked.tokens, num_examples=asked.preview)
    if asked.as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return 1 if found.problem else 0
    console = make_console()
    for example in found.examples:
        console.print(_rendered(example), soft_wrap=True)
        print_plain(console)
    if found.examples:
        legend = "【x】 became [MASK]   {x→y} became y   <x> chosen, stays   words are parted by ·"
        print_plain(console, legend, style="dim")
        print_plain(console)
    title = f"{found.sequences:,} sequences of {found.steps:,} steps, words cut by {found.segmenter}"
    print_table(console, ["", ">found", ">counted", "asked for"], found.rows(), title)
    if found.problem:
        Console(stderr=True, highlight=False).print(Text(show_text(f"xuebu: {found.problem}")), soft_wrap=True)
        return 1
    return 0


def _rendered(example: Example) -> Text:
    """Return an example with its chosen tokens marked, so that it reads without colors too."""
    line = Text({None: "", 0: "(b does not follow) ", 1: "(b follows) "}[example.label], style="dim")
    for number, piece in enumerate(example.pieces):
        if piece.begins and number:
            line.append("·" if not piece.text.startswith(" ") else " ", style="dim")
        text, shown = show_text(piece.text.strip()), show_text(piece.shown.strip())
        if piece.kind:
            before, after, style = _LOOKS[piece.kind]
            line.append(f"{before}{text}→{shown}{after}" if before == "{" else f"{before}{text}{after}", style=style)
        else:
            line.append(text)
    return line


def _recipe_of_run(arguments: Sequence[str]) -> Recipe | None:
    """Return the recipe of the run that is named, unless another is; None where no run is."""
    if any(word.partition("=")[0] in ("--recipe", "--help", "-h") for word in arguments):
        return None
    folder = next(
        (Path(word) for word in arguments if not word.startswith("-") and _is_file(Path(word), "run.toml")), None
    )
    if folder is None:
        return None
    from xuebu.train.folder import RunFolder, read_run_facts

    return read_run_facts(RunFolder(folder)).recipe


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except OSError:  # a text is no path, and may be too long for one
        return False


def _open(asked: MaskArguments, work: Path) -> Loader:
    from xuebu.batches.loader import Loader
    from xuebu.tokens.store import Store
    from xuebu.tokens.vocab import load_vocabulary

    path = Path(asked.source)
    if _is_file(path, "run.toml"):
        from xuebu.train.folder import RunFolder, read_run_facts

        facts = read_run_facts(RunFolder(path))
        store, vocabulary = path / facts.train_store, path / facts.vocabulary
        return Loader(Store.open(store), load_vocabulary(vocabulary), asked.settings, asked.seed)
    stores = [
        folder for folder in (path, path / "store" / "train", path / "train") if _is_file(folder, "metadata.json")
    ]
    if stores:
        near = [folder / "vocab" for folder in (path, *stores[0].absolute().parents[:2])]
        vocabulary_path = asked.vocab or next((folder for folder in near if _is_file(folder, "vocab.txt")), None)
        if vocabulary_path is None:
            raise InputError(f"{stores[0]}: no vocabulary lies beside this store; name it by --vocab")
        return Loader(Store.open(stores[0]), load_vocabulary(vocabulary_path), asked.settings, asked.seed)
    if _is_dir(path):
        raise InputError(f"{path}: neither a run nor a token store")
    return _loader_of_text(asked, _text_of(path), work)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _text_of(path: Path) -> str:
    try:
        if not path.is_file():
            return str(path)
        return path.read_bytes().decode("utf-8-sig")
    except OSError:
        return str(path)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8") from None


def _loader_of_text(asked: MaskArguments, text: str, work: Path) -> Loader:
    """Return the loader of a store that is made of a text, one document of all its sentences, without pairs."""
    from xuebu.batches.loader import Loader
    from xuebu.cli.flags import load_recipe
    from xuebu.corpus.document import SentenceDocument
    from xuebu.corpus.sentences import split_sentences
    from xuebu.tokens.build import build_store
    from xuebu.tokens.settings import StoreSettings, VocabularySettings
    from xuebu.tokens.vocab import load_vocabulary, train_vocabulary

    sentences = tuple(sentence for line in text.splitlines() for sentence in split_sentences(line) if sentence.strip())
    if not sentences:
        raise InputError(f"{asked.source!r}: neither a run, a token store, a file nor a text with a sentence")
    if asked.vocab:
        vocabulary = load_vocabulary(asked.vocab)
    else:
        vocabulary = train_vocabulary(sentences, VocabularySettings(min_count=1))
    settings = dataclasses.replace(asked.settings, objective="mlm")
    if settings.sequences == "pairs":
        raise ConfigError('a text holds no pairs; leave `sequences` = "pairs" to a store')
    document = SentenceDocument(id="text", title="", group="text", source="text", sentences=sentences)
    store_settings = load_recipe(asked.recipe).store if asked.recipe else StoreSettings()
    if store_settings.segmenter == "statistics":
        raise ConfigError('a text is too little to learn words from (`store.segmenter` = "statistics"); name a store')
    progress = make_progress(Console(stderr=True, highlight=False))
    store = build_store([document], vocabulary, work / "store", store_settings, corpus_digest="", progress=progress)
    return Loader(store, vocabulary, settings, asked.seed)
