"""The plots: what they draw, what they say where they can't, and that names stay names."""

from __future__ import annotations

import itertools
import math
import stat
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.analysis.files import whole_file
from xpander_magics.analysis.pictures.figures import Plot, number, shown, shown_names
from xpander_magics.analysis.pictures.plots import KINDS, pareto_front, plot
from xpander_magics.analysis.pictures.versions import changed_lines, prompt_versions
from xpander_magics.errors import ConfigError
from xpander_magics.results import Run
from xpander_magics.store.frames import frame_of

START = datetime(2026, 3, 1, 9, tzinfo=timezone.utc)
HOSTILE = (
    "$x_1$ a_b \\frac $y^2$",
    "模型 \u202egnp.exe",
    "<script>alert(1)</script>--><!--",
    "\x1b[31mred 🎉 é",
    "very-long-" * 30,
)


def study(
    models: Sequence[str] = ("small", "large", "wide"),
    efforts: Sequence[str | None] = (None,),
    templates: Sequence[str] = ("Classify: {{ text }}",),
    inputs: int = 12,
    repeats: int = 2,
    *,
    binary: bool = True,
    priced: Sequence[str] | None = None,
    score: str = "exact",
    failing: int = 0,
    **given: Any,
) -> list[Run]:
    """Runs of each model, effort and template on each input; later models are better, dearer and slower.

    Args:
        priced: the models whose cost is known; all when omitted.
        failing: so many of the first runs failed.
    """
    random = np.random.default_rng(7)
    ease = random.normal(0, 1, inputs)
    runs = []
    for number_of_input, repeat in itertools.product(range(inputs), range(repeats)):
        for (place, model), effort, (version, template) in itertools.product(
            enumerate(models), efforts, enumerate(templates)
        ):
            chance = 1 / (1 + math.exp(-ease[number_of_input] - 0.5 * place - 0.8 * version))
            value = float(random.random() < chance) if binary else float(np.clip(random.normal(chance, 0.1), 0, 1))
            failed = len(runs) < failing
            known = priced is None or model in priced
            runs.append(
                Run(
                    **{
                        "sweep_id": "0123456789abcdef",
                        "status": "failed" if failed else "completed",
                        "error": "503: overloaded" if failed else None,
                        "error_type": "ServerError" if failed else None,
                        "target": "writer",
                        "requested_provider": "p",
                        "requested_model": model,
                        "requested_effort": effort,
                        "provider": "p",
                        "model": model,
                        "effort": effort,
                        "template": template,
                        "prompt": template.replace("{{ text }}", f"ticket {number_of_input}"),
                        "variables": {"text": f"ticket {number_of_input}"},
                        "result": None if failed else f"answer {random.integers(3)}",
                        "repeat": repeat,
                        "latency_s": float(random.lognormal(0.3 * place, 0.3)),
                        "ttft_s": 0.2,
                        "total_tokens": int(random.integers(80, 120)) * (place + 1),
                        "cost_usd": 0.001 * 4**place * float(random.uniform(0.9, 1.1)) if known else None,
                        "created_at": START + timedelta(seconds=len(runs)),
                        "finished_at": START + timedelta(seconds=len(runs) + 2),
                        "scores": {} if failed else {score: value},
                        **given,
                    }
                )
            )
    return runs


def compared(*args: Any, **given: Any) -> Comparison:
    return compare(frame_of(study(*args, **given)))


@pytest.fixture(scope="module")
def three() -> Comparison:
    return compared()


def texts_of(figure: Plot) -> list[str]:
    """Every text in a figure."""
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]


def points_of(figure: Plot, axes: int = 0) -> set[tuple[float, float]]:
    """Where a figure has single markers."""
    lines = figure.axes[axes].get_lines()
    return {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in lines
        if line.get_marker() not in ("None", "", None) and len(line.get_xdata()) == 1
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_each_kind_is_shown_and_written(tmp_path: Path, kind: str, suffix: str, begins: bytes) -> None:
    comparison = compared(templates=("Classify: {{ text }}", "Classify in a word: {{ text }}"), failing=3)
    path = tmp_path / f"plot.{suffix}"
    path.write_text("older")
    figure = plot(comparison, kind, file=path)
    assert path.read_bytes().startswith(begins)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert len(figure.alt) > 40
    assert "<Plot: " in repr(figure)


def test_a_bare_figure_shows_itself_in_ipython(three: Comparison) -> None:
    data, metadata = DisplayFormatter().format(plot(three, "scores"))
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] == 768
    assert "small" in metadata["image/png"]["alt"]
    assert "savefig" in data["text/plain"]


def test_equal_plots_are_equal_files(three: Comparison) -> None:
    for kind, how in itertools.product(("tradeoff", "distribution"), ("svg", "pdf", "png")):
        assert plot(three, kind).as_bytes(how) == plot(three, kind).as_bytes(how)


def test_tradeoff_draws_the_table(three: Comparison) -> None:
    for x, column in (("cost", "cost_per_run"), ("seconds", "seconds_p50"), ("tokens", "tokens")):
        figure = plot(three, "tradeoff", x=x)
        wanted = set(zip(three.table[column].astype(float), three.table["exact"].astype(float), strict=True))
        assert points_of(figure) >= wanted
        assert {"small", "large", "wide"} <= set(texts_of(figure))
    assert "US dollars" in plot(three).axes[0].get_xlabel()
    assert "seconds" in plot(three, x="seconds").axes[0].get_xlabel()


def test_intervals_of_costs_are_those_of_amounts(three: Comparison) -> None:
    """Guards against costs below a dollar being taken for scores from 0 to 1, whose intervals are of another kind."""
    figure = plot(three, "tradeoff", x="cost")
    lines = [np.array(line.get_xdata(), dtype=float) for line in figure.axes[0].get_lines()]
    across = [line for line in lines if len(line) == 2 and 0 < line[1] - line[0] < 0.01 * line.mean() * 20]
    costs = three.table["cost_per_run"].astype(float)
    assert sum(any(low < cost < high for low, high in across) for cost in costs) == 3


def test_the_front_is_named(three: Comparison) -> None:
    figure = plot(three, "tradeoff", x="cost")
    costs, means = (three.table[name].to_numpy(dtype=float) for name in ("cost_per_run", "exact"))
    front = [three.names[n] for n in np.argsort(costs) if pareto_front(costs, means)[n]]
    assert f"the cheapest first: {'; '.join(front)}." in figure.alt
    assert any(text.startswith("Pareto front") for text in texts_of(figure))


def test_a_front_of_one_is_drawn() -> None:
    """Guards against a front without a line: one configuration is both the best and the fastest."""
    frame = frame_of(study(models=("small", "large")))
    best = frame["model"] == "small"
    figure = plot(compare(frame.assign(score_exact=best.astype(float), latency_s=2.0 - best)), x="seconds")
    assert "the cheapest first: small." in figure.alt
    assert {"small", "large"} <= set(texts_of(figure))


numbers = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_pareto_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    found = pareto_front(*(np.array(side, dtype=float) for side in zip(*points, strict=True))) if points else []
    for here, (cost, score) in zip(found, points, strict=True):
        beaten = any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
        assert here == (not beaten and not math.isnan(cost + score))


def test_scores_draw_means_and_intervals(three: Comparison) -> None:
    figure = plot(three, "scores")
    means = three.table["exact"].astype(float)
    assert points_of(figure) == {(mean, float(place)) for place, mean in enumerate(means)}
    lines = {tuple(line.get_xdata()) for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 2}
    assert lines >= set(
        zip(three.table["exact_low"].astype(float), three.table["exact_high"].astype(float), strict=True)
    )
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == three.names
    assert any(f"± {number(three.noise['exact'].floor, 2)}" in text for text in texts_of(figure))


def test_differences_are_told_apart_without_colours() -> None:
    comparison = compared(models=("a", "b", "c", "d"), inputs=60, repeats=2)
    figure = plot(comparison, "differences")
    rows = comparison.differences
    assert points_of(figure) == {(float(x), float(place)) for place, x in enumerate(rows["difference"])}
    markers = {
        float(line.get_ydata()[0]): (line.get_marker(), line.get_markerfacecolor())
        for line in figure.axes[0].get_lines()
        if len(line.get_xdata()) == 1
    }
    looks = {verdict: markers[float(place)] for place, verdict in enumerate(rows["verdict"])}
    assert len({marker for marker, _ in looks.values()}) == len(looks)
    assert all(any(text.startswith(verdict) for text in texts_of(figure)) for verdict in looks)
    with pytest.raises(ConfigError, match="one configuration only"):
        plot(compared(models=("a",)), "differences")


def test_distribution_has_a_row_for_each_repeat(three: Comparison) -> None:
    figure = plot(three, "distribution")
    dots = [found for found in figure.axes[0].collections if len(found.get_offsets())]
    assert len(dots) == 6  # three models, twice
    assert sum(len(found.get_offsets()) for found in dots) == 72
    assert len({found.get_paths()[0].vertices.shape for found in dots}) == 2, "each repeat has its own marker"
    assert all(number(float(median)) in figure.alt for median in three.table["seconds_p50"])
    assert any("a row for each repeat (1 to 2" in text for text in texts_of(figure))


def test_distribution_of_many_runs_draws_some_of_them() -> None:
    figure = plot(compared(models=("a", "b"), inputs=300, repeats=1, binary=False), "distribution", x="score")
    assert sum(len(found.get_offsets()) for found in figure.axes[0].collections) == 200
    assert any("drawn by lot" in text for text in texts_of(figure))


def test_distribution_leaves_failures_out_as_the_table_does() -> None:
    comparison = compared(failing=5)
    figure = plot(comparison, "distribution")
    assert sum(len(found.get_offsets()) for found in figure.axes[0].collections) == 72 - 5
    assert all(number(float(median)) in figure.alt for median in comparison.table["seconds_p50"])


def test_prompts_show_the_changed_lines_beside_the_change() -> None:
    templates = ("Classify.\n{{ text }}", "Classify.\nBe brief.\n{{ text }}", "Classify as bug.\nBe brief.\n{{ text }}")
    comparison = compared(models=("a", "b"), templates=templates, inputs=30)
    versions = prompt_versions(comparison, "exact")
    assert [version.template for version in versions] == list(templates)
    assert versions[1].changed == ["+ Be brief."]
    assert versions[2].changed == ["- Classify.", "+ Classify as bug."]
    assert versions[0].change is None
    means = [
        comparison.values("exact")[(comparison.frame["template"] == template).to_numpy(bool)].mean()
        for template in templates
    ]
    assert [version.estimate.mean for version in versions] == pytest.approx(means)
    assert versions[2].change is not None
    assert versions[2].change.difference == pytest.approx(means[2] - means[1])
    figure = plot(comparison, "prompts")
    assert {"+ Be brief.", "- Classify.", "+ Classify as bug."} <= set(texts_of(figure))
    assert len(points_of(figure, 1)) == 2
    with pytest.raises(ConfigError, match="one prompt template"):
        plot(compared(), "prompts")


def test_versions_are_compared_over_what_all_ran_with() -> None:
    """Guards against a change of the prompt that is a change of the model."""
    old = study(models=("weak",), templates=("Old {{ text }}",), inputs=20)
    new = study(models=("weak", "strong"), templates=("New {{ text }}",), inputs=20)
    for run in new:
        run.scores = {"exact": 1.0 if run.model == "strong" else next(iter(old[0].scores.values()))}
    for run in old:
        run.scores = dict(old[0].scores)
    versions = prompt_versions(compare(frame_of([*old, *new]), by=["model", "prompt"]), "exact")
    assert versions[1].change is not None
    assert versions[1].change.difference == 0
    assert versions[0].settings == 1


def test_changed_lines_keep_their_order() -> None:
    assert changed_lines("a\nb\nc", "a\nB\nc\nd") == ["- b", "+ B", "+ d"]
    assert changed_lines("same", "same") == []


def test_changed_lines_of_prompts_without_likeness() -> None:
    """Lines that are alike but never the same: ``difflib.ndiff`` compares each with each, for hours."""
    old, new = ([f"line {number} of the {which} prompt" for number in range(3000)] for which in ("old", "new"))
    changed = changed_lines("\n".join(old), "\n".join(new))
    assert changed == [f"- {line}" for line in old] + [f"+ {line}" for line in new]


def test_what_isnt_known_is_said() -> None:
    none = compared(priced=())
    with pytest.raises(ConfigError, match="No cost is known of these runs: x can be seconds or tokens"):
        plot(none, "tradeoff", x="cost")
    assert "seconds" in plot(none, "tradeoff").axes[0].get_xlabel()
    some = plot(compared(priced=("small", "wide")), "tradeoff", x="cost")
    assert any("Left out" in text and "large" in text for text in texts_of(some))
    bare = compare(frame_of(study(latency_s=None, total_tokens=None, cost_usd=None)))
    with pytest.raises(ConfigError, match="No cost, seconds or tokens are known"):
        plot(bare, "tradeoff")
    assert plot(bare, "distribution").alt.startswith("Score exact of a run")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "pie"}, "no plot 'pie': tradeoff, scores"),
        ({"kind": "tradeoff", "x": "joy"}, "no x 'joy' for this plot: x can be cost or seconds or tokens"),
        ({"score": "beauty"}, "no score 'beauty' in this comparison: exact"),
        ({"file": "plot.jpg"}, r"must end in .png, .svg or .pdf"),
        ({"file": "nowhere/plot.png"}, "there is no folder"),
    ],
)
def test_errors_say_what_there_is(
    three: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        plot(three, **given)
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    path.write_text("older")

    def write_half() -> None:
        with whole_file(path) as beside:
            beside.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def strict() -> Iterator[None]:
    """Any warning, such as one of a missing glyph, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_stay_names(kind: str) -> None:
    templates = ("$a$ {{ text }}", "<script>b</script> \u202e中 {{ text }}\n\x1b[2J$\\sum$")
    comparison = compared(models=HOSTILE, templates=templates, inputs=4, score="re$a$_b^2")
    figure = plot(comparison, kind)
    svg = figure.as_bytes("svg")
    assert figure.as_bytes("png")
    assert figure.as_bytes("pdf")
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}
    assert not tags & {"script", "foreignObject", "image", "a", "iframe", "animate", "set"}
    assert not any("\x1b" in text or "\u202e" in text for text in texts_of(figure))
    from matplotlib.text import Text

    assert not any(found.get_parse_math() for found in figure.findobj(Text) if "$" in found.get_text())


def test_names_are_cut_and_no_two_are_alike() -> None:
    long = [f"provider/model-{'x' * 80}-{n}" for n in range(3)]
    names = shown_names([*long, "a\u202e", "a\u200b", "plain"])
    assert len(set(names)) == 6
    assert all(len(name) <= 48 for name in names)
    assert names[-1] == "plain"
    assert names[0].endswith("-0"), "the end of a long name tells as much as its beginning"
    assert shown_names(long) == ["…0", "…1", "…2"], "what all begin with tells nothing"
    assert shown("a\nb\tc") == "a b c"


@pytest.mark.usefixtures("strict")
def test_twenty_configurations_dont_overlap() -> None:
    models = [f"provider/model-with-a-long-name-{n}-2026-11" for n in range(10)]
    comparison = compared(models=models, efforts=("low", "high"), inputs=8)
    figure = plot(comparison, "tradeoff", x="seconds")
    labels = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(labels) == 20
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].shrunk(0.98, 0.9).overlaps(pair[1])]
    inside = figure.axes[0].get_window_extent().padded(2)
    assert all(inside.containsx(box.x0) and inside.containsx(box.x1) for box in boxes)
    for kind in ("scores", "differences", "distribution"):
        rows = plot(comparison, kind)
        rows.draw_without_rendering()
        ticks = [label.get_window_extent() for label in rows.axes[0].get_yticklabels()]
        assert not [pair for pair in itertools.pairwise(ticks) if pair[0].overlaps(pair[1])]
        assert all(tick.x0 >= 0 for tick in ticks)


def test_many_configurations_are_cut_and_said() -> None:
    comparison = compared(models=[f"m{n}" for n in range(50)], inputs=2, repeats=1)
    for kind in ("scores", "differences", "distribution"):
        figure = plot(comparison, kind)
        assert len(figure.axes[0].get_yticklabels()) == 40
        assert any("more configurations are in the table only" in text for text in texts_of(figure))


def test_the_users_own_settings_neither_show_nor_change(three: Comparison) -> None:
    before = plot(three, "scores").as_bytes("png")
    with mpl.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
        mine = dict(mpl.rcParams)
        assert plot(three, "scores").as_bytes("png") == before
        assert dict(mpl.rcParams) == mine


def in_a_new_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_SMALL = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_plots import compared
from xpander_magics.analysis.pictures.plots import plot
"""


def test_pyplot_is_never_imported() -> None:
    told = in_a_new_python(
        _SMALL + "plot(compared(), 'scores').as_bytes('png')\nprint('matplotlib.pyplot' in sys.modules)"
    )
    assert told == "False"


def test_matplotlib_is_imported_when_it_is_needed() -> None:
    told = in_a_new_python(
        "import sys, xpander_magics.analysis.pictures.plots, xpander_magics.analysis.reports.report\n"
        "print('matplotlib' in sys.modules)"
    )
    assert told == "False"


def test_without_matplotlib_it_says_how_to_get_it() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
from types import SimpleNamespace
from xpander_magics.analysis.pictures.plots import plot
from xpander_magics.errors import ConfigError
try:
    plot(SimpleNamespace(scores=("a",)), "scores")
except ConfigError as error:
    print(error)
"""
    assert "pip install 'matplotlib" in in_a_new_python(code)
