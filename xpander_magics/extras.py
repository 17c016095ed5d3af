"""What the optional parts of the package need, and the command that installs what one lacks.

The command names the packages themselves, with the versions that fit, not the extra: so it is right wherever this
package came from, a clone, a wheel or an index.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys

_DISTRIBUTION = "xpander-magics"
_FOR_DEVELOPERS = "test"
_IN_ONE_LINE = 90


def names() -> list[str]:
    """The extras, but for the one that is for developers."""
    try:
        found = importlib.metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source, without being installed
        return []
    return sorted(name for name in found if name != _FOR_DEVELOPERS)


def lacking(extra: str) -> list[str]:
    """What an extra needs and isn't installed, each as pip takes it: ``matplotlib<4,>=3.10``."""
    return [requirement for requirement in _needed(extra) if version_of(_name(requirement)) is None]


def version_of(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(beginning: str, extra: str) -> str:
    """The message where something lacks an extra: what it needs, and what to type.

    Args:
        beginning: the sentence up to what is needed, such as ``Plots need``.
    """
    wanted = lacking(extra) or _needed(extra)  # installed, and yet it can't be imported: again, then
    command = install(wanted or [f".[{extra}]"])
    between = " " if len(command) < _IN_ONE_LINE else "\n"
    return f"{beginning} the extra [{extra}]:{between}{command}"


def install(requirements: list[str]) -> str:
    """The command that installs them where this runs: in a notebook a terminal's pip may be another Python's."""
    pip = "%pip" if _in_ipython() else "python -m pip"
    return shlex.join([*pip.split(), "install", *requirements])


def _needed(extra: str) -> list[str]:
    try:
        lines = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    parted = [line.partition(";") for line in lines]
    return [
        requirement.strip() for requirement, _, marker in parted if re.search(rf"""extra == (['"]){extra}\1""", marker)
    ]


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0] if found else requirement


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
