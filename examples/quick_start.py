"""Fill in [MASK] with a trained model, and say how sure it is.

    python examples/quick_start.py [RUN] [TEXT ...]

RUN is a run folder (`xuebu study` makes runs/study in a few minutes) or a model folder in Hugging Face layout.
"""

import argparse
import math
from pathlib import Path

from xuebu.infer.fill import fill_mask, load_for_inference

TEXTS = ["学而时习[MASK]，不亦说乎？", "春天来了，河边的柳[MASK]发了新[MASK]。"]

parser = argparse.ArgumentParser(description="Fill in [MASK] with a trained model.")
parser.add_argument("run", nargs="?", type=Path, default=Path("runs/study"), help="a run folder, or a model folder")
parser.add_argument("texts", nargs="*", default=TEXTS, help="texts with one [MASK] or more")
arguments = parser.parse_args()
if not arguments.run.exists():
    parser.error(f"{arguments.run} is not there; `xuebu study` makes runs/study in a few minutes")

model, vocabulary = load_for_inference(arguments.run)
num_parameters = sum(parameter.numel() for parameter in model.parameters())
print(f"{arguments.run}: {num_parameters:,} parameters, {vocabulary.num_tokens:,} tokens")

for text in arguments.texts:
    print(f"\n{text}")
    for fill in fill_mask(model, vocabulary, text, top_k=vocabulary.num_tokens):
        best = "  ".join(f"{candidate.token} {candidate.probability:.1%}" for candidate in fill.candidates[:5])
        bits = -sum(one.probability * math.log2(one.probability) for one in fill.candidates if one.probability > 0)
        print(f"  token {fill.position}: {best}")
        print(f"           as unsure as a fair draw among {2**bits:,.0f} of {vocabulary.num_tokens:,} tokens")
