"""`xuebu compare` as it is called: tables, files, and no torch."""

import json
import subprocess
import sys

import pytest

from xuebu.cli import main

WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "tokenizers", "safetensors", "transformers", "rjieba"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Refuse())
from xuebu.cli import main
raise SystemExit(main(["compare", *sys.argv[1:]]))
"""


@pytest.fixture
def logs(tmp_path):
    for number, name in enumerate(("a", "b")):
        steps = list(range(10, 410, 10))
        accuracy = [0.1 * (number + 1) + step / 4000 + 0.002 * (step % 3) for step in steps]
        (tmp_path / f"{name}.json").write_text(json.dumps({"steps": steps, "mlm_acc": accuracy}))
    return [str(tmp_path / "a.json"), str(tmp_path / "b.json")]


def test_tables_and_files(logs, tmp_path, capsys):
    assert main(["compare", *logs, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for shown in ("Runs side by side", "Differences to a.json", "points", "b.json beside a.json", "note: "):
        assert shown in printed
    table = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert table["names"] == ["a.json", "b.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.json",
        "comparison.png",
        "comparison.svg",
    ]


def test_one_run_is_too_few(logs, capsys):
    assert main(["compare", logs[0]]) == 2
    assert "give two to 6" in capsys.readouterr().err


def test_torch_is_not_needed(logs, tmp_path):
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *logs, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reference_is_saved_and_held_against(logs, tmp_path, capsys):
    folder = ["--references", str(tmp_path / "kept")]
    assert main(["compare", *logs, "--save", "base", *folder]) == 0
    assert (tmp_path / "kept" / "base.json").is_file()
    capsys.readouterr()
    assert main(["compare", logs[0], "--reference", "base", *folder, "--out", str(tmp_path / "out")]) == 0
    assert "a.json lies in the band of base" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "reference.json").read_text())["held"][0]["judged"] == "inside"
    assert (tmp_path / "out" / "seed_bands.png").stat().st_size > 10_000
    assert main(["compare", logs[0], "--reference", "other", *folder]) == 2
    assert "saved are: base" in capsys.readouterr().err
    assert main(["compare", *logs, "--save", "base", "--reference", "base", *folder]) == 2


def test_curves_are_laid_over_each_other_and_seeds_are_grouped(logs, capsys):
    assert main(["compare", *logs, "--seeds", "2", "--target", "0.15"]) == 0
    printed = capsys.readouterr().out
    for shown in ("b.json against a.json, by step", "different from the first common record", "mean difference"):
        assert shown in printed
    assert "Seeds as replicates" in printed
    assert "to 15.0 %" in printed
    assert main(["compare", *logs, "--by", "tokens"]) == 2
    assert "no record has tokens; align by step" in capsys.readouterr().err
    assert main(["compare", *logs, "--seeds", "3"]) == 2
    assert "add up to 2" in capsys.readouterr().err
