"""From flags to a plan; nothing is asked of anybody."""

import pytest

from xuebu.cli import collect as command
from xuebu.corpus.collect import Plan
from xuebu.corpus.queries import Source
from xuebu.corpus.sample import domains
from xuebu.corpus.targeting import Goal
from xuebu.errors import ConfigError, InputError


def plan_of(monkeypatch, tmp_path, *arguments):
    """The plan that a command line stands for."""
    plans = []

    async def keep(asked, plan, politeness, progress):
        plans.append((plan, politeness))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_collect", keep)
    with pytest.raises(KeyboardInterrupt):
        command.collect_pages(["--out", str(tmp_path / "out"), "--contact", "me@example.org", *arguments])
    assert not (tmp_path / "out").exists()
    return plans[0]


def test_without_a_source_the_59_domains_are_searched(monkeypatch, tmp_path):
    plan, politeness = plan_of(monkeypatch, tmp_path)
    assert plan == Plan(sources=tuple(Source("search", name) for name in domains()))
    assert len(plan.sources) == 59 and {"百家姓", "兵器名称"} <= {source.name for source in plan.sources}
    assert (politeness.concurrency, politeness.maxlag_seconds, politeness.requests_per_second) == (1, 5, 5.0)


def test_sources_goal_and_limits(monkeypatch, tmp_path):
    (tmp_path / "words.txt").write_text("古琴\n\n 墨 \n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("一\n二\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("二\n三", encoding="utf-8")
    plan, _ = plan_of(
        monkeypatch, tmp_path, "--search", "龙", "墨", "--keywords", str(tmp_path / "words.txt"), "--category", "乐器",
        "--category-depth", "2", "--links", "首页", "--all-pages", "--random", "--table", str(tmp_path / "a.txt"),
        str(tmp_path / "b.txt"), "--sources-only", "--variant", "zh-tw", "--text", "wikitext",
        "--namespaces", "0", "12", "--max-pages", "7",
    )  # fmt: skip
    searches = [Source("search", word) for word in ("龙", "墨", "古琴")]
    others = [Source("category", "乐器", 2), Source("links", "首页"), Source("all"), Source("random")]
    assert plan == Plan(
        sources=(*searches, *others), goal=Goal(3, ("一", "二", "三")), search_characters=False, form="wikitext",
        variant="zh-tw", namespaces=(0, 12), max_pages=7,
    )  # fmt: skip
    plan, _ = plan_of(monkeypatch, tmp_path, "--characters", "2", "--table", str(tmp_path / "a.txt"))
    assert plan.goal == Goal(2, ("一", "二")) and plan.search_characters
    plan, _ = plan_of(monkeypatch, tmp_path, "--standard", "1", "3")
    assert plan.goal.count == 3500 + 1605 == len(plan.goal.table) and {"一", "䲢"} <= set(plan.goal.table)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--characters", "-1"], ConfigError, "characters"),
        (["--characters", "3", "--table", "a.txt"], ConfigError, "only 2"),
        (["--table", "none.txt"], InputError, "none.txt"),
        (["--keywords", "empty.txt"], InputError, "empty.txt"),
        (["--category", " "], ConfigError, "empty"),
        (["--links-depth", "-1", "--links", "x"], ConfigError, "depth"),
        (["--pages-per-query", "0"], ConfigError, "pages_per_query"),
        (["--concurrency", "9"], ConfigError, "concurrency"),
        (["--requests-per-second", "0"], ConfigError, "requests_per_second"),
        (["--contact", "nobody"], ConfigError, "contact"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(monkeypatch, tmp_path, arguments, error, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("一\n二\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(error, match=words):
        command.collect_pages(["--out", "out", "--contact", "me@example.org", *arguments])
    assert not (tmp_path / "out").exists()
