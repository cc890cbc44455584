"""Building in parts: the same bytes however it is cut and by any number of processes, and after any interruption."""

import gzip
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xuebu.corpus import build as build_module
from xuebu.corpus import equals, holding_out, parts, work
from xuebu.corpus.build import build_corpus
from xuebu.corpus.card import Card, load_card
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.errors import InputError
from xuebu.progress import SilentProgress

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SETTINGS = CorpusSettings(held_out_fraction=0.1, write_refused=True)
BLANK_LINES = CorpusSettings(held_out_fraction=0.1, write_refused=True, txt_documents="blank-line")


def load_benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("corpus_scale", BENCHMARKS / "corpus_scale.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["corpus_scale"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let parts, buckets and blocks be so small that a little text has many of each."""
    monkeypatch.setattr(parts, "MIN_PART_BYTES", 10_000)
    monkeypatch.setattr(equals, "BUCKET_KEYS", 700)
    monkeypatch.setattr(holding_out, "BLOCK_RUNS", 2_000)


class Writer:
    """Writes texts that repeat each other here and there."""

    def __init__(self, seed: int) -> None:
        self.chooser = random.Random(seed)
        self.sentences: list[str] = []

    def sentence(self) -> str:
        if self.sentences and self.chooser.random() < 0.1:
            return self.chooser.choice(self.sentences)
        length = self.chooser.randrange(5, 40)
        self.sentences.append("".join(chr(self.chooser.randrange(0x4E00, 0x9F00)) for _ in range(length)) + "。")
        return self.sentences[-1]

    def paragraphs(self) -> list[str]:
        return ["".join(self.sentence() for _ in range(4)) for _ in range(self.chooser.randrange(1, 4))]

    def line(self, number: int) -> str:
        title = f"题{self.chooser.randrange(40)}"
        return json.dumps({"id": str(number), "title": title, "text": "\n".join(self.paragraphs())}, ensure_ascii=False)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file of each kind that can be cut, some that cannot, and some that are not read."""
    folder = tmp_path_factory.mktemp("texts")
    writer = Writer(1)
    (folder / "a.jsonl").write_text("\n".join(map(writer.line, range(40))) + "\n\n", encoding="utf-8")
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(writer.line(number) + "\n" for number in range(40))
    blocks = ["\n".join(writer.paragraphs()) for _ in range(40)]
    (folder / "c.txt").write_text("\r\n \u3000\n".join(blocks), encoding="utf-8-sig")
    articles = [
        f'<doc id="{n}" title="文{n % 9}">\n文{n % 9}\n\n{"".join(writer.paragraphs())}\n</doc>' for n in range(40)
    ]
    (folder / "wiki_00").write_text("\n".join(articles), encoding="utf-8")
    for number in range(12):
        (folder / f"d{number:02}.md").write_text("# 山水\n\n" + "\n\n".join(writer.paragraphs()), encoding="utf-8")
    (folder / "empty.txt").touch()
    (folder / "picture.png").touch()
    return folder


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def build(texts: Path, out: Path, settings: CorpusSettings = BLANK_LINES, **given) -> Card:
    return build_corpus(read_documents([texts], settings), out, settings, **given)


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus that was built in one part by one process."""
    out = tmp_path_factory.mktemp("whole")
    build(texts, out)
    return out


@pytest.mark.parametrize("near", ["ignore", "drop"])
def test_the_corpus_does_not_depend_on_how_the_input_is_cut(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: str
) -> None:
    settings = CorpusSettings(
        held_out_fraction=0.1, write_refused=True, txt_documents="blank-line", near_duplicates=near
    )
    expected = build(texts, tmp_path / "whole", settings)
    small_parts(monkeypatch)
    assert len(list(read_documents([texts], settings).parts())) > 8
    assert build(texts, tmp_path / "parts", settings) == expected
    found, must = files_of(tmp_path / "parts"), files_of(tmp_path / "whole")
    refused = [sorted(each.pop("refused.jsonl").splitlines()) for each in (found, must)]
    assert refused[0] == refused[1]  # by steps, and within a step by parts
    assert found == must


def test_the_corpus_does_not_depend_on_the_number_of_processes(
    texts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    assert build(texts, tmp_path / "one") == build(texts, tmp_path / "two", workers=2) == load_card(whole)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_parts_hold_whole_documents_in_order(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import Counter

    from xuebu.corpus.refusals import Refusals
    from xuebu.corpus.sources import read_part

    expected = list(read_documents([texts], BLANK_LINES))
    small_parts(monkeypatch)
    reader = read_documents([texts], BLANK_LINES)
    found: Counter[int] = Counter()
    documents = [each for part in reader.parts() for each in read_part(part, BLANK_LINES, Refusals(), found)]
    assert documents == expected  # with ids that count lines
    assert sum(part.size for part in reader.parts()) == sum(file.path.stat().st_size for file in reader.files)
    assert {reader.files[number].name for number in range(len(reader.files)) if not found[number]} == {"empty.txt"}


def test_generated_texts_come_to_what_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = load_benchmark()
    expected = scale.write_texts(tmp_path / "texts", 1)
    monkeypatch.setattr(parts, "MIN_PART_BYTES", 100_000)
    monkeypatch.setattr(equals, "BUCKET_KEYS", 2_000)
    monkeypatch.setattr(holding_out, "BLOCK_RUNS", 10_000)
    settings = CorpusSettings(held_out_fraction=0.05)
    card, seconds = scale.time_steps(tmp_path / "texts", tmp_path / "corpus", settings)
    scale.check(card, expected)
    assert expected.copies > 15 and card.held_out.documents > 8
    assert card.refusals["duplicate_document"].count <= expected.copies  # those held out go sentence by sentence
    assert set(seconds) >= {"read", "clean and cut", "record", "mark", "thin", "compare", "hold_out", "finish"}


KILLED = """
import os, signal, sys
from pathlib import Path
from xuebu.corpus import equals, holding_out, parts, work
from xuebu.corpus.build import build_corpus
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents

texts, out, left, before = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "before"
parts.MIN_PART_BYTES, equals.BUCKET_KEYS, holding_out.BLOCK_RUNS = 10_000, 700, 2_000
done = work.Work.done

def counted(self, step, number, *given):
    global left
    left -= 1
    if left == 0 and before:
        os.kill(os.getpid(), signal.SIGKILL)
    done(self, step, number, *given)
    with open(sys.argv[5], "a") as log:
        print(step, number, file=log)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

work.Work.done = counted
settings = CorpusSettings(held_out_fraction=0.1, write_refused=True, txt_documents="blank-line", near_duplicates="drop")
build_corpus(read_documents([texts], settings), out, settings)
"""


def test_a_build_that_is_killed_goes_on_and_does_nothing_twice(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, log = tmp_path / "killed.py", tmp_path / "log"
    script.write_text(KILLED)
    codes = []
    for number in range(30):
        count, when = (5, 17, 29, 9, 23)[number % 5], "before" if number % 2 else "after"
        command = [sys.executable, script, texts, tmp_path / "out", str(count), when, log]
        codes.append(subprocess.run(command, check=False).returncode)
        if codes[-1] == 0:
            break
    assert codes[-1] == 0 and codes.count(-signal.SIGKILL) == len(codes) - 1 >= 3
    settings = CorpusSettings(
        held_out_fraction=0.1, write_refused=True, txt_documents="blank-line", near_duplicates="drop"
    )
    small_parts(monkeypatch)
    build(texts, tmp_path / "expected", settings)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")
    tasks = [line for line in log.read_text().splitlines() if not line.startswith(("input", "files", "read"))]
    assert len(tasks) == len(set(tasks)) > 40


class Notes(SilentProgress):
    """Keeps the lines that stay."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Stopped(Exception):
    """The build was interrupted."""


def stop_after(monkeypatch: pytest.MonkeyPatch, step: str, error: Exception) -> None:
    """Raise an error where the first task of a step is done."""
    done = work.Work.done

    def broken(self, name, *given):
        if name == step:
            raise error
        done(self, name, *given)

    monkeypatch.setattr(work.Work, "done", broken)


def test_other_settings_begin_anew(texts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context, pytest.raises(Stopped):
        stop_after(context, "settle", Stopped())
        build(texts, tmp_path / "out", SETTINGS)
    notes = Notes()
    build(texts, tmp_path / "out", progress=notes)
    assert not any("going on" in line for line in notes.lines)
    assert files_of(tmp_path / "out") == files_of(whole)


def test_what_other_code_began_is_begun_anew(
    texts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context, pytest.raises(Stopped):
        stop_after(context, "settle", Stopped())
        context.setattr(build_module, "_code_digest", lambda: "of another day")
        build(texts, tmp_path / "out")
    notes = Notes()
    build(texts, tmp_path / "out", progress=notes)
    assert not any("going on" in line for line in notes.lines)
    assert any("other settings or another version" in line for line in notes.lines)
    assert files_of(tmp_path / "out") == files_of(whole)


def test_whatever_a_mark_vouches_for_is_on_the_disk(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    fsync, done = os.fsync, work.Work.done

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.add(str(path.with_name(path.name.removesuffix(".partial").removeprefix("." * path.match(".*.partial")))))

    def checked(self, step, number, *given):
        folders = (self.part(number, ""), self.bucket(number, ""), self.block(number, ""))
        files = {str(path.resolve()) for folder in folders if folder.exists() for path in folder.iterdir()}
        assert step == "read" or files <= synced  # while it is read, the sieve's files are open
        done(self, step, number, *given)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(work.Work, "done", checked)
    settings = CorpusSettings(
        held_out_fraction=0.1, write_refused=True, txt_documents="blank-line", near_duplicates="drop"
    )
    build(texts, tmp_path / "out", settings)
    assert {"fingerprints.npz", "items.npz", "documents.jsonl"} <= {Path(name).name for name in synced}


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("mark", "train.sentence"),
        ("thin", "documents.jsonl"),
        ("thin", "items.npz"),
        ("thin", "regrouped.json"),
        ("name", "train.group"),
    ],
)
def test_a_missing_work_file_is_an_error(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    settings = CorpusSettings(held_out_fraction=0.1, txt_documents="blank-line", near_duplicates="group")
    with monkeypatch.context() as context, pytest.raises(Stopped):
        stop_after(context, step, Stopped())
        build(texts, tmp_path / "out", settings)
    path = next((tmp_path / "out" / ".unfinished" / "parts").glob(f"*/{name}"))
    path.unlink()
    with pytest.raises(InputError, match=f"{path}: missing or damaged, and the unfinished build needs it; remove "):
        build(texts, tmp_path / "out", settings)


@pytest.mark.parametrize("step", ["sieve", "thin", "hold_out"])
def test_a_full_disk_is_one_line_and_costs_nothing(
    texts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as context:
        stop_after(context, step, OSError(28, "No space left on device", "x.jsonl"))
        message = "^x.jsonl: No space left on device; the corpus is not finished; the same command goes on where it st"
        with pytest.raises(InputError, match=message):
            build(texts, tmp_path / "out")
    assert not (tmp_path / "out" / "card.json").exists()
    notes = Notes()
    assert build(texts, tmp_path / "out", progress=notes) == load_card(whole)
    assert files_of(tmp_path / "out") == files_of(whole)
    assert "an unfinished build of these settings; going on with it" in notes.lines[0]


def test_other_texts_begin_anew(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "texts"
    own.mkdir()
    for path in texts.iterdir():
        (own / path.name).write_bytes(path.read_bytes())

    def interrupted(step: str) -> None:
        with monkeypatch.context() as context, pytest.raises(Stopped):
            stop_after(context, step, Stopped())
            build(own, tmp_path / "out")

    def expected(name: str) -> dict[str, bytes]:
        build(own, tmp_path / name)
        return files_of(tmp_path / name)

    small_parts(monkeypatch)
    interrupted("settle")
    (own / "d03.md").unlink()
    with (own / "a.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"text": "又添了一行从前没有的文字，写得足够长。"}\n')
    notes = Notes()
    build(own, tmp_path / "out", progress=notes)
    assert notes.lines[1] == "the input is not what it was before the interruption: beginning anew"
    assert files_of(tmp_path / "out") == expected("changed")
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    interrupted("sieve")
    (own / "wiki_00").unlink()  # fewer parts than before
    build(own, tmp_path / "out")
    assert files_of(tmp_path / "out") == expected("fewer")


def test_an_error_in_a_process_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)
    line = Writer(2).line(1)
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text(f"{line}\n" * 300, encoding="utf-8")
    with (tmp_path / "2.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("torn")
    with pytest.raises(InputError, match=r"2\.jsonl:301: not JSON"):
        build(tmp_path, tmp_path / "out", SETTINGS, workers=2)


def test_ctrl_c_ends_a_build_by_several_processes(tmp_path: Path) -> None:
    writer = Writer(3)
    lines = "\n".join(map(writer.line, range(2000))) + "\n"
    (tmp_path / "a.jsonl").write_text(lines * 9, encoding="utf-8")
    command = [sys.executable, "-m", "xuebu", "corpus", "build", tmp_path / "a.jsonl", "--out", tmp_path / "out"]
    with subprocess.Popen(
        [*command, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 - no thread of ours runs here
    ) as process:
        done = tmp_path / "out" / ".unfinished" / "done"
        while process.poll() is None and not any(_marks(done, "sieve")):
            pass
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, printed = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in printed and "Traceback" not in printed
    assert any(_marks(done, "sieve"))


def _hear_interrupts() -> None:
    """A shell's background job inherits an ignored SIGINT, and so would what a test run there starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _marks(folder: Path, step: str) -> Iterator[Path]:
    return folder.glob(f"{step}.*.json") if folder.exists() else iter(())
