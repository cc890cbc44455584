"""A fit recovers what generated it; any finite series is analyzed without a warning and into plain JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xuebu.analysis.analyze import analyze_history
from xuebu.analysis.compare import mean_with_interval, paired_difference
from xuebu.analysis.curves import FAMILIES, Family, basis
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.series import Series
from xuebu.history.records import History, table_of


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    offset=st.floats(0.1, 5),
    scale=st.floats(0.05, 5),
    falling=st.booleans(),
    pace=st.floats(0.05, 1.0),
    size=st.integers(12, 80),
    spacing=st.integers(1, 1000),
)
def test_a_fit_recovers_what_generated_it(
    family: Family, offset: float, scale: float, falling: bool, pace: float, size: int, spacing: int
) -> None:
    step = np.arange(1, size + 1) * spacing
    shape = pace * float(step[-1]) if family == "saturating" else 2 * pace
    phi = basis(family, step, shape, float(step[0]))
    value = offset + (scale if falling else -scale) * phi / max(1.0, float(np.abs(phi).max()))
    found = fit_curve(Series(step, value), family)
    assert found.predict(step) == pytest.approx(value, abs=1e-6 * scale)
    if family == "saturating":
        assert found.parameters["shape"] == pytest.approx(shape, rel=1e-3)


levels = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5])


@settings(max_examples=60, deadline=None)
@given(
    value=st.lists(levels, min_size=1, max_size=45),
    gaps=st.lists(st.integers(1, 10_000), min_size=45, max_size=45),
    first=st.sampled_from([0, 1, 5000]),
    counts=st.none() | st.integers(1, 10**6),
    kind=st.sampled_from(["train", "eval"]),
    metric=st.sampled_from(["mlm_accuracy", "mlm_loss_nats"]),
)
def test_any_series_is_analyzed(
    value: list[float], gaps: list[int], first: int, counts: int | None, kind: str, metric: str
) -> None:
    steps = first + np.concatenate([[0], np.cumsum(gaps[1 : len(value)])]).astype(int)
    rows = [{"step": int(step), metric: one, "nsp_accuracy": one} for step, one in zip(steps, value, strict=True)]
    if counts is not None:
        rows = [{**row, "mlm_predictions": counts, "nsp_predictions": counts} for row in rows]
    table, empty = table_of(rows, kind)[0], table_of([], kind)[0]
    found = analyze_history(History("x", "test", *((table, empty) if kind == "train" else (empty, table))))
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["num_points"] == len(value)
    assert found.summary()
    for correlation in found.correlations.values():
        for interval in correlation.intervals:
            if interval.low is not None and interval.high is not None:
                assert -1 <= interval.low <= correlation.coefficient + 1e-9
                assert correlation.coefficient - 1e-9 <= interval.high <= 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60), st.floats(0.5, 0.99)
)
def test_clustered_intervals_hold_their_estimate_and_do_not_depend_on_order(
    rows: list[tuple[bool, bool, int]], level: float
) -> None:
    first, second, cluster = (np.array(column) for column in zip(*rows, strict=True))
    mean, difference = mean_with_interval(first, cluster, level), paired_difference(first, second, cluster, level)
    for found, least in ((mean, 0.0), (difference, -np.inf)):
        if found.low is not None and found.high is not None:
            assert least <= found.low <= found.value + 1e-12
            assert found.value - 1e-12 <= found.high
    turned = paired_difference(second, first, cluster, level)
    assert turned.value == pytest.approx(-difference.value)
    if turned.high is not None and difference.low is not None:
        assert turned.high == pytest.approx(-difference.low)
    back = mean_with_interval(first[::-1], cluster[::-1] + 100, level)
    assert (back.low is None) == (mean.low is None)
    if back.low is not None:
        assert back.low == pytest.approx(mean.low, abs=1e-12)
