import copy
import json

import numpy as np
import pytest

from xuebu.analysis.analyze import analyze_history
from xuebu.files import write_json
from xuebu.history.records import read_history


def entry(accuracy, predictions, half=0.01):
    return {"accuracy": accuracy, "low": accuracy - half, "high": accuracy + half, "predictions": predictions}


BASELINES = {
    "level": 0.95,
    "clusters": 214,
    "mlm": {
        "model": entry(0.1772, 12345),
        "ngram": {**entry(0.381, 12345), "description": "interpolated, both sides"},
        "most_frequent": {**entry(0.041, 12345), "token": "的"},
        "difference_from_ngram": {"value": -0.2038, "low": -0.2191, "high": -0.1885, "level": 0.95},
        "difference_from_most_frequent": {"value": 0.1362, "low": 0.127, "high": 0.145, "level": 0.95},
        "by_class": {
            "mask": {"model": entry(0.152, 9876), "ngram": entry(0.37, 9876), "most_frequent": entry(0.04, 9876)},
            "kept": {"model": entry(0.44, 1235), "ngram": entry(0.55, 1235)},
        },
        "by_character": {
            "han_1_100": {"model": entry(0.21, 4000), "ngram": entry(0.46, 4000), "training_count": 56789},
            "han_1501_up": {"model": entry(0.02, 345), "ngram": entry(0.2, 345), "training_count": 777},
            "punctuation": {"model": entry(0.61, 1500), "ngram": entry(0.59, 1500), "training_count": 19955},
        },
    },
    "nsp": {
        "model": entry(0.77, 2000),
        "overlap_rule": {**entry(0.69, 2000), "description": "two characters in common"},
        "difference_from_overlap_rule": {"value": 0.08, "low": 0.05, "high": 0.11, "level": 0.95},
    },
    "calibration": {
        "bins": [
            {"probability": 0.05, **entry(0.06, 4938)},
            {"probability": 0.5, **entry(0.42, 4938)},
        ],
        "ece": 0.045,
        "ece_if_calibrated": 0.0042,
        "predictions": 9876,
    },
    "model_bits_per_character": 7.93,
    "ngram_bits_per_character": 5.41,
}
FILLS = [
    {
        "text": "湖水结冰以后，人们在[MASK]上行走，也有人凿洞捕[MASK]。",
        "truth": "冰鱼",
        "masks": [
            {"candidates": [{"token": "冰", "probability": 0.83}, {"token": "湖", "probability": 0.071}]},
            {"candidates": [{"token": "鱼", "probability": 0.5}]},
        ],
    }
]
COUNTS = {"documents": 1173, "groups": 1140, "sentences": 43477, "characters": 1630000, "mean_sentence_length": 37.5}
CARD = {
    "digest": "9f" * 32,
    **COUNTS,
    "sources": {"sample": 1173},
    "splits": {"train": COUNTS, "held_out": COUNTS | {"documents": 61}},
    "refusals": {"too_short": {"level": "sentence", "count": 512, "characters": 3021, "meaning": "fewer characters"}},
    "coverage": [{"name": "level1.txt", "size": 3500, "covered": 3321, "covered_in_training": 3300}],
    "duplicates": 77,
}
RUN_TOML = """
[run]
version = "0.1.0"
[run.digests]
corpus = "abcd"
[machine]
device_name = "a processor"
[batches]
mask_rate = 0.15
[train]
steps = 2000
learning_rate = 0.001
"""


def history_lines(num_evals=40, total=2000):
    rng = np.random.default_rng(3)
    start = {"num_parameters": 3421234, "flops_per_token": 2e7, "device": "cpu", "total_steps": total}
    records = [{"kind": "event", "event": "start", "step": 0} | start]
    for step in range(total // num_evals, total + 1, total // num_evals):
        common = {"step": step, "tokens": 2000 * step, "seconds": 0.25 * step, "mlm_loss_nats": 9 - 3 * step / total}
        accuracy = 0.19 - 0.17 * np.exp(-step / (0.3 * total))
        train = {"kind": "train", "mlm_accuracy": rng.binomial(900, accuracy) / 900, "mlm_predictions": 900}
        held = {"kind": "eval", "mlm_accuracy": accuracy + rng.normal(0, 0.002), "mlm_predictions": 4000}
        held |= {"nsp_accuracy": 0.5 + 0.25 * step / total, "nsp_predictions": 2000}
        held |= {"mlm_accuracy_mask": accuracy - 0.02, "mlm_predictions_mask": 3200}
        records += [train | common | {"learning_rate": 1e-3 * (1 - step / total)}, held | common]
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture(scope="session")
def analysis_table(tmp_path_factory):
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    path.write_text(history_lines(), encoding="utf-8")
    return analyze_history(read_history(path), baselines=BASELINES).to_json() | {"source": "runs/mini-run"}


@pytest.fixture
def run_folder(tmp_path, analysis_table):
    """Return the folder of a complete run."""
    folder = tmp_path / "mini-run"
    folder.mkdir()
    (folder / "history.jsonl").write_text(history_lines(), encoding="utf-8")
    (folder / "run.toml").write_text(RUN_TOML, encoding="utf-8")
    (folder / "sessions.jsonl").write_text('{"event": "start"}\n{"event": "stopped"}\n{"event": "resume"}\n')
    write_json(folder / "baselines.json", BASELINES)
    write_json(folder / "fills.json", FILLS)
    write_json(folder / "corpus" / "card.json", CARD)
    write_json(folder / "analysis.json", analysis_table)
    return folder


@pytest.fixture
def baselines():
    return copy.deepcopy(BASELINES)
