"""The controls of a panel: what is chosen in them, as ``Options``, and back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w

from xpander_magics.cell import Options, is_template
from xpander_magics.contract import EFFORTS, THINK_MODES, Model
from xpander_magics.errors import did_you_mean
from xpander_magics.safety import plain
from xpander_magics.showing.markup import escape
from xpander_magics.widgets.choices import EFFORT_WORDS, THINK_WORDS, Choice, matching, models_from, named

_STYLE = {"description_width": "8em"}
_MOST_LISTED = 100
_AS_IT_IS = "as the target has it"


class Picker:
    """A text that can be typed, and below it a list of what it may be, which follows what is typed.

    Args:
        what: what is picked, in words.
        label: of the text.
        hint: what the empty text means.
        listed: the label of the list.
        changed: called when a person has changed it.
    """

    def __init__(self, what: str, label: str, hint: str, listed: str, changed: Callable[[], object]) -> None:
        self._what = what
        self.choices: list[Choice] | None = None  # until the list is there
        self._changed = changed
        self._own = _Own()
        self.text = w.Text(description=label, placeholder=hint, style=_STYLE)
        self.list = w.Select(description=listed, rows=5, style=_STYLE)
        self.about = w.HTML()
        self.text.observe(lambda _: self._typed(), "value")
        self.list.observe(lambda _: self._picked(), "value")
        self._fill()

    @property
    def value(self) -> str | None:
        """What is meant; None for nothing."""
        return self.text.value.strip() or None

    @property
    def chosen(self) -> Choice | None:
        """The one of those listed that is meant."""
        return named(self.choices or (), self.text.value)

    @property
    def problem(self) -> str | None:
        """Why it can't be taken as it stands; None where nothing is known against it."""
        typed, chosen = self.value, self.chosen
        if chosen is not None:
            return chosen.refused
        if typed is None or self.choices is None or is_template(typed):
            return None
        hint = did_you_mean(typed, [choice.value for choice in self.choices], otherwise="The list has what there is.")
        return f"There is no {self._what} {typed!r}. {hint}"

    def offer(self, choices: list[Choice] | None) -> None:
        """Lists these; None while there is no list."""
        self.choices = choices
        self._fill()

    def show(self, typed: str | None) -> None:
        """Puts a text there."""
        with self._own.change():
            self.text.value = typed or ""
        self._fill()

    def _typed(self) -> None:
        if not self._own.changing:
            self._fill()
            self._changed()

    def _picked(self) -> None:
        if not self._own.changing and self.list.value is not None:
            with self._own.change():
                self.text.value = self.list.value
            self._fill()
            self._changed()

    def _fill(self) -> None:
        with self._own.change(), self.list.hold_sync():
            found = matching(self.choices or [], self.text.value)
            options = [(choice.label, choice.value) for choice in found[:_MOST_LISTED]]
            if list(self.list.options) != options:
                self.list.options = options
            values = [value for _, value in options]
            self.list.index = values.index(self.value) if self.value in values else None
            self.about.value = self._told(len(found))

    def _told(self, count: int) -> str:
        chosen = self.chosen
        if chosen is not None:
            return f'<div class="xp-about">{escape(chosen.refused or chosen.about)}</div>'
        if count > _MOST_LISTED:
            return f'<div class="xp-about">{count - _MOST_LISTED:,} more: type to find them.</div>'
        return ""


class _Own:
    """Changes of our own, told from a person's; front ends and our threads may come at once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0

    @property
    def changing(self) -> bool:
        """Whether this thread is within a change of our own; waits for those of others."""
        with self._lock:
            return self._depth > 0

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1


class Controls:
    """What can be chosen in a panel.

    Args:
        changed: called when a person has changed something.
        wanted: called with a provider whose models are to be listed.
    """

    def __init__(self, changed: Callable[[], object], wanted: Callable[[str], object]) -> None:
        self._changed = changed
        self._wanted = wanted
        self._own = _Own()
        self._models: dict[str, list[Choice]] = {}
        self._compared: tuple[str, ...] = ()
        self.target = Picker("agent or workflow", "Target", "an agent's or a workflow's name", "Targets", changed)
        self.provider = w.Dropdown(description="Provider", options=[("", "")], style=_STYLE)
        self.model = Picker("model", "Model", f"PROVIDER/MODEL; empty: {_AS_IT_IS}", "Models", self._model_changed)
        self._compare = w.Button(
            description="Compare with another model", tooltip="Keeps the model above, and lets you choose one more"
        )
        self._others = w.HBox()
        self._efforts = _toggles(EFFORTS, EFFORT_WORDS)
        self._thinks = _toggles(THINK_MODES, THINK_WORDS)
        self.repeat = w.BoundedIntText(description="Repeats", value=1, min=1, max=10_000, style=_STYLE)
        self.over = w.Combobox(
            description="Over", placeholder="a table in the notebook, if any", style=_STYLE, ensure_option=False
        )
        self.out = w.Text(description="Bind to", placeholder="a variable's name, if any", style=_STYLE)
        self.prompt = w.Textarea(
            description="Prompt", placeholder="{{ name }} stands for a variable", rows=5, style=_STYLE
        )
        self.provider.observe(lambda _: self._provider_changed(), "value")
        self._compare.on_click(lambda _: self._compare_another())
        for one in (*self._efforts.values(), *self._thinks.values(), self.repeat, self.over, self.out, self.prompt):
            one.observe(lambda _: self._own.changing or changed(), "value")
        self.children = (
            *(self.target.text, self.target.list, self.target.about),
            *(self.provider, self.model.text, self.model.list, self.model.about),
            w.HBox([self._compare, self._others]),
            _group("Effort", f"none: {_AS_IT_IS}; several: each in turn", self._efforts),
            _group("Think mode", f"none: {_AS_IT_IS}; several: both in turn", self._thinks),
            *(self.repeat, self.over, self.out, self.prompt),
        )

    def options(self, base: Options, *, sound: bool = False) -> Options:
        """What is chosen; ``base`` for what isn't shown here, and with ``sound`` for what can't be taken as it is."""
        current = (self.model.value,) if self.model.value else ()
        models = tuple(dict.fromkeys([*self._compared, *current]))
        return replace(
            base,
            target=base.target if sound and self.target.problem else self.target.value,
            models=base.models if sound and self.model.problem else models,
            efforts=_chosen(self._efforts, base.efforts),
            thinks=_chosen(self._thinks, base.thinks),
            repeat=self.repeat.value if self.repeat.value > 1 else None,
            over=self.over.value.strip() or None,
            out=self.out.value.strip() or None,
        )

    def show(self, options: Options) -> None:
        """Puts the options there; the prompt and the name for the result stay."""
        with self._own.change():
            self.target.show(options.target)
            self._compared = options.models[:-1]
            self.model.show(options.models[-1] if options.models else None)
            self._show_compared()
            self._follow_model()
            for toggles, values in ((self._efforts, options.efforts), (self._thinks, options.thinks)):
                for name, toggle in toggles.items():
                    toggle.value = name in values
            self.repeat.value = options.repeat or 1
            self.over.value = options.over or ""

    @property
    def problem(self) -> str | None:
        """Why what is chosen can't be run; None where nothing is known against it."""
        return self.target.problem or self.model.problem

    def forget_lists(self) -> None:
        """Whatever was listed may be another service's."""
        self._models.clear()
        for picker in (self.target, self.model):
            picker.offer(None)

    def offer_providers(self, names: Sequence[str]) -> str:
        """Lists the providers; returns the one whose models are to be listed."""
        with self._own.change():
            known = self.provider.value
            self.provider.options = [(plain(name), name) for name in names]
            wanted = self._provider_of_model() or known
            self.provider.value = wanted if wanted in names else next(iter(names), None)
            return self.provider.value or ""

    def offer_models(self, provider: str, models: Sequence[Model]) -> None:
        """Lists a provider's models, if they are still wanted."""
        self._models[provider] = models_from(provider, models)
        if provider == self.provider.value:
            self.model.offer(self._models[provider])

    def offer_tables(self, names: Sequence[str]) -> None:
        """Suggests names for what may be run over."""
        if list(self.over.options) != list(names):
            self.over.options = tuple(names)

    def _provider_of_model(self) -> str | None:
        provider, slash, _ = (self.model.value or "").partition("/")
        return provider if slash and not is_template(provider) else None

    def _model_changed(self) -> None:
        with self._own.change():
            self._follow_model()
        self._changed()

    def _follow_model(self) -> None:
        """Shows the models of the provider that was typed."""
        provider = self._provider_of_model()
        if provider != self.provider.value and provider in dict(self.provider.options).values():
            self.provider.value = provider
            self._list_models()

    def _provider_changed(self) -> None:
        if not self._own.changing:
            # The model is another provider's; what stays is what was put aside for comparing.
            self.model.show(None)
            self._list_models()
            self._changed()

    def _list_models(self) -> None:
        provider = self.provider.value or ""
        self.model.offer(self._models.get(provider))
        if provider and provider not in self._models:
            self._wanted(provider)

    def _compare_another(self) -> None:
        if self.model.value is not None and self.model.problem is None:
            self._compared = tuple(dict.fromkeys([*self._compared, self.model.value]))
            self.model.show(None)
            self._show_compared()
            self._changed()

    def _show_compared(self) -> None:
        def button(model: str) -> w.Button:
            made = w.Button(description=f"Remove {model}", tooltip=f"{model} is compared; this takes it out")
            made.on_click(lambda _: self._take_out(model))
            return made

        for old in self._others.children:
            old.close()
        self._others.children = tuple(map(button, self._compared))

    def _take_out(self, model: str) -> None:
        self._compared = tuple(one for one in self._compared if one != model)
        self._show_compared()
        self._changed()


def _toggles(names: Sequence[str], words: dict[str, str]) -> dict[str, Any]:
    # Toggle buttons of ipywidgets don't tell a screen reader whether they are pressed; check boxes do.
    return {name: w.Checkbox(description=f"{name}: {words[name]}", indent=False) for name in names}


def _group(label: str, meaning: str, toggles: dict[str, Any]) -> w.VBox:
    head = w.HTML(f'<div class="xp-group">{label} <span>({meaning})</span></div>')
    boxes = w.HBox(tuple(toggles.values()))
    boxes.add_class("xp-toggles")
    return w.VBox((head, boxes))


def _chosen(toggles: dict[str, Any], before: Sequence[str]) -> tuple[str, ...]:
    """What is on; a template, which has no toggle, stays."""
    return (*(name for name, toggle in toggles.items() if toggle.value), *filter(is_template, before))
