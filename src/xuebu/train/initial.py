"""Beginning from a trained model: its weights are copied into the run folder, so that the run needs nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from xuebu.batches.baselines import draw_documents
from xuebu.batches.contexts import smoothed_unigram
from xuebu.batches.cooccurrence import token_vectors
from xuebu.batches.loader import count_tokens
from xuebu.batches.ngram_counts import COUNTED_TOKENS
from xuebu.errors import ConfigError, InputError
from xuebu.files import sha256_file
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import WEIGHTS, load_pretrained, save_pretrained
from xuebu.model.settings import ModelSettings
from xuebu.progress import SILENT, Progress
from xuebu.rng import seed_of
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary, load_vocabulary
from xuebu.train.folder import RunFolder
from xuebu.train.settings import Recipe

_COUNTED = "counted"  # marks weights that no model was given for


def settings_of_initial(source: Path, asked: ModelSettings) -> ModelSettings:
    """Return the architecture of a model folder, with the dropout that is asked for: that is a matter of training."""
    found = load_pretrained(source).settings
    return dataclasses.replace(found, dropout=asked.dropout, attention_dropout=asked.attention_dropout)


def adopt_initial(source: Path, folder: RunFolder, vocabulary: Path | None) -> Vocabulary:
    """Copy a model folder's weights into a run folder, and return the vocabulary that the run must have.

    Args:
        source: a model folder: one of ours, or a plain Hugging Face BERT.
        folder: the run.
        vocabulary: of the run; None: the model's own.

    Raises:
        InputError: the folder holds no model, or one without a vocabulary.
        ConfigError: the vocabulary is another than the model's.
    """
    loaded = load_pretrained(source)
    if loaded.vocabulary is None:
        raise InputError(f"{source}: no vocabulary (vocab.txt) belongs to this model; save it with one")
    if vocabulary is not None and load_vocabulary(vocabulary).digest != loaded.vocabulary.digest:
        raise ConfigError(
            f"{vocabulary}: is not the vocabulary of the model {source}; leave --vocab out, or give the model that "
            "vocabulary first: xuebu vocab extend, xuebu vocab transfer"
        )
    save_pretrained(loaded.model, None, folder.initial)
    return loaded.vocabulary


@torch.no_grad()
def make_counted_initial(
    folder: RunFolder, recipe: Recipe, store: Store, vocabulary: Vocabulary, *, progress: Progress = SILENT
) -> None:
    """Write the weights of a run that starts from counts, where its recipe says so.

    They are drawn as for any run, but for the word embeddings, 0 where a token never occurs, and the decoder's bias.
    Written like those of a trained model, they are a fact of the run: no library of linear algebra decides how it is
    resumed.

    Raises:
        ConfigError: the run is given weights to begin from.
    """
    times, seed = recipe.train.counted_start, recipe.train.seed
    if not times:
        return
    if folder.initial.exists() and not (folder.initial / _COUNTED).exists():
        raise ConfigError(
            "`train.counted_start` draws weights, and this run begins from a model; leave one of them out"
        )
    documents = draw_documents(store, COUNTED_TOKENS)
    model = PretrainingModel(
        recipe.model, vocabulary.num_tokens, torch.Generator().manual_seed(seed_of(seed, "weights"))
    )
    key = seed_of(seed, "counted start")
    with progress.task("counting neighbors", total=1, unit="start") as task:
        vectors = token_vectors(store, documents, vocabulary.num_tokens, recipe.model.hidden_size, key)
        task.advance()
    words = torch.from_numpy(vectors) * (times * recipe.model.initializer_range)
    model.embeddings.word.weight.copy_(words)
    if model.mlm_head.decoder is not None:
        model.mlm_head.decoder.weight.copy_(words)
    if model.mlm_head.bias is not None and not recipe.model.ngram_prior:  # counting knows it already
        shares = smoothed_unigram(count_tokens(store, vocabulary.num_tokens), vocabulary)
        model.mlm_head.bias.copy_(torch.from_numpy(np.log(np.maximum(shares, shares[shares > 0].min()))))
    folder.initial.mkdir(parents=True, exist_ok=True)
    (folder.initial / _COUNTED).touch()
    save_pretrained(model, None, folder.initial)


def digest_of_initial(folder: RunFolder) -> dict[str, str]:
    """Return the SHA-256 of the weights that a run began from, as "initial"; nothing if it drew its own."""
    path = folder.initial / WEIGHTS
    return {"initial": sha256_file(path)} if path.exists() else {}


@torch.no_grad()
def load_initial(model: PretrainingModel, folder: RunFolder) -> None:
    """Give a model the weights that its run begins from, if it has some.

    Raises:
        InputError: they are damaged, or not of this architecture.
    """
    if not (folder.initial / WEIGHTS).exists():
        return
    try:
        model.load_state_dict(load_pretrained(folder.initial).model.state_dict())
    except RuntimeError:
        raise InputError(f"{folder.initial}: is not of the architecture in run.toml") from None
