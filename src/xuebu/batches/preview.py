"""The masking report: what was masked in the first batches of a run, counted and shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import KEPT, MASKED, MATCHED, NO_PAIR, RANDOM, Batch
from xuebu.batches.classes import CLASSES, token_classes
from xuebu.batches.counts import MaskCounts, expected_range, mask_problem, shares_of
from xuebu.batches.loader import Loader
from xuebu.batches.rows import Rows
from xuebu.batches.settings import BatchSettings
from xuebu.errors import TrainingError
from xuebu.tokens.special import CONTINUATION
from xuebu.tokens.vocab import Vocabulary

CHECKED_TOKENS = 50_000
"""Maskable tokens that are looked at before a run begins; few enough to take no time."""
CHECKED_STEPS = 64
KINDS = {MASKED: "mask", RANDOM: "random", KEPT: "kept", MATCHED: "matched"}
"""What reports call the values of `mask_kinds`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an example.

    Attributes:
        text: what stands in the text, with a space before it where words are parted by spaces.
        shown: what the model sees instead; the same as `text` where the token was not chosen.
        kind: "mask", "random", "kept" or "matched"; "" where it was not chosen.
        begins: whether a word begins with it.
    """

    text: str
    shown: str
    kind: str
    begins: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence, special tokens left out but for [SEP] between its parts.

    Attributes:
        pieces: its tokens.
        label: 1 or 0 where its pair is judged, else None.
    """

    pieces: tuple[Piece, ...]
    label: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the text, what the model sees, and what was chosen, as plain values."""
        return {
            "text": "".join(piece.text for piece in self.pieces),
            "input": "".join(piece.shown for piece in self.pieces),
            "chosen": [
                {"token": piece.text.strip(), "shown": piece.shown.strip(), "kind": piece.kind}
                for piece in self.pieces
                if piece.kind
            ],
            "label": self.label,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskReport:
    """What masking does to a store.

    Attributes:
        settings: that it was done by.
        segmenter: what cut the store's words.
        steps: batches that were looked at, from the first.
        sequences, judged, true_pairs: rows, those with a label, and those whose label is 1.
        counts: what was done.
        by_class: for each class of token, how many there are to mask and how many were.
        runs: stretches of masked tokens with no other between them.
        examples: the first sequences.
        problem: what is otherwise than the settings say; "" if nothing is.
    """

    settings: BatchSettings
    segmenter: str
    steps: int
    sequences: int
    judged: int
    true_pairs: int
    counts: MaskCounts
    by_class: dict[str, tuple[int, int]]
    runs: int
    examples: tuple[Example, ...]
    problem: str

    @property
    def rate(self) -> float:
        """Share of the maskable tokens that were chosen."""
        return self.counts.predicted / max(self.counts.maskable, 1)

    @property
    def whole_share(self) -> float | None:
        """Of the words of two tokens or more that masking touched, the share masked whole; None without any."""
        return self.counts.whole_words / self.counts.touched_words if self.counts.touched_words else None

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return what is measured, the figure, what it is counted on, and what is asked for, in plain words."""
        counts, settings = self.counts, self.settings
        total, chosen = max(counts.maskable, 1), max(counts.predicted, 1)
        low, high = expected_range(counts, settings)
        told, asked = f"{counts.predicted:,} of {counts.maskable:,}", f"{counts.expected / total:.2%}"
        found = [
            ("tokens chosen", f"{self.rate:.2%}", told, asked),
            ("what chance allows", f"{low / total:.2%} to {high / total:.2%}", "", ""),
        ]
        for name, count, share in shares_of(counts, settings):
            if count or share:
                found.append((f"became {name}", f"{count / chosen:.2%}", f"{count:,}", f"{share:.2%}"))
        if self.whole_share is not None:
            whole = "100.00%" if settings.mask_unit != "character" else ""
            told = f"{counts.whole_words:,} of {counts.touched_words:,}"
            found.append(("words masked whole", f"{self.whole_share:.2%}", told, whole))
        if counts.words:
            told = f"{counts.long_words:,} of {counts.words:,}"
            found.append(("words longer than a token", f"{counts.long_words / counts.words:.2%}", told, ""))
        if self.runs:
            found.append(("chosen tokens in a row", f"{counts.predicted / self.runs:.2f}", f"{self.runs:,} runs", ""))
        for name, (there, masked) in self.by_class.items():
            if there:
                found.append((f"of {name}", f"{masked / there:.2%}", f"{masked:,} of {there:,}", ""))
        if self.judged:
            name = "pairs in order" if settings.objective == "sop" else "pairs of true neighbors"
            told = f"{self.true_pairs:,} of {self.judged:,}"
            found.append((name, f"{self.true_pairs / self.judged:.2%}", told, "50.00%"))
        return found

    def summary(self) -> str:
        """Return the figures in plain words, a line each."""
        lines = [
            f"{name}: {figure}" + (f" ({counted})" if counted else "") + (f", asked for {asked}" if asked else "")
            for name, figure, counted, asked in self.rows()
        ]
        return "\n".join([*lines, *([self.problem] if self.problem else [])])

    def to_json(self) -> dict[str, Any]:
        """Return the figures and examples as plain values."""
        low, high = expected_range(self.counts, self.settings)
        total = max(self.counts.maskable, 1)
        return {
            "mask_unit": self.settings.mask_unit,
            "segmenter": self.segmenter,
            "steps": self.steps,
            "sequences": self.sequences,
            "rate": self.rate,
            "rate_asked": self.counts.expected / total,
            "rate_by_chance": [low / total, high / total],
            "shares": {
                name: {"count": count, "share": count / max(self.counts.predicted, 1), "asked": share}
                for name, (_, count, share) in zip(
                    ("mask", "matched", "random", "kept"), shares_of(self.counts, self.settings), strict=True
                )
            },
            "whole_word_share": self.whole_share,
            "tokens_in_a_row": self.counts.predicted / self.runs if self.runs else None,
            "by_class": {
                name: {"tokens": there, "predicted": masked, "rate": masked / there if there else None}
                for name, (there, masked) in self.by_class.items()
            },
            "pairs": {"judged": self.judged, "true": self.true_pairs},
            "counts": asdict(self.counts),
            "examples": [example.to_json() for example in self.examples],
            "problem": self.problem,
        }


def check_masks(loader: Loader) -> MaskCounts:
    """Look at the first batches of a run before it begins, and return what was counted.

    Raises:
        TrainingError: they are masked otherwise than the settings say, e.g. by whole words where the store has none.
    """
    counts = MaskCounts()
    for step in range(1, int(min(CHECKED_STEPS, loader.num_fresh_steps)) + 1):
        found = loader.batch(step).masking
        assert found is not None  # the loader counts
        counts += found
        if counts.maskable >= CHECKED_TOKENS:
            break
    if problem := mask_problem(counts, loader.settings, loader.store.segmenter):
        raise TrainingError(problem)
    return counts


def report_masks(loader: Loader, *, num_tokens: int = 200_000, num_examples: int = 0) -> MaskReport:
    """Count what masking does in the first batches of a run.

    Args:
        loader: of the run.
        num_tokens: at least so many tokens are looked at, in whole batches; at most a thousand, and no fixed copies
            twice.
        num_examples: how many sequences are shown.
    """
    counts, of_class = MaskCounts(), np.zeros((2, len(CLASSES)), dtype=np.int64)
    classes, ordinary = token_classes(loader.vocabulary), loader.replacements.is_ordinary
    examples: list[Example] = []
    sequences = judged = true_pairs = runs = step = 0
    while step < min(1_000, max(loader.num_fresh_steps, 1)) and counts.tokens < num_tokens:
        step += 1
        batch, rows = loader.compose(step, with_words=True)
        assert batch.masking is not None
        counts += batch.masking
        of_class[0] += np.bincount(classes[rows.tokens[ordinary[rows.tokens]]], minlength=len(CLASSES))
        of_class[1] += np.bincount(classes[batch.labels], minlength=len(CLASSES))
        sequences += batch.num_rows
        judged += batch.num_judged_pairs
        true_pairs += int((batch.nsp_labels == 1).sum())
        runs += int((np.diff(batch.masked_positions, prepend=-2) > 1).sum())
        for row in range(min(batch.num_rows, num_examples - len(examples))):
            examples.append(_example(batch, rows, row, loader.vocabulary))
    return MaskReport(
        settings=loader.settings,
        segmenter=loader.store.segmenter,
        steps=step,
        sequences=sequences,
        judged=judged,
        true_pairs=true_pairs,
        counts=counts,
        by_class={name: (int(there), int(masked)) for name, there, masked in zip(CLASSES, *of_class, strict=True)},
        runs=runs,
        examples=tuple(examples),
        problem=mask_problem(counts, loader.settings, loader.store.segmenter),
    )


def _example(batch: Batch, rows: Rows, row: int, vocabulary: Vocabulary) -> Example:
    first, last = int(rows.row_offsets[row]) + 1, int(rows.row_offsets[row + 1]) - 1  # without [CLS] and the last [SEP]
    kinds = np.full(last - first, NO_PAIR, dtype=np.int8)
    inside = slice(*np.searchsorted(batch.masked_positions, [first, last]))
    kinds[batch.masked_positions[inside] - first] = batch.mask_kinds[inside]
    starts = rows.word_starts
    assert starts is not None
    true, shown = _spelled(rows.tokens[first:last], vocabulary), _spelled(batch.input_ids[first:last], vocabulary)
    pieces = (
        Piece(text, seen if kind >= 0 else text, KINDS.get(kind, ""), begins)
        for text, seen, kind, begins in zip(true, shown, kinds.tolist(), starts[first:last].tolist(), strict=True)
    )
    label = int(batch.nsp_labels[row])
    return Example(tuple(pieces), None if label == NO_PAIR else label)


def _spelled(ids: npt.NDArray[np.integer], vocabulary: Vocabulary) -> list[str]:
    """Return the texts of tokens: continuations without "##", a space between other pieces and between ids."""
    found: list[str] = []
    apart = vocabulary.kind == "ids" or any(token.startswith(CONTINUATION) for token in vocabulary.tokens)
    before = ""
    for token in (vocabulary.tokens[index] for index in ids.tolist()):
        continues = apart and token.startswith(CONTINUATION) and len(token) > len(CONTINUATION)
        text = token.removeprefix(CONTINUATION) if continues else token
        parted = apart and not continues and _is_alphabetic(before[-1:]) and _is_alphabetic(text[:1])
        found.append(f" {text}" if parted else text)
        before = text
    return found


def _is_alphabetic(character: str) -> bool:
    return character.isascii() and character.isalnum()
