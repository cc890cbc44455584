import json
import math
from pathlib import Path

import numpy as np
import pytest

from xuebu.errors import InputError, ResumeError
from xuebu.history.records import HistoryWriter, predictions_of, read_history


def train(step: int, **metrics: object) -> dict[str, object]:
    return {"kind": "train", "step": step, "tokens": step * 100, "seconds": step / 10, **metrics}


def write(path: Path, *records: dict[str, object]) -> Path:
    with HistoryWriter(path) as writer:
        for record in records:
            writer.append(record)
    return path


def test_what_is_written_is_read_with_its_counts_and_unknown_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run" / "history.jsonl",
        {"kind": "event", "event": "start", "step": 0, "device": "处理器"},
        train(10, mlm_accuracy=0.25, mlm_predictions=40, temperature=3),
        {"kind": "eval", "step": 10, "mlm_accuracy_mask": 0.5, "mlm_predictions_mask": 8},
        train(20, mlm_accuracy=0.5, mlm_predictions=np.int64(44), comment="好"),
    )
    history = read_history(path)
    series = history.column("train", "mlm_accuracy")
    assert series.step.tolist() == [10, 20]
    assert series.value.tolist() == [0.25, 0.5]
    assert series.count is not None
    assert series.count.tolist() == [40, 44]
    assert history.column("eval", "mlm_accuracy_mask").count is not None
    assert history.column("train", "temperature").value.tolist() == [3.0]
    assert history.train.columns["comment"].tolist() == [None, "好"]
    assert history.event("start") == {"kind": "event", "event": "start", "step": 0, "device": "处理器"}
    assert history.event("finished") is None
    assert not history.notes
    assert "2 training and 1 held-out" in history.summary()


@pytest.mark.parametrize(
    ("metric", "count"),
    [
        ("mlm_accuracy", "mlm_predictions"),
        ("mlm_accuracy_kept", "mlm_predictions_kept"),
        ("mlm_loss_nats", "mlm_predictions"),
        ("nsp_accuracy", "nsp_predictions"),
    ],
)
def test_each_metric_knows_its_count(metric: str, count: str) -> None:
    assert predictions_of(metric) == count


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (train(3, mlm_loss_nats=math.nan), "mlm_loss_nats is nan"),
        (train(3, mlm_loss_nats=np.float32(math.inf)), "mlm_loss_nats is inf"),
        (train(-1), '"step" is -1'),
        ({"kind": "train", "step": True}, '"step" is True'),
        ({"kind": "train"}, '"step" is None'),
        ({"kind": "test", "step": 1}, "\"kind\" is 'test'"),
        (train(3, nested={"a": [math.nan]}), "step 3"),
        (train(3, thing=object()), "step 3"),
        (train(3, text="\ud800"), "step 3"),
    ],
)
def test_a_bad_record_is_refused_and_nothing_written(tmp_path: Path, record: dict[str, object], words: str) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        writer.append(train(1))
        before = writer.position
        with pytest.raises(InputError) as caught:
            writer.append(record)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert writer.position == before == path.stat().st_size


def test_every_cut_of_the_file_is_mended_to_whole_records(tmp_path: Path) -> None:
    path = write(tmp_path / "history.jsonl", train(1, note="学步"), train(2, mlm_accuracy=0.5), train(3))
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == 10]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        before = read_history(path)
        with HistoryWriter(path) as writer:
            complete = size + 1 in ends  # only the line feed is missing
            kept = size + 1 if complete else max((end for end in ends if end <= size), default=0)
            assert path.read_bytes() == data[:kept]
            assert writer.removed_bytes == (0 if complete else size - kept)
        assert read_history(path).train.step.tolist() == before.train.step.tolist()
        torn = size not in ends and not complete and size > 0
        assert any("cut short" in note for note in before.notes) == torn


def test_a_torn_tail_longer_than_a_block_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "history.jsonl", train(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "event", "text": "' + b"x" * 200_000)
    with HistoryWriter(path) as writer:
        assert writer.removed_bytes == 200_027
    assert path.read_bytes() == whole


def test_a_rewound_file_continued_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    records = [train(step, mlm_accuracy=step / 100) for step in range(1, 9)]
    whole = write(tmp_path / "whole.jsonl", *records).read_bytes()
    path = tmp_path / "cut.jsonl"
    with HistoryWriter(path) as writer:
        for record in records[:3]:
            writer.append(record)
        saved = writer.position
        for record in records[3:6]:
            writer.append(record)
    with path.open("ab") as stream:
        stream.write(b'{"kind": "tr')
    with HistoryWriter(path) as writer:
        assert writer.rewind(saved) > 0
        assert writer.position == saved
        for record in records[3:]:
            writer.append(record)
        writer.sync()
    assert path.read_bytes() == whole


def test_rewinding_by_step_cuts_before_the_first_later_record(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", train(1), train(2), {"kind": "event", "event": "checkpoint"}, train(3), train(4))
    with HistoryWriter(path) as writer:
        writer.rewind_to_step(2)
        writer.append(train(3))
    history = read_history(path)
    assert history.train.step.tolist() == [1, 2, 3]
    assert history.event("checkpoint") is not None


def test_a_rewind_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", train(1), train(2))
    size = path.stat().st_size
    with HistoryWriter(path) as writer:
        with pytest.raises(ResumeError, match=rf"byte {size + 1}, but the file has {size} bytes"):
            writer.rewind(size + 1)
        with pytest.raises(ResumeError, match="inside a record"):
            writer.rewind(size - 3)
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    "damage", [b"{broken", b"[1, 2]", b"\xff\xfe", b'{"kind": "train"}', b'{"kind": "x", "step": 1}']
)
def test_a_damaged_middle_line_is_named(tmp_path: Path, damage: bytes) -> None:
    path = write(tmp_path / "h.jsonl", train(1), train(2))
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + damage + b"\n" + second + b"\n")
    with pytest.raises(InputError) as caught:
        read_history(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


def test_repeated_and_unsorted_steps_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    rows = [train(10, mlm_accuracy=0.1), train(20, mlm_accuracy=0.2), train(10, mlm_accuracy=0.3), train(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    history = read_history(path)
    assert history.train.step.tolist() == [10, 20, 30]
    assert history.column("train", "mlm_accuracy").value.tolist() == [0.3, 0.2]
    assert [note.split(" ")[1] for note in history.notes] == ["1", "1"]


def test_numbers_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    big = "1" + "0" * 400
    path.write_text(
        '{"kind": "train", "step": 1, "mlm_accuracy": NaN}\n{"kind": "train", "step": 2, "mlm_accuracy": 0.5}\n'
        f'{{"kind": "train", "step": 3, "mlm_accuracy": {big}}}\n'
    )
    history = read_history(path)
    assert history.column("train", "mlm_accuracy").step.tolist() == [2]
    assert history.notes == ("2 numbers that are not finite left out",)


def test_a_reading_of_no_predictions_is_no_reading(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h.jsonl",
        train(1, nsp_accuracy=0.0, nsp_predictions=0),
        train(2, nsp_accuracy=0.5, nsp_predictions=8),
    )
    history = read_history(path)
    assert history.column("train", "nsp_accuracy").step.tolist() == [2]
    assert not read_history(write(tmp_path / "n.jsonl", train(1, nsp_accuracy=0.0, nsp_predictions=0))).has(
        "train", "nsp_accuracy"
    )


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "h.jsonl"
    with HistoryWriter(path) as writer:
        writer.append(train(1))

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("os.write", full)
            with pytest.raises(InputError, match="No space left on device; the record of step 2 is lost"):
                writer.append(train(2))
        writer.append(train(3))
    assert read_history(path).train.step.tolist() == [1, 3]


def test_a_missing_metric_names_what_is_there(tmp_path: Path) -> None:
    history = read_history(write(tmp_path / "h.jsonl", train(1, comment="x")))
    with pytest.raises(InputError, match="no train record has the metric nsp_accuracy; recorded are: seconds, tokens"):
        history.column("train", "nsp_accuracy")
    with pytest.raises(InputError, match="the metric comment"):
        history.column("train", "comment")


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_history(path)
    with pytest.raises(InputError, match="cannot be written"):
        HistoryWriter(tmp_path)
