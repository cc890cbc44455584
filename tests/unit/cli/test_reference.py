"""No command and no setting without an explanation, and the page that explains them is the code's."""

import dataclasses
import tomllib
import typing
from pathlib import Path

import pytest

from xuebu.cli import COMMANDS
from xuebu.cli.flags import load_recipe, recipe_folder
from xuebu.cli.reference import command_arguments, field_docs, reference
from xuebu.config import to_table
from xuebu.train.settings import Recipe

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained(name):
    arguments = command_arguments(name)
    assert arguments.__doc__ and not arguments.__doc__.startswith(arguments.__name__)  # not the generated one
    for field, doc in field_docs(arguments).items():
        assert len(doc) > 10, f"xuebu {name}: {field}"


@pytest.mark.parametrize(("section", "cls"), typing.get_type_hints(Recipe).items())
def test_every_setting_is_explained(section, cls):
    for key, doc in field_docs(cls).items():
        assert len(doc) > 10, f"{section}.{key}"


def test_reference_page_is_current():
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m xuebu.cli.reference > docs/reference.md"


def test_every_command_stands_in_both_readmes():
    for readme in ("README.md", "README.zh-CN.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        for name in COMMANDS:
            assert f"xuebu {name}" in text, f"{readme}: {name}"


@pytest.mark.parametrize("path", sorted(recipe_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_complete(path):
    recipe = load_recipe(path.stem)
    stated = tomllib.loads(path.read_text(encoding="utf-8"))
    assert stated == to_table(recipe), "a shipped recipe states every setting"
    assert recipe.train.steps // recipe.train.evaluate_every >= 30
    assert all(getattr(recipe, field.name) is not None for field in dataclasses.fields(recipe))


def test_reference_recipe_is_the_published_one():
    recipe = load_recipe("reference-100k")
    assert recipe.batches.sequences_per_step == 32 * 4
    assert recipe.batches.sentence_tokens == 62
    train = recipe.train
    assert (train.steps, train.warmup_steps, train.learning_rate, train.schedule) == (100_000, 2_000, 5e-5, "cosine")
    assert (train.weight_decay, train.max_grad_norm, train.checkpoint_every) == (0.01, 1.0, 2_000)
    assert recipe.model.dropout == 0.1
