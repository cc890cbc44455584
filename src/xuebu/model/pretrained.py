"""Model folders: weights, settings and vocabulary in and out, in the Hugging Face layout."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xuebu.config import settings_from, to_table
from xuebu.errors import InputError
from xuebu.files import read_json, to_json, write_atomic, write_json
from xuebu.model.encoder import PretrainingModel
from xuebu.model.names import (
    BIASES,
    DECODER,
    hugging_face_config,
    hugging_face_names,
    modern_name,
    settings_from_hugging_face,
)
from xuebu.model.settings import ModelSettings
from xuebu.tokens.vocab import Vocabulary, load_vocabulary

FORMAT = 1
WEIGHTS, CONFIG, OWN_CONFIG = "model.safetensors", "config.json", "xuebu.json"
_TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


class Pretrained(NamedTuple):
    """What a model folder holds.

    Attributes:
        model: on the CPU, in evaluation mode.
        settings: the architecture.
        vocabulary: None if the folder has none, or one that is neither of characters nor WordPiece.
        initialized: names of the weights of the heads that the folder lacks; they are freshly drawn.
    """

    model: PretrainingModel
    settings: ModelSettings
    vocabulary: Vocabulary | None
    initialized: tuple[str, ...]


def save_pretrained(model: PretrainingModel, vocabulary: Vocabulary | Path | None, folder: Path) -> None:
    """Write a model folder that `load_pretrained` reads back exactly.

    Where the architecture has all parts of BERT the folder is also one of transformers: `BertForPreTraining` and
    `AutoTokenizer` load it. Where it lacks some, the weights keep our names and config.json tells every Hugging Face
    class why it cannot have them. config.json is written last: a folder that has it is complete.

    Args:
        model: on any device.
        vocabulary: the model's vocabulary; or a folder whose tokenizer files are copied; or None.
        folder: made if missing.

    Raises:
        InputError: the vocabulary does not have as many entries as the model, or its folder has no tokenizer.
    """
    settings, vocab_size = model.settings, model.vocab_size
    folder.mkdir(parents=True, exist_ok=True)
    digest = _save_vocabulary(vocabulary, vocab_size, settings.max_positions, folder)
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    if settings.is_hugging_face:
        tensors = _to_hugging_face(tensors, settings)
    write_atomic(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    own = {"format": FORMAT, "vocab_size": vocab_size, "vocabulary_digest": digest, "settings": to_table(settings)}
    write_json(folder / OWN_CONFIG, own)
    write_atomic(folder / CONFIG, to_json(hugging_face_config(settings, vocab_size)))


def _save_vocabulary(
    vocabulary: Vocabulary | Path | None, vocab_size: int, max_length: int, folder: Path
) -> str | None:
    """Write the tokenizer files; return the digest of the vocabulary, None where it is of another kind."""
    if isinstance(vocabulary, Path):
        files = [vocabulary / name for name in _TOKENIZER_FILES if (vocabulary / name).is_file()]
        if not files:
            raise InputError(f"{vocabulary}: has neither vocab.txt nor tokenizer.json; name a tokenizer's folder")
        try:
            vocabulary = load_vocabulary(vocabulary)
        except InputError:
            for file in files:
                if file.resolve() != (folder / file.name).resolve():
                    shutil.copyfile(file, folder / file.name)
            return None
    if vocabulary is None:
        return None
    if vocabulary.num_tokens != vocab_size:
        raise InputError(
            f"{folder}: the vocabulary has {vocabulary.num_tokens:,} entries, the model {vocab_size:,}; "
            "save the vocabulary that the model was trained with"
        )
    vocabulary.save(folder, max_length=max_length)
    return vocabulary.digest


def _to_hugging_face(tensors: dict[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for ours, theirs in hugging_face_names(settings).items():
        parts = tensors[ours].chunk(len(theirs))
        named |= {name: part.clone() for name, part in zip(theirs, parts, strict=True)}
    if not settings.tie_embeddings:
        named[BIASES[0]] = named[BIASES[1]].clone()
    return named


def load_pretrained(folder: Path) -> Pretrained:
    """Read a model folder: one that `save_pretrained` wrote, or a plain Hugging Face BERT in safetensors.

    A plain BERT may come without one head or both. Those are drawn from a fixed seed, and a warning says so. Warnings
    also name weights of other heads and a vocabulary of another kind, which are left out.

    Raises:
        InputError: a file is missing or damaged, the model is no BERT, or a weight is missing, unknown or of another
            shape than the settings ask for; names the file and the weight.
        ConfigError: a setting is wrong.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    facts = _read_facts(folder)
    path, settings = folder / WEIGHTS, facts.settings
    tensors = _read_tensors(path)
    model = PretrainingModel(settings, facts.vocab_size)
    weights = model.state_dict()
    names: dict[str, tuple[str, ...]] = {name: (name,) for name in weights}
    if settings.is_hugging_face:
        names = hugging_face_names(settings)
        tensors = _without_repeats({modern_name(name): tensor for name, tensor in tensors.items()}, settings, path)
    _check_unknown(set(tensors) - {name for theirs in names.values() for name in theirs}, facts.is_own, path)
    initialized: list[str] = []
    for ours, theirs in names.items():
        absent = [name for name in theirs if name not in tensors]
        if not absent:
            weights[ours].copy_(_joined(tensors, theirs, weights[ours].shape, path))
        elif facts.is_own or not ours.startswith(("mlm_head.", "nsp_head.")):
            raise InputError(f"{path}: `{absent[0]}` is missing; the file does not belong to the settings beside it")
        else:
            initialized.append(ours)
    if initialized:
        warnings.warn(
            f"{path} has no {', '.join(initialized)}: drawn at random; train before relying on that head", stacklevel=2
        )
    return Pretrained(model.eval(), settings, _read_vocabulary(folder, facts), tuple(initialized))


class _Facts(NamedTuple):
    """What a model folder says of its weights; `is_own` if we wrote it."""

    settings: ModelSettings
    vocab_size: int
    is_own: bool
    vocabulary_digest: str | None = None


def _read_facts(folder: Path) -> _Facts:
    path = folder / OWN_CONFIG
    if not path.exists():
        path = folder / CONFIG
        if not path.exists():
            raise InputError(f"{folder}: not a model folder (it has neither {OWN_CONFIG} nor {CONFIG})")
        return _Facts(*settings_from_hugging_face(_read_object(path), where=str(path)), is_own=False)
    table = _read_object(path)
    if type(table.get("format")) is not int or table["format"] < 1:
        raise InputError(f"{path}: `format` is not a number: not written by xuebu, or changed since")
    if table["format"] > FORMAT:
        raise InputError(f"{path}: written by a newer xuebu (format {table['format']}); upgrade to read it")
    settings, vocab_size, digest = (table.get(key) for key in ("settings", "vocab_size", "vocabulary_digest"))
    if not isinstance(settings, dict) or type(vocab_size) is not int or vocab_size < 1:
        raise InputError(f"{path}: `settings` or `vocab_size` is missing or damaged; save the model again")
    return _Facts(settings_from(ModelSettings, settings, where=str(path)), vocab_size, True, digest)


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}:1: must be a JSON object")
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        others = sorted(file.name for file in path.parent.iterdir() if file.suffix in (".bin", ".ckpt", ".h5"))
        others += [f"{path.name}.index.json"] if path.with_name(f"{path.name}.index.json").exists() else []
        found = f"; found {others[0]}, which is not read: load it with transformers and save it again" if others else ""
        raise InputError(f"{path}: no such file{found} (weights must be one safetensors file)")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file, or damaged ({error}); copy it again") from None
    return tensors


def _without_repeats(tensors: dict[str, Tensor], settings: ModelSettings, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a Hugging Face BERT without those that say the same twice."""
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".position_ids")}
    added, other = BIASES if settings.tie_embeddings else BIASES[::-1]
    spare = tensors.pop(other, None)
    if added not in tensors and spare is not None:
        tensors[added] = spare
    if settings.tie_embeddings and DECODER in tensors:
        embedding = tensors.get("bert.embeddings.word_embeddings.weight")
        if embedding is None or not torch.equal(tensors.pop(DECODER), embedding):
            raise InputError(
                f"{path}: `{DECODER}` is not the word embedding, though {CONFIG} says that they are tied; "
                "set `tie_word_embeddings` to false there"
            )
    return tensors


def _check_unknown(unknown: set[str], is_own: bool, path: Path) -> None:
    """Refuse weights that the settings have no place for; warn of those of a head that we have not."""
    foreign = sorted(name for name in unknown if is_own or name.startswith("bert."))
    if foreign:
        raise InputError(f"{path}: the settings have no place for {foreign[0]!r} ({len(foreign)} such weights)")
    if unknown:
        names = sorted(unknown)
        listed = ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        warnings.warn(f"{path}: left out {listed}: no part of a pretraining model", stacklevel=3)


def _joined(tensors: dict[str, Tensor], names: tuple[str, ...], shape: torch.Size, path: Path) -> Tensor:
    """Return the named tensors one below the other, proven to have the shape."""
    part_shape = [shape[0] // len(names), *shape[1:]]
    for name in names:
        if list(tensors[name].shape) != part_shape:
            raise InputError(
                f"{path}: `{name}` has shape {list(tensors[name].shape)}, the settings ask for {part_shape}"
            )
    return tensors[names[0]] if len(names) == 1 else torch.cat([tensors[name] for name in names])


def _read_vocabulary(folder: Path, facts: _Facts) -> Vocabulary | None:
    path = folder / "vocab.txt"
    if facts.is_own:
        if facts.vocabulary_digest is None:
            return None
        vocabulary = load_vocabulary(path)
        if vocabulary.digest != facts.vocabulary_digest:
            raise InputError(f"{path}: changed since the model was saved; put the vocabulary of its training back")
        return vocabulary
    if not path.exists():
        return None
    try:
        vocabulary = load_vocabulary(path)
        if vocabulary.num_tokens != facts.vocab_size:
            raise InputError(f"{path}: {vocabulary.num_tokens:,} entries, but the model has {facts.vocab_size:,}")
    except InputError as error:
        warnings.warn(f"loaded without a vocabulary, since it is none of xuebu's: {error}", stacklevel=3)
        return None
    return vocabulary
