"""The run folder: what lies where, and run.toml, which says what the run is made from."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xuebu
from xuebu.config import settings_from, to_table, to_toml
from xuebu.errors import ConfigError, InputError
from xuebu.files import write_atomic
from xuebu.train.machine import Machine
from xuebu.train.settings import Recipe

# What decides the bytes of a run, beside torch: resume compares the digest of these sources.
_CODE = ("rng.py", "tokens", "batches", "model", "train")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def run_toml(self) -> Path:
        """Recipe, digests and machine of the run."""
        return self.path / "run.toml"

    @property
    def history(self) -> Path:
        """The history, one JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def sessions(self) -> Path:
        """When the run was started, resumed and interrupted; not part of what a resumed run must reproduce."""
        return self.path / "sessions.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model in Hugging Face layout, written at the end."""
        return self.path / "model"

    @property
    def baselines(self) -> Path:
        """The model held against counting."""
        return self.path / "baselines.json"

    @property
    def fills(self) -> Path:
        """Held-out sentences with a masked character, and what the model puts there."""
        return self.path / "fills.json"

    @property
    def analysis(self) -> Path:
        """What the history shows, with intervals."""
        return self.path / "analysis.json"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"

    @property
    def charts(self) -> Path:
        """Folder of charts."""
        return self.path / "charts"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What run.toml holds.

    Attributes:
        recipe: the resolved recipe.
        machine: the resolved machine.
        train_store, held_out_store, vocabulary: folders, relative to the run's where they lie inside it.
        digests: SHA-256 of corpus, vocabulary, train_store, held_out_store and code.
        version: of xuebu.
    """

    recipe: Recipe
    machine: Machine
    train_store: str
    held_out_store: str
    vocabulary: str
    digests: Mapping[str, str]
    version: str = xuebu.__version__

    def to_toml(self) -> str:
        """Return run.toml's text."""
        run = {
            "version": self.version,
            "train_store": self.train_store,
            "held_out_store": self.held_out_store,
            "vocabulary": self.vocabulary,
            "digests": dict(self.digests),
        }
        return to_toml({"run": run, "machine": to_table(self.machine), **to_table(self.recipe)})


def write_run_facts(folder: RunFolder, facts: RunFacts) -> None:
    """Write run.toml, atomically."""
    write_atomic(folder.run_toml, facts.to_toml())


def read_run_facts(folder: RunFolder) -> RunFacts:
    """Read run.toml.

    Raises:
        InputError: there is none: not a run folder.
        ConfigError: it is not what `write_run_facts` wrote.
    """
    where = str(folder.run_toml)
    try:
        table: dict[str, Any] = tomllib.loads(folder.run_toml.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder.path}: not a run folder (it has no run.toml)") from None
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None
    try:
        run, machine = dict(table.pop("run")), dict(table.pop("machine"))
        return RunFacts(
            recipe=settings_from(Recipe, table, where=where),
            machine=settings_from(Machine, machine, where=where),
            train_store=run["train_store"],
            held_out_store=run["held_out_store"],
            vocabulary=run["vocabulary"],
            digests=run["digests"],
            version=run["version"],
        )
    except (KeyError, TypeError, ValueError) as error:
        fault = f"key {error} is missing" if isinstance(error, KeyError) else error
        raise ConfigError(f"{where}: {fault}; the file was changed, or written by another version") from None


def code_digest() -> str:
    """Return the SHA-256 of the sources that decide a run's bytes."""
    root = Path(xuebu.__file__).parent
    digest = hashlib.sha256()
    for name in _CODE:
        files = [root / name] if name.endswith(".py") else sorted((root / name).rglob("*.py"))
        for path in files:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
