import numpy as np
import pytest
import torch
from torch.nn import functional

from xuebu.batches.batch import KEPT, MASKED, NO_PAIR, RANDOM
from xuebu.batches.held_out import held_out_batches
from xuebu.model.encoder import PretrainingModel
from xuebu.train.evaluation import evaluate
from xuebu.train.machine import resolve_machine


@pytest.fixture
def setting(tokens, recipe_of):
    recipe = recipe_of(model={"dropout": 0.3, "attention_dropout": 0.3})
    model = PretrainingModel(recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    questions = held_out_batches(
        tokens.held_out, tokens.vocabulary, settings=recipe.evaluation, batches=recipe.batches, predictions=500
    )
    return model, questions, resolve_machine(recipe.train)


def reference(model, batches):
    """Row by row, no padding: (kind, hit, log p, top p, document) of masked tokens; (hit, nats, document) of pairs."""
    answers, pairs = [], []
    model.eval()
    for batch in batches:
        for row in range(batch.num_rows):
            start, stop = batch.row_offsets[row : row + 2]
            ids = torch.from_numpy(batch.input_ids[start:stop].astype(np.int64))[None]
            segments = batch.segment_ids[start:stop]
            with torch.no_grad():
                hidden = model.encode(ids, torch.from_numpy(segments.astype(np.int64))[None])
                logits = functional.log_softmax(model.mlm_head(hidden[0], model.embeddings.word.weight), -1)
                pair = functional.log_softmax(model.nsp_head(hidden[:, 0])[0], -1)
            for number, position in enumerate(batch.masked_positions):
                if start <= position < stop:
                    scores, label = logits[position - start], batch.labels[number]
                    document = batch.row_documents[row, segments[position - start]]
                    first = scores.max().exp()
                    answers.append(
                        (batch.mask_kinds[number], int(scores.argmax()) == label, scores[label], first, document)
                    )
            if batch.nsp_labels[row] != NO_PAIR:
                column = 1 - int(batch.nsp_labels[row])
                pairs.append((int(pair.argmax()) == column, -pair[column], batch.row_documents[row, 0]))
    return answers, pairs


def test_metrics_equal_a_plain_reference(setting):
    model, questions, machine = setting
    answers, pairs = reference(model, questions)
    kinds, hits, log_probability, top_probability, documents = (
        np.array(column) for column in zip(*answers, strict=True)
    )
    found = evaluate(model, questions, machine)
    assert (found.mask_kinds == kinds).all() and (found.documents == documents).all()
    assert found.mlm_log_probability == pytest.approx(log_probability, abs=2e-5)
    assert found.mlm_top_probability == pytest.approx(top_probability, abs=2e-5)
    assert found.mlm_top_probability.dtype == np.float32
    assert (found.mlm_hits != hits).sum() <= 1  # a tie to rounding
    assert found.nsp_hits.tolist() == [bool(hit) for hit, _, _ in pairs]
    assert found.nsp_documents.tolist() == [document for _, _, document in pairs]
    metrics = found.metrics()
    assert metrics["mlm_predictions"] == len(answers) >= 500
    assert metrics["mlm_loss_nats"] == pytest.approx(-log_probability.mean(), abs=1e-5)
    assert metrics["mlm_accuracy"] == found.mlm_hits.mean()
    assert metrics["nsp_predictions"] == len(pairs)
    assert metrics["nsp_accuracy"] == np.mean([hit for hit, _, _ in pairs])
    assert metrics["nsp_loss_nats"] == pytest.approx(np.mean([nats for _, nats, _ in pairs]), abs=1e-5)
    counts = 0
    for kind, name in ((MASKED, "mask"), (RANDOM, "random"), (KEPT, "kept")):
        counts += metrics[f"mlm_predictions_{name}"]
        assert metrics[f"mlm_predictions_{name}"] == (kinds == kind).sum() > 10
        assert metrics[f"mlm_accuracy_{name}"] == pytest.approx(hits[kinds == kind].mean(), abs=0.05)
    assert counts == metrics["mlm_predictions"]


def test_no_dropout_and_the_mode_is_put_back(setting):
    model, questions, machine = setting
    results = []
    for training in (True, False):
        model.train(training)
        torch.manual_seed(int(training))
        results.append(evaluate(model, questions, machine))
        assert model.training is training
        assert all(parameter.grad is None for parameter in model.parameters())
    assert (results[0].mlm_log_probability == results[1].mlm_log_probability).all()


def test_questions_without_pairs(setting, tokens, recipe_of):
    model, _, machine = setting
    recipe = recipe_of(batches={"objective": "mlm"})
    questions = held_out_batches(
        tokens.held_out, tokens.vocabulary, settings=recipe.evaluation, batches=recipe.batches, predictions=100
    )
    metrics = evaluate(model, questions, machine).metrics()
    assert metrics["mlm_predictions"] >= 100
    assert not [name for name in metrics if name.startswith("nsp")]
