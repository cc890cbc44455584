"""Collecting documents from a wiki until a goal is reached: who is asked next, what is kept, when to stop."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from xuebu import __version__
from xuebu.corpus.collect_status import CollectStatus, status_of
from xuebu.corpus.document import Document
from xuebu.corpus.journal import MISSING_NAME, Journal
from xuebu.corpus.mediawiki import (
    PAGES_PER_REQUEST,
    AnswerError,
    Form,
    MediaWiki,
    Page,
    Site,
    script_of,
    wikitext_converter,
)
from xuebu.corpus.politeness import GaveUpError, PoliteClient
from xuebu.corpus.queries import Source, step
from xuebu.corpus.targeting import Goal, choose, new_han
from xuebu.errors import ConfigError, NetworkError
from xuebu.files import write_atomic
from xuebu.progress import SILENT, Progress, Task

T = TypeVar("T")
U = TypeVar("U")
Fetched = tuple[list[int], list[Page] | NetworkError]

Why = Literal["goal", "pages", "requests", "exhausted"]

CHARACTER_ARM = "characters"
CHARACTER_PAGES = 3
MAX_DROUGHT_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to collect.

    Attributes:
        sources: where pages are found.
        goal: characters to reach. With one, the source that lately brought most new characters a request is asked next;
            without, sources are read to their end, one after the other.
        search_characters: with a goal, also search for single missing characters.
        form: of the text; "auto" takes extracts where the wiki has them.
        variant: of the language, e.g. "zh-hans"; "": as written.
        namespaces: 0 for articles.
        pages_per_query: pages that one request for a list asks for, 1 to 500; the unit in which sources compete.
        max_pages: stop at so many documents in the folder; 0: no such limit.
        max_requests: stop at so many requests, those of earlier runs in the folder included; 0: no such limit.
    """

    sources: tuple[Source, ...]
    goal: Goal = field(default_factory=Goal)
    search_characters: bool = True
    form: Form = "auto"
    variant: str = ""
    namespaces: tuple[int, ...] = (0,)
    pages_per_query: int = 10
    max_pages: int = 0
    max_requests: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("pages_per_query", 1, 500), ("max_pages", 0, None), ("max_requests", 0, None)):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                limits = f"at least {low}" if high is None else f"{low} to {high}"
                raise ConfigError(f"`{name}` must be {limits}, not {value}")
        if any(source.depth < 0 for source in self.sources):
            raise ConfigError("a depth must be at least 0")
        if not self.namespaces or min(self.namespaces) < 0:
            raise ConfigError("`namespaces` must be numbers of at least 0, and at least one")
        if not self.sources and not (self.goal.count and self.search_characters):
            raise ConfigError("no source: name keywords, categories, links, all pages or random ones")


async def collect(
    client: PoliteClient, api: str, plan: Plan, folder: Path, *, progress: Progress = SILENT
) -> CollectStatus:
    """Collect documents of a wiki into a folder; go on with what is there already.

    Written are `pages.jsonl` (one document a line, input of `xuebu corpus build`), `collect.journal`, and, with a table
    of characters, `missing.characters`. The order of documents does not depend on the concurrency.

    Args:
        client: what asks.
        api: address of the wiki's api.php.
        plan: what to collect; may differ from the plan of an earlier run in this folder in all but wiki, form and
            variant.
        folder: where to.
        progress: where it is shown.

    Raises:
        ConfigError: the folder holds a collection of another kind, or the plan cannot be carried out.
        NetworkError: the wiki refuses or does not answer; everything up to then is kept.
    """
    wiki = MediaWiki(client, api)
    site = await wiki.site()
    with Journal(folder, plan.goal, client.timing.now) as journal:
        if journal.num_lost:
            progress.note(
                f"{folder}: {journal.num_lost:,} documents were lost with the machine; they are fetched again"
            )
        collector = _Collector(wiki, site, plan, journal)
        collector.begin()
        state = journal.state
        unit, total = ("characters", plan.goal.count) if plan.goal.count else ("pages", plan.max_pages or None)
        with progress.task("collect", total, unit) as task:
            task.advance(min(state.num_counted, plan.goal.count) if plan.goal.count else state.num_pages)
            try:
                why: str = await collector.run(task)
            except NetworkError as error:
                journal.write("stop", why=str(error), **collector.spent())
                raise
        journal.write("stop", why=why, **collector.spent())
        journal.sync()
        if plan.goal.table:
            missing = plan.goal.missing(state.seen)
            write_atomic(folder / MISSING_NAME, "".join(f"{character}\n" for character in missing))
        return status_of(state)


class _Collector:
    """One run: the plan, the wiki and the journal together."""

    def __init__(self, wiki: MediaWiki, site: Site, plan: Plan, journal: Journal) -> None:
        self.wiki, self.site, self.plan, self.journal, self.state = wiki, site, plan, journal, journal.state
        self.form = self._settled_form()
        self._written_requests = 0
        self._written_retries: Counter[str] = Counter()
        self._candidates = deque(plan.goal.candidates()) if plan.goal.count and plan.search_characters else deque()

    def _settled_form(self) -> str:
        """Return "extract" or "wikitext", and check that this plan may go on in this folder."""
        plan, start = self.plan, self.state.start
        form: str = plan.form
        if form == "auto":
            form = start.get("form") or ("extract" if self.site.has_extracts else "wikitext")
        elif form == "extract" and not self.site.has_extracts:
            raise ConfigError(f"{self.site.name}: has no TextExtracts; use the form wikitext")
        if form == "extract" and plan.variant and plan.variant not in self.site.variants:
            known = ", ".join(self.site.variants) or "none"
            raise ConfigError(f"{self.site.name}: does not convert to the variant {plan.variant!r}; it knows: {known}")
        if form == "wikitext":
            wikitext_converter()
        for name, value in (("wiki", self.site.wiki), ("form", form), ("variant", plan.variant)):
            if start and start[name] != value:
                raise ConfigError(
                    f"{self.journal.folder}: was begun with {name} {start[name]!r}, not {value!r}; use another folder"
                )
        return form

    def begin(self) -> None:
        """Write the line that says what is being collected, and how."""
        self.journal.write(
            "start",
            wiki=self.site.wiki,
            name=self.site.name,
            api=self.wiki.url,
            form=self.form,
            variant=self.plan.variant,
            goal=self.plan.goal.count,
            table="".join(self.plan.goal.table) or None,
            licence=self.site.licence,
            version=__version__,
            **self.spent(),
        )

    def spent(self) -> dict[str, Any]:
        """Return the requests and retries since the last call, as fields of a line."""
        traffic = self.wiki.client.traffic
        requests = traffic.requests - self._written_requests
        retries = traffic.retries - self._written_retries
        self._written_requests, self._written_retries = traffic.requests, traffic.retries.copy()
        return {"requests": requests, "retries": dict(retries) or None}

    def reason_to_stop(self) -> Why | None:
        """Return why nothing more is to be asked, if so."""
        goal, plan = self.plan.goal, self.plan
        if goal.count and not goal.remaining(self.state.num_counted):
            return "goal"
        if plan.max_pages and self.state.num_pages >= plan.max_pages:
            return "pages"
        unwritten = self.wiki.client.traffic.requests - self._written_requests
        if plan.max_requests and self.state.num_requests + unwritten >= plan.max_requests:
            return "requests"
        return None

    async def run(self, task: Task) -> Why:
        """Ask until there is a reason to stop."""
        while True:
            if why := self.reason_to_stop():
                return why
            turn = self._next()
            if turn is None:
                return "exhausted"
            source, arm = turn
            if not self.state.waiting.get(source.key):
                await self._find(source, arm)
            await self._fetch(source, arm, task)
            self.journal.sync()

    def _next(self) -> tuple[Source, str] | None:
        """Return the source to ask, and the arm that pays for it; None if nothing is left."""
        for key in self.state.waiting:
            if key.startswith("character:"):  # a kill came between its search and its pages
                return Source("character", key.removeprefix("character:")), CHARACTER_ARM
        sources = {source.key: source for source in self.plan.sources if not self.state.is_ended(source)}
        for key, source in sources.items():
            if self.state.waiting.get(key):
                return source, key
        arms = list(sources)
        character = self._next_character()
        if character:
            arms.append(CHARACTER_ARM)
        if not arms:
            return None
        arm = choose(arms, self.state.gains) if self.plan.goal.count else arms[0]
        return (Source("character", character), arm) if arm == CHARACTER_ARM else (sources[arm], arm)

    def _next_character(self) -> str:
        """Return the next character that was neither seen nor searched for, "" if there is none."""
        while self._candidates:
            character = self._candidates[0]
            if character not in self.state.seen and Source("character", character).key not in self.state.places:
                return character
            self._candidates.popleft()
        return ""

    async def _find(self, source: Source, arm: str) -> None:
        """Ask for one more list of pages."""
        plan, place = self.plan, self.state.place_of(source)
        limit = min(CHARACTER_PAGES, plan.pages_per_query) if source.kind == "character" else plan.pages_per_query
        try:
            found = await step(self.wiki, source, place, limit=limit, namespaces=plan.namespaces)
        except AnswerError as error:
            self.journal.write("closed", source=source.key, arm=arm, why=str(error), **self.spent())
            return
        stuck = found.resume is not None and (found.position, found.resume) == (place.position, place.resume)
        self.journal.write_found(source, arm, found, self.spent())
        drought, random = self.state.droughts[source.key], source.kind == "random"
        why = None
        if stuck and not random:
            why = "the wiki continues at the same place without end"
        elif drought.empty >= MAX_DROUGHT_STEPS or (random and drought.steps >= MAX_DROUGHT_STEPS):
            why = f"nothing new in {MAX_DROUGHT_STEPS} requests"
        elif drought.repeats > len(self.state.settled) and not random:  # more than there are: some came twice
            why = "the wiki lists the same pages again and again"
        if why:
            self.journal.write("closed", source=source.key, why=why)

    async def _fetch(self, source: Source, arm: str, task: Task) -> None:
        """Fetch the pages that wait under a source, in their order."""
        waiting = list(self.state.waiting.get(source.key, ()))
        if source.kind == "character" and source.name in self.state.seen:
            waiting = []
        size = PAGES_PER_REQUEST[self.form] if source.kind != "character" else 1
        batches = [waiting[index : index + size] for index in range(0, len(waiting), size)]
        answers = map_in_order(self._pages_or_error, batches, self.wiki.client.politeness.concurrency)
        async with aclosing(answers):
            async for ids, pages in answers:
                for page_ids, answer in [(ids, pages)] if len(ids) == 1 else await self._one_by_one(ids, pages):
                    if isinstance(answer, list):
                        self._keep(source, arm, page_ids, answer, task)
                    else:
                        await self._refuse_failed(source, arm, page_ids, answer)
                if source.kind == "character" and source.name in self.state.seen:
                    break
                if self.reason_to_stop():
                    return
        if source.kind == "character" and source.key not in self.state.ended:
            why = "seen" if source.name in self.state.seen else "not seen"
            self.journal.write("closed", source=source.key, why=why)

    async def _pages_or_error(self, ids: list[int]) -> Fetched:
        try:
            return ids, await self.wiki.pages(ids, self.form, self.plan.variant)
        except (GaveUpError, AnswerError) as error:
            return ids, error

    async def _one_by_one(self, ids: list[int], pages: list[Page] | NetworkError) -> list[Fetched]:
        """Return an answer as it is; after an error, ask for each page alone: one must not take the others with it."""
        if isinstance(pages, list):
            return [(ids, pages)]
        return [await self._pages_or_error([page]) for page in ids]

    async def _refuse_failed(self, source: Source, arm: str, ids: list[int], error: NetworkError) -> None:
        """Refuse a page that cannot be had, if the wiki still answers otherwise.

        Raises:
            NetworkError: it does not.
        """
        if isinstance(error, GaveUpError):
            await self.wiki.site()
        self.journal.write(
            "refused", source=source.key, arm=arm, ids=ids, reason="failed", error=str(error), **self.spent()
        )

    def _keep(self, source: Source, arm: str, ids: list[int], pages: list[Page], task: Task) -> None:
        """Write an answer: its documents, and why the other pages are none."""
        place = {page: index for index, page in enumerate(ids)}
        for page in sorted(pages, key=lambda page: place.get(page.id, len(ids))):
            if page.id in self.state.settled:
                continue
            if reason := self._reason_against(page):
                fields = {"source": source.key, "arm": arm, "ids": [page.id], "reason": reason}
                self.journal.write("refused", **fields, **self.spent())
            else:
                self._keep_page(source, arm, page, task)
        if redirects := [page for page in ids if page not in self.state.settled]:
            self.journal.write("refused", source=source.key, arm=arm, ids=redirects, reason="redirect", **self.spent())

    def _reason_against(self, page: Page) -> str | None:
        if not page.exists:
            return "missing"
        if page.namespace not in self.plan.namespaces:
            return "other_namespace"
        return None if page.text else "no_text"

    def _keep_page(self, source: Source, arm: str, page: Page, task: Task) -> None:
        state, before = self.state, (self.state.num_counted, self.state.num_pages)
        document = Document(
            id=str(page.id),
            title=page.title,
            group=page.title,
            text=page.text,
            source=self.site.wiki,
            script=script_of(self.plan.variant, self.form),
            revision=page.revision,
            licence=self.site.licence,
            fetched_at=self.wiki.client.timing.now().isoformat(timespec="seconds").replace("+00:00", "Z"),
            domain=source.name if source.kind in ("search", "category", "links") else "",
        )
        self.journal.write_page(
            document,
            source=source.key,
            arm=arm,
            ids=[page.id],
            new=new_han(page.text, state.seen),
            removed=dict(page.removed) or None,
            **self.spent(),
        )
        goal = self.plan.goal.count
        done = state.num_counted - before[0] if goal else 1
        task.advance(max(0, min(done, goal - before[0])) if goal else done)
        task.show(status_of(state).figures())


async def map_in_order(
    function: Callable[[T], Coroutine[Any, Any, U]], items: Sequence[T], concurrency: int
) -> AsyncGenerator[U, None]:
    """Yield the results of an async function in the order of the items, with so many under way at once.

    Closed early, what is under way is cancelled.
    """
    under_way: deque[asyncio.Task[U]] = deque()
    try:
        for item in items:
            under_way.append(asyncio.create_task(function(item)))
            if len(under_way) >= concurrency:
                yield await under_way[0]
                under_way.popleft()
        while under_way:
            yield await under_way[0]
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
