"""`xuebu vocab train | show | compare | extend | transfer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from xuebu.cli.flags import OptionalName, VocabularyFlags, parse
from xuebu.cli.screen import make_console, make_progress, print_plain, print_table
from xuebu.config import Range, check_settings
from xuebu.errors import ConfigError, InputError
from xuebu.files import read_lines, to_json
from xuebu.progress import Progress
from xuebu.tokens.settings import VocabularyKind, VocabularySettings

OptionalKind = Annotated[VocabularyKind | None, tyro.conf.arg(metavar="KIND")]
OptionalCount = Annotated[int | None, tyro.conf.arg(metavar="INT")]


def read_texts(paths: Sequence[Path], progress: Progress) -> Iterator[str]:
    """Yield the sentences of corpora (their training side) and the lines of files, in the order given.

    Raises:
        InputError: a path is neither a built corpus nor a file that is read as text.
    """
    from xuebu.corpus.card import load_card
    from xuebu.corpus.document import CorpusFile
    from xuebu.corpus.sources import read_documents
    from xuebu.files import plain_suffix

    for path in paths:
        if path.is_dir():
            load_card(path)  # says so if this is no finished corpus
    for path in paths:
        if path.is_dir():
            with progress.task(f"read {path.name}", unit="documents") as task:
                for stored in CorpusFile(path / "train.jsonl"):
                    yield from stored.sentences
                    task.advance()
        elif plain_suffix(path) != ".txt":
            for document in read_documents([path], progress=progress):
                yield from document.text.split("\n")
        else:
            with progress.task(f"read {path.name}", unit="lines") as task:
                number = 0
                for number, line in read_lines(path):
                    yield line
                    if number % 10_000 == 0:
                        task.advance(10_000)
                task.advance(number % 10_000)


def _free_folder(out: Path) -> None:
    for name in ("vocab.txt", "config.json"):
        if (out / name).exists():
            raise ConfigError(f"{out}: holds {name}; remove it or choose another folder by --out")


@dataclass(frozen=True, kw_only=True)
class VocabTrainArguments:
    """Make a vocabulary from the training side of a corpus, in a form that transformers' AutoTokenizer reads.

    The same texts give the same vocabulary, in whatever order they are read and on however many threads.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of built corpora, or files of text: .txt, read line by line, and all others that `xuebu corpus build`
    reads, as they are, without cleaning."""
    out: Path
    """Folder of the vocabulary: vocab.txt, tokenizer.json, tokenizer_config.json."""
    recipe: OptionalName = None
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    kind: OptionalKind = None
    """character or wordpiece: short for --vocabulary.kind."""
    size: OptionalCount = None
    """Most entries: short for --vocabulary.max-size."""
    settings: VocabularyFlags = field(default_factory=VocabularySettings)
    """Settings of the recipe's [vocabulary]."""


def train(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab train`."""
    asked = parse(VocabTrainArguments, arguments, prog="xuebu vocab train", section="vocabulary")
    if not asked.inputs:
        raise ConfigError("name a corpus or a text file: xuebu vocab train CORPUS --out FOLDER")
    _free_folder(asked.out)
    settings = dataclasses.replace(
        asked.settings,
        kind=asked.kind or asked.settings.kind,
        max_size=asked.settings.max_size if asked.size is None else asked.size,
    )
    check_settings(settings, where="command line")
    from xuebu.tokens.vocab import train_vocabulary

    console = make_console()
    vocabulary = train_vocabulary(read_texts(asked.inputs, make_progress(console)), settings)
    vocabulary.save(asked.out)
    print_plain(console, vocabulary.summary())
    print_plain(console, f"vocabulary {asked.out}")
    return 0


@dataclass(frozen=True, kw_only=True)
class VocabShowArguments:
    """Show a vocabulary, how it cuts a text, or what it makes of a corpus before anything is trained."""

    vocab: Annotated[Path, tyro.conf.Positional]
    """Folder or vocab.txt of a vocabulary."""
    text: OptionalName = None
    """A text to cut into tokens."""
    on: tuple[Path, ...] = ()
    """Corpora or text files: coverage, [UNK] by character, tokens a character, unused entries."""
    first: int = 40
    """How many entries to show."""
    as_json: bool = False
    """Print JSON."""


def show(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab show`."""
    asked = parse(VocabShowArguments, arguments, prog="xuebu vocab show")
    from xuebu.tokens.coverage import report_text
    from xuebu.tokens.vocab import load_vocabulary

    vocabulary = load_vocabulary(asked.vocab)
    console = make_console()
    report = report_text(vocabulary, read_texts(asked.on, _notes())) if asked.on else None
    ids = None if asked.text is None else vocabulary.encode(asked.text).tolist()
    if asked.as_json:
        shown = {
            "kind": vocabulary.kind,
            "lowercase": vocabulary.lowercase,
            "size": vocabulary.num_tokens,
            "digest": vocabulary.digest,
            "special": dataclasses.asdict(vocabulary.special),
            **({} if ids is None else {"tokens": [vocabulary.tokens[token] for token in ids], "ids": ids}),
            **({} if report is None else {"report": report.to_json()}),
        }
        print(to_json(shown), end="")
        return 0
    print_plain(console, vocabulary.summary())
    if ids is not None:
        print_plain(console, "  ".join(f"{vocabulary.tokens[token]}:{token}" for token in ids))
    if report is not None:
        print_plain(console, report.summary())
    if ids is None and report is None:
        print_plain(console, " ".join(vocabulary.tokens[: max(asked.first, 0)]))
    return 0


def _notes() -> Progress:
    """Return progress on standard error: what is printed on standard output may be JSON."""
    return make_progress(Console(stderr=True, highlight=False))


@dataclass(frozen=True, kw_only=True)
class VocabCompareArguments:
    """Compare two vocabularies: what both have, what one has only, and what each makes of a text."""

    first: Annotated[Path, tyro.conf.Positional]
    """Folder or vocab.txt of a vocabulary."""
    second: Annotated[Path, tyro.conf.Positional]
    """Folder or vocab.txt of the other."""
    on: tuple[Path, ...] = ()
    """Corpora or text files that both are tried on."""
    as_json: bool = False
    """Print JSON."""


def compare(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab compare`."""
    asked = parse(VocabCompareArguments, arguments, prog="xuebu vocab compare")
    from xuebu.tokens.coverage import compare_vocabularies
    from xuebu.tokens.vocab import load_vocabulary

    names = (str(asked.first), str(asked.second))
    compared = compare_vocabularies(
        load_vocabulary(asked.first),
        load_vocabulary(asked.second),
        names=names,
        texts=read_texts(asked.on, _notes()) if asked.on else None,
    )
    if asked.as_json:
        print(to_json(compared.to_json()), end="")
        return 0
    console = make_console()
    print_plain(console, compared.summary())
    print_table(console, ["", *(f">{name}" for name in names)], compared.rows())
    return 0


@dataclass(frozen=True, kw_only=True)
class VocabExtendArguments:
    """Add the characters that a text needs and a vocabulary lacks; ids that were there stay.

    Of a model folder the weights are extended too: what was there keeps its rows, and its logits to the bit; new rows
    begin at the mean of old ones, with a little noise.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Folder or vocab.txt of a vocabulary, or a model folder with one."""
    on: tuple[Path, ...]
    """Corpora or text files whose characters are needed."""
    out: Path
    """Folder of the extended vocabulary or model."""
    min_count: Annotated[int, Range(1)] = 2
    """Rarer characters stay [UNK]."""
    max_added: OptionalCount = None
    """Most new entries."""
    seed: int = 0
    """Of the noise on new rows."""


def extend(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab extend`."""
    asked = parse(VocabExtendArguments, arguments, prog="xuebu vocab extend")
    if asked.min_count < 1 or (asked.max_added or 0) < 0:
        raise ConfigError("`min_count` must be at least 1 and `max_added` at least 0")
    _free_folder(asked.out)
    from xuebu.tokens.extend import extend_vocabulary
    from xuebu.tokens.vocab import load_vocabulary

    console = make_console()
    old = load_vocabulary(asked.source)
    texts = read_texts(asked.on, make_progress(console))
    new, added = extend_vocabulary(old, texts, min_count=asked.min_count, max_added=asked.max_added)
    if not added:
        raise InputError(
            f"{asked.source}: lacks nothing that occurs {asked.min_count} times or more in the text; "
            "nothing was written"
        )
    if (asked.source / "config.json").exists():
        from xuebu.model.pretrained import load_pretrained, save_pretrained
        from xuebu.model.resize import resize_vocabulary

        model = load_pretrained(asked.source).model
        save_pretrained(resize_vocabulary(model, old, new, seed=asked.seed), new, asked.out)
    else:
        new.save(asked.out)
    print_plain(console, f"{len(added):,} entries added: {' '.join(added[:40])}" + (" ..." if len(added) > 40 else ""))
    print_plain(console, new.summary())
    print_plain(console, f"extended {asked.out}")
    return 0


@dataclass(frozen=True, kw_only=True)
class VocabTransferArguments:
    """Give a trained model another vocabulary, to go on from: xuebu train --initial OUT.

    By token: what both vocabularies have keeps its rows, the rest begins at means. By rank, for anonymised ids: the
    k-th most frequent entry gets the rows of the model's k-th most frequent one, counted in public text.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained model with its vocabulary, ours or a Hugging Face BERT."""
    vocab: Path
    """Folder or vocab.txt of the vocabulary that it is to have."""
    out: Path
    """Folder of the new model."""
    by: Literal["token", "rank"] = "token"
    """What tells which row an entry gets."""
    on: tuple[Path, ...] = ()
    """With rank: corpora or text files in the model's language, to count its tokens in."""
    seed: int = 0
    """Of the noise on new rows."""


def transfer(arguments: Sequence[str]) -> int:
    """Run `xuebu vocab transfer`."""
    asked = parse(VocabTransferArguments, arguments, prog="xuebu vocab transfer")
    if (asked.by == "rank") != bool(asked.on):
        raise ConfigError("--by rank needs public text to count in, --on FILE; --by token needs none")
    _free_folder(asked.out)
    from xuebu.model.pretrained import load_pretrained, save_pretrained
    from xuebu.model.resize import resize_vocabulary, transfer_by_rank
    from xuebu.tokens.coverage import count_tokens
    from xuebu.tokens.vocab import load_vocabulary

    console = make_console()
    new, loaded = load_vocabulary(asked.vocab), load_pretrained(asked.model)
    old = loaded.vocabulary
    if old is None:
        raise InputError(f"{asked.model}: no vocabulary (vocab.txt) belongs to this model; save it with one")
    if asked.by == "rank":
        counts = count_tokens(old, read_texts(asked.on, make_progress(console)))
        model = transfer_by_rank(loaded.model, old, new, counts, seed=asked.seed)
    else:
        model = resize_vocabulary(loaded.model, old, new, seed=asked.seed)
    save_pretrained(model, new, asked.out)
    print_plain(console, f"{new.summary()}, rows by {asked.by} from {asked.model}")
    print_plain(console, f"model {asked.out}")
    return 0
