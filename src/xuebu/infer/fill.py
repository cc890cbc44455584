"""Filling in [MASK], and finding the model to ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xuebu.errors import ConfigError, InputError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import load_pretrained
from xuebu.progress import SILENT, Progress
from xuebu.tokens.vocab import Vocabulary, load_vocabulary
from xuebu.train.checkpoint import newest_checkpoint
from xuebu.train.folder import RunFolder, read_run_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A token for a blank.

    Attributes:
        token: as the vocabulary writes it; may be a special token.
        probability: among all tokens of the vocabulary.
    """

    token: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFill:
    """What a model puts in the place of one [MASK].

    Attributes:
        position: of this [MASK] among the tokens of `[CLS] text [SEP]`, from 0.
        candidates: the most probable tokens, most probable first.
        unknown_characters: characters or words of the text, each once, that the vocabulary lacks; the model read
            [UNK].
    """

    position: int
    candidates: tuple[Candidate, ...]
    unknown_characters: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the candidates with their probabilities in one line, and a second one on unknown characters."""
        shown = ", ".join(f"{candidate.token} {candidate.probability:.1%}" for candidate in self.candidates)
        line = f"[MASK] at token {self.position}: {shown}"
        if self.unknown_characters:
            line += f"\n  not in the vocabulary, read as [UNK]: {' '.join(self.unknown_characters)}"
        return line

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "position": self.position,
            "candidates": [{"token": one.token, "probability": one.probability} for one in self.candidates],
            "unknown_characters": list(self.unknown_characters),
        }


def fill_mask(model: PretrainingModel, vocabulary: Vocabulary, text: str, top_k: int = 5) -> list[MaskFill]:
    """Return what the model puts in the place of each [MASK] of a text, in their order.

    All blanks are filled in at once: none sees what was put in another. The model reads `[CLS] text [SEP]` without
    dropout; its training mode is put back.

    Args:
        model: on any device.
        vocabulary: the one that it was trained with.
        text: with at least one "[MASK]".
        top_k: candidates for each, 1 to the size of the vocabulary.

    Raises:
        InputError: the text has no [MASK] or is too long for the model, or the vocabulary is not the model's.
        ConfigError: top_k is out of range.
    """
    if vocabulary.num_tokens != model.vocab_size:
        raise InputError(
            f"the vocabulary has {vocabulary.num_tokens:,} entries, the model {model.vocab_size:,}; "
            "they do not belong together"
        )
    if not 1 <= top_k <= vocabulary.num_tokens:
        raise ConfigError(f"`top_k` must be 1 to {vocabulary.num_tokens:,}, not {top_k}")
    content = vocabulary.encode_with_specials(text)
    longest = model.settings.max_positions - 2
    if len(content) > longest:
        raise InputError(f"the text has {len(content):,} tokens; this model reads at most {longest:,}: shorten it")
    ids = np.concatenate([[vocabulary.cls_id], content, [vocabulary.sep_id]]).astype(np.int64)
    positions = np.flatnonzero(ids == vocabulary.mask_id)
    if not len(positions):
        raise InputError('the text has no [MASK]; write one where a token is to be filled in, as in "学而时习[MASK]"')
    probabilities = _probabilities(model, torch.from_numpy(ids), torch.from_numpy(positions))
    ordered = probabilities.sort(dim=-1, descending=True, stable=True)
    unknown = vocabulary.unknown_texts(text)
    return [
        MaskFill(
            position=position,
            candidates=tuple(
                Candidate(token=vocabulary.tokens[token], probability=probability)
                for token, probability in zip(tokens, values, strict=True)
            ),
            unknown_characters=unknown,
        )
        for position, tokens, values in zip(
            positions.tolist(), ordered.indices[:, :top_k].tolist(), ordered.values[:, :top_k].tolist(), strict=True
        )
    ]


def _probabilities(model: PretrainingModel, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return float32 [positions, vocabulary] on the CPU."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            input_ids = ids[None].to(device)
            output = model(input_ids, torch.zeros_like(input_ids), None, positions.to(device))
            probabilities: torch.Tensor = output.mlm_logits.float().softmax(-1).cpu()
            return probabilities
    finally:
        model.train(was_training)


def load_for_inference(path: Path, *, progress: Progress = SILENT) -> tuple[PretrainingModel, Vocabulary]:
    """Return a model that can be asked, in evaluation mode, and its vocabulary.

    Args:
        path: a model folder, or a run folder: its finished model, else its newest whole checkpoint.
        progress: is told where the model is from a checkpoint, and which damaged ones were passed over.

    Raises:
        InputError: there is no model, or it has no masked-token head or no vocabulary.
        CheckpointError: every checkpoint is damaged.
    """
    run = RunFolder(path)
    if not run.run_toml.exists():
        return _load_folder(path)
    if (run.model / "config.json").exists():
        return _load_folder(run.model)
    checkpoint, problems = newest_checkpoint(run.checkpoints)
    for problem in problems:
        progress.note(f"passed over a damaged checkpoint: {problem}")
    if checkpoint is None:
        raise InputError(f"{path}: this run has neither a model nor a checkpoint yet; train it further")
    facts = read_run_facts(run)
    vocabulary = load_vocabulary(path / facts.vocabulary)
    model = PretrainingModel(facts.recipe.model, vocabulary.num_tokens)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError:
        raise InputError(
            f"{run.checkpoints}: the newest checkpoint is not of the model that run.toml describes"
        ) from None
    progress.note(f"{path}: the run is not finished; its model at step {checkpoint.step:,} answers")
    return model.eval(), vocabulary


def _load_folder(folder: Path) -> tuple[PretrainingModel, Vocabulary]:
    loaded = load_pretrained(folder)
    if any(name.startswith("mlm_head.") for name in loaded.initialized):
        raise InputError(f"{folder}: this model has no masked-token head, so it cannot fill in [MASK]")
    if loaded.vocabulary is None:
        raise InputError(f"{folder}: no vocabulary (vocab.txt) belongs to this model; save it with one")
    return loaded.model, loaded.vocabulary
