"""An HTML page that needs nothing else: no script, no request, its style allowed by its hash alone.

What goes in is text, escaped here, or HTML that was made here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from xpander_magics.showing.markup import escape

_LONGEST_ANSWER = 900

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #555; --paper: #fff; --panel: #f5f5f3; --line: #d4d4d0;
  --link: #0b5cad; --better: #005a8c; --worse: #a03c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --soft: #b4b4b4; --paper: #17181a; --panel: #222427;
  --line: #44474b; --link: #8ec5ff; --better: #7cc4f2; --worse: #ff9d66; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, ul, ol, dl { margin: .5rem 0; max-width: 46rem; }
li { margin: .25rem 0; }
a { color: var(--link); }
.soft, figcaption, .legend { color: var(--soft); font-size: .875rem; }
.short { background: var(--panel); border-left: 4px solid var(--better); padding: .75rem 1rem; margin: 1.25rem 0; }
.short p { margin: .35rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
th[scope=row] { font-weight: 600; min-width: 9rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.words { min-width: 18rem; }
.better { color: var(--better); font-weight: 600; white-space: nowrap; }
.worse { color: var(--worse); font-weight: 600; white-space: nowrap; }
figure { margin: 1rem 0 1.5rem; }
figure img { display: block; width: 100%; max-width: 50rem; height: auto; background: #fff; padding: .5rem;
  border: 1px solid var(--line); border-radius: 4px; }
figcaption { max-width: 46rem; margin-top: .4rem; }
pre, .answer { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: var(--panel); padding: .6rem .8rem; margin: .4rem 0; font-size: .8125rem; line-height: 1.45;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
ins { color: var(--better); text-decoration: none; }
del { color: var(--worse); text-decoration: none; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); gap: .75rem; }
.card { border: 1px solid var(--line); border-radius: 4px; padding: .6rem .75rem; min-width: 0; }
.card h4 { margin: 0 0 .3rem; font-size: .875rem; overflow-wrap: anywhere; }
.answer { font-size: .875rem; }
@media (max-width: 40rem) { figure img { min-width: 36rem; }
  main { padding: 1rem .9rem 3rem; } h1 { font-size: 1.4rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #f5f5f3; --line: #bbb;
  --link: #000; --better: #005a8c; --worse: #a03c00; }
  @page { margin: 15mm; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } .wide { overflow: visible; }
  table { font-size: 7.5pt; width: 100%; } th, td { padding: 2pt 3pt; } td.words, th[scope=row] { min-width: 0; }
  td.number, th.number { white-space: normal; }
  h2, h3, h4 { break-after: avoid; } tr, figure, .card, .short, li { break-inside: avoid; } figure img { padding: 0; } }
"""


def whole_page(title: str, parts: Iterable[str]) -> str:
    """The page, whose parts are HTML."""
    allowed = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def text(written: object, longest: int | None = None) -> str:
    """Anything as escaped text, the rest of a long one left out and said so."""
    whole = str(written)
    if longest is not None and len(whole) > longest:
        return f"{escape(whole[:longest])}… (cut; {len(whole):,} characters)"
    return escape(whole)


def section(title: str, *parts: str) -> str:
    """A section under its heading; nothing where it has no parts."""
    held = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{held}\n</section>" if held else ""


def panel(name: str, parts: Iterable[str]) -> str:
    """What is to be read first."""
    return f'<section class="short" aria-label="{text(name)}">{"".join(parts)}</section>'


def paragraph(written: str, kind: str = "") -> str:
    return f"<p{_class(kind)}>{text(written)}</p>" if written else ""


def items(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(one)}</li>' for one in texts)}</ul>" if texts else ""


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with what is said of each; what is empty is left out."""
    return f"<dl>{''.join(f'<dt>{text(name)}</dt><dd>{text(said)}</dd>' for name, said in pairs if said)}</dl>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> str:
    """A table whose first column names its rows; where it is too wide it can be scrolled, by keys, too.

    Args:
        kinds: of each column, its class: ``number``, ``words`` or none.
    """
    if not rows:
        return ""
    head = "".join(f'<th scope="col"{_class(kind)}>{text(name)}</th>' for name, kind in zip(heads, kinds, strict=True))
    body = "\n".join(f"<tr>{_cells(row, kinds)}</tr>" for row in rows)
    return (
        f'<div class="wide" role="region" aria-label="{text(caption)}" tabindex="0">\n<table>'
        f"<caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</div>"
    )


def _cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    first, *others = row
    told = [
        f"<td{_class(word if (word := one[2:]) in ('better', 'worse') else kind)}>{text(one)}</td>"
        for one, kind in zip(others, kinds[1:], strict=True)
    ]
    return f'<th scope="row">{text(first)}</th>{"".join(told)}'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def picture(svg: bytes, name: str, alt: str, caption: str) -> str:
    """A picture that is in the page itself. As an image an SVG runs nothing and loads nothing."""
    data = base64.b64encode(svg).decode()
    shown = f'<img src="data:image/svg+xml;base64,{data}" alt="{text(alt)}">'
    # On a narrow screen it is scrolled, too, or its letters would be too small to read.
    held = f'<div class="wide" role="region" aria-label="{text(name)}" tabindex="0">{shown}</div>'
    return f"<figure>{held}<figcaption>{text(caption)}</figcaption></figure>"


def preformatted(written: str, longest: int = 4000) -> str:
    return f"<pre>{text(written, longest)}</pre>"


def changes(lines: Sequence[str], most: int = 80) -> str:
    """Changed lines, each after ``-`` or ``+``."""
    marks = {"-": "del", "+": "ins"}
    told = [f"<{mark}>{text(line, 500)}</{mark}>" for line in lines[:most] if (mark := marks.get(line[:1]))]
    more = [text(f"… and {len(lines) - most} more lines")] if len(lines) > most else []
    return f"<pre>{chr(10).join([*told, *more])}</pre>"


def cards(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Texts side by side, each under its name, and what is said of it."""
    told = [
        f'<div class="card"><h4>{text(name)}</h4>\n<div class="answer">{text(answer, _LONGEST_ANSWER)}</div>\n'
        f'<p class="soft">{text(said)}</p></div>'
        for name, answer, said in pairs
    ]
    return f'<div class="cards">{"".join(told)}</div>' if told else ""
