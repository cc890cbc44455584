"""The end of a build: checks of what was read and of the split, the card, and the finished files in their places."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from xuebu.corpus.card import CARD_NAME, Card
from xuebu.corpus.coverage import CharacterList, measure_coverage
from xuebu.corpus.dedup import UNITS
from xuebu.corpus.holding_out import HELD_OUT
from xuebu.corpus.reading import SIDES
from xuebu.corpus.sources import DocumentReader, refuse_files
from xuebu.corpus.tally import Tally, counts_of, profile_of_tallies
from xuebu.corpus.work import Result, Work, counted, together
from xuebu.errors import InputError
from xuebu.files import DigestWriter, sha256_bytes, sync_folder, to_json, write_atomic
from xuebu.progress import Progress, Task

TRAIN_NAME, HELD_OUT_NAME, REFUSED_NAME = "train.jsonl", "held_out.jsonl", "refused.jsonl"

MEGABYTE = 1_000_000
_STEPS_THAT_REFUSE = ("files", "read", "sieve", "place", "thin", "settle", "hold_out")


def refuse_empty(work: Work, reader: DocumentReader | None, progress: Progress) -> None:
    """Count the files of the input that gave no document, and what the hub's documents lost.

    Raises:
        InputError: all files are empty.
    """
    found: Counter[int] = Counter()
    for result in work.of_parts("read"):
        found.update({int(number): count for number, count in result["found"].items()})
    with work.refusing("files", 0) as refusals:
        if reader:
            for note in refuse_files(reader.files, reader.num_unknown, found, refusals):
                progress.note(note)
            refusals.include(reader.refusals)
    work.done("files", 0, {"refusals": counted(refusals)})


def _placed(work: Work) -> list[Result]:
    """Return, of each part, what was put on which side."""
    return list(work.of_parts("sieve" if work.settings.near_duplicates == "ignore" else "place"))


def _accounts(work: Work, steps: Sequence[str]) -> Iterator[dict[str, list[int]]]:
    """Yield what was refused in some steps, as `work.counted` counts."""
    for step in steps:
        if step == "files":
            yield work.result("files")["refusals"]
        elif step != "place" or work.settings.near_duplicates != "ignore":
            yield from (result["refusals"] for result in work.of_parts(step))


def check_sides(work: Work, _: int) -> Result:
    """Return how many documents fall on each side.

    Raises:
        InputError: a side of the split is empty.
    """
    placed = _placed(work)
    training, held_out = (sum(result[side] for result in placed) for side in SIDES)
    kept, fraction = training + held_out, work.settings.held_out_fraction
    if not kept:
        read = sum(result["documents_read"] for result in work.of_parts("sieve"))
        counts = together(_accounts(work, _STEPS_THAT_REFUSE[:4]))
        reasons = ", ".join(f"{reason} {each.count:,}" for reason, each in counts.items())
        raise InputError(f"no sentence is left of {read:,} documents ({reasons or 'nothing was read'})")
    if not training:
        raise InputError(
            f"the groups of all {kept:,} documents fall on the held-out side; give more documents with titles of "
            "their own, or a smaller held_out_fraction"
        )
    if not held_out and fraction:
        needed = math.ceil(min(result["smallest_place"] for result in placed) * 1000 + 1e-6) / 1000
        advice = f"set held_out_fraction = {needed:g} or more" if needed <= 0.5 else "give more documents"
        raise InputError(
            f"no group of {kept:,} documents falls on the held-out side at held_out_fraction = {fraction:g}; {advice}"
            + ('; a .txt file of many documents needs txt_documents = "blank-line"' if kept == 1 else "")
        )
    return {"held_out": held_out}


def finish_corpus(work: Work, out: Path, lists: Sequence[CharacterList], *, progress: Progress) -> Card:
    """Put the parts together, and the finished files in their places, the card last; removes the work folder.

    Raises:
        InputError: nothing is held out any more.
    """
    training, held_out = Tally(), Tally()
    for result in work.of_parts("thin"):
        training.include(Tally.from_json(result["train"]))
    for result in work.of_parts("hold_out"):
        held_out.include(Tally.from_json(result["held_out"]))
    _check_held_out(work.result("sides")["held_out"], held_out.documents, progress)
    settled = list(work.of_parts("settle"))
    parts = [work.part(number, result["training"]) for number, result in enumerate(settled)]
    files = {TRAIN_NAME: parts, HELD_OUT_NAME: work.each_part(HELD_OUT)}
    if work.settings.write_refused:
        files[REFUSED_NAME] = [
            path
            for step in _STEPS_THAT_REFUSE
            for number in range(max(work.num_parts, 1))
            if (path := work.refused(step, number)).exists()
        ]
    digests = {}
    size = sum(path.stat().st_size for paths in files.values() for path in paths)
    with progress.task("write", -(-size // MEGABYTE), "MB") as task:
        meter = Meter(task)
        for name, paths in files.items():
            with DigestWriter(work.folder / name) as writer:
                for path in paths:
                    meter.add(writer.write_file(path))
                digests[name] = writer.close()
    groups = [
        sum(result[side] for result in work.of_buckets(step))
        for side, step in zip(SIDES, ("name", "left"), strict=True)
    ]
    found: dict[str, int] = {unit: sum(result[unit] for result in work.of_buckets("mark")) for unit in UNITS}
    sieved = list(work.of_parts("sieve"))
    passed = sum(result["placed_sentences"] for result in _placed(work))
    card = Card(
        digest=sha256_bytes(f"{digests[TRAIN_NAME]} {digests[HELD_OUT_NAME]}".encode()),
        train_digest=digests[TRAIN_NAME],
        held_out_digest=digests[HELD_OUT_NAME],
        whole=replace(counts_of([training, held_out]), groups=sum(groups)),
        train=replace(counts_of([training]), groups=groups[0]),
        held_out=replace(counts_of([held_out]), groups=groups[1]),
        documents_read=sum(result["documents_read"] for result in sieved),
        characters_read=sum(result["characters_read"] for result in sieved),
        characters_cleaned=sum(result["characters_cleaned"] for result in sieved),
        duplicates=found["sentence"],
        duplicate_share=found["sentence"] / passed,
        duplicates_left=sum(result["training_repeats"] for result in work.of_parts("thin"))
        + sum(result["repeats"] for result in work.of_buckets("left")),
        duplicates_by_unit=found,
        renamed_ids=sum(result["renamed"] for result in settled),
        refusals=together(_accounts(work, _STEPS_THAT_REFUSE)),
        coverage=measure_coverage(
            lists,
            training.characters.keys() | held_out.characters.keys(),
            training.characters.keys(),
            standard=not work.settings.token_ids,
        ),
        settings=work.settings,
        profile=profile_of_tallies([training, held_out]),
    )
    _publish(card, work.folder, out)
    (work.folder / "build.json").unlink(missing_ok=True)
    shutil.rmtree(work.folder)
    return card


def _check_held_out(before: int, left: int, progress: Progress) -> None:
    """Raise InputError if nothing is held out any more, and say so if most of it is gone."""
    if before and not left:
        raise InputError(
            f"all {before:,} held-out documents share text or titles with training; set a larger held_out_fraction, or "
            "give documents that repeat each other less"
        )
    if left < before / 2:
        progress.note(
            f"only {left:,} of {before:,} held-out documents share no long run of text with training; "
            "a larger held_out_fraction holds out more"
        )


def _publish(card: Card, work: Path, out: Path) -> None:
    """Move the finished files to their places, and write the card last."""
    (out / CARD_NAME).unlink(missing_ok=True)
    for name in (TRAIN_NAME, HELD_OUT_NAME, REFUSED_NAME):
        if (work / name).exists():
            (work / name).replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    sync_folder(out)
    write_atomic(out / "card.md", card.to_markdown())
    write_atomic(out / CARD_NAME, to_json(card.to_json()))


class Meter:
    """Shows bytes as megabytes."""

    def __init__(self, task: Task) -> None:
        self._task, self._bytes = task, 0

    def add(self, size: int) -> None:
        """Say that so many bytes more are done."""
        before, self._bytes = self._bytes, self._bytes + size
        self._task.advance(-(-self._bytes // MEGABYTE) + -before // MEGABYTE)
