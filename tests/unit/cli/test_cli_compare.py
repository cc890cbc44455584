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
