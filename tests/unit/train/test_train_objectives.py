"""Runs of every objective: what they record, that they resume to the byte, and what stops them."""

import json

import pytest

from xuebu.analysis.analyze import analyze_history
from xuebu.batches import counts as counting
from xuebu.errors import TrainingError
from xuebu.history.records import read_history
from xuebu.train.checkpoint import newest_checkpoint
from xuebu.train.trainer import StopRequest

KINDS = {
    "words": {"mask_unit": "word"},
    "sop": {"objective": "sop", "mask_unit": "ngram", "mask_budget": "exact", "max_predictions": 10},
    "segments": {"sequences": "segments", "short_sequence_share": 0.1, "mask_unit": "span", "static_copies": 2},
    "full": {
        "objective": "mlm", "sequences": "full", "mask_replacement": "matched", "mask_rate": 0.4,
        "final_mask_rate": 0.1, "mask_rate_steps": 6,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_runs_train_resume_and_say_what_they_are(start, resume, records, recipe_of, kind):
    """Stopped and resumed, a run writes the bytes of one that was not."""
    recipe = recipe_of(
        batches=KINDS[kind], train={"steps": 8, "warmup_steps": 2, "record_every": 2, "evaluate_every": 4}
    )
    whole, outcome = start(recipe, "whole")
    assert outcome.finished
    parts, outcome = start(recipe, "parts", stop=StopRequest("SIGTERM"))
    assert outcome.step == 1 and resume(parts).finished
    assert records(parts) == records(whole)
    last = [newest_checkpoint(folder.checkpoints)[0] for folder in (whole, parts)]
    assert all((last[0].model[name] == last[1].model[name]).all() for name in last[0].model)
    trained, evaluated = records(whole, "train"), records(whole, "eval")
    for record in (*trained, *evaluated):
        assert ("sop_accuracy" in record) == (kind == "sop")
        assert ("nsp_accuracy" in record) == (kind in ("words", "segments"))
        assert ("sop_predictions" in record) == ("sop_loss_nats" in record) == (kind == "sop")
    if kind == "full":
        tokens = [0, *(record["tokens"] for record in trained)]
        rates = [record["mlm_predictions"] / (tokens[i + 1] - tokens[i]) for i, record in enumerate(trained)]
        assert rates[0] == pytest.approx(0.37, abs=0.05) and rates[-1] == pytest.approx(0.1, abs=0.03)


def test_sentence_order_is_called_so(start, recipe_of):
    folder, _ = start(recipe_of(batches=KINDS["sop"]))
    found = analyze_history(read_history(folder.history))
    flags = {finding.flag for finding in found.verdict}
    assert found.nsp is None and found.sop.metric == "sop_accuracy"
    assert flags & {"sop_at_chance", "sop_learned"} and not flags & {"nsp_at_chance", "nsp_learned"}
    assert "nsp_accuracy" not in json.dumps(found.to_json())


def test_words_that_are_none_stop_a_run_before_it_writes(start, store_of, tokens, recipe_of, tmp_path):
    store = store_of(tokens.train_documents)  # every token is a word
    with pytest.raises(TrainingError, match="would do nothing: each of") as caught:
        start(recipe_of(batches=KINDS["words"]), train_store=store.folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.toml"))


def test_figures_that_leave_their_tolerance_stop_a_run(start, records, recipe_of, monkeypatch):
    """Here the tolerance is made to nothing after the first look."""
    looks = []

    def tolerance(variance, largest):
        looks.append(variance)
        return 0.0 if len(looks) > 3 else 1e9

    monkeypatch.setattr(counting, "tolerance", tolerance)
    with pytest.raises(TrainingError, match=r"step \d+: .*tokens are masked.*`batches.mask_rate` asks for 15.00%"):
        start(recipe_of(batches={"mask_token_share": 1.0, "random_token_share": 0.0}))
