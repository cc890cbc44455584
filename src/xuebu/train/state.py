"""What a run carries from step to step beside weights and optimizer; all of it goes into checkpoints, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from xuebu.batches.batch import Batch

SUMS = ("mlm_nats", "mlm_hits", "nsp_nats", "nsp_hits")
"""What is summed over the predictions of a step, and of a window."""


@dataclass(slots=True)
class Window:
    """Sums since the last training record, so that a record may span an interruption.

    Attributes:
        sums: in the order of SUMS.
        predictions, pairs, tokens: counts behind them.
        seconds: of training.
        grad_norm: sum over the steps, before clipping.
        steps: updates.
        learning_rate: of the last one.
    """

    sums: list[float] = field(default_factory=lambda: [0.0] * len(SUMS))
    predictions: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    learning_rate: float = 0.0

    def add(self, batch: Batch, sums: Sequence[float], grad_norm: float, learning_rate: float) -> None:
        """Count a step in, whose `seconds` are added apart."""
        self.sums = [total + value for total, value in zip(self.sums, sums, strict=True)]
        self.predictions += batch.num_predictions
        self.pairs += batch.num_judged_pairs
        self.tokens += batch.num_tokens
        self.grad_norm += grad_norm
        self.steps += 1
        self.learning_rate = learning_rate

    def metrics(self, pair_task: str = "nsp") -> dict[str, float | int]:
        """Return the history's metrics; those of pairs are named by what is asked of them, "nsp" or "sop"."""
        mlm_nats, mlm_hits, pair_nats, pair_hits = self.sums
        metrics: dict[str, float | int] = {
            "mlm_loss_nats": mlm_nats / max(self.predictions, 1),
            "mlm_accuracy": mlm_hits / max(self.predictions, 1),
            "mlm_predictions": self.predictions,
        }
        if self.pairs:
            metrics[f"{pair_task}_loss_nats"] = pair_nats / self.pairs
            metrics[f"{pair_task}_accuracy"] = pair_hits / self.pairs
            metrics[f"{pair_task}_predictions"] = self.pairs
        metrics["grad_norm"] = self.grad_norm / max(self.steps, 1)
        return metrics


@dataclass(slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: updates done.
        tokens: real tokens trained on.
        seconds: of training, over all sessions.
        history_bytes: length of the history that belongs to this state.
        window: sums since the last record.
        skips: numbers of the batches that were left out, increasing; see `batches.loader.batch_of_step`.
        losses: of the last steps, oldest first: what a spike is measured against.
        roll_backs: how often the run went back.
        unrecorded: the records that are due at this step are not written: a signal left no time for them.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history_bytes: int = 0
    window: Window = field(default_factory=Window)
    skips: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    roll_backs: int = 0
    unrecorded: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain values."""
        values = {**asdict(self), "skips": list(self.skips), "losses": list(self.losses)}
        del values["step"]
        return values

    @classmethod
    def from_json(cls, step: int, values: dict[str, Any]) -> RunState:
        """Return what `to_json` gave; what an older format did not know keeps its default.

        Raises:
            KeyError, TypeError: not a state.
        """
        known = {name: values[name] for name in ("tokens", "seconds", "history_bytes")}
        return cls(
            step=step,
            **known,
            window=Window(**values["window"]),
            skips=tuple(values.get("skips", ())),
            losses=tuple(values.get("losses", ())),
            roll_backs=values.get("roll_backs", 0),
            unrecorded=values.get("unrecorded", False),
        )
