"""`xuebu corpus leaks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from xuebu.cli.flags import OptionalPath, parse
from xuebu.cli.screen import make_console, make_progress, print_plain
from xuebu.config import Range
from xuebu.corpus.evaluation_texts import read_evaluation_set
from xuebu.corpus.leak import MIN_CHARACTERS, check_leaks, remove_leaks
from xuebu.corpus.settings import Conversion
from xuebu.errors import ConfigError
from xuebu.files import to_json
from xuebu.progress import SILENT


@dataclass(frozen=True, kw_only=True)
class LeaksArguments:
    """Compare a corpus with evaluation sets: which of their texts it holds; exit code 1 if it holds some.

    Sentences are compared by their letters and digits: equal ones, and those with three or more runs of 20 characters
    in common. With --remove, a corpus without these sentences is written to --out.
    """

    corpus: Annotated[Path, tyro.conf.Positional]
    """Folder of a built corpus."""
    against: tuple[Path, ...] = ()
    """Evaluation sets: .jsonl, .json, .tsv, .csv or .txt (a text a line), also compressed. Needed."""
    fields: tuple[str, ...] = ()
    """Keys of .json and .jsonl, or columns of a table, that hold the texts; without, every string."""
    convert: Conversion = "none"
    """Conversion of the evaluation sets' script by OpenCC, where the corpus was converted: "t2s", ..."""
    min_characters: Annotated[int, Range(2, 1000)] = MIN_CHARACTERS
    """Shortest sentence, in letters and digits, that is compared."""
    remove: bool = False
    """Write the corpus without what was found."""
    whole_documents: bool = False
    """With --remove: a document with such a sentence goes as a whole."""
    out: OptionalPath = None
    """With --remove: folder of the new corpus."""
    as_json: bool = False
    """Print the report as JSON."""


def leaks(arguments: Sequence[str]) -> int:
    """Run `xuebu corpus leaks`."""
    asked = parse(LeaksArguments, arguments, prog="xuebu corpus leaks")
    if not asked.against:
        raise ConfigError("--against is missing: name the files of the evaluation sets")
    if asked.remove != (asked.out is not None) or (asked.whole_documents and not asked.remove):
        raise ConfigError("--remove and --out FOLDER go together, and --whole-documents with them")
    console = make_console()
    progress = SILENT if asked.as_json else make_progress(console)
    sets = [read_evaluation_set(path, asked.fields, convert=asked.convert) for path in asked.against]
    if asked.out is None:
        report = check_leaks(asked.corpus, sets, min_characters=asked.min_characters, progress=progress)
    else:
        report, _ = remove_leaks(
            asked.corpus,
            asked.out,
            sets,
            whole_documents=asked.whole_documents,
            min_characters=asked.min_characters,
            progress=progress,
        )
    if asked.as_json:
        print(to_json(report.to_json()), end="")
    else:
        print_plain(console, report.summary())
        if asked.out is not None:
            print_plain(console, f"corpus    {asked.out}\ncard      {asked.out / 'card.md'}")
    return 1 if report.found and asked.out is None else 0
