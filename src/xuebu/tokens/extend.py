"""A vocabulary with the characters that a text needs and it lacks; ids that were there stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from xuebu.corpus.symbols import MAX_ID, is_number
from xuebu.errors import InputError
from xuebu.tokens.coverage import report_text
from xuebu.tokens.special import CONTINUATION
from xuebu.tokens.vocab import Vocabulary
from xuebu.tokens.wordpiece import MAX_WORD_CHARACTERS, CharacterKinds


def extend_vocabulary(
    vocabulary: Vocabulary, texts: Iterable[str], *, min_count: int = 2, max_added: int | None = None
) -> tuple[Vocabulary, tuple[str, ...]]:
    """Return the vocabulary with entries for what it lacks of some texts, and those entries.

    New entries stand behind the old ones, most frequent first, ties by code point. Of words that were [UNK] a WordPiece
    vocabulary gets the missing characters, each as it stands there: at the beginning ("x") or further on ("##x").

    Args:
        vocabulary: of any kind.
        texts: what the model is to read.
        min_count: rarer characters stay [UNK].
        max_added: most new entries; None: no bound.

    Raises:
        InputError: the vocabulary is of ids, and something else stands in a text.
    """
    counts: Counter[str] = Counter()
    known = set(vocabulary.tokens)
    unknown = report_text(vocabulary, texts).unknown
    if vocabulary.kind == "ids":
        wrong = next((text for text in unknown if not is_number(text) or int(text) > MAX_ID), None)
        if wrong is not None:
            raise InputError(f"{wrong!a} is no token id from 0 to {MAX_ID:,}; give texts of ids parted by spaces")
    if vocabulary.kind != "wordpiece":
        counts.update(unknown)
    else:
        kinds = CharacterKinds(vocabulary.lowercase)
        for text, count in unknown.items():
            for word in kinds.normalize(text).split():
                if len(word) > MAX_WORD_CHARACTERS:
                    continue  # stays [UNK] whatever is added
                for entry in (word[0], *(CONTINUATION + character for character in word[1:])):
                    if entry not in known:
                        counts[entry] += count
    frequent = [
        entry
        for entry, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= min_count and not any(_cannot_be_token(character) for character in entry)
    ]
    added = tuple(frequent[:max_added])
    return Vocabulary((*vocabulary.tokens, *added), vocabulary.kind, vocabulary.lowercase), added


def _cannot_be_token(character: str) -> bool:
    """Return whether a character is a control character or half of a surrogate pair."""
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000
