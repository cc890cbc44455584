"""Near-duplicates and leaks on real Chinese text: which n, how right, how fast.

    XUEBU_SHARED_DATA=DIR python benchmarks/dedup.py [--quick] [n] [pairs] [laws] [scripts] [speed] [leaks]

Parts: "n", similarity of edited copies and of unrelated texts for several n; "pairs", precision and recall on copies
labelled by their exact Jaccard similarity; "laws", the same on statutes, each against all others; "scripts", articles
in two scripts; "speed", against datasketch and rensa in one run (left out where absent); "leaks", evaluation sets whose
overlap with a corpus is known.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts, shared_data
from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import Document
from xuebu.corpus.evaluation_texts import read_evaluation_set
from xuebu.corpus.leak import check_leaks
from xuebu.corpus.near import (
    SHORT_CHARACTERS,
    Fingerprints,
    NearDuplicates,
    SignatureStore,
    ngram_hashes,
    shingles,
    signature,
)
from xuebu.corpus.overlap import bare_text, code_points
from xuebu.corpus.script import convert_script
from xuebu.corpus.settings import CorpusSettings
from xuebu.progress import SILENT
from xuebu.rng import key_of

SIMILARITY = 0.8


def read_texts(name: str, field: str = "text") -> list[str]:
    lines = (shared_data() / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line)[field] for line in lines if line]


def jaccard(one: Any, other: Any) -> float:
    one, other = np.unique(one), np.unique(other)
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def edited(text: str, share: float, rng: np.random.Generator, letters: np.ndarray) -> str:
    """Return a text of which about this share of characters was replaced, doubled by another, or dropped."""
    pieces = []
    for character, edit, letter in zip(
        text, rng.random(len(text)) / share, rng.choice(letters, len(text)), strict=True
    ):
        if edit >= 1:
            pieces.append(character)
        elif edit < 1 / 3:
            pieces.append(letter)
        elif edit < 2 / 3:
            pieces.append(character + letter)
    return "".join(pieces)


def near(texts: Sequence[str], groups: Sequence[str] = ()) -> NearDuplicates:
    with tempfile.TemporaryDirectory() as folder:
        store = SignatureStore(Path(folder), SIMILARITY)
        fingerprints = Fingerprints(SIMILARITY)
        for text in texts:
            fingerprints.append([text])
        keys = [key_of(group) for group in groups or map(str, range(len(texts)))]
        store.extend(fingerprints.table(), np.array(keys, dtype=np.uint64))
        store.close()
        with SILENT.task("") as task:
            return store.find(task)


def wrong_and_right(truth: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    right = int((truth & found).sum())
    return {
        "true": int(truth.sum()),
        "found": int(found.sum()),
        "precision": round(right / max(1, int(found.sum())), 4),
        "recall": round(right / max(1, int(truth.sum())), 4),
    }


def kinds(quick: bool) -> dict[str, list[str]]:
    """Return texts of two kinds, letters and digits only, 200 to 1,500 of them each."""
    count = 80 if quick else 300
    found = {"wiki": "wiki_paragraphs/cmrc2018_train.jsonl", "laws": "zh_laws/laws.jsonl"}
    bare = {kind: [bare_text(text)[:1500] for text in read_texts(name)] for kind, name in found.items()}
    return {
        kind: [text for text in texts if len(text) >= 200][:: 5 if kind == "wiki" else 2][:count]
        for kind, texts in bare.items()
    }


def part_n(quick: bool) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(1)
    for kind, texts in kinds(quick).items():
        letters = np.array(sorted(set("".join(texts))))
        copies = {share: [edited(text, share, rng, letters) for text in texts] for share in (0.01, 0.02, 0.05)}
        pairs = rng.integers(0, len(texts), size=(400 if quick else 4000, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        for n in (1, 2, 3, 4, 5, 6, 8, 10, 13):
            sets = [ngram_hashes(code_points(text), n) for text in texts]
            row: dict[str, Any] = {"part": "n", "kind": kind, "n": n}
            for share, changed in copies.items():
                alike = [
                    jaccard(one, ngram_hashes(code_points(other), n)) for one, other in zip(sets, changed, strict=True)
                ]
                row[f"edited {share:.0%}"] = round(float(np.median(alike)), 3)
            unrelated = [jaccard(sets[one], sets[other]) for one, other in pairs.tolist()]
            row["unrelated, median"] = round(float(np.median(unrelated)), 4)
            row["unrelated, 99 %"] = round(float(np.quantile(unrelated, 0.99)), 4)
            yield row


def part_pairs(quick: bool) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(2)
    for kind, texts in kinds(quick).items():
        letters = np.array(sorted(set("".join(texts))))
        distinct = [text for text, leader in zip(texts, near(texts).leaders, strict=True) if texts[leader] is text]
        copies = [
            edited(text, share, rng, letters)
            for text, share in zip(distinct, rng.uniform(0.001, 0.05, len(distinct)), strict=True)
        ]
        alike = np.array([jaccard(shingles(one), shingles(other)) for one, other in zip(distinct, copies, strict=True)])
        leaders = near(distinct + copies).leaders
        found = leaders[len(distinct) :] == np.arange(len(distinct))
        yield {"part": "pairs", "kind": kind, "pairs": len(alike), **wrong_and_right(alike >= SIMILARITY, found)}
        clear = np.abs(alike - SIMILARITY) > 0.05
        label = {"part": "pairs", "kind": f"{kind}, not within 0.05 of the threshold", "pairs": int(clear.sum())}
        yield {**label, **wrong_and_right(alike[clear] >= SIMILARITY, found[clear])}


def part_laws(quick: bool) -> Iterator[dict[str, Any]]:
    """Compare each statute, cut to 2,000 characters, with each earlier one, exactly and by signatures."""
    from scipy import sparse

    texts = [text[:2000] for text in read_texts("zh_laws/laws.jsonl")][: 250 if quick else None]
    sets = [np.unique(shingles(text)) for text in texts]
    sizes = np.array(list(map(len, sets)))
    columns = np.unique(np.concatenate(sets), return_inverse=True)[1]
    rows = np.repeat(np.arange(len(sets)), sizes)
    table = sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), (rows, columns)))
    both = (table @ table.T).toarray()
    alike = np.tril(both / (sizes[:, None] + sizes[None, :] - both), -1)
    truth = (alike >= SIMILARITY).any(axis=1)
    found = near(texts).repeats >= 0
    yield {"part": "laws", "documents": len(texts), **wrong_and_right(truth, found)}
    best = alike.max(axis=1)
    clear = np.abs(best - SIMILARITY) > 0.05
    label = {"part": "laws", "documents": int(clear.sum()), "kind": "nearest not within 0.05 of the threshold"}
    yield {**label, **wrong_and_right(truth[clear], found[clear])}


def part_scripts(quick: bool) -> Iterator[dict[str, Any]]:
    one, other = read_texts("zhwiki/shard_a.jsonl"), read_texts("zhwiki/shard_c.jsonl")
    for convert in ("none", "t2s"):
        second = [convert_script(text, "t2s") for text in other] if convert == "t2s" else other
        first = [convert_script(text, "t2s") for text in one] if convert == "t2s" else one
        repeats = near(first + second).repeats[len(one) :]
        found = int((repeats == np.arange(len(one))).sum())
        alike = [jaccard(shingles(a), shingles(b)) for a, b in zip(first, second, strict=True)]
        yield {
            "part": "scripts",
            "convert": convert,
            "articles": len(one),
            "found": found,
            "by exact Jaccard": sum(value >= SIMILARITY for value in alike),
            "median Jaccard": round(float(np.median(alike)), 3),
        }


def part_speed(quick: bool) -> Iterator[dict[str, Any]]:
    texts = read_texts("zh_laws/laws.jsonl")[: 40 if quick else 120]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    ways: dict[str, Callable[[str], Any]] = {"xuebu": lambda text: signature(shingles(text))}
    try:
        import datasketch

        def by_datasketch(text: str) -> Any:
            bare = bare_text(text)
            sketch = datasketch.MinHash(num_perm=128)
            sketch.update_batch([bare[at : at + 5].encode() for at in range(len(bare) - 4)])
            return sketch

        ways["datasketch"] = by_datasketch
    except ImportError:
        print("datasketch: not installed, left out")
    try:
        import rensa

        def by_rensa(text: str) -> Any:
            hashes = shingles(text)
            matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, [0, len(hashes)], 128, 1)
            return matrix.to_rows()

        ways["rensa on our hashes"] = by_rensa
    except ImportError:
        print("rensa: not installed, left out")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(3 if quick else 7):
        for way, sign in ways.items():
            start = time.process_time()
            for text in texts:
                sign(text)
            seconds[way].append(time.process_time() - start)
    for way, each in seconds.items():
        ratios = np.array(each) / np.array(seconds["xuebu"])
        yield {
            "part": "speed",
            "way": way,
            "MB a CPU second": round(megabytes / float(np.median(each)), 1),
            "times xuebu's seconds": [
                round(float(value), 2) for value in (ratios.min(), np.median(ratios), ratios.max())
            ],
        }


def part_leaks(quick: bool) -> Iterator[dict[str, Any]]:
    def built(texts: list[str], folder: Path) -> Path:
        documents = [
            Document(id=str(n), title="", group=str(n), text=text, source="text") for n, text in enumerate(texts)
        ]
        build_corpus(documents, folder, CorpusSettings(held_out_fraction=0.0))
        return folder

    asked = [
        (read_texts("cls_chnsenticorp/train.jsonl", "text_a"), "cls_chnsenticorp/dev.jsonl", "text_a"),
        (read_texts("wiki_paragraphs/cmrc2018_dev.jsonl"), "qa/cmrc2018_dev.json", "context"),
        (read_texts("zhwiki/shard_a.jsonl"), "qa/cmrc2018_dev.json", "context"),
    ]
    for texts, name, field in asked:
        with tempfile.TemporaryDirectory() as folder:
            corpus = built(texts, Path(folder) / "corpus")
            start = time.process_time()
            report = check_leaks(corpus, [read_evaluation_set(shared_data() / name, [field])])
            seconds = time.process_time() - start
        found, train = report.sets[0], report.splits["train"]
        yield {
            "part": "leaks",
            "against": name,
            "texts": found.texts,
            "whole": found.whole,
            "in part": found.in_part,
            "sentences": train.sentences,
            "equal": train.equal,
            "long run": train.long_run,
            "CPU seconds": round(seconds, 2),
        }


PARTS = {
    "n": part_n,
    "pairs": part_pairs,
    "laws": part_laws,
    "scripts": part_scripts,
    "speed": part_speed,
    "leaks": part_leaks,
}


def main(arguments: Sequence[str]) -> None:
    quick = "--quick" in arguments
    rows = []
    for name in [each for each in arguments if each in PARTS] or PARTS:
        for row in PARTS[name](quick):
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(
        json.dumps(
            {"benchmark": "dedup", "short": SHORT_CHARACTERS, "rows": rows, "machine": facts()}, ensure_ascii=False
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
