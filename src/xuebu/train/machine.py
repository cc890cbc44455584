"""What the machine offers, and the automatic choices that follow from it; each is written into run.toml and reused."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import platform
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from xuebu.batches.packing import ROWS_PER_BLOCK
from xuebu.errors import ConfigError, ResumeError
from xuebu.train.settings import TrainSettings
from xuebu.train.waiting import wait_politely

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_MADV_HUGEPAGE, _LARGE_PAGE = 14, 2**21  # Linux, mman.h

_MOST_LANES = 4  # chosen without being asked for: each holds a gradient of all weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The resolved machine of a run. On another one, or with another torch, results agree only to rounding."""

    device: str
    """cpu or cuda."""
    device_name: str
    """Model of the processor or GPU."""
    torch_version: str
    """Version of torch, with its build."""
    precision: str
    """bf16 or fp32."""
    threads: int
    """CPU threads."""
    micro_batch_tokens: int
    """Most tokens of one forward pass, padding included."""
    tune_allocator: bool
    """Whether freed memory is kept in the process."""
    peak_flops: float
    """Measured peak of matrix products in this precision, FLOP/s; what `mfu` is a share of. 0: not measured."""
    lanes: int = 1
    """Micro-batches computed side by side; the threads are shared out among them."""
    attention: Literal["blocks", "runs"] = "blocks"
    """blocks: rows padded to one length, block by block; runs: rows end to end at one fixed shape, on a GPU."""
    compile: bool = False
    """Whether torch.compile is used."""
    deterministic: bool = False
    """Whether a GPU keeps to kernels that give the same bytes each time; those of a CPU do."""
    notes: tuple[str, ...] = ()
    """What was asked for and is not done here, and why."""

    @property
    def rows_per_block(self) -> int | None:
        """Rows that are padded to one length; None, all of a micro-batch, on a GPU: fewer kernels to launch."""
        return ROWS_PER_BLOCK if self.device == "cpu" else None

    def summary(self) -> str:
        """Return one line for the terminal."""
        peak = f", {self.peak_flops / 1e9:,.0f} GFLOP/s measured" if self.peak_flops else ""
        lanes = f" in {self.lanes} lanes" if self.lanes > 1 else ""
        return (
            f"{self.device_name} · {self.threads} threads{lanes} · {self.precision}{peak} · "
            f"{self.micro_batch_tokens:,} tokens a micro-batch"
        )


def find_device(settings: TrainSettings) -> str:
    """Return the device that is asked for, "cpu" or "cuda"; known at once, before a corpus is read.

    Raises:
        ConfigError: it is not there.
    """
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise ConfigError('`train.device` = "cuda", but torch sees no GPU here; use "auto" or "cpu"')
    if settings.device == "auto":
        return "cuda" if has_gpu else "cpu"
    return settings.device


def resolve_machine(settings: TrainSettings, attention_dropout: float = 0.0) -> Machine:
    """Turn the automatic settings into choices for this machine, measuring its peak once.

    Raises:
        ConfigError: the device asked for is not there.
    """
    device = find_device(settings)
    fast_bf16 = gpu_has_bf16() if device == "cuda" else _cpu_has_bf16()
    notes = []
    if settings.precision == "bf16" and not fast_bf16:
        notes.append('`train.precision` = "bf16" is done in fp32: this processor has no bfloat16 and would emulate it')
    precision = "fp32" if settings.precision == "fp32" or not fast_bf16 else "bf16"
    by_runs = device == "cuda" and precision == "bf16" and attention_dropout == 0.0 and settings.sharding == "none"
    if device == "cuda" and attention_dropout:
        notes.append(
            f"`model.attention_dropout` = {attention_dropout} is not offered by the fast attention over rows end to "
            "end: rows are padded instead; set it to 0 for speed"
        )
    deterministic = device == "cuda" and settings.deterministic != "off"
    set_deterministic(deterministic)
    threads = settings.threads or usable_cores()
    torch.set_num_threads(threads)
    compiled = by_runs if settings.compile == "auto" else settings.compile == "on"
    lanes = _lanes(settings, threads, compiled=compiled or device != "cpu")
    if settings.lanes > lanes:
        notes.append(
            f"`train.lanes` = {settings.lanes} is done in {lanes}: there are no more than threads, and one on a GPU, "
            "compiled, recomputed or sharded"
        )
    return Machine(
        device=device,
        device_name=torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        torch_version=torch.__version__,
        precision=precision,
        threads=threads,
        micro_batch_tokens=settings.micro_batch_tokens or _default_tokens(device),
        tune_allocator=settings.tune_allocator,
        peak_flops=measure_peak(device, precision),
        attention="runs" if by_runs else "blocks",
        lanes=lanes,
        compile=compiled,
        deterministic=deterministic,
        notes=tuple(notes),
    )


def adapt_machine(machine: Machine, settings: TrainSettings, changed: Collection[str]) -> Machine:
    """Return the machine of a run that goes on with other settings.

    Args:
        machine: of the run.
        settings: now.
        changed: which of them differ: "threads", "lanes", "micro_batch_tokens".
    """
    threads, lanes, tokens = machine.threads, machine.lanes, machine.micro_batch_tokens
    if "threads" in changed:
        threads = settings.threads or usable_cores()
    if "threads" in changed or "lanes" in changed:
        lanes = _lanes(settings, threads, compiled=machine.compile or machine.device != "cpu")
    if "micro_batch_tokens" in changed:
        tokens = settings.micro_batch_tokens or _default_tokens(machine.device)
    return dataclasses.replace(machine, threads=threads, lanes=lanes, micro_batch_tokens=tokens)


def _default_tokens(device: str) -> int:
    # Found on two cores, from presets tiny to reference: half of it costs a fifth, twice as much gains nothing.
    return 65_536 if device == "cuda" else 8_192


def _lanes(settings: TrainSettings, threads: int, *, compiled: bool) -> int:
    """Return how many micro-batches are computed side by side on a CPU."""
    if compiled or settings.recompute or settings.sharding != "none":  # these keep to one thread's state
        return 1
    return min(settings.lanes or (threads if threads <= _MOST_LANES else 1), threads)


def set_deterministic(on: bool) -> None:
    """Have torch keep to deterministic kernels on a GPU, or not; before the first matrix product there.

    An operation that has none raises RuntimeError then. Memory is not filled first, as torch would: nothing here reads
    what it has not written.

    Source: torch's notes on reproducibility; cuBLAS, "Results reproducibility", on CUBLAS_WORKSPACE_CONFIG.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def check_machine(recorded: Machine) -> list[str]:
    """Return what differs between the machine of a run and this one, in words; empty if the run can go on exactly."""
    here = {
        "device_name": torch.cuda.get_device_name()
        if torch.cuda.is_available() and recorded.device == "cuda"
        else cpu_name(),
        "torch_version": torch.__version__,
    }
    return [
        f"{name} was {getattr(recorded, name)!r}, is {value!r}"
        for name, value in here.items()
        if value != getattr(recorded, name)
    ]


def prepare(machine: Machine) -> None:
    """Set this process up as the machine says: kernels, threads and allocator.

    Raises:
        ResumeError: the device is gone.
    """
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise ResumeError("the run was trained on a GPU, and torch sees none here")
    set_deterministic(machine.deterministic)
    if machine.tune_allocator and platform.system() == "Linux":
        _keep_freed_memory()
    torch.set_num_threads(machine.threads)
    wait_politely(machine.threads if machine.device == "cpu" else 1)


@functools.cache
def _keep_freed_memory() -> None:
    """Tell glibc never to give memory back: no page faults for the same buffers, step after step. Once a process."""
    libc = ctypes.CDLL(None)
    try:
        libc.mallopt(_M_MMAP_MAX, 0)
    except AttributeError:  # another C library: nothing to set
        return
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    libc.mallopt(_M_TOP_PAD, 64 * 2**20)
    _ask_for_large_pages(libc)


def _ask_for_large_pages(libc: ctypes.CDLL) -> None:
    """Have Linux map what the process will allocate in pages of 2 MB, where it gives them on request only.

    Half of the memory is reserved, marked and freed again: none of it is touched, and what is allocated later lies in
    it. With pages of 4 KB the processor's table of pages misses so often that a training step takes 1.15 to 1.3 times
    as long. Torch's own switch (THP_MEM_ALLOC_ENABLE) marks each tensor by a call, and small pieces not at all.
    """
    import resource

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    counted = _read("/proc/sys/vm/overcommit_memory").strip() == "2"
    if counted or any(
        limit != resource.RLIM_INFINITY for limit in limits
    ):  # what is reserved would be missed elsewhere
        return
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    start = libc.malloc(size)
    if start:  # a limit on the process may forbid it
        first = -(-start // _LARGE_PAGE) * _LARGE_PAGE
        libc.madvise(first, start + size - first, _MADV_HUGEPAGE)
        libc.free(start)


def usable_cores() -> int:
    """Return how many cores this process may use; where the system does not tell (macOS), how many there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    # A container may be allowed a part of the machine's time: more threads than that would only be stopped in turn.
    return min(cores, max(1, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else cores


def _read(path: str) -> str:
    """Return what the system says in a file, "" where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_flags() -> str:
    text = _read("/proc/cpuinfo")
    return next((line for line in text.split("\n") if line.startswith(("flags", "Features"))), "")


def _cpu_has_bf16() -> bool:
    flags = _cpu_flags().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags


def gpu_has_bf16() -> bool:
    """Return whether the GPU computes in bfloat16; torch says yes to older ones too, which emulate it."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def cpu_name() -> str:
    """Return the model name of the processor."""
    names = (
        line.partition(":")[2].strip() for line in _read("/proc/cpuinfo").split("\n") if line.startswith("model name")
    )
    return next(names, platform.processor() or platform.machine())


def measure_peak(device: str, precision: str, seconds: float = 0.3) -> float:
    """Return the best rate of a 1,024-wide matrix product (8,192 on a GPU) in FLOP/s, over about `seconds`."""
    size = 8192 if device == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # Random and not constant: a GPU draws less power for equal numbers and runs faster than it can in training.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
    best, deadline = float("inf"), time.perf_counter() + seconds
    runs = 0
    while runs < 3 or time.perf_counter() < deadline:
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        if runs:  # the first run packs and warms
            best = min(best, time.perf_counter() - start)
        runs += 1
    return 2.0 * size**3 / best
