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
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from xpander_magics.safety import plain

_Floats = NDArray[np.float64]

# Okabe and Ito (2008), Color Universal Design: told apart by the colour-blind, and as greys by their lightness.
BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, GREY, PALE = "#1a1a1a", "#595959", "#dcdcdc"
SMALL = 8.0
WIDTH = 8.0
"""Of a figure, in inches."""

_LONGEST = 44
MOST_LABELS = 40
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
        title: what it is of.
        alt: what it shows, in words, for those who can't see it.
    """

    title = ""
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
    figure.title = title
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
    end = longest // 2
    return f"{line[: longest - end - 1]}…{line[-end:]}"


def shown_names(names: Sequence[str], longest: int = _LONGEST) -> list[str]:
    """The names as a plot can draw them; no two are alike.

    Where some are too long, what all begin with is left out before their middles are.
    """
    lines = [shown(name, len(name)) for name in names]
    if len(lines) > 1 and max(map(len, lines)) > longest:
        common = re.match(r".*[\s/_.:-]", os.path.commonprefix(lines))  # noqa: RUF071  # by characters, as is meant
        if common and common.end() > longest // 3:
            lines = [f"…{line[common.end() :]}" for line in lines]
    found: dict[str, None] = {}
    for line in lines:
        short = shown(line, longest)
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
        How many are left out: the last of very many, and those for which all places cover another label.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # lines to labels must not move what they lead to
    pixel = figure.dpi / 72  # a typographic point
    to_pixels = axes.transData.transform
    frame = axes.get_window_extent()
    points = to_pixels([(label.x, label.y) for label in labels])
    dots = np.concatenate([_around(points, 4 * pixel), *(_around(_along(to_pixels(line)), 1) for line in lines)])
    taken, leaders = np.empty((0, 4)), np.empty((0, 4))
    missing = max(0, len(labels) - MOST_LABELS)
    order = sorted(range(len(labels)), key=lambda place: not labels[place].matters)
    for place in order[:MOST_LABELS]:
        label, own = labels[place], points[place]
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=SMALL,
            fontweight="bold" if label.matters else "normal",
            bbox={"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
            ha="center",
            va="center",
            zorder=5,
        )
        text.set_in_layout(False)
        size = np.array(text.get_window_extent().size)
        offsets, costs = _offsets(size / 2 + np.array([6, 5]) * pixel, 13 * pixel)
        boxes = np.concatenate([own + offsets - size / 2, own + offsets + size / 2], axis=1)
        near = np.clip(own, boxes[:, :2], boxes[:, 2:])
        far = np.hypot(*(near - own).T) > 9 * pixel
        along = _around(own + (near - own)[:, None] * np.linspace(0, 1, 12)[:, None], 1)
        crossing = far & _overlaps(along.reshape(-1, 4), taken).reshape(len(along), -1).any(axis=1)
        inside = (boxes[:, :2] > frame.p0).all(axis=1) & (boxes[:, 2:] < frame.p1).all(axis=1)
        free = inside & ~crossing & (_overlaps(boxes, taken) == 0)
        if not free.any():
            text.remove()
            missing += 1
            continue
        costs = costs + 2 * _overlaps(boxes, dots) + 4 * _overlaps(boxes, leaders)
        best = int(np.argmin(np.where(free, costs, np.inf)))
        taken = np.concatenate([taken, boxes[best : best + 1]])
        text.set_position(tuple(offsets[best] / pixel))
        if far[best]:
            leaders = np.concatenate([leaders, along[best]])
            ends = axes.transData.inverted().transform([near[best], own])
            axes.plot(*ends.T, color=GREY, linewidth=0.6, zorder=1)
    return missing


def _offsets(beside: _Floats, ring: float) -> tuple[_Floats, _Floats]:
    """Where a label may stand: all around its point, then ever farther away; and how much worse each is."""
    angle, number = np.meshgrid(np.linspace(0, 2 * np.pi, 24, endpoint=False), np.arange(14))
    around = np.stack([np.cos(angle).ravel(), np.sin(angle).ravel()], axis=1)
    return (beside + ring * number.reshape(-1, 1)) * around, 1.5 * number.ravel() + 0.3 * np.abs(around[:, 1])


def _along(line: _Floats) -> _Floats:
    """Points along a polyline, about 6 pixels apart; one of a single point is that point."""
    pieces = [np.asarray(line)]
    for start, end in itertools.pairwise(pieces[0]):
        pieces.append(np.linspace(start, end, min(200, 2 + int(np.hypot(*(end - start)) / 6))))
    return np.concatenate([np.asarray(line)[:1], *pieces])


def _around(points: _Floats, half: float) -> _Floats:
    """Boxes (x0, y0, x1, y1) around points."""
    return np.concatenate([points - half, points + half], axis=-1)


def _overlaps(boxes: _Floats, others: _Floats) -> NDArray[np.int64]:
    """How many of the others each box overlaps."""
    (left, low, right, high), (west, south, east, north) = boxes.T[..., None], others.T
    found: NDArray[np.int64] = np.sum((left < east) & (right > west) & (low < north) & (high > south), axis=1)
    return found


def point(axes: Axes, x: float, y: float, look: Look) -> None:
    face = look.colour if look.filled else "white"
    axes.plot(x, y, look.marker, markersize=6.5, markerfacecolor=face, markeredgecolor=look.colour, zorder=3)


def dot(axes: Axes, y: float, bounds: _Floats, look: Look) -> None:
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


def key(text: str, look: Look, line: Literal["", "--", ":"] = "") -> Line2D:
    face = look.colour if look.filled else "white"
    return Line2D(*([], []), color=look.colour, marker=look.marker, linestyle=line, label=text, markerfacecolor=face)


def legend(axes: Axes, keys: Sequence[Artist]) -> None:
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
