"""The report: one page that a colleague can read, that asks for nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_plots import HOSTILE, compared, in_a_new_python, study

from xpander_magics.analysis.comparison import Comparison, compare
from xpander_magics.analysis.reports.examples import differing, failures_by_kind
from xpander_magics.analysis.reports.report import in_short, report, report_html
from xpander_magics.errors import ConfigError
from xpander_magics.store.frames import frame_of

TEMPLATES = ("Classify:\n{{ text }}", "Classify:\nIn one word.\n{{ text }}")
# What would show if any of it were taken for HTML.
ATTACK = "</pre></div><script>hacked()</script><img src=x onerror=hacked()><a href='javascript:hacked()'>x</a>\u202e"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A page taken apart: its elements, and its texts."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(written)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "what is opened is closed in turn"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def every(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def study_of_prompts() -> Comparison:
    return compared(models=("small", "large"), templates=TEMPLATES, inputs=30, failing=4)


@pytest.fixture(scope="module")
def page(study_of_prompts: Comparison) -> Page:
    return Page(report_html(study_of_prompts))


def assert_harmless(page: Page) -> None:
    """Nothing runs, nothing is asked for, and the policy would forbid both."""
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "link", "a", "form", "svg"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "href", "srcset")], tag
        assert attributes.get("src", "data:").startswith("data:")
    policy = next(one["content"] for one in page.every("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_needs_nothing_else(study_of_prompts: Comparison, page: Page) -> None:
    written = report_html(study_of_prompts)
    assert_harmless(page)
    assert not page.open
    assert written.startswith("<!DOCTYPE html>")
    assert page.every("html") == [{"lang": "en"}]
    assert len(page.every("title")) == len(page.every("h1")) == len(page.every("main")) == 1
    style = re.search(r"<style>(.*?)</style>", written, re.S)
    assert style
    allowed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{allowed}'" in written
    assert "prefers-color-scheme: dark" in style[1]
    assert "@media print" in style[1]


def test_pictures_have_words(page: Page) -> None:
    pictures = page.every("img")
    assert len(pictures) == 7  # scores, differences, two trade-offs, two distributions, prompts
    assert all(len(picture["alt"]) > 40 for picture in pictures)
    assert {picture["src"].partition(",")[0] for picture in pictures} == {"data:image/svg+xml;base64"}


def test_it_holds_what_was_found(study_of_prompts: Comparison, page: Page) -> None:
    text = page.text
    for name in study_of_prompts.names:
        assert name in text
    for words in study_of_prompts.differences["words"]:
        assert words in text
    for note in study_of_prompts.notes:
        assert note in text
    for template, version in zip(TEMPLATES, (1, 2), strict=True):
        assert template in text
        assert f"Prompt {version}" in text
    assert "+ In one word." in text
    assert "4 of 240 runs failed." in text
    assert study_of_prompts.failures in text
    assert "503: overloaded" in text
    assert "0123456789abcdef" in text
    assert "2026-03-01 09:00" in text
    assert f"Noise floor of score exact: {study_of_prompts.noise['exact'].floor:.2g}" in text
    assert "Wilson" in text
    assert "pandas" in text


def test_the_first_sentences_are_true(study_of_prompts: Comparison) -> None:
    first, best, verdicts, failed = in_short(study_of_prompts)
    assert first == "In short: 4 configurations ran on 30 inputs, 240 runs."
    means = study_of_prompts.table["exact"].astype(float)
    assert f"{means.max():.3f}" in best
    assert study_of_prompts.names[int(means.argmax())] in best
    for verdict, name in study_of_prompts.differences[["verdict", "configuration"]].itertuples(index=False):
        head = {
            "better": "Better",
            "worse": "Worse",
            "can't tell": "These runs can't tell",
            "noise": "Within the noise",
        }[verdict]
        assert re.search(rf"{head}[^.]*: [^.]*{re.escape(name)}", verdicts)
    assert failed.startswith("4 of 240 runs failed.")
    alike = study(models=("a", "b"), inputs=5, repeats=1)
    for run in alike:
        run.scores = {"exact": 1.0}
    assert any("All have the same score exact" in sentence for sentence in in_short(compare(frame_of(alike))))
    assert in_short(compare(frame_of(alike)))[-1] == "No run failed."


def test_examples_are_where_configurations_differ_most(study_of_prompts: Comparison) -> None:
    found = differing(study_of_prompts, "exact")
    of_each, inputs = study_of_prompts.codes()
    frame = study_of_prompts.frame.assign(c=of_each, i=inputs, v=study_of_prompts.values("exact"))
    means = frame.groupby(["i", "c"])["v"].mean().unstack()
    apart = sorted(means.max(axis=1) - means.min(axis=1), reverse=True)
    for example, most in zip(found, apart, strict=False):
        scores = [answer.score for answer in example.answers]
        assert max(scores) - min(scores) == pytest.approx(most)
        assert study_of_prompts.baseline in [answer.configuration for answer in example.answers]
    assert found[0].asked.startswith("text: ticket ")
    assert not differing(compare(frame_of(study(scores={"exact": 1.0}))), "exact")


def test_failures_are_told_by_kind() -> None:
    runs = study(failing=6)
    runs[0].error_type, runs[0].error = "Timeout", "no answer within 60 s"
    runs[1].status, runs[1].error_type, runs[1].error = "completed", "SchemaError", "no JSON"
    found = failures_by_kind(compare(frame_of(runs)))
    assert [(one.kind, one.runs) for one in found] == [
        ("failed: ServerError", 4),
        ("failed: Timeout", 1),
        ("completed: SchemaError", 1),
    ]
    assert found[1].error == "no answer within 60 s"
    assert failures_by_kind(compared()) == []


def test_what_others_wrote_runs_nothing() -> None:
    runs = study(
        models=HOSTILE,
        templates=(f"{ATTACK} {{{{ text }}}}", f"{ATTACK}\nmore {{{{ text }}}}"),
        inputs=4,
        failing=3,
        score="<b>x</b>",
        result=ATTACK,
        target=ATTACK,
        experiment=ATTACK,
        sweep_id=ATTACK,
    )
    for run in runs:
        run.variables = {ATTACK: f"{run.variables['text']} {ATTACK}"}
        if run.error:
            run.error, run.error_type = ATTACK, ATTACK
    comparison = compare(frame_of(runs), by=["model", "template"])
    written = report_html(comparison, title=ATTACK)
    page = Page(written)
    assert_harmless(page)
    assert not page.open
    assert "<script>hacked()</script>" in page.text, "it is shown as it was written"
    assert "\u202e" not in written
    assert "\x1b" not in written


def test_it_is_written_whole_and_for_its_owner(tmp_path: Path, study_of_prompts: Comparison) -> None:
    path = tmp_path / "study.html"
    path.write_text("older")
    path.chmod(0o644)
    assert report(study_of_prompts, str(path), title="Tickets & more") == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text(encoding="utf-8")
    assert "<h1>Tickets &amp; more</h1>" in written
    assert written.endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "said"),
    [("study.pdf", "must end in .html or .htm"), ("no/study.html", "there is no folder"), ("here.html", "is a folder")],
)
def test_a_path_that_cant_be_is_said(tmp_path: Path, study_of_prompts: Comparison, name: str, said: str) -> None:
    (tmp_path / "here.html").mkdir()
    with pytest.raises(ConfigError, match=said):
        report(study_of_prompts, tmp_path / name)
    assert [found.name for found in tmp_path.iterdir()] == ["here.html"]


@pytest.mark.parametrize(
    "given",
    [
        {"models": ("only",)},
        {"scores": {}},
        {"repeats": 1},
        {"cost_usd": None, "latency_s": None, "total_tokens": None},
        {"template": None, "variables": {}, "created_at": None, "sweep_id": None},
        {"status": "failed", "error": None, "result": None},
        {"inputs": 1, "repeats": 1},
    ],
    ids=["one", "no scores", "no repeats", "no measures", "no templates", "all failed", "one input"],
)
def test_little_is_enough(given: dict[str, Any]) -> None:
    page = Page(report_html(compare(frame_of(study(**given)))))
    assert_harmless(page)
    assert page.text.count("nan") == 0
    assert "<NA>" not in page.text


def test_large_studies_make_small_pages() -> None:
    runs = study(models=[f"m{n}" for n in range(150)], inputs=10, repeats=1, template="x " * 50_000 + "{{ text }}")
    for run, number in zip(runs, itertools.count()):
        run.result, run.error = "long " * 5_000, "why " * 5_000 if number % 7 == 0 else None
        run.status = "failed" if run.error else "completed"
        run.variables = {"text": f"{run.variables['text']} " + "and " * 5_000}
    written = report_html(compare(frame_of(runs)))
    assert len(written.encode()) < 4_000_000
    assert "50 more rows are left out" in written
    assert "(cut; " in written


def test_without_matplotlib_it_says_how_to_get_the_plots() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_plots import compared
from xpander_magics.analysis.reports.report import report_html
comparison = compared(templates=("a {{{{ text }}}}", "b {{{{ text }}}}"))
sys.modules["matplotlib"] = None
print(report_html(comparison))
"""
    page = Page(in_a_new_python(code))
    assert "pip install 'matplotlib" in page.text
    assert not page.every("img")
    assert "Prompt 2" in page.text
