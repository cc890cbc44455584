"""Words found by each segmenter against gold segmentation: Chinese treebanks of Universal Dependencies.

    XUEBU_SHARED_DATA=DIR python benchmarks/words.py [--quick]

F1 of words (both ends right), on simplified (GSDSimp, dev) and traditional text (PUD, test), as the store would cut
them: with the rules for letters, digits and white space on top. "longest" matches on jieba's small dictionary,
"statistics" on words learned from articles of Wikipedia in both scripts, which nobody segmented. No segmenter was
tuned on either treebank; the threshold of the statistics was chosen on the first one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts, shared_data
from xuebu.errors import MissingExtraError
from xuebu.tokens.segmenters import Segmenter, make_segmenter, write_words
from xuebu.tokens.statistics import learn_words
from xuebu.tokens.text import code_points
from xuebu.tokens.words import character_starts

TREEBANKS = {
    "GSDSimp, simplified": "ud_chinese_gsdsimp/dev.conllu",
    "PUD, traditional": "ud_chinese_pud/test.conllu",
}
ARTICLES = (
    "zhwiki/shard_a.jsonl",
    "zhwiki/shard_c.jsonl",
    "wiki_paragraphs/cmrc2018_train.jsonl",
    "wiki_paragraphs/drcd_test.jsonl",
)


def read_treebank(path: Path) -> list[list[tuple[str, bool]]]:
    """Return the sentences of a CoNLL-U file: words, and whether white space follows."""
    sentences: list[list[tuple[str, bool]]] = [[]]
    for line in path.read_text(encoding="utf-8").split("\n"):
        fields = line.split("\t")
        if not line:
            sentences.append([])
        elif fields[0].isdigit():
            sentences[-1].append((fields[1], "SpaceAfter=No" not in fields[9]))
    return [sentence for sentence in sentences if sentence]


def spans(starts: np.ndarray[Any, Any], is_space: np.ndarray[Any, Any]) -> set[tuple[int, int]]:
    """Return the words as (first character, end), counted without white space."""
    edges = [*np.flatnonzero(starts[~is_space]).tolist(), int((~is_space).sum())]
    return set(pairwise(edges))


def score(sentences: list[list[tuple[str, bool]]], segmenter: Segmenter) -> dict[str, float]:
    """Return precision, recall, F1 and speed of a segmenter."""
    right = found = gold = 0
    for sentence in sentences:
        text = "".join(word + " " * space for word, space in sentence)
        is_space = code_points(text) == ord(" ")
        truth = np.zeros(len(text), dtype=np.bool_)
        truth[np.cumsum([0, *(len(word) + space for word, space in sentence[:-1])])] = True
        starts = character_starts(text, segmenter)
        ours, theirs = spans(starts, is_space), spans(truth, is_space)
        right, found, gold = right + len(ours & theirs), found + len(ours), gold + len(theirs)
    whole = "\n".join("".join(word for word, _ in sentence) for sentence in sentences)
    start = time.process_time()
    character_starts(whole, segmenter)
    seconds = time.process_time() - start
    return {
        "precision": right / found,
        "recall": right / gold,
        "f1": 2 * right / (found + gold),
        "megabytes_per_second": len(whole.encode("utf-8")) / 1e6 / seconds,
    }


def article_lines() -> Iterator[str]:
    """Yield the lines of the articles."""
    for name in ARTICLES:
        for line in (shared_data() / name).read_text(encoding="utf-8").split("\n"):
            if line:
                yield from json.loads(line)["text"].split("\n")


def main(arguments: Sequence[str]) -> None:
    """Print the table, then one line of JSON."""
    warnings.simplefilter("ignore")  # jieba's own
    limit = 100 if "--quick" in arguments else None
    treebanks = {name: read_treebank(shared_data() / file)[:limit] for name, file in TREEBANKS.items()}
    start = time.process_time()
    words = learn_words(article_lines(), max_characters=100_000 if limit else 1 << 25)
    print(f"statistics: {len(words):,} words learned in {time.process_time() - start:.1f} s")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        learned = Path(folder) / "words.txt"
        write_words(learned, words)
        lists = {
            "longest": shared_data() / "word_frequency" / "jieba_dict_small.txt",
            "statistics": learned,
            "rjieba": None,
            "jieba": None,
            "none": None,
        }
        for kind, dictionary in lists.items():
            try:
                segmenter = make_segmenter(kind, dictionary)
            except MissingExtraError as error:
                print(f"{kind}: not measured: {error}")
                continue
            if segmenter.cut is None:
                segmenter = Segmenter("none", list)  # each character a word, runs of letters whole
            segmenter.cut("预热")  # dictionaries are loaded at the first call
            for name, sentences in treebanks.items():
                rows.append({"segmenter": kind, "treebank": name, **score(sentences, segmenter)})
                row = rows[-1]
                print(
                    f"{kind:10} {name:20} F1 {row['f1']:.3f}  precision {row['precision']:.3f}  recall "
                    f"{row['recall']:.3f}  {row['megabytes_per_second']:6.1f} MB per CPU second",
                    flush=True,
                )
    print(json.dumps({"machine": facts(), "words_learned": len(words), "rows": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
