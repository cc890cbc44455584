"""Randomness without state: every draw is a function of its key and counter.

A batch must be a fact of (store, recipe, seed, step), so no generator is ever advanced. Both tools here are pure
functions on arrays; the same key and counter give the same bits on every machine.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


def key_of(*parts: int | str) -> int:
    """Return a 64-bit key for a stream named by its parts, e.g. `key_of(seed, "mask", epoch)`.

    Source: SHA-256 of the parts' text, so that streams of different names are unrelated.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little")


def _mix(value: UInt64) -> UInt64:
    value = (value ^ (value >> np.uint64(30))) * _MIX_A
    value = (value ^ (value >> np.uint64(27))) * _MIX_B
    return value ^ (value >> np.uint64(31))


def draw_bits(key: int | npt.ArrayLike, counter: npt.ArrayLike) -> UInt64:
    """Return 64 random bits for each counter.

    Args:
        key: 64-bit key, or an array of keys that broadcasts with `counter`.
        counter: integers >= 0, any shape.

    Returns:
        uint64 array of the broadcast shape.

    Source: SplitMix64's output function (Steele, Lea and Flood 2014) applied twice, to a keyed counter.
    """
    with np.errstate(over="ignore"):
        key_array = np.asarray(key, dtype=np.uint64)
        count = np.asarray(counter).astype(np.uint64)
        return _mix(_mix((count + np.uint64(1)) * _GOLDEN + key_array) ^ key_array)


def draw_uniform(key: int | npt.ArrayLike, counter: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return uniform draws in [0, 1), 53 bits each; arguments as in `draw_bits`."""
    return (draw_bits(key, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_below(key: int | npt.ArrayLike, counter: npt.ArrayLike, bound: int | npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return integers in [0, bound), bound <= 2**31; the bias is below bound / 2**53."""
    return np.floor(draw_uniform(key, counter) * np.asarray(bound, dtype=np.float64)).astype(np.int64)


def permute(position: npt.ArrayLike, size: int, key: int) -> npt.NDArray[np.int64]:
    """Return where a keyed permutation of range(size) sends each position.

    Args:
        position: integers in [0, size), any shape.
        size: number of elements, 1 to 2**62.
        key: 64-bit key; each key gives another permutation.

    Returns:
        int64 array of the same shape. No table is kept: memory does not grow with `size`.

    Source: a balanced Feistel network of six rounds on the next even power of two, walked until it falls inside
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", cycle-walking).
    """
    start = np.asarray(position, dtype=np.int64)
    if start.size and (start.min() < 0 or start.max() >= size):
        raise ValueError(f"position outside range({size})")
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    value = np.atleast_1d(start).astype(np.uint64).reshape(-1).copy()
    pending = np.arange(value.size)
    while pending.size:
        current = value[pending]
        left, right = current >> shift, current & mask
        for round_number in range(6):
            left, right = (
                right,
                left ^ (draw_bits(key ^ (round_number * 0x5851F42D4C957F2D & 0xFFFFFFFFFFFFFFFF), right) & mask),
            )
        value[pending] = (left << shift) | right
        pending = pending[value[pending] >= np.uint64(size)]
    return value.astype(np.int64).reshape(start.shape)


def seed_of(*parts: Any) -> int:
    """Return a non-negative 63-bit seed for a library's own generator (torch) from named parts."""
    return key_of(*parts) >> 1
