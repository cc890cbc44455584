"""How much memory does training take, and how long until the first step? Each preset in a process of its own.

Trains some steps of the largest micro-batches that a run can meet (128-token pairs, batches of 64; one in each lane) on
random tokens, with AdamW, with and without recomputed layers, and prints the peak resident memory. Then it times
`xuebu train` on a built corpus of the sample, preset tiny, from the command to the record of the first step; stores are
made on the way.

    PYTHONPATH=src python benchmarks/memory.py [--presets tiny mini small base reference] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contenders import VOCABULARY, prepare
from machine import facts
from xuebu.batches.packing import MicroBatch
from xuebu.model.encoder import PretrainingModel
from xuebu.runtime import prepare_environment

STEPS = 3


def measure(preset: str, recompute: bool) -> dict[str, Any]:
    """Return the peak resident bytes of this process after some steps at the largest shape."""
    from xuebu.cli.flags import load_recipe
    from xuebu.model.presets import preset_settings
    from xuebu.train.lanes import Lanes
    from xuebu.train.machine import prepare as prepare_machine
    from xuebu.train.machine import resolve_machine
    from xuebu.train.memory import largest_micro_batch
    from xuebu.train.objective import autocast, compute_losses
    from xuebu.train.optim import make_optimizer

    recipe = load_recipe("sample")
    settings = preset_settings(preset)
    train = dataclasses.replace(recipe.train, device="cpu", recompute=recompute)
    recipe = dataclasses.replace(recipe, model=settings, train=train)
    machine = resolve_machine(recipe.train)
    prepare_machine(machine)
    size = VOCABULARY.get(preset, 21_128)
    model = PretrainingModel(settings, size).train()
    model.recompute = recompute
    optimizer = make_optimizer(model, recipe.train)
    budget = machine.micro_batch_tokens // machine.lanes
    micro = largest_micro_batch(recipe, size, budget, machine.rows_per_block)

    def learn(model: PretrainingModel, micro: MicroBatch) -> None:
        losses = compute_losses(model, micro, "cpu", machine.precision)
        (losses.mlm_nats + losses.nsp_nats).backward()  # type: ignore[no-untyped-call]

    with Lanes(model, machine) as lanes:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            lanes.run(learn, [micro] * machine.lanes, lambda: autocast("cpu", machine.precision))
            lanes.add_up_gradients()
            optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "preset": preset,
        "recompute": recompute,
        "peak_bytes": peak,
        "tokens": len(micro.input_ids) * machine.lanes,
    }


def time_first_step() -> float:
    """Return the seconds from the command `xuebu train` to the history's record of step 1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder / "data", 0)
        arguments = ["--corpus", folder / "data" / "corpus", "--out", folder / "run", "--train.record-every", "1"]
        command = [sys.executable, "-m", "xuebu", "train", "--recipe", "sample", *map(str, arguments)]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            while process.poll() is None:
                history = folder / "run" / "history.jsonl"
                if history.exists() and '"train"' in history.read_text(encoding="utf-8"):
                    return time.perf_counter() - start
                time.sleep(0.02)
            assert process.stdout is not None
            raise SystemExit(f"xuebu train failed\n{process.stdout.read()[-2_000:]}")
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Measure each preset both ways and the first step; print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["tiny", "mini", "small", "base", "reference"])
    parser.add_argument("--quick", action="store_true", help="preset tiny alone")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    prepare_environment()
    if asked.worker:
        print(json.dumps(measure(asked.worker[0], asked.worker[1] == "recompute")))
        return
    rows = []
    print(f"{'preset':<12}{'tokens at once':>16}{'peak memory':>14}{'recomputed':>14}", flush=True)
    for preset in ["tiny"] if asked.quick else asked.presets:
        pair = []
        for kind in ("keep", "recompute"):
            command = [sys.executable, __file__, "--worker", preset, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{preset}: failed\n{done.stderr[-2_000:]}")
            pair.append(json.loads(done.stdout.splitlines()[-1]))
        rows += pair
        shown = "".join(f"{one['peak_bytes'] / 2**30:>11.2f} GB" for one in pair)
        print(f"{preset:<12}{pair[0]['tokens']:>16,}{shown}", flush=True)
    seconds = time_first_step()
    print(f"first step of preset tiny: {seconds:.1f} s after the command")
    print(json.dumps({"rows": rows, "first_step_seconds": seconds, "machine": facts()}))


if __name__ == "__main__":
    main()
