"""The plan of the house (docs/architecture.md): which package may import which, and no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each package and the packages that it may import, besides itself.
GROUND = {"common"}
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "envs": GROUND,
    "policies": GROUND,
    "agents": {*GROUND, "policies"},
    "records": {*GROUND, "envs", "policies", "agents"},
    "evaluation": {*GROUND, "envs", "policies", "agents", "records"},
    "experiments": {*GROUND, "envs", "policies", "agents", "records", "evaluation"},
    "train": {*GROUND, "experiments"},
    "eval": {*GROUND, "evaluation"},
}


def product_files() -> Iterator[Path]:
    for name in MAY_IMPORT:
        yield from sorted((ROOT / name).rglob("*.py"))
    yield from (ROOT / "train.py", ROOT / "eval.py")


FILES = list(product_files())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path) -> set[str]:
    """The modules of this project that a file imports, wherever in the file, but for annotations alone."""
    found: set[str] = set()
    queue: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while queue:
        node = queue.pop()
        if is_for_types_alone(node):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            base = str(node.module)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
        queue += ast.iter_child_nodes(node)
    return {name for name in found if name.split(".")[0] in MAY_IMPORT}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_in_one_direction(path: Path) -> None:
    package = module_name(path).split(".")[0]
    allowed = {package, *MAY_IMPORT[package]}
    upward = {name for name in imports(path) if name.split(".")[0] not in allowed}
    assert not upward, f"{path.relative_to(ROOT)} imports {', '.join(sorted(upward))}"


def test_there_is_no_circle_between_files() -> None:
    arrows = {name: imports(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    # The import of a package's own module is not an arrow to its __init__, which imports that module.
    done: set[str] = set()
    while leaves := [name for name in arrows if name not in done and not arrows[name] - done]:
        done |= set(leaves)
    assert not arrows.keys() - done, f"in or above a circle: {', '.join(sorted(arrows.keys() - done))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_package_reaches_into_the_files_of_another(path: Path) -> None:
    """Files of a package are found with importlib.resources or beside the file itself, never by climbing."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr == "parents":
            assert not any(
                isinstance(inner, ast.Name) and inner.id == "__file__" for inner in ast.walk(node)
            ), f"{path.relative_to(ROOT)}:{node.lineno} climbs out of its package"


def test_the_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [name for name in MAY_IMPORT if f"`{name}" not in page]
    assert not missing
