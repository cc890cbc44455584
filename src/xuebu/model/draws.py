"""Where random draws of a forward pass come from: torch's global generator, or one of the thread's own."""

from __future__ import annotations

import threading

import torch

_THREAD = threading.local()


def seed_draws(seed: int, *, of_thread: bool) -> None:
    """Seed what later draws come from, in this thread.

    Args:
        seed: any 64-bit number.
        of_thread: whether this thread draws from a generator of its own from now on. Threads that compute side by side
            must: the global one would give each what the others have left. GPUs and recomputed layers know the global
            one only.
    """
    if of_thread:
        _THREAD.generator = torch.Generator().manual_seed(seed)
    else:
        _THREAD.generator = None
        torch.manual_seed(seed)


def generator() -> torch.Generator | None:
    """Return the generator of this thread; None: the global one is to be used."""
    if torch.compiler.is_compiling():
        return None
    found: torch.Generator | None = getattr(_THREAD, "generator", None)
    return found
