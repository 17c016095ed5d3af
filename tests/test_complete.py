"""What Tab offers: commands, options and their values, targets, models, runs, a template's names."""

from __future__ import annotations

import socket

import pytest
from IPython.core.completer import Completion, provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from notebook_shell import Notebook

from xpander_magics.commands import COMMAND_NAMES
from xpander_magics.magics.complete import Completer
from xpander_magics.session import default_session


def offered(notebook: Notebook, text: str) -> list[str]:
    """What our matcher offers at the end of a cell, as the shell asks for it."""
    matcher = next(m for m in notebook.shell.Completer.custom_matchers if hasattr(m, "xpander_completer"))
    found = matcher.xpander_completer().matches(text)
    return found[1] if found else []


def tab(shell: InteractiveShell, text: str) -> list[Completion]:
    """What the shell offers at the end of a cell, as a kernel asks for it."""
    with provisionalcompleter():
        return list(shell.Completer.completions(text, len(text)))


def words(completions: list[Completion]) -> list[str]:
    return [completion.text for completion in completions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%xpander sta", ["status"]),
        ("%xpander l", ["login", "logout", "local"]),
        ("%xpander ", list(COMMAND_NAMES)),
        ("x = 1\n%xpander wo", ["workflows"]),
        ("df = %xpander ru", ["runs"]),
        ("  %xpander he", ["help"]),
        ("%xpander help sh", ["share", "show"]),
        ("%xpander models scr", ["scripted"]),
        ("%xpander local st", ["stop"]),
        ("%xpander local --g", ["--gguf"]),
        ("%xpander runs --ex", ["--experiment"]),
        ("%xpander runs --status exec", ["executing"]),
        ("%xpander runs --target ec", ["echo", "echo-twice"]),
        ("%xpander use ec", ["echo", "echo-twice"]),
        ("%xpander use --cl", ["--clear"]),
        ("%xpander stop al", ["all"]),
        ("%xpander compare --by mod", ["model"]),
        ("%xpander compare --failures z", ["zero"]),
        ("%xpander plot trade", ["tradeoff"]),
        ("%xpander plot --x c", ["cost"]),
        ("%xpander score sim", ["similarity"]),
        ("%%xpander echo --score norm", ["normalized"]),
        ("%xpander zzz ", []),
        ("%%xpander ec", ["echo", "echo-twice"]),
        ("%%xpander echo --ti", ["--title", "--timeout"]),
        ("%%xpander echo -e ", ["low", "medium", "high", "xhigh"]),
        ("%%xpander echo --effort x", ["xhigh"]),
        ("%%xpander echo -e low,h", ["high"]),
        ("%%xpander echo --think ", ["default", "harder"]),
        ("%%xpander echo --format j", ["json"]),
        ("%%xpander echo --mode s", ["stream", "sync"]),
        ("%%xpander echo --view ta", ["table"]),
        ("%%xpander echo --on-interrupt d", ["detach"]),
        ("%%xpander echo -m scripted/ec", ["scripted/echo"]),
        ("%%xpander echo --model local/smol", ["local/smollm2-135m-instruct"]),
        ("%%xpander echo --schema Pers", ["Person"]),
        ("%%xpander echo --payload topi", ["topic"]),
        ("%%xpander echo --set output_f", ["output_format="]),
        ("%%xpander echo\nTell of {{ top", ["topic"]),
        ("%%xpander echo\n{{ a }} top", []),
        ("%%xpander echo\nplain top", []),
        ("%%xpander agent:ec", ["agent:echo"]),
        ("%%xpander workflow:ec", ["workflow:echo-twice"]),
        ("%xpander use workflow:echo", ["workflow:echo-twice"]),
        ("%%xpander echo --view=ta", ["table"]),
        ("%%xpander echo --effort=low,h", ["high"]),
        ("%%xpander echo --model=scripted/ec", ["scripted/echo"]),
        ("%%xpander echo --title ", []),
        ("%xpander show z --view ", ["auto", "text", "markdown", "json", "table", "none"]),
        ("%xpander show z --view=js", ["json"]),
        ("%xpander show z --v", ["--view"]),
        ("%xpander show topi", []),
        ("%xpander local --gguf ", []),
        ("%xpander runs --experiment ", []),
        ("%time x", []),
        ("xpander sta", []),
        ("print('%xpander sta", []),
    ],
)
def test_offered(notebook: Notebook, text: str, expected: list[str]) -> None:
    notebook.ns.update(topic="rain", Person=object)
    found = offered(notebook, text)
    if text.endswith("-e "):
        assert found == expected
    assert sorted(found) == sorted(expected)


def test_runs_are_offered(notebook: Notebook) -> None:
    run = notebook.ask("echo")
    notebook.ns["topic"] = "no run"
    for line in ("%xpander show ", "%xpander tag ", "%%xpander echo --thread "):
        found = offered(notebook, line)
        assert run.run_id[:8] in found
        assert "answer" in found
        assert offered(notebook, line + run.run_id[:3]) == [run.run_id[:8]]
        assert "topic" not in found
    assert "answer" not in offered(notebook, "%xpander tag answer ")
    assert "answer" in offered(notebook, "%xpander show --view json ")


def test_the_shell_completes(notebook: Notebook) -> None:
    shell = notebook.shell
    assert "status" in words(tab(shell, "%xpander sta"))
    (found,) = tab(shell, "%%xpander echo --eff")
    assert (found.text, found.start, found.end) == ("--effort", 15, 20)
    assert "%who" in words(tab(shell, "%wh"))


def test_a_name_with_a_space_is_offered_in_quotes(notebook: Notebook) -> None:
    class WithSpaces(Completer):
        def _targets(self, word: str = "") -> list[str]:
            return ['"my agent"', "echo"]

    completer = WithSpaces(default_session(), {})
    assert completer.matches("%%xpander my") == ("my", ['"my agent"'])
    assert completer.matches('%%xpander "my') == ('"my', ['"my agent"'])


def test_tab_without_a_key_or_a_service_is_no_error(
    shell: InteractiveShell, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def options(text: str) -> list[str]:
        # IPython goes on to offer what it knows itself, such as %%writefile.
        return [found for found in words(tab(shell, text)) if not found.startswith("%")]

    assert options("%%xpander wri") == []
    assert "--effort" in options("%%xpander --eff")
    environment.setenv("XPANDER_API_KEY", "some-key-some-key")
    environment.setenv("XPANDER_BASE_URL", "http://127.0.0.1:9")
    assert options("%%xpander wri") == []
    assert options("%%xpander x -m op") == []
    environment.setenv("XPANDER_STORE", "nonsense")
    assert options("%xpander show ab") == []
    assert capsys.readouterr().out == ""


def test_tab_does_not_wait_for_a_service_that_is_silent(
    shell: InteractiveShell, environment: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, and never answers
        environment.setenv("XPANDER_API_KEY", "some-key-some-key")
        environment.setenv("XPANDER_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "writer" not in words(tab(shell, "%%xpander wri"))


def test_what_can_be_compared_is_offered(notebook: Notebook) -> None:
    notebook.run("%%xpander echo -n 2 -o results -q\nhello")
    notebook.ns["results_frame"] = notebook.ns["results"].df
    notebook.run("%xpander compare results -o results_compared")
    names = ["results", "results_compared", "results_frame"]
    assert sorted(offered(notebook, "%xpander compare res")) == names
    assert sorted(offered(notebook, "%xpander report study.html res")) == names
    assert offered(notebook, "%xpander score res") == ["results"]
    assert offered(notebook, "%xpander compare --noise res") == ["results"]
