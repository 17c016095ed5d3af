"""Says what is wrong with a cell whose ``%%xpander`` isn't its first line.

IPython takes that for a line magic of another name, and the prompt below it for Python: its error is about the prompt.
"""

from __future__ import annotations

import ast
import re

_CELL_MAGIC = re.compile(r"%%xpander(?![\w?])")
_IPYTHONS_OWN = re.compile(r"^(\s*(?:[\w.,\s]+=)?\s*)[%!].*")


def check_first_line(lines: list[str]) -> list[str]:
    """An input transformer of IPython's, which changes nothing.

    Raises:
        SyntaxError: the cell has a ``%%xpander`` line below others, and not within a text or another cell magic.
    """
    for number, line in enumerate(lines):
        above = lines[:number]
        if _CELL_MAGIC.match(line) and any(map(str.strip, above)) and _is_whole(above):
            raise SyntaxError(
                "%%xpander has to be the cell's first line: put what stands above it into a cell of its own."
            )
    return lines


def _is_whole(lines: list[str]) -> bool:
    """Whether these lines are Python by themselves; those of an open string, or of a cell magic, aren't."""
    if next(filter(str.strip, lines)).startswith("%%"):
        return False
    try:
        ast.parse("".join(_IPYTHONS_OWN.sub(r"\1None", line) for line in lines))
    except (SyntaxError, ValueError):
        return False
    return True
