"""The reference page of commands and settings: `python -m xuebu.cli.reference > docs/reference.md`."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import textwrap
import typing
from typing import Any

from xuebu.cli import COMMANDS
from xuebu.config import Range
from xuebu.train.settings import Recipe

_HEAD = """# Reference: commands and settings

Made from the code by `python -m xuebu.cli.reference > docs/reference.md`; a test fails when it is out of date or when
a command or a setting has no explanation.
"""


def field_docs(cls: type) -> dict[str, str]:
    """Return the string under each field of a dataclass, on one line; "" where there is none."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    docs = {field.name: "" for field in dataclasses.fields(cls)}
    for node, following in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[node.target.id] = " ".join(following.value.value.split())
    return docs


def command_arguments(name: str) -> type:
    """Return the dataclass of a command's arguments: the one that its function hands to `parse`."""
    module_name, function, _ = COMMANDS[name]
    module = importlib.import_module(f"xuebu.cli.{module_name}")
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(module, function))))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "parse"
            and isinstance(node.args[0], ast.Name)
        ):
            arguments: type = getattr(module, node.args[0].id)
            return arguments
    raise LookupError(f"`{name}` does not call parse()")


def _kind(hint: Any) -> str:
    """Return a type in words: "1 to 256", "adam | sgd", "true or false"."""
    limits = ""
    if typing.get_origin(hint) is typing.Annotated:
        for extra in hint.__metadata__:
            if isinstance(extra, Range):
                limits = f" ≥ {extra.low:g}" if extra.high == float("inf") else f" {extra.low:g} to {extra.high:g}"
        hint = hint.__origin__
    if typing.get_origin(hint) is typing.Literal:
        return " \\| ".join(f"`{choice}`" if choice != "" else '`""`' for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {_kind(typing.get_args(hint)[0])}"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return names.get(hint, str(getattr(hint, "__name__", hint))) + limits


def reference() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD, "## Commands", ""]
    for name, (_, _, summary) in COMMANDS.items():
        arguments = command_arguments(name)
        lines += [
            f"### `xuebu {name}`",
            "",
            f"{summary[0].upper()}{summary[1:]}.",
            "",
            inspect.getdoc(arguments) or "",
            "",
        ]
        rows = [(field, doc) for field, doc in field_docs(arguments).items() if field != "settings"]
        lines += [f"- `{_flag(arguments, field)}`: {doc}" for field, doc in rows]
        lines.append("")
    lines += ["## Settings of a recipe", "", "As keys of a TOML file, or as flags: `--train.steps 100`.", ""]
    sections = field_docs(Recipe)
    for section, cls in typing.get_type_hints(Recipe).items():
        lines += [f"### [{section}]", "", sections[section], "", "| key | type | default | |", "|---|---|---|---|"]
        hints = typing.get_type_hints(cls, include_extras=True)
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for key, doc in field_docs(cls).items():
            default = json.dumps(defaults[key], ensure_ascii=False)
            lines.append(f"| `{key}` | {_kind(hints[key])} | `{default}` | {doc} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _flag(arguments: type, field: str) -> str:
    positional = "Positional" in inspect.get_annotations(arguments)[field]  # annotations are strings here
    return field.upper() if positional else "--" + field.replace("_", "-")


if __name__ == "__main__":
    print(reference(), end="")
