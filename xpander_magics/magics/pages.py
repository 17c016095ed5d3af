"""The pages of ``xpander_magics/docs``, one a question: listed, and found by words."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from xpander_magics.cell import cell_help
from xpander_magics.commands import COMMAND_NAMES, command_help
from xpander_magics.errors import ConfigError, nearest


@dataclass(frozen=True)
class Page:
    """A page in Markdown; in a notebook it shows itself as HTML."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """The question that it answers."""
        return self.text.partition("\n")[0].removeprefix("# ")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from xpander_magics.showing.markup import safe_html

        return {"text/plain": self.text, "text/html": safe_html(self.text)}


@functools.cache
def pages() -> tuple[Page, ...]:
    """All pages, in the order of the index."""
    folder = resources.files("xpander_magics") / "docs"
    names = re.findall(r"\]\(([\w-]+)\.md\)", (folder / "README.md").read_text("utf-8"))
    # The comments hold what the tests set up before they run the examples.
    texts = (re.sub(r"<!--.*?-->\n*", "", (folder / f"{name}.md").read_text("utf-8"), flags=re.S) for name in names)
    return tuple(Page(name, text) for name, text in zip(names, texts, strict=True))


def help_about(words: Sequence[str]) -> tuple[str, Page | None]:
    """What ``%xpander help`` says and shows: all there is, a command, or the page that fits the words.

    Raises:
        ConfigError: no command and no page has these words.
    """
    if not words:
        return f"{command_help()}\n{cell_help()}\n{listed()}", None
    page = page_about(words)
    if page is not None and (len(words) > 1 or words[0] not in COMMAND_NAMES):
        return "", page
    if page is None and words[0] not in COMMAND_NAMES:
        near = nearest(words[0], [*COMMAND_NAMES, *(page.name for page in pages())], most=1, alike=0.7)
        hint = f"Did you mean {near[0]}?" if near else "%xpander help lists all."
        raise ConfigError(f"No command and no page has {' '.join(words)!r}. {hint}")
    told = command_help(words[0])
    if page is not None and page.name == words[0]:
        return f"{told}\n", page
    return f"{told}\n{listed(f'%xpander {words[0]}')}", None


def listed(said: str = "") -> str:
    """A line for each page, or for each that says so."""
    lines = [f"  {page.name:14} {page.title}\n" for page in pages() if said in page.text]
    return "".join(["Pages, by %xpander help WORDS:\n", *lines]) if lines else ""


def page_about(words: Sequence[str]) -> Page | None:
    """The page that fits the words best; None where none has any of them."""
    wanted = [word for word in re.findall(r"\w+", " ".join(words).lower()) if len(word) > 1]
    if named := [page for page in pages() if [page.name] == wanted]:
        return named[0]
    rated = {page: [_weight(word, page) for word in wanted] for page in pages()}
    # A word that many pages have says little; by the square, or several such words outdo one that tells.
    rare = [math.log(len(rated) / max(1, sum(bool(w[n]) for w in rated.values()))) ** 2 for n in range(len(wanted))]
    best = max(rated, key=lambda page: sum(w * r for w, r in zip(rated[page], rare, strict=True)))
    return best if any(rated[best]) else None


def _weight(word: str, page: Page) -> float:
    """How much a page is about a word, from 0; its name and title count most, then how often it is said."""
    about = re.compile(rf"\b{re.escape(word)}\w*")
    said = len(about.findall(page.text.lower()))
    return (12 if about.search(f"{page.name} {page.title}".lower()) else 0) + min(said, 8)
