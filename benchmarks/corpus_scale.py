"""Does a corpus of any size build in bounded memory, how fast, and right? Generated texts with known repeats.

Texts are drawn by chance (the seed fixes them): no two sentences share a run of characters, but for those that are
repeated on purpose, so it is known how many documents and sentences the corpus must hold. The build runs in processes
of its own, whose peaks of resident memory (VmHWM) are added up: an upper bound, since they share pages.

    PYTHONPATH=src python benchmarks/corpus_scale.py [--megabytes 500] [--workers N] [--folder DIR] [--steps] [--quick]

MB are of the JSON lines that are read. CPU seconds are those of all processes together, user and system; on a machine
with other work they say more than the clock. `--steps` builds in one process instead, and tells the CPU seconds of each
step; of those of the sieve, "record" is what does not read, clean or cut: digests, counts for the card, lines written.
XUEBU_SHARED_DATA=DIR also builds from real prose, a copy of all .jsonl of its folders of documents.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts
from xuebu.corpus import build as build_module
from xuebu.corpus import reading as reading_module
from xuebu.corpus.card import Card, load_card
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.progress import SILENT

SENTENCES, LENGTH = 20, 40  # a document's sentences, and a sentence's characters, its end mark included
BLOCK = 1_000  # documents that are drawn at once
COPIES, BOILERPLATE = 20, 10  # one document in 20 copies an earlier one; one in 10 begins with a common sentence
COMMON = 1_000  # different common sentences
PROSE = ("wiki_paragraphs", "zh_histories_modern", "zh_laws", "zhwiki")
HELD_OUT_FRACTION = 0.005


@dataclass(slots=True)
class Expected:
    """What a corpus of the generated texts must hold.

    Attributes:
        size: bytes written.
        documents: documents written.
        copies: those that copy an earlier one.
        sentences: sentences written.
        distinct: different ones.
    """

    size: int = 0
    documents: int = 0
    copies: int = 0
    sentences: int = 0
    distinct: int = 0


def _drawn(chooser: np.random.Generator, count: int) -> list[str]:
    codes = chooser.integers(0x4E00, 0x9F00, size=(count, LENGTH), dtype=np.uint32)
    codes[:, -1] = ord("。")
    text = codes.tobytes().decode("utf-32-le")
    return [text[start : start + LENGTH] for start in range(0, count * LENGTH, LENGTH)]


def generate(seed: int, expected: Expected) -> Iterator[str]:
    """Yield lines of JSON without end, one a document, and count in `expected` what they come to."""
    common = _drawn(np.random.default_rng([seed, 0]), COMMON)
    used: set[int] = set()
    for block in range(1, sys.maxsize):
        chooser = np.random.default_rng([seed, block])
        sentences = _drawn(chooser, BLOCK * SENTENCES)
        which = chooser.integers(0, COMMON, size=BLOCK).tolist()
        for place in range(BLOCK):
            number = (block - 1) * BLOCK + place
            own = sentences[place * SENTENCES : (place + 1) * SENTENCES]
            if place % COPIES == COPIES - 1:  # of the document before, which no rule has changed
                own = sentences[(place - 1) * SENTENCES : place * SENTENCES]
                expected.copies += 1
            elif place % BOILERPLATE == 0:
                own[0] = common[which[place]]
                expected.distinct += SENTENCES - 1 + (which[place] not in used)
                used.add(which[place])
            else:
                expected.distinct += SENTENCES
            expected.documents += 1
            expected.sentences += SENTENCES
            text = "".join(own[: SENTENCES // 2]) + "\\n" + "".join(own[SENTENCES // 2 :])
            line = f'{{"id": "{number}", "title": "第{number}篇", "text": "{text}"}}'
            expected.size += len(line.encode()) + 1
            yield line


def write_texts(folder: Path, megabytes: float, seed: int = 0, files: int = 2) -> Expected:
    """Write files of generated documents, about so many MB together; returns what they come to."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = Expected()
    lines = generate(seed, expected)
    for number in range(files):
        with (folder / f"{number}.jsonl").open("w", encoding="utf-8") as stream:
            while expected.size < megabytes * 1e6 * (number + 1) / files:
                stream.write(next(lines) + "\n")
    return expected


def check(card: Card, expected: Expected) -> None:
    """Stop unless a corpus holds what it must."""
    found = {
        "documents read": (card.documents_read, expected.documents),
        "documents": (card.documents, expected.documents - expected.copies),
        "sentences": (card.sentences, expected.distinct),
        "duplicate sentences": (card.duplicates, expected.sentences - expected.distinct),
        "duplicate documents": ((card.duplicates_by_unit or {})["document"], expected.copies),
    }
    wrong = [f"{name} {is_}, not {must}" for name, (is_, must) in found.items() if is_ != must]
    if wrong:
        raise SystemExit(f"the corpus is wrong: {'; '.join(wrong)}")


class MemoryWatch:
    """The peak memory of a process and all its descendants: the sum of the peaks of each, and of all at one time."""

    def __init__(self, pid: int) -> None:
        self.peaks: dict[int, int] = {}
        self.together = 0
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            now = 0
            for pid in _family(self._pid):
                status = _status(pid)
                self.peaks[pid] = max(self.peaks.get(pid, 0), status.get("VmHWM", 0))
                now += status.get("VmRSS", 0)
            self.together = max(self.together, now)


def _family(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        try:
            children = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        found += map(int, children.split())
    return found


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}


class DiskWatch:
    """The most that a folder held, looked at once a second."""

    def __init__(self, folder: Path) -> None:
        self.peak = 0
        self._folder, self._stop = folder, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> DiskWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            size = 0
            for folder, _, names in os.walk(self._folder):
                for name in names:
                    try:
                        size += (Path(folder) / name).stat().st_size
                    except OSError:
                        continue
            self.peak = max(self.peak, size)


def build(inputs: Path, out: Path, workers: int, *flags: str) -> dict[str, Any]:
    """Build a corpus by the command, and return its seconds, memory and disk."""
    command = [sys.executable, "-m", "xuebu", "corpus", "build", str(inputs), "--out", str(out)]
    command += ["--workers", str(workers), "--corpus.held-out-fraction", str(HELD_OUT_FRACTION), *flags]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        MemoryWatch(process.pid) as memory,
        DiskWatch(out) as disk,
    ):
        printed, _ = process.communicate()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"the build failed\n{printed}")
    return {
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_memory_bytes": sum(memory.peaks.values()),
        "peak_together_bytes": memory.together,
        "peak_disk_bytes": disk.peak,
    }


def time_steps(inputs: Path, out: Path, settings: CorpusSettings) -> tuple[Card, dict[str, float]]:
    """Build a corpus in this process, and return its card and the CPU seconds of each step."""
    seconds: Counter[str] = Counter()

    def timed(function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        def wrapper(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return function(*given, **named)
            finally:
                seconds[name_of(*given)] += time.process_time() - start

        return wrapper

    def timed_items(function: Callable[..., Iterator[Any]], name: str) -> Callable[..., Iterator[Any]]:
        def wrapper(*given: Any) -> Iterator[Any]:
            items = function(*given)
            step = timed(lambda: next(items, None), lambda: name)
            while (item := step()) is not None:
                yield item

        return wrapper

    whole = time.process_time()
    patched: dict[tuple[Any, str], Callable[..., Any]] = {
        (build_module, "run_task"): timed(build_module.run_task, lambda step, *_: step.name),
        (build_module, "sieve_part"): timed(build_module.sieve_part, lambda *_: "record"),
        (build_module, "finish_corpus"): timed(build_module.finish_corpus, lambda *_: "finish"),
        (reading_module, "read_documents_of"): timed_items(reading_module.read_documents_of, "read"),
        (reading_module, "sieve_document"): timed(reading_module.sieve_document, lambda *_: "clean and cut"),
    }
    kept = {(module, name): getattr(module, name) for module, name in patched}
    try:
        for (module, name), function in patched.items():
            setattr(module, name, function)
        card = build_module.build_corpus(read_documents([inputs], settings), out, settings, progress=SILENT)
    finally:
        for (module, name), function in kept.items():
            setattr(module, name, function)
    seconds["record"] -= seconds["read"] + seconds["clean and cut"]
    seconds["cut and wait"] = time.process_time() - whole - sum(seconds.values())
    return card, dict(seconds)


def print_steps(title: str, size: int, seconds: dict[str, float]) -> None:
    whole = sum(seconds.values())
    sieving = seconds["read"] + seconds["clean and cut"]
    print(f"{title}, {size / 1e6:.1f} MB, one process: {size / 1e6 / whole:.2f} MB a CPU second")
    print(
        f"  reading, cleaning and cutting {size / 1e6 / sieving:.1f}, "
        f"all the rest {size / 1e6 / (whole - sieving):.1f} MB a CPU second"
    )
    for name, each in seconds.items():
        print(f"  {name:<14}{each:>9.2f} s {each / whole:>7.1%}")


def main() -> None:
    """Build, check and print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for a temporary folder with texts and corpus")
    parser.add_argument("--steps", action="store_true", help="one process, CPU seconds of each step")
    parser.add_argument("--quick", action="store_true", help="20 MB")
    asked = parser.parse_args()
    size = 20 if asked.quick else asked.megabytes
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        start = time.perf_counter()
        expected = write_texts(folder / "texts", size)
        print(f"{asdict(expected)}, generated in {time.perf_counter() - start:.0f} s", flush=True)
        if asked.steps or asked.quick:
            settings = CorpusSettings(held_out_fraction=HELD_OUT_FRACTION)
            card, seconds = time_steps(folder / "texts", folder / "steps", settings)
            check(card, expected)
            print_steps("generated", expected.size, seconds)
            rows["steps"] = seconds
            shared = os.environ.get("XUEBU_SHARED_DATA")
            if shared:
                prose = folder / "prose"
                prose.mkdir()
                for path in sorted(path for each in PROSE for path in (Path(shared) / each).glob("*.jsonl")):
                    shutil.copyfile(path, prose / f"{path.parent.name}.{path.name}")
                _, rows["prose_steps"] = time_steps(prose, folder / "prose.out", CorpusSettings(held_out_fraction=0.02))
                print_steps("real prose", sum(path.stat().st_size for path in prose.iterdir()), rows["prose_steps"])
            else:
                print("real prose: XUEBU_SHARED_DATA is not set")
        if not asked.steps:
            row = build(folder / "texts", folder / "corpus", asked.workers)
            card = load_card(folder / "corpus")
            check(card, expected)
            megabytes = expected.size / 1e6
            rows["build"] = row | {"megabytes": megabytes, "workers": asked.workers, "digest": card.digest}
            print(
                f"{megabytes:,.0f} MB, {asked.workers} workers: {row['seconds']:,.0f} s, "
                f"{row['cpu_seconds']:,.0f} CPU s ({megabytes / row['cpu_seconds']:.2f} MB a CPU second), "
                f"memory {row['peak_memory_bytes'] / 1e6:,.0f} MB (sum of peaks; at one time "
                f"{row['peak_together_bytes'] / 1e6:,.0f}), disk {row['peak_disk_bytes'] / 1e6:,.0f} MB; "
                "documents and sentences as they must be"
            )
    print(json.dumps({"rows": rows, "machine": facts()}))


if __name__ == "__main__":
    main()
