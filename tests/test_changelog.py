"""The changelog can be read by Keep a Changelog's rules, fits the package's version, and tells of every command."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

from xpander_magics.commands import COMMAND_NAMES

TEXT = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
# The format has no heading for a release's known limits.
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known"}


def parts(text: str, mark: str) -> list[tuple[str, str]]:
    """The headings of a level, each with what is under it."""
    found = re.split(rf"^{mark} (.+)$", text, flags=re.MULTILINE)
    return list(zip(found[1::2], found[2::2], strict=True))


def test_releases_come_newest_first_under_what_is_not_released() -> None:
    (first, _), *released = parts(TEXT, "##")
    assert first == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", heading) for heading, _ in released]
    assert all(dated), released
    versions = [Version(match[1]) for match in dated if match]
    assert versions == sorted(set(versions), reverse=True)
    assert Version(version("xpander-magics")) >= max(versions, default=Version("0"))


def test_each_kind_of_change_stands_once_with_its_entries() -> None:
    for heading, text in parts(TEXT, "##"):
        kinds = parts(text, "###")
        names = [kind for kind, _ in kinds]
        assert kinds, heading
        assert set(names) <= KINDS, heading
        assert len(names) == len(set(names)), heading
        for kind, entries in kinds:
            assert re.search(r"^- \S", entries, flags=re.MULTILINE), (heading, kind)


def test_no_command_is_added_without_an_entry() -> None:
    told = set(re.findall(r"[a-z]+", " ".join(re.findall(r"`[^`]*`", TEXT))))
    assert [name for name in COMMAND_NAMES if name not in told] == []
