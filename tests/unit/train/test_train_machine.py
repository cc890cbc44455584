import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xuebu.config import to_table
from xuebu.errors import ConfigError, ResumeError
from xuebu.study import StudyFolder, prepare_run, run_study
from xuebu.train import machine as machine_module
from xuebu.train.machine import Machine, check_machine, prepare, resolve_machine, set_deterministic
from xuebu.train.settings import Recipe, TrainSettings

measure_peak = machine_module.measure_peak  # before any fixture replaces it
ONE_THREAD = TrainSettings(threads=1, device="cpu", precision="fp32")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_gpu_where_there_is_none(no_gpu):
    with pytest.raises(ConfigError, match=r'`train.device` = "cuda", but torch sees no GPU here') as caught:
        resolve_machine(dataclasses.replace(ONE_THREAD, device="cuda"))
    assert "\n" not in str(caught.value)
    machine = dataclasses.replace(resolve_machine(ONE_THREAD), device="cuda")
    with pytest.raises(ResumeError, match="torch sees none here"):
        prepare(machine)


def test_a_missing_gpu_is_told_before_the_corpus_is_read(no_gpu, tmp_path):
    recipe = dataclasses.replace(Recipe(), train=dataclasses.replace(ONE_THREAD, device="cuda"))
    for begin in (
        lambda: prepare_run(StudyFolder(tmp_path / "run"), tmp_path / "no corpus", recipe),
        lambda: run_study(StudyFolder(tmp_path / "study"), recipe, inputs=[tmp_path / "no text"]),
    ):
        with pytest.raises(ConfigError, match="torch sees no GPU here"):
            begin()
    assert not list(tmp_path.iterdir())


def test_automatic_choices(no_gpu, monkeypatch):
    monkeypatch.setattr(machine_module, "_cpu_flags", lambda: "flags : fpu avx512f avx512_bf16 sse")
    found = resolve_machine(dataclasses.replace(ONE_THREAD, device="auto", precision="auto"))
    assert (found.device, found.precision, found.threads, found.micro_batch_tokens) == ("cpu", "bf16", 1, 8_192)
    monkeypatch.setattr(machine_module, "_cpu_flags", lambda: "flags : fpu avx2")
    found = resolve_machine(dataclasses.replace(ONE_THREAD, device="auto", precision="auto"))
    assert (found.precision, found.micro_batch_tokens) == ("fp32", 8_192)
    found = resolve_machine(dataclasses.replace(ONE_THREAD, precision="bf16", micro_batch_tokens=999))
    assert (found.precision, found.micro_batch_tokens) == ("fp32", 999)
    assert found.notes == (
        '`train.precision` = "bf16" is done in fp32: this processor has no bfloat16 and would emulate it',
    )
    monkeypatch.setattr(machine_module, "_cpu_flags", lambda: "flags : amx_bf16")
    found = resolve_machine(dataclasses.replace(ONE_THREAD, precision="bf16", compile="on"), 0.1)
    assert (found.precision, found.notes, found.attention, found.compile) == ("bf16", (), "blocks", True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    assert resolve_machine(dataclasses.replace(ONE_THREAD, threads=0)).threads == 3


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_on_a_gpu_dropout_of_attention_takes_the_padded_way_and_says_so(monkeypatch, dropout):
    for name, value in (("is_available", True), ("is_bf16_supported", True), ("get_device_name", "Some GPU")):
        monkeypatch.setattr(torch.cuda, name, lambda value=value, **_: value)
    found = resolve_machine(dataclasses.replace(ONE_THREAD, device="auto", precision="auto"), dropout)
    assert (found.device, found.precision, found.micro_batch_tokens) == ("cuda", "bf16", 65_536)
    assert (found.attention, found.compile, len(found.notes)) == (
        ("blocks", False, 1) if dropout else ("runs", True, 0)
    )
    assert not dropout or found.notes[0].startswith("`model.attention_dropout` = 0.1 is not offered")


@pytest.mark.parametrize(("asked", "given"), [("auto", True), ("on", True), ("off", False)])
def test_deterministic_kernels_on_a_gpu(monkeypatch, asked, given):
    """cuBLAS reads its variable at the first matrix product, which is that of measuring the peak."""
    for name, value in (("is_available", True), ("is_bf16_supported", True), ("get_device_name", "Some GPU")):
        monkeypatch.setattr(torch.cuda, name, lambda value=value, **_: value)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []

    def measure(device, precision):
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return 1e11

    monkeypatch.setattr(machine_module, "measure_peak", measure)
    settings = dataclasses.replace(ONE_THREAD, device="auto", deterministic=asked)
    try:
        machine = resolve_machine(settings)
        assert machine.deterministic is to_table(machine)["deterministic"] is given
        assert seen == [(True, ":4096:8") if given else (False, None)]
        set_deterministic(not given)
        prepare(machine)  # as when the run is resumed
        assert torch.are_deterministic_algorithms_enabled() is given
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        prepare(machine)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # the user's own
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        set_deterministic(False)


def test_a_gpu_that_emulates_bfloat16_trains_in_float32(monkeypatch):
    for name, value in (("is_available", True), ("get_device_name", "Some old GPU")):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(machine_module, "measure_peak", lambda device, precision: 1e11)
    try:
        found = resolve_machine(dataclasses.replace(ONE_THREAD, device="cuda", precision="bf16"))
        assert (found.precision, found.attention, found.compile) == ("fp32", "blocks", False)
        assert found.notes[0].startswith('`train.precision` = "bf16" is done in fp32')
    finally:
        set_deterministic(False)


def test_a_cpu_needs_no_switch(no_gpu):
    for asked in ("auto", "on", "off"):
        machine = resolve_machine(dataclasses.replace(ONE_THREAD, deterministic=asked))
        prepare(machine)
        assert not machine.deterministic and not torch.are_deterministic_algorithms_enabled()


def test_what_differs_is_named():
    machine = resolve_machine(ONE_THREAD)
    assert check_machine(machine) == []
    (line,) = check_machine(dataclasses.replace(machine, device_name="Abacus 1"))
    assert line.startswith("device_name was 'Abacus 1', is ")
    assert len(check_machine(dataclasses.replace(machine, device_name="x", torch_version="1.0"))) == 2


def test_prepare_sets_threads():
    prepare(dataclasses.replace(resolve_machine(ONE_THREAD), threads=1, tune_allocator=False))
    assert torch.get_num_threads() == 1


def test_peak_is_that_of_a_matrix_product():
    torch.set_num_threads(1)
    assert 1e8 < measure_peak("cpu", "fp32", seconds=0.01) < 1e14


def test_summary_is_a_line():
    machine = Machine(
        device="cpu", device_name="Some CPU", torch_version="2", precision="bf16", threads=2,
        micro_batch_tokens=8_192, tune_allocator=True, peak_flops=4.2e11,
    )  # fmt: skip
    assert machine.summary() == "Some CPU · 2 threads · bf16, 420 GFLOP/s measured · 8,192 tokens a micro-batch"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000\n", 8), ("250000 100000\n", 2), ("50000 100000\n", 1), ("", 8), ("9900000 100000", 8)],
)
def test_a_containers_share_of_the_cores(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine_module, "_read", lambda path: quota if path.endswith("cpu.max") else "")
    assert machine_module.usable_cores() == cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or platform.system() != "Linux", reason="glibc on Linux only")
def test_large_pages_are_asked_for_and_cost_no_memory(tmp_path):
    """Memory that is marked and given back is used by what is allocated next, and not counted before."""
    code = (
        "import re, torch\n"
        "from xuebu.train.machine import _keep_freed_memory\n"
        "def counted(name): return int(re.search(rf'{name}:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = counted('VmRSS')\n"
        "_keep_freed_memory()\n"
        "after = counted('VmRSS')\n"
        "x = torch.ones(16 * 2**20)\n"
        "marked = re.findall(r'VmFlags:.* hg\\b', open('/proc/self/smaps').read())\n"
        "print(after - before, len(marked), counted('VmRSS') - after)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    added, marked, used = map(int, done.stdout.split())
    assert added < 4_096, "kB"
    no_reservation = Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == "2"
    assert marked or no_reservation or not Path("/sys/kernel/mm/transparent_hugepage").exists()
    assert used >= 16 * 4 * 1_000
