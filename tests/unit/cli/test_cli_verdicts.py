"""Every verdict in plain words, tried as a user does: a run folder, `xuebu analyze`, what it prints and writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xuebu.cli import main

AT = np.arange(1, 121)
FELL = 2.0 + 5.0 * np.exp(-AT / 30)
LEARNED = 0.5 - 0.4 * np.exp(-AT / 60)
PREDICTIONS = 20_000


def records(case: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    train, held_out, accuracy, nsp = FELL.copy(), FELL + 0.1, LEARNED.copy(), 0.5 + 0.3 * AT / AT[-1]
    late = np.maximum(0, AT - 60)
    predictions = PREDICTIONS
    match case:
        case "learning":
            accuracy = 0.1 + 0.3 * AT / AT[-1]
        case "plateaued":
            accuracy = 0.5 - 0.4 * np.exp(-AT / 8)
        case "overfitting":
            train, held_out = train - 0.006 * late, held_out + 0.01 * late
        case "memorizing":
            train = train * np.where(late, np.maximum(0.25, 1 - late / 50), 1)
        case "diverging":
            train = train + 0.03 * late
        case "nsp_at_chance":
            nsp = np.full(AT.size, 0.5)
        case "few_predictions":
            predictions = 400
    found = []
    for place, step in enumerate((10 * AT).tolist()):
        noise = np.sqrt(accuracy[place] * (1 - accuracy[place]) / predictions)
        own = {"step": step, "mlm_loss_nats": float(train[place] + 0.01 * rng.normal())}
        found.append({"kind": "train", **own, "learning_rate": 1e-3})
        found.append(
            {
                "kind": "train" if case == "few_predictions" else "eval",
                "step": step + 1,
                "mlm_loss_nats": float(held_out[place] + 0.01 * rng.normal()),
                "mlm_accuracy": float(np.clip(accuracy[place] + noise * rng.normal(), 0, 1)),
                "mlm_predictions": predictions,
                "nsp_accuracy": float(np.round(500 * nsp[place]) / 500),
                "nsp_predictions": 500,
            }
        )
    return found


VERDICTS = {
    "learning": "The run was still learning",
    "plateaued": "The run has leveled off",
    "overfitting": "The run overfits: held-out loss was lowest at step",
    "memorizing": "The model memorizes: at the end training loss is",
    "diverging": "The run diverges: training loss was",
    "nsp_at_chance": "Were the sentences shuffled before pairing",
    "few_predictions": "Accuracy is read off few predictions",
    "below_counting": "The run is too short to beat counting",
}
FAULTS = set(VERDICTS) - {"learning", "plateaued"}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_verdict_is_printed_and_no_other(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xuebu.report.page.write_report", lambda run, language: run)  # its charts take seconds
    log = tmp_path / "history.jsonl"
    log.write_text("".join(json.dumps(one) + "\n" for one in records(case)))
    if case == "below_counting":
        difference = {"value": -0.07, "low": -0.08, "high": -0.06, "level": 0.95, "method": "paired", "note": ""}
        scores = {"model": {"accuracy": 0.45}, "ngram": {"accuracy": 0.52}, "difference_from_ngram": difference}
        (tmp_path / "baselines.json").write_text(json.dumps({"mlm": scores}))
    assert main(["analyze", str(tmp_path if case == "below_counting" else log)]) == 0
    printed = capsys.readouterr().out
    assert VERDICTS[case] in printed
    assert not [other for other in FAULTS - {case} if VERDICTS[other] in printed]
    assert case != "below_counting" or "model 45.0 %, n-gram 52.0 %" in printed
