"""What a sweep is made of: inputs, settings and repeats, rendered and checked before any is sent.

A run of it is a number until it is due: a hundred thousand of them take little memory, and any process
that has the grid makes the same run of a number, with the same id.
"""

from __future__ import annotations

import itertools
import json
import uuid
import zlib
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics import cell
from xpander_magics.contract import SECRET_FIELDS
from xpander_magics.errors import ConfigError, StoreError, XpanderError, did_you_mean
from xpander_magics.plans.plan import Job, Plan, check_prompt, redactor
from xpander_magics.plans.template import Template, as_json
from xpander_magics.plans.terms import Terms, make_terms
from xpander_magics.results import Run
from xpander_magics.safety import Redactor, unpacked
from xpander_magics.service.client import Client
from xpander_magics.service.targets import Target

if TYPE_CHECKING:
    from xpander_magics.scoring.landing import Scoring

_MOST_RUNS, _JOBS = 1_000_000, 20
_RECORD, _LARGEST_RECORD = 1, 2**30  # the version of what ``Grid.record`` writes; in bytes


class Input(NamedTuple):
    """A prompt, the variables that it was made of, and the number of its ``Terms``."""

    prompt: str
    variables: dict[str, Any]
    terms: int = 0


@dataclass
class Grid:
    """All runs of a sweep, by numbers: the repeats of one setting of one input are neighbours.

    Attributes:
        base_url: the service that it was made for.
        jobs: the most that are under way at once.
        rpm: the most requests a minute; None for what the service allows.
        cached: whether kept runs that asked the same are reused.
        reuse: the kept runs that are, by number.
        ids: the ids of runs that are tried again, by number.
        withheld: whether this was read from a record, which leaves secrets out: nothing can be sent.
        scores: the scorers as they are written; expected: the variable that they go by.
        scoring: what scores the runs as they land; what ``scores`` says, once somebody has read it.
    """

    template: str = field(repr=False)
    inputs: Sequence[Input] = field(repr=False)
    terms: Sequence[Terms] = field(repr=False)
    redact: Redactor = field(repr=False)
    base_url: str
    repeat: int = 1
    jobs: int = _JOBS
    rpm: float | None = None
    timeout: float | None = None
    usage: bool = False
    cached: bool = False
    reuse: dict[int, str] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    sweep_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    withheld: bool = False
    scores: Sequence[str] = ()
    expected: str | None = None
    scoring: Scoring | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._namespace = uuid.UUID(self.sweep_id)
        self._settings, self._threads = len(self.terms[0].settings), len(self.terms[0].threads)

    def __len__(self) -> int:
        return len(self.inputs) * self._threads * self._settings * self.repeat

    @property
    def experiment(self) -> str | None:
        """The experiment that all its runs belong to, if it is one."""
        named = {terms.experiment for terms in self.terms}
        return self.redact(named.pop()) if len(named) == 1 else None

    def order(self) -> Iterator[int]:
        """The numbers in the order of sending.

        Each input has all its settings before the next input begins, so that comparisons fill evenly; each
        begins with another setting, so that none is always first. All is sent once before anything is
        repeated, so that repeats are as far apart in time as can be.
        """
        many = self._settings
        for repeat in range(self.repeat):
            for group in range(len(self.inputs) * self._threads):
                for place in range(many):
                    yield (group * many + (group + place) % many) * self.repeat + repeat

    def run_id(self, number: int) -> str:
        """The id of a run, the same in every process."""
        return self.ids.get(number) or uuid.uuid5(self._namespace, str(number)).hex

    def again(self, run_id: str) -> str:
        """The id of the run that tries this one again, the same in every process."""
        return uuid.uuid5(self._namespace, run_id).hex

    def thread(self, number: int) -> str | None:
        """The conversation that a run goes on with."""
        group = number // (self.repeat * self._settings)
        terms = self.terms[self.inputs[group // self._threads].terms]
        return terms.threads[group % self._threads] or terms.fields.get("id")

    def job(self, number: int) -> Job:
        """A run by its number."""
        rest, repeat = divmod(number, self.repeat)
        group, setting = divmod(rest, self._settings)
        prompt, variables, place = self.inputs[group // self._threads]
        terms = self.terms[place]
        return Job(
            number=number,
            run_id=self.run_id(number),
            sweep_id=self.sweep_id,
            prompt=prompt,
            variables=variables,
            template=self.template,
            terms=terms,
            setting=terms.settings[setting],
            thread=terms.threads[group % self._threads],
            repeat=repeat + 1,
            timeout=self.timeout,
            usage=self.usage,
        )

    def plan(self, number: int, client: Client, run: Run | None = None) -> Plan:
        """A run made ready to be sent; ``run`` is what has been kept of it."""
        return self.job(number).plan(client, self.redact, run)

    def record(self) -> bytes:
        """All of it, without secrets, for ``restore`` in another kernel."""
        told: dict[str, Any] = {
            **{name: getattr(self, name) for name in _RECORDED},
            "version": _RECORD,
            "terms": [{**asdict(one), "fields": _without_secrets(one.fields)} for one in self.terms],
            "inputs": self.inputs,
            "withheld": self.withheld or any(set(SECRET_FIELDS) & one.fields.keys() for one in self.terms),
        }
        text = json.dumps(told, default=str)
        if self.redact.finds(text):
            sent = [one.prompt for one in self.inputs], told["terms"]
            told["withheld"] = told["withheld"] or self.redact.finds(json.dumps(sent, default=str))
            # The values alone: a secret may be a word that is a name here.
            told["template"], told["inputs"] = self.redact(self.template), self.redact(self.inputs)
            told["scores"] = self.redact(list(self.scores))
            told["terms"] = [{name: self.redact(value) for name, value in one.items()} for one in told["terms"]]
            text = json.dumps(told, default=str)
        return zlib.compress(text.encode("utf-8", "surrogatepass"), 1)

    @classmethod
    def restore(cls, record: bytes, client: Client) -> Grid:
        """The grid that ``record`` wrote.

        Raises:
            ConfigError: a newer version wrote it, or it is damaged.
        """
        told = _told(record)
        terms = [_terms_from(one) for one in told["terms"]]
        return cls(
            **{name: told[name] for name in _RECORDED if name in told and name != "reuse"},
            reuse=reused_in(record),
            inputs=[Input(*one) for one in told["inputs"]],
            terms=terms,
            redact=redactor(terms, (), client, allow_secrets=True),
            base_url=client.base_url,
            withheld=told["withheld"],
        )


def reused_in(record: bytes) -> dict[int, str]:
    """The kept runs that a sweep took in place of new ones: their ids by their numbers in it."""
    return {int(number): run_id for number, run_id in _told(record)["reuse"].items()}


def _told(record: bytes) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(unpacked(record, _LARGEST_RECORD).decode("utf-8", "surrogatepass"))
        if told["version"] > _RECORD:
            raise ConfigError("A newer xpander_magics began this sweep: upgrade this one, or go on with it there.")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError("What is kept of this sweep is damaged: it can't be gone on with.") from error
    return told


_RECORDED = (
    *("sweep_id", "template", "repeat", "jobs", "rpm", "timeout", "usage", "cached", "reuse"),
    *("scores", "expected"),
)


def _without_secrets(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in SECRET_FIELDS}


def _terms_from(told: dict[str, Any]) -> Terms:
    lists = {name: tuple(told[name]) for name in ("settings", "threads", "tags")}
    return Terms(**{**told, **lists, "target": Target(**told["target"])})


def make_grid(
    options: cell.Options,
    template: str,
    variables: Mapping[str, Any],
    client: Client,
    find_run: Callable[[str], Run | None],
) -> Grid:
    """Renders and checks all of a sweep; asks the service for its lists at the most. Errors as ``plan.make_plan``."""
    template = template.removesuffix("\n")
    rows = rows_of(options.over, variables) if options.over is not None else [{}]
    names = set().union(*rows) if rows else set()
    compiled = None if options.raw else Template(template)
    asked = _named_in(options)
    if len(rows) > 1:
        _check_repeatable((asked | set(compiled.names if compiled else ())) - names, variables)
    if asked & names:
        terms = [
            _for_row(row, number, len(rows), options, ChainMap(row, dict(variables)), client, find_run)
            for number, row in enumerate(rows)
        ]
    else:
        terms = [make_terms(options, variables, client, find_run)]
    _check_even(terms)
    count = len(rows) * len(terms[0].settings) * len(terms[0].threads) * (options.repeat or 1)
    if count > _MOST_RUNS:
        raise ConfigError(f"That makes {count:,} runs; a sweep has {_MOST_RUNS:,} at the most. Nothing was sent.")
    inputs = list(_inputs(compiled, template, rows, variables, several_terms=len(terms) > 1))
    return Grid(
        template=template,
        inputs=inputs,
        terms=terms,
        redact=redactor(terms, (one.prompt for one in inputs), client, allow_secrets=bool(options.allow_secrets)),
        base_url=client.base_url,
        repeat=options.repeat or 1,
        jobs=options.jobs or _JOBS,
        rpm=options.rpm,
        timeout=options.timeout,
        usage=options.usage is True,
        cached=bool(options.cached),
    )


class Asking(NamedTuple):
    """A prompt that is sent as it is, with options of its own; ``variables`` are what it was once made of."""

    prompt: str
    options: cell.Options
    variables: dict[str, Any] = {}  # noqa: RUF012  # never changed


def grid_of(
    asked: Iterable[Asking],
    client: Client,
    find_run: Callable[[str], Run | None],
    *,
    template: str | None = None,
    **settings: Any,
) -> Grid:
    """A grid of prompts that have options of their own, each of one setting; nothing in them is rendered.

    Args:
        template: what the prompts were once made of; the first of them when omitted.
        settings: of the ``Grid``: ``repeat``, ``jobs``, ``rpm``, ``timeout``.
    """
    given = list(asked)
    if not given:
        raise ConfigError("There are no runs to go on with.")
    terms: list[Terms] = []
    inputs: list[Input] = []
    for number, (prompt, options, variables) in enumerate(given):
        check_prompt(prompt)
        if not number or options != given[number - 1].options:
            terms.append(make_terms(replace(options, raw=True), {}, client, find_run))
        inputs.append(Input(prompt, variables, len(terms) - 1))
    return Grid(
        template=given[0].prompt if template is None else template,
        inputs=inputs,
        terms=terms,
        redact=redactor(terms, (one.prompt for one in inputs), client, allow_secrets=False),
        base_url=client.base_url,
        **settings,
    )


def _for_row(row: Mapping[str, Any], number: int, many: int, *make: Any) -> Terms:
    try:
        return make_terms(*make)
    except XpanderError as error:
        error.args = (f"{error}\nThat is row {number + 1} of {many}; nothing was sent.",)
        raise


def _check_even(terms: Sequence[Terms]) -> None:
    """Says no to rows that have unequally many runs, such as where two models are the same in one of them."""
    for name, what in (("settings", "combinations of model, effort and think mode"), ("threads", "conversations")):
        first, *others = (len(getattr(one, name)) for one in terms)
        for number, many in enumerate(others, 2):
            if many != first:
                raise ConfigError(
                    f"Each row needs as many {what}: row 1 has {first}, row {number} has {many}. Nothing was sent."
                )


def _named_in(options: cell.Options) -> set[str]:
    """The variables that the options name, in their templates or by a name alone."""
    said = options.said()
    by_name = (said.get(name) for name in ("schema", "user", "payload", "mcp", "thread"))
    named = {value for value in by_name if isinstance(value, str)}
    if not options.raw:
        texts = itertools.chain.from_iterable(v if isinstance(v, tuple) else (v,) for v in said.values())
        for text in filter(cell.is_template, texts):
            named |= set(Template(text, what="An option's value").names)
    return named


def _check_repeatable(names: Iterable[str], variables: Mapping[str, Any]) -> None:
    """Says no to what the first row would use up."""
    for name in names:
        if isinstance(variables.get(name), Iterator):
            kind = type(variables[name]).__name__
            raise ConfigError(f"{name!r} is a {kind}, which can be read but once, and not for each row: list({name}).")


def _inputs(
    compiled: Template | None,
    template: str,
    rows: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    *,
    several_terms: bool,
) -> Iterator[Input]:
    shared = compiled.used(variables) if compiled else {}
    kept = {name: as_json(value) for name, value in shared.items()}
    for number, row in enumerate(rows):
        where = f" (row {number + 1} of {len(rows):,})" if len(rows) > 1 else ""
        prompt = template
        if compiled is not None:
            prompt = compiled.render({**shared, **row}, itertools.chain(row, variables), where)
        check_prompt(prompt, where)
        own = {name: as_json(value) for name, value in row.items()}
        yield Input(prompt, {**kept, **own}, number if several_terms else 0)


def rows_of(over: Any, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that ``--over`` names or gives: of a DataFrame, a list of dicts, or each combination of a dict's lists.

    Raises:
        ConfigError: there is no such variable, it is something else, or it has no rows.
    """
    name = repr(over) if isinstance(over, str) else "it"
    if isinstance(over, str):
        if over not in variables:
            hint = did_you_mean(over, [known for known in variables if not known.startswith("_")])
            raise ConfigError(f"--over: there is no variable {over!r} in the notebook. {hint}".rstrip())
        over = variables[over]
    if isinstance(over, Mapping):
        rows = _combinations(over)
    elif hasattr(over, "to_dicts"):  # polars
        rows = over.to_dicts()
    elif hasattr(over, "to_dict") and hasattr(over, "columns"):  # pandas
        if len({str(column) for column in over.columns}) < len(over.columns):
            raise ConfigError(f"--over: {name} has two columns of one name; rename one.")
        rows = over.to_dict("records")
    elif isinstance(over, Sequence) and not isinstance(over, str) and all(isinstance(row, Mapping) for row in over):
        rows = list(over)
    else:
        raise ConfigError(
            f"--over takes a DataFrame, [{{'a': 1}}, ...] or {{'a': [1, 2]}}; {name} is of type {type(over).__name__}."
        )
    if not rows:
        raise ConfigError(f"--over: {name} has no rows, so there is nothing to send.")
    return [row if all(type(key) is str for key in row) else {str(k): v for k, v in row.items()} for row in rows]


def _combinations(lists: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    several = {}
    for name, given in lists.items():
        values = given.tolist() if hasattr(given, "tolist") else given
        if isinstance(values, (str, Mapping)) or not isinstance(values, (Sequence, set, frozenset, range)):
            raise ConfigError(f"--over: a dict has a list for each name; {name!r} has a {type(values).__name__}.")
        several[name] = list(values)
    count = 1
    for values in several.values():
        count *= len(values)
    if count > _MOST_RUNS:
        raise ConfigError(f"--over: that makes {count:,} rows; a sweep has {_MOST_RUNS:,} runs at the most.")
    return [dict(zip(several, row, strict=True)) for row in itertools.product(*several.values())] if several else []
