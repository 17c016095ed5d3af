"""Imports point only upward in this list, those inside functions too; ``TYPE_CHECKING`` blocks are left out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xpander_magics"


def within(package: str, *modules: str) -> tuple[str, ...]:
    """The modules of a package that have an order, too."""
    return tuple(f"{package}.{module}" for module in modules)


# From the modules that know nothing of the others down to those that wire all of it. A package that stands here by its
# name is looked at as one.
LAYERS = (
    *("safety", "errors", "extras", "contract", "config", "limits", "results", "tally"),
    *("cell", "commands"),
    *within("service", "sse", "refusals", "failures", "bodies", "transport"),
    *within("service", "targets", "calls", "marks", "resources", "client"),
    *within("plans", "sandbox", "template", "schemas", "terms", "plan", "grid"),
    *("store", "asked", "matrix"),
    *within("voting", "pairs", "votes", "standing", "agreement"),
    *("scoring", "opinions", "outcomes"),
    *within("sending", "execution", "engine", "attendance", "planned", "scheduler", "workers", "elsewhere"),
    *within("sending", "sweeps", "quote"),
    # The session starts the local server, which knows no more than errors and the contract.
    *("local", "progress", "session", "kept", "api"),
    *within("showing", "carried", "markup", "display", "tables"),
    *("analysis", "widgets"),
    *within("magics", "firstline", "pages", "complete", "analyses", "actions", "magic"),
    *("__init__", "demo", "doctor", "__main__"),
)
ORDERED = {part.partition(".")[0] for part in LAYERS if "." in part}

# A Run and Runs act and show themselves, and must not pull all that in: these are imported when they do.
EXCEPTIONS = {
    ("results", "session"),
    ("results", "showing.display"),
    ("outcomes", "session"),
    ("outcomes", "showing.tables"),
    ("outcomes", "analysis"),
    ("outcomes", "widgets"),
}
# The names of the package itself are fetched from these when they are first asked for.
PACKAGE_ITSELF = "xpander_magics"

# Only these modules may import what is costly or is another layer's business.
KEEPERS = {
    "requests": {"service.bodies", "service.failures", "service.transport"},
    "urllib3": {"service.bodies", "service.failures", "service.transport"},
    "sqlalchemy": {"store"},
    "jinja2": {"plans.sandbox", "plans.template"},
    "jsonschema": {"plans.schemas"},
    "IPython": {"magics.magic", "magics.complete", "showing.display", "showing.tables", "progress", "widgets"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "statsmodels": {"voting.standing", "voting.agreement", "analysis"},
    "scipy": {"voting.standing", "analysis"},
    "matplotlib": {"analysis"},
    "mlflow": {"analysis"},
    "pyarrow": {"analysis"},
    "rapidfuzz": {"scoring"},
    "regex": {"plans.schemas", "scoring"},
    "wordllama": {"scoring"},
    "nh3": {"showing.markup"},
    "markdown_it": {"showing.markup"},
    "fastapi": {"local"},
    "uvicorn": {"local"},
    "httpx": {"local"},
    "xllamacpp": {"local"},
}


def part_of(path: Path) -> str:
    """The layer of a file: its module, or the package that it is in."""
    return part_named([part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts])


def part_named(names: list[str]) -> str:
    """The layer of what is imported by these names, below the package's own."""
    return ".".join(names[: 2 if names[0] in ORDERED else 1])


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a file, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_of(other)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            if module.startswith(PACKAGE_ITSELF) and (PACKAGE.parent / Path(*module.split("."))).is_dir():
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno
        else:
            yield from imports_of(node)


# What marks a folder as a package says only what it is for.
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if not (path.name == "__init__.py" and path.parent.name in ORDERED)
)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_point_upward(path: Path) -> None:
    here = part_of(path)
    for module, line in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
        top, _, rest = module.partition(".")
        if top == PACKAGE_ITSELF and rest:
            there = part_named(rest.split("."))
            if there not in LAYERS:  # a name of the package itself
                there = "__init__"
            allowed = there == here or LAYERS.index(there) < LAYERS.index(here) or (here, there) in EXCEPTIONS
            assert allowed, f"{path.name}:{line} imports {module}, which stands below {here}"
        assert here in KEEPERS.get(top, {here}), f"{path.name}:{line} imports {top}, which is for {KEEPERS[top]}"


def test_every_module_has_its_place() -> None:
    assert {part_of(path) for path in FILES} == set(LAYERS)


def test_every_exception_is_needed() -> None:
    found = {
        (part_of(path), part_named(module.split(".")[1:]))
        for path in FILES
        for module, _ in imports_of(ast.parse(path.read_text(encoding="utf-8")))
        if module.startswith(f"{PACKAGE_ITSELF}.")
    }
    assert found >= EXCEPTIONS


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_table_names_every_dependency_with_its_bounds() -> None:
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\ndependencies = ")[2]
    needed = re.findall(r'"([\w-]+)(?:\[\w+\])?([<>=][^"]*)"', described.partition("\ntest = [")[0])
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert sorted(needed) == sorted(re.findall(r"^\| (?:`\[\w+\]` )?([\w-]+) \| ([<>=]\S+) \|", text, re.M))
    assert all(re.fullmatch(r">=[\w.]+,<[\w.]+", bounds) for _, bounds in needed)


def test_every_line_of_the_threat_model_names_tests_that_exist() -> None:
    section = file = ""
    for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines():
        if told := re.search(r"[Ii]n `(tests/[\w/]+\.py)`, unless", line):
            section = told[1]
        if not line.startswith("| ") or line.startswith(("| ---", "| threat")) or line.count("|") != 4:
            continue
        file, named = "", re.findall(r"`(tests/[\w/]+\.py)?(::)?((?:test_|Test)\w+)`", line)
        assert named, line
        for path, same, name in named:
            file = path or (file if same else section)
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(?:def |class )?{name}\b", text, re.M), f"{file}::{name}"


def test_the_table_of_modules_has_the_layers_in_their_order() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("| module | its job |")[2]
    first_column = re.findall(r"^\| (.+?) \| ", text.partition("\n\n")[0], re.M)
    package, named = "", []
    for module in re.findall(r"`(\w+/?)`", " ".join(first_column)):
        if module.endswith("/"):
            package = module[:-1] if module[:-1] in ORDERED else ""
            named += [] if package else [module[:-1]]
        else:
            package = package if f"{package}.{module}" in LAYERS else ""
            named.append(f"{package}.{module}".strip("."))
    assert named == [part for part in LAYERS if part != "__init__"]
