"""The vocabulary: text to ids by table look-up, and the same ids from the Hugging Face files it saves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xuebu.corpus.symbols import ids_of, only_symbols, spell_ids
from xuebu.errors import InputError, StoreError
from xuebu.files import sha256_bytes, to_json, write_atomic
from xuebu.tokens.characters import CharacterEncoder, frequent_characters
from xuebu.tokens.entries import first_fault, is_continuation, join_pieces, piece_text, read_tokens
from xuebu.tokens.hugging_face import read_kind, tokenizer_config, tokenizer_of
from xuebu.tokens.settings import VocabularyKind, VocabularySettings
from xuebu.tokens.special import SPECIAL_TOKENS, SpecialIds, find_special
from xuebu.tokens.wordpiece import WordPieceEncoder

_SPECIAL_PATTERN = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


class Located(NamedTuple):
    """Texts encoded end to end, and where in them each token lies.

    Attributes:
        text: the texts in the form that was looked up, each pair parted by a line feed.
        ids: int32[N].
        places: int64[N], the first character of each token in `text`, never falling.
        offsets: int64[number of texts + 1], where the ids of each text begin and end.
        ends: int64[number of texts], where each text ends in `text`.
    """

    text: str
    ids: npt.NDArray[np.int32]
    places: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model.

    Attributes:
        tokens: the token of each id. Of kind "character": the five special ones, then one character each; of kind
            "ids": then numbers, the ids of an anonymised corpus; of kind "wordpiece": the special ones at any ids,
            pieces, and pieces that go on with a word, which begin with "##".
        kind: how text is cut.
        lowercase: wordpiece: letters are lower-cased and accents stripped first.
        digest: names the vocabulary in stores and runs; for characters and ids the SHA-256 of vocab.txt as `save`
            writes it, for pieces of kind and case as well.
        special: the ids that are no text.

    Raises:
        StoreError: the list is no such vocabulary; names the first id that is wrong.
        MissingExtraError: pieces without the package tokenizers.
    """

    tokens: tuple[str, ...]
    kind: VocabularyKind = "character"
    lowercase: bool = False
    digest: str = field(init=False, compare=False)
    special: SpecialIds = field(init=False, compare=False, repr=False)
    _encoder: CharacterEncoder | WordPieceEncoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if fault := first_fault(self.tokens, self.kind):
            raise StoreError(f"vocabulary, id {fault[0]}: {fault[1]}")
        head = f"wordpiece lowercase={self.lowercase}\n" if self.kind == "wordpiece" else ""
        object.__setattr__(self, "digest", sha256_bytes((head + self.to_text()).encode("utf-8")))
        encoder: CharacterEncoder | WordPieceEncoder
        if self.kind == "wordpiece":
            special, encoder = find_special(self.tokens), WordPieceEncoder(self.tokens, self.lowercase)
        else:
            entries = self.tokens[len(SPECIAL_TOKENS) :]
            special = SpecialIds(0, 1, 2, 3, 4)
            if self.kind == "ids":
                encoder = CharacterEncoder([spell_ids(entry) for entry in entries], spell_ids)
            else:
                encoder = CharacterEncoder(entries)
        object.__setattr__(self, "special", special)
        object.__setattr__(self, "_encoder", encoder)

    @property
    def num_tokens(self) -> int:
        """Number of entries, the special ones included."""
        return len(self.tokens)

    @property
    def pad_id(self) -> int:
        """The id of [PAD]."""
        return self.special.pad

    @property
    def unk_id(self) -> int:
        """The id of [UNK]."""
        return self.special.unk

    @property
    def cls_id(self) -> int:
        """The id of [CLS]."""
        return self.special.cls

    @property
    def sep_id(self) -> int:
        """The id of [SEP]."""
        return self.special.sep

    @property
    def mask_id(self) -> int:
        """The id of [MASK]."""
        return self.special.mask

    def continues_word(self) -> npt.NDArray[np.bool_]:
        """Return bool[num_tokens]: True for each piece that goes on with a word ("##ing"); none among characters."""
        if self.kind != "wordpiece":
            return np.zeros(self.num_tokens, dtype=np.bool_)
        return np.array([is_continuation(token) for token in self.tokens], dtype=np.bool_)

    def num_characters(self) -> npt.NDArray[np.int64]:
        """Return int64[num_tokens], how many characters of text each token stands for; special tokens count as one."""
        if self.kind != "wordpiece":
            return np.ones(self.num_tokens, dtype=np.int64)
        is_special = self.special.is_special(self.num_tokens).tolist()
        lengths = [
            1 if special else len(piece_text(token)) for token, special in zip(self.tokens, is_special, strict=True)
        ]
        return np.array(lengths, dtype=np.int64)

    def to_text(self) -> str:
        """Return the content of vocab.txt: one token a line, in the order of their ids."""
        return "".join(f"{token}\n" for token in self.tokens)

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Return the ids of a text, without special tokens.

        Characters: the text is brought to NFC, white space is dropped, and each character left is one token, [UNK] if
        unknown. Ids: numbers parted by spaces, or the symbols of a corpus of ids. Pieces: as `tokenizers` cuts them
        with BERT's normalizer. Text is only ever text: "[MASK]" in it
        becomes the ids of "[", "M" and so on; see `encode_with_specials`.

        Returns:
            int32[number of tokens].
        """
        return self._encoder.locate(self._encoder.normalize(text))[0]

    def locate(self, texts: Sequence[str]) -> Located:
        """Return the ids of many texts end to end, as `encode` gives them, and where in the text each token lies."""
        normalized = [self._encoder.normalize(text) for text in texts]
        text = "\n".join(normalized)
        ids, places = self._encoder.locate(text)
        ends = np.cumsum(np.fromiter(map(len, normalized), dtype=np.int64, count=len(texts))) + np.arange(len(texts))
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        offsets[1:] = np.searchsorted(places, ends)
        return Located(text, ids, places, offsets, ends)

    def encode_batch(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids of many texts end to end, as `encode` gives them, and where each text begins and ends.

        Returns:
            ids int32[N] and offsets int64[len(texts) + 1].
        """
        located = self.locate(texts)
        return located.ids, located.offsets

    def encode_with_specials(self, text: str) -> npt.NDArray[np.int32]:
        """Return the ids of a text in which "[MASK]" and the other special tokens, so written, mean themselves.

        For a person's input, e.g. to fill in [MASK]; the saved Hugging Face tokenizer reads every text this way.
        """
        parts: list[npt.NDArray[np.int32]] = []
        start = 0
        for match in _SPECIAL_PATTERN.finditer(text):
            special = np.array([self.special.five[SPECIAL_TOKENS.index(match.group())]], dtype=np.int32)
            parts += [self.encode(text[start : match.start()]), special]
            start = match.end()
        return np.concatenate([*parts, self.encode(text[start:])])

    def unknown_texts(self, text: str) -> tuple[str, ...]:
        """Return what of a text becomes [UNK], each once, in its order: characters, or words without pieces."""
        return tuple(dict.fromkeys(self.find_unknown(self.locate(_SPECIAL_PATTERN.split(text)))))

    def find_unknown(self, located: Located) -> list[str]:
        """Return the text of each [UNK] among located tokens, in their order."""
        ends = np.append(located.places[1:], len(located.text))
        unknown = np.flatnonzero(located.ids == self.unk_id)
        found = [
            located.text[first:end]
            for first, end in zip(located.places[unknown].tolist(), ends[unknown].tolist(), strict=True)
        ]
        if self.kind == "ids":
            return [str(number) if (number := int(ids_of(text)[0])) >= 0 else text[0] for text in found]
        return [(text.split() or [text])[0] for text in found]

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the tokens of the ids, joined; special tokens appear as they are written.

        Characters are joined without spaces, ids with one between, pieces of words without their "##"; there a space
        stands only between two words of letters or digits, so text that was cut into pieces comes back but for case,
        accents and other spaces.

        Raises:
            ValueError: an id lies outside the vocabulary.
        """
        array = np.asarray(ids, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.num_tokens):
            raise ValueError(f"ids must lie in 0 to {self.num_tokens - 1}")
        tokens = [self.tokens[index] for index in array.reshape(-1).tolist()]
        match self.kind:
            case "character":
                return "".join(tokens)
            case "ids":
                return " ".join(tokens)
            case "wordpiece":
                return join_pieces(tokens)

    def save(self, folder: Path, *, max_length: int = 512) -> None:
        """Write vocab.txt, tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer reads.

        Args:
            folder: made if missing.
            max_length: longest input of the model in tokens, for `model_max_length`.

        Raises:
            MissingExtraError: the package tokenizers is not installed.
        """
        tokenizer = hugging_face_tokenizer(self)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
        write_atomic(folder / "tokenizer_config.json", to_json(tokenizer_config(self.kind, self.lowercase, max_length)))
        write_atomic(folder / "vocab.txt", self.to_text())

    def summary(self) -> str:
        """Return one line for a person."""
        case = "lower-cased" if self.lowercase else "cased"
        kind = {"character": "", "ids": ", token ids", "wordpiece": f", WordPiece, {case}"}[self.kind]
        special = len(SPECIAL_TOKENS) + len(self.special.extra)
        return f"{self.num_tokens:,} tokens ({special:,} special){kind}, digest {self.digest[:12]}"


def hugging_face_tokenizer(vocabulary: Vocabulary) -> Any:
    """Return the `tokenizers.Tokenizer` that gives the ids of `Vocabulary.encode_with_specials`.

    The NFC of a character vocabulary comes from older Unicode tables there: the order of two or more combining marks
    first assigned after Unicode 9 may differ from Python's. Cleaned text is in NFC already, so only such marks in
    hand-typed input can matter.

    Raises:
        MissingExtraError: the package tokenizers is not installed.
    """
    return tokenizer_of(vocabulary.tokens, vocabulary.kind, vocabulary.lowercase)


def load_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary of a vocab.txt, or of the folder it lies in.

    What kind it is, and whether letters are lower-cased, is read from the tokenizer_config.json beside it. Without one
    a file with pieces ("##..") is WordPiece, lower-cased unless an entry has a capital letter; one of numbers is of
    ids; else of characters.

    Raises:
        InputError: the file cannot be read, is not UTF-8, begins with a byte-order mark, has Windows line ends, or its
            tokens are no vocabulary (special tokens missing or twice, other duplicates, empty lines); names the line.
        MissingExtraError: pieces without the package tokenizers.
    """
    if path.is_dir():
        path = path / "vocab.txt"
    tokens = read_tokens(path)
    kind, lowercase = read_kind(path.parent, tokens)
    if fault := first_fault(tokens, kind):
        raise InputError(f"{path}:{fault[0] + 1}: {fault[1]}")
    return Vocabulary(tokens, kind, lowercase)


def train_vocabulary(texts: Iterable[str], settings: VocabularySettings) -> Vocabulary:
    """Return the vocabulary of some texts: special tokens, then characters by falling frequency, or pieces.

    Ties go by code point, so the same texts in any order give the same vocabulary (but see `ties`). White space,
    control characters and halves of surrogate pairs never become tokens.

    Args:
        texts: training texts only; read once. Characters are counted in bounded memory, pieces need the texts at once.
        settings: kind, frequency floor and size.

    Raises:
        ConfigError: pieces: the size does not even hold the characters.
        InputError: ids: there is none.
        MissingExtraError: pieces without the package tokenizers.
    """
    if settings.kind == "ids":
        symbols = frequent_characters(map(only_symbols, texts), settings)
        if not symbols:
            raise InputError("no token id stands in the text often enough; a vocabulary of ids is made from numbers")
        return Vocabulary((*SPECIAL_TOKENS, *map(str, ids_of("".join(symbols)).tolist())), "ids")
    if settings.kind == "character":
        return Vocabulary((*SPECIAL_TOKENS, *frequent_characters(texts, settings)))
    from xuebu.tokens.pieces import train_pieces

    return Vocabulary(train_pieces(texts, settings), "wordpiece", settings.lowercase)
