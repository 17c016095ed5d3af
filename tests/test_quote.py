"""What a dry run says: counts, polls, minutes, and what earlier runs suggest. Nothing is sent."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from fault_server import FaultServer
from notebook_shell import Notebook

from xpander_magics.cell import parse_cell
from xpander_magics.config import Settings
from xpander_magics.results import Run
from xpander_magics.sending.quote import Quote, lines, quote
from xpander_magics.service.client import poll_pauses
from xpander_magics.session import Session

WRITER = "00000000-0000-4000-8000-000000000001"
SECRET = "sk-a-secret-of-mine-0815"
SMALL = (WRITER, "openai", "gpt-5-mini", None)
LARGE = (WRITER, "openai", "gpt-5", None)


def told(session: Session, line: str, template: str = "hi", **variables: Any) -> str:
    """What a dry run of a sweep says."""
    options = parse_cell(line)
    return session.dry_run(session.grid(options, template, variables), options)


def earlier(model: str | None, seconds: float | None, tokens: int | None = None, **more: Any) -> Run:
    """A completed run of the writer."""
    provider = "openai" if model else None
    fields: dict[str, Any] = {"target_id": WRITER, "target": "writer", "status": "completed", **more}
    return Run(requested_provider=provider, requested_model=model, latency_s=seconds, total_tokens=tokens, **fields)


def polls_of(seconds: float) -> int:
    """How many polls it takes until so many seconds have passed."""
    passed = list(itertools.takewhile(lambda at: at < seconds, itertools.accumulate(poll_pauses())))
    return len(passed) + 1


# ---- counts and minutes


@pytest.mark.parametrize(
    ("kinds", "mode", "usage", "requests"),
    [
        ({LARGE: 12}, "stream", False, 12),
        ({LARGE: 12}, "sync", True, 24),
        ({LARGE: 10, SMALL: 2}, "async", False, 24),
        ({LARGE: 12}, "async", True, 36),
        ({}, "async", True, 0),
    ],
)
def test_requests_are_calls_usage_and_polls(kinds: Any, mode: str, usage: bool, requests: int) -> None:
    found = quote(kinds, [], mode=mode, usage=usage)
    assert (found.runs, found.requests, found.polled) == (sum(kinds.values()), requests, mode == "async")
    assert (found.minutes, found.seconds, found.tokens, found.cost_usd) == (0.0, None, None, None)


def test_polls_are_as_many_as_earlier_runs_took() -> None:
    found = quote({LARGE: 10}, [earlier("gpt-5", 20.0)], mode="async", usage=False)
    assert found.requests == 10 + 10 * polls_of(20.0)
    assert polls_of(20.0) > 5
    # Of those that nothing is known of, each is taken to be as long as the others.
    found = quote({LARGE: 10, SMALL: 5}, [earlier("gpt-5", 20.0)], mode="async", usage=False)
    assert found.requests == 15 + 15 * polls_of(20.0)


def test_minutes_under_a_rate_and_under_the_services_limit() -> None:
    assert quote({LARGE: 61}, [], mode="sync", usage=False, rpm=30).minutes == 2.0
    assert quote({LARGE: 61}, [], mode="sync", usage=True, rpm=121).minutes == 1.0
    assert quote({LARGE: 1}, [], mode="sync", usage=False, rpm=1).minutes == 0.0
    # The service lets the first minute's requests go at once.
    assert quote({LARGE: 60}, [], mode="sync", usage=False, limit=60).minutes == 0.0
    assert quote({LARGE: 180}, [], mode="sync", usage=False, limit=60).minutes == 2.0
    assert quote({LARGE: 181}, [], mode="sync", usage=False, rpm=10, limit=60).minutes == 18.0
    assert quote({LARGE: 181}, [], mode="sync", usage=False, rpm=600, limit=1).minutes == 180.0
    assert quote({}, [], mode="sync", usage=False, rpm=1, limit=1).minutes == 0.0


# ---- what earlier runs suggest


def test_totals_and_spread_are_of_all_runs() -> None:
    known = [earlier("gpt-5", float(n), 10 * n, cost_usd=n / 100) for n in range(1, 12)]
    found = quote({LARGE: 100}, known, mode="sync", usage=False)
    assert found.seconds is not None
    assert (found.seconds.total, found.seconds.runs, found.seconds.unknown) == (600.0, 11, 0)
    assert (found.seconds.low, found.seconds.high) == (200.0, 1000.0)
    assert found.tokens is not None
    assert (found.tokens.total, found.tokens.low, found.tokens.high) == (6000.0, 2000.0, 10000.0)
    assert found.cost_usd is not None
    assert found.cost_usd.total == pytest.approx(6.0)


def test_kinds_are_added_up_each_with_its_own_runs() -> None:
    known = [earlier("gpt-5", 4.0, 400), earlier("gpt-5-mini", 1.0, 100), earlier("gpt-5-mini", 1.0, None)]
    found = quote({LARGE: 10, SMALL: 20}, known, mode="sync", usage=False)
    assert found.seconds is not None
    assert found.tokens is not None
    assert (found.seconds.total, found.seconds.low, found.seconds.high, found.seconds.runs) == (60.0, 60.0, 60.0, 3)
    assert (found.tokens.total, found.tokens.runs) == (6000.0, 2)
    assert found.cost_usd is None


@pytest.mark.parametrize(
    "other",
    [
        earlier("gpt-5", 9.0, requested_effort="low"),
        earlier("gpt-5-nano", 9.0),
        earlier(None, 9.0),
        earlier("gpt-5", 9.0, target_id="another"),
        earlier("gpt-5", None, 5),
    ],
    ids=["effort", "model", "no model", "target", "no time"],
)
def test_runs_of_another_kind_say_nothing(other: Run) -> None:
    assert quote({LARGE: 3}, [other], mode="sync", usage=False).seconds is None


def test_what_nothing_is_known_of_is_counted() -> None:
    unknown = (WRITER, "anthropic", "claude-sonnet-4-6", "high")
    found = quote({LARGE: 10, unknown: 4, SMALL: 3}, [earlier("gpt-5", 2.0)], mode="sync", usage=False)
    assert found.seconds is not None
    assert (found.seconds.total, found.seconds.unknown, found.seconds.runs) == (20.0, 7, 1)
    assert "nothing is known of 7 of the runs" in "\n".join(lines(found, 17, "writer"))


# ---- in words


def test_the_words() -> None:
    known = [earlier("gpt-5", 2.0, 1000, cost_usd=0.5)] * 2
    found = quote({LARGE: 1200}, known, mode="async", usage=True, rpm=10)
    assert lines(found, 1250, "writer", 20) == [
        f"Nothing was sent. 1,250 runs, {found.requests:,} requests or more, with its polls, to writer.",
        f"At least {found.minutes:,.0f} minutes, as the rate limit allows.",
        "About 2,400.0 s one after the other, 120.0 s with -j 20 (2,400.0 s to 2,400.0 s, as 2 earlier runs suggest).",
        "About 1,200,000 tokens (1,200,000 tokens to 1,200,000 tokens, as 2 earlier runs suggest).",
        "About $600.00000 ($600.00000 to $600.00000, as 2 earlier runs suggest).",
    ]


def test_the_words_for_one_and_for_none() -> None:
    found = quote({LARGE: 1}, [earlier("gpt-5", 2.0)], mode="sync", usage=False)
    assert lines(found, 1, "writer") == [
        "Nothing was sent. 1 run, 1 request, to writer.",
        "About 2.0 s (2.0 s to 2.0 s, as 1 earlier run suggests).",
        "No earlier run of this kind tells its tokens.",
        "No earlier run of this kind tells its cost.",
    ]
    assert lines(Quote(0, 0, False, 0.0, None, None, None, ["abcdefghijk"]), 1, "writer") == [
        "Nothing was sent. 1 run, 0 requests, to writer.",
        "--cached reuses 1 kept run, such as abcdefgh.",
    ]


@pytest.mark.parametrize(
    ("minutes", "says"), [(0.04, "0.04 minutes"), (1.0, "1 minute,"), (9.99, "10 minutes"), (12345.6, "12,346 minutes")]
)
def test_the_words_for_minutes(minutes: float, says: str) -> None:
    assert f"At least {says}" in lines(Quote(1, 1, False, minutes, None, None, None), 1, "writer")[1]


# ---- dry runs


def test_a_dry_run_counts_all_combinations_and_starts_nothing(session: Session, service: FaultServer) -> None:
    rows = [{"a": n, "b": "x"} for n in range(5)]
    shown = told(
        session,
        "writer --over rows -m openai/gpt-5,openai/gpt-5-mini -e low,high --think default,harder -n 3 --usage --rpm 60",
        "Look at {{ a }}",
        rows=rows,
    )
    assert shown.startswith(
        "--- input 1 of 5\nLook at 0\n\n--- input 2 of 5\nLook at 1\n\n--- input 3 of 5\nLook at 2\n\n"
    )
    assert "--- and 2 more" in shown
    assert "Look at 3" not in shown
    assert "Nothing was sent. 120 runs, 240 requests, to writer." in shown
    assert "At least 4 minutes, as the rate limit allows." in shown
    assert shown.count("No earlier run of this kind tells its") == 3
    assert not service.requests("POST *")
    assert session.store.select() == []


def test_a_dry_run_knows_the_services_own_limit(session: Session, service: FaultServer) -> None:
    assert "minute" not in told(session, "writer -n 60 --mode sync")
    session.configure(Settings(base_url=service.url, store=session.settings.store, rate_limit=10))
    assert "At least 5 minutes, as the rate limit allows." in told(session, "writer -n 60 --mode sync")


def test_a_dry_run_asks_earlier_runs_of_its_target(session: Session, service: FaultServer) -> None:
    session.store.add(
        [
            *(earlier("gpt-5", 2.0, 100) for _ in range(3)),
            earlier("gpt-5", 50.0, 1, status="failed"),
            earlier("gpt-5", 99.0, 1, target_id="of another service"),
        ]
    )
    shown = told(session, "writer -m openai/gpt-5,openai/gpt-5-mini -n 10 -j 4")
    assert "About 20.0 s one after the other, 5.0 s with -j 4" in shown
    assert "as 3 earlier runs suggest; nothing is known of 10 of the runs)" in shown
    assert "About 1,000 tokens" in shown
    assert not service.requests("POST *")


def test_a_dry_run_of_rows_with_targets_of_their_own(session: Session, service: FaultServer) -> None:
    rows = [{"who": "writer"}, {"who": "Ticket Sorter"}, {"who": "workflow:pipeline"}]
    session.store.add([earlier(None, 2.0)])
    shown = told(session, "'{{ who }}' --over rows -n 2", rows=rows)
    assert "6 runs, 6 requests, to Ticket Sorter, pipeline, writer." in shown
    assert "as 1 earlier run suggests; nothing is known of 4 of the runs)" in shown


def test_a_dry_run_says_what_would_be_reused(session: Session, service: FaultServer) -> None:
    rows = [{"a": n} for n in range(4)]
    options = parse_cell("writer --over rows -e low -j 2")
    first = session.sweep(session.grid(options, "{{ a }}", {"rows": rows[:3]}), lambda tally: None)
    sent = len(service.requests("POST *"))
    shown = told(session, "writer --over rows -e low,high --cached", "{{ a }}", rows=rows)
    assert "8 runs, 5 requests, to writer." in shown
    assert f"--cached reuses 3 kept runs, such as {first[0].run_id[:8]}." in shown
    assert "nothing is known of 4 of the runs" in shown
    shown = told(session, "writer --over rows -e low --cached --rpm 1", "{{ a }}", rows=rows[:3])
    assert "3 runs, 0 requests, to writer." in shown
    assert "minute" not in shown
    assert "About" not in shown
    assert "reuses" not in told(session, "writer --over rows -e low", "{{ a }}", rows=rows[:3])
    assert len(service.requests("POST *")) == sent == 3


def test_what_is_all_reused_of_a_kind_suggests_nothing(session: Session) -> None:
    options = parse_cell("writer -e low -n 3")
    session.sweep(session.grid(options, "hi", {}), lambda tally: None)
    shown = told(session, "writer -e low,high -n 3 --cached")
    assert "6 runs, 3 requests, to writer." in shown
    assert "No earlier run of this kind tells its seconds." in shown


def test_secrets_are_masked_in_what_is_shown(
    session: Session, service: FaultServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SOME_TOKEN", SECRET)
    rows = [{"a": f"say {SECRET}"}, {"a": f"and {service.key}"}]
    shown = told(session, "writer --over rows --allow-secrets", "{{ a }}", rows=rows)
    assert "say ***" in shown
    assert "and ***" in shown
    assert SECRET not in shown
    assert service.key not in shown


def test_a_dry_run_in_a_notebook(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.ns["rows"] = [{"a": "x\x1b[2J\u202e<script>"}, {"a": "y"}]
    before = notebook.newest_tasks()
    capsys.readouterr()
    assert notebook.run("%%xpander echo --over rows -n 2 --dry-run -o never\nAbout {{ a }}") is None
    shown = capsys.readouterr().out
    assert "--- input 1 of 2\nAbout x" in shown
    assert "4 runs, 4 requests, to echo." in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    assert "never" not in notebook.ns
    assert notebook.newest_tasks() == before
    assert len(notebook.run("%xpander runs")) == 0
