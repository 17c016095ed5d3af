"""A comparison as a person sees it: text for a terminal, and safe HTML for a notebook or a page."""

from __future__ import annotations

import math
import numbers
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.analysis.differences import CORRECTIONS, MARKS, p_shown, short
from xpander_magics.safety import plain
from xpander_magics.showing.markup import AS_IT_IS, escape
from xpander_magics.showing.tables import captioned, columned
from xpander_magics.tally import counted

if TYPE_CHECKING:
    import pandas as pd

    from xpander_magics.analysis.comparison import Comparison

_WIDTH = 110
_SENTENCES = 6
_MISSING = "–"


class Shown(NamedTuple):
    """A table of texts: what it is of, its head, its rows, and what all rows have in common."""

    title: str
    names: list[str]
    rows: list[list[str]]
    common: str


def comparison_bundle(comparison: Comparison) -> dict[str, Any]:
    """What a notebook keeps of a comparison: ``text/plain`` and safe ``text/html``."""
    tables = [table_shown(comparison)]
    if len(comparison.differences):
        tables.append(differences_shown(comparison))
    said = sentences(comparison)
    notes = [comparison.failures, *comparison.notes]
    text = ["\n".join(filter(None, (one.title, one.common, columned(one.names, one.rows)))) for one in tables]
    text.append("\n".join(_wrapped(one) for one in (*said, *notes)))
    html = "".join(
        captioned(". ".join(filter(None, (table.title, table.common))), table.names, table.rows) for table in tables
    )
    return {
        "text/plain": "\n\n".join(text),
        "text/html": f'<div class="xpander-comparison {AS_IT_IS}">{html}{_listed(said)}{_listed(notes)}</div>',
    }


def sentences(comparison: Comparison) -> list[str]:
    """The differences in words, where they are few, each with the sign of its verdict; the table has them all."""
    found = comparison.differences
    if len(found) > _SENTENCES:
        return []
    return [f"{MARKS[verdict]} {words}." for verdict, words in zip(found["verdict"], found["words"], strict=True)]


def table_shown(comparison: Comparison) -> Shown:
    """What varies among the configurations."""
    table = comparison.table
    columns: list[tuple[str, list[str]]] = [
        (name, [_count(value) for value in table[name]])
        for name in ("runs", "inputs", "failures", "unscored")
        if name != "unscored" or table[name].any()
    ]
    columns += [(f"{name} (95%)", _intervals(table, name)) for name in comparison.scores]
    columns += [(head, [form(value) for value in table[name]]) for name, (head, form) in _MEASURES.items()]
    scores = {f"{name} (95%)" for name in comparison.scores}
    names, rows, common = _varying(comparison.names, columns, scores)
    runs, inputs = len(comparison.frame), int(comparison.codes()[1].max(initial=-1)) + 1
    by = f" by {', '.join(_word(name) for name in comparison.by)}" if comparison.by else ""
    title = f"{', '.join(comparison.scores)}{by}: {counted(runs, 'run')} of {counted(inputs, 'input')}"
    return Shown(plain(title), names, rows, common)


def differences_shown(comparison: Comparison) -> Shown:
    """How the configurations differ from the baseline."""
    found = comparison.differences
    more = [_verdict(*row) for row in zip(found["verdict"], found["more_inputs"], strict=True)]
    tally = zip(found["wins"], found["ties"], found["losses"], strict=True)
    columns = [
        ("score", list(found["score"]) if len(comparison.scores) > 1 else []),
        ("difference (95%)", _intervals(found, "difference", sign="+")),
        ("effect size", [_number(value, "+.2f") for value in found["effect_size"]]),
        (
            "p",
            [_number(value, ".2g") if _known(value) and value >= 0.001 else _p(value) for value in found["p_adjusted"]],
        ),
        ("wins/ties/losses", [f"{won}/{tied}/{lost}" for won, tied, lost in tally]),
        ("inputs", [_count(value) for value in found["inputs"]]),
        ("unpaired", [_count(value) for value in found["unpaired"]] if found["unpaired"].any() else []),
        ("verdict", more),
    ]
    shown = {"score", "difference (95%)", "p", "wins/ties/losses", "verdict"}
    names, rows, common = _varying(list(found["configuration"]), columns, shown)
    corrected = ""
    if found["p_value"].notna().any() and len(found) > 1:
        corrected = f"; p with {CORRECTIONS[comparison.correction]} of {len(found)}"
    return Shown(f"Against {comparison.baseline}, paired by input{corrected}", names, rows, common)


def _varying(
    configurations: Sequence[str], columns: Iterable[tuple[str, list[str]]], always: set[str]
) -> tuple[list[str], list[list[str]], str]:
    """Names and rows of what varies, and in words what all rows have in common; what nobody knows is left out."""
    shown, common = [("configuration", list(configurations))], []
    for name, texts in columns:
        if set(texts) <= {_MISSING}:
            continue
        if len(set(texts)) == 1 and len(texts) > 1 and name not in always:
            common.append(f"{name} {texts[0]}")
        else:
            shown.append((name, texts))
    rows = [[plain(text) for text in row] for row in zip(*(texts for _, texts in shown), strict=True)]
    return [plain(name) for name, _ in shown], rows, f"The same in all: {', '.join(common)}" if common else ""


def _intervals(frame: pd.DataFrame, name: str, sign: str = "") -> list[str]:
    """Numbers with their intervals."""
    low, high = (f"{name}_low", f"{name}_high") if f"{name}_low" in frame else ("low", "high")
    found = []
    for value, least, most in zip(frame[name], frame[low], frame[high], strict=True):
        between = f" ({short(least, sign)} to {short(most, sign)})" if _known(least) and _known(most) else ""
        found.append(f"{short(value, sign)}{between}" if _known(value) else _MISSING)
    return found


def _verdict(verdict: str, more: Any) -> str:
    would = f": {more:,} more inputs" if verdict == "can't tell" and _known(more) else ""
    return f"{MARKS[verdict]} {verdict}{would}"


def _known(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not math.isnan(value)


def _number(value: Any, form: str) -> str:
    return f"{value:{form}}" if _known(value) else _MISSING


def _p(value: Any) -> str:
    return p_shown(value).removeprefix("p ").removeprefix("= ") if _known(value) else _MISSING


def _count(value: Any) -> str:
    return _number(value, ",")


def _formed(form: str) -> Callable[[Any], str]:
    return lambda value: _number(value, form)


_MEASURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "seconds_p50": ("s p50", _formed(".2f")),
    "seconds_p95": ("s p95", _formed(".2f")),
    "ttft_p50": ("first token, s", _formed(".2f")),
    "tokens": ("tokens/run", _formed(",.0f")),
    "cost_per_run": ("$/run", _formed(".5f")),
    "cost_per_success": ("$/success", _formed(".5f")),
}
"""The columns of seconds, tokens and cost that are shown, with their heads."""


def _word(name: str) -> str:
    return {"think_mode": "think mode", "agent_version": "version"}.get(name, name)


def _wrapped(text: str) -> str:
    return textwrap.fill(plain(text), _WIDTH, initial_indent="- ", subsequent_indent="  ")


def _listed(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""
