"""What advisories say of what is installed: a report of pip-audit's, judged.

A known fault that a release mends fails where the package itself needs what has it, and is only told where the
tests alone do.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str, extras: frozenset[str], found: dict[str, set[str]]) -> None:
    """Adds what a package needs with these extras to ``found``, and all that is needed for that."""
    known = found.setdefault(canonicalize_name(name), set())
    fresh = {"", *extras} - known
    known |= fresh
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:  # an extra of another's that isn't installed
        return
    for requirement in map(Requirement, lines):
        if any(not requirement.marker or requirement.marker.evaluate({"extra": extra}) for extra in fresh):
            needed(requirement.name, frozenset(requirement.extras), found)


def main(report: Path) -> int:
    package = distribution("xpander-magics")
    own: dict[str, set[str]] = {}
    needed("xpander-magics", frozenset(package.metadata.get_all("Provides-Extra") or ()) - {"test"}, own)
    failed = 0
    for dependency in json.loads(report.read_text())["dependencies"]:
        for fault in dependency.get("vulns", ()):
            mends = ", ".join(fault["fix_versions"])
            bad = bool(mends) and canonicalize_name(dependency["name"]) in own
            failed += bad
            told = f"{dependency['name']} {dependency['version']}: {fault['id']}, mended in {mends or 'no release'}"
            print("FAILED" if bad else "warning", told)
    print(f"{len(own) - 1} packages are the package's own, {failed} faults of theirs have been mended")
    return 1 if failed else 0


sys.exit(main(Path(sys.argv[1])))
