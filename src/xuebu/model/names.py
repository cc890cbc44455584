"""The names of weights and settings here and in Hugging Face's BERT, in one table each."""

from __future__ import annotations

from typing import Any

from xuebu.config import settings_from
from xuebu.errors import InputError
from xuebu.model.settings import ModelSettings

_EMBEDDINGS: dict[str, tuple[str, ...]] = {
    "embeddings.word": ("bert.embeddings.word_embeddings",),
    "embeddings.position": ("bert.embeddings.position_embeddings",),
    "embeddings.segment": ("bert.embeddings.token_type_embeddings",),
}
_MODULES: dict[str, tuple[str, ...]] = {
    "embeddings.norm": ("bert.embeddings.LayerNorm",),
    "mlm_head.transform": ("cls.predictions.transform.dense",),
    "mlm_head.norm": ("cls.predictions.transform.LayerNorm",),
    "nsp_head.pooler": ("bert.pooler.dense",),
    "nsp_head.classifier": ("cls.seq_relationship",),
}
_LAYER_MODULES: dict[str, tuple[str, ...]] = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "inner": ("intermediate.dense",),
    "outer": ("output.dense",),
    "outer_norm": ("output.LayerNorm",),
}
DECODER = "cls.predictions.decoder.weight"
BIASES = ("cls.predictions.bias", "cls.predictions.decoder.bias")
"""The bias of BERT's decoder has two names: where the decoder is tied the first is saved, where it is not both are,
and it is the second that Hugging Face's model adds."""


def hugging_face_names(settings: ModelSettings) -> dict[str, tuple[str, ...]]:
    """Return for each of our weights its name in BertForPreTraining; several lie one below the other in ours.

    Args:
        settings: an architecture that BertForPreTraining can hold (`is_hugging_face`).
    """
    modules = dict(_MODULES)
    for layer in range(settings.num_layers):
        for ours, theirs in _LAYER_MODULES.items():
            modules[f"layers.{layer}.{ours}"] = tuple(f"bert.encoder.layer.{layer}.{name}" for name in theirs)
    names: dict[str, tuple[str, ...]] = {
        f"{ours}.weight": (f"{theirs[0]}.weight",) for ours, theirs in _EMBEDDINGS.items()
    }
    for ours, theirs in modules.items():
        for kind in ("weight", "bias"):
            names[f"{ours}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs)
    if not settings.tie_embeddings:
        names["mlm_head.decoder.weight"] = (DECODER,)
    names["mlm_head.bias"] = (BIASES[0 if settings.tie_embeddings else 1],)
    return names


def modern_name(name: str) -> str:
    """Return today's name of a tensor of a Hugging Face BERT: files of the first years, or of a bare BertModel."""
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


# Our setting, Hugging Face's key, and what the key means where it is absent (None: it must be there).
_CONFIG_KEYS: tuple[tuple[str, str, Any], ...] = (
    ("num_layers", "num_hidden_layers", None),
    ("hidden_size", "hidden_size", None),
    ("num_heads", "num_attention_heads", None),
    ("intermediate_size", "intermediate_size", None),
    ("max_positions", "max_position_embeddings", None),
    ("type_vocab_size", "type_vocab_size", 2),
    ("tie_embeddings", "tie_word_embeddings", True),
    ("dropout", "hidden_dropout_prob", 0.1),
    ("attention_dropout", "attention_probs_dropout_prob", 0.1),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
    ("initializer_range", "initializer_range", 0.02),
    ("activation", "hidden_act", "gelu"),
)
# Keys that change what a BERT computes, with the only values that our encoder computes.
_FIXED_KEYS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("model_type", ("bert",)),
    ("position_embedding_type", (None, "absolute")),
    ("is_decoder", (None, False)),
    ("add_cross_attention", (None, False)),
)


def hugging_face_config(settings: ModelSettings, vocab_size: int) -> dict[str, Any]:
    """Return the content of config.json.

    Of an architecture that BertForPreTraining cannot hold, a config that every Hugging Face class refuses: BERT's
    loader takes a folder of any model type and fills what is missing with random weights, but stops at an unknown
    activation and shows its name.
    """
    if not settings.is_hugging_face:
        lacks, has = settings.missing_for_hugging_face, settings.unknown_to_hugging_face
        parts = ([f"it has no {', '.join(lacks)}"] if lacks else []) + ([f"it has {', '.join(has)}"] if has else [])
        refusal = (
            f"not a BERT: {' and '.join(parts)}, so Hugging Face's classes cannot hold it; "
            "load this folder with xuebu.model.pretrained.load_pretrained"
        )
        return {"architectures": ["XuebuPretrainingModel"], "model_type": "xuebu", "hidden_act": refusal}
    return {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        "vocab_size": vocab_size,
        **{theirs: getattr(settings, ours) for ours, theirs, _ in _CONFIG_KEYS},
        "pad_token_id": 0,
        "dtype": "float32",
    }


def settings_from_hugging_face(config: dict[str, Any], *, where: str) -> tuple[ModelSettings, int]:
    """Return the settings and the size of the vocabulary that a Hugging Face config.json states.

    Raises:
        InputError: it is no BERT, or one that computes something else than our encoder; begins with `where`.
        ConfigError: a value has the wrong type or is out of range.
    """
    for key, allowed in _FIXED_KEYS:
        if (value := config.get(key)) not in allowed:
            raise InputError(
                f"{where}: `{key}` is {value!r}; only BERT encoders ({key} = {allowed[-1]!r}) can be loaded"
            )
    required = ["vocab_size", *(theirs for _, theirs, default in _CONFIG_KEYS if default is None)]
    if absent := [key for key in required if key not in config]:
        raise InputError(f"{where}: `{absent[0]}` is missing; take the config.json that belongs to the weights")
    table = {ours: config.get(theirs, default) for ours, theirs, default in _CONFIG_KEYS}
    vocab_size = config["vocab_size"]
    if type(vocab_size) is not int or vocab_size < 1:
        raise InputError(f"{where}: `vocab_size` must be a whole number from 1, not {vocab_size!r}")
    return settings_from(ModelSettings, table, where=where), vocab_size
