"""The series that every analysis takes; it is the history's own (a lower floor), named here for convenience."""

from __future__ import annotations

from xuebu.history.series import Floats, Integers, Series

__all__ = ["Floats", "Integers", "Series"]
