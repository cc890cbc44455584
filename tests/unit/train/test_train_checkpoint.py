import errno
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_by_library

from xuebu.errors import CheckpointError, TrainingError
from xuebu.train.checkpoint import (
    Checkpoint,
    file_names,
    list_checkpoints,
    newest_checkpoint,
    prove_checkpoint,
    prune_checkpoints,
    read_checkpoint,
    save_checkpoint,
)
from xuebu.train.parallel import World
from xuebu.train.tensor_file import Rows, TensorFile

FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json")


def make_checkpoint(step):
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(6, 4, generator=generator)
    return Checkpoint(
        step,
        {"a.weight": weight.t(), "a.bias": torch.tensor([float("nan"), -0.0, 1e-42]), "h": weight.bfloat16()},
        {"a.weight/step": torch.tensor(float(step)), "a.weight/exp_avg": weight[1:]},
        {"tokens": 10**12 + step, "seconds": 0.1 + step, "window": {"sums": [1 / 3, 2e-300], "steps": 3}, "字": "词"},
    )


def file_of(tensors):
    """The bytes of a safetensors file."""
    file = TensorFile(tensors)
    with tempfile.TemporaryDirectory() as folder:
        assert file.write(Path(folder) / "file")["bytes"] == file.num_bytes
        return (Path(folder) / "file").read_bytes()


def save(folder, *steps):
    return [save_checkpoint(folder, make_checkpoint(step)) for step in steps]


def check_equal(one, other):
    assert (one.step, one.state) == (other.step, other.state)
    for mine, theirs in ((one.model, other.model), (one.optimizer, other.optimizer)):
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype and tensor.shape == theirs[name].shape
            views = [part.contiguous().view(-1).view(torch.uint8) for part in (tensor, theirs[name])]
            assert torch.equal(*views)


def test_round_trip_is_equal_to_the_byte(tmp_path):
    (path,) = save(tmp_path / "checkpoints", 12)
    assert path.name == "step-00000012"
    assert sorted(file.name for file in path.iterdir()) == list(FILES)
    check_equal(read_checkpoint(path), make_checkpoint(12))
    (again,) = save(tmp_path / "other", 12)
    assert all((path / name).read_bytes() == (again / name).read_bytes() for name in FILES)


def test_no_pickle(tmp_path):
    (path,) = save(tmp_path, 1)
    for name in FILES:
        data = (path / name).read_bytes()
        header = int.from_bytes(data[:8], "little")
        json.loads(data[8 : 8 + header] if name.endswith(".safetensors") else data)


def test_the_files_are_those_of_the_library(tmp_path):
    from safetensors.torch import save as save_by_library

    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"字.{number}.{kind}": (torch.randn(3, number, generator=generator) * 50).to(kind)
        for number in (0, 1, 5)
        for kind in (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.int32)
    } | {
        "scalar": torch.tensor(7.0),
        "turned": torch.randn(4, 6, generator=generator).t(),
        "half": torch.ones(3).half(),
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for given in (tensors, {}, {"one": torch.arange(3.0)}):
        mine = file_of(given)
        found = load_by_library(mine)
        assert found.keys() == given.keys()
        for name, tensor in given.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    some = {"b": contiguous["scalar"], "a": contiguous["half"]}
    assert file_of(some) == save_by_library(some)


def test_an_empty_optimizer_is_kept_too(tmp_path):
    path = save_checkpoint(tmp_path, Checkpoint(0, {"w": torch.ones(2)}, {}, {}))
    assert read_checkpoint(path).optimizer == {}


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found(tmp_path, name):
    """Every byte of the small files, every 7th of the others; in the manifest, one that says the same is let pass."""
    (path,) = save(tmp_path, 12)
    whole = (path / name).read_bytes()
    expected = make_checkpoint(12)
    let_pass = 0
    for place in range(0, len(whole), 1 if name.endswith("json") else 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (path / name).write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            let_pass += 1
            check_equal(found, expected)
    assert let_pass == 0 or name == "manifest.json"


@pytest.mark.parametrize("name", FILES)
def test_cut_short_or_missing(tmp_path, name):
    (path,) = save(tmp_path, 12)
    whole = (path / name).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1 - (name == "manifest.json")):
        (path / name).write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=rf"step-00000012/{name}: damaged"):
            read_checkpoint(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=rf"step-00000012/{name}: No such file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "3", "null", "\x00", '{"format": 1}', '{"format": 1, "step": 12, "files": 3}',
        '{"format": 1, "step": 12, "files": {"state.json": {}}}', '{"format": 1, "step": 12, "files": ["x"]}',
        '{"format": 1, "step": 12, "files": {"state.json": "x"}}', '{"format": 1e999, "step": 12, "files": {}}',
        '{"format": "?", "step": 12, "files": {}}', '{"format": 1, "step": 12, "files": {}}',
        '{"format": 1, "step": 12, "files": {"../../state.json": {"sha256": "0"}}}',
    ],
)  # fmt: skip
def test_a_garbage_manifest_is_one_line(tmp_path, text):
    (path,) = save(tmp_path, 12)
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"step-00000012/manifest\.json: damaged \(") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_manifest_of_another_step(tmp_path):
    """A digit of the step is covered by no digest."""
    (path,) = save(tmp_path, 12)
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": 12', '"step": 13'))
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged \(it is of step 13"):
        read_checkpoint(path)


def test_a_newer_format_says_so(tmp_path):
    (path,) = save(tmp_path, 12)
    (path / "manifest.json").write_text('{"format": 4, "parts": "unheard of", "step": 12}')
    with pytest.raises(CheckpointError, match=r"manifest\.json: written by a newer xuebu \(format 4\); upgrade"):
        read_checkpoint(path)
    save(tmp_path, 4)
    with pytest.raises(CheckpointError, match="newer xuebu"):
        newest_checkpoint(tmp_path)  # it is not damaged: going back to step 4 would lose what it holds


def damage(path, name="model.safetensors"):
    data = bytearray((path / name).read_bytes())
    data[-1] ^= 1
    (path / name).write_bytes(data)


def test_a_damaged_newest_is_passed_over_and_named(tmp_path):
    paths = save(tmp_path, 4, 8, 12)
    assert newest_checkpoint(tmp_path)[0].step == 12
    damage(paths[2])
    found, problems = newest_checkpoint(tmp_path)
    check_equal(found, make_checkpoint(8))
    assert len(problems) == 1 and "step-00000012/model.safetensors: damaged" in problems[0]
    (paths[1] / "state.json").unlink()
    found, problems = newest_checkpoint(tmp_path)
    assert found.step == 4 and len(problems) == 2
    damage(paths[0], "optimizer.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint is whole: .*12/model.*; .*8/state.*; .*4/optimizer.*"):
        newest_checkpoint(tmp_path)


def test_none_at_all(tmp_path):
    assert newest_checkpoint(tmp_path / "nothing") == (None, [])
    (tmp_path / "step-00000003.partial").mkdir()
    (tmp_path / "step-3").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert newest_checkpoint(tmp_path) == (None, [])


def test_order_is_by_step_not_by_name(tmp_path):
    steps = [99_999_999, 100_000_000, 5]
    save(tmp_path, *steps)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [100_000_000, 99_999_999, 5]


def test_a_left_over_partial_folder_is_ignored_and_replaced(tmp_path):
    leftover = tmp_path / "step-00000008.partial"
    leftover.mkdir(parents=True)
    (leftover / "junk").write_text("x")
    save(tmp_path, 4)
    assert newest_checkpoint(tmp_path)[0].step == 4
    (path,) = save(tmp_path, 8)
    assert sorted(file.name for file in path.iterdir()) == list(FILES)
    assert not leftover.exists()


def test_saving_again_keeps_a_whole_one_and_replaces_a_damaged_one(tmp_path):
    (path,) = save(tmp_path, 8)
    inode = path.stat().st_ino
    save(tmp_path, 8)
    assert path.stat().st_ino == inode
    damage(path)
    save(tmp_path, 8)
    check_equal(read_checkpoint(path), make_checkpoint(8))


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, monkeypatch, call, after):
    save(tmp_path, 4, 8)
    calls = []
    owner = type(tmp_path) if call == "rename" else os
    original = getattr(owner, call)

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) > (0 if call == "rename" else after):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    monkeypatch.setattr(owner, call, failing)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 12)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000008"]
    for step in (4, 8):
        check_equal(read_checkpoint(tmp_path / f"step-{step:08d}"), make_checkpoint(step))
    save(tmp_path, 12)
    assert newest_checkpoint(tmp_path)[0].step == 12


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "expected"),
    [(1, 0, [24]), (2, 0, [20, 24]), (9, 0, [4, 8, 12, 16, 20, 24]), (1, 8, [8, 16, 24]), (3, 12, [12, 16, 20, 24])],
)
def test_pruning(tmp_path, keep_last, keep_every, expected):
    save(tmp_path, 4, 8, 12, 16, 20, 24)
    prune_checkpoints(tmp_path, 24, keep_last=keep_last, keep_every=keep_every)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08d}" for step in expected]


def test_pruning_does_not_count_damaged_ones_of_later_steps(tmp_path):
    """Resumed from 16 past a damaged 24 and stopped at 20: what was just saved must stay."""
    paths = save(tmp_path, 16, 24)
    damage(paths[1])
    save(tmp_path, 20)
    prune_checkpoints(tmp_path, 20, keep_last=1, keep_every=0)
    assert newest_checkpoint(tmp_path)[0].step == 20


def test_pruning_sweeps_what_killed_processes_left(tmp_path):
    save(tmp_path, 4, 8)
    for name in ("step-00000002.partial", "step-00000004.partial"):
        shutil.copytree(tmp_path / "step-00000008", tmp_path / name)
    prune_checkpoints(tmp_path, 8, keep_last=1, keep_every=0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000008"]


class Crew(World):
    """One of several writing processes, played by threads."""

    __slots__ = ("meeting", "said")

    def __init__(self, rank, meeting, said):
        super().__init__(rank, len(said), len(said), True)
        object.__setattr__(self, "meeting", meeting)
        object.__setattr__(self, "said", said)

    def exchange(self, value):
        self.said[self.rank] = json.loads(json.dumps(value))
        self.meeting.wait(20)
        answers = list(self.said)
        self.meeting.wait(20)
        return answers


def save_in_parts(folder, checkpoint, size, spoil=lambda rank: None):
    """Each of some processes writes the rows that fall to it; the errors that they raised."""
    meeting, said, errors = threading.Barrier(size), [None] * size, [None] * size

    def part(tensors, rank):
        own, rows = {}, {}
        for name, tensor in tensors.items():
            if tensor.ndim:
                each = -(-len(tensor) // size)
                own[name] = tensor[rank * each : (rank + 1) * each]
                rows[name] = Rows(min(rank * each, len(tensor)), len(tensor))
            elif rank == 0:
                own[name] = tensor
        return TensorFile(own, rows)

    def work(rank):
        try:
            mine = Checkpoint(
                checkpoint.step, *(part(t, rank) for t in (checkpoint.model, checkpoint.optimizer)), checkpoint.state
            )
            spoil(rank)
            save_checkpoint(folder, mine, Crew(rank, meeting, said))
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return errors


@pytest.mark.parametrize("size", [2, 3, 8])
def test_each_process_writes_its_part(tmp_path, size):
    """More processes than rows, too."""
    assert save_in_parts(tmp_path, make_checkpoint(12), size) == [None] * size
    (path,) = tmp_path.iterdir()
    names = [name for rank in range(size) for name in file_names(rank, size)]
    assert sorted(file.name for file in path.iterdir()) == sorted([*names, "manifest.json", "state.json"])
    manifest = json.loads((path / "manifest.json").read_bytes())
    assert manifest["processes"] == size and sorted(manifest["files"]) == sorted([*names, "state.json"])
    check_equal(read_checkpoint(path), make_checkpoint(12))
    inode = path.stat().st_ino
    assert save_in_parts(tmp_path, make_checkpoint(12), size) == [None] * size  # it is there
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("how", ["missing", "flipped", "of another save"])
def test_a_part_of_another_process_counts_as_much(tmp_path, how):
    for step in (4, 8):
        save_in_parts(tmp_path, make_checkpoint(step), 2)
    victim = tmp_path / "step-00000008" / file_names(1, 2)[1]
    match how:
        case "missing":
            victim.unlink()
        case "flipped":
            damage(victim.parent, victim.name)
        case "of another save":
            shutil.copy(tmp_path / "step-00000004" / victim.name, victim)
    found, problems = newest_checkpoint(tmp_path)
    check_equal(found, make_checkpoint(4))
    (line,) = problems
    assert str(victim) in line


def test_a_manifest_that_forgets_a_part(tmp_path):
    save_in_parts(tmp_path, make_checkpoint(8), 2)
    path = tmp_path / "step-00000008"
    manifest = json.loads((path / "manifest.json").read_bytes())
    del manifest["files"][file_names(1, 2)[0]]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged \('model-00002-of-00002"):
        prove_checkpoint(path)


def test_rows_that_make_no_whole(tmp_path):
    """Digests hold, and yet it was not written as one."""
    save_in_parts(tmp_path, make_checkpoint(8), 2)
    path = tmp_path / "step-00000008"
    one, other = (path / file_names(rank, 2)[0] for rank in range(2))
    manifest = json.loads((path / "manifest.json").read_bytes())
    shutil.copy(one, other)
    manifest["files"][other.name] = manifest["files"][one.name]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="step-00000008: the rows of .* do not make a whole"):
        read_checkpoint(path)


@pytest.mark.parametrize("unlucky", [0, 1])
def test_a_process_that_cannot_write_tells_the_others(tmp_path, monkeypatch, unlucky):
    save_in_parts(tmp_path, make_checkpoint(4), 2)
    before, write = threading.local(), TensorFile.write

    def failing(self, path):
        if getattr(before, "rank", None) == unlucky:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, path)

    monkeypatch.setattr(TensorFile, "write", failing)
    errors = save_in_parts(tmp_path, make_checkpoint(8), 2, spoil=lambda rank: setattr(before, "rank", rank))
    assert isinstance(errors[unlucky], OSError) and file_names(unlucky, 2)[0] in str(errors[unlucky])
    assert isinstance(errors[1 - unlucky], TrainingError)
    assert f"process {unlucky} could not write its part of the checkpoint: [Errno 28]" in str(errors[1 - unlucky])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_what_an_older_version_wrote(tmp_path):
    """Format 2 has no number of processes."""
    (path,) = save(tmp_path, 12)
    manifest = json.loads((path / "manifest.json").read_bytes())
    del manifest["processes"]
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    check_equal(read_checkpoint(path), make_checkpoint(12))
