"""A ``Diff`` as text and as safe HTML: what went and what came is marked as such, not by colour alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from xpander_magics.analysis.diffs.alignment import Piece, words_between
from xpander_magics.analysis.diffs.changes import MISSING, Change
from xpander_magics.contract import model_in_full
from xpander_magics.results import Run
from xpander_magics.safety import plain
from xpander_magics.showing.markup import AS_IT_IS, escape
from xpander_magics.store.values import to_json

if TYPE_CHECKING:
    from xpander_magics.analysis.diffs.difference import Diff, Fact, Step

_EQUAL_WORDS = 80  # of more equal words in a row, the middle is left out
_AROUND = 30
_LONGEST_PIECE = 4_000
_MOST_PIECES = 1_000
_MOST_ROWS = 100
_LONGEST_VALUE = 300
_SAME = "the same"

_WRAP = "white-space:pre-wrap;overflow-wrap:anywhere"
_CELL = "text-align:left;padding:.1em .8em .1em 0;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"
_HIDDEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap"
_TAGS = {
    "-": ("del", "text-decoration:line-through;opacity:.75", "removed: "),
    "+": ("ins", "text-decoration:underline 2px;font-weight:600", "added: "),
}


def as_text(diff: Diff) -> str:
    """For a terminal: ``[-what went-]`` and ``{+what came+}``."""
    blocks = [f"{_named(diff.a)}  →  {_named(diff.b)}"]
    blocks += [f"{title}:{_marked_text(pieces)}" for title, pieces in _texts(diff)]
    for title, changes in _changes(diff):
        rows = [f"  {change.name}: {_value(change.before)} → {_value(change.after)}" for change in changes]
        blocks.append(plain("\n".join([f"{title}:", *rows[:_MOST_ROWS], *_more(rows)])))
    blocks.append(_counted(diff))
    if diff.outcome:
        cells = [[fact.name, *(_value(side) for side in fact[1:3]), _signed(fact)] for fact in diff.outcome]
        blocks.append(_columns([["outcome", "first", "second", "difference"], *cells]))
    if diff.steps:
        blocks.append("\n".join(["Steps:", *map(_step_text, diff.steps[:_MOST_ROWS]), *_more(diff.steps)]))
    return "\n".join([*blocks, *map(plain, diff.notes)])


def as_html(diff: Diff) -> str:
    """For a notebook: ``del`` and ``ins``, and the steps of both in two columns."""
    parts = [f"<div><strong>{escape(_named(diff.a))}</strong> → <strong>{escape(_named(diff.b))}</strong></div>"]
    parts += [_section(title, f'<div style="{_WRAP}">{_marked_html(pieces)}</div>') for title, pieces in _texts(diff)]
    for title, changes in _changes(diff):
        rows = [(change.name, *_sides(_value(change.before), _value(change.after))) for change in changes]
        parts.append(_section(title, _table(["what", "first", "second"], rows)))
    parts.append(f"<div>{escape(_counted(diff))}</div>")
    if diff.outcome:
        facts = [
            (fact.name, *(escape(_value(side)) for side in fact[1:3]), escape(_signed(fact))) for fact in diff.outcome
        ]
        parts.append(_section("Outcome", _table(["outcome", "first", "second", "difference"], facts)))
    if diff.steps:
        parts.append(_section("Steps", _table(["step", "first", "second"], [_step_row(step) for step in diff.steps])))
    parts += [f'<div role="note">{escape(note)}</div>' for note in diff.notes]
    return f'<div class="xpander-diff {AS_IT_IS}">{"".join(parts)}</div>'


def _named(run: Run) -> str:
    model = model_in_full(run.provider, run.model)
    told = [f"run {run.run_id[:8]}", run.target, model, run.effort and f"effort {run.effort}", run.status]
    return plain(" · ".join(fact for fact in told if fact)).replace("\n", " ")


def _texts(diff: Diff) -> list[tuple[str, list[Piece]]]:
    """The texts by their titles; a template only where it differs."""
    texts = [("Answer", diff.answer)] if diff.values is None else []
    texts.append(("Prompt", diff.prompt))
    if _differs(diff.template):
        texts.append(("Template", diff.template))
    return texts


def _changes(diff: Diff) -> list[tuple[str, list[Change]]]:
    """What is told value by value, where any differs."""
    told = [("Answer", diff.values or []), ("Variables", diff.variables), ("Settings", diff.settings)]
    return [(title, changes) for title, changes in told if changes]


def _counted(diff: Diff) -> str:
    """What needs no more than a count."""
    told = ["Answer: JSON with the same values."] if diff.values == [] else []
    counts = f"{diff.equal_settings} setting{'s' * (diff.equal_settings != 1)}"
    told.append(f"{counts} equal." if diff.settings else f"Settings: all {counts} that are known are equal.")
    return " ".join(told)


def _differs(pieces: Iterable[Piece]) -> bool:
    return any(piece.mark != "=" for piece in pieces)


def _shown(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces as they are shown: harmless, long ones cut, white space that ends a piece outside of its mark."""
    shown: list[Piece] = []
    for number, (mark, text) in enumerate(pieces[:_MOST_PIECES]):
        told = plain(_cut_equal(text) if mark == "=" else _cut(text, _LONGEST_PIECE))
        body = told.rstrip()
        space = told[len(body) :]
        last = number == len(pieces) - 1
        follows = "" if last else (pieces[number + 1].mark)
        if mark == "-" and follows == "+":
            space = " "
        shown.append(Piece(mark, body))
        shown.append(Piece("=", space if space or last else " "))
    if len(pieces) > _MOST_PIECES:
        shown.append(Piece("=", f"\n… and {len(pieces) - _MOST_PIECES:,} more pieces: the Diff's attributes have all."))
    return [piece for piece in shown if piece.text]


def _cut_equal(text: str) -> str:
    words = text.split()
    if len(words) <= _EQUAL_WORDS:
        return text
    tail = text[len(text.rstrip()) :]
    head, end = " ".join(words[:_AROUND]), " ".join(words[-_AROUND:])
    between = f"… ({len(words) - 2 * _AROUND:,} equal words) …"
    return _cut(f"{head}\n{between}\n{end}", 2 * _LONGEST_PIECE) + tail


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def _marked_text(pieces: Sequence[Piece]) -> str:
    if not _differs(pieces):
        return f" {_SAME}" if pieces else f" {_SAME}, empty"
    signs = {"-": "[-{}-]", "+": "{{+{}+}}", "=": "{}"}
    return "\n" + "".join(signs[mark].format(text) for mark, text in _shown(pieces))


def _marked_html(pieces: Sequence[Piece]) -> str:
    if not _differs(pieces):
        return _SAME if pieces else f"{_SAME}, empty"
    return "".join(_html_piece(piece) for piece in _shown(pieces))


def _html_piece(piece: Piece) -> str:
    if piece.mark == "=":
        return escape(piece.text)
    tag, style, said = _TAGS[piece.mark]
    # A screen reader says neither element by itself.
    return f'<{tag} style="{style}"><span style="{_HIDDEN}">{said}</span>{escape(piece.text)}</{tag}>'


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return _number(value)
    text = value if isinstance(value, str) else repr(value) if value is MISSING else to_json(value)
    return _cut(plain(text), _LONGEST_VALUE)


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4g}" if abs(value) < 1000 else f"{value:{sign},.1f}".removesuffix(".0")


def _sides(before: str, after: str) -> tuple[str, str]:
    """Two values that differ, as marked HTML."""
    return _html_piece(Piece("-", before)), _html_piece(Piece("+", after))


def _signed(fact: Fact) -> str:
    if fact.difference is None:
        return "" if fact.before == fact.after else "≠"
    return "0" if not fact.difference else _number(fact.difference, "+")


def _more(rows: Sequence[Any]) -> list[str]:
    return [f"  … and {len(rows) - _MOST_ROWS:,} more"] if len(rows) > _MOST_ROWS else []


def _step_text(step: Step) -> str:
    head = f"  {step.mark} {step.lane}: {step.name}{_ended(step)}"
    if step.mark == "~" and step.lane != "agent":
        words = _marked_text(words_between(step.before or "", step.after or "")).strip()
        return plain(f"{head}\n      ") + words.replace("\n", "\n      ")
    text = (step.before or step.after or "") if step.lane == "thought" else ""
    return plain(f"{head}: {_cut(' '.join(text.split()), _LONGEST_VALUE)}" if text else head)


def _ended(step: Step) -> str:
    if step.ok_before == step.ok_after:
        return ""
    words = {True: "went well", False: "failed", None: "not known"}
    sides = [
        words[end] for known, end in ((step.before, step.ok_before), (step.after, step.ok_after)) if known is not None
    ]
    return f" ({' → '.join(sides)})"


def _step_row(step: Step) -> tuple[str, str, str]:
    name = f"{step.lane}: {step.name}{_ended(step)}"
    if step.before is None or step.after is None:
        side = _html_piece(Piece(step.mark, _cut(step.before or step.after or step.name, _LONGEST_PIECE)))
        return (name, side, "") if step.after is None else (name, "", side)
    if step.mark == "=" or step.lane == "agent":
        same = escape(_cut(step.before, _LONGEST_VALUE)) if step.lane == "thought" else ""
        return name, same or "✓", _SAME
    pieces = words_between(step.before, step.after)
    first, second = (_shown([piece for piece in pieces if piece.mark in marks]) for marks in ("=-", "=+"))
    return name, "".join(map(_html_piece, first)), "".join(map(_html_piece, second))


def _section(title: str, body: str) -> str:
    return (
        f'<section aria-label="{escape(title)}"><div style="border-top:1px solid currentColor;margin-top:.6em">'
        f"<strong>{escape(title)}</strong></div>{body}</section>"
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already, but the first of each row."""
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row" style="{_CELL}">{escape(row[0])}</th>'
        + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows[:_MOST_ROWS]
    )
    more = "".join(f"<div>{escape(line)}</div>" for line in _more(rows))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    cells = [[plain(text).replace("\n", " ")[:60] for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
