"""Prompts: what is rendered, what passes untouched, and what a template may not do."""

from __future__ import annotations

import _thread
import functools
import os
import subprocess
import sys
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook

import xpander_magics as xp
from xpander_magics.errors import TemplateError
from xpander_magics.plans import sandbox
from xpander_magics.plans.template import as_json, render
from xpander_magics.results import Run


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
@example("a\r\nb\rc\n")
def test_whatever_holds_no_template_is_untouched(text: str) -> None:
    assert render(text, {}).text == text


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


# What has been published against Jinja's sandbox and template injection in general: advisories and cheat sheets.
ESCAPES = r"""
{{ ''.__class__.__mro__[1].__subclasses__() }}
{{ ''['__class__'] }}
{{ ''|attr('__class__') }}
{{ ''|attr('\x5f\x5fclass\x5f\x5f') }}
{{ [''.__class__]|map(attribute='__mro__')|first }}
{{ ['']|map(attribute='__class__')|first }}
{{ xs|sum(attribute='__class__') }}
{{ '{0.__class__.__init__.__globals__}'.format(f) }}
{{ ('{0.__class__}'|attr('format'))(f) }}
{{ '{0.__class__}'.format_map({'0': f}) }}
{% set m = '{0.__class__}'.format %}{{ m(f) }}
{{ ['{0.__class__}']|map('format', f)|first }}
{{ (['{0.__class__.__mro__}'.format]|first)(f) }}
{{ {'m': '{0.__class__}'.format}.m(f) }}
{% macro call(m) %}{{ m(f) }}{% endmacro %}{{ call('{0.__globals__}'.format) }}
{{ {'__class__=1 onload=x': 1}|xmlattr }}
{{ {'a/b': 1}|xmlattr }}
{{ f.__globals__['os'].environ }}
{{ f.__code__ }}
{{ f.__defaults__ }}
{{ f.func_globals }}
{{ cycler.__init__.__globals__.os.system('touch trip') }}
{{ joiner.__init__.__globals__.os.system('touch trip') }}
{{ namespace.__init__.__globals__.os.system('touch trip') }}
{{ lipsum.__globals__['os'].system('touch trip') }}
{{ lipsum|attr('__globals__') }}
{{ dict.mro() }}
{{ dict.__base__.__subclasses__() }}
{{ range.__class__ }}
{{ self.__init__.__globals__ }}
{{ self._TemplateReference__context.environment }}
{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}
{% for i in xs %}{{ loop._iterator.__class__ }}{% endfor %}
{% block x %}{{ super.__class__ }}{% endblock %}
{{ g.gi_frame.f_globals }}
{{ g.gi_code }}
{{ g|attr('gi_frame') }}
{{ trouble.__traceback__.tb_frame.f_globals }}
{{ frame.f_globals }}
{{ config }}
{{ request.application }}
{{ environment }}
{% include '/etc/passwd' %}
{% import 'os' as os %}
{% extends 'x' %}
{% do xs.append(1) %}
{{ xs.append(1) }}
{% set _ = xs.append(1) %}
{{ d.update(a=1) }}
{{ d.clear() }}
{{ d.setdefault('x', 1) }}
{{ ordered.move_to_end('a') }}
{{ counts.subtract('a') }}
{{ raw.extend(raw) }}
{{ (xs|map(attribute='append')|first)(1) }}
""".strip().splitlines()

# What a notebook has beside that: whatever it imported, opened or made, and pandas, which writes, evaluates and calls.
ACTS = r"""
{{ os.environ }}
{{ os.environ.HOME }}
{{ os.system('touch trip') }}
{{ os['system']('touch trip') }}
{{ os|attr('environ') }}
{{ [os]|map(attribute='environ')|first }}
{{ subprocess.check_output(['touch', 'trip']) }}
{{ xp.run('hi') }}
{{ system('touch trip') }}
{{ later() }}
{{ fs.f('touch trip') }}
{{ fs['f']('touch trip') }}
{{ popen(['touch', 'trip']) }}
{{ opened('trip', 'w') }}
{{ evaluate('1') }}
{{ imported('os').system('touch trip') }}
{{ attribute(xs, '__class__') }}
{{ shell.system('touch trip') }}
{{ shell.run_cell('open("trip", "w")') }}
{{ shell.user_ns['os'].system('touch trip') }}
{{ kept.unlink() }}
{{ kept.write_text('y') }}
{{ kept.rename('trip') }}
{{ kept.read_text() }}
{{ kept.parent.joinpath('trip').touch() }}
{{ Path('trip').touch() }}
{{ handle.write('y') }}
{{ handle.close() }}
{{ df.to_csv('trip') }}
{{ df.to_csv(path_or_buf='trip') }}
{{ df.to_csv(*['trip']) }}
{{ df.to_csv(**{'path_or_buf': 'trip'}) }}
{{ df.to_html(buf='trip') }}
{{ df.name.to_json('trip') }}
{{ df.to_pickle('trip') }}
{{ df['name'].to_pickle('trip') }}
{{ df.to_sql('trip', 'sqlite:///trip') }}
{{ ([df]|map(attribute='to_pickle')|first)('trip') }}
{{ df.style.to_html('trip') }}
{{ df.style.from_custom_template('.', 'x') }}
{{ df.eval('@pd.io.common.os.system("touch trip")') }}
{{ df.query('@__builtins__') }}
{{ df.apply('to_csv', args=('trip',)) }}
{{ df.agg({'name': [system]}) }}
{{ df.pipe(system) }}
{{ df.name.map(system) }}
{{ df.name.map(fs.f) }}
{{ df.name.map(df.to_csv) }}
{{ df.loc[system] }}
{{ df.loc[df.to_csv] }}
{{ df.assign(c=[system][0]) }}
{{ df.rename(columns={'n': 'm'}, inplace=true) }}
{{ df.drop(columns='n', inplace=1) }}
{{ df.insert(0, 'z', 1) }}
{{ df.pop('n') }}
{{ df.plot() }}
{{ array.sort() }}
{{ array.fill(0) }}
{{ array.tofile('trip') }}
{{ read_csv('kept') }}
{{ DataFrame.to_csv(df, 'trip') }}
{{ DataFrame({'a': [1]}).to_csv('trip') }}
{{ run.reply('hi') }}
{{ run.stop() }}
{{ send('hi') }}
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kept").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("template", [*ESCAPES, *ACTS])
def test_a_template_gets_at_nothing_and_does_nothing(template: str, folder: Path) -> None:
    def f() -> None: ...

    frame = pd.DataFrame({"n": [1, 2], "name": ["touch trip", "trip"]})
    xs, d, counts, ordered = [1], {"b": 2}, Counter("a"), OrderedDict(a=1, b=2)
    array, raw, trouble = np.array([3, 1, 2]), bytearray(b"x"), ValueError()
    try:
        raise trouble
    except ValueError:
        pass
    with (folder / "kept").open("a") as handle:
        held: dict[str, Any] = {
            **{"f": f, "g": (i for i in [1]), "xs": xs, "d": d, "os": os, "subprocess": subprocess, "xp": xp, "pd": pd},
            **{"counts": counts, "ordered": ordered, "raw": raw, "trouble": trouble, "frame": sys._getframe()},
            **{"system": os.system, "fs": {"f": os.system}, "later": functools.partial(os.system, "touch trip")},
            **{"popen": subprocess.Popen, "opened": open, "evaluate": eval, "imported": __import__, "send": xp.run},
            **{"attribute": getattr, "shell": InteractiveShell(), "kept": folder / "kept", "Path": Path},
            **{"handle": handle, "df": frame, "array": array, "read_csv": pd.read_csv, "DataFrame": pd.DataFrame},
            **{"run": Run("r")},
        }
        with pytest.raises(TemplateError) as caught:
            render(template, held)
        assert not handle.closed
    assert len(str(caught.value).splitlines()) <= 3
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("kept", "x")]
    assert (xs, d, counts, list(ordered), bytes(raw), array.tolist()) == (
        *([1], {"b": 2}, {"a": 1}, ["a", "b"], b"x"),
        [3, 1, 2],
    )
    assert frame.equals(pd.DataFrame({"n": [1, 2], "name": ["touch trip", "trip"]}))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ df.to_csv(index=False) }}", "n\n1\n2\n"),
        ("{{ df.head(1).to_string(index=False) }}", " n\n 1"),
        ("{{ df.to_dict('records') }}", "[{'n': 1}, {'n': 2}]"),
        ("{% for row in df.itertuples() %}{{ row.n }}{% endfor %}{{ df.shape[0] }}{{ df.n.max() }}", "1222"),
        ("{{ df.n.map({1: 'a', 2: 'b'}).tolist()|join }}", "ab"),
        ("{{ path.name }} {{ path.with_suffix('.md') }}", "a.txt a.md"),
        ("{{ day.strftime('%d.%m.') }} {{ date(2026, 1, 2) }}", "02.01. 2026-01-02"),
        ("{{ shout('hi') }} {{ model.model_dump_json() }}", 'HI {"n":1}'),
        ("{{ 'a=b'.partition('=')[2] }}{{ ' a '.strip().upper().replace('A', 'c') }}", "bc"),
        ("{{ '%.2f' % 3.14159 }} {{ '%5d|%s'|format(3, 'x') }} {{ '{:,.1f}'.format(1234.5) }}", "3.14     3|x 1,234.5"),
        ("{{ 'Order 1234567890123: %d'|format(1700000000000) }}", "Order 1234567890123: 1700000000000"),
        ("{{ 1700000000000|default(99999999999) + 2**40 }}", "2799511627776"),
        ("{% for x in xs if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x ~ '.' }}{% endfor %}", "1/2:2.2/2:3."),
        ("{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m('a') %}b{% endcall %}", "<ab>"),
        ("{{ xs|tojson(indent=1) }} {{ xs|batch(2)|list }} {{ [xs, [4]]|sum(start=[]) }}", None),
        ("{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "6"),
    ],
)
def test_what_a_template_may_do(template: str, text: str | None) -> None:
    class Model(pydantic.BaseModel):
        n: int = 1

    held = {
        **{"df": pd.DataFrame({"n": [1, 2]}), "path": Path("a.txt"), "day": date(2026, 1, 2), "date": date},
        **{"shout": lambda said: said.upper(), "model": Model(), "xs": [1, 2, 3]},
    }
    plainly = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template).render(held)
    assert render(template, held).text == plainly == (text or plainly).rstrip("\n") + "\n" * plainly.endswith("\n")


# Little text that asks for much of the processor, or of the memory.
BOMBS = [
    *(
        "{{ 9**(9**9) }}",
        "{{ fraction ** (10**9) }}",
        "{{ 'a' * 10**10 }}",
        "{{ 99999999999 * 'a' }}",
        "{{ [0] * 10**9 }}",
    ),
    *("{{ '%0999999999d' % 1 }}", "{{ '%*d' % (10**9, 1) }}", "{{ '%.999999999f' % 1.0 }}"),
    *("{{ '%0999999999d'|format(1) }}", "{{ '{:>9999999999}'.format(1) }}", "{{ '{:{w}}'.format(1, w=10**10) }}"),
    *(
        "{{ '{0:>999999999}'.format_map({'0': 1}) }}",
        "{{ ['{:>999999999}']|map('format', 1)|list }}{{ 'x'.zfill(10**10) }}",
    ),
    *("{{ 'x'|center(10**10) }}", "{{ 'x'|center(10000000000) }}", "{{ 'x'.ljust(10000000000) }}"),
    *("{{ ('\t' * 1000).expandtabs(10**9) }}", "{{ 'a\n' * 1000|int }}{{ ('a\n' * 1000)|indent(10**8) }}"),
    *("{{ lipsum(n=10**7) }}", "{{ lipsum(1, true, 10**8, 10**9) }}", "{{ 1.5|round(10**9, 'ceil') }}"),
    *("{{ big.replace('x', 'b' * 1000) }}", "{{ big|replace('', 'b' * 1000) }}", "{{ big.join([''] * 100000) }}"),
    *("{{ range(100000)|join(big) }}", "{{ range(100000)|map('center', 100000)|join }}", "{{ [big] * 1000 }}"),
    *("{{ ([big] * 1000)|join }}", "{{ 'aaaa'.translate({97: big}) ~ big|wordwrap(1, wrapstring=big) }}"),
    *(
        "{{ range(10**5)|slice(10**9)|list }}",
        "{{ [1]|batch(10**10, 0)|list }}",
        "{{ ([[1] * 100] * 9999)|sum(start=[]) }}",
    ),
    *("{{ (1).to_bytes(10**10, 'big') }}", "{{ ([[1] * 100] * 100)|tojson(indent=10**6) }}", "{{ endless|list }}"),
    *(
        "{% set ns = namespace(x=[1] * 4) %}{% for i in range(99) %}{% set ns.x = "
        + grown
        + " %}{% endfor %}{{ ns.x }}"
        for grown in (
            "[ns.x, ns.x]",
            "(ns.x, ns.x)",
            "{1: ns.x, 2: ns.x}",
            "dict(a=ns.x, b=ns.x)",
            "ns.x ~ ns.x",
            "ns.x + ns.x",
        )
    ),
    "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "{% set m %}{% for i in range(100000) %}" + "x" * 10_000 + "{% endfor %}{% endset %}",
    "{% for i in range(100000) %}{{ big }}{% endfor %}",
    "{% for i in range(100000) %}{{ [big] }}{% endfor %}",
]
# What makes nothing, and would never be done.
ENDLESS = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "{% for x in endless %}{% endfor %}",
    "{% for x in endless if false %}{% endfor %}",
    "{{ endless|select('none')|first }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
]


@pytest.mark.parametrize("template", [*BOMBS, *ENDLESS])
def test_a_template_comes_to_an_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread as in the main one: the panel renders in its own. Without its limits, each of these hangs or dies."""
    monkeypatch.setattr(sandbox, "SECONDS", 0.2 if template in ENDLESS else 600.0)
    monkeypatch.setattr(sandbox, "MOST", 10**12 if template in ENDLESS else 1_000_000)

    def rendered() -> str:
        held = {"big": "x" * 100_000, "endless": iter(int, 1), "fraction": Fraction(1, 3)}
        with pytest.raises(TemplateError) as caught:
            render(template, held)
        return str(caught.value)

    says = "isn't done after 0.2 s" if template in ENDLESS else "makes more than 1,000,000 characters and items"
    with ThreadPoolExecutor(1) as pool:
        assert says in pool.submit(rendered).result()


@pytest.mark.parametrize(
    "template",
    [
        *(
            "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
            "{{ " + "[" * 999 + "]" * 999 + " }}",
            "{{ " + "-" * 9999 + "1 }}",
        ),
        *("{{ 1" + "+1" * 9999 + " }}", "{{ x" + ".a" * 9999 + " }}", "{{ 1" + "|abs" * 999 + " }}"),
        *("{% if 1 %}" * 999 + "{% endif %}" * 999, "{% for x in [1] %}" * 50 + "{% endfor %}" * 50, "{{" * 9999),
        *(
            "{{ " + "9" * 99_999 + " }}",
            "{{ '" + "a" * 99_999,
            "{#" * 9999,
            "{% raw %}" * 9999,
            "{{ 1 if " * 999 + " }}",
        ),
        *("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
    ],
    ids=lambda template: template[:20],
)
def test_what_is_nested_too_deep_is_an_error(template: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template, {"x": 1})
    assert len(str(caught.value)) < 500


def test_an_interrupt_ends_a_rendering() -> None:
    def stop() -> None:
        _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        render("{{ stop() }}{% for x in endless %}{% endfor %}", {"stop": stop, "endless": iter(int, 1)})


@pytest.mark.parametrize(
    "template",
    [
        *("{{ 'Sum up: ' ~ long }}", "{{ long.strip() }}", "{{ (long + ' ')|trim }}"),
        *("{{ 'Sum up: {}'.format(long) }}", "{{ form.format(long) }}", "{{ '%%%%%%%%%% is %s' % long }}"),
    ],
)
def test_a_long_document_is_no_bomb(template: str) -> None:
    """5 MB, more than models read; what is done with it counts, too."""
    held = {"long": "word " * 999_999 + "words", "form": 'Answer as {{"text": {{"title": ...}}}}: {}'}
    assert len(render(template, held).text) >= 5_000_000


def test_one_template_within_another_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST", 2000)
    inner = "{{ 'x' * 900 }}"
    assert render("{{ 'x' * 90 }}{{ inner() }}{{ 'x' * 90 }}", {"inner": lambda: len(render(inner, {}).text)})
    with pytest.raises(TemplateError, match="more than 2,000"):
        render("{{ inner() }}{{ 'x' * 2001 }}", {"inner": lambda: len(render(inner, {}).text)})


HOSTILE = "{{ 7 * 7 }}{% for x in y %}{{ secret }}{% endfor %} {{ '{{' }}{# {% raw %}"


def test_what_a_model_wrote_is_never_a_template(notebook: Notebook) -> None:
    """However an answer comes into the next prompt: by a variable, a table, an option, a reply, or once more."""
    notebook.run(f"%%xpander echo --raw -o answer -q\n{HOSTILE}")
    answer = notebook.ns["answer"]
    assert (answer.prompt, answer.result) == (HOSTILE, HOSTILE)
    notebook.run("%%xpander echo --title '{{ answer.result }}' -o again -q\nSay {{ answer.result }}")
    assert (notebook.ns["again"].prompt, notebook.ns["again"].title) == (f"Say {HOSTILE}", HOSTILE)
    notebook.ns["table"] = pd.DataFrame({"text": [answer.result, "x"]})
    notebook.run("%%xpander echo --over table --tag '{{ text }}' -n 2 -o several -q\nSay {{ text }}")
    several = notebook.ns["several"]
    assert [run.prompt for run in several] == [f"Say {HOSTILE}"] * 2 + ["Say x"] * 2
    assert several[0].tags == [HOSTILE]
    assert [run.prompt for run in several.reply(HOSTILE)] == [HOSTILE] * 4
    assert answer.reply(HOSTILE).result == HOSTILE


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
