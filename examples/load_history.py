"""Load a training history, xuebu's own or another trainer's, and say what it shows. Needs no torch.

    python examples/load_history.py [HISTORY] [--plain-json FILE]

HISTORY is a run folder, a history.jsonl, or plain JSON in the published study's form: {"steps": [...], "mlm_acc":
[...]}, accuracies as fractions, and if you have them "nsp_acc", "loss" and "lr", lists of the same length.
"""

import argparse
from pathlib import Path

from xuebu.analysis.analyze import analyze_history
from xuebu.files import read_json, write_json
from xuebu.history.importers import read_any

parser = argparse.ArgumentParser(description="Load a training history and say what it shows.")
parser.add_argument("history", nargs="?", type=Path, default=Path("runs/study"), help="run folder or history file")
parser.add_argument("--plain-json", type=Path, help="also write the readings in the published study's form")
arguments = parser.parse_args()
if not arguments.history.exists():
    parser.error(f"{arguments.history} is not there; `xuebu study` makes runs/study in a few minutes")

history = read_any(arguments.history)
scores = arguments.history / "baselines.json"  # of a run folder: the model held against counting
baselines = read_json(scores) if scores.is_file() else None
analysis = analyze_history(history, baselines=baselines, metric="mlm_accuracy")
print(history.summary())
print(f"{analysis.num_points:,} readings of {analysis.metric}, the last at step {analysis.last_step:,}")

pearson = analysis.correlations.get("pearson")
if pearson is not None:
    quoted = pearson.recommended
    interval = f"{quoted.low:.3f} to {quoted.high:.3f}, {quoted.name}" if quoted else "no interval can be vouched for"
    print(f"r = {pearson.coefficient:.4f} ({interval})")
if analysis.comparison is not None:
    print(analysis.comparison.summary())
for finding in analysis.verdict:
    print(f"[{finding.severity}] {finding.text}")

if arguments.plain_json:
    series = analysis.series
    write_json(arguments.plain_json, {"steps": series.step.tolist(), "mlm_acc": series.value.tolist()})
    print(f"readings written to {arguments.plain_json}")
