"""A corpus of 5 GB in 2 GB of memory, by the command, with the documents and sentences that it must hold.

XUEBU_SCALE_MEGABYTES sets another size. `make test` builds a small one with tables as much smaller
(tests/unit/corpus/test_corpus_scale.py).
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from xuebu.corpus.card import load_card
from xuebu.corpus.workers import num_cores

MEGABYTES = float(os.environ.get("XUEBU_SCALE_MEGABYTES", "5000"))
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.long
@pytest.mark.timeout(8 * 3600)
def test_five_gigabytes_are_built_in_two_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = 3.5 * MEGABYTES * 1e6
    if shutil.disk_usage(tmp_path).free < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of disk in {tmp_path}")
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("corpus_scale", BENCHMARKS / "corpus_scale.py")
    scale = importlib.util.module_from_spec(spec)
    sys.modules["corpus_scale"] = scale
    spec.loader.exec_module(scale)
    expected = scale.write_texts(tmp_path / "texts", MEGABYTES)
    row = scale.build(tmp_path / "texts", tmp_path / "corpus", min(num_cores(), 4))
    with capsys.disabled():
        print(f"{MEGABYTES:,.0f} MB: {row}")
    scale.check(load_card(tmp_path / "corpus"), expected)
    assert row["peak_memory_bytes"] < 2e9
    assert row["peak_disk_bytes"] < 2.5 * expected.size
