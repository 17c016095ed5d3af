"""The service's lists for a panel: asked for in threads of their own, so that nothing waits for the service."""

from __future__ import annotations

import threading
from collections.abc import Callable

import ipywidgets as w

from xpander_magics.errors import XpanderError
from xpander_magics.service.targets import KINDS
from xpander_magics.session import Session
from xpander_magics.showing.markup import escape
from xpander_magics.widgets.background import in_background
from xpander_magics.widgets.choices import targets_from
from xpander_magics.widgets.controls import Controls


class Lists:
    """Loads lists into controls; says what is loading, what failed and why, with a button that tries again.

    Args:
        came: called when a list has come or failed.
    """

    def __init__(self, session: Session, controls: Controls, came: Callable[[], object]) -> None:
        self._session = session
        self._controls = controls
        self._came = came
        self._lock = threading.Lock()
        self._loading: list[str] = []
        self._failures: dict[str, str] = {}
        self._from = -1  # which of the session's connections the lists are of
        self._told = w.HTML()
        self._again = w.Button(description="Try again", tooltip="Ask for the lists again")
        self._again.on_click(lambda _: self.load())
        self.shown = w.HBox((self._told, self._again))

    @property
    def ready(self) -> bool:
        """Whether all that was asked for is there."""
        return not self._loading and not self._failures

    @property
    def problem(self) -> str:
        """What can't be listed, and why: each reason once. Empty where all is well."""
        whats: dict[str, list[str]] = {}
        for what, why in list(self._failures.items()):
            whats.setdefault(why, []).append(what)
        return " ".join(f"The {' and '.join(several)} can't be listed: {why}" for why, several in whats.items())

    def load(self) -> None:
        """Asks for all of them."""
        self._controls.forget_lists()
        with self._lock:
            self._from = self._session.connections
            self._failures.clear()
        self._load("agents and workflows", self._load_targets)
        self._load("models", self._load_providers)

    def load_again(self) -> None:
        """Asks again where the service or the key is another one by now, or where it has failed."""
        if self._failures or self._from != self._session.connections:
            self.load()

    def load_models(self, provider: str) -> None:
        """Asks for a provider's models."""
        self._load(f"models of {provider}", lambda: self._load_models(provider))

    def _load_targets(self) -> None:
        self._controls.target.offer(targets_from(self._session.client.directory.entries_of(KINDS)))

    def _load_providers(self) -> None:
        provider = self._controls.offer_providers(self._session.client.directory.provider_ids())
        if provider:
            self._load_models(provider)

    def _load_models(self, provider: str) -> None:
        self._controls.offer_models(provider, self._session.client.directory.models(provider))

    def _load(self, what: str, load: Callable[[], None]) -> None:
        def work() -> None:
            done = False
            while not done:
                told, asked = None, self._from
                try:
                    load()
                except XpanderError as error:
                    told = str(error)
                except Exception as error:  # whatever the service has sent, the panel stays of use
                    told = f"{type(error).__name__}: {error}"
                with self._lock:
                    done = asked == self._from  # else what has come is another service's
                    if done:
                        self._loading.remove(what)
                        if told is not None:
                            self._failures[what] = told
                        self._show()
            self._came()

        with self._lock:
            if what in self._loading:
                return
            self._loading.append(what)
            self._failures.pop(what, None)
            self._show()
        in_background(work, "xpander-panel")

    def _show(self) -> None:
        told = [self.problem] if self._failures else []
        told += [f"Loading {' and '.join(self._loading)} …"] if self._loading else []
        told += ["Names can be typed."] if told else []
        kind = "xp-problem" if self._failures else "xp-about"
        self._told.value = f'<div class="{kind}" role="status">{escape(" ".join(told))}</div>' if told else ""
        self._again.layout.display = None if self._failures else "none"
