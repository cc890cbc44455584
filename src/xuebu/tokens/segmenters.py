"""What cuts text into words: rjieba, jieba, a list of words, statistics, or a function of your own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xuebu.errors import ConfigError, InputError, MissingExtraError
from xuebu.files import read_lines, sha256_file, write_atomic
from xuebu.tokens.text import normalize

Cut = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Segmenter:
    """Something that cuts text into words.

    Attributes:
        name: what a store records: with the version, and the beginning of the digest of its dictionary or source.
        cut: the words of a text, in order, white space included, which rejoin to the text; None where a token is a
            word, together with the pieces that go on with it.
    """

    name: str
    cut: Cut | None


def make_segmenter(kind: str, dictionary: Path | None = None) -> Segmenter:
    """Return the segmenter of a kind.

    Args:
        kind: as `StoreSettings.segmenter`.
        dictionary: file of words; for "longest" and "statistics" all there are, for rjieba and jieba further ones.

    Raises:
        MissingExtraError: rjieba or jieba is asked for and not installed.
        InputError: the dictionary cannot be read or is empty; names file and line.
        ConfigError: there is no such callable, or a list of words is needed and not given.
    """
    digest = f", words {sha256_file(dictionary)[:12]}" if dictionary and dictionary.is_file() else ""
    match kind:
        case "none":
            return Segmenter("none", None)
        case "rjieba":
            return Segmenter(f"rjieba {_version('rjieba')}{digest}", _rjieba(dictionary))
        case "jieba":
            return Segmenter(f"jieba {_version('jieba')}{digest}", _jieba(dictionary))
        case "longest" | "statistics":
            if dictionary is None:
                raise ConfigError(f'segmenter "{kind}" needs a file of words')
            words = read_words(dictionary)
            return Segmenter(f"{kind}{digest}", longest_match(words))
        case _:
            return _callable(kind)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        raise MissingExtraError.of("train" if package == "rjieba" else "words", f'segmenter = "{package}"') from None


def _rjieba(dictionary: Path | None) -> Cut:
    import rjieba

    if dictionary is None:
        cut: Cut = rjieba.cut
        return cut
    own = rjieba.Jieba()
    for word, count in read_words(dictionary).items():
        own.add_word(word, count or own.suggest_freq(word), "n")
    own_cut: Cut = own.cut
    return own_cut


def _jieba(dictionary: Path | None) -> Cut:
    import jieba

    jieba.setLogLevel("WARNING")
    own = jieba.Tokenizer()
    if dictionary is not None:
        for word, count in read_words(dictionary).items():
            own.add_word(word, count or None)
    cut: Cut = own.lcut
    return cut


def _callable(name: str) -> Segmenter:
    """Return the segmenter of "module:function" or "file.py:function"."""
    where, _, function = name.rpartition(":")
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            if spec is None or spec.loader is None:
                raise ImportError("not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
        cut = getattr(module, function)
    except (ImportError, AttributeError, OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"segmenter {name!r}: {error}; name it as module:function or file.py:function") from None
    if not callable(cut):
        raise ConfigError(f"segmenter {name!r}: is no function")
    source = getattr(sys.modules.get(getattr(cut, "__module__", "")), "__file__", None) or getattr(
        module, "__file__", None
    )
    digest = f", source {sha256_file(Path(source))[:12]}" if source and Path(source).is_file() else ""
    return Segmenter(f"{Path(where).name}:{function}{digest}", partial(_call, name, cut))


def _call(name: str, function: Callable[[str], Any], text: str) -> list[str]:
    """Return what somebody's function gives for a text as a list of strings.

    Raises:
        InputError: it raises an error of its own, or returns something else.
    """
    try:
        words = function(text)
        listed = None if isinstance(words, str) or not isinstance(words, Iterable) else list(words)
    except Exception as error:  # of code that is not ours
        raise InputError(f"segmenter {name!r} failed at {text[:20]!r}: {type(error).__name__}: {error}") from error
    if listed is None:
        kind = type(words).__name__
        raise InputError(f"segmenter {name!r} returned {kind}, not words; return a list of str")
    wrong = next((word for word in listed if not isinstance(word, str)), None)
    if wrong is not None:
        raise InputError(f"segmenter {name!r} returned a {type(wrong).__name__} among its words; return a list of str")
    return listed


def read_words(path: Path) -> dict[str, int]:
    """Return the words of a dictionary with their counts, 0 where none is stated.

    A line is a word, or a word, a count and whatever follows, parted by spaces or a tab (jieba's own form); empty
    lines and lines that begin with "#" are passed over. Words are brought to NFC.

    Raises:
        InputError: the file cannot be read, holds no word, or a count is no whole number; names file and line.
    """
    words: dict[str, int] = {}
    for number, line in read_lines(path):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        count = 0
        if len(fields) > 1 and not fields[1].isalpha():
            if not (fields[1].isascii() and fields[1].isdigit()):
                raise InputError(f"{path}:{number}: the count {fields[1]!a} is no whole number; write: word 12")
            count = int(fields[1])
        words[normalize(fields[0])] = count
    if not words:
        raise InputError(f"{path}:1: holds no word; write one a line")
    return words


def write_words(path: Path, words: Mapping[str, int]) -> None:
    """Write a dictionary that `read_words` reads: a word and its count a line."""
    write_atomic(path, "".join(f"{word} {count}\n" for word, count in words.items()))


def longest_match(words: Mapping[str, int]) -> Cut:
    """Return a function that cuts a text from left to right, each time by the longest of the words, else a character.

    Source: forward maximum matching; Chen & Liu 1992, "Word identification for Mandarin Chinese sentences", rule 1.
    """
    lengths_of: dict[str, set[int]] = {}
    for word in words:
        if len(word) > 1:
            lengths_of.setdefault(word[0], set()).add(len(word))
    by_first = {first: sorted(lengths, reverse=True) for first, lengths in lengths_of.items()}

    def cut(text: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(text):
            end = start + 1
            for length in by_first.get(text[start], ()):
                if text[start : start + length] in words:
                    end = start + length
                    break
            found.append(text[start:end])
            start = end
        return found

    return cut
