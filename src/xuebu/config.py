"""Settings: frozen dataclasses read strictly from TOML, and written back whole.

A settings class stands beside the code that it sets. Every field has a default, a type that can be checked, and under
it a string that is its help; a number carries its range as `Annotated[int, Range(1, 8192)]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from xuebu.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The closed interval that a number must lie in."""

    low: float
    high: float = float("inf")


def read_settings(cls: type[T], path: Path) -> T:
    """Return the settings of class `cls` that a TOML file states; fields it leaves out keep their defaults.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or states an unknown key or a value of the wrong type or
            range; names the file and the key, and the nearest known key.
    """
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return settings_from(cls, table, where=str(path))


def settings_from(cls: type[T], table: dict[str, Any], *, where: str, prefix: str = "") -> T:
    """Return the settings of class `cls` that a plain table states. Arguments and errors as `read_settings`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            hint = f"did you mean `{prefix}{near[0]}`?" if near else f"known here: {', '.join(names)}"
            raise ConfigError(f"{where}: unknown key `{prefix}{key}`; {hint}")
        values[key] = _checked(value, hints[key], where, f"{prefix}{key}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def check_settings(settings: Any, *, where: str) -> None:
    """Check types and ranges of settings built in code or from flags, as `read_settings` does for a file."""
    settings_from(type(settings), to_table(settings), where=where)


def _checked(value: Any, hint: Any, where: str, key: str) -> Any:
    """Return `value` as the type of `hint`, or raise ConfigError."""
    bounds: list[Range] = []
    if typing.get_origin(hint) is typing.Annotated:
        bounds = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
        hint = hint.__origin__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _checked(value, typing.Annotated[inner, *bounds] if bounds else inner, where, key)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: `{key}` must be a table, [{key}], not {_shown(value)}")
        return settings_from(hint, value, where=where, prefix=f"{key}.")
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
            near = difflib.get_close_matches(str(value), [str(choice) for choice in arguments], n=1)
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: `{key}` must be one of {_listed(arguments)}, not {_shown(value)}{hint_text}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: `{key}` must be a list, not {_shown(value)}")
        return tuple(_checked(item, arguments[0], where, f"{key}[{index}]") for index, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: `{key}` must be {_TYPE_NAMES.get(hint, hint.__name__)}, not {_shown(value)}")
    for bound in bounds:
        if not bound.low <= value <= bound.high:
            limits = f"at least {bound.low:g}" if bound.high == float("inf") else f"{bound.low:g} to {bound.high:g}"
            raise ConfigError(f"{where}: `{key}` must be {limits}, not {value}")
    return value


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(choices: tuple[Any, ...]) -> str:
    return ", ".join(repr(choice) for choice in choices)


def to_table(settings: Any) -> dict[str, Any]:
    """Return settings as a plain nested table; None (which TOML lacks) is left out."""
    table: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            table[field.name] = to_table(value)
        elif value is not None:
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def to_toml(table: dict[str, Any]) -> str:
    """Return a plain table as TOML text, keys in their order."""
    return tomli_w.dumps(table)
