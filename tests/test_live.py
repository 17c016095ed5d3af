"""The live view's way over the wire, without a front end: what a page is sent, and that it adds up to the text."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest
from comm.base_comm import BaseComm
from IPython.core.interactiveshell import InteractiveShell

from xpander_magics.contract import Event
from xpander_magics.results import Run
from xpander_magics.widgets.live import LiveText
from xpander_magics.widgets.running import LiveView

ALPHABET = "abc é \n日本\U0001f600\U00010348<>&"


class Page(BaseComm):  # type: ignore[misc]
    """A front end as ``live.js`` is one: it puts the pieces together, and sees where one is missing.

    Args:
        live: what it shows.
        wire: taken for each message that it is sent; who holds it makes the wire slow.
    """

    def __init__(self, live: LiveText, wire: threading.Lock | None = None) -> None:
        self.text = b""  # UTF-16, as JavaScript has it
        self.steps: list[str] = []
        self.note = self.html = ""
        self.missed = False
        self.sent: list[dict[str, Any]] = []
        self.wire = wire or threading.Lock()
        super().__init__(target_name="jupyter.widget", primary=False)
        live.comm = self

    def publish_msg(self, msg_type: str, data: Any = None, **_: Any) -> None:
        """What the kernel sends."""
        if msg_type != "comm_msg" or data["method"] != "custom":
            return
        with self.wire:
            self._take(data["content"])

    def _take(self, news: dict[str, Any]) -> None:
        self.sent.append(news)
        at, at_step = news["at"], news.get("at_step", 0)
        self.missed = 2 * at > len(self.text) or at_step > len(self.steps)
        if self.missed:
            return
        self.text = self.text[: 2 * at] + news["text"].encode("utf-16-le")
        if not at or "steps" in news:
            self.steps = self.steps[:at_step] + [step["text"] for step in news.get("steps", [])]
        self.note, self.html = news["note"], news.get("html", "")

    def say(self, content: Any) -> None:
        """Sends the kernel a message."""
        self.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    def ask(self) -> None:
        """Asks for the whole."""
        self.say({"kind": "ready"})

    @property
    def shown(self) -> str:
        return self.text.decode("utf-16-le")


def event(kind: str, data: Any = "") -> Event:
    return Event(kind, None, None, data, {})


def say(live: LiveText, text: str) -> None:
    live.listen(Run(), event("chunk", text), text)


def test_pieces_add_up_whatever_characters_they_hold() -> None:
    chance = random.Random(3)
    live = LiveText()
    page = Page(live)
    page.ask()
    live.begin()
    said = ""
    for _ in range(300):
        piece = "".join(chance.choices(ALPHABET, k=chance.randrange(9)))
        said += piece
        say(live, piece)
        if chance.random() < 0.3:
            time.sleep(0.002)
    live.finish()
    assert page.shown == said
    assert not page.missed


def test_a_page_that_opens_late_has_the_whole() -> None:
    live = LiveText()
    early = Page(live)
    live.begin()
    say(live, "first \U0001f600 ")
    live.listen(Run(), event("think", "thought"), "")
    live.tell("a note")
    live._end_flusher()
    live.tell("another note")
    late = Page(live)
    assert late.text == b""
    say(live, "second")
    late.ask()
    assert (late.shown, late.steps, late.note) == ("first \U0001f600 second", ["thought"], "another note")
    assert early.shown.startswith("first")
    live.finish("<p>end</p>", "done")
    late.ask()
    assert (late.shown, late.steps, late.note, late.html) == ("", [], "done", "<p>end</p>")


def test_what_was_missed_is_asked_for() -> None:
    live = LiveText()
    live.seen = True
    live.begin()
    say(live, "missed ")
    live._end_flusher()
    live.tell("")
    page = Page(live)
    say(live, "more")
    assert page.missed
    page.ask()
    assert page.shown == "missed more"


def test_a_kernel_that_hears_nobody_sends_the_whole_again_and_stays_linear() -> None:
    live = LiveText()
    live.begin()
    say(live, "before the page listens ")
    live._end_flusher()
    live.tell("")
    page = Page(live)
    said = "before the page listens "
    for number in range(2000):
        said += f"word {number} "
        say(live, f"word {number} ")
    assert not page.missed
    live.finish()
    assert page.shown == said
    sent = sum(len(news["text"]) for news in page.sent)
    assert sent <= 3 * len(said)


def test_updates_are_gathered_while_the_wire_is_slow() -> None:
    live = LiveText()
    page = Page(live)
    page.ask()
    live.begin()
    say(live, "0 ")
    while len(page.sent) < 3:  # asked, begun, the first piece
        time.sleep(0.01)
    with page.wire:
        for number in range(1, 1000):
            say(live, f"{number} ")
    live.finish()
    assert page.shown == "".join(f"{i} " for i in range(1000))
    assert len(page.sent) < 10


def test_no_thread_outlives_its_run() -> None:
    live = LiveText()
    Page(live)
    for _ in range(3):
        live.begin()
        say(live, "text")
        assert [t for t in threading.enumerate() if t.name == "xpander-live"]
        live.finish("<p>end</p>")
        assert not [t for t in threading.enumerate() if t.name == "xpander-live"]
    live.tell("after the end")
    assert not [t for t in threading.enumerate() if t.name == "xpander-live"]


def test_what_a_model_wrote_is_made_plain() -> None:
    live = LiveText()
    page = Page(live)
    live.begin()
    say(live, "\x1b[31mred\u202e \ud800")
    live.listen(Run(), event("tool_call_request", {"name": "\x1b[2J\u202e"}), "")
    live.finish()
    assert page.shown == "\ufffd[31mred\ufffd \ufffd"
    assert "\x1b" not in page.steps[0]


def test_stop_is_heard_once_and_text_is_no_state() -> None:
    stopped: list[int] = []
    live = LiveText(stop=lambda: stopped.append(1))
    page = Page(live)
    live.begin()
    say(live, "a secret of the run")
    for said in ({"kind": "stop"}, {"kind": "stop"}, {"kind": "nonsense"}, "nonsense"):
        page.say(said)
    assert (stopped, live.stopping) == ([1], True)
    live.finish("<p>end</p>")
    assert (live.running, live.stopping) == (False, False)
    assert "secret" not in str(live.get_state())
    assert "<p>end" not in str(live.get_state())


def test_closed_views_leave_the_next_one_whole() -> None:
    """Guards against a layout that all share, and that ``Widget.close_all()`` has closed for all."""
    first = LiveText()
    first.layout.close()
    first.close()
    first.close()
    first.begin()
    say(first, "nobody hears")
    first.finish()
    assert LiveText().layout.comm is not None


@pytest.mark.parametrize("status", ["completed", "executing"])
def test_a_stop_that_comes_after_the_end_interrupts_nobody(shell: InteractiveShell, status: str) -> None:
    """Guards against a word to stop that meets the next cell: this thread would be interrupted."""
    view = LiveView("auto")
    view._run, view._text = Run(status=status), LiveText()
    view.close()
    view._stop()
    time.sleep(0)


def test_a_faded_view_keeps_next_to_nothing() -> None:
    live = LiveText()
    whole = len(str(live.get_state()))
    live.fade()
    assert len(str(live.get_state())) < 800 < whole
