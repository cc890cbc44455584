"""How much of a list of characters a corpus shows: of the 8,105 standard characters, and of lists that are given."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from unicodedata import normalize

from xuebu.errors import InputError
from xuebu.files import read_lines

MAX_MISSING = 50
STANDARD_NAMES = ("standard level 1", "standard level 2", "standard level 3", "standard, all levels")


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterList:
    """A named list of characters.

    Attributes:
        name: the file's name.
        characters: each once, in the file's order; standard ones by code point.
    """

    name: str
    characters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many characters of a list a corpus shows.

    Attributes:
        name: of the list.
        size: characters in the list.
        covered: of these, how many occur in the corpus.
        covered_in_training: of these, how many occur in the training documents.
        missing: the first 50 that do not occur in the corpus, in the list's order.
    """

    name: str
    size: int
    covered: int
    covered_in_training: int
    missing: str

    @property
    def share(self) -> float:
        """Return the covered share of the list, 0 to 1."""
        return self.covered / self.size


@cache
def standard_lists() -> tuple[CharacterList, ...]:
    """Return the 8,105 characters of the Table of General Standard Chinese Characters: its three levels, and all.

    Source: 通用规范汉字表 (State Council of China, 2013), by the field kTGH of Unicode's Unihan database.
    """
    text = files("xuebu.corpus").joinpath("standard_characters.txt").read_text(encoding="utf-8")
    levels = [tuple(line) for line in text.splitlines() if not line.startswith("#")]
    every = tuple(character for level in levels for character in level)
    return tuple(
        CharacterList(name=name, characters=characters)
        for name, characters in zip(STANDARD_NAMES, (*levels, every), strict=True)
    )


def read_character_list(path: Path) -> CharacterList:
    """Return the characters of a file that holds one a line; blank lines are passed over, repeats count once.

    Raises:
        InputError: a line holds more than one character, or the file none.
    """
    characters: dict[str, None] = {}
    for number, line in read_lines(path):
        text = normalize("NFC", line.strip())
        if len(text) > 1:
            raise InputError(f"{path}:{number}: {text[:20]!r} is not one character; a list holds one a line")
        if text:
            characters[text] = None
    if not characters:
        raise InputError(f"{path}: is empty; a character list holds one character a line")
    return CharacterList(name=path.name, characters=tuple(characters))


def measure_coverage(
    lists: Sequence[CharacterList], corpus: AbstractSet[str], training: AbstractSet[str], *, standard: bool = True
) -> tuple[Coverage, ...]:
    """Return the coverage of the standard characters, of each list, and, where there are several, of all these.

    Args:
        lists: further lists.
        corpus: distinct characters of the whole corpus.
        training: distinct characters of the training documents.
        standard: whether the standard characters are asked for; token ids have none of them.
    """
    if len(lists) > 1:
        together = tuple(dict.fromkeys(character for each in lists for character in each.characters))
        lists = [*lists, CharacterList(name=f"all {len(lists)} lists", characters=together)]
    results = []
    for each in (*(standard_lists() if standard else ()), *lists):
        missing = [character for character in each.characters if character not in corpus]
        results.append(
            Coverage(
                name=each.name,
                size=len(each.characters),
                covered=len(each.characters) - len(missing),
                covered_in_training=sum(character in training for character in each.characters),
                missing="".join(missing[:MAX_MISSING]),
            )
        )
    return tuple(results)
