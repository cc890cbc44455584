"""Settings of the vocabulary and of the token store."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Literal

from xuebu.config import Range
from xuebu.errors import ConfigError

SEGMENTERS = ("rjieba", "jieba", "longest", "statistics", "none")
"""What `StoreSettings.segmenter` names beside callables."""

VocabularyKind = Literal["character", "wordpiece", "ids"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySettings:
    """How the vocabulary is drawn up from the training documents."""

    kind: VocabularyKind = "character"
    """character: every character is a token, Latin letters and digits too; wordpiece: Chinese characters are tokens,
    words of letters and digits are cut into frequent pieces, as in Google's Chinese BERT; ids: every token id of a
    corpus with `corpus.token_ids` is a token."""
    min_count: Annotated[int, Range(1)] = 2
    """Rarer characters become [UNK]: what was seen once cannot be learned, and [UNK] has to be seen to be learned. Of a
    wordpiece vocabulary also the least count of two pieces that are joined."""
    max_size: Annotated[int, Range(6, 1_114_117)] = 21_128
    """Most entries, the five special ones included; the most frequent ones are kept."""
    ties: Literal["code_point", "first"] = "code_point"
    """Order of characters that are as frequent: by code point, whatever the order of the texts, or by first occurrence.
    Ids always go by the latter."""
    lowercase: bool = True
    """wordpiece: lower-case letters and strip accents. Characters are always taken as they are."""
    extra_tokens: tuple[str, ...] = ()
    """wordpiece: entries kept free for your own use, in brackets, e.g. "<S>" or "[unused1]"; no text becomes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How documents become token shards."""

    segmenter: str = "rjieba"
    """What finds words for whole-word masking: rjieba; jieba; longest (longest match on the words of `dictionary`);
    statistics (words learned from the training text by what stands together more often than by chance); none (a token
    is a word, with the pieces that go on with it); or any callable, as "module:function" or "file.py:function", that
    takes a text and returns its words."""
    dictionary: str = ""
    """File of words, one a line, with a count after a space if you like; what rjieba and jieba know as well as their
    own, and all that longest knows. A path."""
    shard_tokens: Annotated[int, Range(1)] = 64 * 2**20
    """Most tokens of one shard file; a longer document gets a shard of its own."""

    def __post_init__(self) -> None:
        if self.segmenter not in SEGMENTERS and not all(self.segmenter.rpartition(":")[::2]):
            near = difflib.get_close_matches(self.segmenter, SEGMENTERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else 'a callable is named "module:function"'
            raise ConfigError(f"`segmenter` must be one of {', '.join(SEGMENTERS)}, not {self.segmenter!r}; {hint}")
        if self.dictionary and self.segmenter not in ("rjieba", "jieba", "longest"):
            raise ConfigError(
                f'`dictionary` is read by rjieba, jieba and longest, not by "{self.segmenter}"; leave it out'
            )
        if self.segmenter == "longest" and not self.dictionary:
            raise ConfigError('`segmenter` "longest" needs a file of words; name it in `dictionary`')
