"""Files of tensors: written past the page cache or through it, kept from save to save, read by rows."""

import errno
import hashlib
import os

import pytest
import torch
from safetensors.torch import load as load_by_library

from xuebu.errors import CheckpointError
from xuebu.train import tensor_file
from xuebu.train.tensor_file import Rows, TensorFile, TensorReader, write_and_digest

LARGE = {"w": torch.arange(3_000_001, dtype=torch.int32), "b": torch.tensor([1.5, float("nan")])}  # no whole blocks


def check(path, tensors, written):
    data = path.read_bytes()
    assert written == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    found = load_by_library(data)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name].view(torch.int32), tensors[name].view(torch.int32)) for name in tensors)


def test_a_large_file(tmp_path):
    check(tmp_path / "file", LARGE, TensorFile(LARGE).write(tmp_path / "file"))


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no O_DIRECT on this system")
@pytest.mark.parametrize("refused", ["open", "first write", "third write", "short write"])
def test_a_file_system_that_takes_only_some_of_it(tmp_path, monkeypatch, refused):
    """The rest goes through the page cache, and the file is the same."""
    open_file, pwrite, direct, cached = os.open, os.pwrite, [], []

    def opening(path, flags, *mode):
        if refused == "open" and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return open_file(path, flags & ~os.O_DIRECT, *mode)  # whatever lies below, this plays it

    def writing(descriptor, data, at):
        (cached or direct).append(at)
        unlucky = {"first write": 1, "short write": 2, "third write": 3}.get(refused)
        if cached or len(direct) != unlucky:
            return pwrite(descriptor, data, at)
        cached.append(at)
        if refused == "short write":
            return pwrite(descriptor, data[:100], at)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "pwrite", writing)
    check(tmp_path / "file", LARGE, TensorFile(LARGE).write(tmp_path / "file"))
    assert bool(cached) == (refused != "open")


def test_a_full_disk_is_its_own_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *given: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        TensorFile(LARGE).write(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        TensorFile(LARGE).write(tmp_path / "nowhere" / "file")


def test_nothing_and_little(tmp_path):
    for data in (b"", b"x", b"y" * 5000):
        written = write_and_digest(tmp_path / "file", memoryview(data), len(data))
        assert (tmp_path / "file").read_bytes() == data
        assert written["sha256"] == hashlib.sha256(data).hexdigest()


def test_the_same_memory_again(tmp_path):
    file = TensorFile({"w": torch.ones(3, 2), "n": torch.tensor(1)})
    assert dict(file).keys() == {"w", "n"} and len(file) == 2
    again = {"w": torch.full((3, 2), 7.0), "n": torch.tensor(2)}
    assert file.has_room_for(again)
    for other in ({"w": again["w"]}, {**again, "w": torch.ones(2, 3)}, {**again, "w": torch.ones(3, 2).half()}):
        assert not file.has_room_for(other)
    assert not file.has_room_for(again, {"w": Rows(0, 9)})
    before = file["w"].data_ptr()
    file.fill(again)
    assert file["w"].data_ptr() == before
    file.write(tmp_path / "file")
    found = load_by_library((tmp_path / "file").read_bytes())
    assert torch.equal(found["w"], again["w"]) and found["n"] == 2


def test_a_copy_is_a_copy():
    weight = torch.ones(4)
    file = TensorFile({"w": weight})
    weight += 1
    assert file["w"].tolist() == [1.0] * 4


@pytest.mark.parametrize("cuts", [[], [3], [0, 7], [2, 2, 5], [7, 7]])
def test_rows_from_however_many_files(tmp_path, cuts):
    whole, paths = torch.arange(21.0).view(7, 3), []
    for number, (first, last) in enumerate(zip([0, *cuts], [*cuts, 7], strict=True)):
        paths.append(tmp_path / str(number))
        own = {"w": whole[first:last]} | ({"n": torch.tensor(5)} if number == 0 else {})
        TensorFile(own, {"w": Rows(first, 7)}).write(paths[-1])
    with TensorReader(paths[::-1]) as reader:
        assert reader.names == ["n", "w"] and reader.shape("w") == (7, 3) and reader.shape("n") == ()
        assert torch.equal(reader.tensor("w"), whole) and reader.tensor("n") == 5
        for first in range(8):
            for last in range(first, 8):
                assert torch.equal(reader.rows("w", first, last), whole[first:last])


def test_what_is_read_is_no_window_on_the_file(tmp_path):
    path = tmp_path / "file"
    TensorFile({"w": torch.ones(1000)}).write(path)
    with TensorReader([path]) as reader:
        read = [reader.tensor("w"), reader.rows("w", 0, 1000), reader.rows("w", 5, 6)]
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-4000] + b"\0" * 4000)
    assert all(bool((tensor == 1).all()) for tensor in read)


def test_no_tensors(tmp_path):
    (tmp_path / "file").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with TensorReader([tmp_path / "file"]) as reader:
        assert reader.names == []
    for data in (b"", b"{}", b"\xff" * 30):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(CheckpointError, match="file: not a file of tensors") as caught:
            TensorReader([tmp_path / "file"])
        assert "\n" not in str(caught.value)


def test_small_files_stay_in_the_page_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "_DIRECT", 1 << 30)  # a flag that would be refused
    TensorFile({"w": torch.ones(10)}).write(tmp_path / "file")
