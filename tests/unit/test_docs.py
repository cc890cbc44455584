"""The documentation keeps up with the code: links, commands, settings, names and figures are looked up, not trusted."""

import ast
import importlib
import io
import json
import math
import os
import re
import shlex
import shutil
import typing
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from xuebu.cli import COMMANDS
from xuebu.cli.flags import recipe_folder
from xuebu.cli.reference import command_arguments, field_docs
from xuebu.corpus.refusals import REASONS
from xuebu.train.settings import Recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
TWINS = [path.relative_to(DOCS / "zh").as_posix() for path in sorted((DOCS / "zh").rglob("*.md"))]
OWN = [DOCS / folder / name for name in TWINS for folder in (".", "zh")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
SETTINGS = {section: set(field_docs(cls)) for section, cls in typing.get_type_hints(Recipe).items() if field_docs(cls)}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text_of(path))


def blocks_of(path: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text_of(path)) if language in languages]


def inline_code(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose_of(path))


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_relative_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", prose_of(path))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name} links to {target}, which is not there"
        if path.is_relative_to(DOCS):
            assert found.is_relative_to(DOCS), f"{path.name} links out of docs/ to {target}: the site cannot show it"
        if anchor and anchor.isascii():
            headings = re.findall(r"^#+ (.+)$", prose_of(found), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{path.name} links to {target}, but no heading is so called"


class Parsed(Exception):
    """The arguments were understood; the command itself is not run."""


def command_lines():
    for path in PAGES:
        for block in blocks_of(path, "sh", "console", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.removeprefix("$ ").strip()
                if words.startswith("xuebu "):
                    yield pytest.param(words, id=f"{path.relative_to(ROOT).as_posix()}: {words[:50]}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_commands_are_understood(line, tmp_path, monkeypatch):
    shutil.copy(recipe_folder() / "sample.toml", tmp_path / "my.toml")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    name = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in COMMANDS), None)
    assert name, f"no such command: {line}"
    module = importlib.import_module(f"xuebu.cli.{COMMANDS[name][0]}")
    parse = module.parse

    def parse_only(*arguments, **options):
        parse(*arguments, **options)
        raise Parsed

    monkeypatch.setattr(module, "parse", parse_only)
    printed = io.StringIO()
    try:
        with redirect_stderr(printed), redirect_stdout(printed):
            getattr(module, COMMANDS[name][1])(words[len(name.split()) :])
    except Parsed:
        return
    except SystemExit:
        pytest.fail(f"{line}\n{printed.getvalue()}")
    pytest.fail(f"`xuebu {name}` did not parse its arguments")


def test_flags_and_settings_named_in_prose_are_known():
    flags = {f"--{field.replace('_', '-')}" for name in COMMANDS for field in field_docs(command_arguments(name))}
    for section, keys in SETTINGS.items():
        for key in keys:
            flags |= {f"--{section}.{no}{key.replace('_', '-')}" for no in ("", "no-")}
    for path in OWN:
        for code in inline_code(path):
            for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", code):
                assert flag in flags, f"{path}: {flag} is no flag of any command"
            setting = re.fullmatch(r"(\w+)\.([a-z0-9_]+)", code)
            if setting and setting[1] in SETTINGS and setting[2] not in ("jsonl", "toml", "safetensors"):
                assert setting[2] in SETTINGS[setting[1]], f"{path}: {code} is no setting"
            if code.startswith("xuebu ") and not code.startswith("xuebu --"):
                words = code.split()[1:]
                assert {" ".join(words[:1]), " ".join(words[:2])} & set(COMMANDS), f"{path}: {code} is no command"


def test_make_targets_named_in_docs_exist():
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.M))
    named = {code.split()[1] for path in OWN for code in inline_code(path) if re.fullmatch(r"make [a-z]+", code)}
    assert named and named <= targets


def test_names_of_the_library_exist():
    named = {code for path in OWN for code in inline_code(path) if re.fullmatch(r"xuebu(\.\w+)+", code)}
    assert len(named) > 25
    for name in sorted(named):
        module, _, attribute = name.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            found = False
        if not found:
            importlib.import_module(name)  # a module, or a failure that names it


def test_imports_of_python_blocks_exist():
    blocks = [block for path in PAGES for block in blocks_of(path, "python")]
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("xuebu"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("name", TWINS)
def test_twins_have_the_same_shape_and_the_same_code(name):
    english, chinese = DOCS / name, DOCS / "zh" / name
    for pattern in (r"^(#+) ", r"^(\|)", r"^(- |\d\. )"):  # headings by level, rows of tables, items of lists
        counts = [re.findall(pattern, prose_of(path), re.M) for path in (english, chinese)]
        assert counts[0] == counts[1], f"{name}: {pattern}"
    assert FENCE.findall(text_of(english)) == FENCE.findall(text_of(chinese))
    names = [
        {code for code in inline_code(path) if re.fullmatch(r"[\x21-\x7e]*[._/][\x21-\x7e]*|--\S+", code)}
        for path in (english, chinese)
    ]
    assert names[0] == names[1]
    prose = prose_of(chinese)
    assert sum("\u4e00" <= character <= "\u9fff" for character in prose) > 0.3 * len(prose)
    assert f"]({'zh/' + name})" in text_of(english) and f"](../{name})" in text_of(chinese)


@pytest.mark.parametrize("folder", [".", "zh"])
def test_every_reason_for_a_refusal_is_explained(folder):
    rows = re.findall(r"^\| `(\w+)` \|", text_of(DOCS / folder / "dataset.md"), re.M)
    assert sorted(rows) == sorted(REASONS)


@pytest.mark.parametrize("folder", [".", "zh"])
def test_every_finding_is_explained(folder):
    sources = [text_of(ROOT / "src" / "xuebu" / "analysis" / f"{name}.py") for name in ("verdict", "analyze")]
    flags = set(re.findall(r'Finding\(\s*"(\w+)"', "".join(sources)))
    assert len(flags) >= 10
    assert flags <= set(inline_code(DOCS / folder / "analysis.md"))


@pytest.mark.parametrize("folder", [".", "zh"])
def test_every_example_is_named(folder):
    named = set(inline_code(DOCS / folder / "index.md"))
    scripts = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert scripts and scripts <= named


def test_every_page_is_in_the_site_and_the_site_asks_nobody():
    site = text_of(ROOT / "mkdocs.yml")
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS).as_posix()}\n" in site, f"{path.name} is not in the nav of mkdocs.yml"
    assert "font: false" in site
    for path in (ROOT / "mkdocs.yml", *(DOCS / "theme").rglob("*.html")):
        assert "://" not in text_of(path)


def test_what_the_site_needs_is_pinned():
    import tomllib

    extra = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]["docs"]
    names = {re.match(r"[A-Za-z0-9_-]+", line)[0].lower() for line in extra}
    assert names <= {line.partition("==")[0].lower() for line in text_of(ROOT / "constraints.txt").splitlines()}


def test_cost_table_is_what_the_code_computes():
    from xuebu.model.flops import flops_per_token
    from xuebu.model.presets import PRESETS, count_parameters

    for name, settings in PRESETS.items():
        flop = flops_per_token(settings, 21_128, mean_attended_length=100, head_share=0.15)
        row = f"| `{name}` | {count_parameters(settings, 21_128).total:,} | {flop / 1e6:.1f} |"
        assert row in text_of(DOCS / "training.md"), row
    assert "62 characters" in text_of(DOCS / "training.md") and math.isclose(math.log(3_700), 8.2, abs_tol=0.05)


def test_figures_of_the_sample_are_what_a_build_prints(tmp_path):
    from xuebu.corpus.build import build_corpus
    from xuebu.corpus.sample import sample_documents
    from xuebu.corpus.verify import verify_corpus

    card = build_corpus(sample_documents(), tmp_path / "corpus")
    blocks = blocks_of(DOCS / "dataset.md", "text")
    for printed in (card.summary(), verify_corpus(card).summary()):
        assert f"{printed}\n" in blocks, f"docs/dataset.md and docs/zh/dataset.md must show:\n{printed}"


def test_the_example_of_gaps_is_what_a_build_writes(tmp_path):
    from xuebu.corpus.build import build_corpus
    from xuebu.corpus.settings import CorpusSettings
    from xuebu.corpus.sources import read_documents

    text = next(block for block in blocks_of(DOCS / "dataset.md", "text") if block.startswith("老人"))
    line = next(block for block in blocks_of(DOCS / "dataset.md", "json") if '"gaps"' in block)
    own = tmp_path / "own"
    own.mkdir()
    (own / "spring.txt").write_text(text, encoding="utf-8")
    settings = CorpusSettings(held_out_fraction=0.0)
    build_corpus(read_documents([own], settings), tmp_path / "corpus", settings)
    assert text_of(tmp_path / "corpus" / "train.jsonl") == line


def test_every_shown_json_record_is_read(tmp_path):
    from xuebu.corpus.sources import read_documents

    shown = {"a.jsonl": '"licence"', "b.json": '"vocab"'}
    for name, mark in shown.items():
        block = next(block for block in blocks_of(DOCS / "dataset.md", "json") if mark in block)
        json.loads(block)
        (tmp_path / name).write_text(block, encoding="utf-8")
        assert len(list(read_documents([tmp_path / name]))) == (1 if name == "a.jsonl" else 2)
    wiki = next(block for block in blocks_of(DOCS / "dataset.md", "text") if block.startswith("<doc"))
    (tmp_path / "wiki_00").write_text(wiki, encoding="utf-8")
    (document,) = read_documents([tmp_path / "wiki_00"])
    assert (document.title, document.revision) == ("春天", "203")


@pytest.mark.long
def test_the_published_study_is_quoted_as_printed(monkeypatch):
    """XUEBU_SHARED_DATA names the folder that holds history/training_history_100k.json; it is not in the repository."""
    from xuebu.analysis.analyze import analyze_history
    from xuebu.history.importers import read_any

    folder = Path(os.environ.get("XUEBU_SHARED_DATA", "")) / "history"
    if not (folder / "training_history_100k.json").is_file():
        pytest.skip("XUEBU_SHARED_DATA does not hold history/training_history_100k.json")
    monkeypatch.chdir(folder)
    quoted = next(block for block in blocks_of(DOCS / "analysis.md", "text") if block.startswith("1,000 training"))
    analysis = analyze_history(read_any(Path("training_history_100k.json")))
    missing = [line for line in quoted.splitlines() if line not in analysis.summary().splitlines()]
    assert not missing, f"not printed any more: {missing}\n{analysis.summary()}"
    (code,) = blocks_of(DOCS / "analysis.md", "python")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "analysis.md", "exec"), {})
    assert printed.getvalue() in blocks_of(DOCS / "analysis.md", "text"), printed.getvalue()
    page = text_of(DOCS / "analysis.md")
    forecast = analysis.forecast
    for figure in (
        f"{100 * forecast.line_value:.1f} %",
        f"{100 * forecast.of('saturating').value:.1f} %",
        f"{100 * forecast.interval.value:.1f} % with an interval from {100 * forecast.interval.low:.1f} to "
        f"{100 * forecast.interval.high:.1f} %",
        f"next-sentence accuracy over the last third is {100 * analysis.nsp.accuracy:.1f} %, "
        f"{-analysis.nsp.standard_errors:.1f} standard errors from chance",
        f"({analysis.comparison.error_ratio.low:.2f} to {analysis.comparison.error_ratio.high:.2f})",
    ):
        assert figure in re.sub(r"\s+", " ", page), figure
