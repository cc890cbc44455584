"""Beginning from a trained model: its weights are copied into the run folder, so that the run needs nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from xuebu.errors import ConfigError, InputError
from xuebu.files import sha256_file
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import WEIGHTS, load_pretrained, save_pretrained
from xuebu.model.settings import ModelSettings
from xuebu.tokens.vocab import Vocabulary, load_vocabulary
from xuebu.train.folder import RunFolder


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
