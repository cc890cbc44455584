"""Text to ids, and text to token stores: speed per CPU second against tokenizers and transformers, with equal ids.

    XUEBU_SHARED_DATA=DIR python benchmarks/tokenizing.py [--quick] [ids] [stores]

Parts: "ids", the character vocabulary and Google's on each kind of text, contenders taking turns, medians of three;
"stores", building a token store with and without word bits. Peers run on one thread; all times are CPU time of the
process, so that threads gain nothing. The ids of all contenders are compared on all that is measured; `make long`
compares them on every file.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

from machine import facts, shared_data
from xuebu.corpus.document import SentenceDocument
from xuebu.tokens.build import build_store
from xuebu.tokens.segmenters import make_segmenter
from xuebu.tokens.settings import StoreSettings, VocabularySettings
from xuebu.tokens.vocab import Vocabulary, hugging_face_tokenizer, load_vocabulary, train_vocabulary

TEXTS = {
    "Wikipedia": "zhwiki/shard_a.jsonl",
    "Wikipedia, traditional": "wiki_paragraphs/drcd_test.jsonl",
    "laws": "zh_laws/laws.jsonl",
    "modern prose": "zh_histories_modern/modern.jsonl",
    "classical prose": "zh_classical/classical.jsonl",
    "Markdown with code": "zh_tech_markdown/oi_wiki.jsonl",
}
ROUNDS = 3


def read_documents(name: str, num_bytes: int) -> list[SentenceDocument]:
    """Return documents of a file up to a size, a line of text a sentence."""
    documents: list[SentenceDocument] = []
    for line in (shared_data() / name).read_text(encoding="utf-8").split("\n"):
        if not line or num_bytes <= 0:
            break
        text = json.loads(line)["text"]
        num_bytes -= len(text.encode("utf-8"))
        sentences = tuple(one for one in text.split("\n") if any(map(str.isalnum, one)))
        if sentences:
            number = str(len(documents))
            documents.append(SentenceDocument(id=number, title="", group=number, source=name, sentences=sentences))
    return documents


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU time of some work, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def transformers_tokenizer(vocabulary: Vocabulary) -> Any:
    """Return transformers' fast tokenizer of the saved files."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.encode_special_tokens = True
    tokenizer.model_max_length = 10**9  # else it warns of long lines
    return tokenizer


def measure_ids(num_bytes: int) -> list[dict[str, Any]]:
    """Return speeds in MB per CPU second of each contender, by vocabulary and text."""
    texts = {
        name: [line for document in read_documents(file, num_bytes) for line in document.sentences]
        for name, file in TEXTS.items()
    }
    everything = (line for lines in texts.values() for line in lines)
    vocabularies = {
        "characters": train_vocabulary(everything, VocabularySettings(min_count=1)),
        "Google's 21,128": load_vocabulary(shared_data() / "vocab" / "bert_base_chinese_vocab.txt"),
    }
    rows = []
    for vocabulary_name, vocabulary in vocabularies.items():
        library, hugging_face = hugging_face_tokenizer(vocabulary), transformers_tokenizer(vocabulary)
        library.encode_special_tokens = True
        for name, lines in texts.items():
            row = {"vocabulary": vocabulary_name, "text": name, **race(vocabulary, library, hugging_face, lines)}
            rows.append(row)
            print(
                f"{vocabulary_name:16} {name:23} {row['megabytes']:4.1f} MB  ours {row['ours']:6.1f} "
                f"(first time {row['ours_first']:6.1f})  tokenizers {row['tokenizers']:5.2f} "
                f"({row['ours'] / row['tokenizers']:4.0f}x)  transformers {row['transformers']:5.2f} "
                f"({row['ours'] / row['transformers']:4.0f}x)  ids {'equal' if row['equal'] else 'DIFFER'}",
                flush=True,
            )
    return rows


def race(vocabulary: Vocabulary, library: Any, hugging_face: Any, lines: list[str]) -> dict[str, Any]:
    """Return speeds of the contenders, who take turns, on some lines, and whether all ids are equal."""
    ours = Vocabulary(vocabulary.tokens, vocabulary.kind, vocabulary.lowercase)  # one that has met no text yet
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.encode_batch(lines),
        "tokenizers": lambda: library.encode_batch_fast(lines, add_special_tokens=False),
        "transformers": lambda: hugging_face(lines, add_special_tokens=False)["input_ids"],
    }
    size = sum(len(line.encode("utf-8")) for line in lines) / 1e6
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, work in contenders.items():
            spent, found[name] = cpu_seconds(work)
            seconds[name].append(spent)
    ids, offsets = found["ours"]
    parts = [part.tolist() for part in np.split(ids, offsets[1:-1])]
    return {
        "megabytes": size,
        "ours_first": size / seconds["ours"][0],
        **{name: size / statistics.median(values) for name, values in seconds.items()},
        "equal": parts == [one.ids for one in found["tokenizers"]] == found["transformers"],
    }


def build_seconds(documents: list[SentenceDocument], vocabulary: Vocabulary, settings: StoreSettings) -> float:
    """Return the CPU time of building a store."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "store"
        return cpu_seconds(lambda: build_store(documents, vocabulary, out, settings, corpus_digest=""))[0]


def measure_stores(num_bytes: int) -> list[dict[str, Any]]:
    """Return speeds in MB per CPU second of building stores."""
    documents = [document for file in TEXTS.values() for document in read_documents(file, num_bytes)]
    size = sum(len(line.encode("utf-8")) for document in documents for line in document.sentences) / 1e6
    lines = (line for document in documents for line in document.sentences)
    vocabularies = {
        "characters": train_vocabulary(lines, VocabularySettings()),
        "Google's 21,128": load_vocabulary(shared_data() / "vocab" / "bert_base_chinese_vocab.txt"),
    }
    rows: list[dict[str, Any]] = []
    cut = make_segmenter("rjieba").cut
    assert cut is not None
    spent, _ = cpu_seconds(lambda: [cut("\n".join(document.sentences)) for document in documents])
    print(f"rjieba alone, {size:5.1f} MB  {size / spent:6.1f} MB per CPU second", flush=True)
    rows.append({"vocabulary": None, "segmenter": "rjieba", "megabytes": size, "speed": size / spent})
    for name, vocabulary in vocabularies.items():
        for segmenter in ("none", "rjieba"):
            settings = StoreSettings(segmenter=segmenter)
            seconds = [build_seconds(documents, vocabulary, settings) for _ in range(ROUNDS)]
            speed = size / statistics.median(seconds)
            rows.append({"vocabulary": name, "segmenter": segmenter, "megabytes": size, "speed": speed})
            print(f"store, {name:16} {segmenter:7} {size:5.1f} MB  {speed:6.1f} MB per CPU second", flush=True)
    return rows


def main(arguments: Sequence[str]) -> None:
    """Run the parts that were named, or all."""
    quick = "--quick" in arguments
    parts = [part for part in arguments if not part.startswith("--")] or ["ids", "stores"]
    num_bytes = 150_000 if quick else 1_000_000
    result: dict[str, Any] = {"machine": facts()}
    if "ids" in parts:
        result["ids"] = measure_ids(num_bytes)
    if "stores" in parts:
        result["stores"] = measure_stores(num_bytes)
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
