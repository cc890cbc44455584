"""Settings are read strictly, and written back whole."""

import tomllib
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from xuebu.config import Range, check_settings, read_settings, settings_from, to_table, to_toml
from xuebu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    steps: Annotated[int, Range(1, 10)] = 3
    rate: Annotated[float, Range(0)] | None = None
    kind: Literal["cosine", "linear"] = "cosine"
    names: tuple[str, ...] = ("a",)
    fast: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    title: str = "x"


def read(tmp_path, text):
    path = tmp_path / "r.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(Outer, path)


def test_reads_what_is_stated_and_keeps_defaults(tmp_path):
    value = read(tmp_path, '[inner]\nrate = 1\nnames = ["b", "c"]\n')
    assert value == Outer(inner=Inner(rate=1.0, names=("b", "c")))
    assert isinstance(value.inner.rate, float)


def test_round_trip():
    value = Outer(inner=Inner(steps=7, rate=0.5, kind="linear", names=(), fast=False), title='quote " and \\ 学步')
    assert settings_from(Outer, tomllib.loads(to_toml(to_table(value))), where="x") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[inner]\nstep = 3", ["unknown key `inner.step`", "did you mean `inner.steps`"]),
        ("zzz = 3", ["unknown key `zzz`", "known here: inner, title"]),
        ("[inner]\nsteps = 11", ["`inner.steps` must be 1 to 10, not 11"]),
        ("[inner]\nrate = -0.5", ["`inner.rate` must be at least 0"]),
        ("[inner]\nsteps = 2.0", ["`inner.steps` must be a whole number"]),
        ("[inner]\nsteps = true", ["`inner.steps` must be a whole number"]),
        ("[inner]\nfast = 1", ["`inner.fast` must be true or false"]),
        ("[inner]\nkind = 'linar'", ["must be one of 'cosine', 'linear'", "did you mean 'linear'"]),
        ("[inner]\nnames = [1]", ["`inner.names[0]` must be a string"]),
        ("[inner]\nnames = 'b'", ["`inner.names` must be a list"]),
        ("inner = 3", ["`inner` must be a table"]),
        ("[inner", ["not TOML"]),
        (b"title = '\xff'", ["not TOML"]),
    ],
)
def test_refuses_with_file_and_key(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert "r.toml" in str(error.value)
    assert "\n" not in str(error.value).strip()
    for word in words:
        assert word in str(error.value)


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_settings(Outer, tmp_path / "none.toml")


def test_values_built_in_code_are_checked_too():
    with pytest.raises(ConfigError, match="command line: `inner.steps` must be 1 to 10"):
        check_settings(Outer(inner=Inner(steps=0)), where="command line")
