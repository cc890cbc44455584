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

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Return logits [m, v] for hidden [m, h]; word_embeddings [v, h] is the decoder where the two are tied."""
        if self.transform is not None and self.norm is not None:
            hidden = self.norm(activate(self.transform(hidden), self.activation))
        weight = word_embeddings if self.decoder is None else self.decoder.weight
        return functional.linear(hidden, weight, self.bias)


class NextSentenceHead(nn.Module):
    """From the hidden state of [CLS] to two logits: column 0 = b truly follows a, column 1 = it does not.

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
    """

    mlm_nats: Tensor
    mlm_log_probability: Tensor
    mlm_hits: Tensor
    mlm_top_probability: Tensor
    nsp_nats: Tensor
    nsp_hits: Tensor


_CACHED_LOGITS = 2**18
"""Logits worked on at once on a CPU: in float32, with their probabilities, they stay in the second-level cache."""


class _SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy whose gradient is made in the forward pass, while the probabilities are at hand.

    Torch's own log_softmax and nll_loss pass over [m, v] in float32 several times more, which is a tenth of a step of
    a small model on the CPU, and keep twice the memory.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m, v = len(labels), logits.shape[1]
        log_probability = torch.empty(m, device=logits.device)
        top_probability = torch.empty(m, device=logits.device)
        hits = torch.empty(m, dtype=torch.bool, device=logits.device)
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        num_rows = max(_CACHED_LOGITS // v, 1) if logits.device.type == "cpu" else max(m, 1)
        for start in range(0, m, num_rows):
            part = slice(start, start + num_rows)
            x, at_label = logits[part.start : min(part.stop, m)].float(), labels[part, None]
            top, best = x.max(-1, keepdim=True)  # argmax takes three times as long on the CPU
            p = x.softmax(-1)
            of_top = p.gather(1, best)
            log_probability[part] = (x.gather(1, at_label) - top + of_top.log()).squeeze(1)
            top_probability[part] = of_top.squeeze(1)
            hits[part] = best.squeeze(1) == labels[part]
            if gradient is not None:
                gradient[part.start : min(part.stop, m)] = p.scatter_(1, at_label, p.gather(1, at_label) - 1.0)
        if gradient is not None:
            gradient[m:] = 0.0
            ctx.gradient = gradient
        ctx.mark_non_differentiable(log_probability, hits, top_probability)
        return -log_probability.sum(), log_probability, hits, top_probability

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nats: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None  # scaled in place: there is no second backward pass
        return gradient.mul_(grad_nats), None


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the cross-entropy summed over rows, and each row's log-probability, hit and largest probability.

    Args:
        logits: [m or more, classes], any float type; the arithmetic is float32 whatever autocast says. Rows beyond the
            labels count nothing.
        labels: int64 [m] in 0..classes-1.

    Returns:
        nats: scalar, the only one with a gradient.
        log_probability: float32 [m], of each label.
        hits: bool [m], whether the label has the largest logit; of equal ones the first counts.
        top_probability: float32 [m], of the largest logit.
    """
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _SummedCrossEntropy.apply(logits, labels)  # type: ignore[no-untyped-call]
    return found
