"""The training loop, from top to bottom.

A step is a function of (store, recipe, seed, step number) and of the state that the step before left: weights,
optimizer, and the sums since the last record. That state is what a checkpoint holds, so a run that was killed and
resumed writes the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from xuebu.batches.batch import Batch
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader, prefetch
from xuebu.batches.packing import split_micro_batches
from xuebu.errors import ResumeError, TrainingError
from xuebu.history.records import HistoryWriter
from xuebu.model.encoder import PretrainingModel
from xuebu.model.flops import flops_per_token
from xuebu.progress import SILENT, Progress
from xuebu.rng import seed_of
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary
from xuebu.train.checkpoint import Checkpoint, newest_checkpoint, prune_checkpoints, save_checkpoint
from xuebu.train.evaluation import evaluate
from xuebu.train.folder import RunFacts, RunFolder
from xuebu.train.machine import prepare
from xuebu.train.objective import autocast, compute_losses
from xuebu.train.optim import load_optimizer_tensors, make_optimizer, optimizer_tensors
from xuebu.train.parallel import join_world
from xuebu.train.schedule import learning_rate

_SUMS = ("mlm_nats", "mlm_hits", "nsp_nats", "nsp_hits")


@dataclass(slots=True)
class StopRequest:
    """Set from a signal handler; the loop ends after the step in progress, with a checkpoint.

    Attributes:
        reason: name of the signal, "" as long as there was none.
        at_once: nobody asks for the reason now (no training is going on), so a signal interrupts.
    """

    reason: str = ""
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session of training ended.

    Attributes:
        step: updates done.
        finished: whether these are all of the recipe's.
        reason: why it stopped early, "" if it did not.
        model: the model as it stands.
    """

    step: int
    finished: bool
    reason: str
    model: PretrainingModel


@dataclass(slots=True)
class _Window:
    """Sums since the last training record. They go into checkpoints, so that a record may span an interruption."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(_SUMS))
    predictions: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0

    def metrics(self) -> dict[str, float | int]:
        """Return the history's metrics."""
        mlm_nats, mlm_hits, nsp_nats, nsp_hits = self.sums
        metrics: dict[str, float | int] = {
            "mlm_loss_nats": mlm_nats / max(self.predictions, 1),
            "mlm_accuracy": mlm_hits / max(self.predictions, 1),
            "mlm_predictions": self.predictions,
        }
        if self.pairs:
            metrics["nsp_loss_nats"] = nsp_nats / self.pairs
            metrics["nsp_accuracy"] = nsp_hits / self.pairs
            metrics["nsp_predictions"] = self.pairs
        metrics["grad_norm"] = self.grad_norm / max(self.steps, 1)
        return metrics


class Trainer:
    """One run in one folder.

    Args:
        folder: the run folder; run.toml is there already.
        facts: what run.toml says.
        train_store, held_out_store, vocabulary: opened by the caller and checked against the facts' digests.
        progress: where to report.
        stop: asked after every step.
    """

    def __init__(
        self,
        folder: RunFolder,
        facts: RunFacts,
        train_store: Store,
        held_out_store: Store,
        vocabulary: Vocabulary,
        *,
        progress: Progress = SILENT,
        stop: StopRequest | None = None,
    ) -> None:
        self.folder, self.facts, self.progress, self.stop = folder, facts, progress, stop or StopRequest()
        self.settings, self.machine = facts.recipe.train, facts.machine
        prepare(self.machine)
        self.world = join_world()
        recipe = facts.recipe
        self.loader = Loader(train_store, vocabulary, recipe.batches, self.settings.seed)
        self.questions = held_out_batches(
            held_out_store,
            vocabulary,
            settings=recipe.evaluation,
            batches=recipe.batches,
            predictions=recipe.evaluation.predictions,
        )
        weights = torch.Generator().manual_seed(seed_of(self.settings.seed, "weights"))
        self.model = PretrainingModel(recipe.model, vocabulary.num_tokens, weights).to(self.machine.device)
        self.optimizer = make_optimizer(self.model, self.settings)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.history_bytes = 0
        self.window = _Window()
        self.latest: dict[str, float | int] = {}
        self.held_out: dict[str, float | int] = {}
        self.flops_per_token = self._count_flops()

    def _count_flops(self) -> float:
        """Return training FLOP a real token, from the lengths of the first batch."""
        batch = self.loader.batch(1)
        lengths = (batch.row_offsets[1:] - batch.row_offsets[:-1]).astype(float)
        return flops_per_token(
            self.facts.recipe.model,
            self.model.vocab_size,
            mean_attended_length=float((lengths**2).sum() / lengths.sum()),
            head_share=batch.num_predictions / batch.num_tokens,
        )

    def restore(self) -> list[str]:
        """Go back to the newest whole checkpoint, if there is one; return a line for each damaged one passed over.

        Raises:
            CheckpointError: there are checkpoints, and none is whole.
            ResumeError: the checkpoint does not fit the model.
        """
        checkpoint, problems = newest_checkpoint(self.folder.checkpoints)
        if checkpoint is None:
            return problems
        try:
            self.model.load_state_dict(checkpoint.model)
            load_optimizer_tensors(self.model, self.optimizer, checkpoint.optimizer)
        except (RuntimeError, KeyError) as error:
            raise ResumeError(f"{self.folder.checkpoints}: the checkpoint is of another model ({error})") from None
        state = checkpoint.state
        self.step, self.tokens, self.seconds = checkpoint.step, state["tokens"], state["seconds"]
        self.history_bytes = state["history_bytes"]
        self.window = _Window(**state["window"])
        return problems

    def run(self) -> Outcome:
        """Train from where the run stands to its last step, or until stopped.

        Raises:
            TrainingError: loss or gradient is not finite. The step is not applied, the state before it is saved.
        """
        settings = self.settings
        history = HistoryWriter(self.folder.history)
        history.rewind(self.history_bytes)
        if self.step == 0:
            self._record_start(history)
        self.model.train()
        saved = self.step
        batches = prefetch(self.loader.batch, self.step + 1, settings.steps)
        try:
            with self.progress.task("training", settings.steps, "steps") as task, closing(batches):
                task.advance(self.step)
                started = time.perf_counter()
                for batch in batches:
                    self._train_step(batch)
                    now = time.perf_counter()
                    self.seconds += now - started
                    self.window.seconds += now - started
                    last = self.step == settings.steps
                    if self.step % settings.record_every == 0 or last:
                        self._record_training(history)
                    if self.step % settings.evaluate_every == 0 or last:
                        self._record_evaluation(history)
                    stopping = bool(self.stop.reason)  # read once: a signal may come between saving and leaving
                    if self.step % settings.checkpoint_every == 0 or last or stopping:
                        self._save(history)
                        saved = self.step
                    task.show(self._figures())
                    task.advance()
                    if stopping:
                        break
                    started = time.perf_counter()
        except TrainingError as error:
            if saved != self.step:
                self._save(history)
            kept = f"; the state before it is saved in {self.folder.checkpoints}" if self.step else ""
            raise TrainingError(f"{error}{kept}") from None
        finally:
            history.close()
        return Outcome(self.step, self.step == settings.steps, self.stop.reason, self.model)

    def _train_step(self, batch: Batch) -> None:
        """Apply one update."""
        step = self.step + 1
        predictions, pairs = max(batch.num_predictions, 1), max(batch.num_judged_pairs, 1)
        micro_batches = split_micro_batches(batch, self.machine.micro_batch_tokens, self.machine.rows_per_block)
        sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=self.machine.device)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.machine.device, self.machine.precision):  # around all: weights are cast once a step
            for number, micro in self.world.share(list(enumerate(micro_batches))):
                torch.manual_seed(seed_of(self.settings.seed, "dropout", step, number))
                losses = compute_losses(self.model, micro, self.machine.device, self.machine.precision)
                (losses.mlm_nats / predictions + losses.nsp_nats / pairs).backward()  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    parts = (losses.mlm_nats, losses.mlm_hits.sum(), losses.nsp_nats, losses.nsp_hits.sum())
                    sums += torch.stack([part.double() for part in parts])
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self.world.sum_in_place([*gradients, sums])
        limit = self.settings.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True))
        values = sums.tolist()
        if not (math.isfinite(norm) and all(map(math.isfinite, values))):
            what = "gradient" if all(map(math.isfinite, values)) else "loss"
            raise TrainingError(
                f"step {step}: the {what} is not finite; the step was not applied. Start a new run with a lower "
                '`train.learning_rate`, or with `train.precision = "fp32"`'
            )
        rate = learning_rate(step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step = step
        self.tokens += batch.num_tokens
        window = self.window
        window.sums = [total + value for total, value in zip(window.sums, values, strict=True)]
        window.predictions += batch.num_predictions
        window.pairs += batch.num_judged_pairs
        window.tokens += batch.num_tokens
        window.grad_norm += norm
        window.steps += 1

    def _stamp(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 6)}

    def _record_start(self, history: HistoryWriter) -> None:
        history.append(
            {
                **self._stamp("event"),
                "event": "start",
                "total_steps": self.settings.steps,
                "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
                "flops_per_token": self.flops_per_token,
                "device": self.machine.device_name,
                "precision": self.machine.precision,
                "threads": self.machine.threads,
                "peak_flops": self.machine.peak_flops,
                "samples": self.loader.num_samples,
                "training_tokens": self.loader.store.num_tokens,
                "cut_tokens": self.loader.count_cut_tokens(),
            }
        )

    def _record_training(self, history: HistoryWriter) -> None:
        window = self.window
        speed = window.tokens / window.seconds if window.seconds > 0 else 0.0
        self.latest = {
            **window.metrics(),
            "learning_rate": learning_rate(self.step, self.settings),
            "tokens_per_second": round(speed, 1),
        }
        if self.machine.peak_flops:
            self.latest["mfu"] = round(speed * self.flops_per_token / self.machine.peak_flops, 4)
        history.append({**self._stamp("train"), **self.latest})
        self.window = _Window()

    def _record_evaluation(self, history: HistoryWriter) -> None:
        self.held_out = evaluate(self.model, self.questions, self.machine).metrics()
        history.append({**self._stamp("eval"), **self.held_out})

    def _figures(self) -> str:
        """Return the latest figures for the progress bar."""
        parts = []
        if self.latest:
            parts += [f"loss {self.latest['mlm_loss_nats']:.3f}", f"{self.latest['tokens_per_second']:,.0f} tokens/s"]
        if self.held_out:
            parts.append(f"held-out accuracy {self.held_out['mlm_accuracy']:.1%}")
        if "nsp_accuracy" in self.held_out:
            parts.append(f"NSP {self.held_out['nsp_accuracy']:.1%}")
        return " · ".join(parts)

    def _save(self, history: HistoryWriter) -> None:
        """Write a checkpoint; the history up to it is on the disk first."""
        history.sync()
        self.history_bytes = history.position
        state = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "history_bytes": self.history_bytes,
            "window": asdict(self.window),
        }
        tensors = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        save_checkpoint(
            self.folder.checkpoints,
            Checkpoint(self.step, tensors, optimizer_tensors(self.model, self.optimizer), state),
        )
        prune_checkpoints(
            self.folder.checkpoints,
            self.step,
            keep_last=self.settings.keep_checkpoints,
            keep_every=self.settings.keep_every,
        )
