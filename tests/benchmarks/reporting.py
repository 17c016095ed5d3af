"""How a benchmark says what it has measured: figures beside their floors, as a table or as JSON.

Every figure is the ratio of two medians, its own and its floor's, of rounds that were measured in turns: a machine
that grows slower meanwhile is slower for both.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

HEADER = ("", "median", "floor", "more", "ratio", "middle half", "aim")


@dataclass(frozen=True)
class Aim:
    """What a figure is to be at the most.

    Attributes:
        of: the ratio to the floor, what it is more than the floor, or the figure by itself.
    """

    of: Literal["ratio", "more", "own"]
    most: float


@dataclass(frozen=True)
class Figure:
    """What something takes, and what its floor takes.

    Attributes:
        name: of the tool, or of what is done.
        own: one value a round.
        floor: one value a round, in the same order.
        unit: of both.
        without: why there is no figure, where there is none.
    """

    name: str
    own: Sequence[float] = ()
    floor: Sequence[float] = ()
    unit: str = "ms"
    aim: Aim | None = None
    without: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.own)

    @property
    def floors_median(self) -> float:
        return statistics.median(self.floor)

    @property
    def more(self) -> float:
        return self.median - self.floors_median

    @property
    def ratio(self) -> float:
        return self.median / self.floors_median

    @property
    def middle_half(self) -> tuple[float, float]:
        """The first and the third quartile of the rounds' own ratios."""
        ratios = [own / floor for own, floor in zip(self.own, self.floor, strict=True)]
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
        return first, third

    @property
    def held(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        if self.aim is None:
            return None
        return {"ratio": self.ratio, "more": self.more, "own": self.median}[self.aim.of] <= self.aim.most

    def row(self) -> tuple[str, ...]:
        """Its cells, under ``HEADER``."""
        if self.without:
            return (self.name, f"—: {self.without}", "", "", "", "", "")
        low, high = self.middle_half
        numbers = (f"{amount(value)} {self.unit}" for value in (self.median, self.floors_median))
        more = f"{'+' if self.more >= 0 else '−'}{amount(abs(self.more))} {self.unit}"
        return (self.name, *numbers, more, f"**{amount(self.ratio)}**", f"{amount(low)}–{amount(high)}", self._said())

    def _said(self) -> str:
        if self.aim is None:
            return ""
        most = f"{self.aim.most:g}"
        what = {"ratio": f"≤ {most} ×", "more": f"≤ +{most} {self.unit}", "own": f"≤ {most} {self.unit}"}[self.aim.of]
        return f"{what}: {'met' if self.held else '**missed**'}"


def amount(value: float) -> str:
    """A number in three digits or so, as people write it."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{digits}f}"


def table(figures: Iterable[Figure]) -> str:
    """A table in Markdown, which is read as text, too."""
    rows = [HEADER, *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def report(figures: Sequence[Figure], as_json: bool) -> None:
    """Prints a script's figures: the table, or what ``figures_of`` reads."""
    print(json.dumps([asdict(figure) for figure in figures]) if as_json else table(figures))


def figures_of(printed: str) -> list[Figure]:
    """What a script has reported as JSON: the last line that it printed."""
    told: list[dict[str, Any]] = json.loads(printed.strip().splitlines()[-1])
    return [Figure(**{**one, "aim": Aim(**one["aim"]) if one["aim"] else None}) for one in told]


def in_turns(
    rounds: int, own: Callable[[], object], floor: Callable[[], object], factor: float = 1e3
) -> dict[str, list[float]]:
    """Measures both so many times by turns; the seconds of each times a factor, as a Figure takes them.

    One round more comes before, which isn't counted: imports, connections, a store's first use.
    """
    told: dict[str, list[float]] = {"own": [], "floor": []}
    for number in range(rounds + 1):
        for name, function in (("floor", floor), ("own", own)):
            began = time.perf_counter()
            function()
            if number:
                told[name].append((time.perf_counter() - began) * factor)
    return told
