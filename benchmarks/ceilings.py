"""What a card can do at all: how fast it copies, and whether products in fp8 would pay."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

TOKENS, WIDTH, INNER = 65_536, 768, 3_072  # a micro-batch of preset base, and its feed-forward block


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure_copy(device: str) -> float:
    """Return the bytes a second that a copy within the device's memory reads and writes."""
    source = torch.empty(2**28 if device == "cuda" else 2**24, dtype=torch.float32, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def measure_fp8(device: str) -> dict[str, Any]:
    """Return how many times as fast base's feed-forward products would be in fp8, conversions with scales included.

    Source of the way: per-tensor scales as in Micikevicius et al. 2022, "FP8 Formats for Deep Learning", section 3.
    """
    if device != "cuda" or torch.cuda.get_device_capability() < (8, 9):
        return {"skipped": "needs a GPU with fp8"}
    narrow, most = torch.float8_e4m3fn, 448.0
    x = torch.randn(TOKENS, WIDTH, device=device, dtype=torch.bfloat16)
    weight = torch.randn(INNER, WIDTH, device=device, dtype=torch.bfloat16)

    def scaled(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = tensor.abs().amax().float().clamp(min=1e-12) / most
        return (tensor.float() / scale).to(narrow), scale

    def product() -> torch.Tensor:
        (left, left_scale), (right, right_scale) = scaled(x), scaled(weight)
        return torch._scaled_mm(left, right.t(), left_scale, right_scale, out_dtype=torch.bfloat16)

    def seconds_of(call: Callable[[], torch.Tensor]) -> float:
        call()
        synchronize(device)
        start = time.perf_counter()
        for _ in range(20):
            call()
        synchronize(device)
        return (time.perf_counter() - start) / 20

    try:
        in_fp8 = seconds_of(torch.compile(product))
    except (RuntimeError, AttributeError, TypeError) as error:
        return {"skipped": str(error).split("\n", maxsplit=1)[0][:120]}
    in_bf16 = seconds_of(lambda: torch.nn.functional.linear(x, weight))
    return {"bf16_seconds": in_bf16, "fp8_seconds": in_fp8, "fp8_is_times": in_bf16 / in_fp8}
