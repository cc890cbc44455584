"""The corpus card: what a built corpus holds, what was refused and why, and which settings made it."""

from __future__ import annotations

import dataclasses
import html
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from xuebu.config import settings_from, to_table
from xuebu.corpus.clean import clean_line
from xuebu.corpus.coverage import Coverage
from xuebu.corpus.profile import Profile
from xuebu.corpus.refusals import REASONS, RefusalCount
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.tally import Counts
from xuebu.errors import InputError, XuebuError
from xuebu.files import read_json

FORMAT = 2
READABLE_FORMATS = (1, 2)
CARD_NAME = "card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a corpus holds and how it came about; its presence as card.json marks a corpus as complete.

    Attributes:
        digest: of the whole corpus; follows from the two below.
        train_digest, held_out_digest: SHA-256 of train.jsonl and held_out.jsonl.
        whole, train, held_out: counts of both splits together, and of each.
        documents_read: documents that the sources gave.
        characters_read: their characters before cleaning.
        characters_cleaned: and after; each of these is in a split or under a refusal.
        duplicates: sentences of usable length and script, read, that equal an earlier one, on either side.
        duplicate_share: their share of all such sentences; None where there was none.
        duplicates_by_unit: documents, paragraphs and sentences that equal an earlier one, each counted whether or not
            a larger one that holds it is; None in a card of format 1.
        duplicates_left: sentences in the corpus that equal an earlier one; 0 unless duplicates were to be kept.
        renamed_ids: documents whose id occurred before in their source and got "~2", "~3", ... appended.
        refusals: reason -> how much was refused.
        coverage: of the standard characters, and of the character lists that were asked for.
        settings: that made it.
        profile: how the text is spread; None in a card of format 1.
    """

    digest: str
    train_digest: str
    held_out_digest: str
    whole: Counts
    train: Counts
    held_out: Counts
    documents_read: int
    characters_read: int
    characters_cleaned: int
    duplicates: int
    duplicate_share: float | None
    duplicates_left: int
    renamed_ids: int
    refusals: dict[str, RefusalCount]
    coverage: tuple[Coverage, ...]
    settings: CorpusSettings
    duplicates_by_unit: dict[str, int] | None = None
    profile: Profile | None = None

    @property
    def documents(self) -> int:
        """Return the documents of both splits."""
        return self.whole.documents

    @property
    def groups(self) -> int:
        """Return the groups of both splits."""
        return self.whole.groups

    @property
    def sentences(self) -> int:
        """Return the sentences of both splits."""
        return self.whole.sentences

    @property
    def characters(self) -> int:
        """Return the characters of both splits."""
        return self.whole.characters

    @property
    def distinct_characters(self) -> int:
        """Return how many different characters both splits hold together."""
        return self.whole.distinct_characters

    @property
    def mean_sentence_length(self) -> float | None:
        """Return the mean length of a sentence in characters, over both splits."""
        return self.whole.mean_sentence_length

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain values: the whole corpus's counts at the top, each split's under `splits`."""
        return {
            "format": FORMAT,
            "digest": self.digest,
            **dataclasses.asdict(self.whole),
            "documents_read": self.documents_read,
            "characters_read": self.characters_read,
            "characters_cleaned": self.characters_cleaned,
            "duplicates": self.duplicates,
            "duplicate_share": self.duplicate_share,
            "duplicates_left": self.duplicates_left,
            "duplicates_by_unit": self.duplicates_by_unit,
            "renamed_ids": self.renamed_ids,
            "splits": {
                "train": {"digest": self.train_digest, **dataclasses.asdict(self.train)},
                "held_out": {"digest": self.held_out_digest, **dataclasses.asdict(self.held_out)},
            },
            "refusals": {
                reason: {"level": REASONS[reason][0], **dataclasses.asdict(count), "meaning": REASONS[reason][1]}
                for reason, count in self.refusals.items()
            },
            "profile": self.profile.to_json() if self.profile else None,
            "coverage": [{**dataclasses.asdict(each), "share": each.share} for each in self.coverage],
            "settings": to_table(self.settings),
        }

    @classmethod
    def from_json(cls, table: dict[str, Any], *, where: str) -> Card:
        """Return the card that `to_json` wrote.

        Raises:
            InputError: the table is not such a card, or of a later format; begins with `where`.
        """
        try:
            if table["format"] not in READABLE_FORMATS:
                raise InputError(f"{where}: a card of format {table['format']!r}; this xuebu reads up to {FORMAT}")
            splits = table["splits"]
            plain = ("documents_read", "characters_read", "characters_cleaned", "renamed_ids")
            shares = ("duplicates", "duplicate_share", "duplicates_left")
            return cls(
                digest=table["digest"],
                train_digest=splits["train"]["digest"],
                held_out_digest=splits["held_out"]["digest"],
                whole=_counts_from(table),
                train=_counts_from(splits["train"]),
                held_out=_counts_from(splits["held_out"]),
                refusals={
                    reason: RefusalCount(entry["count"], entry["characters"])
                    for reason, entry in table["refusals"].items()
                },
                coverage=tuple(
                    Coverage(**{key: value for key, value in each.items() if key != "share"})
                    for each in table["coverage"]
                ),
                profile=Profile.from_json(table["profile"]) if table.get("profile") else None,
                duplicates_by_unit=table.get("duplicates_by_unit"),
                settings=settings_from(CorpusSettings, table["settings"], where=where, prefix="settings."),
                **{key: table[key] for key in (*plain, *shares)},
            )
        except XuebuError:
            raise
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: not a corpus card ({error!r}); build the corpus again") from None

    def summary(self) -> str:
        """Return the card in plain words, for a terminal."""
        unit = self._unit
        lines = [
            f"{self.documents:,} documents in {self.groups:,} groups, {self.sentences:,} sentences, "
            f"{self.characters:,} {unit} ({self.distinct_characters:,} different)",
            f"training {self.train.documents:,} documents, {self.train.characters:,} {unit}; "
            f"held out {self.held_out.documents:,} documents, {self.held_out.characters:,} {unit}",
        ]
        if self.mean_sentence_length is not None and self.duplicate_share is not None:
            lines.append(
                f"mean sentence {self.mean_sentence_length:.1f} {unit}; {self.duplicates:,} duplicate sentences "
                f"found ({self.duplicate_share:.2%}){self._larger_duplicates()}; {self.duplicates_left:,} left"
            )
        lines += [
            f"refused: {count.count:,} {REASONS[reason][0]}s, {reason} ({count.characters:,} {unit})"
            for reason, count in self.refusals.items()
        ]
        lines += [
            f"{clean_line(each.name)}: {each.covered:,} of {each.size:,} ({each.share:.1%})" for each in self.coverage
        ]
        return "\n".join(lines)

    @property
    def _unit(self) -> str:
        return "token ids" if self.settings.token_ids else "characters"

    def _larger_duplicates(self) -> str:
        units = self.duplicates_by_unit
        if units is None:
            return ""
        return f", {units['paragraph']:,} whole paragraphs and {units['document']:,} whole documents among them"

    def to_markdown(self) -> str:
        """Return the card as Markdown; names from the data are escaped."""
        share = "" if self.duplicate_share is None else f" ({self.duplicate_share:.2%})"
        refused = [
            [reason, REASONS[reason][0], f"{each.count:,}", f"{each.characters:,}", REASONS[reason][1]]
            for reason, each in self.refusals.items()
        ]
        coverage = [
            [_escaped(each.name), f"{each.size:,}", f"{each.covered:,}", f"{each.share:.1%}", _escaped(each.missing)]
            for each in self.coverage
        ]
        origin = [
            [kind, _escaped(name) or "not known", f"{count:,}"]
            for kind in ("sources", "scripts", "licences", "domains")
            for name, count in getattr(self.whole, kind).items()
        ]
        settings = [[name, _escaped(str(value))] for name, value in to_table(self.settings).items()]
        parts = [
            f"# Corpus {self.digest[:16]}",
            _counts_table({"whole": self.whole, "training": self.train, "held out": self.held_out}, self._unit),
            f"Read: {self.documents_read:,} documents, {self.characters_read:,} characters, of which cleaning left "
            f"{self.characters_cleaned:,}. Duplicate sentences: {self.duplicates:,} found{share}"
            f"{self._larger_duplicates()}; {self.duplicates_left:,} left. Renamed ids: {self.renamed_ids:,}.",
            "## Refused",
            _table(["reason", "level", "count", "characters", "meaning"], refused) if refused else "Nothing.",
        ]
        if coverage:
            parts += ["## Coverage", _table(["list", "size", "covered", "share", "first missing"], coverage)]
        if self.profile and not self.settings.token_ids:  # which are of no kind, and none is Han
            parts += _profile_parts(self.profile)
        parts += ["## Origin", _table(["", "name", "documents"], origin)]
        parts += ["## Settings", _table(["setting", "value"], settings)]
        parts += ["## Digests (SHA-256)", f"- train.jsonl {self.train_digest}\n- held_out.jsonl {self.held_out_digest}"]
        return "\n\n".join(parts) + "\n"


def load_card(corpus: Path) -> Card:
    """Return the card of a corpus folder (or of a card.json file).

    Raises:
        InputError: there is no card (the corpus was never finished), or it is damaged.
    """
    path = corpus / CARD_NAME if corpus.is_dir() else corpus
    if not path.exists():
        raise InputError(f"{path}: not there; no finished corpus, build it with `xuebu corpus build`")
    return Card.from_json(read_json(path), where=str(path))


def _counts_from(table: dict[str, Any]) -> Counts:
    known = {"domains": {}} | table  # which cards of format 1 did not tell
    return Counts(**{field.name: known[field.name] for field in dataclasses.fields(Counts)})


def _counts_table(splits: dict[str, Counts], unit: str) -> str:
    names = ("documents", "groups", "sentences", "characters", "distinct_characters", "neighbors")
    titles = {name: name.replace("_", " ").replace("characters", unit) for name in names}
    rows = [[titles[name], *(f"{getattr(each, name):,}" for each in splits.values())] for name in names]
    means = [each.mean_sentence_length for each in splits.values()]
    rows.append(["mean sentence length", *("-" if mean is None else f"{mean:.1f}" for mean in means)])
    quantiles = dict.fromkeys(name for each in splits.values() for name in each.length_quantiles)
    rows += [
        [f"length, quantile {name}", *(str(each.length_quantiles.get(name, "-")) for each in splits.values())]
        for name in quantiles
    ]
    return _table(["", *splits], rows)


def _profile_parts(profile: Profile) -> list[str]:
    total = sum(profile.kinds.values())
    kinds = [[name.replace("_", " "), f"{count:,}", f"{count / total:.2%}"] for name, count in profile.kinds.items()]
    rarity = zip(pairwise(profile.rarity.edges), profile.rarity.counts, strict=True)
    often = [[_range_text(low, high), f"{count:,}"] for (low, high), count in rarity]
    often[-1][0] = f"{profile.rarity.edges[-2]:,} or more"
    rare = [[count, str(len(characters)), characters] for count, characters in profile.rare.items()]
    return [
        "## Characters",
        _table(["kind", "occurrences", "share"], kinds),
        _table([f"Han character ({profile.han:,} different) occurs", "characters"], often),
        _table(["occurrences", "shown", "Han characters that occur so often"], rare),
    ]


def _range_text(low: int, high: int) -> str:
    """Return the whole numbers from `low` up to but not including `high`."""
    return f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", html.escape(clean_line(text), quote=False))
