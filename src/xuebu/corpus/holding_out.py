"""The last steps of a build: what is held out is compared with all training text, and refused where it shares runs.

The runs of held-out text are indexed in blocks, so that memory is bounded: each part of the training text is read once,
and looked up in every block. Hold out less, and there is one block: one takes some 8 million characters.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from xuebu.corpus.dedup import sentence_digest
from xuebu.corpus.document import CorpusFile
from xuebu.corpus.equals import find_repeats, write_table
from xuebu.corpus.overlap import RunIndex, comparable_text, shares_text, shown_runs
from xuebu.corpus.tally import Tally
from xuebu.corpus.thinning import CANDIDATES, RUNS
from xuebu.corpus.work import Result, Work, counted
from xuebu.files import DigestWriter, write_bytes

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
    training = CorpusFile(work.part(number, work.result("settle", number)["training"]))
    texts: list[str] = []
    for block in range(len(work.result("index")["blocks"])):
        texts = texts or [comparable_text(document.sentences) for document in training]
        shown = shown_runs(texts, RunIndex(work.block(block, "runs")), work.settings.shared_run)
        write_bytes(work.part(number, f"shown.{block}"), shown.astype("<u8").tobytes(), sync=work.survives)
    return {}


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
    digests = bytearray()
    with (
        work.refusing("hold_out", number) as refusals,
        DigestWriter(work.part(number, HELD_OUT), sync=work.survives) as writer,
    ):
        for document in CorpusFile(work.part(number, CANDIDATES)):
            if shares_text(comparable_text(document.sentences), shown, work.settings.shared_run):
                reason = "held_out_overlaps_training"
                refusals.add(reason, *document.sentences, source=document.source, id=document.id)
                continue
            writer.write_line(document.to_line())
            tally.add(document)
            digests += b"".join(map(sentence_digest, document.sentences))
    _write_keys(work, work.part(number, LEFT_GROUPS), tally.groups)
    if not work.settings.deduplicate or work.settings.deduplicate_unit != "sentence":
        _write_keys(work, work.part(number, LEFT_SENTENCES), digests)
    return {"refusals": counted(refusals), "held_out": tally.to_json()}


def _write_keys(work: Work, path: Path, data: bytearray | array[int]) -> None:
    keys = np.frombuffer(data, dtype=np.uint64)
    write_table(path, keys, np.arange(len(keys), dtype=np.uint32), sync=work.survives)


def count_left(work: Work, bucket: int) -> Result:
    """Count the groups that are held out, and their sentences that equal an earlier one and stay."""
    groups, sentences = (
        find_repeats((), work.each_part(name), bucket, work.num_buckets) for name in (LEFT_GROUPS, LEFT_SENTENCES)
    )
    return {"held_out": groups[1], "repeats": len(sentences[0].part)}
