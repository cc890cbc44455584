"""The pretraining heads and their loss.

Letters: b sequences, m masked positions, h hidden size, v vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xuebu.model.layers import activate
from xuebu.model.settings import ModelSettings


class MaskedTokenHead(nn.Module):
    """From the hidden states of masked positions to logits over the vocabulary.

    Source: Devlin et al. 2019, task #1 and appendix A; the transform is that of the published code.
    """

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__()
        h = settings.hidden_size
        self.transform = nn.Linear(h, h) if settings.mlm_transform else None
        self.norm = nn.LayerNorm(h, settings.layer_norm_eps) if settings.mlm_transform else None
        self.decoder = None if settings.tie_embeddings else nn.Linear(h, vocab_size, bias=False)
        self.bias = nn.Parameter(torch.empty(vocab_size)) if settings.mlm_bias else None
        self.activation = settings.activation

    def forward(self, hidden: Tensor, word_embeddings: Tensor, added: Tensor | None = None) -> Tensor:
        """Return logits [m, v] for hidden [m, h]; word_embeddings [v, h] is the decoder where the two are tied.

        What is `added` [m, h] goes on top of the transformed states.
        """
        return functional.linear(self._transform(hidden, added), self._weight(word_embeddings), self.bias)

    def loss(
        self,
        hidden: Tensor,
        word_embeddings: Tensor,
        labels: Tensor,
        added: Tensor | None = None,
        prior: Prior | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `summed_cross_entropy` returns, for the same arguments as `forward` and int64 labels [m]."""
        states = self._transform(hidden, added)
        return summed_cross_entropy(states, self._weight(word_embeddings), self.bias, labels, prior)

    def loss_of_targets(
        self, hidden: Tensor, word_embeddings: Tensor, targets: Tensor, labels: Tensor, added: Tensor | None = None
    ) -> Tensor:
        """Return by how much the cross-entropy to soft targets [m, v] exceeds that to labels [m], summed.

        The sum over the vocabulary that both have cancels: what is left is linear in the logits, and so is a product
        with the mean of the decoder's rows instead of the logits. Rows of a negative label count nothing.
        """
        states, weight = self._transform(hidden, added), self._weight(word_embeddings)
        counted = (labels >= 0).to(targets.dtype)
        here = torch.arange(len(labels), device=labels.device)
        away = -targets * counted[:, None]
        away[here, labels.clamp(min=0)] += counted
        excess = (states * functional.linear(away, weight.t())).sum(dtype=torch.float32)
        return excess if self.bias is None else excess + (away.sum(0) * self.bias).sum()

    def loss_of_added(self, added: Tensor, word_embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the summed cross-entropy where the decoder's input is `added` [m, h] alone."""
        return summed_cross_entropy(added, self._weight(word_embeddings), self.bias, labels)[0]

    def _transform(self, hidden: Tensor, added: Tensor | None) -> Tensor:
        if self.transform is not None and self.norm is not None:
            hidden = self.norm(activate(self.transform(hidden), self.activation))
        return hidden if added is None else hidden + added

    def _weight(self, word_embeddings: Tensor) -> Tensor:
        return word_embeddings if self.decoder is None else self.decoder.weight


class Prior(NamedTuple):
    """What is added to the logits of masked positions: values [m, v] without a gradient, times scale [m]."""

    values: Tensor
    scale: Tensor


class NextSentenceHead(nn.Module):
    """From the hidden state of [CLS] to two logits: column 0 = b truly follows a, column 1 = it does not.

    What "does not" means is the objective's: with "nsp", b is of another document; with "sop", a follows b.

    This is the order of Hugging Face's BertForPreTraining, so that weights are exchanged without a permutation. Our
    batches say it the other way round (label 1 = truly follows): `next_sentence_classes` maps one to the other.

    Source: Devlin et al. 2019, task #2.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.pooler = nn.Linear(settings.hidden_size, settings.hidden_size) if settings.pooler else None
        self.classifier = nn.Linear(settings.hidden_size, 2)

    def forward(self, first: Tensor) -> Tensor:
        """Return logits [b, 2] for the hidden states of [CLS], [b, h]."""
        if self.pooler is not None:
            first = torch.tanh(self.pooler(first))
        logits: Tensor = self.classifier(first)
        return logits


def next_sentence_classes(nsp_labels: Tensor) -> Tensor:
    """Return the column of the next-sentence logits that is right: 0 for label 1 (b follows a), 1 for label 0.

    Negative labels (the row is not to be judged) stay as they are.
    """
    labels = nsp_labels.long()
    return torch.where(labels < 0, labels, 1 - labels)


class PretrainingLoss(NamedTuple):
    """Sums over a micro-batch, so that a step can divide by its global counts, and what each prediction was worth.

    Attributes:
        mlm_nats: scalar with gradient, cross-entropy summed over the masked positions, in nats.
        mlm_log_probability: [m], natural logarithm of the probability of each true token; no gradient.
        mlm_hits: bool [m], whether the most probable token is the true one.
        mlm_top_probability: float32 [m], probability of the most probable token; no gradient.
        nsp_nats: scalar with gradient, cross-entropy summed over the judged pairs, in nats.
        nsp_hits: bool [b], whether a judged pair was judged rightly; False where it is not judged.
        extra_nats: scalar with gradient, what else is learned from, summed: cross-entropy of the n-gram embeddings
            alone at positions that are not masked, and what soft targets add; 0 where there is neither. Not part of
            what is recorded.
    """

    mlm_nats: Tensor
    mlm_log_probability: Tensor
    mlm_hits: Tensor
    mlm_top_probability: Tensor
    nsp_nats: Tensor
    nsp_hits: Tensor
    extra_nats: Tensor


_CACHED_LOGITS = 2**18
"""Logits worked on at once on a CPU: in float32 they stay in the second-level cache."""


class _SummedCrossEntropy(torch.autograd.Function):
    """The decoder with its cross-entropy, whose gradient takes the place of the logits in the forward pass.

    With e = exp(logits - top) and total = sum(e), the gradient is (e - total * [label]) / total. The division is left
    to the backward pass, where it falls on [m, h] and not on [m, v]. Torch's own log_softmax and nll_loss pass over
    [m, v] several times more, which was a third of a step of preset tiny on the CPU, and keep three times the memory.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them so
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        prior: Tensor | None,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m, v = len(labels), len(weight)
        logits = hidden @ weight.t()
        counts, at = labels >= 0, labels.clamp(min=0)
        at_label, top, total = (torch.empty((m, 1), device=logits.device) for _ in range(3))
        hits = torch.empty(m, dtype=torch.bool, device=logits.device)
        num_rows = max(_CACHED_LOGITS // v, 1) if logits.device.type == "cpu" else max(m, 1)
        for start in range(0, m, num_rows):
            part = slice(start, min(start + num_rows, m))
            x = logits[part].to(torch.float32, copy=True)
            if bias is not None:
                x += bias  # not in one operation: across types it takes ten times as long
            if prior is not None and scale is not None:
                x.addcmul_(prior[part], scale[part, None])
            at_label[part] = x.gather(1, at[part, None])
            top[part] = x.amax(1, keepdim=True)
            hits[part] = _first_of_largest(x, at[part], at_label[part] == top[part])
            total[part] = x.sub_(top[part]).exp_().sum(1, keepdim=True)
            logits[part] = x
        log_probability = torch.where(counts, (at_label - top - total.log()).squeeze(1), 0.0)
        if any(ctx.needs_input_grad):
            # One place a row. Torch's scatter_ copies the whole tensor there and back.
            here = torch.arange(m, device=labels.device)
            logits[here, at] = ((at_label - top).exp_() - total).squeeze(1).to(logits.dtype)
            ctx.save_for_backward(hidden, weight, logits, counts[:, None] / total, prior)
            ctx.has_bias = bias is not None
        found = log_probability, hits & counts, total.reciprocal().squeeze(1)
        ctx.mark_non_differentiable(*found)
        return -log_probability.sum(), *found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nats: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, gradient, scale, prior = ctx.saved_tensors
        of_scale = None
        if prior is not None:
            of_scale = (gradient * prior).sum(1) * (grad_nats * scale).squeeze(1)
        scale = (grad_nats * scale).to(hidden.dtype)
        of_bias = (scale.t() @ gradient).squeeze(0).float() if ctx.has_bias else None
        return (gradient @ weight) * scale, gradient.t() @ (hidden * scale), of_bias, None, None, of_scale


def _first_of_largest(logits: Tensor, labels: Tensor, is_largest: Tensor) -> Tensor:
    """Return bool [m], whether the label is the first of the largest logits; is_largest [m, 1], whether it is one."""
    if logits.device.type != "cpu" or torch.compiler.is_compiling():
        return logits.argmax(1) == labels
    hits = is_largest.squeeze(1)
    candidates = hits.nonzero().squeeze(1)  # argmax takes six times as long as the maximum on the CPU: only where due
    hits[candidates] = logits.index_select(0, candidates).argmax(1) == labels[candidates]
    return hits


def summed_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, prior: Prior | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the cross-entropy of hidden weight' + bias + prior summed over rows, and for each row what it was worth.

    Under autocast the product runs in its type. The rest is float32 arithmetic.

    Args:
        hidden: [m, h].
        weight: [v, h].
        bias: [v] or None.
        labels: int64 [m] in 0..v-1; rows of a negative one count nothing.
        prior: added to the logits, or None.

    Returns:
        nats: scalar, the only one with a gradient.
        log_probability: float32 [m], of each label; 0 where it is negative.
        hits: bool [m], whether the label has the largest logit; of equal ones the first counts.
        top_probability: float32 [m], of the largest logit.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden, weight = (x.to(torch.get_autocast_dtype(device)) for x in (hidden, weight))
    values, scale = (None, None) if prior is None else (prior.values, prior.scale.float())
    with torch.autocast(device, enabled=False):
        found: tuple[Tensor, Tensor, Tensor, Tensor] = _SummedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, values, scale
        )
    return found
