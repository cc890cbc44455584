"""The journal of a collection: a line for each finished request, and beside it the documents; both only ever grow.

A document is appended and flushed before the line that vouches for it, and a line says where its document ends. Opened
again after a kill, a torn line and a document without its line are cut off: at most the page in flight is lost, and it
is fetched again; none is there twice. Everything that a collection knows is replayed from these lines by the same
function that keeps it up to date while running.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from xuebu.corpus.document import Document
from xuebu.corpus.queries import Place, Source, Step, start_of
from xuebu.corpus.targeting import Gain, Goal
from xuebu.errors import ConfigError, InputError
from xuebu.files import sync_folder

JOURNAL_NAME, PAGES_NAME, MISSING_NAME = "collect.journal", "pages.jsonl", "missing.characters"

REFUSALS = {
    "redirect": "a redirect; the page that it leads to is taken in its place, unless it is there already",
    "missing": "deleted between being found and being fetched",
    "no_text": "no text: not written in wikitext, or nothing but tables and templates",
    "other_namespace": "a redirect that leads out of the wanted namespaces",
    "failed": "the wiki gave an error for this page, and answered for others",
}
"""Reason -> why a page that was found is not among the documents."""

RECENT_REQUESTS = 100


@dataclass(slots=True)
class Drought:
    """What a source gave since its last page that was not known.

    Attributes:
        steps: requests.
        empty: requests since its last page of any kind.
        repeats: pages that were known.
    """

    steps: int = 0
    empty: int = 0
    repeats: int = 0


@dataclass(slots=True)
class State:
    """What a collection knows; see `apply`.

    Attributes:
        goal: what counts as a gain.
        start: the first line: which wiki, which form of text.
        settled: numbers of pages that need no request any more.
        waiting: source -> pages found by it and not yet fetched, in order.
        places: source -> how far it is read.
        ended: source -> why it was given up before its end.
        droughts: source -> what it gave since its last new page.
        gains: arm -> what it cost and brought.
        seen: all Han characters of the documents.
        num_counted: of these, how many count for the goal.
        end: size of the file of documents in bytes.
    """

    goal: Goal
    start: dict[str, Any] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    waiting: dict[str, dict[int, None]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    droughts: dict[str, Drought] = field(default_factory=dict)
    gains: dict[str, Gain] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    num_counted: int = 0
    num_pages: int = 0
    num_characters: int = 0
    num_requests: int = 0
    num_repeats: int = 0
    num_unneeded: int = 0
    end: int = 0
    active_seconds: float = 0.0
    last_time: str = ""
    stopped: str = ""
    recent: deque[tuple[float, int, int]] = field(default_factory=deque)
    _recent_requests: int = 0

    def apply(self, record: dict[str, Any]) -> None:
        """Take in one line of the journal.

        Raises:
            KeyError, TypeError, ValueError: it is not such a line.
        """
        kind, gained = record["kind"], 0
        seconds = _seconds_between(self.last_time, record["time"]) if self.last_time and kind != "start" else 0.0
        self.last_time, self.stopped = record["time"], ""
        self.active_seconds += seconds
        key, arm = record.get("source", ""), record.get("arm", "")
        match kind:
            case "start":
                self.start = self.start or record
            case "found":
                place = self.places.setdefault(key, Place(items=[]))
                place.items += [(str(name), int(depth)) for name, depth in record.get("items", ())]
                place.position, place.resume = record["position"], record.get("resume")
                self._note_drought(key, len(record["pages"]), record.get("repeats", 0))
                if record["pages"]:
                    self.waiting.setdefault(key, {}).update(dict.fromkeys(record["pages"]))
                self.num_repeats += record.get("repeats", 0)
            case "page":
                self._settle(record["ids"])
                self.seen.update(record["new"])
                gained = len(self.goal.counted(record["new"]))
                self.num_counted += gained
                self.num_pages += 1
                self.num_characters += record["characters"]
                self.end = record["end"]
            case "refused":
                self._settle(record["ids"])
                self.refused[record["reason"]] += len(record["ids"])
            case "closed":
                self.ended[key] = record["why"]
                if key.startswith("character:"):
                    self.num_unneeded += len(self.waiting.pop(key, ()))
            case "stop":
                self.stopped = record["why"]
            case _:
                raise ValueError(f"unknown kind {kind!r}")
        requests = record.get("requests", 0)
        self.num_requests += requests
        self.retries.update(record.get("retries", {}))
        if arm:
            self.gains.setdefault(arm, Gain()).add(requests, gained, int(kind == "page"))
        self._remember(seconds, requests, gained)

    def _note_drought(self, key: str, num_new: int, num_repeats: int) -> None:
        drought = self.droughts.setdefault(key, Drought())
        drought.steps = 0 if num_new else drought.steps + 1
        drought.empty = 0 if num_new or num_repeats else drought.empty + 1
        drought.repeats = 0 if num_new else drought.repeats + num_repeats

    def _settle(self, ids: Sequence[int]) -> None:
        self.settled.update(ids)
        for key in list(self.waiting):  # several where an earlier run had other sources
            for page in ids:
                self.waiting[key].pop(page, None)
            if not self.waiting[key]:
                del self.waiting[key]

    def _remember(self, seconds: float, requests: int, gained: int) -> None:
        self.recent.append((seconds, requests, gained))
        self._recent_requests += requests
        while self._recent_requests - self.recent[0][1] >= RECENT_REQUESTS:
            self._recent_requests -= self.recent.popleft()[1]

    def place_of(self, source: Source) -> Place:
        """Return how far a source is read."""
        return self.places.get(source.key) or start_of(source)

    def is_ended(self, source: Source) -> bool:
        """Return whether a source has nothing left to give: no request and no page."""
        return not self.waiting.get(source.key) and (source.key in self.ended or self.place_of(source).ended)


def _seconds_between(earlier: str, later: str) -> float:
    return max(0.0, (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())


def _read_journal(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield (line number, offset of its end, record); a torn last line is passed over.

    Raises:
        InputError: a line within is damaged.
    """
    offset = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
                record["kind"], record["time"]
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    f"{path}:{number}: damaged; collect into another folder, or cut the file there"
                ) from None
            yield number, offset, record


def read_state(folder: Path, goal: Goal | None = None) -> State:
    """Return what a collection knows, read without touching it; another process may be writing.

    Args:
        folder: of the collection.
        goal: what counts; None: the goal of its latest start.

    Raises:
        InputError: there is no collection, or its journal is damaged.
    """
    state = _replay(folder, goal, pages_size=None)[0]
    if not state.start:
        raise InputError(f"{folder}: nothing was collected there yet")
    return state


def _replay(folder: Path, goal: Goal | None, pages_size: int | None) -> tuple[State, int, int]:
    """Return the state, the size of the journal that it stands for, and how many documents after that are lost.

    Args:
        folder: of the collection.
        goal: what counts; None: the goal of the latest start.
        pages_size: size of the file of documents: a line for a document beyond it ends the replay. None: not looked at.
    """
    path = folder / JOURNAL_NAME
    if not path.exists():
        raise InputError(f"{folder}: holds no collection ({JOURNAL_NAME} is not there)")
    if goal is None:
        goal = Goal()
        for _, _, record in _read_journal(path):
            if record["kind"] == "start":
                goal = Goal(int(record.get("goal", 0)), tuple(record.get("table", "")))
    state, size, num_lost = State(goal), 0, 0
    for number, offset, record in _read_journal(path):
        if record["kind"] == "page" and pages_size is not None and record.get("end", 0) > pages_size:
            num_lost += 1  # the machine, not the process, went down: the line reached the disk, its document did not
        if num_lost:
            continue
        try:
            state.apply(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}:{number}: not a line of this journal ({error!r})") from None
        size = offset
    return state, size, num_lost


class Journal:
    """The journal and the documents of a folder, open for writing; a context manager. One process at a time.

    Attributes:
        state: what is known, always as the lines say.
        num_lost: documents that a power cut took from the disk; they will be fetched again.
    """

    def __init__(self, folder: Path, goal: Goal, now: Callable[[], datetime]) -> None:
        """Open a folder, new or not; what a kill has left half done is cut off.

        Args:
            folder: is made if it is not there.
            goal: what counts as a gain.
            now: the time of day, in UTC.

        Raises:
            ConfigError: another process is collecting there.
            InputError: the journal is damaged, or its documents are gone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._now = folder, now
        self._journal = (folder / JOURNAL_NAME).open("ab")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            raise ConfigError(f"{folder}: another process is collecting there; let it finish") from None
        self._pages: IO[bytes] | None = None
        try:
            self._pages = (folder / PAGES_NAME).open("ab")
            self.state = self._recover(goal)
        except BaseException:
            self.close()
            raise

    def _recover(self, goal: Goal) -> State:
        assert self._pages is not None
        pages_size = os.fstat(self._pages.fileno()).st_size
        state, size, self.num_lost = _replay(self.folder, goal, pages_size)
        if self.num_lost and not state.num_pages:
            raise InputError(f"{self.folder / PAGES_NAME}: its documents are gone; put them back or use another folder")
        if pages_size and not state.start:
            raise InputError(f"{self.folder / PAGES_NAME}: is there without its journal; use another folder")
        os.ftruncate(self._journal.fileno(), size)
        os.ftruncate(self._pages.fileno(), state.end)
        sync_folder(self.folder)
        return state

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        self._journal.close()
        if self._pages is not None:
            self._pages.close()

    def write(self, kind: str, **fields: Any) -> None:
        """Write one line and take it in."""
        time = self._now().astimezone(UTC).isoformat(timespec="milliseconds")
        record = {"kind": kind, "time": time, **{name: value for name, value in fields.items() if value is not None}}
        self._journal.write(json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")
        self._journal.flush()
        self.state.apply(record)

    def write_found(self, source: Source, arm: str, step: Step, spent: dict[str, Any]) -> None:
        """Write what one request of a source gave."""
        known = self.state.places.get(source.key)
        items = [*([] if known else start_of(source).items), *step.items]
        pages = [page for page in step.pages if page not in self.state.settled]
        self.write(
            "found",
            source=source.key,
            arm=arm,
            pages=pages,
            repeats=len(step.pages) - len(pages) or None,
            items=items or None,
            position=step.position,
            resume=step.resume,
            **spent,
        )

    def write_page(self, document: Document, **fields: Any) -> None:
        """Append a document, then the line that vouches for it; `fields` as in a line of kind "page"."""
        assert self._pages is not None
        names = ("id", "title", "text", "source", "script", "revision", "licence", "fetched_at", "domain")
        record = {name: value for name in names if (value := getattr(document, name))}
        line = json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
        self._pages.write(line)
        self._pages.flush()
        self.write("page", end=self.state.end + len(line), characters=len(document.text), **fields)

    def sync(self) -> None:
        """Bring everything to the disk, documents first, so that it survives a power cut too."""
        assert self._pages is not None
        os.fsync(self._pages.fileno())
        os.fsync(self._journal.fileno())
