"""The last steps of a build: what is held out is compared with all training text, and refused where it shares runs.

The runs of held-out text are indexed in blocks, so that memory is bounded: each part of the training text is read once,
and looked up in every block. Hold out less, and there is one block: one takes some 8 million characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xuebu.corpus.dedup import digests_of
from xuebu.corpus.document import CorpusFile, raw_sentences, sentence_document_from
from xuebu.corpus.equals import find_repeats, write_table
from xuebu.corpus.overlap import RunIndex, UInt64, compared_codes, shares_text, shown_runs
from xuebu.corpus.tally import Tally
from xuebu.corpus.thinning import CANDIDATES, RUNS
from xuebu.corpus.work import Result, Work, counted
from xuebu.files import read_lines, write_bytes

HELD_OUT, LEFT_GROUPS, LEFT_SENTENCES = "held_out.jsonl", "left.group", "left.sentence"
BLOCK_RUNS = 1 << 23


def index_held_out(work: Work, _: int) -> Result:
    """Index the runs of what is to be held out; returns the parts of each block, as [first, end)."""
    blocks: list[list[int]] = []
    waiting = 0
    for number, path in enumerate(work.each_part(RUNS)):
        size = path.stat().st_size // 8
        if size and (not blocks or waiting + size > BLOCK_RUNS):
            blocks.append([blocks[-1][1] if blocks else 0, 0])
            waiting = 0
        waiting += size
        if blocks:
            blocks[-1][1] = number + 1
    for block, (first, end) in enumerate(blocks):
        runs = [np.fromfile(work.part(number, RUNS), dtype="<u8") for number in range(first, end)]
        RunIndex.write(work.block(block, "runs"), np.concatenate(runs), sync=work.survives)
    return {"blocks": blocks}


def compare_part(work: Work, number: int) -> Result:
    """Find which runs of held-out text the training text of a part shows."""
    indexes = [work.block(block, "runs") for block in range(len(work.result("index")["blocks"]))]
    texts = _training_texts(work, number) if indexes else ()
    shown = shown_runs(texts, indexes, work.settings.shared_run, exact=work.settings.token_ids)
    for block, own in enumerate(shown):
        write_bytes(work.part(number, f"shown.{block}"), own.astype("<u8").tobytes(), sync=work.survives)
    return {}


def _training_texts(work: Work, number: int) -> Iterator[str]:
    """Yield the text of each training document of a part; where letters alone count, not parsed."""
    path = work.part(number, work.result("settle", number)["training"])
    for place, line in read_lines(path):
        where = f"{path}:{place}"
        if work.settings.token_ids:
            yield "".join(sentence_document_from(line, where).sentences)
        else:
            yield raw_sentences(line, where)


def gather_shown(work: Work, _: int) -> Result:
    """Put together which runs of held-out text any part of the training text shows."""
    for block in range(len(work.result("index")["blocks"])):
        runs = np.fromfile(work.block(block, "runs"), dtype="<u8")
        is_shown = np.zeros(len(runs), dtype=bool)
        for path in work.each_part(f"shown.{block}"):
            is_shown[np.searchsorted(runs, np.fromfile(path, dtype="<u8"))] = True
        write_bytes(work.block(block, "shown"), runs[is_shown].tobytes(), sync=work.survives)
    return {}


def hold_out_part(work: Work, number: int) -> Result:
    """Write what is held out of a part, without the documents that share text with training."""
    blocks = work.result("index")["blocks"]
    block = next((block for block, (first, end) in enumerate(blocks) if first <= number < end), None)
    shown = np.empty(0, dtype=np.uint64)
    if block is not None:
        shown = np.fromfile(work.block(block, "shown"), dtype="<u8")
    tally = Tally()
    digests = [np.empty(0, dtype=np.uint64)]
    with work.refusing("hold_out", number) as refusals, work.writing(work.part(number, HELD_OUT)) as out:
        for document in CorpusFile(work.part(number, CANDIDATES)):
            codes = compared_codes(["".join(document.sentences)], exact=work.settings.token_ids)
            if shares_text(codes, shown, work.settings.shared_run):
                reason = "held_out_overlaps_training"
                refusals.add(reason, *document.sentences, source=document.source, id=document.id)
                continue
            out.write(document.to_line().encode() + b"\n")
            tally.add(document)
            if _keeps_repeats(work):
                digests.append(digests_of(document.sentences))
    _write_keys(work, work.part(number, LEFT_GROUPS), np.array(tally.groups, dtype=np.uint64))
    if _keeps_repeats(work):
        _write_keys(work, work.part(number, LEFT_SENTENCES), np.concatenate(digests))
    return {"refusals": counted(refusals), "held_out": tally.to_json()}


def _keeps_repeats(work: Work) -> bool:
    """Return whether held-out sentences may repeat each other."""
    return not work.settings.deduplicate or work.settings.deduplicate_unit != "sentence"


def _write_keys(work: Work, path: Path, keys: UInt64) -> None:
    write_table(path, keys, np.arange(len(keys), dtype=np.uint32), sync=work.survives)


def count_left(work: Work, bucket: int) -> Result:
    """Count the groups that are held out, and their sentences that equal an earlier one and stay."""
    _, groups = find_repeats((), work.each_part(LEFT_GROUPS), bucket, work.num_buckets)
    sentences = work.each_part(LEFT_SENTENCES) if _keeps_repeats(work) else ()
    repeats, _ = find_repeats((), sentences, bucket, work.num_buckets)
    return {"held_out": groups, "repeats": len(repeats.part)}
