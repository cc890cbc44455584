"""The training loop, from top to bottom.

A step is a function of (store, recipe, seed, step number) and of the state that the step before left: weights,
optimizer, and a `RunState`. That is what a checkpoint holds, so a run that was killed and resumed writes the same bytes
as one that was not. Several processes do the same steps; the main one writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from xuebu.batches.batch import Batch
from xuebu.batches.counts import MaskCounts, mask_problem
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader, batch_of_step, prefetch
from xuebu.batches.packing import MicroBatch
from xuebu.batches.preview import check_masks
from xuebu.batches.runs import RunBatch
from xuebu.config import to_table
from xuebu.errors import ResumeError, TrainingError
from xuebu.model.draws import seed_draws
from xuebu.model.encoder import PretrainingModel
from xuebu.progress import SILENT, Progress, Task
from xuebu.rng import seed_of
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary
from xuebu.train.changes import differences, rounding_changes
from xuebu.train.checkpoint import (
    Proven,
    checkpoint_path,
    newest_proven,
    prove_checkpoint,
    prune_checkpoints,
    remove_later,
)
from xuebu.train.counting import Counting, counting_at, open_counts
from xuebu.train.evaluation import Evaluation, evaluate
from xuebu.train.folder import RunFacts, RunFolder
from xuebu.train.health import (
    MAX_ROLL_BACKS,
    WINDOW,
    budget_reason,
    deviations_of,
    roll_back_target,
    what_is_not_finite,
)
from xuebu.train.initial import load_initial
from xuebu.train.lanes import Lanes
from xuebu.train.machine import prepare
from xuebu.train.memory import is_out_of_memory, out_of_memory, try_largest
from xuebu.train.objective import autocast, compile_model, compute_losses, count_flops, layout_of
from xuebu.train.optim import clipped_parameters, make_optimizer, set_learning_rate
from xuebu.train.parallel import ALONE, World
from xuebu.train.recorder import Recorder
from xuebu.train.schedule import is_over, learning_rate, ngram_scale, schedule_position, teacher_weight
from xuebu.train.snapshots import Snapshots
from xuebu.train.state import SUMS, RunState
from xuebu.train.stop import REASONS, StopRequest

__all__ = ["Outcome", "StopRequest", "Trainer"]

_ENDLESS = 2**62


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


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of a step: "" and its loss, or what was not finite, or "given up"; and who wants to stop, and why."""

    fault: str
    loss: float
    stop: str


class Trainer:
    """One run in one folder.

    Args:
        folder: the run folder; run.toml is there already.
        facts: what run.toml says.
        train_store, held_out_store, vocabulary: opened by the caller and checked against the facts' digests.
        world: this process, among how many.
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
        world: World = ALONE,
        progress: Progress = SILENT,
        stop: StopRequest | None = None,
    ) -> None:
        self.folder, self.facts, self.world = folder, facts, world
        self.progress, self.stop = progress, stop or StopRequest()
        self.settings, self.machine = facts.recipe.train, facts.machine
        prepare(self.machine)
        recipe = facts.recipe
        self.loader = Loader(train_store, vocabulary, recipe.batches, self.settings.seed)
        self.questions = held_out_batches(
            held_out_store,
            vocabulary,
            settings=recipe.evaluation,
            batches=recipe.batches,
            predictions=recipe.evaluation.predictions,
        )
        check_masks(self.loader)  # a setting that does nothing is refused, before anything is written
        self.counts = open_counts(recipe, train_store, vocabulary, world, progress)
        self.masks = MaskCounts()  # what was masked in this session
        first = self.loader.batch(1)
        world.share(first)  # refuses more processes than sequences, before anything is written
        weights = torch.Generator().manual_seed(seed_of(self.settings.seed, "weights"))
        self.model = PretrainingModel(recipe.model, vocabulary.num_tokens, weights)
        load_initial(self.model, folder)
        self.model.to(self.machine.device)
        self.model.recompute = self.settings.recompute
        compile_model(self.model, self.machine)
        if world.sharded:
            world.shard(self.model, list(self.model.layers), "loss")
        else:
            try_largest(self.model, recipe, self.machine)
        self.optimizer = make_optimizer(self.model, self.settings)
        self.lanes = Lanes(self.model, self.machine)
        self.lay_out = layout_of(recipe, self.machine, lambda step: world.share(self.loader.batch(step)))
        self.state = RunState()
        self.clock = self.started = 0.0  # seconds that the main process had trained for before this step
        self.saved = self.good_bytes = 0
        self.inexact: list[str] = []  # how the checkpoint was made otherwise; known to the main process
        self.snapshots = Snapshots(folder.checkpoints, self.model, self.optimizer, world)
        facts_of_start = {
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "flops_per_token": count_flops(self.model, first),
            "samples": self.loader.num_samples,
            "training_tokens": train_store.num_tokens,
            "cut_tokens": self.loader.count_cut_tokens(),
        }
        pair_task = recipe.batches.pair_task
        self.recorder = Recorder(folder, facts.machine, self.settings, facts_of_start, world, pair_task=pair_task)

    @property
    def step(self) -> int:
        """Updates done."""
        return self.state.step

    def restore(self) -> list[str]:
        """Go back to the newest whole checkpoint, if there is one; return a line for each damaged one passed over.

        Raises:
            CheckpointError: there are checkpoints, and none is whole, or one is of a newer version.
            ResumeError: the checkpoint is of another recipe, vocabulary or corpus.
        """
        found: list[Proven | None] = [None]

        def read() -> list[str]:
            found[0], problems = newest_proven(self.folder.checkpoints)
            self._check_origin(found[0])
            return problems

        problems: list[str] = self.world.agree(read)
        self._load(found[0])
        return problems

    def _check_origin(self, checkpoint: Proven | None) -> None:
        if checkpoint is None or "made_from" not in checkpoint.state:
            return
        lines = differences(checkpoint.state["made_from"], self._origin())
        if lines:
            raise ResumeError(
                f"{checkpoint_path(self.folder.checkpoints, checkpoint.step)}: made by another run: {'; '.join(lines)}"
            )
        self.inexact = rounding_changes(checkpoint.state["made_from"], self._origin())

    def _origin(self) -> dict[str, Any]:
        """Return what checkpoints of this run are made from."""
        digests = {name: digest for name, digest in self.facts.digests.items() if name != "code"}
        return {"recipe": to_table(self.facts.recipe), "digests": digests, "processes": self.world.size}

    def _load(self, checkpoint: Proven | None) -> None:
        """Take over a checkpoint that the main process has proven."""
        if loaded := self.snapshots.load(checkpoint):
            self.state = RunState.from_json(*loaded)

    def run(self, changes: Sequence[str] = ()) -> Outcome:
        """Train from where the run stands to its last step, or until stopped.

        Args:
            changes: what makes this session an inexact continuation; recorded as an event.

        Raises:
            TrainingError: too many losses or gradients in a row were not finite, memory ran out, or another process is
                gone. The state before is saved.
            OSError: a checkpoint cannot be written; names the file.
        """
        with ExitStack() as held:
            held.callback(self.recorder.close)
            self.world.agree(lambda: self.recorder.open(self.state.history_bytes))
            held.enter_context(self.snapshots)
            self.clock, self.saved = self.state.seconds, self.state.step
            held.callback(self.lanes.close)
            self.lanes.train(True)
            self._set_schedules(self.state.step)
            if self.state.unrecorded:
                self._record()
            if not self._is_over():
                self.recorder.mark_place(self.state)
                if found := list(dict.fromkeys((*changes, *self.inexact))):
                    self.recorder.event("inexact", self.state, changes=found)
            total = None if self.settings.schedule_hours else self.settings.steps  # on time, nobody knows how many
            with self.progress.task("training", total, "steps") as task:
                task.advance(self.state.step)
                reason = self._steps(task)
        return Outcome(self.state.step, self._is_over(), reason, self.model)

    def _steps(self, task: Task) -> str:
        """Do the steps; return why they ended early, or ""."""
        reason, batches = "", self._batches()
        self.good_bytes, failed = self.recorder.position, list[int]()
        try:
            while not (reason or self._is_over()):
                batch = self._next(batches)
                attempt = self._try_step(batch)
                self.snapshots.check()
                reason = attempt.stop
                if attempt.fault:
                    failed.append(batch.step)
                    self._leave_out(attempt, failed, batch.step)
                    continue
                self.state.skips, failed = tuple(sorted((*self.state.skips, *failed))), []
                if self._look_at_loss(attempt.loss, batch.step, task):  # the run has gone back
                    batches.close()
                    batches = self._batches()
                    continue
                self._finish_step(stopping=bool(reason))
                task.show(self.recorder.figures())
                task.advance()
                if self.world.is_main and not self.stop.reason:
                    self.stop.reason = budget_reason(self.state.seconds, self.settings)
            if self.saved != self.state.step:  # given up, or left out, when asked to stop
                self._save(wait=True)
            self.snapshots.wait()
        except TrainingError as error:
            if self.saved != self.state.step and not self.world.sharded:
                self._save(wait=True)
            kept = f"; the state before it is saved in {self.folder.checkpoints}" if self.state.step else ""
            raise TrainingError(f"{error}{kept if self.world.is_main else ''}") from None
        finally:
            batches.close()
        return reason

    def _is_over(self) -> bool:
        return is_over(self.state.step, self.clock, self.settings)

    def _batches(self) -> Generator[Batch, None, None]:
        """Yield batches by number, from the next step's on; the loop leaves out the skipped ones."""
        return prefetch(self.loader.batch, batch_of_step(self.state.step + 1, self.state.skips), _ENDLESS)

    def _next(self, batches: Generator[Batch, None, None]) -> Batch:
        self.started = time.perf_counter()
        return next(batch for batch in batches if batch.step not in self.state.skips)

    def _try_step(self, batch: Batch) -> _Attempt:
        """Apply one update, if loss and gradient are finite."""
        step, state = self.state.step + 1, self.state
        predictions, pairs = max(batch.num_predictions, 1), max(batch.num_judged_pairs, 1)
        self._set_schedules(step)
        try:
            share = self.world.share(batch)
            counting = counting_at(self.counts, share, self.facts.recipe, step)
            sums = self._accumulate(self.lay_out(share), step, predictions, pairs, counting)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(step, self.machine, error) from None
        if sums is None:
            return _Attempt("given up", 0.0, self.stop.reason)
        values, stop = self._add_up(sums)
        limit = self.settings.max_grad_norm or math.inf
        norm = float(
            self.world.whole(torch.nn.utils.clip_grad_norm_(clipped_parameters(self.model), limit, foreach=True))
        )
        fault = what_is_not_finite(norm, values)
        if not fault:
            rate = learning_rate(schedule_position(step, self.clock, self.settings), self.settings)
            set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
            state.step = step
            state.tokens += batch.num_tokens
            state.window.add(batch, values, norm, rate)
            if step <= self.loader.num_fresh_steps:  # what repeats tells nothing new
                self.masks += batch.masking or MaskCounts()
        elapsed = max(0.0, time.perf_counter() - self.started)  # a clock that goes back counts for nothing
        state.seconds += elapsed
        state.window.seconds += elapsed
        return _Attempt(fault, values[0] / predictions + values[2] / pairs, stop)

    def _set_schedules(self, step: int) -> None:
        self.model.set_ngram_scale(ngram_scale(step, self.settings))
        self.model.teacher_weight.fill_(teacher_weight(step, self.settings))

    def _accumulate(
        self,
        micro_batches: Sequence[MicroBatch | RunBatch],
        step: int,
        predictions: int,
        pairs: int,
        counting: Counting | None,
    ) -> torch.Tensor | None:
        """Return the sums of this process over a step, its gradients left in the parameters; None if given up."""
        world, machine = self.world, self.machine
        self.lanes.drop_gradients()
        count = world.most(len(micro_batches)) if world.sharded else len(micro_batches)

        def learn(model: PretrainingModel, number: int) -> torch.Tensor | None:
            if world.size == 1 and self.stop.is_overdue(self.settings.grace_seconds):
                return None
            weight = float(number < len(micro_batches))  # the sharded forward pass needs everybody
            micro = micro_batches[min(number, len(micro_batches) - 1)]
            world.sync_gradients(model, number == count - 1)
            seed = seed_of(self.settings.seed, "dropout", step, number * world.size + world.rank)
            seed_draws(seed, of_thread=machine.lanes > 1)
            losses = compute_losses(model, micro, machine.device, machine.precision, counting)
            loss = (losses.mlm_nats + losses.extra_nats) / predictions + losses.nsp_nats / pairs
            (loss if weight else loss * 0.0).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                parts = (losses.mlm_nats, losses.mlm_hits.sum(), losses.nsp_nats, losses.nsp_hits.sum())
                return torch.stack([part.double() for part in parts]) * weight

        def whole_step() -> AbstractContextManager[object]:
            # Around all: one lane casts weights once a step. Sharded ones come and go, and are cast each time.
            if world.sharded:
                return nullcontext()
            return autocast(machine.device, machine.precision, keep_casts=machine.lanes == 1)

        sums = torch.zeros(len(SUMS), dtype=torch.float64, device=machine.device)
        for found in self.lanes.run(learn, range(count), whole_step):
            if found is None:
                return None
            sums += found
        self.lanes.add_up_gradients()
        return sums

    def _add_up(self, sums: torch.Tensor) -> tuple[list[float], str]:
        """Add up gradients and sums over all processes; return the sums, and why to stop if one of them wants to."""
        if self.world.size == 1:
            self.clock = self.state.seconds
            return sums.tolist(), self.stop.reason
        own = self.stop.reason
        flags = torch.zeros(len(REASONS) + 1, dtype=torch.float64, device=sums.device)
        if own:
            flags[REASONS.index(own) if own in REASONS else -2] = 1.0
        if self.world.is_main:
            flags[-1] = self.state.seconds  # one clock for all
        self.world.sum_gradients(self.model)
        self.world.sum_in_place([sums, flags])
        *asked, self.clock = flags.tolist()
        return sums.tolist(), own or next((name for name, number in zip(REASONS, asked, strict=True) if number), "")

    def _leave_out(self, attempt: _Attempt, failed: Sequence[int], number: int) -> None:
        """Record a batch that gave no finite step.

        Raises:
            TrainingError: it is one too many in a row. The state before the first of them is what counts.
        """
        if attempt.fault == "given up":
            return
        self.recorder.event(
            "not_finite", self.state, what=attempt.fault, batch=number, attempted_step=self.state.step + 1
        )
        if len(failed) >= self.settings.non_finite_limit:
            times = f" {len(failed)} times in a row" if len(failed) > 1 else ""
            raise TrainingError(
                f"step {self.state.step + 1}: the {attempt.fault} is not finite{times}; the step was not applied. "
                'Start a new run with a lower `train.learning_rate`, or with `train.precision = "fp32"`'
            )

    def _look_at_loss(self, loss: float, number: int, task: Task) -> bool:
        """Record a spike; return whether the run has gone back to before it."""
        state, settings = self.state, self.settings
        deviations = deviations_of(loss, state.losses) if settings.spike_deviations else 0.0
        state.losses = (*state.losses, loss)[-WINDOW:]
        if not deviations > settings.spike_deviations > 0:
            return False
        self.recorder.event("loss_spike", self.state, loss_nats=loss, deviations=round(deviations, 2), batch=number)
        target = roll_back_target(state.step, settings)
        if not target or state.roll_backs >= MAX_ROLL_BACKS:
            return False
        self.snapshots.wait()
        path, found = checkpoint_path(self.folder.checkpoints, target), list[Proven]()
        if not self.world.agree(path.is_dir):
            return False
        self.world.agree(lambda: found.append(prove_checkpoint(path)))
        self._load(found[0] if found else None)
        back_from, first = state.step, batch_of_step(state.step - settings.roll_back + 1, state.skips)
        left_out = {*state.skips, *range(first, number + 1)}  # those of an earlier roll-back to here stay left out
        state, self.state.roll_backs = self.state, state.roll_backs + 1
        skipped = sorted(left_out - set(state.skips))
        state.skips = tuple(sorted(left_out))
        if self.world.is_main:
            remove_later(self.folder.checkpoints, target)
        self.recorder.rewind(state.history_bytes)
        self.recorder.mark_place(self.state)
        self.recorder.event(
            "roll_back",
            self.state,
            from_step=back_from,
            loss_nats=loss,
            deviations=round(deviations, 2),
            skipped=skipped,
        )
        self.good_bytes, self.saved = self.recorder.position, target
        task.advance(target - back_from + 1)
        return True

    def _finish_step(self, *, stopping: bool) -> None:
        """Write the records and the checkpoint that are due after a step."""
        state, settings = self.state, self.settings
        over = self._is_over()
        if stopping and not over:  # seconds may be few: the next session writes them
            state.unrecorded = self._is_due()
        else:
            self._record()
        self.good_bytes = self.recorder.position
        if state.step % settings.checkpoint_every == 0 or self._ends_leg() or stopping:
            self._save(wait=stopping or over)
        if not over and state.step in settings.legs:
            self.recorder.mark_place(self.state)
            self.good_bytes = self.recorder.position

    def _ends_leg(self) -> bool:
        return self.state.step in self.settings.legs or self._is_over()

    def _is_due(self) -> bool:
        step, settings = self.state.step, self.settings
        return step % settings.record_every == 0 or step % settings.evaluate_every == 0 or self._ends_leg()

    def _record(self) -> None:
        """Write the records that are due at this step."""
        step, ends = self.state.step, self._ends_leg()
        if step % self.settings.record_every == 0 or ends:
            if problem := mask_problem(self.masks, self.loader.settings, self.loader.store.segmenter):
                raise TrainingError(f"step {step}: {problem}")
            self.recorder.record_training(self.state)
        asks = self.world.is_main or self.world.sharded
        if asks and (step % self.settings.evaluate_every == 0 or ends):
            self.recorder.record_evaluation(self.state, self._evaluate())
        self.state.unrecorded = False

    def _evaluate(self) -> Evaluation:
        counts = self.counts if self.model.prior_scale is not None else None
        return evaluate(self.model, self.questions, self.machine, counts, self.loader.settings, lanes=self.lanes)

    def _save(self, *, wait: bool) -> None:
        """Have the state written as a checkpoint; the history up to it is on the disk first."""
        state, settings = self.state, self.settings
        state.history_bytes, self.saved = self.good_bytes, state.step
        self.recorder.sync()
        step, ends = state.step, {*settings.legs, settings.steps}

        def prune() -> None:
            prune_checkpoints(
                self.folder.checkpoints,
                step,
                keep_last=settings.keep_checkpoints,
                keep_every=settings.keep_every,
                is_planned=lambda at: at % settings.checkpoint_every == 0 or at in ends,
            )

        self.snapshots.save(step, {**state.to_json(), "made_from": self._origin()}, prune, wait=wait)
