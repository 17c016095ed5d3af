"""The vote: two answers to one input, side by side and without their names.

Until a vote is kept, nothing that is sent to the browser says which configuration or run an answer is of; then both
names are shown, with the next pair.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from xpander_magics.errors import XpanderError
from xpander_magics.safety import as_shown, plain
from xpander_magics.showing.display import answer_html
from xpander_magics.showing.tables import standing_bundle
from xpander_magics.store.votes import Vote
from xpander_magics.voting.votes import Voting
from xpander_magics.widgets.background import in_background, later
from xpander_magics.widgets.front import FrontEnd, source

_QUIET = 0.5  # seconds without a vote


class VoteView(FrontEnd):
    """Asks a person for votes; what ``runs.vote()`` returns.

    Attributes:
        voting: who votes, on which pair, how far it has come.
    """

    _esm = source("common.js", "vote.js")
    _css = source("theme.css", "vote.css")

    def __init__(self, voting: Voting) -> None:
        self.voting = voting
        self._lock = threading.RLock()
        self._ticket = 0  # of the pair that is shown: a second click on the same doesn't judge the next
        self._renewal = threading.Timer(0, self._renew)
        self._telling = threading.Lock()
        super().__init__()
        self.on_msg(self._hear)

    def static(self) -> dict[str, Any]:
        """How it stands."""
        return self._standing()

    def cast(self, choice: str) -> Vote:
        """Judges the pair that is shown, as its buttons do.

        Args:
            choice: ``left``, ``right``, ``both_good``, ``both_bad`` or ``skip``.

        Returns:
            The vote, which is kept.

        Raises:
            ConfigError: there is no such choice, or no pair is left.
            StoreError: the vote couldn't be kept; the pair stays.
        """
        with self._lock:
            vote = self.voting.cast(choice)
            self._turn()
        self.renew_static()
        return vote

    def undo(self) -> Vote | None:
        """Takes the voter's newest vote back, and asks its pair again.

        Returns:
            The vote; None where there is none.

        Raises:
            StoreError: the store can't be written.
        """
        with self._lock:
            vote = self.voting.undo()
            self._turn()
        self.renew_static()
        return vote

    def _turn(self) -> None:
        self._ticket += 1
        self._show()

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        try:
            with self._lock:
                self._do(message if isinstance(message, dict) else {})
        except XpanderError as error:
            self.send({"kind": "error", "text": plain(str(error))})

    def _do(self, message: dict[str, Any]) -> None:
        kind = message.get("kind")
        if kind == "standing":
            in_background(self._tell_standing, "xpander-vote")  # a vote must not wait for what loads statsmodels
        elif kind in ("ready", "vote") and message.get("ticket") != self._ticket:
            self._show()
        elif kind in ("vote", "undo", "voter"):
            if kind == "vote":
                self.voting.cast(message.get("choice"))  # type: ignore[arg-type]  # it is checked there
            elif kind == "undo":
                self.voting.undo()
            else:
                self.voting.change_voter(message.get("name"))  # type: ignore[arg-type]
            self._turn()
            self._renew_soon()

    def _renew_soon(self) -> None:
        """Renews the static equivalent a little later, for all votes until then: the next pair must not wait for it."""
        self._renewal.cancel()
        self._renewal = later(_QUIET, self._renew)

    def _tell_standing(self) -> None:
        with self._telling:  # one after the other, so that the last to come has seen all votes
            try:
                self.send({"kind": "standing", "html": self._standing()["text/html"]})
            except XpanderError as error:
                self.send({"kind": "error", "text": plain(str(error))})

    def _renew(self) -> None:
        with contextlib.suppress(XpanderError):  # who votes or asks for the standing next is told
            self.renew_static()

    def _show(self) -> None:
        """Sends what there is to see: the pair without its names, and the names of the one before."""
        voting, shown = self.voting, self.voting.shown()
        pair = None
        if shown is not None:
            left, right = shown
            values = {"Prompt": left.prompt} if left.prompt == right.prompt else left.variables
            asked = [[plain(str(name)), plain(as_shown(value))] for name, value in values.items()]
            pair = {"input": asked, "a": answer_html(left), "b": answer_html(right)}
        self.send(
            {
                "kind": "pair",
                "ticket": self._ticket,
                "pair": pair,
                "last": self._last(),
                "voter": voting.voter,
                "judged": voting.judged,
                "total": voting.total,
                "identical": voting.identical,
                "can_undo": voting.can_undo,
            }
        )

    def _standing(self) -> dict[str, Any]:
        return standing_bundle(self.voting.contest, self.voting.votes())

    def _last(self) -> dict[str, str] | None:
        vote, side = self.voting.last, self.voting.contest.side
        if vote is None:
            return None
        return {"choice": vote.choice, "a": side(vote.left_run), "b": side(vote.right_run)}
