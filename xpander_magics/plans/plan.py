"""Options, a prompt and variables become a ``Plan``: one run with all that will be sent, checked before it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xpander_magics import cell
from xpander_magics.contract import secrets_in
from xpander_magics.errors import ConfigError
from xpander_magics.plans.template import Rendered, render
from xpander_magics.plans.terms import Terms, make_terms, refuse_secrets
from xpander_magics.results import Run, utc_now, without_secret_fields
from xpander_magics.safety import Redactor, secret_variables
from xpander_magics.service.calls import MARK, Call
from xpander_magics.service.client import Client

if TYPE_CHECKING:
    from xpander_magics.scoring.keeping import Session as Scores
    from xpander_magics.scoring.landing import Scoring


@dataclass(frozen=True)
class Plan:
    """One run, ready to be sent.

    Attributes:
        run: as it is kept before it is sent.
        call: what is sent.
        redact: masks the secrets of this run.
        schema: what the answer has to keep to, or None.
        wants_json: whether the user asked for JSON.
        scoring: what scores the run once it has landed.
    """

    run: Run
    call: Call = field(repr=False)
    mode: str
    timeout: float
    usage: bool
    on_interrupt: str
    redact: Redactor = field(repr=False)
    schema: dict[str, Any] | None = None
    wants_json: bool = False
    scoring: Scoring | None = field(default=None, repr=False)

    def landed(self, run: Run, session: Scores) -> None:
        """Scores its run, or a kept one that was given out in its place; only an answer has scores."""
        if self.scoring is not None and run.status == "completed":
            self.scoring.end_one(run, self.run.variables, session)


@dataclass(frozen=True)
class Job:
    """One run of a grid, with all that another process needs to send it."""

    number: int
    run_id: str
    sweep_id: str
    prompt: str = field(repr=False)
    variables: dict[str, Any] = field(repr=False)
    template: str = field(repr=False)
    terms: Terms = field(repr=False)
    setting: dict[str, Any]
    thread: str | None
    repeat: int
    timeout: float | None
    usage: bool

    def plan(self, client: Client, redact: Redactor, run: Run | None = None) -> Plan:
        """The run made ready to be sent; ``run`` is what has been kept of it."""
        run = run or Run(run_id=self.run_id)
        run.sweep_id, run.number, run.repeat = self.sweep_id, self.number, self.repeat
        run.template, run.variables = redact(self.template), redact(self.variables)
        # What has come of it stays: making the plan describes what was asked. What was asked stays, too, where it
        # was kept: a grid that was restored lacks its secrets, and would make another key of it.
        kept = _TOLD if run.task_id else ()
        known = {name: getattr(run, name) for name in (*kept, *(_ASKED if run.cache_key else ()))}
        plan = fill_plan(
            run,
            self.terms,
            self.setting,
            self.prompt,
            client,
            redact,
            thread=self.thread,
            timeout=self.timeout,
            usage=self.usage,
        )
        vars(run).update(known)
        plan.call.sent_at = run.sent_at
        return plan


_ASKED = ("request", "cache_key")
# What the service says of a run, where it has one already.
_TOLD = ("provider", "model", "effort", "think_mode", "title", "target_id", "thread_id", "tags", "note")


def make_plan(
    options: cell.Options,
    template: str,
    variables: Mapping[str, Any],
    client: Client,
    find_run: Callable[[str], Run | None],
) -> Plan:
    """Renders and checks everything; asks the service for its lists at the most.

    Args:
        find_run: the kept run that a reference names, or None.

    Raises:
        TemplateError, SecretError, ConfigError, SchemaError: what was typed is wrong; nothing was sent.
        NotFoundError, InvalidRequestError: no such target or model.
    """
    template = template.removesuffix("\n")  # which IPython puts at the end of every cell
    rendered = Rendered(template, {}) if options.raw else render(template, variables)
    check_prompt(rendered.text)
    if cell.makes_several(options, variables):
        raise ConfigError(
            "Several models, efforts, think modes, repeats, rows or conversations make a sweep: xp.sweep.\n"
            "%xpander use --clear forgets what was chosen for all cells."
        )
    terms = make_terms(options, variables, client, find_run)
    redact = redactor([terms], [rendered.text], client, allow_secrets=bool(options.allow_secrets))
    run = Run(repeat=1, variables=redact(rendered.variables), template=redact(template))
    return fill_plan(
        run,
        terms,
        terms.settings[0],
        rendered.text,
        client,
        redact,
        thread=terms.threads[0],
        timeout=options.timeout,
        usage=options.usage is not False,
    )


def check_prompt(prompt: str, where: str = "") -> None:
    """Says no to one with nothing in it."""
    if not prompt or prompt.isspace():
        raise ConfigError(f"The prompt{where} is empty once it is rendered. Nothing was sent.")


def redactor(terms: Iterable[Terms], prompts: Iterable[str], client: Client, *, allow_secrets: bool) -> Redactor:
    """What masks all secrets that these runs have to do with.

    Raises:
        SecretError: something that will be read by a model holds one, unless that is allowed.
    """
    terms = list(terms)
    secrets = [*client.secrets().items()]
    secrets += [(f"the value of ${name}", value) for name, value in secret_variables().items()]
    if not allow_secrets:
        refuse_secrets(prompts, {}, secrets)
        for one in terms:
            refuse_secrets((), one.fields, secrets)
    own = [secret for one in terms for secret in secrets_in(one.fields)]
    return Redactor([*(secret for _, secret in secrets), *own])


def fill_plan(
    run: Run,
    terms: Terms,
    setting: Mapping[str, Any],
    prompt: str,
    client: Client,
    redact: Redactor,
    *,
    thread: str | None,
    timeout: float | None,
    usage: bool,
) -> Plan:
    """The plan of a run that knows its id, its repeat, its template and its variables; the rest is put into it."""
    fields = {**terms.fields, **setting}
    call = client.prepare(
        terms.target, prompt, version=terms.version, mark=run.run_id, **fields, **({"id": thread} if thread else {})
    )
    run.created_at = run.created_at or utc_now()
    run.mode, run.version, run.base_url = terms.mode, terms.version, client.base_url
    run.experiment, run.note, run.tags = redact(terms.experiment), redact(terms.note), redact(list(terms.tags))
    _describe(run, call, redact)
    return Plan(
        run=run,
        call=call,
        mode=terms.mode,
        timeout=timeout or client.timeout,
        usage=usage,
        on_interrupt=terms.on_interrupt,
        redact=redact,
        schema=fields.get("output_schema"),
        wants_json=fields.get("output_format") == "json",
    )


def _describe(run: Run, call: Call, redact: Redactor) -> None:
    """Puts into the run what is known of it before it is sent."""
    body = call.body
    run.target_kind, run.target_id, run.target = call.target.kind, call.target.id, call.target.name
    run.prompt = redact(body["input"]["text"])
    run.requested_provider = run.provider = body.get("llm_model_provider")
    run.requested_model = run.model = body.get("llm_model_name")
    run.requested_effort = run.effort = body.get("llm_reasoning_effort")
    run.think_mode = body.get("think_mode")
    run.thread_id = body.get("id")
    run.title = redact(body.get("title"))
    run.request = redact(without_secret_fields(body))
    run.cache_key = _cache_key(run, call)


def _cache_key(run: Run, call: Call) -> str:
    """Equal for runs that ask the same: of one service and target at one version, with all settings."""
    # Neither a name for the task nor a token that is new each hour makes it another question.
    body = {name: value for name, value in call.body.items() if name not in ("title", "user_tokens", "user_oidc_token")}
    body["payload_extension"] = {k: v for k, v in body["payload_extension"].items() if k != MARK}
    version = call.version or call.target.version
    asked = [run.base_url, call.target.kind, call.target.id, version, body, run.repeat]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
