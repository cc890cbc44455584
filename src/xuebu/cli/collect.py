"""`xuebu corpus collect`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from xuebu.cli.flags import OptionalPath, parse
from xuebu.cli.screen import make_console, make_progress, print_plain
from xuebu.config import check_settings
from xuebu.corpus.collect import Plan, collect
from xuebu.corpus.collect_status import CollectStatus, read_status
from xuebu.corpus.coverage import read_character_list, standard_lists
from xuebu.corpus.journal import PAGES_NAME
from xuebu.corpus.mediawiki import Form
from xuebu.corpus.politeness import PoliteClient, Politeness
from xuebu.corpus.queries import Source
from xuebu.corpus.sample import domains
from xuebu.corpus.targeting import Goal
from xuebu.errors import ConfigError, InputError
from xuebu.files import read_lines, to_json
from xuebu.progress import Progress


@dataclass(frozen=True, kw_only=True)
class CollectArguments:
    """Collect documents from a MediaWiki such as Wikipedia, politely; the same command goes on after an interruption.

    Without a source, the 59 domain keywords of the published study are searched. With a goal (--characters, --standard,
    --table), the next request goes to the source that has lately brought most new characters a request, and single
    missing characters are searched for too.
    """

    out: Path
    """Folder of the collection; its pages.jsonl is input of `xuebu corpus build`."""
    contact: str = ""
    """E-mail address or web page of yours, sent in the User-Agent so that the wiki can reach you. Needed."""
    api: str = "https://zh.wikipedia.org/w/api.php"
    """Address of the wiki's api.php."""
    search: tuple[str, ...] = ()
    """Keywords of full-text searches."""
    keywords: OptionalPath = None
    """File of further keywords, one a line."""
    category: tuple[str, ...] = ()
    """Categories whose pages are taken."""
    category_depth: int = 0
    """Levels of subcategories below them."""
    links: tuple[str, ...] = ()
    """Titles of pages that are taken with the pages they link to."""
    links_depth: int = 0
    """Further levels of links."""
    all_pages: bool = False
    """Take all pages in the order of their titles."""
    random: bool = False
    """Take random pages, without end."""
    characters: int = 0
    """Goal: stop at so many distinct Han characters (of the tables, if there are some); 0: no such goal."""
    standard: tuple[Literal[1, 2, 3], ...] = ()
    """Goal: the standard characters of these levels, 1 2 3 for all 8,105."""
    table: tuple[Path, ...] = ()
    """Files of characters, one a line, that count for the goal; without --characters, all of them are to be found."""
    sources_only: bool = False
    """With a goal, do not search for single missing characters too."""
    text: Form = "auto"
    """Rendered texts ("extract", one page a request), the source turned into text here ("wikitext", 50 pages a
    request), or "auto": extracts where the wiki has them."""
    variant: str = ""
    """Variant of the language, e.g. zh-hans or zh-tw; without, as written."""
    namespaces: tuple[int, ...] = (0,)
    """Namespaces of the pages; 0 is articles."""
    pages_per_query: int = 10
    """Pages that one request for a list asks for, 1 to 500."""
    max_pages: int = 0
    """Stop at so many documents in the folder; 0: no limit."""
    max_requests: int = 0
    """Stop at so many requests, those of earlier runs in the folder included; 0: no limit."""
    concurrency: int = 1
    """Requests under way at once, 1 to 8; one after the other is what Wikimedia asks for."""
    requests_per_second: float = 5.0
    """No more requests than these."""
    maxlag: int = 5
    """Wait while the wiki's databases lag more than so many seconds behind."""
    max_attempts: int = 8
    """Attempts at one request before giving up, 1 to 20."""
    status: bool = False
    """Only show how far the collection in --out is, also while it is running."""
    as_json: bool = False
    """Print the status as JSON."""


def collect_pages(arguments: Sequence[str]) -> int:
    """Run `xuebu corpus collect`."""
    asked = parse(CollectArguments, arguments, prog="xuebu corpus collect")
    console = make_console()
    if asked.status:
        status = read_status(asked.out)
    else:
        politeness = Politeness(
            contact=asked.contact,
            concurrency=asked.concurrency,
            requests_per_second=float(asked.requests_per_second),
            maxlag_seconds=asked.maxlag,
            max_attempts=asked.max_attempts,
        )
        check_settings(politeness, where="command line")
        with _interrupted_by_sigterm():
            status = asyncio.run(_collect(asked, _plan(asked), politeness, make_progress(console)))
    if asked.as_json:
        print(to_json(status.to_json()), end="")
        return 0
    print_plain(console, status.summary())
    if status.pages and not asked.status:
        print_plain(console, f"next      xuebu corpus build {asked.out / PAGES_NAME} --out ...")
    return 0


async def _collect(asked: CollectArguments, plan: Plan, politeness: Politeness, progress: Progress) -> CollectStatus:
    async with PoliteClient(politeness, notify=progress.note) as client:
        return await collect(client, asked.api, plan, asked.out, progress=progress)


def _plan(asked: CollectArguments) -> Plan:
    keywords = [*asked.search, *(_keywords_of(asked.keywords) if asked.keywords else ())]
    sources = [
        *(Source("search", keyword) for keyword in keywords),
        *(Source("category", name, asked.category_depth) for name in asked.category),
        *(Source("links", title, asked.links_depth) for title in asked.links),
        *([Source("all")] if asked.all_pages else ()),
        *([Source("random")] if asked.random else ()),
    ]
    if any(not source.name.strip() for source in sources if source.kind in ("search", "category", "links")):
        raise ConfigError("a keyword, category or title is empty")
    if not sources:
        sources = [Source("search", keyword) for keyword in domains()]
    lists = [*(standard_lists()[level - 1] for level in asked.standard), *map(read_character_list, asked.table)]
    table = tuple(dict.fromkeys(character for each in lists for character in each.characters))
    if asked.characters < 0:
        raise ConfigError(f"`characters` must be at least 0, not {asked.characters}")
    return Plan(
        sources=tuple(dict.fromkeys(sources)),
        goal=Goal(asked.characters or len(table), table),
        search_characters=not asked.sources_only,
        form=asked.text,
        variant=asked.variant,
        namespaces=tuple(dict.fromkeys(asked.namespaces)),
        pages_per_query=asked.pages_per_query,
        max_pages=asked.max_pages,
        max_requests=asked.max_requests,
    )


def _keywords_of(path: Path) -> list[str]:
    keywords = [line.strip() for _, line in read_lines(path) if line.strip()]
    if not keywords:
        raise InputError(f"{path}: is empty; it should hold one keyword a line")
    return keywords


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a collection as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
