"""The command line: a table of commands, each in a module that is imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from xuebu import __version__
from xuebu.errors import XuebuError
from xuebu.runtime import prepare_environment

USAGE_ERROR = 2

# name -> (module, function, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "study": ("study", "study", "the main job: raw text (or the built-in sample) to a model and an honest report"),
    "corpus collect": ("collect", "collect_pages", "collect documents from a wiki, politely, until a goal is reached"),
    "corpus build": ("corpus", "build", "clean, split into sentences, deduplicate, hold out; with a corpus card"),
    "corpus verify": (
        "corpus",
        "verify",
        "check a corpus against the conditions of its recipe; exit code 1 if one fails",
    ),
    "corpus card": ("card", "card", "show the card of a built corpus, or write its page with charts"),
    "corpus leaks": (
        "leaks",
        "leaks",
        "find, and remove, what a corpus shares with evaluation sets; exit code 1 if found",
    ),
    "vocab train": ("vocab", "train", "make a vocabulary from the training side of a corpus"),
    "vocab show": ("vocab", "show", "show a vocabulary, how it cuts a text, what it makes of a corpus"),
    "vocab compare": ("vocab", "compare", "two vocabularies side by side: entries, coverage, [UNK], tokens"),
    "vocab extend": ("vocab", "extend", "add the characters that a text needs, to a vocabulary or a trained model"),
    "vocab transfer": ("vocab", "transfer", "give a trained model another vocabulary, by token or by frequency rank"),
    "vocab masks": ("masks", "masks", "what masking does to a run, a store or a text; exit code 1 if not as asked"),
    "train": ("train", "train", "pretrain on a corpus, or go on with a run exactly where it stopped"),
    "analyze": ("analyze", "analyze", "say what a run's history, or a published one, does and does not show"),
    "forecast": ("forecast", "forecast", "what more steps would buy, when a level is reached, and what it costs"),
    "compare": ("compare", "compare", "runs side by side: every figure, and the differences with their intervals"),
    "fill": ("fill", "fill", "fill in [MASK] with a trained model"),
    "params": ("model", "params", "count the parameters of a model, part by part"),
    "presets": ("model", "presets", "list the model presets"),
}

_HEAD = f"""xuebu 学步 {__version__}: raw text to a pretrained encoder, and an honest account of its training.

usage: xuebu COMMAND [OPTIONS]        xuebu COMMAND --help explains a command and its settings

commands:
"""

_TAIL = """
start here:
  xuebu study                          the built-in sample, a few minutes on a laptop
  xuebu study mytexts/ --out runs/my   your own texts (.txt, .jsonl, wikiextractor; .gz .bz2 .xz)
  xuebu train --resume runs/my         go on after an interruption, equal to the byte
  xuebu analyze runs/my                what the training did, with intervals

exit codes: 0 done · 1 a check failed · 2 wrong input or settings · 130/143 stopped and saved (Ctrl-C/SIGTERM)
"""


def help_text() -> str:
    """Return what `xuebu --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    return _HEAD + "".join(f"  {name:<{width}}{text}\n" for name, (_, _, text) in COMMANDS.items()) + _TAIL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake of the user's becomes one line, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if given else USAGE_ERROR
    if given[0] in ("-V", "--version"):
        print(f"xuebu {__version__}")
        return 0
    name = next((" ".join(given[:words]) for words in (2, 1) if " ".join(given[:words]) in COMMANDS), None)
    if name is None:
        return _unknown(given)
    module_name, function, _ = COMMANDS[name]
    prepare_environment()
    try:
        module = importlib.import_module(f"xuebu.cli.{module_name}")
        result: int = getattr(module, function)(given[len(name.split()) :])
        sys.stdout.flush()
        return result
    except XuebuError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _TRAIN_MODULES:
            raise
        return _fail(f"`xuebu {name}` needs the extra `train`: pip install 'xuebu[train]'")
    except BrokenPipeError:
        # The reader (`| head`) has gone: not an error. Keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        hint = "; free some space and run the same command again" if error.errno == errno.ENOSPC else ""
        return _fail(f"{where}{error.strerror}{hint}")
    except KeyboardInterrupt as error:
        print("\nxuebu: interrupted; what was finished before is kept, run the same command to go on", file=sys.stderr)
        return 143 if error.args == ("SIGTERM",) else 130


_TRAIN_MODULES = ("torch", "tokenizers", "safetensors", "rjieba")


def _unknown(given: list[str]) -> int:
    import difflib

    family = [name for name in COMMANDS if name.split()[0] == given[0]]
    if family:
        if given[1:2] in (["-h"], ["--help"]):
            print("".join(f"xuebu {name}: {COMMANDS[name][2]}\n" for name in family), end="")
            return 0
        return _fail(f"`xuebu {given[0]}` is followed by one of: {', '.join(name.split()[1] for name in family)}")
    near = difflib.get_close_matches(given[0], [name.split()[0] for name in COMMANDS], n=1)
    hint = f"; did you mean `xuebu {near[0]}`?" if near else ""
    return _fail(f"no command {given[0]!r}{hint} (xuebu --help lists them)")


def _fail(line: str) -> int:
    """Print one line, with control characters of file names and texts made visible."""
    safe = "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
    print(f"xuebu: {safe}", file=sys.stderr)
    return USAGE_ERROR
