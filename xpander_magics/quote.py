"""What a run would take, before it is sent: requests, and what earlier runs of the same kind used."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from xpander_magics.plan import Plan
from xpander_magics.results import Run

# So many of the newest runs of the same kind are looked at.
LOOKED_AT = 200


@dataclass(frozen=True)
class Estimate:
    """The middle and the range of a figure over earlier runs."""

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Quote:
    """What a plan would take.

    Attributes:
        requests: how many requests at the least: the call, its usage, one poll where it is polled.
        minutes: the least that the rate limit allows.
        seconds, tokens, cost_usd: as earlier runs suggest; None where none say.
        kept: the run that ``--cached`` would reuse, so that nothing would be sent; else None.
    """

    requests: int
    minutes: float
    seconds: Estimate | None
    tokens: Estimate | None
    cost_usd: Estimate | None
    kept: Run | None = None


def quote(plan: Plan, earlier: Sequence[Run], rpm: float | None = None, kept: Run | None = None) -> Quote:
    """The quote for a plan.

    Args:
        earlier: completed runs of the same target; those with the plan's model and effort count.
        rpm: the most requests a minute.
        kept: the run that would be reused, if there is one.
    """
    if kept is not None:
        return Quote(0, 0.0, None, None, None, kept)
    run = plan.run
    alike = [
        e for e in earlier if (e.requested_model, e.requested_effort) == (run.requested_model, run.requested_effort)
    ]
    requests = 1 + int(plan.usage) + int(plan.mode == "async")
    return Quote(
        requests=requests,
        minutes=(requests - 1) / rpm if rpm else 0.0,
        seconds=_estimate([e.latency_s for e in alike]),
        tokens=_estimate([e.total_tokens for e in alike]),
        cost_usd=_estimate([e.cost_usd for e in alike]),
    )


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return Estimate(statistics.median(known), min(known), max(known), len(known)) if known else None


def lines(plan: Plan, found: Quote) -> list[str]:
    """The quote in words, a line a fact."""
    if found.kept is not None:
        when = f" of {found.kept.created_at:%Y-%m-%d %H:%M} UTC" if found.kept.created_at else ""
        return [f"Nothing was sent. 1 run, 0 requests: --cached would reuse run {found.kept.run_id[:8]}{when}."]
    polls = " or more, with its polls" if plan.mode == "async" else ""
    requests = f"{found.requests} request{'s' * (found.requests > 1)}{polls}"
    told = [f"Nothing was sent. 1 run, {requests}, to {plan.run.target_kind} {plan.run.target}."]
    if found.minutes:
        minutes = f"{found.minutes:.2g}" if found.minutes < 10 else f"{found.minutes:,.0f}"
        told.append(f"At least {minutes} minute{'s' * (minutes != '1')}, as --rpm allows.")
    for name, estimate, form in (
        ("seconds", found.seconds, "{:.1f} s"),
        ("tokens", found.tokens, "{:,.0f} tokens"),
        ("cost", found.cost_usd, "${:.5f}"),
    ):
        if estimate is None:
            told.append(f"No earlier run of this kind tells its {name}.")
        else:
            middle, low, high = (form.format(v) for v in (estimate.median, estimate.low, estimate.high))
            runs = f"{estimate.runs} earlier run{'s' * (estimate.runs > 1)}"
            told.append(f"About {middle} ({low} to {high} in {runs}).")
    return told
