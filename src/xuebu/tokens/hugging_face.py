"""The tokenizer files of Hugging Face: written so that transformers gives our ids, and read for kind and case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xuebu.corpus.symbols import is_number
from xuebu.errors import InputError, MissingExtraError
from xuebu.files import read_json
from xuebu.tokens.settings import VocabularyKind
from xuebu.tokens.special import CONTINUATION, SPECIAL_TOKENS
from xuebu.tokens.wordpiece import make_model, make_normalizers

_CONFIG = "tokenizer_config.json"
_KIND = "vocabulary_kind"  # told where entries leave it open: ids of one digit might be characters


def tokenizer_of(tokens: Sequence[str], kind: VocabularyKind, lowercase: bool) -> Any:
    """Return the `tokenizers.Tokenizer` of a vocabulary; "[MASK]" and the like in a text mean themselves.

    Raises:
        MissingExtraError: the package tokenizers is not installed.
    """
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    except ImportError:
        raise MissingExtraError.of("train", "saving a vocabulary for transformers") from None
    if kind == "wordpiece":
        tokenizer = make_model(tokens)
        tokenizer.normalizer, tokenizer.pre_tokenizer = make_normalizers(lowercase)
        tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION, cleanup=False)
    else:
        ids = {token: index for index, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
        if kind == "ids":
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        else:
            tokenizer.normalizer = normalizers.NFC()
            every_character = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), every_character])
            tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokens.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def tokenizer_config(kind: VocabularyKind, lowercase: bool, max_length: int) -> dict[str, Any]:
    """Return the content of tokenizer_config.json."""
    cases = {} if kind != "wordpiece" else {"do_lower_case": lowercase, "strip_accents": None}
    return {
        # transformers 5 builds BertTokenizerFast's own pre-tokenizer, which keeps "abc" whole, and ignores the one in
        # tokenizer.json; this class keeps it, in versions 4 and 5. WordPiece is what BertTokenizer is for.
        "tokenizer_class": "BertTokenizer" if kind == "wordpiece" else "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
        **cases,
        **({_KIND: kind} if kind == "ids" else {}),
    }


def read_kind(folder: Path, tokens: Sequence[str]) -> tuple[VocabularyKind, bool]:
    """Return kind and lower-casing of the vocabulary in a folder.

    Its tokenizer_config.json decides where it says `do_lower_case`, as every one of BERT does; else the entries.

    Raises:
        InputError: the configuration is damaged, or asks for a tokenizer that WordPiece ids here cannot equal.
    """
    path = folder / _CONFIG
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise InputError(f"{path}:1: must be a JSON object")
    has_pieces = any(token.startswith(CONTINUATION) and len(token) > len(CONTINUATION) for token in tokens)
    if "do_lower_case" in config:
        lowercase = config["do_lower_case"]
        if not isinstance(lowercase, bool):
            raise InputError(f"{path}: `do_lower_case` must be true or false, not {lowercase!r}")
        if config.get("strip_accents") not in (None, lowercase):
            raise InputError(f"{path}: `strip_accents` differs from `do_lower_case`; only both or neither is read here")
        if config.get("tokenize_chinese_chars", True) is not True:
            raise InputError(f"{path}: `tokenize_chinese_chars` is off; only vocabularies that part them are read here")
        if has_pieces or str(config.get("tokenizer_class")).startswith("BertTokenizer"):
            return "wordpiece", lowercase
    if not has_pieces:
        entries = tokens[len(SPECIAL_TOKENS) :]
        has_numbers = all(map(is_number, entries)) and any(len(entry) > 1 for entry in entries)
        return ("ids" if config.get(_KIND) == "ids" or has_numbers else "character"), False
    cased = any(token != token.lower() for token in tokens if not token.startswith(("[", "<")))
    return "wordpiece", not cased
