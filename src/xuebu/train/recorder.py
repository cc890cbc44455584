"""What a run writes into its history; in the processes beside the main one, nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xuebu.history.records import HistoryWriter
from xuebu.train.evaluation import Evaluation
from xuebu.train.folder import RunFolder
from xuebu.train.machine import Machine
from xuebu.train.parallel import World
from xuebu.train.settings import TrainSettings
from xuebu.train.state import RunState, Window


class Recorder:
    """Writes records and events, and remembers the latest figures for the screen.

    Args:
        folder, machine, settings: of the run.
        facts_of_start: what the start event says beside the machine.
        world: this process, which writes if it is the main one, among as many as share the peak.
        pair_task: what is asked of pairs, "nsp" or "sop".
    """

    def __init__(
        self,
        folder: RunFolder,
        machine: Machine,
        settings: TrainSettings,
        facts_of_start: Mapping[str, Any],
        world: World,
        *,
        pair_task: str,
    ) -> None:
        self.pair_task = pair_task
        self.folder, self.machine, self.settings = folder, machine, settings
        self.facts_of_start, self.writes = facts_of_start, world.is_main
        self.peak_flops = machine.peak_flops * world.size  # of this session, not of the one that began the run
        self.history: HistoryWriter | None = None
        self.latest: dict[str, float | int] = {}
        self.held_out: dict[str, float | int] = {}

    def open(self, size: int) -> None:
        """Open the history and cut it back to what belongs to the state that a session begins with."""
        if self.writes:
            self.history = HistoryWriter(self.folder.history)
            self.history.rewind(size)

    def close(self) -> None:
        """Close the history."""
        if self.history is not None:
            self.history.close()

    def rewind(self, size: int) -> None:
        """Cut the history back, for a run that goes back."""
        if self.history is not None:
            self.history.rewind(size)

    def sync(self) -> None:
        """Wait until the history is on the disk."""
        if self.history is not None:
            self.history.sync()

    @property
    def position(self) -> int:
        """Length of the history in bytes."""
        return self.history.position if self.history is not None else 0

    def _append(self, kind: str, state: RunState, values: Mapping[str, Any]) -> None:
        if self.history is not None:
            head = {"kind": kind, "step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 6)}
            self.history.append({**head, **values})

    def event(self, name: str, state: RunState, **values: Any) -> None:
        """Write an event."""
        self._append("event", state, {"event": name, **values})

    def mark_place(self, state: RunState) -> None:
        """Write the event that stands at the beginning of a run, or of a further leg; nothing anywhere else."""
        settings, machine = self.settings, self.machine
        ends = (*settings.legs, settings.steps)
        if state.step in settings.legs:
            peak = max(settings.leg_share, settings.final_share) if settings.schedule != "constant" else 1.0
            self.event(
                "extend",
                state,
                total_steps=min(end for end in ends if end > state.step),
                peak_learning_rate=peak * settings.learning_rate,
                breaks_fits=True,
            )
        if state.step == 0:
            self.event(
                "start",
                state,
                total_steps=ends[0],
                **self.facts_of_start,
                device=machine.device_name,
                precision=machine.precision,
                threads=machine.threads,
                peak_flops=self.peak_flops,
            )

    def record_training(self, state: RunState) -> None:
        """Write what was summed since the last record, and begin a new window."""
        window = state.window
        speed = window.tokens / window.seconds if window.seconds > 0 else 0.0
        self.latest = {
            **window.metrics(self.pair_task),
            "learning_rate": window.learning_rate,
            "tokens_per_second": round(speed, 1),
        }
        if self.peak_flops:
            self.latest["mfu"] = round(speed * float(self.facts_of_start["flops_per_token"]) / self.peak_flops, 4)
        self._append("train", state, self.latest)
        state.window = Window()

    def record_evaluation(self, state: RunState, evaluation: Evaluation) -> None:
        """Write the answers to the held-out questions."""
        self.held_out = evaluation.metrics(self.pair_task)
        self._append("eval", state, self.held_out)

    def figures(self) -> str:
        """Return the latest figures for the progress bar."""
        parts = []
        if self.latest:
            parts += [f"loss {self.latest['mlm_loss_nats']:.3f}", f"{self.latest['tokens_per_second']:,.0f} tokens/s"]
        if self.held_out:
            parts.append(f"held-out accuracy {self.held_out['mlm_accuracy']:.1%}")
        if f"{self.pair_task}_accuracy" in self.held_out:
            parts.append(f"{self.pair_task.upper()} {self.held_out[f'{self.pair_task}_accuracy']:.1%}")
        return " · ".join(parts)
