"""WordPiece ids, equal to those of the library `tokenizers`, at the speed of a table look-up.

BERT's tokenizer sets ideographs and punctuation apart, so that each is a token by itself whatever stands around it:
its id is found in a table by code point. What is left between those and white space are runs (Latin words, numbers,
kana, emoji). A run is cut into pieces by the library itself, once, and then remembered. Which kind a character is of
is asked of the library too, once for each, so that tables of Unicode of another version cannot make a difference:
the ids are the library's by construction.

Source: Devlin et al. 2019; tokenization.py of google-research/bert; `BertNormalizer`, `BertPreTokenizer` and
`WordPiece` of tokenizers.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.errors import MissingExtraError
from xuebu.tokens.text import NUM_CODE_POINTS, code_points

MAX_WORD_CHARACTERS = 100
"""A longer word is [UNK], as in Google's code."""

SPACE, RUN, _NEW = -1, -2, -3
_SURROGATES = range(0xD800, 0xE000)
_REMEMBERED_CHARACTERS = 1 << 24  # of runs, before all are forgotten

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def make_normalizers(lowercase: bool) -> tuple[Any, Any]:
    """Return BERT's normalizer and pre-tokenizer of the library; accents are stripped where letters are lower-cased.

    Raises:
        MissingExtraError: the package tokenizers is not installed.
    """
    try:
        from tokenizers import normalizers, pre_tokenizers
    except ImportError:
        raise MissingExtraError.of("train", "a WordPiece vocabulary") from None
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


def make_model(tokens: Sequence[str]) -> Any:
    """Return a `tokenizers.Tokenizer` with the pieces alone: no normalizer, no special tokens."""
    from tokenizers import Tokenizer, models

    ids = {token: index for index, token in enumerate(tokens)}
    return Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARACTERS))


class CharacterKinds:
    """What BERT's tokenizer makes of each character: a token by itself, white space, or a part of a run.

    Args:
        lowercase: whether letters are lower-cased and accents stripped.
    """

    def __init__(self, lowercase: bool) -> None:
        self._normalizer, self._pre_tokenizer = make_normalizers(lowercase)

    def kind(self, character: str) -> int | str:
        """Return SPACE, RUN, or the character that stands for it where it is a token by itself."""
        if ord(character) in _SURROGATES:
            return character  # no text to the library
        parts = [part for part, _ in self._pre_tokenizer.pre_tokenize_str(self.normalize(f"a{character}a"))]
        if parts == ["a", "a"]:
            return SPACE
        apart = len(parts) == 3 and parts[0] == parts[2] == "a" and len(parts[1]) == 1
        # A mark that the normal form may move past its neighbor depends on it.
        return parts[1] if apart and not unicodedata.combining(character) else RUN

    def normalize(self, text: str) -> str:
        """Return the text as BERT's normalizer leaves it: cleaned, ideographs between spaces, lower-cased if asked."""
        normalized: str = self._normalizer.normalize_str(text)
        return normalized


class CharacterTable:
    """A number for each code point, asked for when it is first met.

    Args:
        value_of: SPACE, RUN, or a number from 0 for a character that is a token by itself.
    """

    def __init__(self, value_of: Callable[[str], int]) -> None:
        self._value_of = value_of
        self._values = np.full(NUM_CODE_POINTS, _NEW, dtype=np.int32)

    def look_up(self, text: str) -> Int32:
        """Return int32[len(text)], the number of each character."""
        codes = code_points(text)
        values: Int32 = self._values.take(codes)
        new = values == _NEW
        if new.any():
            is_met = np.zeros(NUM_CODE_POINTS, dtype=np.bool_)
            is_met[codes[new]] = True
            for code in np.flatnonzero(is_met).tolist():
                self._values[code] = self._value_of(chr(code))
            values = self._values.take(codes)
        return values


def find_runs(text: str, values: Int32) -> tuple[list[str], Int64]:
    """Return the runs of a text, and the place of each.

    Args:
        text: any.
        values: int32[len(text)] of a `CharacterTable`.
    """
    is_run = np.zeros(len(values) + 2, dtype=np.bool_)
    is_run[1:-1] = values == RUN
    edges = np.flatnonzero(is_run[1:] != is_run[:-1])
    runs = [text[first:end] for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
    return runs, edges[::2]


class _Runs:
    """The pieces of the runs that were met, end to end; entry i is `ids[offsets[i] : offsets[i + 1]]`."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.ids = np.zeros(1 << 12, dtype=np.int32)
        self.places = np.zeros(1 << 12, dtype=np.int64)
        self.offsets = np.zeros(1 << 12, dtype=np.int64)
        self.num_characters = 0

    def add(self, runs: Sequence[str], ids: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> None:
        """Append runs; readers in other threads see each whole, since the index comes last."""
        num_runs = len(self.index)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        first = int(self.offsets[num_runs])
        self.ids = _put(self.ids, first, [index for one in ids for index in one])
        self.places = _put(self.places, first, [place for one in places for place in one])
        self.offsets = _put(self.offsets, num_runs + 1, first + np.cumsum(lengths))
        self.num_characters += sum(map(len, runs))
        self.index.update(zip(runs, range(num_runs, num_runs + len(runs)), strict=True))


def _put(array: npt.NDArray[Any], first: int, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Write values into an array from `first` on; return it, or a larger copy where they do not fit."""
    added = np.asarray(values, dtype=array.dtype)
    end = first + len(added)
    if end > len(array):
        array = np.concatenate([array[:first], np.zeros(max(end, 2 * len(array)) - first, dtype=array.dtype)])
    array[first:end] = added
    return array


class WordPieceEncoder:
    """Ids of pieces.

    Args:
        tokens: the entries, [UNK] among them.
        lowercase: whether letters are lower-cased and accents stripped before look-up.

    Raises:
        MissingExtraError: the package tokenizers is not installed.
    """

    def __init__(self, tokens: Sequence[str], lowercase: bool) -> None:
        self._tokens, self._lowercase = tuple(tokens), lowercase
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        self._kinds = CharacterKinds(lowercase)
        self._table = CharacterTable(self._single_id)
        self._library = make_model(self._tokens)
        self._library.normalizer, self._library.pre_tokenizer = make_normalizers(lowercase)
        self._runs = _Runs()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return WordPieceEncoder, (self._tokens, self._lowercase)

    def normalize(self, text: str) -> str:
        """Return the text as it is: the library's normalizer works within runs, so that places stay those of it."""
        return text

    def locate(self, text: str) -> tuple[Int32, Int64]:
        """Return the ids of a text, and the place of the first character of each."""
        ids = self._table.look_up(text)
        single = np.flatnonzero(ids >= 0)
        if ids.min(initial=0) > RUN:
            return ids.take(single), single
        runs, firsts = find_runs(text, ids)
        known, entries = self._entries(runs)
        starts = known.offsets[entries]
        lengths = known.offsets[entries + 1] - starts
        before = np.cumsum(lengths) - lengths  # pieces of earlier runs
        within = np.arange(int(lengths.sum())) - np.repeat(before, lengths)
        at = np.repeat(np.searchsorted(single, firsts) + before, lengths) + within
        is_single = np.ones(len(single) + len(at), dtype=np.bool_)
        is_single[at] = False
        pieces = np.repeat(starts, lengths) + within
        found = np.empty(len(is_single), dtype=np.int32)
        found[is_single], found[at] = ids.take(single), known.ids[pieces]
        places = np.empty(len(is_single), dtype=np.int64)
        places[is_single], places[at] = single, np.repeat(firsts, lengths) + known.places[pieces]
        return found, places

    def _single_id(self, character: str) -> int:
        """Return the id of a character that is a token by itself, else its kind."""
        kind = self._kinds.kind(character)
        if isinstance(kind, int):
            return kind
        return self._ids.get(kind, self._ids["[UNK]"])

    def _entries(self, runs: Sequence[str]) -> tuple[_Runs, Int64]:
        """Return where the pieces of runs are remembered."""
        known = self._runs
        try:
            return known, np.array([known.index[run] for run in runs], dtype=np.int64)
        except KeyError:
            known = self._learn(runs)
            return known, np.array([known.index[run] for run in runs], dtype=np.int64)

    def _learn(self, runs: Sequence[str]) -> _Runs:
        with self._lock:
            if self._runs.num_characters > _REMEMBERED_CHARACTERS:
                self._runs = _Runs()
            known = self._runs
            new = list(dict.fromkeys(run for run in runs if run not in known.index))
            encodings = [self._library.encode(run, add_special_tokens=False) for run in new]
            known.add(
                new,
                [encoding.ids for encoding in encodings],
                [[first for first, _ in encoding.offsets] for encoding in encodings],
            )
            return known
