"""Prompts: what is rendered, what passes untouched, and what a template may not do."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpander_magics.errors import TemplateError
from xpander_magics.template import as_json, render


@pytest.mark.parametrize(
    "text",
    [
        "{single} braces and $dollar and ${dollar}",
        '{"json": {"a": [1, 2], "b": null}}',
        "100 % { } {a} {0} {!r} %s %(a)s",
        "def f(): return {'x': {1: 2}}",
        "line\n\n  indented\ttabbed\n",
        "Grüße 😀 \u202e",
        "\\n stays \\",
        "",
    ],
)
def test_untouched(text: str) -> None:
    assert render(text, {"a": 1, "dollar": 2, "single": 3}).text == text


@given(st.text().filter(lambda text: not any(mark in text for mark in ("{{", "{%", "{#"))))
def test_whatever_holds_no_template_is_untouched(text: str) -> None:
    # Jinja makes one newline of each way to write it, as Python's own text files do.
    assert render(text, {}).text == text.replace("\r\n", "\n").replace("\r", "\n")


def test_rendered() -> None:
    made = render("{{ name|upper }}: {% for x in xs %}{{ x }},{% endfor %}", {"name": "Ada", "xs": [1, 2], "other": 3})
    assert made.text == "ADA: 1,2,"
    assert made.variables == {"name": "Ada", "xs": [1, 2]}


def test_values_are_not_templates() -> None:
    assert render("{{ a }}", {"a": "{{ b }}", "b": "secret"}).text == "{{ b }}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ topik }}", "'topik' is not defined. Did you mean topic?"),
        ("{{ qqqqq }}", "'qqqqq' is not defined. Define it in a cell above"),
        ("{{ topic.missing }}", "has no attribute 'missing'"),
        ("{{ d.missing }}", "'dict object' has no attribute 'missing'"),
        ("{% if nothing %}x{% endif %}", "'nothing' is not defined"),
        ("{{ topic", "is no valid template"),
        ("a\n{% for %}", "(line 2)"),
        ("{{ topic|nofilter }}", "No filter named 'nofilter'"),
        ("{% include 'x' %}", "can't be rendered"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ broken }}", "RuntimeError: no text"),
        ("{% for x in range(10**9) %}{% endfor %}", "OverflowError"),
    ],
)
def test_wrong_templates(template: str, says: str) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(TemplateError) as caught:
        render(template, {"topic": "rain", "d": {}, "broken": Broken()}, what="--title")
    assert says in str(caught.value)
    assert str(caught.value).startswith("--title")
    assert len(str(caught.value).splitlines()) <= 3


# What has been published against Jinja's sandbox and template injection in general.
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ [''.__class__]|map(attribute='__mro__')|first }}",
    "{{ ['']|map(attribute='__class__')|first }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(f) }}",
    "{{ ('{0.__class__}'|attr('format'))(f) }}",
    "{{ '{0.__class__}'.format_map({'0': f}) }}",
    "{% set m = '{0.__class__}'.format %}{{ m(f) }}",
    "{{ ['{0.__class__}']|map('format', f)|first }}",
    "{{ (['{0.__class__.__mro__}'.format]|first)(f) }}",
    "{{ f.__globals__['os'].environ }}",
    "{{ f.__code__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ g.gi_frame.f_globals }}",
    "{{ g.gi_code }}",
    "{{ f.__defaults__ }}{{ f.func_globals }}",
    "{{ xs.append(1) }}",
    "{{ d.update(a=1) }}",
    "{{ d.clear() }}",
    "{{ os.environ }}",
    "{{ os.environ.HOME }}",
    "{{ os.popen('id').read() }}",
    "{{ os['system']('id') }}",
    "{{ os|attr('environ') }}",
    "{{ [os]|map(attribute='environ')|first }}",
    "{{ subprocess.check_output('id') }}",
    "{{ config }}",
    "{{ request.application }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_sandbox(template: str) -> None:
    def f() -> None: ...

    xs, d = [1], {"b": 2}
    held: dict[str, Any] = {"f": f, "g": (i for i in [1]), "xs": xs, "d": d, "os": os, "subprocess": subprocess}
    with pytest.raises(TemplateError):
        render(template, held)
    assert (xs, d) == ([1], {"b": 2})


def test_variables_are_kept_as_json() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    circle: list[Any] = []
    circle.append(circle)
    assert as_json({"a": (1, 2)}) == {"a": [1, 2]}
    assert as_json({1}) == "{1}"
    assert as_json(circle) == "[[...]]"
    assert as_json({(1, 2): 3}) == "{(1, 2): 3}"
    assert as_json(Broken()) == "<Broken>"
    cut = as_json("x" * 100_000)
    assert len(cut) < 21_000
    assert cut.endswith("…")


def test_a_value_without_text_of_its_own_may_be_named() -> None:
    class Broken:
        name = "Ada"

        def __str__(self) -> str:
            raise RuntimeError("no text")

    made = render("{{ person.name }}", {"person": Broken()})
    assert (made.text, made.variables) == ("Ada", {"person": "<Broken>"})


def test_no_double_full_stop() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("It can't be shown.")

    with pytest.raises(TemplateError, match=r"ValueError: It can't be shown\.$"):
        render("{{ odd }}", {"odd": Odd()})
