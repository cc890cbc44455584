"""How fast is pretraining on a GPU? The step of xuebu against transformers' Trainer and against the card's ceilings.

Needs torch 2.11 to 2.13, numpy and safetensors, no data and no network; ends within nine minutes. Peers need
transformers and accelerate; what is missing is skipped by name. Prints a table, then one line of JSON.

    PYTHONPATH=src python benchmarks/gpu.py [--minutes 8.5] [--smoke]

Texts are random tokens: pairs of 40 to 128 tokens, or packed sequences of 512; 15 % predicted. xuebu runs as it trains:
deterministic kernels, rows laid out and sent to the card, losses and norm looked at once an update. What deterministic
kernels cost is timed apart, and whether products in fp8 would pay in the feed-forward blocks. The largest case comes
first; what there is no time for is named. `--smoke` takes toy models on the CPU and shows that every part
runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ceilings import measure_copy, measure_fp8, synchronize
from machine import facts
from xuebu.batches.batch import NO_PAIR, Batch
from xuebu.batches.runs import lay_end_to_end, shape_of
from xuebu.errors import ConfigError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.flops import flops_per_token
from xuebu.model.presets import preset_settings
from xuebu.model.settings import ModelSettings
from xuebu.runtime import prepare_environment
from xuebu.train.machine import Machine, gpu_has_bf16, measure_peak, set_deterministic
from xuebu.train.objective import autocast, compile_model, compute_losses
from xuebu.train.optim import make_optimizer
from xuebu.train.settings import TrainSettings

MASK_RATE, NUM_SPECIAL, NUM_BATCHES, BUDGET, WARM_UP = 0.15, 5, 24, 65_536, 3
REFERENCE_STEPS, MEASURED_STEPS = 100_000, 1_000


@dataclass(frozen=True)
class Case:
    """What is trained: a model, a vocabulary, sequences an update, and their shortest and longest length."""

    name: str
    model: ModelSettings
    vocabulary: int
    rows: int
    shortest: int
    longest: int


def cases(smoke: bool) -> list[Case]:
    """Return what is measured. No attention weight is dropped: the fast attention has no dropout."""
    if smoke:
        toy = ModelSettings(num_layers=2, hidden_size=32, num_heads=2, intermediate_size=64, max_positions=64)
        return [Case("toy, pairs to 48", toy, 200, 8, 16, 48), Case("toy, packed 64", toy, 200, 4, 64, 64)]
    sizes = (("base", 21_128), ("reference", 10_054), ("mini", 21_128), ("tiny", 21_128))
    found = []
    for name, vocabulary in sizes:
        settings = dataclasses.replace(preset_settings(name), dropout=0.0, attention_dropout=0.0)
        found.append(Case(f"{name}, packed 512", settings, vocabulary, 256, 512, 512))
        found.append(Case(f"{name}, pairs to 128", settings, vocabulary, 1_024, 40, 128))
    return found


def make_batches(case: Case) -> list[Batch]:
    """Return random updates."""
    rng = np.random.default_rng(0)
    found = []
    for step in range(1, NUM_BATCHES + 1):
        lengths = rng.integers(case.shortest, case.longest + 1, case.rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = rng.integers(NUM_SPECIAL, case.vocabulary, offsets[-1], dtype=np.int32)
        masked = np.flatnonzero(rng.random(len(ids)) < MASK_RATE)
        labels = ids[masked]
        ids[masked] = NUM_SPECIAL - 1
        found.append(
            Batch(
                step=step,
                input_ids=ids,
                segment_ids=np.zeros(len(ids), dtype=np.int8),
                row_offsets=offsets,
                masked_positions=masked,
                labels=labels,
                mask_kinds=np.zeros(len(masked), dtype=np.int8),
                nsp_labels=rng.integers(0, 2, case.rows).astype(np.int8),
                row_documents=np.full((case.rows, 2), NO_PAIR, dtype=np.int64),
            )
        )
    return found


def machine_of(device: str) -> Machine:
    """Return how xuebu trains on a GPU; on a CPU the same in float32, uncompiled."""
    on_gpu = device == "cuda"
    return Machine(
        device=device,
        device_name=torch.cuda.get_device_name() if on_gpu else "cpu",
        torch_version=torch.__version__,
        precision="bf16" if on_gpu else "fp32",
        threads=torch.get_num_threads(),
        micro_batch_tokens=BUDGET,
        tune_allocator=False,
        peak_flops=0.0,
        attention="runs",
        compile=on_gpu,
        deterministic=on_gpu,
    )


class Steps:
    """xuebu's update, batch after batch, as the trainer does it: rows laid out, one reading of losses and norm."""

    def __init__(self, case: Case, machine: Machine, batches: list[Batch]) -> None:
        self.machine, self.batches = machine, batches
        self.shape = shape_of(batches, machine.micro_batch_tokens, case.longest)
        set_deterministic(machine.deterministic)
        forget_graphs()
        self.model = PretrainingModel(case.model, case.vocabulary).to(machine.device).train()
        compile_model(self.model, machine)
        self.optimizer = make_optimizer(self.model, TrainSettings(learning_rate=1e-4))
        laid = [lay_end_to_end(batch, self.shape) for batch in batches]
        self.padding = 1 - sum(batch.num_tokens for batch in batches) / (self.shape.num_tokens * sum(map(len, laid)))
        self.done = 0

    def gradients(self, number: int) -> torch.Tensor:
        """Leave the gradient of batch `number` in the parameters; return the summed cross-entropy, on the device."""
        batch, machine = self.batches[number], self.machine
        self.optimizer.zero_grad(set_to_none=True)
        nats = torch.zeros((), device=machine.device)
        with autocast(machine.device, machine.precision):
            for micro in lay_end_to_end(batch, self.shape):
                losses = compute_losses(self.model, micro, machine.device, machine.precision)
                loss = losses.mlm_nats / batch.num_predictions + losses.nsp_nats / batch.num_rows
                loss.backward()  # type: ignore[no-untyped-call]
                nats += losses.mlm_nats.detach()
        return nats

    def __call__(self) -> int:
        """Do an update; return its real tokens."""
        number = self.done % len(self.batches)
        nats = self.gradients(number)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        if not torch.stack([nats, norm]).isfinite().all():  # waits for the device, as the trainer does
            raise SystemExit(f"{self.done} updates: loss or gradient is not finite")
        self.optimizer.step()
        self.done += 1
        return self.batches[number].num_tokens

    def is_deterministic(self) -> bool:
        """Whether the same update twice gives the same gradient, bit for bit."""
        found = []
        for _ in range(2):
            self.gradients(0)
            found.append(
                [parameter.grad.clone() for parameter in self.model.parameters() if parameter.grad is not None]
            )
        return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def forget_graphs() -> None:
    """Let go of compiled models: the compiler keeps eight of a function and computes the next ones uncompiled."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_steps(step: Callable[[], int], device: str, seconds: float) -> tuple[float, float, int]:
    """Return real tokens a second, seconds an update and updates done, after a warm-up."""
    for _ in range(WARM_UP):
        step()
    synchronize(device)
    start, tokens, count = time.perf_counter(), 0, 0
    while count < 2 or time.perf_counter() - start < seconds:
        tokens += step()
        count += 1
    synchronize(device)
    spent = time.perf_counter() - start
    return tokens / spent, spent / count, count


def num_graphs() -> int:
    """Return how many graphs the compiler has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def flops_of(case: Case, batches: list[Batch]) -> float:
    """Return training FLOP a real token by DESIGN's formula."""
    lengths = np.concatenate([np.diff(batch.row_offsets) for batch in batches]).astype(float)
    share = sum(batch.num_predictions for batch in batches) / lengths.sum()
    return flops_per_token(case.model, case.vocabulary, float((lengths**2).sum() / lengths.sum()), float(share))


def time_trainer(case: Case, batches: list[Batch], device: str, compiled: bool, seconds: float) -> float:
    """Return the real tokens a second of transformers' Trainer, padded, bf16, SDPA.

    Raises:
        ImportError: it is not installed.
    """
    import accelerate  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    forget_graphs()
    set_deterministic(False)  # its own way
    model = case.model
    config = transformers.BertConfig(
        vocab_size=case.vocabulary,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        intermediate_size=model.intermediate_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=model.max_positions,
        tie_word_embeddings=model.tie_embeddings,
    )
    counts: list[int] = []
    clock = {"start": 0.0, "tokens": 0, "steps": 0}

    def collate(rows: list[dict[str, Any]]) -> Any:
        counts.append(sum(int(row["attention_mask"].sum()) for row in rows))
        return transformers.default_data_collator(rows)

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            clock["steps"] += 1
            if clock["steps"] == WARM_UP or clock["steps"] % 4 == 0:
                synchronize(device)  # so that the clock is right
            tokens = counts.pop(0)
            if clock["steps"] <= WARM_UP:
                clock["start"] = time.perf_counter()
                return control
            clock["tokens"] += tokens
            if clock["steps"] % 4 == 0:
                clock["seconds"] = time.perf_counter() - clock["start"]
                control.should_training_stop = clock["seconds"] >= seconds
            return control

    with tempfile.TemporaryDirectory() as folder:
        transformers.Trainer(
            model=transformers.BertForPreTraining(config),
            args=transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=max(
                    1, min(case.rows, (32_768 if device == "cuda" else 256) // case.longest)
                ),
                max_steps=10**6,
                bf16=device == "cuda",
                torch_compile=compiled,
                use_cpu=device == "cpu",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
                save_strategy="no",
                dataloader_drop_last=True,
            ),
            train_dataset=[row for batch in batches for row in padded_rows(case, batch)],
            data_collator=collate,
            callbacks=[Clock()],
        ).train()
    return clock["tokens"] / clock["seconds"]


def padded_rows(case: Case, batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as Trainer wants them."""
    labels = np.full(batch.num_tokens, -100, dtype=np.int64)
    labels[batch.masked_positions] = batch.labels
    for row in range(batch.num_rows):
        part = slice(*batch.row_offsets[row : row + 2])
        rest = case.longest - (part.stop - part.start)
        yield {
            "input_ids": np.pad(batch.input_ids[part].astype(np.int64), (0, rest)),
            "attention_mask": np.pad(np.ones(part.stop - part.start, dtype=np.int64), (0, rest)),
            "labels": np.pad(labels[part], (0, rest), constant_values=-100),
            "next_sentence_label": 1 - int(batch.nsp_labels[row]),
        }


def measure_case(case: Case, machine: Machine, peak: float, seconds: float, deadline: float) -> dict[str, Any]:
    """Measure xuebu for about `seconds`, and the peers while there is time; print a line for each."""
    batches, device = make_batches(case), machine.device
    steps, before = Steps(case, machine, batches), num_graphs()
    rate, step_seconds, count = time_steps(steps, device, seconds)
    row: dict[str, Any] = {
        "case": case.name,
        "tokens_per_second": rate,
        "mfu": rate * flops_of(case, batches) / peak,
        "padding": steps.padding,
        "step_seconds": step_seconds,
        "steps": count,
        "backward_is_deterministic": steps.is_deterministic(),
        "graphs": num_graphs() - before,
        "peers": {},
    }
    row["recompiles"] = max(0, row["graphs"] - 1)
    if device == "cuda":
        row["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    del steps
    for title, compiled in (("Trainer bf16 + SDPA", False), ("Trainer bf16 + SDPA + compile", True)):
        if compiled and (device == "cpu" or time.monotonic() > deadline - 40):
            row["peers"][title] = {"skipped": "no time left" if device == "cuda" else "smoke mode"}
            continue
        try:
            theirs = time_trainer(case, batches, device, compiled, seconds)
            row["peers"][title] = {"tokens_per_second": theirs, "xuebu_is_times": rate / theirs}
        except ImportError as error:
            row["peers"][title] = {"skipped": f"{error.name} is not installed"}
        except torch.OutOfMemoryError:
            row["peers"][title] = {"skipped": "out of memory"}
    print_row(row)
    return row


def measure_all(found: list[Case], machine: Machine, peak: float, deadline: float) -> list[dict[str, Any]]:
    """Measure one case after another; those that would take longer than what time is left are skipped by name."""
    rows: list[dict[str, Any]] = []
    longest = 0.0
    for number, case in enumerate(found):
        start = time.monotonic()
        if machine.device == "cuda" and deadline - start < longest:
            print(f"{case.name:<32}not measured: no time left")
            rows.append({"case": case.name, "skipped": "no time left"})
            continue
        seconds = max(0.2, min(8.0, (deadline - start) / (6 * (len(found) - number))))
        rows.append(measure_case(case, machine, peak, seconds, deadline))
        longest = max(longest, time.monotonic() - start)
    return rows


def measure_deterministic(case: Case, machine: Machine, rate: float) -> dict[str, Any]:
    """Return what deterministic kernels cost: the speed with and without them, and the share of it that they take.

    CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads once in a process, stays as it was set for them.
    """
    free = dataclasses.replace(machine, deterministic=False)
    steps = Steps(case, free, make_batches(case))
    without, _, _ = time_steps(steps, machine.device, 4.0 if machine.device == "cuda" else 0.2)
    same = steps.is_deterministic()
    print(
        f"\ndeterministic kernels, {case.name}: {rate:,.0f} tokens/s with them, {without:,.0f} without "
        f"({1 - rate / without:.1%} of the speed; the backward pass is {'' if same else 'not '}the same without, too)"
    )
    return {
        "case": case.name,
        "on_tokens_per_second": rate,
        "off_tokens_per_second": without,
        "cost": 1 - rate / without,
        "off_is_deterministic": same,
    }


def print_row(row: dict[str, Any]) -> None:
    """Print a case and its peers."""
    print(
        f"{row['case']:<32}{row['tokens_per_second']:>14,.0f}{row['mfu']:>8.1%}{row['padding']:>9.1%}"
        f"{row['graphs']:>8}{row['recompiles']:>12}{'yes' if row['backward_is_deterministic'] else 'no':>15}"
    )
    for title, peer in row["peers"].items():
        told = (
            peer.get("skipped") or f"{peer['tokens_per_second']:>14,.0f}   xuebu is {peer['xuebu_is_times']:.2f} times"
        )
        print(f"  {title:<30}{told}")
    sys.stdout.flush()


def measure_reference(machine: Machine, smoke: bool, deadline: float) -> dict[str, Any]:
    """Time the reference recipe (128 pairs an update) and extrapolate to its 100,000 updates."""
    if smoke:
        case = cases(smoke)[0]
    else:
        settings = dataclasses.replace(preset_settings("reference"), attention_dropout=0.0)
        case = Case("reference recipe", settings, 10_054, 128, 40, 128)
    steps = Steps(case, machine, make_batches(case))
    for _ in range(3):
        steps()
    synchronize(machine.device)
    start, count = time.perf_counter(), 0
    while count < (4 if smoke else MEASURED_STEPS) and (count < 2 or time.monotonic() < deadline):
        steps()
        count += 1
    synchronize(machine.device)
    spent = time.perf_counter() - start
    minutes = spent / count * REFERENCE_STEPS / 60
    print(
        f"\nreference recipe: {count:,} updates in {spent:.1f} s; {REFERENCE_STEPS:,} would take {minutes:.1f} minutes"
    )
    return {"updates": count, "seconds": spent, "minutes_extrapolated": minutes}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and one line of JSON, and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.5, help="all of it")
    parser.add_argument("--smoke", "--quick", action="store_true", help="toy models on the CPU")
    asked = parser.parse_args(arguments)
    prepare_environment()
    device = "cpu" if asked.smoke else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("not measured: torch sees no GPU here (--smoke shows that the parts run)")
        return {}
    if device == "cuda" and not gpu_has_bf16():
        raise ConfigError("this GPU has no bfloat16")
    deadline = time.monotonic() + 60 * asked.minutes
    machine = machine_of(device)
    set_deterministic(machine.deterministic)  # before the first product
    peak, copy = measure_peak(device, machine.precision), measure_copy(device)
    ceilings = f"matmul {peak / 1e12:,.3f} TFLOP/s, copy {copy / 1e9:,.0f} GB/s"
    print(f"{machine.device_name}, torch {torch.__version__}; {ceilings}\n")
    print(f"{'':<32}{'real tokens/s':>14}{'MFU':>8}{'padding':>9}{'graphs':>8}{'recompiles':>12}{'deterministic':>15}")
    reference = measure_reference(machine, asked.smoke, time.monotonic() + 90)
    found = cases(asked.smoke)
    rows = measure_all(found, machine, peak, deadline - (0 if asked.smoke else 60))
    deterministic = measure_deterministic(found[0], machine, rows[0]["tokens_per_second"])
    fp8 = measure_fp8(device)
    told = fp8.get("skipped") or f"{fp8['fp8_is_times']:.2f} times as fast as bf16"
    print(f"feed-forward products of base in fp8: {told}")
    result = {
        "smoke": asked.smoke,
        "peak_flops": peak,
        "copy_bytes_per_second": copy,
        "reference": reference,
        "deterministic": deterministic,
        "fp8": fp8,
        "cases": rows,
        "machine": facts(),
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
