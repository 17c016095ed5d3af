"""README.md: its tables are the parser's, its pictures are small and told in words.

``python tests/test_readme.py`` writes the tables anew. tests/test_docs.py runs its examples and follows its links.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from xpander_magics.cell import cell_parser
from xpander_magics.commands import COMMANDS

README = Path(__file__).parents[1] / "README.md"
# The largest picture, in bytes: a README is read on slow lines, too.
LARGEST = 150_000


def options() -> str:
    """The options of ``%%xpander``, as a table."""
    rows = []
    for group in cell_parser()._action_groups:
        if group._group_actions and group.title:
            rows.append((f"**{group.title[0].upper()}{group.title[1:]}**", ""))
        rows += [(code(", ".join(one.option_strings), one.metavar), told(one)) for one in group._group_actions]
    return table(("Option", "What it does"), rows)


def told(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def commands() -> str:
    """The commands of ``%xpander``, as a table."""
    return table(("Command", "What it does"), [(code(spec.name, spec.arguments), spec.help) for spec in COMMANDS])


def code(*words: object) -> str:
    return f"`{' '.join(str(word) for word in words if word)}`"


def table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """Rows of Markdown; a bar would end a cell, within backticks, too."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |".replace("|  |", "| |") for line in (" | ".join(head), "--- | ---", *lines))


def with_tables(text: str) -> str:
    """The README's text with its tables as the parser has them now."""
    for name, made in (("options", options()), ("commands", commands())):
        marked = rf"(<!-- {name}: [^>]*-->\n\n).*?(\n\n<!-- end of {name} -->)"
        text, count = re.subn(marked, lambda found, made=made: f"{found[1]}{made}{found[2]}", text, flags=re.S)
        assert count == 1, f"README.md has no place for the {name}"
    return text


def test_the_tables_are_the_parsers() -> None:
    text = README.read_text("utf-8")
    assert with_tables(text) == text, "python tests/test_readme.py writes them anew"


def test_the_tables_have_every_option_and_command() -> None:
    text = README.read_text("utf-8")
    known = [option for action in cell_parser()._actions for option in action.option_strings]
    assert [option for option in known if not re.search(rf"^\| `[^`]*(?<![\w-]){option}\b", text, re.M)] == []
    assert [spec.name for spec in COMMANDS if not re.search(rf"^\| `{spec.name}\b", text, re.M)] == []


def test_the_pictures_are_small_and_told_in_words() -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README.read_text("utf-8"))
    assert len(pictures) >= 3
    for words, address in pictures:
        assert len(words) > 40, f"{address}: say what it shows"
        assert (README.parent / address).stat().st_size < LARGEST, address


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text("utf-8")), encoding="utf-8")
