"""Settings of the encoder and its heads. The size of the vocabulary belongs to the vocabulary and is passed beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from xuebu.config import Range
from xuebu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The architecture: a BERT encoder (post-norm) with heads for masked tokens and for the next sentence."""

    num_layers: Annotated[int, Range(1, 256)] = 2
    """Encoder layers."""
    hidden_size: Annotated[int, Range(2, 65_536)] = 128
    """Width of the hidden states, a multiple of num_heads."""
    num_heads: Annotated[int, Range(1, 1_024)] = 2
    """Attention heads of each layer."""
    intermediate_size: Annotated[int, Range(1, 262_144)] = 512
    """Width inside the feed-forward block."""
    max_positions: Annotated[int, Range(8, 65_536)] = 512
    """Longest sequence in tokens, [CLS] and [SEP] included."""
    type_vocab_size: Annotated[int, Range(2, 16)] = 2
    """Kinds of segment: the first and the second sentence of a pair are 0 and 1."""
    embedding_norm: bool = True
    """Whether the sum of the embeddings is layer-normalized."""
    mlm_transform: bool = True
    """Whether the masked-token head has a dense layer, activation and norm before its decoder."""
    mlm_bias: bool = True
    """Whether the decoder of the masked-token head has a bias."""
    tie_embeddings: bool = True
    """Whether the decoder of the masked-token head is the word embedding itself."""
    nsp_head: bool = True
    """Whether there is a next-sentence head."""
    pooler: bool = True
    """Whether the next-sentence head has a dense layer with tanh; without, it reads [CLS] directly."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Dropout of the embeddings and after each block."""
    attention_dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Dropout of the attention weights."""
    layer_norm_eps: Annotated[float, Range(1e-15, 0.1)] = 1e-12
    """What layer norm adds to the variance."""
    initializer_range: Annotated[float, Range(0.0, 1.0)] = 0.02
    """Standard deviation of the normal draws that weights start from; biases start at 0, norms at 1."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Activation of the feed-forward block and of the masked-token head's transform; gelu is the exact one."""

    def __post_init__(self) -> None:
        """Check what no single field can tell."""
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"`hidden_size` {self.hidden_size} is not a multiple of `num_heads` {self.num_heads}")
        if self.pooler and not self.nsp_head:
            raise ConfigError("`pooler` belongs to the next-sentence head: set `nsp_head = true` or `pooler = false`")

    @property
    def missing_for_hugging_face(self) -> tuple[str, ...]:
        """Names of the parts that BertForPreTraining has and this architecture lacks; empty if it is exchangeable."""
        parts = ("embedding_norm", "mlm_transform", "mlm_bias", "nsp_head", "pooler")
        return tuple(part for part in parts if not getattr(self, part))
