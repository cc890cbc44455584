"""A small pair of token stores from synthetic documents, and a recipe whose steps take milliseconds."""

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from xuebu.corpus.document import SentenceDocument

# `make test` draws the same examples each time, to fail by a change and not by chance; `make long` draws fresh ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("fresh", derandomize=False)
settings.load_profile(os.environ.get("XUEBU_EXAMPLES", "fixed"))

WORDS = (  # noqa: SIM905
    "春天 河水 慢慢 流过 村子 老人 坐在 桥边 孩子 追着 风筝 奔跑 燕子 屋檐 泥土 气味 远处 山坡 梨花 开放 "
    "农民 田里 播种 小麦 牛车 道路 尘土 飞扬 傍晚 炊烟 升起 灯光 窗户 书桌 信纸 毛笔 墨水 字迹 工整 朋友 "
    "城市 电车 铃声 广场 鸽子 面包 香味 店铺 老板 微笑 学校 操场 铃响 学生 朗读 课文 老师 黑板 粉笔 问题 "
    "海边 沙滩 渔船 归来 海鸥 盘旋 灯塔 夜晚 星星 月亮 潮水 退去 贝壳 脚印 图书馆 火车站 望远镜 向日葵"
).split()
PARTICLES = "的了在和有也都就很不"
RARE = "犇骉鱻淼焱垚晶磊鑫森毳掱麤龘靐齉"
POOLS = (("北集", "hans"), ("北集", "hant"), ("南集", ""))


def make_documents(count, seed, name="d", words=WORDS, rare=RARE, pools=POOLS):
    """Documents in groups of one to three, a third of them of one sentence, with gaps, long sentences and Latin.

    Each word has four likely successors, so that there is something to learn.
    """
    rng = np.random.default_rng(seed)
    successors = np.random.default_rng(0).integers(0, len(words), size=(len(words), 4))
    documents, group = [], 0
    while len(documents) < count:
        source, script = pools[rng.integers(len(pools))]
        for _ in range(min(rng.integers(1, 4), count - len(documents))):
            sentences = tuple(
                _sentence(rng, words, successors, rare) for _ in range(1 if rng.random() < 0.3 else rng.integers(2, 14))
            )
            gaps = tuple(i for i in range(1, len(sentences)) if rng.random() < 0.15)
            documents.append(
                SentenceDocument(
                    id=f"{name}{len(documents)}",
                    title=f"{name}-{group}",
                    group=f"{name}-{group}",
                    source=source,
                    script=script,
                    sentences=sentences,
                    gaps=gaps,
                )
            )
        group += 1
    return documents


def _sentence(rng, words, successors, rare):
    length = rng.integers(14, 45) if rng.random() < 0.15 else rng.integers(1, 12)  # in words; over 62 tokens at times
    word = rng.integers(len(words))
    parts = []
    for _ in range(length):
        parts.append(words[word])
        draw = rng.random()
        if draw < 0.2:
            parts.append(PARTICLES[rng.integers(len(PARTICLES))])
        elif draw < 0.24:
            parts.append(f" {('BERT', 'GPU', 'abc')[rng.integers(3)]} ")
        elif draw < 0.28:
            parts.append(str(rng.integers(1, 3000)))
        elif draw < 0.29:
            parts.append(rare[rng.integers(len(rare))])
        word = successors[word, rng.integers(4)] if rng.random() < 0.8 else rng.integers(len(words))
    return "".join(parts) + "。！？"[rng.integers(3)]


@dataclass(frozen=True)
class Tokens:
    """Where the stores and the vocabulary lie (train, held_out, vocab), the same opened, and their documents."""

    folder: Path
    vocabulary: object
    train: object
    held_out: object
    train_documents: list
    held_out_documents: list


def build_tokens(folder, train_documents, held_out_documents):
    """Write stores and vocabulary of documents into a folder."""
    from xuebu.tokens.build import build_store
    from xuebu.tokens.settings import StoreSettings, VocabularySettings
    from xuebu.tokens.vocab import train_vocabulary

    texts = [sentence for document in train_documents for sentence in document.sentences]
    vocabulary = train_vocabulary(texts, VocabularySettings(min_count=12))
    vocabulary.save(folder / "vocab")
    stores = [
        build_store(documents, vocabulary, folder / name, StoreSettings(shard_tokens=7_000), corpus_digest="synthetic")
        for name, documents in (("train", train_documents), ("held_out", held_out_documents))
    ]
    return Tokens(folder, vocabulary, *stores, train_documents, held_out_documents)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    """150 training and 60 held-out documents: some 20,000 and 8,000 tokens in three pools, several shards."""
    train, held_out = make_documents(150, seed=1, name="t"), make_documents(60, seed=2, name="h")
    return build_tokens(tmp_path_factory.mktemp("tokens"), train, held_out)


@pytest.fixture(scope="session")
def documents_of():
    """`make_documents`, for tests that need other ones."""
    return make_documents


@pytest.fixture
def store_of(tokens, tmp_path):
    """Build a store of given documents with the vocabulary of `tokens`."""
    from xuebu.tokens.build import build_store
    from xuebu.tokens.settings import StoreSettings

    def build(documents, segmenter="none"):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return build_store(
            documents, tokens.vocabulary, folder, StoreSettings(segmenter=segmenter), corpus_digest="synthetic"
        )

    return build


@pytest.fixture(scope="session")
def recipe_of():
    """Make a recipe of a few thousand parameters; sections are given as dictionaries of what differs.

    One thread: two on busy cores take ten times as long.
    """
    from xuebu.batches.settings import BatchSettings, EvaluationSettings
    from xuebu.model.settings import ModelSettings
    from xuebu.train.settings import Recipe, TrainSettings

    base = Recipe(
        batches=BatchSettings(sequences_per_step=8, sequence_length=48),
        evaluation=EvaluationSettings(predictions=100, final_predictions=300, min_predictions=100),
        model=ModelSettings(num_layers=1, hidden_size=16, num_heads=2, intermediate_size=24, max_positions=48),
        train=TrainSettings(
            steps=12, warmup_steps=3, record_every=3, evaluate_every=5, checkpoint_every=4, threads=1,
            precision="fp32", device="cpu", micro_batch_tokens=240, tune_allocator=False, seed=5, learning_rate=0.01,
        ),
    )  # fmt: skip

    def make(**sections):
        parts = {name: dataclasses.replace(getattr(base, name), **changes) for name, changes in sections.items()}
        return dataclasses.replace(base, **parts)

    return make
