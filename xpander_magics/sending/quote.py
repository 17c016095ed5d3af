"""What a run or a sweep would take, before it is sent: requests, time, and what earlier runs of the same kind used."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xpander_magics.cell import Options
from xpander_magics.plans.grid import Grid
from xpander_magics.plans.plan import Plan
from xpander_magics.results import Run
from xpander_magics.sending.sweeps import reusable
from xpander_magics.service.client import Client, poll_pauses
from xpander_magics.store import Store
from xpander_magics.tally import counted

# So many of the newest runs of the same target are looked at.
LOOKED_AT = 1000
_PROMPTS_SHOWN = 3

Kind = tuple[str | None, str | None, str | None, str | None]
"""Runs of one kind ask the same of the same target: its id, the provider, the model, the effort."""


@dataclass(frozen=True)
class Estimate:
    """A figure over all runs, as earlier runs suggest, with what nine in ten of them stay above and below.

    Attributes:
        runs: how many earlier runs it is taken from.
        unknown: of how many runs no earlier one of their kind tells.
    """

    total: float
    low: float
    high: float
    runs: int
    unknown: int = 0


@dataclass(frozen=True)
class Quote:
    """What would be sent.

    Attributes:
        runs: how many runs, without those that are reused.
        requests: how many requests: calls, usage, and polls where they are polled.
        polled: whether it depends on how long the runs take, so that the requests are at the least so many.
        minutes: the least that the rate limit allows.
        seconds: of one run after the other; tokens, cost_usd: of all. None where no earlier run says.
        reused: the kept runs that would be taken in place of new ones.
    """

    runs: int
    requests: int
    polled: bool
    minutes: float
    seconds: Estimate | None
    tokens: Estimate | None
    cost_usd: Estimate | None
    reused: Sequence[str] = ()


def quote(
    kinds: Mapping[Kind, int],
    earlier: Iterable[Run],
    *,
    mode: str,
    usage: bool,
    rpm: float | None = None,
    limit: float | None = None,
    reused: Sequence[str] = (),
) -> Quote:
    """The quote for runs of these kinds, so many each.

    Args:
        earlier: completed runs; those of a kind count.
        rpm: the most requests a minute, evenly spaced.
        limit: the most in any minute, as the service allows.
    """
    runs = sum(kinds.values())
    known = list(earlier)
    seconds = _estimate(kinds, known, lambda run: run.latency_s)
    polls = 0
    if mode == "async":
        each = seconds.total / max(runs - seconds.unknown, 1) if seconds else 0.0
        polls = runs * _polls(each)
    requests = runs * (1 + usage) + polls
    spaced = (requests - 1) / rpm if rpm and requests else 0.0
    allowed = max(requests - limit, 0) / limit if limit else 0.0
    return Quote(
        runs=runs,
        requests=requests,
        polled=mode == "async",
        minutes=max(spaced, allowed),
        seconds=seconds,
        tokens=_estimate(kinds, known, lambda run: run.total_tokens),
        cost_usd=_estimate(kinds, known, lambda run: run.cost_usd),
        reused=reused,
    )


def told(planned: Plan | Grid, options: Options, client: Client, store: Store) -> str:
    """The prompts, or the first of them, and the quote in words."""
    return "\n\n".join([*_shown(planned), "\n".join(quoted(planned, options, client, store))]) + "\n"


def quoted(planned: Plan | Grid, options: Options, client: Client, store: Store) -> list[str]:
    """The quote in words, a line a fact."""
    reused: Sequence[str] = ()
    if isinstance(planned, Plan):
        count = jobs = 1
        kinds, names = Counter([_kind(planned.run)]), {planned.run.target}
        mode, usage = planned.mode, planned.usage
        kept = store.cached(planned.run.cache_key or "") if options.cached else None
        if kept is not None:
            reused, kinds = [kept.run_id], Counter()
    else:
        count, jobs, usage = len(planned), planned.jobs, planned.usage
        names, mode = {terms.target.name for terms in planned.terms}, planned.terms[0].mode
        kept_ones = reusable(planned, client, store) if planned.cached else {}
        reused = list(kept_ones.values())
        kinds = _kinds_of(planned, kept_ones.keys())
    earlier = [run for name in names for run in store.select(target=name, status="completed", limit=LOOKED_AT)]
    found = quote(
        kinds, earlier, mode=mode, usage=usage, rpm=options.rpm, limit=client.rate_limit or None, reused=reused
    )
    return lines(found, count, ", ".join(sorted(name or "" for name in names)[:3]), jobs)


def _shown(planned: Plan | Grid) -> list[str]:
    if isinstance(planned, Plan):
        return [planned.run.prompt or ""]
    prompts = [planned.redact(one.prompt) for one in planned.inputs[:_PROMPTS_SHOWN]]
    many = len(planned.inputs)
    shown = [f"--- input {number + 1} of {many:,}\n{prompt}" for number, prompt in enumerate(prompts)]
    return shown + ([f"--- and {many - len(prompts):,} more"] if many > len(prompts) else [])


def _kind(run: Run) -> Kind:
    return run.target_id, run.requested_provider, run.requested_model, run.requested_effort


def _kinds_of(grid: Grid, reused: Iterable[int]) -> Counter[Kind]:
    """How many runs of a grid are of each kind, but for those that are reused."""
    kinds: Counter[Kind] = Counter()
    for one in grid.inputs:
        terms = grid.terms[one.terms]
        for setting in terms.settings:
            kinds[_kind_of(terms.target.id, setting)] += grid.repeat * len(terms.threads)
    for number in reused:
        job = grid.job(number)
        kinds[_kind_of(job.terms.target.id, job.setting)] -= 1
    return +kinds  # without those of which none is left


def _kind_of(target_id: str, setting: Mapping[str, str]) -> Kind:
    asked = (setting.get(name) for name in ("llm_model_provider", "llm_model_name", "llm_reasoning_effort"))
    provider, model, effort = asked
    return target_id, provider, model, effort


def _estimate(
    kinds: Mapping[Kind, int], earlier: Sequence[Run], figure: Callable[[Run], float | None]
) -> Estimate | None:
    total = low = high = 0.0
    looked = unknown = 0
    for kind, count in kinds.items():
        known = [value for run in earlier if _kind(run) == kind and (value := figure(run)) is not None]
        if not known:
            unknown += count
            continue
        tenths = statistics.quantiles(known, n=10, method="inclusive") if len(known) > 1 else [known[0]] * 9
        total += count * statistics.median(known)
        low, high, looked = low + count * tenths[0], high + count * tenths[-1], looked + len(known)
    return Estimate(total, low, high, looked, unknown) if looked else None


def _polls(seconds: float) -> int:
    """How often a task that takes so long is polled; once at the least."""
    polls, at = 0, 0.0
    for pause in poll_pauses():
        polls, at = polls + 1, at + pause
        if at >= seconds:
            break
    return polls


def lines(found: Quote, count: int, where: str, jobs: int = 1) -> list[str]:
    """The quote in words, a line a fact.

    Args:
        count: how many runs there are, the reused ones among them.
        where: the target's name.
    """
    least = " or more, with its polls" if found.polled else ""
    said = [f"Nothing was sent. {counted(count, 'run')}, {counted(found.requests, 'request')}{least}, to {where}."]
    if found.reused:
        said.append(f"--cached reuses {counted(len(found.reused), 'kept run')}, such as {found.reused[0][:8]}.")
    if not found.runs:
        return said
    if found.minutes:
        minutes = f"{found.minutes:.2g}" if found.minutes < 10 else f"{found.minutes:,.0f}"
        said.append(f"At least {minutes} minute{'s' * (minutes != '1')}, as the rate limit allows.")
    for name, estimate, form in (
        ("seconds", found.seconds, "{:,.1f} s"),
        ("tokens", found.tokens, "{:,.0f} tokens"),
        ("cost", found.cost_usd, "${:,.5f}"),
    ):
        if estimate is None:
            said.append(f"No earlier run of this kind tells its {name}.")
            continue
        middle, low, high = (form.format(v) for v in (estimate.total, estimate.low, estimate.high))
        rest = f"; nothing is known of {estimate.unknown:,} of the runs" if estimate.unknown else ""
        at_once = ""
        if name == "seconds" and found.runs > 1:
            at_once = f" one after the other, {form.format(estimate.total / min(jobs, found.runs))} with -j {jobs}"
        basis = counted(estimate.runs, "earlier run")
        said.append(f"About {middle}{at_once} ({low} to {high}, as {basis} suggest{'s' * (estimate.runs == 1)}{rest}).")
    return said
