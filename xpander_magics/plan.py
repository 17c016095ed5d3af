"""Options and variables become a ``Plan``: one run with all that will be sent, checked before it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xpander_magics import cell
from xpander_magics.client import MARK, Call, Client
from xpander_magics.contract import EFFORTS, FORMATS, MODES, SECRET_FIELDS, THINK_MODES, sendable
from xpander_magics.errors import ConfigError, NotFoundError, SecretError, did_you_mean
from xpander_magics.results import Run, utc_now, without_secret_fields
from xpander_magics.safety import Redactor, is_secret_name, secret_variables, strings_in
from xpander_magics.schemas import schema_from
from xpander_magics.template import Rendered, render

# Each field of the invoke body that has an option of its own, with that option.
FIELD_OPTIONS = {
    "input": "the cell, --file and --user",
    "id": "--thread",
    "llm_model_provider": "--model",
    "llm_model_name": "--model",
    "llm_reasoning_effort": "--effort",
    "think_mode": "--think",
    "output_format": "--format",
    "output_schema": "--schema",
    "instructions_override": "--instructions",
    "additional_context": "--context",
    "expected_output": "--expected-output",
    "title": "--title",
    "payload_extension": "--payload",
    "mcp_servers": "--mcp",
}


@dataclass(frozen=True)
class Plan:
    """One run, ready to be sent.

    Attributes:
        run: as it is kept before it is sent.
        call: what is sent.
        redact: masks the secrets of this run.
        schema: what the answer has to keep to, or None.
        wants_json: whether the user asked for JSON.
    """

    run: Run
    call: Call
    mode: str
    timeout: float
    usage: bool
    on_interrupt: str
    redact: Redactor = field(repr=False)
    schema: dict[str, Any] | None = None
    wants_json: bool = False


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
    refuse_sweeps(options)
    check_choices(options)
    if options.timeout is not None and not cell.is_amount(options.timeout):
        raise ConfigError(f"--timeout takes a number of seconds above 0, not {options.timeout!r}.")
    template = template.removesuffix("\n")  # which IPython puts at the end of every cell
    rendered = Rendered(template, {}) if options.raw else render(template, variables)
    prompt = rendered.text
    if not prompt.strip():
        raise ConfigError("The prompt is empty once it is rendered. Nothing was sent.")
    options = options if options.raw else _rendered(options, variables)
    check_choices(options, rendered=True)
    fields = _fields(options, variables)
    if options.thread is not None:
        fields["id"] = _thread(options.thread, variables, client, find_run)
    secrets = [("the API key", key) for key in client.secrets()]
    secrets += [(f"the value of ${name}", value) for name, value in secret_variables().items()]
    redact = Redactor([*(secret for _, secret in secrets), *_secrets_in(fields)])
    if not options.allow_secrets:
        _refuse_secrets(prompt, fields, secrets)
    if options.target is None:
        raise ConfigError(
            "There is no target. Name an agent or a workflow: %%xpander NAME, or %xpander use NAME for all cells.\n"
            "%xpander agents lists them."
        )
    run = Run(
        created_at=utc_now(),
        experiment=redact(options.experiment),
        mode=options.mode or "stream",
        template=redact(template),
        variables=redact(rendered.variables),
        tags=redact(list(dict.fromkeys(options.tags))),
        note=redact(options.note),
        version=options.version,
        base_url=client.base_url,
        repeat=1,
    )
    call = client.prepare(options.target, prompt, version=options.version, mark=run.run_id, **fields)
    if options.models:
        client.directory.check_model(fields["llm_model_provider"], fields["llm_model_name"])
    _describe(run, call, redact)
    return Plan(
        run=run,
        call=call,
        mode=run.mode or "stream",
        timeout=options.timeout or client.timeout,
        usage=options.usage is not False,
        on_interrupt=options.on_interrupt or "stop",
        redact=redact,
        schema=fields.get("output_schema"),
        wants_json=fields.get("output_format") == "json",
    )


def check_service(run: Run, client: Client) -> None:
    """Says no to asking one service about a run of another.

    Raises:
        ConfigError: the run was sent elsewhere; says where.
    """
    if run.base_url not in (None, client.base_url):
        raise ConfigError(
            f"Run {run.run_id[:8]} was sent to {run.base_url}; this kernel now talks to {client.base_url}.\n"
            "%xpander status shows where requests go."
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
    body = {name: value for name, value in call.body.items() if name != "title"}
    body["payload_extension"] = {k: v for k, v in body["payload_extension"].items() if k != MARK}
    version = call.version or call.target.version
    asked = [run.base_url, call.target.kind, call.target.id, version, body, run.repeat]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def refuse_sweeps(options: cell.Options) -> None:
    """Says no to what makes several runs of one cell."""
    several = {"--model": options.models, "--effort": options.efforts, "--think": options.thinks}
    for option, values in several.items():
        if len(values) > 1:
            raise ConfigError(
                f"{option} has {len(values)} values, which makes a sweep; this version sends one run a cell. "
                f"Give one, or loop: for value in [...]: xp.run(...)"
            )
    if options.over is not None or (options.repeat or 1) > 1:
        option = "--over" if options.over is not None else "--repeat"
        raise ConfigError(f"{option} makes a sweep; this version sends one run a cell. Loop over xp.run(...) instead.")


def check_choices(options: cell.Options, *, rendered: bool = False) -> None:
    """Says no to a value that isn't one of those that its option takes; a template only once it is rendered."""
    for option, values, known in (
        ("--effort", options.efforts, EFFORTS),
        ("--think", options.thinks, THINK_MODES),
        ("--format", (options.format,), FORMATS),
        ("--mode", (options.mode,), MODES),
        ("--on-interrupt", (options.on_interrupt,), cell.ON_INTERRUPT),
        ("--view", (options.view,), cell.VIEWS),
    ):
        for value in values:
            if rendered or not cell.is_template(value):
                cell.one_of(option, value, known)
    for model in options.models:
        if rendered or not cell.is_template(model):
            provider_and_model(model)


def _rendered(options: cell.Options, variables: Mapping[str, Any]) -> cell.Options:
    """The options with their templates rendered; a value without one is left as it is."""

    def text(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(text(name, item) for item in value)
        if not cell.is_template(value):
            return value
        option = cell.option_of(name) if name != "target" else "The target"
        rendered = render(value, variables, what=option).text
        if not rendered.strip():
            raise ConfigError(f"{option} is empty once {value!r} is rendered. Fill the variable, or leave it out.")
        return rendered

    return replace(options, **{name: text(name, value) for name, value in options.said().items()})


def _fields(options: cell.Options, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the invoke body, the two of ``input`` among them; only those that were said."""
    fields: dict[str, Any] = {}
    if options.models:
        fields["llm_model_provider"], fields["llm_model_name"] = provider_and_model(options.models[0])
    texts = {
        "llm_reasoning_effort": next(iter(options.efforts), None),
        "think_mode": next(iter(options.thinks), None),
        "output_format": options.format,
        "instructions_override": options.instructions,
        "additional_context": options.context,
        "expected_output": options.expected_output,
        "title": options.title,
    }
    fields.update({name: value for name, value in texts.items() if value is not None})
    if options.schema is not None:
        if fields.setdefault("output_format", "json") != "json":
            raise ConfigError(f"--schema needs --format json, not {fields['output_format']}.")
        fields["output_schema"] = _schema(options.schema, variables)
    for option, field_name in (("user", "user"), ("payload", "payload_extension")):
        value = _named(f"--{option}", getattr(options, option), variables)
        if value is not None:
            fields[field_name] = value
    servers = _named("--mcp", options.mcp, variables, several=True)
    if servers is not None:
        fields["mcp_servers"] = servers if isinstance(servers, list) else [servers]
    for url in options.files:
        if ("://" not in url and not url.startswith("data:")) or url.startswith("file:"):
            raise ConfigError(f"--file takes a URL that the service can read, not {url!r}.")
    if options.files:
        fields["files"] = list(options.files)
    return _with_set(fields, cell.parse_set(options.set), options)


def _with_set(fields: dict[str, Any], given: dict[str, Any], options: cell.Options) -> dict[str, Any]:
    for name in given:
        if name in ("input", "files", "user"):
            raise ConfigError(f"--set {name}: that field is made of {FIELD_OPTIONS['input']}.")
        if name in fields or (name == "id" and options.thread is not None):
            raise ConfigError(f"--set {name} and {FIELD_OPTIONS[name]} both give that field. Leave one out.")
    if isinstance(given.get("output_schema"), dict):
        schema_from(given["output_schema"])
    return {**fields, **given}


def provider_and_model(written: str) -> tuple[str, str]:
    """The two halves of PROVIDER/MODEL; ConfigError where it isn't that."""
    provider, slash, model = written.partition("/")
    if not (provider and slash and model):
        raise ConfigError(f"--model takes PROVIDER/MODEL, such as openai/gpt-5, not {written!r}. See %xpander models.")
    return provider, model


def _thread(given: Any, variables: Mapping[str, Any], client: Client, find_run: Callable[[str], Run | None]) -> str:
    """A conversation's id: of a run, of a variable that holds one, of a kept run, or one that the service knows."""
    named = given
    if isinstance(given, str):
        held = variables.get(given)
        named = held if isinstance(held, Run) else find_run(given)
    if isinstance(named, Run):
        if named.thread_id is None:
            raise ConfigError("--thread: that run has no conversation: it started no task.")
        check_service(named, client)
        return named.thread_id
    if isinstance(given, str):
        try:
            return str(client.task(given).id)
        except NotFoundError:
            hint = did_you_mean(given, [name for name, value in variables.items() if isinstance(value, Run)])
            raise NotFoundError(
                f"--thread: there is no variable, run or task {given!r}. {hint or '%xpander runs lists the runs.'}"
            ) from None
    raise ConfigError(f"--thread takes a run or an id, not a {type(given).__name__}.")


def _schema(given: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    return schema_from(variables[given] if isinstance(given, str) and given in variables else given)


def _named(option: str, given: Any, variables: Mapping[str, Any], *, several: bool = False) -> Any:
    """The dict that an option names, or with ``several`` a list of them; from Python, the value itself."""
    if given is None:
        return None
    value = given
    if isinstance(given, str):
        if given not in variables:
            hint = did_you_mean(given, [name for name in variables if not name.startswith("_")])
            raise ConfigError(f"{option}: there is no variable {given!r} in the notebook. {hint}".rstrip())
        value = variables[given]
    dicts = value if several and isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in dicts):
        what = f"{given!r} is" if isinstance(given, str) else "this is"
        kinds = "a dict or a list of dicts" if several else "a dict"
        raise ConfigError(f"{option} takes {kinds}, and {what} a {type(value).__name__}.")
    sendable(option, value)
    return value


def _secrets_in(fields: Mapping[str, Any]) -> list[str]:
    """The secret values in the fields that are for the service alone."""
    tokens = [*strings_in(list((fields.get("user_tokens") or {}).values())), fields.get("user_oidc_token") or ""]
    return [*tokens, *_secret_settings(fields.get("mcp_servers"))]


def _secret_settings(value: Any, *, all_of_it: bool = False) -> list[str]:
    """The values in an MCP server's configuration that its names call secret; addresses and the like aren't."""
    if isinstance(value, Mapping):
        found = []
        for name, inner in value.items():
            secret = all_of_it or name in ("headers", "env") or is_secret_name(str(name))
            found += _secret_settings(inner, all_of_it=secret)
        return found
    if isinstance(value, list):
        return [text for inner in value for text in _secret_settings(inner, all_of_it=all_of_it)]
    if not (all_of_it and isinstance(value, str)):
        return []
    return [value, value.partition(" ")[2]] if value.lower().startswith(("bearer ", "basic ")) else [value]


def _refuse_secrets(prompt: str, fields: Mapping[str, Any], secrets: Sequence[tuple[str, str]]) -> None:
    """Raises SecretError where something that will be read by a model holds a secret."""
    public = {name: value for name, value in fields.items() if name not in SECRET_FIELDS}
    texts = [("The prompt", prompt), *((f"The field {n}", text) for n, v in public.items() for text in strings_in(v))]
    for what, text in texts:
        for whose, secret in secrets:
            if secret in text:
                raise SecretError(f"{what} holds {whose}. Nothing was sent. To send it all the same: --allow-secrets")
