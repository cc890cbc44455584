"""The encoder with its pretraining heads.

Letters: b sequences, t positions of a sequence, s tokens laid end to end, h hidden size, m masked positions,
v vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from xuebu.errors import ConfigError
from xuebu.model.heads import (
    MaskedTokenHead,
    NextSentenceHead,
    PretrainingLoss,
    Prior,
    next_sentence_classes,
)
from xuebu.model.layers import Block, Embeddings, EncoderLayer, Runs, padding_bias
from xuebu.model.modern import ModernLayer, Places, places_of
from xuebu.model.ngram_embeddings import NgramEmbeddings, Rows, draw_visible, rows_of_blocks
from xuebu.model.settings import ModelSettings


class PretrainingOutput(NamedTuple):
    """What the heads say.

    Attributes:
        mlm_logits: [m, v], one row for each masked position, in the order asked for.
        nsp_logits: [b, 2], column 0 = b truly follows a; None if the architecture has no next-sentence head.
    """

    mlm_logits: Tensor
    nsp_logits: Tensor | None


_LEAST = 1e-9  # below it no probability that counting gives matters


class PretrainingModel(nn.Module):
    """A BERT encoder with a masked-token head and, where the settings say so, a next-sentence head.

    Attributes:
        settings: the architecture.
        vocab_size: v.
        recompute: whether the backward pass computes each layer's inside anew instead of having kept it: less memory,
            about a third more time, the same numbers, dropout included.
        ngram_scale: what n-gram embeddings and prior are multiplied by.
        teacher_weight: share of soft targets in the loss, where it is given what counting says to learn from.

    Source: Devlin et al. 2019.
    """

    ngram_scale: Tensor
    teacher_weight: Tensor

    def __init__(self, settings: ModelSettings, vocab_size: int, generator: torch.Generator | None = None) -> None:
        """Build the model on the CPU with weights drawn from `generator` (None: from seed 0).

        Torch's global generator is neither read nor advanced.
        """
        super().__init__()
        self.settings, self.vocab_size, self.recompute = settings, vocab_size, False
        with torch.device("meta"):  # so that torch draws no weights of its own
            self.embeddings = Embeddings(settings, vocab_size)
            self.modern = settings.layer == "modern"
            kind = ModernLayer if self.modern else EncoderLayer
            self.layers = nn.ModuleList(kind(settings) for _ in range(settings.num_layers))
            self.last_norm: nn.LayerNorm | None = None
            if self.modern:
                self.last_norm = nn.LayerNorm(settings.hidden_size, settings.layer_norm_eps, bias=settings.biases)
            self.mlm_head = MaskedTokenHead(settings, vocab_size)
            self.nsp_head = NextSentenceHead(settings) if settings.nsp_head else None
            self.ngrams: NgramEmbeddings | None = None
            if settings.ngram_embeddings != "none":
                self.ngrams = NgramEmbeddings(
                    vocab_size, settings.ngram_buckets, settings.hidden_size, settings.ngram_dropout
                )
            for name in ("ngram_scale", "teacher_weight"):
                self.register_buffer(name, torch.empty(()), persistent=False)
            self.prior_scale = nn.Linear(settings.hidden_size, 1) if settings.ngram_prior else None
        self.to_empty(device="cpu")
        self.initialize(torch.Generator().manual_seed(0) if generator is None else generator)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights anew: matrices normal(0, initializer_range), biases 0, norms 1, n-gram embeddings 0.

        With an n-gram prior the norm of the masked-token head starts at 0, and the model at what counting says.

        Source: Devlin et al. 2019, published code (there truncated at two deviations, as Hugging Face's is not).
        """
        for name, parameter in self.named_parameters():
            ends_block = name.endswith((".outer.weight", ".attention.output.weight"))
            says_nothing = (
                self.settings.ngram_prior and name == "mlm_head.norm.weight"
            )  # at first the prior speaks alone
            if (
                name in ("ngrams.table", "prior_scale.weight")
                or name.endswith(".kernel")
                or (self.settings.zero_init and ends_block)
                or says_nothing
            ):
                parameter.zero_()
            elif parameter.dim() > 1:
                parameter.normal_(0.0, self.settings.initializer_range, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)

        self.set_ngram_scale(1.0)
        self.teacher_weight.zero_()

    def set_ngram_scale(self, scale: float) -> None:
        """Set what n-gram embeddings and n-gram prior are multiplied by, if there are any."""
        self.ngram_scale.fill_(scale)
        if self.ngrams is not None:
            self.ngrams.scale.fill_(scale)

    def drop_ngrams(self) -> None:
        """Leave n-gram embeddings and prior out, for good: an encoder without them, as its settings then say."""
        self.ngrams = self.prior_scale = None
        self.settings = dataclasses.replace(self.settings, ngram_embeddings="none", ngram_extra=0.0, ngram_prior=False)

    def encode(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor | None = None,
        blocks: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        """Return the hidden states of the last layer.

        Args:
            input_ids: int64 [b, t], padded at the end of each row; t at most max_positions. With `blocks`: [s].
            segment_ids: integers of the same shape, 0 for the first sentence, 1 for the second.
            lengths: integers [b] in 1..t, the real tokens of each row. Pass None where no row is padded: attention
                without a mask is faster.
            blocks: rows and length of each block of rows that are padded to one length; their tokens lie end to end,
                and whatever follows the last block is padding that belongs to no row.

        Returns:
            [b, t, h]; with `blocks`: [s, h]. Padding is never attended to; what stands there means nothing.
        """
        shape = input_ids.shape
        if blocks is None:
            blocks = [(shape[0], shape[1])]
            if shape[1] > self.settings.max_positions:
                raise ValueError(f"rows of {shape[1]} tokens; the model has {self.settings.max_positions} positions")
        input_ids, segment_ids = input_ids.flatten(), segment_ids.flatten()
        device = input_ids.device
        last = self.settings.max_positions - 1  # beyond it there is only padding
        positions = [torch.arange(t, device=device).clamp_(max=last).repeat(b) for b, t in blocks]
        rest = len(input_ids) - sum(b * t for b, t in blocks)
        if rest:
            positions.append(torch.zeros(rest, dtype=torch.int64, device=device))
        at_input = None
        if self.settings.ngram_embeddings == "input":
            assert self.ngrams is not None
            everywhere = torch.arange(len(input_ids), device=device)
            at_input = self.ngrams(input_ids, everywhere, rows_of_blocks(blocks, lengths, device))
        at = torch.cat(positions)
        x: Tensor = self.embeddings(input_ids, segment_ids, at, at_input)
        places = self._places(at, rows_of_blocks(blocks, lengths, device)) if self.modern else None
        return self._run_layers(x, _lay_out(blocks, lengths), places).view(*shape, -1)

    def _places(self, positions: Tensor, rows: Rows) -> Places:
        device = positions.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        return places_of(self.settings, positions, rows, dtype)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor | None,
        masked_positions: Tensor,
        blocks: Sequence[tuple[int, int]] | None = None,
    ) -> PretrainingOutput:
        """Return the logits of both heads.

        Args:
            input_ids: as in `encode`.
            segment_ids: as in `encode`.
            lengths: as in `encode`.
            masked_positions: int64 [m], indices into the b * t positions row by row (row * t + column), or into s; the
                masked-token head is computed nowhere else.
            blocks: as in `encode`.

        Raises:
            ConfigError: the architecture adds n-gram counts to the logits, and there are none here.
        """
        if self.prior_scale is not None:
            raise ConfigError(
                "this model adds n-gram counts of its training text to its logits (`model.ngram_prior`), and counts "
                "are no part of a model: it cannot fill in or be exported; fade them out while training "
                "(`train.ngram_fade_start`)"
            )
        chosen, first, added = self._read(input_ids, segment_ids, lengths, masked_positions, blocks)
        mlm_logits = self.mlm_head(chosen, self.embeddings.word.weight, added)
        return PretrainingOutput(mlm_logits, None if self.nsp_head is None else self.nsp_head(first))

    def _read(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor | None,
        masked_positions: Tensor,
        blocks: Sequence[tuple[int, int]] | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the hidden states at the masked positions [m, h], at the first position of each row [b, h], and what
        is added before the decoder [m, h].
        """
        hidden = self.encode(input_ids, segment_ids, lengths, blocks)
        flat = hidden.view(-1, hidden.shape[-1])
        # index_select, not indexing by a tensor: the backward of the latter is not stable to the bit.
        chosen = flat.index_select(0, masked_positions)
        blocks = [(hidden.shape[0], hidden.shape[1])] if blocks is None else blocks
        sizes = [b * t for b, t in blocks]
        parts = torch.split(flat[: sum(sizes)], sizes)
        first = torch.cat([part[::t] for part, (_, t) in zip(parts, blocks, strict=True)])
        chosen, added = self._add_ngrams(
            chosen, input_ids.flatten(), masked_positions, _rows(input_ids, lengths, blocks)
        )
        return chosen, first, added

    def _add_ngrams(
        self, chosen: Tensor, input_ids: Tensor, masked_positions: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None]:
        """Return the input of the masked-token head [m, h], and what is added before its decoder [m, h]."""
        if self.ngrams is None or self.settings.ngram_embeddings == "input":
            return chosen, None
        embedded = self.ngrams(input_ids, masked_positions, rows)
        return (chosen + embedded, None) if self.settings.ngram_embeddings == "head" else (chosen, embedded)

    def loss(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Tensor | None,
        masked_positions: Tensor,
        *,
        labels: Tensor,
        nsp_labels: Tensor | None = None,
        blocks: Sequence[tuple[int, int]] | None = None,
        counted: Tensor | None = None,
    ) -> PretrainingLoss:
        """Return the summed losses of a micro-batch; divide by the step's global counts, never by this batch's own.

        Args:
            input_ids: as in `encode`.
            segment_ids: as in `encode`.
            lengths: as in `encode`.
            masked_positions: as in `forward`.
            labels: int64 [m], the original tokens there; negative where nothing is to be counted.
            nsp_labels: integers [b], 1 = b truly follows a, 0 = not, -1 = not to be judged; None: no pair is.
            blocks: as in `encode`.
            counted: float32 [m, v], the probabilities that counting gives: for the prior of an architecture that has
                one, else soft targets; None: not to be asked.
        """
        chosen, first, added = self._read(input_ids, segment_ids, lengths, masked_positions, blocks)
        rows = _rows(input_ids, lengths, blocks)
        extra = self._extra(input_ids.flatten(), masked_positions, rows)
        return self._judge(chosen, first, added, labels, nsp_labels, extra_nats=extra, counted=counted)

    def loss_of_runs(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        positions: Tensor,
        *,
        row_starts: Tensor,
        max_length: int,
        first_positions: Tensor,
        masked_positions: Tensor,
        labels: Tensor,
        nsp_labels: Tensor,
        counted: Tensor | None = None,
    ) -> PretrainingLoss:
        """Return the same for rows end to end: what a GPU computes, compiled as a whole at one shape.

        There is no dropout of attention weights.

        Args:
            input_ids, segment_ids, positions: int64 [s], as in `RunBatch`.
            row_starts: int32 [b + 1], as in `Runs`.
            max_length: no row is longer.
            first_positions: int64 [b], where each row begins.
            masked_positions: int64 [m], indices into s.
            labels, nsp_labels, counted: as in `loss`.
        """
        rows, at_input = Rows(row_starts[:-1].long(), row_starts[1:].long()), None
        if self.ngrams is not None and self.settings.ngram_embeddings == "input":
            at_input = self.ngrams(input_ids, torch.arange(len(input_ids), device=input_ids.device), rows)
        x = self.embeddings(input_ids, segment_ids, positions, at_input)
        places = self._places(positions, rows) if self.modern else None
        x = self._run_layers(x, Runs(row_starts, max_length), places)
        chosen, added = self._add_ngrams(x.index_select(0, masked_positions), input_ids, masked_positions, rows)
        extra = self._extra(input_ids, masked_positions, rows)
        first = x.index_select(0, first_positions)
        return self._judge(chosen, first, added, labels, nsp_labels, extra_nats=extra, counted=counted)

    def _extra(self, input_ids: Tensor, masked_positions: Tensor, rows: Rows) -> Tensor:
        """Return the summed cross-entropy of the n-gram embeddings alone at some positions that are not masked."""
        share = self.settings.ngram_extra
        if self.ngrams is None or not share or not self.training:
            return torch.zeros((), device=input_ids.device)
        positions, labels = draw_visible(input_ids, masked_positions, rows, share)
        embedded, words = self.ngrams(input_ids, positions, rows), self.embeddings.word.weight
        if self.settings.ngram_embeddings == "head":
            return self.mlm_head.loss(embedded, words, labels)[0]
        return self.mlm_head.loss_of_added(embedded, words, labels)

    def _judge(
        self,
        chosen: Tensor,
        first: Tensor,
        added: Tensor | None,
        labels: Tensor,
        nsp_labels: Tensor | None,
        *,
        extra_nats: Tensor,
        counted: Tensor | None,
    ) -> PretrainingLoss:
        words, prior = self.embeddings.word.weight, None
        if counted is not None and self.prior_scale is not None:
            scale = (1.0 + self.prior_scale(chosen).float().squeeze(1)) * self.ngram_scale
            prior = Prior(counted.clamp_min(_LEAST).log_(), scale)
        elif counted is not None and self.training:
            excess = self.mlm_head.loss_of_targets(chosen, words, counted, labels, added)
            extra_nats = extra_nats + self.teacher_weight * excess
        mlm_nats, mlm_log_probability, mlm_hits, mlm_top_probability = self.mlm_head.loss(
            chosen, words, labels, added, prior
        )
        nsp_nats = torch.zeros_like(mlm_nats)
        nsp_hits = torch.zeros(len(first), dtype=torch.bool, device=mlm_nats.device)
        if self.nsp_head is not None and nsp_labels is not None:
            nsp_logits, classes = self.nsp_head(first), next_sentence_classes(nsp_labels)
            nsp_nats = functional.cross_entropy(nsp_logits.float(), classes, reduction="sum", ignore_index=-1)
            nsp_hits = nsp_logits.detach().argmax(-1) == classes
        return PretrainingLoss(
            mlm_nats, mlm_log_probability, mlm_hits, mlm_top_probability, nsp_nats, nsp_hits, extra_nats
        )

    def _run_layers(self, x: Tensor, blocks: Sequence[Block] | Runs, places: Places | None) -> Tensor:
        more = () if places is None else (places,)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, blocks, *more, use_reentrant=False)
            else:
                x = layer(x, blocks, *more)
        return x if self.last_norm is None else self.last_norm(x)


def _rows(input_ids: Tensor, lengths: Tensor | None, blocks: Sequence[tuple[int, int]] | None) -> Rows:
    if blocks is None:
        blocks = [(input_ids.shape[0], input_ids.shape[1])]
    return rows_of_blocks(blocks, lengths, input_ids.device)


def _lay_out(blocks: Sequence[tuple[int, int]], lengths: Tensor | None) -> list[Block]:
    if lengths is None:
        return [Block(b, t) for b, t in blocks]
    parts = torch.split(lengths, [b for b, _ in blocks])
    return [Block(b, t, padding_bias(part, t)) for (b, t), part in zip(blocks, parts, strict=True)]
