"""The one progress bar of a sweep: its words, how often it changes, and what is left of it."""

from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from typing import Any

import nbformat
import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from xpander_magics.progress import Bar, dollars, duration, line, summary
from xpander_magics.tally import Tally, time_left

SPENT = {"tokens": 12345, "cost_usd": 0.01234}


@pytest.mark.parametrize(
    ("tally", "shown"),
    [
        (Tally(400), "0 of 400 (0%) · 0:00 so far"),
        (Tally(400, under_way=8, seconds=12.4), "0 of 400 (0%) · 8 under way · 0:12 so far"),
        (Tally(400, 120, 3, 8, left=65), "120 of 400 (30%) · 3 failed · 8 under way · 1:05 left"),
        (
            Tally(400, 120, 3, 8, left=65, **SPENT),
            "120 of 400 (30%) · 3 failed · 8 under way · 1:05 left · $0.01234 · 12,345 tokens",
        ),
        (Tally(400, 120, reused=100, left=5), "120 of 400 (30%) · 100 reused · 0:05 left"),
        (
            Tally(400, 120, 1, 12, left=5, stopped=2, unknown=3, paused=4, tokens=0, note="interrupted: stopping"),
            "120 of 400 (30%) · 1 failed · 2 stopped · 3 unknown · 4 paused · 12 under way · interrupted: stopping"
            " · 0:05 left · 0 tokens",
        ),
        (Tally(10_000, 9_999, left=1), "9,999 of 10,000 (99%) · 0:01 left"),
        (Tally(2, 2, left=0), "2 of 2 (100%) · 0:00 left"),
        (Tally(0), "0 of 0 (100%) · 0:00 so far"),
    ],
)
def test_the_line_while_it_goes(tally: Tally, shown: str) -> None:
    assert line(tally) == shown


@pytest.mark.parametrize(
    ("tally", "shown"),
    [
        (
            Tally(400, 400, 3, seconds=65, **SPENT),
            "400 runs in 1:05: 397 completed, 3 failed · 12,345 tokens · $0.01234",
        ),
        (Tally(400, 400, seconds=7323), "400 runs in 2:02:03: 400 completed"),
        (Tally(1, 1, seconds=4.6), "1 run in 0:05: 1 completed"),
        (Tally(3, 3, 3, seconds=5), "3 runs in 0:05: 3 failed"),
        (Tally(400, 400, 3, reused=120, seconds=65), "400 runs in 1:05: 397 completed (120 reused), 3 failed"),
        (
            Tally(400, 140, 3, stopped=20, seconds=65, note="interrupted"),
            "400 runs in 1:05: 117 completed, 3 failed, 20 stopped, 260 not sent · interrupted",
        ),
        (
            Tally(400, 140, 3, 5, stopped=20, unknown=2, paused=1, seconds=65),
            "400 runs in 1:05: 114 completed, 3 failed, 20 stopped, 2 unknown, 1 paused, 5 still under way,"
            " 255 not sent",
        ),
        (Tally(5, note="the rate limit"), "5 runs in 0:00: 5 not sent · the rate limit"),
        (Tally(0), "0 runs in 0:00"),
        (Tally(1, 2, 3), "1 run in 0:00: 3 failed"),
    ],
)
def test_the_line_at_the_end(tally: Tally, shown: str) -> None:
    assert summary(tally) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *[(0, "0:00"), (5.4, "0:05"), (59.6, "1:00"), (65, "1:05"), (3599.7, "1:00:00"), (7384, "2:03:04")],
        *[(100 * 3600, "100:00:00"), (-1, "0:00")],
    ],
)
def test_durations_are_as_people_write_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        *[(0, "$0.00000"), (0.000014, "$0.00001"), (0.99999, "$0.99999"), (0.999999, "$1.00"), (1, "$1.00")],
        *[(12.345678, "$12.35"), (1234.5, "$1,234.50")],
    ],
)
def test_dollars_have_the_digits_that_tell_something(amount: float, shown: str) -> None:
    assert dollars(amount) == shown


@pytest.mark.parametrize(
    ("done", "total", "seconds", "reused", "left"),
    [
        (0, 10, 5.0, 0, None),
        (1, 10, 5.0, 0, None),
        (2, 10, 5.0, 0, 20.0),
        (5, 10, 5.0, 0, 5.0),
        (6, 10, 5.0, 5, None),
        (7, 10, 5.0, 5, 7.5),
        (5, 10, 0.0, 5, None),
        (10, 10, 5.0, 10, 0.0),
        (11, 10, 5.0, 0, 0.0),
        (0, 0, 0.0, 0, 0.0),
    ],
)
def test_the_time_left_is_told_by_what_was_sent(
    done: int, total: int, seconds: float, reused: int, left: float | None
) -> None:
    assert time_left(done, total, seconds, reused) == left


class Clock:
    """A clock that goes only as it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def drive(bar: Bar, clock: Clock, steps: int, step: float = 0.1) -> Tally:
    """Hands a bar so many tallies, each with one more run done; returns the last of them."""
    tally = Tally(steps)
    for done in range(steps):
        tally = Tally(steps, done + 1)
        bar(tally)
        clock.now += step
    return tally


def on_screen(written: str) -> list[str]:
    """What a terminal shows of it: each line as it was overwritten last, without the blanks at its end."""
    lines = []
    for part in written.split("\n"):
        shown: list[str] = []
        for piece in part.split("\r"):
            shown[: len(piece)] = piece
        lines.append("".join(shown).rstrip())
    return lines


def test_a_terminal_gets_at_most_four_updates_a_second() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=True, clock=clock)
    drive(bar, clock, 100, step=0.1)
    assert 30 <= len(said) <= 41
    assert all(text.startswith("\r") for text in said)
    assert "\n" not in "".join(said)


def test_what_has_not_changed_is_not_shown_again() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=True, clock=clock)
    for _ in range(100):
        bar(Tally(400, 3, left=9.0))
        clock.now += 1
    assert len(said) == 1
    bar(Tally(400, 4, left=9.0))
    assert len(said) == 2


def test_what_came_too_soon_is_shown_when_its_time_comes() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=True, clock=clock)
    bar(Tally(9, 1))
    bar(Tally(9, 2))
    assert len(said) == 1
    clock.now += 0.3
    bar(Tally(9, 2))
    assert on_screen("".join(said)) == ["2 of 9 (22%) · 0:00 so far"]


def test_a_terminal_keeps_the_last_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=True, clock=clock)
    bar(Tally(400, 120, 3, 8, left=65, note="waiting for the service's rate limit", **SPENT))
    bar.finish(Tally(400, 400, 3, seconds=65))
    assert on_screen("".join(said)) == ["400 runs in 1:05: 397 completed, 3 failed", ""]


def test_a_shorter_line_leaves_nothing_of_the_longer_one_nor_of_what_ctrl_c_echoes() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=True, clock=clock)
    bar(Tally(400, 120, 3, 8, left=65))
    said.append("^C")
    clock.now += 1
    bar(Tally(400, 121, left=6))
    assert on_screen("".join(said)) == ["121 of 400 (30%) · 0:06 left"]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (81, "120 of 400 (30%) · 3 failed · 8 under way · 1:05 left · $0.01234 · 12,345 tokens"),
        (80, "120 of 400 (30%) · 3 failed · 8 under way · 1:05 left · $0.01234 …"),
        (60, "120 of 400 (30%) · 3 failed · 8 under way · 1:05 left …"),
        (20, "120 of 400 (30%) …"),
        (10, "120 of 4…"),
        (2, "…"),
        (1, "…"),
    ],
)
def test_a_line_is_cut_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, shown: str) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said: list[str] = []
    Bar(said.append, rich=False, terminal=True)(Tally(400, 120, 3, 8, left=65, **SPENT))
    assert said == [f"\r{shown}\r"]
    assert len(shown) <= max(columns - 1, 1)


def test_a_log_gets_a_line_every_half_minute_and_the_last_one() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=False, clock=clock)
    bar.finish(drive(bar, clock, 1000, step=0.1))
    assert 3 <= len(said) - 1 <= 4
    assert said[-1] == "1,000 runs in 0:00: 1,000 completed\n"
    assert "\r" not in "".join(said)
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in said)


def test_a_log_of_a_short_sweep_is_one_line() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=False, clock=clock)
    bar.finish(drive(bar, clock, 100, step=0.1))
    assert said == ["100 runs in 0:00: 100 completed\n"]


def test_what_is_piped_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(sys.stdout.write, rich=False)
    bar(Tally(2, 1))
    bar.finish(Tally(2, 2, seconds=1))
    assert capsys.readouterr().out == "2 runs in 0:01: 2 completed\n"


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_quiet_bar_says_nothing(rich: bool, terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    bar = Bar(print, rich=rich, quiet=True, terminal=terminal, clock=clock)
    bar.finish(drive(bar, clock, 100, step=1.0))
    assert capsys.readouterr() == ("", "")


def test_nothing_comes_after_the_end() -> None:
    said: list[str] = []
    clock = Clock()
    bar = Bar(said.append, rich=False, terminal=True, clock=clock)
    bar.finish(Tally(2, 2))
    clock.now += 60
    bar(Tally(2, 1))
    bar.finish(Tally(2, 2))
    assert said == ["\r2 runs in 0:00: 2 completed\n"]


def test_a_real_terminal_is_found_and_not_overrun() -> None:
    script = """if True:
        import sys
        from xpander_magics.progress import Bar, Tally
        ticks = iter(range(10**6))
        bar = Bar(sys.stdout.write, rich=False, clock=lambda: float(next(ticks)))
        for done in range(50):
            bar(Tally(50, done, 3, 8, note="waiting for the service's rate limit"))
        bar.finish(Tally(50, 50, 3))
    """
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env["PYTHONIOENCODING"] = "utf-8"
    how = {"encoding": "utf-8", "timeout": 180, "dimensions": (24, 40), "use_poll": True}
    child = pexpect.spawn(sys.executable, ["-c", script], env=env, **how)
    child.expect(pexpect.EOF)
    child.close()
    written = child.before.replace("\r\n", "\n")
    assert child.exitstatus == 0
    assert on_screen(written)[0].startswith("50 runs in 0:00: 47 completed, 3 failed")
    pieces = [piece for piece in written.split("\r") if piece]
    assert len(pieces) > 10
    assert max(len(piece) for piece in pieces[:-1]) <= 39


HOSTILE = "<script>alert(1)</script>\r\n\x1b[2J\x9b\u202e\"'&" + "\U0001f4a5" * 5000
STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]")


def test_a_hostile_note_is_harmless_and_short() -> None:
    said: list[str] = []
    for terminal in (True, False):
        clock = Clock()
        bar = Bar(said.append, rich=False, terminal=terminal, clock=clock)
        clock.now += 60
        bar(Tally(400, 3, note=HOSTILE))
        bar.finish(Tally(400, 3, note=HOSTILE))
    assert len(said) == 4
    assert not STEERING.search("".join(said))
    assert max(len(text) for text in said) < 200
    assert all("\n" not in text[:-1] for text in said)


@given(
    st.builds(
        Tally,
        *[st.integers(0, 10**9)] * 5,
        tokens=st.none() | st.integers(0, 2**53),
        cost_usd=st.none() | st.floats(0, 1e9),
        seconds=st.floats(0, 1e9),
        left=st.none() | st.floats(0, 1e9),
        note=st.text(),
    )
)
def test_any_tally_makes_one_short_line(tally: Tally) -> None:
    for text in (line(tally), summary(tally)):
        assert len(text) < 300
        assert text.isprintable() or not STEERING.search(text)
        assert len(text.splitlines()) == 1


# What the notebook's cells do: a bar over 2,000 tallies, a 64th of a second apart; and one over the worst of them.
CELLS = (
    """
from xpander_magics.progress import Bar, Tally

now = 0.0
bar = Bar(print, rich=True, clock=lambda: now)
for done in range(2000):
    bar(Tally(2000, done, done // 100, 8, tokens=done * 10, cost_usd=done / 1e5, left=60, note="<b>slow</b>"))
    now += 1 / 64
bar.finish(Tally(2000, 2000, 19, seconds=65, tokens=12345, cost_usd=0.01234))
""",
    f"""
bar = Bar(print, rich=True)
many = 10**9
worst = Tally(9 * many, 8 * many, many, many, many, 2**53, 1e9, 1e9, 1e9, {HOSTILE!r}, many, many, many)
bar(worst)
bar.finish(worst)
""",
    "Bar(print, rich=True).finish(Tally(0))\nBar(print, rich=True, quiet=True).finish(Tally(0))",
)
LAST = "2,000 runs in 1:05: 1,981 completed, 19 failed · 12,345 tokens · $0.01234"


class Watched(NotebookClient):
    """A client that keeps the messages of each cell's outputs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[list[dict[str, Any]]] = [[] for _ in CELLS]

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] not in ("status", "execute_input"):
            self.seen[cell_index].append(msg)
        return super().process_message(msg, cell, cell_index)


Executed = tuple[nbformat.NotebookNode, list[list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The executed notebook, and the messages that each of its cells sent."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = Watched(notebook, timeout=180, kernel_name="python3")
    client.execute(env={**os.environ, "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))})
    return notebook, client.seen


class _Strict(HTMLParser):
    """Fails on any tag or attribute that a bar has no need of."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"div", "progress"}, tag
        assert {name for name, _ in attrs} <= {"class", "role", "value", "max", "aria-label"}


def strict(html: str) -> None:
    parser = _Strict()
    parser.feed(html)
    parser.close()


def test_a_notebook_keeps_one_output_with_the_last_state(executed: Executed) -> None:
    first, second, third = ([output.output_type for output in cell.outputs] for cell in executed[0].cells)
    assert first == second == third == ["display_data"]
    assert executed[0].cells[0].outputs[0].data == {
        "text/plain": LAST,
        "text/html": f'<div class="xpander-progress" role="status">{LAST}</div>',
    }
    nbformat.validate(executed[0])


def test_a_notebook_gets_few_messages(executed: Executed) -> None:
    first, *updates = executed[1][0]
    assert first["msg_type"] == "display_data"
    assert {update["msg_type"] for update in updates} == {"update_display_data"}
    assert len({message["content"]["transient"]["display_id"] for message in executed[1][0]}) == 1
    # Four a second for 31 seconds, and the last.
    assert len(updates) == 125
    assert '<progress value="1008" max="2000" ' in "".join(each["content"]["data"]["text/html"] for each in updates)


def test_each_message_is_small_and_safe(executed: Executed) -> None:
    for messages in executed[1]:
        for message in messages:
            bundle = message["content"]["data"]
            assert set(bundle) == {"text/plain", "text/html"}
            assert len(bundle["text/html"].encode()) < 1024
            assert not STEERING.search(bundle["text/plain"] + bundle["text/html"])
            strict(bundle["text/html"])


def test_a_screen_reader_is_told_the_end_alone(executed: Executed) -> None:
    for *under_way, last in executed[1]:
        for message in under_way:
            assert "status" not in message["content"]["data"]["text/html"]
            assert "aria-live" not in message["content"]["data"]["text/html"]
        assert ' role="status"' in last["content"]["data"]["text/html"]


def test_the_page_of_a_notebook_shows_the_last_state(executed: Executed) -> None:
    page, _ = HTMLExporter().from_notebook_node(executed[0])
    body = page[page.index("<body") :]
    assert body.count(LAST) == 1
    assert "<script" not in body
    assert "<progress" not in body
