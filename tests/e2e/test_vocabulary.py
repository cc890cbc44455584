"""WordPiece and learned words the whole way: text, vocabulary, run, fill, more characters, transformers."""

import json

import numpy as np
import pytest

from xuebu.cli import main

PARTS = ("用", "看", "的论文", "在学", "很贵", "iPhone15", "Transformer", "tokenizer", "café", "BERT", "GPU", "，")
SMALL = [
    "--model.num-layers", "1", "--model.hidden-size", "32", "--model.num-heads", "2", "--model.intermediate-size", "64",
    "--batches.sequences-per-step", "8", "--batches.objective", "mlm", "--batches.mask-unit", "word",
    "--train.threads", "1", "--train.precision", "fp32", "--train.steps", "4", "--train.warmup-steps", "1",
    "--train.evaluate-every", "2", "--evaluation.predictions", "200", "--evaluation.min-predictions", "50",
    "--evaluation.final-predictions", "200", "--corpus.min-han-share", "0.1", "--corpus.held-out-fraction", "0.2",
]  # fmt: skip


def run(capsys, *arguments, code=0):
    """Run a command in this process; return what it printed."""
    found = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert found == code, printed.out + printed.err
    return printed.out if code == 0 else printed.err


@pytest.fixture(scope="module")
def texts(documents_of, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rng = np.random.default_rng(5)
    documents = []
    for document in documents_of(60, seed=4, name="d"):
        mixed = ["".join(PARTS[index] for index in rng.integers(len(PARTS), size=9)) + "。" for _ in range(3)]
        text = "\n".join([*document.sentences, *mixed])
        documents.append({"id": document.id, "title": document.id, "text": text})
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in documents), encoding="utf-8")
    return path


@pytest.mark.long
def test_wordpiece_from_text_to_transformers(texts, tmp_path, capsys):
    from transformers import AutoTokenizer

    study = tmp_path / "study"
    settings = ["--vocabulary.kind", "wordpiece", "--vocabulary.max-size", 1000, "--store.segmenter", "statistics"]
    run(capsys, "study", texts, "--out", study, *SMALL, *settings)
    assert json.loads((study / "store" / "train" / "metadata.json").read_text())["segmenter"].startswith("statistics, ")
    assert (study / "words.txt").read_text(encoding="utf-8")

    filled = json.loads(run(capsys, "fill", study, "用iPhone15看[MASK]文。☃", "--as-json"))
    assert len(filled) == 1 and filled[0]["unknown_characters"] == ["☃"]

    shown = json.loads(run(capsys, "vocab", "show", study / "model", "--text", "用iPhone15看café", "--as-json"))
    tokenizer = AutoTokenizer.from_pretrained(study / "model")
    assert tokenizer("用iPhone15看café", add_special_tokens=False)["input_ids"] == shown["ids"]
    assert shown["kind"] == "wordpiece" and "iphone" in "".join(shown["tokens"]).replace("##", "")

    larger, more = tmp_path / "larger", tmp_path / "more.txt"
    more.write_text("堆雪人☃☃，雪人☃。\n☃雪snowman\n", encoding="utf-8")
    assert "☃" in run(capsys, "vocab", "extend", study / "model", "--on", more, "--out", larger)
    (filled,) = json.loads(run(capsys, "fill", larger, "看[MASK]☃", "--as-json"))
    assert filled["unknown_characters"] == []
    assert "lacks nothing" in run(capsys, "vocab", "extend", larger, "--on", more, "--out", tmp_path / "x", code=2)
    assert "holds vocab.txt" in run(capsys, "vocab", "extend", study / "model", "--on", more, "--out", larger, code=2)

    compared = run(capsys, "vocab", "compare", study / "model", larger, "--on", more)
    assert "[UNK] tokens" in compared and "only in" in compared
    as_json = json.loads(run(capsys, "vocab", "compare", study / "model", larger, "--on", more, "--as-json"))
    before, after = (report["unknown"] for report in as_json["reports"])
    assert {"☃": 2, "☃☃": 1}.items() <= before.items() and not {"☃", "雪"} & after.keys()


def test_vocabularies_of_several_files_do_not_depend_on_their_order(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("学步学步abab\n" * 3, encoding="utf-8")
    (tmp_path / "b.txt").write_text("而行abc abcd\n" * 3, encoding="utf-8")
    for name, order in {"one": "ab", "two": "ba"}.items():
        files = [tmp_path / f"{letter}.txt" for letter in order]
        run(capsys, "vocab", "train", *files, "--out", tmp_path / name, "--kind", "wordpiece", "--size", 60)
    one, two = ((tmp_path / name / "vocab.txt").read_text(encoding="utf-8") for name in ("one", "two"))
    assert one == two and "##b" in one.split("\n")
    refused = run(capsys, "vocab", "train", tmp_path / "a.txt", "--out", tmp_path / "one", code=2)
    assert "holds vocab.txt" in refused
    assert "name a corpus or a text file" in run(capsys, "vocab", "train", "--out", tmp_path / "three", code=2)
