"""How fast is pretraining? xuebu's trainer against transformers' Trainer and a plain loop, on the built-in sample.

All train the same model size on the same sentence pairs, 64 a step, dropout 0 in one group and 0.1 in another. xuebu
runs as it is (loader, history, a checkpoint every 250 steps; no evaluation, since the others have none). Each contender
is a process of its own; they take turns, slice by slice, so that a busy minute falls on all of them. Counted are real
tokens: padding is none. Ratios are paired by round, with the interval of the median from the order of the rounds.

    python benchmarks/pretraining.py [--preset tiny] [--rounds 5] [--seconds 2.5] [--quick]

transformers' Trainer needs `pip install transformers accelerate`; without them it is skipped by name.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from machine import facts
from xuebu.runtime import prepare_environment

ROWS, LENGTH, NUM_EXAMPLE_BATCHES = 64, 128, 60
STEPS = 10**6  # never reached
PEERS = ("trainer-fp32", "trainer-bf16", "plain-fp32")
TITLES = {
    "xuebu": "xuebu",
    "trainer-fp32": "transformers Trainer (defaults, fp32)",
    "trainer-bf16": "transformers Trainer, bf16=True",
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
        self.begun, self.deadline = 0.0, math.inf
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
        self.deadline = self.begun + float(line)

    def step(self, tokens: int) -> None:
        """Count an update of `tokens` real tokens; at the end of a slice, answer and wait."""
        self.tokens += tokens
        self.steps += 1
        now = time.perf_counter()
        if now >= self.deadline:
            self.say(tokens=self.tokens, seconds=now - self.begun, steps=self.steps)
            self.wait()


def prepare(folder: Path) -> None:
    """Make corpus, vocabulary and stores of the built-in sample."""
    from xuebu.cli.flags import load_recipe
    from xuebu.corpus.build import build_corpus
    from xuebu.corpus.sample import sample_documents
    from xuebu.study import StudyFolder, prepare_tokens

    recipe = load_recipe("sample")
    study = StudyFolder(folder)
    card = build_corpus(sample_documents(), study.corpus, recipe.corpus)
    prepare_tokens(study, study.corpus, card.digest, recipe)


def model_settings(asked: Contender) -> Any:
    """Return the preset's model with the dropout asked for."""
    from xuebu.model.presets import preset_settings

    return dataclasses.replace(preset_settings(asked.preset), dropout=asked.dropout, attention_dropout=asked.dropout)


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
            gate.step(counts.pop(0))

    torch.manual_seed(0)
    transformers.Trainer(
        model=transformers.BertForPreTraining(config),
        args=transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(dir=asked.folder),
            per_device_train_batch_size=ROWS,
            max_steps=STEPS,
            learning_rate=1e-3,
            bf16=asked.kind == "trainer-bf16",
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
    """Train nn.TransformerEncoder in the plainest loop: rows padded to 128, a head at every position, AdamW."""
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


class Worker:
    """A contender's process."""

    def __init__(self, asked: Contender) -> None:
        self.asked = asked
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(asdict(asked))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def slice(self, seconds: float) -> dict[str, Any]:
        """Let it train for `seconds`, to the end of the step in progress, and return what it did."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"{TITLES[self.asked.kind]}: failed\n{self.errors.read()[-2_000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def measure(kinds: list[str], asked: argparse.Namespace, dropout: float, folder: str) -> dict[str, Any]:
    """Return the slices of each contender of a group, and the peaks measured between them."""
    import torch

    from xuebu.train.machine import measure_peak, usable_cores

    torch.set_num_threads(usable_cores())
    workers = {kind: Worker(Contender(kind, asked.preset, dropout, folder)) for kind in kinds}
    try:
        skipped = {}
        for kind, worker in list(workers.items()):
            first = worker.slice(asked.seconds)  # builds and warms up
            if "skipped" in first:
                skipped[kind] = first["skipped"]
                workers.pop(kind).end()
        slices: dict[str, list[dict[str, Any]]] = {kind: [] for kind in workers}
        peaks: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for number in range(asked.rounds):
            for precision, found in peaks.items():
                found.append(measure_peak("cpu", precision))
            for kind in list(workers)[:: 1 if number % 2 == 0 else -1]:
                slices[kind].append(workers[kind].slice(asked.seconds))
    finally:
        for worker in workers.values():
            worker.end()
    return {"slices": slices, "skipped": skipped, "peaks": {name: float(np.median(p)) for name, p in peaks.items()}}


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the narrowest interval of the median between two ordered values that covers at least 90 %, with its level.

    Where there are too few values for 90 %, the whole range with the level it has.

    Source: the binomial distribution of the number of values below the median (order statistics).
    """
    ordered, n = np.sort(values), len(values)
    below = np.cumsum([math.comb(n, k) / 2**n for k in range(n)])
    levels = [1 - 2 * float(below[k]) for k in range((n + 1) // 2)]
    k = max((k for k, level in enumerate(levels) if level >= 0.9), default=0)
    return float(ordered[k]), float(ordered[n - 1 - k]), max(levels[k], 0.0)


def useful_flops(asked: Contender) -> float:
    """Return the floating-point operations that a real token needs, whoever trains: the head at masked positions."""
    from xuebu.model.flops import flops_per_token

    lengths = np.array([len(row["input_ids"]) for row in examples(asked)], dtype=float)
    attended = float((lengths**2).sum() / lengths.sum())
    return flops_per_token(model_settings(asked), load(asked)[0].num_tokens, attended, 0.15)


def describe(group: dict[str, Any], flops: float) -> list[dict[str, Any]]:
    """Return a row for each contender."""
    rates = {
        kind: np.array([one["tokens"] / one["seconds"] for one in found]) for kind, found in group["slices"].items()
    }
    from xuebu.train.machine import resolve_machine
    from xuebu.train.settings import TrainSettings

    own = resolve_machine(TrainSettings(device="cpu"), 128).precision
    rows = []
    for kind, rate in rates.items():
        precision = own if kind == "xuebu" else kind[-4:]
        row: dict[str, Any] = {
            "contender": kind,
            "precision": precision,
            "tokens_per_second": float(np.median(rate)),
            "share_of_peak": float(np.median(rate)) * flops / group["peaks"][precision],
            "slices": [round(float(value), 1) for value in rate],
        }
        if kind != "xuebu":
            ratio = rates["xuebu"] / rate
            low, high, level = median_interval(ratio)
            row["xuebu_is_times"] = {"median": float(np.median(ratio)), "low": low, "high": high, "level": level}
        rows.append(row)
    return rows


def print_table(dropout: float, rows: list[dict[str, Any]], skipped: dict[str, str]) -> None:
    """Print one group."""
    print(f"\ndropout {dropout}\n{'':<42}{'real tokens/s':>14}{'of GEMM peak':>14}{'xuebu is ... times as fast':>32}")
    for row in rows:
        ratio = row.get("xuebu_is_times")
        shown = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
        print(
            f"{TITLES[row['contender']]:<42}{row['tokens_per_second']:>14,.0f}{row['share_of_peak']:>14.1%}{shown:>32}"
        )
    for kind, why in skipped.items():
        print(f"{TITLES[kind]:<42}{'not measured: ' + why:>60}")


def main() -> None:
    """Measure both groups, print a table for each, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--rounds", type=int, default=5, help="slices of each contender")
    parser.add_argument("--seconds", type=float, default=2.5, help="of a slice; it ends with the step in progress")
    parser.add_argument("--quick", action="store_true", help="shows that it works, no more: 2 rounds of 1 second")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(Contender(**json.loads(asked.worker)))
        return
    prepare_environment()
    if asked.quick:
        asked.rounds, asked.seconds = 2, 1.0
    results: dict[str, Any] = {"preset": asked.preset, "rows": ROWS, "groups": {}}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        flops = useful_flops(Contender("", asked.preset, 0.0, folder))
        for dropout in (0.0, 0.1):
            group = measure(["xuebu", *PEERS], asked, dropout, folder)
            rows = describe(group, flops)
            print_table(dropout, rows, group["skipped"])
            results["groups"][str(dropout)] = {
                "rows": rows,
                "skipped": group["skipped"],
                "peak_flops": group["peaks"],
            }
    level = results["groups"]["0.0"]["rows"][-1].get("xuebu_is_times", {}).get("level")
    if level is not None:
        print(f"\nintervals: {level:.0%}, of the median over {asked.rounds} rounds")
    print(json.dumps({**results, "flops_per_token": flops, "machine": facts()}))


if __name__ == "__main__":
    main()
