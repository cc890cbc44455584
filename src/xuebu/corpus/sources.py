"""Where documents come from: files, folders and the hub; a later source is one more function that yields documents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from xuebu.corpus import formats
from xuebu.corpus.clean import clean_line
from xuebu.corpus.document import Document
from xuebu.corpus.dump import begins_as_dump, is_index_name, read_dump
from xuebu.corpus.encoding import repair_encoding
from xuebu.corpus.markdown import markdown_title, markdown_to_text
from xuebu.corpus.parts import InputFile, Part, Stretch, cut_documents, cut_files
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.rows import ROW_SUFFIXES, read_id_lines, read_rows
from xuebu.corpus.settings import CorpusSettings, Markup
from xuebu.corpus.tables import read_hub, read_parquet
from xuebu.corpus.wikitext import wikitext_to_text
from xuebu.errors import InputError
from xuebu.files import plain_suffix
from xuebu.progress import SILENT, Progress


class DocumentReader:
    """The documents of files, folders and data sets, one in memory at a time; each iteration reads anew.

    Attributes:
        files: the files that are read, in their order.
        num_unknown: files in folders that are not of a kind that is read.
        hub: data sets of the hub, read after the files.
        settings: how they are read.
        refusals: files and pages that gave no document, and the markup that was removed, known once an iteration has
            ended.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        unknown: int,
        settings: CorpusSettings,
        progress: Progress,
        *,
        hub: Sequence[str] = (),
    ) -> None:
        self.files, self.num_unknown, self.hub, self.settings = tuple(files), unknown, tuple(hub), settings
        self.refusals = Refusals()
        self._progress = progress

    def __iter__(self) -> Iterator[Document]:
        self.refusals = Refusals()
        found: Counter[int] = Counter()
        whole = Part(0, tuple(map(Stretch, self.files)))
        yield from read_part(whole, self.settings, self.refusals, found)
        yield from self._hub_documents()
        for note in refuse_files(self.files, self.num_unknown, found, self.refusals):
            self._progress.note(note)

    def parts(self) -> Iterator[Part]:
        """Yield parts to be read by `read_part`; `refusals` then hold only what the hub's documents lost."""
        self.refusals = Refusals()
        yield from cut_files(self.files, self.settings)
        yield from cut_documents(self._hub_documents())

    def _hub_documents(self) -> Iterator[Document]:
        for name in self.hub:
            for document in read_hub(name):
                yield _finished(document, self.settings.markup, self.settings, self.refusals)


def refuse_files(
    files: Sequence[InputFile], num_unknown: int, found: Mapping[int, int], refusals: Refusals
) -> list[str]:
    """Count the files that were passed over, and return a line to be shown for each empty one.

    Args:
        files: that were read.
        num_unknown: files that were not.
        found: number of a file -> what was found in it, as `read_part` counts.
        refusals: where they are counted.

    Raises:
        InputError: the only file is empty, or all are.
    """
    for _ in range(num_unknown):
        refusals.add("unknown_file")
    empty = [file for file in files if not found.get(file.number)]
    if len(files) == len(empty) == 1:
        raise InputError(f"{files[0].path}: is empty; give a file with text in it")
    for file in empty:
        refusals.add("empty_file", source=file.source, id=file.name)
    if files and len(empty) == len(files):
        raise InputError(f"all {len(files)} input files are empty; give files with text in them")
    return [f"{file.path}: holds no document, passed over" for file in empty]


def read_part(part: Part, settings: CorpusSettings, refusals: Refusals, found: Counter[int]) -> Iterator[Document]:
    """Yield the documents of a part of the input as plain text.

    Args:
        part: what to read.
        settings: `txt_documents`, `script`, `markup` and those of dumps are used.
        refusals: receives the pages of dumps that are refused, and the markup that is removed.
        found: receives, for each file by its number, how much was found in it: 0 only where nothing was.
    """
    yield from part.documents
    for stretch in part.stretches:
        before = refusals.counts()
        for document in _read_stretch(stretch, settings, refusals):
            found[stretch.file.number] += 1
            yield document
        found[stretch.file.number] += refusals.counts() != before


def _read_stretch(stretch: Stretch, settings: CorpusSettings, refusals: Refusals) -> Iterator[Document]:
    file, span = stretch.file, stretch.span
    markup: Markup = "plain"
    match file.kind:
        case "text" if settings.txt_documents == "blank-line":
            documents, markup = formats.read_text_blocks(file.path, file.name, file.source, span), settings.markup
        case "text":
            documents, markup = formats.read_text_file(file.path, file.name, file.source), settings.markup
        case "markdown":
            documents, markup = formats.read_markdown(file.path, file.name, file.source), "markdown"
        case "json-lines":
            documents, markup = formats.read_json_lines(file.path, file.name, file.source, span), settings.markup
        case "parquet":
            documents, markup = read_parquet(file.path, file.name, file.source, stretch.groups), settings.markup
        case "wikiextractor":
            documents = formats.read_wikiextractor(file.path, file.name, file.source, span)
        case "json":
            documents = formats.read_json(file.path, file.name, file.source)
        case "rows":
            documents = _read_rows(stretch, settings, refusals)
        case "id-lines":
            whole = settings.txt_documents == "file"
            documents = read_id_lines(file.path, file.name, file.source, whole=whole)
        case "dump":
            chunks = stretch.chunks or None
            documents = read_dump(file.path, file.source, settings=settings, refusals=refusals, chunks=chunks)
    for document in documents:
        yield _finished(document, markup, settings, refusals)


def _read_rows(stretch: Stretch, settings: CorpusSettings, refusals: Refusals) -> Iterator[Document]:
    file, columns = stretch.file, settings.row_columns
    for row in read_rows(file.path, file.name, file.source, stretch.span, columns=columns, ids=settings.token_ids):
        if row.text.count("\n") + 1 < columns:
            refusals.add_count("empty_column", 1)
        yield row


def _finished(document: Document, markup: Markup, settings: CorpusSettings, refusals: Refusals) -> Document:
    """Return a document as plain text, with the script that the settings state where it states none."""
    title, text, removed = document.title, document.text, Counter[str]()
    if settings.repair_encoding and markup != "plain":  # before white space goes that is the last byte of a character
        text, repaired = repair_encoding(text)
        removed["repaired_line"] = repaired
        if repaired and markup == "markdown" and title == clean_line(markdown_title(document.text)):
            title = clean_line(markdown_title(text))  # the group stays what the source gives
    if markup == "markdown":
        text, parts = markdown_to_text(text)
        removed += parts
    elif markup == "wikitext":
        text, parts = wikitext_to_text(text, variant=settings.wiki_variant or None)
        removed += parts
    for reason, count in sorted((+removed).items()):
        refusals.add_count(reason, count)
    return replace(document, title=title, text=text, script=document.script or settings.script)


def read_documents(
    inputs: Sequence[Path],
    settings: CorpusSettings | None = None,
    *,
    hub: Sequence[str] = (),
    progress: Progress = SILENT,
) -> DocumentReader:
    """Return the documents of files, folders and data sets of the hub, to be iterated.

    Kinds of file: .txt (one document, or parted by blank lines as `txt_documents` says; wikiextractor's output if its
    first line is a <doc>), .md, .jsonl (one {"id", "title", "text"} a line), .json (the published study's, or JSON
    lines), .parquet, .xml (a wiki's dump), and without suffix, as wiki_00, wikiextractor's output plain or as JSON; all
    but .parquet also as .gz, .bz2, .xz or .zst. Folders are read recursively, files sorted by name; hidden files and
    folders, files of other kinds and links to folders in them are counted and noted.

    Source, id and group hold names from the input down and no path above it: where a folder lies changes no byte of
    the corpus. A document's source is the input's name; a single .txt file of one document takes its folder's, so that
    texts/*.txt is one source and not as many as files.

    Args:
        inputs: files and folders, read in this order.
        settings: `txt_documents`, `script`, `markup` and those of dumps are used; the defaults if None.
        hub: data sets of the Hugging Face hub, read after the files; see `read_hub`.
        progress: where skipped files are noted.

    Raises:
        InputError: an input is missing, given twice, or of an unknown kind, or a folder holds nothing to read; while
            iterating, whatever is wrong in a file, with its line.
    """
    settings = settings or CorpusSettings()
    if not inputs and not hub:
        raise InputError("no input: give one or more files or folders of text")
    files: list[InputFile] = []
    unknown: Counter[str] = Counter()
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_dir():
            files.extend(_files_in(path, unknown, settings))
        else:
            files.append(_named_file(path, settings))
    unknown = +unknown
    if unknown:
        kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in sorted(unknown.items()))
        progress.note(f"{unknown.total():,} files and folders passed over, not of a kind that is read: {kinds}")
    seen: dict[Path, Path] = {}
    for file in files:
        first = seen.setdefault(file.path.resolve(), file.path)
        if first is not file.path:
            raise InputError(f"{file.path}: given twice (also as {first}); name it once")
    files = [replace(file, number=number) for number, file in enumerate(files)]
    return DocumentReader(files, unknown.total(), settings, progress, hub=hub)


def _named_file(path: Path, settings: CorpusSettings) -> InputFile:
    kind = _kind_of(path, settings)
    if kind is None:
        raise InputError(
            f"{path}: not of a kind that is read; known are {_known(settings)}; also as .gz, .bz2, .xz or .zst"
        )
    whole = kind == "text" and settings.txt_documents == "file"
    return InputFile(path, path.name, _source_name(path.parent if whole else path), kind)


def _files_in(folder: Path, unknown: Counter[str], settings: CorpusSettings) -> list[InputFile]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}")

    names: list[str] = []
    for parent, folders, entries in os.walk(folder, onerror=refuse):
        unknown["hidden folder"] += sum(name.startswith(".") for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        unknown["link to a folder"] += sum((Path(parent) / name).is_symlink() for name in folders)  # it is not walked
        names += [(Path(parent) / entry).relative_to(folder).as_posix() for entry in entries]
    files = []
    for name in sorted(names):
        path = folder / name
        if is_index_name(path):  # belongs to the dump beside it
            continue
        kind = None if path.name.startswith(".") else _kind_or_none(path, settings)
        if kind is None:
            unknown[path.suffix.lower() or "no suffix"] += 1
        else:
            files.append(InputFile(path, name, _source_name(folder), kind))
    if not files:
        raise InputError(f"{folder}: holds no file of a kind that is read ({_known(settings)})")
    return files


def _source_name(path: Path) -> str:
    """Return the last name of a path, also of "." and "..", without what leads to it."""
    return (path.name if path.name != ".." else "") or path.resolve().name or "/"


def _known(settings: CorpusSettings) -> str:
    if settings.layout == "rows":
        return 'of layout = "rows" ' + ", ".join(ROW_SUFFIXES)
    if settings.token_ids:
        return "of token ids in lines .txt"
    return ".txt, .md, .jsonl, .json, .parquet, .xml (a wiki's dump) and wikiextractor's output"


def _kind_of(path: Path, settings: CorpusSettings) -> formats.Kind | None:
    if settings.layout == "rows":
        return "rows" if plain_suffix(path) in ROW_SUFFIXES else None
    if settings.token_ids:
        return "id-lines" if plain_suffix(path) == ".txt" else None
    return formats.kind_of(path)


def _kind_or_none(path: Path, settings: CorpusSettings) -> formats.Kind | None:
    """Return `_kind_of`; XML that is no dump, and a file without suffix that is no text, are of no known kind."""
    try:
        kind = _kind_of(path, settings)
    except InputError:
        if plain_suffix(path) == "":
            return None
        raise
    return None if kind == "dump" and not begins_as_dump(path) else kind
