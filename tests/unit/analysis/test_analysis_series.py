import numpy as np
import pytest

from xuebu.analysis.series import Series
from xuebu.errors import InputError


@pytest.mark.parametrize(
    ("step", "value", "count", "words"),
    [
        ([1, 2], [0.1], None, "1 values for 2 steps"),
        ([1, 2], [0.1, 0.2], [5], "1 counts for 2 steps"),
        ([-5, 2], [0.1, 0.2], None, "step -5 is negative"),
        ([1, 1], [0.1, 0.2], None, "step 1 follows step 1"),
        ([1, 3, 2], [0.1, 0.2, 0.3], None, "step 2 follows step 3"),
        ([1, 2], [0.1, np.nan], None, "value at step 2"),
        ([1, 2], [np.inf, 0.1], None, "value at step 1"),
        ([1, 2], [0.1, 0.2], [3, 0], "count at step 2"),
    ],
)
def test_a_series_that_is_none_is_refused(step: list[int], value: list[float], count: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Series(np.array(step), np.array(value), None if count is None else np.array(count), "mlm_accuracy")


def test_a_series_cannot_be_changed_and_its_parts_keep_their_counts() -> None:
    series = Series(np.array([1, 2, 4]), np.array([0.1, 0.2, 0.3]), np.array([7, 8, 9]), "mlm_accuracy", "eval")
    with pytest.raises(ValueError, match="read-only"):
        series.value[0] = 1.0
    part = series.part(1)
    assert (part.step.tolist(), part.value.tolist()) == ([2, 4], [0.2, 0.3])
    assert part.count is not None
    assert part.count.tolist() == [8, 9]
    assert (part.metric, part.kind, len(part)) == ("mlm_accuracy", "eval", 2)
