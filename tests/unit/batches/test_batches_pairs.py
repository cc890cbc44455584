import numpy as np
import pytest

from xuebu.batches import pairs
from xuebu.batches.pairs import check_strangers, draw_strangers
from xuebu.corpus.document import SentenceDocument
from xuebu.errors import StoreError
from xuebu.rng import draw_below, draw_bits


def keys_of(count, stream=1):
    return draw_bits(stream, np.arange(count))


def fitting(store, sentence):
    """Every sentence of the same pool and another group, from the tables of documents."""
    documents = store.document_of(np.arange(store.num_sentences))
    own = documents[sentence]
    same_pool = store.document_pool[documents] == store.document_pool[own]
    return np.flatnonzero(same_pool & (store.document_group[documents] != store.document_group[own]))


@pytest.mark.parametrize("sentence", [0, 400, 818])
def test_strangers_are_uniform(tokens, sentence):
    allowed = fitting(tokens.train, sentence)
    draws = 60 * len(allowed)
    chosen = draw_strangers(tokens.train, np.full(draws, sentence), keys_of(draws))
    assert chosen.dtype == np.int64
    counts = np.bincount(chosen, minlength=tokens.train.num_sentences)
    assert counts.sum() == counts[allowed].sum()
    chi_square = ((counts[allowed] - 60) ** 2 / 60).sum()
    freedom = len(allowed) - 1
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_a_draw_depends_on_its_key_alone(tokens):
    sentences, keys = np.arange(0, 800, 2), keys_of(400)
    together = draw_strangers(tokens.train, sentences, keys)
    for row in (0, 3, 399):
        assert draw_strangers(tokens.train, sentences[row : row + 1], keys[row : row + 1]) == together[row]
    order = np.random.default_rng(0).permutation(400)
    assert (draw_strangers(tokens.train, sentences[order], keys[order]) == together[order]).all()
    assert draw_strangers(tokens.train, sentences[:0], keys[:0]).shape == (0,)


def test_fallback_is_the_first_fitting_from_the_drawn_place(tokens, monkeypatch):
    monkeypatch.setattr(pairs, "MAX_DRAWS", 0)  # every draw "missed"
    store = tokens.train
    sentences, keys = np.arange(store.num_sentences), keys_of(store.num_sentences)
    chosen = draw_strangers(store, sentences, keys)
    documents = store.document_of(sentences)
    for sentence in sentences:
        pool = [s for s in sentences if store.document_pool[documents[s]] == store.document_pool[documents[sentence]]]
        place = int(draw_below(int(keys[sentence]), 0, len(pool)))
        allowed = set(fitting(store, sentence).tolist())
        assert chosen[sentence] == next(s for s in pool[place:] + pool[:place] if s in allowed)


def test_one_rare_stranger_is_found(store_of):
    """A group that fills all but 1/600 of its pool: rejection misses most of the time."""
    giant = SentenceDocument(id="g", title="g", group="g", source="s", sentences=("春天河水",) * 600)
    other = SentenceDocument(id="o", title="o", group="o", source="s", sentences=("孩子",))
    store = store_of([giant, other])
    assert set(draw_strangers(store, np.arange(600), keys_of(600)).tolist()) == {600}
    assert draw_strangers(store, np.array([600]), keys_of(1))[0] < 600


def test_a_single_group_is_refused(store_of):
    alone = [
        SentenceDocument(id=name, title="t", group="same", source="史", script="hans", sentences=("春天", "河水"))
        for name in "ab"
    ]
    store = store_of(alone)
    for call in (lambda: draw_strangers(store, np.array([0]), keys_of(1)), lambda: check_strangers(store)):
        with pytest.raises(StoreError, match="source '史', script 'hans', has a single one; add documents"):
            call()


def test_check_passes_a_good_store(tokens):
    check_strangers(tokens.train)
