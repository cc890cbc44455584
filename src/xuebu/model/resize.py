"""A trained model given another vocabulary: rows of entries that stay go along, new ones begin at a sensible place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xuebu.errors import InputError
from xuebu.model.encoder import PretrainingModel
from xuebu.rng import seed_of
from xuebu.tokens.entries import piece_text
from xuebu.tokens.vocab import Vocabulary

NOISE_SHARE = 0.1
"""Standard deviation of the noise on a new row, as a share of the model's `initializer_range`."""

_BIAS = "mlm_head.bias"
_ROWS = ("embeddings.word.weight", "mlm_head.decoder.weight", _BIAS)

Int32 = npt.NDArray[np.int32]


def resize_vocabulary(model: PretrainingModel, old: Vocabulary, new: Vocabulary, *, seed: int = 0) -> PretrainingModel:
    """Return a copy of the model for another vocabulary.

    Every entry of both vocabularies keeps its rows: word embedding, decoder, bias. A text whose tokens are all in both
    gets the same logits for them, bit for bit. An entry that is new begins at the mean of the rows of the tokens that
    its text was before, or, where that was [UNK], at the mean of all ordinary rows; so at first the model gives it no
    more than the mean probability of the rows that it comes from. Small noise keeps new rows apart; the bias has none.

    Args:
        model: on any device; the copy is on the CPU, in evaluation mode.
        old: the model's vocabulary.
        new: the one that it is to have; it may lack entries of the old one.
        seed: of the noise.

    Raises:
        InputError: the old vocabulary is not the model's, or one of the two is of ids; or the model has n-gram
            embeddings.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models" (mean of the old rows).
    """
    _check_size(model, old)
    if (old.kind == "ids") != (new.kind == "ids"):
        raise InputError("a number that stands for a secret token is no character: give rows by rank of frequency")
    ids = {token: index for index, token in enumerate(old.tokens)}
    ordinary = old.special.ordinary_ids(old.num_tokens)
    sources = {token: _source(token, old, new, ordinary) for token in new.tokens if token not in ids}
    return _with_rows(model, [ids.get(token, -1) for token in new.tokens], sources, seed)


def transfer_by_rank(
    model: PretrainingModel, old: Vocabulary, new: Vocabulary, counts: npt.NDArray[np.int64], *, seed: int = 0
) -> PretrainingModel:
    """Return a copy of the model for a vocabulary of other names: the k-th most frequent entry gets the k-th's rows.

    For a corpus whose tokens somebody made anonymous: which number stands for which character is not known, how
    frequent each is is. Special tokens keep their own rows. Entries beyond the old ones, and beyond those that occur,
    begin at the mean of all ordinary rows, with small noise.

    Args:
        model: on any device; the copy is on the CPU, in evaluation mode.
        old: the model's vocabulary.
        new: of characters or ids: its entries stand by falling frequency.
        counts: int64[V], how often each entry of the old one stands in public text of the same kind; ties go by id.
        seed: of the noise.

    Raises:
        InputError: the old vocabulary is not the model's, the new one is WordPiece, or nothing was counted.
    """
    _check_size(model, old)
    if new.kind == "wordpiece":
        raise InputError("a WordPiece vocabulary does not stand by frequency; only characters and ids can go by rank")
    ordinary = old.special.ordinary_ids(old.num_tokens)
    seen = ordinary[counts[ordinary] > 0]
    if not len(seen):
        raise InputError("none of the model's tokens occurs in the text; give public text of the model's language")
    by_rank = seen[np.argsort(-counts[seen], kind="stable")].tolist()
    rows = [*old.special.five, *by_rank][: new.num_tokens]
    beyond = new.tokens[len(rows) :]
    return _with_rows(model, rows + [-1] * len(beyond), dict.fromkeys(beyond, ordinary), seed)


def _check_size(model: PretrainingModel, old: Vocabulary) -> None:
    if old.num_tokens != model.vocab_size:
        raise InputError(
            f"the vocabulary has {old.num_tokens:,} entries, the model {model.vocab_size:,}; "
            "they do not belong together"
        )
    if model.settings.ngram_embeddings != "none":
        raise InputError(
            "n-gram embeddings are found by a hash of ids, so they cannot go along to another vocabulary; "
            "use a model without them (model.ngram_embeddings)"
        )


def _with_rows(model: PretrainingModel, old_ids: list[int], sources: dict[str, Int32], seed: int) -> PretrainingModel:
    """Return a copy of the model with other rows.

    Args:
        model: to be copied.
        old_ids: the old row of each new entry, -1 for none.
        sources: the entries without one, in their order, and the old ids whose mean they begin at.
        seed: of the noise on these.
    """
    kept = torch.tensor(old_ids)
    resized = PretrainingModel(model.settings, len(old_ids))
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for name in _ROWS:
        if name in state:
            rows = _new_rows(state[name], kept, list(sources.values()))
            if name != _BIAS:
                deviation = NOISE_SHARE * model.settings.initializer_range
                rows[kept < 0] += deviation * _noise(list(sources), rows.shape[1], seed, name).to(rows.dtype)
            state[name] = rows
    resized.load_state_dict(state)
    return resized.eval()


def _source(token: str, old: Vocabulary, new: Vocabulary, ordinary: Int32) -> Int32:
    """Return the old ids whose mean a new entry begins at."""
    pieces = old.encode(piece_text(token) if new.kind == "wordpiece" else token)
    return ordinary if not len(pieces) or (pieces == old.unk_id).any() else pieces


def _new_rows(rows: Tensor, kept: Tensor, sources: list[Int32]) -> Tensor:
    """Return rows [V', ...] from [V, ...]: row `kept` of each old entry, and for those that are -1 the means."""
    result = rows.new_empty((len(kept), *rows.shape[1:]))
    result[kept >= 0] = rows.index_select(0, kept[kept >= 0])
    means: dict[bytes, Tensor] = {}
    for place, source in zip((kept < 0).nonzero()[:, 0].tolist(), sources, strict=True):
        key = source.tobytes()
        if key not in means:
            means[key] = rows.index_select(0, torch.from_numpy(source.astype(np.int64))).mean(0)
        result[place] = means[key]
    return result


def _noise(tokens: list[str], width: int, seed: int, name: str) -> Tensor:
    """Return a standard normal row for each token, which depends on the token and not on its place."""
    rows = [
        torch.randn(width, generator=torch.Generator().manual_seed(seed_of(seed, "new row", name, token)))
        for token in tokens
    ]
    return torch.stack(rows) if rows else torch.zeros(0, width)
