"""Named architectures, and how many parameters an architecture has, without building it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from xuebu.errors import ConfigError
from xuebu.model.settings import NUM_CONTEXTS, ModelSettings

PresetName = Literal["tiny", "mini", "small", "base", "reference", "reference-hf"]

_REFERENCE_HF = ModelSettings(
    num_layers=12,
    hidden_size=512,
    num_heads=8,
    intermediate_size=2048,
    tie_embeddings=False,
    dropout=0.1,
    attention_dropout=0.1,
)

PRESETS: Mapping[PresetName, ModelSettings] = MappingProxyType(
    {
        "tiny": ModelSettings(num_layers=2, hidden_size=128, num_heads=2, intermediate_size=512),
        "mini": ModelSettings(num_layers=4, hidden_size=256, num_heads=4, intermediate_size=1024),
        "small": ModelSettings(num_layers=4, hidden_size=512, num_heads=8, intermediate_size=2048),
        "base": ModelSettings(
            num_layers=12,
            hidden_size=768,
            num_heads=12,
            intermediate_size=3072,
            dropout=0.1,
            attention_dropout=0.1,
        ),
        "reference": dataclasses.replace(_REFERENCE_HF, embedding_norm=False, mlm_transform=False, pooler=False),
        "reference-hf": _REFERENCE_HF,
    }
)
"""Sizes of tiny, mini, small and base as published with BERT (Turc et al. 2019, "Well-Read Students Learn Better",
table 1); `reference` is the model of the published study, `reference-hf` the same in the form that Hugging Face's
classes hold. The three small ones have no dropout: runs on a laptop see their text few times, and it costs a quarter
of the speed."""


def preset_settings(name: str) -> ModelSettings:
    """Return the settings of a preset.

    Raises:
        ConfigError: there is no preset of that name; suggests the nearest.
    """
    for known, settings in PRESETS.items():
        if known == name:
            return settings
    near = difflib.get_close_matches(name, get_args(PresetName), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(PRESETS)}"
    raise ConfigError(f"unknown preset {name!r}; {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """How many trainable numbers each part of a model has.

    Attributes:
        word_embeddings, position_embeddings, segment_embeddings, embedding_norm: the input.
        layers: all encoder layers together, with the norm after the last of modern ones.
        mlm_head: masked-token head; a decoder tied to the word embeddings counts there, once.
        nsp_head: next-sentence head with its pooler.
        ngram_embeddings: hashed embeddings of neighbors.
        ngram_prior: the scale of the n-gram counts.
    """

    word_embeddings: int
    position_embeddings: int
    segment_embeddings: int
    embedding_norm: int
    layers: int
    mlm_head: int
    nsp_head: int
    ngram_embeddings: int = 0
    ngram_prior: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))

    def summary(self) -> str:
        """Return one line a part, then the total."""
        parts = [(field.name.replace("_", " "), getattr(self, field.name)) for field in dataclasses.fields(self)]
        parts = [(name, count) for name, count in parts if count or not name.startswith("ngram")]
        return "\n".join(f"{name:<20} {count:>15,}" for name, count in [*parts, ("total", self.total)])

    def to_json(self) -> dict[str, int]:
        """Return the parts and the total as plain values."""
        return {**dataclasses.asdict(self), "total": self.total}


def count_parameters(settings: ModelSettings, vocab_size: int) -> ParameterCount:
    """Count the parameters of a model by arithmetic.

    Args:
        settings: the architecture.
        vocab_size: entries of the vocabulary, special tokens included.

    Returns:
        The count by part, equal to that of the module `PretrainingModel(settings, vocab_size)`.

    Source: Devlin et al. 2019, section 3, and the layout of their published weights.
    """
    hidden, inner = settings.hidden_size, settings.intermediate_size
    norm = 2 * hidden
    square = hidden * hidden + hidden
    modern, biases = settings.layer == "modern", 1 if settings.biases else 0
    norm_of_layer = hidden * (1 + biases)
    matrices = 4 * hidden * hidden + 2 * hidden * inner
    layer = matrices + biases * (5 * hidden + inner) + 2 * norm_of_layer + settings.convolution * hidden
    return ParameterCount(
        word_embeddings=vocab_size * hidden,
        position_embeddings=settings.max_positions * hidden * (settings.positions == "learned"),
        segment_embeddings=settings.type_vocab_size * hidden,
        embedding_norm=norm * settings.embedding_norm,
        layers=settings.num_layers * layer + norm_of_layer * modern,
        mlm_head=(square + norm) * settings.mlm_transform
        + vocab_size * hidden * (not settings.tie_embeddings)
        + vocab_size * settings.mlm_bias,
        nsp_head=square * settings.pooler + (2 * hidden + 2) * settings.nsp_head,
        ngram_embeddings=NUM_CONTEXTS * settings.ngram_buckets * hidden * (settings.ngram_embeddings != "none"),
        ngram_prior=(hidden + 1) * settings.ngram_prior,
    )
