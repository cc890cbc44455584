"""Settings of training, and the recipe: everything that a run is made from (no torch here)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from xuebu.batches.packing import LENGTH_MULTIPLE
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.config import Range, to_table
from xuebu.corpus.settings import CorpusSettings, VerifySettings
from xuebu.errors import ConfigError
from xuebu.model.settings import ModelSettings
from xuebu.tokens.settings import StoreSettings, VocabularySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How the model is trained."""

    steps: Annotated[int, Range(1)] = 1_000
    """Optimizer updates."""
    seed: Annotated[int, Range(0, 2**62)] = 0
    """Decides initial weights, order of samples, pairs, masks and dropout; nothing held out."""
    learning_rate: Annotated[float, Range(0.0, 1.0)] = 1e-3
    """Peak learning rate of AdamW."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """What updates the matrices of the encoder's layers: AdamW, or Muon, which makes each update orthogonal. The rest
    is AdamW's."""
    muon_learning_rate: Annotated[float, Range(0.0, 1.0)] = 0.02
    """Peak learning rate of Muon; it follows the schedule of `learning_rate`."""
    muon_momentum: Annotated[float, Range(0.0, 0.9999)] = 0.95
    """Muon's decay of the mean gradient."""
    ngram_learning_rate: Annotated[float, Range(0.0, 1.0)] = 0.3
    """Peak learning rate of the n-gram embeddings (Adagrad); it follows the schedule of `learning_rate`."""
    ngram_fade_start: Annotated[float, Range(0.0, 1.0)] = 1.0
    """Share of the steps after which n-gram embeddings and prior fade out; 1: they stay."""
    ngram_fade_end: Annotated[float, Range(0.0, 1.0)] = 1.0
    """Share of the steps after which they are gone, so that the trained model is an encoder without them."""
    ngram_teacher: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Share of the loss, at the first step, whose target is what n-gram counts of the training text say about a masked
    token, asked without its own group, instead of the one token that stood there; 0: none."""
    ngram_teacher_end: Annotated[float, Range(0.0, 1.0)] = 1.0
    """Share of the steps after which this has fallen to 0, along a line."""
    ngram_rows: bool = False
    """Counts that teach, or are a prior, also follow the row itself: what it shows, most of all beside the same
    neighbors, is more likely, since a text repeats its words."""
    counted_start: Annotated[float, Range(0.0, 100.0)] = 0.0
    """Start from counts of the training text: word embeddings from which tokens stand near each other, so many times as
    large as drawn ones (`model.initializer_range`), and the decoder's bias from how frequent tokens are; 0: drawn."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls from its peak after the warm-up."""
    schedule_hours: Annotated[float, Range(0.0)] = 0.0
    """The schedule runs on time and ends after so many hours; 0: on steps. On time, no run equals another."""
    warmup_steps: Annotated[int, Range(0)] = 100
    """Steps in which the learning rate rises linearly to its peak."""
    final_share: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Learning rate at the last step, as a share of the peak (cosine and linear)."""
    legs: tuple[int, ...] = ()
    """Steps at which the run had ended before it was extended; written by `xuebu train --resume RUN --steps N`."""
    leg_share: Annotated[float, Range(0.0, 1.0)] = 0.5
    """Peak learning rate of each leg after the first, as a share of `learning_rate` (cosine and linear)."""
    weight_decay: Annotated[float, Range(0.0, 1.0)] = 0.01
    """Decoupled weight decay of matrices; biases and norms have none."""
    beta1: Annotated[float, Range(0.0, 0.9999)] = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: Annotated[float, Range(0.0, 0.999999)] = 0.999
    """AdamW's decay of the mean squared gradient."""
    epsilon: Annotated[float, Range(1e-16, 1.0)] = 1e-8
    """AdamW's epsilon."""
    max_grad_norm: Annotated[float, Range(0.0)] = 1.0
    """Gradients are scaled down to this L2 norm; 0 leaves them as they are."""
    record_every: Annotated[int, Range(1)] = 10
    """A training record in the history every so many steps, over all predictions since the last one."""
    evaluate_every: Annotated[int, Range(1)] = 25
    """A held-out evaluation every so many steps, and one at the end."""
    checkpoint_every: Annotated[int, Range(1)] = 250
    """A checkpoint every so many steps, one when interrupted, and one at the end."""
    keep_checkpoints: Annotated[int, Range(1)] = 2
    """How many of the newest checkpoints stay, not counting those of interruptions."""
    keep_every: Annotated[int, Range(0)] = 0
    """Checkpoints at multiples of this step stay for good; 0: none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of matrix products (weights stay fp32); auto takes bf16 where the processor has it."""
    threads: Annotated[int, Range(0, 1024)] = 0
    """CPU threads; 0: one for each core this process may use."""
    lanes: Annotated[int, Range(0, 64)] = 0
    """Micro-batches computed side by side on a CPU, `threads` shared out; 0: one a thread, or 1 if these exceed 4."""
    micro_batch_tokens: Annotated[int, Range(0, 10_000_000)] = 0
    """Most tokens of one forward pass, padding included; 0: chosen for the model and the machine."""
    tune_allocator: bool = True
    """Keep freed memory in the process (glibc's mallopt): up to 1.5 times as fast for small models on a CPU."""
    recompute: bool = False
    """Compute the inside of each layer again in the backward pass instead of keeping it: less memory, same numbers."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, the whole model on a GPU, feed-forward blocks on a CPU (needs a C++ compiler); auto: on a GPU."""
    deterministic: Literal["auto", "on", "off"] = "auto"
    """Same step, same bytes on a GPU, by torch's deterministic kernels; auto: on. On a CPU it is always so."""
    sharding: Literal["none", "full"] = "none"
    """With several processes: none, each holds the whole model (DDP); full, each a part of every weight (FSDP2)."""
    non_finite_limit: Annotated[int, Range(1)] = 3
    """A batch whose loss or gradient is not finite is left out; after so many in a row training stops."""
    spike_deviations: Annotated[float, Range(0.0)] = 8.0
    """A loss so many robust standard deviations above the last 64 is recorded as a spike; 0: none is."""
    roll_back: Annotated[int, Range(0)] = 0
    """At a spike, go back to the checkpoint at least so many steps before and leave those batches out; 0: go on."""
    max_hours: Annotated[float, Range(0.0)] = 0.0
    """Save and stop after so many hours of training, over all sessions; 0: no limit."""
    max_cost: Annotated[float, Range(0.0)] = 0.0
    """Save and stop when training has cost so much, at `cost_per_hour`; 0: no limit."""
    cost_per_hour: Annotated[float, Range(0.0)] = 0.0
    """Price of an hour of training, in any currency."""
    grace_seconds: Annotated[float, Range(1.0)] = 30.0
    """Seconds from SIGTERM to SIGKILL on this cluster; a step that would take too much of them is given up."""

    def __post_init__(self) -> None:
        """Check what no single field can tell."""
        if self.warmup_steps > self.steps:
            raise ConfigError(
                f"`train.warmup_steps` = {self.warmup_steps} is more than `train.steps` = {self.steps}; set both"
            )
        if any(b <= a for a, b in itertools.pairwise((0, *self.legs, self.steps))):
            raise ConfigError(
                f"`train.legs` = {list(self.legs)} must rise and end below `train.steps` = {self.steps}; "
                "extend a finished run by --resume RUN --steps N"
            )
        if self.roll_back and (self.roll_back > self.checkpoint_every or self.keep_checkpoints < 2):
            raise ConfigError(
                f"`train.roll_back` = {self.roll_back} needs `train.checkpoint_every` of at least as many steps and "
                "`train.keep_checkpoints` of at least 2"
            )
        if self.roll_back and not self.spike_deviations:
            raise ConfigError("`train.roll_back` needs `train.spike_deviations` above 0")
        if self.max_cost and not self.cost_per_hour:
            raise ConfigError("`train.max_cost` needs `train.cost_per_hour`")
        if self.legs and self.schedule_hours:
            raise ConfigError("a run whose schedule runs on time (`train.schedule_hours`) cannot be extended")
        if self.ngram_fade_start < 1.0 and not self.ngram_fade_start < self.ngram_fade_end:
            raise ConfigError("`train.ngram_fade_end` must be above `train.ngram_fade_start`")
        for key, asked in (("fade_start", self.ngram_fade_start < 1.0), ("teacher", self.ngram_teacher > 0.0)):
            if asked and self.schedule_hours:
                raise ConfigError(f"`train.ngram_{key}` goes by steps; leave out `train.schedule_hours`")
        if self.ngram_teacher and not self.ngram_teacher_end:
            raise ConfigError("`train.ngram_teacher_end` = 0 leaves no step to `train.ngram_teacher`")
        if self.learning_rate <= 0.0:
            raise ConfigError("`learning_rate` must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a study is made from; complete in itself, recipes do not inherit."""

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    """How documents become sentences."""
    verify: VerifySettings = field(default_factory=VerifySettings)
    """The conditions that `xuebu corpus verify` checks."""
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)
    """How the vocabulary is made."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """How token ids are laid down."""
    batches: BatchSettings = field(default_factory=BatchSettings)
    """How sequences are formed and masked."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """What held-out accuracy is measured on."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """The shape of the encoder."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check what no single section can tell."""
        if self.batches.sequence_length > self.model.max_positions:
            raise ConfigError(
                f"`batches.sequence_length` = {self.batches.sequence_length} is more than "
                f"`model.max_positions` = {self.model.max_positions}"
            )
        padded = -(-self.batches.sequence_length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        if 0 < self.train.micro_batch_tokens < padded:
            raise ConfigError(
                f"`train.micro_batch_tokens` = {self.train.micro_batch_tokens} is less than one sequence, "
                f"`batches.sequence_length` = {self.batches.sequence_length} rounded up to {padded}"
            )
        if self.train.sharding == "full" and (self.train.optimizer == "muon" or self.model.ngram_embeddings != "none"):
            part = '`train.optimizer` = "muon"' if self.train.optimizer == "muon" else "`model.ngram_embeddings`"
            raise ConfigError(f'{part} needs whole matrices: set `train.sharding` = "none"')
        if self.asks_counts and self.batches.sequences == "full":
            key = "model.ngram_prior" if self.model.ngram_prior else "train.ngram_teacher"
            raise ConfigError(
                f'`{key}` must know which document a token is of; `batches.sequences` = "full" crosses documents'
            )
        if self.asks_counts and self.batches.mask_replacement == "matched":
            raise ConfigError(
                '`batches.mask_replacement` = "matched" hides what was replaced from `train.ngram_teacher` and '
                '`model.ngram_prior`, which take a visible token for a kept or a uniformly drawn one; set it to "mask"'
            )
        if self.model.ngram_prior and self.train.ngram_teacher:
            raise ConfigError("`model.ngram_prior` and `train.ngram_teacher` teach the same twice; drop one")
        if self.batches.objective != "mlm" and not self.model.nsp_head:
            raise ConfigError(
                f'`batches.objective` = "{self.batches.objective}" needs `model.nsp_head` = true; or set the objective '
                'to "mlm"'
            )

    @property
    def asks_counts(self) -> bool:
        """Whether n-gram counts of the training store are needed."""
        return self.model.ngram_prior or self.train.ngram_teacher > 0.0

    def differing_keys(self, other: Recipe) -> list[str]:
        """Return the dotted keys in which two recipes differ."""
        mine, theirs = _flat(to_table(self)), _flat(to_table(other))
        return sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
