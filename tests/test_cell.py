"""A line becomes options, or an error of a line that says what to do."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpander_magics import cell, commands
from xpander_magics.cell import Options, parse_cell, parse_set
from xpander_magics.commands import Command, parse_command
from xpander_magics.errors import ConfigError

# Every option of the interface that this version has, a line that uses it, and what it says.
EACH_OPTION = [
    ("-m openai/gpt-5", {"models": ("openai/gpt-5",)}),
    ("--model openai/gpt-5,anthropic/claude -m a/b", {"models": ("openai/gpt-5", "anthropic/claude", "a/b")}),
    ("-e low,high", {"efforts": ("low", "high")}),
    ("--effort xhigh", {"efforts": ("xhigh",)}),
    ("--think harder", {"thinks": ("harder",)}),
    ("-n 3", {"repeat": 3}),
    ("--repeat 3", {"repeat": 3}),
    ("--over tickets", {"over": "tickets"}),
    ("--version draft", {"version": "draft"}),
    ("--instructions 'be brief'", {"instructions": "be brief"}),
    ("--context facts", {"context": "facts"}),
    ("--expected-output one", {"expected_output": "one"}),
    ("--title 'my title'", {"title": "my title"}),
    ("--format json", {"format": "json"}),
    ("--schema Answer", {"schema": "Answer"}),
    ("--file https://a/b --file https://c", {"files": ("https://a/b", "https://c")}),
    ("--user me", {"user": "me"}),
    ("--payload extra", {"payload": "extra"}),
    ("--mcp servers", {"mcp": "servers"}),
    ("--thread answer", {"thread": "answer"}),
    ("""--set 'a="x y"' --set b=1""", {"set": ('a="x y"', "b=1")}),
    ("--mode sync", {"mode": "sync"}),
    ("-j 4", {"jobs": 4}),
    ("--jobs 4", {"jobs": 4}),
    ("--rpm 30", {"rpm": 30.0}),
    ("--timeout 0.5", {"timeout": 0.5}),
    ("--usage", {"usage": True}),
    ("--no-usage", {"usage": False}),
    ("--on-interrupt detach", {"on_interrupt": "detach"}),
    ("--cached", {"cached": True}),
    ("--dry-run", {"dry_run": True}),
    ("-o answer", {"out": "answer"}),
    ("--out answer", {"out": "answer"}),
    ("--experiment tickets", {"experiment": "tickets"}),
    ("--tag a --tag b", {"tags": ("a", "b")}),
    ("--note 'a note'", {"note": "a note"}),
    (
        "--score exact --score 'near=numeric:5%' --score 'regex:a, b' --expected label",
        {"scores": ("exact", "near=numeric:5%", "regex:a, b"), "expected": "label"},
    ),
    ("--view table", {"view": "table"}),
    ("-q", {"quiet": True}),
    ("--raw", {"raw": True}),
    ("--allow-secrets", {"allow_secrets": True}),
]


@pytest.mark.parametrize(("line", "said"), EACH_OPTION)
def test_each_option(line: str, said: dict[str, object]) -> None:
    assert parse_cell(line).said() == said
    assert parse_cell(f"writer {line}").said() == {"target": "writer", **said}


def test_every_option_of_the_parser_is_tried_above() -> None:
    tried = {word for line, _ in EACH_OPTION for word in line.split() if word.startswith("-")}
    known = {option for action in cell.cell_parser()._actions for option in action.option_strings}
    assert known - tried == {"--quiet"}


def test_a_template_with_a_comma_is_one_value() -> None:
    assert parse_cell('-m "{{ a or b(1, 2) }}"').models == ("{{ a or b(1, 2) }}",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--titel x", "There is no option '--titel'. Did you mean --title"),
        ("--titl=x", "There is no option '--titl'"),
        ("-x", "There is no option '-x'"),
        ("writer reader", "at most 1 word besides its options, not writer reader"),
        ("--title", "--title: expected one argument"),
        ("-m", "--model: expected one argument"),
        ("--title a --title b", "--title is given twice"),
        ("--title it's", "A quotation mark is left open"),
        ('--title ""', "--title has an empty value"),
        ("--model=", "--model has an empty value"),
        ("-m ,", "-m has an empty value"),
        ('--tag " "', "--tag has an empty value"),
        ("-n 0", "'0' is no whole number above 0"),
        ("-n -1", "'-1' is no whole number above 0"),
        ("-n 1.5", "'1.5' is no whole number above 0"),
        ("-n ²", "'²' is no whole number above 0"),
        ("-n 99999999999999999999", "is no whole number above 0"),
        ("-j many", "'many' is no whole number above 0"),
        ("--rpm 0", "'0' is no number above 0"),
        ("--rpm nan", "'nan' is no number above 0"),
        ("--timeout inf", "'inf' is no number above 0"),
        ("--timeout -5", "'-5' is no number above 0"),
        ("--timeout soon", "'soon' is no number above 0"),
        ("--raw=yes", "--raw"),
        ("--zzzzzzzzzzzz x", "%%xpander? shows every option."),
    ],
)
def test_a_wrong_line_is_one_error(line: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cell(line)
    assert says in str(caught.value)
    assert ".." not in str(caught.value)
    assert "rgument -" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(st.text(max_size=60))
def test_any_line_is_options_or_an_error_of_ours(line: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_cell(line), Options)
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_command(line), Command)


REPEATABLE = {
    *("-m", "--model", "-e", "--effort", "--think", "--file", "--set", "--tag"),
    *("--usage", "--no-usage", "--cached", "--dry-run", "-q", "--raw", "--allow-secrets"),
}
LONG = {"-n": "--repeat", "-j": "--jobs", "-o": "--out"}


@given(st.lists(st.sampled_from([line for line, _ in EACH_OPTION]), max_size=6))
def test_options_in_any_number_and_order(lines: list[str]) -> None:
    once = [line.split()[0] for line in lines if line.split()[0] not in REPEATABLE]
    twice = len({LONG.get(option, option) for option in once}) < len(once)
    with pytest.raises(ConfigError, match="given twice") if twice else contextlib.nullcontext():
        assert isinstance(parse_cell(" ".join(lines)), Options)


def test_set_takes_json() -> None:
    assert parse_set(['output_format="voice"', "n=1", "flag=true", 'd={"a": [1]}', "s =null"]) == {
        "output_format": "voice",
        "n": 1,
        "flag": True,
        "d": {"a": [1]},
        "s": None,
    }


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("voice", "--set takes FIELD=JSON"),
        ("=1", "--set takes FIELD=JSON"),
        ("a-b=1", "--set takes FIELD=JSON"),
        ("output_format=voice", """write --set 'output_format="voice"'."""),
        ("title=", """write --set 'title=""'."""),
    ],
)
def test_set_says_how_to_quote(item: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse_set([item])


def test_what_set_says_to_write_can_be_written() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_set(['title=it\'s "so"'])
    line = str(caught.value).partition("write ")[2].rstrip(".")
    assert parse_set(parse_cell(line).set) == {"title": 'it\'s "so"'}


def test_a_field_is_set_once() -> None:
    with pytest.raises(ConfigError, match="gives a twice"):
        parse_set(["a=1", "a=2"])


def test_options_over_defaults() -> None:
    defaults = parse_cell("writer -m a/b --no-usage --tag x")
    assert parse_cell("-m c/d").over_defaults(defaults) == parse_cell("writer -m c/d --no-usage --tag x")
    assert parse_cell("reader --usage").over_defaults(defaults).said() == {
        **parse_cell("reader -m a/b --tag x").said(),
        "usage": True,
    }


def test_values_that_compare_by_their_elements() -> None:
    array = np.zeros(3)
    assert Options(user=array).said() == {"user": array}
    assert Options().over_defaults(Options(user=array)).user is array


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Command("help")),
        ("status", Command("status")),
        ("help runs", Command("help", words=("runs",))),
        ("models openai", Command("models", words=("openai",))),
        (
            "runs --experiment a --tag b --status failed --target c --last 3 -o df",
            Command("runs", experiment="a", tag="b", status="failed", target="c", last=3, out="df"),
        ),
        ("runs\t--last 3", Command("runs", last=3)),
        ("show ab12 --view json", Command("show", words=("ab12",), view="json")),
        ("stop all", Command("stop", words=("all",))),
        ("thread ab12 --full", Command("thread", words=("ab12",), full=True)),
        ("tag ab12 x 'y z' --remove", Command("tag", words=("ab12", "x", "y z"), remove=True)),
        ("local --file a.yaml --gguf b --gguf c", Command("local", file="a.yaml", gguf=("b", "c"))),
        ("use writer -e low", Command("use", options=Options(target="writer", efforts=("low",)))),
        ("use --clear", Command("use", options=Options(), clear=True)),
    ],
)
def test_commands(line: str, command: Command) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sttaus", "There is no command 'sttaus'. Did you mean status"),
        ("-x", "There is no command '-x'. %xpander help lists them."),
        ("status now", "%xpander status takes no further words, not now."),
        ("models a b", "at most 1 word"),
        ("runs --last 0", "'0' is no whole number above 0"),
        ("runs --last", "--last: expected one argument"),
        ("runs --exprment a", "There is no option '--exprment'. Did you mean --experiment"),
        ("show --full", "There is no option '--full'"),
        ("show 'a", "A quotation mark is left open"),
        ("use --titel x", "There is no option '--titel'"),
        ("use --dry-run", "--dry-run is for one cell alone"),
        ("use -o answer", "--out is for one cell alone"),
        ("status now.", "takes no further words, not now."),
        ("runs --qwertzuiop", "%xpander help runs shows every option."),
        ("runs --last", "--last: expected one argument. %xpander help runs shows"),
        ("panel x", "%xpander panel takes no further words, not x."),
        ("resume a b", "%xpander resume takes at most 1 word besides its options, not a b."),
        ("resume --last 1", "There is no option '--last'"),
        ("compare a b", "%xpander compare takes at most 1 word besides its options, not a b."),
        ("diff a b c", "%xpander diff takes at most 2 words"),
        ("compare --scores exact", "Did you mean --score"),
        ("report a.html b --baseline ''", "--baseline has an empty value"),
    ],
)
def test_a_wrong_command_is_one_error(line: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_command(line)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# The commands of the interface.
COMMANDS = (
    "status login logout local use agents workflows providers models panel runs show compare diff score vote plot stop "
    "resume usage thread tag export report help"
)


def test_the_help_names_every_command() -> None:
    assert set(COMMANDS.split()) <= set(commands.COMMAND_NAMES)
    for name in COMMANDS.split():
        assert f"%xpander {name}" in commands.command_help()
        assert commands.command_help(name).startswith(f"  %xpander {name}")
    with pytest.raises(ConfigError, match="Did you mean show"):
        commands.command_help("shwo")


def test_the_help_names_every_option() -> None:
    told = cell.cell_help()
    options = [word for line, _ in EACH_OPTION for word in line.split() if word.startswith("--")]
    assert all(re.search(rf"{option}\b", told) for option in options)
    assert told.startswith("usage: %%xpander [TARGET] [options]")
    assert "%%%%" not in told
