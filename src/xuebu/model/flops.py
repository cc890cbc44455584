"""What a training token costs."""

from __future__ import annotations

from xuebu.model.settings import ModelSettings


def flops_per_token(settings: ModelSettings, vocab_size: int, mean_attended_length: float, head_share: float) -> float:
    """Return the floating-point operations that training spends on one real token, forward and backward.

    A multiply-add is two operations; the backward pass costs twice the forward pass. Left out, because they are small:
    norms, activations, softmax, the bias terms, and the square layers of the heads (the transform of the masked-token
    head is hidden / vocabulary of the head, the next-sentence head is paid once a sequence).

    Args:
        settings: the architecture.
        vocab_size: entries of the vocabulary.
        mean_attended_length: over the tokens, the mean number of tokens that one attends to; for sequences of lengths
            l this is sum(l * l) / sum(l).
        head_share: share of the tokens for which the masked-token head is computed, 0 to 1.

    Returns:
        6 * (matmul weights of the encoder) + 12 * layers * hidden * mean attended length
        + 6 * hidden * vocabulary * head_share, where positions at which n-gram embeddings predict by themselves
        (`ngram_extra`) count as positions of the head.

    Source: Kaplan et al. 2020, table 1, and Chowdhery et al. 2022 (PaLM), appendix B, with attention in both
    directions and a head that is computed on a share of the tokens.
    """
    hidden, layers = settings.hidden_size, settings.num_layers
    encoder_weights = layers * (4 * hidden * hidden + 2 * hidden * settings.intermediate_size)
    attention = 12 * layers * hidden * mean_attended_length
    return 6.0 * encoder_weights + attention + 6.0 * hidden * vocab_size * (head_share + settings.ngram_extra)
