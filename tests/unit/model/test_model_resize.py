import dataclasses

import pytest
import torch

from xuebu.errors import InputError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.resize import resize_vocabulary
from xuebu.model.settings import ModelSettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

TIED = ModelSettings(num_layers=1, hidden_size=16, num_heads=2, intermediate_size=32, max_positions=20)
UNTIED = dataclasses.replace(TIED, tie_embeddings=False)
NO_BIAS = dataclasses.replace(TIED, mlm_bias=False)
OLD = Vocabulary(("[PAD]", "[unused1]", *SPECIAL_TOKENS[1:], *"学步ab", "##b", "##c"), "wordpiece", True)
NEW = Vocabulary((*OLD.tokens, "鹤", "ab", "##学", "##鹤"), "wordpiece", True)


def make(settings):
    model = PretrainingModel(settings, OLD.num_tokens, torch.Generator().manual_seed(3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(generator=torch.Generator().manual_seed(7)) * 0.1)
    return model


def logits(model, ids):
    input_ids = torch.tensor([ids])
    with torch.inference_mode():
        return model(input_ids, torch.zeros_like(input_ids), None, torch.arange(len(ids))).mlm_logits


@pytest.mark.parametrize("settings", [TIED, UNTIED, NO_BIAS], ids=["tied", "untied", "no bias"])
def test_old_tokens_keep_their_logits_to_the_bit(settings):
    model = make(settings)
    resized = resize_vocabulary(model, OLD, NEW)
    ids = [OLD.cls_id, *OLD.encode("学[步ab").tolist(), OLD.mask_id, OLD.sep_id]
    assert torch.equal(logits(resized, ids)[:, : OLD.num_tokens], logits(model, ids))
    assert resized.vocab_size == NEW.num_tokens


def test_new_rows_begin_at_the_mean_of_what_the_text_was():
    model = make(UNTIED)
    resized = resize_vocabulary(model, OLD, NEW)
    for name in ("embeddings.word.weight", "mlm_head.decoder.weight", "mlm_head.bias"):
        old, new = model.state_dict()[name], resized.state_dict()[name]
        noise = 0.0 if name == "mlm_head.bias" else 0.1 * TIED.initializer_range
        pieces = old[[OLD.tokens.index("a"), OLD.tokens.index("##b")]].mean(0)
        assert torch.allclose(new[NEW.tokens.index("ab")], pieces, atol=5 * noise + 1e-7)
        assert torch.allclose(new[NEW.tokens.index("##学")], old[OLD.tokens.index("学")], atol=5 * noise + 1e-7)
        ordinary = old[torch.from_numpy(OLD.special.ordinary_ids(OLD.num_tokens)).long()].mean(0)
        assert torch.allclose(new[NEW.tokens.index("鹤")], ordinary, atol=5 * noise + 1e-7)
        apart = (new[NEW.tokens.index("鹤")] - new[NEW.tokens.index("##鹤")]).abs().max() > 0
        assert apart == (noise > 0)


def test_noise_depends_on_the_token_and_the_seed_alone():
    model = make(TIED)
    rows = resize_vocabulary(model, OLD, NEW).state_dict()["embeddings.word.weight"]
    other_order = Vocabulary((*OLD.tokens, "##鹤", "鹤"), "wordpiece", True)
    moved = resize_vocabulary(model, OLD, other_order).state_dict()["embeddings.word.weight"]
    assert torch.equal(moved[-1], rows[NEW.tokens.index("鹤")])
    again = resize_vocabulary(model, OLD, other_order, seed=1).state_dict()["embeddings.word.weight"]
    assert not torch.equal(again[-1], moved[-1])


def test_entries_may_move_and_be_left_out():
    model = make(TIED)
    characters = Vocabulary((*SPECIAL_TOKENS, *"步学"))
    rows = resize_vocabulary(model, OLD, characters).state_dict()["embeddings.word.weight"]
    old = model.state_dict()["embeddings.word.weight"]
    assert torch.equal(rows, old[[OLD.tokens.index(token) for token in characters.tokens]])


def test_another_models_vocabulary_is_refused():
    with pytest.raises(InputError, match="16 entries, the model 12"):
        resize_vocabulary(make(TIED), NEW, OLD)
