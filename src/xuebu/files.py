"""Reading and writing that loses nothing: strict text in, atomic files out, digests of both."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, cast

from xuebu.errors import InputError, MissingExtraError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
MAX_LINE_BYTES = 64 * 1024 * 1024


def plain_suffix(path: Path) -> str:
    """Return the suffix below the compression: ".jsonl" of "a.jsonl.gz"."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return name.suffix.lower()


def open_binary(path: Path, raw: IO[bytes] | None = None) -> IO[bytes]:
    """Open a file for reading, decompressed on the way if its name ends in .gz, .bz2, .xz or .zst.

    Args:
        path: of the file.
        raw: the same file, open already, so that one can ask how far it is read; the caller closes it.

    Raises:
        MissingExtraError: zstandard is not installed, and the file ends in .zst.
    """
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(raw or path, "rb"))
        case ".bz2":
            return bz2.open(raw or path, "rb")
        case ".xz":
            return lzma.open(raw or path, "rb")
        case ".zst":
            return cast(IO[bytes], io.BufferedReader(_ZstdFile(path, raw), 1 << 20))
        case _:
            return raw or path.open("rb")


class _ZstdFile(io.RawIOBase):
    """A .zst file of any number of frames; unlike zstandard's own reader it tells when the last one is cut short."""

    def __init__(self, path: Path, raw: IO[bytes] | None = None) -> None:
        try:
            import zstandard
        except ModuleNotFoundError:
            raise MissingExtraError.of("hub", f"{path}: reading .zst") from None
        self._error = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._stream = raw or path.open("rb")
        self._pending = self._data = b""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one step gives; 0 at the end."""
        while not self._data:
            compressed = self._pending or self._stream.read(1 << 17)
            if not compressed:
                if self._frame is not None:
                    raise EOFError("the last frame is cut short")
                return 0
            if self._frame is None:
                self._frame = self._new_frame()
            try:
                self._data = self._frame.decompress(compressed)
            except self._error as error:
                raise EOFError(str(error)) from None
            self._pending = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        taken = self._data[: len(buffer)]
        buffer[: len(taken)] = taken
        self._data = self._data[len(taken) :]
        return len(taken)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


class Span(NamedTuple):
    """Whole lines of a text file.

    Attributes:
        start, length: where they lie, in bytes; of a compressed file, as it is decompressed.
        lines_before: lines before them.
        data: they themselves, where they were read already.
    """

    start: int
    length: int
    lines_before: int
    data: bytes | None = None


def read_lines(path: Path, span: Span | None = None) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line without its end) of a UTF-8 text file, one line in memory at a time.

    Lines end at "\n" only (a "\r" before it belongs to the end): `str.splitlines` would also cut at U+2028 and
    U+0085, which occur inside real sentences. A byte-order mark at the start is dropped.

    Args:
        path: of the file.
        span: the lines to read, of a compressed file with their data; None reads all.

    Raises:
        InputError: the file cannot be read or decompressed, is not UTF-8, or holds a line over 64 MiB.
    """
    number, left = (span.lines_before, span.length) if span else (0, sys.maxsize)
    try:
        with io.BytesIO(span.data) if span and span.data is not None else open_binary(path) as stream:
            if span and span.data is None:
                stream.seek(span.start)
            while left > 0 and (raw := stream.readline(MAX_LINE_BYTES + 1)):
                left -= len(raw)
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{path}:{number}: line of over {MAX_LINE_BYTES // 2**20} MiB; break it into lines"
                    )
                if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                    raw = raw[3:]
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    byte = raw[error.start]
                    raise InputError(
                        f"{path}:{number}: not UTF-8 (byte 0x{byte:02x} at column {error.start + 1}); "
                        "convert it first, e.g. iconv -f GB18030 -t UTF-8"
                    ) from None
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.strerror and not isinstance(error, gzip.BadGzipFile):
            raise InputError(f"{path}: {error.strerror}") from None
        raise InputError(f"{path}:{number + 1}: compressed data is cut short or damaged ({error})") from None


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return JSON with keys in the order given, text unescaped, and NaN refused.

    Raises:
        ValueError: a number is not finite (our own mistake: write None for "not known").
    """
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or not JSON; names the line.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file in place: for files that nobody trusts before something else says that they are whole.

    Args:
        path: of the file.
        data: all of it.
        sync: whether it must survive a power cut from then on.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.write(data)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors of the operating system the name of a file: those of write and fsync (a full disk) have none.

    Raises:
        OSError: as it came, with `filename` set.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Written beside its place, flushed to the disk, renamed; after an error nothing is left over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path):
            with partial.open("wb") as stream:
                stream.write(data.encode("utf-8") if isinstance(data, str) else data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # a read-only folder: the error above says so
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_atomic(path, to_json(value))


class DigestWriter:
    """A text file written line by line under a temporary name; `close` syncs it and gives its SHA-256.

    As a context manager it closes the file, or after an error abandons it.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        """Open the file.

        Args:
            path: its name once it is closed.
            sync: whether it must survive a power cut from then on; without, whoever relies on it sees to that.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._sync = sync
        self._partial = path.with_name(f".{path.name}.partial")
        self._stream = io.BufferedWriter(self._partial.open("wb", buffering=0), 1 << 20)
        self._digest = hashlib.sha256()

    def write_line(self, line: str) -> None:
        """Append one line; it must not contain a line feed."""
        data = line.encode("utf-8") + b"\n"
        self._digest.update(data)
        with naming(self.path):
            self._stream.write(data)

    def write_file(self, path: Path) -> int:
        """Append all lines of another file; returns its bytes."""
        size = 0
        with path.open("rb") as source:
            while data := source.read(1 << 20):
                size += len(data)
                self._digest.update(data)
                with naming(self.path):
                    self._stream.write(data)
        return size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def close(self) -> str:
        """Flush to disk, move to the final name, and return the digest of all that was written."""
        if self._stream.closed:
            return self._digest.hexdigest()
        with naming(self.path):
            self._stream.flush()
            if self._sync:
                os.fsync(self._stream.fileno())
            self._stream.close()
            self._partial.replace(self.path)
            if self._sync:
                sync_folder(self.path.parent)
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Close and remove the unfinished file."""
        with suppress(OSError):  # what is still buffered goes to waste
            self._stream.close()
        self._partial.unlink(missing_ok=True)
