"""Texts that do harm where they are taken for markup: the corpus that every rendering is tried with.

In ``payloads.txt`` each line is one, in which ``⏎`` stands for a line's end; a line such as ``==== script`` begins a
family. ``JS`` becomes a call that trips the tests' wire, ``WEB`` an address at a host that nothing may ask; both
tell which payload it was. The ideas are those of public collections (OWASP's and PortSwigger's cheat sheets,
html5sec.org, the fixtures of DOMPurify, ammonia and markdown-it) and of Jupyter's own front ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOST = "trip.example"


class Payload(NamedTuple):
    """An attack: what it is called, and the text."""

    name: str
    text: str


# Too large to try in each place: they take time, memory or depth where those aren't bounded.
LARGE = [
    Payload(f"large {number}", text)
    for number, text in enumerate(
        (
            ">" * 10_000 + "x",
            "> " * 10_000 + "x",
            "[" * 10_000,
            "![" * 5_000 + "x" + "](y)" * 5_000,
            "*" * 10_000 + "x" + "*" * 10_000,
            "*_" * 10_000,
            "- " * 5_000 + "x",
            "`" * 10_001,
            "<div>" * 10_000 + "<script>JS</script>",
            "<svg>" * 5_000 + "<style><img src=x onerror=JS>",
            "$" + "{" * 10_000 + "}" * 10_000 + "$",
            "{{" * 10_000,
            "(" * 10_000 + "[x](" * 5_000,
            ">" * 50 + "x\n" + "x\n" * 4_000,
            f"[a]: https://{HOST}/{'b' * 20_000}\n\n{'[a]' * 3_000}",
            f"[a]: x\n\n{'![a]' * 10_000}",
            f"|{'x|' * 500}\n|{'-|' * 500}\n" + "|\n" * 50,
            "x" * 1_000_000,
            "<" * 1_000_000,
            "é\u0301" * 100_000,
            "\u202e" * 100_000,
            "[" * 900 + "]" * 900,
            '{"a":' * 900 + "1" + "}" * 900,
            "&" * 100_000,
            "https://x.example/" + "y" * 100_000,
        ),
        1,
    )
]

# What a line can't show as it is.
_CHARACTERS = (
    "\u202e<script>JS</script>\u202c",
    "user\u202egnp.exe",
    "&#x202e;gnp.exe &#8238;gnp.exe &rlm;x",
    "\u2066\u2067\u2068x",
    "\u061cx\u200ex\u200fx",
    "j\u200bavascript:JS [x](j\u200bavascript:JS)",
    "<\u200bscript>JS</\u200bscript>",
    "<scr\0ipt>JS</scr\0ipt>",
    "<img src=x on\0error=JS>",
    "[x](java\0script:JS)",
    "[x](\x01javascript:JS)",
    "[x](java\rscript:JS)",
    "[x](java\u2028script:JS)",
    "<img\x0bsrc=x\x0conerror=JS>",
    "<img\u00a0src=x\u3000onerror=JS>",
    "\ud800<script>JS</script>",
    "<script>JS</script>\udfff",
    "[x](\udc00javascript:JS)",
    "\x1b[2J\x1b]8;;javascript:JS\x07x\x1b]8;;\x07",
    "\x9b31m<script>JS</script>\x9c",
    "\ufeff<script>JS</script>",
    "\ufffe\uffff<img src=x onerror=JS>",
    "\r<script>\rJS\r</script>",
    "\u2029<script>JS</script>\u0085",
    "\U000e0001\U000e0041<img src=x onerror=JS>",
    "\u115f\u3164\uffa0",
    "a\u0301" + "\u0301" * 200,
)


def _lines() -> Iterator[tuple[str, str]]:
    """Each family with one of its texts."""
    family = ""
    for line in (Path(__file__).parent / "payloads.txt").read_text(encoding="utf-8").split("\n"):
        if line.startswith("==== "):
            family = line.removeprefix("==== ")
        elif line:
            yield family, line.replace("⏎", "\n")


def _armed(text: str, number: int) -> str:
    return text.replace("JS", f"__tripped({number})").replace("WEB", f"https://{HOST}/{number}")


_ALL = (*_lines(), *(("character", text) for text in _CHARACTERS))
PAYLOADS = [Payload(f"{family} {number}", _armed(text, number)) for number, (family, text) in enumerate(_ALL)]
