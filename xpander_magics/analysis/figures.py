"""What all plots have in common: a figure that shows itself, one style for screen and print, names that stay names.

matplotlib is imported here, so this module is only imported inside functions. ``pyplot`` is never used: its figures
live until they are closed, and it chooses a backend for the whole kernel.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from xpander_magics.safety import plain

# Okabe and Ito (2008), Color Universal Design: told apart by the colour-blind, and as greys by their lightness.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
INK, GREY, PALE = "#1a1a1a", "#595959", "#dcdcdc"
SMALL = 8.0
WIDTH = 8.0
"""Of a figure, in inches."""

_LONGEST = 44
# Scripts that matplotlib's own font lacks; of these, a machine has some or none.
_MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC", "Hiragino Sans", "Microsoft YaHei"),
    *("Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai"),
)


class Look(NamedTuple):
    """How what has a verdict is drawn: told apart without colours, too."""

    marker: str
    colour: str
    filled: bool


class Plot(Figure):
    """A figure that a notebook shows by itself, whatever backend there is.

    Attributes:
        alt: what it shows, in words, for those who can't see it.
    """

    alt = ""

    def __repr__(self) -> str:
        return f"<Plot: {self.alt} .savefig(FILE) writes it.>"

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        width, height = (round(inches * 96) for inches in self.get_size_inches())
        return self.as_bytes("png"), {"width": width, "height": height, "alt": self.alt}

    def as_bytes(self, kind: str) -> bytes:
        """The picture as ``png`` (of two pixels where a screen has one), ``svg`` or ``pdf``; equal for equal plots."""
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with styled(), io.BytesIO() as out:
            self.savefig(out, format=kind, dpi=192, metadata=dates.get(kind))
            return out.getvalue()


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """While it lasts, matplotlib draws as these plots want it, whatever the user's own settings."""
    own = {
        "font.family": list(families()),
        "font.size": 9.5,
        "axes.titlesize": 11,
        "axes.labelcolor": INK,
        "axes.edgecolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
        "text.usetex": False,
        "text.parse_math": False,  # a name may hold two dollar signs
        "svg.hashsalt": "xpander",
    }
    with style.context(["default", own]):
        yield


def new_plot(rows: float, title: str, *, per_row: float = 0.3, least: float = 3.4) -> Plot:
    """A figure that is as high as its rows need."""
    figure = Plot(figsize=(WIDTH, max(least, 1.7 + per_row * rows)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return figure


@functools.lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """The fonts here, in the order in which they are asked for a character."""
    known = set(fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in _MORE_FONTS if name in known))


@functools.lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    """The characters that some font here has."""
    return frozenset(itertools.chain.from_iterable(get_font(findfont(name)).get_charmap() for name in families()))


def shown(text: object, longest: int = _LONGEST) -> str:
    """A text as a plot can draw it, in one line, its middle left out where it is long.

    What no font here has becomes U+FFFD, as does what would disguise the text: matplotlib warns of each such glyph.
    """
    line = " ".join(plain(str(text)).split())
    line = "".join(char if ord(char) in _drawable() else "\ufffd" for char in line)
    if len(line) <= longest:
        return line
    # Names that are made alike differ at their ends as often as at their beginnings.
    end = longest // 3
    return f"{line[: longest - end - 1]}…{line[-end:]}"


def shown_names(names: Sequence[str], longest: int = _LONGEST) -> list[str]:
    """The names as a plot can draw them; no two are alike."""
    found: dict[str, None] = {}
    for name in names:
        short = shown(name, longest)
        alike = itertools.chain([short], (f"{short} #{number}" for number in itertools.count(2)))
        found[next(one for one in alike if one not in found)] = None
    return list(found)


def number(value: float, digits: int = 3) -> str:
    """A number in few characters, without an exponent where it can be read without."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-6 <= abs(value) < 1e15:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain_ticks(axis: Any, *, log: bool, most: int = 7) -> None:
    """Ticks as plain numbers; on a log scale at powers of ten, and at 2 and 5 times these where there is room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0,) if log and high > 300 * low else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs) if log else MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: number(value)))
    axis.set_minor_formatter(NullFormatter())


class Label(NamedTuple):
    """A name that is to stand beside its point, in data coordinates; those that ``matter`` are placed first."""

    text: str
    x: float
    y: float
    matters: bool


def place_labels(axes: Axes, labels: Sequence[Label], lines: Sequence[Sequence[tuple[float, float]]]) -> int:
    """Puts each label near its point, where it covers no other label and as few points and lines as can be.

    Args:
        lines: polylines that labels had better not cover, in data coordinates.

    Returns:
        How many found no place that is free of other labels; they are left out.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    frame = axes.get_window_extent().padded(-1)
    points: list[tuple[float, float]] = [tuple(axes.transData.transform((label.x, label.y))) for label in labels]
    dots = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in points]
    dots += [dot for line in lines for dot in _dotted(axes.transData.transform(list(line)), 6 * scale)]
    taken: list[Bbox] = []
    leaders: list[Bbox] = []
    missing = 0
    for place in sorted(range(len(labels)), key=lambda place: not labels[place].matters):
        label, (x, y) = labels[place], points[place]
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=SMALL,
            fontweight="bold" if label.matters else "normal",
            parse_math=False,
            annotation_clip=False,
            ha="center",
            va="center",
        )
        text.set_in_layout(False)
        size = text.get_window_extent()
        best: tuple[float, float, float, Bbox] | None = None
        for distance, (dx, dy) in _offsets(size.width / 2 + 6 * scale, size.height / 2 + 5 * scale, scale):
            box = Bbox.from_bounds(x + dx - size.width / 2, y + dy - size.height / 2, size.width, size.height)
            if not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1):
                continue
            leader = _leader(box, (x, y), 9 * scale)
            if box.count_overlaps(taken) or any(dot.count_overlaps(taken) for dot in leader):
                continue
            cost = distance + 2.0 * box.count_overlaps(dots) + 4.0 * box.count_overlaps(leaders)
            if best is None or cost < best[0]:
                best = (cost, dx, dy, box)
        if best is None:
            text.remove()
            missing += 1
            continue
        _, dx, dy, box = best
        taken.append(box)
        text.set_position((dx / scale, dy / scale))
        leader = _leader(box, (x, y), 9 * scale)
        if leader:
            leaders += leader
            (a, b) = axes.transData.inverted().transform([_nearest(box, (x, y)), (x, y)])
            axes.plot([a[0], b[0]], [a[1], b[1]], color=GREY, linewidth=0.6, zorder=1)
    return missing


def _nearest(box: Bbox, point: tuple[float, float]) -> tuple[float, float]:
    """The point of a box that is nearest to another."""
    return min(max(point[0], box.x0), box.x1), min(max(point[1], box.y0), box.y1)


def _leader(box: Bbox, point: tuple[float, float], least: float) -> list[Bbox]:
    """The line from a label to its point as small boxes; none where they are close."""
    near = _nearest(box, point)
    if math.dist(near, point) < least:
        return []
    return list(_dotted([near, point], least / 2))


def _offsets(width: float, height: float, scale: float) -> Iterator[tuple[float, tuple[float, float]]]:
    """Where a label may stand: all around its point, then ever farther away."""
    for ring in range(9):
        for step in range(24):
            angle = 2 * math.pi * step / 24
            reach = 13 * scale * ring
            x, y = math.cos(angle), math.sin(angle)
            yield 1.5 * ring + 0.3 * abs(y), ((width + reach) * x, (height + reach) * y)


def _dotted(line: Any, apart: float) -> Iterator[Bbox]:
    """Small boxes along a polyline."""
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        count = min(400, max(1, int(math.hypot(x1 - x0, y1 - y0) / apart)))
        for step in range(count + 1):
            x, y = x0 + (x1 - x0) * step / count, y0 + (y1 - y0) * step / count
            yield Bbox.from_bounds(x - 1, y - 1, 2, 2)


def point(axes: Axes, x: float, y: float, look: Look) -> None:
    face = look.colour if look.filled else "white"
    axes.plot(x, y, look.marker, markersize=6.5, markerfacecolor=face, markeredgecolor=look.colour, zorder=3)


def dot(axes: Axes, y: float, bounds: NDArray[np.float64], look: Look) -> None:
    """A point in its row, with its interval where there is one."""
    middle, low, high = bounds
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [y, y], color=look.colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    if np.isfinite(middle):
        point(axes, middle, y, look)


def beside(axes: Axes, y: float, text: str) -> None:
    """A text to the right of a row."""
    axes.text(1.015, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL)


def band(axes: Axes, middle: float, floor: float) -> Patch:
    """The noise floor about a value; returns its key."""
    axes.axvspan(middle - floor, middle + floor, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    return Patch(color=PALE, alpha=0.6, label=f"noise floor, ± {number(floor, 2)}")


def key(text: str, look: Look, line: str = "") -> Line2D:
    face = look.colour if look.filled else "white"
    return Line2D(
        *([], []), color=look.colour, marker=look.marker, linestyle=line or "none", label=text, markerfacecolor=face
    )


def legend(axes: Axes, keys: Sequence[Line2D | Patch]) -> None:
    """The keys above the plot, where they cover nothing."""
    axes.legend(
        handles=list(keys),
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(keys),
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0.3,
        handletextpad=0.5,
        columnspacing=1.4,
    )


def say(plot: Plot, *sentences: str) -> None:
    """What has to be known to read it, below."""
    text = "\n".join(textwrap.fill(sentence, 118) for sentence in sentences if sentence)
    plot.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color=GREY)
