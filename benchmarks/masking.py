"""What a batch costs by kind of masking and objective, against transformers' collator; and are words masked whole?

A batch of about 64,000 tokens is built for every kind, kinds taking turns; CPU seconds of one core, medians. Beside it,
a training step of preset mini over as many tokens on all cores: from the CPU seconds of forward and backward pass over
some of them, the fastest of all rounds. The collator gets rows that are tokenized, with their special tokens marked,
and pads and masks them.

Then whole words: one Chinese sentence of 31 characters is masked 400 times by the collator's `whole_word_mask` and by
xuebu's word bits; exit code 1 if xuebu masks words in part, or the sentence all or nothing.

Text: Chinese Wikipedia where XUEBU_SHARED_DATA names it, else the built-in sample. The rate on 16 cores is 16 times
that of one: a batch depends on nothing but its number, so processes build them without a word between them. That is an
extrapolation; memory bandwidth is not in it.

    PYTHONPATH=src python benchmarks/masking.py [--rounds 7] [--tokens 65536] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contenders import prepare
from machine import facts
from xuebu.batches.batch import Batch
from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.batches.settings import BatchSettings
from xuebu.corpus.document import SentenceDocument
from xuebu.study import StudyFolder
from xuebu.tokens.build import build_store
from xuebu.tokens.settings import StoreSettings, VocabularySettings
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary, load_vocabulary, train_vocabulary

SHARE, CORES, DRAWS = 0.03, 16, 400
SENTENCE = "傍晚的村子里炊烟升起，孩子们追着风筝跑过石桥，老人在树下讲故事"
KINDS: dict[str, dict[str, Any]] = {
    "character": {},
    "character, exact": {"mask_budget": "exact", "max_predictions": 20},
    "word": {"mask_unit": "word"},
    "word, exact": {"mask_unit": "word", "mask_budget": "exact"},
    "n-gram": {"mask_unit": "ngram"},
    "n-gram, exact, matched": {"mask_unit": "ngram", "mask_budget": "exact", "mask_replacement": "matched"},
    "span": {"mask_unit": "span", "mask_token_share": 1.0, "random_token_share": 0.0},
    "SOP": {"objective": "sop"},
    "segments, NSP": {"sequences": "segments", "short_sequence_share": 0.1},
    "segments, SOP, n-gram": {"sequences": "segments", "objective": "sop", "mask_unit": "ngram"},
    "full to 512, word": {"sequences": "full", "objective": "mlm", "sequence_length": 512, "mask_unit": "word"},
}


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of this process that a call takes, all threads together."""
    start = time.process_time()
    call()
    return time.process_time() - start


def loaders(store: Store, vocabulary: Vocabulary, tokens: int) -> dict[str, Loader]:
    """Return a loader for each kind whose batches have about so many tokens."""
    found = {}
    for name, changes in KINDS.items():
        settings = BatchSettings(**{"sequences_per_step": 64, "sequence_length": 128, **changes})
        size = Loader(store, vocabulary, settings, 0).batch(1).num_tokens / 64
        settings = dataclasses.replace(settings, sequences_per_step=max(2, round(tokens / size)))
        found[name] = Loader(store, vocabulary, settings, 0)
    return found


def mini_step(batch: Batch, vocabulary: Vocabulary, rounds: int) -> float:
    """Return tokens a CPU second of forward and backward pass of preset mini over one micro-batch of a batch."""
    import torch

    from xuebu.model.encoder import PretrainingModel
    from xuebu.model.presets import preset_settings
    from xuebu.train.machine import resolve_machine
    from xuebu.train.objective import compute_losses
    from xuebu.train.settings import TrainSettings

    settings = preset_settings("mini")
    machine = resolve_machine(TrainSettings(device="cpu"), settings.attention_dropout)
    torch.set_num_threads(machine.threads)
    model = PretrainingModel(settings, vocabulary.num_tokens)
    micro = split_micro_batches(batch, machine.micro_batch_tokens, machine.rows_per_block)[1]

    def step() -> None:
        losses = compute_losses(model, micro, "cpu", machine.precision)
        (losses.mlm_nats + losses.nsp_nats).backward()
        model.zero_grad()

    step()
    return float(micro.lengths.sum() / min(cpu_seconds(step) for _ in range(rounds)))


class Collator:
    """transformers' collator for masked tokens with our vocabulary."""

    def __init__(self, vocabulary: Vocabulary, folder: Path, *, whole_words: bool) -> None:
        from transformers import AutoTokenizer, DataCollatorForLanguageModeling

        vocabulary.save(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.collate = DataCollatorForLanguageModeling(
                self.tokenizer, mlm_probability=0.15, whole_word_mask=whole_words, seed=0
            )
        self.whole_words = whole_words

    def features(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return texts as the collator wants them, special tokens marked."""
        found = self.tokenizer(
            texts,
            truncation=True,
            max_length=128,
            return_special_tokens_mask=True,
            return_offsets_mapping=self.whole_words,
            return_token_type_ids=False,
        )
        return [{name: values[row] for name, values in found.items()} for row in range(len(texts))]


def whole_words(rounds: int) -> dict[str, list[float]]:
    """Return for each way of masking the share of one sentence that each of `rounds` draws hides."""
    document = SentenceDocument(id="s", title="", group="s", source="s", sentences=(SENTENCE,))
    vocabulary = train_vocabulary([SENTENCE], VocabularySettings(min_count=1))
    shares: dict[str, list[float]] = {"transformers": [], "xuebu": []}
    with tempfile.TemporaryDirectory() as folder:
        collator = Collator(vocabulary, Path(folder) / "vocab", whole_words=True)
        (feature,) = collator.features([SENTENCE])
        for _ in range(rounds):
            labels = collator.collate([dict(feature)])["labels"]
            shares["transformers"].append(float((labels != -100).sum()) / len(SENTENCE))
        store = build_store([document], vocabulary, Path(folder) / "store", StoreSettings(), corpus_digest="")
        settings = BatchSettings(objective="mlm", sequences_per_step=rounds, mask_unit="word")
        batch, rows = Loader(store, vocabulary, settings, 0).compose(1)
        counts = batch.masking
        assert counts is not None
        assert rows.word_starts is not None
        print(f"\n{SENTENCE}\nwords: {_cut(rows.word_starts)}")
        predicted = np.bincount(rows.rows[batch.masked_positions], minlength=rounds)
        shares["xuebu"] = (predicted / len(SENTENCE)).tolist()
        if counts.whole_words != counts.touched_words:
            sys.exit("xuebu masked words in part")
    return shares


def _cut(starts: np.ndarray[Any, Any]) -> str:
    bits = starts[1 : 1 + len(SENTENCE)]
    return "".join("|" * bool(bit) + character for character, bit in zip(SENTENCE, bits, strict=True)).strip("|")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 16,384 tokens")
    asked = parser.parse_args()
    rounds, tokens = (3, 16_384) if asked.quick else (asked.rounds, asked.tokens)
    with tempfile.TemporaryDirectory() as name:
        study = StudyFolder(Path(name))
        text = prepare(study.path, 0)
        store, vocabulary = Store.open(study.store("train")), load_vocabulary(study.vocabulary)
        found = loaders(store, vocabulary, tokens)
        texts = [vocabulary.decode(store.sentence_tokens(n % store.num_sentences)) for n in range(tokens // 40)]
        collator = Collator(vocabulary, Path(name) / "collator", whole_words=False)
        features = collator.features(texts)
        num_collated = sum(len(feature["input_ids"]) for feature in features)
        seconds: dict[str, list[float]] = {each: [] for each in (*found, "collator")}
        sizes: dict[str, list[int]] = {each: [] for each in found}
        for turn in range(rounds + 1):
            for each, loader in found.items():
                taken = cpu_seconds(lambda loader=loader, turn=turn: loader.batch(turn + 1))  # type: ignore[misc]
                if turn:  # the first turn pages the store in
                    seconds[each].append(taken)
                    sizes[each].append(loader.batch(turn + 1).num_tokens)
            taken = cpu_seconds(lambda: collator.collate([dict(feature) for feature in features]))
            if turn:
                seconds["collator"].append(taken)
        speed = mini_step(found["character"].batch(1), vocabulary, rounds)
    cores = facts()["cores"]
    step = tokens / (speed * cores)  # seconds on all cores, if they had nothing else to do
    rates = {each: float(np.median(np.array(sizes[each]) / np.array(seconds[each]))) for each in found}
    rates["collator"] = float(num_collated / np.median(seconds["collator"]))
    print(f"text: {text}; preset mini: {speed:,.0f} tokens a CPU second: {step:.2f} s for {tokens:,} on {cores} cores")
    print(f"{'':<26}{'tokens/s a core':>16}{'of a step':>11}{'x collator':>12}{f'{CORES} cores':>14}")
    for each, rate in rates.items():
        share = tokens / rate / step
        print(f"{each:<26}{rate:>16,.0f}{share:>11.2%}{rate / rates['collator']:>12.1f}{CORES * rate:>14,.0f}")
    slow = [each for each in found if tokens / rates[each] / step > SHARE]
    print(f"above {SHARE:.0%} of a step: {', '.join(slow) or 'none'}")
    shares = whole_words(DRAWS)
    for each, drawn in shares.items():
        none, most = sum(share == 0.0 for share in drawn), sum(share > 0.8 for share in drawn)
        mean = np.mean(drawn)
        print(f"{each:<14}of {DRAWS} draws {none} mask nothing, {most} more than 80 %; {mean:.1%} of all characters")
    print(json.dumps({"rates": rates, "mini": speed, "step_seconds": step, "slow": slow, **facts()}))
    if max(shares["xuebu"]) > 0.8 or not 0.12 < np.mean(shares["xuebu"]) < 0.18:
        sys.exit(1)


if __name__ == "__main__":
    main()
