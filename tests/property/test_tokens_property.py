import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xuebu.corpus.document import SentenceDocument
from xuebu.tokens.build import build_store
from xuebu.tokens.columns import BitWriter, read_bits
from xuebu.tokens.segmenters import make_segmenter
from xuebu.tokens.settings import StoreSettings, VocabularySettings
from xuebu.tokens.text import WHITESPACE
from xuebu.tokens.vocab import train_vocabulary
from xuebu.tokens.words import word_starts

ANY_TEXT = st.text(max_size=40)
SENTENCE = st.text(alphabet="天地玄黄宇宙ab12 é😀，。\u3000", min_size=1, max_size=12).filter(
    lambda text: not text.isspace()
)
RJIEBA = make_segmenter("rjieba")


def visible(text):
    return "".join(c for c in unicodedata.normalize("NFC", text) if ord(c) not in WHITESPACE)


@settings(deadline=None, max_examples=60)
@given(ANY_TEXT)
def test_decode_undoes_encode(text):
    vocabulary = train_vocabulary([text], VocabularySettings(min_count=1))
    expected = "".join("[UNK]" if unicodedata.category(c) == "Cc" else c for c in visible(text))
    assert vocabulary.decode(vocabulary.encode(text)) == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(ANY_TEXT, max_size=6))
def test_a_batch_is_its_texts(texts):
    vocabulary = train_vocabulary(texts[:2], VocabularySettings(min_count=1))
    ids, offsets = vocabulary.encode_batch(texts)
    assert [part.tolist() for part in np.split(ids, offsets[1:-1])] == [
        vocabulary.encode(t).tolist() for t in texts or [""]
    ]


@settings(deadline=None, max_examples=60)
@given(ANY_TEXT)
def test_word_starts_cover_the_tokens_and_the_first_is_set(text):
    starts = word_starts(text, RJIEBA)
    assert len(starts) == len(visible(text))
    assert starts[:1].all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.booleans(), max_size=20), max_size=8))
def test_bits_come_back(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("bits") / "bits.bin"
    writer = BitWriter(path)
    for piece in pieces:
        writer.append(np.array(piece, dtype=np.bool_))
    facts = writer.close()
    packed = np.fromfile(path, dtype=np.uint8)
    bits = [bit for piece in pieces for bit in piece]
    assert facts["bytes"] == len(packed) == -(-len(bits) // 8)
    for start in range(0, len(bits), 3):
        assert read_bits(packed, start, len(bits)).tolist() == bits[start:]


@settings(deadline=None, max_examples=25)  # files are synced: their time is the disk's
@given(st.lists(st.lists(SENTENCE, min_size=1, max_size=4), min_size=1, max_size=5), st.integers(1, 30))
def test_every_sentence_decodes_back(tmp_path_factory, texts, shard_tokens):
    documents = [
        SentenceDocument(id=str(i), title="", group=str(i), source="s", sentences=tuple(sentences))
        for i, sentences in enumerate(texts)
    ]
    everything = [sentence for sentences in texts for sentence in sentences]
    vocabulary = train_vocabulary(everything, VocabularySettings(min_count=1))
    store = build_store(
        documents,
        vocabulary,
        tmp_path_factory.mktemp("store") / "s",
        StoreSettings(segmenter="rjieba", shard_tokens=shard_tokens),
        corpus_digest="",
    )
    assert [vocabulary.decode(store.sentence_tokens(s)) for s in range(store.num_sentences)] == list(
        map(visible, everything)
    )
    for number, sentence in enumerate(everything):
        assert store.word_starts(number).tolist() == word_starts(sentence, RJIEBA).tolist()
