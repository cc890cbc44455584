"""`xuebu vocab masks` on a run, a store and a text: what it prints, its exit codes, and hostile text."""

import dataclasses
import json

import pytest

from xuebu.cli import main
from xuebu.corpus.document import SentenceDocument
from xuebu.train import machine
from xuebu.train.folder import RunFolder
from xuebu.train.session import start_run
from xuebu.train.trainer import StopRequest

TEXT = "孩子们追着风筝跑过石桥，老人在树下讲故事。傍晚的村子里炊烟升起！"


def masks(*arguments):
    return main(["vocab", "masks", *map(str, arguments)])


def test_a_store_with_its_vocabulary_beside_it(tokens, capsys):
    assert masks(tokens.folder / "train", "--preview", 2, "--tokens", 3_000, "--batches.mask-unit", "word") == 0
    shown = capsys.readouterr().out
    assert "words masked whole" in shown and "100.00%" in shown and "what chance allows" in shown
    assert "【" in shown and "\x1b" not in shown  # piped: marked, not colored
    assert "pairs of true neighbors" in shown and "(b follows)" in shown and "(b does not follow)" in shown


def test_json_is_the_same_in_figures(tokens, capsys):
    arguments = (
        tokens.folder / "train",
        "--tokens",
        3_000,
        "--batches.objective",
        "sop",
        "--batches.mask-unit",
        "span",
    )
    assert masks(*arguments, "--as-json", "--preview", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problem"] == "" and found["whole_word_share"] == 1.0
    assert found["counts"]["predicted"] == sum(entry["predicted"] for entry in found["by_class"].values())
    (example,) = found["examples"]
    assert example["label"] in (0, 1) and "[SEP]" in example["text"]
    for chosen in example["chosen"]:
        assert chosen["token"] in example["text"] and chosen["shown"] in example["input"]


def test_a_text_a_file_and_escape_codes(tmp_path, capsys):
    assert masks(TEXT, "--tokens", 2_000, "--batches.mask-unit", "word") == 0
    assert "孩子·们" in capsys.readouterr().out.replace("【", "").replace("】", "").replace("<", "").replace(">", "")
    path = tmp_path / "text.txt"
    path.write_text(f"\ufeff[red]{TEXT}\x1b[31m[/red]", encoding="utf-8")
    assert masks(path, "--tokens", 500, "--preview", 5) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "[" in shown
    path.write_bytes(b"\xff\xfe\x00")
    assert masks(path) == 2
    assert "is not UTF-8" in capsys.readouterr().err


def test_a_no_op_is_exit_code_1(tokens, store_of, capsys):
    store = store_of(tokens.train_documents)
    arguments = (store.folder, "--vocab", tokens.folder / "vocab", "--batches.mask-unit", "word", "--preview", 0)
    assert masks(*arguments, "--tokens", 5_000) == 1
    error = capsys.readouterr().err
    assert error.startswith("xuebu: ") and "would do nothing" in error and error.count("\n") == 1


def test_a_run_gives_its_own_settings(tokens, recipe_of, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(machine, "measure_peak", lambda device, precision: 1e11)
    recipe = recipe_of(batches={"mask_unit": "ngram", "mask_rate": 0.3})
    folder = RunFolder(tmp_path / "run")
    places = {"train_store": "train", "held_out_store": "held_out", "vocabulary": "vocab"}
    start_run(
        folder, recipe, stop=StopRequest("SIGTERM"), **{name: tokens.folder / part for name, part in places.items()}
    )
    assert masks(folder.path, "--tokens", 3_000, "--preview", 0, "--as-json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mask_unit"] == "ngram" and found["rate_asked"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((".",), "neither a run nor a token store"),
        (("   ",), "neither a run, a token store, a file nor a text"),
        ((TEXT, "--tokens", 0), "--tokens must be at least 1"),
        ((TEXT, "--batches.mask-unit", "pmi"), "needs a store cut by collocations"),
        ((TEXT, "--batches.mask-rate", "1.5"), "must be 0.01 to 0.9"),
        ((TEXT, "--vocab", "nowhere"), "No such file"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert masks(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("xuebu: ") and message in error


def test_a_store_without_a_vocabulary(tokens, store_of, capsys):
    document = SentenceDocument(id="a", title="", group="a", source="s", sentences=("春天河水",))
    store = store_of([document, dataclasses.replace(document, id="b", group="b")])
    assert masks(store.folder) == 2
    assert "name it by --vocab" in capsys.readouterr().err
