"""Every command, as a user calls it: in a process of its own, on small real text."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A model of some thousand parameters: what is tested is the way, not the learning.
SMALL = [
    "--model.num-layers", "1", "--model.hidden-size", "32", "--model.num-heads", "2", "--model.intermediate-size", "64",
    "--batches.sequences-per-step", "16", "--train.threads", "1", "--train.precision", "fp32",
    "--train.learning-rate", "0.005",
]  # fmt: skip


def xuebu(*arguments, cwd=None, env=None, check=True, timeout=240):
    """Run a command; return what it printed and its exit code."""
    process = subprocess.run(
        [sys.executable, "-m", "xuebu", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert process.returncode == 0, process.stdout + process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    return process


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of the built-in sample."""
    folder = tmp_path_factory.mktemp("e2e") / "study"
    steps = [
        "--train.steps",
        60,
        "--train.warmup-steps",
        6,
        "--train.evaluate-every",
        2,
        "--train.checkpoint-every",
        20,
    ]
    process = xuebu("study", "--out", folder, *SMALL, *steps)
    return folder, process.stdout


def test_study_prints_figures_baselines_fills_and_places(study):
    folder, printed = study
    for name in ("report.html", "model", "history.jsonl", "analysis.json", "charts"):
        assert (folder / name).exists()
        assert name in printed.replace("\n", "")
    assert "n-gram that sees both" in printed  # the cell may be wrapped
    assert printed.count("[MASK]") >= 3
    assert re.search(r"\d\.\d to \d+\.\d", printed)  # an interval


def test_study_measures_enough(study):
    folder, _ = study
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [record for record in records if record["kind"] == "eval"]
    assert len(evaluations) >= 30
    assert all(record["mlm_predictions"] >= 2000 for record in evaluations)
    scores = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
    assert scores["mlm"]["model"]["predictions"] == scores["mlm"]["ngram"]["predictions"] >= 2000
    difference = scores["mlm"]["difference_from_ngram"]
    assert difference["low"] < difference["value"] < difference["high"] < 0  # 60 steps do not beat counting
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']https?:""", report)


def test_study_again_only_reads(study):
    folder, printed = study
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*")}
    steps = [
        "--train.steps",
        60,
        "--train.warmup-steps",
        6,
        "--train.evaluate-every",
        2,
        "--train.checkpoint-every",
        20,
    ]
    again = xuebu("study", "--out", folder, *SMALL, *steps)
    assert again.stdout.splitlines()[-8:] == printed.splitlines()[-8:]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*")}


def test_study_with_other_settings_is_refused(study):
    folder, _ = study
    process = xuebu("study", "--out", folder, *SMALL, "--train.steps", 61, "--train.warmup-steps", 6, check=False)
    assert process.returncode == 2
    assert "train.steps" in process.stderr and "--fresh" in process.stderr


def test_fill_params_presets_analyze(study):
    folder, _ = study
    filled = json.loads(xuebu("fill", folder, "学而时习[MASK]，不亦说[MASK]？", "--as-json", "--top-k", 3).stdout)
    assert len(filled) == 2 and len(filled[0]["candidates"]) == 3
    assert "[MASK]" in xuebu("fill", folder, "没有空格", check=False).stderr
    assert "48,398,152" in xuebu("params", "--preset", "reference", "--vocab-size", 10054).stdout
    assert "reference-hf" in xuebu("presets").stdout
    assert "report" in xuebu("analyze", folder, "--language", "zh").stdout
    assert 'lang="zh' in (folder / "report.html").read_text(encoding="utf-8")


def test_corpus_vocab_train_step_by_step(tmp_path):
    corpus, vocab, run = tmp_path / "corpus", tmp_path / "vocab", tmp_path / "run"
    assert "held" in xuebu("corpus", "build", "--out", corpus, "--corpus.held-out-fraction", 0.1).stdout
    assert xuebu("corpus", "build", "--out", corpus, check=False).returncode == 2
    assert "sentences" in xuebu("corpus", "card", corpus).stdout
    failed = xuebu("corpus", "verify", corpus, check=False)
    assert failed.returncode == 1 and "100,000" in failed.stdout
    assert xuebu("corpus", "verify", corpus, "--recipe", "sample").returncode == 0
    xuebu("vocab", "train", corpus, "--out", vocab)
    assert "学:" in xuebu("vocab", "show", vocab, "--text", "学而时习之").stdout
    steps = ["--train.steps", 8, "--train.warmup-steps", 1, "--train.evaluate-every", 4]
    xuebu("train", "--corpus", corpus, "--vocab", vocab, "--out", run, *SMALL, *steps)
    assert (run / "report.html").exists() and (run / "model" / "config.json").exists()


WITH_DROPOUT = [
    *SMALL, "--model.dropout", "0.1", "--train.steps", 40, "--train.warmup-steps", 4, "--train.evaluate-every", 20,
    "--train.record-every", 7,
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    xuebu("study", "--out", folder, *WITH_DROPOUT)
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, whole, number, code):
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "-m", "xuebu", "study", "--out", str(cut), *map(str, WITH_DROPOUT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not ((cut / "history.jsonl").exists() and '"train"' in (cut / "history.jsonl").read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == code, printed
    assert "saved at step" in printed
    xuebu("train", "--resume", cut)
    assert (cut / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    volatile = {"seconds", "tokens_per_second", "mfu", "peak_flops"}
    histories = [
        [
            {key: value for key, value in json.loads(line).items() if key not in volatile}
            for line in (folder / "history.jsonl").read_text().splitlines()
        ]
        for folder in (whole, cut)
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study", "none.txt"], ["none.txt", "no such file"]),
        (["study", "empty.txt"], ["empty.txt", "empty"]),
        (["study", "gb.txt"], ["gb.txt:2", "not UTF-8", "iconv"]),
        (["study", "cut.txt.gz"], ["cut.txt.gz", "cut short"]),
        (["study", "bad.jsonl"], ["bad.jsonl:2"]),
        (["study", "one.txt"], ["held_out_fraction"]),
        (["study", "--recipe", "nonesuch"], ["nonesuch", "sample"]),
        (["study", "--recipe", "wrong.toml"], ["wrong.toml", "train.step", "train.steps"]),
        (["study", "--train.steps", "0"], ["train.steps"]),
        (["train"], ["--corpus", "--out"]),
        (["train", "--resume", "."], ["not a run folder"]),
        (["train", "--resume", ".", "--train.steps", "3"], ["--train.steps"]),
        (["corpus", "card", "."], ["card.json"]),
        (["vocab", "show", "one.txt"], ["one.txt"]),
        (["analyze", "none.json"], ["none.json"]),
        (["analyze", "bad.json"], ["bad.json:1"]),
        (["fill", ".", "学[MASK]"], ["model"]),
        (["frobnicate"], ["frobnicate", "--help"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(tmp_path, arguments, words):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "gb.txt").write_bytes("好的开头。\n".encode() + "坏的编码".encode("gb18030"))
    (tmp_path / "cut.txt.gz").write_bytes(bytes.fromhex("1f8b08000000000000ff4b4c4a4e49"))
    (tmp_path / "bad.jsonl").write_text(
        '{"id": "1", "title": "a", "text": "一句话。"}\n{"id": "2"}\n', encoding="utf-8"
    )
    (tmp_path / "one.txt").write_text("只有这一句完整而且足够长的话，别的什么也没有。", encoding="utf-8")
    (tmp_path / "wrong.toml").write_text("[train]\nstep = 3\n", encoding="utf-8")
    (tmp_path / "bad.json").write_text('{"steps": [1, 2', encoding="utf-8")
    process = xuebu(*arguments, cwd=tmp_path, check=False)
    assert process.returncode == 2, process.stdout + process.stderr
    lines = [line for line in process.stderr.split("\n") if line.startswith("xuebu:")]
    assert len(lines) == 1, process.stderr
    for word in words:
        assert word in lines[0]


def test_help_is_quick_and_names_every_command():
    start = time.perf_counter()
    printed = xuebu("--help").stdout
    assert time.perf_counter() - start < 2.0  # 0.02 s on an idle machine; torch alone would take longer
    from xuebu.cli import COMMANDS

    assert all(name in printed for name in COMMANDS)
    code = (
        "import sys; from xuebu.cli import main; main(['--help']); "
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'tyro'}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip().endswith("[]")
