"""The run folder: what lies where, and run.toml, which says what the run is made from."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import xuebu
from xuebu.config import settings_from, to_table, to_toml
from xuebu.errors import ConfigError, InputError
from xuebu.files import sync_folder, write_atomic
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
    def initial(self) -> Path:
        """The model that the run began from, where it did not draw its weights."""
        return self.path / "initial"

    @property
    def model(self) -> Path:
        """The trained model in Hugging Face layout, written at the end."""
        return self.path / "model"

    @property
    def baselines(self) -> Path:
        """The model held against counting."""
        return self.path / "baselines.json"

    @property
    def masks(self) -> Path:
        """What masking did in the first batches."""
        return self.path / "masks.json"

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
        digests: SHA-256 of corpus, vocabulary, train_store, held_out_store and code; of the initial weights, if given.
        version: of xuebu.
        numpy_version: of numpy, which makes the batches; "" in a run of an older version.
        processes: how many trained together.
    """

    recipe: Recipe
    machine: Machine
    train_store: str
    held_out_store: str
    vocabulary: str
    digests: Mapping[str, str]
    version: str = xuebu.__version__
    numpy_version: str = np.__version__
    processes: int = 1

    def to_toml(self) -> str:
        """Return run.toml's text."""
        run = {
            "version": self.version,
            "numpy_version": self.numpy_version,
            "processes": self.processes,
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
        text = folder.run_toml.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{folder.path}: not a run folder (it has no run.toml)") from None
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None
    return parse_run_facts(text, where)


def parse_run_facts(text: str, where: str) -> RunFacts:
    """Return what run.toml's text says; `where` is its name.

    Raises:
        ConfigError: it is not what `RunFacts.to_toml` gave.
    """
    version = "unknown"
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None
    try:
        run, machine = dict(table.pop("run")), dict(table.pop("machine"))
        version = str(run.get("version"))
        return RunFacts(
            recipe=settings_from(Recipe, table, where=where),
            machine=settings_from(Machine, machine, where=where),
            train_store=run["train_store"],
            held_out_store=run["held_out_store"],
            vocabulary=run["vocabulary"],
            digests=run["digests"],
            version=run["version"],
            numpy_version=run.get("numpy_version", ""),
            processes=int(run.get("processes", 1)),
        )
    except ConfigError as error:
        other = f" (the run is of version {version}, this is {xuebu.__version__})"
        raise ConfigError(f"{error}{other if version != xuebu.__version__ else ''}") from None
    except (KeyError, TypeError, ValueError) as error:
        fault = f"key {error} is missing" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"{where}: {fault}; the file was changed, or written by another version ({version}; this is "
            f"{xuebu.__version__})"
        ) from None


def code_digest() -> str:
    """Return the SHA-256 of the sources that decide a run's bytes."""
    root = Path(xuebu.__file__).parent
    digest = hashlib.sha256()
    for name in _CODE:
        files = [root / name] if name.endswith(".py") else sorted((root / name).rglob("*.py"))
        for path in files:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def set_leg_aside(folder: RunFolder, step: int) -> None:
    """Move what describes a run as it ended at a step into `leg-...`, before a further leg; again, nothing is done.

    Model, scores, analysis and report of the longer run take their places when it ends.
    """
    aside = folder.path / f"leg-{step:08d}"
    if aside.exists():
        return
    staged = aside.with_name(f"{aside.name}.partial")  # a crash in between leaves this, and the next session goes on
    staged.mkdir(exist_ok=True)
    for path in (folder.model, folder.baselines, folder.fills, folder.analysis, folder.report, folder.charts):
        if path.exists():
            path.rename(staged / path.name)
    sync_folder(staged)
    staged.rename(aside)
    sync_folder(folder.path)
