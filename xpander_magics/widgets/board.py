"""The board: the runs of a sweep as a grid, inputs by configurations, to filter, compare and annotate.

The kernel sends the grid once, by columns and with its texts cut; whole texts and single runs are fetched when they are
shown. Nothing of it is in the model's state, which notebooks keep.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from xpander_magics.analysis.diffs.steps import steps
from xpander_magics.errors import XpanderError
from xpander_magics.matrix import EQUAL, ERROR, FAILURE, Matrix, matrix_of
from xpander_magics.outcomes import Runs
from xpander_magics.results import Run
from xpander_magics.safety import as_shown, plain
from xpander_magics.showing.display import facts, streamed, told_by_error, waiting_for
from xpander_magics.showing.markup import safe_html
from xpander_magics.showing.tables import runs_bundle
from xpander_magics.widgets.front import FrontEnd, source

# Texts are compared word by word in the grid up to here, and shown when opened up to there.
_COMPARED = 4_000
_SHOWN = 200_000
_AT_ONCE = 200
_DEEPEST = 100
_BOARDS_HELD = 8


class Board(FrontEnd):
    """The runs of a sweep as a grid, inputs by configurations; what ``runs.board()`` returns.

    Args:
        runs: read when it is made, and again whenever a page loads it.
    """

    _esm = source("common.js", "words.js", "opened.js", "board.js")
    _css = source("theme.css", "board.css")

    # ipywidgets holds every widget that was ever shown: the newest boards hold their runs, the others read the store.
    _holding: ClassVar[list[Board]] = []

    def __init__(self, runs: Runs) -> None:
        self._alive, self._stored = weakref.ref(runs), runs[:]
        self._in_hand: tuple[Runs, Matrix] | None = None
        _, matrix = self._hold(runs)
        if all(outcome.status != "planned" for outcome in matrix.outcomes):  # else some may be in no store yet
            self._stored.held, self._stored.grid = {}, None
        self._shown = False
        self._lock = threading.Lock()
        super().__init__()
        self.on_msg(self._hear)

    def _hold(self, runs: Runs) -> tuple[Runs, Matrix]:
        held = self._in_hand = runs, matrix_of(runs)
        self._let_go()
        self._holding.append(self)
        for board in self._holding[:-_BOARDS_HELD]:
            board._let_go()
            board._in_hand = None
        return held

    def _let_go(self) -> None:
        with contextlib.suppress(ValueError):
            self._holding.remove(self)

    @property
    def _runs(self) -> Runs:
        held = self._in_hand
        return held[0] if held is not None else self._alive() or self._stored

    @property
    def _matrix(self) -> Matrix:
        return (self._in_hand or self._hold(self._runs))[1]

    def close(self) -> None:
        """Takes it away; the runs stay."""
        self._let_go()
        super().close()

    def __repr__(self) -> str:
        return f"Board({self._runs!r})"

    def static(self) -> dict[str, Any]:
        return runs_bundle(self._runs, self._matrix)

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Answers the front end, in whatever thread reads its messages."""
        asked: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "ready": self._ready,
            "texts": self._texts,
            "search": self._search,
            "open": self._open,
            "note": self._note,
            "tags": self._tags,
        }
        answer = asked.get(str(message.get("kind"))) if isinstance(message, dict) else None
        if answer is None:
            return
        # ``to`` is the view that asked: several may show this.
        try:
            self.send({"to": message.get("to"), **answer(message)})
        except XpanderError as error:
            why = plain(str(error))
            self.send({"to": message.get("to"), "kind": "refused", "of": message, "why": why})

    def _ready(self, message: dict[str, Any]) -> dict[str, Any]:
        words = {"equal": EQUAL, "failure": FAILURE, "error": ERROR}
        with self._lock:
            known = self._matrix
            if self._shown:  # a page that is loaded again: runs may have been tried again since
                self._hold(self._runs)
            self._shown = True
            # All views ask by the numbers of one matrix.
            to = message.get("to") if self._matrix == known else None
            data = self._matrix.columns()
        return {"to": to, "kind": "data", "data": data, "words": words, "sweep": self._runs.sweep_id[:8]}

    def _texts(self, message: dict[str, Any]) -> dict[str, Any]:
        answers = self._matrix.answers
        wanted = _numbers(message.get("answers"), len(answers))
        return {"kind": "texts", "texts": [[number, answers[number][:_COMPARED]] for number in wanted]}

    def _search(self, message: dict[str, Any]) -> dict[str, Any]:
        words = message.get("words")
        found = self._matrix.matching(words) if isinstance(words, str) else []
        return {"kind": "found", "words": words, "inputs": found}

    def _open(self, message: dict[str, Any]) -> dict[str, Any]:
        wanted = _numbers(message.get("runs"), len(self._runs))
        runs = [(number, self._runs[number]) for number in wanted]
        inputs = _numbers([message.get("input")], len(self._matrix.inputs))
        variables, prompt = self._matrix.inputs[inputs[0]] if inputs else ({}, "")
        compete = "prompt" in self._matrix.settings and bool(variables)
        return {
            "kind": "opened",
            "input": message.get("input"),
            "prompt": "" if compete else prompt[:_SHOWN],
            "variables": [[plain(name), value[:_SHOWN]] for name, value in variables.items()],
            "runs": [
                {"run": number, "prompt": plain(run.prompt or "")[:_SHOWN] if compete else "", **opened(run)}
                for number, run in runs
            ],
        }

    def _note(self, message: dict[str, Any]) -> dict[str, Any]:
        run, note = self._meant(message), message.get("note")
        note = note if isinstance(note, str) and note.strip() else None
        self._runs.session.store.set_note(run.run_id, note)
        run.note = note
        return self._kept(message, run)

    def _tags(self, message: dict[str, Any]) -> dict[str, Any]:
        run, store = self._meant(message), self._runs.session.store
        given = message.get("tags")
        tags = [tag for tag in given if isinstance(tag, str)] if isinstance(given, list) else []
        # Changed from what was shown to what is wanted: a tag that came from elsewhere meanwhile stays.
        store.tag([run.run_id], [tag for tag in run.tags if plain(tag) not in tags], remove=True)
        store.tag([run.run_id], [tag for tag in tags if tag not in map(plain, run.tags)])
        run.tags[:] = store.find(run.run_id).tags
        return self._kept(message, run)

    def _meant(self, message: dict[str, Any]) -> Run:
        (number,) = _numbers([message.get("run")], len(self._runs))
        return self._runs[number]

    def _kept(self, message: dict[str, Any], run: Run) -> dict[str, Any]:
        # Each view is to show it.
        return {"to": None, "kind": "kept", "what": message["kind"], "run": message["run"], **_annotations(run)}


def _numbers(given: Any, size: int) -> list[int]:
    """What the front end may ask for: numbers below ``size``, and not too many of them."""
    numbers = given if isinstance(given, list) else []
    return [n for n in numbers[:_AT_ONCE] if isinstance(n, int) and 0 <= n < size]


def _annotations(run: Run) -> dict[str, Any]:
    return {"note": plain(run.note or ""), "tags": [plain(tag) for tag in run.tags]}


def opened(run: Run) -> dict[str, Any]:
    """All that is shown of a run: texts harmless for a terminal, its answer as safe HTML or as a tree of JSON."""
    result = "" if told_by_error(run) else run.result or ""
    as_markdown = run.output is None and run.request.get("output_format") != "text" and len(result) <= _SHOWN
    text = plain(result)
    return {
        "id": run.run_id[:8],
        "status": plain(run.status),
        "facts": facts(run),
        "problem": plain("\n".join(filter(None, (waiting_for(run), run.error))))[:_SHOWN],
        "text": text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…\n({len(text):,} characters; the run has them all.)",
        "html": safe_html(result) if as_markdown else None,
        "tree": None if run.output is None else tree(run.output),
        "streamed": plain(streamed(run))[:_SHOWN],
        "steps": steps(run.events),
        "tools": [plain(as_shown(tool)) for tool in run.tools_used],
        **_annotations(run),
    }


def tree(value: Any, level: int = 0) -> list[Any]:
    """A JSON value as its kind and its parts; numbers as text, since a browser rounds large ones."""
    if level < _DEEPEST and isinstance(value, dict):
        return ["object", [[plain(str(name)), *tree(inner, level + 1)] for name, inner in value.items()]]
    if level < _DEEPEST and isinstance(value, list):
        return ["array", [[str(number), *tree(inner, level + 1)] for number, inner in enumerate(value)]]
    if isinstance(value, str):
        return ["string", plain(value)]
    return ["null" if value is None else type(value).__name__, plain(as_shown(value))]
