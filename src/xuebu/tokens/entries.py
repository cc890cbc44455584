"""The entries of a vocab.txt: read strictly, checked line by line, and put together to text again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xuebu.corpus.symbols import MAX_ID, ids_of, is_number, spell_ids
from xuebu.errors import InputError
from xuebu.tokens.settings import VocabularyKind
from xuebu.tokens.special import CONTINUATION, SPECIAL_TOKENS, is_ideograph
from xuebu.tokens.text import WHITESPACE

_SPACED = re.compile(r"[^\W_]")  # letters and digits: between two of them a space is needed


def first_fault(tokens: Sequence[str], kind: VocabularyKind) -> tuple[int, str] | None:
    """Return the first id whose token is wrong, and what is wrong with it; None if all is well."""
    return _piece_fault(tokens) if kind == "wordpiece" else _character_fault(tokens, kind)


def _character_fault(tokens: Sequence[str], kind: VocabularyKind) -> tuple[int, str] | None:
    for index, special in enumerate(SPECIAL_TOKENS):
        if index >= len(tokens) or tokens[index] != special:
            found = ascii(tokens[index]) if index < len(tokens) else "nothing"
            return index, f"{special} belongs here, found {found}; the first five are {' '.join(SPECIAL_TOKENS)}"
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens[len(SPECIAL_TOKENS) :], start=len(SPECIAL_TOKENS)):
        if fault := _id_fault(token) if kind == "ids" else _one_character_fault(token):
            return index, fault
        if token in seen:
            return index, f"{token!r} is there twice (before: id {seen[token]}); remove one"
        seen[token] = index
    return None


def _one_character_fault(token: str) -> str | None:
    if len(token) != 1:
        return f"{token!a} has {len(token)} characters; a character vocabulary has one a token"
    if ord(token) in WHITESPACE or 0xD800 <= ord(token) < 0xE000:
        kind = "white space" if ord(token) in WHITESPACE else "half of a surrogate pair"
        return f"{token!a} is {kind}, which no text is encoded to; remove it"
    return None


def _id_fault(token: str) -> str | None:
    if is_number(token) and ids_of(spell_ids(token))[0] >= 0:
        return None
    return f"{token!a} is no token id; a vocabulary of ids has decimal numbers from 0 to {MAX_ID}"


def _piece_fault(tokens: Sequence[str]) -> tuple[int, str] | None:
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if not token:
            return index, "an empty line; remove it, or put an entry such as [unused1] there so that later ids stay"
        if any(0xD800 <= ord(character) < 0xE000 for character in token):
            return index, f"{token!a} holds half of a surrogate pair, which no text is encoded to; remove it"
        if "\n" in token:
            return index, f"{token!a} holds a line feed; remove it"
        if token in seen:
            return index, f"{token!r} is there twice (before: id {seen[token]}); remove one"
        seen[token] = index
    missing = [token for token in SPECIAL_TOKENS if token not in seen]
    if missing:
        return len(tokens), f"{' '.join(missing)} missing; a WordPiece vocabulary holds {' '.join(SPECIAL_TOKENS)}"
    if tokens[0] != SPECIAL_TOKENS[0]:
        return seen[SPECIAL_TOKENS[0]], f"[PAD] must be the first entry (id 0), found {tokens[0]!a} there"
    return None


def read_tokens(path: Path) -> tuple[str, ...]:
    """Return the lines of a vocab.txt.

    Only LF ends a line: Google's own vocabulary has U+2028 as an entry.

    Raises:
        InputError: the file cannot be read, is not UTF-8, begins with a byte-order mark or has Windows line ends.
    """
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
    return tuple(text.removesuffix("\n").split("\n"))


def is_continuation(token: str) -> bool:
    """Return whether a WordPiece entry goes on with a word; "##" alone is two number signs."""
    return token.startswith(CONTINUATION) and len(token) > len(CONTINUATION)


def piece_text(token: str) -> str:
    """Return a WordPiece entry without the "##" of a continuation."""
    return token[len(CONTINUATION) :] if is_continuation(token) else token


def join_pieces(tokens: Sequence[str]) -> str:
    """Return WordPiece tokens as text: see `Vocabulary.decode`."""
    parts: list[str] = []
    for token in tokens:
        if is_continuation(token):
            parts.append(piece_text(token))
        elif parts and _SPACED.match(parts[-1][-1:]) and _SPACED.match(token) and not _is_apart(parts[-1], token):
            parts += [" ", token]
        else:
            parts.append(token)
    return "".join(parts)


def _is_apart(before: str, after: str) -> bool:
    return is_ideograph(before[-1]) or is_ideograph(after[0])
