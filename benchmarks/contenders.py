"""What benchmarks/pretraining.py lets run against each other; each in a process of its own, slice by slice.

All train a model of one size on the same sentence pairs, 64 an update, cut to 128 tokens. transformers' Trainer takes
them as its users do: padded to 128, 32 at once, two times an update. The published study's way is a plain loop.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from machine import wiki_files
from xuebu.runtime import prepare_environment

ROWS, LENGTH, NUM_EXAMPLE_BATCHES = 64, 128, 60
STEPS = 10**6  # never reached
VOCABULARY = {"tiny": 21_128, "mini": 21_128, "reference": 10_054}
"""Entries of the vocabulary: those of the published models of each size; the text's own are filled up to them."""
TCMALLOC = "libtcmalloc_minimal.so.4"
TITLES = {
    "xuebu": "xuebu",
    "trainer-fp32": "transformers Trainer, defaults (fp32)",
    "trainer-compiled": "Trainer, bf16 + torch_compile",
    "trainer-tcmalloc": "Trainer, bf16 + torch_compile, tcmalloc",
    "plain-fp32": "plain loop, nn.TransformerEncoder (fp32)",
}


@dataclass(frozen=True)
class Contender:
    """What a worker process is asked to run."""

    kind: str
    preset: str
    dropout: float
    folder: str


class SkippedError(Exception):
    """A contender cannot run here; says why."""


class Gate:
    """Lets a training loop run for one slice at a time: the loop calls `step` after each update."""

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self.commands, self.answers = commands, answers
        self.begun, self.deadline, self.least = 0.0, math.inf, 1
        self.tokens = self.steps = 0

    def say(self, **answer: Any) -> None:
        """Answer the parent."""
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()

    def wait(self) -> None:
        """Wait for the next slice; the process ends when there is none."""
        line = self.commands.readline()
        if not line:
            sys.exit(0)
        self.tokens = self.steps = 0
        self.begun = time.perf_counter()
        seconds, least = line.split()
        self.deadline, self.least = self.begun + float(seconds), int(least)

    def step(self, tokens: int) -> None:
        """Count a whole update of `tokens` real tokens; at the end of a slice, answer and wait."""
        self.tokens += tokens
        self.steps += 1
        now = time.perf_counter()
        if now >= self.deadline and self.steps >= self.least:
            self.say(tokens=self.tokens, seconds=now - self.begun, steps=self.steps)
            self.wait()


def prepare(folder: Path, size: int) -> str:
    """Make corpus, vocabulary of `size` entries (0: what the text has) and stores; return what text it is."""
    from xuebu.cli.flags import load_recipe
    from xuebu.corpus.build import build_corpus
    from xuebu.corpus.sample import sample_documents
    from xuebu.corpus.sources import read_documents
    from xuebu.study import StudyFolder, make_vocabulary, prepare_tokens
    from xuebu.tokens.vocab import Vocabulary, load_vocabulary

    recipe, study, text = load_recipe("sample"), StudyFolder(folder), "the built-in sample"
    documents = sample_documents()
    if os.environ.get("XUEBU_SHARED_DATA"):
        documents, text = read_documents(wiki_files()), "Chinese Wikipedia (XUEBU_SHARED_DATA)"
    card = build_corpus(documents, study.corpus, recipe.corpus)
    make_vocabulary(study.corpus, recipe.vocabulary, study.vocabulary, max_length=recipe.model.max_positions)
    tokens = load_vocabulary(study.vocabulary).tokens
    rare = [chr(code) for code in range(0x20000, 0x20000 + size)]  # of CJK extension B: not in the text
    if size:
        Vocabulary((*tokens, *(one for one in rare if one not in tokens))[:size]).save(study.vocabulary)
    prepare_tokens(study, study.corpus, card.digest, recipe)
    return text


def model_settings(asked: Contender) -> Any:
    """Return the preset's model with the dropout asked for; of `reference`, the form that Hugging Face's class has."""
    from xuebu.model.presets import preset_settings

    name = "reference-hf" if asked.preset == "reference" else asked.preset
    return dataclasses.replace(preset_settings(name), dropout=asked.dropout, attention_dropout=asked.dropout)


def load(asked: Contender) -> tuple[Any, Any]:
    """Return vocabulary and training store."""
    from xuebu.study import StudyFolder
    from xuebu.tokens.store import Store
    from xuebu.tokens.vocab import load_vocabulary

    study = StudyFolder(Path(asked.folder))
    return load_vocabulary(study.vocabulary), Store.open(study.store("train"))


def examples(asked: Contender) -> list[dict[str, Any]]:
    """Return the sentence pairs of xuebu's first batches without masks, as a tokenizer would give them."""
    from xuebu.batches.loader import Loader
    from xuebu.batches.settings import BatchSettings

    vocabulary, store = load(asked)
    loader = Loader(store, vocabulary, BatchSettings(sequences_per_step=ROWS, sequence_length=LENGTH), 0)
    found: list[dict[str, Any]] = []
    for step in range(1, NUM_EXAMPLE_BATCHES + 1):
        batch = loader.batch(step)
        ids = batch.input_ids.copy()
        ids[batch.masked_positions] = batch.labels
        for row, (start, stop) in enumerate(zip(batch.row_offsets, batch.row_offsets[1:], strict=False)):
            found.append(
                {
                    "input_ids": ids[start:stop].tolist(),
                    "token_type_ids": batch.segment_ids[start:stop].tolist(),
                    "attention_mask": [1] * int(stop - start),
                    "next_sentence_label": 1 - int(batch.nsp_labels[row]),
                }
            )
    return found


def run_xuebu(asked: Contender, gate: Gate) -> None:
    """Train with xuebu as `xuebu train` does; the progress bar is where the slices end."""
    from xuebu.batches.loader import Loader
    from xuebu.cli.flags import load_recipe
    from xuebu.study import StudyFolder
    from xuebu.train.folder import RunFolder
    from xuebu.train.session import start_run

    recipe = load_recipe("sample")
    train = dataclasses.replace(recipe.train, steps=STEPS, evaluate_every=STEPS)
    batches = dataclasses.replace(recipe.batches, sequences_per_step=ROWS, sequence_length=LENGTH)
    recipe = dataclasses.replace(recipe, train=train, batches=batches, model=model_settings(asked))
    vocabulary, store = load(asked)
    loader = Loader(store, vocabulary, batches, train.seed)
    tokens = [loader.batch(step).num_tokens for step in range(1, 2_001)]  # beyond: again from the first

    class Bar:
        done = 0

        def advance(self, count: int = 1) -> None:
            if count:
                gate.step(tokens[self.done % len(tokens)])
                self.done += 1

        def show(self, text: str) -> None:
            pass

    class Bars:
        @contextmanager
        def task(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Bar]:
            yield Bar()

        def note(self, text: str) -> None:
            pass

    study = StudyFolder(Path(asked.folder))
    gate.wait()
    start_run(
        RunFolder(Path(tempfile.mkdtemp(dir=asked.folder))),
        recipe,
        train_store=study.store("train"),
        held_out_store=study.store("held_out"),
        vocabulary=study.vocabulary,
        progress=Bars(),
    )


def run_trainer(asked: Contender, gate: Gate) -> None:
    """Train BertForPreTraining with transformers' Trainer; its own settings but for those named here."""
    try:
        import accelerate  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise SkippedError(f"{error.name} is not installed") from None
    transformers.logging.set_verbosity_error()
    settings, (vocabulary, _) = model_settings(asked), load(asked)
    config = transformers.BertConfig(
        vocab_size=vocabulary.num_tokens,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        intermediate_size=settings.intermediate_size,
        hidden_dropout_prob=asked.dropout,
        attention_probs_dropout_prob=asked.dropout,
        tie_word_embeddings=settings.tie_embeddings,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(Path(asked.folder) / "vocab")
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, pad_to_multiple_of=LENGTH)
    counts: list[int] = []

    def count_and_collate(rows: list[dict[str, Any]]) -> Any:
        counts.append(sum(len(row["input_ids"]) for row in rows))
        return collate(rows)

    class Slices(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            gate.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            gate.step(sum(counts))
            counts.clear()

    torch.manual_seed(0)
    transformers.Trainer(
        model=transformers.BertForPreTraining(config),
        args=transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(dir=asked.folder),
            per_device_train_batch_size=ROWS // 2,
            gradient_accumulation_steps=2,
            max_steps=STEPS,
            learning_rate=1e-3,
            bf16=asked.kind != "trainer-fp32",
            torch_compile=asked.kind != "trainer-fp32",
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            dataloader_drop_last=True,
        ),
        train_dataset=examples(asked),
        data_collator=count_and_collate,
        callbacks=[Slices()],
    ).train()


def run_plain(asked: Contender, gate: Gate) -> None:
    """Train nn.TransformerEncoder in the plainest loop: 64 rows padded to 128, a head at every position, AdamW."""
    import torch
    from torch import nn

    settings, (vocabulary, _) = model_settings(asked), load(asked)
    hidden, size, rng = settings.hidden_size, vocabulary.num_tokens, np.random.default_rng(0)
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        hidden, settings.num_heads, settings.intermediate_size, asked.dropout, activation="gelu", batch_first=True
    )
    parts = nn.ModuleDict(
        {
            "word": nn.Embedding(size, hidden),
            "position": nn.Embedding(settings.max_positions, hidden),
            "segment": nn.Embedding(2, hidden),
            "encoder": nn.TransformerEncoder(layer, settings.num_layers, enable_nested_tensor=False),
            "tokens": nn.Linear(hidden, size),
            "pairs": nn.Linear(hidden, 2),
        }
    ).train()
    optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-4)
    loss_of, rows = nn.CrossEntropyLoss(), examples(asked)
    gate.wait()
    for step in range(STEPS):
        first = step * ROWS % len(rows)
        chosen = rows[first : first + ROWS]
        ids, segments = np.zeros((ROWS, LENGTH), dtype=np.int64), np.zeros((ROWS, LENGTH), dtype=np.int64)
        for number, row in enumerate(chosen):
            ids[number, : len(row["input_ids"])] = row["input_ids"]
            segments[number, : len(row["input_ids"])] = row["token_type_ids"]
        real = ids != vocabulary.pad_id
        masked = real & (ids > vocabulary.mask_id) & (rng.random(ids.shape) < 0.15)
        draws = rng.random(ids.shape)
        shown = np.where(masked & (draws < 0.8), vocabulary.mask_id, ids)
        shown = np.where(masked & (draws >= 0.9), rng.integers(5, size, ids.shape), shown)
        x = parts["word"](torch.from_numpy(shown)) + parts["segment"](torch.from_numpy(segments))
        x = parts["encoder"](x + parts["position"].weight[:LENGTH], src_key_padding_mask=torch.from_numpy(~real))
        labels = torch.from_numpy(np.where(masked, ids, -100))
        pairs = torch.tensor([row["next_sentence_label"] for row in chosen])
        loss = loss_of(parts["tokens"](x).view(-1, size), labels.view(-1)) + loss_of(parts["pairs"](x[:, 0]), pairs)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        gate.step(int(real.sum()))


def work(asked: Contender) -> None:
    """Be a worker: slices are asked for on stdin and answered on stdout, where nothing else is written."""
    answers, sys.stdout = sys.stdout, sys.stderr
    gate = Gate(sys.stdin, answers)
    run: Callable[[Contender, Gate], None] = {"xuebu": run_xuebu, "plain-fp32": run_plain}.get(asked.kind, run_trainer)
    if asked.kind == "xuebu":
        prepare_environment()
    try:
        run(asked, gate)
    except SkippedError as error:
        gate.say(skipped=str(error))


def around_step(asked: Contender, step_seconds: float) -> dict[str, float]:
    """Return what surrounds an update of xuebu, each as a share of its seconds; the sum is "total".

    Batches are made in a thread beside the computation: their processor time is divided by the number of cores.
    """
    from xuebu.batches.loader import Loader
    from xuebu.batches.packing import split_micro_batches
    from xuebu.batches.settings import BatchSettings
    from xuebu.cli.flags import load_recipe
    from xuebu.history.records import HistoryWriter
    from xuebu.model.encoder import PretrainingModel
    from xuebu.train.checkpoint import Checkpoint, save_checkpoint
    from xuebu.train.machine import resolve_machine, usable_cores
    from xuebu.train.optim import make_optimizer, optimizer_tensors

    recipe, (vocabulary, store), settings = load_recipe("sample").train, load(asked), model_settings(asked)
    machine = resolve_machine(dataclasses.replace(recipe, device="cpu"))
    loader = Loader(store, vocabulary, BatchSettings(sequences_per_step=ROWS, sequence_length=LENGTH), 0)

    def median(call: Callable[[int], Any], times: int = 15) -> float:
        found = []
        for number in range(times):
            start = time.thread_time()
            call(number)
            found.append(time.thread_time() - start)
        return float(np.median(found))

    batch = loader.batch(1)
    model = PretrainingModel(settings, vocabulary.num_tokens)
    optimizer = make_optimizer(model, recipe)
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step()
    record = {"kind": "train", "step": 1, "tokens": 1, "seconds": 1.0, "mlm_loss_nats": 1.0, "learning_rate": 0.1}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        history = HistoryWriter(Path(name) / "history.jsonl")
        append = median(lambda number: history.append({**record, "step": number + 1}))
        history.close()
        start = time.perf_counter()  # waiting for the disk counts
        save_checkpoint(Path(name), Checkpoint(1, model.state_dict(), optimizer_tensors(model, optimizer), {}))
        save = time.perf_counter() - start
    seconds = {
        "batches and masks": median(lambda number: loader.batch(number + 1)) / usable_cores(),
        "packing": median(lambda _: split_micro_batches(batch, machine.micro_batch_tokens, machine.rows_per_block)),
        "history": append / recipe.record_every,
        "checkpoints": save / recipe.checkpoint_every,
    }
    shares = {name: spent / step_seconds for name, spent in seconds.items()}
    return {**shares, "total": sum(shares.values())}


def useful_flops(asked: Contender) -> float:
    """Return the floating-point operations that a real token needs, whoever trains: the head at masked positions."""
    from xuebu.model.flops import flops_per_token

    lengths = np.array([len(row["input_ids"]) for row in examples(asked)], dtype=float)
    attended = float((lengths**2).sum() / lengths.sum())
    return flops_per_token(model_settings(asked), load(asked)[0].num_tokens, attended, 0.15)
