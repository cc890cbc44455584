"""A wiki's dump to text: xuebu against wikiextractor on the same generated dump, alternating in one run.

    python benchmarks/dumps.py [--quick] [--pages 20000] [--rounds 3]

wikiextractor (AGPL) is no dependency and never imported: its program is run where one is found, named by the
environment variable XUEBU_WIKIEXTRACTOR or on the path (`pip install wikiextractor` in an environment of its own);
otherwise its rows are missing. Templates are not expanded by either. MB are of the XML, decompressed. CPU seconds are
those of all processes together; on a machine with other work they say more than the clock. "Sentences right" is the
share of the sentences that a page must come to (known, since the dump is generated) that stand in its text, equal to
the character.
"""

from __future__ import annotations

import argparse
import bz2
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from generated_dump import generate_pages, write_dump
from machine import facts
from xuebu.corpus.clean import clean_text
from xuebu.corpus.dump import chunks_of, convert_chunk
from xuebu.corpus.formats import read_wikiextractor
from xuebu.corpus.sentences import split_sentences
from xuebu.corpus.workers import Workers


def extract_by_xuebu(dump: Path, workers: int) -> Iterator[tuple[str, str]]:
    convert = partial(convert_chunk, namespaces=frozenset({0}), variant="zh-cn")
    with Workers(workers) as pool:
        for converted in pool.map(convert, chunks_of(dump)):
            yield from ((id, text) for id, _, _, text, reason in converted.pages if not reason)


def extract_by_wikiextractor(program: str, dump: Path, workers: int, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(
        [program, dump, "-o", out, "--no-templates", "--quiet", "--processes", str(workers)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wikiextractor_pages(out: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(out.rglob("wiki_*")):
        for document in read_wikiextractor(file, file.name, "generated"):
            yield document.id, document.text


def decompress(dump: Path) -> int:
    with bz2.open(dump) as stream:
        return sum(map(len, iter(lambda: stream.read(1 << 20), b"")))


def sentences_of(text: str) -> list[str]:
    return [piece.strip() for line in clean_text(text).split("\n") for piece in split_sentences(line)]


def share_right(pages: Iterable[tuple[str, str]], wanted: dict[str, str]) -> float:
    """Return the share of the wanted sentences that stand in the text of their page."""
    right = 0
    for id, text in pages:
        found = set(sentences_of(text))
        right += sum(sentence in found for sentence in sentences_of(wanted.get(id, "")))
    return right / sum(len(sentences_of(text)) for text in wanted.values())


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds by the clock, and of all processors together, that a piece of work takes."""
    start, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return time.perf_counter() - start, sum(after[:4]) - sum(before[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="400 pages, one round")
    asked = parser.parse_args()
    num_pages, rounds = (400, 1) if asked.quick else (asked.pages, asked.rounds)
    program = os.environ.get("XUEBU_WIKIEXTRACTOR") or shutil.which("wikiextractor")
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        dump, out = write_dump(Path(name), num_pages), Path(name) / "out"
        megabytes = decompress(dump) / 1e6
        ways: dict[str, Callable[[], object]] = {"decompression alone": lambda: decompress(dump)}
        for workers in sorted({1, cores}):
            ways[f"xuebu, {workers}"] = lambda workers=workers: sum(1 for _ in extract_by_xuebu(dump, workers))
            if program:
                ways[f"wikiextractor, {workers}"] = lambda workers=workers: extract_by_wikiextractor(
                    program, dump, workers, out
                )
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, work in ways.items():
                times[way].append(seconds_of(work))
        wanted = {str(page.id): page.text for page in islice(generate_pages(0), num_pages) if not page.reason}
        kept = {"xuebu": share_right(extract_by_xuebu(dump, cores), wanted)}
        if program:
            kept["wikiextractor"] = share_right(wikiextractor_pages(out), wanted)

    print(f"{num_pages:,} pages, {megabytes:.1f} MB of XML; medians of {rounds}; processes after the comma")
    print(f"{'':24}{'seconds':>9}{'pages/s':>10}{'MB/s':>8}{'CPU s':>9}{'MB/CPU s':>10}")
    for way, each in times.items():
        clock, cpu = (statistics.median(one) for one in zip(*each, strict=True))
        rates = f"{num_pages / clock:>10.0f}{megabytes / clock:>8.2f}{cpu:>9.2f}{megabytes / cpu:>10.2f}"
        print(f"{way:24}{clock:>9.2f}{rates}")
    for tool, share in kept.items():
        print(f"sentences right, {tool}: {share:.2%}")
    if not program:
        print("wikiextractor not measured: not found (see the head of this file)")
    result = {"pages": num_pages, "megabytes": megabytes, "seconds": times, "sentences_right": kept}
    print(json.dumps({"benchmark": "dumps", **result, "machine": facts()}))


if __name__ == "__main__":
    main()
