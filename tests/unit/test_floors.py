"""No import climbs: a module imports only from lower floors or from files of its own folder."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "xuebu"
FLOORS = {
    0: ["errors", "config", "files", "rng", "progress", "runtime", "fonts"],
    1: ["corpus", "history"],
    2: ["tokens", "analysis", "seed"],
    3: ["batches", "charts"],
    4: ["model", "report"],
    5: ["train"],
    6: ["infer", "embed", "tasks"],
    7: ["distil", "tune", "export"],
    8: ["study"],
    9: ["cli"],
    10: ["__main__"],
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}


def imports_of(path: Path) -> set[str]:
    """Return the second part of every `xuebu.NAME` that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("xuebu.") and name != "xuebu.__version__"}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_import_climbs(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room == "__init__":
        assert imports_of(path) == set()
        return
    for name in imports_of(path) - {room}:
        below = FLOOR_OF[name] < FLOOR_OF[room] or (FLOOR_OF[name] == 0 == FLOOR_OF[room])
        assert below, f"{path} (floor {FLOOR_OF[room]}) imports xuebu.{name} (floor {FLOOR_OF[name]})"


def test_only_parallel_knows_about_other_processes():
    for path in SOURCE.rglob("*.py"):
        if path.name != "parallel.py":
            assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_no_file_is_longer_than_500_lines():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").split("\n")) <= 500, path
