"""The character vocabulary: text to ids by table look-up, and the same ids from the Hugging Face files it saves."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError, MissingExtraError, StoreError
from xuebu.files import sha256_bytes, to_json, write_atomic
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.special import SPECIAL_TOKENS, SpecialIds

WHITESPACE = (
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000
)  # fmt: skip
"""Code points that encoding drops. Source: White_Space of Unicode's PropList.txt, which tokenizers' WhitespaceSplit
follows too; `str.isspace` also counts U+001C to U+001F, which are control characters here."""

_NUM_CODE_POINTS = 0x110000
_COUNT_CHUNK = 1 << 20  # characters counted at once
_SPECIAL_PATTERN = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


def normalize(text: str) -> str:
    """Return the text in NFC, the form that the corpus is cleaned to and that every id is looked up in."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return uint32[len(text)], the code point of each character; lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model: five special ones, then one character each.

    Attributes:
        tokens: the token of each id.
        digest: SHA-256 of vocab.txt as `save` writes it; names the vocabulary in stores and runs.

    Raises:
        StoreError: the list is no character vocabulary; names the first id that is wrong.
    """

    pad_id: ClassVar[int] = 0
    unk_id: ClassVar[int] = 1
    cls_id: ClassVar[int] = 2
    sep_id: ClassVar[int] = 3
    mask_id: ClassVar[int] = 4
    special: ClassVar[SpecialIds] = SpecialIds(0, 1, 2, 3, 4)

    tokens: tuple[str, ...]
    digest: str = field(init=False, compare=False)
    _table: npt.NDArray[np.int32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if fault := _first_fault(self.tokens):
            raise StoreError(f"vocabulary, id {fault[0]}: {fault[1]}")
        object.__setattr__(self, "digest", sha256_bytes(self.to_text().encode("utf-8")))
        object.__setattr__(self, "_table", self._make_table())

    def _make_table(self) -> npt.NDArray[np.int32]:
        """Return the id of each code point, -1 for white space; the last entry stands for all greater ones."""
        codes = code_points("".join(self.tokens[len(SPECIAL_TOKENS) :]))
        size = int(codes.max(initial=max(WHITESPACE))) + 2
        table = np.full(size, self.unk_id, dtype=np.int32)
        table[codes] = np.arange(len(SPECIAL_TOKENS), len(self.tokens), dtype=np.int32)
        table[list(WHITESPACE)] = -1
        return table

    @property
    def num_tokens(self) -> int:
        """Number of entries, the special ones included."""
        return len(self.tokens)

    def to_text(self) -> str:
        """Return the content of vocab.txt: one token a line, in the order of their ids."""
        return "".join(f"{token}\n" for token in self.tokens)

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """Return the ids of a text, without special tokens.

        The text is brought to NFC, white space is dropped, and each character left is one token, [UNK] if unknown.
        Text is only ever text: "[MASK]" in it becomes the ids of "[", "M" and so on; see `encode_with_specials`.

        Returns:
            int32[number of characters that are not white space].
        """
        ids = self._table.take(code_points(normalize(text)), mode="clip")
        return ids[ids >= 0] if (ids < 0).any() else ids

    def encode_batch(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids of many texts end to end, as `encode` gives them, and where each text begins and ends.

        Returns:
            ids int32[N] and offsets int64[len(texts) + 1].
        """
        normalized = [normalize(text) for text in texts]
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, normalized), dtype=np.int64, count=len(texts)), out=offsets[1:])
        ids = self._table.take(code_points("".join(normalized)), mode="clip")
        kept = ids >= 0
        if kept.all():
            return ids, offsets
        num_kept_before = np.concatenate([[0], np.cumsum(kept)])
        return ids[kept], num_kept_before[offsets]

    def encode_with_specials(self, text: str) -> npt.NDArray[np.int32]:
        """Return the ids of a text in which "[MASK]" and the other special tokens, so written, mean themselves.

        For a person's input, e.g. to fill in [MASK]; the saved Hugging Face tokenizer reads every text this way.
        """
        parts: list[npt.NDArray[np.int32]] = []
        start = 0
        for match in _SPECIAL_PATTERN.finditer(text):
            special = np.array([SPECIAL_TOKENS.index(match.group())], dtype=np.int32)
            parts += [self.encode(text[start : match.start()]), special]
            start = match.end()
        return np.concatenate([*parts, self.encode(text[start:])])

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the tokens of the ids, joined without spaces; special tokens appear as they are written.

        Raises:
            ValueError: an id lies outside the vocabulary.
        """
        array = np.asarray(ids, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.num_tokens):
            raise ValueError(f"ids must lie in 0 to {self.num_tokens - 1}")
        return "".join([self.tokens[index] for index in array.reshape(-1).tolist()])

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
        write_atomic(folder / "tokenizer_config.json", to_json(_hugging_face_config(max_length)))
        write_atomic(folder / "vocab.txt", self.to_text())

    def summary(self) -> str:
        """Return one line for a person."""
        return f"{self.num_tokens:,} tokens ({len(SPECIAL_TOKENS)} special), digest {self.digest[:12]}"


def hugging_face_tokenizer(vocabulary: Vocabulary) -> Any:
    """Return the `tokenizers.Tokenizer` that gives the ids of `Vocabulary.encode_with_specials`.

    Its NFC comes from older Unicode tables: the order of two or more combining marks first assigned after Unicode 9
    may differ from Python's. Cleaned text is in NFC already, so only such marks in hand-typed input can matter.

    Raises:
        MissingExtraError: the package tokenizers is not installed.
    """
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    except ImportError:
        raise MissingExtraError.of("train", "saving a vocabulary for transformers") from None
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    every_character = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), every_character])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary.cls_id), ("[SEP]", vocabulary.sep_id)],
    )
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _hugging_face_config(max_length: int) -> dict[str, Any]:
    return {
        # transformers 5 builds BertTokenizerFast's own pre-tokenizer, which keeps "abc" whole, and ignores the one in
        # tokenizer.json; this class keeps it, in versions 4 and 5.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
    }


def _first_fault(tokens: Sequence[str]) -> tuple[int, str] | None:
    """Return the first id whose token is wrong, and what is wrong with it; None if all is well."""
    for index, special in enumerate(SPECIAL_TOKENS):
        if index >= len(tokens) or tokens[index] != special:
            found = ascii(tokens[index]) if index < len(tokens) else "nothing"
            return index, f"{special} belongs here, found {found}; the first five are {' '.join(SPECIAL_TOKENS)}"
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens[len(SPECIAL_TOKENS) :], start=len(SPECIAL_TOKENS)):
        if len(token) != 1:
            return index, f"{token!a} has {len(token)} characters; a character vocabulary has one a token"
        if ord(token) in WHITESPACE or 0xD800 <= ord(token) < 0xE000:
            kind = "white space" if ord(token) in WHITESPACE else "half of a surrogate pair"
            return index, f"{token!a} is {kind}, which no text is encoded to; remove it"
        if token in seen:
            return index, f"{token!r} is there twice (before: id {seen[token]}); remove one"
        seen[token] = index
    return None


def load_vocabulary(path: Path) -> Vocabulary:
    """Return the vocabulary of a vocab.txt, or of the folder it lies in.

    Raises:
        InputError: the file cannot be read, is not UTF-8, begins with a byte-order mark, has Windows line ends, or its
            tokens are no character vocabulary (special tokens missing, duplicates, longer entries); names the line.
    """
    if path.is_dir():
        path = path / "vocab.txt"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if data.startswith(b"\xef\xbb\xbf"):
        raise InputError(f"{path}:1: begins with a byte-order mark; save it as UTF-8 without one")
    if b"\r" in data:
        line = data.count(b"\n", 0, data.index(b"\r")) + 1
        raise InputError(f"{path}:{line}: line ends with a carriage return; save it with Unix line ends (LF)")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{data.count(10, 0, error.start) + 1}: not UTF-8; convert it first") from None
    tokens = tuple(text.removesuffix("\n").split("\n"))
    if fault := _first_fault(tokens):
        raise InputError(f"{path}:{fault[0] + 1}: {fault[1]}")
    return Vocabulary(tokens)


def train_vocabulary(texts: Iterable[str], settings: VocabularySettings) -> Vocabulary:
    """Return the vocabulary of some texts: special tokens, then characters by falling frequency.

    Ties go by code point, so the same texts in any order give the same vocabulary. White space, control characters and
    halves of surrogate pairs never become tokens.

    Args:
        texts: training texts only; read once, in bounded memory.
        settings: frequency floor and size.
    """
    counts = np.zeros(_NUM_CODE_POINTS, dtype=np.int64)
    waiting: list[str] = []
    num_waiting = 0
    for text in texts:
        waiting.append(normalize(text))
        num_waiting += len(waiting[-1])
        if num_waiting >= _COUNT_CHUNK:
            counts += np.bincount(code_points("".join(waiting)), minlength=_NUM_CODE_POINTS)
            waiting, num_waiting = [], 0
    counts += np.bincount(code_points("".join(waiting)), minlength=_NUM_CODE_POINTS)
    counts[list(WHITESPACE)] = 0
    counts[:0x20] = counts[0x7F:0xA0] = counts[0xD800:0xE000] = 0
    found = np.flatnonzero(counts >= settings.min_count)
    by_frequency = found[np.argsort(-counts[found], kind="stable")]
    kept = by_frequency[: settings.max_size - len(SPECIAL_TOKENS)]
    return Vocabulary((*SPECIAL_TOKENS, *map(chr, kept.tolist())))
