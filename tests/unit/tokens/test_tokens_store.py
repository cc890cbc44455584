import json
import pickle

import numpy as np
import pytest

from xuebu.corpus.document import SentenceDocument
from xuebu.errors import InputError, StoreError
from xuebu.tokens import build as build_module
from xuebu.tokens.build import build_store
from xuebu.tokens.segmenters import make_segmenter
from xuebu.tokens.settings import StoreSettings
from xuebu.tokens.store import Store, token_dtype
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary
from xuebu.tokens.words import word_starts

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃"
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *CHARACTERS))


def make_documents(count, seed=0):
    """Documents of 1 to 5 sentences of 1 to 9 known characters, some gaps, three (source, script) pools."""
    generator = np.random.default_rng(seed)
    pools = [("a", "hans"), ("b", "hans"), ("a", "hant")]
    for number in range(count):
        sentences = tuple(
            "".join(generator.choice(list(CHARACTERS), size=generator.integers(1, 10)))
            for _ in range(generator.integers(1, 6))
        )
        gaps = tuple(index for index in range(1, len(sentences)) if generator.random() < 0.3)
        source, script = pools[generator.integers(3)]
        yield SentenceDocument(
            id=str(number),
            title="",
            group=f"g{number // 2}",
            source=source,
            script=script,
            sentences=sentences,
            gaps=gaps,
        )


def build(folder, documents, vocabulary=VOCABULARY, corpus_digest="c", **settings):
    settings = {"segmenter": "none", **settings}
    return build_store(iter(documents), vocabulary, folder, StoreSettings(**settings), corpus_digest=corpus_digest)


@pytest.fixture
def documents():
    return list(make_documents(60))


@pytest.mark.parametrize("shard_tokens", [1, 40, 10_000])
def test_tables_against_brute_force(tmp_path, documents, shard_tokens):
    store = build(tmp_path / "s", documents, shard_tokens=shard_tokens)
    sentences = [(d, s) for d, document in enumerate(documents) for s in range(len(document.sentences))]
    assert (store.num_documents, store.num_sentences) == (60, len(sentences))
    gap_before = [s == 0 or s in documents[d].gaps for d, s in sentences]
    assert store.gap_before.dtype == np.bool_
    assert store.gap_before.tolist() == gap_before
    assert store.anchors.tolist() == [i for i in range(len(sentences) - 1) if not gap_before[i + 1]]
    assert store.document_of(np.arange(len(sentences))).tolist() == [d for d, _ in sentences]
    assert store.document_of(np.array([[0], [3]])).shape == (2, 1)
    for number, (d, s) in enumerate(sentences):
        assert VOCABULARY.decode(store.sentence_tokens(number)) == documents[d].sentences[s]
        assert store.word_starts(number).tolist() == [True] * len(documents[d].sentences[s])
    names = list(dict.fromkeys((document.source, document.script) for document in documents))
    assert [(pool["source"], pool["script"]) for pool in store.pools()] == names
    expected = [
        [i for i, (d, _) in enumerate(sentences) if (documents[d].source, documents[d].script) == name]
        for name in names
    ]
    for pool, members in enumerate(expected):
        assert store.pool_sentences[store.pool_offsets[pool] : store.pool_offsets[pool + 1]].tolist() == members
    assert store.document_pool.tolist() == [names.index((document.source, document.script)) for document in documents]
    same_group = store.document_group[0] == store.document_group
    assert np.flatnonzero(same_group).tolist() == [0, 1]
    assert len(set(store.document_key.tolist())) == 60
    everything = np.concatenate([store.sentence_tokens(number) for number in range(len(sentences))])
    assert store.num_tokens == len(everything)
    assert np.array_equal(store.read_tokens(0, store.num_tokens), everything)
    assert np.array_equal(store.read_tokens(7, 90), everything[7:90])
    assert len(store.read_tokens(5, 5)) == 0
    places = np.random.default_rng(0).permutation(store.num_tokens)
    assert np.array_equal(store.take_tokens(places), everything[places])
    assert store.take_tokens(places[:0]).dtype == everything.dtype
    store.verify()


def test_pools_are_sorted_in_bounded_pieces(tmp_path, documents, monkeypatch):
    whole = build(tmp_path / "a", documents)
    monkeypatch.setattr(build_module, "_DOCUMENTS_AT_ONCE", 7)
    assert build(tmp_path / "b", documents).digest == whole.digest


def test_documents_never_cross_shards(tmp_path, documents):
    store = build(tmp_path / "s", documents, shard_tokens=40)
    shards = store.metadata["shards"]
    starts = set(store.sentence_offsets[store.document_offsets].tolist())
    assert len(shards) > 3
    assert set(np.cumsum([0, *shards]).tolist()) <= starts
    longest = max(sum(map(len, document.sentences)) for document in documents)
    assert max(shards) <= max(40, longest)
    assert sum(shards) == store.num_tokens
    with pytest.raises(ValueError, match="tokens 0 to"):
        store.read_tokens(0, store.num_tokens + 1)


def test_word_bits_across_sentences_and_shards(tmp_path):
    texts = [("我们在北京大学学习。", "abc 大学"), ("天气很好,学习123",), ("北京",)]
    documents = [
        SentenceDocument(id=str(i), title="", group=str(i), source="", sentences=sentences)
        for i, sentences in enumerate(texts)
    ]
    segmenter = make_segmenter("rjieba")
    store = build(tmp_path / "s", documents, segmenter="rjieba", shard_tokens=12)
    for number, text in enumerate(sentence for sentences in texts for sentence in sentences):
        assert store.word_starts(number).tolist() == word_starts(text, segmenter).tolist()
    assert store.segmenter == segmenter.name
    bits = np.concatenate([store.word_starts(number) for number in range(store.num_sentences)])
    places = np.random.default_rng(0).permutation(store.num_tokens)
    assert np.array_equal(store.take_word_starts(places), bits[places])
    assert store.metadata["num_words"] == sum(store.word_starts(number).sum() for number in range(store.num_sentences))


def test_unknown_tokens_are_counted(tmp_path):
    document = SentenceDocument(id="1", title="", group="1", source="", sentences=("天地人", "天"))
    store = build(tmp_path / "s", [document])
    assert store.metadata["unknown_tokens"] == 1
    assert store.metadata["unknown_share"] == 0.25
    assert "1 [UNK] (25.00 %)" in store.summary()
    assert store.anchors.tolist() == [0]


def test_ids_take_two_bytes_up_to_65536_entries(tmp_path):
    assert (token_dtype(65_536), token_dtype(65_537)) == ("<u2", "<u4")
    characters = [chr(code) for code in (*range(0x4E00, 0xD000), *range(0x20000, 0x28000))]
    wide = Vocabulary((*SPECIAL_TOKENS, *characters[:65_532]))
    text = characters[65_531] + characters[0]
    document = SentenceDocument(id="1", title="", group="1", source="", sentences=(text,))
    store = build(tmp_path / "s", [document], vocabulary=wide)
    assert store.sentence_tokens(0).dtype == np.uint32
    assert store.sentence_tokens(0).tolist() == [65_536, 5]


def test_opening_reads_no_table(tmp_path, documents, monkeypatch):
    small, large = build(tmp_path / "small", documents[:2]), build(tmp_path / "large", list(make_documents(3000)))
    assert large.num_tokens > 500 * small.num_tokens
    lengths = [(store.folder / "metadata.json").stat().st_size for store in (small, large)]
    assert lengths[1] < lengths[0] + 200

    def refuse(*_):
        raise AssertionError("a table was read")

    monkeypatch.setattr("xuebu.tokens.store.sha256_file", refuse)
    opened = Store.open(large.folder)
    for name in ("sentence_offsets", "anchors", "pool_sentences", "document_key"):
        assert isinstance(getattr(opened, name).base, np.memmap)
    assert not opened.sentence_tokens(5).flags.writeable


def test_a_store_travels_to_other_processes(tmp_path, documents):
    store = build(tmp_path / "s", documents)
    assert pickle.loads(pickle.dumps(store)).digest == store.digest
    assert len(pickle.dumps(store)) < 1000


def test_same_documents_same_digest_and_other_documents_another(tmp_path, documents):
    digest = build(tmp_path / "a", documents).digest
    assert build(tmp_path / "b", documents).digest == digest
    assert build(tmp_path / "c", documents[::-1]).digest != digest
    assert (tmp_path / "a" / "metadata.json").read_bytes() == (tmp_path / "b" / "metadata.json").read_bytes()


def test_a_finished_store_is_opened_and_another_one_refused(tmp_path, documents):
    store = build(tmp_path / "s", documents)

    def never():
        raise AssertionError("the documents were read again")
        yield

    assert build(tmp_path / "s", never()).digest == store.digest
    with pytest.raises(StoreError, match="another corpus_digest; remove it"):
        build(tmp_path / "s", documents, corpus_digest="d")
    with pytest.raises(StoreError, match="another vocabulary_digest"):
        build(tmp_path / "s", documents, vocabulary=Vocabulary(VOCABULARY.tokens[:-1]))


def test_an_interrupted_build_is_built_anew(monkeypatch, tmp_path, documents):
    monkeypatch.setattr("xuebu.tokens.build._CHARACTERS_AT_ONCE", 1)

    def interrupted():
        yield from documents[:50]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", interrupted(), shard_tokens=20)
    assert len(list((tmp_path / "s").glob("tokens-*.bin"))) > 3
    with pytest.raises(StoreError, match="no finished token store here"):
        Store.open(tmp_path / "s")
    store = build(tmp_path / "s", documents)
    assert store.digest == build(tmp_path / "fresh", documents).digest
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([*store.metadata["files"], "metadata.json"])


def test_a_folder_of_other_files_is_left_alone(tmp_path, documents):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.docx").write_text("mine")
    (tmp_path / "s" / "anchors.bin").write_text("")
    with pytest.raises(StoreError, match=r"thesis\.docx: is no part of a token store"):
        build(tmp_path / "s", documents)
    assert (tmp_path / "s" / "anchors.bin").exists()
    with pytest.raises(StoreError, match="is a file"):
        build(tmp_path / "s" / "thesis.docx", documents)


def test_damage_is_found(tmp_path, documents):
    store = build(tmp_path / "s", documents)
    path = store.folder / "tokens-00000.bin"
    data = bytearray(path.read_bytes())
    data[11] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"tokens-00000\.bin: damaged"):
        Store.open(store.folder).verify()
    path.write_bytes(data[:-2])
    with pytest.raises(StoreError, match=r"tokens-00000\.bin: has [\d,]+ bytes, not"):
        Store.open(store.folder)
    path.unlink()
    with pytest.raises(StoreError, match=r"tokens-00000\.bin: is missing"):
        Store.open(store.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(version=2), "format version 2"),
        (lambda m: m.update(format="x"), "not the metadata"),
        (lambda m: m.pop("segmenter"), "contradict"),
        (lambda m: m.update(shards=[1]), "contradict"),
        (lambda m: m["files"]["anchors.bin"].update(sha256="0" * 64), "contradict"),
        (lambda m: m["files"].update({"../x": {"bytes": 0, "sha256": ""}}), "contradict"),
        (lambda m: m.update(files=None), "contradict"),
    ],
)
def test_damaged_metadata_is_refused(tmp_path, documents, change, message):
    path = build(tmp_path / "s", documents).folder / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=message):
        Store.open(tmp_path / "s")
    path.write_text("{")
    with pytest.raises(StoreError, match=r"metadata\.json:1: not JSON"):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("sentences", "gaps", "message"),
    [
        ((), (), "has no sentence"),
        (("天", " \u3000"), (), "sentence 1 is nothing but white space"),
        (("天", "地"), (2,), "gaps"),
        (("天", "地"), (0,), "gaps"),
        (("天", "地", "玄"), (2, 1), "gaps"),
    ],
)
def test_impossible_documents_are_refused(tmp_path, sentences, gaps, message):
    document = SentenceDocument(id="7", title="", group="7", source="a.txt", sentences=sentences, gaps=gaps)
    with pytest.raises(InputError, match=message) as caught:
        build(tmp_path / "s", [document])
    assert "document '7' of 'a.txt'" in str(caught.value)


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="no documents to store"):
        build(tmp_path / "s", [])


@pytest.mark.parametrize("segmenter", ["none", "rjieba"])
@pytest.mark.parametrize("shard_tokens", [5, 40, 10_000])
def test_documents_written_together_are_as_those_written_alone(tmp_path, monkeypatch, segmenter, shard_tokens):
    documents = [
        SentenceDocument(
            id=str(n),
            title="",
            group=str(n % 3),
            source="ab"[n % 2],
            sentences=("天地" * (n % 4 + 1), "玄 e\u0301黄"),
            gaps=(1,) * (n % 2),
        )
        for n in range(12)
    ]
    settings = StoreSettings(segmenter=segmenter, shard_tokens=shard_tokens)
    together = build_store(documents, VOCABULARY, tmp_path / "together", settings, corpus_digest="")
    monkeypatch.setattr("xuebu.tokens.build._CHARACTERS_AT_ONCE", 1)
    alone = build_store(documents, VOCABULARY, tmp_path / "alone", settings, corpus_digest="")
    assert together.metadata == alone.metadata
    assert together.num_documents == 12 and together.digest == alone.digest
