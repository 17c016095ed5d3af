"""What advisories say of what is installed: a report of pip-audit's, judged.

A known fault fails where the bounds of the package's own dependencies keep out every release that mends it. All
else is told: what isn't ours to bound, what no release mends yet, and what the index doesn't have yet.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def main(report: Path) -> int:
    lines = [line for line in requires("xpander-magics") or () if 'extra == "test"' not in line]
    bounds = {canonicalize_name(one.name): one.specifier for one in map(Requirement, lines)}
    try:
        dependencies = json.loads(report.read_text())["dependencies"]
        faults = [(one["name"], one["version"], fault) for one in dependencies for fault in one.get("vulns") or ()]
        told = [(name, version, fault["id"], fault.get("fix_versions") or ()) for name, version, fault in faults]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        print(f"warning: the report can't be read, nothing is audited: {error!r}")
        return 0
    kept_out = 0
    for name, version, advisory, mends in told:
        ours = bounds.get(canonicalize_name(name))
        bad = ours is not None and bool(mends) and not any(ours.contains(mend) for mend in mends)
        kept_out += bad
        mended = ", ".join(mends) or "no release"
        print("FAILED" if bad else "warning", f"{name} {version}: {advisory}, mended in {mended}")
    print(f"{len(told)} known faults, {kept_out} of them mended by releases that our bounds keep out")
    return 1 if kept_out else 0


sys.exit(main(Path(sys.argv[1])))
