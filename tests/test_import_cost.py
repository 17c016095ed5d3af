"""Loading the extension imports nothing heavy: everybody who starts a notebook would pay for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    *("pandas", "numpy", "ipywidgets", "requests", "urllib3", "sqlalchemy", "jinja2", "jsonschema"),
    *("markdown_it", "nh3", "keyring", "platformdirs", "fastapi", "pydantic", "xllamacpp"),
)


# What only a first call or a first Tab needs.
LATER = (
    *("analysis", "limits", "outcomes", "plans", "results", "scoring"),
    *("sending", "service", "showing", "store", "voting"),
)


def imported_by(code: str) -> set[str]:
    """The modules that a fresh Python has after running this, without those it had in bare IPython."""
    script = f"""
import sys, json
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
{code}
print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=True)
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "shell.run_line_magic('load_ext', 'xpander_magics')",
        "shell.run_line_magic('load_ext', 'xpander_magics'); shell.run_cell('%xpander help')",
        "shell.run_line_magic('load_ext', 'xpander_magics'); shell.run_cell('%xpander nope')",
        "import xpander_magics",
        "from xpander_magics import Run, XpanderError, TaskFailed",
    ],
)
def test_nothing_heavy(code: str) -> None:
    imported = {name.partition(".")[0] for name in imported_by(code)}
    assert "xpander_magics" in imported
    assert imported.isdisjoint(HEAVY)


def test_loading_imports_little_of_the_package_itself() -> None:
    imported = imported_by("shell.run_line_magic('load_ext', 'xpander_magics')")
    assert "xpander_magics.magics.magic" in imported
    assert imported.isdisjoint(f"xpander_magics.{part}" for part in (*LATER, "magics.actions", "magics.complete"))
