"""Settings of the native libraries under torch, which they read when they are first used."""

from __future__ import annotations

import ctypes
import os
import sys

_M_ARENA_MAX = -8  # malloc.h
NATIVE_SETTINGS = {
    # oneDNN keeps a compiled kernel for each shape of a matrix product, 1,024 of them unless told otherwise, and a run
    # of preset mini once grew to 9 GB. A run needs about 200 now (see batches/packing.py); with room for 64 it would
    # compile anew at every step, which takes a third of the time of preset tiny.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
}


def prepare_environment() -> None:
    """Set what is not set already. To be called before numpy and torch are imported, since these start threads."""
    for name, value in NATIVE_SETTINGS.items():
        os.environ.setdefault(name, value)
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        _share_memory()


def _share_memory() -> None:
    """Have glibc serve all threads from one memory: what a thread has of its own is small, and soon given back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
