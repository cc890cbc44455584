"""Drawing up a WordPiece vocabulary with the library `tokenizers`, the same one from the same texts each time.

Left to itself the library's trainer gives another vocabulary each time it is run on the same texts, not only another
order: ids of continued letters ("##a") follow the order of a hash map, and ties between pairs are settled by ids.
Here those letters are handed to it beforehand, in order of code point.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from xuebu.errors import ConfigError
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.special import CONTINUATION, SPECIAL_TOKENS
from xuebu.tokens.text import NUM_CODE_POINTS
from xuebu.tokens.wordpiece import CharacterKinds, CharacterTable, find_runs, make_model

_EXTRA = re.compile(r"\[[^\s\[\]]+\]|<[^\s<>]+>")

_AT_ONCE = 1 << 20  # characters
_SURROGATES = range(0xD800, 0xE000)


def train_pieces(texts: Iterable[str], settings: VocabularySettings) -> tuple[str, ...]:
    """Return the entries of a WordPiece vocabulary: special ones, extra ones, characters, joined pieces.

    Characters stand by falling count, ties by code point; then those that go on with a word ("##a"), by code point;
    then pieces in the order in which they were joined, most frequent pair first. Neither the order of the texts nor
    the number of threads makes a difference.

    Args:
        texts: read once; what is kept of them are counts of characters and of runs.
        settings: size, case, least count, extra entries.

    Raises:
        ConfigError: an extra entry is not in brackets or there twice, or the size does not hold the characters.
        MissingExtraError: the package tokenizers is not installed.
    """
    extra = _checked_extra(settings.extra_tokens)
    counts, runs = _count(texts, settings.lowercase)
    kept = sorted((c for c, n in counts.items() if n >= settings.min_count), key=lambda c: (-counts[c], c))
    continuing = {character for run in runs for character in run[1:]} & set(kept)
    first = [*SPECIAL_TOKENS, *extra, *kept, *(CONTINUATION + character for character in sorted(continuing))]
    if len(first) > settings.max_size:
        raise ConfigError(
            f"`max_size` {settings.max_size:,} does not hold the {len(kept):,} characters that occur "
            f"{settings.min_count} times or more and the {len(continuing):,} of them that go on with words; "
            f"set it to {len(first):,} or more, or raise `min_count`"
        )
    return (*first, *_join_pairs(runs, first, settings))


def _checked_extra(extra: tuple[str, ...]) -> tuple[str, ...]:
    for number, token in enumerate(extra):
        if not _EXTRA.fullmatch(token):
            raise ConfigError(f"`extra_tokens` {token!r} must stand in [brackets] or <brackets>, so that no text is it")
        if token in extra[:number] or token in SPECIAL_TOKENS:
            raise ConfigError(f"`extra_tokens` {token!r} is there twice; name it once")
    return extra


def _count(texts: Iterable[str], lowercase: bool) -> tuple[Counter[str], Counter[str]]:
    """Return how often each normalized character occurs, and how often each normalized run."""
    kinds = CharacterKinds(lowercase)

    def standing(character: str) -> int:
        kind = kinds.kind(character)
        return kind if isinstance(kind, int) else ord(kind)

    table = CharacterTable(standing)
    singles = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    raw_runs: Counter[str] = Counter()
    for text in _joined(texts):
        values = table.look_up(text)
        singles += np.bincount(values[values >= 0], minlength=NUM_CODE_POINTS)
        raw_runs.update(find_runs(text, values)[0])
    singles[_SURROGATES.start : _SURROGATES.stop] = 0
    counts = Counter({chr(code): int(singles[code]) for code in np.flatnonzero(singles)})
    runs: Counter[str] = Counter()
    for run, count in raw_runs.items():
        for word in kinds.normalize(run).split():
            runs[word] += count
            for character in word:
                counts[character] += count
    return counts, runs


def _joined(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts, many at once."""
    waiting: list[str] = []
    num_waiting = 0
    for text in texts:
        waiting.append(text)
        num_waiting += len(text)
        if num_waiting >= _AT_ONCE:
            yield "\n".join(waiting)
            waiting, num_waiting = [], 0
    yield "\n".join(waiting)


def _join_pairs(runs: Counter[str], first: list[str], settings: VocabularySettings) -> list[str]:
    """Return the pieces that the library's trainer joins from those given."""
    from tokenizers import pre_tokenizers, trainers

    tokenizer = make_model(SPECIAL_TOKENS)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.max_size,
        min_frequency=settings.min_count,
        special_tokens=first,
        limit_alphabet=0,  # every character to be kept is among those given
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(runs), trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids.keys() - set(first), key=lambda token: ids[token])


def _repeated(runs: Counter[str]) -> Iterator[str]:
    """Yield each run as often as it was counted, in pieces of bounded length."""
    for run in sorted(runs):
        most = max(_AT_ONCE // (len(run) + 1), 1)
        whole, rest = divmod(runs[run], most)
        yield from [f"{run} " * most] * whole
        yield f"{run} " * rest
