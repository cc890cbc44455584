"""datatrove's local executor and the built-in build give the same corpus, near-duplicates included."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from xuebu.corpus import parts
from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import CorpusFile
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.errors import ConfigError, InputError

pytest.importorskip("datatrove", reason="the extra `cluster` is not installed")

from xuebu.corpus.cluster import corpus_stages, run_locally

SETTINGS = CorpusSettings(held_out_fraction=0.2, near_duplicates="drop", write_refused=True)


def write_texts(folder: Path) -> Path:
    """Write documents with near-duplicates, equal sentences, equal ids and an empty file."""
    folder.mkdir()
    chooser = random.Random(4)
    texts: list[str] = []
    for number in range(60):
        if number % 6 == 5:
            place = chooser.randrange(100)
            texts.append(texts[-2][:place] + "改" + texts[-2][place + 1 :])
        else:
            letters = (chr(chooser.randrange(0x4E00, 0x9F00)) for _ in range(400))
            texts.append(re.sub("(.{39}).", r"\1。", "".join(letters)) + "这一句话到处都有，不止一次。")
    for file in range(3):
        lines = (f'{{"id": "{n}", "title": "题{file}-{n}", "text": "{texts[20 * file + n]}"}}\n' for n in range(20))
        (folder / f"{file}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "empty.jsonl").touch()
    return folder


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_datatrove_and_the_build_give_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = write_texts(tmp_path / "texts")
    expected = build_corpus(read_documents([texts], SETTINGS), tmp_path / "built", SETTINGS)
    assert expected.refusals["near_duplicate_document"].count == 10
    assert expected.renamed_ids > 20 and expected.refusals["empty_file"].count == 1
    monkeypatch.setattr(parts, "MIN_PART_BYTES", 8_000)
    reader = read_documents([texts], SETTINGS)
    stages = corpus_stages(reader, tmp_path / "cluster", SETTINGS)
    assert stages[0].tasks > 4
    card = run_locally(stages, tmp_path / "cluster", tmp_path / "logs")
    assert card == expected
    found, must = files_of(tmp_path / "cluster"), files_of(tmp_path / "built")
    assert sorted(found.pop("refused.jsonl").splitlines()) == sorted(must.pop("refused.jsonl").splitlines())
    assert found == must


@dataclass(frozen=True)
class DropEven:
    """Stands for one of datatrove's filters."""

    def __call__(self, data, rank, world_size):
        yield from (each for each in data if int(each.id) % 2)


def test_a_filter_of_datatrove_may_stand_between_and_stages_go_on(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    settings = CorpusSettings(held_out_fraction=0.2)
    out = tmp_path / "out"
    stages = corpus_stages(read_documents([texts], settings), out, settings)
    stages[0].pipeline.insert(1, DropEven())
    with pytest.raises(InputError, match="no corpus|not there"):
        run_locally(stages[:4], out, tmp_path / "logs")  # interrupted
    sieved = next(out.glob(".unfinished/done/sieve.*.json"))
    before = sieved.stat().st_mtime_ns
    again = corpus_stages(read_documents([texts], settings), out, settings)
    again[0].pipeline.insert(1, DropEven())
    with pytest.raises(InputError):
        run_locally(again[:1], out, tmp_path / "logs")
    sieved_again = sieved.stat().st_mtime_ns
    card = run_locally(again, out, tmp_path / "logs")
    assert card.documents_read == 30
    assert all(int(document.id.split("~")[0]) % 2 for document in CorpusFile(out / "train.jsonl"))
    assert sieved_again == before  # not done again


def test_the_hub_is_refused(tmp_path: Path) -> None:
    reader = read_documents([], SETTINGS, hub=["owner/name"])
    with pytest.raises(ConfigError, match="data sets of the hub are not read on a cluster"):
        corpus_stages(reader, tmp_path / "out", SETTINGS)
