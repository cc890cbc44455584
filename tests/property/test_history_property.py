"""Any bytes: a history or one clear line; any records: written, cut and read back whole."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from xuebu.errors import XuebuError
from xuebu.history.importers import read_any
from xuebu.history.records import HistoryWriter, read_history

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
names = st.text(min_size=1, max_size=8).filter(lambda name: name not in ("kind", "step"))
records = st.fixed_dictionaries(
    {"kind": st.sampled_from(["train", "eval"]), "step": st.integers(0, 50)},
    optional={"mlm_accuracy": numbers | st.none(), "note": st.text(max_size=5)},
)
parts = st.one_of(
    st.binary(max_size=30),
    records.map(lambda record: json.dumps(record).encode() + b"\n"),
    st.sampled_from(
        [
            b"{",
            b"}",
            b"\n",
            b'{"steps": [',
            b'1, 2], "mlm_acc": [0.1, 0.2]}',
            b"NaN",
            b"\xef\xbb\xbf",
            b'"kind": "train"',
        ]
    ),
)
values = st.recursive(
    numbers | st.text(max_size=3) | st.none() | st.booleans(), lambda inner: st.lists(inner, max_size=4), max_leaves=5
)
studies = st.dictionaries(
    st.sampled_from(["steps", "mlm_acc", "nsp_acc", "loss", "lr", "x"]), st.lists(values, max_size=4) | values
)


def outcome(data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(data)
        try:
            return read_any(path)
        except XuebuError as error:
            assert str(error).count("\n") == 0
            assert str(path) in str(error)
            return None


@settings(max_examples=150, deadline=None)
@given(st.lists(parts, max_size=6).map(b"".join))
def test_any_bytes_are_a_history_or_one_clear_line(data: bytes) -> None:
    outcome(data)


@settings(max_examples=150, deadline=None)
@given(studies)
def test_any_study_like_json_is_a_history_or_one_clear_line(content: dict[str, Any]) -> None:
    outcome(json.dumps(content).encode())


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=6), st.integers(0, 400))
def test_what_was_whole_before_a_cut_is_read_after_it(rows: list[dict[str, Any]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        ends = []
        with HistoryWriter(path) as writer:
            for row in rows:
                writer.append(row)
                ends.append(writer.position)
        data = path.read_bytes()[:cut]
        path.write_bytes(data)
        whole = sum(end <= len(data) + 1 for end in ends)
        with HistoryWriter(path) as writer:
            assert writer.position == ([0, *ends][whole])
        history = read_history(path)
        steps = {
            kind: sorted({row["step"] for row in rows[:whole] if row["kind"] == kind}) for kind in ("train", "eval")
        }
        assert history.train.step.tolist() == steps["train"]
        assert history.eval.step.tolist() == steps["eval"]
