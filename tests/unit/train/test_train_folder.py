import dataclasses

import pytest

from xuebu.errors import ConfigError, InputError
from xuebu.train import folder as folder_module
from xuebu.train.folder import RunFacts, RunFolder, code_digest, read_run_facts, write_run_facts
from xuebu.train.machine import resolve_machine


@pytest.fixture
def facts(recipe_of):
    recipe = recipe_of(model={"dropout": 0.1}, train={"epsilon": 1e-9}, batches={"mask_unit": "word"})
    return RunFacts(
        recipe=recipe,
        machine=resolve_machine(recipe.train),
        train_store="store/train",
        held_out_store="/elsewhere/held out",
        vocabulary='vo"cab\\词',
        digests={"corpus": "c" * 64, "code": code_digest()},
    )


def test_run_toml_round_trip(facts, tmp_path):
    folder = RunFolder(tmp_path / "run")
    write_run_facts(folder, facts)
    again = read_run_facts(folder)
    assert again == facts
    assert again.to_toml() == facts.to_toml()
    assert [type(getattr(again.machine, f.name)) for f in dataclasses.fields(again.machine)] == [
        str, str, str, str, int, int, bool, float, int, str, bool, bool, tuple,
    ]  # fmt: skip


def test_not_a_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"not a run folder \(it has no run.toml\)"):
        read_run_facts(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[machine]", "[machines]", "key 'machine' is missing"),
        ("threads = 1", "", "threads"),
        ("vocabulary = ", "vocabularies = ", "key 'vocabulary' is missing"),
        ("hidden_size = 16", "hidden_sise = 16", "unknown key `model.hidden_sise`; did you mean `model.hidden_size`"),
        ("hidden_size = 16", 'hidden_size = "16"', "`model.hidden_size` must be a whole number"),
        ("steps = 12", "steps = 0", "`train.steps` must be at least 1"),
        ("[model]", "[model", "not TOML"),
    ],
)
def test_a_changed_run_toml_is_one_line(facts, tmp_path, old, new, message):
    folder = RunFolder(tmp_path)
    write_run_facts(folder, facts)
    lines = folder.run_toml.read_text(encoding="utf-8").split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith(old))
    lines[place] = lines[place].replace(old, new)
    if old == "threads = 1":  # the machine's, which has no default; the recipe's stands after it
        assert place < lines.index("[train]")
    folder.run_toml.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml: ") as caught:
        read_run_facts(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_toml_of_bytes(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe[run]")
    with pytest.raises(ConfigError, match="not TOML"):
        read_run_facts(RunFolder(tmp_path))
    (tmp_path / "run.toml").write_text('run = "x"\nmachine = 3\n')
    with pytest.raises(ConfigError, match="the file was changed"):
        read_run_facts(RunFolder(tmp_path))


def test_code_digest_covers_what_decides_the_bytes(tmp_path, monkeypatch):
    root = tmp_path / "xuebu"
    for name in ("__init__.py", "rng.py", "tokens/a.py", "batches/b.py", "model/c.py", "train/d.py", "charts/e.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}")
    monkeypatch.setattr(folder_module.xuebu, "__file__", str(root / "__init__.py"))
    plain = code_digest()
    assert code_digest() == plain
    (root / "charts" / "e.py").write_text("# other")
    assert code_digest() == plain
    digests = {plain}
    for name in ("rng.py", "tokens/a.py", "batches/b.py", "model/c.py", "train/d.py"):
        (root / name).write_text("# other")
        digests.add(code_digest())
    (root / "train" / "new.py").write_text("")
    assert len(digests | {code_digest()}) == 7
