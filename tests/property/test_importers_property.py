"""Any bytes, any mixture of pieces of real formats, any cut: a history or one clear line. `make long` tries 100,000."""

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xuebu.errors import InputError
from xuebu.history import read_history
from xuebu.history.records import History
from xuebu.history.tensorboard import masked_crc32c

number = st.one_of(
    st.integers(-5, 10**6).map(str),
    st.floats(-1e9, 1e9).map(lambda value: f"{value:.4g}"),
    st.sampled_from(["nan", "NaN", "inf", "-inf", "1e400", "-0", "1e-320", "99999999999999999999", "0x1", "1,000", ""]),
)
step = st.one_of(st.integers(0, 40).map(str), number)
name = st.sampled_from(
    ["loss", "val_loss", "train/loss", "acc", "lr", "grad norm", "mlm_acc", "a - b", "epoch", "é", "x__MIN"]
)
line = st.one_of(
    st.builds(lambda s, n, v: f"step:{s}/40 {n}:{v} train_time:{v}ms", step, name, number),
    st.builds(lambda s, n, v: f"iter {s}: {n} {v}, time 1.5ms", step, name, number),
    st.builds(lambda s, v: f"s:{s} tel:{v}", step, number),
    st.builds(lambda n, v, e: f"{{'{n}': {v}, 'learning_rate': '5e-05', 'epoch': {e}}}", name, number, number),
    st.builds(
        lambda s, n, v: json.dumps({"_step": s, n: v, "b": [1]}), step | st.integers(), name, number | st.floats()
    ),
    st.builds(lambda s, n, v: f'{{"step": {s}, "{n}": {v}}}', step, name, number),
    st.builds(lambda s, v, w: f"{s},{v},{w}", step, number, number),
    st.sampled_from(
        ["step,loss,acc", "step,value,metric,name", '"Step","a - loss","a - loss__MIN"', "epoch;loss", "["]
    ),
    st.sampled_from(
        ['{"log_history": [', '{"step": 1, "loss": 2},', "]}", '{"steps": [1, 2],', '"mlm_acc": [0.1, 0.2]}']
    ),
    st.sampled_from(["val loss 3.25", "100%|##| 3/3 [00:10<00:00]", "'train_runtime': 5, 'train_steps_per_second': 2"]),
    st.text(max_size=12),
)
end = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", ""])
texts = st.lists(st.tuples(line, end).map("".join), max_size=8).map(
    lambda parts: "".join(parts).encode("utf-8", "replace")
)


def framed(data: bytes) -> bytes:
    def crc(part: bytes) -> bytes:
        rows = np.frombuffer(part, dtype=np.uint8).reshape(1, -1)
        return struct.pack("<I", int(masked_crc32c(rows)[0]))

    head = struct.pack("<Q", len(data))
    return head + crc(head) + data + crc(data)


varint = st.integers(0, 2**64 - 1).map(
    lambda value: bytes([*((value >> 7 * at & 0x7F) | 0x80 for at in range(9)), value >> 63])
) | st.integers(0, 127).map(lambda value: bytes([value]))
fields = st.recursive(
    st.one_of(
        st.builds(lambda value: b"\x10" + value, varint),
        st.floats(width=32).map(lambda value: b"\x15" + struct.pack("<f", value)),
        st.floats().map(lambda value: b"\x09" + struct.pack("<d", value)),
        st.text(max_size=5).map(lambda text: b"\x0a" + bytes([len(text.encode())]) + text.encode()),
        st.binary(max_size=6),
    ),
    lambda inner: st.builds(
        lambda field, parts: (lambda body: bytes([field << 3 | 2, len(body) & 0x7F]) + body)(b"".join(parts)),
        st.sampled_from([1, 2, 5, 8]),
        st.lists(inner, max_size=4),
    ),
    max_leaves=8,
)
events = st.lists(
    st.lists(fields, max_size=4).map(b"".join).map(framed) | st.binary(max_size=20), min_size=1, max_size=6
).map(b"".join)


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    data = draw(st.one_of(texts, texts, events, st.binary(max_size=60)))
    if data and draw(st.booleans()):  # cut, or one byte changed
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] if draw(st.booleans()) else data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data


def check(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    try:
        history = read_history(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    check_history(history)


def check_history(history: History) -> None:
    for kind in ("train", "eval"):
        table = history.table(kind)
        assert (np.diff(table.step) > 0).all() and (table.step >= 0).all()
        for metric in table.columns:
            if history.has(kind, metric):
                assert np.isfinite(history.column(kind, metric).value).all()
    assert len(history.train) + len(history.eval) or history.format in ("xuebu run", "xuebu history")
    assert history.summary()


@pytest.fixture(scope="module")
def place() -> Any:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder) / "log"


common: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=400, **common)
@given(logs())
def test_anything_is_a_history_or_one_clear_line(place: Path, data: bytes) -> None:
    check(data, place)


@pytest.mark.long
@pytest.mark.timeout(7200)  # 381 s on one core; many times that on a busy machine
@settings(max_examples=100_000, **common)
@given(logs())
def test_a_hundred_thousand_logs(place: Path, data: bytes) -> None:
    check(data, place)


rows = st.lists(
    st.tuples(st.integers(0, 60), st.floats(-100, 100).map(lambda value: round(value, 4))),
    min_size=1,
    max_size=25,
    unique_by=lambda row: row[0],
)


@settings(max_examples=60, **common)
@given(rows, st.sampled_from(["csv", "text", "llmc", "lines", "state", "study"]))
def test_the_same_readings_from_every_format(place: Path, found: list[tuple[int, float]], how: str) -> None:
    match how:
        case "csv":
            text = "step,loss\n" + "".join(f"{at},{value!r}\n" for at, value in found)
        case "text":
            text = "".join(f"step {at} loss {value!r}\n" for at, value in found)
        case "llmc":
            text = "".join(f"s:{at} trl:{value!r}\n" for at, value in found)
        case "lines":
            text = "".join(json.dumps({"_step": at, "loss": value}) + "\n" for at, value in found)
        case "state":
            text = json.dumps({"log_history": [{"step": at, "loss": value} for at, value in found]})
        case _:
            text = json.dumps({"step": [at for at, _ in found], "loss": [value for _, value in found]}, indent=1)
    place.write_text(text)
    series = read_history(place).column("train", "loss_nats")
    assert dict(zip(series.step.tolist(), series.value.tolist(), strict=True)) == dict(found)
