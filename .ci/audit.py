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
    try:
        dependencies = json.loads(report.read_text())["dependencies"]
        faults = [(one["name"], one["version"], fault) for one in dependencies for fault in one.get("vulns") or ()]
        told = [(name, version, fault["id"], fault.get("fix_versions") or ()) for name, version, fault in faults]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        print(f"warning: the report can't be read, nothing is audited: {error!r}")
        return 0
    failed = 0
    for name, version, advisory, mends in told:
        bad = bool(mends) and canonicalize_name(name) in own
        failed += bad
        mended = ", ".join(mends) or "no release"
        print("FAILED" if bad else "warning", f"{name} {version}: {advisory}, mended in {mended}")
    print(f"{len(own) - 1} packages are the package's own, {failed} faults of theirs have been mended")
    return 1 if failed else 0


sys.exit(main(Path(sys.argv[1])))
