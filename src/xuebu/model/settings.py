"""Settings of the encoder and its heads. The size of the vocabulary belongs to the vocabulary and is passed beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from xuebu.config import Range
from xuebu.errors import ConfigError

NUM_CONTEXTS = 5
"""Kinds of context that have n-gram embeddings."""


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
    activation: Literal["gelu", "relu", "relu2"] = "gelu"
    """Activation of the feed-forward block and of the masked-token head's transform; gelu is the exact one, relu2 the
    square of relu."""
    layer: Literal["bert", "modern"] = "bert"
    """bert: norms after each block, as published; modern: norms before, and one after the last layer."""
    positions: Literal["learned", "rotary"] = "learned"
    """How a token knows where it stands: by a learned embedding, or by rotated queries and keys (modern layers)."""
    convolution: Annotated[int, Range(0, 15)] = 0
    """Width, odd, of a convolution over each token and its neighbors before attention (modern layers); 0: none."""
    qk_norm: bool = False
    """Whether queries and keys are normalized (modern layers)."""
    biases: bool = True
    """Whether products and norms of the layers have biases (without: modern layers)."""
    zero_init: bool = False
    """Whether the products that end a block start at 0, so that each layer starts as the identity (modern layers)."""

    ngram_embeddings: Literal["none", "input", "head", "decoder"] = "none"
    """Hashed embeddings of the neighbors of a position (left and right, two left, two right, both trigrams around):
    added to the input of the encoder, to that of the masked-token head, or to that of its decoder."""
    ngram_buckets: Annotated[int, Range(2, 2**26)] = 131_072
    """Embeddings for each of the five kinds of context, a power of two; contexts of one hash share one."""
    ngram_dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Dropout of single contexts' embeddings: rare long contexts then learn less by heart what short ones can tell."""
    ngram_extra: Annotated[float, Range(0.0, 1.0)] = 0.0
    """While training, the n-gram embeddings also predict tokens that are not masked, by themselves, and the decoder
    learns from it: at so many positions, as a share of all (ngram_embeddings = "head" or "decoder")."""
    ngram_prior: bool = False
    """Add what n-gram counts of the training text say about a masked token, as log-probabilities, to its logits, times
    a learned scale; a training text is asked without its own group. The counts are no part of the saved model."""

    def __post_init__(self) -> None:
        """Check what no single field can tell."""
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"`hidden_size` {self.hidden_size} is not a multiple of `num_heads` {self.num_heads}")
        if self.pooler and not self.nsp_head:
            raise ConfigError("`pooler` belongs to the next-sentence head: set `nsp_head = true` or `pooler = false`")
        modern = {
            "positions": self.positions == "rotary",
            "convolution": self.convolution > 0,
            "qk_norm": self.qk_norm,
            "biases": not self.biases,
            "zero_init": self.zero_init,
        }
        if self.layer == "bert" and any(modern.values()):
            name = next(name for name, asked in modern.items() if asked)
            raise ConfigError(f'`{name}` = {getattr(self, name)!r} needs modern layers: set `layer = "modern"`')
        if self.ngram_extra and self.ngram_embeddings not in ("head", "decoder"):
            raise ConfigError('`ngram_extra` needs `ngram_embeddings` = "head" or "decoder"')
        if self.convolution and self.convolution % 2 == 0:
            raise ConfigError(f"`convolution` = {self.convolution} must be odd, or 0 for none")
        if self.positions == "rotary" and self.hidden_size // self.num_heads % 2:
            raise ConfigError("rotary positions need an even number of values a head: hidden_size / num_heads")
        if self.ngram_buckets & (self.ngram_buckets - 1):
            raise ConfigError(f"`ngram_buckets` = {self.ngram_buckets} is no power of two")

    @property
    def missing_for_hugging_face(self) -> tuple[str, ...]:
        """Names of the parts that BertForPreTraining has and this architecture lacks; empty if it is exchangeable."""
        parts = ("embedding_norm", "mlm_transform", "mlm_bias", "nsp_head", "pooler")
        return tuple(part for part in parts if not getattr(self, part))

    @property
    def unknown_to_hugging_face(self) -> tuple[str, ...]:
        """Names of the settings by which this architecture has what BertForPreTraining lacks."""
        found = ["ngram_embeddings"] if self.ngram_embeddings != "none" else []
        found += ["ngram_prior"] if self.ngram_prior else []
        found += ["modern layers"] if self.layer == "modern" else []
        found += [f"activation {self.activation}"] if self.activation == "relu2" else []
        return tuple(found)

    @property
    def is_hugging_face(self) -> bool:
        """Whether BertForPreTraining holds exactly this architecture."""
        return not (self.missing_for_hugging_face or self.unknown_to_hugging_face)
