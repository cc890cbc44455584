"""Where the growth of a run begins: the warm-up before it is no part of a learning curve's formula."""

from __future__ import annotations

import math

import numpy as np

from xuebu.analysis.curves import basis
from xuebu.analysis.fit import profile_fit
from xuebu.analysis.residuals import effective_size_ar1
from xuebu.history.series import Floats, Series

MIN_POINTS = 20
MOST_SHARE = 0.25
CANDIDATES = 24
PENALTY = 3.0
SLOWER = 0.75


def start_of_growth(series: Series) -> int:
    """Return how many first readings belong to the start-up, before growth is at its steepest; most often 0.

    While the learning rate warms up, a metric rests at its starting level and then picks up speed. The families of
    curve are steepest at their first step and would have to bend through that. So a level for the first k readings and
    a saturating curve from there on is held against a saturating curve alone.

    Args:
        series: the readings; below 20 of them the answer is 0.

    Returns:
        k, at most a quarter of the readings: the best one of those before which the metric
        moved at less than three quarters of its pace over as many readings after (no curve that is steep from its start
        has such a place), if it lowers n log(rss) by more than 3 log n, with n the
        number of independent readings that the better curve's residuals are worth; else 0.

    Source: the Bayesian information criterion (Schwarz 1978); a place of change counts for more than the level that it
    brings along, Zhang and Siegmund (2007).
    """
    num = len(series)
    if num < MIN_POINTS:
        return 0
    most = int(MOST_SHARE * num)
    places = sorted({int(place) for place in np.linspace(2, most, min(CANDIDATES, most - 1))})
    found = {place: _left(series, place) for place in places if _picks_up(series, place)}
    if not found:
        return 0
    alone = _left(series, 0)
    best = min(found, key=lambda place: float(found[place] @ found[place]))
    rss, least = float(alone @ alone), float(found[best] @ found[best])
    if least <= 1e-20 * num or rss <= least:
        return 0
    size = max(3.0, effective_size_ar1(found[best]))
    return best if size * math.log(rss / least) > PENALTY * math.log(size) else 0


def _picks_up(series: Series, place: int) -> bool:
    step = series.step.astype(np.float64)
    head, after = slice(0, place), slice(place - 1, 2 * place)
    before, later = (abs(np.polyfit(step[part], series.value[part], 1)[0]) for part in (head, after))
    return bool(before < SLOWER * later)


def _left(series: Series, place: int) -> Floats:
    """Return the residuals of a level for the first `place` readings and a saturating curve for the others."""
    step, value = series.step[place:].astype(np.float64), series.value[place:]
    offset, scale, shape = profile_fit("saturating", step, value[:, None])
    late = value - offset[0] - scale[0] * basis("saturating", step, shape[0], float(step[0]))
    head = series.value[:place]
    return np.concatenate([head - head.mean() if place else head, late])
