"""Go on with a stopped run from Python, exactly as if it had never stopped; Ctrl-C stops it again, and saves.

    python examples/continue_training.py [RUN]

The same from the command line: xuebu train --resume RUN
"""

import argparse
from pathlib import Path

from rich.console import Console

from xuebu.history.importers import read_any
from xuebu.progress import TerminalProgress
from xuebu.study import StudyFolder, resume_and_describe
from xuebu.train.checkpoint import list_checkpoints
from xuebu.train.folder import read_run_facts
from xuebu.train.session import stop_on_signals

parser = argparse.ArgumentParser(description="Go on with a stopped run.")
parser.add_argument("run", nargs="?", type=Path, default=Path("runs/study"), help="a run folder")
arguments = parser.parse_args()
folder = StudyFolder(arguments.run)
if not folder.run.run_toml.exists():
    parser.error(f"{arguments.run} is not a run folder; `xuebu study` or `xuebu train` makes one")

facts = read_run_facts(folder.run)
checkpoints = list_checkpoints(folder.run.checkpoints)
stands_at = checkpoints[0][0] if checkpoints else 0
print(f"{arguments.run} stands at step {stands_at:,} of {facts.recipe.train.steps:,}")
print(f"made on {facts.machine.summary()}")

with stop_on_signals() as stop:
    result = resume_and_describe(folder, progress=TerminalProgress(Console()), stop=stop)

held_out = read_any(arguments.run).column("eval", "mlm_accuracy")
for step, accuracy in zip(held_out.step[-5:], held_out.value[-5:], strict=True):
    print(f"step {step:>7,}  held-out accuracy {accuracy:.1%}")
if result.analysis is None:
    print(f"stopped ({result.reason}) and saved at step {result.step:,}; run this script again to go on")
else:
    print(*(finding.text for finding in result.analysis.verdict), sep="\n")
    print(f"report: {folder.run.report}")
