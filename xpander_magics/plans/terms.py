"""What a cell's options say once they are rendered and checked: all of a run but its prompt. Nothing is sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xpander_magics import cell
from xpander_magics.contract import EFFORTS, FORMATS, MODES, SECRET_FIELDS, THINK_MODES, sendable
from xpander_magics.errors import ConfigError, NotFoundError, SecretError, did_you_mean
from xpander_magics.plans.schemas import schema_from
from xpander_magics.plans.template import render
from xpander_magics.results import Run
from xpander_magics.safety import MASK, Redactor, strings_in, without_user
from xpander_magics.service.calls import MARK
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target

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
class Terms:
    """What is asked of whom, whatever the prompt.

    Attributes:
        fields: of the invoke body, without those of the settings and of the conversation.
        settings: the fields of each combination of model, effort and think mode; one without any where none is said.
        threads: the conversations to go on with; one None for a new one.
        tags: each once.
    """

    target: Target
    version: str | None
    fields: dict[str, Any] = field(repr=False)
    settings: tuple[dict[str, Any], ...] = ({},)
    threads: tuple[str | None, ...] = (None,)
    mode: str = "stream"
    on_interrupt: str = "stop"
    experiment: str | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None


def make_terms(
    options: cell.Options,
    variables: Mapping[str, Any],
    client: Client,
    find_run: Callable[[str], Run | None],
) -> Terms:
    """Renders and checks the options; asks the service for its lists at the most.

    Args:
        find_run: the kept run that a reference names, or None.

    Raises:
        TemplateError, ConfigError, SchemaError: what was typed is wrong; nothing was sent.
        NotFoundError, InvalidRequestError: no such target or model.
    """
    check_choices(options)
    if options.timeout is not None and not cell.is_amount(options.timeout):
        raise ConfigError(f"--timeout takes a number of seconds above 0, not {options.timeout!r}.")
    if options.rpm is not None and not cell.is_amount(options.rpm):
        raise ConfigError(f"--rpm takes a number of requests above 0, not {options.rpm!r}.")
    options = options if options.raw else _rendered(options, variables)
    check_choices(options, rendered=True)
    fields = _fields(options, variables)
    threads: tuple[str | None, ...] = (None,)
    if options.thread is not None:
        threads = _threads(options.thread, variables, client, find_run)
    if options.target is None:
        raise ConfigError(
            "There is no target. Name an agent or a workflow: %%xpander NAME, or %xpander use NAME for all cells.\n"
            "%xpander agents lists them."
        )
    # Whatever it has to say against the fields, it says here.
    target = client.prepare(options.target, "-", version=options.version, **fields).target
    for model in options.models:
        client.directory.check_model(*provider_and_model(model))
    return Terms(
        target=target,
        version=options.version,
        fields=fields,
        settings=_settings(options),
        threads=threads,
        mode=options.mode or "stream",
        on_interrupt=options.on_interrupt or "stop",
        experiment=options.experiment,
        tags=tuple(dict.fromkeys(options.tags)),
        note=options.note,
    )


def _settings(options: cell.Options) -> tuple[dict[str, Any], ...]:
    """The fields of each combination of model, effort and think mode; the last varies first."""
    models: list[dict[str, Any]] = []
    for written in dict.fromkeys(options.models):
        provider, model = provider_and_model(written)
        models.append({"llm_model_provider": provider, "llm_model_name": model})
    efforts = [{"llm_reasoning_effort": effort} for effort in dict.fromkeys(options.efforts)]
    thinks = [{"think_mode": think} for think in dict.fromkeys(options.thinks)]
    combined = itertools.product(models or [{}], efforts or [{}], thinks or [{}])
    return tuple({**model, **effort, **think} for model, effort, think in combined)


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
    """The fields of the invoke body that all settings share, the two of ``input`` among them; only those said."""
    fields: dict[str, Any] = {}
    texts = {
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
            raise ConfigError(f"--file takes a URL that the service can read, not {without_user(f'://{url}')[3:]!r}.")
    if options.files:
        fields["files"] = list(options.files)
    return _with_set(fields, cell.parse_set(options.set), options)


def _with_set(fields: dict[str, Any], given: dict[str, Any], options: cell.Options) -> dict[str, Any]:
    for name in given:
        if name in ("input", "files", "user"):
            raise ConfigError(f"--set {name}: that field is made of {FIELD_OPTIONS['input']}.")
        if name in fields or name in _said_otherwise(options):
            raise ConfigError(f"--set {name} and {FIELD_OPTIONS[name]} both give that field. Leave one out.")
    if isinstance(given.get("output_schema"), dict):
        schema_from(given["output_schema"])
    return {**fields, **given}


def _said_otherwise(options: cell.Options) -> set[str]:
    """The fields of the invoke body that ``_fields`` leaves out, and that an option gives."""
    said = {"llm_model_provider", "llm_model_name"} if options.models else set()
    for name, value in (("llm_reasoning_effort", options.efforts), ("think_mode", options.thinks)):
        said |= {name} if value else set()
    return said | ({"id"} if options.thread is not None else set())


def provider_and_model(written: str) -> tuple[str, str]:
    """The two halves of PROVIDER/MODEL; ConfigError where it isn't that."""
    provider, slash, model = written.partition("/")
    if not (provider and slash and model):
        raise ConfigError(f"--model takes PROVIDER/MODEL, such as openai/gpt-5, not {written!r}. See %xpander models.")
    return provider, model


def _threads(
    given: Any, variables: Mapping[str, Any], client: Client, find_run: Callable[[str], Run | None]
) -> tuple[str, ...]:
    """The ids of the conversations that are meant: one, or one for each of several runs."""
    value = variables.get(given, given) if isinstance(given, str) else given
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (_thread(given, variables, client, find_run),)
    if not value:
        raise ConfigError("--thread: there are no runs to go on with.")
    without = sum(isinstance(run, Run) and run.thread_id is None for run in value)
    if without:
        raise ConfigError(f"--thread: {without} of the {len(value)} runs have no conversation: they started no task.")
    return tuple(_thread(run, variables, client, find_run) for run in value)


def _thread(given: Any, variables: Mapping[str, Any], client: Client, find_run: Callable[[str], Run | None]) -> str:
    """A conversation's id: of a run, of a variable that holds one, of a kept run, or one that the service knows."""
    named = given
    if isinstance(given, str):
        held = variables.get(given)
        given = held if isinstance(held, str) else given  # as a column of ids
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


def _schema(given: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    return schema_from(variables[given] if isinstance(given, str) and given in variables else given)


def _named(option: str, given: Any, variables: Mapping[str, Any], *, several: bool = False) -> Any:
    """The dict that an option names, or with ``several`` a list of them; from Python, the value itself."""
    if given is None:
        return None
    value = given
    if isinstance(given, str):
        if not given.isidentifier():  # the thing itself, perhaps, which is nobody's business
            raise ConfigError(f"{option} takes the name of a variable in the notebook that holds a dict.")
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


def refuse_secrets(prompts: Iterable[str], fields: Mapping[str, Any], secrets: Sequence[tuple[str, str]]) -> None:
    """Raises SecretError where something that will be read by a model holds a secret, in whatever way it is written."""
    public = {name: value for name, value in fields.items() if name not in SECRET_FIELDS}
    texts = [
        *(
            (f"The prompt of input {number + 1}" if number else "The prompt", text)
            for number, text in enumerate(prompts)
        ),
        *((f"The field {n}", text) for n, v in public.items() for text in strings_in(v)),
    ]
    redact = Redactor(secret for _, secret in secrets)
    for what, text in texts:
        held = redact.held_in(text)
        if held:
            whose = next(whose for whose, secret in secrets if secret in held)
            raise SecretError(f"{what} holds {whose}. Nothing was sent. To send it all the same: --allow-secrets")


def reply_options(run: Run, text: str, client: Client) -> cell.Options:
    """The options that go on with a run's conversation as it was begun; ``text`` is what will be sent.

    Raises:
        ConfigError: it has no conversation, was sent elsewhere, or with secrets, which aren't kept.
    """
    if not isinstance(text, str):
        raise ConfigError(f"reply takes a text, not a value of type {type(text).__name__}.")
    check_service(run, client)
    if run.thread_id is None:
        raise ConfigError(f"Run {run.run_id[:8]} has no conversation to go on with: it started no task.")
    _check_no_secret(run, f"Give them anew: %%xpander --thread {run.run_id[:8]} …")
    return replace(options_like(run), thread=run)


def repeat_options(run: Run, tags: Iterable[str], client: Client) -> cell.Options:
    """The options that ask all of what a run asked once more, under these tags.

    Raises:
        ConfigError: it was a turn of a conversation, which has gone on since; was sent elsewhere, or with secrets.
    """
    check_service(run, client)
    if run.request.get("id") is not None:
        raise ConfigError(
            f"Run {run.run_id[:8]} went on with a conversation, which has grown by it: the same can't be asked again."
        )
    files = tuple(run.request.get("input", {}).get("files") or ())
    _check_no_secret(run, "Run its cell again with -n 2.", files)
    return replace(options_like(run), tags=tuple(tags), files=files, title=run.request.get("title"))


def _check_no_secret(run: Run, otherwise: str, files: Sequence[str] = ()) -> None:
    settings = [value for name, value in run.request.items() if name != "input"]
    if any(MASK in given for given in strings_in([settings, files])):
        raise ConfigError(
            f"Run {run.run_id[:8]} was sent with a secret, which isn't kept, so its settings can't be sent again.\n"
            f"{otherwise}"
        )


def options_like(run: Run) -> cell.Options:
    """The options that ask the same of the same target as a run did, of a prompt that is sent as it is."""
    model = f"{run.requested_provider}/{run.requested_model}" if run.requested_model else None
    request = run.request
    # What has an option below is left out here, and what is for the service alone wasn't kept.
    others = {n: v for n, v in request.items() if n not in FIELD_OPTIONS and n not in SECRET_FIELDS}
    payload = {n: v for n, v in (request.get("payload_extension") or {}).items() if n != MARK}
    return cell.Options(
        target=f"{run.target_kind}:{run.target_id}",
        models=(model,) if model else (),
        efforts=(run.requested_effort,) if run.requested_effort else (),
        thinks=(request["think_mode"],) if request.get("think_mode") else (),
        version=run.version,
        instructions=request.get("instructions_override"),
        context=request.get("additional_context"),
        expected_output=request.get("expected_output"),
        format=request.get("output_format"),
        schema=request.get("output_schema"),
        user=request.get("input", {}).get("user"),
        payload=payload or None,
        set=cell.as_set(others),
        mode=run.mode,
        experiment=run.experiment,
        tags=tuple(run.tags),
        raw=True,
    )
