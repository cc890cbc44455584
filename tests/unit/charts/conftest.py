import numpy as np
import pytest

from xuebu.analysis.analyze import analyze_history
from xuebu.history.records import History, table_of


def run_of(num_evals=40, num_train=80, total=2000, *, nsp=True, held_out=True, seed=7):
    """A saturating run: held-out accuracy 2 % to 19 % with correlated drift, NSP 50 % to 75 %."""
    rng = np.random.default_rng(seed)

    def accuracy(step):
        return 0.19 - 0.17 * np.exp(-step / (0.35 * total))

    train, held = [], []
    for step in np.unique(np.linspace(total / num_train, total, num_train).astype(int)):
        record = {"step": int(step), "mlm_accuracy": rng.binomial(900, accuracy(step)) / 900, "mlm_predictions": 900}
        record |= {"mlm_loss_nats": 9 - 3 * step / total, "learning_rate": 1e-3 * (1 - step / total)}
        record |= {"tokens": int(step) * 2000, "seconds": 0.25 * step, "mfu": 0.4}
        record |= {"nsp_accuracy": 0.5 + 0.25 * step / total, "nsp_predictions": 64} if nsp else {}
        train.append(record)
    drift = 0.0
    for step in np.unique(np.linspace(total / num_evals, total, num_evals).astype(int)) if held_out else ():
        drift = 0.6 * drift + rng.normal(0, 0.002)
        record = {"step": int(step), "mlm_accuracy": accuracy(step) + drift, "mlm_predictions": 4000}
        record |= {"mlm_loss_nats": 9.1 - 3 * step / total}
        record |= {"nsp_accuracy": 0.5 + 0.25 * step / total, "nsp_predictions": 2000} if nsp else {}
        held.append(record)
    return History("memory", "xuebu history", table_of(train, "train")[0], table_of(held, "eval")[0])


@pytest.fixture(scope="session")
def history():
    return run_of()


@pytest.fixture(scope="session")
def analysis(history):
    return analyze_history(history)


@pytest.fixture
def make_run():
    return run_of


@pytest.fixture
def baselines():
    return {
        "mlm": {"ngram": {"accuracy": 0.381}, "most_frequent": {"accuracy": 0.041}},
        "nsp": {"overlap_rule": {"accuracy": 0.69}},
    }
