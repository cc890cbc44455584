"""What steps cost: seconds, floating-point operations, money; from numbers, with no model behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xuebu.analysis.wording import plain


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a number of steps.

    Args:
        steps: optimizer updates.
        tokens: real tokens (no padding).
        seconds: of training; None where the speed is not known.
        flop: floating-point operations; None where the count a token is not known.
        device_hours: seconds times devices / 3,600.
        price: in the currency of the price given; None without one.
        tokens_per_second: the speed it was reckoned with.
        note: where the numbers come from.
    """

    steps: int
    tokens: int
    seconds: float | None
    flop: float | None
    device_hours: float | None
    price: float | None
    tokens_per_second: float | None
    note: str

    def summary(self) -> str:
        """Say the cost in one line."""
        parts = [f"{self.steps:,} steps, {self.tokens:,} tokens"]
        parts += [] if self.seconds is None else [f"{self.seconds / 3600:.2f} h"]
        parts += [] if self.flop is None else [f"{self.flop:.3g} FLOP"]
        parts += [] if self.price is None else [f"price {self.price:,.2f}"]
        return ", ".join(parts) + f" ({self.note})"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}


def cost_of(
    *,
    steps: int,
    tokens_per_step: float,
    tokens_per_second: float | None = None,
    flop_per_token: float | None = None,
    num_devices: int = 1,
    price_per_device_hour: float | None = None,
    note: str = "from the numbers given",
) -> Cost:
    """Return the cost of a number of steps at a given speed.

    Args:
        steps: optimizer updates, >= 0.
        tokens_per_step: real tokens a step, >= 0.
        tokens_per_second: speed of all devices together, > 0; None if not known.
        flop_per_token: training FLOP a token (forward and backward), > 0; None if not known.
        num_devices: devices paid for, >= 1.
        price_per_device_hour: money; None if not asked.
        note: where the numbers come from.

    Raises:
        ValueError: a number is negative, zero where it must not be, or not finite.
    """
    given = {"tokens_per_second": tokens_per_second, "flop_per_token": flop_per_token}
    for name, number in given.items():
        if number is not None and not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name} is {number}; it must be above 0")
    if steps < 0 or not (math.isfinite(tokens_per_step) and tokens_per_step >= 0) or num_devices < 1:
        raise ValueError("steps and tokens_per_step must be at least 0, num_devices at least 1")
    if price_per_device_hour is not None and not (math.isfinite(price_per_device_hour) and price_per_device_hour >= 0):
        raise ValueError(f"price_per_device_hour is {price_per_device_hour}; it must be at least 0")
    tokens = steps * tokens_per_step
    seconds = None if tokens_per_second is None else tokens / tokens_per_second
    hours = None if seconds is None else seconds * num_devices / 3600
    return Cost(
        steps=steps,
        tokens=round(tokens),
        seconds=seconds,
        flop=None if flop_per_token is None else tokens * flop_per_token,
        device_hours=hours,
        price=None if hours is None or price_per_device_hour is None else hours * price_per_device_hour,
        tokens_per_second=tokens_per_second,
        note=note,
    )
