"""Settings of the native libraries under torch, which they read from the environment when they are first used."""

from __future__ import annotations

import os

NATIVE_SETTINGS = {
    # oneDNN keeps a compiled kernel for each shape of a matrix product, 1,024 of them unless told otherwise, and a run
    # of preset mini once grew to 9 GB. A run needs about 200 now (see batches/packing.py); with room for 64 it would
    # compile anew at every step, which takes a third of the time of preset tiny.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
}


def prepare_environment() -> None:
    """Set what is not set already. To be called before torch computes anything."""
    for name, value in NATIVE_SETTINGS.items():
        os.environ.setdefault(name, value)
