"""What every benchmark prints beside its figures, and where it finds real text."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

WIKI_FILES = (
    "wiki_paragraphs/cmrc2018_train.jsonl",
    "wiki_paragraphs/cmrc2018_dev.jsonl",
    "wiki_paragraphs/cmrc2018_trial.jsonl",
    "wiki_paragraphs/cmrc2018_test_contexts.jsonl",
    "wiki_paragraphs/xquad_zh.jsonl",
    "zhwiki/shard_a.jsonl",
)


def facts() -> dict[str, Any]:
    """Return the machine and the versions that a figure depends on."""
    import numpy
    import torch

    import xuebu
    from xuebu.train.machine import cpu_name

    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "xuebu": xuebu.__version__,
    }


def shared_data() -> Path:
    """Return the folder of real text that XUEBU_SHARED_DATA names; end the program with one line where it is absent."""
    folder = Path(os.environ.get("XUEBU_SHARED_DATA", ""))
    if not os.environ.get("XUEBU_SHARED_DATA") or not folder.is_dir():
        print("not measured: set XUEBU_SHARED_DATA to the folder that holds wiki_paragraphs/ and zhwiki/")
        sys.exit(0)  # a benchmark without its text is no failure
    return folder


def wiki_files() -> list[Path]:
    """Return the simplified Wikipedia files of the shared data."""
    return [shared_data() / name for name in WIKI_FILES]
